//! For how long a log counts as a process' own, where others stand by to take it over.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::journal::error::JournalError;

/// When the last append that was kept began, for other threads.
#[derive(Clone, Debug)]
pub(crate) struct LastKept(Arc<Mutex<Instant>>);

impl LastKept {
    pub fn new(began: Instant) -> Self {
        LastKept(Arc::new(Mutex::new(began)))
    }

    fn set(&self, began: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = began;
    }

    pub fn began(&self) -> std::time::Instant {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).into_std()
    }
}

/// Lasts from the beginning of the last append that was kept. For ever, where nobody stands by. Once it is lost
/// it stays so.
#[derive(Clone, Debug)]
pub(super) struct Lease {
    lasts: Option<Duration>,
    began: Rc<Cell<Instant>>,
    last_kept: LastKept,
    lost_after: Rc<Cell<Option<Duration>>>,
}

impl Lease {
    pub fn new(lasts: Option<Duration>, began: Instant) -> Self {
        let last_kept = LastKept::new(began);
        Lease { lasts, began: Rc::new(Cell::new(began)), last_kept, lost_after: Rc::default() }
    }

    pub fn last_kept(&self) -> LastKept {
        self.last_kept.clone()
    }

    pub fn is_limited(&self) -> bool {
        self.lasts.is_some()
    }

    /// An append that began then has been kept.
    pub fn renew(&self, began: Instant) {
        self.began.set(began);
        self.last_kept.set(began);
    }

    /// What is to be said once it is lost.
    pub fn is_lost(&self, name: &str) -> Option<JournalError> {
        let passed = self.began.get().elapsed();
        if self.lasts.is_some_and(|lasts| passed >= lasts) && self.lost_after.get().is_none() {
            self.lost_after.set(Some(passed));
        }
        let seconds = self.lost_after.get()?.as_secs();
        Some(JournalError::LeaseLost { name: name.into(), seconds })
    }

    /// Waits until it is lost.
    pub async fn lost(&self, name: &str) -> JournalError {
        let Some(lasts) = self.lasts else { return std::future::pending().await };
        loop {
            if let Some(lost) = self.is_lost(name) {
                return lost;
            }
            tokio::time::sleep_until(self.began.get() + lasts).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_lasts_from_the_last_append_that_was_kept_and_is_lost_for_good() {
        let lasts = Duration::from_secs(6);
        let lease = Lease::new(Some(lasts), Instant::now());
        let watched = lease.clone();
        let lost = async move {
            watched.lost("log").await;
            Instant::now()
        };
        let begun = Instant::now();
        let renewals = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(2)).await;
                lease.renew(Instant::now());
            }
            assert_eq!(lease.is_lost("log"), None);
        };
        let (lost_at, ()) = futures::future::join(lost, renewals).await;
        assert_eq!(lost_at - begun, Duration::from_secs(10) + lasts);
        lease.renew(Instant::now());
        assert!(lease.is_lost("log").is_some(), "somebody else may have it");
        let forever = Lease::new(None, begun);
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(forever.is_lost("log"), None);
    }
}

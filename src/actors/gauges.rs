//! Numbers of one concurrency id that others read, or add to, without a message to its supervisor.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::time::Duration;

/// Shared by a supervisor, its listeners and the queue's handles.
///
/// Each number stands for itself, so that no order among them is promised.
#[derive(Debug)]
pub(crate) struct Gauges {
    waiting: AtomicUsize,
    /// Of each listener, the events refused at the edge that its supervisor hasn't counted yet.
    refused: Vec<AtomicU64>,
    /// Seconds; 0 while unknown.
    retry_after: AtomicU64,
}

impl Gauges {
    pub fn new(listeners: usize) -> Self {
        Gauges {
            waiting: AtomicUsize::new(0),
            refused: (0..listeners).map(|_| AtomicU64::new(0)).collect(),
            retry_after: AtomicU64::new(0),
        }
    }

    /// Events in the wait queue.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    pub fn set_waiting(&self, events: usize) {
        self.waiting.store(events, Relaxed);
    }

    /// One more event of a listener was refused at the edge.
    pub fn note_refused(&self, listener: usize) {
        if let Some(refused) = self.refused.get(listener) {
            refused.fetch_add(1, Relaxed);
        }
    }

    /// The events that each listener has refused since the last call.
    pub fn take_refused(&self) -> impl Iterator<Item = (usize, u64)> {
        self.refused.iter().map(|refused| refused.swap(0, Relaxed)).enumerate()
    }

    /// When a place in the wait queue is likely to come free.
    pub fn retry_after(&self) -> Option<Duration> {
        match self.retry_after.load(Relaxed) {
            0 => None,
            seconds => Some(Duration::from_secs(seconds)),
        }
    }

    pub fn set_retry_after(&self, retry_after: Option<Duration>) {
        let seconds = retry_after.map_or(0, |wait| wait.as_secs());
        self.retry_after.store(seconds, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use crate::queue::Queue;
    use crate::queue::listener::Listener;
    use crate::testing::Turnstile;
    use futures::FutureExt;

    #[actix::test]
    async fn who_waits_unfollowed_is_counted() {
        let turnstile = Turnstile::new();
        let queue = Queue::builder()
            .listener(Listener::new("wait", turnstile.handler()).concurrency_limit(1))
            .start()
            .expect("nothing contradicts itself");
        let call = |n| queue.call::<u32, u32>("wait", n).boxed_local();
        let mut calls = futures::future::join_all((0..3).map(call));
        assert!(futures::poll!(&mut calls).is_pending());
        turnstile.arrived(1).await;
        while queue.snapshot().await.concurrency_ids[0].waiting < 2 {}
        assert_eq!(queue.waiting(), 2);
        turnstile.open();
        calls.await;
        assert_eq!(queue.waiting(), 0);
    }
}

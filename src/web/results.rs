//! How events ended, kept a while for clients that come back: bounded in number and in bytes, the
//! oldest goes first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::login::Caller;
use super::wire::Ended;
use crate::event::{EventId, EventMap};

/// How long, how many and how many bytes, when the builder doesn't say.
const TTL: Duration = Duration::from_secs(600);
const MOST: usize = 10_000;
const MOST_BYTES: usize = 64 * 1024 * 1024;

/// What an end weighs beside its text, in bytes.
const OVERHEAD: usize = 512;

/// How long results are kept, and how many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub ttl: Duration,
    pub number: usize,
    pub bytes: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { ttl: TTL, number: MOST, bytes: MOST_BYTES }
    }
}

/// The results of a queue's events that a client has been sent, or has left behind.
pub(crate) struct Results {
    bounds: Bounds,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    kept: EventMap<Kept>,
    /// By age, with when they came. One that is kept again stands twice, and counts where it stands
    /// last.
    order: VecDeque<(Instant, EventId)>,
    bytes: usize,
}

struct Kept {
    ended: Arc<Ended>,
    caller: Caller,
    since: Instant,
    bytes: usize,
}

impl Results {
    pub fn new(bounds: Bounds) -> Self {
        Results { bounds, inner: Mutex::default() }
    }

    pub fn ttl(&self) -> Duration {
        self.bounds.ttl
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the end of an event whose text has so many bytes.
    pub fn keep(&self, caller: Caller, id: EventId, ended: Ended, bytes: usize, now: Instant) {
        let bytes = bytes + OVERHEAD;
        let kept = Kept { ended: Arc::new(ended), caller, since: now, bytes };
        let mut gone = Vec::new();
        let mut inner = self.lock();
        inner.bytes += bytes;
        gone.extend(inner.put(id, kept));
        inner.order.push_back((now, id));
        inner.trim(self.bounds, now, &mut gone);
        drop(inner);
        // A value of the user's is not dropped under our lock.
        drop(gone);
    }

    /// How an event ended, for whom it belongs to.
    pub fn find(&self, caller: &Caller, id: EventId) -> Option<Arc<Ended>> {
        self.lock().kept.get(&id).filter(|kept| kept.caller == *caller).map(|k| k.ended.clone())
    }

    /// How many there are, and their bytes.
    pub fn size(&self) -> (usize, usize) {
        let inner = self.lock();
        (inner.kept.len(), inner.bytes)
    }

    /// Forgets what is too old.
    pub fn sweep(&self, now: Instant) {
        let mut gone = Vec::new();
        self.lock().trim(self.bounds, now, &mut gone);
    }
}

impl Inner {
    fn put(&mut self, id: EventId, kept: Kept) -> Option<Kept> {
        let before = self.kept.insert(id, kept)?;
        self.bytes -= before.bytes;
        Some(before)
    }

    fn trim(&mut self, bounds: Bounds, now: Instant, gone: &mut Vec<Kept>) {
        while let Some(&(since, id)) = self.order.front() {
            let over = self.kept.len() > bounds.number
                || self.bytes > bounds.bytes
                || now.saturating_duration_since(since) >= bounds.ttl;
            if !over {
                return;
            }
            self.order.pop_front();
            if self.kept.get(&id).is_some_and(|kept| kept.since == since)
                && let Some(kept) = self.kept.remove(&id)
            {
                self.bytes -= kept.bytes;
                gone.push(kept);
            }
        }
        if self.kept.is_empty() && self.kept.capacity() > 1024 {
            *self = Inner::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds { ttl: Duration::from_secs(60), number: 3, bytes: 10_000 };

    fn keep(results: &Results, n: u128, bytes: usize, now: Instant) {
        results.keep(
            Caller::default(),
            EventId::for_test(n),
            Ended::gone(EventId::for_test(0)),
            bytes,
            now,
        );
    }

    fn kept(results: &Results, ids: std::ops::Range<u128>) -> Vec<u128> {
        let found = |n: &u128| results.find(&Caller::default(), EventId::for_test(*n)).is_some();
        ids.filter(found).collect()
    }

    #[test]
    fn the_oldest_goes_when_there_are_too_many_or_too_much() {
        let results = Results::new(BOUNDS);
        let now = Instant::now();
        (0..5).for_each(|n| keep(&results, n, 10, now));
        assert_eq!(kept(&results, 0..5), [2, 3, 4]);
        keep(&results, 5, 8_500, now);
        assert_eq!(kept(&results, 0..6), [4, 5]);
        keep(&results, 6, 10_000, now);
        assert_eq!(kept(&results, 0..7), [0; 0]);
        assert_eq!(results.lock().bytes, 0);
    }

    #[test]
    fn each_goes_when_it_is_too_old() {
        let results = Results::new(BOUNDS);
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        keep(&results, 0, 0, at(0));
        keep(&results, 1, 0, at(30));
        // Kept again, it is young again.
        keep(&results, 0, 0, at(50));
        results.sweep(at(70));
        assert_eq!(kept(&results, 0..2), [0, 1]);
        results.sweep(at(90));
        assert_eq!(kept(&results, 0..2), [0]);
        results.sweep(at(110));
        assert_eq!(kept(&results, 0..2), [0; 0]);
        assert_eq!(results.lock().bytes, 0);
    }

    #[test]
    fn a_result_is_its_caller_s_own() {
        let results = Results::new(BOUNDS);
        let (alice, bob) = (Caller(Some("alice".into())), Caller(Some("bob".into())));
        let id = EventId::for_test(1);
        results.keep(alice.clone(), id, Ended::gone(EventId::for_test(0)), 0, Instant::now());
        assert!(results.find(&alice, id).is_some());
        assert!(results.find(&bob, id).is_none() && results.find(&Caller(None), id).is_none());
    }
}

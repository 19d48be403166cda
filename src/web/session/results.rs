//! How events ended, kept a while for clients that come back: bounded in number and in bytes. Where
//! there are too many, the holder with the most loses its oldest.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::event::id::{BuildIdHasher, EventId};
use crate::web::auth::guard::Caller;
use crate::web::holder::Holder;
use crate::web::protocol::encoder::Ended;
use crate::web::shares::{Bounds, Shares};

/// How long, how many and how many bytes, by default.
const TTL: Duration = Duration::from_secs(600);

const MAX_RESULTS: usize = 10_000;

const MAX_BYTES: usize = 64 * 1024 * 1024;

/// What an end weighs beside its text, in bytes.
const OVERHEAD: usize = 512;

/// The default bounds.
pub(crate) const BOUNDS: Bounds = Bounds { ttl: TTL, number: MAX_RESULTS, bytes: MAX_BYTES };

/// The results of a queue's events that a client has been sent, or has left behind.
pub(crate) struct Results {
    ttl: Duration,
    kept: Mutex<Shares<EventId, Kept, BuildIdHasher>>,
}

struct Kept {
    ended: Arc<Ended>,
    caller: Caller,
}

impl Results {
    pub fn new(bounds: Bounds) -> Self {
        Results { ttl: bounds.ttl, kept: Mutex::new(Shares::new(bounds)) }
    }

    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    fn lock(&self) -> MutexGuard<'_, Shares<EventId, Kept, BuildIdHasher>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the end of an event whose text has so many bytes.
    pub fn keep(
        &self,
        caller: Caller,
        holder: Holder,
        id: EventId,
        ended: Ended,
        bytes: usize,
        now: Instant,
    ) {
        let kept = Kept { ended: Arc::new(ended), caller };
        // Named, so that no value of the user's is dropped under our lock.
        let _gone = self.lock().keep(id, holder, kept, bytes + OVERHEAD, now);
    }

    /// How an event ended, for the client that it belongs to.
    pub fn find(&self, caller: &Caller, id: EventId) -> Option<Arc<Ended>> {
        let shares = self.lock();
        let kept = shares.find(&id, Instant::now()).filter(|kept| kept.caller == *caller)?;
        Some(kept.ended.clone())
    }

    /// How many there are, and their bytes.
    pub fn size(&self) -> (usize, usize) {
        let shares = self.lock();
        (shares.len(), shares.bytes())
    }

    /// Forgets what is too old.
    pub fn sweep(&self, now: Instant) {
        let _gone = self.lock().sweep(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_its_caller_s_own() {
        let results = Results::new(BOUNDS);
        let caller = |name: &str| Caller(Some(name.into()), Default::default());
        let (alice, bob) = (caller("alice"), caller("bob"));
        let id = EventId::for_test(1);
        let ended = Ended::gone(EventId::for_test(0));
        let holder = Holder::User("alice".into());
        results.keep(alice.clone(), holder, id, ended, 0, Instant::now());
        assert!(results.find(&alice, id).is_some());
        assert!(results.find(&bob, id).is_none());
        assert!(results.find(&Caller::default(), id).is_none());
    }

    #[test]
    fn it_is_not_found_after_its_time() {
        let results = Results::new(Bounds { ttl: Duration::ZERO, ..BOUNDS });
        let (caller, id) = (Caller::default(), EventId::for_test(1));
        let holder = Holder::Session("s".into());
        results.keep(caller.clone(), holder, id, Ended::gone(id), 0, Instant::now());
        assert!(results.find(&caller, id).is_none());
        results.sweep(Instant::now());
        assert_eq!(results.size(), (0, 0));
    }
}

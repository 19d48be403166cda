//! The places in line that all concurrency ids of one queue share: the queue-wide `max_size`.

use crate::sync::{AtomicUsize, SeqCst, fence};

/// A bound on the events that wait in all lines together, as Gradio's `max_size`.
///
/// The only memory that schedulers share. Each takes a place when an event enters its line and
/// gives it back when the event leaves.
#[derive(Debug)]
pub(crate) struct Capacity {
    max: usize,
    taken: AtomicUsize,
    /// Schedulers that have callers waiting because all places were taken.
    blocked: AtomicUsize,
}

impl Capacity {
    pub fn new(max: usize) -> Self {
        Capacity { max, taken: AtomicUsize::new(0), blocked: AtomicUsize::new(0) }
    }

    pub fn max(&self) -> usize {
        self.max
    }

    pub fn taken(&self) -> usize {
        self.taken.load(SeqCst)
    }

    pub fn try_take(&self) -> bool {
        self.taken
            .fetch_update(SeqCst, SeqCst, |taken| (taken < self.max).then_some(taken + 1))
            .is_ok()
    }

    /// Takes a place even where there is none: for an event that had one and comes back.
    pub fn take_anyway(&self) {
        self.taken.fetch_add(1, SeqCst);
    }

    /// Gives a place back. True when somebody is blocked and should be told.
    pub fn release(&self) -> bool {
        self.taken.fetch_sub(1, SeqCst);
        // Against the one in `block`: whoever comes second sees what the first has written.
        fence(SeqCst);
        self.blocked.load(SeqCst) > 0
    }

    /// Says that a scheduler is blocked. It must try once more after this: a place that came free
    /// before the announcement was announced to nobody.
    pub fn block(&self) {
        self.blocked.fetch_add(1, SeqCst);
        fence(SeqCst);
    }

    pub fn unblock(&self) {
        self.blocked.fetch_sub(1, SeqCst);
    }
}

//! Which run calls from inside which: a call that would wait for its own callers' slots, and they for it,
//! is refused instead.
//!
//! Who runs on a thread stands in a thread-local while its handler is polled, so that a call needs no
//! context to know whom it comes from. What a handler spawns is polled by somebody else, and comes from
//! nobody.

use std::cell::RefCell;
use std::mem::swap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Weak};

/// The slots of one concurrency id, as those know them who wait for one.
#[derive(Debug)]
pub(crate) struct IdSlots {
    pub name: Arc<str>,
    /// Among all of the process.
    number: u64,
    /// `usize::MAX` for unlimited.
    limit: AtomicUsize,
}

const UNLIMITED: usize = usize::MAX;

impl IdSlots {
    pub fn new(name: Arc<str>, limit: usize) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(NOBODY + 1);
        let number = NEXT.fetch_add(1, Relaxed);
        IdSlots { name, number, limit: AtomicUsize::new(limit) }
    }

    /// The limit has changed.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    /// How many slots there are, if the run on this thread and those that wait for it hold all of them.
    /// If so, whoever waits for one in there waits for ever.
    pub fn held_by_callers(&self) -> Option<usize> {
        let limit = self.limit.load(Relaxed);
        let all_held = || CURRENT.with_borrow(|running| running.holds(self.number)) >= limit;
        (limit != UNLIMITED && all_held()).then_some(limit)
    }
}

const NOBODY: u64 = 0;

/// A run, for as long as it holds its slot.
#[derive(Debug)]
pub(crate) struct Running {
    /// The number of its concurrency id.
    id: u64,
    /// The calls that wait for its events, of those events that came by a call from inside another run.
    callers: Vec<Weak<PendingCall>>,
    /// Gone when it holds its slot no longer. Made by its first call.
    holds: Option<Arc<()>>,
}

/// A call from inside a run, held by whoever waits for its result.
#[derive(Debug)]
pub(crate) struct PendingCall {
    id: u64,
    holds: Weak<()>,
    callers: Vec<Weak<PendingCall>>,
}

/// By which call an event came; given with the event.
#[derive(Debug)]
pub(crate) struct Caller(pub Weak<PendingCall>);

thread_local! {
    static CURRENT: RefCell<Running> = const { RefCell::new(Running::nobody()) };
}

/// Whether a handler has its turn on this thread.
pub(crate) fn in_run() -> bool {
    CURRENT.with_borrow(|running| running.id != NOBODY)
}

impl Running {
    const fn nobody() -> Self {
        Running { id: NOBODY, callers: Vec::new(), holds: None }
    }

    pub fn new(slots: &IdSlots, callers: Vec<Weak<PendingCall>>) -> Self {
        Running { id: slots.number, callers, holds: None }
    }

    /// That of this thread, to go on with on another.
    pub fn of_thread() -> Self {
        CURRENT.with_borrow(|running| {
            let callers = running.callers.clone();
            Running { id: running.id, callers, holds: None }
        })
    }

    /// It holds its slot no longer.
    pub fn release(&mut self) {
        (self.id, self.holds) = (NOBODY, None);
    }

    /// That of this thread holds its slot no longer.
    pub fn release_of_thread() {
        CURRENT.with_borrow_mut(Running::release);
    }

    /// It has its turn on this thread, until the guard is dropped.
    pub fn enter(&mut self) -> Entered<'_> {
        CURRENT.with_borrow_mut(|current| swap(current, self));
        Entered(self)
    }

    /// How many slots of a concurrency id it holds, with those that wait for it. Of several calls that wait
    /// for it, as for a batch, those of the one that has most.
    fn holds(&self, id: u64) -> usize {
        let own = usize::from(self.id == id);
        let mut most = own;
        let mut calls: Vec<_> = self.callers.iter().map(|call| (call.upgrade(), own)).collect();
        while let Some((call, held)) = calls.pop() {
            // One whose run has ended holds nothing, and who called that doesn't wait for us.
            let Some(call) = call.filter(|call| call.holds.strong_count() > 0) else { continue };
            let held = held + usize::from(call.id == id);
            most = most.max(held);
            calls.extend(call.callers.iter().map(|caller| (caller.upgrade(), held)));
        }
        most
    }
}

/// A run's turn on its thread.
pub(crate) struct Entered<'a>(&'a mut Running);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        CURRENT.with_borrow_mut(|current| swap(current, self.0));
    }
}

impl PendingCall {
    /// A call that the run on this thread makes, if one runs there.
    pub fn begin() -> Option<Arc<Self>> {
        CURRENT.with_borrow_mut(|running| {
            let (id, callers) = (running.id, running.callers.clone());
            let holds = (id != NOBODY).then(|| running.holds.get_or_insert_default())?;
            Some(Arc::new(PendingCall { id, holds: Arc::downgrade(holds), callers }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(limit: usize) -> IdSlots {
        IdSlots::new("id".into(), limit)
    }

    /// A run that another one calls, with the call.
    fn called(by: &mut Running, slots: &IdSlots) -> (Running, Arc<PendingCall>) {
        let _running = by.enter();
        let call = PendingCall::begin().unwrap();
        (Running::new(slots, vec![Arc::downgrade(&call)]), call)
    }

    fn held_by(running: &mut Running, slots: &IdSlots) -> Option<usize> {
        let _running = running.enter();
        slots.held_by_callers()
    }

    #[test]
    fn a_chain_of_calls_holds_a_slot_for_each_run() {
        let (a, b) = (slots(2), slots(1));
        assert_eq!((a.held_by_callers(), PendingCall::begin().is_none()), (None, true));
        let mut first = Running::new(&a, Vec::new());
        assert_eq!((held_by(&mut first, &a), held_by(&mut first, &b)), (None, None));
        let (mut second, _call) = called(&mut first, &b);
        assert_eq!((held_by(&mut second, &a), held_by(&mut second, &b)), (None, Some(1)));
        let (mut third, _call) = called(&mut second, &a);
        assert_eq!((held_by(&mut third, &a), held_by(&mut third, &b)), (Some(2), Some(1)));
        a.set_limit(3);
        assert_eq!(held_by(&mut third, &a), None);
        a.set_limit(UNLIMITED);
        assert_eq!(held_by(&mut third, &a), None);
        assert_eq!(a.held_by_callers(), None, "nobody runs here any more");
    }

    #[test]
    fn who_waits_no_longer_holds_nothing() {
        let (a, b) = (slots(1), slots(1));
        let mut first = Running::new(&a, Vec::new());
        let (mut second, call) = called(&mut first, &b);
        let (mut third, _call) = called(&mut second, &slots(1));
        assert_eq!((held_by(&mut third, &a), held_by(&mut third, &b)), (Some(1), Some(1)));
        drop(call);
        assert_eq!((held_by(&mut third, &a), held_by(&mut third, &b)), (None, Some(1)));
        // Its run has ended, though somebody still holds its call.
        drop(second);
        assert_eq!(held_by(&mut third, &b), None);
    }

    #[test]
    fn of_the_callers_of_a_batch_none_counts_twice() {
        let (a, b) = (slots(2), slots(1));
        let mut first = Running::new(&a, Vec::new());
        let calls: Vec<_> = (0..2).map(|_| called(&mut first, &b).1).collect();
        let mut batch = Running::new(&b, calls.iter().map(Arc::downgrade).collect());
        assert_eq!(held_by(&mut batch, &a), None);
        a.set_limit(1);
        assert_eq!(held_by(&mut batch, &a), Some(1));
    }

    #[test]
    fn a_thread_goes_on_with_the_callers_of_its_run() {
        let (a, b) = (slots(1), slots(1));
        let mut first = Running::new(&a, Vec::new());
        let (mut second, _call) = called(&mut first, &b);
        let mut other = {
            let _running = second.enter();
            Running::of_thread()
        };
        std::thread::scope(|scope| {
            scope.spawn(|| assert_eq!(held_by(&mut other, &a), Some(1)));
        });
    }
}

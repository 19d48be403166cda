//! Every order in which threads can run, for the code of now-serving that shares memory between
//! threads: the queue-wide bound, and the hand-over of updates to a reader.
#![cfg(test)]

/// Loom's own, instead of the standard library's.
mod sync {
    pub use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    pub use loom::sync::{Mutex, MutexGuard};
    pub use std::sync::PoisonError;

    /// With the signature of the futures crate's.
    #[derive(Debug)]
    pub struct AtomicWaker(loom::future::AtomicWaker);

    impl AtomicWaker {
        pub fn new() -> Self {
            AtomicWaker(loom::future::AtomicWaker::new())
        }

        pub fn register(&self, waker: &std::task::Waker) {
            self.0.register_by_ref(waker);
        }

        pub fn wake(&self) {
            self.0.wake();
        }
    }
}

#[allow(dead_code)]
#[path = "../../../src/actors/capacity.rs"]
mod capacity;

#[allow(dead_code)]
#[path = "../../../src/actors/place_queue.rs"]
mod place_queue;

#[allow(dead_code)]
#[path = "../../../src/delivery/wake_cell.rs"]
mod wake_cell;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Instant;

use capacity::{Account, Capacity};
use wake_cell::WakeCell;

/// An account, and how often it was notified. Loom doesn't track the count.
fn account(capacity: &Arc<Capacity<u8>>) -> (Account<u8>, Arc<AtomicUsize>) {
    let notified = Arc::new(AtomicUsize::new(0));
    let count = notified.clone();
    let notify = Arc::new(move || {
        count.fetch_add(1, SeqCst);
    });
    (Account::open(capacity.clone(), notify), notified)
}

#[test]
fn nobody_is_blocked_while_a_place_comes_free_unannounced() {
    loom::model(|| {
        let capacity = Arc::new(Capacity::new(1));
        let (mut leaving, _) = account(&capacity);
        let (mut blocked, notified) = account(&capacity);
        assert!(leaving.try_take());
        let leaving = loom::thread::spawn(move || {
            leaving.free(1);
            leaving
        });
        if !blocked.try_take() {
            blocked.request(Instant::now(), 7);
        }
        let leaving = leaving.join().unwrap();
        assert_eq!(capacity.taken(), 1);
        if notified.load(SeqCst) > 0 {
            assert_eq!(blocked.fetch(), [7]);
        }
        blocked.free(1);
        assert_eq!(capacity.taken(), 0, "the place was taken, or granted and announced");
        assert!(!capacity.is_full());
        drop((leaving, blocked));
    });
}

#[test]
fn a_place_that_is_granted_to_who_gives_up_is_not_lost() {
    loom::model(|| {
        let capacity = Arc::new(Capacity::new(1));
        let (mut leaving, _) = account(&capacity);
        let (blocked, _) = account(&capacity);
        assert!(leaving.try_take());
        let since = Instant::now();
        blocked.request(since, 7);
        let leaving = loom::thread::spawn(move || {
            leaving.free(1);
            leaving
        });
        blocked.withdraw(since, 7);
        let leaving = leaving.join().unwrap();
        assert_eq!(capacity.taken(), 0);
        assert!(!capacity.is_full());
        drop((leaving, blocked));
    });
}

#[test]
fn nobody_takes_a_place_past_those_who_are_blocked() {
    loom::model(|| {
        let capacity = Arc::new(Capacity::new(1));
        let (mut leaving, _) = account(&capacity);
        let (blocked, notified) = account(&capacity);
        let (mut late, _) = account(&capacity);
        assert!(leaving.try_take());
        blocked.request(Instant::now(), 7);
        let leaving = loom::thread::spawn(move || {
            leaving.free(1);
            leaving
        });
        assert!(!late.try_take());
        let leaving = leaving.join().unwrap();
        assert_eq!(notified.load(SeqCst), 1);
        drop((leaving, blocked, late));
    });
}

#[test]
fn never_more_places_are_taken_than_there_are() {
    loom::model(|| {
        let capacity = Arc::new(Capacity::new(1));
        let ((mut mine, _), (mut other, _)) = (account(&capacity), account(&capacity));
        let other = loom::thread::spawn(move || (usize::from(other.try_take()), other));
        let taken = usize::from(mine.try_take());
        let (others, other) = other.join().unwrap();
        assert_eq!(taken + others, 1);
        assert_eq!(capacity.taken(), 1);
        drop((mine, other));
    });
}

#[test]
fn a_reader_never_sleeps_on_what_was_written() {
    loom::model(|| {
        let handover = Arc::new(WakeCell::new(Vec::new()));
        let writer = {
            let handover = handover.clone();
            loom::thread::spawn(move || handover.write(|values: &mut Vec<i32>| values.push(7)))
        };
        let read = loom::future::block_on(poll_fn(|cx| handover.poll(cx, Vec::pop)));
        assert_eq!(read, 7);
        writer.join().unwrap();
    });
}

//! Every order in which threads can run, for the code of now-serving that shares memory between
//! threads: the queue-wide bound, and the hand-over of updates to a reader.
#![cfg(test)]

/// Loom's own, in the place of the standard library's.
mod sync {
    pub use loom::sync::atomic::{AtomicUsize, Ordering::SeqCst, fence};
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
#[path = "../../../src/scheduler/capacity.rs"]
mod capacity;

#[allow(dead_code)]
#[path = "../../../src/handover.rs"]
mod handover;

use std::future::poll_fn;
use std::sync::Arc;

use capacity::Capacity;
use handover::Handover;

/// As a scheduler does whose caller waits at the door: takes a place, or is told when one comes free.
fn enter_or_wait(capacity: &Capacity) -> bool {
    if capacity.try_take() {
        return true;
    }
    capacity.block();
    let entered = capacity.try_take();
    if entered {
        capacity.unblock();
    }
    entered
}

#[test]
fn nobody_waits_at_the_door_while_a_place_comes_free_unannounced() {
    loom::model(|| {
        let capacity = Arc::new(Capacity::new(1));
        assert!(capacity.try_take());
        let leaving = {
            let capacity = capacity.clone();
            loom::thread::spawn(move || capacity.release())
        };
        let entered = enter_or_wait(&capacity);
        let announced = leaving.join().unwrap();
        assert!(entered || announced, "the place is free, and the one who waits is not told");
        assert_eq!(capacity.taken(), usize::from(entered));
    });
}

#[test]
fn never_more_places_are_taken_than_there_are() {
    loom::model(|| {
        let capacity = Arc::new(Capacity::new(1));
        let other = {
            let capacity = capacity.clone();
            loom::thread::spawn(move || usize::from(capacity.try_take()))
        };
        let mine = usize::from(capacity.try_take());
        assert_eq!(mine + other.join().unwrap(), 1);
        assert_eq!(capacity.taken(), 1);
    });
}

#[test]
fn a_reader_never_sleeps_on_what_was_written() {
    loom::model(|| {
        let handover = Arc::new(Handover::new(Vec::new()));
        let writer = {
            let handover = handover.clone();
            loom::thread::spawn(move || handover.write(|values: &mut Vec<i32>| values.push(7)))
        };
        let read = loom::future::block_on(poll_fn(|cx| handover.poll(cx, Vec::pop)));
        assert_eq!(read, 7);
        writer.join().unwrap();
    });
}

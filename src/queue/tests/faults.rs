//! What becomes of events when an actor of ours has a bug.

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use crate::actors::messages::{Blow, BlowWorker};
use crate::event::update::Update;
use crate::queue::Queue;
use crate::queue::error::CallError;
use crate::queue::listener::Listener;
use crate::testing::Turnstile;

fn listener(turnstile: &Turnstile) -> Listener<u32, u32> {
    Listener::new("wait", turnstile.handler()).concurrency_limit(2).max_size(2)
}

fn queue(turnstile: &Turnstile) -> Queue {
    Queue::builder().listener(listener(turnstile)).start().expect("nothing contradicts itself")
}

/// With its workers on threads other than the supervisor's.
fn spread_queue(turnstile: &Turnstile) -> Queue {
    let builder = Queue::builder().arbiters(2).listener(listener(turnstile).spread());
    builder.start().expect("nothing contradicts itself")
}

/// Every event ends, and those that were lost report it.
async fn ends_as_lost(call: impl Future<Output = Result<u32, CallError>>) {
    match call.await {
        Err(CallError::Failed(failure)) => assert!(failure.message.contains("was lost")),
        other => panic!("{other:?}"),
    }
}

#[actix::test]
async fn a_supervisor_starts_again_and_its_events_end_as_lost() {
    supervisor_starts_again(queue).await;
}

#[actix::test]
async fn a_supervisor_starts_again_with_workers_on_other_threads() {
    supervisor_starts_again(spread_queue).await;
}

async fn supervisor_starts_again(queue: fn(&Turnstile) -> Queue) {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let calls: Vec<_> = (0..4).map(|n| queue.call::<u32, u32>("wait", n)).map(Box::pin).collect();
    let mut calls: futures::stream::FuturesUnordered<_> = calls.into_iter().collect();
    assert!(futures::poll!(futures::StreamExt::next(&mut calls)).is_pending());
    turnstile.arrived(2).await;
    // The wait queue is full; the listener knows.
    while queue.snapshot().await.concurrency_ids[0].waiting < 2 {}
    let full = queue.try_submit("wait", 9u32).await.expect_err("the wait queue is full");
    assert!(full.to_string().starts_with("Queue is full"));
    queue.pause("wait").await.expect("it runs");
    queue.test_supervisor().do_send(Blow);
    for _ in 0..4 {
        let ended = futures::StreamExt::next(&mut calls).await.expect("four were called");
        ends_as_lost(async { ended }).await;
    }
    // The running handlers were dropped, so that the limit holds.
    turnstile.empty().await;
    // Their slots report it a moment later.
    while queue.snapshot().await.concurrency_ids[0].running > 0 {}
    let snapshot = queue.snapshot().await;
    let id = &snapshot.concurrency_ids[0];
    assert_eq!((id.running, id.waiting, id.paused), (0, 0, true));
    let listener = &id.listeners[0];
    assert_eq!((listener.admitted, listener.failed), (4, 4));
    queue.resume("wait").await.expect("it runs");
    turnstile.open();
    assert_eq!(queue.call("wait", 5u32).await, Ok(5u32));
    let snapshot = queue.snapshot().await;
    assert_eq!(snapshot.concurrency_ids[0].listeners[0].completed, 1);
}

#[actix::test]
async fn a_listener_starts_again_and_loses_nothing() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let running = queue.submit("wait", 1u32).await.expect("there is room");
    turnstile.arrived(1).await;
    queue.test_listener().do_send(Blow);
    let second = queue.submit("wait", 2u32).await.expect("there is room");
    turnstile.open();
    assert_eq!(running.result().await, Ok(1u32));
    assert_eq!(second.result().await, Ok(2u32));
    // What the supervisor sends still arrives.
    queue.shutdown(Duration::ZERO).await;
    assert!(queue.try_submit("wait", 3u32).await.is_err());
}

#[actix::test]
async fn a_worker_that_is_gone_gives_its_slot_back() {
    worker_is_gone(queue).await;
}

#[actix::test]
async fn a_worker_that_is_gone_from_another_thread_gives_its_slot_back() {
    worker_is_gone(spread_queue).await;
}

async fn worker_is_gone(queue: fn(&Turnstile) -> Queue) {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let mut lost = queue.submit("wait", 1u32).await.expect("there is room");
    let kept = queue.submit("wait", 2u32).await.expect("there is room");
    turnstile.arrived(2).await;
    queue.test_supervisor().do_send(BlowWorker(0));
    loop {
        let update = futures::StreamExt::next(&mut lost).await.expect("it ends");
        if let Update::ProcessCompleted { outcome, .. } = update {
            assert!(format!("{outcome:?}").contains("was lost"), "{outcome:?}");
            break;
        }
    }
    turnstile.open();
    assert_eq!(kept.result().await, Ok(2u32));
    // Both slots serve again.
    for n in 3..7u32 {
        assert_eq!(queue.call("wait", n).await, Ok(n));
    }
    // The other slot may have served all of them: that a worker of another thread is gone comes to be known later.
    loop {
        let snapshot = queue.snapshot().await;
        let id = &snapshot.concurrency_ids[0];
        let listener = &id.listeners[0];
        assert!(listener.completed == 5 && listener.failed <= 1, "{listener:?}");
        if listener.failed == 1 && id.running == 0 {
            break;
        }
    }
}

#[actix::test]
async fn a_slot_stays_taken_until_what_ran_on_its_thread_is_dropped() {
    struct SlowToDrop(mpsc::Receiver<()>);
    impl Drop for SlowToDrop {
        fn drop(&mut self) {
            let _ = self.0.recv();
        }
    }
    let turnstile = Turnstile::new();
    let (release, released) = mpsc::channel();
    let held = Arc::new(Mutex::new(Some(SlowToDrop(released))));
    let waiting = turnstile.clone();
    let wait = move |n: u32| {
        let held = held.lock().expect("nobody panics with it").take();
        let waiting = waiting.clone();
        async move {
            let _held = held;
            waiting.pass().await;
            Ok::<_, String>(n)
        }
    };
    let queue = Queue::builder()
        .arbiters(2)
        .listener(Listener::new("wait", wait).spread())
        .start()
        .expect("nothing contradicts itself");
    let first = queue.submit("wait", 1u32).await.expect("there is room");
    turnstile.arrived(1).await;
    queue.test_supervisor().do_send(BlowWorker(0));
    ends_as_lost(first.result()).await;
    let second = queue.submit("wait", 2u32).await.expect("there is room");
    for _ in 0..100 {
        let snapshot = queue.snapshot().await;
        let id = &snapshot.concurrency_ids[0];
        assert_eq!((id.running, id.waiting), (1, 1));
    }
    release.send(()).expect("it is being dropped");
    turnstile.open();
    assert_eq!(second.result().await, Ok(2u32));
    assert_eq!(turnstile.most_inside(), 1);
}

/// A handler that waits at the turnstile on a thread of its own.
fn blocking(turnstile: &Turnstile) -> Queue {
    let turnstile = turnstile.clone();
    let wait = move |n: u32| {
        futures::executor::block_on(turnstile.pass());
        Ok::<_, String>(n)
    };
    Queue::builder()
        .listener(Listener::blocking("wait", wait).concurrency_limit(1))
        .start()
        .expect("nothing contradicts itself")
}

/// The first event is lost, but its handler runs on: the second waits until it has returned.
async fn keeps_its_slot(blow: impl FnOnce(&Queue)) {
    let turnstile = Turnstile::new();
    let queue = blocking(&turnstile);
    let first = queue.submit("wait", 1u32).await.expect("there is room");
    turnstile.arrived(1).await;
    blow(&queue);
    ends_as_lost(first.result()).await;
    let second = queue.submit("wait", 2u32).await.expect("there is room");
    for _ in 0..100 {
        let snapshot = queue.snapshot().await;
        let id = &snapshot.concurrency_ids[0];
        assert_eq!((id.running, id.waiting), (1, 1));
    }
    turnstile.open();
    assert_eq!(second.result().await, Ok(2u32));
    assert_eq!(turnstile.most_inside(), 1);
}

#[actix::test]
async fn a_thread_keeps_its_slot_when_the_supervisor_begins_anew() {
    keeps_its_slot(|queue| queue.test_supervisor().do_send(Blow)).await;
}

#[actix::test]
async fn a_thread_keeps_its_slot_when_its_worker_is_gone() {
    keeps_its_slot(|queue| queue.test_supervisor().do_send(BlowWorker(0))).await;
}

#[actix::test]
async fn a_permit_keeps_its_slot_when_the_supervisor_begins_anew() {
    let turnstile = Turnstile::new();
    let queue = blocking(&turnstile);
    let permit = queue.acquire("wait").await.expect("there is room");
    queue.test_supervisor().do_send(Blow);
    queue.test_supervisor().do_send(BlowWorker(0));
    let event = queue.submit("wait", 2u32).await.expect("there is room");
    for _ in 0..100 {
        let snapshot = queue.snapshot().await;
        let id = &snapshot.concurrency_ids[0];
        assert_eq!((id.running, id.waiting), (1, 1));
    }
    drop(permit);
    turnstile.open();
    assert_eq!(event.result().await, Ok(2u32));
}

#[actix::test]
async fn a_supervisor_that_starts_again_still_knows_the_names_of_gates() {
    let queue = queue(&Turnstile::new());
    let permit = async || {
        let permit = queue.acquire_as("wait", "(render)".into(), None).await;
        drop(permit.expect("there is a slot"));
    };
    permit().await;
    while queue.snapshot().await.concurrency_ids[0].running > 0 {}
    queue.test_supervisor().do_send(Blow);
    permit().await;
    while queue.snapshot().await.concurrency_ids[0].running > 0 {}
    let snapshot = queue.snapshot().await;
    let gates = &snapshot.concurrency_ids[0].gates;
    assert_eq!(gates.len(), 1);
    assert_eq!((&*gates[0].api_name, gates[0].admitted, gates[0].completed), ("(render)", 2, 2));
}

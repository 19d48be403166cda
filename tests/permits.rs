//! Permits: slots for work that is no listener's.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use now_serving::testing::Turnstile;
use now_serving::{
    AcquireError, ConcurrencyIdSnapshot, EventId, Limit, Listener, Permit, Queue, Refusal,
    Shutdown, Slot, SlotState,
};
use tokio::task::JoinHandle;

async fn until(queue: &Queue, fits: impl Fn(&ConcurrencyIdSnapshot) -> bool) {
    while !fits(queue.snapshot().await.concurrency_id("gpu").unwrap()) {
        tokio::task::yield_now().await;
    }
}

/// One slot, shared by a listener and permits.
fn queue(turnstile: &Turnstile) -> Queue {
    let paint = Listener::new("paint", turnstile.handler());
    Queue::builder()
        .listener(paint.concurrency_id("gpu").concurrency_limit(1).max_size(3))
        .start()
        .unwrap()
}

/// A caller that waits for a permit, and is in the queue already.
async fn acquiring(queue: &Queue) -> JoinHandle<Result<Permit, AcquireError>> {
    let before = queue.snapshot().await.concurrency_id("gpu").unwrap().waiting;
    let acquirer = queue.clone();
    let acquiring = actix::spawn(async move { acquirer.acquire("gpu").await });
    until(queue, |gpu| gpu.waiting == before + 1).await;
    acquiring
}

#[actix::test]
async fn they_wait_in_one_line_with_events_and_share_their_limit() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let first = queue.acquire("gpu").await.unwrap();
    assert_eq!(first.slot(), 0);
    let event = queue.submit("paint", 1u32).await.unwrap();
    let second = acquiring(&queue).await;
    let last = queue.submit("paint", 2u32).await.unwrap();
    until(&queue, |gpu| (gpu.running, gpu.waiting) == (1, 3)).await;
    assert_eq!(turnstile.inside(), 0);
    drop(first);
    turnstile.arrived(1).await;
    assert!(!second.is_finished());
    turnstile.let_through(1);
    assert_eq!(event.result().await, Ok(1u32));
    let second = second.await.unwrap().unwrap();
    until(&queue, |gpu| (gpu.running, gpu.waiting) == (1, 1)).await;
    assert_eq!(turnstile.inside(), 0);
    // From wherever it is dropped.
    std::thread::spawn(move || drop(second)).join().unwrap();
    turnstile.open();
    assert_eq!(last.result().await, Ok(2u32));
    let snapshot = queue.snapshot().await;
    let permits = snapshot.concurrency_id("gpu").unwrap().permits.clone().unwrap();
    assert_eq!((permits.admitted, permits.completed, permits.waiting), (2, 2, 0));
    assert_eq!(snapshot.listener("paint").unwrap().completed, 2);
}

#[actix::test]
async fn a_pause_and_a_new_limit_hold_for_them() {
    let queue = queue(&Turnstile::new());
    let first = queue.acquire("gpu").await.unwrap();
    let second = acquiring(&queue).await;
    queue.set_concurrency_limit("gpu", 2).await.unwrap();
    let second = second.await.unwrap().unwrap();
    assert_ne!(first.slot(), second.slot());
    queue.pause("gpu").await.unwrap();
    drop((first, second));
    until(&queue, |gpu| gpu.running == 0).await;
    let third = acquiring(&queue).await;
    queue.resume("gpu").await.unwrap();
    let third = third.await.unwrap().unwrap();
    queue.set_concurrency_limit("gpu", Limit::Unlimited).await.unwrap();
    let fourth = queue.acquire("gpu").await.unwrap();
    until(&queue, |gpu| gpu.running == 2).await;
    drop((third, fourth));
}

#[actix::test]
async fn who_stops_waiting_leaves_the_line_and_no_slot_behind() {
    let queue = queue(&Turnstile::new());
    let held = queue.acquire("gpu").await.unwrap();
    let gone = acquiring(&queue).await;
    gone.abort();
    until(&queue, |gpu| gpu.waiting == 0).await;
    drop(held);
    // Given to a caller that is gone by then.
    for _ in 0..100 {
        let mut acquiring = Box::pin(queue.acquire("gpu"));
        let _ = futures::poll!(&mut acquiring);
        drop(acquiring);
    }
    until(&queue, |gpu| (gpu.running, gpu.waiting) == (0, 0)).await;
    assert_eq!(queue.acquire("gpu").await.unwrap().slot(), 0);
}

#[actix::test]
async fn they_are_refused_where_events_are() {
    let queue = queue(&Turnstile::new());
    let unknown = AcquireError::UnknownConcurrencyId("cpu".into());
    assert_eq!(queue.acquire("cpu").await.unwrap_err(), unknown);
    let _held = queue.acquire("gpu").await.unwrap();
    let mut waiting = Vec::new();
    for _ in 0..3 {
        waiting.push(acquiring(&queue).await);
    }
    let full = queue.acquire("gpu").await.unwrap_err();
    let AcquireError::Refused(Refusal::QueueFull { max_size: 3, size: 3, .. }) = full else {
        panic!("{full:?}")
    };
    let stopped = AcquireError::Refused(Refusal::Stopped);
    queue.shutdown(Duration::ZERO).await;
    for waiting in waiting {
        assert_eq!(waiting.await.unwrap().unwrap_err(), stopped);
    }
    assert_eq!(queue.acquire("gpu").await.unwrap_err(), stopped);
}

#[actix::test]
async fn a_shutdown_waits_for_them_and_says_when_they_are_still_held() {
    let queue = queue(&Turnstile::new());
    let held = queue.acquire("gpu").await.unwrap();
    let Shutdown { drained, stopped, .. } = queue.shutdown(Duration::ZERO).await;
    assert_eq!((drained, stopped), (false, false));
    let (shutdown, ()) = futures::join!(queue.shutdown(Duration::from_secs(60)), async {
        drop(held);
    });
    assert_eq!((shutdown.drained, shutdown.stopped), (true, true));
}

#[actix::test]
async fn a_shutdown_after_the_actors_end_waits_for_them_too() {
    let turnstile = Turnstile::new();
    let system = std::thread::spawn(move || {
        let system = actix::System::new();
        let made = system.block_on(async {
            let queue = queue(&turnstile);
            let permit = queue.acquire("gpu").await.unwrap();
            actix::System::current().stop();
            (queue, permit)
        });
        system.run().unwrap();
        made
    });
    let (queue, permit) = tokio::task::spawn_blocking(|| system.join().unwrap()).await.unwrap();
    let Shutdown { drained, stopped, .. } = queue.shutdown(Duration::ZERO).await;
    assert_eq!((drained, stopped), (false, false));
    drop(permit);
    let Shutdown { drained, stopped, .. } = queue.shutdown(Duration::from_secs(60)).await;
    assert_eq!((drained, stopped), (false, true));
}

#[actix::test]
async fn nobody_takes_a_permit_from_its_holder() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let held = queue.acquire("gpu").await.unwrap();
    let snapshot = queue.snapshot().await;
    let gpu = snapshot.concurrency_id("gpu").unwrap();
    let SlotState::Busy { events, listener, .. } = &gpu.slots[0].state else { panic!("{gpu:?}") };
    assert_eq!(&**listener, "(permit)");
    let id: EventId = events[0];
    queue.cancel("paint", id).unwrap();
    assert!(queue.cancel("(permit)", id).is_err());
    let event = queue.submit("paint", 1u32).await.unwrap();
    until(&queue, |gpu| (gpu.running, gpu.waiting) == (1, 1)).await;
    assert_eq!(turnstile.inside(), 0);
    drop(held);
    turnstile.open();
    assert_eq!(event.result().await, Ok(1u32));
}

/// The slot is taken; what it owns rests, and is as it was for the next handler.
#[actix::test]
async fn the_resource_of_a_slot_rests_while_a_permit_holds_it() {
    let built = Arc::new(Mutex::new(0));
    let counts = built.clone();
    let add = async |n: u32, mut sum: Slot<u32>| {
        *sum += n;
        Ok::<u32, String>(*sum)
    };
    let queue = Queue::builder()
        .listener(Listener::new("add", add).concurrency_id("gpu").concurrency_limit(1))
        .slots("gpu", move |_| {
            *counts.lock().unwrap() += 1;
            async { Ok::<_, String>(0u32) }
        })
        .start()
        .unwrap();
    assert_eq!(queue.call("add", 1u32).await, Ok(1u32));
    let held = queue.acquire("gpu").await.unwrap();
    let event = queue.submit("add", 1u32).await.unwrap();
    until(&queue, |gpu| (gpu.running, gpu.waiting) == (1, 1)).await;
    drop(held);
    assert_eq!(event.result().await, Ok(2u32));
    assert_eq!(*built.lock().unwrap(), 1);
}

#[actix::test]
async fn where_none_was_asked_for_none_are_counted() {
    let queue = queue(&Turnstile::new());
    assert!(queue.snapshot().await.concurrency_ids[0].permits.is_none());
    let _held = queue.acquire("gpu").await.unwrap();
    let snapshot = queue.snapshot().await;
    let permits = snapshot.concurrency_ids[0].permits.as_ref().unwrap();
    assert_eq!((&*permits.api_name, permits.admitted, permits.completed), ("(permit)", 1, 0));
    assert_eq!(snapshot.concurrency_ids[0].listeners.len(), 1);
}

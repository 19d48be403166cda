//! Cancelling: waiting events leave the queue, running ones stop, and slots come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use futures::{StreamExt, stream};
use now_serving::testing::{Recorder, Turnstile};
use now_serving::{CallError, EventContext, Listener, Outcome, Queue, Update};

fn queue(turnstile: &Turnstile) -> Queue {
    Queue::builder().listener(Listener::new("a", turnstile.handler())).start().unwrap()
}

async fn last(submission: now_serving::Submission) -> Update {
    submission.collect::<Vec<_>>().await.pop().expect("a terminal update")
}

fn is_cancelled(update: &Update) -> bool {
    matches!(update, Update::ProcessCompleted { outcome: Outcome::Cancelled, .. })
}

#[actix::test]
async fn a_waiting_event_leaves_the_line_and_those_behind_it_move_up() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let running = queue.submit("a", 0u32).await.unwrap();
    turnstile.arrived(1).await;
    let waiting = queue.submit("a", 1u32).await.unwrap();
    let mut behind = queue.submit("a", 2u32).await.unwrap();
    assert!(matches!(behind.next().await, Some(Update::Estimation { rank: 1, .. })));
    waiting.cancel();
    assert!(is_cancelled(&last(waiting).await));
    assert!(matches!(behind.next().await, Some(Update::Estimation { rank: 0, queue_size: 1, .. })));
    turnstile.open();
    assert_eq!(running.result::<u32>().await, Ok(0));
    assert_eq!(behind.result::<u32>().await, Ok(2));
}

#[actix::test]
async fn a_running_async_handler_is_dropped_and_its_slot_is_free() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let running = queue.submit("a", 0u32).await.unwrap();
    turnstile.arrived(1).await;
    running.cancel();
    assert!(is_cancelled(&last(running).await));
    assert_eq!(turnstile.inside(), 0, "it is notified when the handler has stopped");
    turnstile.open();
    assert_eq!(queue.call::<_, u32>("a", 1u32).await, Ok(1));
}

#[actix::test]
async fn a_blocking_handler_keeps_its_slot_until_it_has_noticed() {
    let notice = Arc::new(AtomicBool::new(false));
    let started = Turnstile::new();
    let (may_notice, arrive) = (notice.clone(), started.clone());
    let handler = move |n: u32, context: EventContext| {
        arrive.let_through(1);
        futures::executor::block_on(arrive.pass());
        while n == 0 && !(context.is_cancelled() && may_notice.load(SeqCst)) {
            std::thread::yield_now();
        }
        // It is dropped: the event has ended.
        context.progress(1.0, "too late");
        Ok::<_, String>(n)
    };
    let queue = Queue::builder().listener(Listener::blocking("a", handler)).start().unwrap();
    let recorder = Recorder::start();
    let id = queue.submit_to("a", 0u32, recorder.recipient()).await.unwrap();
    started.arrived(1).await;
    queue.cancel("a", id).unwrap();
    let updates = recorder.ended(1).await;
    assert!(is_cancelled(updates.last().unwrap()), "its client is notified at once");
    let next = queue.submit("a", 1u32).await.unwrap();
    let id = &queue.snapshot().await.concurrency_ids[0];
    assert_eq!((id.running, id.waiting), (1, 1));
    notice.store(true, SeqCst);
    assert_eq!(next.result::<u32>().await, Ok(1));
    assert!(recorder.take().is_empty(), "nothing follows a terminal update");
}

#[actix::test]
async fn a_stream_stops_in_the_middle() {
    let handler = |_: u32| stream::iter(0..).map(Ok::<u32, String>);
    let queue = Queue::builder().listener(Listener::stream("endless", handler)).start().unwrap();
    for _ in 0..3 {
        let mut submission = queue.submit("endless", 0u32).await.unwrap();
        while !matches!(submission.next().await, Some(Update::ProcessGenerating { .. })) {}
        submission.cancel();
        assert!(is_cancelled(&last(submission).await));
    }
}

#[actix::test]
async fn one_event_of_a_batch_ends_alone_and_all_of_them_end_the_run() {
    let turnstile = Turnstile::new();
    let gate = turnstile.clone();
    let handler = move |inputs: Vec<u32>| {
        let gate = gate.clone();
        async move {
            gate.pass().await;
            Ok::<_, String>(inputs)
        }
    };
    let queue = Queue::builder().listener(Listener::batch("batch", handler)).start().unwrap();
    queue.pause("batch").await.unwrap();
    let mut pair = Vec::new();
    for n in 0..2u32 {
        pair.push(queue.submit("batch", n).await.unwrap());
    }
    queue.resume("batch").await.unwrap();
    turnstile.arrived(1).await;
    let second = pair.pop().unwrap();
    second.cancel();
    assert!(is_cancelled(&last(second).await));
    assert_eq!(turnstile.inside(), 1, "the other one runs on");
    let first = pair.pop().unwrap();
    first.cancel();
    assert!(is_cancelled(&last(first).await));
    turnstile.empty().await;
    let snapshot = queue.snapshot().await;
    assert_eq!(snapshot.listener("batch").unwrap().cancelled, 2);
}

#[actix::test]
async fn dropping_cancels_and_detaching_does_not() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let detached = queue.submit("a", 0u32).await.unwrap();
    turnstile.arrived(1).await;
    detached.detach();
    let dropped = queue.submit("a", 1u32).await.unwrap();
    let mut called = Box::pin(queue.call::<_, u32>("a", 2u32));
    assert!(futures::poll!(&mut called).is_pending());
    while queue.snapshot().await.concurrency_ids[0].waiting != 2 {}
    drop(dropped);
    drop(called);
    while queue.snapshot().await.concurrency_ids[0].waiting != 0 {}
    turnstile.open();
    turnstile.passed(1).await;
    while queue.snapshot().await.listener("a").unwrap().completed != 1 {}
    assert_eq!(queue.snapshot().await.listener("a").unwrap().cancelled, 2);
}

#[actix::test]
async fn cancelling_what_has_ended_or_never_was_does_nothing() {
    let turnstile = Turnstile::new();
    turnstile.open();
    let queue = queue(&turnstile);
    let recorder = Recorder::start();
    let id = queue.submit_to("a", 0u32, recorder.recipient()).await.unwrap();
    recorder.ended(1).await;
    queue.cancel("a", id).unwrap();
    queue.cancel("a", "00000000000000000000000000000000".parse().unwrap()).unwrap();
    assert!(queue.cancel("b", id).is_err());
    assert_eq!(queue.call::<_, u32>("a", 1u32).await, Ok(1));
    assert!(recorder.take().is_empty());
}

#[actix::test]
async fn a_caller_that_leaves_the_door_is_never_admitted() {
    let turnstile = Turnstile::new();
    let listener = Listener::new("a", turnstile.handler()).max_size(1);
    let queue = Queue::builder().listener(listener).start().unwrap();
    let running = queue.submit("a", 0u32).await.unwrap();
    turnstile.arrived(1).await;
    let waiting = queue.submit("a", 1u32).await.unwrap();
    let mut at_door = Box::pin(queue.submit("a", 2u32));
    assert!(futures::poll!(&mut at_door).is_pending());
    while queue.snapshot().await.concurrency_ids[0].blocked != 1 {}
    drop(at_door);
    while queue.snapshot().await.concurrency_ids[0].blocked != 0 {}
    turnstile.open();
    assert_eq!(running.result::<u32>().await, Ok(0));
    assert_eq!(waiting.result::<u32>().await, Ok(1));
    assert_eq!(queue.snapshot().await.listener("a").unwrap().admitted, 2);
    let error = queue.call::<_, u32>("b", 0u32).await.unwrap_err();
    assert!(matches!(error, CallError::Submit(_)));
}

#[actix::test]
async fn an_event_is_cancelled_by_its_own_listeners_name_only() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder()
        .listener(Listener::new("a", turnstile.handler()).concurrency_id("x"))
        .listener(Listener::new("b", turnstile.handler()).concurrency_id("x").max_size(1))
        .start()
        .unwrap();
    let running = queue.submit("a", 0u32).await.unwrap();
    turnstile.arrived(1).await;
    let waiting = queue.submit("a", 1u32).await.unwrap();
    for event in [&running, &waiting] {
        queue.cancel("b", event.id()).unwrap();
    }
    // What the supervisor was sent before this, it has done.
    queue.resume("x").await.unwrap();
    let snapshot = queue.snapshot().await;
    let id = snapshot.concurrency_id("x").unwrap();
    assert_eq!((id.running, id.waiting), (1, 1));
    turnstile.open();
    assert_eq!(running.result::<u32>().await, Ok(0));
    assert_eq!(waiting.result::<u32>().await, Ok(1));
}

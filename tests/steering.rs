//! Steering at run time: pause, resume, limits up and down, snapshots, shutdown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use now_serving::testing::{Recorder, Turnstile};
use now_serving::{
    CallError, ControlError, EventContext, Limit, Listener, Outcome, Queue, Refusal, SlotState,
    SubmitError, Update,
};

fn queue(turnstile: &Turnstile, limit: impl Into<Limit>) -> Queue {
    let listener = Listener::new("a", turnstile.handler()).concurrency_limit(limit);
    Queue::builder().listener(listener).start().unwrap()
}

#[actix::test]
async fn a_paused_id_starts_nothing_and_loses_nothing() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile, 2);
    let running = queue.submit("a", 0u32).await.unwrap();
    turnstile.arrived(1).await;
    queue.pause("a").await.unwrap();
    let waiting = queue.submit("a", 1u32).await.unwrap();
    turnstile.open();
    assert_eq!(running.result::<u32>().await, Ok(0), "running ones go on");
    let id = queue.snapshot().await.concurrency_ids.remove(0);
    assert!(id.paused);
    assert_eq!((id.running, id.waiting), (0, 1));
    queue.resume("a").await.unwrap();
    assert_eq!(waiting.result::<u32>().await, Ok(1));
}

#[actix::test]
async fn a_limit_goes_up_at_once_and_down_as_slots_come_free() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile, 1);
    let recorder = Recorder::start();
    for n in 0..12u32 {
        queue.submit_to("a", n, recorder.recipient()).await.unwrap();
    }
    turnstile.arrived(1).await;
    queue.set_concurrency_limit("a", 4).await.unwrap();
    turnstile.arrived(4).await;
    queue.set_concurrency_limit("a", 2).await.unwrap();
    for finished in 1..=2 {
        turnstile.let_through(1);
        turnstile.passed(finished).await;
        while queue.snapshot().await.concurrency_ids[0].running != 4 - finished {}
    }
    // Two are running: the next ends make room for others, two at a time.
    turnstile.let_through(1);
    turnstile.arrived(5).await;
    assert_eq!(queue.snapshot().await.concurrency_ids[0].running, 2);
    queue.set_concurrency_limit("a", None).await.unwrap();
    turnstile.arrived(12).await;
    turnstile.open();
    recorder.ended(12).await;
}

#[actix::test]
async fn what_cannot_be_is_refused() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile, 1);
    let unknown = ControlError::UnknownConcurrencyId("b".into());
    assert_eq!(queue.pause("b").await, Err(unknown.clone()));
    assert_eq!(queue.resume("b").await, Err(unknown.clone()));
    assert_eq!(queue.set_concurrency_limit("b", 1).await, Err(unknown));
    assert_eq!(queue.set_concurrency_limit("a", 0).await, Err(ControlError::ZeroLimit));
}

#[actix::test]
async fn a_snapshot_shows_slots_line_and_listeners() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile, 2);
    let recorder = Recorder::start();
    let first = queue.submit_to("a", 0u32, recorder.recipient()).await.unwrap();
    for n in 1..5u32 {
        queue.submit_to("a", n, recorder.recipient()).await.unwrap();
    }
    turnstile.arrived(2).await;
    let snapshot = queue.snapshot().await;
    let id = snapshot.concurrency_id("a").unwrap();
    assert_eq!((id.limit, id.running, id.waiting, id.blocked), (Limit::Slots(2), 2, 3, 0));
    assert!(id.oldest_wait.is_some_and(|seconds| seconds >= 0.0));
    let SlotState::Busy { events, listener, seconds, interrupted, .. } = &id.slots[0].state else {
        panic!("{:?}", id.slots[0])
    };
    assert_eq!((events.as_slice(), &**listener, *interrupted), (&[first][..], "a", false));
    assert!(*seconds >= 0.0);
    let listener = snapshot.listener("a").unwrap();
    assert_eq!((listener.admitted, listener.waiting, listener.average_run), (5, 3, None));
    let json = serde_json::to_value(&snapshot).unwrap();
    assert_eq!(json["concurrency_ids"][0]["slots"][1]["state"]["state"], "busy");
    turnstile.open();
    recorder.ended(5).await;
}

#[actix::test]
async fn idle_workers_of_an_unlimited_id_are_used_again() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile, None);
    for round in 1..=3 {
        let recorder = Recorder::start();
        for n in 0..10u32 {
            queue.submit_to("a", n, recorder.recipient()).await.unwrap();
        }
        turnstile.arrived(10 * round).await;
        turnstile.let_through(10);
        recorder.ended(10).await;
        while queue.snapshot().await.concurrency_ids[0].running != 0 {}
        assert_eq!(queue.snapshot().await.concurrency_ids[0].slots.len(), 10);
    }
}

fn outcome(updates: Vec<Update>) -> Outcome {
    match updates.into_iter().last() {
        Some(Update::ProcessCompleted { outcome, .. }) => outcome,
        other => panic!("{other:?}"),
    }
}

#[actix::test]
async fn a_shutdown_lets_running_events_finish_and_tells_the_waiting_ones() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile, 1);
    let running = queue.submit("a", 0u32).await.unwrap();
    turnstile.arrived(1).await;
    let recorder = Recorder::start();
    queue.submit_to("a", 1u32, recorder.recipient()).await.unwrap();
    let stopping = actix::spawn({
        let queue = queue.clone();
        async move { queue.shutdown(Duration::from_secs(3600)).await }
    });
    assert!(matches!(outcome(recorder.ended(1).await), Outcome::Stopped));
    let refused = queue.try_submit("a", 2u32).await.unwrap_err();
    assert_eq!(refused, SubmitError::Refused(Refusal::Stopped));
    assert_eq!(queue.call::<_, u32>("a", 3u32).await, Err(Refusal::Stopped.into()));
    turnstile.open();
    assert_eq!(running.result::<u32>().await, Ok(0));
    let shutdown = stopping.await.unwrap();
    assert!(shutdown.drained && shutdown.stopped);
    let again = queue.shutdown(Duration::ZERO).await;
    assert!(again.stopped);
}

#[actix::test]
async fn a_shutdown_interrupts_what_outlasts_its_grace() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile, 1);
    let running = queue.submit("a", 0u32).await.unwrap();
    turnstile.arrived(1).await;
    let shutdown = queue.shutdown(Duration::from_millis(5)).await;
    assert!(!shutdown.drained && shutdown.stopped);
    assert_eq!(running.result::<u32>().await, Err(CallError::Stopped));
    assert_eq!(turnstile.inside(), 0);
}

#[actix::test]
async fn a_shutdown_does_not_hang_on_a_handler_that_never_returns() {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let stubborn = move |_: u32, _: EventContext| {
        while !stopped.load(SeqCst) {
            std::thread::yield_now();
        }
        Ok::<_, String>(0u32)
    };
    let queue = Queue::builder().listener(Listener::blocking("a", stubborn)).start().unwrap();
    let running = queue.submit("a", 0u32).await.unwrap();
    while queue.snapshot().await.concurrency_ids[0].running != 1 {}
    let shutdown = queue.shutdown(Duration::ZERO).await;
    assert!(!shutdown.drained && !shutdown.stopped);
    assert_eq!(running.result::<u32>().await, Err(CallError::Stopped), "its client is notified");
    stop.store(true, SeqCst);
}

#[actix::test]
async fn dropping_the_queue_leaves_nobody_waiting() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile, 1);
    let running = queue.submit("a", 0u32).await.unwrap();
    turnstile.arrived(1).await;
    let waiting = queue.submit("a", 1u32).await.unwrap();
    drop(queue);
    for submission in [running, waiting] {
        let error = submission.result::<u32>().await.unwrap_err();
        assert!(error.to_string().contains("lost"), "{error}");
    }
}

/// Followed or not: an operator sees it.
#[actix::test]
async fn a_snapshot_tells_how_far_a_run_has_got() {
    let turnstile = Turnstile::new();
    let inside = turnstile.clone();
    let paint = move |steps: u32, context: EventContext| {
        let turnstile = inside.clone();
        async move {
            turnstile.pass().await;
            context.progress(0.25, "sketching");
            turnstile.pass().await;
            for step in context.track(0..steps, "steps") {
                if step == 3 {
                    turnstile.pass().await;
                }
            }
            Ok::<_, String>(steps)
        }
    };
    let queue = Queue::builder().listener(Listener::new("paint", paint)).start().unwrap();
    let call = actix::spawn({
        let queue = queue.clone();
        async move { queue.call::<u32, u32>("paint", 4).await }
    });
    let progress = async || {
        let snapshot = queue.snapshot().await;
        match &snapshot.concurrency_id("paint").unwrap().slots[0].state {
            SlotState::Busy { progress, .. } => *progress,
            other => panic!("{other:?}"),
        }
    };
    for (passed, expected) in [(0, None), (1, Some(0.25)), (1, Some(0.75))] {
        turnstile.arrived(1).await;
        turnstile.let_through(passed);
        while progress().await != expected {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    turnstile.open();
    assert_eq!(call.await.unwrap(), Ok(4));
}

//! A full wait queue: `try_submit` is refused, `submit` waits, and nothing already accepted is
//! lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures::future::join_all;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use now_serving::testing::{Recorder, Turnstile};
use now_serving::{CallError, Listener, Queue, Refusal, SubmitError, Validation};

fn refusal(error: SubmitError) -> Refusal {
    match error {
        SubmitError::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[actix::test]
async fn a_full_line_refuses_and_says_its_size() {
    let turnstile = Turnstile::new();
    let listener = Listener::new("a", turnstile.handler()).max_size(2);
    let queue = Queue::builder().listener(listener).start().unwrap();
    let recorder = Recorder::start();
    queue.submit_to("a", 0u32, recorder.recipient()).await.unwrap();
    turnstile.arrived(1).await;
    for n in 1..3u32 {
        queue.submit_to("a", n, recorder.recipient()).await.unwrap();
    }
    for n in 3..50u32 {
        let refused = refusal(queue.try_submit("a", n).await.unwrap_err());
        assert_eq!(refused.to_string(), "Queue is full. Max size is 2 and size is 2.");
        assert!(matches!(refused, Refusal::QueueFull { max_size: 2, size: 2, retry_after: None }));
    }
    turnstile.let_through(1);
    turnstile.arrived(2).await;
    // There is room again. The listener is notified a moment after the worker has started.
    let submission = loop {
        match queue.try_submit("a", 50u32).await {
            Ok(submission) => break submission,
            Err(error) => {
                let Refusal::QueueFull { retry_after, .. } = refusal(error) else { panic!() };
                assert!(retry_after.is_none_or(|wait| wait >= Duration::from_secs(1)));
            }
        }
    };
    turnstile.open();
    assert_eq!(submission.result::<u32>().await, Ok(50));
    assert_eq!(recorder.ended(3).await.iter().filter(|update| update.is_terminal()).count(), 3);
    let snapshot = queue.snapshot().await;
    let listener = snapshot.listener("a").unwrap();
    assert_eq!((listener.admitted, listener.completed), (4, 4));
    assert!(listener.refused >= 47, "refusals at the edge are counted too: {listener:?}");
}

#[actix::test]
async fn callers_that_wait_for_room_are_let_in_first_come_first_served() {
    let turnstile = Turnstile::new();
    let (gate, order) = (turnstile.clone(), std::sync::Arc::new(std::sync::Mutex::new(vec![])));
    let log = order.clone();
    let handler = move |n: u32| {
        let (gate, log) = (gate.clone(), log.clone());
        async move {
            gate.pass().await;
            log.lock().unwrap().push(n);
            Ok::<_, String>(n)
        }
    };
    let queue = Queue::builder().listener(Listener::new("a", handler).max_size(3)).start().unwrap();
    let calls = join_all((0..100u32).map(|n| queue.call::<_, u32>("a", n)));
    let (results, ()) = futures::join!(calls, async {
        turnstile.arrived(1).await;
        while queue.snapshot().await.concurrency_ids[0].blocked != 96 {}
        assert_eq!(queue.snapshot().await.concurrency_ids[0].waiting, 3);
        turnstile.open();
    });
    assert_eq!(results.into_iter().map(Result::unwrap).collect::<Vec<_>>(), Vec::from_iter(0..100));
    assert_eq!(*order.lock().unwrap(), Vec::from_iter(0..100));
}

#[actix::test]
async fn the_queues_own_bound_holds_for_all_lines_together() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder()
        .max_size(3)
        .listener(Listener::new("a", turnstile.handler()))
        .listener(Listener::new("b", turnstile.handler()))
        .start()
        .unwrap();
    let recorder = Recorder::start();
    queue.submit_to("a", 0u32, recorder.recipient()).await.unwrap();
    queue.submit_to("b", 0u32, recorder.recipient()).await.unwrap();
    turnstile.arrived(2).await;
    for name in ["a", "a", "b"] {
        queue.submit_to(name, 1u32, recorder.recipient()).await.unwrap();
    }
    for name in ["a", "b"] {
        let refused = refusal(queue.try_submit(name, 2u32).await.unwrap_err());
        assert_eq!(refused.to_string(), "Queue is full. Max size is 3 and size is 3.");
    }
    // One that waits for room at `b` gets in when a place comes free at `a`.
    let cancelled = queue.submit_to("a", 9u32, recorder.recipient());
    assert!(cancelled.await.is_err());
    let mut at_door = Box::pin(queue.call::<_, u32>("b", 3u32));
    assert!(futures::poll!(&mut at_door).is_pending());
    while queue.snapshot().await.concurrency_id("b").unwrap().blocked != 1 {}
    turnstile.open();
    assert_eq!(at_door.await, Ok(3));
    recorder.ended(5).await;
}

#[actix::test]
async fn while_the_whole_queue_is_full_the_edge_refuses_and_no_validator_is_asked() {
    let turnstile = Turnstile::new();
    let validated = Arc::new(AtomicUsize::new(0));
    let count = validated.clone();
    let validator = move |_: &u32| {
        count.fetch_add(1, SeqCst);
        Validation::new()
    };
    let queue = Queue::builder()
        .max_size(2)
        .listener(Listener::new("a", turnstile.handler()))
        .listener(Listener::new("b", turnstile.handler()).validator(validator))
        .start()
        .unwrap();
    let recorder = Recorder::start();
    queue.submit_to("a", 0u32, recorder.recipient()).await.unwrap();
    turnstile.arrived(1).await;
    for n in 1..3u32 {
        queue.submit_to("a", n, recorder.recipient()).await.unwrap();
    }
    for n in 0..100u32 {
        let refused = refusal(queue.try_submit("b", n).await.unwrap_err());
        assert!(matches!(refused, Refusal::QueueFull { max_size: 2, size: 2, .. }), "{refused:?}");
    }
    assert_eq!(validated.load(SeqCst), 0);
    assert_eq!(queue.snapshot().await.listener("b").unwrap().refusals.queue_full, 100);
    turnstile.open();
    recorder.ended(3).await;
    assert_eq!(queue.call::<_, u32>("b", 7u32).await, Ok(7));
    assert_eq!(validated.load(SeqCst), 1);
    queue.try_submit("b", 8u32).await.unwrap().result::<u32>().await.unwrap();
}

/// A caller of one id isn't passed by those of another who came after it, however many they submit.
#[actix::test]
async fn callers_of_all_ids_are_let_in_first_come_first_served() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder()
        .max_size(2)
        .listener(Listener::new("flood", turnstile.handler()))
        .listener(Listener::new("victim", async |n: u32| Ok::<_, String>(n)))
        .start()
        .unwrap();
    let mut flood: FuturesUnordered<_> =
        (0..20u32).map(|n| queue.call::<_, u32>("flood", n)).collect();
    assert!(futures::poll!(flood.next()).is_pending());
    let blocked = async |name: &str, callers: usize| {
        while queue.snapshot().await.concurrency_id(name).unwrap().blocked != callers {}
    };
    blocked("flood", 17).await;
    let mut victim = Box::pin(queue.call::<_, u32>("victim", 7u32));
    assert!(futures::poll!(&mut victim).is_pending());
    blocked("victim", 1).await;
    // Before each event of the flood another caller comes: always enough for every place.
    let mut passed = 0;
    let answer = loop {
        flood.push(queue.call::<_, u32>("flood", 20 + passed));
        turnstile.let_through(1);
        futures::select_biased! {
            answer = (&mut victim).fuse() => break answer,
            ended = flood.select_next_some() => drop(ended.unwrap()),
        }
        passed += 1;
        assert!(passed < 1000, "the caller of the other id starves");
    };
    assert_eq!(answer, Ok(7));
    turnstile.open();
    while flood.next().await.is_some() {}
}

/// A caller that its own id keeps waiting takes no room, and delays nobody.
#[actix::test]
async fn who_is_blocked_by_an_ids_own_bound_holds_up_no_other_id() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder()
        .max_size(2)
        .listener(Listener::new("a", turnstile.handler()).max_size(1))
        .listener(Listener::new("b", async |n: u32| Ok::<_, String>(n)))
        .start()
        .unwrap();
    queue.pause("a").await.unwrap();
    let mut calls: FuturesUnordered<_> = (0..5u32).map(|n| queue.call::<_, u32>("a", n)).collect();
    assert!(futures::poll!(calls.next()).is_pending());
    while queue.snapshot().await.concurrency_id("a").unwrap().blocked != 4 {}
    for n in 0..100u32 {
        assert_eq!(queue.call::<_, u32>("b", n).await, Ok(n));
    }
    queue.resume("a").await.unwrap();
    turnstile.open();
    while let Some(ended) = calls.next().await {
        ended.unwrap();
    }
}

#[actix::test]
async fn a_wait_that_is_estimated_too_long_is_refused() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder()
        .max_eta(Duration::ZERO)
        .listener(Listener::new("a", turnstile.handler()))
        .start()
        .unwrap();
    turnstile.let_through(1);
    // While nothing is known of run times, everybody is let in.
    assert_eq!(queue.call::<_, u32>("a", 0u32).await, Ok(0));
    let running = queue.submit("a", 1u32).await.unwrap();
    turnstile.arrived(2).await;
    // An estimate of exactly nothing is let in, as when the running one is overdue. Behind somebody
    // who waits there is a whole run to wait for.
    let mut waiting = Vec::new();
    let error = loop {
        match queue.try_submit("a", 2u32).await {
            Ok(submission) => waiting.push(submission),
            Err(error) => break refusal(error),
        }
    };
    assert!(waiting.len() <= 1);
    assert!(matches!(error, Refusal::WaitTooLong { max_eta: Duration::ZERO, .. }), "{error:?}");
    turnstile.open();
    assert_eq!(running.result::<u32>().await, Ok(1));
}

#[actix::test]
async fn a_flood_waits_in_the_callers_and_every_call_is_answered() {
    let queue = Queue::builder()
        .listener(Listener::new("a", async |n: u32| Ok::<_, String>(n)).max_size(10))
        .start()
        .unwrap();
    let calls = (0..20_000u32).map(|n| queue.call::<_, u32>("a", n));
    let results: Result<Vec<u32>, CallError> = join_all(calls).await.into_iter().collect();
    assert_eq!(results.unwrap(), Vec::from_iter(0..20_000));
}

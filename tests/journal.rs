//! Durable listeners: what was accepted outlives its process.
//!
//! A process that dies is played by a queue that is dropped, or by one on a copy of the file: what dies
//! for real is in `tests/kill.rs`.
#![cfg(feature = "journal")]

mod disk;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use disk::Disk;
use futures::StreamExt;
use now_serving::testing::Turnstile;
use now_serving::{
    Backoff, CallError, EventContext, EventId, FollowError, Listener, OnCrash, Outcome, Queue,
    SlotState, StartError, SubmitError, Update, UserError,
};

fn waiting(turnstile: &Turnstile) -> Listener<u32, u32> {
    Listener::new("wait", turnstile.handler()).durable()
}

/// Submits, and lets the event go on without its submitter.
async fn leave(queue: &Queue, input: u32) -> EventId {
    let submission = queue.submit("wait", input).await.expect("it is accepted");
    let id = submission.id();
    submission.detach();
    id
}

/// How many starts of an event are on record; `None` once it has ended.
fn attempts_on_record(disk: &Disk, event: EventId) -> Option<u32> {
    let connection = rusqlite::Connection::open(disk.path()).expect("it is there");
    let attempt = |row: &rusqlite::Row<'_>| row.get(0);
    let query = "SELECT attempt FROM events WHERE id = ?1";
    connection.query_row(query, [event.to_string()], attempt).ok()
}

async fn result(queue: &Queue, event: EventId) -> Result<u32, CallError> {
    queue.follow(event).await.expect("it is known").result().await
}

#[actix::test]
async fn what_waits_and_what_runs_goes_on_in_the_next_process_in_its_order() {
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    let first = disk.open().listener(waiting(&turnstile)).start().unwrap();
    let mut events = Vec::new();
    for n in 0..5 {
        events.push(leave(&first, n).await);
    }
    turnstile.arrived(1).await;
    let disk = disk.as_it_is();
    let turnstile = Turnstile::new();
    let second = disk.open().listener(waiting(&turnstile)).start().unwrap();
    turnstile.arrived(1).await;
    let mut third = second.follow(events[3]).await.unwrap();
    let Some(Update::Estimation { rank, queue_size, .. }) = third.next().await else {
        panic!("its rank comes first")
    };
    assert_eq!((rank, queue_size), (2, 4), "one of the five runs, two are ahead");
    turnstile.open();
    assert_eq!(third.result().await, Ok(3u32));
    for (n, event) in (0..).zip(&events) {
        assert_eq!(result(&second, *event).await, Ok(n));
    }
    let snapshot = second.snapshot().await;
    let order: Vec<_> = snapshot.concurrency_ids[0].recent.iter().map(|event| event.id).collect();
    let mut expected = events;
    if order.first() != expected.first() {
        expected.reverse();
    }
    assert_eq!(order, expected);
}

#[actix::test]
async fn an_end_can_be_asked_for_by_a_later_process_as_what_it_was() {
    let disk = Disk::new();
    let handler = async |n: u32| match n {
        0 => Ok(7u32),
        1 => Err(UserError::new("it can't be done").title("Sorry")),
        _ => std::future::pending().await,
    };
    let listener = || Listener::new("wait", handler).durable().concurrency_limit(None);
    let first = disk.open().listener(listener()).start().unwrap();
    let (done, failed) = (leave(&first, 0).await, leave(&first, 1).await);
    let cancelled = first.submit("wait", 2u32).await.unwrap();
    let cancelled_id = cancelled.id();
    cancelled.cancel();
    assert_eq!(cancelled.result::<u32>().await, Err(CallError::Cancelled));
    for id in [done, failed] {
        while matches!(first.follow(id).await, Err(FollowError::Unknown(_))) {
            actix::clock::sleep(Duration::from_millis(1)).await;
        }
    }
    drop(first);
    let second = disk.open().listener(listener()).start().unwrap();
    assert_eq!(result(&second, done).await, Ok(7));
    // As often as it is asked for.
    assert_eq!(result(&second, done).await, Ok(7));
    let Err(CallError::Failed(failure)) = result(&second, failed).await else {
        panic!("it failed")
    };
    assert_eq!(
        (&*failure.message, &*failure.title, failure.for_user),
        ("it can't be done", "Sorry", true)
    );
    assert_eq!(result(&second, cancelled_id).await, Err(CallError::Cancelled));
    let never: EventId = "00000000000000000000000000000007".parse().unwrap();
    assert_eq!(second.follow(never).await.err(), Some(FollowError::Unknown(never)));
}

#[actix::test]
async fn what_ran_starts_again_as_often_as_it_may_or_fails() {
    let disk = Disk::new();
    let attempts = async |_: u32, context: EventContext| {
        if context.attempt() < 3 {
            std::future::pending::<()>().await;
        }
        Ok::<_, String>(context.attempt())
    };
    let once = async |_: u32| std::future::pending::<Result<u32, String>>().await;
    let builder = |disk: &Disk| {
        disk.open()
            .listener(Listener::new("wait", attempts).durable())
            .listener(Listener::new("twice", attempts).durable().max_attempts(2))
            .listener(Listener::new("once", once).durable().on_crash(OnCrash::Fail))
    };
    let mut queue = builder(&disk).start().unwrap();
    let again = leave(&queue, 0).await;
    let mut submitted = Vec::new();
    for name in ["twice", "once"] {
        let submission = queue.submit(name, 0u32).await.unwrap();
        submitted.push(submission.id());
        submission.detach();
    }
    for attempt in 1..=2 {
        // Each of them that hasn't ended runs, and its start is on record.
        while attempts_on_record(&disk, again) != Some(attempt)
            || queue.snapshot().await.concurrency_ids.iter().any(|id| id.waiting > 0)
        {
            actix::clock::sleep(Duration::from_millis(1)).await;
        }
        drop(queue);
        queue = builder(&disk).start().unwrap();
    }
    assert_eq!(result(&queue, again).await, Ok(3));
    for event in submitted {
        let Err(CallError::Failed(failure)) = result(&queue, event).await else {
            panic!("it failed")
        };
        assert!(failure.message.starts_with("the service ended while it ran"), "{failure}");
    }
}

#[actix::test]
async fn what_fails_in_passing_is_tried_again_without_holding_its_slot() {
    let disk = Disk::new();
    let flaky = async |n: u32, context: EventContext| match (n, context.attempt()) {
        (0, attempt @ ..3) => Err(UserError::new(format!("not now, at {attempt}")).transient()),
        (0, attempt) => Ok(attempt),
        (1, _) => Err(UserError::new("never").retry_after(Duration::ZERO)),
        (n, _) => Ok(n),
    };
    let backoff = Backoff::constant(Duration::from_millis(30));
    let listener = Listener::new("wait", flaky).durable().retry(backoff);
    let queue = disk.open().listener(listener).start().unwrap();
    let flaky = queue.submit("wait", 0u32).await.unwrap();
    // It doesn't wait for those that are put off.
    assert_eq!(queue.call("wait", 5u32).await, Ok(5u32));
    assert_eq!(flaky.result().await, Ok(3u32));
    let never = queue.call::<u32, u32>("wait", 1).await;
    assert!(matches!(never, Err(CallError::Failed(failure)) if failure.message == "never"));
    let snapshot = queue.snapshot().await;
    let listener = &snapshot.concurrency_ids[0].listeners[0];
    assert_eq!((listener.admitted, listener.completed, listener.failed), (3, 2, 1));
    assert_eq!(snapshot.concurrency_ids[0].scheduled, 0);
}

#[actix::test]
async fn an_event_may_be_for_later_and_outlives_the_process_meanwhile() {
    let disk = Disk::new();
    let echo = async |n: u32| Ok::<_, String>(n);
    let listener = || Listener::new("wait", echo).durable();
    let first = disk.open().listener(listener()).start().unwrap();
    let handle = first.listener::<u32, u32>("wait").unwrap();
    let later = handle.event(1).delay(Duration::from_secs(3600)).submit().await.unwrap();
    let soon = handle.event(2).delay(Duration::from_millis(40)).submit().await.unwrap();
    assert_eq!(first.snapshot().await.concurrency_ids[0].scheduled, 2);
    assert_eq!(handle.call(3).await, Ok(3), "nobody waits for it");
    assert_eq!(soon.result().await, Ok(2u32));
    let later_id = later.id();
    later.detach();
    drop((handle, first));
    let second = disk.open().listener(listener()).start().unwrap();
    let snapshot = second.snapshot().await;
    assert_eq!(
        (snapshot.concurrency_ids[0].scheduled, snapshot.concurrency_ids[0].waiting),
        (1, 0)
    );
    let later = second.follow(later_id).await.unwrap();
    later.cancel();
    assert_eq!(later.result::<u32>().await, Err(CallError::Cancelled));
}

#[actix::test]
async fn however_long_a_pause_is_it_is_waited_for_and_outlives_the_process() {
    let disk = Disk::new();
    let busy = async |n: u32| match n {
        0 => Err(UserError::new("not now").retry_after(Duration::MAX)),
        n => Ok(n),
    };
    let listener = || Listener::new("wait", busy).durable();
    let first = disk.open().listener(listener()).start().unwrap();
    let handle = first.listener::<u32, u32>("wait").unwrap();
    let mut events = Vec::new();
    for event in [
        handle.event(0),
        handle.event(1).delay(Duration::MAX),
        handle.event(1).delay(Duration::from_millis(u64::MAX)),
    ] {
        let submission = event.submit().await.unwrap();
        events.push(submission.id());
        submission.detach();
    }
    while first.snapshot().await.concurrency_ids[0].scheduled < 3 {}
    assert_eq!(handle.call(3).await, Ok(3));
    drop((handle, first));
    let second = disk.open().listener(listener()).start().unwrap();
    let snapshot = second.snapshot().await;
    assert_eq!(snapshot.concurrency_ids[0].scheduled, 3);
    for event in events {
        let left = second.follow(event).await.unwrap();
        left.cancel();
        assert_eq!(left.result::<u32>().await, Err(CallError::Cancelled));
    }
}

#[actix::test]
async fn without_a_journal_an_event_may_be_for_later_too() {
    let echo = async |n: u32| Ok::<_, String>(n);
    let queue = Queue::builder().listener(Listener::new("wait", echo)).start().unwrap();
    let handle = queue.listener::<u32, u32>("wait").unwrap();
    let later = handle.event(1).delay(Duration::from_millis(20)).submit().await.unwrap();
    assert_eq!(queue.snapshot().await.concurrency_ids[0].scheduled, 1);
    assert_eq!(later.result().await, Ok(1u32));
    let never = handle.event(2).delay(Duration::from_secs(3600)).submit().await.unwrap();
    drop(never);
    while queue.snapshot().await.concurrency_ids[0].scheduled > 0 {}
}

#[actix::test]
async fn the_same_key_gives_the_same_event_and_its_end() {
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    let first = disk.open().listener(waiting(&turnstile)).start().unwrap();
    let handle = first.listener::<u32, u32>("wait").unwrap();
    let keyed = |n: u32, key: &str| handle.event(n).idempotency_key(key).submit();
    let (one, again) = futures::join!(keyed(1, "a"), keyed(1, "a"));
    let (one, again) = (one.unwrap(), again.unwrap());
    let other = keyed(1, "b").await.unwrap();
    let reused = keyed(2, "a").await;
    assert!(matches!(reused, Err(SubmitError::KeyReused(key)) if key == "a"));
    turnstile.open();
    assert_eq!((one.result().await, again.result().await), (Ok(1u32), Ok(1u32)));
    let (ended, reused) = (keyed(1, "a").await.unwrap(), keyed(2, "a").await);
    assert_eq!(ended.result().await, Ok(1u32));
    assert!(matches!(reused, Err(SubmitError::KeyReused(_))));
    assert_eq!(other.result().await, Ok(1u32));
    let snapshot = first.snapshot().await;
    assert_eq!(snapshot.concurrency_ids[0].listeners[0].completed, 2, "each key ran once");
    // A user's keys are the user's own.
    let ada = first.as_user("ada").listener::<u32, u32>("wait").unwrap();
    assert_eq!(ada.event(5).idempotency_key("a").submit().await.unwrap().result().await, Ok(5u32));
    drop((ada, handle, first));
    let second = disk.open().listener(waiting(&turnstile)).start().unwrap();
    let handle = second.listener::<u32, u32>("wait").unwrap();
    let kept = handle.event(1).idempotency_key("a").submit().await.unwrap();
    assert_eq!(kept.result().await, Ok(1u32));
}

#[actix::test]
async fn a_stop_leaves_what_waits_on_record() {
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    let first = disk.open().listener(waiting(&turnstile)).start().unwrap();
    let running = first.submit("wait", 0u32).await.unwrap();
    let waits = first.submit("wait", 1u32).await.unwrap();
    let (running_id, waits_id) = (running.id(), waits.id());
    turnstile.arrived(1).await;
    let shutdown = first.shutdown(Duration::from_secs(60));
    let told = waits.filter_map(async |update| match update {
        Update::ProcessCompleted { outcome, .. } => Some(outcome),
        _ => None,
    });
    let finish = async {
        let mut told = std::pin::pin!(told);
        let told = told.next().await;
        turnstile.open();
        told
    };
    let (shutdown, told) = futures::join!(shutdown, finish);
    assert!(shutdown.drained);
    assert!(matches!(told, Some(Outcome::Stopped)));
    assert_eq!(running.result().await, Ok(0u32), "what runs finishes, and is on record");
    drop(first);
    let second = disk.open().listener(waiting(&turnstile)).start().unwrap();
    assert_eq!(result(&second, running_id).await, Ok(0));
    assert_eq!(result(&second, waits_id).await, Ok(1));
}

#[actix::test]
async fn what_operators_set_is_still_set() {
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    let listeners = || waiting(&turnstile).concurrency_limit(2);
    let first = disk.open().listener(listeners()).start().unwrap();
    first.pause("wait").await.unwrap();
    first.set_concurrency_limit("wait", 5).await.unwrap();
    drop(first);
    let second = disk.open().listener(listeners()).start().unwrap();
    let id = &second.snapshot().await.concurrency_ids[0];
    assert_eq!((id.paused, id.limit), (true, 5.into()));
    second.resume("wait").await.unwrap();
    drop(second);
    let third = disk.open().listener(listeners()).start().unwrap();
    assert!(!third.snapshot().await.concurrency_ids[0].paused);
}

#[actix::test]
async fn an_event_of_this_process_can_be_followed_once_more() {
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    let queue = disk.open().listener(waiting(&turnstile)).start().unwrap();
    let event = leave(&queue, 7).await;
    let ada = queue.as_user("ada").submit("wait", 8u32).await.unwrap();
    let once_more = queue.follow(event).await.unwrap();
    let and_again = queue.follow(event).await.unwrap();
    let mallory = queue.as_user("mallory");
    assert!(matches!(mallory.follow(ada.id()).await, Err(FollowError::Unknown(_))));
    turnstile.open();
    assert_eq!(once_more.result().await, Ok(7u32));
    assert_eq!(and_again.result().await, Ok(7u32));
    let adas = queue.as_user("ada").follow(ada.id()).await.unwrap();
    assert_eq!((ada.result().await, adas.result().await), (Ok(8u32), Ok(8u32)));
}

#[actix::test]
async fn ends_are_forgotten_after_their_time() {
    let disk = Disk::new();
    let echo = async |n: u32| Ok::<_, String>(n);
    let builder = disk.open().result_ttl(Duration::from_millis(100));
    let queue = builder.listener(Listener::new("wait", echo).durable()).start().unwrap();
    let event = queue.submit("wait", 1u32).await.unwrap();
    let id = event.id();
    event.result::<u32>().await.unwrap();
    while queue.follow(id).await.is_ok() {
        actix::clock::sleep(Duration::from_millis(5)).await;
    }
}

#[actix::test]
async fn an_input_that_the_service_no_longer_reads_makes_its_event_fail() {
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    let first = disk.open().listener(waiting(&turnstile)).start().unwrap();
    let event = leave(&first, 7).await;
    drop(first);
    let text = async |text: String| Ok::<_, String>(text);
    let queue = disk.open().listener(Listener::new("wait", text).durable()).start().unwrap();
    let failed = queue.follow(event).await.unwrap().result::<String>().await;
    let Err(CallError::Failed(failure)) = failed else { panic!("{failed:?}") };
    assert!(failure.message.contains("is no alloc::string::String any more"), "{failure}");
}

#[actix::test]
async fn events_of_a_listener_that_is_gone_stay_until_it_is_back() {
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    let first = disk.open().listener(waiting(&turnstile)).start().unwrap();
    let event = leave(&first, 7).await;
    drop(first);
    let other = async |n: u32| Ok::<_, String>(n);
    let second = disk.open().listener(Listener::new("other", other).durable()).start().unwrap();
    assert_eq!(second.call("other", 1u32).await, Ok(1u32));
    assert!(matches!(second.follow(event).await, Err(FollowError::Unknown(_))));
    drop(second);
    turnstile.open();
    let third = disk.open().listener(waiting(&turnstile)).start().unwrap();
    assert_eq!(result(&third, event).await, Ok(7));
}

#[actix::test]
async fn contradictions_are_refused_at_the_start() {
    let echo = async |n: u32| Ok::<_, String>(n);
    let start = |listener| Queue::builder().listener(listener).start().err();
    let durable = start(Listener::new("a", echo).durable());
    assert_eq!(durable, Some(StartError::DurableWithoutJournal("a".into())));
    let option = start(Listener::new("a", echo).max_attempts(2));
    assert!(matches!(option, Some(StartError::NotDurable { option: "max_attempts", .. })));
    let disk = Disk::new();
    let zero = disk.open().listener(Listener::new("a", echo).durable().max_attempts(0)).start();
    assert_eq!(zero.err(), Some(StartError::ZeroAttempts("a".into())));
    let unqueued = disk.open().listener(Listener::new("a", echo).durable().queue(false)).start();
    assert!(matches!(unqueued.err(), Some(StartError::Unqueued { .. })));
    let key = Queue::builder().listener(Listener::new("a", echo)).start().unwrap();
    let handle = key.listener::<u32, u32>("a").unwrap();
    let refused = handle.event(1).idempotency_key("k").submit().await.err();
    assert_eq!(refused, Some(SubmitError::NotDurable("a".into())));
}

/// Fails until it is mended.
fn mendable(mended: &Arc<AtomicBool>) -> Listener<u32, u32> {
    let mended = mended.clone();
    let work = move |n: u32| {
        let mended = mended.clone();
        async move {
            match mended.load(Ordering::SeqCst) {
                true => Ok(n),
                false => Err(UserError::new("the model is gone").retry_after(Duration::ZERO)),
            }
        }
    };
    Listener::new("wait", work).durable().max_attempts(2)
}

#[actix::test]
async fn what_has_failed_can_be_submitted_again_in_a_later_process_too() {
    let (disk, mended) = (Disk::new(), Arc::new(AtomicBool::new(false)));
    let first = disk.open().listener(mendable(&mended)).start().unwrap();
    let as_ada = first.as_user("ada");
    let failed = as_ada.submit("wait", 7u32).await.unwrap();
    let id = failed.id();
    assert!(matches!(failed.result::<u32>().await, Err(CallError::Failed(_))));
    drop((as_ada, first));
    mended.store(true, Ordering::SeqCst);
    let second = disk.open().listener(mendable(&mended)).start().unwrap();
    let refused = second.as_user("bob").resubmit(id).await;
    assert_eq!(refused.err(), Some(SubmitError::NotFailed(id)));
    let again = second.resubmit(id).await.unwrap();
    let again_id = again.id();
    assert_ne!(again_id, id);
    assert_eq!(again.result().await, Ok(7u32));
    // Its user's, as the failed one was; whose end stays.
    assert_eq!(result(&second.as_user("ada"), again_id).await, Ok(7));
    assert!(matches!(result(&second, id).await, Err(CallError::Failed(_))));
    let refused = second.resubmit(again_id).await;
    assert_eq!(refused.err(), Some(SubmitError::NotFailed(again_id)), "it hasn't failed");
}

#[actix::test]
async fn a_snapshot_shows_what_is_for_later_and_which_attempt_runs() {
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    let passing = turnstile.clone();
    let work = move |n: u32, context: EventContext| {
        let passing = passing.clone();
        async move {
            if context.attempt() == 1 {
                return Err(UserError::new("not now").retry_after(Duration::ZERO));
            }
            passing.pass().await;
            Err(UserError::new(format!("not for long, {n}")).retry_after(Duration::from_secs(3600)))
        }
    };
    let listener = Listener::<u32, u32>::new("wait", work).durable();
    let queue = disk.open().listener(listener).start().unwrap();
    let handle = queue.listener::<u32, u32>("wait").unwrap();
    let later = handle.event(1).delay(Duration::from_secs(7200)).submit().await.unwrap();
    let flaky = handle.submit(2).await.unwrap();
    turnstile.arrived(1).await;
    let snapshot = queue.snapshot().await;
    let SlotState::Busy { attempt, .. } = snapshot.concurrency_ids[0].slots[0].state else {
        panic!("it runs")
    };
    assert_eq!(attempt, Some(2));
    turnstile.open();
    loop {
        let snapshot = queue.snapshot().await;
        let id = &snapshot.concurrency_ids[0];
        if id.scheduled < 2 {
            continue;
        }
        let upcoming: Vec<_> = id.upcoming.iter().map(|it| (it.id, it.attempts)).collect();
        assert_eq!(upcoming, [(flaky.id(), 2), (later.id(), 0)], "the next one first");
        assert!((3500.0..3601.0).contains(&id.upcoming[0].starts_in));
        break;
    }
}

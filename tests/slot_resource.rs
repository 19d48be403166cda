//! The life of a slot's resource: checked before it is lent, made clean after a run that was cut
//! short, discarded, closed; and what is reported while it can't be built.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::pending;
use now_serving::testing::Turnstile;
use now_serving::{
    CallError, Listener, Queue, QueueBuilder, Refusal, Slot, SlotResource, SubmitError,
};

/// What has been done to the resources, in order, and what is to go wrong next.
#[derive(Clone, Default)]
struct Care {
    done: Arc<Mutex<Vec<String>>>,
    builds: Arc<AtomicUsize>,
    /// No build works.
    broken: Arc<AtomicBool>,
}

/// Numbered by the builds.
#[derive(Debug)]
struct Model {
    build: usize,
    is_dead: bool,
    leftovers: Vec<String>,
}

impl Care {
    fn note(&self, what: &str, model: &Model) {
        self.done.lock().unwrap().push(format!("{what} {}", model.build));
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.done.lock().unwrap())
    }

    /// Built and closed; the closing takes a while.
    fn resource(&self) -> SlotResource<Model> {
        let (build, close) = (self.clone(), self.clone());
        SlotResource::new(move |_| {
            let care = build.clone();
            async move {
                if care.broken.load(SeqCst) {
                    return Err("no driver");
                }
                let build = care.builds.fetch_add(1, SeqCst);
                let model = Model { build, is_dead: false, leftovers: Vec::new() };
                care.note("build", &model);
                Ok(model)
            }
        })
        .close(async move |model: Model| {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            close.note("close", &model);
        })
    }

    fn with_reset(&self) -> SlotResource<Model> {
        let care = self.clone();
        self.resource().reset(async move |model: &mut Model| {
            care.note("reset", model);
            match model.leftovers.pop().as_deref() {
                Some("fail") => Err("it sticks"),
                Some("panic") => panic!("a bug in the reset"),
                Some("hang") => pending().await,
                _ => Ok(()),
            }
        })
    }

    fn with_check(&self) -> SlotResource<Model> {
        let care = self.clone();
        self.resource().check(async move |model: &mut Model| {
            care.note("check", model);
            match model.leftovers.pop().as_deref() {
                Some("panic") => panic!("a bug in the check"),
                Some("hang") => pending().await,
                _ => !model.is_dead,
            }
        })
    }
}

/// Gives the number of the build that it ran on.
async fn run(what: String, mut model: Slot<Model>) -> Result<usize, String> {
    let build = model.build;
    match what.as_str() {
        "discard" => Slot::discard(model),
        "die" => model.is_dead = true,
        "panic" => panic!("at work"),
        what if what.starts_with("leave ") => model.leftovers.push(what[6..].into()),
        _ => {}
    }
    Ok(build)
}

/// Leaves its input behind and waits.
fn holding(turnstile: &Turnstile) -> Listener<String, usize> {
    let gate = turnstile.clone();
    let hold = move |what: String, mut model: Slot<Model>| {
        let gate = gate.clone();
        async move {
            model.leftovers.push(what);
            gate.pass().await;
            Ok::<usize, String>(model.build)
        }
    };
    Listener::new("hold", hold).concurrency_id("gpu")
}

fn builder(turnstile: &Turnstile) -> QueueBuilder {
    Queue::builder()
        .listener(Listener::new("run", run).concurrency_id("gpu"))
        .listener(holding(turnstile))
}

async fn ran(queue: &Queue, what: &str) -> Result<usize, CallError> {
    queue.call("run", what.to_string()).await
}

/// A run of `hold` that is cancelled; the `nth` to arrive at the turnstile.
async fn cut_short(queue: &Queue, turnstile: &Turnstile, what: &str, nth: usize) {
    let submission = queue.submit("hold", what.to_string()).await.unwrap();
    turnstile.arrived(nth).await;
    drop(submission);
}

#[actix::test]
async fn a_reset_spares_the_building() {
    let (care, turnstile) = (Care::default(), Turnstile::new());
    let queue = builder(&turnstile).slot_resource("gpu", care.with_reset()).start().unwrap();
    cut_short(&queue, &turnstile, "", 1).await;
    assert_eq!(ran(&queue, "").await, Ok(0));
    assert!(ran(&queue, "panic").await.is_err());
    assert_eq!(ran(&queue, "").await, Ok(0));
    assert_eq!(care.take(), ["build 0", "reset 0", "reset 0"]);
}

#[actix::test]
async fn a_reset_that_does_not_work_means_another() {
    let (care, turnstile) = (Care::default(), Turnstile::new());
    // All on this thread, so that its clock can be ahead.
    let builder = builder(&turnstile).arbiters(0);
    let queue = builder.slot_resource("gpu", care.with_reset()).start().unwrap();
    tokio::time::pause();
    for (round, how) in ["fail", "panic", "hang"].into_iter().enumerate() {
        cut_short(&queue, &turnstile, how, round + 1).await;
        assert_eq!(ran(&queue, "").await, Ok(round + 1), "{how}");
        let (old, new) = (round, round + 1);
        let mut done = care.take();
        done.retain(|what| what != "build 0");
        assert_eq!(done, [format!("reset {old}"), format!("close {old}"), format!("build {new}")]);
    }
}

#[actix::test]
async fn what_is_discarded_is_closed_and_never_made_clean() {
    let (care, turnstile) = (Care::default(), Turnstile::new());
    let queue = builder(&turnstile).slot_resource("gpu", care.with_reset()).start().unwrap();
    assert_eq!(ran(&queue, "discard").await, Ok(0));
    assert_eq!(ran(&queue, "").await, Ok(1));
    assert_eq!(care.take(), ["build 0", "close 0", "build 1"]);
}

#[actix::test]
async fn a_veto_costs_no_event() {
    let (care, turnstile) = (Care::default(), Turnstile::new());
    let builder = builder(&turnstile).arbiters(0);
    let queue = builder.slot_resource("gpu", care.with_check()).start().unwrap();
    assert_eq!(ran(&queue, "die").await, Ok(0));
    assert_eq!(ran(&queue, "").await, Ok(1));
    let done = ["build 0", "check 0", "check 0", "check 0", "close 0", "build 1", "check 1"];
    assert_eq!(care.take(), [&done[..], &["check 1"]].concat());
    assert_eq!(ran(&queue, "leave panic").await, Ok(1));
    assert_eq!(ran(&queue, "leave hang").await, Ok(2));
    tokio::time::pause();
    assert_eq!(ran(&queue, "").await, Ok(3));
    let listener = &queue.snapshot().await.concurrency_ids[0].listeners[0];
    assert_eq!((listener.admitted, listener.completed, listener.failed), (5, 5, 0));
}

/// An event that ends during the check of its slot ends at once, and the slot comes back.
#[actix::test]
async fn a_check_can_be_cancelled_and_timed_out() {
    let (turnstile, checked) = (Turnstile::new(), Arc::new(AtomicUsize::new(0)));
    let (gate, count) = (turnstile.clone(), checked.clone());
    let resource =
        SlotResource::new(|_| async { Ok::<_, String>(0u32) }).check(async move |_: &mut u32| {
            // The first is that of the resource just built.
            if count.fetch_add(1, SeqCst) > 0 {
                gate.pass().await;
            }
            true
        });
    let count = async |_: String, mut runs: Slot<u32>| {
        *runs += 1;
        Ok::<u32, String>(*runs)
    };
    let short = Duration::from_millis(20);
    let queue = Queue::builder()
        .listener(Listener::new("count", count).concurrency_id("gpu"))
        .listener(Listener::new("brief", count).concurrency_id("gpu").time_limit(short))
        .slot_resource("gpu", resource)
        .start()
        .unwrap();
    let cancelled = queue.submit("count", String::new()).await.unwrap();
    turnstile.arrived(1).await;
    cancelled.cancel();
    assert_eq!(cancelled.result::<u32>().await, Err(CallError::Cancelled));
    turnstile.let_through(1);
    let late = queue.call::<_, u32>("brief", String::new()).await;
    assert_eq!(late, Err(CallError::TimedOut));
    turnstile.open();
    assert_eq!(queue.call::<_, u32>("count", String::new()).await, Ok(1));
    let snapshot = queue.snapshot().await;
    let listeners = &snapshot.concurrency_ids[0].listeners;
    assert_eq!((listeners[0].completed, listeners[0].cancelled), (1, 1));
    assert_eq!(listeners[1].timed_out, 1);
}

#[actix::test]
async fn a_slot_that_retires_closes_what_it_owns() {
    let (care, turnstile) = (Care::default(), Turnstile::new());
    let queue = builder(&turnstile)
        .concurrency_id("gpu", 2)
        .slot_resource("gpu", care.resource())
        .start()
        .unwrap();
    while queue.snapshot().await.concurrency_ids[0].slots.len() < 2 {}
    assert!(ran(&queue, "").await.is_ok());
    while care.builds.load(SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
    queue.set_concurrency_limit("gpu", 1).await.unwrap();
    while queue.snapshot().await.concurrency_ids[0].slots.len() > 1 {
        tokio::task::yield_now().await;
    }
    let done = care.take();
    assert_eq!(done.iter().filter(|what| what.starts_with("close")).count(), 1, "{done:?}");
    // One that runs on is closed at the end.
    let submission = queue.submit("hold", String::new()).await.unwrap();
    turnstile.arrived(1).await;
    let down = queue.shutdown(Duration::ZERO).await;
    assert!(!down.drained && down.stopped && down.closed);
    assert_eq!(submission.result::<usize>().await, Err(CallError::Stopped));
    let done = care.take();
    assert_eq!(done.len(), 1, "nothing is built for a queue that stops: {done:?}");
    assert!(done[0].starts_with("close"));
}

#[actix::test]
async fn a_shutdown_does_not_wait_for_ever_for_what_does_not_close() {
    let hangs = SlotResource::new(|_| async { Ok::<_, String>(0u32) })
        .close(async |_: u32| pending().await);
    let panics = SlotResource::new(|_| async { Ok::<_, String>(0u64) })
        .close(async |_: u64| panic!("a bug in the closing"));
    let one = async |_: String, _: Slot<u32>| Ok::<u32, String>(1);
    let two = async |_: String, _: Slot<u64>| Ok::<u32, String>(2);
    let queue = Queue::builder()
        .listener(Listener::new("one", one))
        .listener(Listener::new("two", two))
        .slot_resource("one", hangs)
        .slot_resource("two", panics)
        .arbiters(0)
        .start()
        .unwrap();
    for (name, expected) in [("one", 1), ("two", 2)] {
        assert_eq!(queue.call::<_, u32>(name, String::new()).await, Ok(expected));
    }
    tokio::time::pause();
    let down = queue.shutdown(Duration::from_secs(60)).await;
    assert!(down.drained && down.closed);
}

fn refusal(error: SubmitError) -> Refusal {
    match error {
        SubmitError::Refused(refusal) => refusal,
        other => panic!("{other:?}"),
    }
}

#[actix::test]
async fn new_events_are_refused_while_no_slot_can_be_built() {
    let (care, turnstile) = (Care::default(), Turnstile::new());
    care.broken.store(true, SeqCst);
    let resource = care.resource().unavailable_after(Duration::ZERO);
    let queue = builder(&turnstile).slot_resource("gpu", resource).start().unwrap();
    let failing = async || {
        let snapshot = queue.snapshot().await;
        (snapshot.concurrency_ids[0].failing_slots, snapshot.concurrency_ids[0].unavailable)
    };
    while failing().await.0 == 0 {
        tokio::task::yield_now().await;
    }
    assert!(failing().await.1.is_some());
    let refused = refusal(queue.submit("run", String::new()).await.expect_err("nothing can run"));
    let Refusal::Unavailable { retry_after, .. } = refused else { panic!("{refused:?}") };
    assert!(retry_after <= Duration::from_secs(30));
    assert_eq!(queue.snapshot().await.listener("run").unwrap().refusals.unavailable, 1);
    // It opens by itself.
    care.broken.store(false, SeqCst);
    while failing().await != (0, None) {
        tokio::task::yield_now().await;
    }
    assert_eq!(ran(&queue, "").await, Ok(0));
}

#[actix::test]
async fn who_waits_already_stays_while_no_slot_can_be_built() {
    let (care, turnstile) = (Care::default(), Turnstile::new());
    care.broken.store(true, SeqCst);
    let resource = care.resource().unavailable_after(Duration::from_secs(3600));
    let queue = builder(&turnstile).slot_resource("gpu", resource).start().unwrap();
    let waits = queue.submit("run", String::new()).await.unwrap();
    while queue.snapshot().await.concurrency_ids[0].failing_slots == 0 {
        tokio::task::yield_now().await;
    }
    care.broken.store(false, SeqCst);
    assert_eq!(waits.result::<usize>().await, Ok(0));
}

/// A check that is never content is a build that never works.
#[actix::test]
async fn a_resource_that_never_passes_its_check_is_one_that_cannot_be_built() {
    let never = SlotResource::new(|_| async { Ok::<_, String>(0u32) })
        .check(async |_: &mut u32| false)
        .unavailable_after(Duration::ZERO);
    let one = async |_: String, _: Slot<u32>| Ok::<u32, String>(1);
    let builder = Queue::builder().listener(Listener::new("one", one));
    let queue = builder.slot_resource("one", never).start().unwrap();
    while queue.snapshot().await.concurrency_ids[0].failing_slots == 0 {
        tokio::task::yield_now().await;
    }
    let refused = refusal(queue.submit("one", String::new()).await.expect_err("nothing can run"));
    assert!(matches!(refused, Refusal::Unavailable { .. }));
}

/// While one slot's resource can't be built, events run on the others.
#[actix::test]
async fn a_broken_slot_costs_the_others_nothing() {
    let resource =
        SlotResource::new(
            |slot| async move { if slot == 0 { Err("no such GPU") } else { Ok(slot) } },
        )
        .unavailable_after(Duration::ZERO);
    let which = async |_: String, slot: Slot<usize>| Ok::<usize, String>(*slot);
    let builder = Queue::builder().listener(Listener::new("which", which).concurrency_limit(2));
    let queue = builder.slot_resource("which", resource).start().unwrap();
    loop {
        let snapshot = queue.snapshot().await;
        let id = &snapshot.concurrency_ids[0];
        if (id.failing_slots, id.unavailable) == (1, None) {
            break;
        }
        tokio::task::yield_now().await;
    }
    for _ in 0..10 {
        assert_eq!(queue.call::<_, usize>("which", String::new()).await, Ok(1));
    }
}

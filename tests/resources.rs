//! What a slot owns: built by its worker, lent to one run at a time, and to nobody else in the state in
//! which a run that was cut short has left it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use futures::future::join_all;
use now_serving::testing::Turnstile;
use now_serving::{
    CallError, ControlError, EventContext, Limit, Listener, Queue, QueueBuilder, Slot, SlotState,
};

/// Knows how often it was built and used.
#[derive(Debug)]
struct Gpu {
    index: usize,
    build: usize,
    runs: usize,
}

/// Counts builds; the first `failures` of them fail.
fn gpus(builder: QueueBuilder, builds: &Arc<AtomicUsize>, failures: usize) -> QueueBuilder {
    let builds = builds.clone();
    builder.slots("gpu_queue", move |index| {
        let build = builds.fetch_add(1, SeqCst);
        async move {
            if build < failures {
                return Err(format!("no GPU {index}"));
            }
            Ok(Gpu { index, build, runs: 0 })
        }
    })
}

/// (slot, build, run on this build)
type Used = (usize, usize, usize);

async fn run(what: String, mut gpu: Slot<Gpu>, context: EventContext) -> Result<Used, String> {
    gpu.runs += 1;
    assert_eq!(gpu.index, Slot::index(&gpu));
    assert_eq!(gpu.index, context.slot());
    match what.as_str() {
        "panic" => panic!("the GPU fell off the bus"),
        "fail" => Err("no good".into()),
        _ => Ok((gpu.index, gpu.build, gpu.runs)),
    }
}

fn blocking(what: String, mut gpu: Slot<Gpu>) -> Result<Used, String> {
    gpu.runs += 1;
    assert_ne!(what, "panic", "on a blocking thread");
    Ok((gpu.index, gpu.build, gpu.runs))
}

async fn use_it(queue: &Queue, name: &str, what: &str) -> Result<Used, CallError> {
    queue.call(name, what.to_string()).await
}

#[actix::test]
async fn each_slot_keeps_its_own_from_run_to_run() {
    let builds = Arc::new(AtomicUsize::new(0));
    let turnstile = Turnstile::new();
    let gate = turnstile.clone();
    let held = move |_: u32, mut gpu: Slot<Gpu>| {
        let gate = gate.clone();
        async move {
            gate.pass().await;
            gpu.runs += 1;
            Ok::<Used, String>((gpu.index, gpu.build, gpu.runs))
        }
    };
    let listener = Listener::new("held", held).concurrency_id("gpu_queue").concurrency_limit(2);
    let queue = gpus(Queue::builder().listener(listener), &builds, 0).start().unwrap();
    let calls = (0..10u32).map(|n| queue.call::<_, Used>("held", n));
    let (used, ()) = futures::join!(join_all(calls), async {
        turnstile.arrived(2).await;
        turnstile.open();
    });
    let used: Vec<Used> = used.into_iter().map(Result::unwrap).collect();
    assert_eq!(builds.load(SeqCst), 2);
    for slot in 0..2 {
        let runs: Vec<usize> = used.iter().filter(|u| u.0 == slot).map(|u| u.2).collect();
        assert!(!runs.is_empty());
        assert_eq!(runs, (1..=runs.len()).collect::<Vec<_>>());
    }
}

#[actix::test]
async fn it_is_rebuilt_after_a_panic_but_not_after_an_error() {
    let builds = Arc::new(AtomicUsize::new(0));
    let builder = Queue::builder()
        .listener(Listener::new("run", run).concurrency_id("gpu_queue"))
        .listener(Listener::blocking("block", blocking).concurrency_id("gpu_queue"));
    let queue = gpus(builder, &builds, 0).start().unwrap();
    assert_eq!(use_it(&queue, "run", "a").await, Ok((0, 0, 1)));
    assert!(matches!(use_it(&queue, "run", "fail").await, Err(CallError::Failed(_))));
    assert_eq!(use_it(&queue, "block", "b").await, Ok((0, 0, 3)));
    let Err(CallError::Failed(failure)) = use_it(&queue, "run", "panic").await else { panic!() };
    assert_eq!(failure.message, "the handler panicked: the GPU fell off the bus");
    assert_eq!(use_it(&queue, "run", "c").await, Ok((0, 1, 1)));
    assert!(matches!(use_it(&queue, "block", "panic").await, Err(CallError::Failed(_))));
    assert_eq!(use_it(&queue, "run", "d").await, Ok((0, 2, 1)));
}

#[actix::test]
async fn a_run_that_is_cut_short_leaves_nothing_to_the_next() {
    let builds = Arc::new(AtomicUsize::new(0));
    let turnstile = Turnstile::new();
    let gate = turnstile.clone();
    let held = move |_: u32, mut gpu: Slot<Gpu>| {
        let gate = gate.clone();
        async move {
            gpu.runs += 1;
            gate.pass().await;
            Ok::<Used, String>((gpu.index, gpu.build, gpu.runs))
        }
    };
    let gate = turnstile.clone();
    let stream = move |_: u32, mut gpu: Slot<Gpu>| {
        let gate = gate.clone();
        futures::stream::once(async move {
            gpu.runs += 1;
            gate.pass().await;
            Ok::<Used, String>((gpu.index, gpu.build, gpu.runs))
        })
    };
    let short = Duration::from_millis(20);
    let builder = Queue::builder()
        .listener(Listener::new("held", held.clone()).concurrency_id("gpu_queue"))
        .listener(Listener::new("brief", held).concurrency_id("gpu_queue").time_limit(short))
        .listener(Listener::stream("stream", stream).concurrency_id("gpu_queue"))
        .listener(Listener::new("run", run).concurrency_id("gpu_queue"));
    let queue = gpus(builder, &builds, 0).start().unwrap();
    for (build, name) in ["held", "stream"].into_iter().enumerate() {
        let submission = queue.submit(name, 0u32).await.unwrap();
        turnstile.arrived(build + 1).await;
        drop(submission);
        turnstile.empty().await;
        assert_eq!(use_it(&queue, "run", "after").await, Ok((0, build + 1, 1)), "{name}");
    }
    let late = queue.call::<_, Used>("brief", 0u32).await;
    assert_eq!(late, Err(CallError::TimedOut));
    assert_eq!(use_it(&queue, "run", "after").await, Ok((0, 3, 1)), "past its time limit");
    // A run that returns gives it back as it is.
    turnstile.open();
    assert_eq!(queue.call::<_, Used>("held", 1u32).await, Ok((0, 3, 2)));
}

#[actix::test]
async fn a_blocking_handler_that_heeds_its_token_gives_it_back() {
    let builds = Arc::new(AtomicUsize::new(0));
    let (here, arrived) = std::sync::mpsc::channel();
    let heeds = move |_: u32, mut gpu: Slot<Gpu>, context: EventContext| {
        gpu.runs += 1;
        let _ = here.send(());
        while !context.is_cancelled() {
            std::thread::yield_now();
        }
        Ok::<Used, String>((gpu.index, gpu.build, gpu.runs))
    };
    let builder = Queue::builder()
        .listener(Listener::blocking("heeds", heeds).concurrency_id("gpu_queue"))
        .listener(Listener::new("run", run).concurrency_id("gpu_queue"));
    let queue = gpus(builder, &builds, 0).start().unwrap();
    let submission = queue.submit("heeds", 0u32).await.unwrap();
    tokio::task::spawn_blocking(move || arrived.recv()).await.unwrap().unwrap();
    drop(submission);
    assert_eq!(use_it(&queue, "run", "after").await, Ok((0, 0, 2)));
}

#[actix::test]
async fn a_run_without_the_resource_may_be_cut_short() {
    let builds = Arc::new(AtomicUsize::new(0));
    let turnstile = Turnstile::new();
    let builder = Queue::builder()
        .listener(Listener::new("held", turnstile.handler()).concurrency_id("gpu_queue"))
        .listener(Listener::new("run", run).concurrency_id("gpu_queue"));
    let queue = gpus(builder, &builds, 0).start().unwrap();
    let submission = queue.submit("held", 0u32).await.unwrap();
    turnstile.arrived(1).await;
    drop(submission);
    assert_eq!(use_it(&queue, "run", "after").await, Ok((0, 0, 1)));
}

#[actix::test]
async fn panics_do_not_slow_the_next_build_down() {
    let builds = Arc::new(AtomicUsize::new(0));
    let builder = Queue::builder().listener(Listener::new("run", run).concurrency_id("gpu_queue"));
    let queue = gpus(builder, &builds, 0).start().unwrap();
    // With a pause that doubles each time this would take an hour.
    let panics = async {
        for _ in 0..16 {
            assert!(use_it(&queue, "run", "panic").await.is_err());
        }
        use_it(&queue, "run", "good").await
    };
    let good = tokio::time::timeout(Duration::from_secs(60), panics).await;
    assert_eq!(good, Ok(Ok((0, 16, 1))));
}

#[actix::test]
async fn a_large_limit_opens_no_more_slots_than_events_need() {
    let builds = Arc::new(AtomicUsize::new(0));
    let turnstile = Turnstile::new();
    let gate = turnstile.clone();
    let held = move |_: u32, gpu: Slot<Gpu>| {
        let gate = gate.clone();
        async move {
            gate.pass().await;
            Ok::<usize, String>(gpu.index)
        }
    };
    let listener = Listener::new("held", held).concurrency_id("gpu_queue");
    let queue = gpus(Queue::builder().listener(listener), &builds, 0).start().unwrap();
    queue.set_concurrency_limit("gpu_queue", 1_000_000).await.unwrap();
    let calls = join_all((0..40u32).map(|n| queue.call::<_, usize>("held", n)));
    let (calls, ()) = futures::join!(calls, async {
        turnstile.arrived(40).await;
        assert_eq!(queue.snapshot().await.concurrency_ids[0].running, 40);
        turnstile.open();
    });
    assert!(calls.into_iter().all(|call| call.is_ok()));
    assert_eq!(builds.load(SeqCst), 40);
    assert_eq!(queue.snapshot().await.concurrency_ids[0].slots.len(), 40);
}

#[actix::test]
async fn two_builders_for_one_id_are_refused() {
    let builds = Arc::new(AtomicUsize::new(0));
    let builder = Queue::builder().listener(Listener::new("run", run).concurrency_id("gpu_queue"));
    let builder = gpus(gpus(builder, &builds, 0), &builds, 0);
    let error = builder.start().expect_err("it is declared twice").to_string();
    assert!(error.contains("\"gpu_queue\""), "{error}");
}

/// Counts those that are alive.
#[derive(Debug)]
struct Alive(Arc<AtomicUsize>);

impl Alive {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, SeqCst);
        Alive(alive.clone())
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

#[actix::test]
async fn a_shutdown_leaves_no_resource_behind() {
    let alive = Arc::new(AtomicUsize::new(0));
    let turnstile = Turnstile::new();
    let gate = turnstile.clone();
    let held = move |_: u32, _alive: Slot<Alive>| {
        let gate = gate.clone();
        async move {
            gate.pass().await;
            Ok::<(), String>(())
        }
    };
    let build = alive.clone();
    let queue = Queue::builder()
        .listener(Listener::new("held", held).concurrency_id("gpu_queue").concurrency_limit(3))
        .slots("gpu_queue", move |_| {
            let alive = Alive::new(&build);
            async move { Ok::<_, String>(alive) }
        })
        .start()
        .unwrap();
    let running = queue.submit("held", 0u32).await.unwrap();
    turnstile.arrived(1).await;
    while alive.load(SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    let down = queue.shutdown(Duration::ZERO).await;
    assert!(down.stopped && down.closed);
    assert_eq!(alive.load(SeqCst), 0);
    assert_eq!(running.result::<()>().await, Err(CallError::Stopped));
}

#[actix::test]
async fn a_build_that_fails_is_seen_and_tried_again_and_takes_no_events_meanwhile() {
    let builds = Arc::new(AtomicUsize::new(0));
    let builder = Queue::builder().listener(Listener::new("run", run).concurrency_id("gpu_queue"));
    let queue = gpus(builder, &builds, 2).start().unwrap();
    let submission = queue.submit("run", "a".to_string()).await.unwrap();
    loop {
        let snapshot = queue.snapshot().await;
        let id = snapshot.concurrency_id("gpu_queue").unwrap();
        match &id.slots[0].state {
            SlotState::Preparing { trouble: Some(trouble) } => {
                assert_eq!((trouble.as_str(), id.waiting), ("no GPU 0", 1));
                break;
            }
            SlotState::Preparing { trouble: None } => {}
            // The third build may be quicker than the snapshot.
            SlotState::Busy { .. } | SlotState::Free => break,
            other => panic!("{other:?}"),
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(submission.result::<Used>().await, Ok((0, 2, 1)));
}

#[actix::test]
async fn slots_come_and_go_with_the_limit() {
    let builds = Arc::new(AtomicUsize::new(0));
    let turnstile = Turnstile::new();
    let gate = turnstile.clone();
    let held = move |_: u32, gpu: Slot<Gpu>| {
        let gate = gate.clone();
        async move {
            gate.pass().await;
            Ok::<usize, String>(gpu.index)
        }
    };
    let listener = Listener::new("held", held).concurrency_id("gpu_queue");
    let queue = gpus(Queue::builder().listener(listener), &builds, 0).start().unwrap();
    let unlimited = queue.set_concurrency_limit("gpu_queue", None).await;
    assert_eq!(unlimited, Err(ControlError::ResourceWithoutLimit("gpu_queue".into())));
    let calls: Vec<_> = (0..3u32)
        .map(|n| {
            let queue = queue.clone();
            actix::spawn(async move { queue.call::<_, usize>("held", n).await })
        })
        .collect();
    turnstile.arrived(1).await;
    queue.set_concurrency_limit("gpu_queue", 3).await.unwrap();
    turnstile.arrived(3).await;
    queue.set_concurrency_limit("gpu_queue", 1).await.unwrap();
    assert_eq!(queue.snapshot().await.concurrency_ids[0].running, 3);
    turnstile.open();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    // The ends are sent before the slots retire.
    while queue.snapshot().await.concurrency_ids[0].slots.len() != 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(queue.snapshot().await.concurrency_ids[0].limit, Limit::Slots(1));
    assert_eq!(queue.call::<_, usize>("held", 9u32).await, Ok(0));
}

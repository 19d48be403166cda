//! A handler that blocks, panics or never ends leaves the rest of the queue working.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use now_serving::testing::Turnstile;
use now_serving::{CallError, EventContext, Listener, Queue};

async fn echo(n: u32) -> Result<u32, String> {
    Ok(n)
}

async fn median_latency(queue: &Queue) -> Duration {
    let mut took = Vec::new();
    for n in 0..201u32 {
        let began = Instant::now();
        assert_eq!(queue.call::<_, u32>("echo", n).await, Ok(n));
        took.push(began.elapsed());
    }
    took.sort();
    took[100]
}

/// Compares two medians taken in one run, so that a busy machine slows both.
#[actix::test]
async fn a_saturated_id_that_blocks_leaves_the_others_latency_alone() {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    // Blocks its own arbiter's thread, which a well-behaved async handler never would, for a
    // moment at a time; and there is always another one waiting.
    let rude = move |_: u32| {
        let stopped = stopped.clone();
        async move {
            if !stopped.load(SeqCst) {
                std::thread::sleep(Duration::from_millis(50));
            }
            Ok::<_, String>(0u32)
        }
    };
    let queue = Queue::builder()
        .arbiters(2)
        .listener(Listener::new("rude", rude))
        .listener(Listener::new("echo", echo))
        .start()
        .unwrap();
    let alone = median_latency(&queue).await;
    let rude: Vec<_> = (0..200u32)
        .map(|n| {
            let queue = queue.clone();
            actix::spawn(async move { queue.call::<_, u32>("rude", n).await })
        })
        .collect();
    let beside = median_latency(&queue).await;
    stop.store(true, SeqCst);
    assert!(
        beside < Duration::from_millis(25).max(20 * alone),
        "{beside:?} beside a saturated id, {alone:?} alone"
    );
    for call in rude {
        call.await.unwrap().unwrap();
    }
}

#[actix::test]
async fn a_panic_fails_its_own_event_only_and_the_slot_comes_back() {
    let panics = async |n: u32| {
        if n.is_multiple_of(2) {
            panic!("number {n}");
        }
        Ok::<_, String>(n)
    };
    fn panics_at_once(n: u32) -> std::future::Ready<Result<u32, String>> {
        panic!("before its first await, {n}")
    }
    let panics_blocking = |n: u32| -> Result<u32, String> { panic!("on its thread, {n}") };
    let queue = Queue::builder()
        .listener(Listener::new("panics", panics).concurrency_id("one"))
        .listener(Listener::new("at_once", panics_at_once).concurrency_id("one"))
        .listener(Listener::blocking("blocking", panics_blocking).concurrency_id("one"))
        .listener(Listener::new("echo", echo).concurrency_id("one"))
        .start()
        .unwrap();
    for n in 0..20u32 {
        let result = queue.call::<_, u32>("panics", n).await;
        if n % 2 == 1 {
            assert_eq!(result, Ok(n));
            continue;
        }
        let Err(CallError::Failed(failure)) = result else { panic!("{result:?}") };
        assert_eq!(failure.message, format!("the handler panicked: number {n}"));
        assert!(!failure.for_user);
        for name in ["at_once", "blocking"] {
            let Err(CallError::Failed(failure)) = queue.call::<_, u32>(name, n).await else {
                panic!()
            };
            assert!(failure.message.starts_with("the handler panicked: "), "{failure}");
        }
        assert_eq!(queue.call::<_, u32>("echo", n).await, Ok(n));
    }
    let snapshot = queue.snapshot().await;
    assert_eq!(snapshot.concurrency_id("one").unwrap().running, 0);
}

#[actix::test]
async fn one_that_panics_while_it_is_dropped_frees_its_slot_too() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }
    let turnstile = Turnstile::new();
    let gate = turnstile.clone();
    let handler = move |n: u32| {
        let gate = gate.clone();
        async move {
            let _bomb = (n == 0).then(|| Bomb);
            gate.pass().await;
            Ok::<_, String>(n)
        }
    };
    let queue = Queue::builder().listener(Listener::new("a", handler)).start().unwrap();
    let submission = queue.submit("a", 0u32).await.unwrap();
    turnstile.arrived(1).await;
    submission.cancel();
    assert_eq!(submission.result::<u32>().await, Err(CallError::Cancelled));
    turnstile.open();
    assert_eq!(queue.call::<_, u32>("a", 1u32).await, Ok(1));
}

#[actix::test]
async fn one_that_never_ends_holds_its_own_slot_only() {
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let blocks = move |_: u32, context: EventContext| {
        while !stopped.load(SeqCst) && !context.is_cancelled() {
            std::thread::yield_now();
        }
        Ok::<_, String>(0u32)
    };
    let queue = Queue::builder()
        .arbiters(1)
        .listener(
            Listener::new("never", async |_: u32| {
                std::future::pending::<Result<u32, String>>().await
            })
            .concurrency_id("shared")
            .concurrency_limit(3),
        )
        .listener(Listener::blocking("blocks", blocks).concurrency_id("shared"))
        .listener(Listener::new("echo", echo).concurrency_id("shared"))
        .listener(Listener::new("other", echo))
        .start()
        .unwrap();
    let _never = queue.submit("never", 0u32).await.unwrap();
    let _blocks = queue.submit("blocks", 0u32).await.unwrap();
    for n in 0..50u32 {
        assert_eq!(queue.call::<_, u32>("echo", n).await, Ok(n));
        assert_eq!(queue.call::<_, u32>("other", n).await, Ok(n));
    }
    assert_eq!(queue.snapshot().await.concurrency_id("shared").unwrap().running, 2);
    stop.store(true, SeqCst);
}

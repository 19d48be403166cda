//! A handler that blocks, panics or never ends leaves the rest of the queue working.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use futures::StreamExt;
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

/// Panics when dropped, unless its thread panics already.
#[derive(Clone, Default)]
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("a Drop of the service's own");
        }
    }
}

impl<'de> serde::Deserialize<'de> for Bomb {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Ok(Bomb)
    }
}

impl serde::Serialize for Bomb {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_unit()
    }
}

impl schemars::JsonSchema for Bomb {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Bomb".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({})
    }
}

impl std::fmt::Display for Bomb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a bomb")
    }
}

/// Wherever a value of the service's is dropped, its event alone sees the panic.
#[actix::test]
async fn values_that_panic_when_dropped_lose_no_innocent_and_hold_the_limit() {
    let turnstile = Turnstile::new();
    let waits = Duration::from_millis(1);
    let held = turnstile.clone();
    let block = move |n: u32| {
        futures::executor::block_on(held.pass());
        Ok::<_, String>(n)
    };
    let never = async |bomb: Bomb| {
        std::mem::forget(bomb);
        Ok::<u32, String>(0)
    };
    let queue = Queue::builder()
        .listener(Listener::blocking("block", block).concurrency_id("one").concurrency_limit(1))
        .listener(Listener::new("input", never).concurrency_id("one"))
        .listener(Listener::new("late", never).concurrency_id("one").queue_timeout(waits))
        .listener(
            Listener::new("refused", never).concurrency_id("one").validator(|_: &Bomb| {
                now_serving::Validation::new().check("bomb", false, "No bombs.")
            }),
        )
        .listener(
            Listener::new("gives", async |_: u32| Ok::<_, String>(Bomb)).concurrency_id("one"),
        )
        .listener(
            Listener::stream("yields", |n: u32| {
                futures::stream::iter(0..n).map(|_| Ok::<_, String>(Bomb))
            })
            .concurrency_id("one"),
        )
        .listener(Listener::new("fails", async |_: u32| Err::<u32, _>(Bomb)).concurrency_id("one"))
        .listener(
            Listener::new("throws", async |_: u32| -> Result<u32, String> {
                std::panic::panic_any(Bomb)
            })
            .concurrency_id("one"),
        )
        .listener(
            Listener::blocking("throws_blocking", |_: u32| -> Result<u32, String> {
                std::panic::panic_any(Bomb)
            })
            .concurrency_id("one"),
        )
        .start()
        .unwrap();
    let running = queue.submit("block", 1u32).await.unwrap();
    turnstile.arrived(1).await;
    let innocent = queue.submit("block", 2u32).await.unwrap();
    let cancelled = queue.submit("input", Bomb).await.unwrap();
    cancelled.cancel();
    assert_eq!(cancelled.result::<u32>().await, Err(CallError::Cancelled));
    let late = queue.submit("late", Bomb).await.unwrap();
    assert_eq!(late.result::<u32>().await, Err(CallError::TimedOut));
    assert!(queue.submit("refused", Bomb).await.is_err());
    let snapshot = queue.snapshot().await;
    let id = snapshot.concurrency_id("one").unwrap();
    assert_eq!((id.running, id.waiting), (1, 1));
    turnstile.open();
    assert_eq!(running.result().await, Ok(1u32));
    assert_eq!(innocent.result().await, Ok(2u32));
    assert_eq!(turnstile.most_inside(), 1);

    // Nobody takes these results, so that the queue drops them.
    for name in ["gives", "yields"] {
        let unread = queue.submit(name, 3u32).await.unwrap();
        while queue.snapshot().await.listener(name).unwrap().completed == 0 {}
        drop(unread);
    }
    for name in ["fails", "throws", "throws_blocking"] {
        let failed = queue.call::<_, u32>(name, 4u32).await;
        let Err(CallError::Failed(failure)) = failed else { panic!("{name}: {failed:?}") };
        assert!(!failure.message.contains("was lost"), "{name}: {failure}");
    }
    assert_eq!(queue.call("block", 5u32).await, Ok(5u32));

    // Stopped in the wait queue.
    queue.pause("one").await.unwrap();
    let stopped = queue.submit("input", Bomb).await.unwrap();
    let other = queue.submit("block", 6u32).await.unwrap();
    queue.shutdown(Duration::from_secs(60)).await;
    assert_eq!(stopped.result::<u32>().await, Err(CallError::Stopped));
    assert_eq!(other.result::<u32>().await, Err(CallError::Stopped));
}

/// None of them waits for a thread, which no snapshot would show.
#[actix::test]
async fn as_many_block_at_once_as_the_limit_lets() {
    const LIMIT: usize = 600;
    let turnstile = Turnstile::new();
    let held = turnstile.clone();
    let block = move |n: u32| {
        futures::executor::block_on(held.pass());
        Ok::<_, String>(n)
    };
    let queue = Queue::builder()
        .listener(Listener::blocking("block", block).concurrency_limit(LIMIT))
        .start()
        .unwrap();
    let handle = queue.listener::<u32, u32>("block").unwrap();
    let calls = futures::future::join_all((0..LIMIT as u32).map(|n| handle.call(n)));
    let all = tokio::time::timeout(Duration::from_secs(60), turnstile.arrived(LIMIT));
    let (calls, ()) = futures::join!(calls, async {
        let all = all.await;
        turnstile.open();
        assert!(all.is_ok(), "{} of {LIMIT} have begun", turnstile.most_inside());
    });
    assert!(calls.iter().all(Result::is_ok));
    assert_eq!(turnstile.most_inside(), LIMIT);
}

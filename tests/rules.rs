//! The six rules of queueing, through the public API.

use std::time::{Duration, Instant};

use futures::future::join_all;
use now_serving::testing::{Recorder, Turnstile};
use now_serving::{Limit, Listener, Queue, QueueBuilder, StartError};

async fn echo(input: u32) -> Result<u32, String> {
    Ok(input)
}

fn limit_of(queue: &now_serving::QueueSnapshot, id: &str) -> Limit {
    queue.concurrency_id(id).expect("the id exists").limit
}

/// Submits `events` to each listener and returns how many ran at once.
async fn most_at_once(builder: QueueBuilder, turnstile: &Turnstile, names: &[&str]) -> usize {
    let queue = builder.start().unwrap();
    let recorder = Recorder::start();
    let events = 3 * names.len();
    for n in 0..events {
        queue.submit_to(names[n % names.len()], n as u32, recorder.recipient()).await.unwrap();
    }
    let limit = queue.snapshot().await.concurrency_ids[0].limit;
    let expected = match limit {
        Limit::Slots(slots) => slots.min(events),
        _ => events,
    };
    turnstile.arrived(expected).await;
    turnstile.open();
    recorder.ended(events).await;
    turnstile.most_inside()
}

#[actix::test]
async fn rule_1_a_silent_listener_has_a_queue_of_its_own_and_runs_one_event_at_a_time() {
    let turnstile = Turnstile::new();
    let builder = Queue::builder().listener(Listener::new("a", turnstile.handler()));
    assert_eq!(most_at_once(builder, &turnstile, &["a"]).await, 1);

    let queue = Queue::builder()
        .listener(Listener::new("a", echo))
        .listener(Listener::new("b", echo))
        .start()
        .unwrap();
    let ids: Vec<_> = queue.snapshot().await.concurrency_ids;
    assert_eq!(ids.iter().map(|id| &*id.concurrency_id).collect::<Vec<_>>(), ["a", "b"]);
}

#[actix::test]
async fn rule_2_a_limit_of_n_runs_n_at_once_and_none_runs_all() {
    for (limit, expected) in [(Limit::from(2), 2), (Limit::from(None), 3), (3.into(), 3)] {
        let turnstile = Turnstile::new();
        let listener = Listener::new("a", turnstile.handler()).concurrency_limit(limit);
        let builder = Queue::builder().listener(listener);
        assert_eq!(most_at_once(builder, &turnstile, &["a"]).await, expected);
    }
}

fn gpu_queue(turnstile: &Turnstile, limits: [Option<usize>; 3]) -> QueueBuilder {
    let names = ["generate_1", "generate_2", "generate_3"];
    names.into_iter().zip(limits).fold(Queue::builder(), |builder, (name, limit)| {
        let listener = Listener::new(name, turnstile.handler()).concurrency_id("gpu_queue");
        builder.listener(match limit {
            Some(limit) => listener.concurrency_limit(limit),
            None => listener,
        })
    })
}

#[actix::test]
async fn rule_3_listeners_of_one_id_share_its_slots_and_silent_ones_do_not_count() {
    let names = ["generate_1", "generate_2", "generate_3"];
    for (limits, expected) in [
        ([Some(2), None, None], 2),
        ([None, None, Some(3)], 3),
        ([Some(4), Some(2), Some(3)], 2),
        ([None, None, None], 1),
    ] {
        let turnstile = Turnstile::new();
        let max = most_at_once(gpu_queue(&turnstile, limits), &turnstile, &names).await;
        assert_eq!(max, expected, "{limits:?}");
    }
}

#[actix::test]
async fn rule_3_a_declared_id_counts_as_one_more_declaration() {
    let turnstile = Turnstile::new();
    let builder = gpu_queue(&turnstile, [Some(4), None, None]).concurrency_id("gpu_queue", 2);
    let snapshot = builder.start().unwrap().snapshot().await;
    assert_eq!(limit_of(&snapshot, "gpu_queue"), Limit::Slots(2));
}

#[actix::test]
async fn rule_4_the_default_holds_for_those_who_declare_nothing() {
    let queue = Queue::builder()
        .default_concurrency_limit(5)
        .listener(Listener::new("silent", echo))
        .listener(Listener::new("explicit", echo).concurrency_limit(2))
        .listener(Listener::new("shared", echo).concurrency_id("id").concurrency_limit(7))
        .listener(Listener::new("shares", echo).concurrency_id("id"))
        .start()
        .unwrap();
    let snapshot = queue.snapshot().await;
    assert_eq!(limit_of(&snapshot, "silent"), Limit::Slots(5));
    assert_eq!(limit_of(&snapshot, "explicit"), Limit::Slots(2));
    assert_eq!(limit_of(&snapshot, "id"), Limit::Slots(7));

    let queue = Queue::builder()
        .default_concurrency_limit(None)
        .listener(Listener::new("silent", echo))
        .start()
        .unwrap();
    assert_eq!(limit_of(&queue.snapshot().await, "silent"), Limit::Unlimited);
}

/// Rule 4's environment variable, in a process of its own: the environment is shared by threads.
#[test]
fn rule_4_the_environment_says_the_default_where_the_builder_does_not() {
    const NAME: &str = "NOW_SERVING_DEFAULT_CONCURRENCY_LIMIT";
    const CHILD: &str = "NOW_SERVING_TEST_CHILD";
    let test = "rule_4_the_environment_says_the_default_where_the_builder_does_not";
    if std::env::var(CHILD).is_ok() {
        actix::System::new().block_on(async {
            let started = Queue::builder().listener(Listener::new("a", echo)).start();
            match std::env::var(NAME).unwrap().as_str() {
                "none" => {
                    let snapshot = started.unwrap().snapshot().await;
                    assert_eq!(limit_of(&snapshot, "a"), Limit::Unlimited);
                }
                "3" => {
                    let snapshot = started.unwrap().snapshot().await;
                    assert_eq!(limit_of(&snapshot, "a"), Limit::Slots(3));
                    let builder = Queue::builder().default_concurrency_limit(4);
                    let queue = builder.listener(Listener::new("a", echo)).start().unwrap();
                    assert_eq!(limit_of(&queue.snapshot().await, "a"), Limit::Slots(4));
                }
                text => {
                    assert_eq!(started.unwrap_err(), StartError::BadEnvironment(text.into()));
                }
            }
        });
        return;
    }
    for value in ["3", "none", "many", "0"] {
        let program = std::env::current_exe().unwrap();
        let child = std::process::Command::new(program)
            .args(["--exact", test])
            .env(NAME, value)
            .env(CHILD, "1")
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&child.stdout);
        assert!(child.status.success(), "{value}: {output}");
        assert!(output.contains("1 passed"), "{output}");
    }
}

#[actix::test]
async fn rule_5_one_id_never_waits_for_another() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder()
        .listener(Listener::new("stuck", turnstile.handler()))
        .listener(Listener::new("free", echo))
        .start()
        .unwrap();
    let recorder = Recorder::start();
    for n in 0..20u32 {
        queue.submit_to("stuck", n, recorder.recipient()).await.unwrap();
    }
    turnstile.arrived(1).await;
    for n in 0..100u32 {
        assert_eq!(queue.call::<u32, u32>("free", n).await, Ok(n));
    }
    assert_eq!(queue.snapshot().await.concurrency_id("stuck").unwrap().waiting, 19);
}

#[actix::test]
async fn rule_6_thousands_wait_and_all_are_served_in_order() {
    const EVENTS: u32 = 5_000;
    let turnstile = Turnstile::new();
    let order = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (gate, log) = (turnstile.clone(), order.clone());
    let handler = move |n: u32| {
        let (gate, log) = (gate.clone(), log.clone());
        async move {
            gate.pass().await;
            log.lock().unwrap().push(n);
            Ok::<_, String>(n)
        }
    };
    let queue = Queue::builder().listener(Listener::new("a", handler)).start().unwrap();
    let recorder = Recorder::start();
    for n in 0..EVENTS {
        queue.submit_to("a", n, recorder.recipient()).await.unwrap();
    }
    assert_eq!(queue.snapshot().await.concurrency_ids[0].waiting, EVENTS as usize - 1);
    turnstile.open();
    recorder.ended(EVENTS as usize).await;
    assert_eq!(*order.lock().unwrap(), (0..EVENTS).collect::<Vec<_>>());
}

/// The guide's scenario: six events of half a second, two at once.
#[actix::test]
async fn the_guides_six_events_take_three_rounds() {
    let busy = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let max = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let half_a_second = {
        let (busy, max) = (busy.clone(), max.clone());
        move |input: u32| {
            use std::sync::atomic::Ordering::SeqCst;
            let (busy, max) = (busy.clone(), max.clone());
            async move {
                max.fetch_max(busy.fetch_add(1, SeqCst) + 1, SeqCst);
                tokio::time::sleep(Duration::from_millis(500)).await;
                busy.fetch_sub(1, SeqCst);
                Ok::<_, String>(input)
            }
        }
    };
    let listener = |name: &str| Listener::new(name, half_a_second.clone());
    let queue = Queue::builder()
        .listener(listener("generate_1").concurrency_limit(2).concurrency_id("gpu_queue"))
        .listener(listener("generate_2").concurrency_id("gpu_queue"))
        .listener(listener("generate_3").concurrency_id("gpu_queue"))
        .start()
        .unwrap();
    let began = Instant::now();
    let calls = (0..6u32).map(|n| {
        let (queue, name) = (queue.clone(), format!("generate_{}", n % 3 + 1));
        async move { queue.call::<u32, u32>(&name, n).await }
    });
    assert!(join_all(calls).await.into_iter().all(|result| result.is_ok()));
    let took = began.elapsed();
    assert_eq!(max.load(std::sync::atomic::Ordering::SeqCst), 2);
    // Three rounds can't be faster. That they aren't six is shown by the two at once; the upper
    // bound is loose, for machines that are busy with something else.
    assert!(took >= Duration::from_millis(1500), "{took:?}");
    assert!(took < Duration::from_millis(2900), "{took:?}");
}

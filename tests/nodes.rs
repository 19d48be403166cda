//! One queue on several nodes: one line, one limit, whichever node an event comes to and runs on.

#![cfg(feature = "cluster")]

#[allow(dead_code, reason = "others need more of it")]
#[path = "common/nats_server.rs"]
mod nats_server;

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::future::{Either, join_all, select};
use nats_server::Servers;
use now_serving::{
    CallError, ConcurrencyIdSnapshot, EventContext, Listener, Nats, Queue, Slot, SlotResource,
    SlotState, State, SubmitError, Update, UserError,
};

/// What runs, over all nodes.
#[derive(Clone, Default)]
struct Books {
    running: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    ran: Arc<Mutex<Vec<(String, u32)>>>,
}

impl Books {
    fn begin(&self, node: &str, attempt: u32) -> Running {
        let now = self.running.fetch_add(1, SeqCst) + 1;
        self.most.fetch_max(now, SeqCst);
        self.ran.lock().unwrap().push((node.into(), attempt));
        Running(self.running.clone())
    }

    fn nodes(&self) -> Vec<String> {
        let mut nodes: Vec<_> =
            self.ran.lock().unwrap().iter().map(|(node, _)| node.clone()).collect();
        nodes.sort();
        nodes.dedup();
        nodes
    }
}

struct Running(Arc<AtomicUsize>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

async fn start(url: &str, node: &'static str, books: &Books) -> Queue {
    let cluster = Nats::connect(url).name("test").join(node).await.expect("NATS is there");
    let paint = {
        let books = books.clone();
        move |millis: u64, context: EventContext| {
            let books = books.clone();
            async move {
                let _running = books.begin(node, context.attempt());
                context.progress(0.5, "half");
                tokio::time::sleep(Duration::from_millis(millis)).await;
                Ok::<_, String>(millis + 1)
            }
        }
    };
    let paint = Listener::new("paint", paint).concurrency_id("gpu").concurrency_limit(2).durable();
    Queue::builder().cluster(cluster).listener(paint).start().expect("it starts")
}

#[actix::test]
async fn three_nodes_run_two_at_once() {
    let Some(servers) = Servers::start(1) else { return };
    let books = Books::default();
    let url = servers.url();
    let nodes = join_all(["a", "b", "c"].map(|node| start(&url, node, &books))).await;
    let warm: u64 = nodes[1].call("paint", 1_u64).await.unwrap();
    assert_eq!(warm, 2);
    let begun = Instant::now();
    let calls = (0..6).map(|n| nodes[n % 3].call::<u64, u64>("paint", 500));
    for result in join_all(calls).await {
        assert_eq!(result.unwrap(), 501);
    }
    let took = begun.elapsed();
    assert_eq!(books.most.load(SeqCst), 2, "two at once in the whole cluster");
    assert!(books.nodes().len() > 1, "on several nodes: {:?}", books.nodes());
    eprintln!("six events took {took:?}");
}

#[actix::test]
async fn an_event_is_followed_wherever_it_runs() {
    let Some(servers) = Servers::start(1) else { return };
    let books = Books::default();
    let url = servers.url();
    let nodes = join_all(["a", "b", "c"].map(|node| start(&url, node, &books))).await;
    // So that all of them wait.
    nodes[2].pause("gpu").await.unwrap();
    let (mut followers, mut ranks) = (Vec::new(), Vec::new());
    for n in 0..5 {
        let mut submission = nodes[n % 3].submit("paint", 20_u64).await.unwrap();
        // Before the next one comes, so that nothing takes its place.
        match submission.next().await.unwrap() {
            Update::Estimation { rank, .. } => ranks.push(rank),
            other => panic!("{other:?}"),
        }
        followers.push(actix::spawn(submission.collect::<Vec<Update>>()));
    }
    assert_eq!(ranks, [0, 1, 2, 3, 4], "over all nodes");
    nodes[1].resume("gpu").await.unwrap();
    for updates in join_all(followers).await {
        let updates = updates.unwrap();
        let starts = |update: &&Update| matches!(update, Update::ProcessStarts { .. });
        assert_eq!(updates.iter().filter(starts).count(), 1);
        let has_progress = updates.iter().any(|update| matches!(update, Update::Progress { .. }));
        assert!(has_progress, "{updates:?}");
        assert!(updates.last().unwrap().is_terminal());
    }
}

#[actix::test]
async fn runs_go_on_when_the_line_is_left_to_another_node() {
    let Some(servers) = Servers::start(1) else { return };
    let books = Books::default();
    let url = servers.url();
    // The first one keeps the line.
    let first = start(&url, "a", &books).await;
    first.call::<u64, u64>("paint", 1).await.unwrap();
    let others = join_all(["b", "c"].map(|node| start(&url, node, &books))).await;
    let (b, c) = (&others[0], &others[1]);
    // One after the other, so that each node has heard of the others.
    for n in 0..20 {
        others[n % 2].call::<u64, u64>("paint", 1).await.unwrap();
    }
    let calls =
        [b.submit("paint", 1500_u64).await.unwrap(), c.submit("paint", 1500_u64).await.unwrap()];
    let waiting = c.submit("paint", 10_u64).await.unwrap();
    let stopped = first.shutdown(Duration::from_secs(10)).await;
    assert!(stopped.stopped, "{stopped:?}");
    drop(first);
    for call in calls {
        assert_eq!(call.result::<u64>().await.unwrap(), 1501);
    }
    assert_eq!(waiting.result::<u64>().await.unwrap(), 11);
    let attempts = books.ran.lock().unwrap().iter().map(|(_, attempt)| *attempt).max();
    assert_eq!(attempts, Some(1), "nothing has started twice");
    assert_eq!(books.most.load(SeqCst), 2);
}

#[actix::test]
async fn a_permit_holds_its_slot_in_the_whole_cluster() {
    let Some(servers) = Servers::start(1) else { return };
    let url = servers.url();
    let start = async |node: &str| {
        let cluster = Nats::connect(&url).name("permits").join(node).await.unwrap();
        Queue::builder().cluster(cluster).permits("render", 1).start().unwrap()
    };
    let (a, b) = (start("a").await, start("b").await);
    let held = a.acquire("render").await.unwrap();
    let mut waits = pin!(b.acquire("render"));
    // As long as it waits there, it hasn't got one.
    let is_waiting = async {
        while b.snapshot().await.concurrency_id("render").is_none_or(|it| it.waiting == 0) {}
    };
    assert!(matches!(select(waits.as_mut(), pin!(is_waiting)).await, Either::Right(_)));
    drop(held);
    let held = waits.await.unwrap();
    // Of those who wait, one gives up.
    let given_up = tokio::time::timeout(Duration::from_millis(100), a.acquire("render")).await;
    assert!(given_up.is_err());
    drop(held);
    let _last = a.acquire("render").await.unwrap();
}

#[actix::test]
async fn a_permit_holds_its_slot_when_the_line_is_left_to_another_node() {
    let Some(servers) = Servers::start(1) else { return };
    let url = servers.url();
    let start = async |node: &str| {
        let cluster = Nats::connect(&url).name("permits that stay").join(node).await.unwrap();
        Queue::builder().cluster(cluster).permits("render", 3).start().unwrap()
    };
    // The first one keeps the line.
    let first = start("a").await;
    let given_back = first.acquire("render").await.unwrap();
    let others = join_all(["b", "c"].map(start)).await;
    let (b, c) = (&others[0], &others[1]);
    let held = [b.acquire("render").await.unwrap(), first.acquire("render").await.unwrap()];
    // A number is free that is before those that are held.
    drop(given_back);
    let third = c.acquire("render").await.unwrap();
    assert_eq!(third.slot(), 0);
    drop(third);
    // A permit is held there still: that one leaves while it has not ended.
    let leaves = pin!(first.shutdown(Duration::from_secs(60)));
    let moved = async {
        let until = async |is: &dyn Fn(&ConcurrencyIdSnapshot) -> bool| {
            while !c.snapshot().await.concurrency_id("render").is_some_and(is) {}
        };
        // Who keeps the line now knows of those that are held, and of none before.
        let none_before = |it: &ConcurrencyIdSnapshot| {
            it.running == 2 && it.permits.as_ref().is_some_and(|permits| permits.completed == 0)
        };
        until(&none_before).await;
        let third = c.acquire("render").await.unwrap();
        let fourth = pin!(b.acquire("render"));
        let is_waiting = pin!(until(&|it| it.waiting == 1));
        assert!(matches!(select(fourth, is_waiting).await, Either::Right(_)));
        let mut slots = [&third, &held[0], &held[1]].map(|permit| permit.slot());
        slots.sort();
        assert_eq!(slots, [0, 1, 2]);
        drop(held);
    };
    futures::future::join(leaves, moved).await;
}

#[actix::test]
async fn an_operator_steers_all_nodes_from_any() {
    let Some(servers) = Servers::start(1) else { return };
    let books = Books::default();
    let url = servers.url();
    let nodes = join_all(["a", "b"].map(|node| start(&url, node, &books))).await;
    nodes[0].pause("gpu").await.unwrap();
    let waiting = nodes[1].submit("paint", 5_u64).await.unwrap();
    let snapshot = nodes[0].snapshot().await;
    let gpu = snapshot.concurrency_id("gpu").unwrap();
    assert!(gpu.paused && gpu.waiting == 1, "{gpu:?}");
    nodes[1].set_concurrency_limit("gpu", 7).await.unwrap();
    nodes[1].resume("gpu").await.unwrap();
    assert_eq!(waiting.result::<u64>().await.unwrap(), 6);
    let snapshot = nodes[0].snapshot().await;
    assert_eq!(snapshot.concurrency_id("gpu").unwrap().limit, 7.into());
}

#[actix::test]
async fn an_event_is_cancelled_and_followed_from_another_node() {
    let Some(servers) = Servers::start(1) else { return };
    let books = Books::default();
    let url = servers.url();
    let nodes = join_all(["a", "b", "c"].map(|node| start(&url, node, &books))).await;
    let submission = nodes[0].submit("paint", 60_000_u64).await.unwrap();
    let id = submission.id();
    // Any node knows which one runs it.
    let node = loop {
        let snapshot = nodes[2].snapshot().await;
        let mut slots = snapshot.concurrency_id("gpu").unwrap().slots.iter();
        let node = slots.find_map(|slot| match &slot.state {
            SlotState::Busy { node, .. } => node.clone(),
            _ => None,
        });
        if let Some(node) = node.filter(|_| books.running.load(SeqCst) == 1) {
            break node;
        }
    };
    assert_eq!(books.nodes(), [node.to_string()]);
    let followed = nodes[1].follow(id).await.unwrap();
    nodes[2].cancel("paint", id).unwrap();
    assert_eq!(submission.result::<u64>().await, Err(CallError::Cancelled));
    assert_eq!(followed.result::<u64>().await, Err(CallError::Cancelled));
    // Its end is known everywhere.
    let ended = nodes[2].follow(id).await.unwrap();
    assert_eq!(ended.result::<u64>().await, Err(CallError::Cancelled));
    // And its slot is free.
    for node in &nodes {
        node.call::<u64, u64>("paint", 1).await.unwrap();
    }
    assert_eq!(books.running.load(SeqCst), 0);
}

#[actix::test]
async fn what_is_not_durable_cannot_be_in_a_cluster() {
    let Some(servers) = Servers::start(1) else { return };
    let cluster = Nats::connect(servers.url()).name("refused").join("a").await.unwrap();
    let echo = Listener::new("echo", async |text: String| Ok::<_, String>(text));
    let refused = Queue::builder().cluster(cluster).listener(echo).start().unwrap_err();
    assert!(refused.to_string().contains("call durable()"), "{refused}");
}

#[actix::test]
async fn a_key_is_the_same_event_on_all_nodes() {
    let Some(servers) = Servers::start(1) else { return };
    let books = Books::default();
    let url = servers.url();
    let nodes = join_all(["a", "b", "c"].map(|node| start(&url, node, &books))).await;
    let submit = async |node: &Queue, millis: u64| {
        let paint = node.listener::<u64, u64>("paint").unwrap();
        paint.event(millis).idempotency_key("an order").submit().await
    };
    let submissions = join_all(nodes.iter().map(|node| submit(node, 400))).await;
    let submissions: Vec<_> = submissions.into_iter().map(Result::unwrap).collect();
    let id = submissions[0].id();
    assert!(submissions.iter().all(|submission| submission.id() == id));
    let reused = submit(&nodes[1], 401).await.unwrap_err();
    assert!(matches!(reused, SubmitError::KeyReused(_)), "{reused}");
    for submission in submissions {
        assert_eq!(submission.result::<u64>().await.unwrap(), 401);
    }
    let ended = submit(&nodes[2], 400).await.unwrap();
    assert_eq!(ended.result::<u64>().await.unwrap(), 401);
    assert_eq!(books.ran.lock().unwrap().len(), 1);
}

#[actix::test]
async fn two_clients_of_another_node_follow_one_event() {
    let Some(servers) = Servers::start(1) else { return };
    let books = Books::default();
    let url = servers.url();
    let nodes = join_all(["a", "b"].map(|node| start(&url, node, &books))).await;
    let submission = nodes[0].submit("paint", 2_000_u64).await.unwrap();
    let event = submission.id();
    let first = nodes[1].follow(event).await.unwrap();
    let second = nodes[1].follow(event).await.unwrap();
    let results =
        futures::join!(submission.result::<u64>(), first.result::<u64>(), second.result::<u64>());
    assert_eq!(results.0.unwrap(), 2_001);
    assert_eq!(results.1.unwrap(), 2_001);
    assert_eq!(results.2.unwrap(), 2_001);
}

#[actix::test]
async fn what_ends_while_all_nodes_leave_is_on_record() {
    let Some(servers) = Servers::start(1) else { return };
    let books = Books::default();
    let url = servers.url();
    let nodes = join_all(["a", "b"].map(|node| start(&url, node, &books))).await;
    let warm: u64 = nodes[0].call("paint", 1_u64).await.unwrap();
    assert_eq!(warm, 2);
    let mut events = Vec::new();
    for node in &nodes {
        let submission = node.submit("paint", 2_000_u64).await.unwrap();
        events.push(submission.id());
        submission.detach();
    }
    while books.running.load(SeqCst) < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let grace = Duration::from_secs(30);
    let left = join_all(nodes.iter().map(|node| node.shutdown(grace))).await;
    assert!(left.iter().all(|left| left.drained), "{left:?}");
    drop(nodes);
    let later = start(&url, "c", &books).await;
    for event in events {
        let result: u64 = later.follow(event).await.unwrap().result().await.unwrap();
        assert_eq!(result, 2_001);
    }
    let attempts: Vec<u32> = books.ran.lock().unwrap().iter().map(|(_, it)| *it).collect();
    assert_eq!(attempts, [1, 1, 1], "none ran twice");
}

#[actix::test]
async fn what_is_tried_again_stays_where_its_client_is() {
    let Some(servers) = Servers::start(1) else { return };
    let books = Books::default();
    let url = servers.url();
    let start = |node: &'static str| {
        let (books, url) = (books.clone(), url.clone());
        async move {
            let cluster = Nats::connect(&url).name("test").join(node).await.expect("NATS is there");
            let count = move |_: u64, counted: State<u32>, context: EventContext| {
                let books = books.clone();
                async move {
                    let _running = books.begin(node, context.attempt());
                    let again = UserError::new("Not yet.").retry_after(Duration::from_millis(100));
                    let times = counted.update(|times| {
                        *times += 1;
                        *times
                    });
                    if context.attempt() < 3 { Err(again) } else { Ok(times) }
                }
            };
            let count = Listener::new("count", count).concurrency_limit(2).durable();
            Queue::builder().cluster(cluster).listener(count).start().expect("it starts")
        }
    };
    let nodes = join_all(["a", "b", "c"].map(start)).await;
    for (node, name) in nodes.iter().zip(["a", "b", "c"]) {
        books.ran.lock().unwrap().clear();
        let _: u32 = node.call("count", 1_u64).await.unwrap();
        assert_eq!(books.nodes(), [name]);
    }
}

/// Each machine has one GPU.
#[actix::test]
async fn nodes_have_as_many_slots_as_they_say_and_the_cluster_all_of_them() {
    let Some(servers) = Servers::start(1) else { return };
    let (books, built) = (Books::default(), Arc::new(AtomicUsize::new(0)));
    let url = servers.url();
    let start = async |node: &'static str, slots: usize| {
        let cluster = Nats::connect(&url).name("gpus").join(node).await.unwrap();
        let (books, built) = (books.clone(), built.clone());
        let paint = move |millis: u64, _: Slot<usize>, context: EventContext| {
            let running = books.begin(node, context.attempt());
            async move {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                drop(running);
                Ok::<_, String>(millis)
            }
        };
        let paint = Listener::new("paint", paint).concurrency_id("gpu").concurrency_limit(16);
        let queue = Queue::builder().cluster(cluster.slots("gpu", slots)).listener(paint.durable());
        let queue = queue.slots("gpu", move |slot| {
            built.fetch_add(1, SeqCst);
            async move { Ok::<_, String>(slot) }
        });
        queue.start().unwrap()
    };
    let nodes = [start("a", 1).await, start("b", 1).await, start("none", 0).await];
    // Until all have been heard of: those that are here later have room later.
    while books.nodes().len() < 2 {
        join_all(nodes.iter().map(|node| node.call::<u64, u64>("paint", 20))).await;
    }
    join_all((0..8).map(|n| nodes[n % 3].call::<u64, u64>("paint", 50))).await;
    assert_eq!(books.most.load(SeqCst), 2, "one on each");
    assert_eq!(books.nodes(), ["a", "b"]);
    assert_eq!(built.load(SeqCst), 2);
    let refused = Nats::connect(&url).name("gpus").join("c").await.unwrap().slots("cpu", 1);
    let echo = Listener::new("echo", async |text: String| Ok::<_, String>(text)).durable();
    let refused = Queue::builder().cluster(refused).listener(echo).start().unwrap_err();
    assert!(refused.to_string().contains("Cluster::slots()"), "{refused}");
}

/// A node whose GPU is broken must not keep an event for ever.
#[actix::test]
async fn what_a_node_cannot_run_fails_in_words() {
    let Some(servers) = Servers::start(1) else { return };
    let cluster = Nats::connect(servers.url()).name("broken").join("a").await.unwrap();
    let paint = async |_: u64, _: Slot<usize>| Ok::<_, String>(1_u64);
    let paint = Listener::new("paint", paint).concurrency_id("gpu").concurrency_limit(1).durable();
    let resource = SlotResource::new(async |_| Err::<usize, _>("no driver"));
    let resource = resource.unavailable_after(Duration::ZERO);
    let queue = Queue::builder().cluster(cluster).listener(paint).slot_resource("gpu", resource);
    let queue = queue.start().unwrap();
    let failed = queue.call::<u64, u64>("paint", 1).await.unwrap_err();
    assert!(failed.to_string().contains("Nothing can run this now"), "{failed}");
}

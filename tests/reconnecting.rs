//! Clients that vanish and come back, or don't; and results that are fetched again.
#![cfg(feature = "web")]

mod common;

use std::time::Duration;

use common::{Event, Server};
use futures::{Stream, StreamExt, stream};
use now_serving::testing::Turnstile;
use now_serving::{EventContext, Listener, OnDisconnect, Queue, QueueBuilder, Web};
use serde_json::{Value, json};

const COUNT: usize = 0;
const WAIT: usize = 1;
const STAY: usize = 2;

/// Yields a growing text, one word for each that the turnstile lets through.
fn count(turnstile: Turnstile) -> impl Fn(u32) -> LocalStream + Clone {
    move |n| {
        let (turnstile, mut text) = (turnstile.clone(), String::new());
        let words = stream::iter(0..n).then(move |i| {
            let turnstile = turnstile.clone();
            text += &format!("word{i} ");
            let text = text.clone();
            async move {
                turnstile.pass().await;
                Ok(text)
            }
        });
        words.boxed_local()
    }
}

type LocalStream = std::pin::Pin<Box<dyn Stream<Item = Result<String, String>>>>;

fn builder(turnstile: &Turnstile) -> QueueBuilder {
    Queue::builder()
        .listener(Listener::stream("count", count(turnstile.clone())))
        .listener(Listener::new("wait", turnstile.handler()))
        .listener(
            Listener::new("stay", turnstile.handler()).on_disconnect(OnDisconnect::KeepRunning),
        )
}

fn words(n: usize) -> String {
    (0..n).map(|i| format!("word{i} ")).collect()
}

/// A client's memory of an event, as Gradio's clients keep it.
#[derive(Default)]
struct Memory {
    text: Option<String>,
    /// Every value in turn.
    values: Vec<String>,
    results: Vec<String>,
}

impl Memory {
    fn receive(&mut self, event: &Event) {
        let output = &event.data["output"]["data"][0];
        match event.data["msg"].as_str().unwrap() {
            "process_generating" => {
                let text = match self.text.take() {
                    None => output.as_str().unwrap().to_string(),
                    Some(text) => edited(text, output),
                };
                self.values.push(text.clone());
                self.text = Some(text);
            }
            "process_completed" => self.results.push(output.as_str().unwrap().to_string()),
            _ => {}
        }
    }
}

fn edited(text: String, edits: &Value) -> String {
    edits.as_array().expect("edits").iter().fold(text, |text, edit| {
        assert_eq!(edit[1], json!([]));
        match edit[0].as_str().unwrap() {
            "append" => text + edit[2].as_str().unwrap(),
            "replace" => edit[2].as_str().unwrap().to_string(),
            other => panic!("{other}"),
        }
    })
}

/// Reads until a value or the end has come; gives the number of the last message.
async fn next_news(stream: &mut common::Sse, memory: &mut Memory) -> Option<u64> {
    loop {
        let event = stream.next().await.expect("the stream goes on");
        memory.receive(&event);
        if event.data["msg"] == "process_generating" || event.data["msg"] == "process_completed" {
            return event.id;
        }
    }
}

#[actix::test]
async fn a_client_that_says_where_it_was_gets_everything_once() {
    let turnstile = Turnstile::new();
    let queue = builder(&turnstile).start().unwrap();
    let server = Server::start(&queue);
    server.join("s", COUNT, json!([6])).await;
    let (mut memory, mut last) = (Memory::default(), None);
    // Each time the server has handed out more than the client has read.
    for _ in 0..3 {
        let mut stream = server.event_source("s", last).await;
        turnstile.let_through(2);
        last = next_news(&mut stream, &mut memory).await;
    }
    let mut stream = server.event_source("s", last).await;
    while let Some(event) = stream.next().await {
        memory.receive(&event);
        last = event.id.or(last);
    }
    assert_eq!(memory.values, (1..=6).map(words).collect::<Vec<_>>());
    assert_eq!(memory.results, [words(6)]);
    // All is over, and has been read.
    let rest = server.event_source("s", last).await.rest().await;
    assert_eq!(rest.len(), 1);
    assert_eq!(rest[0].data["msg"], "close_stream");
}

#[actix::test]
async fn a_result_that_did_not_arrive_is_sent_again_to_who_asks_after_an_earlier_one() {
    let turnstile = Turnstile::new();
    turnstile.open();
    let queue = builder(&turnstile).start().unwrap();
    let server = Server::start(&queue);
    server.join("s", COUNT, json!([2])).await;
    let first = server.event_source("s", None).await.rest().await;
    let end = first.iter().find(|event| event.data["msg"] == "process_completed").unwrap();
    let number = end.id.unwrap();
    let again = server.event_source("s", Some(number - 1)).await.rest().await;
    assert_eq!(again[0], *end);
    assert_eq!(again.len(), 2);
}

#[actix::test]
async fn a_client_that_says_nothing_goes_on_after_what_it_was_handed() {
    let turnstile = Turnstile::new();
    let queue = builder(&turnstile).start().unwrap();
    let server = Server::start(&queue);
    server.join("s", COUNT, json!([4])).await;
    let mut memory = Memory::default();
    for _ in 0..4 {
        let mut stream = server.session("s").await;
        turnstile.let_through(1);
        assert_eq!(next_news(&mut stream, &mut memory).await, None, "nothing is numbered");
    }
    let mut stream = server.session("s").await;
    next_news(&mut stream, &mut memory).await;
    assert_eq!(memory.values, (1..=4).map(words).collect::<Vec<_>>());
    assert_eq!(memory.results, [words(4)]);
}

#[actix::test]
async fn a_page_that_begins_anew_hears_where_its_events_are() {
    let turnstile = Turnstile::new();
    let queue = builder(&turnstile).start().unwrap();
    let server = Server::start(&queue);
    let streaming = server.join("s", COUNT, json!([3])).await;
    let running = server.join("s", WAIT, json!([1])).await;
    let waiting = server.join("s", WAIT, json!([2])).await;
    let mut stream = server.event_source("s", None).await;
    let mut count_of_updates = 0;
    while count_of_updates < 5 {
        // Three estimations and two starts.
        let event = stream.next().await.unwrap();
        count_of_updates += usize::from(event.data["msg"] != "process_generating");
    }
    drop(stream);
    let mut stream = server.event_source("s", None).await;
    let mut places = std::collections::HashMap::new();
    for _ in 0..3 {
        let message = stream.message().await;
        places.insert(message["event_id"].as_str().unwrap().to_string(), message);
    }
    assert_eq!(places[&running]["msg"], "process_starts");
    assert_eq!(places[&streaming]["msg"], "process_starts");
    assert_eq!(
        (&places[&waiting]["msg"], &places[&waiting]["rank"]),
        (&json!("estimation"), &json!(0))
    );
    turnstile.arrived(2).await;
    turnstile.open();
    let path = "/gradio_api/queue/data?session_hash=s&last_event_id=0";
    // It has seen nothing, so that it gets all, with the first value whole.
    let mut memory = Memory::default();
    while let Some(event) = stream.next().await {
        if event.data["event_id"] == streaming.as_str() {
            memory.receive(&event);
        }
    }
    assert_eq!(memory.results, [words(3)]);
    let again =
        server.stream_with(path, &[("accept", "text/event-stream".into())]).await.rest().await;
    let ends = again.iter().filter(|event| event.data["msg"] == "process_completed");
    assert_eq!(ends.count(), 3);
}

#[actix::test]
async fn one_that_does_not_come_back_loses_its_events_but_not_those_that_stay() {
    let turnstile = Turnstile::new();
    let queue = builder(&turnstile).start().unwrap();
    let web = Web::builder(&queue).reconnect_grace(Duration::from_millis(50)).start().unwrap();
    let server = Server::start(&web);
    let lost = server.join("s", WAIT, json!([1])).await;
    let kept = server.join("s", STAY, json!([2])).await;
    let mut stream = server.session("s").await;
    turnstile.arrived(2).await;
    stream.until("process_starts").await;
    drop(stream);
    while turnstile.inside() > 1 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let snapshot = queue.snapshot().await;
    assert_eq!(snapshot.listener("wait").unwrap().cancelled, 1);
    assert_eq!(snapshot.listener("stay").unwrap().cancelled, 0);
    turnstile.open();
    turnstile.passed(1).await;
    // It comes back after all.
    let mut ends = std::collections::HashMap::new();
    while ends.len() < 2 {
        for event in server.session("s").await.rest().await {
            if event.data["msg"] == "process_completed" {
                let id = event.data["event_id"].as_str().unwrap().to_string();
                assert!(ends.insert(id, event.data["output"].clone()).is_none(), "once");
            }
        }
    }
    assert_eq!(ends[&kept]["data"], json!([2]));
    assert_eq!(ends[&lost]["error"], "The event was cancelled.");
}

#[actix::test]
async fn a_stream_ends_at_once_when_another_takes_over() {
    let turnstile = Turnstile::new();
    let queue = builder(&turnstile).start().unwrap();
    let server = Server::start(&queue);
    server.join("s", WAIT, json!([1])).await;
    turnstile.arrived(1).await;
    let mut first = server.session("s").await;
    first.until("process_starts").await;
    let mut second = server.session("s").await;
    // Long before a heartbeat would show it.
    let rest = tokio::time::timeout(Duration::from_secs(10), first.rest()).await;
    assert_eq!(rest.expect("the first stream ends"), []);
    turnstile.open();
    second.until("process_completed").await;
}

async fn call(server: &Server, name: &str, data: Value) -> String {
    let (_, answer) =
        server.post(&format!("/gradio_api/call/{name}"), json!({ "data": data })).await;
    answer["event_id"].as_str().unwrap().to_string()
}

async fn follow(server: &Server, name: &str, id: &str) -> Vec<Event> {
    server.stream(&format!("/gradio_api/call/{name}/{id}")).await.rest().await
}

#[actix::test]
async fn an_end_that_was_put_aside_is_told_to_who_comes_back() {
    let turnstile = Turnstile::new();
    turnstile.open();
    let queue = builder(&turnstile).start().unwrap();
    let web = Web::builder(&queue).reconnect_grace(Duration::from_millis(20)).start().unwrap();
    let server = Server::start(&web);
    server.join("s", WAIT, json!([0])).await;
    server.session("s").await.rest().await;
    let missed = server.join("s", WAIT, json!([1])).await;
    // Its end is put aside, as there is no stream.
    while web.snapshot().await.clients.kept_results < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let next = server.join("s", WAIT, json!([2])).await;
    let messages = server.session("s").await.rest().await;
    let ended: Vec<_> = messages
        .iter()
        .filter(|event| event.data["msg"] == "process_completed")
        .map(|event| event.data["event_id"].as_str().unwrap())
        .collect();
    assert_eq!(ended, [missed, next]);
}

#[actix::test]
async fn a_result_can_be_fetched_again_for_a_while() {
    let turnstile = Turnstile::new();
    turnstile.open();
    let queue = builder(&turnstile).start().unwrap();
    let server = Server::start(&queue);
    let id = call(&server, "count", json!([2])).await;
    let first = follow(&server, "count", &id).await;
    assert_eq!(first[first.len() - 1].data, json!([words(2)]));
    let again = follow(&server, "count", &id).await;
    assert_eq!(again, first[first.len() - 1..]);
    // By the same way, that of an event which joined.
    let joined = server.join("s", WAIT, json!([7])).await;
    server.session("s").await.rest().await;
    assert_eq!(follow(&server, "wait", &joined).await[0].data, json!([7]));
}

#[actix::test]
async fn a_result_is_forgotten_after_its_time() {
    let turnstile = Turnstile::new();
    turnstile.open();
    let queue = builder(&turnstile).start().unwrap();
    let web = Web::builder(&queue).result_ttl(Duration::from_millis(50)).start().unwrap();
    let server = Server::start(&web);
    let joined = server.join("s", WAIT, json!([7])).await;
    server.session("s").await.rest().await;
    let gone = |events: &[Event]| events[0].name.as_deref() == Some("error");
    while !gone(&follow(&server, "wait", &joined).await) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(follow(&server, "wait", &joined).await[0].data, "404: Not Found");
}

#[actix::test]
async fn kept_results_are_bounded_the_oldest_goes_first() {
    let turnstile = Turnstile::new();
    turnstile.open();
    let queue = builder(&turnstile).start().unwrap();
    let web = Web::builder(&queue).max_kept_results(2, 1 << 20).start().unwrap();
    let server = Server::start(&web);
    let mut ids = Vec::new();
    for n in 0..3 {
        let id = call(&server, "wait", json!([n])).await;
        assert_eq!(follow(&server, "wait", &id).await[0].data, json!([n]));
        ids.push(id);
    }
    let mut found = Vec::new();
    for id in &ids {
        found.push(follow(&server, "wait", id).await[0].data.clone());
    }
    assert_eq!(found, [json!("404: Not Found"), json!([1]), json!([2])]);
}

#[actix::test]
async fn a_call_goes_on_where_it_was() {
    let turnstile = Turnstile::new();
    let queue = builder(&turnstile).start().unwrap();
    let server = Server::start(&queue);
    let id = call(&server, "count", json!([4])).await;
    let path = format!("/gradio_api/call/count/{id}");
    let accept = ("accept", "text/event-stream".to_string());
    let mut values = Vec::new();
    let mut last = None;
    for n in 0..4 {
        let mut headers = vec![accept.clone()];
        headers.extend(last.map(|last: u64| ("last-event-id", last.to_string())));
        let mut stream = server.stream_with(&path, &headers).await;
        turnstile.let_through(2);
        let event = stream.next().await.unwrap();
        assert_eq!(event.name.as_deref(), Some("generating"), "{n}");
        last = event.id;
        values.push(event.data[0].as_str().unwrap().to_string());
    }
    assert_eq!(values, (1..=4).map(words).collect::<Vec<_>>());
    let headers = [accept, ("last-event-id", last.unwrap().to_string())];
    let rest = server.stream_with(&path, &headers).await.rest().await;
    assert_eq!(rest.len(), 1);
    assert_eq!((rest[0].name.as_deref(), &rest[0].data), (Some("complete"), &json!([words(4)])));
}

#[actix::test]
async fn a_reader_that_never_reads_gets_the_newest_value_in_place_of_many() {
    let all = Turnstile::new();
    let queue = {
        let all = all.clone();
        let many = move |n: u32, _: EventContext| {
            let all = all.clone();
            stream::iter(0..n).then(move |i| {
                let all = all.clone();
                async move {
                    if i + 1 == n {
                        all.pass().await;
                    }
                    Ok::<_, String>("x".repeat(10_000) + &i.to_string())
                }
            })
        };
        Queue::builder().listener(Listener::stream("many", many)).start().unwrap()
    };
    let server = Server::start(&queue);
    server.join("s", 0, json!([5000])).await;
    // Nobody has read a value yet.
    all.arrived(1).await;
    all.open();
    let events = server.session("s").await.rest().await;
    let values = events.iter().filter(|event| event.data["msg"] == "process_generating").count();
    // 4 MiB of them.
    assert!((2..=420).contains(&values), "{values}");
    let result = events[events.len() - 2].data["output"]["data"][0].as_str().unwrap();
    assert!(result.ends_with("4999"), "the result is whole");
}

#[actix::test]
async fn one_client_s_large_results_do_not_take_the_place_of_another_s() {
    let queue = Queue::builder()
        .listener(Listener::new("large", async |n: u32| Ok::<_, String>("x".repeat(n as usize))))
        .start()
        .unwrap();
    let web = Web::builder(&queue).max_kept_results(100, 100_000).start().unwrap();
    let server = Server::start(&web);
    server.join("small", 0, json!([10])).await;
    server.event_source("small", None).await.rest().await;
    for n in 0..10 {
        if n % 2 == 0 {
            server.join("large", 0, json!([30_000])).await;
            server.session("large").await.rest().await;
        } else {
            let id = call(&server, "large", json!([30_000])).await;
            follow(&server, "large", &id).await;
        }
    }
    assert!(web.snapshot().await.clients.kept_result_bytes <= 100_000);
    let again = server.event_source("small", Some(0)).await.rest().await;
    assert_eq!(again[0].data["output"]["data"], json!(["x".repeat(10)]));
}

#[actix::test]
async fn results_that_nobody_reads_are_bounded_and_every_event_ends() {
    let turnstile = Turnstile::new();
    let wait = turnstile.clone();
    let large = move |n: u32| {
        let wait = wait.clone();
        async move {
            wait.pass().await;
            Ok::<_, String>("x".repeat(n as usize))
        }
    };
    let listener = Listener::new("large", large).concurrency_limit(None);
    let queue = Queue::builder().listener(listener).start().unwrap();
    let server = Server::start(&queue);
    turnstile.open();
    for _ in 0..12 {
        server.join("s", 0, json!([4 << 20])).await;
    }
    let small = server.join("s", 0, json!([10])).await;
    while queue.snapshot().await.listener("large").unwrap().completed < 13 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let events = server.session("s").await.rest().await;
    let ends = events.iter().filter(|event| event.data["msg"] == "process_completed");
    let (kept, gone): (Vec<_>, Vec<_>) = ends.partition(|event| event.data["success"] == true);
    assert_eq!((kept.len(), gone.len()), (1 + 7, 5), "32 MiB of them, and every one has ended");
    assert!(kept.iter().any(|event| event.data["event_id"] == small.as_str()));
    assert_eq!(gone[0].data["output"]["error"], "The result is not kept any more.");
}

/// Yields values of a size, of which the first so many must be let through.
async fn many(values: u32, size: usize, held: u32, turnstile: &Turnstile) -> (Queue, Server) {
    let turnstile = turnstile.clone();
    let many = move |_: u32| {
        let turnstile = turnstile.clone();
        stream::iter(0..values).then(move |n| {
            let turnstile = turnstile.clone();
            async move {
                if n < held {
                    turnstile.pass().await;
                }
                Ok::<_, String>(format!("{n} {}", "x".repeat(size)))
            }
        })
    };
    let queue = Queue::builder().listener(Listener::stream("many", many)).start().unwrap();
    let server = Server::start(&queue);
    (queue, server)
}

#[actix::test]
async fn who_is_away_for_long_misses_no_small_value() {
    for (values, size, all) in [(3_000, 20, true), (3_000, 3_000, false)] {
        let turnstile = Turnstile::new();
        let (queue, server) = many(values, size, 2, &turnstile).await;
        let id = call(&server, "many", json!([0])).await;
        let path = format!("/gradio_api/call/many/{id}");
        let accept = ("accept", "text/event-stream".to_string());
        let mut stream = server.stream_with(&path, std::slice::from_ref(&accept)).await;
        turnstile.let_through(1);
        let first = stream.next().await.unwrap();
        drop(stream);
        turnstile.open();
        while queue.snapshot().await.listener("many").unwrap().completed < 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let headers = [accept, ("last-event-id", first.id.unwrap().to_string())];
        let rest = server.stream_with(&path, &headers).await.rest().await;
        let named = |name: &str| {
            rest.iter().filter(|event| event.name.as_deref() == Some(name)).collect::<Vec<_>>()
        };
        let read = named("generating");
        assert_eq!(read.len() + 1 == values as usize, all);
        // A client that misses some is notified, before the value that replaces them.
        assert_eq!(named("skipped").is_empty(), all);
        let last = read[read.len() - 1].data[0].as_str().unwrap();
        assert!(last.starts_with(&format!("{} ", values - 1)), "the newest is there");
        assert_eq!(named("complete").len(), 1);
    }
}

#[actix::test]
async fn who_comes_back_too_late_for_values_that_were_handed_out_is_told() {
    let turnstile = Turnstile::new();
    let (_queue, server) = many(150, 10_000, 150, &turnstile).await;
    server.join("s", 0, json!([0])).await;
    let mut stream = server.event_source("s", None).await;
    let mut all = Vec::new();
    while let Some(event) = {
        turnstile.let_through(1);
        stream.next().await
    } {
        all.push(event);
    }
    let skipped = |events: &[Event]| {
        let logs = events.iter().filter(|event| event.data["msg"] == "log");
        logs.inspect(|event| assert_eq!(event.data["visible"], false)).count()
    };
    assert_eq!(skipped(&all), 0);
    // As if but the first had arrived.
    let first = all.iter().find(|event| event.data["msg"] == "process_generating").unwrap().id;
    let again = server.event_source("s", first).await.rest().await;
    assert_eq!(skipped(&again), 1, "{again:?}");
    // Who understands nothing but Gradio's messages gets no other.
    let plain = server.session("s").await.rest().await;
    assert_eq!(skipped(&plain), 0);
}

#[actix::test]
async fn an_event_that_stays_may_run_for_longer_than_results_are_kept() {
    let turnstile = Turnstile::new();
    let queue = builder(&turnstile).start().unwrap();
    let web = Web::builder(&queue)
        .reconnect_grace(Duration::from_millis(10))
        .session_ttl(Duration::from_millis(20))
        .start()
        .unwrap();
    let server = Server::start(&web);
    let other = call(&server, "wait", json!([1])).await;
    let id = call(&server, "stay", json!([7])).await;
    turnstile.arrived(2).await;
    drop(server.stream(&format!("/gradio_api/call/stay/{id}")).await);
    drop(server.stream(&format!("/gradio_api/call/wait/{other}")).await);
    // The other has been given up, which shows that its time is over.
    while queue.snapshot().await.listener("wait").unwrap().cancelled == 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    while web.snapshot().await.clients.sessions > 1 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    turnstile.open();
    let events = follow(&server, "stay", &id).await;
    assert_eq!(events[events.len() - 1].data, json!([7]));
}

#[actix::test]
async fn an_end_outlasts_the_values_of_others() {
    let big = |n: u32| {
        stream::iter((0..n).map(|i| Ok::<_, String>(format!("{i}{}", "x".repeat(50_000)))))
    };
    let turnstile = Turnstile::new();
    turnstile.open();
    let queue = Queue::builder()
        .listener(Listener::new("wait", turnstile.handler()))
        .listener(Listener::stream("big", big))
        .start()
        .unwrap();
    let server = Server::start(&queue);
    server.join("s", 0, json!([7])).await;
    let mut stream = server.event_source("s", None).await;
    let end = loop {
        let event = stream.next().await.unwrap();
        if event.data["msg"] == "process_completed" {
            break event;
        }
    };
    drop(stream);
    server.join("s", 1, json!([20])).await;
    server.event_source("s", end.id).await.rest().await;
    // As if nothing from the first end on had arrived.
    let again = server.event_source("s", end.id.map(|id| id - 1)).await.rest().await;
    assert_eq!(again.iter().find(|event| event.id == end.id), Some(&end));
}

#[actix::test]
async fn a_result_that_is_not_kept_any_more_is_told_as_such() {
    let turnstile = Turnstile::new();
    turnstile.open();
    let queue = builder(&turnstile).start().unwrap();
    let web = Web::builder(&queue).max_kept_results(1, 1 << 20).start().unwrap();
    let server = Server::start(&web);
    let id = server.join("s", WAIT, json!([1])).await;
    server.event_source("s", None).await.rest().await;
    server.join("other", WAIT, json!([2])).await;
    server.session("other").await.rest().await;
    let events = server.event_source("s", Some(0)).await.rest().await;
    assert_eq!(events[0].data["event_id"], id);
    assert_eq!(events[0].data["output"]["error"], "The result is not kept any more.");
}

#[derive(schemars::JsonSchema)]
struct Bad;

impl serde::Serialize for Bad {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        panic!("a bug in the service")
    }
}

#[actix::test]
async fn a_value_that_panics_when_it_is_written_fails_alone() {
    let queue = Queue::builder()
        .listener(Listener::new("bad", async |_: u32| Ok::<_, String>(Bad)))
        .listener(Listener::new("good", async |x: u32| Ok::<_, String>(x)))
        .start()
        .unwrap();
    let server = Server::start(&queue);
    let bad = server.join("s", 0, json!([1])).await;
    let good = server.join("s", 1, json!([2])).await;
    let events = server.session("s").await.rest().await;
    let end = |id: &str| {
        let own = |event: &&Event| {
            event.data["event_id"] == id && event.data["msg"] == "process_completed"
        };
        events.iter().find(own).unwrap().data.clone()
    };
    assert_eq!(end(&bad)["success"], false);
    assert_eq!(end(&good)["output"]["data"], json!([2]));
}

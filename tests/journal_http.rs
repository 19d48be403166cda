//! Durable events over HTTP: their clients find them again after the process has died.
//!
//! The process that dies is played by a server that goes on, on a disk that the next one doesn't see.
#![cfg(all(feature = "journal", feature = "web"))]

mod common;
mod disk;

use std::time::Duration;

use awc::http::StatusCode;
use common::Server;
use disk::Disk;
use now_serving::testing::Turnstile;
use now_serving::{Listener, Queue};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

fn queue(disk: &Disk, turnstile: &Turnstile) -> Queue {
    let other = async |n: u32| Ok::<_, String>(n);
    disk.open()
        .listener(Listener::new("wait", turnstile.handler()).durable())
        .listener(Listener::new("other", other).durable())
        .start()
        .unwrap()
}

/// The next process, on the disk as it is at this moment; nothing passes its handler yet.
fn next_process(disk: &Disk) -> (Disk, Turnstile, Queue, Server) {
    let (disk, turnstile) = (disk.as_it_is(), Turnstile::new());
    let queue = queue(&disk, &turnstile);
    let server = Server::start(&queue);
    (disk, turnstile, queue, server)
}

async fn call(server: &Server, n: u32) -> String {
    let (status, answer) = server.post("/gradio_api/call/wait", json!({ "data": [n] })).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    format!("/gradio_api/call/wait/{}", answer["event_id"].as_str().unwrap())
}

async fn end(server: &Server, path: &str) -> (String, Value) {
    let event = server.stream(path).await.rest().await.pop().expect("it has an end");
    (event.name.expect("it is named"), event.data)
}

#[actix::test]
async fn a_call_finds_its_event_or_its_end_in_the_next_process() {
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    let first = queue(&disk, &turnstile);
    let server = Server::start(&first);
    let ended = call(&server, 0).await;
    turnstile.let_through(1);
    assert_eq!(end(&server, &ended).await, ("complete".into(), json!([0])));
    let (running, waits) = (call(&server, 1).await, call(&server, 2).await);
    turnstile.arrived(1).await;
    let (_disk, turnstile, _second, server) = next_process(&disk);
    turnstile.arrived(1).await;
    assert_eq!(end(&server, &ended).await, ("complete".into(), json!([0])));
    // By another listener's name it is unknown, and stays where it is.
    let unknown = ("error".to_string(), json!("404: Not Found"));
    assert_eq!(end(&server, &waits.replace("wait", "other")).await, unknown);
    assert_eq!(end(&server, &ended.replace("wait", "other")).await, unknown);
    let mut stream = server.stream(&waits).await;
    turnstile.open();
    let end_of_stream = stream.rest().await.pop().expect("it has an end");
    assert_eq!(end_of_stream.data, json!([2]));
    // It has ended before its client came back.
    assert_eq!(end(&server, &running).await, ("complete".into(), json!([1])));
    // As often as it is asked for.
    assert_eq!(end(&server, &running).await, ("complete".into(), json!([1])));
}

#[actix::test]
async fn a_session_finds_its_events_with_their_ranks_in_the_next_process() {
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    let first = queue(&disk, &turnstile);
    let server = Server::start(&first);
    let mut joined = Vec::new();
    for (session, n) in [("a", 1), ("b", 2), ("a", 3)] {
        joined.push(server.join(session, 0, json!([n])).await);
    }
    turnstile.arrived(1).await;
    let (_disk, turnstile, _second, server) = next_process(&disk);
    turnstile.arrived(1).await;
    let mut stream = server.session("a").await;
    let mut messages = Vec::new();
    // What runs is said to run, and what waits has its rank.
    while messages.len() < 2 {
        let message = stream.message().await;
        match message["msg"].as_str().unwrap() {
            "process_starts" => messages.push((message["event_id"].clone(), None)),
            "estimation" if message["event_id"] == *joined[2] => {
                messages.push((message["event_id"].clone(), message["rank"].as_u64()));
            }
            _ => {}
        }
    }
    messages.sort_by_key(|(_, rank)| *rank);
    assert_eq!(messages, [(json!(joined[0]), None), (json!(joined[2]), Some(1))]);
    turnstile.open();
    let ends: Vec<Value> = stream
        .until("close_stream")
        .await
        .into_iter()
        .filter(|message| message["msg"] == "process_completed")
        .map(|message| message["output"]["data"].clone())
        .collect();
    assert_eq!(ends, [json!([1]), json!([3])], "and none of another session's");
    // What it doesn't come back for goes on all the same.
    let other = format!("/gradio_api/call/wait/{}", joined[1]);
    assert_eq!(end(&server, &other).await, ("complete".into(), json!([2])));
}

/// Whether its updates are still there or only its end is on record.
#[actix::test]
async fn a_session_finds_the_ends_of_what_has_ended_while_it_was_away() {
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    let first = queue(&disk, &turnstile);
    let server = Server::start(&first);
    for (session, n) in [("soon", 1), ("late", 2)] {
        server.join(session, 0, json!([n])).await;
    }
    turnstile.arrived(1).await;
    let (disk, turnstile) = (disk.as_it_is(), Turnstile::new());
    turnstile.open();
    // What has ended is swept ten times within this time.
    let builder = disk.open().result_ttl(Duration::from_secs(5));
    let listener = Listener::new("wait", turnstile.handler()).durable();
    let server = Server::start(&builder.listener(listener).start().unwrap());
    let found = async |session: &str| {
        let messages = server.session(session).await.until("close_stream").await;
        let ends = messages.into_iter().filter(|it| it["msg"] == "process_completed");
        ends.map(|message| message["output"]["data"].clone()).collect::<Vec<_>>()
    };
    turnstile.passed(2).await;
    assert_eq!(found("soon").await, [json!([1])]);
    // Whichever way it comes, it comes: this makes it the second.
    actix::clock::sleep(Duration::from_millis(1100)).await;
    assert_eq!(found("late").await, [json!([2])]);
    // As often as it comes back, as any session's last end.
    assert_eq!(found("late").await, [json!([2])]);
}

#[actix::test]
async fn a_stop_tells_clients_to_come_back_and_their_events_go_on() {
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    let first = queue(&disk, &turnstile);
    let server = Server::start(&first);
    let (running, waits) = (call(&server, 1).await, call(&server, 2).await);
    turnstile.arrived(1).await;
    let mut streams = Vec::new();
    for path in [&running, &waits] {
        streams.push(server.stream(path).await);
    }
    first.shutdown(Duration::ZERO).await;
    for mut stream in streams {
        let end = stream.rest().await.pop().expect("it has an end");
        assert_eq!(end.name.as_deref(), Some("error"));
        let text = end.data["error"].as_str().unwrap();
        assert!(text.contains("goes on once the service is back"), "{text}");
    }
    let (status, answer) = server.post("/gradio_api/call/wait", json!({ "data": [3] })).await;
    assert_eq!((status.as_u16(), &answer["detail"]), (503, &json!("Queue is stopped.")));
    let (_disk, turnstile, _second, server) = next_process(&disk);
    turnstile.open();
    for (path, n) in [(running, 1), (waits, 2)] {
        assert_eq!(end(&server, &path).await, ("complete".into(), json!([n])));
    }
}

/// An input that has a name.
#[derive(Serialize, Deserialize, JsonSchema)]
struct Order {
    n: u32,
}

#[actix::test]
async fn events_and_keys_are_those_of_their_user_in_every_process() {
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    let serve = |queue: &Queue| {
        let web = now_serving::Web::builder(queue).trusted_user_header("X-User", ["127.0.0.1"]);
        Server::start(&web.start().unwrap())
    };
    let submit = async |server: &Server, user: &str| {
        let request = awc::Client::default()
            .post(server.url("/gradio_api/call/v2/wait"))
            .insert_header(("x-user", user))
            .insert_header(("idempotency-key", "order 17"));
        let mut response = request.send_json(&json!({ "n": 1 })).await.unwrap();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{answer}");
        answer["event_id"].as_str().unwrap().to_string()
    };
    let end = async |server: &Server, user: &str, event: &str| {
        let path = format!("/gradio_api/call/wait/{event}");
        let mut stream = server.stream_with(&path, &[("x-user", user.into())]).await;
        stream.rest().await.pop().expect("it has an end").data
    };
    let listener = |turnstile: &Turnstile| {
        let turnstile = turnstile.clone();
        let order = move |Order { n }: Order| {
            let turnstile = turnstile.clone();
            async move {
                turnstile.pass().await;
                Ok::<_, String>(n)
            }
        };
        Listener::new("wait", order).durable()
    };
    let first = serve(&disk.open().listener(listener(&turnstile)).start().unwrap());
    let (ada, bob) = (submit(&first, "ada").await, submit(&first, "bob").await);
    assert_ne!(ada, bob, "the same key of another user is another key");
    turnstile.arrived(1).await;
    let (disk, turnstile) = (disk.as_it_is(), Turnstile::new());
    let second = serve(&disk.open().listener(listener(&turnstile)).start().unwrap());
    for server in [&first, &second] {
        assert_eq!(submit(server, "ada").await, ada);
        assert_eq!(submit(server, "bob").await, bob);
    }
    let unknown = json!("404: Not Found");
    assert_eq!(end(&second, "bob", &ada).await, unknown, "while it waits or runs");
    turnstile.open();
    assert_eq!(end(&second, "ada", &ada).await, json!([1]));
    assert_eq!(end(&second, "bob", &ada).await, unknown, "once it has ended");
    assert_eq!(end(&second, "bob", &bob).await, json!([1]));
    assert_eq!(submit(&second, "ada").await, ada, "its end is on record");
}

#[actix::test]
async fn too_many_sessions_leave_an_event_where_it_can_be_found() {
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    let server = Server::start(&queue(&disk, &turnstile));
    let path = call(&server, 1).await;
    turnstile.arrived(1).await;
    let (disk, turnstile) = (disk.as_it_is(), Turnstile::new());
    let second = queue(&disk, &turnstile);
    let web = now_serving::Web::builder(&second).max_sessions(1);
    let server = Server::start(&web.reconnect_grace(Duration::ZERO).start().unwrap());
    server.join("another", 0, json!([2])).await;
    let status = async || {
        let response = awc::Client::default().get(server.url(&path)).send().await;
        response.expect("it answers").status()
    };
    assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
    turnstile.open();
    server.session("another").await.until("close_stream").await;
    // The one session makes room after a while.
    while status().await == StatusCode::SERVICE_UNAVAILABLE {
        actix::clock::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(end(&server, &path).await, ("complete".into(), json!([1])));
}

#[actix::test]
async fn results_that_http_no_longer_keeps_are_in_the_journal() {
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    turnstile.open();
    let queue = queue(&disk, &turnstile);
    let web = now_serving::Web::builder(&queue).max_kept_results(1, 1 << 20).start().unwrap();
    let server = Server::start(&web);
    let paths = [call(&server, 1).await, call(&server, 2).await, call(&server, 3).await];
    for (n, path) in (1..).zip(&paths) {
        assert_eq!(end(&server, path).await, ("complete".into(), json!([n])));
    }
    for (n, path) in (1..).zip(&paths) {
        assert_eq!(end(&server, path).await, ("complete".into(), json!([n])));
    }
}

#[actix::test]
async fn the_same_idempotency_key_gives_the_same_event() {
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    let echo = async |n: u32| Ok::<_, String>(n);
    let listeners = disk.open().listener(Listener::new("wait", turnstile.handler()).durable());
    let first = listeners.listener(Listener::new("plain", echo)).start().unwrap();
    let submit = async |server: &Server, name: &str, n: u32, key: String| {
        let request = awc::Client::default()
            .post(server.url(&format!("/gradio_api/call/{name}")))
            .insert_header(("idempotency-key", key));
        let mut response = request.send_json(&json!({ "data": [n] })).await.unwrap();
        let answer: Value = response.json().await.unwrap();
        (response.status().as_u16(), answer)
    };
    let server = Server::start(&first);
    let once = submit(&server, "wait", 1, "order 17".into()).await;
    assert_eq!(once.0, 200, "{once:?}");
    assert_eq!(submit(&server, "wait", 1, "order 17".into()).await, once);
    assert_ne!(submit(&server, "wait", 1, "order 18".into()).await, once);
    let (status, answer) = submit(&server, "wait", 2, "order 17".into()).await;
    assert_eq!(status, 409);
    assert!(answer["detail"].as_str().unwrap().contains("was used with another input"), "{answer}");
    let (status, answer) = submit(&server, "plain", 1, "order 17".into()).await;
    assert_eq!(status, 400);
    assert!(answer["detail"].as_str().unwrap().contains("isn't durable"), "{answer}");
    assert_eq!(submit(&server, "wait", 1, "k".repeat(256)).await.0, 400);
    for route in ["queue/join", "run/wait"] {
        let request = awc::Client::default()
            .post(server.url(&format!("/gradio_api/{route}")))
            .insert_header(("idempotency-key", "order 17"));
        let body = json!({ "data": [1], "fn_index": 0, "session_hash": "s" });
        assert_eq!(request.send_json(&body).await.unwrap().status(), StatusCode::BAD_REQUEST);
    }
    turnstile.open();
    let path = format!("/gradio_api/call/wait/{}", once.1["event_id"].as_str().unwrap());
    assert_eq!(end(&server, &path).await, ("complete".into(), json!([1])));
    // Of one that has ended, and in the next process.
    assert_eq!(submit(&server, "wait", 1, "order 17".into()).await, once);
    let disk = disk.as_it_is();
    let second = queue(&disk, &turnstile);
    let server = Server::start(&second);
    assert_eq!(submit(&server, "wait", 1, "order 17".into()).await, once);
    assert_eq!(end(&server, &path).await, ("complete".into(), json!([1])));
}

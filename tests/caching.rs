//! Results that are kept pass the queue by.
#![cfg(feature = "web")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use awc::http::StatusCode;
use common::Server;
use futures::stream;
use now_serving::testing::Turnstile;
use now_serving::{Listener, Queue, State, UserError};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize, JsonSchema)]
struct Sum {
    a: u32,
    #[serde(default)]
    b: u32,
}

/// A listener that counts its runs.
fn add(runs: &Arc<AtomicUsize>) -> Listener<Sum, u32> {
    let runs = runs.clone();
    let add = move |Sum { a, b }: Sum| {
        let runs = runs.clone();
        async move {
            runs.fetch_add(1, Ordering::SeqCst);
            match a {
                0 => Err(UserError::new("nothing to add to")),
                a => Ok(a + b),
            }
        }
    };
    Listener::new("add", add).cache(2)
}

/// The messages of an event's stream, without estimations.
async fn joined(server: &Server, fn_index: usize, data: Value) -> Vec<Value> {
    server.join("s", fn_index, data).await;
    let events = server.session("s").await.rest().await;
    let messages = events.into_iter().map(|event| event.data);
    messages.filter(|message| message["msg"].as_str().unwrap().starts_with("process_")).collect()
}

#[actix::test]
async fn a_call_made_before_is_answered_without_a_run() {
    let runs = Arc::default();
    let queue = Queue::builder().listener(add(&runs)).start().unwrap();
    let server = Server::start(&queue);
    let ran = || runs.load(Ordering::SeqCst);
    let first = joined(&server, 0, json!([1, 2])).await;
    assert_eq!(first[first.len() - 1]["used_cache"], Value::Null);
    let again = joined(&server, 0, json!([1, 2])).await;
    assert_eq!(again.len(), 1, "it doesn't even start");
    assert_eq!(again[0]["used_cache"], "full");
    assert_eq!(again[0]["output"]["data"], json!([3]));
    assert_eq!(ran(), 1);
    // By every way, and in any order of the arguments.
    let (_, answer) = server.post("/gradio_api/run/add", json!({"data": [1, 2]})).await;
    assert_eq!(answer["data"], json!([3]));
    let (_, answer) = server.post("/gradio_api/call/v2/add", json!({"b": 2, "a": 1})).await;
    let path = format!("/gradio_api/call/add/{}", answer["event_id"].as_str().unwrap());
    assert_eq!(server.stream(&path).await.rest().await[0].data, json!([3]));
    assert_eq!(ran(), 1);
    // What run has made is kept as well; of three of one session, the oldest is gone.
    for data in [json!([5, 5]), json!([6, 6]), json!([6, 6])] {
        let body = json!({"data": data, "session_hash": "s"});
        server.post("/gradio_api/run/add", body).await;
    }
    assert_eq!(ran(), 3);
    joined(&server, 0, json!([1, 2])).await;
    assert_eq!(ran(), 4);
    // In process it always runs.
    assert_eq!(queue.call("add", Sum { a: 1, b: 2 }).await, Ok(3u32));
    assert_eq!(ran(), 5);
}

#[actix::test]
async fn failures_are_not_kept() {
    let runs = Arc::default();
    let queue = Queue::builder().listener(add(&runs)).start().unwrap();
    let server = Server::start(&queue);
    for _ in 0..2 {
        let messages = joined(&server, 0, json!([0])).await;
        assert_eq!(messages[messages.len() - 1]["success"], false);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[actix::test]
async fn a_kept_stream_gives_all_its_values() {
    let count = |n: u32| stream::iter((0..n).map(Ok::<u32, String>));
    let queue =
        Queue::builder().listener(Listener::stream("count", count).cache(1)).start().unwrap();
    let server = Server::start(&queue);
    let values = |messages: Vec<Value>| {
        let outputs = messages.into_iter().map(|message| message["output"]["data"].clone());
        outputs.filter(|data| !data.is_null()).collect::<Vec<_>>()
    };
    let first = values(joined(&server, 0, json!([3])).await);
    assert_eq!(first.len(), 4);
    assert_eq!(values(joined(&server, 0, json!([3])).await), first);
}

#[actix::test]
async fn a_full_line_refuses_nobody_whose_result_is_kept() {
    let turnstile = Turnstile::new();
    turnstile.let_through(1);
    let listener = Listener::new("wait", turnstile.handler()).cache(10).max_size(1);
    let queue = Queue::builder().listener(listener).start().unwrap();
    let server = Server::start(&queue);
    joined(&server, 0, json!([1])).await;
    server.join("others", 0, json!([2])).await;
    turnstile.arrived(2).await;
    server.join("others", 0, json!([3])).await;
    let full = json!({"data": [4], "fn_index": 0, "session_hash": "s"});
    let (status, _) = server.post("/gradio_api/queue/join", full).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(joined(&server, 0, json!([1])).await[0]["used_cache"], "full");
    turnstile.open();
}

#[actix::test]
async fn a_cache_that_makes_no_sense_is_refused_at_the_start() {
    let echo = async |input: u32| Ok::<_, String>(input);
    let keep = async |input: u32, _: State<u32>| Ok::<_, String>(input);
    for (listener, expected) in [
        (Listener::new("paint", echo).cache(0), "listener \"paint\" has a cache of 0"),
        (Listener::new("paint", keep).cache(1), "listener \"paint\" takes State and has a cache"),
    ] {
        let error = Queue::builder().listener(listener).start().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

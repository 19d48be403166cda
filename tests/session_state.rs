//! What a session keeps on the server, and how it ends.
#![cfg(feature = "web")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use awc::http::StatusCode;
use common::Server;
use now_serving::{Listener, Queue, QueueBuilder, State, Web};
use serde_json::{Value, json};
use tokio::sync::mpsc;

async fn remember(word: String, history: State<Vec<String>>) -> Result<Vec<String>, String> {
    history.update(|history| history.push(word));
    Ok(history.get())
}

async fn count(_: String, counted: State<usize>) -> Result<usize, String> {
    Ok(counted.update(|counted| {
        *counted += 1;
        *counted
    }))
}

/// How many words this session has sent, to whichever listener.
async fn said(_: (), history: State<Vec<String>>) -> Result<usize, String> {
    Ok(history.update(|history| history.len()))
}

fn builder() -> QueueBuilder {
    Queue::builder()
        .listener(Listener::new("remember", remember))
        .listener(Listener::new("count", count))
        .listener(Listener::new("said", said))
}

/// The values of an event of a session.
async fn joined(server: &Server, session: &str, fn_index: usize, word: &str) -> Value {
    server.join(session, fn_index, json!([word])).await;
    let messages = server.session(session).await.until("process_completed").await;
    messages[messages.len() - 1]["output"]["data"].clone()
}

#[actix::test]
async fn each_session_has_one_of_each_type() {
    let queue = builder().start().unwrap();
    let server = Server::start(&queue);
    assert_eq!(joined(&server, "mine", 0, "a").await, json!([["a"]]));
    assert_eq!(joined(&server, "theirs", 0, "b").await, json!([["b"]]));
    assert_eq!(joined(&server, "mine", 0, "c").await, json!([["a", "c"]]));
    assert_eq!(joined(&server, "mine", 1, "d").await, json!([1]));
    // Of the same type, it is the same.
    server.join("mine", 2, json!([])).await;
    let messages = server.session("mine").await.until("process_completed").await;
    assert_eq!(messages[messages.len() - 1]["output"]["data"], json!([2]));
    // By the other ways too.
    let body = json!({"data": ["e"], "session_hash": "mine"});
    let (_, answer) = server.post("/gradio_api/run/remember", body.clone()).await;
    assert_eq!(answer["data"], json!([["a", "c", "e"]]));
    let (_, answer) = server.post("/gradio_api/call/remember", body).await;
    let path = format!("/gradio_api/call/remember/{}", answer["event_id"].as_str().unwrap());
    let events = server.stream(&path).await.rest().await;
    assert_eq!(events[0].data, json!([["a", "c", "e", "e"]]));
    assert_eq!(server.get("/config").await["connect_heartbeat"], true);
}

#[actix::test]
async fn two_listeners_change_the_same_state_at_once() {
    const ROUNDS: usize = 10_000;
    let both = Arc::new(std::sync::Barrier::new(2));
    let add = |name: &str| {
        let both = both.clone();
        let add = move |_: (), counted: State<usize>| {
            // Neither begins before the other runs.
            both.wait();
            (0..ROUNDS).for_each(|_| counted.update(|counted| *counted += 1));
            both.wait();
            Ok::<_, String>(counted.get())
        };
        Listener::blocking(name, add)
    };
    let queue = Queue::builder().listener(add("one")).listener(add("other")).start().unwrap();
    let server = Server::start(&queue);
    server.join("s", 0, json!([])).await;
    server.join("s", 1, json!([])).await;
    let events = server.session("s").await.rest().await;
    let ended = events.iter().filter(|event| event.data["msg"] == "process_completed");
    let counted: Vec<_> = ended.map(|event| &event.data["output"]["data"][0]).collect();
    assert_eq!(counted, [2 * ROUNDS, 2 * ROUNDS]);
}

#[actix::test]
async fn calls_without_a_session_begin_anew() {
    let queue = builder().start().unwrap();
    let server = Server::start(&queue);
    for _ in 0..2 {
        let said: Vec<String> = queue.call("remember", "a".to_string()).await.unwrap();
        assert_eq!(said, ["a"]);
        let (status, answer) =
            server.post("/gradio_api/run/remember", json!({"data": ["a"]})).await;
        assert_eq!((status, &answer["data"]), (StatusCode::OK, &json!([["a"]])));
    }
}

#[actix::test]
async fn a_session_ends_after_its_ttl_and_the_hook_is_told() {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let hook = move |session: now_serving::EndedSession<'_>| {
        let said = session.state::<Vec<String>>().map(|said| said.get());
        let wrong_type = session.state::<String>().is_some();
        ended.send((session.id().to_string(), said, wrong_type)).unwrap();
    };
    let queue = builder().start().unwrap();
    let web = Web::builder(&queue)
        .session_ttl(Duration::from_secs(2))
        .on_session_end(hook)
        .start()
        .unwrap();
    let server = Server::start(&web);
    // One that is there outlives its ttl.
    let mut heartbeat = server.stream("/gradio_api/heartbeat/there").await;
    assert_eq!(heartbeat.next_text().await, "data: ALIVE");
    joined(&server, "there", 0, "kept").await;
    joined(&server, "left", 0, "a").await;
    let session = ends.recv().await.unwrap();
    assert_eq!(session, ("left".into(), Some(vec!["a".into()]), false));
    assert_eq!(joined(&server, "left", 0, "b").await, json!([["b"]]));
    assert_eq!(ends.recv().await.unwrap().0, "left");
    assert_eq!(joined(&server, "there", 0, "still").await, json!([["kept", "still"]]));
    // With its heartbeat, the last thing that holds it goes.
    drop(heartbeat);
    assert_eq!(ends.recv().await.unwrap().0, "there");
}

//! `call/{api_name}`: the two requests that the guide makes with curl.
#![cfg(feature = "web")]

mod common;

use awc::http::StatusCode;
use common::Server;
use futures::stream;
use now_serving::testing::Turnstile;
use now_serving::{Listener, Queue, UserError};
use serde_json::{Value, json};

fn queue(turnstile: &Turnstile) -> Queue {
    let count = |n: u32| stream::iter((0..n).map(Ok::<u32, String>));
    let fail = async |_: String| Err::<String, _>(UserError::new("no good"));
    Queue::builder()
        .listener(Listener::new("wait", turnstile.handler()))
        .listener(Listener::stream("count", count))
        .listener(Listener::new("fail", fail))
        .listener(Listener::new("pair", async |(a, b): (u32, u32)| Ok::<_, String>((b, a))))
        .listener(Listener::new("nothing", async |(): ()| Ok::<_, String>(())))
        .start()
        .unwrap()
}

async fn call(server: &Server, name: &str, data: Value) -> Vec<(String, Value)> {
    let path = format!("/gradio_api/call/{name}");
    let (status, answer) = server.post(&path, json!({ "data": data })).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let path = format!("{path}/{}", answer["event_id"].as_str().unwrap());
    let events = server.stream(&path).await.rest().await;
    events.into_iter().map(|event| (event.name.unwrap(), event.data)).collect()
}

fn event(name: &str, data: Value) -> (String, Value) {
    (name.into(), data)
}

#[actix::test]
async fn values_come_whole() {
    let queue = queue(&Turnstile::new());
    let server = Server::start(&queue);
    assert_eq!(
        call(&server, "count", json!([2])).await,
        [
            event("generating", json!([0])),
            event("generating", json!([1])),
            event("complete", json!([1]))
        ]
    );
    assert_eq!(call(&server, "pair", json!([1, 2])).await, [event("complete", json!([2, 1]))]);
    assert_eq!(call(&server, "nothing", json!([])).await, [event("complete", json!([]))]);
    let error = json!({"error": "no good", "duration": 10.0, "visible": true, "title": "Error"});
    assert_eq!(call(&server, "fail", json!(["x"])).await, [event("error", error)]);
}

#[actix::test]
async fn an_end_can_be_read_again_and_others_are_not_found() {
    let turnstile = Turnstile::new();
    turnstile.open();
    let queue = queue(&turnstile);
    let server = Server::start(&queue);
    let (_, answer) = server.post("/gradio_api/call/wait", json!({"data": [5]})).await;
    let path = format!("/gradio_api/call/wait/{}", answer["event_id"].as_str().unwrap());
    let not_found = event("error", json!("404: Not Found"));
    let read = |path: String| {
        let server = &server;
        async move {
            let event = server.stream(&path).await.rest().await.remove(0);
            (event.name.unwrap(), event.data)
        }
    };
    for _ in 0..3 {
        assert_eq!(read(path.clone()).await, event("complete", json!([5])));
    }
    assert_eq!(read("/gradio_api/call/wait/nonsense".into()).await, not_found);
    // By another listener's name it is unknown: one that has ended, and one that hasn't.
    let (_, answer) = server.post("/gradio_api/call/wait", json!({"data": [6]})).await;
    let new = answer["event_id"].as_str().unwrap();
    for path in [path.replace("wait", "count"), format!("/gradio_api/call/count/{new}")] {
        assert_eq!(read(path).await, not_found);
    }
    let path = format!("/gradio_api/call/wait/{new}");
    assert_eq!(read(path).await, event("complete", json!([6])));
}

#[actix::test]
async fn a_call_can_be_cancelled_by_its_session() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let server = Server::start(&queue);
    let body = json!({"data": [1], "session_hash": "mine"});
    let (_, answer) = server.post("/gradio_api/call/wait", body).await;
    let id = answer["event_id"].as_str().unwrap();
    turnstile.arrived(1).await;
    server.cancel("theirs", id).await;
    assert_eq!(turnstile.inside(), 1);
    server.cancel("mine", id).await;
    let events = server.stream(&format!("/gradio_api/call/wait/{id}")).await.rest().await;
    assert_eq!(events.len(), 1);
    assert_eq!(events[0].data, Value::Null);
    assert_eq!(turnstile.inside(), 0);
}

#[actix::test]
async fn a_call_without_a_session_can_be_cancelled_by_its_event() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let server = Server::start(&queue);
    let (_, answer) = server.post("/gradio_api/call/wait", json!({"data": [1]})).await;
    let (_, named) = {
        let body = json!({"data": [1], "session_hash": "mine"});
        server.post("/gradio_api/call/wait", body).await
    };
    turnstile.arrived(1).await;
    let cancel = async |id: &Value| {
        let body = json!({"session_hash": null, "event_id": id});
        let answer = server.post("/gradio_api/cancel", body).await;
        assert_eq!(answer, (StatusCode::OK, json!({"success": true})));
    };
    // One that named a session is that session's.
    cancel(&named["event_id"]).await;
    cancel(&answer["event_id"]).await;
    turnstile.open();
    let end = async |answer: &Value| {
        let id = answer["event_id"].as_str().unwrap();
        let events = server.stream(&format!("/gradio_api/call/wait/{id}")).await.rest().await;
        events[0].data.clone()
    };
    assert_eq!(end(&answer).await, Value::Null);
    assert_eq!(end(&named).await, json!([1]));
}

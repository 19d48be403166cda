//! Bad requests get a clear refusal, never a 500, and cost nobody else anything.
#![cfg(feature = "web")]

mod common;

use std::time::Duration;

use awc::http::StatusCode;
use common::Server;
use now_serving::testing::Turnstile;
use now_serving::{Listener, Queue};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize, JsonSchema)]
struct Prompt {
    #[allow(dead_code)]
    text: String,
    steps: u32,
}

async fn paint(prompt: Prompt) -> Result<u32, String> {
    Ok(prompt.steps)
}

fn queue(turnstile: &Turnstile) -> Queue {
    Queue::builder()
        .listener(Listener::new("wait", turnstile.handler()).max_size(1))
        .listener(Listener::new("paint", paint))
        .start()
        .unwrap()
}

fn join(fn_index: Value, data: Value) -> Value {
    json!({"data": data, "fn_index": fn_index, "session_hash": "s"})
}

#[actix::test]
async fn a_full_line_is_503_with_gradios_text_and_retry_after() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let server = Server::start(&queue);
    server.join("s", 0, json!([0])).await;
    turnstile.arrived(1).await;
    server.join("s", 0, json!([1])).await;
    let bodies = [
        ("/gradio_api/queue/join", join(json!(0), json!([2]))),
        ("/gradio_api/call/wait", json!({"data": [2]})),
    ];
    for (path, body) in bodies {
        let (status, retry_after, text) = server.post_text(path, body.to_string()).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer, json!({"detail": "Queue is full. Max size is 1 and size is 1."}));
        assert!(retry_after.unwrap().parse::<u64>().unwrap() >= 1);
    }
    turnstile.open();
    let messages = server.session("s").await.until("close_stream").await;
    let ended = messages.iter().filter(|message| message["msg"] == "process_completed");
    assert_eq!(ended.count(), 2, "what was accepted is not lost");
}

#[actix::test]
async fn a_stopped_queue_is_503() {
    let queue = queue(&Turnstile::new());
    let server = Server::start(&queue);
    queue.shutdown(Duration::ZERO).await;
    let (status, answer) = server.post("/gradio_api/queue/join", join(json!(0), json!([0]))).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer, json!({"detail": "Queue is stopped."}));
}

#[actix::test]
async fn a_join_without_a_session_is_400() {
    let queue = queue(&Turnstile::new());
    let server = Server::start(&queue);
    for body in [
        json!({"data": [0], "fn_index": 0}),
        json!({"data": [0], "fn_index": 0, "session_hash": ""}),
        json!({"data": [0], "fn_index": 0, "session_hash": null}),
    ] {
        let (status, answer) = server.post("/gradio_api/queue/join", body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(answer, json!({"detail": "Session hash not found."}));
    }
}

#[actix::test]
async fn unknown_listeners_are_404_by_name() {
    let queue = queue(&Turnstile::new());
    let server = Server::start(&queue);
    for (path, body, name) in [
        ("/gradio_api/queue/join", join(json!(2), json!([])), "fn_index 2"),
        (
            "/gradio_api/queue/join",
            join(json!(u64::MAX), json!([])),
            "fn_index 18446744073709551615",
        ),
        ("/gradio_api/call/nobody", json!({"data": []}), "/nobody"),
    ] {
        let (status, answer) = server.post(path, body).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
        assert!(answer["detail"].as_str().unwrap().contains(name), "{answer}");
    }
}

#[actix::test]
async fn what_is_no_json_or_of_the_wrong_type_is_422_and_says_where() {
    let queue = queue(&Turnstile::new());
    let server = Server::start(&queue);
    let deep = format!("{{\"data\": {}", "[".repeat(100_000));
    for (path, body, loc) in [
        ("/gradio_api/queue/join", "no json".to_string(), json!(["body"])),
        ("/gradio_api/queue/join", String::new(), json!(["body"])),
        ("/gradio_api/queue/join", deep, json!(["body"])),
        (
            "/gradio_api/queue/join",
            join(Value::Null, json!([])).to_string(),
            json!(["body", "fn_index"]),
        ),
        ("/gradio_api/queue/join", "[1]".into(), Value::Null),
        ("/gradio_api/queue/join", "{} trailing".into(), json!(["body"])),
        ("/gradio_api/queue/join", r#"{"data": 3}"#.into(), json!(["body", "data"])),
        ("/gradio_api/queue/join", r#"{"fn_index": "x"}"#.into(), json!(["body", "fn_index"])),
        ("/gradio_api/queue/join", r#"{"fn_index": -1}"#.into(), json!(["body", "fn_index"])),
        ("/gradio_api/cancel", r#"{"event_id": 3}"#.into(), json!(["body", "event_id"])),
        ("/gradio_api/call/paint", r#"{"data": [1, 2]}"#.into(), json!(["body", "data", 0])),
        ("/gradio_api/call/paint", r#"{"data": ["a", -2]}"#.into(), json!(["body", "data", 1])),
        ("/gradio_api/call/paint", r#"{"data": ["a"]}"#.into(), json!(["body", "data"])),
        ("/gradio_api/call/paint", r#"{"data": ["a", 1, 2]}"#.into(), json!(["body", "data"])),
        ("/gradio_api/call/wait", r#"{"data": [[]]}"#.into(), json!(["body", "data", 0])),
        ("/gradio_api/call/wait", r#"{"data": []}"#.into(), json!(["body", "data"])),
    ] {
        let shown = body.chars().take(40).collect::<String>();
        let (status, _, text) = server.post_text(path, body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path} {shown}: {text}");
        let answer: Value = serde_json::from_str(&text).unwrap();
        let detail = &answer["detail"][0];
        for key in ["type", "msg"] {
            assert!(detail[key].is_string(), "{answer}");
        }
        if !loc.is_null() {
            assert_eq!(detail["loc"], loc, "{path} {shown}: {answer}");
        }
    }
    let (status, answer) = server.post("/gradio_api/call/paint", json!({"data": ["a", -2]})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer["detail"][0]["msg"].as_str().unwrap().starts_with("steps: "), "{answer}");
}

#[actix::test]
async fn a_join_with_a_wrong_input_is_taken_and_fails() {
    let queue = queue(&Turnstile::new());
    let server = Server::start(&queue);
    for (data, message) in [
        (json!(["a", -2]), "steps: invalid value: integer `-2`"),
        (json!(["a"]), "missing field `steps`"),
        (json!(["a", 1, 2]), "/paint takes 2 inputs, and 3 were given"),
        (json!([]), "missing field `text`"),
    ] {
        let id = server.join("s", 1, data.clone()).await;
        let messages = server.session("s").await.rest().await;
        let [ended, close] = &messages[..] else { panic!("{messages:?}") };
        let ended = &ended.data;
        assert_eq!((&ended["msg"], &ended["event_id"]), (&json!("process_completed"), &json!(id)));
        assert_eq!((&ended["success"], &ended["title"]), (&json!(false), &json!("Error")));
        let error = ended["output"]["error"].as_str().unwrap();
        assert!(error.starts_with(message), "{error}");
        assert_eq!(close.data["msg"], "close_stream");
        // The other ways refuse it.
        for path in ["/gradio_api/call/paint", "/gradio_api/run/paint"] {
            let (status, answer) = server.post(path, json!({ "data": data })).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
        }
    }
    let snapshot = queue.snapshot().await;
    let listeners = || snapshot.concurrency_ids.iter().flat_map(|id| &id.listeners);
    assert_eq!(listeners().map(|listener| listener.admitted).sum::<u64>(), 0);
}

#[actix::test]
async fn a_body_that_is_too_large_is_413() {
    let queue = queue(&Turnstile::new());
    let server = Server::start(&queue);
    let body = json!({"data": ["x".repeat(17 << 20), 1]}).to_string();
    let sent = awc::Client::default()
        .post(server.url("/gradio_api/call/paint"))
        .timeout(Duration::from_secs(60))
        .send_body(body)
        .await;
    assert_eq!(sent.unwrap().status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[actix::test]
async fn a_stopped_queue_takes_no_join_whatever_its_input() {
    let queue = queue(&Turnstile::new());
    let server = Server::start(&queue);
    queue.shutdown(Duration::from_secs(30)).await;
    for data in [json!(["a fox", 3]), json!(["a fox", "many"])] {
        let (status, answer) = server.post("/gradio_api/queue/join", join(json!(1), data)).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    }
}

#[actix::test]
async fn a_body_that_is_no_object_is_422() {
    let queue = queue(&Turnstile::new());
    let server = Server::start(&queue);
    for path in ["run/paint", "call/paint", "call/v2/paint", "queue/join", "cancel"] {
        for body in [r#"[["x", 1], 1, "s", null]"#, "[]", " 3", "\"x\"", "null"] {
            let (status, _, text) =
                server.post_text(&format!("/gradio_api/{path}"), body.to_string()).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path} {body} {text}");
            let answer: Value = serde_json::from_str(&text).unwrap();
            let detail = &answer["detail"][0];
            assert_eq!(detail["msg"], "the body must be a JSON object", "{path} {body}");
            assert_eq!(detail["loc"], json!(["body"]));
        }
    }
}

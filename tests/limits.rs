//! What one client, or all of them, may use of the server, and how they are refused beyond.
#![cfg(feature = "web")]

mod common;

use std::time::Duration;

use awc::http::StatusCode;
use common::{Served, Server};
use now_serving::testing::Turnstile;
use now_serving::{Listener, Queue, QueueBuilder, Web};
use serde_json::json;

fn builder(turnstile: &Turnstile) -> QueueBuilder {
    Queue::builder().listener(Listener::new("wait", turnstile.handler()))
}

/// A server whose listener `wait`, with room for one in its queue, takes no more.
async fn full(turnstile: &Turnstile, served: &impl Served) -> Server {
    let server = Server::start(served);
    server.join("running", 0, json!([0])).await;
    turnstile.arrived(1).await;
    server.join("waiting", 0, json!([1])).await;
    server
}

#[actix::test]
async fn a_session_has_so_many_events_and_no_more() {
    let turnstile = Turnstile::new();
    let queue = builder(&turnstile).start().unwrap();
    let web = Web::builder(&queue).max_waiting_per_session(3).start().unwrap();
    let server = Server::start(&web);
    server.join("s", 0, json!([0])).await;
    server.join("s", 0, json!([1])).await;
    let called = json!({"data": [2], "session_hash": "s"});
    assert_eq!(server.post("/gradio_api/call/wait", called.clone()).await.0, StatusCode::OK);
    let join = json!({"data": [3], "fn_index": 0, "session_hash": "s"});
    for (path, body) in [("queue/join", &join), ("call/wait", &called), ("run/wait", &called)] {
        let path = format!("/gradio_api/{path}");
        let (status, retry_after, text) = server.post_text(&path, body.to_string()).await;
        assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{path}");
        assert!(text.contains("This session has 3 events under way"), "{text}");
        assert_eq!(retry_after.as_deref(), Some("1"));
    }
    // Others have theirs.
    server.join("other", 0, json!([4])).await;
    // What has been read makes room.
    turnstile.let_through(1);
    let mut stream = server.session("s").await;
    stream.until("process_completed").await;
    server.join("s", 0, json!([5])).await;
    turnstile.open();
    let ended = stream.until("close_stream").await;
    assert_eq!(ended.iter().filter(|message| message["msg"] == "process_completed").count(), 2);
}

/// Each call without a session's hash is a session of its own, of which one user could have any number.
#[actix::test]
async fn a_user_s_calls_without_session_count_together() {
    let turnstile = Turnstile::new();
    let queue = builder(&turnstile).start().unwrap();
    let web = Web::builder(&queue)
        .max_waiting_per_session(2)
        .trusted_user_header("X-User", ["127.0.0.1"])
        .start()
        .unwrap();
    let server = Server::start(&web);
    let call = async |user: &str, path: &str| {
        let request = awc::Client::default().post(server.url(path)).insert_header(("X-User", user));
        request.send_json(&json!({"data": [0]})).await.unwrap().status()
    };
    for _ in 0..2 {
        assert_eq!(call("bob", "/gradio_api/call/wait").await, StatusCode::OK);
    }
    for path in ["/gradio_api/call/wait", "/gradio_api/run/wait"] {
        assert_eq!(call("bob", path).await, StatusCode::TOO_MANY_REQUESTS, "{path}");
    }
    assert_eq!(call("ada", "/gradio_api/call/wait").await, StatusCode::OK);
    turnstile.open();
}

#[actix::test]
async fn there_are_so_many_sessions_and_no_more() {
    let turnstile = Turnstile::new();
    let queue = builder(&turnstile).start().unwrap();
    let web = Web::builder(&queue).max_sessions(2).start().unwrap();
    let server = Server::start(&web);
    server.join("a", 0, json!([0])).await;
    server.join("b", 0, json!([1])).await;
    let join = json!({"data": [2], "fn_index": 0, "session_hash": "c"});
    let (status, retry_after, text) =
        server.post_text("/gradio_api/queue/join", join.to_string()).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains("too many clients"), "{text}");
    assert!(retry_after.unwrap().parse::<u64>().unwrap() >= 1);
    let (status, _) = server.post("/gradio_api/call/wait", json!({"data": [2]})).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    // Those that are there go on.
    server.join("a", 0, json!([3])).await;
    turnstile.open();
    for (session, events) in [("a", 2), ("b", 1)] {
        let messages = server.session(session).await.until("close_stream").await;
        let ended = messages.iter().filter(|message| message["msg"] == "process_completed");
        assert_eq!(ended.count(), events);
    }
}

#[actix::test]
async fn sessions_whose_clients_have_gone_make_room() {
    let turnstile = Turnstile::new();
    let queue = builder(&turnstile).start().unwrap();
    let builder = Web::builder(&queue).max_sessions(2);
    let web = builder.reconnect_grace(Duration::from_millis(20)).start().unwrap();
    let server = Server::start(&web);
    server.join("stays", 0, json!([0])).await;
    let mut stays = server.session("stays").await;
    turnstile.let_through(1);
    stays.until("process_completed").await;
    server.join("goes", 0, json!([1])).await;
    turnstile.let_through(1);
    server.session("goes").await.until("close_stream").await;
    let join = |hash: &str| json!({"data": [2], "fn_index": 0, "session_hash": hash});
    let mut status = StatusCode::SERVICE_UNAVAILABLE;
    // Both have nothing under way now, and the first reads.
    while status == StatusCode::SERVICE_UNAVAILABLE {
        status = server.post("/gradio_api/queue/join", join("new")).await.0;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(status, StatusCode::OK);
    // One with an event under way does not.
    server.post("/gradio_api/queue/join", join("stays")).await;
    let (status, _) = server.post("/gradio_api/queue/join", join("newer")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

/// A refused request must not take the session away from another that is about to submit.
#[actix::test]
async fn a_refusal_and_a_join_at_once_in_a_new_session() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder()
        .listener(Listener::new("wait", turnstile.handler()).max_size(1))
        .listener(Listener::new("echo", async |n: u32| Ok::<_, String>(n)).concurrency_limit(None))
        .start()
        .unwrap();
    let server = full(&turnstile, &queue).await;
    for n in 0..500 {
        let hash = format!("s{n}");
        let join = |listener: u32| {
            let body = json!({"data": [7], "fn_index": listener, "session_hash": hash});
            server.post("/gradio_api/queue/join", body)
        };
        let ((refused, _), (accepted, _)) = futures::join!(join(0), join(1));
        assert_eq!(refused, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(accepted, StatusCode::OK);
        let messages = server.session(&hash).await.until("close_stream").await;
        assert!(messages.iter().any(|message| message["msg"] == "process_completed"), "{n}");
    }
}

#[actix::test]
async fn a_session_has_so_many_heartbeats_and_no_more() {
    let queue = builder(&Turnstile::new()).start().unwrap();
    let server = Server::start(&queue);
    let mut beats = Vec::new();
    for _ in 0..16 {
        let mut beat = server.stream("/gradio_api/heartbeat/s").await;
        assert_eq!(beat.next_text().await, "data: ALIVE");
        beats.push(beat);
    }
    let mut answer =
        awc::Client::default().get(server.url("/gradio_api/heartbeat/s")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(String::from_utf8_lossy(&answer.body().await.unwrap()).contains("heartbeats"));
    let mut other = server.stream("/gradio_api/heartbeat/other").await;
    assert_eq!(other.next_text().await, "data: ALIVE");
}

#[actix::test]
async fn the_largest_body_can_be_chosen() {
    let turnstile = Turnstile::new();
    turnstile.open();
    let queue = builder(&turnstile).start().unwrap();
    let web = Web::builder(&queue).max_body_size(1000).start().unwrap();
    let server = Server::start(&web);
    let padded = |length: usize| format!("{}{}", json!({"data": [1]}), " ".repeat(length - 12));
    let (status, _, text) = server.post_text("/gradio_api/run/wait", padded(1000)).await;
    assert_eq!(status, StatusCode::OK, "{text}");
    let (status, _, text) = server.post_text("/gradio_api/run/wait", padded(1001)).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{text}");
}

#[actix::test]
async fn refused_joins_leave_no_sessions() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder()
        .listener(Listener::new("wait", turnstile.handler()).max_size(1))
        .start()
        .unwrap();
    let web = Web::builder(&queue).max_sessions(4).start().unwrap();
    let server = full(&turnstile, &web).await;
    for n in 0..10 {
        let join = json!({"data": [2], "fn_index": 0, "session_hash": format!("refused {n}")});
        let (status, answer) = server.post("/gradio_api/queue/join", join).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer["detail"].as_str().unwrap().starts_with("Queue is full"), "{answer}");
    }
    for path in ["call/wait", "run/wait"] {
        let body = json!({"data": [2], "session_hash": format!("refused {path}")});
        let (status, _) = server.post(&format!("/gradio_api/{path}"), body).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(web.snapshot().await.clients.sessions, 2);
    turnstile.open();
    server.session("waiting").await.until("close_stream").await;
    server.join("new", 0, json!([3])).await;
}

#[actix::test]
async fn a_hash_is_short() {
    let queue = builder(&Turnstile::new()).start().unwrap();
    let server = Server::start(&queue);
    let join = |length: usize| {
        let hash = "h".repeat(length);
        server.post(
            "/gradio_api/queue/join",
            json!({"data": [0], "fn_index": 0, "session_hash": hash}),
        )
    };
    let (status, answer) = join(129).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(answer["detail"], "A session_hash has at most 128 bytes.");
    assert_eq!(join(128).await.0, StatusCode::OK);
}

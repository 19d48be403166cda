//! What clients can make a server hold is bounded in bytes.
#![cfg(feature = "web")]

mod common;

use std::time::Duration;

use actix_web::App;
use actix_web::dev::Service;
use actix_web::test::{TestRequest, init_service};
use common::Server;
use now_serving::testing::Turnstile;
use now_serving::{Listener, Queue, Web};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Mutex;

#[global_allocator]
static MEMORY: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

/// One test at a time: memory is everybody's.
static ALONE: Mutex<()> = Mutex::const_new(());

const MIB: usize = 1 << 20;

fn held_since(before: usize) -> usize {
    MEMORY.allocated().saturating_sub(before)
}

#[actix::test]
async fn results_that_nobody_reads_are_not_all_held() {
    let _alone = ALONE.lock().await;
    let echo = Listener::new("echo", async |text: String| Ok::<_, String>(text));
    let wait = Turnstile::new();
    let queue = Queue::builder()
        .listener(echo.concurrency_limit(None))
        .listener(Listener::new("wait", wait.handler()))
        .start()
        .unwrap();
    let server = Server::start(&queue);
    // An event that goes on keeps the stream open, which nobody reads.
    server.join("s", 1, json!([0])).await;
    let _stream = server.session("s").await;
    let before = MEMORY.allocated();
    for _ in 0..30 {
        server.join("s", 0, json!(["x".repeat(4 * MIB)])).await;
    }
    while queue.snapshot().await.listener("echo").unwrap().completed < 30 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    // 32 MiB unread, one that is being sent in pieces, and what has been sent before.
    let held = held_since(before);
    assert!(held < 60 * MIB, "{} MiB", held / MIB);
    wait.open();
}

#[actix::test]
async fn a_cache_does_not_hold_its_inputs() {
    let _alone = ALONE.lock().await;
    let length = async |text: String| Ok::<_, String>(text.len());
    let queue =
        Queue::builder().listener(Listener::new("length", length).cache(100)).start().unwrap();
    let server = Server::start(&queue);
    let call = async |n: usize| {
        let body = json!({"data": [format!("{n}{}", "x".repeat(MIB))]});
        assert_eq!(server.post("/gradio_api/run/length", body).await.0, 200);
    };
    call(0).await;
    let before = MEMORY.allocated();
    for n in 1..20 {
        call(n).await;
    }
    // The call after the last has been answered when the last has gone.
    server.get("/config").await;
    let held = held_since(before);
    assert!(held < 4 * MIB, "{held} bytes for 19 inputs of 1 MiB");
}

#[actix::test]
async fn joins_that_break_off_leave_nothing() {
    let _alone = ALONE.lock().await;
    let wait = Turnstile::new();
    let queue = Queue::builder().listener(Listener::new("wait", wait.handler())).start().unwrap();
    let service = init_service(App::new().configure(Web::new(&queue).routes())).await;
    let join = || {
        let body = json!({"data": [1], "fn_index": 0, "session_hash": "s"});
        TestRequest::post().uri("/gradio_api/queue/join").set_json(body).to_request()
    };
    // The session is there.
    assert!(service.call(join()).await.unwrap().status().is_success());
    let settled = async |ended: u64| {
        while queue.snapshot().await.listener("wait").unwrap().cancelled < ended {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let (mut before, mut broken) = (0, 0);
    for round in 0..2 {
        for _ in 0..3_000 {
            // Polled once, most wait for their admission; then their client has gone.
            broken += u64::from(futures::poll!(Box::pin(service.call(join()))).is_pending());
        }
        settled(broken).await;
        if round == 0 {
            before = MEMORY.allocated();
        }
    }
    assert!(broken > 3_000, "{broken}");
    let held = held_since(before);
    assert!(held < MIB / 2, "{held} bytes for 3,000 joins");
    wait.open();
}

#[actix::test]
async fn bodies_that_do_not_end_are_bounded() {
    let _alone = ALONE.lock().await;
    let echo = Listener::new("echo", async |text: String| Ok::<_, String>(text));
    let queue = Queue::builder().listener(echo).start().unwrap();
    let web = Web::builder(&queue).max_body_size(MIB).start().unwrap();
    let server = Server::start(&web);
    let address = server.base.trim_start_matches("http://").to_string();
    let before = MEMORY.allocated();
    let mut connections = Vec::new();
    let mut refused = 0;
    for _ in 0..30 {
        let mut connection = TcpStream::connect(&address).await.unwrap();
        let head = format!(
            "POST /gradio_api/queue/join HTTP/1.1\r\nHost: x\r\nContent-Length: {MIB}\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).await.unwrap();
        // One byte is missing. A server that has refused it may have closed already.
        if connection.write_all(&vec![b' '; MIB - 1]).await.is_err() {
            refused += 1;
        }
        connections.push(connection);
    }
    // Others that send little are still served, if not more of the same client's share.
    loop {
        let (status, _) = server.post("/gradio_api/run/echo", json!({"data": ["hi"]})).await;
        if status.is_success() || status == 429 {
            break;
        }
    }
    // The refused ones are dropped as the server gets to them; the others only after ten seconds.
    let bounded = async {
        while held_since(before) >= 12 * MIB {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let bounded = tokio::time::timeout(Duration::from_secs(8), bounded).await;
    assert!(bounded.is_ok(), "{} MiB, {refused} were cut off", held_since(before) / MIB);
    drop(connections);
    while server.post("/gradio_api/run/echo", json!({"data": ["hi"]})).await.0 != 200 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

//! Requests that come to another node than the one where their session is at home.

use std::time::Duration;

use serde_json::json;

use super::nodes::{Node, Nodes, serde_urlencoded};
use crate::cluster::homes::HomeKey;
use crate::journal::tests::nats_server::Servers;
use crate::queue::Queue;
use crate::queue::builder::QueueBuilder;
use crate::queue::listener::Listener;
use crate::testing::Turnstile;
use crate::web::auth::Users;
use crate::web::options::WebBuilder;

/// Hashes that a client may choose, all of one session each.
const ODD: [&str; 6] = ["plain", "a.b.*.>", "ä \u{1f98a}\n", "../%2F?#&=", "$KV.x", "\u{0}"];

const NUMBERED: &str = "text/event-stream";

fn queue(turnstile: &Turnstile) -> QueueBuilder {
    let steps = {
        let turnstile = turnstile.clone();
        move |n: u32| {
            let turnstile = turnstile.clone();
            futures::stream::unfold(0, move |at| {
                let turnstile = turnstile.clone();
                async move {
                    turnstile.pass().await;
                    (at < n).then(|| (Ok::<_, String>(format!("value {at}")), at + 1))
                }
            })
        }
    };
    Queue::builder()
        .listener(Listener::new("wait", turnstile.handler()).concurrency_limit(10))
        .listener(Listener::new("big", async |n: usize| Ok::<_, String>("x".repeat(n))))
        .listener(Listener::stream("steps", steps))
}

/// Two nodes, whose handlers pass the same turnstile.
async fn two(servers: &Servers, turnstile: &Turnstile) -> Nodes {
    Nodes::start(&servers.url(), 2, |_| queue(turnstile), |web| web).await
}

#[actix::test]
async fn a_session_is_one_on_whichever_nodes_its_requests_come() {
    let Some(servers) = Servers::start(1) else { return };
    let turnstile = Turnstile::new();
    turnstile.open();
    let nodes = two(&servers, &turnstile).await;
    let [a, b] = &nodes.all[..] else { panic!("there are two") };
    for hash in ODD {
        for accept in ["*/*", NUMBERED] {
            let event = a.join(0, hash, json!([7])).await;
            let mut stream = b.stream(hash, accept).await;
            let end = stream.next_of("process_completed").await;
            assert_eq!(end.data["event_id"], event.as_str());
            assert_eq!(end.data["output"]["data"], json!([7]));
            assert_eq!(end.number.is_some(), accept == NUMBERED, "{end:?}");
            stream.next_of("close_stream").await;
            drop(stream);
        }
        assert_eq!(b.web.0.sessions.snapshot().sessions, 0, "{hash:?} is at home at the other");
    }
    assert_eq!(a.web.0.sessions.snapshot().sessions, ODD.len());
}

#[actix::test]
async fn what_is_asked_at_another_node_is_done() {
    let Some(servers) = Servers::start(1) else { return };
    let turnstile = Turnstile::new();
    let nodes = two(&servers, &turnstile).await;
    let [a, b] = &nodes.all[..] else { panic!("there are two") };
    let first = a.join(0, "s", json!([1])).await;
    let mut stream = a.stream("s", NUMBERED).await;
    turnstile.arrived(1).await;
    // Joined at the other one it is in the same session, and on the same stream.
    let second = b.join(0, "s", json!([2])).await;
    turnstile.arrived(2).await;
    let cancelled = json!({ "session_hash": "s", "event_id": first });
    assert_eq!(b.post("cancel", &cancelled).await, (200, json!({ "success": true })));
    let end = stream.next_of("process_completed").await;
    assert_eq!((&end.data["event_id"], &end.data["success"]), (&json!(first), &json!(false)));
    turnstile.let_through(1);
    let end = stream.next_of("process_completed").await;
    assert_eq!((&end.data["event_id"], &end.data["success"]), (&json!(second), &json!(true)));
    // A request that waits for its result.
    turnstile.open();
    let run = json!({ "session_hash": "s", "data": [5] });
    let (status, answer) = b.post("run/wait", &run).await;
    assert_eq!((status, &answer["data"]), (200, &json!([5])));
    // Refused there as here.
    let wrong = json!({ "session_hash": "s", "data": ["no number"] });
    assert_eq!(b.post("run/wait", &wrong).await, a.post("run/wait", &wrong).await);
    let unknown = json!({ "session_hash": "s", "fn_index": 99, "data": [] });
    assert_eq!(b.post("queue/join", &unknown).await.0, 404);
    let session = a.web.0.sessions.snapshot().sessions;
    assert_eq!((session, b.web.0.sessions.snapshot().sessions), (1, 0));
}

#[actix::test]
async fn a_heartbeat_at_another_node_keeps_the_session() {
    let Some(servers) = Servers::start(1) else { return };
    let turnstile = Turnstile::new();
    let nodes = two(&servers, &turnstile).await;
    let [a, b] = &nodes.all[..] else { panic!("there are two") };
    for hash in ODD {
        let own = a.get(&format!("heartbeat/{}", serde_urlencoded(hash)), "*/*").await;
        let mut other = b.get(&format!("heartbeat/{}", serde_urlencoded(hash)), "*/*").await;
        assert_eq!((own.status(), other.status()), (200.into_status(), 200.into_status()));
        let first = futures::StreamExt::next(&mut other).await;
        assert_eq!(first.expect("it comes").expect("it is whole"), &b"data: ALIVE\n\n"[..]);
        assert_eq!(a.relay().tunnel.count(), 1);
        drop(own);
        drop(other);
        // The home notices that its client has left.
        while a.relay().tunnel.count() > 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(b.web.0.sessions.snapshot().sessions, 0);
}

trait IntoStatus {
    fn into_status(self) -> awc::http::StatusCode;
}

impl IntoStatus for u16 {
    fn into_status(self) -> awc::http::StatusCode {
        awc::http::StatusCode::from_u16(self).expect("it is one")
    }
}

#[actix::test]
async fn a_call_is_followed_at_another_node() {
    let Some(servers) = Servers::start(1) else { return };
    let turnstile = Turnstile::new();
    turnstile.open();
    let nodes = two(&servers, &turnstile).await;
    let [a, b] = &nodes.all[..] else { panic!("there are two") };
    for (path, body) in [("call", json!({ "data": [3] })), ("call/v2", json!({ "param_0": 3 }))] {
        let (status, answer) = a.post(&format!("{path}/wait"), &body).await;
        assert_eq!(status, 200, "{answer}");
        let id = answer["event_id"].as_str().expect("it has one").to_string();
        // Its end can be fetched again.
        for node in [b, a, b] {
            let mut followed = node.get(&format!("{path}/wait/{id}"), "*/*").await;
            let text = followed.body().await.expect("it ends");
            assert_eq!(text, &b"event: complete\ndata: [3]\n\n"[..]);
        }
        let unknown = format!("{path}/wait/{}", "0".repeat(32));
        let text = b.get(&unknown, "*/*").await.body().await.expect("it ends");
        assert_eq!(text, &b"event: error\ndata: \"404: Not Found\"\n\n"[..]);
    }
    // With a session it is of the session's home.
    a.join(0, "s", json!([1])).await;
    let body = json!({ "session_hash": "s", "data": [4] });
    let (_, answer) = b.post("call/wait", &body).await;
    let id = answer["event_id"].as_str().expect("it has one");
    let text = b.get(&format!("call/wait/{id}"), "*/*").await.body().await.expect("it ends");
    assert_eq!(text, &b"event: complete\ndata: [4]\n\n"[..]);
    let cancel = json!({ "session_hash": "s", "event_id": id });
    assert_eq!(b.post("cancel", &cancel).await.0, 200);
    assert_eq!(b.web.0.sessions.snapshot().sessions, 0);
}

#[actix::test]
async fn what_is_large_is_whole_though_its_reader_is_slow() {
    let Some(servers) = Servers::start(1) else { return };
    let turnstile = Turnstile::new();
    let nodes = two(&servers, &turnstile).await;
    let [a, b] = &nodes.all[..] else { panic!("there are two") };
    const LONG: usize = 3_000_000;
    for accept in ["*/*", NUMBERED] {
        let mut slow = {
            a.join(1, "s", json!([LONG])).await;
            b.stream("s", accept).await
        };
        // Not read for so long that all that can be on its way is.
        let others = async {
            let run = json!({ "session_hash": "s", "data": [LONG] });
            let (status, answer) = b.post("run/big", &run).await;
            assert_eq!((status, answer["data"][0].as_str().map(str::len)), (200, Some(LONG)));
        };
        others.await;
        let end = slow.next_of("process_completed").await;
        assert_eq!(end.data["output"]["data"][0].as_str().map(str::len), Some(LONG));
        slow.next_of("close_stream").await;
    }
    // A body that takes many messages.
    let body = json!({ "session_hash": "s", "data": [1], "more": "y".repeat(1_500_000) });
    assert_eq!(b.post("run/big", &body).await.1["data"], json!(["x"]));
}

#[actix::test]
async fn a_stream_goes_on_when_the_way_to_its_home_breaks() {
    let Some(servers) = Servers::start(1) else { return };
    let turnstile = Turnstile::new();
    let nodes = two(&servers, &turnstile).await;
    let [a, b] = &nodes.all[..] else { panic!("there are two") };
    for accept in ["*/*", NUMBERED] {
        a.join(2, "s", json!([6])).await;
        let mut stream = b.stream("s", accept).await;
        let mut values = Vec::new();
        let mut last = 0;
        for at in 0..6 {
            turnstile.let_through(1);
            let value = stream.next_of("process_generating").await;
            values.push(value.data["output"].clone());
            assert_eq!(value.number.is_some(), accept == NUMBERED);
            assert!(value.number.is_none_or(|number| number > last), "{value:?}");
            last = value.number.unwrap_or_default();
            if at % 2 == 0 {
                b.relay().tunnel.break_all();
            } else {
                a.relay().tunnel.break_all();
            }
        }
        turnstile.let_through(1);
        let end = stream.next_of("process_completed").await;
        assert_eq!(end.data["output"]["data"], json!(["value 5"]));
        stream.next_of("close_stream").await;
        assert_eq!(values.len(), 6);
    }
}

#[actix::test]
async fn a_node_takes_over_what_a_dead_one_had() {
    let Some(servers) = Servers::start(1) else { return };
    let turnstile = Turnstile::new();
    let mut nodes = two(&servers, &turnstile).await;
    let [a, b] = &nodes.all[..] else { panic!("there are two") };
    a.join(0, "s", json!([1])).await;
    let mut stream = b.stream("s", NUMBERED).await;
    stream.next_of("process_starts").await;
    nodes.kill(0).await;
    // Its events are gone with it, as they were in its memory only. Its client hears so on the same stream.
    let message = stream.next_of("unexpected_error").await;
    assert_eq!(message.data["session_not_found"], json!(true), "{message:?}");
    assert_eq!(stream.next().await, None);
    let b = &nodes.all[0];
    turnstile.open();
    b.join(0, "s", json!([2])).await;
    let mut stream = b.stream("s", NUMBERED).await;
    assert_eq!(stream.next_of("process_completed").await.data["output"]["data"], json!([2]));
    assert_eq!(b.web.0.sessions.snapshot().sessions, 1);
}

#[actix::test]
async fn where_nats_is_away_it_says_so() {
    let Some(mut servers) = Servers::start(1) else { return };
    let turnstile = Turnstile::new();
    let nodes = two(&servers, &turnstile).await;
    let [a, b] = &nodes.all[..] else { panic!("there are two") };
    a.join(0, "s", json!([1])).await;
    let body = json!({ "fn_index": 0, "session_hash": "s", "data": [1] });
    servers.kill(0);
    let answered = tokio::time::timeout(Duration::from_secs(30), b.post("queue/join", &body));
    let (status, answer) = answered.await.expect("it is answered");
    assert_eq!(status, 503);
    assert!(answer["detail"].as_str().is_some_and(|why| why.contains("NATS")), "{answer}");
}

#[actix::test]
async fn a_login_holds_and_ends_on_all_nodes() {
    let Some(servers) = Servers::start(1) else { return };
    let turnstile = Turnstile::new();
    turnstile.open();
    let users = |web: WebBuilder| web.auth(Users::new().user("ada", "open").user("bob", "shut"));
    let nodes = Nodes::start(&servers.url(), 2, |_| queue(&turnstile), users).await;
    let [a, b] = &nodes.all[..] else { panic!("there are two") };
    let client = awc::Client::builder().timeout(Duration::from_secs(60)).finish();
    let root = |node: &Node| node.url.trim_end_matches("/gradio_api").to_string();
    let log_in = async |node: &Node, name: &str, password: &str| {
        let form = [("username", name), ("password", password)];
        let request = client.post(format!("{}/login", root(node)));
        let answer = request.send_form(&form).await.expect("it answers");
        let cookie = answer.headers().get("set-cookie")?.to_str().expect("it is text");
        cookie.split(';').next().map(str::to_string)
    };
    let check = async |node: &Node, cookie: &String| {
        let request = client
            .get(format!("{}/login_check", node.url))
            .insert_header(("cookie", cookie.as_str()));
        request.send().await.expect("it answers").status().as_u16()
    };
    assert_eq!(log_in(a, "ada", "wrong").await, None);
    let ada = log_in(a, "ada", "open").await.expect("she may");
    let second = log_in(b, "ada", "open").await.expect("she may");
    let bob = log_in(b, "bob", "shut").await.expect("he may");
    for node in [a, b] {
        for cookie in [&ada, &second, &bob] {
            assert_eq!(check(node, cookie).await, 200);
        }
        let forged = format!("{ada}x");
        assert_eq!(check(node, &forged).await, 401);
    }
    // What is relayed is the user's, and ends with the login.
    let join = async |node: &Node, cookie: &String| {
        let body = json!({ "fn_index": 0, "session_hash": "s", "data": [1] });
        let request = client
            .post(format!("{}/queue/join", node.url))
            .insert_header(("cookie", cookie.as_str()));
        request.send_json(&body).await.expect("it answers").status().as_u16()
    };
    assert_eq!((join(a, &ada).await, join(b, &bob).await), (200, 200));
    assert_eq!(join(b, &ada).await, 200);
    let sessions = |node: &Node| node.web.0.sessions.snapshot().sessions;
    assert_eq!((sessions(a), sessions(b)), (1, 1), "equal hashes of two users are two");
    let beat = client.get(format!("{}/heartbeat/s", b.url)).insert_header(("cookie", ada.as_str()));
    let mut beat = beat.send().await.expect("it answers");
    assert!(futures::StreamExt::next(&mut beat).await.is_some());
    let log_out = async |node: &Node, cookie: &String, query: &str| {
        let request = client
            .post(format!("{}/logout{query}", root(node)))
            .insert_header(("cookie", cookie.as_str()));
        request.send().await.expect("it answers").status().as_u16()
    };
    assert_eq!(log_out(a, &second, "?all_session=false").await, 200);
    for (cookie, holds) in [(&second, 401), (&ada, 200), (&bob, 200)] {
        until(async || check(a, cookie).await == holds && check(b, cookie).await == holds).await;
    }
    assert_eq!(log_out(a, &ada, "").await, 200);
    until(async || check(a, &ada).await == 401 && check(b, &ada).await == 401).await;
    while futures::StreamExt::next(&mut beat).await.is_some() {}
    assert_eq!((check(a, &bob).await, check(b, &bob).await), (200, 200));
    // The service ends them too, wherever it says so.
    b.web.end_logins("bob");
    until(async || check(a, &bob).await == 401 && check(b, &bob).await == 401).await;
    let again = log_in(a, "bob", "shut").await.expect("he may");
    assert_eq!((check(a, &again).await, check(b, &again).await), (200, 200));
}

/// Two nodes that don't wait for clients: one follows an event on the first, and goes. Its session `moves`: the second
/// node is its home by then.
async fn two_with_a_left_event(servers: &Servers, turnstile: &Turnstile, moves: bool) -> Nodes {
    let short = |web: WebBuilder| web.reconnect_grace(Duration::from_millis(50));
    let nodes = Nodes::start(&servers.url(), 2, |_| queue(turnstile), short).await;
    let [a, b] = &nodes.all[..] else { panic!("there are two") };
    a.join(0, "s", json!([1])).await;
    let mut stream = a.stream("s", NUMBERED).await;
    stream.next_of("process_starts").await;
    turnstile.arrived(1).await;
    if moves {
        b.relay().homes.take(HomeKey::of_session(None, "s")).await.expect("it is there");
    }
    nodes
}

/// A node that was cut off, and has lost a session to another one meanwhile, has no say over its events.
#[actix::test]
async fn an_event_whose_client_is_at_another_node_goes_on() {
    let Some(servers) = Servers::start(1) else { return };
    let turnstile = Turnstile::new();
    let nodes = two_with_a_left_event(&servers, &turnstile, true).await;
    let web = &nodes.all[0].web.0;
    until(async || web.sessions.snapshot().sessions == 0).await;
    turnstile.open();
    turnstile.passed(1).await;
}

#[actix::test]
async fn an_event_whose_client_has_left_is_cancelled() {
    let Some(servers) = Servers::start(1) else { return };
    let turnstile = Turnstile::new();
    let nodes = two_with_a_left_event(&servers, &turnstile, false).await;
    turnstile.empty().await;
    assert_eq!(nodes.all[0].web.0.sessions.snapshot().sessions, 1);
}

/// Waits until something is so.
async fn until(is_so: impl AsyncFn() -> bool) {
    while !is_so().await {
        tokio::task::yield_now().await;
    }
}

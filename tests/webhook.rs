//! Webhooks: the ends of durable events, posted to who asked for that, though processes die and receivers
//! fail.
#![cfg(all(feature = "webhook", feature = "web"))]

mod common;
mod disk;
#[cfg(feature = "cluster")]
#[path = "common/nats_server.rs"]
#[allow(dead_code, reason = "others need more of it")]
mod nats_server;

use std::sync::Mutex;
use std::time::Duration;

use actix_web::web::{Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use common::Server;
use disk::Disk;
use now_serving::testing::Turnstile;
use now_serving::{EventId, Listener, Queue, StartError, SubmitError, UserError, Webhooks};
use serde_json::{Value, json};
use tokio::sync::Notify;

const SECRET: [u8; 32] = [7; 32];

/// The headers and the body of a call.
type Message = (Vec<(String, String)>, Value);

/// Who is called. It answers what it is told to, then 200.
#[derive(Default)]
struct Receiver {
    got: Mutex<Vec<Message>>,
    answers: Mutex<Vec<u16>>,
    news: Notify,
}

impl Receiver {
    fn start(answers: &[u16]) -> (Data<Receiver>, String) {
        let answers = Mutex::new(answers.iter().rev().copied().collect());
        let receiver = Data::new(Receiver { answers, ..Receiver::default() });
        let data = receiver.clone();
        let server = HttpServer::new(move || {
            App::new().app_data(data.clone()).default_service(web::to(Receiver::take))
        });
        let server = server.workers(1).bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", server.addrs()[0]);
        actix::spawn(server.run());
        (receiver, url)
    }

    async fn take(this: Data<Receiver>, request: HttpRequest, body: Bytes) -> HttpResponse {
        let headers = request.headers().iter();
        let headers =
            headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()));
        let body = serde_json::from_slice(&body).unwrap();
        this.got.lock().unwrap().push((headers.collect(), body));
        this.news.notify_one();
        let answer = this.answers.lock().unwrap().pop().unwrap_or(200);
        HttpResponse::build(answer.try_into().unwrap()).finish()
    }

    /// What it has got, once it is that much.
    async fn got(&self, messages: usize) -> Vec<Message> {
        loop {
            let got = self.got.lock().unwrap().clone();
            if got.len() >= messages {
                return got;
            }
            self.news.notified().await;
        }
    }
}

fn of(headers: &[(String, String)], name: &str) -> String {
    headers.iter().find(|(header, _)| header == name).expect("it is there").1.clone()
}

async fn work(n: u32) -> Result<u32, UserError> {
    match n {
        0 => Err(UserError::new("it can't be done").title("Sorry")),
        1 => panic!("a secret of the service"),
        n => Ok(n),
    }
}

#[actix::test]
async fn every_end_is_posted_signed_and_once_where_it_is_taken() {
    let (receiver, url) = Receiver::start(&[]);
    let disk = Disk::new();
    let webhooks = Webhooks::new(SECRET).allow(format!("{url}/in"));
    let builder = disk.open().webhooks(webhooks).listener(Listener::new("work", work).durable());
    let queue = builder.start().unwrap();
    let handle = queue.listener::<u32, u32>("work").unwrap();
    let mut events = Vec::new();
    for n in [0, 1, 2] {
        let event = handle.event(n).webhook(format!("{url}/in/{n}")).submit().await.unwrap();
        events.push(event.id());
        event.detach();
        // One after the other, so that they come in their order.
        receiver.got(events.len()).await;
    }
    handle.call(3).await.unwrap();
    let got = receiver.got(3).await;
    let ends: Vec<_> = got.iter().map(|(_, body)| body.clone()).collect();
    for (event, (headers, body)) in events.iter().zip(&got) {
        assert_eq!(body["data"]["event_id"], event.to_string());
        assert_eq!(body["data"]["api_name"], "work");
        assert_eq!(of(headers, "webhook-id"), event.to_string());
        assert_eq!(of(headers, "content-type"), "application/json");
        assert!(of(headers, "webhook-signature").starts_with("v1,"));
        assert!(of(headers, "webhook-timestamp").parse::<u64>().is_ok());
    }
    let kinds: Vec<_> = ends.iter().map(|body| body["type"].clone()).collect();
    assert_eq!(kinds, ["event.failed", "event.failed", "event.completed"]);
    assert_eq!(
        ends[0]["data"]["error"],
        json!({ "title": "Sorry", "message": "it can't be done" })
    );
    let hidden = ends[1]["data"]["error"]["message"].as_str().unwrap();
    assert!(!hidden.contains("secret"), "{hidden}");
    assert_eq!((&ends[2]["data"]["output"], &ends[2]["data"]["error"]), (&json!(2), &Value::Null));
    // What is taken isn't sent again, nor in the next process; what nobody asked for isn't sent at all.
    while to_call(&disk) > 0 {
        actix::clock::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(receiver.got(3).await.len(), 3);
}

/// How many ends are still to be posted.
fn to_call(disk: &Disk) -> u32 {
    let connection = rusqlite::Connection::open(disk.path()).expect("it is there");
    let query = "SELECT count(*) FROM ends WHERE next_call IS NOT NULL";
    connection.query_row(query, [], |row| row.get(0)).expect("it can be read")
}

#[actix::test]
async fn what_a_receiver_does_not_take_comes_again_after_the_process_has_died_too() {
    let (receiver, url) = Receiver::start(&[500]);
    let (disk, turnstile) = (Disk::new(), Turnstile::new());
    let start = |disk: &Disk, turnstile: &Turnstile| {
        let webhooks = Webhooks::new(SECRET).allow(url.clone());
        let listener = Listener::new("wait", turnstile.handler()).durable();
        disk.open().webhooks(webhooks).listener(listener).start().unwrap()
    };
    let first = start(&disk, &turnstile);
    let handle = first.listener::<u32, u32>("wait").unwrap();
    let mut events: Vec<EventId> = Vec::new();
    for n in [1, 2] {
        let event = handle.event(n).webhook(url.clone()).submit().await.unwrap();
        events.push(event.id());
        event.detach();
    }
    turnstile.let_through(1);
    receiver.got(1).await;
    // It dies with one end that was refused, and one event that waits.
    let (disk, turnstile) = (disk.as_it_is(), Turnstile::new());
    // The dead call nobody.
    drop((handle, first));
    turnstile.open();
    let second = start(&disk, &turnstile);
    // That of the first comes again at its time, that of the other when it has ended.
    let got = receiver.got(3).await;
    let mut ids: Vec<_> = got[1..].iter().map(|(headers, _)| of(headers, "webhook-id")).collect();
    ids.sort();
    let mut expected: Vec<_> = events.iter().map(EventId::to_string).collect();
    expected.sort();
    assert_eq!(ids, expected);
    while to_call(&disk) > 0 {
        actix::clock::sleep(Duration::from_millis(1)).await;
    }
    drop(second);
}

#[actix::test]
async fn over_http_a_header_names_it_and_what_is_not_allowed_is_refused() {
    let (receiver, url) = Receiver::start(&[]);
    let disk = Disk::new();
    let echo = async |n: u32| Ok::<_, String>(n);
    let builder = disk.open().webhooks(Webhooks::new(SECRET).allow(format!("{url}/in")));
    let builder = builder.listener(Listener::new("work", work).durable());
    let queue = builder.listener(Listener::new("plain", echo)).start().unwrap();
    let server = Server::start(&queue);
    let submit = async |route: &str, webhook: &str| {
        let request = awc::Client::default().post(server.url(&format!("/gradio_api/{route}")));
        let request = request.insert_header(("webhook-url", webhook));
        let body = json!({ "data": [2], "fn_index": 0, "session_hash": "s" });
        let mut response = request.send_json(&body).await.unwrap();
        let answer: Value = response.json().await.unwrap();
        (response.status().as_u16(), answer)
    };
    let allowed = format!("{url}/in");
    let (status, answer) = submit("call/work", &allowed).await;
    assert_eq!(status, 200, "{answer}");
    let got = receiver.got(1).await;
    assert_eq!(got[0].1["data"]["event_id"], answer["event_id"]);
    assert_eq!(got[0].1["data"]["output"], 2);
    for (route, webhook, why) in [
        ("call/work", format!("{url}/elsewhere"), "the service doesn't allow it"),
        ("call/work", "nonsense".into(), "it is no URL"),
        ("call/plain", allowed.clone(), "isn't durable"),
        ("queue/join", allowed.clone(), "only"),
        ("run/work", allowed.clone(), "only"),
    ] {
        let (status, answer) = submit(route, &webhook).await;
        let detail = answer["detail"].as_str().unwrap_or_default();
        assert!(status == 400 && detail.contains(why), "{route} {webhook}: {status} {answer}");
    }
    assert_eq!(queue.snapshot().await.concurrency_ids[0].listeners[0].admitted, 1);
}

#[actix::test]
async fn contradictions_are_said_at_the_start_or_the_submit() {
    let listener = || Listener::new("work", work).durable();
    let refused = |webhooks: Webhooks| {
        let disk = Disk::new();
        match disk.open().webhooks(webhooks).listener(listener()).start() {
            Err(StartError::Webhook(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let why = refused(Webhooks::new(SECRET).allow("a.org/hooks"));
    assert!(why.contains("\"a.org/hooks\" can't be allowed: it is no URL"), "{why}");
    assert!(refused(Webhooks::new("short")).contains("at least 24 random ones"));
    let echo = async |n: u32| Ok::<_, String>(n);
    let plain = || Listener::new("plain", echo);
    let without = Queue::builder().webhooks(Webhooks::new(SECRET)).listener(plain()).start();
    assert!(matches!(without, Err(StartError::Webhook(why)) if why.contains("no journal")));

    let disk = Disk::new();
    let queue = disk.open().listener(listener()).listener(plain()).start().unwrap();
    let handle = queue.listener::<u32, u32>("work").unwrap();
    let refused = handle.event(2).webhook("https://a.org").submit().await;
    assert!(matches!(refused, Err(SubmitError::Webhook(why)) if why.contains("no webhooks")));
}

/// Whichever node keeps the line calls, and only that.
#[cfg(feature = "cluster")]
#[actix::test]
async fn in_a_cluster_an_end_is_posted_once() {
    let Some(servers) = nats_server::Servers::start(1) else { return };
    let (receiver, url) = Receiver::start(&[]);
    let start = async |node: &str| {
        let nats = now_serving::Nats::connect(servers.url()).name("webhooks");
        let shout = async |text: String| Ok::<_, String>(text.to_uppercase());
        Queue::builder()
            .cluster(nats.join(node).await.unwrap())
            .listener(Listener::new("shout", shout).durable())
            .webhooks(Webhooks::new(SECRET).allow(&url))
            .start()
            .unwrap()
    };
    let nodes = [start("a").await, start("b").await];
    let mut ids = Vec::new();
    for (n, node) in nodes.iter().enumerate() {
        let shout = node.listener::<String, String>("shout").unwrap();
        let event = shout.event(format!("fox {n}")).webhook(format!("{url}/{n}"));
        let submission = event.submit().await.unwrap();
        ids.push(submission.id().to_string());
        submission.result::<String>().await.unwrap();
    }
    let got = receiver.got(2).await;
    let mut posted: Vec<String> =
        got.iter().map(|(_, body)| body["data"]["event_id"].as_str().unwrap().into()).collect();
    posted.sort();
    ids.sort();
    assert_eq!(posted, ids, "{got:?}");
}

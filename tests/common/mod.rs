//! A real server on a free port of the loopback, and a client that reads its streams.
#![allow(dead_code)] // Each test file uses its part.

use actix_web::App;
use awc::Client;
use awc::http::StatusCode;
use bytes::BytesMut;
use futures::StreamExt;
use now_serving::{Queue, Web};
use serde_json::{Value, json};

/// What can be served: a queue as it is, or a configured `Web`.
pub trait Served {
    fn web(&self) -> Web;
}

impl Served for Queue {
    fn web(&self) -> Web {
        Web::new(self)
    }
}

impl Served for Web {
    fn web(&self) -> Web {
        self.clone()
    }
}

/// A queue's routes, served until dropped.
pub struct Server {
    pub base: String,
    handle: actix_web::dev::ServerHandle,
}

impl Server {
    pub fn start(served: &impl Served) -> Server {
        let web = served.web();
        Server::with(move |config| config.configure(web.routes()))
    }

    pub fn with<F>(routes: F) -> Server
    where
        F: Fn(&mut actix_web::web::ServiceConfig) -> &mut actix_web::web::ServiceConfig
            + Clone
            + Send
            + 'static,
    {
        let server = now_serving::http_server(move || {
            let routes = routes.clone();
            App::new().configure(move |config| {
                routes(config);
            })
        })
        .workers(1)
        .shutdown_timeout(0)
        .bind(("127.0.0.1", 0))
        .unwrap();
        let base = format!("http://{}", server.addrs()[0]);
        let running = server.run();
        let handle = running.handle();
        actix_web::rt::spawn(running);
        Server { base, handle }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    pub async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        let (status, _, text) = self.post_text(path, body.to_string()).await;
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn post_text(
        &self,
        path: &str,
        body: impl Into<String>,
    ) -> (StatusCode, Option<String>, String) {
        let mut response =
            Client::default().post(self.url(path)).send_body(body.into()).await.unwrap();
        let retry_after = response.headers().get("retry-after");
        let retry_after = retry_after.map(|value| value.to_str().unwrap().to_string());
        let text = response.body().limit(64 << 20).await.unwrap();
        (response.status(), retry_after, String::from_utf8(text.to_vec()).unwrap())
    }

    pub async fn get(&self, path: &str) -> Value {
        let mut response = Client::default().get(self.url(path)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        response.json().await.unwrap()
    }

    /// Joins the queue and gives the event's id.
    pub async fn join(&self, session: &str, fn_index: usize, data: Value) -> String {
        let body = json!({"data": data, "fn_index": fn_index, "session_hash": session,
            "event_data": null, "trigger_id": null});
        let (status, answer) = self.post("/gradio_api/queue/join", body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        answer["event_id"].as_str().unwrap().to_string()
    }

    pub async fn cancel(&self, session: &str, event_id: &str) {
        let body = json!({"session_hash": session, "fn_index": 0, "event_id": event_id});
        let answer = self.post("/gradio_api/cancel", body).await;
        assert_eq!(answer, (StatusCode::OK, json!({"success": true})));
    }

    pub async fn session(&self, hash: &str) -> Sse {
        self.stream(&format!("/gradio_api/queue/data?session_hash={hash}")).await
    }

    pub async fn stream(&self, path: &str) -> Sse {
        self.stream_with(path, &[]).await
    }

    /// As a browser's `EventSource` does it; after which message, if it comes back.
    pub async fn event_source(&self, hash: &str, last_event_id: Option<u64>) -> Sse {
        let mut headers = vec![("accept", "text/event-stream".to_string())];
        headers.extend(last_event_id.map(|id| ("last-event-id", id.to_string())));
        self.stream_with(&format!("/gradio_api/queue/data?session_hash={hash}"), &headers).await
    }

    pub async fn stream_with(&self, path: &str, headers: &[(&'static str, String)]) -> Sse {
        let request = Client::default().get(self.url(path)).timeout(std::time::Duration::MAX);
        let request = headers
            .iter()
            .fold(request, |request, (name, value)| request.insert_header((*name, value.as_str())));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let content_type = response.headers().get("content-type").unwrap();
        assert_eq!(content_type, "text/event-stream; charset=utf-8");
        Sse { body: Box::pin(response), text: BytesMut::new(), searched: 0 }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Stops without waiting for open streams; nobody waits for it to have stopped.
        actix_web::rt::spawn(self.handle.stop(false));
    }
}

/// A stream of server-sent events.
pub struct Sse {
    body: std::pin::Pin<Box<dyn futures::Stream<Item = Chunk>>>,
    text: BytesMut,
    /// So far, no event ends in the text.
    searched: usize,
}

type Chunk = Result<bytes::Bytes, awc::error::PayloadError>;

/// A named event and its data.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub id: Option<u64>,
    pub name: Option<String>,
    pub data: Value,
}

impl Sse {
    /// The next event, or `None` at the end of the stream.
    pub async fn next(&mut self) -> Option<Event> {
        self.next_bytes().await.map(|event| parse(std::str::from_utf8(&event).unwrap()))
    }

    async fn next_bytes(&mut self) -> Option<BytesMut> {
        loop {
            let rest = &self.text[self.searched..];
            if let Some(end) = rest.windows(2).position(|two| two == b"\n\n") {
                let end = self.searched + end + 2;
                self.searched = 0;
                return Some(self.text.split_to(end));
            }
            self.searched = self.text.len().saturating_sub(1);
            let chunk = self.body.next().await?;
            self.text.extend_from_slice(&chunk.unwrap());
        }
    }

    /// The next event's text.
    pub async fn next_text(&mut self) -> String {
        let event = self.next_bytes().await.expect("the stream goes on");
        std::str::from_utf8(&event).unwrap().trim_end().into()
    }

    /// The next message of a session's stream.
    pub async fn message(&mut self) -> Value {
        self.next().await.expect("the stream goes on").data
    }

    /// Messages up to and with the first of a kind.
    pub async fn until(&mut self, msg: &str) -> Vec<Value> {
        let mut messages = Vec::new();
        loop {
            messages.push(self.message().await);
            if messages[messages.len() - 1]["msg"] == msg {
                return messages;
            }
        }
    }

    /// All that is left.
    pub async fn rest(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

fn parse(text: &str) -> Event {
    let (mut id, mut name, mut data) = (None, None, None);
    for line in text.trim_end().split('\n') {
        match line.split_once(": ") {
            Some(("id", value)) => id = Some(value.parse().unwrap()),
            Some(("event", value)) => name = Some(value.to_string()),
            Some(("data", value)) => data = Some(serde_json::from_str(value).unwrap()),
            _ => panic!("{line:?} is no field of an event"),
        }
    }
    Event { id, name, data: data.expect("an event has data") }
}

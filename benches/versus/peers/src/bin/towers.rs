//! What one would build with tower and axum: a `Buffer` over a `ConcurrencyLimit` for each listener, a
//! map of sessions, and a stream that gives the result. No ranks, no estimates, no cancel, no progress.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Json, Query, State};
use axum::response::sse::{Event, Sse};
use axum::routing::{get, post};
use futures::{FutureExt, Stream, StreamExt, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower::buffer::Buffer;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

type Listener = Buffer<Value, futures::future::BoxFuture<'static, Result<Value, tower::BoxError>>>;

#[derive(Clone)]
struct Shared {
    listeners: [Listener; 2],
    results: Arc<Mutex<HashMap<String, Vec<(String, oneshot::Receiver<Value>)>>>>,
}

#[derive(Deserialize)]
struct Join {
    data: Value,
    fn_index: usize,
    session_hash: String,
}

#[derive(Deserialize)]
struct Session {
    session_hash: String,
}

async fn join(State(shared): State<Shared>, Json(join): Json<Join>) -> Json<Value> {
    let id = format!("{:032x}", rand::random::<u128>());
    let (reply, result) = oneshot::channel();
    let mut listener = shared.listeners[join.fn_index].clone();
    tokio::spawn(async move {
        let ready = listener.ready().await.unwrap();
        if let Ok(value) = ready.call(join.data).await {
            let _ = reply.send(value);
        }
    });
    let mut results = shared.results.lock().unwrap();
    results.entry(join.session_hash).or_default().push((id.clone(), result));
    Json(json!({ "event_id": id }))
}

async fn data(
    State(shared): State<Shared>,
    Query(session): Query<Session>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let waiting = shared.results.lock().unwrap().remove(&session.session_hash).unwrap_or_default();
    let ends = stream::iter(waiting).then(|(id, result)| async move {
        let data = result.await.unwrap_or_default();
        let message = json!({"msg":"process_completed","event_id":id,"output":{"data":data,"is_generating":false,"duration":0.001,"average_duration":0.001,"render_config":null,"changed_state_ids":[],"used_cache":null},"success":true,"title":null,"used_cache":null,"cache_duration":0.001,"avg_time":0.001});
        Ok(Event::default().data(message.to_string()))
    });
    let close = json!({"msg":"close_stream","event_id":null}).to_string();
    Sse::new(ends.chain(stream::iter([Ok(Event::default().data(close))])))
}

fn listener(limit: usize, pause: Duration) -> Listener {
    let echo = service_fn(move |data: Value| {
        async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            Ok::<_, tower::BoxError>(data)
        }
        .boxed()
    });
    let service = ServiceBuilder::new().concurrency_limit(limit).service(echo);
    let boxed = service.map_future(|future| future.boxed());
    Buffer::new(boxed, 100_000)
}

#[tokio::main]
async fn main() {
    let port: u16 = std::env::args().nth(1).unwrap().parse().unwrap();
    let shared = Shared {
        listeners: [listener(1 << 20, Duration::ZERO), listener(1, Duration::from_millis(1))],
        results: Arc::default(),
    };
    let app = axum::Router::new()
        .route("/gradio_api/queue/join", post(join))
        .route("/gradio_api/queue/data", get(data))
        .with_state(shared);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
    axum::serve(listener, app).await.unwrap();
}

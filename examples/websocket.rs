//! A service with a WebSocket of its own: each text that comes is an event, and what becomes of it goes
//! back on the same connection, as the messages of Gradio's protocol. Beside the queue's own routes, or
//! instead of them.
//!
//! ```text
//! cargo run --example websocket
//! websocat ws://127.0.0.1:8080/paint
//! ```

use std::time::Duration;

use actix_web::{App, Error, HttpRequest, HttpResponse, rt, web};
use actix_ws::{AggregatedMessage, MessageStream, Session};
use futures::StreamExt;
use now_serving::{EventContext, Listener, Queue, QueueBuilder, SubmitError, Web, http_server};
use serde_json::json;

async fn paint(subject: String, context: EventContext) -> Result<String, String> {
    for stroke in context.track(1..=3, "strokes") {
        tokio::time::sleep(Duration::from_millis(30 * stroke)).await;
    }
    Ok(format!("a picture of {subject}"))
}

pub fn queue() -> QueueBuilder {
    Queue::builder().max_size(100).listener(Listener::new("paint", paint))
}

/// `GET /paint`: opens the WebSocket.
pub async fn connect(
    request: HttpRequest,
    body: web::Payload,
    queue: web::Data<Queue>,
) -> Result<HttpResponse, Error> {
    let (response, session, messages) = actix_ws::handle(&request, body)?;
    rt::spawn(serve(queue, session, messages));
    Ok(response)
}

/// Serves one client until it leaves. Then its events are cancelled: a submission that is dropped
/// cancels.
async fn serve(queue: web::Data<Queue>, mut session: Session, messages: MessageStream) {
    let mut messages = messages.aggregate_continuations().max_continuation_size(64 * 1024);
    let mut updates = futures::stream::SelectAll::new();
    loop {
        let text = tokio::select! {
            Some(update) = updates.next() => json!(update),
            message = messages.next() => match message {
                Some(Ok(AggregatedMessage::Text(subject))) => {
                    // Refused while the queue is full: a client that floods must not wait here.
                    match queue.try_submit("paint", subject.to_string()).await {
                        Ok(submission) => {
                            updates.push(submission);
                            continue;
                        }
                        Err(SubmitError::Refused(refusal)) => json!({ "refused": refusal.to_string() }),
                        Err(error) => json!({ "error": error.to_string() }),
                    }
                }
                Some(Ok(AggregatedMessage::Ping(bytes))) => match session.pong(&bytes).await {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                Some(Ok(AggregatedMessage::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
        };
        if session.text(text.to_string()).await.is_err() {
            return;
        }
    }
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let queue = queue().start().map_err(std::io::Error::other)?;
    let (web, data) = (Web::new(&queue), web::Data::new(queue));
    let server = http_server(move || {
        App::new().app_data(data.clone()).route("/paint", web::get().to(connect))
    });
    web.serve(server.bind(("127.0.0.1", 8080))?.run(), Duration::from_secs(10)).await
}

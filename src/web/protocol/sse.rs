//! Server-sent events: text to bytes, with a heartbeat.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::{BodyStream, MessageBody};
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use bytes::{Bytes, BytesMut};
use futures::Stream;
use serde::Serialize;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

/// The silence after which a stream sends a heartbeat, as in Gradio. Clients that get nothing for
/// longer reconnect, and double the load.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The maximum of bytes gathered into one chunk.
const CHUNK: usize = 64 * 1024;

/// Something that has events to send.
pub(crate) trait Source: Unpin {
    /// Appends the next event's text; `false` ends the stream.
    fn poll_event(&mut self, cx: &mut Context<'_>, text: &mut BytesMut) -> Poll<bool>;

    /// Appends a heartbeat.
    fn heartbeat(&mut self, text: &mut BytesMut);
}

struct Events<S> {
    source: S,
    heartbeat: Interval,
    ended: bool,
}

impl<S: Source> Stream for Events<S> {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut text = BytesMut::new();
        // What is ready together goes out together.
        while text.len() < CHUNK {
            match self.source.poll_event(cx, &mut text) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => {
                    self.ended = true;
                    break;
                }
                Poll::Pending => break,
            }
        }
        if !text.is_empty() {
            self.heartbeat.reset();
        } else if self.ended {
            return Poll::Ready(None);
        } else {
            std::task::ready!(self.heartbeat.poll_tick(cx));
            self.source.heartbeat(&mut text);
        }
        Poll::Ready(Some(Ok(text.freeze())))
    }
}

/// The response that streams the events of `source`.
pub(crate) fn response(source: impl Source + 'static) -> HttpResponse {
    let mut heartbeat = interval_at(tokio::time::Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    stream(Events { source, heartbeat, ended: false })
}

/// The response that streams events which are written already.
pub(crate) fn stream<E>(events: impl Stream<Item = Result<Bytes, E>> + 'static) -> HttpResponse
where
    E: Into<Box<dyn std::error::Error>> + 'static,
{
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "text/event-stream; charset=utf-8"))
        .insert_header((CACHE_CONTROL, "no-cache"))
        // nginx would hold events back otherwise.
        .insert_header(("X-Accel-Buffering", "no"))
        .body(BodyStream::new(events).boxed())
}

/// Answers `HEAD`, where `GET` opens a stream: opens none.
pub(crate) async fn head() -> HttpResponse {
    stream(futures::stream::empty::<Result<Bytes, std::convert::Infallible>>())
}

/// Appends one event: an optional number and name, and its data as JSON, which has no line breaks.
pub(crate) fn write(
    text: &mut BytesMut,
    number: Option<u64>,
    name: Option<&str>,
    data: &impl Serialize,
) {
    if let Some(number) = number {
        text.extend_from_slice(format!("id: {number}\n").as_bytes());
    }
    if let Some(name) = name {
        text.extend_from_slice(b"event: ");
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b"\n");
    }
    text.extend_from_slice(b"data: ");
    match serde_json::to_vec(data) {
        Ok(json) => text.extend_from_slice(&json),
        Err(error) => crate::logging::error!("a message could not be written as JSON: {error}"),
    }
    text.extend_from_slice(b"\n\n");
}

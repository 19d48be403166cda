//! Server-sent events: text to bytes, with a heartbeat.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::HttpResponse;
use actix_web::body::{BodyStream, MessageBody};
use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use bytes::Bytes;
use futures::Stream;
use serde::Serialize;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::message::Message;

/// The silence after which a stream sends a heartbeat, as in Gradio. Clients that get nothing for
/// longer reconnect, and double the load.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// The maximum of bytes gathered into one chunk.
const CHUNK: usize = 64 * 1024;

/// The bytes that the messages of a short event take, from its first to its last.
const MESSAGES: usize = 1024;

/// Something that has events to send.
pub(crate) trait Source: Unpin {
    /// Appends the next event's text; `false` ends the stream.
    fn poll_event(&mut self, cx: &mut Context<'_>, text: &mut Vec<u8>) -> Poll<bool>;

    /// Appends a heartbeat.
    fn heartbeat(&mut self, text: &mut Vec<u8>);

    /// Whether it may be silent for long.
    fn wants_heartbeat(&self) -> bool {
        true
    }
}

struct Events<S> {
    source: S,
    /// Begins with the first silence, which most streams don't come to.
    heartbeat: Option<Interval>,
    ended: bool,
}

impl<S: Source> Stream for Events<S> {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut text = Vec::new();
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
            if let Some(heartbeat) = &mut self.heartbeat {
                heartbeat.reset();
            }
        } else if self.ended {
            return Poll::Ready(None);
        } else if self.source.wants_heartbeat() {
            let heartbeat = self.heartbeat.get_or_insert_with(silence);
            std::task::ready!(heartbeat.poll_tick(cx));
            self.source.heartbeat(&mut text);
        } else {
            return Poll::Pending;
        }
        Poll::Ready(Some(Ok(text.into())))
    }
}

fn silence() -> Interval {
    let mut heartbeat = interval_at(Instant::now() + HEARTBEAT, HEARTBEAT);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat
}

/// The response that streams the events of `source`.
pub(crate) fn response(source: impl Source + 'static) -> HttpResponse {
    stream(Events { source, heartbeat: None, ended: false })
}

/// The response that streams events which are written already.
pub(crate) fn stream<E>(events: impl Stream<Item = Result<Bytes, E>> + 'static) -> HttpResponse
where
    E: Into<Box<dyn std::error::Error>> + 'static,
{
    const KIND: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");
    const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");
    const BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
    const NO: HeaderValue = HeaderValue::from_static("no");
    HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, KIND))
        .insert_header((CACHE_CONTROL, NO_CACHE))
        // nginx would hold events back otherwise.
        .insert_header((BUFFERING, NO))
        .body(BodyStream::new(events).boxed())
}

/// Answers `HEAD`, where `GET` opens a stream: opens none.
pub(crate) async fn head() -> HttpResponse {
    stream(futures::stream::empty::<Result<Bytes, std::convert::Infallible>>())
}

/// Appends one event: an optional number and name, and its data as JSON, which has no line breaks.
pub(crate) fn write(
    text: &mut Vec<u8>,
    number: Option<u64>,
    name: Option<&str>,
    data: &impl Serialize,
) {
    write_event(text, number, name, |text| serde_json::to_writer(text, data));
}

/// Appends one message of a session.
pub(crate) fn write_message(text: &mut Vec<u8>, number: Option<u64>, message: &Message) {
    write_event(text, number, None, |text| message.write(text));
}

fn write_event(
    text: &mut Vec<u8>,
    number: Option<u64>,
    name: Option<&str>,
    write_data: impl FnOnce(&mut Vec<u8>) -> serde_json::Result<()>,
) {
    if text.is_empty() {
        // For the few messages that are usually sent together.
        text.reserve(MESSAGES);
    }
    if let Some(number) = number {
        text.extend_from_slice(format!("id: {number}\n").as_bytes());
    }
    if let Some(name) = name {
        text.extend_from_slice(b"event: ");
        text.extend_from_slice(name.as_bytes());
        text.extend_from_slice(b"\n");
    }
    text.extend_from_slice(b"data: ");
    let begin = text.len();
    if let Err(error) = write_data(text) {
        text.truncate(begin);
        crate::logging::error!("a message could not be written as JSON: {error}");
    }
    text.extend_from_slice(b"\n\n");
}

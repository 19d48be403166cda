//! `GET queue/data`: the updates of all events of a session, on one stream.

use std::task::{Context, Poll};

use actix_web::{HttpResponse, web};
use bytes::BytesMut;
use serde::Deserialize;

use super::login::Caller;
use super::session::{Read, Stream};
use super::sse;
use super::wire::{Message, Speaker};
use crate::queue::Queue;

#[derive(Deserialize)]
pub(crate) struct Query {
    #[serde(default)]
    session_hash: String,
}

pub(crate) async fn data(
    queue: web::Data<Queue>,
    caller: Caller,
    query: web::Query<Query>,
) -> HttpResponse {
    match queue.inner().web.sessions.find(&caller, &query.session_hash) {
        Some(session) => sse::response(SessionStream(session.open_stream())),
        None => sse::response(Unknown { said: false }),
    }
}

/// Ends with `close_stream` after the last event has ended.
struct SessionStream(Stream);

impl sse::Source for SessionStream {
    fn poll_event(&mut self, cx: &mut Context<'_>, text: &mut BytesMut) -> Poll<bool> {
        match std::task::ready!(self.0.poll_next(cx, Speaker::message)) {
            Read::Next(message) => sse::write(text, None, &message),
            Read::Finished => {
                sse::write(text, None, &Message::CLOSE_STREAM);
                return Poll::Ready(false);
            }
            Read::TakenOver => return Poll::Ready(false),
        }
        Poll::Ready(true)
    }

    fn heartbeat(&mut self, text: &mut BytesMut) {
        sse::write(text, None, &Message::HEARTBEAT);
    }
}

/// A session that nobody has begun.
struct Unknown {
    said: bool,
}

impl sse::Source for Unknown {
    fn poll_event(&mut self, _: &mut Context<'_>, text: &mut BytesMut) -> Poll<bool> {
        if !std::mem::replace(&mut self.said, true) {
            sse::write(text, None, &Message::session_not_found());
            return Poll::Ready(true);
        }
        Poll::Ready(false)
    }

    fn heartbeat(&mut self, _: &mut BytesMut) {}
}

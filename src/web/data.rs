//! `GET queue/data`: the updates of all events of a session, on one stream.

use std::task::{Context, Poll};

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::BytesMut;
use serde::Deserialize;

use super::login::Caller;
use super::sse;
use super::stream::{Form, Manner, Read, Stream, last_event_id};
use super::wire::Message;
use crate::queue::Queue;

#[derive(Deserialize)]
pub(crate) struct Query {
    #[serde(default)]
    session_hash: String,
    last_event_id: Option<u64>,
}

pub(crate) async fn data(
    queue: web::Data<Queue>,
    caller: Caller,
    request: HttpRequest,
    query: web::Query<Query>,
) -> HttpResponse {
    match queue.inner().web.sessions.find(&caller, &query.session_hash) {
        Some(session) => {
            let manner = Manner::of(&request, Form::Session);
            let after = last_event_id(&request, query.last_event_id);
            sse::response(SessionStream(session.open_stream(manner, after)))
        }
        None => sse::response(Unknown { said: false }),
    }
}

/// Ends with `close_stream` after the last event has ended.
struct SessionStream(Stream);

impl sse::Source for SessionStream {
    fn poll_event(&mut self, cx: &mut Context<'_>, text: &mut BytesMut) -> Poll<bool> {
        Poll::Ready(match std::task::ready!(self.0.poll_next(cx, text)) {
            Read::Something => true,
            Read::Finished => {
                sse::write(text, None, None, &Message::CLOSE_STREAM);
                false
            }
            Read::TakenOver => false,
        })
    }

    fn heartbeat(&mut self, text: &mut BytesMut) {
        sse::write(text, None, None, &Message::HEARTBEAT);
    }
}

/// A session that nobody has begun.
struct Unknown {
    said: bool,
}

impl sse::Source for Unknown {
    fn poll_event(&mut self, _: &mut Context<'_>, text: &mut BytesMut) -> Poll<bool> {
        if !std::mem::replace(&mut self.said, true) {
            sse::write(text, None, None, &Message::session_not_found());
            return Poll::Ready(true);
        }
        Poll::Ready(false)
    }

    fn heartbeat(&mut self, _: &mut BytesMut) {}
}

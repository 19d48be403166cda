//! `GET queue/data`: the updates of all events of a session, on one stream.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, ResponseError, web};
#[cfg(feature = "cluster")]
use futures::FutureExt;
use serde::Deserialize;
use tokio::time::{Sleep, sleep};

#[cfg(feature = "cluster")]
use crate::cluster::homes::HomeKey;
use crate::logging::{debug, error, warn};
use crate::web::auth::guard::Caller;
use crate::web::protocol::message::Message;
use crate::web::protocol::sse;
use crate::web::rejection::Rejection;
#[cfg(feature = "cluster")]
use crate::web::relay::{asking, resuming};
use crate::web::session::registry::Begun;
#[cfg(feature = "cluster")]
use crate::web::session::registry::MAX_HASH_LEN;
use crate::web::session::stream::{Form, Format, Read, Stream, last_event_id};
use crate::web::state::WebState;

/// How often more it is tried to find out what a session has elsewhere. It takes ten seconds until it is known that
/// nobody can say.
const TRIES: usize = 1;

/// How long it is waited before.
const PAUSE: Duration = Duration::from_millis(500);

#[derive(Deserialize)]
pub(crate) struct Query {
    #[serde(default)]
    session_hash: String,
    last_event_id: Option<u64>,
}

pub(crate) async fn data(
    web: web::Data<WebState>,
    caller: Caller,
    request: HttpRequest,
    query: web::Query<Query>,
) -> Result<HttpResponse, Rejection> {
    let Query { session_hash: hash, last_event_id: after } = query.into_inner();
    let after = last_event_id(&request, after);
    #[cfg(feature = "cluster")]
    if hash.len() <= MAX_HASH_LEN {
        let about = asking::About::session(&caller, &hash, 3);
        let here = {
            let (web, caller, request) = (web.clone(), caller.clone(), request.clone());
            let hash = hash.clone();
            move |after| {
                let (web, caller, request) = (web.clone(), caller.clone(), request.clone());
                let hash = hash.clone();
                async move { data_here(&web, &caller, &request, &hash, after).await }.boxed_local()
            }
        };
        let answer = resuming::stream_elsewhere(&web, &caller, &request, about, here).await?;
        if let Some(answer) = answer {
            return Ok(answer);
        }
    }
    Ok(data_here(&web, &caller, &request, &hash, after).await)
}

async fn data_here(
    web: &WebState,
    caller: &Caller,
    request: &HttpRequest,
    hash: &str,
    after: Option<u64>,
) -> HttpResponse {
    if let Err(rejection) = adopt(web, caller, request, hash).await {
        return rejection.error_response();
    }
    match web.sessions.find(caller, hash) {
        Some(session) => {
            let format = Format::of(request, Form::Session);
            debug!("session {hash}: a stream from {after:?} on, of {:?}", session.under_way());
            let stream = Stream::open(&session, format, after);
            sse::response(SessionStream { stream, closing: None })
        }
        None => sse::response(Unknown { sent: false }),
    }
}

/// The events of the session that an earlier process has left are this client's, and those that other nodes have.
///
/// # Errors
/// When nobody can say for long which those are. A stream without them would keep silent about them.
async fn adopt(
    web: &WebState,
    caller: &Caller,
    request: &HttpRequest,
    hash: &str,
) -> Result<(), Rejection> {
    let (left, user) = (web.queue.left(), caller.0.as_ref());
    let here = web.sessions.find(caller, hash);
    #[cfg(feature = "cluster")]
    let taken = {
        let key = HomeKey::of_session(user.map(|user| &**user), hash);
        let begun = here.as_ref().map(|session| session.begun);
        web.relay.get().and_then(|relay| relay.homes.taken(key, begun))
    };
    #[cfg(feature = "cluster")]
    let is_elsewhere = here.as_ref().is_none_or(|session| session.may_lack_events(taken));
    // One that is here has its events here.
    #[cfg(not(feature = "cluster"))]
    let is_elsewhere = here.is_none();
    if is_elsewhere {
        fetch(web, user, hash).await?;
    }
    let session = match left.has_session(user, hash) {
        true => web.sessions.begin(caller, hash).map(Begun::keep).ok(),
        false => here,
    };
    // Where there are too many sessions, they go on without one, until there is room.
    let Some(session) = session else { return Ok(()) };
    // All at once: what this has taken, nobody else finds.
    for (id, event) in left.take_session(user, hash) {
        if let Some(endpoint) = web.endpoints.get(event.listener) {
            session.adopt(id, endpoint, web.audience(endpoint, request), &event);
        }
    }
    let mut are_all_found = true;
    for (id, listener) in left.ended_of_session(user, hash) {
        let past = match web.queue.past(id).await {
            Ok(past) => past,
            Err(trouble) => {
                error!("the end of event {id} can't be looked for: {trouble}");
                are_all_found = false;
                continue;
            }
        };
        // One that isn't kept any more has no end that could be told.
        if let Some((past, endpoint)) = past.zip(web.endpoints.get(listener)) {
            session.give_end(id, endpoint, web.audience(endpoint, request), past);
        }
        left.forget_ended(user, hash, id);
    }
    if !are_all_found {
        return Err(not_found());
    }
    #[cfg(feature = "cluster")]
    if is_elsewhere {
        debug!("session {hash} is here since {taken:?}");
        session.has_looked(taken);
    }
    Ok(())
}

fn not_found() -> Rejection {
    Rejection::crowded("What this session has at other nodes can't be found; try again.".into())
}

/// Brings what a session has elsewhere.
async fn fetch(web: &WebState, user: Option<&Arc<str>>, hash: &str) -> Result<(), Rejection> {
    let mut tries = 0..TRIES;
    while let Err(trouble) = web.queue.fetch_session(user, hash).await {
        warn!("what a session has elsewhere can't be looked for: {trouble}");
        if tries.next().is_none() {
            return Err(not_found());
        }
        sleep(PAUSE).await;
    }
    Ok(())
}

/// How long a client has to disconnect after `close_stream`. Both of Gradio's do so at once; one
/// that reads to the end of the response finds it then.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Ends with `close_stream` after the last event has ended. Then it waits for the client to
/// disconnect, which shows that it has read that: until then its next request is not answered,
/// since it would wait for the event on this stream.
struct SessionStream {
    stream: Stream,
    /// `close_stream` has been sent.
    closing: Option<Pin<Box<Sleep>>>,
}

impl sse::Source for SessionStream {
    fn poll_event(&mut self, cx: &mut Context<'_>, text: &mut Vec<u8>) -> Poll<bool> {
        if let Some(closing) = &mut self.closing {
            let late = closing.as_mut().poll(cx).is_ready();
            let over = late || self.stream.poll_superseded(cx).is_ready();
            return if over { Poll::Ready(false) } else { Poll::Pending };
        }
        Poll::Ready(match std::task::ready!(self.stream.poll_next(cx, text)) {
            Read::Something => true,
            Read::Finished => {
                sse::write_message(text, None, &Message::CLOSE_STREAM);
                self.closing = Some(Box::pin(sleep(CLOSE_TIMEOUT)));
                true
            }
            // Without a message: a client that has both streams would take it for the end of the
            // other.
            Read::TakenOver => false,
        })
    }

    fn heartbeat(&mut self, text: &mut Vec<u8>) {
        sse::write_message(text, None, &Message::HEARTBEAT);
    }

    fn wants_heartbeat(&self) -> bool {
        self.closing.is_none()
    }
}

/// A session that nobody has begun.
struct Unknown {
    sent: bool,
}

impl sse::Source for Unknown {
    fn poll_event(&mut self, _: &mut Context<'_>, text: &mut Vec<u8>) -> Poll<bool> {
        if !std::mem::replace(&mut self.sent, true) {
            sse::write_message(text, None, &Message::session_not_found());
            return Poll::Ready(true);
        }
        Poll::Ready(false)
    }

    fn heartbeat(&mut self, _: &mut Vec<u8>) {}
}

//! `call/{api_name}`: an event in two requests that curl can make.

use std::sync::Arc;
use std::task::{Context, Poll};

#[cfg(feature = "cluster")]
use actix_web::ResponseError;
use actix_web::{HttpRequest, HttpResponse, web};
#[cfg(feature = "cluster")]
use futures::FutureExt;
use serde::Deserialize;
use serde_json::Value;

use super::{IDEMPOTENCY_KEY, Named, WEBHOOK_URL, joined, new_event, refused};
use crate::event::id::EventId;
use crate::logging::error;
use crate::queue::elsewhere::SubmittedBefore;
use crate::queue::keyed::IdempotencyKey;
use crate::queue::recovery::LeftEvent;
use crate::web::api::endpoint::{Endpoint, Prepared};
use crate::web::auth::guard::Caller;
use crate::web::body::json;
use crate::web::body::json::Data;
use crate::web::body::received::Body;
use crate::web::protocol::encoder::Ended;
use crate::web::protocol::sse;
use crate::web::rejection::Rejection;
#[cfg(feature = "cluster")]
use crate::web::relay::{asking, resuming};
use crate::web::session::registry::Sessions;
use crate::web::session::session::Session;
use crate::web::session::stream::{Form, Format, Read, Stream, last_event_id};
use crate::web::state::WebState;

#[derive(Deserialize)]
struct Call<'a> {
    #[serde(borrow, default)]
    data: Data<'a>,
    session_hash: Option<String>,
}

#[derive(Deserialize)]
pub(crate) struct Event {
    api_name: String,
    event_id: String,
}

/// `POST call/{api_name}`: submits an event with positional data.
pub(crate) async fn start(
    web: web::Data<WebState>,
    caller: Caller,
    path: web::Path<Named>,
    request: HttpRequest,
    bytes: Body,
) -> Result<HttpResponse, Rejection> {
    let api_name = path.into_inner().api_name;
    // Before its body is read.
    web.known(&api_name)?;
    #[cfg(feature = "cluster")]
    if let Some(answer) =
        asking::of_body(&web, &caller, &request, &bytes, Some(&api_name), 3).await?
    {
        return Ok(answer);
    }
    let read = json::read(&web.reading, bytes, {
        let (web, caller, api_name) = (web.clone(), caller.clone(), api_name.clone());
        move |text| {
            let Call { data, session_hash } = json::from_text::<Call<'_>>(text)?;
            let endpoint = web.known(&api_name)?;
            let input = endpoint.input_from_positional(&data, &web.files, &caller)??;
            Ok((input, session_hash))
        }
    });
    let (input, session_hash) = read.await?;
    let endpoint = web.known(&api_name)?;
    submit(&web, caller, &request, endpoint, input, session_hash).await
}

/// `POST call/v2/{api_name}`: submits an event with named arguments.
pub(crate) async fn start_named(
    web: web::Data<WebState>,
    caller: Caller,
    path: web::Path<Named>,
    request: HttpRequest,
    bytes: Body,
) -> Result<HttpResponse, Rejection> {
    let api_name = path.into_inner().api_name;
    web.known(&api_name)?;
    let read = json::read(&web.reading, bytes, {
        let (web, caller, api_name) = (web.clone(), caller.clone(), api_name.clone());
        move |text| {
            let endpoint = web.known(&api_name)?;
            endpoint.input_from_named(text, &web.files, &caller)
        }
    });
    let input = read.await?;
    let endpoint = web.known(&api_name)?;
    submit(&web, caller, &request, endpoint, input, None).await
}

async fn submit(
    web: &web::Data<WebState>,
    caller: Caller,
    request: &HttpRequest,
    endpoint: &Endpoint,
    mut input: Prepared,
    session_hash: Option<String>,
) -> Result<HttpResponse, Rejection> {
    let mut id = new_event(request, &mut input);
    let key = idempotency_key(request)?;
    endpoint.accompany(&mut input, request, None);
    let listener_ref = &endpoint.listener_ref;
    if let Some(url) = request.headers().get(WEBHOOK_URL) {
        let url = url.to_str().unwrap_or_default();
        let webhook = listener_ref.durable().and_then(|_| web.queue.check_webhook(url));
        input.give(webhook.map_err(|error| Rejection::of_submit(&error))?);
    }
    let _one_at_a_time = match key {
        Some(key) => {
            let user_key = (caller.0.clone(), key.clone());
            if let Some(keyed) = web.queue.keyed_id(listener_ref, &user_key) {
                id = keyed;
                input.give(SubmittedBefore);
            }
            let guard = listener_ref.keyed.submitting(&user_key).await;
            let found = web.queue.keyed_event(listener_ref, user_key, input.input()).await;
            if let Some(id) = found.map_err(|error| Rejection::of_submit(&error))? {
                return Ok(joined(id));
            }
            input.give(IdempotencyKey(key));
            Some(guard)
        }
        None => None,
    };
    #[cfg(feature = "cluster")]
    asking::accept_call(web, id).await.map_err(|rejection| refused(request, rejection))?;
    // Without a session of the client's it has one of its own.
    let call = web.sessions.begin_call(id, &caller, session_hash.as_deref())?;
    let submitted = call.session.submit(id, endpoint, input, web.audience(endpoint, request)).await;
    submitted.map_err(|rejection| refused(request, rejection))?;
    call.keep();
    Ok(joined(id))
}

/// The key of the `Idempotency-Key` header, in bytes at most.
const MAX_KEY_LEN: usize = 255;

/// The key by which the client will know its event again.
fn idempotency_key(request: &HttpRequest) -> Result<Option<Arc<str>>, Rejection> {
    let Some(key) = request.headers().get(IDEMPOTENCY_KEY) else { return Ok(None) };
    let usable = |key: &&str| !key.is_empty() && key.len() <= MAX_KEY_LEN;
    let key = key.to_str().ok().filter(usable).ok_or_else(|| {
        let message =
            format!("An Idempotency-Key has 1 to {MAX_KEY_LEN} visible ASCII characters.");
        Rejection::bad_request(&message)
    })?;
    Ok(Some(key.into()))
}

#[derive(Deserialize)]
pub(crate) struct Follow {
    last_event_id: Option<u64>,
}

/// `GET call/{api_name}/{event_id}`: the event's values, and how it ended. The end can be fetched
/// again, once a client has received it.
pub(crate) async fn follow(
    web: web::Data<WebState>,
    caller: Caller,
    request: HttpRequest,
    path: web::Path<Event>,
    query: web::Query<Follow>,
) -> Result<HttpResponse, Rejection> {
    let Event { api_name, event_id } = path.into_inner();
    let Ok(id) = event_id.parse::<EventId>() else { return Ok(sse::response(CallStream::Unknown)) };
    let after = last_event_id(&request, query.last_event_id);
    #[cfg(feature = "cluster")]
    {
        let segments = if request.path().contains("/call/v2/") { 5 } else { 4 };
        let about = asking::About::call(id, segments);
        let here = {
            let (web, caller, request) = (web.clone(), caller.clone(), request.clone());
            let api_name = api_name.clone();
            move |after| {
                let (web, caller, request) = (web.clone(), caller.clone(), request.clone());
                let api_name = api_name.clone();
                let answer = async move {
                    let answer = follow_here(&web, &caller, &request, &api_name, id, after);
                    answer.await.unwrap_or_else(|refused| refused.error_response())
                };
                answer.boxed_local()
            }
        };
        let answer = resuming::stream_elsewhere(&web, &caller, &request, about, here).await?;
        if let Some(answer) = answer {
            return Ok(answer);
        }
    }
    follow_here(&web, &caller, &request, &api_name, id, after).await
}

async fn follow_here(
    web: &WebState,
    caller: &Caller,
    request: &HttpRequest,
    api_name: &str,
    id: EventId,
    after: Option<u64>,
) -> Result<HttpResponse, Rejection> {
    let sessions = &web.sessions;
    let session = match sessions.find_call(caller, id) {
        None => left(web, caller, request, api_name, id).await?,
        session => session,
    };
    if let Some(session) = session.filter(|session| session.may_be_of(id, api_name)) {
        let format = Format::of(request, Form::Call);
        let stream = Stream::open(&session, format, after);
        return Ok(sse::response(CallStream::Event { id, stream, sessions: sessions.clone() }));
    }
    let ended = sessions.limits.results.find(caller, id);
    let ended = match ended.filter(|ended| ended.is_of(api_name)) {
        None => past(web, caller, request, api_name, id).await?,
        ended => ended,
    };
    Ok(sse::response(ended.map_or(CallStream::Unknown, CallStream::Ended)))
}

/// An event of the caller's that an earlier process has left.
async fn left(
    web: &WebState,
    caller: &Caller,
    request: &HttpRequest,
    api_name: &str,
    id: EventId,
) -> Result<Option<Arc<Session>>, Rejection> {
    let Ok(endpoint) = web.known(api_name) else { return Ok(None) };
    let is_own =
        |left: &LeftEvent| left.user == caller.0 && left.listener as u64 == endpoint.number;
    web.queue.fetch(id).await.map_err(|trouble| {
        error!("event {id} can't be looked for: {trouble}");
        Rejection::crowded("The record of events can't be read now; ask again.".into())
    })?;
    let audience = web.audience(endpoint, request);
    web.sessions.adopt_call(id, caller, endpoint, audience, web.queue.left(), is_own)
}

/// The end of an event of the caller's that only the journal still knows.
async fn past(
    web: &WebState,
    caller: &Caller,
    request: &HttpRequest,
    api_name: &str,
    id: EventId,
) -> Result<Option<Arc<Ended>>, Rejection> {
    let Ok(endpoint) = web.known(api_name) else { return Ok(None) };
    let past = web.queue.past(id).await.map_err(|trouble| {
        error!("the end of event {id} can't be looked for: {trouble}");
        Rejection::crowded("The record of events can't be read now; ask again.".into())
    })?;
    let own = past.filter(|past| past.user == caller.0 && *past.listener == *api_name);
    let encoder = || endpoint.encoder(web.audience(endpoint, request));
    Ok(own.map(|past| Arc::new(Ended::of(encoder(), id, past.outcome, past.duration))))
}

enum CallStream {
    Event { id: EventId, stream: Stream, sessions: Arc<Sessions> },
    Ended(Arc<Ended>),
    Unknown,
    Over,
}

impl sse::Source for CallStream {
    fn poll_event(&mut self, cx: &mut Context<'_>, text: &mut Vec<u8>) -> Poll<bool> {
        match self {
            CallStream::Over => return Poll::Ready(false),
            CallStream::Unknown => {
                sse::write(text, None, Some("error"), &"404: Not Found");
                *self = CallStream::Over;
            }
            CallStream::Ended(ended) => {
                let (name, data) = ended.called();
                sse::write(text, None, Some(name), &data);
                *self = CallStream::Over;
            }
            CallStream::Event { id, stream, sessions } => {
                match std::task::ready!(stream.poll_next(cx, text)) {
                    Read::Something => {}
                    Read::Finished => {
                        // A client that sends `Last-Event-ID` may come back for more than the end.
                        if !stream.is_numbered() {
                            sessions.end_call(*id);
                        }
                        return Poll::Ready(false);
                    }
                    Read::TakenOver => return Poll::Ready(false),
                }
            }
        }
        Poll::Ready(true)
    }

    fn heartbeat(&mut self, text: &mut Vec<u8>) {
        sse::write(text, None, Some("heartbeat"), &Value::Null);
    }
}

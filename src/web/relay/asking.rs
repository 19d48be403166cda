//! Has requests answered by the node where their session is at home.

use std::borrow::Cow;
use std::cell::Cell;
use std::time::Duration;

use actix_web::body::{BodyStream, MessageBody, SizedStream};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures::stream;
use serde::Deserialize;
use tokio::time::Instant;

use super::head::{AnswerHead, RequestHead, ResponseHead};
use super::node::Relay;
use crate::cluster::homes::{HomeKey, NoHome};
use crate::cluster::message::Process;
use crate::cluster::tunnel::{Broken, Exchange};
use crate::event::id::EventId;
use crate::logging::warn;
use crate::web::auth::guard::Caller;
use crate::web::base_url::root_url_of_api;
use crate::web::body::received::Body;
use crate::web::body::size::is_large;
use crate::web::rejection::Rejection;
use crate::web::relayed::{NamedEvent, Relayed};
use crate::web::session::registry::MAX_HASH_LEN;
use crate::web::state::WebState;

/// How long a home is looked for that doesn't answer. Longer than it takes until it counts as dead.
const PATIENCE: Duration = Duration::from_secs(15);

/// How long it is waited before it is looked for again.
const PAUSE: Duration = Duration::from_millis(200);

/// What a request is about.
#[derive(Clone, Copy)]
pub(crate) struct About {
    key: HomeKey,
    /// It has a home from now on, if it had none.
    begins: bool,
    /// How many segments of the request's path are ours.
    segments: usize,
}

impl About {
    /// A session that there may be.
    pub fn session(caller: &Caller, hash: &str, segments: usize) -> Self {
        let key = HomeKey::of_session(caller.0.as_deref(), hash);
        About { key, begins: false, segments }
    }

    /// A session that begins if there is none.
    pub fn begun_session(caller: &Caller, hash: &str, segments: usize) -> Self {
        About { begins: true, ..About::session(caller, hash, segments) }
    }

    /// An upload.
    pub fn upload(id: &str, segments: usize) -> Self {
        About { key: HomeKey::of_upload(id), begins: false, segments }
    }

    /// An event with a stream of its own.
    pub fn call(id: EventId, segments: usize) -> Self {
        About { key: HomeKey::of_call(id), begins: false, segments }
    }
}

/// What requests' bodies name, whatever else is in them.
#[derive(Deserialize)]
struct Named<'a> {
    #[serde(default)]
    fn_index: Option<u64>,
    #[serde(borrow)]
    session_hash: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    event_id: Option<Cow<'a, str>>,
}

/// The session, the event and the listener that a body names.
#[derive(Default)]
struct OfBody {
    hash: Option<String>,
    event: Option<EventId>,
    fn_index: Option<u64>,
}

fn named(bytes: &[u8]) -> Option<OfBody> {
    // One that can't be read is refused by whoever reads all of it.
    let Named { fn_index, session_hash, event_id } = serde_json::from_slice(bytes).ok()?;
    let hash = session_hash.filter(|hash| !hash.is_empty() && hash.len() <= MAX_HASH_LEN);
    let event = event_id.and_then(|id| id.parse().ok());
    Some(OfBody { hash: hash.map(Cow::into_owned), event, fn_index })
}

async fn read_named(web: &WebState, body: &Body) -> OfBody {
    if !is_large(body.len()) {
        return named(body).unwrap_or_default();
    }
    let permit = web.reading.clone().acquire_owned().await;
    let bytes = Bytes::clone(body);
    let read = web::block(move || {
        let _permit = permit;
        named(&bytes)
    });
    read.await.ok().flatten().unwrap_or_default()
}

/// The node's relay, unless the request has come by it.
pub(super) fn relay_for<'a>(web: &'a WebState, request: &HttpRequest) -> Option<&'a Relay> {
    let relay = web.relay.get()?;
    (!request.extensions().contains::<Relayed>()).then_some(relay)
}

/// The answer to a request whose body names a session that is at home elsewhere.
///
/// # Errors
/// When nobody knows where, or the node there can't be reached: where it may have taken the request, by a status of
/// its own.
pub(crate) async fn of_body(
    web: &WebState,
    caller: &Caller,
    request: &HttpRequest,
    body: &Body,
    api_name: Option<&str>,
    segments: usize,
) -> Result<Option<HttpResponse>, Rejection> {
    if relay_for(web, request).is_none() {
        return Ok(None);
    }
    let OfBody { hash: Some(hash), fn_index, .. } = read_named(web, body).await else {
        return Ok(None);
    };
    let about = About::begun_session(caller, &hash, segments);
    let endpoint = match (api_name, fn_index) {
        (_, Some(index)) => web.endpoint(index).ok(),
        (Some(api_name), None) => web.known(api_name).ok(),
        (None, None) => None,
    };
    // What doesn't wait in the line has no record, by which it would be known again.
    if endpoint.is_some_and(|endpoint| endpoint.listener_ref.options.queued) {
        let event = NamedEvent { id: EventId::random(), again: false };
        request.extensions_mut().insert(event);
    }
    elsewhere(web, caller, request, about, body).await
}

/// The same for one that names an event, which may be of no session.
///
/// # Errors
/// As [`of_body`].
pub(crate) async fn of_event(
    web: &WebState,
    caller: &Caller,
    request: &HttpRequest,
    body: &Body,
    segments: usize,
) -> Result<Option<HttpResponse>, Rejection> {
    if relay_for(web, request).is_none() {
        return Ok(None);
    }
    let about = match read_named(web, body).await {
        OfBody { hash: Some(hash), .. } => About::session(caller, &hash, segments),
        OfBody { event: Some(id), .. } => About::call(id, segments),
        OfBody { hash: None, event: None, .. } => return Ok(None),
    };
    elsewhere(web, caller, request, about, body).await
}

/// Whoever asks for the progress of an upload finds it here.
pub(crate) async fn take_upload(web: &WebState, id: &str) {
    let Some(relay) = web.relay.get() else { return };
    if let Err(trouble) = relay.homes.take(HomeKey::of_upload(id)).await {
        warn!("an upload's progress can't be seen from other nodes: {trouble}");
    }
}

/// The progress of an upload that begins on another node. Doesn't return while it begins nowhere else.
pub(crate) async fn of_upload(
    web: &WebState,
    caller: &Caller,
    request: &HttpRequest,
    id: &str,
) -> Result<HttpResponse, Rejection> {
    let Some(relay) = relay_for(web, request) else { return std::future::pending().await };
    loop {
        let home = relay.homes.find(HomeKey::of_upload(id)).await;
        if home.is_ok_and(|home| home.is_some_and(|home| home != relay.own)) {
            let about = About::upload(id, 2);
            if let Some(answer) = elsewhere(web, caller, request, about, &Bytes::new()).await? {
                return Ok(answer);
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// This node is the home of an event that it is about to accept.
///
/// # Errors
/// When NATS is away: other nodes couldn't find the event.
pub(crate) async fn accept_call(web: &WebState, id: EventId) -> Result<(), Rejection> {
    let Some(relay) = web.relay.get() else { return Ok(()) };
    let home = relay.homes.home(HomeKey::of_call(id)).await;
    home.map(drop).map_err(|trouble| no_home(&trouble))
}

pub(super) fn no_home(trouble: &NoHome) -> Rejection {
    warn!("the home of a session can't be found: {trouble}");
    Rejection::crowded(match trouble {
        NoHome::Away(_) => "Sessions can't be found: NATS can't be reached; try again.".into(),
        NoHome::Unsettled => "This node has just begun; try again.".into(),
    })
}

/// The answer to a request about something that is at home elsewhere.
async fn elsewhere(
    web: &WebState,
    caller: &Caller,
    request: &HttpRequest,
    about: About,
    body: &Bytes,
) -> Result<Option<HttpResponse>, Rejection> {
    let Some(relay) = relay_for(web, request) else { return Ok(None) };
    let head = head_of(web, caller, request, about);
    let event = request.extensions().get::<NamedEvent>().copied();
    let asked_before = Cell::new(false);
    let head = |_: &Process| {
        let again = asked_before.replace(true);
        let mut head = head.clone();
        head.event = event.map(|event| NamedEvent { again, ..event });
        head
    };
    let until = Instant::now() + PATIENCE;
    // An event that has a name may be submitted again.
    let patience = Patience { until, when_lost: event.is_some(), when_away: false };
    let asked = find_and_ask(relay, about, head, body, patience).await?;
    if let (None, true, Some(event)) = (&asked, asked_before.get(), event) {
        // This node has become the home, and its event may have been accepted by the one before.
        request.extensions_mut().insert(NamedEvent { again: true, ..event });
    }
    asked.map(|(head, exchange)| whole(head, exchange)).transpose()
}

pub(super) fn head_of(
    web: &WebState,
    caller: &Caller,
    request: &HttpRequest,
    about: About,
) -> RequestHead {
    let root = root_url_of_api(request, web.options.root_path.as_deref());
    let (key, user) = (about.key.to_text(), caller.0.clone());
    RequestHead::of(request, about.segments, key, user, root)
}

/// What is waited for, and until when. Always a home that isn't there: nothing has been done of the request.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    pub until: Instant,
    /// Also one that was lost in the midst of the request, which may be sent again.
    pub when_lost: bool,
    /// Also NATS.
    pub when_away: bool,
}

/// Finds the home, and asks it what `head` makes for it. None if it is this node.
pub(super) async fn find_and_ask(
    relay: &Relay,
    about: About,
    head: impl Fn(&Process) -> RequestHead,
    body: &Bytes,
    patience: Patience,
) -> Result<Option<(ResponseHead, Exchange)>, Rejection> {
    let mut until = patience.until;
    // A node that is lost now may have taken it.
    let mut may_be_taken = false;
    loop {
        let asked = Instant::now();
        let home = match about.begins {
            true => relay.homes.home(about.key).await.map(Some),
            false => relay.homes.find(about.key).await,
        };
        let (why, waits) = match home {
            Ok(None) => return Ok(None),
            Ok(Some(home)) if home == relay.own => return Ok(None),
            Ok(Some(home)) => match ask(relay, &home, head(&home), body.clone()).await {
                Ok(asked) => return Ok(Some(asked)),
                Err(NoAnswer::Moved) => {
                    relay.homes.forget(about.key);
                    let why = "The node of this session has changed; try again.".into();
                    (Rejection::crowded(why), true)
                }
                Err(NoAnswer::Broken(broken)) => {
                    // One that was there for long, and is lost, is looked for anew.
                    if broken != Broken::NotThere && asked.elapsed() >= PATIENCE {
                        until = Instant::now() + PATIENCE;
                    }
                    may_be_taken |= matches!(broken, Broken::Lost(_) | Broken::Cancelled);
                    (lost(&home, &broken), broken == Broken::NotThere || patience.when_lost)
                }
            },
            Err(trouble) => (no_home(&trouble), trouble == NoHome::Unsettled || patience.when_away),
        };
        if !waits || Instant::now() >= until {
            return Err(if may_be_taken { why.uncertain() } else { why });
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn lost(home: &Process, broken: &Broken) -> Rejection {
    warn!("a request to the node {} came to nothing: {broken}", home.node);
    Rejection::crowded(match broken {
        Broken::NotThere => "The node of this session is away; try again.".into(),
        Broken::TooLong => "The request's headers are too long for this cluster.".into(),
        _ => "The node of this session is gone.".into(),
    })
}

/// Why a node gave no answer.
pub(super) enum NoAnswer {
    /// It isn't the home.
    Moved,
    Broken(Broken),
}

impl From<Broken> for NoAnswer {
    fn from(broken: Broken) -> Self {
        NoAnswer::Broken(broken)
    }
}

/// The head of a node's answer, and what its body is read from.
async fn ask(
    relay: &Relay,
    home: &Process,
    head: RequestHead,
    body: Bytes,
) -> Result<(ResponseHead, Exchange), NoAnswer> {
    let mut exchange = relay.tunnel.ask(home, head.to_bytes())?;
    exchange.send(body).await?;
    exchange.finish();
    let head = exchange.part().await?.ok_or(Broken::Cancelled)?;
    match serde_json::from_slice(&head) {
        Ok(AnswerHead::Answer(head)) => Ok((head, exchange)),
        Ok(AnswerHead::Moved) => Err(NoAnswer::Moved),
        Err(_) => Err(Broken::Lost("the answer can't be read").into()),
    }
}

/// The answer as it came.
pub(super) fn whole(head: ResponseHead, exchange: Exchange) -> Result<HttpResponse, Rejection> {
    let unreadable = || Rejection::internal("The answer of this session's node can't be read.");
    let (mut response, length) = head.into_builder().ok_or_else(unreadable)?;
    let body = Box::pin(stream::unfold(exchange, async |mut exchange| {
        let part = exchange.part().await.transpose()?;
        Some((part, exchange))
    }));
    Ok(match length {
        Some(0) => response.body(()).map_into_boxed_body(),
        Some(length) => response.body(SizedStream::new(length, body).boxed()),
        None => response.body(BodyStream::new(body).boxed()),
    })
}

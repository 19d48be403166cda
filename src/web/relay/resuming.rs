//! A stream of another node, which goes on though that node dies: here, or at whichever is the home then.

use std::time::Duration;

use actix_web::body::{BodyStream, BoxBody, MessageBody};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures::future::{LocalBoxFuture, poll_fn};
use futures::stream;
use tokio::time::Instant;

use super::asking::{About, Patience, find_and_ask, head_of, relay_for, whole};
use super::head::RequestHead;
use super::numbers::Messages;
use crate::cluster::message::Process;
use crate::cluster::tunnel::{Broken, Exchange};
use crate::logging::{debug, error};
use crate::web::auth::guard::Caller;
use crate::web::rejection::Rejection;
use crate::web::session::stream::accepts_events;
use crate::web::state::WebState;

/// How long a home is looked for before the client is told, by the end of its stream, that it has to come back.
const PATIENCE: Duration = Duration::from_secs(20);

/// Serves the request here, from after a message.
type Here = Box<dyn Fn(Option<u64>) -> LocalBoxFuture<'static, HttpResponse>>;

/// The answer to a request for a stream of something that is at home elsewhere. `here` answers it once this
/// node is the home.
///
/// # Errors
/// When nobody knows where its home is, or the node there can't be reached.
pub(crate) async fn stream_elsewhere(
    web: &web::Data<WebState>,
    caller: &Caller,
    request: &HttpRequest,
    about: About,
    here: impl Fn(Option<u64>) -> LocalBoxFuture<'static, HttpResponse> + 'static,
) -> Result<Option<HttpResponse>, Rejection> {
    let Some(relay) = relay_for(web, request) else { return Ok(None) };
    let head = head_of(web, caller, request, about);
    let until = Instant::now() + PATIENCE;
    let patience = Patience { until, when_lost: true, when_away: false };
    let asked = find_and_ask(relay, about, |_| head.clone(), &Bytes::new(), patience).await?;
    let Some((answer, exchange)) = asked else { return Ok(None) };
    if !answer.is_stream() {
        return whole(answer, exchange).map(Some);
    }
    let unreadable = || Rejection::internal("The answer of this session's node can't be read.");
    let (mut response, _) = answer.into_builder().ok_or_else(unreadable)?;
    let home = exchange.peer().clone();
    let stream = Resuming {
        web: web.clone(),
        about,
        head,
        here: Box::new(here),
        messages: Messages::new(!accepts_events(request)),
        home,
        source: Source::There(exchange),
    };
    let body = stream::unfold(Some(stream), async |stream| stream?.next().await);
    Ok(Some(response.body(BodyStream::new(Box::pin(body)).boxed())))
}

/// What is read.
enum Source {
    There(Exchange),
    Here(BoxBody),
}

impl Source {
    async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        match self {
            Source::There(exchange) => exchange.part().await,
            Source::Here(body) => {
                let next = poll_fn(|cx| std::pin::Pin::new(&mut *body).poll_next(cx)).await;
                next.transpose().map_err(|_| Broken::Lost("the stream broke off"))
            }
        }
    }
}

struct Resuming {
    web: web::Data<WebState>,
    about: About,
    head: RequestHead,
    here: Here,
    messages: Messages,
    /// Whose numbers have been read.
    home: Process,
    source: Source,
}

/// What is passed on to the client, and what goes on after it.
type Next = Option<(Result<Bytes, Broken>, Option<Resuming>)>;

impl Resuming {
    async fn next(mut self) -> Next {
        loop {
            let passed = match self.source.next().await {
                Ok(Some(bytes)) => self.messages.push(&bytes),
                Ok(None) => {
                    let rest = self.messages.rest();
                    return (!rest.is_empty()).then_some((Ok(rest), None));
                }
                Err(broken) => match self.reopen(&broken).await {
                    true => continue,
                    false => return Some((Err(broken), None)),
                },
            };
            if !passed.is_empty() {
                return Some((Ok(passed), Some(self)));
            }
        }
    }

    /// Opens it again after the last message that was passed on, wherever it is at home now. Whether that could
    /// be done.
    async fn reopen(&mut self, broken: &Broken) -> bool {
        // A client that has half a message can't go on with another one.
        if !self.messages.break_off() || matches!(self.source, Source::Here(_)) {
            return false;
        }
        let Some(relay) = self.web.relay.get() else { return false };
        debug!("a stream of the node {} broke off: {broken}", self.home.node);
        let until = Instant::now() + PATIENCE;
        let patience = Patience { until, when_lost: true, when_away: true };
        // Another home counts anew.
        let head = |home: &Process| {
            let after = self.messages.last().filter(|_| *home == self.home);
            self.head.clone().resumed_after(after)
        };
        match find_and_ask(relay, self.about, head, &Bytes::new(), patience).await {
            Ok(None) => {
                let response = (self.here)(None).await;
                // Otherwise a client that comes back hears why.
                let is_open = response.status().is_success();
                self.source = Source::Here(response.into_body());
                is_open
            }
            Ok(Some((answer, exchange))) => {
                self.home = exchange.peer().clone();
                self.source = Source::There(exchange);
                answer.is_stream()
            }
            Err(refused) => {
                error!("a stream broke off, and its home isn't found again: {refused}");
                false
            }
        }
    }
}

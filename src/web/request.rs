//! The request that an event came by, for handlers that want to look at it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::cookie::Cookie;
use actix_web::http::header::{COOKIE, HeaderMap};
use actix_web::{HttpMessage, HttpRequest, web};
use serde::de::DeserializeOwned;

use crate::event::failure::{Failure, UserError};
use crate::handler::extract::{Extract, sealed};
use crate::handler::needs::{NamedType, Needs};
use crate::handler::run_context::RunContext;
use crate::web::auth::trusted_header::Untrusted;

/// The HTTP request that submitted an event: its headers, its query and where it came from. As Gradio's
/// `gr.Request`; session and user are with [`EventContext`](crate::EventContext).
///
/// A handler takes it as an argument after its input. Events that are submitted in process came by no
/// request: a handler that is called both ways takes an `Option<Request>`, and an event of one that takes
/// a `Request` fails there. It is the request to `queue/join`, `call` or `run`, and is kept, headers and
/// all, until the event ends. Not for [`Listener::batch`](crate::Listener::batch) or
/// [`Listener::cache`](crate::Listener::cache).
///
/// ```
/// use now_serving::{Listener, Request};
///
/// async fn greet(name: String, request: Option<Request>) -> Result<String, String> {
///     let language = request.as_ref().and_then(|request| request.header("accept-language"));
///     Ok(match language {
///         Some(language) if language.starts_with("de") => format!("Guten Tag, {name}"),
///         _ => format!("Good morning, {name}"),
///     })
/// }
///
/// let listener = Listener::new("greet", greet);
/// ```
#[derive(Clone)]
pub struct Request(Arc<Parts>);

struct Parts {
    headers: HeaderMap,
    path: String,
    query: String,
    peer: Option<SocketAddr>,
}

impl Request {
    pub(crate) fn of(request: &HttpRequest) -> Self {
        let mut headers = request.headers().clone();
        if let Some(Untrusted(name)) = request.extensions().get() {
            headers.remove(name);
        }
        Request(Arc::new(Parts {
            headers,
            path: request.path().into(),
            query: request.query_string().into(),
            peer: request.peer_addr(),
        }))
    }

    /// All headers, but for a [`trusted_user_header`](crate::WebBuilder::trusted_user_header) from a peer
    /// that isn't trusted.
    pub fn headers(&self) -> &HeaderMap {
        &self.0.headers
    }

    /// The first header of a name, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.0.headers.get(name)?.to_str().ok()
    }

    /// The value of a cookie.
    pub fn cookie(&self, name: &str) -> Option<String> {
        let headers = self.0.headers.get_all(COOKIE).filter_map(|value| value.to_str().ok());
        let cookies = headers.flat_map(|header| header.split(';'));
        let mut cookies = cookies.filter_map(|cookie| Cookie::parse_encoded(cookie.trim()).ok());
        cookies.find(|cookie| cookie.name() == name).map(|cookie| cookie.value().into())
    }

    /// The path, which names the route.
    pub fn path(&self) -> &str {
        &self.0.path
    }

    /// The text behind the `?` of its URL; empty without.
    pub fn query_string(&self) -> &str {
        &self.0.query
    }

    /// The first value of a name in the query, decoded.
    pub fn query_param(&self, name: &str) -> Option<String> {
        let pairs = self.query::<Vec<(String, String)>>().ok()?;
        pairs.into_iter().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    /// The whole query as a type of one's own, as `web::Query` of actix-web.
    ///
    /// # Errors
    /// When it is none, with a message for the client.
    pub fn query<T: DeserializeOwned>(&self) -> Result<T, UserError> {
        let query = web::Query::<T>::from_query(&self.0.query).map(web::Query::into_inner);
        query.map_err(|error| UserError::new(format!("The query is wrong: {error}")))
    }

    /// The other end of the connection: the client or the last proxy before it. `None` on a Unix
    /// socket. What proxies say of the client is in the headers, and as true as whoever sent them.
    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.0.peer
    }
}

/// Headers are for no log.
impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request").field("path", &self.0.path).finish_non_exhaustive()
    }
}

impl sealed::Sealed for Request {}

impl sealed::Sealed for Option<Request> {}

impl Extract for Request {
    fn needs(needs: &mut Needs) {
        needs.event.push(NamedType::called::<Request>("Request"));
    }

    fn extract(run: &RunContext<'_>) -> Result<Self, Failure> {
        Option::<Request>::extract(run)?.ok_or_else(|| {
            Failure::unexpected(
                "the handler takes a Request, which events of in-process calls don't have; let it \
                 take an Option<Request>",
            )
        })
    }
}

impl Extract for Option<Request> {
    fn needs(needs: &mut Needs) {
        Request::needs(needs);
    }

    fn extract(run: &RunContext<'_>) -> Result<Self, Failure> {
        Ok(run.of_event::<Request>().cloned())
    }
}

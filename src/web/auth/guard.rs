//! `POST /login` and `/logout`, and the guard before every other route. As Gradio's, with `auth`.

use std::future::{Ready, ready};
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::cookie::{Cookie, SameSite};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::StatusCode;
use actix_web::middleware::Next;
use actix_web::{FromRequest, HttpMessage, HttpRequest, ResponseError, web};
use bytes::Bytes;
use futures::future::{Either, select};
use serde_json::json;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::AnyAuth;
use super::csrf::{AllowedOrigins, is_foreign};
use super::tokens::Tokens;
use crate::web::peer::Peer;
use crate::web::rejection::Rejection;
use crate::web::shares::Holder;

/// The longest name or password, in bytes.
pub(crate) const MAX_CREDENTIALS_BYTES: usize = 4096;

/// The login of a queue that has one.
pub(crate) struct LoginGuard {
    pub(crate) auth: Arc<dyn AnyAuth>,
    pub(crate) tokens: Tokens,
    pub(crate) message: Option<String>,
    /// Another one each time, so that queues on one host don't take each other's cookies.
    pub(crate) cookie: String,
}

impl LoginGuard {
    pub fn new(auth: Arc<dyn AnyAuth>, tokens: Tokens, message: Option<String>) -> Self {
        let cookie = format!("access-token-{:032x}", rand::random::<u128>());
        LoginGuard { auth, tokens, message, cookie }
    }

    /// The user of a request, and where that comes from a login, what is cancelled when it ends.
    pub(crate) fn user(
        &self,
        request: &HttpRequest,
    ) -> Option<(Arc<str>, Option<CancellationToken>)> {
        if let Some(user) = self.auth.user(request) {
            return Some((user, None));
        }
        let cookie = request.cookie(&self.cookie)?;
        let (user, ended) = self.tokens.user(cookie.value(), Instant::now())?;
        Some((user, Some(ended)))
    }

    pub fn cookie_name(&self) -> &str {
        &self.cookie
    }

    pub(crate) fn closed(&self) -> Rejection {
        let detail = json!({ "error": "Not authenticated", "auth_message": self.message });
        Rejection::new(StatusCode::UNAUTHORIZED, detail)
    }

    pub(crate) fn to_cookie(&self, request: &HttpRequest, token: &str) -> Cookie<'static> {
        Cookie::build(self.cookie.clone(), token.to_string())
            .path("/")
            .http_only(true)
            // Gradio takes None, for pages that stand in other pages' frames. With that, any page
            // could call listeners in its visitor's name.
            .same_site(SameSite::Lax)
            .secure(request.connection_info().scheme() == "https")
            .finish()
    }
}

/// Who has logged in, between the guard and the routes.
struct User(Arc<str>);

/// Who sent a request: no user where there is no login, and none either where a page of another
/// origin made its visitor's browser send it.
///
/// Beside the user, which alone counts when callers are compared, the address that it comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Caller(pub Option<Arc<str>>, pub Peer);

impl Caller {
    /// Whose share what is kept for it counts against: its user's, else its session's, else its
    /// address'.
    pub fn holder(&self, session: Option<&str>) -> Holder {
        match (&self.0, session) {
            (Some(user), _) => Holder::User(user.clone()),
            (None, Some(hash)) => Holder::Session(hash.into()),
            (None, None) => Holder::Peer(self.1),
        }
    }
}

impl PartialEq for Caller {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Caller {}

impl Hash for Caller {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl FromRequest for Caller {
    type Error = Rejection;
    type Future = Ready<Result<Self, Self::Error>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let allowed = request.app_data::<web::Data<AllowedOrigins>>();
        let allowed = allowed.map_or(&[][..], |allowed| &allowed.0);
        if is_foreign(request, allowed) {
            let detail = "Pages of other origins must send JSON, declared as such.";
            return ready(Err(Rejection::new(StatusCode::FORBIDDEN, detail.into())));
        }
        let user = request.extensions().get::<User>().map(|User(user)| user.clone());
        ready(Ok(Caller(user, Peer::of(request))))
    }
}

/// Lets nobody pass who hasn't logged in, and delivers nothing more to a login that has ended.
pub(crate) async fn guard<B: MessageBody + 'static>(
    login_guard: Arc<LoginGuard>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse, actix_web::Error> {
    let Some((user, login)) = login_guard.user(request.request()) else {
        let response = login_guard.closed().error_response();
        return Ok(request.into_response(response));
    };
    request.extensions_mut().insert(User(user));
    let Some(ended) = login else {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    };
    // The logout first: what becomes ready after it is not delivered.
    let answered = select(Box::pin(ended.clone().cancelled_owned()), next.call(request)).await;
    let response = match answered {
        Either::Left(_) => return Err(login_guard.closed().into()),
        Either::Right((response, _)) => response?,
    };
    Ok(response.map_body(|_, body| {
        // What is whole is delivered at once.
        body.try_into_bytes().map_or_else(|body| until(body, ended), BoxBody::new)
    }))
}

/// A body that ends with its login.
fn until(body: impl MessageBody + 'static, ended: CancellationToken) -> BoxBody {
    let ended = Box::pin(ended.cancelled_owned());
    BoxBody::new(UntilLogout { body: body.boxed(), ended })
}

struct UntilLogout {
    body: BoxBody,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl MessageBody for UntilLogout {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, Self::Error>>> {
        if self.ended.as_mut().poll(cx).is_ready() {
            return Poll::Ready(match self.body.size() {
                BodySize::Stream => None,
                // It has promised more: the connection breaks off.
                _ => Some(Err("the login has ended".into())),
            });
        }
        Pin::new(&mut self.body).poll_next(cx)
    }
}

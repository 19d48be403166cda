//! The guard before every route but the login's, and who sent a request. As Gradio's, with `auth`.

use std::future::{Ready, ready};
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::middleware::Next;
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, ResponseError};
use bytes::Bytes;
use futures::future::{Either, select};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::csrf::refuse_foreign;
use super::login_guard::LoginGuard;
use super::user::User;
#[cfg(feature = "cluster")]
use crate::logging::error;
use crate::web::holder::Holder;
use crate::web::peer::Peer;
use crate::web::rejection::Rejection;
#[cfg(feature = "cluster")]
use crate::web::relayed::Relayed;

/// The longest name or password, in bytes.
pub(crate) const MAX_CREDENTIALS_BYTES: usize = 4096;

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
        if let Err(foreign) = refuse_foreign(request) {
            return ready(Err(foreign));
        }
        let user = request.extensions().get::<User>().map(|user| user.clone().into());
        ready(Ok(Caller(user, Peer::of(request))))
    }
}

/// Lets nobody pass who hasn't logged in, and delivers nothing more to a login that has ended.
pub(crate) async fn guard<B: MessageBody + 'static>(
    login_guard: Arc<LoginGuard>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse, actix_web::Error> {
    let closed = |_: &HttpRequest| login_guard.closed().error_response();
    #[cfg(feature = "cluster")]
    if let Some(relayed) = relayed(&request) {
        // The login was checked there, and its end ends what is relayed.
        let Some(user) = relayed.user else {
            let response = closed(request.request());
            return Ok(request.into_response(response));
        };
        establish(&login_guard, &request, user);
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    }
    guarded(&login_guard, request, closed, async |request| next.call(request).await).await
}

/// The same before any route; `closed` is answered to those who don't pass.
pub(crate) async fn guarded<B: MessageBody + 'static>(
    login_guard: &LoginGuard,
    request: ServiceRequest,
    closed: impl FnOnce(&HttpRequest) -> HttpResponse,
    pass: impl AsyncFnOnce(ServiceRequest) -> Result<ServiceResponse<B>, actix_web::Error>,
) -> Result<ServiceResponse, actix_web::Error> {
    #[cfg(feature = "cluster")]
    let cookie = match login_guard.shared() {
        Some(shared) => {
            shared.ready().await;
            login_guard.renewed(request.request())
        }
        None => None,
    };
    let Some((user, login)) = login_guard.user(request.request()) else {
        let response = closed(request.request());
        return Ok(request.into_response(response));
    };
    establish(login_guard, &request, user);
    // By a header or the service's own means there is no login whose cookie counts.
    #[cfg(feature = "cluster")]
    let cookie = cookie.filter(|_| login.is_some());
    let answer = while_logged_in(login, || login_guard.closed(), pass(request)).await;
    #[cfg(feature = "cluster")]
    let answer = match (answer, cookie) {
        (Ok(mut response), Some(cookie)) => {
            if let Err(trouble) = response.response_mut().add_cookie(&cookie) {
                error!("a login can't be renewed: {trouble}");
            }
            Ok(response)
        }
        (answer, _) => answer,
    };
    answer
}

/// What another node has found out of a request.
#[cfg(feature = "cluster")]
fn relayed(request: &ServiceRequest) -> Option<Relayed> {
    request.extensions().get::<Relayed>().cloned()
}

/// Lets the routes know who has sent a request.
fn establish(login_guard: &LoginGuard, request: &ServiceRequest, user: Arc<str>) {
    request.extensions_mut().insert(User(user));
    if let Some(untrusted) = login_guard.untrusted(request.request()) {
        request.extensions_mut().insert(untrusted);
    }
}

/// Delivers nothing more when the login has ended, if there is one that can; `closed` is answered then.
pub(crate) async fn while_logged_in<B: MessageBody + 'static>(
    login: Option<CancellationToken>,
    closed: impl FnOnce() -> Rejection,
    answer: impl Future<Output = Result<ServiceResponse<B>, actix_web::Error>>,
) -> Result<ServiceResponse, actix_web::Error> {
    let Some(ended) = login else {
        return answer.await.map(ServiceResponse::map_into_boxed_body);
    };
    // The logout first: what becomes ready after it is not delivered.
    let answered = select(Box::pin(ended.clone().cancelled_owned()), Box::pin(answer)).await;
    let response = match answered {
        Either::Left(_) => return Err(closed().into()),
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

//! `POST /login` and `/logout`, and the guard before every other route. As Gradio's, with `auth`.

use std::future::{Ready, ready};
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use actix_multipart::Multipart;
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::cookie::time::Duration as CookieDuration;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::LOCATION;
use actix_web::middleware::Next;
use actix_web::{FromRequest, HttpMessage, HttpRequest, HttpResponse, ResponseError, web};
use bytes::Bytes;
use futures::future::{Either, select};
use futures::{Stream, StreamExt};
use serde::Deserialize;
use serde_json::json;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::auth::AnyAuth;
use super::origin::is_foreign;
use super::pace::Paced;
use super::peer::Peer;
use super::refusal::Rejection;
use super::root::root_url;
use super::shares::Holder;
use super::tokens::Tokens;
use crate::logging::{debug, error, info};
use crate::queue::Queue;

/// The longest name or password, in bytes.
const LONGEST: usize = 4096;

/// The login of a queue that has one.
pub(crate) struct Door {
    auth: Arc<dyn AnyAuth>,
    tokens: Tokens,
    message: Option<String>,
    /// Another one each time, so that queues on one host don't take each other's cookies.
    cookie: String,
}

impl Door {
    pub fn new(auth: Arc<dyn AnyAuth>, tokens: Tokens, message: Option<String>) -> Self {
        let cookie = format!("access-token-{:032x}", rand::random::<u128>());
        Door { auth, tokens, message, cookie }
    }

    /// The user of a request, and where that comes from a login, what is cancelled when it ends.
    fn user(&self, request: &HttpRequest) -> Option<(Arc<str>, Option<CancellationToken>)> {
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

    fn closed(&self) -> Rejection {
        let detail = json!({ "error": "Not authenticated", "auth_message": self.message });
        Rejection::new(StatusCode::UNAUTHORIZED, detail)
    }

    fn to_cookie(&self, request: &HttpRequest, token: &str) -> Cookie<'static> {
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

/// Who sent a request; nobody in particular, where there is no login. Nobody at all, where a page from
/// elsewhere made its visitor's browser send it.
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
        let queue = request.app_data::<web::Data<Queue>>();
        let allowed = queue.map_or(&[][..], |queue| &queue.inner().web.options.origins);
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
    door: Arc<Door>,
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse, actix_web::Error> {
    let Some((user, login)) = door.user(request.request()) else {
        let response = door.closed().error_response();
        return Ok(request.into_response(response));
    };
    request.extensions_mut().insert(User(user));
    let Some(ended) = login else {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    };
    // The logout first: what becomes ready after it is not delivered.
    let answered = select(Box::pin(ended.clone().cancelled_owned()), next.call(request)).await;
    let response = match answered {
        Either::Left(_) => return Err(door.closed().into()),
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

/// `GET login_check`: reached only by those who have logged in.
pub(crate) async fn login_check() -> HttpResponse {
    HttpResponse::Ok().json(())
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Credentials {
    username: String,
    password: String,
}

/// `POST /login`, with a form that is URL-encoded or in parts.
pub(crate) async fn login(
    door: web::Data<Door>,
    _: Caller,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Rejection> {
    let Credentials { username, password } = credentials(&request, payload).await?;
    let username = username.trim();
    match door.auth.login(username, &password).await {
        Ok(true) => {
            debug!("a user has logged in: {username:?}");
            let token = door.tokens.issue(username, Instant::now());
            let cookie = door.to_cookie(&request, &token);
            Ok(HttpResponse::Ok().cookie(cookie).json(json!({ "success": true })))
        }
        Ok(false) => {
            // Without the name: people type their password there.
            info!("a login was refused");
            // Gradio answers 400, but both its clients look for this.
            let detail = "Incorrect credentials.".into();
            Err(Rejection::new(StatusCode::UNAUTHORIZED, detail))
        }
        Err(error) => {
            error!("a login could not be decided: {error}");
            let detail = "The login doesn't work right now; try again later.".into();
            Err(Rejection::new(StatusCode::SERVICE_UNAVAILABLE, detail))
        }
    }
}

type BoxedPayload = Pin<Box<dyn Stream<Item = Result<Bytes, PayloadError>>>>;

async fn credentials(
    request: &HttpRequest,
    payload: web::Payload,
) -> Result<Credentials, Rejection> {
    let unreadable = |error: &dyn std::fmt::Display| {
        let told = format!("Send a form with the fields username and password: {error}");
        Rejection::new(StatusCode::UNPROCESSABLE_ENTITY, told.into())
    };
    let payload: BoxedPayload = Box::pin(Paced::new(payload));
    let mut payload = Payload::from(payload);
    if request.content_type() != "multipart/form-data" {
        let form = web::Form::<Credentials>::from_request(request, &mut payload).await;
        return form.map(web::Form::into_inner).map_err(|error| unreadable(&error));
    }
    let mut form = Multipart::new(request.headers(), payload);
    let mut found = Credentials::default();
    while let Some(field) = form.next().await {
        let mut field = field.map_err(|error| unreadable(&error))?;
        let name = field.name().unwrap_or_default().to_string();
        let value = field.bytes(LONGEST).await.map_err(|_| unreadable(&"a field is too long"))?;
        let value = value.map_err(|error| unreadable(&error))?;
        let value = String::from_utf8(value.to_vec()).map_err(|error| unreadable(&error))?;
        match name.as_str() {
            "username" => found.username = value,
            "password" => found.password = value,
            _ => {}
        }
    }
    Ok(found)
}

#[derive(Deserialize)]
pub(crate) struct Logout {
    /// As Python writes it, or as JSON does.
    all_session: Option<String>,
}

impl Logout {
    fn ends_all(&self) -> bool {
        let word = self.all_session.as_deref().unwrap_or("true").to_ascii_lowercase();
        !matches!(word.as_str(), "false" | "0" | "no" | "off")
    }
}

/// `/logout`: ends every login of the user, or with `all_session=false` this one, and leads back to
/// the root, as Gradio's, if the service has a page there. What was still being answered to these logins
/// ends.
pub(crate) async fn logout(
    door: web::Data<Door>,
    queue: web::Data<Queue>,
    _: Caller,
    query: web::Query<Logout>,
    request: HttpRequest,
) -> HttpResponse {
    let site = request.headers().get("sec-fetch-site").map(|site| site.as_bytes());
    if matches!(site, Some(b"cross-site" | b"same-site")) {
        // Another page's link ends nobody's login.
        return after_logout(queue, request).await;
    }
    if let Some(cookie) = request.cookie(&door.cookie) {
        door.tokens.revoke(cookie.value(), query.ends_all());
    }
    let mut gone = door.to_cookie(&request, "");
    gone.set_max_age(CookieDuration::ZERO);
    let mut response = after_logout(queue, request).await;
    if let Err(error) = response.add_cookie(&gone) {
        error!("a cookie could not be taken back: {error}");
    }
    response
}

/// Where `/logout` leads, for `HEAD` without ending a login.
pub(crate) async fn after_logout(queue: web::Data<Queue>, request: HttpRequest) -> HttpResponse {
    let mount = request.path().trim_end_matches('/').trim_end_matches("/logout");
    if !request.resource_map().has_resource(&format!("{mount}/")) {
        return HttpResponse::Ok().json(json!({ "success": true }));
    }
    let root = root_url(&request, "/logout", queue.inner().web.options.root_path.as_deref());
    HttpResponse::Found().insert_header((LOCATION, format!("{root}/"))).finish()
}

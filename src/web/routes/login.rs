//! `/login`, `/logout` and `login_check`.

use actix_multipart::Multipart;
use actix_web::cookie::time::Duration as CookieDuration;
use actix_web::dev::{Payload, UrlEncoded};
use actix_web::http::StatusCode;
use actix_web::http::header::LOCATION;
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use serde_json::json;

use crate::logging::{debug, error, info};
use crate::web::auth::csrf::refuse_from_elsewhere;
use crate::web::auth::guard::{Caller, MAX_CREDENTIALS_BYTES};
use crate::web::auth::login_guard::LoginGuard;
use crate::web::base_url::root_url;
use crate::web::body::budget::Bodies;
use crate::web::body::received::Body;
use crate::web::peer::address;
use crate::web::rejection::Rejection;
use crate::web::state::WebState;

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
    login_guard: web::Data<LoginGuard>,
    _: Caller,
    request: HttpRequest,
    bodies: web::Data<Bodies>,
    body: Body,
) -> Result<HttpResponse, Rejection> {
    let Credentials { username, password } =
        credentials(&request, &body, bodies.max_body_size).await?;
    let username = username.trim();
    match login_guard.log_in(username, &password).await {
        Ok(Some(token)) => {
            debug!("a user has logged in: {username:?}");
            let cookie = login_guard.to_cookie(&request, &token);
            Ok(HttpResponse::Ok().cookie(cookie).json(json!({ "success": true })))
        }
        Ok(None) => {
            info!("a login from {} was refused", address(&request));
            // Not above debug: people type their password there.
            debug!("the login that was refused was of {username:?}");
            // Gradio answers 400, but both its clients check for this.
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

const TOO_LONG: &str = "a field is too long";

async fn credentials(
    request: &HttpRequest,
    body: &Body,
    max_body_size: usize,
) -> Result<Credentials, Rejection> {
    let unreadable = |error: &dyn std::fmt::Display| {
        let message = format!("Send a form with the fields username and password: {error}");
        Rejection::new(StatusCode::UNPROCESSABLE_ENTITY, message.into())
    };
    let mut payload = Payload::from(Bytes::clone(body));
    if request.content_type() != "multipart/form-data" {
        // Of the body's length is seen to already; this is a bound on what it may be unpacked to.
        let form = UrlEncoded::<Credentials>::new(request, &mut payload).limit(max_body_size);
        let found = form.await.map_err(|error| unreadable(&error))?;
        if found.username.len().max(found.password.len()) > MAX_CREDENTIALS_BYTES {
            return Err(unreadable(&TOO_LONG));
        }
        return Ok(found);
    }
    let mut form = Multipart::new(request.headers(), payload);
    let mut found = Credentials::default();
    while let Some(field) = form.next().await {
        let mut field = field.map_err(|error| unreadable(&error))?;
        let name = field.name().unwrap_or_default().to_string();
        let value = field.bytes(MAX_CREDENTIALS_BYTES).await.map_err(|_| unreadable(&TOO_LONG))?;
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
        let value = self.all_session.as_deref().unwrap_or("true").to_ascii_lowercase();
        !matches!(value.as_str(), "false" | "0" | "no" | "off")
    }
}

/// `/logout`: ends every login of the user, or with `all_session=false` this one, and leads back to
/// the root, as Gradio's, if the service has a page there. What was still being answered to these logins
/// ends. Another page's link ends nobody's login.
pub(crate) async fn logout(
    login_guard: web::Data<LoginGuard>,
    web: web::Data<WebState>,
    _: Caller,
    query: web::Query<Logout>,
    request: HttpRequest,
) -> Result<HttpResponse, Rejection> {
    refuse_from_elsewhere(&request)?;
    if let Some(cookie) = request.cookie(login_guard.cookie_name()) {
        login_guard.revoke(cookie.value(), query.ends_all()).await?;
    }
    let mut gone = login_guard.to_cookie(&request, "");
    gone.set_max_age(CookieDuration::ZERO);
    let mut response = after_logout(&web, &request);
    if let Err(error) = response.add_cookie(&gone) {
        error!("a cookie could not be taken back: {error}");
    }
    Ok(response)
}

/// Where `/logout` leads.
fn after_logout(web: &WebState, request: &HttpRequest) -> HttpResponse {
    let mount = request.path().trim_end_matches('/').trim_end_matches("/logout");
    if !request.resource_map().has_resource(&format!("{mount}/")) {
        return HttpResponse::Ok().json(json!({ "success": true }));
    }
    let root = root_url(request, "/logout", web.options.root_path.as_deref());
    HttpResponse::Found().insert_header((LOCATION, format!("{root}/"))).finish()
}

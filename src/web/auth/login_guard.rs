//! The login: who is logged in, and what those are answered who aren't.

use std::sync::Arc;
use std::time::Instant;

use actix_web::HttpRequest;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::http::StatusCode;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::AnyAuth;
use super::tokens::Tokens;
use super::trusted_header::{TrustedHeader, Untrusted};
use crate::web::rejection::Rejection;

/// The login of a queue that has one.
pub(crate) struct LoginGuard {
    auth: Arc<dyn AnyAuth>,
    trusted_header: Option<TrustedHeader>,
    pub(crate) tokens: Tokens,
    pub(crate) message: Option<String>,
    /// Another one each time, so that queues on one host don't take each other's cookies.
    pub(crate) cookie: String,
}

impl LoginGuard {
    pub fn new(
        auth: Arc<dyn AnyAuth>,
        trusted_header: Option<TrustedHeader>,
        tokens: Tokens,
        message: Option<String>,
    ) -> Self {
        let cookie = format!("access-token-{:032x}", rand::random::<u128>());
        LoginGuard { auth, trusted_header, tokens, message, cookie }
    }

    /// The user of a request, and where that comes from a login, what is cancelled when it ends.
    pub(crate) fn user(
        &self,
        request: &HttpRequest,
    ) -> Option<(Arc<str>, Option<CancellationToken>)> {
        let by_header = self.trusted_header.as_ref().and_then(|header| header.user(request));
        if let Some(user) = by_header.or_else(|| self.auth.user(request)) {
            return Some((user, None));
        }
        let cookie = request.cookie(&self.cookie)?;
        let (user, ended) = self.tokens.user(cookie.value(), Instant::now())?;
        Some((user, Some(ended)))
    }

    /// The token of a login with these credentials, if they are right.
    pub(crate) async fn log_in(
        &self,
        username: &str,
        password: &str,
    ) -> Result<Option<String>, String> {
        loop {
            let ends = self.tokens.ends();
            if !self.verify(username, password).await? {
                return Ok(None);
            }
            let token = self.tokens.issue(username, ends, Instant::now());
            if token.is_some() {
                return Ok(token);
            }
        }
    }

    /// Whether these are the right credentials.
    pub(crate) async fn verify(&self, username: &str, password: &str) -> Result<bool, String> {
        self.auth.login(username, password).await
    }

    /// A header of the request's that names a user, and must not be believed.
    pub(crate) fn untrusted(&self, request: &HttpRequest) -> Option<Untrusted> {
        self.trusted_header.as_ref()?.untrusted(request)
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

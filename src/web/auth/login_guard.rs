//! The login: who is logged in, and what those are answered who aren't.

use std::sync::Arc;
#[cfg(feature = "cluster")]
use std::sync::OnceLock;
use std::time::Instant;

use actix_web::HttpRequest;
use actix_web::cookie::{Cookie, SameSite};
use actix_web::http::StatusCode;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::AnyAuth;
#[cfg(feature = "cluster")]
use super::shared::SharedLogins;
use super::tokens::Tokens;
use super::trusted_header::{TrustedHeader, Untrusted};
#[cfg(feature = "cluster")]
use crate::cluster::handle::ClusterHandle;
#[cfg(feature = "cluster")]
use crate::logging::error;
use crate::web::rejection::Rejection;

/// The login of a queue that has one.
pub(crate) struct LoginGuard {
    auth: Arc<dyn AnyAuth>,
    trusted_header: Option<TrustedHeader>,
    tokens: Tokens,
    pub(crate) message: Option<String>,
    /// Another one each time, so that queues on one host don't take each other's cookies.
    cookie: String,
    /// Where the queue is one of a cluster: the logins of all its nodes, instead of those here.
    #[cfg(feature = "cluster")]
    shared: OnceLock<Arc<SharedLogins>>,
}

impl LoginGuard {
    pub fn new(
        auth: Arc<dyn AnyAuth>,
        trusted_header: Option<TrustedHeader>,
        tokens: Tokens,
        message: Option<String>,
    ) -> Self {
        let cookie = format!("access-token-{:032x}", rand::random::<u128>());
        LoginGuard {
            auth,
            trusted_header,
            tokens,
            message,
            cookie,
            #[cfg(feature = "cluster")]
            shared: OnceLock::new(),
        }
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
        let cookie = request.cookie(self.cookie_name())?;
        #[cfg(feature = "cluster")]
        if let Some(shared) = self.shared.get() {
            let (user, ended) = shared.user(cookie.value())?;
            return Some((user, Some(ended)));
        }
        let (user, ended) = self.tokens.user(cookie.value(), Instant::now())?;
        Some((user, Some(ended)))
    }

    /// The token of a login with these credentials, if they are right.
    pub(crate) async fn log_in(
        &self,
        username: &str,
        password: &str,
    ) -> Result<Option<String>, String> {
        #[cfg(feature = "cluster")]
        if let Some(shared) = self.shared.get() {
            // What ends while the password is verified ends this login too.
            let ends = shared.ends(username).await.map_err(|trouble| trouble.to_string())?;
            let is_right = self.verify(username, password).await?;
            return Ok(if is_right { shared.issue(username, ends) } else { None });
        }
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
        #[cfg(feature = "cluster")]
        if let Some(shared) = self.shared.get() {
            return &shared.cookie;
        }
        &self.cookie
    }

    /// Ends one login, or every login of its user.
    ///
    /// # Errors
    /// When that can't be made known to all nodes.
    pub(crate) async fn revoke(&self, token: &str, all: bool) -> Result<(), Rejection> {
        #[cfg(feature = "cluster")]
        if let Some(shared) = self.shared.get() {
            return shared.revoke(token, all).await.map_err(|trouble| {
                error!("a logout can't be made known to all nodes: {trouble}");
                Rejection::crowded("The logout doesn't work right now; try again later.".into())
            });
        }
        self.tokens.revoke(token, all);
        Ok(())
    }

    /// Ends every login of a user here.
    pub(crate) fn revoke_all_of(&self, user: &str) {
        self.tokens.revoke_all_of(user);
    }

    /// The logins of all nodes, if there are several.
    #[cfg(feature = "cluster")]
    pub(crate) fn shared(&self) -> Option<&Arc<SharedLogins>> {
        self.shared.get()
    }

    /// From now on logins hold on all nodes.
    #[cfg(feature = "cluster")]
    pub(crate) fn share(&self, cluster: &Arc<ClusterHandle>) -> &Arc<SharedLogins> {
        self.shared.get_or_init(|| Arc::new(SharedLogins::new(cluster, self.tokens.ttl())))
    }

    /// What the client is to keep instead of its cookie, so that its login holds while it is used.
    #[cfg(feature = "cluster")]
    pub(super) fn renewed(&self, request: &HttpRequest) -> Option<Cookie<'static>> {
        let token = request.cookie(self.cookie_name())?;
        Some(self.to_cookie(request, &self.shared.get()?.renewed(token.value())?))
    }

    pub(crate) fn closed(&self) -> Rejection {
        let detail = json!({ "error": "Not authenticated", "auth_message": self.message });
        Rejection::new(StatusCode::UNAUTHORIZED, detail)
    }

    pub(crate) fn to_cookie(&self, request: &HttpRequest, token: &str) -> Cookie<'static> {
        Cookie::build(self.cookie_name().to_string(), token.to_string())
            .path("/")
            .http_only(true)
            // Gradio takes None, for pages that stand in other pages' frames. With that, any page
            // could call listeners in its visitor's name.
            .same_site(SameSite::Lax)
            .secure(request.connection_info().scheme() == "https")
            .finish()
    }
}

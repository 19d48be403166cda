//! Who may use a queue over HTTP: a trait, so that a service plugs in its own store of users.

pub(crate) mod csrf;
#[cfg(feature = "cluster")]
mod ended;
pub(crate) mod guard;
pub(crate) mod login_guard;
#[cfg(feature = "cluster")]
pub(crate) mod shared;
#[cfg(feature = "cluster")]
mod signed;
pub(crate) mod tokens;
pub(crate) mod trusted_header;
pub(crate) mod user;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use actix_web::HttpRequest;
use futures::future::{FutureExt, LocalBoxFuture};
use subtle::{Choice, ConstantTimeEq};

/// A store of users, who may log in, for [`WebBuilder::auth`]. As Gradio's `auth`.
///
/// [`Users`] is one with a fixed list. A service with users of its own implements it:
///
/// ```
/// use now_serving::Auth;
///
/// struct Members { /* a pool of database connections */ }
///
/// impl Auth for Members {
///     type Error = std::io::Error;
///
///     async fn login(&self, username: &str, password: &str) -> std::io::Result<bool> {
///         // … find the user, and verify the password's hash in web::block
/// #       let _ = (username, password);
///         Ok(false)
///     }
/// }
///
/// # fn members(queue: &now_serving::Queue) {
/// let builder = now_serving::Web::builder(queue).auth(Members {});
/// # }
/// ```
///
/// [`WebBuilder::auth`]: crate::WebBuilder::auth
pub trait Auth: Send + Sync + 'static {
    /// Why a user can't be verified, such as a lost database. It is logged; the client is
    /// answered 503.
    type Error: fmt::Display;

    /// Whether these are the right credentials, sent to `POST /login`. A store that hashes passwords
    /// should do so for unknown users too, so that response times don't reveal which users exist.
    ///
    /// The name comes without white space around it: who sends `" ada "` logs in as `ada`.
    ///
    /// It is asked once for each login, which then holds while it is used
    /// ([`login_ttl`](crate::WebBuilder::login_ttl)): a user who is removed from the store keeps his logins
    /// until he logs out, the process ends, or [`Web::end_logins`](crate::Web::end_logins) ends them.
    fn login(
        &self,
        username: &str,
        password: &str,
    ) -> impl Future<Output = Result<bool, Self::Error>>;

    /// The user of a request, where that is known by other means than the login: by a header that a
    /// proxy sets, or a session of the service's own. Called for each request; without a user
    /// (`None`, the default), the cookie of the login counts. As Gradio's `auth_dependency`.
    ///
    /// A header must come from a proxy that nobody gets around, and that takes away one which the
    /// client sends; [`WebBuilder::trusted_user_header`](crate::WebBuilder::trusted_user_header) sees to the
    /// first.
    fn user(&self, request: &HttpRequest) -> Option<String> {
        let _ = request;
        None
    }
}

/// A fixed list of users with their passwords, as Gradio's `auth=[("alice", "…")]`.
///
/// ```
/// use now_serving::{Users, Web};
///
/// # fn members(queue: &now_serving::Queue) {
/// let password = std::env::var("ALICE_PASSWORD").unwrap_or_default();
/// let builder = Web::builder(queue).auth(Users::new().user("alice", password));
/// # }
/// ```
#[derive(Clone, Default)]
pub struct Users(HashMap<String, String>);

impl Users {
    /// No users yet.
    pub fn new() -> Self {
        Users::default()
    }

    /// Adds a user. One with an empty password can't log in.
    pub fn user(mut self, name: impl Into<String>, password: impl Into<String>) -> Self {
        self.0.insert(name.into(), password.into());
        self
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Auth for Users {
    type Error = std::convert::Infallible;

    /// The time that it takes reveals the length of a known user's password at most.
    async fn login(&self, username: &str, password: &str) -> Result<bool, Self::Error> {
        let known = self.0.get(username).filter(|known| !known.is_empty());
        let expected = known.map_or(password, String::as_str);
        let same = expected.as_bytes().ct_eq(password.as_bytes());
        Ok((same & Choice::from(u8::from(known.is_some()))).into())
    }
}

/// A store of users without its type.
pub(crate) trait AnyAuth: Send + Sync {
    fn login<'a>(
        &'a self,
        username: &'a str,
        password: &'a str,
    ) -> LocalBoxFuture<'a, Result<bool, String>>;

    fn user(&self, request: &HttpRequest) -> Option<Arc<str>>;
}

impl<A: Auth> AnyAuth for A {
    fn login<'a>(
        &'a self,
        username: &'a str,
        password: &'a str,
    ) -> LocalBoxFuture<'a, Result<bool, String>> {
        let login = Auth::login(self, username, password);
        login.map(|result| result.map_err(|error| error.to_string())).boxed_local()
    }

    fn user(&self, request: &HttpRequest) -> Option<Arc<str>> {
        Auth::user(self, request).map(Arc::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_knows_its_users_and_no_others() {
        let users = Users::new().user("alice", "open").user("nobody", "");
        for (name, password, right) in [
            ("alice", "open", true),
            ("alice", "opem", false),
            ("alice", "open ", false),
            ("alice", "", false),
            ("Alice", "open", false),
            ("bob", "open", false),
            ("nobody", "", false),
            ("", "", false),
        ] {
            let login = Auth::login(&users, name, password).now_or_never().unwrap();
            assert_eq!(login, Ok(right), "{name} {password}");
        }
        assert!(!format!("{users:?}").contains("open"));
    }
}

//! The options of a [`Web`](crate::Web), set on its builder.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::auth::{AnyAuth, Auth, Users};
use super::error::WebError;
use crate::handler::session_state::EndedSession;
use crate::queue::Queue;
use crate::web::auth::login_guard::LoginGuard;
use crate::web::auth::tokens::Tokens;
use crate::web::auth::trusted_header::TrustedHeader;
use crate::web::session::registry::SessionOptions;

/// The options, before the start.
#[derive(Default)]
pub(crate) struct Options {
    pub show_error: bool,
    pub title: Option<String>,
    pub root_path: Option<String>,
    pub sessions: SessionOptions,
    pub max_body_size: Option<usize>,
    pub cache_dir: Option<PathBuf>,
    pub cache_ttl: Option<Duration>,
    pub max_file_size: Option<u64>,
    pub max_cache_size: Option<u64>,
    pub origins: Vec<String>,
    pub auth: Option<Arc<dyn AnyAuth>>,
    pub auth_message: Option<String>,
    pub login_ttl: Option<Duration>,
    pub trusted_header: Option<TrustedHeader>,
}

/// The default maximum of an uploaded file, in bytes.
const MAX_FILE_SIZE: u64 = 100 * 1024 * 1024;

/// The default maximum of a request's body, in bytes: room for a text of some MiB
/// in JSON's escapes.
const MAX_BODY_SIZE: usize = 16 * 1024 * 1024;

impl Options {
    pub fn max_body_size(&self) -> usize {
        self.max_body_size.unwrap_or(MAX_BODY_SIZE)
    }

    pub fn max_file_size(&self) -> u64 {
        self.max_file_size.unwrap_or(MAX_FILE_SIZE)
    }

    /// The login, where there is one.
    pub fn login_guard(&self) -> Option<LoginGuard> {
        let trusted_header = self.trusted_header.clone();
        // By the header alone: nobody has a password.
        let nobody = || Arc::new(Users::new()) as Arc<dyn AnyAuth>;
        let auth = self.auth.clone().or_else(|| trusted_header.as_ref().map(|_| nobody()))?;
        let (tokens, message) = (Tokens::new(self.login_ttl), self.auth_message.clone());
        Some(LoginGuard::new(auth, trusted_header, tokens, message))
    }

    /// Whether options of the queue's files are set.
    pub fn concern_files(&self) -> bool {
        self.cache_dir.is_some() || self.cache_ttl.is_some() || self.max_cache_size.is_some()
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("title", &self.title).finish_non_exhaustive()
    }
}

/// Declares how a queue is served over HTTP. From [`Web::builder`](crate::Web::builder).
#[must_use = "nothing is served before start()"]
#[derive(Debug)]
pub struct WebBuilder {
    pub(super) queue: Queue,
    pub(super) web: Options,
    /// The first option that can't be, which `start()` returns.
    pub(super) refused: Option<WebError>,
}

impl WebBuilder {
    /// Whether clients over HTTP get the text of unexpected errors, as Gradio's `show_error`
    /// (default: no). They always get that of a [`UserError`](crate::UserError).
    pub fn show_error(mut self, show: bool) -> Self {
        self.web.show_error = show;
        self
    }

    /// The title that clients over HTTP see (default: "now-serving").
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.web.title = Some(title.into());
        self
    }

    /// Where clients find the routes, when a proxy hides it: a path such as `/app`, or a whole URL
    /// such as `https://example.com/app`. As Gradio's `root_path`.
    ///
    /// Not needed where the proxy sends `X-Forwarded-Prefix`, nor for a scope of actix-web's.
    pub fn root_path(mut self, root: impl Into<String>) -> Self {
        self.web.root_path = Some(root.into());
        self
    }

    /// How long a session lives on, with its [`State`](crate::State)s, after its client's last
    /// request and its last stream (default: one hour, as in Gradio). The session of a client that
    /// keeps a heartbeat, as Gradio's do where a listener takes a `State`, ends ten seconds after
    /// the heartbeat.
    pub fn session_ttl(mut self, ttl: Duration) -> Self {
        self.web.sessions.ttl = Some(ttl);
        self
    }

    /// How long a client has to come back when its update stream breaks off, or its heartbeat ends
    /// (default: ten seconds). After that its events are cancelled, unless their listener keeps
    /// them running ([`Listener::on_disconnect`](crate::Listener::on_disconnect)). Gradio cancels
    /// at once.
    pub fn reconnect_grace(mut self, grace: Duration) -> Self {
        self.web.sessions.grace = Some(grace);
        self
    }

    /// How long the result of an event can be fetched again, at `call/{api_name}/{event_id}` or by
    /// a stream that resumes with `Last-Event-ID` (default: ten minutes).
    pub fn result_ttl(mut self, ttl: Duration) -> Self {
        self.web.sessions.results.ttl = ttl;
        self
    }

    /// How many results are kept for that, and how many bytes of their JSON (default: 10,000 and
    /// 64 MiB). Where there are too many, the holder with the most loses its oldest: a user, or
    /// without a login a session, or an address from which calls without a session come. Results that
    /// no client has been handed yet have bounds of their own: 32 MiB for each session and 256 MiB
    /// over all, beyond which the largest are replaced by an error.
    pub fn max_kept_results(mut self, results: usize, bytes: usize) -> Self {
        (self.web.sessions.results.number, self.web.sessions.results.bytes) = (results, bytes);
        self
    }

    /// The maximum of sessions, each `call` counted as one more (default: 100,000). Further
    /// clients are answered 503 with `Retry-After`. Gradio forgets the oldest of 2,000 instead.
    pub fn max_sessions(mut self, sessions: usize) -> Self {
        self.web.sessions.max = Some(sessions);
        self
    }

    /// The maximum of events of one session that wait, run, or have ended unread (default: 1,000).
    /// Further ones are answered 429. A `call` or `run` that names no `session_hash` is a session of its
    /// own; those of a user who has logged in are bounded together, as if they were one.
    pub fn max_waiting_per_session(mut self, events: usize) -> Self {
        self.web.sessions.max_events = Some(events);
        self
    }

    /// The largest body of a request, in bytes, uploads not counted (default: 16 MiB). A larger one is
    /// answered 413, and so is one whose JSON would take more than about three times its bytes in
    /// memory, or 4 MiB where that is more: masses of small values where the input's type has much for
    /// each, such as a `serde_json::Value`. All that are received or parsed at once may hold 16 times as
    /// much, those of one address 4 times; more is answered 503 or 429.
    pub fn max_body_size(mut self, bytes: usize) -> Self {
        self.web.max_body_size = Some(bytes);
        self
    }

    /// Calls a function with each session that has ended, once no event of it runs any more. It
    /// must not block.
    pub fn on_session_end(
        mut self,
        hook: impl Fn(EndedSession<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.web.sessions.on_end = Some(Arc::new(hook));
        self
    }

    /// Lets only those use the routes who have logged in at `POST /login`; others are answered 401.
    /// As Gradio's `auth`. Sessions, and the events of a `call`, are those of their user alone.
    /// [`EventContext::user`](crate::EventContext::user) returns it to the handler. Files are no user's:
    /// whoever is logged in and knows the random id of an uploaded or made one can read it.
    ///
    /// Routes of one's own take the [`User`](crate::User), and stand behind
    /// [`Web::require_login`](crate::Web::require_login). [`Web::gate`](crate::Web::gate) and calls in
    /// process are not concerned.
    pub fn auth(mut self, auth: impl Auth) -> Self {
        self.web.auth = Some(Arc::new(auth));
        self
    }

    /// Takes the user of a request from a header that a reverse proxy sets, as `X-Forwarded-User` of
    /// oauth2-proxy or `Remote-User` of Authelia: only those use the routes whom the proxy names, or who
    /// log in by [`auth`](WebBuilder::auth) where that is set too. The header comes first.
    ///
    /// `peers` are the addresses and networks of the proxies; there is no default. From every other
    /// address, and over a Unix socket, the header means nothing, and handlers don't see it. **Whoever can
    /// connect from one of `peers` is any user that he likes**: on a machine that others use, `127.0.0.1`
    /// is all of them. The proxy must set the header on every request and remove one that its client sends;
    /// a request with several is nobody's.
    ///
    /// A name or address that is none is refused by [`start`](WebBuilder::start).
    ///
    /// ```
    /// use now_serving::Web;
    ///
    /// # fn behind_proxy(queue: &now_serving::Queue) {
    /// let builder = Web::builder(queue)
    ///     .trusted_user_header("X-Forwarded-User", ["127.0.0.1", "10.20.0.0/16", "fd00:20::/32"]);
    /// # }
    /// ```
    pub fn trusted_user_header<P: AsRef<str>>(
        mut self,
        name: &str,
        peers: impl IntoIterator<Item = P>,
    ) -> Self {
        let peers: Vec<P> = peers.into_iter().collect();
        match TrustedHeader::new(name, peers.iter().map(P::as_ref)) {
            Ok(header) => self.web.trusted_header = Some(header),
            Err(error) => {
                self.refused.get_or_insert(error);
            }
        }
        self
    }

    /// The message for clients that haven't logged in. As Gradio's `auth_message`.
    pub fn auth_message(mut self, message: impl Into<String>) -> Self {
        self.web.auth_message = Some(message.into());
        self
    }

    /// How long a login holds after its last request (default: seven days). None outlives the
    /// process.
    pub fn login_ttl(mut self, ttl: Duration) -> Self {
        self.web.login_ttl = Some(ttl);
        self
    }

    /// The directory for the files that clients upload and handlers make, made if it isn't there,
    /// and this queue's alone. It stays when the process ends, and what is in it can still be
    /// fetched by the next one. Without, the files are in a temporary directory that is removed with
    /// the queue.
    pub fn cache_dir(mut self, directory: impl Into<PathBuf>) -> Self {
        self.web.cache_dir = Some(directory.into());
        self
    }

    /// How long a file is kept after it was made, and at least as long as an event, a result or a
    /// [`FileData`](crate::FileData) names it (default: one hour). As the age of Gradio's
    /// `delete_cache`.
    pub fn cache_ttl(mut self, ttl: Duration) -> Self {
        self.web.cache_ttl = Some(ttl);
        self
    }

    /// The maximum of bytes in the directory for files, beyond which uploads are refused with 507
    /// (default: 10 GiB). Files that handlers make count, but are never refused.
    pub fn max_cache_size(mut self, bytes: u64) -> Self {
        self.web.max_cache_size = Some(bytes);
        self
    }

    /// Lets pages of another origin, such as `https://example.com`, send what browsers send without
    /// a preflight: uploads, logins, bodies that are not declared as JSON. From every other origin
    /// these are refused with 403, so that no page can act in its visitor's name. May be called
    /// several times. Whether such a page can read the answers is up to the CORS of the service, as
    /// by `actix-cors`; there is none by itself.
    pub fn allow_origin(mut self, origin: impl Into<String>) -> Self {
        self.web.origins.push(origin.into().trim_end_matches('/').to_ascii_lowercase());
        self
    }

    /// The maximum of an uploaded file, in bytes (default: 100 MiB). As Gradio's `max_file_size`;
    /// clients find it in `/config`, and a longer file is answered with 413.
    pub fn max_file_size(mut self, bytes: u64) -> Self {
        self.web.max_file_size = Some(bytes);
        self
    }
}

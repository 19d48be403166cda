//! What is kept to serve a queue over HTTP.

use std::fmt;
use std::sync::{Arc, OnceLock};

#[cfg(feature = "cluster")]
use actix_web::HttpMessage;
use actix_web::HttpRequest;
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::cache;
use super::options::Options;
use super::rejection::Rejection;
use super::session::sweeper;
use super::upload_tracker::Uploads;
#[cfg(feature = "cluster")]
use crate::cluster::handle::ClusterHandle;
use crate::files::store::Files;
use crate::queue::Queue;
use crate::queue::background::Background;
use crate::queue::snapshot::QueueSnapshot;
use crate::web::api::endpoint::Endpoint;
use crate::web::auth::csrf::AllowedOrigins;
use crate::web::auth::login_guard::LoginGuard;
#[cfg(feature = "cluster")]
use crate::web::auth::shared;
use crate::web::body::budget::Bodies;
use crate::web::protocol::encoder::Audience;
#[cfg(feature = "cluster")]
use crate::web::relay::node::Relay;
#[cfg(feature = "cluster")]
use crate::web::relayed::Relayed;
use crate::web::session::registry::Sessions;
use crate::web::session::snapshot::ClientsSnapshot;

/// A queue over HTTP: Gradio's [`routes`](Web::routes), the [`gate`](Web::gate) for routes of one's
/// own, and the [`dashboard`](Web::dashboard) and [`metrics`](Web::metrics) for operators. Cheap to
/// clone; clones are the same, with the same sessions, on any thread.
///
/// The queue lives as long as it. Make one and clone it into each of the server's workers; two of one
/// queue share its listeners and its files, and have sessions, logins and kept results of their own.
///
/// ```
/// use actix_web::{App, HttpServer};
/// use now_serving::{Listener, Queue, Web};
///
/// # actix::System::new().block_on(async {
/// let queue = Queue::builder()
///     .listener(Listener::new("echo", async |text: String| Ok::<_, String>(text)))
///     .start()
///     .unwrap();
/// let web = Web::new(&queue);
/// HttpServer::new(move || App::new().configure(web.routes()))
/// # ;
/// # });
/// ```
#[derive(Clone)]
pub struct Web(pub(super) Arc<WebState>);

impl Web {
    /// The files of the clients, to make one for a listener that takes a
    /// [`FileData`](crate::FileData) and is called in process.
    pub fn files(&self) -> &Files {
        &self.0.files
    }

    /// Ends all logins of a user, as his own logout does: what is still being answered to them ends, and
    /// their cookies are answered 401. For a user who has been removed from the store of
    /// [`WebBuilder::auth`](crate::WebBuilder::auth), or whose password has changed: the store first, then
    /// this. His events go on. A user whom [`Auth::user`](crate::Auth::user) or a proxy's header names has
    /// no login that could end.
    ///
    /// ```
    /// # async fn remove(web: now_serving::Web) {
    /// // … remove the user from the store, then:
    /// web.end_logins("ada");
    /// # }
    /// ```
    pub fn end_logins(&self, user: &str) {
        if let Some(login_guard) = &self.0.login_guard {
            #[cfg(feature = "cluster")]
            if let Some(shared) = login_guard.shared()
                && let Some(Background(arbiter)) = self.0.queue.inner().extensions.get()
            {
                arbiter.spawn(shared::end_logins(Arc::downgrade(shared), user.into()));
                return;
            }
            login_guard.revoke_all_of(user);
        }
    }

    /// The present state of the queue, with its clients; see [`Queue::snapshot`].
    pub async fn snapshot(&self) -> WebSnapshot {
        self.0.snapshot().await
    }
}

impl fmt::Debug for Web {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Web").field(&self.0.queue).finish()
    }
}

/// The state of the whole queue and its clients, from [`Web::snapshot`].
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct WebSnapshot {
    /// The queue.
    #[serde(flatten)]
    pub queue: QueueSnapshot,
    /// Its clients over HTTP.
    pub clients: ClientsSnapshot,
}

/// What is kept to serve a queue over HTTP.
pub(crate) struct WebState {
    pub queue: Queue,
    pub endpoints: Vec<Endpoint>,
    pub sessions: Arc<Sessions>,
    pub options: Options,
    pub files: Files,
    pub uploads: Arc<Uploads>,
    pub bodies: Arc<Bodies>,
    pub origins: Arc<AllowedOrigins>,
    pub login_guard: Option<Arc<LoginGuard>>,
    /// The server ends: streams that have no end of their own close.
    pub closing: CancellationToken,
    /// Another one each time. Of 53 bits: JavaScript reads numbers so far exactly.
    pub app_id: u64,
    /// Where the dashboard is, if there is one.
    pub dashboard: OnceLock<String>,
    /// The service wants to know when a session ends.
    pub keeps_state: bool,
    /// For large bodies, of which only a few are read at once.
    pub reading: Arc<Semaphore>,
    /// Where the queue is one of a cluster: other nodes have some of its clients' sessions.
    #[cfg(feature = "cluster")]
    pub relay: OnceLock<Arc<Relay>>,
}

impl WebState {
    pub fn new(
        queue: Queue,
        #[cfg_attr(not(feature = "cluster"), expect(unused_mut))] mut options: Options,
        files: Files,
    ) -> Self {
        #[cfg(feature = "cluster")]
        {
            let handle = queue.inner().extensions.get::<Arc<ClusterHandle>>();
            options.sessions.of_cluster = handle.is_some();
        }
        let numbered = (0..).zip(queue.inner().listeners.iter().cloned());
        let endpoints: Vec<Endpoint> =
            numbered.map(|(number, listener_ref)| Endpoint::new(number, listener_ref)).collect();
        let state = endpoints.iter().any(|endpoint| endpoint.listener_ref.options.needs.state);
        let keeps_state = state || options.sessions.on_end.is_some();
        let sessions = Arc::new(Sessions::new(&options.sessions, keeps_state));
        if let Some(Background(arbiter)) = queue.inner().extensions.get() {
            arbiter.spawn(sweeper::run_sweeper(&sessions));
            let caches = endpoints.iter().filter_map(|endpoint| endpoint.cache.as_ref());
            arbiter.spawn(cache::run_sweeper(caches.map(Arc::downgrade).collect()));
        }
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        WebState {
            queue,
            endpoints,
            keeps_state,
            sessions,
            login_guard: options.login_guard().map(Arc::new),
            closing: CancellationToken::new(),
            bodies: Arc::new(Bodies::new(options.max_body_size())),
            origins: Arc::new(AllowedOrigins(options.origins.clone())),
            options,
            files,
            uploads: Arc::default(),
            dashboard: OnceLock::new(),
            app_id: rand::random::<u64>() >> 11,
            reading: Arc::new(Semaphore::new((processors / 2).max(1))),
            #[cfg(feature = "cluster")]
            relay: OnceLock::new(),
        }
    }

    /// The listener of a number, if clients may call it.
    pub fn endpoint(&self, fn_index: u64) -> Result<&Endpoint, Rejection> {
        let endpoint = usize::try_from(fn_index).ok().and_then(|index| self.endpoints.get(index));
        endpoint
            .filter(|endpoint| endpoint.is_callable())
            .ok_or_else(|| Rejection::not_found(format!("No listener has fn_index {fn_index}.")))
    }

    /// The listener of a name, if clients may call it.
    pub fn known(&self, api_name: &str) -> Result<&Endpoint, Rejection> {
        let endpoint =
            self.queue.inner().by_name.get(api_name).and_then(|&index| self.endpoints.get(index));
        endpoint
            .filter(|endpoint| endpoint.is_callable())
            .ok_or_else(|| Rejection::unknown_listener(api_name))
    }

    /// How updates are shown to the client of a request.
    pub fn audience(&self, endpoint: &Endpoint, request: &HttpRequest) -> Audience {
        let Options { show_error, root_path, .. } = &self.options;
        #[cfg(feature = "cluster")]
        if let Some(Relayed { root, .. }) = request.extensions().get() {
            return endpoint.audience(*show_error, Some(root), request);
        }
        endpoint.audience(*show_error, root_path.as_deref(), request)
    }

    pub async fn snapshot(&self) -> WebSnapshot {
        WebSnapshot { queue: self.queue.snapshot().await, clients: self.sessions.snapshot() }
    }
}

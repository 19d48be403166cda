//! What a running queue keeps for HTTP.

use std::sync::{Arc, OnceLock};

use actix::ArbiterHandle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::cache;
use super::options::Options;
use super::rejection::Rejection;
use super::session::registry;
use super::uploads::Uploads;
use crate::files::store::Files;
use crate::queue::listener_ref::ListenerRef;
use crate::web::api::endpoint::Endpoint;
use crate::web::auth::guard::LoginGuard;
use crate::web::body::budget::Bodies;
use crate::web::session::registry::Sessions;

/// What a running queue keeps for HTTP.
pub(crate) struct Web {
    pub endpoints: Vec<Endpoint>,
    pub sessions: Arc<Sessions>,
    pub options: Options,
    pub files: Files,
    pub uploads: Arc<Uploads>,
    pub bodies: Arc<Bodies>,
    pub door: Option<Arc<LoginGuard>>,
    /// The server ends: streams that have no end of their own close.
    pub closing: CancellationToken,
    /// Another one each time. Of 53 bits: JavaScript reads numbers so far exactly.
    pub app_id: u64,
    /// Where the dashboard is, if there is one.
    pub dashboard: OnceLock<String>,
    /// Somebody wants to know when a session ends.
    pub keeps_state: bool,
    /// For large bodies, of which only a few are read at once.
    pub reading: Arc<Semaphore>,
}

impl Web {
    /// The arbiter is for what is to be done now and then.
    pub fn new<'a>(
        listeners: impl Iterator<Item = &'a Arc<ListenerRef>>,
        options: Options,
        files: Files,
        arbiter: &ArbiterHandle,
    ) -> Self {
        let numbered = (0..).zip(listeners.cloned());
        let endpoints: Vec<Endpoint> =
            numbered.map(|(number, entry)| Endpoint::new(number, entry)).collect();
        let state = endpoints.iter().any(|endpoint| endpoint.entry.options.takes_state);
        let keeps_state = state || options.sessions.on_end.is_some();
        let sessions = Arc::new(Sessions::new(&options.sessions, keeps_state));
        arbiter.spawn(registry::run_sweeper(&sessions));
        let caches = endpoints.iter().filter_map(|endpoint| endpoint.cache.as_ref());
        arbiter.spawn(cache::run_sweeper(caches.map(Arc::downgrade).collect()));
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Web {
            endpoints,
            keeps_state,
            sessions,
            door: options.door().map(Arc::new),
            closing: CancellationToken::new(),
            bodies: Arc::new(Bodies::new(options.max_body_size())),
            options,
            files,
            uploads: Arc::default(),
            dashboard: OnceLock::new(),
            app_id: rand::random::<u64>() >> 11,
            reading: Arc::new(Semaphore::new((processors / 2).max(1))),
        }
    }

    /// The listener of a number, if clients may call it.
    pub(crate) fn endpoint(&self, fn_index: u64) -> Result<&Endpoint, Rejection> {
        let endpoint = usize::try_from(fn_index).ok().and_then(|index| self.endpoints.get(index));
        endpoint
            .filter(|endpoint| endpoint.is_callable())
            .ok_or_else(|| Rejection::not_found(format!("No listener has fn_index {fn_index}.")))
    }
}

//! What a queue's builder says about HTTP.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::builder::QueueBuilder;
use crate::state::{EndedSession, OnEnd};

/// The options, before the start.
#[derive(Default)]
pub(crate) struct Options {
    pub show_error: bool,
    pub title: Option<String>,
    pub root_path: Option<String>,
    pub session_ttl: Option<Duration>,
    pub on_session_end: Option<OnEnd>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("title", &self.title).finish_non_exhaustive()
    }
}

impl QueueBuilder {
    /// Whether clients over HTTP get the text of unexpected errors, as Gradio's `show_error`
    /// (default: no). They always get that of a [`UserError`](crate::UserError).
    pub fn show_error(mut self, show: bool) -> Self {
        self.web.show_error = show;
        self
    }

    /// The title that clients over HTTP are told (default: "now-serving").
    pub fn title(mut self, title: impl Into<String>) -> Self {
        self.web.title = Some(title.into());
        self
    }

    /// Where clients find the routes, when a proxy hides it: a path such as `/app`, or a whole URL
    /// such as `https://example.com/app`. As Gradio's `root_path`.
    ///
    /// Not needed where the proxy says `X-Forwarded-Prefix`, nor for a scope of actix-web's.
    pub fn root_path(mut self, root: impl Into<String>) -> Self {
        self.web.root_path = Some(root.into());
        self
    }

    /// How long a session lives on, with its [`State`](crate::State)s, after its client's last
    /// request and its last stream (default: one hour, as in Gradio). The session of a client that
    /// keeps a heartbeat, as Gradio's do where a listener takes a `State`, ends ten seconds after
    /// the heartbeat.
    pub fn session_ttl(mut self, ttl: Duration) -> Self {
        self.web.session_ttl = Some(ttl);
        self
    }

    /// Calls a function with each session that has ended, once no event of it runs any more. It
    /// must not block.
    pub fn on_session_end(
        mut self,
        hook: impl Fn(EndedSession<'_>) + Send + Sync + 'static,
    ) -> Self {
        self.web.on_session_end = Some(Arc::new(hook));
        self
    }
}

//! A listener's options for clients over HTTP.

use std::num::NonZeroUsize;

use crate::queue::error::StartError;
use crate::queue::listener::Listener;

/// Who learns of a listener, and may call it over HTTP. As Gradio's `api_visibility`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApiVisibility {
    /// Described to everybody.
    #[default]
    Public,
    /// Callable by those who know its name, and not described.
    Undocumented,
    /// Not callable over HTTP; in process only. Gradio leaves that to its clients.
    Private,
}

/// What becomes of a listener's events when their client's update stream breaks off and the client
/// doesn't come back within [`reconnect_grace`](crate::WebBuilder::reconnect_grace).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDisconnect {
    /// They are cancelled: nobody waits for them.
    #[default]
    Cancel,
    /// They go on. Their results can be fetched for [`result_ttl`](crate::WebBuilder::result_ttl).
    KeepRunning,
}

/// A listener's options for clients over HTTP, among its extensions.
#[derive(Clone, Debug, Default)]
pub(crate) struct HttpOptions {
    pub description: Option<String>,
    pub visibility: ApiVisibility,
    /// How many results are kept, if any are.
    pub cache: Option<NonZeroUsize>,
    pub on_disconnect: OnDisconnect,
}

impl<I, O> Listener<I, O> {
    /// Keeps the results of so many inputs; a call over HTTP with one of these is answered at once
    /// and bypasses the queue. They are kept for an hour, with 64 MiB of results as JSON at most,
    /// of which none may be larger than 16 MiB. Where there are too many, the client with the most
    /// (a user, else a session, else an address) loses its least recently used. As Gradio's
    /// `gr.cache`; for handlers whose result depends on nothing but their input and, with
    /// [`auth`](crate::WebBuilder::auth), their user. Calls in process always run, and one with
    /// newly uploaded files has a new input.
    pub fn cache(mut self, entries: usize) -> Self {
        let api_name = self.declared_mut().api_name.to_string();
        match NonZeroUsize::new(entries) {
            None => self.declared_mut().contradict(StartError::ZeroCache(api_name)),
            entries => match self.declared_mut().needs.of_client() {
                Some(extra) => {
                    let refused = StartError::CachedExtra { listener: api_name, extra };
                    self.declared_mut().contradict(refused);
                }
                None => self.http(|options| options.cache = entries),
            },
        }
        self
    }

    /// What becomes of its events when their client vanishes (default: they are cancelled).
    pub fn on_disconnect(mut self, then: OnDisconnect) -> Self {
        self.http(|options| options.on_disconnect = then);
        self
    }

    /// Describes to clients over HTTP what the listener does. By default, this is the doc comment
    /// of its input type, if there is one.
    pub fn description(mut self, description: impl Into<String>) -> Self {
        self.http(|options| options.description = Some(description.into()));
        self
    }

    /// Who learns of the listener, and may call it over HTTP (default: everybody).
    pub fn api_visibility(mut self, visibility: ApiVisibility) -> Self {
        self.http(|options| options.visibility = visibility);
        self
    }

    fn http(&mut self, change: impl FnOnce(&mut HttpOptions)) {
        self.declared_mut().extensions.change(change);
    }
}

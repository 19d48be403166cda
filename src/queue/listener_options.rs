//! What a listener tells its clients about itself, apart from its types.

use std::num::NonZeroUsize;

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
/// doesn't come back within `QueueBuilder::reconnect_grace`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDisconnect {
    /// They are cancelled: nobody waits for them.
    #[default]
    Cancel,
    /// They go on. Their results can be fetched for
    /// `QueueBuilder::result_ttl`.
    KeepRunning,
}

/// The options of one listener.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "web"), allow(dead_code))]
pub(crate) struct ListenerOptions {
    pub description: Option<String>,
    pub visibility: ApiVisibility,
    /// Whether its events wait in a line at all.
    pub queued: bool,
    /// Whether it yields values on the way.
    pub generator: bool,
    /// The most events of a batch, where it takes batches.
    pub batch: Option<usize>,
    /// Whether it keeps something for each session.
    pub takes_state: bool,
    /// How many results are kept, if any are.
    pub cache: Option<NonZeroUsize>,
    /// Whether its events go on when their client doesn't come back.
    pub keeps_running: bool,
}

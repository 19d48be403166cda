//! A listener's options, apart from its types.

use super::allow::Allow;
use crate::handler::needs::Needs;

/// The options of one listener.
#[derive(Clone, Debug)]
pub(crate) struct ListenerOptions {
    /// Whether its events wait in a queue at all.
    pub queued: bool,
    /// Whether it yields values on the way.
    pub generator: bool,
    /// The maximum of events in a batch, where it takes batches.
    pub batch: Option<usize>,
    /// What its handler takes besides its input.
    pub needs: Needs,
    /// Who may call it; without, everybody.
    pub allow: Option<Allow>,
}

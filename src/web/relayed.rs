//! What a node is told by another one of a request that was sent there.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::id::EventId;

/// Given with a request that another node has relayed. It comes with the tunnel between nodes, never from a
/// client: what it says is believed, and such a request is answered here, wherever its session is at home.
#[derive(Clone, Debug)]
pub(crate) struct Relayed {
    /// Who has sent it, as the node has found out that it came to.
    pub user: Option<Arc<str>>,
    /// The URL of the root, as the client sees it.
    pub root: String,
}

/// The event that a request begins, if it begins one. Whoever relays it names the event, so that it is the same one
/// where the request has to be sent again.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct NamedEvent {
    pub id: EventId,
    /// It was sent before, and may have been accepted.
    pub again: bool,
}

//! What a node is told by another one of a request that was sent there.

use std::sync::Arc;

/// Given with a request that another node has relayed. It comes with the tunnel between nodes, never from a
/// client: what it says is believed, and such a request is answered here, wherever its session is at home.
#[derive(Clone, Debug)]
pub(crate) struct Relayed {
    /// Who has sent it, as the node has found out that it came to.
    pub user: Option<Arc<str>>,
    /// The URL of the root, as the client sees it.
    pub root: String,
}

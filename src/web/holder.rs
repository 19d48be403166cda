//! Who the shares of what is kept belong to.

use std::sync::Arc;

use crate::web::peer::Peer;

/// For whom something is kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Holder {
    /// A user who has logged in.
    User(Arc<str>),
    /// A session whose client chose its hash.
    Session(Arc<str>),
    /// All at one address who named no session.
    Peer(Peer),
}

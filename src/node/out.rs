//! What is to be sent to processes of the cluster.

use super::wire::Message;
use crate::cluster::message::Process;

/// To whom a message goes.
#[derive(Clone, Debug)]
pub(super) enum To {
    All,
    Process(Process),
    /// Whoever keeps the line, as far as that is known.
    Keeper,
}

/// What is to be sent.
pub(super) type Out = Vec<(To, Message)>;

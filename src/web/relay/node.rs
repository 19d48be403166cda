//! This node among those of its cluster, as HTTP needs it.

use crate::cluster::homes::Homes;
use crate::cluster::message::Process;
use crate::cluster::tunnel::Tunnel;

/// Where sessions are at home, and the way there.
pub(crate) struct Relay {
    pub homes: Homes,
    pub tunnel: Tunnel,
    /// This process.
    pub own: Process,
}

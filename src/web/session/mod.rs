//! A client's session: its events, its update stream, its kept results.

pub(crate) mod active_event;
pub(crate) mod adopt;
pub(crate) mod mailbox;
#[cfg(feature = "cluster")]
pub(crate) mod moved;
pub(crate) mod registry;
pub(crate) mod replay_log;
pub(crate) mod results;
#[allow(clippy::module_inception)] // One client among the things that one has.
pub(crate) mod session;
pub(crate) mod snapshot;
pub(crate) mod stream;
pub(crate) mod submit;
pub(crate) mod sweeper;

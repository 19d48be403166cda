//! What is to be started for each concurrency id, and on which thread.

use std::sync::Arc;

use actix::ArbiterHandle;

use crate::actors::watchdog::Pulse;
use crate::scheduler::rules::Rules;

/// What is to be started for one concurrency id.
pub(crate) struct Plan {
    pub(crate) rules: Rules,
    pub(crate) members: Vec<usize>,
}

/// An arbiter, and what is on it right now.
pub(crate) struct ArbiterThread {
    pub(crate) handle: ArbiterHandle,
    pub(crate) pulse: Arc<Pulse>,
}

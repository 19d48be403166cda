//! An arbiter's thread, as those know it who start actors there.

use std::sync::Arc;

use actix::ArbiterHandle;

use super::watchdog::Pulse;

/// An arbiter, and what is on it right now.
#[derive(Clone)]
pub(crate) struct ArbiterThread {
    pub handle: ArbiterHandle,
    pub pulse: Arc<Pulse>,
}

impl ArbiterThread {
    /// One that nobody has had a turn on.
    pub fn new(handle: ArbiterHandle) -> Self {
        ArbiterThread { handle, pulse: Arc::default() }
    }
}

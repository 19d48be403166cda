//! Where a queue does what is to be done now and then.

use actix::ArbiterHandle;

/// Among a queue's extensions: an arbiter that lives as long as the queue, for tasks beside its
/// events.
pub(crate) struct Background(pub ArbiterHandle);

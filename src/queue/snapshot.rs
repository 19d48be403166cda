//! The state of a whole queue at one moment.

use serde::{Deserialize, Serialize};

use crate::scheduler::snapshot::{ConcurrencyIdSnapshot, ListenerSnapshot};

/// The state of the whole queue, from [`Queue::snapshot`](crate::Queue::snapshot).
///
/// Each concurrency id's own supervisor takes its snapshot, so that two ids can differ by the
/// moment between both.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct QueueSnapshot {
    /// Every concurrency id, in the order of their first listener.
    pub concurrency_ids: Vec<ConcurrencyIdSnapshot>,
}

impl QueueSnapshot {
    /// The snapshot of one concurrency id.
    pub fn concurrency_id(&self, name: &str) -> Option<&ConcurrencyIdSnapshot> {
        self.concurrency_ids.iter().find(|id| &*id.concurrency_id == name)
    }

    /// The snapshot of one listener.
    pub fn listener(&self, api_name: &str) -> Option<&ListenerSnapshot> {
        let mut listeners = self.concurrency_ids.iter().flat_map(|id| &id.listeners);
        listeners.find(|listener| &*listener.api_name == api_name)
    }
}

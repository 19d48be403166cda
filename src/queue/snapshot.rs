//! What a whole queue looks like at one moment.

use serde::Serialize;

use crate::scheduler::snapshot::{ConcurrencyIdSnapshot, ListenerSnapshot};

/// A picture of the whole queue, from [`Queue::snapshot`](crate::Queue::snapshot).
///
/// Each concurrency id is pictured by its own supervisor, so that two ids can differ by the
/// moment it takes to ask both.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct QueueSnapshot {
    /// Every concurrency id, in the order of their first listener.
    pub concurrency_ids: Vec<ConcurrencyIdSnapshot>,
}

impl QueueSnapshot {
    /// The picture of one concurrency id.
    pub fn concurrency_id(&self, name: &str) -> Option<&ConcurrencyIdSnapshot> {
        self.concurrency_ids.iter().find(|id| &*id.concurrency_id == name)
    }

    /// The picture of one listener.
    pub fn listener(&self, api_name: &str) -> Option<&ListenerSnapshot> {
        let mut listeners = self.concurrency_ids.iter().flat_map(|id| &id.listeners);
        listeners.find(|listener| &*listener.api_name == api_name)
    }
}

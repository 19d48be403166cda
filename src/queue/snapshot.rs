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
    /// Its clients over HTTP.
    #[cfg(feature = "web")]
    pub clients: ClientsSnapshot,
}

/// The clients over HTTP.
#[cfg(feature = "web")]
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct ClientsSnapshot {
    /// Sessions that are remembered, each `call` counted as one.
    pub sessions: usize,
    /// Update streams that are open.
    pub streams: usize,
    /// Results that can be fetched again.
    pub kept_results: usize,
    /// The bytes of their JSON.
    pub kept_result_bytes: usize,
    /// The bytes of yielded values that are kept for clients that come back.
    pub kept_value_bytes: usize,
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

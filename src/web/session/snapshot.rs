//! The state of a queue's clients over HTTP at one moment.

use serde::Serialize;

/// The clients over HTTP.
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

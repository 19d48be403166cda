//! Which records wait to be durable, and what is held back until they are: group commit.

use std::collections::VecDeque;

use super::record::Record;

/// Gathers records into batches, each with what is done once it is durable. `H` is whatever is held back.
///
/// While one batch is on its way the next one gathers. Batches become durable in their order.
#[derive(Debug)]
pub(crate) struct Recorder<H> {
    records: Vec<Record>,
    held: Vec<H>,
    on_their_way: VecDeque<Vec<H>>,
}

impl<H> Default for Recorder<H> {
    fn default() -> Self {
        Recorder { records: Vec::new(), held: Vec::new(), on_their_way: VecDeque::new() }
    }
}

impl<H> Recorder<H> {
    /// Wants something recorded that nothing waits for.
    pub fn note(&mut self, record: Record) {
        self.records.push(record);
    }

    /// Wants something recorded before something is done.
    pub fn hold(&mut self, record: Record, held: H) {
        self.records.push(record);
        self.held.push(held);
    }

    /// Holds something back for what has been wanted recorded up to now.
    pub fn held(&mut self, held: H) {
        self.held.push(held);
    }

    /// What has gathered, to be appended.
    pub fn take_batch(&mut self) -> Option<Vec<Record>> {
        if self.records.is_empty() {
            return None;
        }
        self.on_their_way.push_back(std::mem::take(&mut self.held));
        Some(std::mem::take(&mut self.records))
    }

    /// The oldest batch on its way is durable, or has failed: what was held back for it.
    pub fn settled(&mut self) -> Vec<H> {
        self.on_their_way.pop_front().unwrap_or_default()
    }

    /// Batches that are not durable yet.
    pub fn on_their_way(&self) -> usize {
        self.on_their_way.len()
    }

    /// Whether nothing waits to be durable.
    pub fn is_idle(&self) -> bool {
        self.records.is_empty() && self.on_their_way.is_empty()
    }
}

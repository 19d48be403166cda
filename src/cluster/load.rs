//! How many runs each node has, or is to have.

use std::collections::HashMap;

use super::message::{Id, NodeName};

/// Counted as it changes: it is asked for every run that is placed.
#[derive(Debug, Default)]
pub(super) struct Load(HashMap<NodeName, OfNode>);

#[derive(Debug, Default)]
struct OfNode {
    by_id: HashMap<Id, usize>,
    all: usize,
}

impl Load {
    pub fn take(&mut self, node: &NodeName, id: &Id) {
        let of_node = self.0.entry(node.clone()).or_default();
        *of_node.by_id.entry(id.clone()).or_default() += 1;
        of_node.all += 1;
    }

    pub fn free(&mut self, node: &NodeName, id: &Id) {
        let Some(of_node) = self.0.get_mut(node) else { return };
        let Some(of_id) = of_node.by_id.get_mut(id) else { return };
        *of_id -= 1;
        of_node.all -= 1;
        if of_node.all == 0 {
            self.0.remove(node);
        }
    }

    /// Those of a concurrency id, and of all.
    pub fn of(&self, node: &NodeName, id: &Id) -> (usize, usize) {
        let of_node = self.0.get(node);
        of_node.map_or((0, 0), |it| (it.by_id.get(id).copied().unwrap_or(0), it.all))
    }
}

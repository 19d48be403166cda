//! What a queue knows of its cluster, for the layers above the core.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_nats::Client;

use super::message::{NodeName, Process};
use crate::clock;

/// How long after its last beat a node counts as live.
const LIVE: Duration = Duration::from_secs(4);

/// Among a queue's extensions, where it is one of a cluster.
pub(crate) struct ClusterHandle {
    pub client: Client,
    /// The cluster's name as a part of subjects and of buckets' names.
    pub token: String,
    /// This process.
    pub process: Process,
    /// When each node was last heard, and as which process.
    heard: Mutex<HashMap<NodeName, (u64, Instant)>>,
}

impl ClusterHandle {
    pub fn new(client: Client, token: String, process: Process) -> Self {
        ClusterHandle { client, token, process, heard: Mutex::default() }
    }

    /// A subject of this cluster.
    pub fn subject(&self, rest: &str) -> String {
        format!("now-serving.{}.{rest}", self.token)
    }

    /// A process has been heard.
    pub fn hear(&self, process: &Process) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let known = heard.entry(process.node.clone()).or_insert((process.boot, clock::now()));
        if process.boot >= known.0 {
            *known = (process.boot, clock::now());
        }
    }

    /// Whether another node has been heard just now.
    pub fn has_others(&self) -> bool {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let is_live = |(node, (_, at)): (&NodeName, &(u64, Instant))| {
            *node != self.process.node && clock::since(*at) < LIVE
        };
        heard.iter().any(is_live)
    }

    /// Whether a process has been heard just now, and none of its node that began later. This one is.
    pub fn is_live(&self, process: &Process) -> bool {
        if *process == self.process {
            return true;
        }
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let known = heard.get(&process.node);
        known.is_some_and(|(boot, at)| *boot == process.boot && clock::since(*at) < LIVE)
    }
}

//! What nodes say to each other of one concurrency id. Every message may be lost, doubled or late.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::event::id::EventId;

/// The name of a node, which it keeps over its starts.
pub(crate) type NodeName = Arc<str>;

/// The name of a concurrency id.
pub(crate) type Id = Arc<str>;

/// How many runs of a concurrency id a node takes at once, where it is bounded there: where its slots own a
/// resource.
pub(crate) type Slots = BTreeMap<Id, usize>;

/// The sequence of an owner's claim: of two owners, the later one has the higher epoch.
pub(crate) type Epoch = u64;

/// How long things take. The same on all nodes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// From one beat to the next.
    pub beat: Duration,
    /// How long a lease holds from the sending of the beat that was acknowledged. Longer than the record
    /// may be away.
    pub lease: Duration,
    /// How much longer an owner waits than a lease lasts: as long as a node may need to stop its runs once its
    /// lease has ended.
    pub margin: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let (beat, lease) = (Duration::from_secs(1), Duration::from_secs(6));
        Times { beat, lease, margin: Duration::from_millis(500) }
    }
}

/// One start of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub event: EventId,
    /// From 1.
    pub number: u32,
}

/// A process of a node. Of two of one name, the later one has the higher boot.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Process {
    pub node: NodeName,
    pub boot: u64,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.boot, self.node)
    }
}

impl FromStr for Process {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (boot, node) = text.split_once('@').ok_or(())?;
        Ok(Process { node: node.into(), boot: boot.parse().map_err(|_| ())? })
    }
}

/// Says that a node is there, and what it does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Beat {
    pub from: Process,
    /// Counts the beats of the process.
    pub number: u64,
    /// The highest epoch that the node has heard of: it heeds no owner of an earlier one.
    pub epoch: Epoch,
    /// Runs, and those that were interrupted and have not stopped yet.
    pub running: Vec<Attempt>,
    /// Runs that it has stopped by itself, until an owner has answered that.
    pub stopped: Vec<Attempt>,
    /// Those of them whose handlers were never called.
    #[serde(default)]
    pub unbegun: Vec<Attempt>,
    /// How many runs it takes at once.
    pub slots: Slots,
    /// It takes no more runs, since it is about to end.
    pub leaving: bool,
}

/// What an owner says to a node. The node heeds the highest epoch that it has heard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct FromOwner {
    pub epoch: Epoch,
    pub word: Word,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Word {
    /// Extends the lease from when the process of this boot sent this beat. These stopped runs needn't be named
    /// any more.
    Acknowledge { boot: u64, beat: u64, settled: Vec<Attempt> },
    /// To be run by the process of this boot, if it sent this beat less than a lease ago.
    Run { attempt: Attempt, id: Id, boot: u64, beat: u64 },
    /// Not wanted any more.
    Interrupt(Attempt),
    /// The result is on record, or isn't wanted any more.
    Settled(Attempt),
}

/// What came of a run. It is repeated until it is settled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report<R> {
    pub from: Process,
    pub attempt: Attempt,
    pub result: R,
}

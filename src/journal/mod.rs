//! The durable record of events: what is accepted is written down before anybody hears of it, so that
//! it outlives the process.
//!
//! A [`Journal`] is what keeps the records. The supervisor says by its recorder which records an
//! effect needs, and performs the effect once they are durable. At the start it takes back what has
//! not ended.

pub(crate) mod error;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(any(feature = "journal", feature = "cluster"))]
pub(crate) mod handle;
#[cfg(feature = "cluster")]
pub(crate) mod jetstream;
#[cfg(test)]
pub(crate) mod memory;
pub(crate) mod record;
pub(crate) mod recorder;
pub(crate) mod recovery;
#[cfg(any(feature = "journal", feature = "cluster"))]
mod requests;
#[cfg(feature = "journal")]
pub(crate) mod sqlite;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, oneshot, watch};

use self::error::JournalError;
use self::record::{Kept, Live, Record, Steered};
use crate::event::id::EventId;

/// Called once, on any thread: the records are durable, or they are not and never will be.
pub(crate) type Done = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

/// Records of one concurrency id, in order, to be kept whole or not at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub concurrency_id: Arc<str>,
    pub records: Arc<Vec<Record>>,
}

/// Keeps records. Shared by all supervisors of a queue.
pub(crate) trait Journal: fmt::Debug + Send + Sync {
    /// Appends a batch. Those of one thread become durable in the order in which they were given; those
    /// given meanwhile may become durable together. While it isn't known what has become of one, later ones may
    /// be answered, as not kept. Doesn't block.
    fn append(&self, batch: Batch, done: Done);

    /// What had not ended when the journal was opened. Blocks; to be called before anything is appended.
    ///
    /// # Errors
    /// When it can't be read.
    fn load(&self) -> Result<Loaded, JournalError>;

    /// The ends that are kept and fit.
    fn ends(&self, query: Query) -> oneshot::Receiver<Result<Vec<Kept>, JournalError>>;

    /// Says when another process has taken over, where one can.
    fn taken_over(&self) -> Option<watch::Receiver<Option<JournalError>>> {
        None
    }

    /// Forgets the ends that were recorded before this moment, in milliseconds since the Unix epoch.
    fn forget(&self, before: u64);
}

/// Told when an end is on record, where somebody may have to be called for it.
#[derive(Debug, Default)]
pub(crate) struct CallsDue(pub Notify);

/// What a journal knows at the start.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Loaded {
    /// The events that have not ended, in the order of their admission.
    pub events: Vec<Live>,
    /// What operators last set, by concurrency id.
    pub steered: Vec<(Arc<str>, Steered)>,
}

/// Which ends are looked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Query {
    Event(EventId),
    /// That of a listener's event with this idempotency key, of this user.
    Key {
        listener: Arc<str>,
        user: Option<Arc<str>>,
        key: Arc<str>,
    },
    /// Those of a client's session that were recorded since this moment, in milliseconds since the Unix epoch,
    /// oldest first.
    #[cfg_attr(not(feature = "cluster"), allow(dead_code))]
    Session {
        user: Option<Arc<str>>,
        session: Arc<str>,
        since: u64,
    },
    /// Those whose webhook is to be called, the next one first, as many at most.
    #[cfg_attr(not(feature = "webhook"), allow(dead_code))]
    ToCall(usize),
    /// Those of a listener's events that failed, the last one first, as many at most.
    Failed {
        listener: Arc<str>,
        most: usize,
    },
}

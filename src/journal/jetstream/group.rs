//! What is appended at once, as JSON: all the records that have come by then, a claim, or what is kept of a
//! part of the log that goes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::journal::Batch;
use crate::journal::error::JournalError;
use crate::journal::record::{Live, Record, Steered};

/// The format that is written. Whoever reads knows this one and those before it.
pub(super) const FORMAT: u32 = 1;

/// A group is kept whole or not at all.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Group {
    pub format: u32,
    /// Who writes from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<Claim>,
    /// Whoever had it writes no more, and has stopped in order.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub released: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub batches: Vec<Batch>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub again: Vec<Again>,
}

/// Says that one process writes, and none that wrote before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    /// For people.
    pub by: String,
    /// Random: no two claims have the same.
    pub id: String,
}

/// Something that still stands, though the part of the log where it was recorded goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Again {
    Live {
        /// Its place in the order of admission.
        order: Order,
        live: Live,
    },
    Steered {
        concurrency_id: Arc<str>,
        steered: Steered,
    },
}

/// Where an event was recorded first: the sequence of its group, and which record of it.
pub(super) type Order = (u64, u32);

impl Group {
    pub fn of(batches: Vec<Batch>) -> Self {
        Group { format: FORMAT, claim: None, released: false, batches, again: Vec::new() }
    }

    pub fn claim(claim: Claim) -> Self {
        Group { claim: Some(claim), ..Group::of(Vec::new()) }
    }

    pub fn release() -> Self {
        Group { released: true, ..Group::of(Vec::new()) }
    }

    pub fn again(again: Vec<Again>) -> Self {
        Group { again, ..Group::of(Vec::new()) }
    }

    /// # Errors
    /// When a value can't be written as JSON.
    pub fn encode(&self) -> Result<Vec<u8>, JournalError> {
        serde_json::to_vec(self).map_err(|error| JournalError::Broken(error.to_string()))
    }

    /// Reads what is in `log`.
    ///
    /// # Errors
    /// When it is something else, damaged, or of a later version.
    pub fn decode(log: &str, text: &[u8]) -> Result<Self, JournalError> {
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let path = || log.into();
        let head: Head = serde_json::from_slice(text)
            .map_err(|error| JournalError::Foreign { path: path(), what: error.to_string() })?;
        if head.format > FORMAT {
            return Err(JournalError::Newer { path: path(), found: head.format, known: FORMAT });
        }
        serde_json::from_slice(text)
            .map_err(|error| JournalError::Damaged { path: path(), what: error.to_string() })
    }

    /// The records, each with its number within the group.
    pub fn records(&self) -> impl Iterator<Item = (u32, &Arc<str>, &Record)> {
        let all = self.batches.iter().flat_map(|batch| {
            batch.records.iter().map(move |record| (&batch.concurrency_id, record))
        });
        (0..).zip(all).map(|(nth, (id, record))| (nth, id, record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A version to come adds fields, and counts up only where this one must not read it.
    #[test]
    fn unknown_fields_are_ignored_and_later_formats_are_refused() {
        let known = Group::decode("log", br#"{"format":1,"colour":"red","batches":[]}"#);
        assert_eq!(known, Ok(Group::of(Vec::new())));
        let later = Group::decode("log", br#"{"format":2,"batches":7}"#);
        assert_eq!(later, Err(JournalError::Newer { path: "log".into(), found: 2, known: 1 }));
        let foreign = Group::decode("log", b"hello");
        assert!(matches!(foreign, Err(JournalError::Foreign { .. })));
        let damaged = Group::decode("log", br#"{"format":1,"batches":7}"#);
        assert!(matches!(damaged, Err(JournalError::Damaged { .. })));
    }
}

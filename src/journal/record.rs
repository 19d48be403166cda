//! What is recorded of events: admitted, started, put off, ended; and of a concurrency id what an
//! operator has set.
//!
//! As JSON these are versioned by their fields: who reads ignores the fields that it doesn't know, and
//! takes the default for those that are missing.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::failure::Failure;
use crate::event::id::EventId;
use crate::event::json_text::JsonText;
use crate::scheduler::limit::Limit;

/// One thing to be kept. It says all of its subject that may change: of two, the later one stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Record {
    /// The event is accepted.
    Admitted(Admitted),
    /// A run of it starts, for the `attempt`-th time, from 1. `place` is the process that runs it, where that may
    /// be another one.
    Started {
        event: EventId,
        attempt: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        place: Option<Arc<str>>,
    },
    /// Its `attempt`-th run failed in passing: it waits again, and starts at this moment at the earliest, in
    /// milliseconds since the Unix epoch. Means nothing where a later one has started, which may be on record
    /// before this.
    Postponed { event: EventId, attempt: u32, until: u64 },
    /// It has ended. Of several ends the first counts. Like the two before, it means nothing for an
    /// event that is not live.
    Ended(Ended),
    /// The webhook of an event that has ended was called.
    Called(Called),
    /// What an operator has set for the concurrency id.
    Steered(Steered),
}

impl Record {
    /// The event that it is about, if it is about one.
    pub fn event(&self) -> Option<EventId> {
        match self {
            Record::Admitted(admitted) => Some(admitted.event),
            Record::Started { event, .. } | Record::Postponed { event, .. } => Some(*event),
            Record::Ended(ended) => Some(ended.event),
            Record::Called(called) => Some(called.event),
            Record::Steered(_) => None,
        }
    }
}

/// An event as it was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Admitted {
    pub event: EventId,
    pub listener: Arc<str>,
    /// The session of its client, where the client named one.
    #[serde(default)]
    pub session: Option<Arc<str>>,
    #[serde(default)]
    pub user: Option<Arc<str>>,
    /// The idempotency key.
    #[serde(default)]
    pub key: Option<Arc<str>>,
    /// The URL that its end is posted to.
    #[serde(default)]
    pub webhook: Option<Arc<str>>,
    /// It starts at this moment at the earliest, in milliseconds since the Unix epoch.
    #[serde(default)]
    pub not_before: Option<u64>,
    /// The process that it came to, where others may run it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub came_to: Option<Arc<str>>,
    /// When it was accepted, in milliseconds since the Unix epoch.
    pub at: u64,
    pub input: JsonText,
}

/// How an event ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ended {
    pub event: EventId,
    pub end: End,
    /// Seconds that its last run took; 0 where it never ran.
    #[serde(default)]
    pub duration: f64,
    /// In milliseconds since the Unix epoch.
    pub at: u64,
}

impl Ended {
    pub fn failed(&self) -> bool {
        matches!(self.end, End::Failed(_))
    }
}

/// How an event ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum End {
    /// With the JSON of its output, if it gave one.
    Completed(Option<JsonText>),
    Failed(Failure),
    Cancelled,
    TimedOut,
    Stopped,
}

/// How often the webhook of an event was called. It means nothing for an event that has none, or hasn't
/// ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Called {
    pub event: EventId,
    pub calls: u32,
    /// When it is called again, in milliseconds since the Unix epoch; `None` when that is over.
    #[serde(default)]
    pub next: Option<u64>,
}

/// An end that is kept, with what tells whose the event was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub listener: Arc<str>,
    pub session: Option<Arc<str>>,
    pub user: Option<Arc<str>>,
    pub key: Option<Arc<str>>,
    /// Its input, where it has an idempotency key, since the same key goes with the same input only; and
    /// where it failed, to be submitted again.
    pub input: Option<JsonText>,
    pub ended: Ended,
    /// How often it has started.
    pub attempts: u32,
    pub webhook: Option<Webhook>,
}

/// The webhook of an event that has ended: due from its end on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Webhook {
    pub url: Arc<str>,
    /// As in [`Called`].
    pub calls: u32,
    /// As in [`Called`].
    pub next: Option<u64>,
}

/// An event that has not ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Live {
    pub admitted: Admitted,
    /// The number of the last start that is recorded; 0 where there is none.
    pub attempt: u32,
    /// As in [`Record::Postponed`].
    #[serde(default)]
    pub postponed: Option<u64>,
    /// As in [`Record::Started`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Arc<str>>,
}

/// What an operator has set for a concurrency id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Steered {
    #[serde(default)]
    pub paused: bool,
    /// Where another limit was set than the declared one.
    #[serde(default)]
    pub limit: Option<SetLimit>,
}

/// The limit as it is recorded, where "unlimited" differs from "not set".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SetLimit {
    Slots(usize),
    Unlimited,
}

impl From<Limit> for SetLimit {
    fn from(limit: Limit) -> Self {
        match limit {
            Limit::Slots(slots) => SetLimit::Slots(slots),
            Limit::Unlimited => SetLimit::Unlimited,
        }
    }
}

impl From<SetLimit> for Limit {
    fn from(limit: SetLimit) -> Self {
        match limit {
            SetLimit::Slots(slots) => Limit::Slots(slots),
            SetLimit::Unlimited => Limit::Unlimited,
        }
    }
}

//! What the processes of a cluster say to each other. Any of it may be lost, doubled or late. As JSON these are
//! versioned by their fields: who reads ignores those that it doesn't know.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cluster::message::{Attempt, Beat, Epoch, FromOwner, Report};
use crate::event::failure::Failure;
use crate::event::id::EventId;
use crate::event::json_text::JsonText;
use crate::event::output::Output;
use crate::event::refusal::Refusal;
use crate::event::update::{Log, Outcome, ProgressUnit, Update};
use crate::journal::Query;
use crate::journal::record::{End, Kept, SetLimit};
use crate::queue::elsewhere::KeyedElsewhere;
use crate::queue::snapshot::QueueSnapshot;

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Message {
    /// To all.
    Beat(Beat),
    /// To all: the sender keeps the line, since this claim.
    Keeps(Epoch),
    /// To all: whoever kept the line leaves it to the next.
    Leaves(Epoch),
    /// From who keeps the line to a node. A run comes with its order. So many updates were told to this process
    /// before.
    Word {
        word: FromOwner,
        order: Option<Box<Order>>,
        told: u64,
    },
    /// To who keeps the line.
    Report(Report<RunEnd>),
    /// To who keeps the line: what a handler says of its event.
    Said {
        attempt: Attempt,
        event: EventId,
        said: Said,
    },
    /// To who keeps the line: let it in.
    Admit(Box<Admit>),
    /// Whether it was let in, to what the process has asked last. As all that is answered, it counts as long as the
    /// line is kept by this claim.
    Admitted {
        epoch: Epoch,
        event: EventId,
        ask: u64,
        result: Result<(), Refusal>,
    },
    /// To who keeps the line: end it wherever it is.
    Cancel {
        listener: Arc<str>,
        event: EventId,
    },
    /// To who keeps the line: these are followed here. It is said again until it has been heard.
    Follow {
        number: u64,
        events: Vec<EventId>,
    },
    /// What was said under this number has been heard.
    Followed(u64),
    /// An update of an event that is followed; they are numbered for each claim and each process that they go to.
    Told {
        epoch: Epoch,
        number: u64,
        event: EventId,
        said: Said,
    },
    /// To who keeps the line: a slot for somebody in the sending process, who has numbered it.
    Acquire(Acquire),
    Granted {
        epoch: Epoch,
        permit: u64,
        result: Result<usize, Refusal>,
    },
    /// From who keeps the line, of permits that are waited for: nothing is known of these.
    PermitsUnknown(Vec<u64>),
    /// To who keeps the line: this permit is held no longer.
    Released(u64),
    /// To all: whether permits are held there.
    Holds(bool),
    /// To who keeps the line since this claim: the permits that are held there, or waited for. What isn't among them
    /// is free.
    Permits {
        epoch: Epoch,
        held: Vec<Acquire>,
        waits: Vec<u64>,
    },
    /// To who keeps the line.
    Ask {
        id: u64,
        question: Question,
    },
    Answer {
        id: u64,
        answer: Result<Answer, String>,
    },
}

/// What is to be run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub listener: Arc<str>,
    /// One, or those of a batch; the first one's attempt stands for all.
    pub events: Vec<OrderedEvent>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct OrderedEvent {
    pub event: EventId,
    pub attempt: u32,
    pub input: JsonText,
    #[serde(default)]
    pub session: Option<Arc<str>>,
    #[serde(default)]
    pub user: Option<Arc<str>>,
}

impl OrderedEvent {
    pub fn attempt(&self) -> Attempt {
        Attempt { event: self.event, number: self.attempt }
    }
}

/// An event to be let into the line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Admit {
    pub event: EventId,
    /// The number of this request among all those of its process.
    pub ask: u64,
    pub listener: Arc<str>,
    pub input: JsonText,
    #[serde(default)]
    pub session: Option<Arc<str>>,
    #[serde(default)]
    pub user: Option<Arc<str>>,
    #[serde(default)]
    pub key: Option<Arc<str>>,
    #[serde(default)]
    pub webhook: Option<Arc<str>>,
    /// In milliseconds since the Unix epoch.
    #[serde(default)]
    pub not_before: Option<u64>,
    /// Its submitter waits where the wait queue is full.
    pub waits: bool,
    /// It was said before, and may have been let in.
    #[serde(default)]
    pub again: bool,
}

/// A slot for somebody who isn't an event.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Acquire {
    pub permit: u64,
    pub concurrency_id: Arc<str>,
    pub label: Arc<str>,
    pub queue_timeout: Option<Duration>,
    /// It was granted already, with this number.
    #[serde(default)]
    pub slot: Option<usize>,
}

/// How the events of a run have ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct RunEnd {
    pub events: Vec<EventEnd>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct EventEnd {
    pub event: EventId,
    pub attempt: u32,
    pub end: End,
    /// It failed in passing, and may be tried again, after this pause where one is named.
    #[serde(default)]
    pub transient: Option<Option<Duration>>,
}

impl EventEnd {
    pub fn attempt(&self) -> Attempt {
        Attempt { event: self.event, number: self.attempt }
    }

    /// What the handler gave, or how it failed.
    pub fn failure(&self) -> Option<Failure> {
        match &self.end {
            End::Failed(failure) => {
                Some(Failure { transient: self.transient.map(Box::new), ..failure.clone() })
            }
            _ => None,
        }
    }
}

/// An update as it travels.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Said {
    Rank {
        rank: usize,
        queue_size: usize,
        rank_eta: Option<f64>,
    },
    Starts {
        eta: Option<f64>,
    },
    Progress(Vec<ProgressUnit>),
    Log(Log),
    Generating {
        output: JsonText,
        duration: f64,
    },
    Ended {
        end: End,
        duration: f64,
        average: Option<f64>,
    },
    /// Nothing is known of it: no record, no result.
    Unknown,
}

impl Said {
    pub fn of(update: Update) -> Self {
        match update {
            Update::Estimation { rank, queue_size, rank_eta, .. } => {
                Said::Rank { rank, queue_size, rank_eta }
            }
            Update::ProcessStarts { eta, .. } => Said::Starts { eta },
            Update::Progress { units, .. } => Said::Progress(units),
            Update::Log { log, .. } => Said::Log(log),
            Update::ProcessGenerating { output, duration, .. } => match written(&output) {
                Ok(output) => Said::Generating { output, duration },
                Err(failure) => {
                    Said::Log(Log::new(crate::event::update::LogLevel::Warning, failure.message))
                }
            },
            Update::ProcessCompleted { outcome, duration, average_duration, .. } => {
                let (end, average) = (end_of(outcome), average_duration);
                Said::Ended { end, duration, average }
            }
        }
    }

    pub fn is_end(&self) -> bool {
        matches!(self, Said::Ended { .. } | Said::Unknown)
    }
}

fn written(output: &Output) -> Result<JsonText, Failure> {
    let text = output.to_text().map_err(|error| {
        Failure::unexpected(format!("its output can't be written as JSON: {error}"))
    })?;
    let kept = JsonText::from(text).kept();
    kept.map_err(|error| Failure::unexpected(format!("its output is too long: {error}")))
}

/// As it is recorded.
pub(super) fn end_of(outcome: Outcome) -> End {
    match outcome {
        Outcome::Completed(output) => match output.as_ref().map(written).transpose() {
            Ok(output) => End::Completed(output),
            Err(failure) => End::Failed(failure),
        },
        Outcome::Failed(failure) => End::Failed(failure),
        Outcome::Cancelled => End::Cancelled,
        Outcome::TimedOut => End::TimedOut,
        Outcome::Stopped => End::Stopped,
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) enum Question {
    Snapshot,
    Control {
        concurrency_id: Arc<str>,
        control: Control,
    },
    Ends(Query),
    /// What is known of the event of an idempotency key.
    Keyed {
        listener: Arc<str>,
        user: Option<Arc<str>>,
        key: Arc<str>,
    },
    /// Whether this event goes on.
    Event(EventId),
    /// The events of this session that go on.
    Session {
        user: Option<Arc<str>>,
        session: Arc<str>,
    },
}

/// What an operator sets.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) enum Control {
    Pause,
    Resume,
    SetLimit(SetLimit),
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Snapshot(Box<QueueSnapshot>),
    /// It is done. What keeps it from being on record, if anything does.
    Controlled(Option<String>),
    Ends(Vec<Kept>),
    Keyed(Option<KeyedElsewhere>),
    Events(Vec<GoesOn>),
}

/// An event that goes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct GoesOn {
    pub event: EventId,
    pub listener: Arc<str>,
    pub user: Option<Arc<str>>,
    pub session: Option<Arc<str>>,
    /// Not any more: it has ended not long ago.
    #[serde(default)]
    pub ended: bool,
}

//! Updates: every message that a client can get about its event.

use std::fmt;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use super::id::EventId;
use super::output::Output;
use super::refusal::Refusal;

/// One message about one event, named as on Gradio's wire.
///
/// An admitted event gets an [`Estimation`](Update::Estimation) first and exactly one
/// [`ProcessCompleted`](Update::ProcessCompleted) last. Estimations and progress are the latest
/// known: a client that reads slowly misses older ones.
///
/// With the crate's feature `web` it is `Serialize`: the message that a client over HTTP gets, to be
/// forwarded over a connection of the service's own.
#[derive(Clone, Debug, actix::Message)]
#[rtype(result = "()")]
#[non_exhaustive]
pub enum Update {
    /// Its place in the wait queue.
    Estimation {
        /// The event.
        event_id: EventId,
        /// Events ahead of it, from 0.
        rank: usize,
        /// Events in the wait queue, itself included.
        queue_size: usize,
        /// Seconds until its result is likely; `None` while run times are unknown.
        rank_eta: Option<f64>,
    },
    /// Its handler starts.
    ProcessStarts {
        /// The event.
        event_id: EventId,
        /// Seconds that the run is likely to take; `None` while unknown.
        eta: Option<f64>,
    },
    /// Its handler has come further.
    Progress {
        /// The event.
        event_id: EventId,
        /// One unit for each loop that the handler tracks, outermost first.
        units: Vec<ProgressUnit>,
    },
    /// Its handler sends a message to the user.
    Log {
        /// The event.
        event_id: EventId,
        /// The message.
        log: Log,
    },
    /// Its handler yielded a value.
    ProcessGenerating {
        /// The event.
        event_id: EventId,
        /// The value.
        output: Output,
        /// Seconds since the handler started, or since its last value.
        duration: f64,
    },
    /// It has ended. Nothing follows.
    ProcessCompleted {
        /// The event.
        event_id: EventId,
        /// How it ended.
        outcome: Outcome,
        /// Seconds that its handler ran; 0 when it never started.
        duration: f64,
        /// Seconds that runs of the listener took lately, this one not counted; `None` while
        /// unknown.
        average_duration: Option<f64>,
    },
}

impl Update {
    /// The event that the message is about.
    pub fn event_id(&self) -> EventId {
        match self {
            Update::Estimation { event_id, .. }
            | Update::ProcessStarts { event_id, .. }
            | Update::Progress { event_id, .. }
            | Update::Log { event_id, .. }
            | Update::ProcessGenerating { event_id, .. }
            | Update::ProcessCompleted { event_id, .. } => *event_id,
        }
    }

    /// Whether it is the last one about its event.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Update::ProcessCompleted { .. })
    }
}

/// How an admitted event ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// Its handler returned a value, or a stream ended: then the value is the stream's last, and
    /// `None` when there was none.
    Completed(Option<Output>),
    /// Its handler returned an error or panicked.
    Failed(Failure),
    /// It was cancelled.
    Cancelled,
    /// It waited longer than its `queue_timeout` or ran longer than its `time_limit`.
    TimedOut,
    /// The queue was stopped.
    Stopped,
}

/// For log messages; nothing of the value.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Outcome::Completed(_) => "completed",
            Outcome::Failed(_) => "failed",
            Outcome::Cancelled => "cancelled",
            Outcome::TimedOut => "timed out",
            Outcome::Stopped => "stopped",
        })
    }
}

/// How far a handler, or one loop of it, has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProgressUnit {
    /// Steps done, where steps are counted.
    pub index: Option<u64>,
    /// Steps in all, where that is known.
    pub length: Option<u64>,
    /// What a step is called.
    pub unit: Option<String>,
    /// The part done, from 0 to 1, where it is known.
    pub progress: Option<f64>,
    /// What is being done.
    pub desc: Option<String>,
}

/// A message from a handler to the user, as Gradio's `gr.Info`, `gr.Warning` and `gr.Success`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Log {
    /// How serious it is.
    pub level: LogLevel,
    /// The text.
    #[serde(rename = "log")]
    pub message: String,
    /// The title over the message.
    pub title: String,
    /// Seconds for which a client shows it; `None` until the user closes it.
    pub duration: Option<f64>,
    /// Whether a client shows it to its user.
    pub visible: bool,
}

impl Log {
    /// A message with the level's own title, shown for 10 seconds.
    pub fn new(level: LogLevel, message: impl Into<String>) -> Self {
        let title = match level {
            LogLevel::Info => "Info",
            LogLevel::Warning => "Warning",
            LogLevel::Success => "Success",
        };
        Log {
            level,
            message: message.into(),
            title: title.into(),
            duration: Some(10.0),
            visible: true,
        }
    }
}

/// How serious a [`Log`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum LogLevel {
    /// Worth knowing.
    Info,
    /// A warning.
    Warning,
    /// A success.
    Success,
}

/// The answer to a call that wants nothing but the result.
pub(crate) type Reply = Result<Finished, Refusal>;

/// How an event ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub outcome: Outcome,
    /// When its run started, if it has. Not how long it took: few who call want to know, and a look at
    /// the clock is a good part of the cost of a call.
    pub started: Option<Instant>,
    /// As in [`Update::ProcessCompleted`].
    pub average_duration: Option<f64>,
}

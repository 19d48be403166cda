//! The state of a queue at one moment: slots, wait queues, listeners.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::limit::Limit;
use crate::event::id::EventId;

/// What stands for a listener's name where a permit is meant. No listener can be named so.
pub(crate) const PERMIT: &str = "(permit)";

/// One concurrency id: its slots, its wait queue, its listeners.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ConcurrencyIdSnapshot {
    /// The name of the shared queue.
    pub concurrency_id: Arc<str>,
    /// How many events run at once; null for unlimited.
    pub limit: Limit,
    /// Nothing starts until it is resumed.
    pub paused: bool,
    /// It takes no more events.
    pub stopped: bool,
    /// Runs under way: single events and batches.
    pub running: usize,
    /// Events in the wait queue.
    pub waiting: usize,
    /// Callers that wait for room in the wait queue.
    pub blocked: usize,
    /// Events that may start only later: delayed ones, and ones that will be tried again.
    pub scheduled: usize,
    /// The next of them, at most 50, in the order of their moments.
    pub upcoming: Vec<ScheduledEvent>,
    /// Seconds that the oldest event in the wait queue has waited; null when the wait queue is empty.
    pub oldest_wait: Option<f64>,
    /// Slots whose resource could not be built at the last attempt. Each is tried again.
    pub failing_slots: usize,
    /// Seconds for which no slot at all could run anything because of that; null while one can.
    pub unavailable: Option<f64>,
    /// Why the journal takes no records, where events are durable; null while it does. Nothing is
    /// admitted to durable listeners meanwhile.
    pub journal_trouble: Option<String>,
    /// The slots that have a worker, or wait for one to be ready: at most 1,024, the busy ones
    /// first where there are more.
    pub slots: Vec<SlotSnapshot>,
    /// How many more there are than `slots` lists.
    pub unlisted_slots: usize,
    /// The last events that ended, at most 50, the oldest first.
    pub recent: Vec<EndedEvent>,
    /// The listeners that share this id, in order of declaration.
    pub listeners: Vec<ListenerSnapshot>,
    /// Its permits, counted as a listener's events are, where any has been requested: by
    /// [`Queue::acquire`](crate::Queue::acquire), or a gate without a name. One that was given back counts as
    /// completed. In place of a listener's name stands `(permit)`, here and elsewhere.
    pub permits: Option<ListenerSnapshot>,
    /// The permits of gates that have a name, once each has been asked for one: counted by themselves, with
    /// the name in parentheses.
    pub gates: Vec<ListenerSnapshot>,
}

/// One slot.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SlotSnapshot {
    /// Its number, from 0.
    pub slot: usize,
    /// What it does.
    pub state: SlotState,
}

/// What a slot does.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
#[non_exhaustive]
pub enum SlotState {
    /// It waits for an event.
    Free,
    /// It builds its resource, or makes it clean again, and takes no events meanwhile.
    Preparing {
        /// Why the last attempt failed, if one has.
        trouble: Option<String>,
    },
    /// It closes its resource and goes.
    Closing,
    /// It runs one event, or one batch.
    #[non_exhaustive]
    Busy {
        /// The events of the run.
        events: Vec<EventId>,
        /// The listener's name; of a slot that a permit holds, `(permit)`, or its gate's as `(render)`.
        listener: Arc<str>,
        /// For how long it has run, in seconds.
        seconds: f64,
        /// It was interrupted and hasn't stopped yet.
        interrupted: bool,
        /// Of a durable event that is tried again: which start this is, from 2. Otherwise null.
        attempt: Option<u32>,
        /// How far it has got, from 0 to 1, as its handler reports; null while it has not.
        progress: Option<f64>,
        /// The node that runs it, where the queue is one of a cluster.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<Arc<str>>,
    },
}

/// An event that may start only later.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ScheduledEvent {
    /// The event.
    pub id: EventId,
    /// The listener's name.
    pub listener: Arc<str>,
    /// Seconds until it may start.
    pub starts_in: f64,
    /// How often it has started: 0 for one that is for later, more for one that is tried again.
    pub attempts: u32,
}

/// One listener, with counts of events since the start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ListenerSnapshot {
    /// The listener's name; `(permit)`, or a gate's as `(render)`, where permits are meant.
    pub api_name: Arc<str>,
    /// Events of it in the wait queue.
    pub waiting: usize,
    /// Seconds that a run takes, lately; null while unknown.
    pub average_run: Option<f64>,
    /// Events that were admitted to the wait queue.
    pub admitted: u64,
    /// Events refused by the supervisor, or at the edge because the wait queue was full.
    pub refused: u64,
    /// The same, by reason.
    pub refusals: Refusals,
    /// Events that ended with a result.
    pub completed: u64,
    /// Events whose handler failed or panicked.
    pub failed: u64,
    /// Events cancelled, waiting or running.
    pub cancelled: u64,
    /// Events past their `queue_timeout` or `time_limit`.
    pub timed_out: u64,
    /// Events ended by a stop of the queue.
    pub stopped: u64,
    /// How long events waited before they started, in seconds.
    pub wait_seconds: Histogram,
    /// How long runs took, in seconds, however they ended.
    pub run_seconds: Histogram,
    /// How many events ran together, for a batch listener.
    pub batch_events: Histogram,
}

/// Refused events of a listener, by reason.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Refusals {
    /// The wait queue was full.
    pub queue_full: u64,
    /// The estimated wait was longer than `max_eta`.
    pub wait_too_long: u64,
    /// No slot had been there for too long, because their resources could not be built.
    pub unavailable: u64,
    /// The journal could not record the event.
    pub not_recorded: u64,
    /// The queue was stopped.
    pub stopped: u64,
}

impl Refusals {
    pub(crate) fn all(&self) -> u64 {
        self.queue_full + self.wait_too_long + self.unavailable + self.not_recorded + self.stopped
    }
}

/// How observations since the start are distributed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Histogram {
    /// The upper bound of each bucket, which belongs to it. One more bucket is for what is beyond.
    #[serde(deserialize_with = "super::bounds::known_bounds")]
    pub bounds: &'static [f64],
    /// Observations in each bucket alone.
    pub counts: Vec<u64>,
    /// The sum of all observations.
    pub sum: f64,
    /// How many there are.
    pub count: u64,
}

/// An event that has ended.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EndedEvent {
    /// Counts the ended events of its concurrency id, from 1.
    pub number: u64,
    /// The event.
    pub id: EventId,
    /// The listener's name.
    pub listener: Arc<str>,
    /// How it ended.
    pub outcome: EndedAs,
    /// Seconds in the wait queue; of a batch, those of its oldest event.
    pub waited: f64,
    /// Seconds that its run took; null when it never started.
    pub ran: Option<f64>,
    /// Seconds since it ended.
    pub seconds_ago: f64,
}

/// How an event ended, as far as its supervisor knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum EndedAs {
    /// With a result.
    Completed,
    /// Its handler failed or panicked.
    Failed,
    /// It was cancelled.
    Cancelled,
    /// It was past its `queue_timeout` or `time_limit`.
    TimedOut,
    /// The queue was stopped.
    Stopped,
    /// In a batch whose events ended in several ways.
    Mixed,
}

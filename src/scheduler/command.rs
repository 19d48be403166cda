//! What goes into the scheduler, and what comes out.

use std::time::{Duration, Instant};

use super::appointments::Appointment;
use super::limit::Limit;
use super::rank_updates::Estimation;
use super::wait_queue::Key;
use crate::event::id::EventId;
use crate::event::refusal::Refusal;
use crate::event::update::Outcome;

/// What a caller does when there is no room in the wait queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WhenFull {
    /// Be refused at once.
    Refuse,
    /// Wait for room in front of the full wait queue, first come first served.
    Wait,
}

/// An event to be admitted. `T` is whatever the shell needs to run it.
#[derive(Debug)]
pub(crate) struct Arrival<T> {
    pub id: EventId,
    pub listener: usize,
    /// Its updates are followed: it is notified of its rank.
    pub watched: bool,
    pub when_full: WhenFull,
    /// It may start from this moment on; `None` for at once.
    pub not_before: Option<Instant>,
    /// It comes with a place of the queue-wide capacity. Means nothing where there is none.
    pub placed: bool,
    pub payload: T,
}

/// How the events of one run ended, in numbers of events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OutcomeCounts {
    pub completed: u64,
    pub failed: u64,
    pub cancelled: u64,
    pub timed_out: u64,
    pub stopped: u64,
}

impl OutcomeCounts {
    /// All of them.
    pub fn events(&self) -> u64 {
        self.completed + self.failed + self.cancelled + self.timed_out + self.stopped
    }

    /// One more event that ended early.
    pub fn count(&mut self, cause: Cause) {
        match cause {
            Cause::Cancelled => self.cancelled += 1,
            Cause::TimedOut => self.timed_out += 1,
            Cause::Stopped => self.stopped += 1,
        }
    }

    pub fn add(&mut self, other: OutcomeCounts) {
        self.completed += other.completed;
        self.failed += other.failed;
        self.cancelled += other.cancelled;
        self.timed_out += other.timed_out;
        self.stopped += other.stopped;
    }
}

/// Why an event ends before its handler has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    Cancelled,
    /// It waited for longer than its `queue_timeout`, or ran for longer than its `time_limit`.
    TimedOut,
    /// The queue was stopped.
    Stopped,
}

impl Cause {
    /// How an event ends for this cause.
    pub fn outcome(self) -> Outcome {
        match self {
            Cause::Cancelled => Outcome::Cancelled,
            Cause::TimedOut => Outcome::TimedOut,
            Cause::Stopped => Outcome::Stopped,
        }
    }
}

#[derive(Debug)]
pub(crate) enum Command<T> {
    Admit(Arrival<T>),
    /// Ends an event of this listener wherever it is. Others' events and unknown ids are left
    /// alone: the event may just have ended.
    Cancel {
        listener: usize,
        id: EventId,
    },
    /// Whoever waits for this permit waits no longer. Nothing happens to one that was given, which is its
    /// holder's, and to events of listeners.
    GiveUp {
        id: EventId,
        cause: Cause,
    },
    /// The run on `slot` has really stopped. `ready` is false when the worker must see to its
    /// resource before it can take another.
    Done {
        slot: usize,
        counts: OutcomeCounts,
        ready: bool,
    },
    /// The run on `slot` has not begun: the resource was found bad before it was lent. These of its
    /// events have not ended, and run on the next slot that can take them.
    Returned {
        slot: usize,
        counts: OutcomeCounts,
        events: Vec<(EventId, T)>,
    },
    /// The run on `slot` has not ended this event, which may start again from `due` on, or without that is next
    /// again. To be said before the run is done.
    Postpone {
        slot: usize,
        id: EventId,
        payload: T,
        due: Option<Instant>,
    },
    /// The worker on `slot` has a resource to lend.
    SlotReady {
        slot: usize,
    },
    /// The worker on `slot` could not build its resource and will try again after this pause.
    SlotFailed {
        slot: usize,
        trouble: String,
        pause: Duration,
    },
    /// The worker on `slot` is gone, with whatever it ran and owned.
    SlotLost {
        slot: usize,
    },
    Pause,
    Resume,
    SetLimit(Limit),
    /// At most so many can run, whatever the limit: what runs them has no more room.
    #[cfg_attr(not(any(test, feature = "cluster")), allow(dead_code))]
    SetCapacity(usize),
    /// Takes no more events, stops the waiting ones, lets the running ones finish.
    Stop,
    /// Interrupts whatever still runs.
    Abort,
    /// The admission of this event, which [`Effect::Record`] asked for, is on record.
    Recorded(Key),
    /// It could not be recorded.
    NotRecorded {
        key: Key,
        refusal: Refusal,
    },
    /// An event that an earlier process admitted at that moment comes back.
    Restore {
        arrival: Box<Arrival<T>>,
        since: Instant,
        /// It may be running already: it has a slot at once, whatever keeps others waiting.
        runs: bool,
    },
    /// Another process goes on with the events that are on record: here they end, as at a stop.
    HandOver,
    /// The blocked caller that requested one with this key has got a place of the queue-wide capacity.
    PlaceGranted(Key),
}

/// Whether the wait queue takes more events, as the listeners are notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pressure {
    Open,
    /// The wait queue is full; callers that won't wait are refused at the edge.
    Closed {
        max_size: usize,
        size: usize,
        retry_after: Option<Duration>,
    },
}

#[derive(Debug)]
pub(crate) enum Effect<T> {
    /// Put a worker on this slot.
    Open {
        slot: usize,
    },
    /// Let the worker on this slot go; it runs nothing. Where it owns a resource, it says when it
    /// has closed that.
    Close {
        slot: usize,
    },
    /// Let the worker on this slot build its resource anew, or make it clean again.
    Prepare {
        slot: usize,
    },
    /// Start one event on this slot.
    Start {
        slot: usize,
        event: T,
        params: RunParams,
    },
    /// Start these events together on this slot, oldest first.
    StartBatch {
        slot: usize,
        events: Vec<T>,
        params: RunParams,
    },
    /// Make the run on `slot`, or only one event of it, end early.
    Interrupt {
        slot: usize,
        event: Option<EventId>,
        cause: Cause,
    },
    /// An admitted or waiting event ends without having run.
    End {
        event: T,
        cause: Cause,
    },
    /// Record the admission of an accepted event.
    Record {
        key: Key,
    },
    /// An event was not admitted.
    Refuse {
        event: T,
        refusal: Refusal,
    },
    /// Notify whoever submitted the event that it has been accepted, and is scheduled.
    Schedule {
        appointment: Appointment,
    },
    /// Notify the event at `key` of its rank. The key holds until the next call of the scheduler.
    NotifyRank {
        key: Key,
        estimation: Estimation,
    },
    Pressure(Pressure),
    /// A caller is blocked: request a place of the queue-wide capacity. `since` is its rank among
    /// all who are blocked there, whatever their concurrency id.
    RequestPlace {
        key: Key,
        since: Instant,
    },
    /// The caller that requested it has gone.
    WithdrawPlace {
        key: Key,
        since: Instant,
    },
    /// An event that held a place comes back: it takes one again, even where there is none.
    RetakePlace,
    /// So many places of the queue-wide capacity that events here held are free.
    FreePlaces(usize),
}

/// The params of one run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RunParams {
    pub listener: usize,
    pub started: Instant,
    /// The latest moment at which the run ends.
    pub deadline: Option<Instant>,
    /// Seconds that runs of this listener take; `None` while unknown.
    pub average: Option<f64>,
}

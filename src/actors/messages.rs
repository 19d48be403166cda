//! The messages between the actors, in the order in which an event meets them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Message, Recipient};
use tokio::sync::oneshot;

use super::durable_end::DurableEnd;
use crate::delivery::sender::EventSender;
use crate::event::id::EventId;
use crate::handler::durable::Retry;
use crate::handler::input::{Input, OneOrMany};
use crate::handler::session_state::SessionState;
use crate::handler::user::user_of;
use crate::journal::error::JournalError;
use crate::scheduler::command::{Cause, OutcomeCounts, Pressure, RunParams, WhenFull};
use crate::scheduler::limit::Limit;
use crate::scheduler::snapshot::ConcurrencyIdSnapshot;

/// An event on its way through the actors.
#[derive(Debug)]
pub(crate) struct Job {
    pub id: EventId,
    pub session: Option<Arc<SessionState>>,
    pub input: Input,
    pub sender: EventSender,
}

impl Job {
    /// The user whose event it is.
    pub fn user(&self) -> Option<&str> {
        user_of(self.session.as_deref(), self.input.given())
    }
}

/// Caller → listener: here is an event.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Submit {
    // Boxed: it is moved four times and lives long in the wait queue.
    pub job: Box<Job>,
    pub when_full: WhenFull,
    /// It may start from this moment on; `None` for at once.
    pub not_before: Option<Instant>,
}

/// Listener → supervisor: let it into the wait queue.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Admit {
    pub listener: usize,
    pub submit: Submit,
}

/// Who runs what waits elsewhere → supervisor: run these together, as one batch where there are several.
#[cfg_attr(not(feature = "cluster"), allow(dead_code))]
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct AdmitTogether(pub Vec<Admit>);

/// Who runs what waits elsewhere → supervisor: there is room for so many.
#[cfg_attr(not(feature = "cluster"), allow(dead_code))]
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct SetCapacity(pub usize);

/// Supervisor → worker.
pub(crate) enum WorkerCommand {
    /// Run this on your slot.
    Run(Run),
    /// Run this, of whose events so many have ended already. Boxed, since few runs are such.
    RunRest(Box<(Run, OutcomeCounts)>),
    /// End the run, or one event of it, early.
    Interrupt { event: Option<EventId>, cause: Cause },
    /// See to your resource, which is not fit for another run.
    Prepare,
    /// Close your resource and go, whatever you run.
    Leave,
    /// Panic, as a bug would make you.
    #[cfg(test)]
    Blow,
}

pub(crate) struct Run {
    pub jobs: OneOrMany<Box<Job>>,
    pub params: RunParams,
}

/// Worker → supervisor, with the generation that distinguishes this worker from an earlier one on the
/// same slot.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Report {
    pub slot: usize,
    pub generation: u64,
    pub event: WorkerEvent,
}

#[derive(Debug)]
pub(crate) enum WorkerEvent {
    /// The resource is built.
    Ready,
    /// It could not be built; the worker will try again after this pause.
    Trouble { trouble: String, pause: Duration },
    /// The worker is gone, with what it ran and what it owned. A blocking handler of it has returned.
    Gone,
    /// The run has really stopped. `ready` is false when the resource isn't fit for another.
    Done { counts: OutcomeCounts, ready: bool },
    /// These of its events, which are durable, have ended. Before the run has stopped, or after.
    Ended(Vec<DurableEnd>),
    /// The run has not ended these of its events, which are to be tried again. Before it has stopped.
    Postponed(Vec<(Box<Job>, Retry)>),
    /// The run has not begun, since the resource isn't fit for it. These of its events haven't ended.
    Returned { jobs: OneOrMany<Box<Job>>, counts: OutcomeCounts },
}

/// Caller → listener: end this event of yours wherever it is.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Cancel(pub EventId);

/// Listener → supervisor: end this event of mine wherever it is.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct CancelOf {
    pub listener: usize,
    pub id: EventId,
}

/// Who waits for a permit → supervisor: no longer.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct GiveUp {
    pub id: EventId,
    pub cause: Cause,
}

/// Listener → supervisor, once: notify me when your wait queue is full.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Subscribe(pub Recipient<PressureChanged>);

/// Supervisor → listeners.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct PressureChanged(pub Pressure);

/// Queue-wide capacity → supervisor: blocked callers of yours have been granted a place.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct PlacesGranted;

/// Queue → supervisor: steer. It answers once that will still hold in a later process, as far as anything
/// of this one outlives it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Steer {
    pub control: Control,
    pub reply: oneshot::Sender<Result<(), JournalError>>,
}

/// What an operator sets.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Control {
    Pause,
    Resume,
    SetLimit(Limit),
}

/// Queue → supervisor: take a snapshot. Everybody who waits for an answer gets the same.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct TakeSnapshot {
    pub reply: oneshot::Sender<Arc<ConcurrencyIdSnapshot>>,
}

/// Queue → supervisor: take no more events; say when nothing runs any more.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Stop {
    pub idle: oneshot::Sender<()>,
}

/// Queue → supervisor: say when no resource is being closed any more.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct AwaitClosed {
    pub closed: oneshot::Sender<()>,
}

/// Test → actor: panic, as a bug would make you.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Blow;

/// Test → supervisor: let the worker on a slot panic, as a bug would make you.
#[cfg(test)]
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct BlowWorker(pub usize);

/// Queue → supervisor: interrupt what still runs.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Abort;

/// Queue → supervisors and listeners, from its last clone: nobody needs you any more.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub(crate) struct Quit;

//! A slot that is granted to a holder other than its worker, and the request for it.

use std::sync::Arc;

use actix::Message;
use tokio::sync::oneshot;

use super::messages::{Job, WorkerEvent};
use super::slot_hold::SlotHold;
use crate::event::id::EventId;
use crate::event::refusal::Refusal;
use crate::scheduler::command::OutcomeCounts;

/// Given to whoever waited for a slot without an event of a listener. The slot is free again when it
/// is dropped, on whatever thread.
pub(crate) struct Grant(Arc<SlotHold>);

impl Grant {
    pub(super) fn new(hold: Arc<SlotHold>) -> Self {
        Grant(hold)
    }

    pub fn slot(&self) -> usize {
        self.0.slot
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        let counts = OutcomeCounts { completed: 1, ..OutcomeCounts::default() };
        self.0.report(WorkerEvent::Done { counts, ready: true });
    }
}

/// Queue → supervisor: let somebody wait for a slot that is no listener's event.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct Acquire {
    pub id: EventId,
    /// What it is counted as.
    pub label: Arc<str>,
    /// It has been held since before this supervisor was there.
    pub held: bool,
    pub grant: oneshot::Sender<Result<Grant, Refusal>>,
}

/// Who waits in the wait queue.
pub(crate) enum Queued {
    Event(Box<Job>),
    /// Somebody who takes the slot as a [`Grant`].
    Permit(oneshot::Sender<Result<Grant, Refusal>>),
}

impl Queued {
    pub fn into_event(self) -> Option<Box<Job>> {
        match self {
            Queued::Event(job) => Some(job),
            Queued::Permit(_) => None,
        }
    }
}

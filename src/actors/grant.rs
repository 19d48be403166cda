//! A slot in the hands of somebody who isn't its worker.

use std::sync::Arc;

use super::messages::{Report, WorkerEvent};
use super::slot_hold::SlotHold;
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
        let SlotHold { supervisor, slot, seat } = &*self.0;
        let counts = OutcomeCounts { completed: 1, ..OutcomeCounts::default() };
        // Past the mailbox' bound: there is one for each slot at most.
        let news = WorkerEvent::Done { counts, ready: true };
        supervisor.do_send(Report { slot: *slot, seat: *seat, news });
    }
}

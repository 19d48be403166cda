//! Who is on a slot.

use actix::Recipient;

use super::messages::{Report, WorkerEvent};

/// Held by a worker, and by the thread of a blocking handler, which can outlive the worker. The slot
/// is vacant when the last of them is gone; then the supervisor learns it.
pub(super) struct SlotHold {
    pub supervisor: Recipient<Report>,
    pub slot: usize,
    /// Distinguishes this worker from an earlier one on the same slot.
    pub generation: u64,
}

impl SlotHold {
    /// Reports to the supervisor, past its mailbox' bound: a slot has at most one run, and its own end,
    /// to report on.
    pub fn report(&self, event: WorkerEvent) {
        let (slot, generation) = (self.slot, self.generation);
        self.supervisor.do_send(Report { slot, generation, event });
    }
}

impl Drop for SlotHold {
    fn drop(&mut self) {
        self.report(WorkerEvent::Gone);
    }
}

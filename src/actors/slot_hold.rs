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

impl Drop for SlotHold {
    fn drop(&mut self) {
        let (slot, generation) = (self.slot, self.generation);
        // Past the mailbox' bound: there is one for each worker.
        self.supervisor.do_send(Report { slot, generation, event: WorkerEvent::Gone });
    }
}

//! What goes between a supervisor and a worker, whether they share a thread or not.
//!
//! On one thread both ways are local channels. To a worker on another thread commands go by a channel
//! of tokio's, and its reports come by the supervisor's mailbox: one that is sent before a client is
//! notified is in there before whatever that client sends next.

use std::task::{Context, Poll};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::local_channel::{LocalReceiver, LocalSender};
use super::messages::{Report, WorkerCommand, WorkerEvent};
use super::slot_hold::SlotHold;

/// The supervisor's end.
pub(super) enum CommandSender {
    SameThread(LocalSender<WorkerCommand>),
    OtherThread(UnboundedSender<WorkerCommand>),
}

impl CommandSender {
    /// Gives the command back when the worker is gone.
    pub fn send(&self, command: WorkerCommand) -> Result<(), WorkerCommand> {
        match self {
            CommandSender::SameThread(sender) => sender.send(command),
            CommandSender::OtherThread(sender) => sender.send(command).map_err(|error| error.0),
        }
    }
}

/// The worker's end.
pub(super) enum WorkerLink {
    SameThread(LocalReceiver<WorkerCommand>, LocalSender<Report>),
    /// Reports go by the mailbox.
    OtherThread(UnboundedReceiver<WorkerCommand>),
}

impl WorkerLink {
    /// `None` when the supervisor is gone.
    pub fn poll_command(&mut self, task: &mut Context<'_>) -> Poll<Option<WorkerCommand>> {
        match self {
            WorkerLink::SameThread(receiver, _) => receiver.poll_recv(task),
            WorkerLink::OtherThread(receiver) => receiver.poll_recv(task),
        }
    }

    /// Reports on the slot that is held. A supervisor that is gone needs to know nothing.
    pub fn report(&self, hold: &SlotHold, event: WorkerEvent) {
        match self {
            WorkerLink::SameThread(_, sender) => {
                let SlotHold { slot, generation, .. } = *hold;
                let _ = sender.send(Report { slot, generation, event });
            }
            WorkerLink::OtherThread(_) => hold.report(event),
        }
    }
}

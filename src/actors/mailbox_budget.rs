//! Keeps a flooded actor from handling its mailbox without end.

use actix::{Actor, AsyncContext};

/// Messages handled in a row before the actor takes a breath.
///
/// actix handles a mailbox until it is empty. That starves the actor's own timers and everything
/// else on its thread under a flood, and with actix's `mailbox_assert` (on by default) the 256th
/// message in a row is a panic.
pub(super) const IN_A_ROW: u32 = 128;

#[derive(Debug, Default)]
pub(crate) struct MailboxBudget {
    handled: u32,
}

impl MailboxBudget {
    /// To be called once a message, whatever the message.
    pub fn spend<A>(&mut self, context: &mut A::Context)
    where
        A: Actor,
        A::Context: AsyncContext<A>,
    {
        self.handled += 1;
        if self.handled >= IN_A_ROW {
            self.handled = 0;
            // What is ready at once would end the row only for the assertion: the actor goes on
            // before the thread has looked at its clock, or at other actors.
            context.wait(actix::fut::wrap_future::<_, A>(tokio::task::yield_now()));
        }
    }
}

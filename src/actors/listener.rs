//! The listener actor: the edge of the queue for one listener's events.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use actix::dev::SendError;
use actix::{Actor, ActorContext, Addr, AsyncContext, Context, Handler, Recipient, WrapFuture};
use futures::FutureExt;

use super::Capacity;
use super::gauges::Gauges;
use super::mailbox_budget::MailboxBudget;
use super::messages::{Admit, Cancel, CancelOf, PressureChanged, Quit, Submit, Subscribe};
use crate::event::guarded::discard_payload;
use crate::event::refusal::Refusal;
use crate::handler::validator::Validator;
use crate::logging::error;
use crate::scheduler::command::{Pressure, WhenFull};

/// Submits that a listener holds; the caller's next `send` waits.
const MAILBOX: usize = 1024;

/// A listener's way to its supervisor. Recipients, and not an address: the supervisor may live on
/// another node, with something here that stands for it.
#[derive(Clone)]
pub(crate) struct SupervisorRef {
    admit: Recipient<Admit>,
    cancel: Recipient<CancelOf>,
    subscribe: Recipient<Subscribe>,
}

impl<A> From<Addr<A>> for SupervisorRef
where
    A: Actor<Context = Context<A>> + Handler<Admit> + Handler<CancelOf> + Handler<Subscribe>,
{
    fn from(supervisor: Addr<A>) -> Self {
        SupervisorRef {
            admit: supervisor.clone().recipient(),
            cancel: supervisor.clone().recipient(),
            subscribe: supervisor.recipient(),
        }
    }
}

/// Forwards events to its supervisor. Refuses itself what the validator complains of, and everything
/// while it knows that the wait queue is full, or the whole queue.
///
/// It knows nothing else than the way to its supervisor and its own number there.
pub(crate) struct ListenerActor {
    listener: usize,
    supervisor: SupervisorRef,
    validator: Option<Validator>,
    /// What the supervisor reports of its own wait queue.
    pressure: Pressure,
    /// The places that it shares with other ids.
    capacity: Option<Arc<Capacity>>,
    gauges: Arc<Gauges>,
    budget: MailboxBudget,
}

impl ListenerActor {
    pub fn new(
        listener: usize,
        supervisor: SupervisorRef,
        validator: Option<Validator>,
        capacity: Option<Arc<Capacity>>,
        gauges: Arc<Gauges>,
    ) -> Self {
        ListenerActor {
            listener,
            supervisor,
            validator,
            pressure: Pressure::Open,
            capacity,
            gauges,
            budget: MailboxBudget::default(),
        }
    }
}

impl Actor for ListenerActor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(MAILBOX);
        self.supervisor.subscribe.do_send(Subscribe(context.address().recipient()));
    }
}

impl Handler<Submit> for ListenerActor {
    type Result = ();

    fn handle(&mut self, submit: Submit, context: &mut Self::Context) {
        self.budget.spend::<Self>(context);
        self.guarded(context, |listener, context| listener.forward(submit, context));
    }
}

impl ListenerActor {
    /// Does something that must not panic. Should it panic all the same, which is a bug of ours, its
    /// event's sender reports that the event was lost, and the actor goes on.
    fn guarded(
        &mut self,
        context: &mut Context<Self>,
        act: impl FnOnce(&mut Self, &mut Context<Self>),
    ) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| act(self, context))) {
            error!("a listener's actor panicked, which is a bug; it goes on");
            discard_payload(payload);
            self.pressure = Pressure::Open;
        }
    }

    fn full(&self) -> Option<Refusal> {
        if let Pressure::Closed { max_size, size, retry_after } = self.pressure {
            return Some(Refusal::QueueFull { max_size, size, retry_after });
        }
        let max_size = self.capacity.as_ref().filter(|capacity| capacity.is_full())?.max();
        let retry_after = self.gauges.retry_after();
        Some(Refusal::QueueFull { max_size, size: max_size, retry_after })
    }

    fn forward(&mut self, submit: Submit, context: &mut Context<Self>) {
        if submit.when_full == WhenFull::Refuse
            && let Some(refusal) = self.full()
        {
            self.gauges.note_refused(self.listener);
            submit.job.sender.refuse(refusal);
            return;
        }
        if let Some(validator) = &self.validator
            && let Err(refusal) = validator.check(&submit.job.input, submit.job.user())
        {
            submit.job.sender.refuse(refusal);
            return;
        }
        let admit = Admit { listener: self.listener, submit };
        match self.supervisor.admit.try_send(admit) {
            Ok(()) => {}
            // Wait for the supervisor, and let our own mailbox fill meanwhile: so the pressure
            // reaches the callers.
            Err(SendError::Full(admit)) => {
                let sent = self.supervisor.admit.send(admit);
                // Should the supervisor die meanwhile, the event's sender reports it.
                context.wait(sent.map(|_| ()).into_actor(self));
            }
            Err(SendError::Closed(admit)) => admit.submit.job.sender.refuse(Refusal::Stopped),
        }
    }
}

impl Handler<Cancel> for ListenerActor {
    type Result = ();

    /// Comes this way, and not straight to the supervisor, so that it can't overtake its event.
    fn handle(&mut self, Cancel(id): Cancel, context: &mut Self::Context) {
        self.budget.spend::<Self>(context);
        // Past the mailbox' bound: there is at most one for each event that was let in.
        self.supervisor.cancel.do_send(CancelOf { listener: self.listener, id });
    }
}

impl Handler<PressureChanged> for ListenerActor {
    type Result = ();

    fn handle(&mut self, PressureChanged(pressure): PressureChanged, context: &mut Self::Context) {
        self.budget.spend::<Self>(context);
        self.pressure = pressure;
    }
}

impl Handler<Quit> for ListenerActor {
    type Result = ();

    fn handle(&mut self, _: Quit, context: &mut Self::Context) {
        self.budget.spend::<Self>(context);
        context.stop();
    }
}

/// For tests of what becomes of a bug of ours.
#[cfg(test)]
impl Handler<crate::actors::messages::Blow> for ListenerActor {
    type Result = ();

    fn handle(&mut self, _: crate::actors::messages::Blow, context: &mut Self::Context) {
        self.budget.spend::<Self>(context);
        self.guarded(context, |_, _| panic!("a bug in the listener"));
    }
}

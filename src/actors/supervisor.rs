//! The supervisor actor: the scheduler of one concurrency id, and the workers on its slots.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};

use actix::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient};
use tokio::sync::oneshot;

use super::Capacity;
use super::capacity::Account;
use super::gauges::Gauges;
use super::grant::{Acquire, Queued};
use super::local_channel::{LocalReceiver, LocalSender, local_channel};
use super::mailbox_budget::MailboxBudget;
use super::messages::{
    Abort, Admit, AdmitTogether, AwaitClosed, CancelOf, Control, GiveUp, PlacesGranted,
    PressureChanged, Quit, Report, SetCapacity, Steer, Stop, Subscribe, WorkerCommand,
};
use super::recording::{Recording, Recovered};
use super::slot_hold::SlotHold;
use super::snapshot_pace::Pace;
use super::timer::Timer;
use super::worker_config::WorkerConfig;
use super::worker_link::CommandSender;
use crate::clock;
use crate::event::guarded::{discard, discard_payload};
use crate::handler::progress::Meter;
use crate::logging::{error, info};
use crate::scheduler::Scheduler;
use crate::scheduler::command::{Arrival, Command, Pressure, WhenFull};
use crate::scheduler::rules::Rules;
use crate::scheduler::snapshot::ConcurrencyIdSnapshot;
use crate::scheduler::wait_queue::Key;

/// Admissions that a supervisor holds; its listeners wait.
const MAILBOX: usize = 1024;

/// A worker on a slot. The generation distinguishes its messages from those of an earlier worker there.
pub(super) struct WorkerRef {
    pub commands: CommandSender,
    pub generation: u64,
    /// How far its run has got.
    pub meter: Meter,
    pub hold: Weak<SlotHold>,
}

impl WorkerRef {
    /// Past any bound: a worker gets a run only when it has reported on the last. One that is gone
    /// has reported that, so that nothing needs to be done for it.
    pub fn order(&self, command: WorkerCommand) {
        let _ = self.commands.send(command);
    }
}

/// The shell around the scheduler: messages in, effects out. It decides nothing.
pub(crate) struct Supervisor {
    pub(super) scheduler: Scheduler<Queued>,
    pub(super) config: Arc<WorkerConfig>,
    pub(super) workers: Vec<Option<WorkerRef>>,
    /// Those of the workers on its own thread.
    pub(super) reports: (LocalSender<Report>, LocalReceiver<Report>),
    pub(super) next_generation: u64,
    pub(super) listeners: Vec<Recipient<PressureChanged>>,
    pub(super) gauges: Arc<Gauges>,
    /// The places that the wait queues of all ids share, and what this one holds of them once it has
    /// started.
    capacity: Option<Arc<Capacity>>,
    pub(super) account: Option<Account<Key>>,
    /// Those who wait for a snapshot.
    pub(super) snapshot_replies: Vec<oneshot::Sender<Arc<ConcurrencyIdSnapshot>>>,
    /// How often one is taken.
    pub(super) pace: Pace,
    timer: Option<Timer>,
    /// Those who wait until nothing runs any more.
    stopping: Vec<oneshot::Sender<()>>,
    /// Those who wait until no resource is being closed.
    closing: Vec<oneshot::Sender<()>>,
    pub(super) budget: MailboxBudget,
    /// Where events are recorded.
    pub(super) recording: Option<Recording>,
    /// What earlier processes have left, until it has started.
    pub(super) recovered: Recovered,
}

impl Supervisor {
    pub fn new(
        rules: Rules,
        config: WorkerConfig,
        gauges: Arc<Gauges>,
        capacity: Option<Arc<Capacity>>,
        recovered: Recovered,
    ) -> Self {
        Supervisor {
            scheduler: Scheduler::new(rules, clock::now()),
            config: Arc::new(config),
            workers: Vec::new(),
            reports: local_channel(),
            next_generation: 0,
            listeners: Vec::new(),
            gauges,
            capacity,
            account: None,
            snapshot_replies: Vec::new(),
            pace: Pace::default(),
            timer: None,
            stopping: Vec::new(),
            closing: Vec::new(),
            budget: MailboxBudget::default(),
            recording: None,
            recovered,
        }
    }

    fn command(&mut self, command: Command<Queued>, context: &mut Context<Self>) {
        self.turn(context, |supervisor, context| supervisor.handle(command, context));
    }

    /// Lets the scheduler handle a command, and does what it wants done.
    pub(super) fn handle(&mut self, command: Command<Queued>, context: &mut Context<Self>) {
        self.scheduler.handle(clock::now(), command);
        self.settle(context);
    }

    /// Handles one message.
    pub(super) fn turn(
        &mut self,
        context: &mut Context<Self>,
        act: impl FnOnce(&mut Self, &mut Context<Self>),
    ) {
        self.budget.spend::<Self>(context);
        self.guarded(context, |supervisor, context| {
            supervisor.take_reports(context);
            act(supervisor, context);
        });
    }

    /// Does something that must not panic. Should it panic all the same, which is a bug of ours, the
    /// actor begins anew, with its mailbox.
    pub(super) fn guarded(
        &mut self,
        context: &mut Context<Self>,
        act: impl FnOnce(&mut Self, &mut Context<Self>),
    ) {
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| act(self, context))) {
            error!("{}: the supervisor panicked, which is a bug; it begins anew", self.name());
            discard_payload(payload);
            self.restart(context);
        }
    }

    /// Does what the scheduler wants done, then sees to its next timeout.
    pub(super) fn settle(&mut self, context: &mut Context<Self>) {
        self.pass_effects(context);
        // Who is followed by nobody comes into the wait queue without an effect.
        self.gauges.set_waiting(self.scheduler.waiting());
        self.arm(context);
        if self.recording.is_some() {
            self.flush_records(context);
        }
        if self.scheduler.running() == 0 && self.recording.as_ref().is_none_or(Recording::is_idle) {
            for idle in self.stopping.drain(..) {
                // Who asked may have stopped waiting.
                let _ = idle.send(());
            }
        }
        if self.scheduler.closing() == 0 {
            for closed in self.closing.drain(..) {
                let _ = closed.send(());
            }
        }
    }

    /// The one way from the scheduler to the world: nothing else performs an effect. Those of one
    /// command are a batch; what must be on record before anybody sees it is held back in `perform`.
    fn pass_effects(&mut self, context: &mut Context<Self>) {
        while let Some(effect) = self.scheduler.poll_effect() {
            // First, so that who hears of an effect finds the number that goes with it.
            self.gauges.set_waiting(self.scheduler.waiting());
            self.perform(effect, context);
        }
    }

    /// Lets in who was blocked by the queue-wide bound and has been granted a place.
    fn fetch_places(&mut self, context: &mut Context<Self>) {
        let Some(account) = &mut self.account else { return };
        for key in account.fetch() {
            self.handle(Command::PlaceGranted(key), context);
        }
    }

    fn admit(&mut self, mut arrival: Arrival<Queued>, context: &mut Context<Self>) {
        // Who was blocked before it comes before it.
        if self.scheduler.requesting() > 0 {
            self.fetch_places(context);
        }
        if let Some(account) = &mut self.account {
            arrival.placed = self.scheduler.has_room() && account.try_take();
        }
        self.handle(Command::Admit(arrival), context);
    }

    /// The worker that stands on `slot`.
    pub(super) fn worker(&self, slot: usize) -> Option<&WorkerRef> {
        self.workers.get(slot)?.as_ref()
    }

    pub(super) fn name(&self) -> &str {
        &self.config.concurrency_id
    }

    /// Sees to it that the scheduler is called when it next wants to be. A timer that is early is
    /// left alone: so a busy queue sets one timer in a while, not one an event.
    fn arm(&mut self, context: &mut Context<Self>) {
        let Some(due) = self.scheduler.next_timeout() else { return };
        if self.timer.as_ref().is_none_or(|timer| timer.due > due) {
            let address = context.address();
            self.timer = Some(Timer::start(due, move || address.do_send(Timeout)));
        }
    }
}

impl Actor for Supervisor {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.set_mailbox_capacity(MAILBOX);
        self.receive_reports(context);
        if let Some(capacity) = self.capacity.take() {
            // The capacity must not keep it alive.
            let address = context.address().downgrade();
            let notify = move || {
                if let Some(address) = address.upgrade() {
                    address.do_send(PlacesGranted);
                }
            };
            self.account = Some(Account::open(capacity, Arc::new(notify)));
        }
        self.recover(context);
        self.settle(context);
    }
}

impl Supervisor {
    /// What waited or ran can't be trusted after a panic: its callers are told that it was lost. The
    /// counts, the limit and a pause stay; and so do the slots of workers until they have gone, with
    /// their blocking handlers.
    fn restart(&mut self, context: &mut Context<Self>) {
        let workers = self.workers.iter().enumerate();
        let taken =
            workers.filter_map(|(slot, worker_ref)| worker_ref.as_ref().map(|_| slot)).collect();
        for worker_ref in self.workers.iter().flatten() {
            worker_ref.order(WorkerCommand::Leave);
        }
        self.timer = None;
        let fresh = self.scheduler.restarted(clock::now(), taken);
        self.record_lost();
        let broken = std::mem::replace(&mut self.scheduler, fresh);
        if !discard(broken) {
            error!("{}: not every event that was lost could be told so", self.name());
        }
        for listener in &self.listeners {
            listener.do_send(PressureChanged(Pressure::Open));
        }
        if let Some(account) = &mut self.account {
            account.clear();
        }
        self.gauges.set_waiting(0);
        context.notify(Settle);
    }
}

impl Handler<Admit> for Supervisor {
    type Result = ();

    fn handle(&mut self, admit: Admit, context: &mut Self::Context) {
        let arrival = arrival(admit);
        self.turn(context, |supervisor, context| supervisor.admit(arrival, context));
    }
}

impl Handler<AdmitTogether> for Supervisor {
    type Result = ();

    fn handle(&mut self, AdmitTogether(admits): AdmitTogether, context: &mut Self::Context) {
        // The first of several would start alone.
        let several = admits.len() > 1;
        self.turn(context, |supervisor, context| {
            if several {
                supervisor.scheduler.handle(clock::now(), Command::Pause);
            }
            for admit in admits {
                supervisor.admit(arrival(admit), context);
            }
            if several {
                supervisor.scheduler.handle(clock::now(), Command::Resume);
            }
            supervisor.settle(context);
        });
    }
}

impl Handler<SetCapacity> for Supervisor {
    type Result = ();

    fn handle(&mut self, SetCapacity(capacity): SetCapacity, context: &mut Self::Context) {
        self.command(Command::SetCapacity(capacity), context);
    }
}

/// An event as it comes into the wait queue.
fn arrival(Admit { listener, submit }: Admit) -> Arrival<Queued> {
    Arrival {
        id: submit.job.id,
        listener,
        watched: submit.job.sender.is_watched(),
        when_full: submit.when_full,
        not_before: submit.not_before,
        placed: false,
        payload: Queued::Event(submit.job),
    }
}

impl Handler<Acquire> for Supervisor {
    type Result = ();

    fn handle(&mut self, acquire: Acquire, context: &mut Self::Context) {
        let Acquire { id, label, held, grant } = acquire;
        let arrival = Arrival {
            id,
            listener: self.scheduler.permit_lane(&label),
            watched: false,
            when_full: WhenFull::Refuse,
            not_before: None,
            placed: false,
            payload: Queued::Permit(grant),
        };
        if held {
            let (arrival, since) = (Box::new(arrival), clock::now());
            return self.command(Command::Restore { arrival, since, runs: true }, context);
        }
        self.turn(context, |supervisor, context| supervisor.admit(arrival, context));
    }
}

impl Handler<CancelOf> for Supervisor {
    type Result = ();

    fn handle(&mut self, CancelOf { listener, id }: CancelOf, context: &mut Self::Context) {
        self.command(Command::Cancel { listener, id }, context);
    }
}

impl Handler<GiveUp> for Supervisor {
    type Result = ();

    fn handle(&mut self, GiveUp { id, cause }: GiveUp, context: &mut Self::Context) {
        self.command(Command::GiveUp { id, cause }, context);
    }
}

impl Handler<Subscribe> for Supervisor {
    type Result = ();

    fn handle(&mut self, Subscribe(listener): Subscribe, context: &mut Self::Context) {
        self.budget.spend::<Self>(context);
        self.listeners.push(listener);
    }
}

impl Handler<PlacesGranted> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: PlacesGranted, context: &mut Self::Context) {
        self.turn(context, Self::fetch_places);
    }
}

impl Handler<Steer> for Supervisor {
    type Result = ();

    fn handle(&mut self, Steer { control, reply }: Steer, context: &mut Self::Context) {
        info!("{}: {control:?}", self.name());
        let command = match control {
            Control::Pause => Command::Pause,
            Control::Resume => Command::Resume,
            Control::SetLimit(limit) => Command::SetLimit(limit),
        };
        self.record_steered(reply, |steered| match control {
            Control::Pause => steered.paused = true,
            Control::Resume => steered.paused = false,
            Control::SetLimit(limit) => steered.limit = Some(limit.into()),
        });
        self.command(command, context);
    }
}

impl Handler<Stop> for Supervisor {
    type Result = ();

    fn handle(&mut self, Stop { idle }: Stop, context: &mut Self::Context) {
        self.stopping.push(idle);
        self.command(Command::Stop, context);
    }
}

impl Handler<AwaitClosed> for Supervisor {
    type Result = ();

    fn handle(&mut self, AwaitClosed { closed }: AwaitClosed, context: &mut Self::Context) {
        self.closing.push(closed);
        self.turn(context, Self::settle);
    }
}

impl Handler<Abort> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Abort, context: &mut Self::Context) {
        self.command(Command::Abort, context);
    }
}

impl Handler<Quit> for Supervisor {
    type Result = ();

    /// It lives as long as it takes reports, so that it would never end by itself. What still waits is
    /// dropped with it, and its callers learn that it was lost.
    fn handle(&mut self, _: Quit, context: &mut Self::Context) {
        self.budget.spend::<Self>(context);
        for worker_ref in self.workers.drain(..).flatten() {
            worker_ref.order(WorkerCommand::Leave);
        }
        self.listeners.clear();
        context.stop();
    }
}

/// To itself: its timer has fired.
struct Timeout;

impl actix::Message for Timeout {
    type Result = ();
}

impl Handler<Timeout> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Timeout, context: &mut Self::Context) {
        self.timer = None;
        self.turn(context, |supervisor, context| {
            supervisor.scheduler.handle_timeout(clock::now());
            supervisor.settle(context);
        });
    }
}

/// To itself: there are effects to perform.
struct Settle;

impl actix::Message for Settle {
    type Result = ();
}

impl Handler<Settle> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: Settle, context: &mut Self::Context) {
        self.turn(context, Self::settle);
    }
}

/// For tests of what becomes of a bug of ours.
#[cfg(test)]
impl Handler<crate::actors::messages::Blow> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: crate::actors::messages::Blow, context: &mut Self::Context) {
        self.turn(context, |_, _| panic!("a bug in the supervisor"));
    }
}

#[cfg(test)]
impl Handler<crate::actors::messages::BlowWorker> for Supervisor {
    type Result = ();

    fn handle(&mut self, blow: crate::actors::messages::BlowWorker, context: &mut Self::Context) {
        self.budget.spend::<Self>(context);
        if let Some(worker_ref) = self.worker(blow.0) {
            worker_ref.order(WorkerCommand::Blow);
        }
    }
}

//! What the scheduler's effects do: to workers, to listeners, to whoever waits for an event.

use std::sync::Arc;

use actix::{Actor, AsyncContext, Context};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;

use super::grant::{Grant, Queued};
use super::local_channel::local_channel;
use super::messages::{PressureChanged, Run, WorkerCommand};
use super::slot_hold::SlotHold;
use super::supervisor::{Supervisor, WorkerRef};
use super::worker::Worker;
use super::worker_link::{CommandSender, WorkerLink};
use crate::event::refusal::Refusal;
use crate::event::update::Update;
use crate::handler::input::OneOrMany;
use crate::handler::progress::Meter;
use crate::logging::{debug, error};
use crate::scheduler::command::{Effect, Pressure};

impl Supervisor {
    /// Does one thing that the scheduler wants done.
    pub(super) fn perform(&mut self, effect: Effect<Queued>, context: &mut Context<Self>) {
        match effect {
            Effect::Open { slot } => self.open(slot, context),
            Effect::Close { slot } => {
                if let Some(worker_ref) = self.worker(slot) {
                    worker_ref.order(WorkerCommand::Leave);
                }
                // One that owns a resource keeps its slot until it has closed that and is gone.
                if self.config.factory.is_none()
                    && let Some(worker_ref) = self.workers.get_mut(slot)
                {
                    *worker_ref = None;
                }
            }
            Effect::Prepare { slot } => {
                if let Some(worker_ref) = self.worker(slot) {
                    worker_ref.order(WorkerCommand::Prepare);
                }
            }
            Effect::Start { slot, event: Queued::Event(job), params } => {
                self.start_run(slot, Run { jobs: OneOrMany::One(job), params });
            }
            Effect::Start { slot, event: Queued::Permit(grant), .. } => self.grant(slot, grant),
            Effect::StartBatch { slot, events, params } => {
                let jobs = events.into_iter().filter_map(Queued::into_event).collect();
                self.start_run(slot, Run { jobs: OneOrMany::Many(jobs), params });
            }
            Effect::Interrupt { slot, event, cause } => {
                if !self.interrupt_unstarted(slot, event, cause)
                    && let Some(worker_ref) = self.worker(slot)
                {
                    worker_ref.order(WorkerCommand::Interrupt { event, cause });
                }
            }
            Effect::End { event, cause } => {
                let outcome = cause.outcome();
                match event {
                    Queued::Event(job) => {
                        debug!("{}: event {} {outcome} in the wait queue", self.name(), job.id);
                        self.end_unstarted(*job, outcome);
                    }
                    // Who cancelled it has gone.
                    Queued::Permit(grant) => drop(grant.send(Err(Refusal::Stopped))),
                }
            }
            Effect::Refuse { event, refusal } => {
                debug!("{}: refused: {refusal}", self.name());
                match event {
                    Queued::Event(job) => job.sender.refuse(refusal),
                    Queued::Permit(grant) => drop(grant.send(Err(refusal))),
                }
            }
            Effect::NotifyRank { key, estimation } => {
                if let Some(Queued::Event(job)) = self.scheduler.waiting_mut(key) {
                    job.sender.admit();
                    job.sender.send(|event_id| Update::Estimation {
                        event_id,
                        rank: estimation.rank,
                        queue_size: estimation.queue_size,
                        rank_eta: estimation.eta,
                    });
                }
            }
            Effect::Record { key } => self.record_admission(key),
            Effect::Schedule { appointment } => {
                if let Some(Queued::Event(job)) = self.scheduler.scheduled_mut(appointment) {
                    job.sender.admit();
                }
            }
            Effect::Pressure(pressure) => {
                match pressure {
                    Pressure::Open => debug!("{}: room in the wait queue again", self.name()),
                    Pressure::Closed { size, .. } => {
                        debug!("{}: the wait queue is full with {size} events", self.name());
                    }
                }
                for listener in &self.listeners {
                    listener.do_send(PressureChanged(pressure));
                }
            }
            Effect::RequestPlace { key, since } => {
                if let Some(account) = &self.account {
                    account.request(since, key);
                }
            }
            Effect::WithdrawPlace { key, since } => {
                if let Some(account) = &self.account {
                    account.withdraw(since, key);
                }
            }
            Effect::RetakePlace => {
                if let Some(account) = &mut self.account {
                    account.retake();
                }
            }
            Effect::FreePlaces(places) => {
                if let Some(account) = &mut self.account {
                    account.free(places);
                }
            }
        }
    }

    fn open(&mut self, slot: usize, context: &mut Context<Self>) {
        if self.workers.len() <= slot {
            self.workers.resize_with(slot + 1, || None);
        }
        let generation = self.next_generation;
        self.next_generation += 1;
        let meter = Meter::default();
        let supervisor = context.address().recipient();
        let hold = Arc::new(SlotHold { supervisor, slot, generation });
        let kept = Arc::downgrade(&hold);
        let (config, gauge) = (self.config.clone(), meter.clone());
        let commands = match self.config.thread_of(slot) {
            None => {
                let (commands, orders) = local_channel();
                let link = WorkerLink::SameThread(orders, self.reports.0.clone());
                let pulse = config.pulse.clone();
                Worker::new(hold, config, pulse, gauge, link).start();
                CommandSender::SameThread(commands)
            }
            Some(thread) => {
                let (commands, orders) = unbounded_channel();
                let pulse = thread.pulse.clone();
                // Where the thread has ended, with the system, the hold reports it.
                Worker::start_in_arbiter(&thread.handle, move |_| {
                    let link = WorkerLink::OtherThread(orders);
                    Worker::new(hold, config, pulse, gauge, link)
                });
                CommandSender::OtherThread(commands)
            }
        };
        self.workers[slot] = Some(WorkerRef { commands, generation, meter, hold: kept });
    }

    /// Gives a slot to somebody who isn't its worker, and who may have gone.
    fn grant(&self, slot: usize, grant: oneshot::Sender<Result<Grant, Refusal>>) {
        match self.worker(slot).and_then(|worker_ref| worker_ref.hold.upgrade()) {
            Some(hold) => drop(grant.send(Ok(Grant::new(hold)))),
            None => error!("{}: the worker on slot {slot} is gone", self.name()),
        }
    }

    /// Starts a run, unless that is to be on record first.
    fn start_run(&mut self, slot: usize, run: Run) {
        if let Some(run) = self.record_start(slot, run) {
            self.send_run(slot, WorkerCommand::Run(run));
        }
    }

    /// Sends the command for a run.
    pub(super) fn send_run(&self, slot: usize, run: WorkerCommand) {
        let sent = self.worker(slot).map(|worker_ref| worker_ref.commands.send(run));
        if !matches!(sent, Some(Ok(()))) {
            // Workers catch the panics of handlers, so this is a bug of ours. The run's senders notify
            // their callers that it was lost. That the slot is vacant is under way.
            error!("{}: the worker on slot {slot} is gone", self.name());
        }
    }
}

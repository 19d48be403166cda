//! The worker actor: stands on one slot, owns its resource, runs one event or batch at a time.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Context as TaskContext;
use std::task::{Poll, Waker};
use std::time::Duration;

use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, WrapFuture};
use futures::FutureExt;
use tokio_util::sync::CancellationToken;

use super::durable_end::DurableEnd;
use super::held_run::HeldRun;
use super::mailbox_budget::IN_A_ROW;
use super::messages::{Job, Run as RunCommand, WorkerCommand, WorkerEvent};
use super::recording::end_unstarted;
use super::run::{Run, RunEnv, Stopped};
use super::slot_hold::SlotHold;
use super::watchdog::Pulse;
use super::worker_config::WorkerConfig;
use super::worker_link::WorkerLink;
use crate::event::guarded::discard_payload;
use crate::event::id::EventId;
use crate::handler::input::OneOrMany;
use crate::handler::progress::Meter;
use crate::handler::slot::{Resource, Trace};
use crate::handler::slot_resource::{Factory, Spoilt};
use crate::logging::{debug, error, warn};
use crate::scheduler::command::{Cause, OutcomeCounts, RunParams};

/// The pause before a resource is built again after a failure, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

const MAX_PAUSE: Duration = Duration::from_secs(30);

/// One slot's worker. It knows nothing of queues and ranks.
pub(super) struct Worker {
    pub config: Arc<WorkerConfig>,
    /// That of its thread.
    pulse: Arc<Pulse>,
    meter: Meter,
    resource: Option<Resource>,
    condition: Condition,
    run: Option<Run>,
    /// A run that waits for the check of its resource.
    held: Option<HeldRun>,
    /// Stops what is being done to the resource, which is not here meanwhile.
    errand: Option<CancellationToken>,
    /// The slot is closed.
    leaving: bool,
    /// The resource has been built and not been lent yet.
    fresh: bool,
    /// Builds in a row that brought nothing that could be lent.
    failures: u32,
    /// Wakes [`Drive`] for a run that was held.
    driver: Option<Waker>,
    link: WorkerLink,
    // Dropped last: once the supervisor hears that the slot is vacant, nothing is left on it.
    hold: Arc<SlotHold>,
    /// The same, as a thread keeps it.
    kept_by_threads: Arc<dyn Any + Send + Sync>,
}

/// What the last run, or the last check, says of the resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Good,
    /// A run was cut short; nobody knows what it has left.
    Suspect,
    Bad,
}

impl Worker {
    pub fn new(
        hold: Arc<SlotHold>,
        config: Arc<WorkerConfig>,
        pulse: Arc<Pulse>,
        meter: Meter,
        link: WorkerLink,
    ) -> Self {
        let kept_by_threads = hold.clone();
        Worker {
            config,
            pulse,
            meter,
            resource: None,
            condition: Condition::Good,
            run: None,
            held: None,
            errand: None,
            leaving: false,
            fresh: false,
            failures: 0,
            driver: None,
            link,
            hold,
            kept_by_threads,
        }
    }

    /// Reports to the supervisor.
    fn report(&self, event: WorkerEvent) {
        self.link.report(&self.hold, event);
    }

    /// Who it is, for the log.
    fn name(&self) -> String {
        format!("{}: slot {}", self.config.concurrency_id, self.hold.slot)
    }

    /// Does something to the resource that takes a while, and goes on with `then`: with nothing when
    /// it panicked. Only one thing at a time, and never while a handler runs.
    fn run_errand<W, T>(
        &mut self,
        context: &mut Context<Self>,
        work: impl FnOnce(CancellationToken) -> W,
        then: fn(&mut Self, Option<T>, &mut Context<Self>),
    ) where
        W: Future<Output = T> + 'static,
        T: 'static,
    {
        let halt = CancellationToken::new();
        let work = AssertUnwindSafe(work(halt.clone())).catch_unwind();
        self.errand = Some(halt);
        // Dropped half-way, it still has the resource: the slot is vacant after that.
        let hold = self.hold.clone();
        let done = work.into_actor(self).map(move |done, worker, context| {
            drop(hold);
            worker.errand = None;
            let done = done.map_err(discard_payload).ok();
            then(worker, done, context);
        });
        context.spawn(done);
    }

    /// Builds a resource, or makes the spoilt one clean, after a pause.
    fn prepare(&mut self, pause: Duration, context: &mut Context<Self>) {
        let Some(factory) = self.config.factory.clone() else { return };
        let resettable = self.condition == Condition::Suspect;
        let spoilt = self.resource.take().map(|resource| Spoilt { resource, resettable });
        self.condition = Condition::Good;
        let (slot, name) = (self.hold.slot, self.name());
        let work = move |halt: CancellationToken| async move {
            if !pause.is_zero() {
                // Cut short, the building below sees to the rest.
                halt.run_until_cancelled(tokio::time::sleep(pause)).await;
            }
            factory.prepare(slot, spoilt, halt, &name).await
        };
        self.run_errand(context, work, Self::prepared);
    }

    fn prepared(
        &mut self,
        prepared: Option<Result<Resource, String>>,
        context: &mut Context<Self>,
    ) {
        match prepared.unwrap_or_else(|| Err("it panicked when dropped".into())) {
            Ok(resource) => {
                self.resource = Some(resource);
                self.fresh = true;
            }
            Err(_) if self.leaving => {}
            Err(trouble) => return self.build_failed(trouble, context),
        }
        if self.leaving {
            self.go(context);
        } else {
            self.report(WorkerEvent::Ready);
        }
    }

    fn build_failed(&mut self, trouble: String, context: &mut Context<Self>) {
        let pause = self.next_pause();
        error!(
            "{}: its resource could not be built: {trouble}; trying again in {pause:?}",
            self.name()
        );
        self.report(WorkerEvent::Trouble { trouble, pause });
        self.prepare(pause, context);
    }

    fn next_pause(&mut self) -> Duration {
        let pause = FIRST_PAUSE * 2u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        pause.min(MAX_PAUSE)
    }

    /// Asks whether the resource is good before the run gets it.
    fn check(
        &mut self,
        factory: Factory,
        resource: Resource,
        run: RunCommand,
        counts: OutcomeCounts,
        context: &mut Context<Self>,
    ) {
        let RunCommand { jobs, params } = run;
        self.held = Some(HeldRun { jobs, params, counts });
        let work = move |halt| async move { factory.check(resource, halt).await };
        self.run_errand(context, work, Self::checked);
    }

    fn checked(
        &mut self,
        checked: Option<(Resource, Result<(), String>)>,
        context: &mut Context<Self>,
    ) {
        let lost = || Err("it panicked when dropped".into());
        let (resource, verdict) = match checked {
            Some((resource, verdict)) => (Some(resource), verdict),
            None => (None, lost()),
        };
        self.resource = resource;
        if self.leaving {
            return self.go(context);
        }
        let Some(HeldRun { jobs, params, counts }) = self.held.take() else { return };
        if let Err(trouble) = verdict {
            warn!("{}: its resource is not lent: {trouble}; building another", self.name());
            self.condition = Condition::Bad;
            if jobs.as_slice().is_empty() {
                self.report(WorkerEvent::Done { counts, ready: false });
            } else {
                self.report(WorkerEvent::Returned { jobs, counts });
            }
        } else if jobs.as_slice().is_empty() {
            self.report(WorkerEvent::Done { counts, ready: true });
        } else {
            self.begin(jobs, params, counts);
            if let Some(driver) = self.driver.take() {
                driver.wake();
            }
        }
    }

    /// Starts a run.
    fn begin(&mut self, jobs: OneOrMany<Box<Job>>, params: RunParams, counts: OutcomeCounts) {
        let config = self.config.clone();
        let listener = &config.listeners[params.listener];
        if listener.takes_slot {
            self.fresh = false;
            self.failures = 0;
        }
        let env = RunEnv {
            api_name: &listener.api_name,
            slots: &config.slots,
            meter: &self.meter,
            start: &listener.start,
            slot: self.hold.slot,
            resource: self.resource.as_ref(),
            threads: &config.threads,
            hold: &self.kept_by_threads,
            pulse: &self.pulse,
            number: listener.number,
            extensions: &config.extensions,
            durability: listener.durability.as_ref(),
        };
        let (run, stopped) = Run::start(jobs, params, counts, env);
        // `Drive` polls it next, or is woken.
        self.run = Some(run);
        if let Some(stopped) = stopped {
            self.stopped(stopped);
        }
    }

    fn stopped(&mut self, stopped: Stopped) {
        let ready = self.is_fit_after(stopped.returned);
        let durable = self.run.as_ref().is_some_and(Run::is_durable);
        if durable {
            self.report_postponed();
        }
        self.report(WorkerEvent::Done { counts: stopped.counts, ready });
        if let Some(run) = &mut self.run {
            run.notify_ended();
        }
        if durable {
            let ended = self.run.as_mut().map(Run::take_ended).unwrap_or_default();
            self.report_ended(ended);
        }
        self.run = None;
    }

    /// Has durable events tried again.
    fn report_postponed(&mut self) {
        let postponed = self.run.as_mut().map(Run::take_postponed).unwrap_or_default();
        if !postponed.is_empty() {
            self.report(WorkerEvent::Postponed(postponed));
        }
    }

    /// Has the ends of durable events recorded.
    fn report_ended(&self, ended: Vec<DurableEnd>) {
        if !ended.is_empty() {
            self.report(WorkerEvent::Ended(ended));
        }
    }

    /// Looks at what a run has left. What is not fit for the next waits for `Prepare`.
    fn is_fit_after(&mut self, returned: bool) -> bool {
        let Some(resource) = &self.resource else { return self.config.factory.is_none() };
        let (is_home, trace) = resource.inspect();
        self.condition = match trace {
            _ if !is_home => Condition::Bad,
            Trace::Discarded => Condition::Bad,
            Trace::Unwound => Condition::Suspect,
            Trace::Lent if !returned => Condition::Suspect,
            Trace::Lent | Trace::Untouched => Condition::Good,
        };
        if self.condition != Condition::Good {
            debug!("{}: its resource isn't fit for another run: {trace:?}", self.name());
        }
        if !is_home {
            // It is dropped where its guard is.
            self.resource = None;
        }
        self.condition == Condition::Good
    }

    /// Closes the resource and goes.
    fn go(&mut self, context: &mut Context<Self>) {
        match (self.config.factory.clone(), self.resource.take()) {
            (Some(factory), Some(resource)) => {
                let name = self.name();
                let work = move |_| async move { factory.close(resource, &name).await };
                self.run_errand(context, work, |_, _, context| context.stop());
            }
            _ => context.stop(),
        }
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.spawn(Drive);
        self.prepare(Duration::ZERO, context);
    }
}

/// Takes the worker's commands and polls its run, whenever there is one, for as long as the worker
/// lives.
///
/// The run lives in the worker, not in a future of its own, so that an interrupt can drop it at
/// once and nothing is allocated for each run.
struct Drive;

impl ActorFuture<Worker> for Drive {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        worker: &mut Worker,
        context: &mut Context<Worker>,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        for in_a_row in 0.. {
            match worker.link.poll_command(task) {
                Poll::Ready(Some(command)) => worker.obey(command, context),
                // The supervisor is gone, with its queue.
                Poll::Ready(None) => {
                    worker.leave(context);
                    return Poll::Ready(());
                }
                Poll::Pending => break,
            }
            if in_a_row == IN_A_ROW {
                // Others have their turn.
                task.waker().wake_by_ref();
                break;
            }
        }
        if let Some(run) = &mut worker.run
            && let Poll::Ready(stopped) = run.poll(task)
        {
            worker.stopped(stopped);
        }
        if worker.held.is_some() {
            worker.driver = Some(task.waker().clone());
        }
        Poll::Pending
    }
}

impl Worker {
    fn obey(&mut self, command: WorkerCommand, context: &mut Context<Self>) {
        match command {
            WorkerCommand::Run(run) => self.take(run, OutcomeCounts::default(), context),
            WorkerCommand::RunRest(rest) => self.take(rest.0, rest.1, context),
            WorkerCommand::Interrupt { event, cause } => self.interrupt(event, cause),
            WorkerCommand::Prepare => {
                if self.errand.is_none() && !self.leaving {
                    // One that was built and never lent: the next may be as bad.
                    let pause = if self.fresh { self.next_pause() } else { Duration::ZERO };
                    self.prepare(pause, context);
                }
            }
            WorkerCommand::Leave => self.leave(context),
            #[cfg(test)]
            WorkerCommand::Blow => panic!("a bug in the worker"),
        }
    }

    fn take(&mut self, run: RunCommand, counts: OutcomeCounts, context: &mut Context<Self>) {
        let takes_slot = self.config.listeners[run.params.listener].takes_slot;
        let check = self.config.factory.as_ref().filter(|factory| takes_slot && factory.checks());
        if let Some(factory) = check.cloned()
            && let Some(resource) = self.resource.take()
        {
            return self.check(factory, resource, run, counts, context);
        }
        self.begin(run.jobs, run.params, counts);
    }

    fn interrupt(&mut self, event: Option<EventId>, cause: Cause) {
        if let Some(run) = &mut self.run {
            let stopped = run.interrupt(event, cause);
            let ended = run.take_ended();
            self.report_ended(ended);
            if let Some(stopped) = stopped {
                self.stopped(stopped);
            }
        }
        let held = self.held.as_mut().map(|held| held.interrupt(event, cause));
        let ended = held.into_iter().flatten();
        let ended = ended.filter_map(|job| end_unstarted(job, cause.outcome())).collect();
        self.report_ended(ended);
    }

    fn leave(&mut self, context: &mut Context<Self>) {
        // What runs on a thread goes on, and keeps the slot. Callers learn that it was lost.
        self.run = None;
        self.held = None;
        self.leaving = true;
        match &self.errand {
            Some(errand) => errand.cancel(),
            None => self.go(context),
        }
    }
}

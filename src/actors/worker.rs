//! The worker actor: stands on one slot, owns its resource, runs one event or batch at a time.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use actix::fut::ActorFuture;
use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, WrapFuture};
use futures::FutureExt;
use log::{error, warn};

use super::messages::{Interrupt, Leave, News, Report, Run as RunMessage};
use super::run::{Place, Run, Stopped};
use super::slot_hold::SlotHold;
use super::supervisor::Served;
use crate::meter::Meter;
use crate::resource::{Factory, Resource};

/// The pause before a resource is built again after a failure, doubled each time up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// One slot's worker. It knows nothing of lines and ranks.
pub(super) struct Worker {
    pub served: Arc<Served>,
    hold: Arc<SlotHold>,
    /// The same, as a thread keeps it.
    kept_by_threads: Arc<dyn Any + Send + Sync>,
    meter: Meter,
    resource: Option<Resource>,
    run: Option<Run>,
    /// Builds that have failed in a row, and panics that made one necessary.
    failures: u32,
}

impl Worker {
    pub fn new(hold: Arc<SlotHold>, served: Arc<Served>, meter: Meter) -> Self {
        let kept_by_threads = hold.clone();
        Worker { served, hold, kept_by_threads, meter, resource: None, run: None, failures: 0 }
    }

    /// Past the mailbox' bound: a slot has at most one run to report on.
    fn report(&self, news: News) {
        let SlotHold { supervisor, slot, seat } = &*self.hold;
        supervisor.do_send(Report { slot: *slot, seat: *seat, news });
    }

    fn build(&mut self, factory: Factory, context: &mut Context<Self>) {
        let slot = self.hold.slot;
        let build = async move { factory.build(slot).await };
        let build = AssertUnwindSafe(build).catch_unwind().into_actor(self);
        let built = build.map(|built, worker, context| match built {
            Ok(Ok(resource)) => {
                worker.resource = Some(resource);
                worker.report(News::Ready);
            }
            Ok(Err(trouble)) => worker.build_failed(trouble, context),
            Err(_) => worker.build_failed("the builder panicked".into(), context),
        });
        context.spawn(built);
    }

    fn build_failed(&mut self, trouble: String, context: &mut Context<Self>) {
        let pause = self.next_pause();
        error!(
            "{}: slot {} could not build its resource: {trouble}; trying again in {pause:?}",
            self.served.concurrency_id, self.hold.slot
        );
        self.report(News::Trouble(trouble));
        self.build_after(pause, context);
    }

    fn next_pause(&mut self) -> Duration {
        let pause = FIRST_PAUSE * 2u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        pause.min(LONGEST_PAUSE)
    }

    fn build_after(&mut self, pause: Duration, context: &mut Context<Self>) {
        if let Some(factory) = self.served.factory.clone() {
            context.run_later(pause, move |worker, context| worker.build(factory, context));
        }
    }

    fn stopped(&mut self, stopped: Stopped, context: &mut Context<Self>) {
        let came_back = self.resource.as_ref().is_none_or(Resource::is_home);
        let ready = came_back && !(stopped.panicked && self.resource.is_some());
        self.report(News::Done { tally: stopped.tally, ready });
        if let Some(mut run) = self.run.take() {
            run.tell();
        }
        if ready {
            // A run went well: the next failure is a first one again.
            if stopped.tally.completed > 0 {
                self.failures = 0;
            }
            return;
        }
        let spoilt = self.resource.take();
        if catch_unwind(AssertUnwindSafe(|| drop(spoilt))).is_err() {
            error!(
                "{}: the resource of slot {} panicked when dropped",
                self.served.concurrency_id, self.hold.slot
            );
        }
        let pause = self.next_pause();
        warn!(
            "{}: slot {} lost its resource in a run; building another in {pause:?}",
            self.served.concurrency_id, self.hold.slot
        );
        self.build_after(pause, context);
    }
}

impl Actor for Worker {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Self::Context) {
        context.spawn(Drive);
        if let Some(factory) = self.served.factory.clone() {
            self.build(factory, context);
        }
    }
}

/// Polls the worker's run, whenever there is one, for as long as the worker lives.
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
        if let Some(run) = &mut worker.run
            && let Poll::Ready(stopped) = run.poll(task)
        {
            worker.stopped(stopped, context);
        }
        Poll::Pending
    }
}

impl Handler<RunMessage> for Worker {
    type Result = ();

    fn handle(&mut self, RunMessage { jobs, terms }: RunMessage, context: &mut Self::Context) {
        let served = self.served.clone();
        let listener = &served.listeners[terms.listener];
        let place = Place {
            api_name: &listener.api_name,
            meter: &self.meter,
            start: &listener.start,
            slot: self.hold.slot,
            resource: self.resource.as_ref(),
            threads: &served.threads,
            hold: &self.kept_by_threads,
            pulse: &served.pulse,
            number: listener.number,
            #[cfg(feature = "web")]
            files: &served.files,
        };
        let (run, stopped) = Run::start(jobs, terms, place);
        // `Drive` polls it right after the mailbox.
        self.run = Some(run);
        if let Some(stopped) = stopped {
            self.stopped(stopped, context);
        }
    }
}

impl Handler<Interrupt> for Worker {
    type Result = ();

    fn handle(&mut self, Interrupt { event, cause }: Interrupt, context: &mut Self::Context) {
        if let Some(run) = &mut self.run
            && let Some(stopped) = run.interrupt(event, cause)
        {
            self.stopped(stopped, context);
        }
    }
}

impl Handler<Leave> for Worker {
    type Result = ();

    fn handle(&mut self, _: Leave, context: &mut Self::Context) {
        // What runs on a thread goes on, and keeps the slot. Callers learn that it was lost.
        self.run = None;
        context.stop();
    }
}

/// For tests of what becomes of a bug of ours.
#[cfg(test)]
impl Handler<super::messages::Blow> for Worker {
    type Result = ();

    fn handle(&mut self, _: super::messages::Blow, _: &mut Self::Context) {
        panic!("a bug in the worker");
    }
}

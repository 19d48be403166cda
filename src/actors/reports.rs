//! What the workers of a supervisor report to it.
//!
//! A worker's come by a local channel. What holds a slot on another thread, or beyond its worker's
//! life, reports by the mailbox.

use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

use super::grant::Queued;
use super::messages::{Report, WorkerEvent};
use super::supervisor::Supervisor;
use crate::logging::debug;
use crate::scheduler::command::Command;
use actix::fut::ActorFuture;
use actix::{AsyncContext, Context, Handler};

/// Takes the reports that no message comes after. Lives as long as the supervisor.
struct TakeReports;

impl ActorFuture<Supervisor> for TakeReports {
    type Output = ();

    fn poll(
        self: Pin<&mut Self>,
        supervisor: &mut Supervisor,
        context: &mut Context<Supervisor>,
        task: &mut TaskContext<'_>,
    ) -> Poll<()> {
        // Having taken its breath, the actor polls this again.
        while !context.waiting()
            && let Poll::Ready(Some(report)) = supervisor.reports.1.poll_recv(task)
        {
            supervisor.budget.spend::<Supervisor>(context);
            supervisor.guarded(context, |supervisor, context| supervisor.report(report, context));
        }
        Poll::Pending
    }
}

impl Supervisor {
    /// To be called when it starts.
    pub(super) fn receive_reports(&mut self, context: &mut Context<Self>) {
        context.spawn(TakeReports);
    }

    /// Takes the reports that are here. To be done before each message: whoever has heard how an
    /// event ended finds its slot free.
    pub(super) fn take_reports(&mut self, context: &mut Context<Self>) {
        while let Some(report) = self.reports.1.try_recv() {
            self.report(report, context);
        }
    }

    fn report(&mut self, report: Report, context: &mut Context<Self>) {
        let Report { slot, generation, event } = report;
        // A worker that was told to leave may have reported before it heard of that.
        let is_late = self.worker(slot).is_none_or(|worker| worker.generation != generation);
        let command = match event {
            // Events end once, whoever says so.
            WorkerEvent::Ended(ends) => {
                self.record_ends(ends);
                return self.settle(context);
            }
            _ if is_late => return,
            WorkerEvent::Ready => Command::SlotReady { slot },
            WorkerEvent::Trouble { trouble, pause } => Command::SlotFailed { slot, trouble, pause },
            WorkerEvent::Returned { jobs, counts } => {
                let events = jobs.into_iter().map(|job| (job.id, Queued::Event(job))).collect();
                Command::Returned { slot, counts, events }
            }
            WorkerEvent::Gone => {
                self.workers[slot] = None;
                debug!("{}: the worker on slot {slot} is gone", self.name());
                Command::SlotLost { slot }
            }
            WorkerEvent::Postponed(jobs) => {
                for (job, retry) in jobs {
                    self.postpone(slot, job, retry);
                }
                return self.settle(context);
            }
            WorkerEvent::Done { counts, ready } => Command::Done { slot, counts, ready },
        };
        self.handle(command, context);
        if self.account.is_some() {
            // Listeners refuse by themselves while the whole queue is full.
            self.gauges.set_retry_after(self.scheduler.retry_after());
        }
    }
}

impl Handler<Report> for Supervisor {
    type Result = ();

    fn handle(&mut self, report: Report, context: &mut Self::Context) {
        self.turn(context, |supervisor, context| supervisor.report(report, context));
    }
}

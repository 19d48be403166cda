//! One run on one slot, from its handler's start to its last terminal update.

use std::any::Any;
use std::cell::OnceCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio_util::sync::CancellationToken;

use super::durable_end::DurableEnd;
use super::messages::Job;
use super::watchdog::Pulse;
use crate::clock;
use crate::event::failure::Failure;
use crate::event::guarded::{discard, discard_payload};
use crate::event::id::EventId;
use crate::event::update::{Outcome, Update};
use crate::handler::durable::{Durability, Durable, Retry};
use crate::handler::erased::{ErasedHandler, HandlerFuture, HandlerOutput};
use crate::handler::extensions::Extensions;
use crate::handler::input::OneOrMany;
use crate::handler::nesting::{Caller, IdSlots, Running};
use crate::handler::progress::Meter;
use crate::handler::run_context::{RunContext, RunEvent};
use crate::handler::slot::Resource;
use crate::handler::threads::Threads;
use crate::handler::user::{EventUser, with_user};
use crate::logging::{debug, info, log, warn};
use crate::scheduler::command::{Cause, OutcomeCounts, RunParams};

/// A handler at work on its events.
///
/// How an event ends is decided first and sent later, by [`Run::notify_ended`]: in between, the worker
/// reports that its slot is free. So whoever has heard of an end finds the queue in the state after
/// it.
pub(super) struct Run {
    api_name: Arc<str>,
    events: OneOrMany<RunEvent>,
    work: Option<HandlerFuture>,
    pulse: Arc<Pulse>,
    number: u16,
    token: OnceCell<CancellationToken>,
    /// For calls that the handler makes.
    nesting: Running,
    params: RunParams,
    counts: OutcomeCounts,
    /// Where its events are durable. Apart, so that other runs don't take more room for it.
    durable: Option<Box<DurableRun>>,
}

/// What goes beyond other runs.
struct DurableRun {
    durability: Durability,
    /// How its events have ended, and which are to be tried again.
    ended: Vec<DurableEnd>,
    postponed: Vec<(Box<Job>, Retry)>,
}

/// What became of a run that has really stopped.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopped {
    pub counts: OutcomeCounts,
    /// The handler has returned by itself. Otherwise it unwound or was dropped, and whatever it held
    /// is suspect.
    pub returned: bool,
}

/// Where and with what a run starts.
pub(super) struct RunEnv<'a> {
    pub api_name: &'a Arc<str>,
    /// Those of its concurrency id.
    pub slots: &'a IdSlots,
    pub meter: &'a Meter,
    pub start: &'a ErasedHandler,
    pub slot: usize,
    pub resource: Option<&'a Resource>,
    pub threads: &'a Threads,
    pub hold: &'a Arc<dyn Any + Send + Sync>,
    /// Where the turns of the handler are recorded.
    pub pulse: &'a Arc<Pulse>,
    /// By which number it is known there.
    pub number: u16,
    pub extensions: &'a Arc<Extensions>,
    pub durability: Option<&'a Durability>,
}

impl Run {
    /// Starts the handler. One that fails or panics before its first await has stopped already.
    /// `counts` counts those of its events that have ended already.
    pub fn start(
        jobs: OneOrMany<Box<Job>>,
        params: RunParams,
        counts: OutcomeCounts,
        env: RunEnv<'_>,
    ) -> (Run, Option<Stopped>) {
        let board = |job: Box<Job>| {
            let Job { id, session, input, sender } = *job;
            sender.send(|event_id| Update::ProcessStarts { event_id, eta: params.average });
            let (input, extensions) = input.split();
            (RunEvent { id, session, sender: Some(sender), extensions, outcome: None }, input)
        };
        let (events, inputs) = match jobs {
            OneOrMany::One(job) => {
                let (run_event, input) = board(job);
                (OneOrMany::One(run_event), OneOrMany::One(input))
            }
            OneOrMany::Many(jobs) => {
                let (events, inputs) = jobs.into_iter().map(board).unzip();
                (OneOrMany::Many(events), OneOrMany::Many(inputs))
            }
        };
        let token = OnceCell::new();
        env.meter.begin();
        let context = RunContext {
            api_name: env.api_name,
            meter: env.meter,
            slot: env.slot,
            deadline: params.deadline,
            events: events.as_slice(),
            token: &token,
            resource: env.resource,
            threads: env.threads,
            hold: env.hold,
            extensions: env.extensions,
        };
        let callers = events.as_slice().iter().filter_map(|run_event| run_event.extensions.get());
        let callers = callers.map(|Caller(call)| call.clone()).collect();
        let mut nesting = Running::new(env.slots, callers);
        let work = {
            let _turn = env.pulse.turn(env.number);
            let _running = nesting.enter();
            catch_unwind(AssertUnwindSafe(|| (env.start)(inputs, &context)))
        };
        let api_name = env.api_name.clone();
        let (pulse, number) = (env.pulse.clone(), env.number);
        let mut run = Run {
            api_name,
            events,
            work: None,
            pulse,
            number,
            token,
            nesting,
            params,
            counts,
            durable: env.durability.map(|durability| {
                let (durability, ended, postponed) = (durability.clone(), Vec::new(), Vec::new());
                Box::new(DurableRun { durability, ended, postponed })
            }),
        };
        let stopped = match work {
            Ok(Ok(work)) => {
                run.work = Some(work);
                None
            }
            Ok(Err(failure)) => Some(run.failed(failure)),
            Err(panic) => Some(run.panicked(panic)),
        };
        (run, stopped)
    }

    /// Lets the handler go on.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Stopped> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let polled = {
            let _turn = self.pulse.turn(self.number);
            let _running = self.nesting.enter();
            catch_unwind(AssertUnwindSafe(|| work.future.as_mut().poll(cx)))
        };
        Poll::Ready(match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(Ok(made))) => self.made(made),
            Ok(Poll::Ready(Err(failure))) => self.failed(failure),
            Err(panic) => self.panicked(panic),
        })
    }

    /// Ends the whole run, or one event of it. Gives what became of the run when that stopped it;
    /// a handler on a blocking thread goes on until it notices, and its clients are notified at once.
    pub fn interrupt(&mut self, event: Option<EventId>, cause: Cause) -> Option<Stopped> {
        for run_event in self.events.as_mut_slice() {
            if run_event.is_open() && event.is_none_or(|event| event == run_event.id) {
                self.counts.count(cause);
                run_event.outcome = Some(cause.outcome());
            }
        }
        if !self.events.as_slice().iter().any(RunEvent::is_open) {
            if let Some(token) = self.token.get() {
                token.cancel();
            }
            if self.work.as_ref().is_some_and(|work| work.droppable) {
                return Some(Stopped { returned: false, ..self.stop() });
            }
        }
        self.notify_ended();
        None
    }

    /// Whether its events are durable.
    pub fn is_durable(&self) -> bool {
        self.durable.is_some()
    }

    /// Ends of durable events that are to be recorded.
    pub fn take_ended(&mut self) -> Vec<DurableEnd> {
        self.durable.as_mut().map(|run| std::mem::take(&mut run.ended)).unwrap_or_default()
    }

    /// Durable events that are to be tried again, after a pause.
    pub fn take_postponed(&mut self) -> Vec<(Box<Job>, Retry)> {
        self.durable.as_mut().map(|run| std::mem::take(&mut run.postponed)).unwrap_or_default()
    }

    /// Notifies the clients whose events have ended. Those of durable ones are notified when that is on
    /// record.
    pub fn notify_ended(&mut self) {
        for run_event in self.events.as_mut_slice() {
            if let Some(outcome) = run_event.outcome.take()
                && let Some(sender) = run_event.sender.take()
            {
                let (api_name, id, started) = (&self.api_name, run_event.id, self.params.started);
                debug!("{api_name}: event {id} {outcome} after {:?}", clock::since(started));
                let average = self.params.average;
                let Some(run) = &mut self.durable else {
                    sender.end(outcome, started, average);
                    continue;
                };
                let durability = &run.durability;
                let outcome = match outcome {
                    Outcome::Completed(Some(output)) => {
                        Outcome::Completed(Some(output.rereadable(durability.reread.clone())))
                    }
                    Outcome::Failed(failure) => {
                        // It may be submitted again.
                        if let Some(durable) = run_event.extensions.get::<Durable>() {
                            durability.keep(&durable.input);
                        }
                        Outcome::Failed(failure)
                    }
                    outcome => outcome,
                };
                let times = (started, average);
                run.ended.push(DurableEnd::of_run(id, sender, outcome, durability, times));
            }
        }
    }

    fn made(&mut self, made: HandlerOutput) -> Stopped {
        let events = self.events.as_mut_slice();
        let outputs: OneOrMany<Option<_>> = match made {
            HandlerOutput::One(output) => OneOrMany::One(output),
            HandlerOutput::Batch(outputs) if outputs.len() == events.len() => {
                OneOrMany::Many(outputs.into_iter().map(Some).collect())
            }
            HandlerOutput::Batch(outputs) => {
                let message = format!(
                    "the batch function returned {} results for {} events; it must return one \
                     for each, in order",
                    outputs.len(),
                    events.len()
                );
                return self.failed(Failure::unexpected(message));
            }
        };
        for (run_event, output) in events.iter_mut().zip(outputs) {
            if run_event.is_open() {
                self.counts.completed += 1;
                run_event.outcome = Some(Outcome::Completed(output));
            }
        }
        self.stop()
    }

    fn failed(&mut self, failure: Failure) -> Stopped {
        for run_event in self.events.as_mut_slice() {
            if let Some(run) = &mut self.durable
                && let Some(again) = try_again(run_event, &run.durability, &failure)
            {
                let (api_name, id) = (&self.api_name, run_event.id);
                match again.1 {
                    Retry::After(pause) => {
                        info!("{api_name}: event {id} is tried again in {pause:?}: {failure}");
                    }
                    Retry::Next => warn!("{api_name}: event {id} is tried again: {failure}"),
                }
                run.postponed.push(again);
                continue;
            }
            if run_event.is_open() {
                // What a client isn't shown, the operator must find somewhere.
                let level = if failure.for_user { log::Level::Debug } else { log::Level::Error };
                log!(level, "{}: event {} failed: {failure}", self.api_name, run_event.id);
                self.counts.failed += 1;
                run_event.outcome = Some(Outcome::Failed(failure.clone()));
            }
        }
        self.stop()
    }

    fn panicked(&mut self, panic: Box<dyn Any + Send>) -> Stopped {
        let text = panic
            .downcast_ref::<&str>()
            .map(|text| (*text).to_string())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "no message".into());
        discard_payload(panic);
        let stopped = self.failed(Failure::unexpected(format!("the handler panicked: {text}")));
        Stopped { returned: false, ..stopped }
    }

    /// Drops the handler, after which it has really stopped.
    fn stop(&mut self) -> Stopped {
        let dropped = self.work.take().is_none_or(|work| discard(work.future.into_inner()));
        Stopped { counts: self.counts, returned: dropped }
    }
}

/// The event as it is tried again, and when, if it is.
fn try_again(
    run_event: &mut RunEvent,
    durability: &Durability,
    failure: &Failure,
) -> Option<(Box<Job>, Retry)> {
    if !run_event.is_open() {
        return None;
    }
    let durable = run_event.extensions.get::<Durable>()?;
    let retry = durability.retries(durable, failure)?;
    let again = durable.again();
    let input = durability.read_input(&again.input).ok()?.with(again);
    let user = run_event.extensions.get().map(|EventUser(user)| user.clone());
    let input = with_user(input, user);
    let (id, session, sender) = (run_event.id, run_event.session.clone(), run_event.sender.take()?);
    Some((Box::new(Job { id, session, input, sender }), retry))
}

impl Drop for Run {
    /// Dropped at work, it is lost. What goes on, on a thread of its own, should know.
    fn drop(&mut self) {
        if self.work.is_some()
            && let Some(token) = self.token.get()
        {
            token.cancel();
        }
    }
}

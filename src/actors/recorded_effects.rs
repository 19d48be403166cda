//! The recorder at work: what must be on record before it is done is held back until the journal says
//! so.

use std::sync::Arc;
use std::time::Duration;

use actix::{AsyncContext, Context, Handler, Message};

use super::durable_end::DurableEnd;
use super::grant::Queued;
use super::held_run::HeldRun;
use super::messages::{Job, Run, WorkerCommand};
use super::recording::{
    Held, Recording, Recovered, RecoveredEvent, SteeredReply, accept, admission, end_unstarted,
    not_recorded, note_starts,
};
use super::supervisor::Supervisor;
use super::timer::Timer;
use crate::clock;
use crate::event::failure::Failure;
use crate::event::id::EventId;
use crate::event::update::Outcome;
use crate::handler::durable::{Durable, Retry};
use crate::journal::error::JournalError;
use crate::journal::record::{End, Ended, Record, Steered};
use crate::journal::recorder::BatchNumber;
use crate::journal::{Batch, CallsDue};
use crate::logging::{error, warn};
use crate::scheduler::command::{Arrival, Cause, Command, OutcomeCounts, WhenFull};
use crate::scheduler::wait_queue::Key;

/// How long after a failure it is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Batches that are on their way to the journal at once.
const ON_THEIR_WAY: usize = 2;

/// Journal → supervisor: a batch is durable, or has failed.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct BatchSettled(BatchNumber, Result<(), JournalError>);

/// Journal → supervisor: another process has taken over.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct TakenOver(JournalError);

/// To itself: try again what could not be recorded.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(super) struct RetryRecording;

impl Supervisor {
    /// Ends events of a run that waits for its start to be on record. Whether there is such a run.
    pub(super) fn interrupt_unstarted(
        &mut self,
        slot: usize,
        event: Option<EventId>,
        cause: Cause,
    ) -> bool {
        let starting = self.recording.as_mut().and_then(|r| r.starting.get_mut(&slot));
        let Some(run) = starting else { return false };
        for job in run.interrupt(event, cause) {
            self.end_unstarted(job, cause.outcome());
        }
        true
    }

    /// Ends an event that has not started: at once, or when that is on record.
    pub(super) fn end_unstarted(&mut self, job: Job, outcome: Outcome) {
        self.record_ends(end_unstarted(job, outcome));
    }

    /// Takes ends of durable events.
    pub(super) fn record_ends(&mut self, ends: impl IntoIterator<Item = DurableEnd>) {
        for end in ends {
            match &mut self.recording {
                Some(recording) => recording.end(end),
                None => end.notify(),
            }
        }
    }

    /// An event that has failed in passing waits until it is tried again.
    pub(super) fn postpone(&mut self, slot: usize, job: Box<Job>, retry: Retry) {
        let pause = match retry {
            Retry::After(pause) => pause,
            Retry::Next => Duration::ZERO,
        };
        let (now, id) = (clock::now(), job.id);
        if let Some(recording) = &mut self.recording
            && let Some(durable) = job.input.given::<Durable>()
        {
            let (attempt, until) = (durable.attempt(), clock::unix_millis_after(pause));
            recording.recorder.note(Record::Postponed { event: id, attempt, until });
        }
        let due = (retry != Retry::Next).then(|| clock::after(now, pause));
        let payload = Queued::Event(job);
        self.scheduler.handle(now, Command::Postpone { slot, id, payload, due });
    }

    /// Records what an operator has set, who hears when it is on record.
    pub(super) fn record_steered(&mut self, reply: SteeredReply, set: impl FnOnce(&mut Steered)) {
        let Some(recording) = &mut self.recording else { return accept(reply) };
        set(&mut recording.steered);
        let (record, held) = (Record::Steered(recording.steered), Held::Steered(reply));
        match recording.trouble.clone() {
            None => recording.recorder.hold(record, held),
            Some(trouble) => {
                recording.recorder.note(record);
                self.not_recorded(held, trouble);
            }
        }
    }

    pub(super) fn record_admission(&mut self, key: Key) {
        let Some(recording) = &mut self.recording else { return };
        let Some((lane, Queued::Event(job))) = self.scheduler.to_record(key) else { return };
        let listener = self.config.listeners.get(lane).map(|listener| &listener.api_name);
        let record = listener.and_then(|listener| admission(listener, job));
        match (record, &recording.trouble) {
            (Some(record), None) => recording.recorder.hold(record, Held::Admission(key)),
            (_, Some(trouble)) => {
                let refusal = not_recorded(trouble);
                self.scheduler.handle(clock::now(), Command::NotRecorded { key, refusal });
            }
            // Nothing of it is to be kept.
            (None, None) => self.scheduler.handle(clock::now(), Command::Recorded(key)),
        }
    }

    /// Gives the run back if it may start at once.
    pub(super) fn record_start(&mut self, slot: usize, run: Run) -> Option<Run> {
        let Some(recording) = &mut self.recording else { return Some(run) };
        recording.attempts.remove(&slot);
        let Some(durability) = &self.config.listeners[run.params.listener].durability else {
            return Some(run);
        };
        let Run { jobs, params } = run;
        let counts = OutcomeCounts::default();
        if recording.is_broken() {
            self.stop_unstarted(slot, HeldRun { jobs, params, counts });
            return None;
        }
        let mut records_first = false;
        let is_run_elsewhere = durability.is_run_elsewhere();
        for durable in jobs.as_slice().iter().filter_map(|job| job.input.given::<Durable>()) {
            records_first |= durability.records_first(durable);
            let attempt = durable.start();
            if attempt > 1 {
                recording.attempts.insert(slot, attempt);
            }
        }
        if is_run_elsewhere {
            return Some(Run { jobs, params });
        }
        note_starts(&mut recording.recorder, jobs.as_slice());
        if !records_first {
            return Some(Run { jobs, params });
        }
        recording.recorder.held(Held::Start(slot));
        recording.starting.insert(slot, HeldRun { jobs, params, counts });
        None
    }

    /// A run that can't be recorded any more doesn't start: its events go on in the next process.
    fn stop_unstarted(&mut self, slot: usize, mut run: HeldRun) {
        for job in run.interrupt(None, Cause::Stopped) {
            job.sender.end_unstarted(Outcome::Stopped);
        }
        let counts = run.counts;
        self.scheduler.handle(clock::now(), Command::Done { slot, counts, ready: true });
    }

    /// Sends what has gathered to the journal.
    pub(super) fn flush_records(&mut self, context: &mut Context<Self>) {
        let Some(recording) = &mut self.recording else { return };
        if recording.recorder.on_their_way() >= ON_THEIR_WAY || recording.retry.is_some() {
            return;
        }
        let Some((number, records)) = recording.recorder.take_batch() else { return };
        let address = context.address();
        let batch = Batch { concurrency_id: self.config.concurrency_id.clone(), records };
        let done = Box::new(move |result| address.do_send(BatchSettled(number, result)));
        recording.journal.append(batch, done);
    }

    fn batch_settled(
        &mut self,
        number: BatchNumber,
        result: Result<(), JournalError>,
        context: &mut Context<Self>,
    ) {
        let Some(recording) = &mut self.recording else { return };
        match result {
            Ok(()) => {
                let held = recording.recorder.settled(number);
                recording.retry = None;
                if recording.trouble.take().is_some() {
                    warn!("{}: the journal takes records again", self.config.concurrency_id);
                }
                held.into_iter().for_each(|held| self.perform_held(held));
            }
            Err(trouble) => {
                let held = recording.recorder.failed(number);
                self.records_failed(held, &trouble, context);
            }
        }
        self.settle(context);
    }

    /// Hears when another process has taken over, though nothing is to be recorded.
    fn watch_journal(&self, context: &mut Context<Self>) {
        let watched = self.recording.as_ref().and_then(|recording| recording.journal.taken_over());
        let Some(mut watched) = watched else { return };
        let address = context.address().downgrade();
        actix::spawn(async move {
            // It ends with the journal.
            let Ok(trouble) = watched.wait_for(Option::is_some).await.map(|it| it.clone()) else {
                return;
            };
            if let Some((address, trouble)) = address.upgrade().zip(trouble) {
                address.do_send(TakenOver(trouble));
            }
        });
    }

    /// What was held back for records that were not kept: for all there are, once none will be.
    fn records_failed(
        &mut self,
        mut held: Vec<Held>,
        trouble: &JournalError,
        context: &mut Context<Self>,
    ) {
        let Some(recording) = &mut self.recording else { return };
        if trouble.is_final() {
            held.append(&mut recording.recorder.give_up());
        }
        self.note_trouble(trouble, context);
        held.into_iter().for_each(|held| self.not_recorded(held, trouble.clone()));
    }

    fn perform_held(&mut self, held: Held) {
        match held {
            Held::Admission(key) => self.scheduler.handle(clock::now(), Command::Recorded(key)),
            Held::End(end) => {
                end.notify();
                if let Some(due) = self.config.extensions.get::<Arc<CallsDue>>() {
                    due.0.notify_one();
                }
            }
            Held::Steered(reply) => accept(reply),
            Held::Start(slot) => {
                let starting = self.recording.as_mut().and_then(|r| r.starting.remove(&slot));
                let Some(HeldRun { jobs, params, counts }) = starting else { return };
                if jobs.as_slice().is_empty() {
                    // All were ended meanwhile.
                    self.scheduler
                        .handle(clock::now(), Command::Done { slot, counts, ready: true });
                } else {
                    let rest = Box::new((Run { jobs, params }, counts));
                    self.send_run(slot, WorkerCommand::RunRest(rest));
                }
            }
        }
    }

    fn note_trouble(&mut self, trouble: &JournalError, context: &mut Context<Self>) {
        let Some(recording) = &mut self.recording else { return };
        if recording.is_broken() {
            return;
        }
        if recording.trouble.as_ref() != Some(trouble) {
            error!("{}: {trouble}", self.config.concurrency_id);
            recording.trouble = Some(trouble.clone());
        }
        if recording.is_broken() {
            recording.retry = None;
            if trouble.is_anothers() {
                self.scheduler.handle(clock::now(), Command::HandOver);
            }
        } else if recording.retry.is_none() {
            let address = context.address();
            let due = clock::now() + RETRY;
            recording.retry = Some(Timer::start(due, move || address.do_send(RetryRecording)));
        }
    }

    /// A record has not been kept: an event whose admission it was is refused, everything else waits until
    /// it can be.
    fn not_recorded(&mut self, held: Held, trouble: JournalError) {
        let Some(recording) = &mut self.recording else { return };
        match held {
            Held::Admission(key) => {
                let refusal = not_recorded(&trouble);
                self.scheduler.handle(clock::now(), Command::NotRecorded { key, refusal });
            }
            Held::Steered(reply) => {
                // Who asked may have stopped waiting.
                let _ = reply.send(Err(trouble));
            }
            Held::End(end) if recording.is_broken() => end.leave_open(),
            Held::Start(slot) if recording.is_broken() => {
                let Some(run) = recording.starting.remove(&slot) else { return };
                self.stop_unstarted(slot, run);
            }
            held => recording.recorder.hold_again(held),
        }
    }

    fn retry_recording(&mut self, context: &mut Context<Self>) {
        let Some(recording) = &mut self.recording else { return };
        recording.retry = None;
        if !recording.is_broken() {
            // Whether it takes records again, what comes next shows.
            recording.trouble = None;
        }
        self.settle(context);
    }

    /// Events that are lost, because what held them can't be trusted any more, have ended.
    pub(super) fn record_lost(&mut self) {
        let lost = self.scheduler.events();
        let Some(recording) = &mut self.recording else { return };
        recording.starting.clear();
        let at = clock::unix_millis();
        for event in lost {
            let end = End::Failed(Failure::unexpected("the event was lost by a bug of the queue"));
            recording.recorder.note(Record::Ended(Ended { event, end, duration: 0.0, at }));
        }
    }
}

impl Handler<BatchSettled> for Supervisor {
    type Result = ();

    fn handle(&mut self, BatchSettled(number, result): BatchSettled, context: &mut Self::Context) {
        self.turn(context, |supervisor, context| supervisor.batch_settled(number, result, context));
    }
}

impl Handler<TakenOver> for Supervisor {
    type Result = ();

    fn handle(&mut self, TakenOver(trouble): TakenOver, context: &mut Self::Context) {
        self.turn(context, |supervisor, context| {
            supervisor.records_failed(Vec::new(), &trouble, context);
            supervisor.settle(context);
        });
    }
}

impl Handler<RetryRecording> for Supervisor {
    type Result = ();

    fn handle(&mut self, _: RetryRecording, context: &mut Self::Context) {
        self.turn(context, Self::retry_recording);
    }
}

impl Supervisor {
    /// Takes back what earlier processes have left. To be done before anything else.
    pub(super) fn recover(&mut self, context: &mut Context<Self>) {
        let Recovered { journal, events, ended, steered, awaits_room } =
            std::mem::take(&mut self.recovered);
        let Some(journal) = journal else { return };
        let mut recording = Recording::new(journal, steered);
        ended.into_iter().for_each(|end| recording.end(end));
        self.recording = Some(recording);
        self.watch_journal(context);
        let now = clock::now();
        if awaits_room {
            self.scheduler.handle(now, Command::SetCapacity(0));
        }
        if let Some(limit) = steered.limit {
            self.scheduler.handle(now, Command::SetLimit(limit.into()));
        }
        if steered.paused {
            self.scheduler.handle(now, Command::Pause);
        }
        for RecoveredEvent { listener, job, since, not_before, runs } in events {
            let arrival = Arrival {
                id: job.id,
                listener,
                watched: job.sender.is_watched(),
                when_full: WhenFull::Wait,
                not_before,
                placed: false,
                payload: Queued::Event(job),
            };
            let arrival = Box::new(arrival);
            self.scheduler.handle(now, Command::Restore { arrival, since, runs });
        }
    }
}

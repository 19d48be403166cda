//! The promises of the design, checked on random histories against a model that is too simple to
//! be wrong: the wait queue is a plain list, and every effect is held against it.
//!
//! Some events are durable, so that they wait to be on record before they are admitted; some may start only
//! later; some fail in passing and start again; some were admitted by an earlier process.
//!
//! P1 never more than the limit, P2 exactly one end for each admitted event, P3 first in first out,
//! P4 no slot leaks, P5 ranks are true and never rise, P7 a stop ends everything.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::event::id::EventId;
use crate::event::refusal::Refusal;
use crate::scheduler::command::{
    Arrival, Cause, Command, Effect, OutcomeCounts, Pressure, RunParams, WhenFull,
};
use crate::scheduler::limit::Limit;
use crate::scheduler::rules::{BatchRules, ListenerRules, ResourceRules, Rules};
use crate::scheduler::wait_queue::Key;
use crate::scheduler::{inspect, slots, *};

const QUEUE_TIMEOUT: Duration = Duration::from_millis(50);

const TIME_LIMIT: Duration = Duration::from_millis(80);

const UNAVAILABLE_AFTER: Duration = Duration::from_millis(70);

/// The pause after a build that failed.
const PAUSE: Duration = Duration::from_millis(10);

const MAX_SIZE: usize = 6;

const BATCH: usize = 3;

/// Listener 0 is plain, 1 times out in the wait queue, 2 times out on its slot, 3 takes batches, 4 is
/// durable and times out in the wait queue.
const LISTENERS: usize = 5;

const DURABLE: usize = 4;

/// The lane of permits.
const PERMITS: usize = LISTENERS;

fn rules(warm: Option<usize>, limit: Limit) -> Rules {
    let listener = |n: usize| ListenerRules {
        api_name: format!("l{n}").into(),
        batch: (n == 3).then_some(BatchRules { max_size: BATCH, max_wait: Duration::ZERO }),
        time_limit: (n == 2).then_some(TIME_LIMIT),
        queue_timeout: (n == 1 || n == DURABLE).then_some(QUEUE_TIMEOUT),
        durable: n == DURABLE,
    };
    Rules {
        concurrency_id: "id".into(),
        limit,
        max_size: Some(MAX_SIZE),
        max_eta: None,
        resource: warm.map(|warm| ResourceRules { warm, unavailable_after: UNAVAILABLE_AFTER }),
        listeners: (0..LISTENERS).map(listener).collect(),
        queue_max_size: None,
    }
}

#[derive(Clone, Debug)]
enum Step {
    Submit {
        listener: usize,
        watched: bool,
        patient: bool,
        /// It may start so many milliseconds later.
        delay: Option<u64>,
    },
    /// The n-th event that waits to be on record is, or can't be.
    Record {
        nth: usize,
        works: bool,
    },
    /// The n-th running event, if it is a durable one, fails in passing and is tried again so many
    /// milliseconds later.
    Postpone {
        nth: usize,
        pause: u64,
    },
    /// The n-th running handler returns, fails, or panics.
    Finish {
        nth: usize,
        how: How,
    },
    /// The n-th interrupted handler notices.
    Notice(usize),
    Cancel(usize),
    /// Somebody gives the event of another listener.
    CancelOfAnother(usize),
    Advance(u64),
    Resize(usize),
    Pause,
    Resume,
    /// The n-th slot in preparation becomes ready, or fails once more.
    Prepare {
        nth: usize,
        works: bool,
    },
    Lose(usize),
    /// The check on the n-th slot that runs something finds the resource bad: of the run nothing has
    /// begun.
    Veto(usize),
    /// The n-th slot that closes its resource has done so.
    Closed(usize),
    /// Another process goes on with the durable events.
    HandOver,
}

#[derive(Clone, Copy, Debug)]
enum How {
    Completes,
    Fails,
    Panics,
}

fn step(prepared: bool) -> impl Strategy<Value = Step> {
    let how = prop_oneof![3 => Just(How::Completes), 1 => Just(How::Fails), 1 => Just(How::Panics)];
    prop_oneof![
        10 => (0..=PERMITS, any::<bool>(), prop::bool::weighted(0.3), delay()).prop_map(
            |(listener, watched, patient, delay)| Step::Submit {
                listener, watched, patient, delay,
            }
        ),
        4 => (0..4usize, prop::bool::weighted(0.8))
            .prop_map(|(nth, works)| Step::Record { nth, works }),
        2 => (0..8usize, 1..90u64).prop_map(|(nth, pause)| Step::Postpone { nth, pause }),
        6 => (0..8usize, how).prop_map(|(nth, how)| Step::Finish { nth, how }),
        2 => (0..8usize).prop_map(Step::Notice),
        2 => (0..200usize).prop_map(Step::Cancel),
        1 => (0..200usize).prop_map(Step::CancelOfAnother),
        3 => (1..60u64).prop_map(Step::Advance),
        1 => (0..5usize).prop_map(Step::Resize),
        1 => Just(Step::Pause),
        2 => Just(Step::Resume),
        if prepared { 4 } else { 1 } => (0..8usize, prop::bool::weighted(0.8))
            .prop_map(|(nth, works)| Step::Prepare { nth, works }),
        1 => (0..8usize).prop_map(Step::Lose),
        2 => (0..8usize).prop_map(Step::Veto),
        3 => (0..8usize).prop_map(Step::Closed),
        1 => Just(Step::HandOver),
    ]
}

fn delay() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![4 => Just(None), 1 => (0..90u64).prop_map(Some)]
}

#[derive(Clone, Debug)]
struct Event {
    id: EventId,
    listener: usize,
    patient: bool,
    /// When it may start.
    due: Option<Instant>,
    admitted: bool,
    refused: bool,
    ends: usize,
    since: Instant,
    last_notified: Option<usize>,
    /// Counts those that were admitted.
    place: usize,
}

#[derive(Clone, Debug)]
struct Running {
    events: Vec<usize>,
    deadline: Option<Instant>,
    /// Interrupted, and hasn't reported its stop yet.
    counts: OutcomeCounts,
    ended: BTreeSet<usize>,
    interrupted: bool,
}

/// A supervisor and its workers in miniature, with the model of what the scheduler must do.
struct World {
    scheduler: Scheduler<usize>,
    prepared: bool,
    warm: usize,
    limit: usize,
    paused: bool,
    stopped: bool,
    now: Instant,
    events: Vec<Event>,
    wait_queue: Vec<usize>,
    blocked: Vec<usize>,
    /// Those that wait to be on record, with their keys once they are known.
    recording: Vec<(usize, Option<Key>)>,
    /// Those that may start only later, in the order of their moments.
    scheduled: Vec<(Instant, usize)>,
    running: BTreeMap<usize, Running>,
    /// Slots with a worker that is ready and runs nothing.
    free: BTreeSet<usize>,
    preparing: BTreeSet<usize>,
    /// Those of them that have failed.
    failing: BTreeSet<usize>,
    closing: BTreeSet<usize>,
    /// LastNotified to see to its resource.
    told_to_prepare: BTreeSet<usize>,
    /// Since when no slot is there, because builds fail.
    unavailable: Option<Instant>,
    ended: OutcomeCounts,
    /// What the listeners were last told.
    closed: bool,
    next_place: usize,
}

impl World {
    /// `warm` where slots own a resource.
    fn new(warm: Option<usize>, limit: Limit) -> Self {
        let now = Instant::now();
        let mut world = World {
            scheduler: Scheduler::new(rules(warm, limit), now),
            prepared: warm.is_some(),
            warm: warm.unwrap_or(0),
            limit: limit.slots(),
            paused: false,
            stopped: false,
            now,
            events: Vec::new(),
            wait_queue: Vec::new(),
            blocked: Vec::new(),
            recording: Vec::new(),
            scheduled: Vec::new(),
            running: BTreeMap::new(),
            free: BTreeSet::new(),
            preparing: BTreeSet::new(),
            failing: BTreeSet::new(),
            closing: BTreeSet::new(),
            told_to_prepare: BTreeSet::new(),
            unavailable: None,
            ended: OutcomeCounts::default(),
            closed: false,
            next_place: 0,
        };
        world.settle();
        world
    }

    fn command(&mut self, command: Command<usize>) {
        self.scheduler.handle(self.now, command);
        self.settle();
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Submit { listener, watched, patient, delay } => {
                self.submit(listener, watched, patient, delay);
            }
            Step::Record { nth, works } => self.record(nth, works),
            Step::Postpone { nth, pause } => self.postpone(nth, pause),
            Step::Finish { nth, how } => {
                let Some(slot) = self.nth_running(nth, false) else { return };
                self.finish(slot, how);
            }
            Step::Notice(nth) => {
                let Some(slot) = self.nth_running(nth, true) else { return };
                self.finish(slot, How::Completes);
            }
            Step::Cancel(n) => self.cancel(n),
            Step::CancelOfAnother(n) => {
                let Some(event) = self.events.get(n) else { return };
                let (id, ends, listener) = (event.id, event.ends, event.listener);
                let another = (listener + 1) % LISTENERS;
                self.command(Command::Cancel { listener: another, id });
                if listener != PERMITS {
                    self.command(Command::GiveUp { id, cause: Cause::TimedOut });
                }
                assert_eq!(self.events[n].ends, ends, "nobody else's cancel ends it");
            }
            Step::Advance(ms) => self.advance(Duration::from_millis(ms)),
            Step::Resize(0) if !self.prepared => self.resize(Limit::Unlimited),
            Step::Resize(n) => self.resize(Limit::Slots(n.max(1))),
            Step::Pause => {
                self.paused = true;
                self.command(Command::Pause);
            }
            Step::Resume => {
                self.paused = false;
                self.command(Command::Resume);
            }
            Step::Prepare { nth, works } => self.prepare(nth, works),
            Step::Lose(nth) => self.lose(nth),
            Step::Veto(nth) if self.prepared => self.veto(nth),
            Step::Veto(_) => {}
            Step::Closed(nth) => self.closed(nth),
            Step::HandOver => self.hand_over(),
        }
    }

    /// Those on record end here, and no others.
    fn hand_over(&mut self) {
        let durable = |n: &usize| self.events[*n].listener == DURABLE;
        let mut left: Vec<usize> = self.wait_queue.iter().copied().filter(durable).collect();
        left.extend(self.scheduled.iter().map(|(_, n)| *n).filter(durable));
        for &n in &left {
            self.leave(n);
            self.scheduled.retain(|(_, other)| *other != n);
        }
        self.ended.stopped += left.len() as u64;
        self.command(Command::HandOver);
        assert!(left.iter().all(|n| self.events[*n].ends == 1), "they end at once");
        let mut runs = self.running.values();
        assert!(runs.all(|run| run.interrupted || self.events[run.events[0]].listener != DURABLE));
    }

    fn event(&mut self, listener: usize, patient: bool, due: Option<Instant>) -> usize {
        let n = self.events.len();
        self.events.push(Event {
            id: EventId::for_test(n as u128),
            listener,
            patient,
            due,
            admitted: false,
            refused: false,
            ends: 0,
            since: self.now,
            last_notified: None,
            place: 0,
        });
        n
    }

    /// An earlier process has admitted it. No bound holds for it.
    fn restore(&mut self, watched: bool, delay: Option<u64>, waited: u64) {
        let not_before = delay.map(|delay| self.now + Duration::from_millis(delay));
        let n = self.event(DURABLE, false, not_before);
        // Nobody has waited for longer than who stands before it.
        let since = self.now - Duration::from_millis(waited);
        let before = self.wait_queue.iter().map(|n| self.events[*n].since).max();
        self.events[n].since = before.map_or(since, |before| since.max(before));
        self.enter(n);
        let arrival = Box::new(Arrival {
            id: self.events[n].id,
            listener: DURABLE,
            watched,
            when_full: WhenFull::Wait,
            not_before,
            placed: false,
            payload: n,
        });
        self.command(Command::Restore { arrival, since, runs: false });
    }

    /// The disk has got to it.
    fn record(&mut self, nth: usize, works: bool) {
        if self.recording.is_empty() {
            return;
        }
        let (n, key) = self.recording.remove(nth % self.recording.len());
        let key = key.expect("its record was wanted");
        if works {
            self.events[n].since = self.now;
            self.enter(n);
            if self.stopped {
                // It is on record, and goes on in the next process.
                self.wait_queue.retain(|other| *other != n);
                self.scheduled.retain(|(_, other)| *other != n);
                self.ended.stopped += 1;
            }
            self.command(Command::Recorded(key));
        } else {
            let refusal = Refusal::NotRecorded { reason: "no".into(), full: true };
            self.command(Command::NotRecorded { key, refusal });
            assert!(self.events[n].refused && self.events[n].ends == 0);
        }
    }

    /// Its run ends without it.
    fn postpone(&mut self, nth: usize, pause: u64) {
        let Some(slot) = self.nth_running(nth, false) else { return };
        let n = self.running[&slot].events[0];
        if self.events[n].listener != DURABLE {
            return;
        }
        let due = self.now + Duration::from_millis(pause);
        self.events[n].last_notified = None;
        self.schedule(n, due);
        let run = self.running.get_mut(&slot).expect("it runs");
        run.ended.insert(n);
        let id = self.events[n].id;
        self.command(Command::Postpone { slot, id, payload: n, due: Some(due) });
        self.finish(slot, How::Completes);
        assert_eq!(self.events[n].ends, 0, "it goes on");
    }

    fn submit(&mut self, listener: usize, watched: bool, patient: bool, delay: Option<u64>) {
        // A permit is for now.
        let delay = delay.filter(|_| listener != PERMITS);
        let not_before = delay.map(|delay| self.now + Duration::from_millis(delay));
        let n = self.event(listener, patient, not_before);
        let id = self.events[n].id;
        let full = self.accepted() >= MAX_SIZE || !self.blocked.is_empty();
        let unavailable = self.unavailable.is_some_and(|at| self.now - at >= UNAVAILABLE_AFTER);
        let expect_refusal = self.stopped || unavailable || (full && !patient);
        if !expect_refusal {
            self.blocked.push(n);
        }
        let when_full = if patient { WhenFull::Wait } else { WhenFull::Refuse };
        let placed = false;
        self.command(Command::Admit(Arrival {
            id,
            listener,
            watched,
            when_full,
            not_before,
            placed,
            payload: n,
        }));
        assert_eq!(self.events[n].refused, expect_refusal, "refused exactly when it is full");
    }

    fn nth_running(&self, nth: usize, interrupted: bool) -> Option<usize> {
        let mut slots = self.running.iter().filter(|(_, run)| run.interrupted == interrupted);
        let count = slots.clone().count();
        (count > 0).then(|| slots.nth(nth % count).map(|(slot, _)| *slot)).flatten()
    }

    /// The handler on `slot` has stopped: those of its events that haven't ended end now.
    fn finish(&mut self, slot: usize, how: How) {
        let Some(mut run) = self.running.remove(&slot) else { return };
        for &n in &run.events {
            if run.ended.insert(n) {
                self.events[n].ends += 1;
                match how {
                    How::Completes => run.counts.completed += 1,
                    How::Fails | How::Panics => run.counts.failed += 1,
                }
            }
        }
        self.ended.add(run.counts);
        let cut_short = run.interrupted || matches!(how, How::Panics);
        let ready = !(self.prepared && cut_short);
        if ready {
            self.free.insert(slot);
        } else {
            self.preparing.insert(slot);
            self.told_to_prepare.remove(&slot);
        }
        self.command(Command::Done { slot, counts: run.counts, ready });
        self.was_told(slot);
    }

    /// A worker whose resource isn't fit is told what to do.
    fn was_told(&self, slot: usize) {
        let told = !self.preparing.contains(&slot) || self.told_to_prepare.contains(&slot);
        assert!(told, "P4: slot {slot} waits for a word that doesn't come");
    }

    /// Its events that haven't ended are next again, in the order in which they came.
    fn veto(&mut self, nth: usize) {
        let Some(&slot) = self.running.keys().nth(nth % self.running.len().max(1)) else { return };
        // A permit takes nothing that could be checked.
        let takes_slot = |run: &Running| self.events[run.events[0]].listener != PERMITS;
        let Some(run) = self.running.get(&slot).filter(|run| takes_slot(run)).cloned() else {
            return;
        };
        self.running.remove(&slot);
        let mut events = Vec::new();
        for n in run.events {
            if !run.ended.contains(&n) {
                events.push((self.events[n].id, n));
                self.wait_queue.push(n);
            }
        }
        // Events are numbered as they come, but they may be blocked first.
        self.wait_queue.sort_by_key(|n| self.events[*n].place);
        self.ended.add(run.counts);
        self.preparing.insert(slot);
        self.told_to_prepare.remove(&slot);
        self.command(Command::Returned { slot, counts: run.counts, events });
        // Its time may have been up meanwhile; timers see to that.
        self.advance(Duration::ZERO);
        self.was_told(slot);
    }

    fn closed(&mut self, nth: usize) {
        let nth = nth % self.closing.len().max(1);
        let Some(slot) = self.closing.iter().nth(nth).copied() else { return };
        self.closing.remove(&slot);
        self.command(Command::SlotLost { slot });
    }

    fn cancel(&mut self, n: usize) {
        let Some(event) = self.events.get(n) else { return };
        let (id, listener) = (event.id, event.listener);
        let waited = self.wait_queue.contains(&n);
        if waited {
            self.leave(n);
        }
        let scheduled = self.scheduled.iter().any(|(_, other)| *other == n);
        self.scheduled.retain(|(_, other)| *other != n);
        self.blocked.retain(|other| *other != n);
        self.recording.retain(|(other, _)| *other != n);
        self.command(if listener == PERMITS {
            Command::GiveUp { id, cause: Cause::Cancelled }
        } else {
            Command::Cancel { listener, id }
        });
        if waited || scheduled {
            self.ended.cancelled += 1;
            assert_eq!(self.events[n].ends, 1, "a cancelled event ends at once");
        }
    }

    fn advance(&mut self, by: Duration) {
        let target = self.now + by;
        // What is due is due when it is due, not at the next command.
        let dues = self.wait_queue.iter().filter_map(|&n| self.expiry(n));
        let deadlines = self.running.values().filter(|run| !run.interrupted);
        let appointments = self.scheduled.iter().map(|(due, _)| *due);
        let dues = dues.chain(appointments);
        let due = dues.chain(deadlines.filter_map(|run| run.deadline)).min();
        if let Some(due) = due {
            let next = self.scheduler.next_timeout().expect("something is due");
            assert!(next <= due, "a timeout would be late by {:?}", next - due);
        }
        self.now = target;
        let expired: Vec<usize> = self.wait_queue.clone();
        for n in expired {
            if self.expiry(n).is_some_and(|due| due <= target) {
                self.leave(n);
                self.ended.timed_out += 1;
            }
        }
        // Those whose moment has come come behind those that wait.
        while let Some((_, n)) = self.scheduled.first().copied().filter(|(due, _)| *due <= target) {
            self.scheduled.remove(0);
            self.events[n].since = target;
            self.join(n);
        }
        self.scheduler.handle_timeout(target);
        self.settle();
        for run in self.running.values() {
            let late = run.deadline.is_some_and(|deadline| deadline <= target);
            assert!(!late || run.interrupted, "a run past its time limit is interrupted");
        }
    }

    fn expiry(&self, n: usize) -> Option<Instant> {
        matches!(self.events[n].listener, 1 | DURABLE).then(|| self.events[n].since + QUEUE_TIMEOUT)
    }

    fn resize(&mut self, limit: Limit) {
        self.limit = limit.slots();
        self.command(Command::SetLimit(limit));
    }

    fn prepare(&mut self, nth: usize, works: bool) {
        let Some(&slot) = self.preparing.iter().nth(nth % self.preparing.len().max(1)) else {
            return;
        };
        if works {
            self.preparing.remove(&slot);
            self.failing.remove(&slot);
            self.free.insert(slot);
            self.unavailable = None;
            self.command(Command::SlotReady { slot });
        } else {
            self.failing.insert(slot);
            if self.free.is_empty() && self.running.is_empty() {
                self.unavailable.get_or_insert(self.now);
            }
            let trouble = "no".into();
            self.command(Command::SlotFailed { slot, trouble, pause: PAUSE });
        }
    }

    /// A worker dies; its events end as failed.
    fn lose(&mut self, nth: usize) {
        let Some(slot) = self.nth_running(nth, false) else { return };
        let Some(run) = self.running.remove(&slot) else { return };
        let left: Vec<usize> =
            run.events.iter().copied().filter(|n| !run.ended.contains(n)).collect();
        for n in left {
            self.events[n].ends += 1;
        }
        // The scheduler can't know who of a batch had ended, so it books all as failed.
        self.ended.failed += run.events.len() as u64;
        self.command(Command::SlotLost { slot });
    }

    fn leave(&mut self, n: usize) {
        self.wait_queue.retain(|other| *other != n);
    }

    /// Those that wait, or will as soon as they are on record.
    fn accepted(&self) -> usize {
        self.wait_queue.len() + self.recording.len()
    }

    fn let_in(&mut self) {
        while self.accepted() < MAX_SIZE && !self.blocked.is_empty() {
            let n = self.blocked.remove(0);
            self.events[n].since = self.now;
            if self.events[n].listener == DURABLE {
                self.recording.push((n, None));
            } else {
                self.enter(n);
            }
        }
    }

    /// It is admitted.
    fn enter(&mut self, n: usize) {
        self.events[n].admitted = true;
        match self.events[n].due.filter(|due| *due > self.now) {
            Some(due) => self.schedule(n, due),
            None => self.join(n),
        }
    }

    /// Of one moment, the first that came comes first.
    fn schedule(&mut self, n: usize, due: Instant) {
        let at = self.scheduled.partition_point(|(other, _)| *other <= due);
        self.scheduled.insert(at, (due, n));
    }

    fn join(&mut self, n: usize) {
        self.events[n].place = self.next_place;
        self.next_place += 1;
        self.wait_queue.push(n);
    }

    /// Performs every effect, holding it against the model.
    fn settle(&mut self) {
        self.let_in();
        while let Some(effect) = self.scheduler.poll_effect() {
            self.perform(effect);
            self.let_in();
        }
        assert_eq!(self.scheduler.running(), self.running.len());
        assert_eq!(self.scheduler.waiting(), self.wait_queue.len());
        assert_eq!(self.scheduler.scheduled(), self.scheduled.len());
        let wanted = self.recording.iter().all(|(_, key)| key.is_some());
        assert!(wanted, "the record of each event is wanted at once");
        let startable = !self.paused
            && !self.stopped
            && !self.wait_queue.is_empty()
            && self.running.len() < self.limit
            && (!self.prepared || !self.free.is_empty());
        assert!(!startable, "nobody waits while a slot is free");
        let full = self.wait_queue.len() >= MAX_SIZE && !self.stopped;
        assert_eq!(self.closed, full, "the listeners know whether the wait queue is full");
        let keep = if self.stopped && self.prepared { 0 } else { self.limit };
        let mut idle = self.free.iter().chain(&self.preparing);
        assert!(idle.all(|slot| *slot < keep), "surplus slots retire");
        if self.prepared && !self.stopped && self.opened() < self.limit {
            let closed = |slots: usize| (0..slots).any(|slot| self.is_closed(slot));
            assert!(!closed(self.warm.min(self.limit)), "slots are kept warm");
            let waits = !self.paused && !self.wait_queue.is_empty() && closed(self.limit);
            assert!(!waits || self.building() > 0, "nobody waits for a slot that isn't opened");
        }
        let snapshot = self.scheduler.snapshot(self.now);
        assert_eq!(snapshot.failing_slots, self.failing.len());
        assert_eq!(snapshot.unavailable.is_some(), self.unavailable.is_some());
    }

    fn opened(&self) -> usize {
        self.running.len() + self.free.len() + self.preparing.len()
    }

    fn building(&self) -> usize {
        self.preparing.difference(&self.failing).count()
    }

    fn is_closed(&self, slot: usize) -> bool {
        let open = self.running.contains_key(&slot) || self.free.contains(&slot);
        !open && !self.preparing.contains(&slot) && !self.closing.contains(&slot)
    }

    fn perform(&mut self, effect: Effect<usize>) {
        match effect {
            Effect::Open { slot } => {
                assert!(self.is_closed(slot));
                if self.prepared {
                    assert!(self.opened() < self.limit);
                    let is_needed = self.building() < self.wait_queue.len();
                    assert!(slot < self.warm || is_needed, "no slot is opened for nothing");
                    self.preparing.insert(slot);
                } else {
                    self.free.insert(slot);
                }
            }
            Effect::Close { slot } => {
                let open = self.free.remove(&slot) || self.preparing.remove(&slot);
                assert!(open, "only idle slots are closed");
                self.failing.remove(&slot);
                if self.prepared {
                    self.closing.insert(slot);
                    if self.preparing.is_empty() {
                        self.unavailable = None;
                    }
                }
            }
            Effect::Prepare { slot } => {
                assert!(self.preparing.contains(&slot));
                self.told_to_prepare.insert(slot);
            }
            Effect::Start { slot, event, params } => self.start(slot, vec![event], params),
            Effect::StartBatch { slot, events, params } => self.start(slot, events, params),
            Effect::Interrupt { slot, event, cause } => self.interrupt(slot, event, cause),
            Effect::End { event, .. } => {
                self.events[event].ends += 1;
                assert!(!self.wait_queue.contains(&event));
            }
            Effect::Refuse { event, .. } => self.events[event].refused = true,
            Effect::NotifyRank { key, estimation } => {
                let Some(&mut n) = self.scheduler.waiting_mut(key) else {
                    // One that gets on record after a stop is ended with the same command.
                    assert!(self.stopped, "told while it waits");
                    return;
                };
                let rank = self.wait_queue.iter().position(|other| *other == n);
                assert_eq!(Some(estimation.rank), rank, "P5: the rank is true");
                let told = self.events[n].last_notified.replace(estimation.rank);
                assert!(told.is_none_or(|told| estimation.rank <= told), "P5: it never rises");
            }
            Effect::Pressure(pressure) => self.closed = pressure != Pressure::Open,
            Effect::Record { key } => {
                let (lane, &n) = self.scheduler.to_record(key).expect("it waits to be on record");
                assert_eq!((lane, self.events[n].admitted), (DURABLE, false));
                let wanted = self.recording.iter_mut().find(|(other, _)| *other == n);
                let (_, known) = wanted.expect("it was let in");
                assert!(known.replace(key).is_none(), "its record is wanted once");
            }
            Effect::Schedule { appointment } => {
                let Some(&mut n) = self.scheduler.scheduled_mut(appointment) else {
                    assert!(self.stopped, "told while it is for later");
                    return;
                };
                assert!(self.scheduled.iter().any(|(_, other)| *other == n));
            }
            Effect::RequestPlace { .. }
            | Effect::WithdrawPlace { .. }
            | Effect::RetakePlace
            | Effect::FreePlaces(_) => {
                panic!("there is no queue-wide capacity")
            }
        }
    }

    fn start(&mut self, slot: usize, events: Vec<usize>, params: RunParams) {
        assert!(!self.paused && !self.stopped);
        assert!(self.running.len() < self.limit, "P1: the limit holds");
        assert!(self.free.remove(&slot), "a run starts on a free slot");
        // P3: the oldest, and with it the oldest of its own listener.
        let first = self.wait_queue[0];
        let listener = self.events[first].listener;
        assert_eq!(params.listener, listener);
        let most = if listener == 3 { BATCH } else { 1 };
        let lane = self.wait_queue.iter().copied().filter(|n| self.events[*n].listener == listener);
        let expected: Vec<usize> = lane.take(most).collect();
        assert_eq!(events, expected, "P3: first in, first out");
        for &n in &events {
            self.leave(n);
            assert!(self.events[n].admitted && self.events[n].ends == 0);
            assert!(self.events[n].due.is_none_or(|due| due <= self.now), "not before its moment");
        }
        self.running.insert(
            slot,
            Running {
                events,
                deadline: params.deadline,
                counts: OutcomeCounts::default(),
                ended: BTreeSet::new(),
                interrupted: false,
            },
        );
    }

    fn interrupt(&mut self, slot: usize, event: Option<EventId>, cause: Cause) {
        let run = self.running.get_mut(&slot).expect("only runs are interrupted");
        let held = self.events[run.events[0]].listener == PERMITS;
        assert!(!held || event.is_none(), "nobody cancels a permit");
        for &n in &run.events {
            if event.is_none_or(|id| id == self.events[n].id) && run.ended.insert(n) {
                self.events[n].ends += 1;
                match cause {
                    Cause::Cancelled => run.counts.cancelled += 1,
                    Cause::TimedOut => run.counts.timed_out += 1,
                    Cause::Stopped => run.counts.stopped += 1,
                }
            }
        }
        run.interrupted = run.ended.len() == run.events.len();
    }

    /// P7, and the books at the end.
    fn shut_down(&mut self) {
        self.stopped = true;
        self.ended.stopped += (self.wait_queue.len() + self.scheduled.len()) as u64;
        self.wait_queue.clear();
        self.scheduled.clear();
        self.blocked.clear();
        self.command(Command::Stop);
        self.command(Command::Abort);
        // What was on its way to the disk arrives, or not.
        for n in 0..self.recording.len() {
            self.record(0, n % 3 != 2);
        }
        let slots: Vec<usize> = self.running.keys().copied().collect();
        for slot in slots {
            assert!(self.running[&slot].interrupted, "P7: every run is told to stop");
            self.finish(slot, How::Completes);
        }
        assert_eq!(self.scheduler.running(), 0, "P4: no slot is left");
        if self.prepared {
            assert!(self.free.is_empty() && self.preparing.is_empty(), "P7: resources are closed");
            while !self.closing.is_empty() {
                self.closed(0);
            }
        }
        assert_eq!(self.scheduler.closing(), 0);
        assert!(self.scheduler.events().is_empty(), "nobody is left");
        assert!(self.scheduler.not_before.is_empty(), "no moment is left");
        for (n, event) in self.events.iter().enumerate() {
            let expected = usize::from(event.admitted);
            let at_door = (event.patient || event.listener == DURABLE) && !event.admitted;
            assert!(
                event.ends == expected || (at_door && event.ends <= 1),
                "P2: event {n} has {} ends: {event:?}",
                event.ends
            );
        }
        self.now += slots::IDLE.max(slots::IDLE_RESOURCE);
        self.scheduler.handle_timeout(self.now);
        self.settle();
        assert_eq!(self.scheduler.next_timeout(), None, "an idle queue sets no timers");
        let snapshot = self.scheduler.snapshot(self.now);
        let mut books = HashMap::from([("admitted", 0), ("ended", 0), ("failed", 0)]);
        for listener in snapshot.listeners.iter().chain(&snapshot.permits) {
            *books.entry("admitted").or_default() += listener.admitted;
            *books.entry("failed").or_default() += listener.failed;
            *books.entry("ended").or_default() += listener.completed
                + listener.failed
                + listener.cancelled
                + listener.timed_out
                + listener.stopped;
        }
        let admitted = self.events.iter().filter(|event| event.admitted).count() as u64;
        assert_eq!(books["admitted"], admitted);
        assert_eq!(books["ended"], admitted, "the books balance");
        assert_eq!(books["failed"], self.ended.failed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn hold_on_any_history(
        restored in prop::collection::vec((any::<bool>(), delay(), 0..40u64), 0..9),
        steps in prop::collection::vec(step(false), 1..160),
        limit in prop_oneof![(1..5usize).prop_map(Limit::Slots), Just(Limit::Unlimited)],
    ) {
        let mut world = World::new(None, limit);
        for (watched, delay, waited) in restored {
            world.restore(watched, delay, waited);
        }
        steps.into_iter().for_each(|step| world.step(step));
        world.shut_down();
    }

    #[test]
    fn hold_where_slots_own_a_resource(
        restored in prop::collection::vec((any::<bool>(), delay(), 0..40u64), 0..9),
        steps in prop::collection::vec(step(true), 1..160),
        limit in 1..5usize,
        warm in 0..5usize,
    ) {
        let mut world = World::new(Some(warm), Limit::Slots(limit));
        for (watched, delay, waited) in restored {
            world.restore(watched, delay, waited);
        }
        steps.into_iter().for_each(|step| world.step(step));
        world.shut_down();
    }
}

/// A batch that waits to be filled holds up nobody but itself, and no longer than it may.
#[test]
fn a_lingering_batch_lets_others_pass() {
    let mut now = Instant::now();
    let mut rules = rules(None, Limit::Slots(1));
    let linger = Duration::from_millis(20);
    rules.listeners[3].batch = Some(BatchRules { max_size: BATCH, max_wait: linger });
    let mut scheduler = Scheduler::<usize>::new(rules, now);
    let mut started = Vec::new();
    let mut drive = |scheduler: &mut Scheduler<usize>| {
        let mut slots = Vec::new();
        while let Some(effect) = scheduler.poll_effect() {
            match effect {
                Effect::Start { slot, event, .. } => {
                    started.push(vec![event]);
                    slots.push(slot);
                }
                Effect::StartBatch { slot, events, .. } => {
                    started.push(events);
                    slots.push(slot);
                }
                _ => {}
            }
        }
        slots
    };
    let admit = |n: usize, listener: usize| {
        Command::Admit(Arrival {
            id: EventId::for_test(n as u128),
            listener,
            watched: false,
            when_full: WhenFull::Refuse,
            not_before: None,
            placed: false,
            payload: n,
        })
    };
    let done = |slot| Command::Done {
        slot,
        counts: OutcomeCounts { completed: 1, ..OutcomeCounts::default() },
        ready: true,
    };
    scheduler.handle(now, admit(0, 3));
    assert!(drive(&mut scheduler).is_empty(), "the batch waits to be filled");
    scheduler.handle(now, Command::Pause);
    scheduler.handle(now, admit(1, 1));
    scheduler.handle(now, admit(2, 0));
    scheduler.handle(now, Command::Resume);
    for _ in 0..2 {
        let slots = drive(&mut scheduler);
        assert_eq!(slots.len(), 1, "other listeners' events pass");
        scheduler.handle(now, done(slots[0]));
    }
    assert!(drive(&mut scheduler).is_empty());
    assert_eq!(scheduler.next_timeout(), Some(now + linger));
    now += linger;
    scheduler.handle_timeout(now);
    let slots = drive(&mut scheduler);
    scheduler.handle(now, done(slots[0]));
    // A full batch doesn't wait.
    for n in 3..6 {
        scheduler.handle(now, admit(n, 3));
    }
    drive(&mut scheduler);
    assert_eq!(started, [vec![1], vec![2], vec![0], vec![3, 4, 5]]);
}

/// However high the limit: slots that own a resource open a few at a time, as many as events need,
/// and those that aren't kept warm close again when idle.
#[test]
fn slots_open_as_they_are_needed_and_close_when_idle() {
    let mut now = Instant::now();
    let mut scheduler = Scheduler::<usize>::new(rules(Some(2), Limit::Slots(1_000_000)), now);
    let mut opened = Vec::new();
    let mut started = Vec::new();
    let mut closed = Vec::new();
    let mut drive = |scheduler: &mut Scheduler<usize>| {
        let mut few = 0;
        while let Some(effect) = scheduler.poll_effect() {
            match effect {
                Effect::Open { slot } => {
                    opened.push(slot);
                    few += 1;
                }
                Effect::Start { slot, .. } => started.push(slot),
                Effect::Close { slot } => closed.push(slot),
                _ => {}
            }
        }
        (few, opened.clone(), started.clone(), closed.clone())
    };
    assert_eq!(drive(&mut scheduler).0, 2, "ahead of use");
    scheduler.rules.max_size = None;
    for n in 0..100 {
        let (id, when_full) = (EventId::for_test(n), WhenFull::Wait);
        let arrival = Arrival {
            id,
            listener: 0,
            watched: false,
            when_full,
            not_before: None,
            placed: false,
            payload: 0,
        };
        scheduler.handle(now, Command::Admit(arrival));
        drive(&mut scheduler);
    }
    assert_eq!(drive(&mut scheduler).1.len(), slots::OPENING);
    for slot in 0..100 {
        scheduler.handle(now, Command::SlotReady { slot });
        assert!(drive(&mut scheduler).0 <= 1);
    }
    let (_, opened, started, _) = drive(&mut scheduler);
    assert_eq!((opened.len(), started.len()), (100, 100));
    for slot in started {
        let counts = OutcomeCounts { completed: 1, ..OutcomeCounts::default() };
        scheduler.handle(now, Command::Done { slot, counts, ready: true });
    }
    drive(&mut scheduler);
    assert_eq!(scheduler.next_timeout(), Some(now + slots::IDLE_RESOURCE));
    now += slots::IDLE_RESOURCE;
    scheduler.handle_timeout(now);
    let (_, opened, _, closed) = drive(&mut scheduler);
    assert_eq!((opened.len(), closed.len()), (100, 98), "the warm ones stay");
    for slot in closed {
        scheduler.handle(now, Command::SlotLost { slot });
        assert_eq!(drive(&mut scheduler).0, 0, "nobody needs it");
    }
    assert_eq!(scheduler.snapshot(now).slots.len(), 2);
}

/// Resources that can't be built keep new events out after a while, and nobody who waits already.
#[test]
fn a_concurrency_id_that_cannot_be_served_refuses_until_it_can() {
    let mut now = Instant::now();
    let mut scheduler = Scheduler::<usize>::new(rules(Some(2), Limit::Slots(2)), now);
    while scheduler.poll_effect().is_some() {}
    let mut next = 0;
    let mut admitted = |scheduler: &mut Scheduler<usize>, now: Instant| {
        let (id, when_full) = (EventId::for_test(next), WhenFull::Wait);
        next += 1;
        let arrival = Arrival {
            id,
            listener: 0,
            watched: false,
            when_full,
            not_before: None,
            placed: false,
            payload: 0,
        };
        scheduler.handle(now, Command::Admit(arrival));
        let mut refusal = None;
        while let Some(effect) = scheduler.poll_effect() {
            if let Effect::Refuse { refusal: why, .. } = effect {
                refusal = Some(why);
            }
        }
        refusal.map_or(Ok(()), Err)
    };
    let fail = |slot| Command::SlotFailed { slot, trouble: "no".into(), pause: PAUSE };
    scheduler.handle(now, fail(0));
    now += UNAVAILABLE_AFTER - PAUSE;
    assert_eq!(admitted(&mut scheduler, now), Ok(()));
    scheduler.handle(now, fail(1));
    now += PAUSE;
    let time = UNAVAILABLE_AFTER;
    let refusal = Refusal::Unavailable { time, retry_after: Duration::ZERO };
    assert_eq!(admitted(&mut scheduler, now), Err(refusal), "since the first failure");
    assert_eq!(scheduler.snapshot(now).waiting, 1);
    scheduler.handle(now, Command::SlotReady { slot: 1 });
    assert_eq!(admitted(&mut scheduler, now), Ok(()));
    let snapshot = scheduler.snapshot(now);
    assert_eq!((snapshot.running, snapshot.waiting, snapshot.failing_slots), (1, 1, 1));
    // A slot that runs something is one that can.
    scheduler.handle(now, fail(0));
    now += UNAVAILABLE_AFTER;
    assert_eq!(admitted(&mut scheduler, now), Ok(()));
}

fn arrival(n: usize, listener: usize) -> Command<usize> {
    Command::Admit(Arrival {
        id: EventId::for_test(n as u128),
        listener,
        watched: false,
        when_full: WhenFull::Wait,
        not_before: None,
        placed: false,
        payload: n,
    })
}

/// A driver that is busy with commands may be late with `handle_timeout`; no timeout is late by that.
#[test]
fn what_is_due_comes_before_a_command() {
    let now = Instant::now();
    let mut scheduler = Scheduler::<usize>::new(rules(None, Limit::Slots(1)), now);
    scheduler.handle(now, arrival(0, 2));
    while scheduler.poll_effect().is_some() {}
    scheduler.handle(now, arrival(1, 1));
    while scheduler.poll_effect().is_some() {}
    assert_eq!((scheduler.running(), scheduler.waiting()), (1, 1));
    // Not even the end of the run starts an event whose time is up.
    let counts = OutcomeCounts { completed: 1, ..OutcomeCounts::default() };
    let done = Command::Done { slot: 0, counts, ready: true };
    scheduler.handle(now + TIME_LIMIT, done);
    let effects: Vec<_> = std::iter::from_fn(|| scheduler.poll_effect()).collect();
    let timed_out = Cause::TimedOut;
    assert!(
        matches!(effects[..], [
            Effect::End { event: 1, cause },
            Effect::Interrupt { slot: 0, event: None, cause: second },
        ] if cause == timed_out && second == timed_out),
        "{effects:?}"
    );
}

/// A check may veto a run while the word that its time is up is on the way to it.
#[test]
fn a_veto_does_not_give_an_event_its_time_limit_again() {
    let now = Instant::now();
    let mut scheduler = Scheduler::<usize>::new(rules(Some(1), Limit::Slots(1)), now);
    while scheduler.poll_effect().is_some() {}
    scheduler.handle(now, Command::SlotReady { slot: 0 });
    scheduler.handle(now, arrival(0, 2));
    while scheduler.poll_effect().is_some() {}
    assert_eq!(scheduler.running(), 1);
    scheduler.handle_timeout(now + TIME_LIMIT);
    while scheduler.poll_effect().is_some() {}
    let events = vec![(EventId::for_test(0), 0)];
    let returned = Command::Returned { slot: 0, counts: OutcomeCounts::default(), events };
    scheduler.handle(now + TIME_LIMIT, returned);
    let ended = |effect: &Effect<usize>| matches!(effect, Effect::End { event: 0, cause } if *cause == Cause::TimedOut);
    assert!(std::iter::from_fn(|| scheduler.poll_effect()).any(|effect| ended(&effect)));
    assert_eq!(scheduler.waiting(), 0);
}

/// A snapshot costs no more where thousands run, and says how many slots it leaves out.
#[test]
fn a_snapshot_lists_a_bounded_number_of_slots() {
    let now = Instant::now();
    let rules = Rules { max_size: None, ..rules(None, Limit::Unlimited) };
    let mut scheduler = Scheduler::<usize>::new(rules, now);
    let runs = 3 * inspect::LISTED;
    for n in 0..runs {
        scheduler.handle(now, arrival(n, 0));
        while scheduler.poll_effect().is_some() {}
    }
    let done = |slot| Command::Done { slot, counts: OutcomeCounts::default(), ready: true };
    // The first ones are idle: those that are busy are listed before them.
    for slot in 0..crate::scheduler::inspect::LISTED {
        scheduler.handle(now, done(slot));
    }
    let picture = scheduler.snapshot(now);
    assert_eq!(picture.running, runs - inspect::LISTED);
    assert_eq!(
        (picture.slots.len(), picture.unlisted_slots),
        (inspect::LISTED, 2 * inspect::LISTED)
    );
    let listed: Vec<usize> = picture.slots.iter().map(|slot| slot.slot).collect();
    assert_eq!(listed, Vec::from_iter(inspect::LISTED..2 * inspect::LISTED));
    for slot in inspect::LISTED + 10..runs {
        scheduler.handle(now, done(slot));
    }
    let picture = scheduler.snapshot(now);
    let busy = |slot: &&crate::scheduler::snapshot::SlotSnapshot| {
        matches!(slot.state, crate::scheduler::snapshot::SlotState::Busy { .. })
    };
    assert_eq!(picture.slots.iter().filter(busy).count(), 10);
    assert!(picture.slots.is_sorted_by_key(|slot| slot.slot));
}

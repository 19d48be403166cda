//! Who runs, who waits, who is refused: the queue of one concurrency id as a pure state machine.
//!
//! It knows no actor, no clock, no thread and no I/O. [`Scheduler::handle`] takes one [`Command`]
//! and the present moment; [`Scheduler::poll_effect`] gives what is to be done, one [`Effect`] at a
//! time, until it gives `None`; [`Scheduler::next_timeout`] says when
//! [`Scheduler::handle_timeout`] is due. Spurious calls of any of them are harmless. So the same
//! code is driven by the supervisor actor, by property tests and by a simulation in virtual time.

pub(crate) mod admission;
pub(crate) mod appointments;
mod bounds;
pub(crate) mod command;
pub(crate) mod dispatch;
pub(crate) mod estimate;
pub(crate) mod eta;
pub(crate) mod history;
pub(crate) mod inspect;
pub(crate) mod leaving;
pub(crate) mod limit;
pub(crate) mod rank_updates;
pub(crate) mod recording;
pub(crate) mod rules;
pub(crate) mod run;
pub(crate) mod scheduled;
pub(crate) mod slot_changes;
pub(crate) mod slot_set;
pub(crate) mod slots;
pub(crate) mod snapshot;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod wait_queue;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use crate::event::id::{EventId, EventMap};
use crate::scheduler::appointments::{Appointment, Appointments};
use crate::scheduler::command::{Command, Effect, OutcomeCounts};
use crate::scheduler::eta::RunTimes;
use crate::scheduler::history::{Distribution, Recent};
use crate::scheduler::rank_updates::LastNotified;
use crate::scheduler::rules::{ListenerRules, Rules};
use crate::scheduler::slots::{Slot, Slots};
use crate::scheduler::snapshot::{PERMIT, Refusals};
use crate::scheduler::wait_queue::{Key, WaitQueue};

/// An event in the wait queue, or a blocked one.
#[derive(Debug)]
struct Waiting<T> {
    id: EventId,
    watched: bool,
    since: Instant,
    last_notified: Option<LastNotified>,
    /// It was on a slot already that then could not run it.
    returned: bool,
    payload: T,
}

#[derive(Debug)]
struct ListenerState {
    times: RunTimes,
    admitted: u64,
    refused: Refusals,
    ended: OutcomeCounts,
    waits: Distribution,
    runs: Distribution,
    batches: Distribution,
    running: usize,
    /// The starts of its runs under way, added up in seconds since the scheduler's birth.
    started_sum: f64,
}

impl ListenerState {
    fn new() -> Self {
        ListenerState {
            times: RunTimes::default(),
            admitted: 0,
            refused: Refusals::default(),
            ended: OutcomeCounts::default(),
            waits: Distribution::of_times(),
            runs: Distribution::of_times(),
            batches: Distribution::of_sizes(),
            running: 0,
            started_sum: 0.0,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Location {
    Blocked(Key),
    Requesting(Key),
    Recording(Key),
    Scheduled(Appointment),
    Waiting(Key),
    Running(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    Paused,
    Stopped,
}

/// The state machine of one concurrency id.
#[derive(Debug)]
pub(crate) struct Scheduler<T> {
    rules: Rules,
    /// As in [`Command::SetCapacity`].
    capacity: usize,
    /// Those of permits, which are no listener's and have a lane of their own behind the listeners'.
    permit_rules: ListenerRules,
    /// Those of permits that somebody asks for under a name, each with a lane behind that.
    named_permits: Vec<ListenerRules>,
    listeners: Vec<ListenerState>,
    /// The lanes whose events have a `queue_timeout`: the only ones to look at for what expires.
    expiring_lanes: Vec<usize>,
    phase: Phase,
    wait_queue: WaitQueue<Waiting<T>>,
    /// Callers that are blocked by the wait queue's own bound. They are not admitted and have no rank.
    blocked: WaitQueue<Waiting<T>>,
    /// Callers that this wait queue has room for, and that are blocked by the queue-wide bound.
    requesting: WaitQueue<Waiting<T>>,
    /// Accepted events whose admission is being recorded. They have no rank yet.
    recording: WaitQueue<Waiting<T>>,
    /// When accepted events that are yet to enter may start at the earliest, unless that is at once.
    not_before: EventMap<Instant>,
    scheduled: Appointments<Waiting<T>>,
    /// Places of the queue-wide capacity to be given back.
    freed: usize,
    /// Callers that requested such a place and have gone; not reported yet.
    withdrawn: Vec<(Key, Instant)>,
    slots: Slots,
    places: EventMap<Location>,
    effects: VecDeque<Effect<T>>,
    /// The last events that ended.
    recent: Recent,
    /// What the listeners were last notified of.
    closed: bool,
    /// Waiting events that are notified of their rank.
    watchers: usize,
    /// A rank among the first few has changed since they were notified.
    front_moved: bool,
    /// A rank or an estimate may have changed since the last pass over the wait queue.
    queue_moved: bool,
    last_pass: Instant,
    /// When the first batch that waits to be filled stops waiting.
    linger_until: Option<Instant>,
    born: Instant,
    now: Instant,
}

impl<T> Scheduler<T> {
    /// A scheduler with an empty wait queue. Poll its effects once: it opens slots that need
    /// preparation.
    pub fn new(rules: Rules, now: Instant) -> Self {
        let lanes = rules.listeners.len() + 1;
        // Permits have none.
        let expiring = |lane: &usize| rules.listeners[*lane].queue_timeout.is_some();
        Scheduler {
            capacity: usize::MAX,
            permit_rules: ListenerRules::of_permits(PERMIT.into()),
            named_permits: Vec::new(),
            expiring_lanes: (0..rules.listeners.len()).filter(expiring).collect(),
            listeners: (0..lanes).map(|_| ListenerState::new()).collect(),
            phase: Phase::Open,
            wait_queue: WaitQueue::new(lanes),
            blocked: WaitQueue::new(lanes),
            requesting: WaitQueue::new(lanes),
            recording: WaitQueue::new(lanes),
            not_before: EventMap::default(),
            scheduled: Appointments::default(),
            freed: 0,
            withdrawn: Vec::new(),
            slots: Slots::new(rules.resource.map(|resource| resource.warm)),
            places: EventMap::default(),
            effects: VecDeque::new(),
            recent: Recent::default(),
            closed: false,
            watchers: 0,
            front_moved: false,
            queue_moved: false,
            last_pass: now,
            linger_until: None,
            born: now,
            now,
            rules,
        }
    }

    /// A scheduler that takes over from one that can't be trusted any more: with its rules and its
    /// books, but none of its events. Those count as failed. The slots that are `taken` still have a
    /// worker, which may run something, until [`Command::SlotLost`] says that it has gone.
    pub fn restarted(&mut self, now: Instant, taken: Vec<usize>) -> Self {
        let mut fresh = Scheduler::new(self.rules.clone(), now);
        for slot in taken {
            fresh.slots.set_vacating(slot);
        }
        (fresh.phase, fresh.capacity) = (self.phase, self.capacity);
        // Answers that are on their way must not meet others' keys.
        fresh.recording.number_from(&self.recording);
        fresh.recent = std::mem::take(&mut self.recent);
        for rules in std::mem::take(&mut self.named_permits) {
            fresh.add_permit_lane(rules);
        }
        for (fresh, old) in fresh.listeners.iter_mut().zip(&mut self.listeners) {
            (fresh.admitted, fresh.refused, fresh.ended) = (old.admitted, old.refused, old.ended);
            std::mem::swap(&mut fresh.waits, &mut old.waits);
            std::mem::swap(&mut fresh.runs, &mut old.runs);
            std::mem::swap(&mut fresh.batches, &mut old.batches);
            fresh.ended.failed += old.admitted.saturating_sub(old.ended.events());
        }
        fresh
    }

    /// Takes one command at the moment `now`. Poll the effects afterwards.
    ///
    /// What was due by then is done first: however many commands there are, none makes a timeout
    /// late, and an event whose time was up is not started any more.
    pub fn handle(&mut self, now: Instant, command: Command<T>) {
        self.now = self.now.max(now);
        self.expire();
        match command {
            Command::Admit(arrival) => self.admit(arrival),
            Command::Cancel { listener, id } => self.cancel(listener, id),
            Command::GiveUp { id, cause } => self.give_up(id, cause),
            Command::Postpone { slot, id, payload, due } => self.postpone(slot, id, payload, due),
            Command::Recorded(key) => self.recorded(key),
            Command::NotRecorded { key, refusal } => self.not_recorded(key, refusal),
            Command::Restore { arrival, since, runs } => self.restore(*arrival, since, runs),
            Command::HandOver => self.hand_over(),
            Command::PlaceGranted(key) => self.place_granted(key),
            Command::Done { slot, counts, ready } => self.done(slot, counts, ready),
            Command::Returned { slot, counts, events } => self.returned(slot, counts, events),
            Command::SlotReady { slot } => self.slot_ready(slot),
            Command::SlotFailed { slot, trouble, pause } => {
                if matches!(self.slots.get(slot), Some(Slot::Preparing { .. })) {
                    self.slots.set_failing(slot, trouble, self.now, pause);
                }
            }
            Command::SlotLost { slot } => self.slot_lost(slot),
            Command::Pause if self.phase == Phase::Open => self.phase = Phase::Paused,
            Command::Resume if self.phase == Phase::Paused => {
                self.phase = Phase::Open;
                self.queue_moved = true;
            }
            Command::Pause | Command::Resume => {}
            Command::SetLimit(limit) => self.set_limit(limit),
            Command::SetCapacity(capacity) => {
                self.capacity = capacity;
                self.queue_moved = true;
            }
            Command::Stop => self.stop(),
            Command::Abort => self.abort(),
        }
    }

    /// The next thing to do, or `None` when all is done until the next command or timeout.
    pub fn poll_effect(&mut self) -> Option<Effect<T>> {
        // What commands requested comes first: an event is notified of its rank before it starts.
        if self.effects.is_empty() {
            self.let_in();
            // After those requests: who has just become able to take it may be the next of all.
            if self.effects.is_empty() {
                if !self.withdrawn.is_empty() {
                    let withdrawn = self.withdrawn.drain(..);
                    self.effects
                        .extend(withdrawn.map(|(key, since)| Effect::WithdrawPlace { key, since }));
                }
                if self.freed > 0 {
                    let places = std::mem::take(&mut self.freed);
                    self.effects.push_back(Effect::FreePlaces(places));
                }
            }
            if self.effects.is_empty() {
                self.dispatch();
            }
            if self.effects.is_empty() {
                self.open_slots();
            }
            if self.effects.is_empty() {
                self.press();
            }
            if self.effects.is_empty() && self.front_moved {
                self.front_moved = false;
                if self.watchers > 0 {
                    self.notify_ranks(rank_updates::FRONT);
                }
            }
        }
        self.effects.pop_front()
    }

    /// When [`Scheduler::handle_timeout`] is due; it may be called earlier or later.
    pub fn next_timeout(&self) -> Option<Instant> {
        let expiry = self.expiring_lanes.iter().filter_map(|&lane| self.next_expiry(lane)).min();
        let pass =
            (self.queue_moved && self.watchers > 0).then(|| self.last_pass + rank_updates::TICK);
        let next =
            [expiry, pass, self.slots.next_deadline(), self.slots.next_sweep(), self.linger_until]
                .into_iter()
                .flatten()
                .min();
        match self.scheduled.first() {
            None => next,
            Some((due, _)) => Some(next.map_or(due, |next| next.min(due))),
        }
    }

    /// Does what has become due by `now`. Poll the effects afterwards.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = self.now.max(now);
        self.expire();
        for slot in self.slots.sweep(self.now) {
            self.effects.push_back(Effect::Close { slot });
        }
        // After a flood has drained, its memory goes back.
        if self.places.is_empty() && self.places.capacity() > 1024 {
            self.places = EventMap::default();
            self.effects.shrink_to_fit();
        }
        if self.linger_until.is_some_and(|due| due <= self.now) {
            self.linger_until = None;
        }
        if self.queue_moved && self.now >= self.last_pass + rank_updates::TICK {
            self.queue_moved = false;
            self.last_pass = self.now;
            if self.watchers > 0 {
                self.notify_ranks(usize::MAX);
            }
        }
    }

    /// What the shell stored with a waiting event.
    pub fn waiting_mut(&mut self, key: Key) -> Option<&mut T> {
        self.wait_queue.get_mut(key).map(|waiting| &mut waiting.payload)
    }

    /// Every event that is here, in no order.
    pub fn events(&self) -> Vec<EventId> {
        self.places.keys().copied().collect()
    }

    /// Events in the wait queue.
    pub fn waiting(&self) -> usize {
        self.wait_queue.len()
    }

    /// Runs under way.
    pub fn running(&self) -> usize {
        self.slots.busy()
    }

    /// Slots whose resource is being closed.
    pub fn closing(&self) -> usize {
        self.slots.closing()
    }

    /// So many more events of `listener` were refused before they reached the scheduler.
    pub fn note_refused(&mut self, listener: usize, events: u64) {
        self.listeners[listener].refused.queue_full += events;
    }

    /// The first lane of those who wait for a slot without an event of a listener: of those that gave no
    /// name.
    pub fn permits(&self) -> usize {
        self.rules.listeners.len()
    }

    /// The lane of those who ask for a permit under this label, made if it is new. Labels come from the
    /// service's code and are few.
    pub fn permit_lane(&mut self, label: &Arc<str>) -> usize {
        let all = std::iter::once(&self.permit_rules).chain(&self.named_permits);
        let lanes = self.permits()..;
        let found = lanes.zip(all).find(|(_, rules)| rules.api_name == *label);
        let found = found.map(|(lane, _)| lane);
        found.unwrap_or_else(|| self.add_permit_lane(ListenerRules::of_permits(label.clone())))
    }

    fn add_permit_lane(&mut self, rules: ListenerRules) -> usize {
        self.named_permits.push(rules);
        self.listeners.push(ListenerState::new());
        let queues =
            [&mut self.wait_queue, &mut self.blocked, &mut self.requesting, &mut self.recording];
        for queue in queues {
            queue.add_lane();
        }
        self.listeners.len() - 1
    }

    fn lane_rules(&self, lane: usize) -> &ListenerRules {
        let named = || self.named_permits.get(lane.checked_sub(self.permits() + 1)?);
        self.rules.listeners.get(lane).or_else(named).unwrap_or(&self.permit_rules)
    }

    fn limit(&self) -> usize {
        self.rules.limit.slots().min(self.capacity)
    }

    fn next_expiry(&self, lane: usize) -> Option<Instant> {
        let when_full = self.lane_rules(lane).queue_timeout?;
        let first = self.wait_queue.get(self.wait_queue.lane_front(lane)?)?;
        Some(first.since + when_full)
    }
}

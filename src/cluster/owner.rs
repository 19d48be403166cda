//! The owner's part in one concurrency id: it places runs on nodes, and knows of each whether it may still
//! be going on.
//!
//! A start is recorded before it is sent, with the process that it is meant for; so is the decision that a
//! run is over without an end, and the end. What is being recorded counts as decided. Until it is recorded that
//! a run is over, it counts as running.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::load::Load;
use super::message::{
    Attempt, Beat, Epoch, FromOwner, Id, NodeName, Process, Report, Slots, Times, Word,
};
#[cfg(test)]
use super::rules::Rule;
use crate::event::id::EventId;

/// What is to be done. What is to be recorded is to be recorded in the order of the effects.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum OwnerEffect<R> {
    /// The start is to be recorded; then [`Owner::start_recorded`] is called.
    RecordStart(Attempt, Process),
    /// The run is over, and its event has not ended: it is next again, unless it ends otherwise. Either is on record
    /// some time later: with its next start, or its end.
    Again {
        attempt: Attempt,
        /// Its node hasn't said that it never called its handler.
        has_begun: bool,
    },
    /// The end is to be recorded; then [`Owner::end_recorded`] is called.
    RecordEnd(Attempt, R),
    /// Something is to be recorded, so that it is known whether this is still the owner; then
    /// [`Owner::recorded`] is called.
    Renew,
    /// To a node.
    Send(NodeName, FromOwner),
    /// The event has ended.
    Ended(Attempt),
    /// A run that was interrupted has stopped.
    Stopped(Attempt),
}

/// A run that an earlier owner has recorded, or one of this one's.
#[derive(Clone, Debug)]
struct Placed {
    id: Id,
    process: Process,
    number: u32,
    state: State,
    /// This start is on record.
    recorded: bool,
    /// Its event has an end on record that is none of this run's, as where it was cancelled.
    ended: bool,
    /// Since when the node is expected to name it in its beats.
    sent: Option<Instant>,
}

impl Placed {
    fn new(id: Id, process: Process, number: u32, state: State) -> Self {
        let (recorded, ended, sent) = (state == State::Running, false, None);
        Placed { id, process, number, state, recorded, ended, sent }
    }

    /// Whether its node may run it, or is to.
    fn has_slot(&self) -> bool {
        may_be_silent(self.state)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Its start is being recorded.
    Starting,
    /// It is recorded: the node may run it.
    Running,
    /// It is over without an end. That isn't on record before its event's next start is, or its end: whoever is the
    /// next owner may ask its node for it.
    Over,
    /// Its end is being recorded.
    Ending,
    /// It isn't wanted any more, and has its slot until the node says that it has stopped.
    Interrupted,
}

/// What the last beat of a node said.
#[derive(Clone, Debug)]
struct Heard {
    at: Instant,
    boot: u64,
    beat: u64,
    epoch: Epoch,
    slots: Slots,
    leaving: bool,
}

/// Where a run is to go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wish<'a> {
    Any,
    /// To this process, if no other has more room: its event came there, and is followed there.
    Rather(&'a Process),
    /// To this process, as long as it may live.
    Only(&'a Process),
}

/// A pure machine: it is told what happens and when, and says by effects what is to be done. What is to be
/// recorded is tried until it is kept, or until somebody else owns the concurrency id.
#[derive(Debug)]
pub(crate) struct Owner<R> {
    times: Times,
    epoch: Epoch,
    /// When the claim was known to be recorded.
    claimed: Instant,
    /// When the last append that was kept began: then it was still the owner.
    sure: Instant,
    is_renewing: bool,
    placed: BTreeMap<EventId, Placed>,
    /// Of those that have a slot.
    load: Load,
    heard: BTreeMap<NodeName, Heard>,
    effects: VecDeque<OwnerEffect<R>>,
    #[cfg(test)]
    pub left_out: Option<Rule>,
}

impl<R> Owner<R> {
    /// Of a claim whose append began at `began` and has just been kept. `recovered` are the runs that the
    /// record knows of, without an end.
    pub fn new(
        times: Times,
        epoch: Epoch,
        began: Instant,
        now: Instant,
        recovered: impl IntoIterator<Item = (Attempt, Id, Process)>,
    ) -> Self {
        let placed = |(attempt, id, process): (Attempt, Id, Process)| {
            let number = attempt.number;
            (attempt.event, Placed::new(id, process, number, State::Running))
        };
        let placed: BTreeMap<_, _> = recovered.into_iter().map(placed).collect();
        let mut load = Load::default();
        placed.values().for_each(|placed: &Placed| load.take(&placed.process.node, &placed.id));
        Owner {
            times,
            epoch,
            claimed: now,
            sure: began,
            is_renewing: false,
            placed,
            load,
            heard: BTreeMap::new(),
            effects: VecDeque::new(),
            #[cfg(test)]
            left_out: None,
        }
    }

    #[cfg(test)]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Runs that are going on, or may be: each has a slot.
    #[cfg(test)]
    pub fn running(&self) -> usize {
        self.placed.values().filter(|placed| placed.state != State::Over).count()
    }

    pub fn poll_effect(&mut self) -> Option<OwnerEffect<R>> {
        self.effects.pop_front()
    }

    #[cfg(test)]
    fn leaves_out(&self, rule: Rule) -> bool {
        self.left_out == Some(rule)
    }

    /// Whether it may grant: nobody else can have granted anything by now that it doesn't know of.
    fn grants(&self, now: Instant) -> bool {
        #[cfg(test)]
        if self.leaves_out(Rule::Renewal) {
            return true;
        }
        now < self.sure + self.times.lease
    }

    /// Where a run would go, if one can be placed now: on the node with most room, of those that were heard
    /// just now.
    fn place_for_one(&self, now: Instant, id: &Id, wish: Wish) -> Option<Process> {
        if !self.grants(now) {
            return None;
        }
        let fresh = 2 * self.times.beat + self.times.beat / 2;
        let is = |process: &Process, node: &NodeName, heard: &Heard| {
            process.node == *node && process.boot == heard.boot
        };
        let fits = |node: &NodeName, heard: &Heard| {
            let may_have = match wish {
                Wish::Only(only) => is(only, node, heard),
                Wish::Rather(_) | Wish::Any => true,
            };
            now - heard.at < fresh && !heard.leaving && may_have
        };
        // Of two that have as much room for this id, the one that runs less altogether; of two that run as much, the
        // one that is wished for.
        let room = |node: &NodeName, heard: &Heard| {
            let (of_id, of_all) = self.load.of(node, id);
            let slots = heard.slots.get(id).copied().unwrap_or(usize::MAX);
            let is_wished = matches!(wish, Wish::Rather(rather) if is(rather, node, heard));
            (slots.saturating_sub(of_id), usize::MAX - of_all, is_wished)
        };
        let nodes = self.heard.iter().filter(|(node, heard)| fits(node, heard));
        let nodes = nodes.map(|(node, heard)| (room(node, heard), node, heard.boot));
        let (_, node, boot) =
            nodes.filter(|(room, ..)| room.0 > 0).max_by_key(|(room, ..)| *room)?;
        Some(Process { node: node.clone(), boot })
    }

    /// Whether a run can be placed now.
    #[cfg(test)]
    pub fn can_place(&self, now: Instant, id: &Id) -> bool {
        self.place_for_one(now, id, Wish::Any).is_some()
    }

    /// Places a run, if that can be.
    pub fn place(&mut self, now: Instant, attempt: Attempt, id: &Id, wish: Wish) -> bool {
        let wish = match wish {
            Wish::Only(process) if !self.may_live(now, process) => Wish::Any,
            wish => wish,
        };
        let Some(process) = self.place_for_one(now, id, wish) else { return false };
        let Attempt { event, number } = attempt;
        self.load.take(&process.node, id);
        let placed = Placed::new(id.clone(), process.clone(), number, State::Starting);
        self.placed.insert(event, placed);
        self.effects.push_back(OwnerEffect::RecordStart(attempt, process));
        true
    }

    /// How many runs of a concurrency id the nodes take together that were heard just now, and are to stay.
    pub fn capacity(&self, now: Instant, id: &Id) -> usize {
        let lasts = self.times.lease;
        let nodes = self.heard.values().filter(|it| now - it.at < lasts && !it.leaving);
        let slots = nodes.map(|heard| heard.slots.get(id).copied().unwrap_or(usize::MAX));
        slots.fold(0, usize::saturating_add)
    }

    /// Whether a process may be there still, for all that was heard of it.
    fn may_live(&self, now: Instant, process: &Process) -> bool {
        match self.heard.get(&process.node) {
            Some(heard) => {
                heard.boot == process.boot && !heard.leaving && now - heard.at < self.times.lease
            }
            // It may not have been heard yet.
            None => now - self.claimed < self.times.lease,
        }
    }

    /// Whether a process may hold something still: also one that is about to leave.
    pub fn may_hold(&self, now: Instant, process: &Process) -> bool {
        match self.heard.get(&process.node) {
            Some(heard) => heard.boot == process.boot && now - heard.at < self.times.lease,
            None => now - self.claimed < self.times.lease,
        }
    }

    /// Where each event runs, or is to run.
    pub fn places(&self) -> impl Iterator<Item = (EventId, &NodeName)> {
        let placed = self.placed.iter().filter(|(_, placed)| placed.has_slot());
        placed.map(|(event, placed)| (*event, &placed.process.node))
    }

    /// Whether a run of it is known.
    pub fn knows(&self, attempt: Attempt) -> bool {
        self.placed.get(&attempt.event).is_some_and(|placed| placed.number == attempt.number)
    }

    /// A run isn't wanted any more.
    pub fn interrupt(&mut self, attempt: Attempt) {
        let Some(placed) = self.placed.get_mut(&attempt.event) else { return };
        if placed.number != attempt.number {
            return;
        }
        match placed.state {
            // Nobody has been told of it.
            State::Starting => self.stopped(attempt),
            State::Running => {
                placed.state = State::Interrupted;
                let node = placed.process.node.clone();
                self.send(node, Word::Interrupt(attempt));
            }
            State::Over | State::Ending | State::Interrupted => {}
        }
    }

    fn stopped(&mut self, attempt: Attempt) {
        self.is_over(attempt.event);
        self.effects.push_back(OwnerEffect::Stopped(attempt));
    }

    /// An append that began then has been kept.
    pub fn recorded(&mut self, began: Instant) {
        self.sure = self.sure.max(began);
        self.is_renewing = false;
    }

    /// The start is on record: the node may be told, if the decision still stands.
    pub fn start_recorded(&mut self, now: Instant, attempt: Attempt) {
        let Some(placed) = self.placed.get_mut(&attempt.event) else { return };
        let counts = placed.number == attempt.number;
        placed.recorded |= counts;
        let stands = counts && placed.state == State::Starting;
        #[cfg(test)]
        let stands = stands || self.left_out == Some(Rule::SecondLook);
        if stands {
            if placed.state == State::Starting {
                placed.state = State::Running;
            }
            self.send_run(now, attempt);
        }
    }

    fn send_run(&mut self, now: Instant, attempt: Attempt) {
        let Some(placed) = self.placed.get_mut(&attempt.event) else { return };
        placed.sent = Some(now);
        let (id, Process { node, boot }) = (placed.id.clone(), placed.process.clone());
        let Some(heard) = self.heard.get(&node) else { return };
        let beat = heard.beat;
        self.send(node, Word::Run { attempt, id, boot, beat });
    }

    fn send(&mut self, node: NodeName, word: Word) {
        let epoch = self.epoch;
        self.effects.push_back(OwnerEffect::Send(node, FromOwner { epoch, word }));
    }

    /// The run is over without an end: its slot is free.
    fn is_over(&mut self, event: EventId) {
        if let Some(placed) = self.placed.get_mut(&event) {
            if placed.has_slot() {
                self.load.free(&placed.process.node, &placed.id);
            }
            placed.state = State::Over;
            if placed.ended {
                self.placed.remove(&event);
            }
        }
        #[cfg(test)]
        if self.leaves_out(Rule::Settlement) {
            self.placed.remove(&event);
        }
    }

    /// The run is over without an end: its event is next again.
    fn again(&mut self, event: EventId, has_begun: bool) {
        let Some(placed) = self.placed.get_mut(&event) else { return };
        if placed.state == State::Interrupted {
            let number = placed.number;
            return self.stopped(Attempt { event, number });
        }
        // What is being recorded counts as decided.
        if !matches!(placed.state, State::Starting | State::Running) {
            return;
        }
        let attempt = Attempt { event, number: placed.number };
        self.is_over(event);
        self.effects.push_back(OwnerEffect::Again { attempt, has_begun });
    }

    pub fn end_recorded(&mut self, attempt: Attempt) {
        let ends =
            |placed: &&mut Placed| placed.number == attempt.number && placed.state == State::Ending;
        if self.placed.get_mut(&attempt.event).filter(ends).is_none() {
            return;
        }
        let Some(placed) = self.placed.remove(&attempt.event) else { return };
        self.send(placed.process.node, Word::Settled(attempt));
        self.effects.push_back(OwnerEffect::Ended(attempt));
    }

    /// What came of the run is no end: its event is next again.
    pub fn over(&mut self, attempt: Attempt) {
        if self.knows(attempt) {
            self.is_over(attempt.event);
        }
    }

    /// The event has an end that is none of a run's, and that is on record.
    pub fn ended(&mut self, event: EventId) {
        let Some(placed) = self.placed.get_mut(&event) else { return };
        placed.ended = true;
        // Until it has stopped, it has its slot.
        if placed.state == State::Over {
            self.placed.remove(&event);
        }
    }

    /// Whether the record may say still that this attempt goes on: the next owner may ask its node for it.
    fn is_open(&self, attempt: Attempt) -> bool {
        #[cfg(test)]
        if self.leaves_out(Rule::Settlement) {
            return self.knows(attempt);
        }
        self.placed.get(&attempt.event).is_some_and(|placed| {
            attempt.number == placed.number || (attempt.number < placed.number && !placed.recorded)
        })
    }

    /// A node says what came of a run.
    pub fn report(&mut self, report: Report<R>) {
        let Report { from, attempt, result } = report;
        if !self.is_open(attempt) {
            // Another run counts, or the end is on record already.
            return self.send(from.node, Word::Settled(attempt));
        }
        let placed = self.placed.get_mut(&attempt.event);
        let counts = |placed: &&mut Placed| {
            placed.number == attempt.number && placed.process.node == from.node
        };
        let Some(placed) = placed.filter(counts) else { return };
        if placed.state == State::Running {
            placed.state = State::Ending;
            self.load.free(&placed.process.node, &placed.id);
            self.effects.push_back(OwnerEffect::RecordEnd(attempt, result));
        } else if placed.state == State::Interrupted {
            self.stopped(attempt);
        }
    }

    /// A node is there.
    pub fn hear(&mut self, now: Instant, beat: Beat) {
        let Beat { from, number, epoch, running, stopped, unbegun, slots, leaving } = beat;
        let Process { node, boot } = from;
        let last = self.heard.get(&node);
        if last.is_some_and(|last| last.boot > boot) {
            return;
        }
        // Beats may come in another order than they were sent in; what they say then is old.
        let is_old = last.is_some_and(|last| last.boot == boot && last.beat > number);
        let newest = last.filter(|_| is_old).map_or(number, |last| last.beat);
        let heeded = last.filter(|last| last.boot == boot).map_or(epoch, |it| it.epoch.max(epoch));
        let heard = Heard { at: now, boot, beat: newest, epoch: heeded, slots, leaving };
        self.heard.insert(node.clone(), heard);
        self.end_old_selves(&node, boot);
        if is_old {
            return;
        }
        for attempt in &stopped {
            if self.runs_there(&node, boot, *attempt) {
                #[cfg(test)]
                if self.leaves_out(Rule::StoppedRuns) {
                    continue;
                }
                self.again(attempt.event, !unbegun.contains(attempt));
            }
        }
        if self.grants(now) {
            let settled = stopped.iter().filter(|it| !self.is_open(**it)).copied();
            let settled = settled.collect();
            self.send(node.clone(), Word::Acknowledge { boot, beat: number, settled });
        }
        for attempt in &running {
            let placed = self.placed_there(&node, boot, *attempt);
            let is_unwanted =
                |placed: &Placed| matches!(placed.state, State::Interrupted | State::Over);
            if placed.is_none_or(is_unwanted) {
                self.send(node.clone(), Word::Interrupt(*attempt));
            }
        }
        self.send_what_was_not_taken(now, &node, boot, &running, &stopped);
    }

    /// A process of a later boot proves that the earlier one is dead.
    fn end_old_selves(&mut self, node: &NodeName, boot: u64) {
        #[cfg(test)]
        if self.leaves_out(Rule::OldSelf) {
            return;
        }
        self.again_where(|_, placed| placed.process.node == *node && placed.process.boot < boot);
    }

    fn again_where(&mut self, is_over: impl Fn(&Self, &Placed) -> bool) {
        let over = self.placed.iter().filter(|(_, placed)| is_over(self, placed));
        let over: Vec<EventId> = over.map(|(event, _)| *event).collect();
        over.into_iter().for_each(|event| self.again(event, true));
    }

    fn placed_there(&self, node: &NodeName, boot: u64, attempt: Attempt) -> Option<&Placed> {
        self.placed.get(&attempt.event).filter(|placed| {
            let process = &placed.process;
            process.node == *node && process.boot == boot && placed.number == attempt.number
        })
    }

    fn runs_there(&self, node: &NodeName, boot: u64, attempt: Attempt) -> bool {
        let placed = self.placed_there(node, boot, attempt);
        placed.is_some_and(|it| matches!(it.state, State::Running | State::Interrupted))
    }

    /// A word may be lost: what is recorded is sent again where the node doesn't name it for a while.
    fn send_what_was_not_taken(
        &mut self,
        now: Instant,
        node: &NodeName,
        boot: u64,
        running: &[Attempt],
        stopped: &[Attempt],
    ) {
        let mut missing = Vec::new();
        let wait = 2 * self.times.beat;
        let named: BTreeSet<&Attempt> = running.iter().chain(stopped).collect();
        for (event, placed) in &mut self.placed {
            let attempt = Attempt { event: *event, number: placed.number };
            let here = placed.process.node == *node && placed.process.boot == boot;
            let is_named = named.contains(&attempt);
            let is_due = matches!(placed.state, State::Running | State::Interrupted);
            if !here || !is_due || is_named {
                continue;
            }
            // One of an earlier owner's: whether the node has it shows from now on.
            if now - *placed.sent.get_or_insert(now) > wait {
                missing.push(attempt);
            }
        }
        #[cfg(test)]
        if self.leaves_out(Rule::SendAgain) {
            return;
        }
        for attempt in missing {
            let placed = self.placed_there(node, boot, attempt);
            if placed.is_some_and(|placed| placed.state == State::Interrupted) {
                self.send(node.clone(), Word::Interrupt(attempt));
            } else {
                self.send_run(now, attempt);
            }
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn next_timeout(&self) -> Option<Instant> {
        let renewal = self.renews().then(|| self.renewal_due());
        let silent = self.placed.values().filter(|placed| may_be_silent(placed.state));
        let silent = silent.map(|placed| self.silent_after(&placed.process.node)).min();
        renewal.into_iter().chain(silent).min()
    }

    /// Whether it is to renew next.
    fn renews(&self) -> bool {
        #[cfg(test)]
        if self.leaves_out(Rule::Renewal) {
            return false;
        }
        !self.is_renewing
    }

    fn renewal_due(&self) -> Instant {
        self.sure + self.times.lease / 3
    }

    /// Until when a node may hold a lease: it has stopped its runs then, or is dead.
    fn silent_after(&self, node: &NodeName) -> Instant {
        let lease = self.times.lease;
        // Those before this owner may have granted until a lease after its claim.
        let by_others = self.claimed + 2 * lease;
        #[cfg(test)]
        let by_others = if self.leaves_out(Rule::TwoLeases) { self.claimed } else { by_others };
        let ends = match self.heard.get(node) {
            // It heeds no other any more.
            Some(heard) if heard.epoch >= self.epoch => heard.at + lease,
            Some(heard) => (heard.at + lease).max(by_others),
            None => by_others,
        };
        ends + self.times.margin
    }

    /// Renews, and places what a silent node ran elsewhere.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.renews() && now >= self.renewal_due() {
            self.is_renewing = true;
            self.effects.push_back(OwnerEffect::Renew);
        }
        self.again_where(|owner, placed| {
            may_be_silent(placed.state) && now >= owner.silent_after(&placed.process.node)
        });
        self.forget_nodes(now);
    }

    /// Those that have been gone for long, and may have other names when they come back. Until then an older
    /// process of a name is known to be older.
    fn forget_nodes(&mut self, now: Instant) {
        let (lease, placed) = (self.times.lease, &self.placed);
        let runs = |node: &NodeName| placed.values().any(|placed| placed.process.node == *node);
        self.heard.retain(|node, heard| now - heard.at < 100 * lease || runs(node));
    }
}

fn may_be_silent(state: State) -> bool {
    matches!(state, State::Starting | State::Running | State::Interrupted)
}

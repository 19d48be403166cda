//! A node's part in one concurrency id: it runs what the owner of the highest epoch places here, under a
//! lease, and stops it when the lease ends.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use super::message::{Attempt, Beat, Epoch, FromOwner, Id, Process, Report, Slots, Times, Word};
#[cfg(test)]
use super::rules::Rule;

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum MemberEffect<R> {
    /// To whoever may own the concurrency id.
    Beat(Beat),
    Report(Report<R>),
    /// The handler starts.
    Start(Attempt),
    /// The handler is interrupted, and its result isn't wanted. Once it has returned,
    /// [`Member::has_stopped`] is called.
    Stop(Attempt),
}

/// A pure machine: it is told what happens and when, and says by effects what is to be done.
#[derive(Debug)]
pub(crate) struct Member<R> {
    times: Times,
    process: Process,
    slots: Slots,
    leaving: bool,
    epoch: Epoch,
    lease: Option<Lease>,
    /// When each of the last beats was sent.
    beats: BTreeMap<u64, Instant>,
    next_beat: u64,
    /// The last one that an owner has answered.
    answered: u64,
    running: BTreeMap<Attempt, Id>,
    /// Interrupted, and not returned yet: they have their slots.
    stopping: BTreeMap<Attempt, Id>,
    /// With the first beat that says so.
    stopped: BTreeMap<Attempt, u64>,
    /// Those of them that never started here.
    unbegun: BTreeSet<Attempt>,
    done: BTreeMap<Attempt, R>,
    /// What was taken here: no attempt is taken twice. Those that are over can be forgotten after a lease: no
    /// word that starts them can be new enough then.
    taken: BTreeMap<Attempt, Option<Instant>>,
    effects: VecDeque<MemberEffect<R>>,
    #[cfg(test)]
    pub left_out: Option<Rule>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    epoch: Epoch,
    ends: Instant,
}

impl<R: Clone> Member<R> {
    pub fn new(times: Times, process: Process, slots: Slots) -> Self {
        Member {
            times,
            process,
            slots,
            leaving: false,
            epoch: 0,
            lease: None,
            beats: BTreeMap::new(),
            next_beat: 1,
            answered: 0,
            running: BTreeMap::new(),
            stopping: BTreeMap::new(),
            stopped: BTreeMap::new(),
            unbegun: BTreeSet::new(),
            done: BTreeMap::new(),
            taken: BTreeMap::new(),
            effects: VecDeque::new(),
            #[cfg(test)]
            left_out: None,
        }
    }

    /// The highest epoch that it has heard of.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    pub fn poll_effect(&mut self) -> Option<MemberEffect<R>> {
        self.effects.pop_front()
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called next.
    pub fn next_timeout(&self) -> Option<Instant> {
        #[cfg(test)]
        if self.left_out == Some(Rule::SelfStop) {
            return None;
        }
        self.lease.filter(|_| !self.running.is_empty()).map(|lease| lease.ends)
    }

    /// A lease that has ended ends its runs.
    pub fn handle_timeout(&mut self, now: Instant) {
        #[cfg(test)]
        if self.left_out == Some(Rule::SelfStop) {
            return;
        }
        if !self.has_lease(now) {
            self.stop_all(now);
        }
    }

    /// Runs, and those that were interrupted and have not stopped yet.
    fn here(&self) -> impl Iterator<Item = (&Attempt, &Id)> {
        self.running.iter().chain(&self.stopping)
    }

    /// Whether nothing runs here any more, and an owner knows what has become of everything that did.
    pub fn is_done(&self) -> bool {
        self.here().next().is_none() && self.done.is_empty() && !self.has_stopped_runs()
    }

    /// Whether it has stopped runs that no owner knows of yet.
    pub fn has_stopped_runs(&self) -> bool {
        self.stopped.values().any(|said| *said > self.answered)
    }

    /// It takes no more runs from now on.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// Interrupts what still runs.
    pub fn stop_all(&mut self, now: Instant) {
        while let Some((attempt, _)) = self.running.first_key_value() {
            self.stop(*attempt, now);
        }
    }

    fn has_lease(&self, now: Instant) -> bool {
        self.lease.is_some_and(|lease| now < lease.ends)
    }

    fn stop(&mut self, attempt: Attempt, now: Instant) {
        if let Some(id) = self.running.remove(&attempt) {
            self.stopping.insert(attempt, id);
            self.taken.insert(attempt, Some(now));
            self.effects.push_back(MemberEffect::Stop(attempt));
        }
    }

    /// The handler of a run that was interrupted has returned.
    pub fn has_stopped(&mut self, attempt: Attempt) {
        if self.stopping.remove(&attempt).is_some() {
            self.stopped.insert(attempt, self.next_beat);
        }
    }

    /// Time for the next beat, and for the results that nobody has settled.
    pub fn beat(&mut self, now: Instant) {
        self.handle_timeout(now);
        let lease = self.times.lease;
        self.beats.retain(|_, sent| now - *sent < lease);
        self.taken.retain(|_, over| over.is_none_or(|over| now - over < 2 * lease));
        let number = self.next_beat;
        self.next_beat += 1;
        self.beats.insert(number, now);
        self.effects.push_back(MemberEffect::Beat(Beat {
            from: self.process.clone(),
            number,
            epoch: self.epoch,
            running: self.here().map(|(attempt, _)| *attempt).collect(),
            stopped: self.stopped.keys().copied().collect(),
            unbegun: self.unbegun.iter().copied().collect(),
            slots: self.slots.clone(),
            leaving: self.leaving,
        }));
        let done: Vec<Attempt> = self.done.keys().copied().collect();
        done.into_iter().for_each(|attempt| self.report(attempt));
    }

    fn report(&mut self, attempt: Attempt) {
        let Some(result) = self.done.get(&attempt).cloned() else { return };
        let report = Report { from: self.process.clone(), attempt, result };
        self.effects.push_back(MemberEffect::Report(report));
    }

    /// An owner has said this.
    pub fn hear(&mut self, now: Instant, FromOwner { epoch, word }: FromOwner) {
        self.handle_timeout(now);
        if epoch < self.epoch {
            #[cfg(test)]
            if self.left_out == Some(Rule::WhoseWord)
                && let Word::Settled(attempt) = word
            {
                self.done.remove(&attempt);
            }
            return;
        }
        self.epoch = epoch;
        match word {
            Word::Acknowledge { boot, beat, settled } if boot == self.process.boot => {
                for attempt in settled {
                    self.stopped.remove(&attempt);
                    self.unbegun.remove(&attempt);
                }
                self.answered = self.answered.max(beat);
                let Some(sent) = self.beats.get(&beat) else { return };
                let ends = *sent + self.times.lease;
                // What an earlier owner has granted is no lease of this one's.
                let same = self.lease.filter(|lease| lease.epoch == epoch);
                let ends = same.map_or(ends, |lease| lease.ends.max(ends));
                self.lease = Some(Lease { epoch, ends });
                self.handle_timeout(now);
            }
            // For the process before this one.
            Word::Acknowledge { .. } => {}
            Word::Run { attempt, id, boot, beat } => self.run(now, attempt, id, boot, beat),
            Word::Interrupt(attempt) => self.interrupt(now, attempt),
            Word::Settled(attempt) => {
                if self.done.remove(&attempt).is_some() {
                    self.taken.insert(attempt, Some(now));
                }
            }
        }
    }

    fn run(&mut self, now: Instant, attempt: Attempt, id: Id, boot: u64, beat: u64) {
        #[cfg(test)]
        let (any_boot, any_beat, no_lease) = (
            self.left_out == Some(Rule::Boot),
            self.left_out == Some(Rule::Beat),
            self.left_out == Some(Rule::SelfStop),
        );
        #[cfg(not(test))]
        let (any_boot, any_beat, no_lease) = (false, false, false);
        let is_for_this = boot == self.process.boot || any_boot;
        let new_enough = |sent: &Instant| now < *sent + self.times.lease;
        let is_new = self.beats.get(&beat).is_some_and(new_enough) || any_beat;
        let may_run = self.has_lease(now) || no_lease;
        let is_taken = self.taken.contains_key(&attempt);
        #[cfg(test)]
        let is_taken = is_taken && self.left_out != Some(Rule::Duplicate);
        let runs_already = self.here().any(|(running, _)| running.event == attempt.event);
        let slots = self.slots.get(&id);
        let has_room =
            slots.is_none_or(|slots| self.here().filter(|(_, of)| **of == id).count() < *slots);
        if !is_for_this || !is_new || is_taken || runs_already {
            return;
        }
        if self.leaving {
            // It never starts here: it counts as stopped.
            self.taken.insert(attempt, Some(now));
            self.stopped.insert(attempt, self.next_beat);
            self.unbegun.insert(attempt);
        } else if may_run && has_room {
            self.taken.insert(attempt, None);
            self.running.insert(attempt, id);
            self.effects.push_back(MemberEffect::Start(attempt));
        }
    }

    /// It isn't wanted any more. One that has not come yet never starts: it counts as stopped.
    fn interrupt(&mut self, now: Instant, attempt: Attempt) {
        if self.running.contains_key(&attempt) {
            self.stop(attempt, now);
        } else if !self.stopping.contains_key(&attempt) && !self.done.contains_key(&attempt) {
            self.taken.insert(attempt, Some(now));
            self.stopped.insert(attempt, self.next_beat);
        }
    }

    /// The handler has returned. What was interrupted meanwhile gives no result.
    pub fn finished(&mut self, now: Instant, attempt: Attempt, result: R) {
        self.handle_timeout(now);
        if self.running.remove(&attempt).is_some() {
            self.done.insert(attempt, result);
            self.report(attempt);
        } else {
            self.has_stopped(attempt);
        }
    }
}

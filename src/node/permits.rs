//! Permits: slots of the line without a run. The node that keeps the line has them as long as the processes that
//! hold them say so.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;

use super::input::{Input as AgentInput, Release};
use super::out::{Out, To};
use super::wire::{Acquire, Message};
use crate::cluster::message::{Epoch, Process};
use crate::event::refusal::Refusal;
use crate::queue::error::AcquireError;
use crate::queue::permit::Permit;

/// How often a process says which permits are held there, and waited for.
const AGAIN: Duration = Duration::from_secs(1);

/// Those of this process.
#[derive(Default)]
pub(super) struct Permits {
    next: u64,
    wanted: HashMap<u64, Wanted>,
    said: Option<Instant>,
    /// By which claim the line is kept, as far as is known here.
    epoch: Epoch,
    /// Whether all have been told last that some are held here.
    holds: bool,
}

struct Wanted {
    acquire: Acquire,
    /// Until it is granted.
    reply: Option<oneshot::Sender<Result<(usize, Release), Refusal>>>,
}

impl Permits {
    pub fn acquire(
        &mut self,
        mut acquire: Acquire,
        reply: oneshot::Sender<Result<(usize, Release), Refusal>>,
        out: &mut Out,
    ) {
        self.next += 1;
        acquire.permit = self.next;
        out.push((To::Keeper, Message::Acquire(acquire.clone())));
        self.wanted.insert(self.next, Wanted { acquire, reply: Some(reply) });
    }

    /// Whoever keeps the line has decided.
    pub fn granted(
        &mut self,
        permit: u64,
        result: Result<usize, Refusal>,
        input: &UnboundedSender<AgentInput>,
    ) {
        let Some(wanted) = self.wanted.get_mut(&permit) else { return };
        // One that was granted before stays so, whatever a later keeper says.
        let Some(reply) = wanted.reply.take() else { return };
        let granted = result.is_ok();
        wanted.acquire.slot = result.as_ref().ok().copied();
        let release = || Release { permit, input: input.clone() };
        // Who doesn't wait any more gives it back by that.
        let _ = reply.send(result.map(|slot| (slot, release())));
        if !granted {
            self.wanted.remove(&permit);
        }
    }

    pub fn release(&mut self, permit: u64, out: &mut Out) {
        self.wanted.remove(&permit);
        out.push((To::Keeper, Message::Released(permit)));
    }

    /// Also where there are none: who begins to keep the line waits for that.
    fn say(&mut self, out: &mut Out) {
        let (mut held, mut waits) = (Vec::new(), Vec::new());
        for (permit, wanted) in &self.wanted {
            match wanted.reply {
                None => held.push(wanted.acquire.clone()),
                Some(_) => waits.push(*permit),
            }
        }
        if self.holds || !held.is_empty() {
            self.holds = !held.is_empty();
            out.push((To::All, Message::Holds(self.holds)));
        }
        // By the way that all else of permits goes, so that it is read in the order in which it was said.
        out.push((To::Keeper, Message::Permits { epoch: self.epoch, held, waits }));
    }

    /// Somebody else keeps the line, who has to be told of all, and that there is no more.
    pub fn line_moved(&mut self, epoch: Epoch, out: &mut Out) {
        self.epoch = epoch;
        for wanted in self.wanted.values().filter(|wanted| wanted.reply.is_some()) {
            out.push((To::Keeper, Message::Acquire(wanted.acquire.clone())));
        }
        self.say(out);
    }

    /// Whoever keeps the line knows nothing of these.
    pub fn unknown(&self, permits: &[u64], out: &mut Out) {
        for wanted in permits.iter().filter_map(|permit| self.wanted.get(permit)) {
            out.push((To::Keeper, Message::Acquire(wanted.acquire.clone())));
        }
    }

    pub fn handle_timeout(&mut self, now: Instant, out: &mut Out) {
        self.wanted.retain(|_, wanted| wanted.reply.as_ref().is_none_or(|it| !it.is_closed()));
        if self.said.is_none_or(|said| now - said >= AGAIN) {
            self.said = Some(now);
            self.say(out);
        }
    }
}

/// Those of all processes, where the line is kept.
pub(super) struct Granted {
    epoch: Epoch,
    known: HashMap<(Process, u64), State>,
}

struct State {
    concurrency_id: Arc<str>,
    /// The number that its holder knows it by: while it is held, that of no other of the concurrency id.
    slot: Option<usize>,
    wait: Wait,
}

enum Wait {
    /// Dropped, it waits no longer.
    Goes(#[allow(dead_code)] oneshot::Sender<()>),
    IsOver(#[allow(dead_code)] Permit),
}

impl Granted {
    /// None, since this claim.
    pub fn new(epoch: Epoch) -> Self {
        Granted { epoch, known: HashMap::new() }
    }

    fn tell(&self, to: &Process, permit: u64, result: Result<usize, Refusal>, out: &mut Out) {
        let epoch = self.epoch;
        out.push((To::Process(to.clone()), Message::Granted { epoch, permit, result }));
    }

    /// The number of one that is held there, as far as is known here.
    fn held(&self, from: &Process, permit: u64) -> Option<usize> {
        let state = self.known.get(&(from.clone(), permit))?;
        state.slot.filter(|_| matches!(state.wait, Wait::IsOver(_)))
    }

    /// Somebody there wants one, or has it already: gives what tells when he doesn't any more, unless that is
    /// known.
    pub fn begin(
        &mut self,
        from: &Process,
        acquire: &Acquire,
        out: &mut Out,
    ) -> Option<oneshot::Receiver<()>> {
        let permit = acquire.permit;
        if let Some(slot) = self.held(from, permit) {
            // It may not have come.
            self.tell(from, permit, Ok(slot), out);
            return None;
        }
        // One that waited may have been granted by who kept the line before.
        let known = self.known.get(&(from.clone(), permit));
        if known.is_some_and(|known| known.slot == acquire.slot) {
            return None;
        }
        let (waiting, given_up) = oneshot::channel();
        let concurrency_id = acquire.concurrency_id.clone();
        let state = State { concurrency_id, slot: acquire.slot, wait: Wait::Goes(waiting) };
        self.known.insert((from.clone(), permit), state);
        Some(given_up)
    }

    /// One that none is known by, the slot's own where that is so.
    fn number(&self, concurrency_id: &str, slot: usize) -> usize {
        let of_id = self.known.values().filter(|state| *state.concurrency_id == *concurrency_id);
        let taken: HashSet<usize> = of_id.filter_map(|state| state.slot).collect();
        std::iter::once(slot).chain(0..).find(|n| !taken.contains(n)).unwrap_or(slot)
    }

    pub fn decided(
        &mut self,
        from: Process,
        permit: u64,
        result: Result<Permit, AcquireError>,
        out: &mut Out,
    ) {
        let key = (from.clone(), permit);
        // Nobody wants it any more, or it has one already.
        let Some(State { concurrency_id, slot, wait: Wait::Goes(_) }) = self.known.get(&key) else {
            return;
        };
        let result = match result {
            Ok(held) => {
                let slot = slot.unwrap_or_else(|| self.number(concurrency_id, held.slot()));
                if let Some(state) = self.known.get_mut(&key) {
                    (state.slot, state.wait) = (Some(slot), Wait::IsOver(held));
                }
                Ok(slot)
            }
            Err(error) => {
                self.known.remove(&key);
                Err(match error {
                    AcquireError::Refused(refusal) => refusal,
                    _ => Refusal::Stopped,
                })
            }
        };
        self.tell(&from, permit, result, out);
    }

    /// Which ones are held there, and waited for. Gives those that are held and aren't known; what isn't known
    /// of the others is asked for.
    pub fn are(
        &mut self,
        from: &Process,
        held: Vec<Acquire>,
        waits: &[u64],
        out: &mut Out,
    ) -> Vec<(Acquire, oneshot::Receiver<()>)> {
        let there: HashSet<u64> =
            held.iter().map(|acquire| acquire.permit).chain(waits.iter().copied()).collect();
        self.known.retain(|(process, permit), _| process != from || there.contains(permit));
        let mut unknown = Vec::new();
        for permit in waits {
            if let Some(slot) = self.held(from, *permit) {
                // It was told so, and that may not have come.
                self.tell(from, *permit, Ok(slot), out);
            } else if !self.known.contains_key(&(from.clone(), *permit)) {
                unknown.push(*permit);
            }
        }
        if !unknown.is_empty() {
            out.push((To::Process(from.clone()), Message::PermitsUnknown(unknown)));
        }
        let mut fresh = Vec::new();
        for acquire in held {
            if self.held(from, acquire.permit).is_none()
                && let Some(given_up) = self.begin(from, &acquire, out)
            {
                fresh.push((acquire, given_up));
            }
        }
        fresh
    }

    /// One isn't held or waited for there any more.
    pub fn released(&mut self, from: Process, permit: u64) {
        self.known.remove(&(from, permit));
    }

    /// Those of processes that are gone are free.
    pub fn retain(&mut self, may_live: impl Fn(&Process) -> bool) {
        self.known.retain(|(process, _), _| may_live(process));
    }
}

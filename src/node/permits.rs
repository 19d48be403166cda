//! Permits: slots of the line without a run. The node that keeps the line has them as long as the processes that
//! hold them say so.

use std::collections::{HashMap, HashSet};
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
    /// There were some when that was said last.
    had_some: bool,
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

    fn say(&mut self, out: &mut Out) {
        self.had_some = !self.wanted.is_empty();
        let waits = |wanted: &Wanted| wanted.reply.is_some();
        let (waiting, held): (Vec<_>, Vec<_>) =
            self.wanted.iter().partition(|(_, wanted)| waits(wanted));
        let numbers = |wanted: Vec<(&u64, &Wanted)>| wanted.into_iter().map(|it| *it.0).collect();
        let (held, waits) = (numbers(held), numbers(waiting));
        out.push((To::Keeper, Message::Permits { held, waits }));
    }

    /// Somebody else keeps the line, who has to be told of all.
    pub fn line_moved(&mut self, out: &mut Out) {
        for wanted in self.wanted.values() {
            out.push((To::Keeper, Message::Acquire(wanted.acquire.clone())));
        }
    }

    /// Whoever keeps the line knows nothing of these, held or waited for.
    pub fn unknown(&self, permits: &[u64], out: &mut Out) {
        for wanted in permits.iter().filter_map(|permit| self.wanted.get(permit)) {
            out.push((To::Keeper, Message::Acquire(wanted.acquire.clone())));
        }
    }

    pub fn handle_timeout(&mut self, now: Instant, out: &mut Out) {
        self.wanted.retain(|_, wanted| wanted.reply.as_ref().is_none_or(|it| !it.is_closed()));
        let is_due = self.said.is_none_or(|said| now - said >= AGAIN);
        if !is_due || (self.wanted.is_empty() && !self.had_some) {
            return;
        }
        self.said = Some(now);
        self.say(out);
    }
}

/// Those of all processes, where the line is kept.
#[derive(Default)]
pub(super) struct Granted(HashMap<(Process, u64), State>);

enum State {
    /// Dropped, it waits no longer.
    Waits {
        _waiting: oneshot::Sender<()>,
    },
    Held(Permit),
}

impl Granted {
    /// Somebody there wants one: gives what tells when he doesn't any more, unless he waits already.
    pub fn begin(
        &mut self,
        from: &Process,
        permit: u64,
        out: &mut Out,
    ) -> Option<oneshot::Receiver<()>> {
        match self.0.get(&(from.clone(), permit)) {
            Some(State::Waits { .. }) => None,
            // It may not have come.
            Some(State::Held(held)) => {
                let result = Ok(held.slot());
                out.push((To::Process(from.clone()), Message::Granted { permit, result }));
                None
            }
            None => {
                let (waiting, given_up) = oneshot::channel();
                self.0.insert((from.clone(), permit), State::Waits { _waiting: waiting });
                Some(given_up)
            }
        }
    }

    pub fn decided(
        &mut self,
        from: Process,
        permit: u64,
        result: Result<Permit, AcquireError>,
        out: &mut Out,
    ) {
        let key = (from.clone(), permit);
        let result = match result {
            Ok(held) => {
                // Nobody wants it any more.
                let Some(state) = self.0.get_mut(&key) else { return };
                let slot = held.slot();
                *state = State::Held(held);
                Ok(slot)
            }
            Err(error) => {
                self.0.remove(&key);
                Err(match error {
                    AcquireError::Refused(refusal) => refusal,
                    _ => Refusal::Stopped,
                })
            }
        };
        out.push((To::Process(from), Message::Granted { permit, result }));
    }

    /// Which ones are held there, and waited for. What isn't known of them is asked for.
    pub fn are(&mut self, from: &Process, held: &[u64], waits: &[u64], out: &mut Out) {
        let mut unknown = Vec::new();
        for permit in held.iter().chain(waits) {
            if !self.0.contains_key(&(from.clone(), *permit)) {
                unknown.push(*permit);
            }
        }
        for permit in waits {
            // It was told so, and that may not have come.
            if let Some(State::Held(held)) = self.0.get(&(from.clone(), *permit)) {
                let (permit, result) = (*permit, Ok(held.slot()));
                out.push((To::Process(from.clone()), Message::Granted { permit, result }));
            }
        }
        if !unknown.is_empty() {
            out.push((To::Process(from.clone()), Message::PermitsUnknown(unknown)));
        }
        let held: HashSet<u64> = held.iter().chain(waits).copied().collect();
        self.0.retain(|(process, permit), _| process != from || held.contains(permit));
    }

    /// One isn't held or waited for there any more.
    pub fn released(&mut self, from: Process, permit: u64) {
        self.0.remove(&(from, permit));
    }

    /// Those of processes that are gone are free.
    pub fn retain(&mut self, may_live: impl Fn(&Process) -> bool) {
        self.0.retain(|(process, _), _| may_live(process));
    }
}

/// Waits for one in the line, as long as somebody wants it.
pub(super) async fn wait(
    queue: crate::queue::Queue,
    acquire: Acquire,
    given_up: oneshot::Receiver<()>,
    epoch: Epoch,
    from: Process,
    input: UnboundedSender<AgentInput>,
) {
    let Acquire { permit, concurrency_id, label, queue_timeout } = acquire;
    let granted = std::pin::pin!(queue.acquire_as(&concurrency_id, label, queue_timeout));
    if let futures::future::Either::Left((result, _)) =
        futures::future::select(granted, given_up).await
    {
        // The agent ends with the process only.
        let _ = input.send(AgentInput::PermitDecided(epoch, from, permit, Box::new(result)));
    }
}

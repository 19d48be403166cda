//! What is placed on this node: it runs on the queue's own supervisors and workers, under a lease.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Instant;

use actix::ArbiterHandle;
use tokio::sync::mpsc::UnboundedSender;

use super::front::Front;
use super::input::Input as AgentInput;
use super::out::{Out, To};
use super::starting::Starting;
use super::wire::{EventEnd, Message, Order, OrderedEvent, RunEnd, Said};
use crate::actors::messages::CancelOf;
use crate::cluster::member::{Member, MemberEffect};
use crate::cluster::message::{Attempt, Epoch, FromOwner, Process, Slots, Times, Word};
use crate::event::failure::Failure;
use crate::event::id::EventId;
use crate::journal::record::End;
use crate::logging::info;

pub(super) struct Runs {
    member: Member<RunEnd>,
    /// Of runs that may start.
    orders: HashMap<Attempt, Order>,
    /// By the attempt that stands for the run.
    here: HashMap<Attempt, Here>,
    /// The others of batches that were stopped, as long as that is to be said.
    stopped_with: HashMap<Attempt, Vec<Attempt>>,
    input: UnboundedSender<AgentInput>,
    /// The thread for what is the service's code.
    values: ArbiterHandle,
    /// A beat has something new to say.
    pub beats_soon: bool,
}

/// A run that goes on here.
struct Here {
    order: Order,
    /// Of who has placed it.
    epoch: Epoch,
    /// Of a batch, those that a later owner doesn't want any more. For that one each stands for itself.
    unwanted: HashSet<Attempt>,
    ended: Vec<EventEnd>,
    /// Its handler has really stopped.
    is_over: bool,
    /// It isn't to run any more, though it may not have started yet.
    is_stopped: Arc<AtomicBool>,
}

impl Runs {
    pub fn new(
        times: Times,
        process: Process,
        slots: Slots,
        input: UnboundedSender<AgentInput>,
        values: ArbiterHandle,
    ) -> Self {
        Runs {
            member: Member::new(times, process, slots),
            orders: HashMap::new(),
            here: HashMap::new(),
            stopped_with: HashMap::new(),
            input,
            values,
            beats_soon: false,
        }
    }

    /// The highest epoch that it has heard of.
    pub fn epoch(&self) -> Epoch {
        self.member.epoch()
    }

    pub fn is_done(&self) -> bool {
        self.member.is_done()
    }

    /// Takes no more runs.
    pub fn leave(&mut self) {
        self.member.leave();
        self.beats_soon = true;
    }

    pub fn stop_all(&mut self, now: Instant, front: &mut Front, out: &mut Out) {
        self.member.stop_all(now);
        self.perform(now, front, out);
    }

    pub fn handle_timeout(&mut self, now: Instant, front: &mut Front, out: &mut Out) {
        if self.member.next_timeout().is_some_and(|due| due <= now) {
            self.member.handle_timeout(now);
            self.perform(now, front, out);
        }
    }

    pub fn beat(&mut self, now: Instant, front: &mut Front, out: &mut Out) {
        self.beats_soon = false;
        self.member.beat(now);
        self.perform(now, front, out);
    }

    /// Who keeps the line says this.
    pub fn hear(
        &mut self,
        now: Instant,
        mut word: FromOwner,
        order: Option<Box<Order>>,
        front: &mut Front,
        out: &mut Out,
    ) {
        let epoch = word.epoch;
        let run = match &mut word.word {
            Word::Run { attempt, .. } => Some(*attempt),
            Word::Interrupt(attempt) => {
                let Some(run) = self.interrupted(epoch, *attempt) else { return };
                *attempt = run;
                None
            }
            _ => None,
        };
        if let Some((attempt, order)) = run.zip(order) {
            self.orders.insert(attempt, *order);
        }
        let had_stopped = self.member.has_stopped_runs();
        self.member.hear(now, word);
        self.beats_soon |= !had_stopped && self.member.has_stopped_runs();
        self.perform(now, front, out);
        // It hasn't been taken.
        run.map(|attempt| self.orders.remove(&attempt));
    }

    /// The run that is to stop, if any is: one of a batch goes on with the others.
    fn interrupted(&mut self, epoch: Epoch, attempt: Attempt) -> Option<Attempt> {
        let batches = self.here.iter_mut().filter(|(_, here)| here.order.events.len() > 1);
        let is_in = |here: &Here| here.order.events.iter().any(|it| it.attempt() == attempt);
        let mut batch = batches.filter(|(_, here)| is_in(here));
        let Some((first, here)) = batch.next() else { return Some(attempt) };
        if here.epoch == epoch {
            return (*first == attempt).then_some(attempt);
        }
        here.unwanted.insert(attempt);
        (here.unwanted.len() == here.order.events.len()).then_some(*first)
    }

    fn perform(&mut self, now: Instant, front: &mut Front, out: &mut Out) {
        while let Some(effect) = self.member.poll_effect() {
            match effect {
                MemberEffect::Beat(mut beat) => {
                    let of_batches = |attempt: &Attempt| {
                        let here = self.here.get(attempt).map(|here| &here.order.events);
                        let here = here.into_iter().flatten().skip(1);
                        here.map(OrderedEvent::attempt).collect::<Vec<_>>()
                    };
                    let more: Vec<Attempt> = beat.running.iter().flat_map(of_batches).collect();
                    beat.running.extend(more);
                    // Who keeps the line now may know each of them for itself.
                    self.stopped_with.retain(|first, _| beat.stopped.contains(first));
                    beat.stopped.extend(self.stopped_with.values().flatten());
                    out.push((To::All, Message::Beat(beat)));
                }
                MemberEffect::Report(report) => out.push((To::Keeper, Message::Report(report))),
                MemberEffect::Start(attempt) => {
                    if let Some(order) = self.orders.remove(&attempt) {
                        self.start(now, attempt, order, front);
                    }
                }
                MemberEffect::Stop(attempt) => self.interrupt(attempt, front),
            }
        }
    }

    fn start(&mut self, now: Instant, attempt: Attempt, order: Order, front: &mut Front) {
        let listener = front.listener(&order.listener).cloned();
        let is_stopped = Arc::new(AtomicBool::new(false));
        let here = Here {
            order: order.clone(),
            epoch: self.member.epoch(),
            unwanted: HashSet::new(),
            ended: Vec::new(),
            is_over: false,
            is_stopped: is_stopped.clone(),
        };
        self.here.insert(attempt, here);
        let Some(listener) = listener else {
            let why = format!("this node has no listener {:?}", order.listener);
            return self.fail(now, attempt, &why);
        };
        let mut starting = Starting {
            attempt,
            listener,
            events: Vec::with_capacity(order.events.len()),
            input: self.input.clone(),
            is_stopped,
        };
        for event in order.events {
            let given = front.take_input(event.event, event.attempt);
            let session = front.session_of(&event);
            starting.events.push((event, given, session));
        }
        self.values.spawn(async move { starting.start() });
    }

    /// It can't start.
    pub fn failed(
        &mut self,
        now: Instant,
        attempt: Attempt,
        why: &str,
        front: &mut Front,
        out: &mut Out,
    ) {
        self.fail(now, attempt, why);
        self.perform(now, front, out);
    }

    fn fail(&mut self, now: Instant, attempt: Attempt, why: &str) {
        let Some(here) = self.here.remove(&attempt) else { return };
        let end = |event: &OrderedEvent| EventEnd {
            event: event.event,
            attempt: event.attempt,
            end: End::Failed(Failure::unexpected(why)),
            transient: None,
        };
        let events = here.order.events.iter().map(end).collect();
        self.finished(now, attempt, &here.order, RunEnd { events });
    }

    fn finished(&mut self, now: Instant, attempt: Attempt, order: &Order, end: RunEnd) {
        self.member.finished(now, attempt, end);
        let others: Vec<_> = order.events.iter().skip(1).map(OrderedEvent::attempt).collect();
        if !others.is_empty() {
            self.stopped_with.insert(attempt, others);
        }
    }

    fn interrupt(&mut self, attempt: Attempt, front: &Front) {
        let Some(here) = self.here.get(&attempt) else { return };
        here.is_stopped.store(true, SeqCst);
        let Some(listener) = front.listener(&here.order.listener) else { return };
        info!("{}: event {} is interrupted", here.order.listener, attempt.event);
        for event in &here.order.events {
            let cancel = CancelOf { listener: listener.lane, id: event.event };
            listener.supervisor.do_send(cancel);
        }
    }

    /// A run's handler says this.
    pub fn said(&self, attempt: Attempt, event: EventId, said: Said, out: &mut Out) {
        if self.here.contains_key(&attempt) {
            out.push((To::Keeper, Message::Said { attempt, event, said }));
        }
    }

    /// An event of a run has ended.
    pub fn ended(
        &mut self,
        now: Instant,
        attempt: Attempt,
        end: EventEnd,
        front: &mut Front,
        out: &mut Out,
    ) {
        if let Some(here) = self.here.get_mut(&attempt) {
            here.ended.push(end);
            self.finish(now, attempt, front, out);
        }
    }

    /// A run has really stopped.
    pub fn over(&mut self, now: Instant, attempt: Attempt, front: &mut Front, out: &mut Out) {
        if let Some(here) = self.here.get_mut(&attempt) {
            here.is_over = true;
            self.finish(now, attempt, front, out);
        }
    }

    fn finish(&mut self, now: Instant, attempt: Attempt, front: &mut Front, out: &mut Out) {
        let done = |here: &Here| here.is_over && here.ended.len() == here.order.events.len();
        if !self.here.get(&attempt).is_some_and(done) {
            return;
        }
        let Some(here) = self.here.remove(&attempt) else { return };
        self.finished(now, attempt, &here.order, RunEnd { events: here.ended });
        self.beats_soon |= self.member.has_stopped_runs();
        self.perform(now, front, out);
    }
}

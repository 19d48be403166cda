//! The line, on the node that keeps it: a queue whose events wait there and run on some node, and what has to
//! be known of the nodes for that.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::{Arbiter, ArbiterHandle};
use tokio::sync::mpsc::UnboundedSender;

use super::census::{Census, Present};
use super::input::{Input as AgentInput, Kept};
use super::out::{Out, To};
use super::permits::Granted;
use super::placing::{PlacedEvent, Placing, RunResult};
use super::tracked::Tracked;
use super::wire::{Message, Order, OrderedEvent, RunEnd, Said};
use crate::actors::messages::SetCapacity;
use crate::cluster::message::{
    Attempt, Beat, Epoch, FromOwner, Id, NodeName, Process, Report, Times, Word,
};
use crate::cluster::owner::{Owner, OwnerEffect, Wish};
use crate::event::failure::Lost;
use crate::event::id::EventId;
use crate::journal::error::JournalError;
use crate::journal::jetstream::LastKept;
use crate::journal::record::{End, Record};
use crate::journal::{Batch, Journal};
use crate::logging::{debug, warn};
use crate::queue::Queue;
use crate::queue::blueprint::Blueprint;
use crate::queue::elsewhere::RecordedRun;

/// How long after the end of a run that is tried again that is told to its node: as long as its record may
/// take to be on its way.
const SETTLE: Duration = Duration::from_secs(1);

/// How long after a failure a start is recorded again.
const AGAIN: Duration = Duration::from_secs(1);

pub(super) struct Office {
    pub epoch: Epoch,
    pub queue: Queue,
    pub tracked: Tracked,
    pub permits: Granted,
    /// Until all have said what they hold, nothing starts, and nobody is let in.
    census: Option<Census>,
    /// What is asked for meanwhile.
    later: Vec<(Process, Message)>,
    owner: Owner<RunEnd>,
    journal: Arc<dyn Journal>,
    last_kept: LastKept,
    blueprint: Blueprint,
    thread: Arbiter,
    input: UnboundedSender<AgentInput>,
    boots: HashMap<NodeName, u64>,
    /// What was told the line of it.
    capacity: HashMap<Id, usize>,
    /// Runs that have no place yet, by concurrency id, the next one first.
    unplaced: BTreeMap<Id, VecDeque<Unplaced>>,
    /// Who waits for what becomes of an attempt.
    waiting: HashMap<Attempt, Waiting>,
    orders: HashMap<Attempt, Order>,
    /// What is known already of attempts that nobody waits for yet: of earlier owners' runs.
    results: HashMap<Attempt, RunResult>,
    /// The attempts of a batch beside the first, each with the one that stands for it.
    riders: HashMap<Attempt, Attempt>,
    /// Whose end is about to be recorded: by event, with the attempt that stands for the run, and how many of
    /// it are.
    ending: HashMap<EventId, Attempt>,
    /// How many of a run those are.
    open: HashMap<Attempt, usize>,
    settling: Vec<(Instant, Attempt)>,
    unrecorded: Vec<(Instant, Attempt, Process)>,
}

struct Unplaced {
    events: Vec<PlacedEvent>,
    listener: Arc<str>,
    stays: bool,
}

struct Waiting {
    results: UnboundedSender<(EventId, RunResult)>,
    updates: Option<Arc<crate::delivery::sender::UpdateSender>>,
}

impl Office {
    /// `thread` is the one that the queue was started on.
    pub fn open(
        now: Instant,
        times: Times,
        kept: Kept,
        census: Census,
        thread: Arbiter,
        input: UnboundedSender<AgentInput>,
    ) -> Self {
        let Kept { epoch, queue, journal, last_kept, began, recorded, blueprint } = kept;
        let mut results = HashMap::new();
        let mut runs = Vec::new();
        for RecordedRun { event, attempt, concurrency_id, place } in recorded {
            let attempt = Attempt { event, number: attempt };
            match place.and_then(|place| place.parse::<Process>().ok()) {
                Some(process) => runs.push((attempt, concurrency_id, process)),
                // It isn't said where it would have run.
                None => drop(results.insert(attempt, RunResult::Lost(Lost::MayHaveBegun))),
            }
        }
        let mut office = Office {
            epoch,
            tracked: Tracked::new(epoch, input.clone()),
            permits: Granted::new(epoch),
            census: Some(census),
            later: Vec::new(),
            queue,
            owner: Owner::new(times, epoch, began, now, runs),
            journal,
            last_kept,
            blueprint,
            thread,
            input,
            boots: HashMap::new(),
            capacity: HashMap::new(),
            unplaced: BTreeMap::new(),
            waiting: HashMap::new(),
            orders: HashMap::new(),
            results,
            riders: HashMap::new(),
            ending: HashMap::new(),
            open: HashMap::new(),
            settling: Vec::new(),
            unrecorded: Vec::new(),
        };
        office.tracked.take_left(&office.queue);
        office
    }

    /// Somebody else keeps the line now, or may: what is left here is neither ended nor told anybody.
    pub fn close(self) {
        let Office { queue, thread, .. } = self;
        drop(queue);
        thread.stop();
    }

    /// Whether somebody else may keep the line.
    pub fn is_lost(&self) -> bool {
        self.journal.taken_over().is_some_and(|taken_over| taken_over.borrow().is_some())
    }

    pub fn cancel(&self, listener: &str, event: EventId) {
        if let Some(listener_ref) = self.queue.inner().listener_ref(listener) {
            listener_ref.cancel(event);
        }
    }

    /// Where events run.
    pub fn places(&self) -> HashMap<EventId, NodeName> {
        let places = self.owner.places().map(|(event, node)| (event, node.clone()));
        places.collect()
    }

    /// The thread for what is to be awaited.
    pub fn thread(&self) -> ArbiterHandle {
        self.thread.handle()
    }

    /// The queue of a listener of the line.
    pub fn concurrency_id(&self, listener: &str) -> Option<&Id> {
        let listener = self.blueprint.listeners.iter().find(|it| *it.api_name == *listener)?;
        Some(&listener.concurrency_id)
    }

    /// A run is to be placed, or may be going on.
    pub fn place(&mut self, now: Instant, placing: Placing, out: &mut Out) {
        let Placing { listener, events, results } = placing;
        let mut fresh = Vec::new();
        for event in events {
            let attempt = event.attempt();
            let waiting = Waiting { results: results.clone(), updates: event.updates.clone() };
            if let Some(result) = self.results.remove(&attempt) {
                self.deliver(attempt, waiting, result);
            } else {
                self.waiting.insert(attempt, waiting);
                if !(event.adopts && self.owner.knows(attempt)) {
                    fresh.push(event);
                } else {
                    // It may not have been taken, and is to be sent again then.
                    self.orders.insert(attempt, order(&listener.api_name, [&event]));
                }
            }
        }
        if !fresh.is_empty() {
            let unplaced = Unplaced {
                events: fresh,
                listener: listener.api_name.clone(),
                stays: listener.stays,
            };
            self.unplaced.entry(listener.concurrency_id).or_default().push_back(unplaced);
        }
        self.place_next(now, out);
    }

    fn deliver(&mut self, attempt: Attempt, waiting: Waiting, result: RunResult) {
        // Who waited may have gone.
        let _ = waiting.results.send((attempt.event, result));
    }

    /// A node has said which permits it holds, since it knows of this claim.
    pub fn has_said_permits(&mut self, node: &NodeName) {
        if let Some(census) = &mut self.census {
            census.permits(node);
        }
    }

    /// Whether it is known what is held.
    pub fn is_open(&self) -> bool {
        self.census.is_none()
    }

    /// This is for when the line is open.
    pub fn put_off(&mut self, from: Process, message: Message) {
        self.later.push((from, message));
    }

    /// Opens the line once all have said what they hold: gives what was asked for until then.
    pub fn open_if_known(
        &mut self,
        now: Instant,
        this: &NodeName,
        present: &Present,
    ) -> Vec<(Process, Message)> {
        let Some(census) = &mut self.census else { return Vec::new() };
        if !census.is_over(now, this, present) {
            debug!("the line waits for {:?}", census.missing().collect::<Vec<_>>());
            return Vec::new();
        }
        debug!("the line is open");
        self.census = None;
        self.tell_capacity(now);
        std::mem::take(&mut self.later)
    }

    /// Tells the line how much room there is on all nodes.
    fn tell_capacity(&mut self, now: Instant) {
        if self.census.is_some() {
            return;
        }
        for id in &self.queue.inner().ids {
            let capacity = self.owner.capacity(now, &id.name);
            if self.capacity.insert(id.name.clone(), capacity) != Some(capacity) {
                let supervisor = id.supervisor.clone();
                // On the thread that asks it for permits which are held already: behind them.
                self.thread.spawn(async move { supervisor.do_send(SetCapacity(capacity)) });
            }
        }
    }

    /// Places what can be placed.
    fn place_next(&mut self, now: Instant, out: &mut Out) {
        let Office { unplaced, owner, orders, riders, .. } = self;
        for (id, runs) in unplaced.iter_mut() {
            // One that has to go to a certain node doesn't keep those behind it from others.
            let mut stay = VecDeque::new();
            while let Some(run) = runs.pop_front() {
                let Some(first) = run.events.first() else { continue };
                let wish = match &first.from {
                    Some(from) if run.stays => Wish::Only(from),
                    Some(from) => Wish::Rather(from),
                    None => Wish::Any,
                };
                if !owner.place(now, first.attempt(), id, wish) {
                    let is_bound = matches!(wish, Wish::Only(_));
                    stay.push_back(run);
                    if is_bound {
                        continue;
                    }
                    break;
                }
                let attempt = first.attempt();
                riders.extend(run.events.iter().skip(1).map(|rider| (rider.attempt(), attempt)));
                orders.insert(attempt, order(&run.listener, &run.events));
            }
            stay.append(runs);
            *runs = stay;
        }
        self.unplaced.retain(|_, runs| !runs.is_empty());
        self.perform(out);
    }

    /// A run isn't wanted any more.
    pub fn interrupt(&mut self, now: Instant, attempt: Attempt, out: &mut Out) {
        let is_unplaced = |run: &Unplaced| run.events.iter().any(|it| it.attempt() == attempt);
        let unplaced = self.unplaced.values_mut().find_map(|runs| {
            let at = runs.iter().position(is_unplaced)?;
            runs.remove(at)
        });
        if let Some(run) = unplaced {
            for event in run.events {
                self.resolve(event.attempt(), &RunResult::Stopped);
            }
        }
        self.owner.interrupt(attempt);
        self.place_next(now, out);
    }

    /// A node is there.
    pub fn hear(&mut self, now: Instant, mut beat: Beat, out: &mut Out) {
        let known = self.boots.entry(beat.from.node.clone()).or_default();
        *known = beat.from.boot.max(*known);
        beat.running.retain(|attempt| !self.riders.contains_key(attempt));
        if let Some(census) = &mut self.census {
            census.beat(&beat.from.node);
        }
        self.owner.recorded(self.last_kept.began());
        self.owner.hear(now, beat);
        self.tell_capacity(now);
        self.place_next(now, out);
    }

    pub fn handle_timeout(&mut self, now: Instant, out: &mut Out) {
        let Office { permits, owner, .. } = self;
        permits.retain(|process| owner.may_hold(now, process));
        self.owner.recorded(self.last_kept.began());
        if self.owner.next_timeout().is_some_and(|due| due <= now) {
            self.owner.handle_timeout(now);
        }
        self.tell_capacity(now);
        let due: Vec<_> = self.unrecorded.extract_if(.., |(due, ..)| *due <= now).collect();
        for (_, attempt, process) in due {
            self.record_start(attempt, &process);
        }
        let due: Vec<_> = self.settling.extract_if(.., |(due, _)| *due <= now).collect();
        for (_, attempt) in due {
            let (input, epoch) = (self.input.clone(), self.epoch);
            self.append(attempt, Vec::new(), move |result| {
                let _ = input.send(AgentInput::Settled(epoch, attempt, result));
            });
        }
        self.place_next(now, out);
    }

    /// What is on record of an attempt without an end is on its way no more.
    pub fn settled(
        &mut self,
        now: Instant,
        attempt: Attempt,
        result: Result<(), JournalError>,
        out: &mut Out,
    ) {
        match result {
            Ok(()) => {}
            Err(trouble) if trouble.is_final() => return,
            // Whether it is on its way still isn't known.
            Err(_) => return self.settling.push((now + AGAIN, attempt)),
        }
        self.owner.end_recorded(attempt);
        self.perform(out);
        // Where its event runs again already, the owner knows of that run only.
        self.forget(attempt);
    }

    fn append(
        &self,
        attempt: Attempt,
        records: Vec<Record>,
        done: impl FnOnce(Result<(), JournalError>) + Send + 'static,
    ) {
        let listener = self.orders.get(&attempt).map(|order| &order.listener);
        let id = listener.and_then(|listener| self.concurrency_id(listener)).cloned();
        let concurrency_id = id.unwrap_or_else(|| "".into());
        self.journal.append(Batch { concurrency_id, records: Arc::new(records) }, Box::new(done));
    }

    fn record_start(&mut self, attempt: Attempt, process: &Process) {
        let Some(order) = self.orders.get(&attempt) else { return };
        let place: Arc<str> = process.to_string().into();
        let record = |event: &OrderedEvent| Record::Started {
            event: event.event,
            attempt: event.attempt,
            place: Some(place.clone()),
        };
        let records = order.events.iter().map(record).collect();
        let (input, epoch, process) = (self.input.clone(), self.epoch, process.clone());
        self.append(attempt, records, move |result| {
            let _ = input.send(AgentInput::StartRecorded(epoch, attempt, process, result));
        });
    }

    /// Whether a start is on record.
    pub fn start_recorded(
        &mut self,
        now: Instant,
        attempt: Attempt,
        process: Process,
        result: Result<(), JournalError>,
        out: &mut Out,
    ) {
        match result {
            Ok(()) => {
                self.owner.recorded(self.last_kept.began());
                self.owner.start_recorded(now, attempt);
                self.perform(out);
            }
            Err(trouble) if trouble.is_final() => {}
            Err(trouble) => {
                warn!("the start of event {} can't be recorded: {trouble}", attempt.event);
                self.unrecorded.push((now + AGAIN, attempt, process));
            }
        }
    }

    /// What came of a run.
    pub fn report(&mut self, now: Instant, report: Report<RunEnd>, out: &mut Out) {
        let Report { from, attempt, result } = report;
        // Of a batch that an earlier owner has placed, each event stands for itself.
        let mut together = RunEnd { events: Vec::new() };
        for end in result.events {
            let own = end.attempt();
            if own != attempt && self.owner.knows(own) {
                let result = RunEnd { events: vec![end] };
                self.owner.report(Report { from: from.clone(), attempt: own, result });
            } else {
                together.events.push(end);
            }
        }
        self.owner.report(Report { from, attempt, result: together });
        self.perform(out);
        self.place_next(now, out);
    }

    /// A handler says something of its event.
    pub fn said(&mut self, attempt: Attempt, event: EventId, said: Said) {
        let attempt_of = |(rider, first): (&Attempt, &Attempt)| {
            (*first == attempt && rider.event == event).then_some(*rider)
        };
        let own = if event == attempt.event {
            Some(attempt)
        } else {
            self.riders.iter().find_map(attempt_of)
        };
        let waiting = own.and_then(|own| self.waiting.get(&own));
        let Some(updates) = waiting.and_then(|waiting| waiting.updates.as_ref()) else { return };
        if let Some(update) = super::tracked::update_of(event, said) {
            updates.send(|_| update);
        }
    }

    /// An event has ended, and that is on record.
    pub fn ended(&mut self, now: Instant, event: EventId, out: &mut Out) {
        self.owner.ended(event);
        // Nobody will wait for them any more.
        self.results.retain(|attempt, _| attempt.event != event);
        let Some(attempt) = self.ending.remove(&event) else { return };
        let Some(open) = self.open.get_mut(&attempt) else { return };
        *open -= 1;
        if *open == 0 {
            self.open.remove(&attempt);
            self.owner.end_recorded(attempt);
            self.place_next(now, out);
        }
    }

    fn resolve(&mut self, attempt: Attempt, result: &RunResult) {
        match self.waiting.remove(&attempt) {
            Some(waiting) => self.deliver(attempt, waiting, result.clone()),
            None if self.tracked.goes_on(attempt.event) => {
                self.results.insert(attempt, result.clone());
            }
            None => {}
        }
    }

    /// The attempts of a run.
    fn attempts(&self, attempt: Attempt) -> Vec<Attempt> {
        match self.orders.get(&attempt) {
            Some(order) => order.events.iter().map(OrderedEvent::attempt).collect(),
            None => vec![attempt],
        }
    }

    fn forget(&mut self, attempt: Attempt) {
        for attempt in self.attempts(attempt) {
            self.riders.remove(&attempt);
        }
        self.orders.remove(&attempt);
    }

    fn perform(&mut self, out: &mut Out) {
        while let Some(effect) = self.owner.poll_effect() {
            match effect {
                OwnerEffect::RecordStart(attempt, process) => self.record_start(attempt, &process),
                OwnerEffect::Again { attempt, has_begun } => {
                    let lost = if has_begun { Lost::MayHaveBegun } else { Lost::HasNotBegun };
                    for own in self.attempts(attempt) {
                        self.resolve(own, &RunResult::Lost(lost));
                    }
                    self.forget(attempt);
                }
                OwnerEffect::RecordEnd(attempt, end) => self.end(attempt, end),
                // The journal does so by itself.
                OwnerEffect::Renew => {}
                OwnerEffect::Send(node, word) => self.send(&node, word, out),
                OwnerEffect::Ended(attempt) => self.forget(attempt),
                OwnerEffect::Stopped(attempt) => {
                    for own in self.attempts(attempt) {
                        self.resolve(own, &RunResult::Stopped);
                    }
                    self.forget(attempt);
                }
            }
        }
    }

    fn end(&mut self, attempt: Attempt, end: RunEnd) {
        let (mut is_postponed, mut is_over) = (false, false);
        let mut open = HashSet::new();
        for end in end.events {
            is_postponed |= end.transient.is_some();
            // Its node has stopped it by itself.
            is_over |= matches!(end.end, End::Cancelled | End::Stopped);
            if self.tracked.goes_on(end.event) {
                open.insert(end.event);
            }
            self.resolve(end.attempt(), &RunResult::Ended(end));
        }
        if is_over {
            self.owner.over(attempt);
            self.forget(attempt);
        } else if is_postponed || open.is_empty() {
            self.settling.push((crate::clock::now() + SETTLE, attempt));
        } else {
            self.open.insert(attempt, open.len());
            self.ending.extend(open.into_iter().map(|event| (event, attempt)));
        }
    }

    fn send(&mut self, node: &NodeName, word: FromOwner, out: &mut Out) {
        let Some(boot) = self.boots.get(node) else { return };
        let process = Process { node: node.clone(), boot: *boot };
        let order = match &word.word {
            Word::Run { attempt, .. } => match self.orders.get(attempt) {
                Some(order) => Some(Box::new(order.clone())),
                // Who waits for it has not come yet.
                None => return,
            },
            _ => None,
        };
        let told = self.tracked.told_to(&process);
        out.push((To::Process(process), Message::Word { word, order, told }));
    }
}

fn order<'a>(listener: &Arc<str>, events: impl IntoIterator<Item = &'a PlacedEvent>) -> Order {
    let ordered = |event: &PlacedEvent| OrderedEvent {
        event: event.event,
        attempt: event.attempt,
        input: event.input.clone(),
        session: event.session.clone(),
        user: event.user.clone(),
    };
    Order { listener: listener.clone(), events: events.into_iter().map(ordered).collect() }
}

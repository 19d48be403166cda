//! Four nodes, a record and a network in virtual time. Messages are lost, doubled and late; nodes die, freeze and
//! wake; the network is cut; the record is away, slow, and loses answers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};

use super::books::{self, Record};
use super::weather::Trouble::{Away, Crash, Cut, Election, Freeze, NoRecord};
use super::weather::Weather;
use crate::cluster::member::{Member, MemberEffect};
use crate::cluster::message::{
    Attempt, Beat, FromOwner, Id, NodeName, Process, Report, Slots, Times, Word,
};
use crate::cluster::owner::{Owner, OwnerEffect, Wish};
use crate::cluster::ownership::Candidate;
use crate::cluster::rules::Rule;
use crate::event::id::EventId;

/// The concurrency id of it all.
fn id() -> Id {
    "gpu".into()
}

const NODES: usize = 4;
const LIMIT: usize = 2;
const SLOTS: usize = 2;

/// Until then there is trouble.
const TROUBLED: Duration = Duration::from_secs(65);

/// By then everything must have ended.
const END: Duration = Duration::from_secs(600);

/// So long after it woke, a frozen process may take to notice that its lease has ended.
const GRACE: Duration = Duration::from_millis(200);

/// How long an append waits for its answer.
const ANSWER: Duration = Duration::from_secs(1);

/// What a handler gives.
type Output = u32;

#[derive(Clone, Debug)]
enum Message {
    Admit(EventId),
    Beat(Beat),
    Report(Report<Output>),
    FromOwner(FromOwner),
}

#[derive(Clone, Debug)]
enum Answer {
    Kept(usize),
    Stale,
    Refused,
    Lost,
}

#[derive(Debug)]
enum Act {
    Tick,
    Timer,
    Answered { id: u64, answer: Answer },
    Finish(Attempt),
    Stopped(Attempt),
    Notice,
}

#[derive(Debug)]
enum Happening {
    /// What happens to a process of a boot; while it is frozen, it waits.
    At(usize, u64, Act),
    /// A message is for whatever process has the name of a node by then.
    Deliver(usize, Message),
    /// An append reaches the record, whatever has become of the process.
    Arrive {
        n: usize,
        boot: u64,
        expected: usize,
        id: u64,
        record: Record,
    },
    Submit(EventId),
    Trouble,
    Uncut,
    Back(usize),
    Wake(usize, u64),
    Heal,
}

/// What an owner has besides its machine: the line, and what is to be recorded.
struct Office {
    owner: Owner<Output>,
    queue: VecDeque<EventId>,
    /// The last start of each event that was admitted.
    attempts: BTreeMap<EventId, u32>,
    admitting: BTreeSet<EventId>,
    pending: VecDeque<(u64, Record)>,
    on_its_way: Option<(u64, Record, Instant)>,
    last: usize,
}

struct Node {
    is_up: bool,
    is_frozen: bool,
    boot: u64,
    member: Member<Output>,
    candidate: Candidate,
    office: Option<Office>,
    claiming: Option<(u64, Instant)>,
    /// Runs, and whether it may be that one hasn't been noticed to have no lease any more.
    running: BTreeMap<Attempt, bool>,
    timer: Option<Instant>,
}

pub(super) struct World {
    random: SmallRng,
    weather: Weather,
    left_out: Option<Rule>,
    begin: Instant,
    now: Instant,
    /// By nanoseconds since the beginning, and then by number. As they are, they can be compared and moved quickly
    /// where nothing is optimized.
    happenings: BTreeMap<u128, Box<Happening>>,
    next: u64,
    nodes: Vec<Node>,
    log: Vec<(u64, Record)>,
    /// Nodes of one side, and of the other, that don't hear each other.
    cut: [BTreeSet<usize>; 2],
    /// Nodes that don't reach the record.
    without_log: BTreeSet<usize>,
    log_away_until: Instant,
    started: BTreeSet<(usize, u64, Attempt)>,
    /// Ends in the record.
    ended: u64,
    pub starts: usize,
    pub claims: usize,
}

fn name(n: usize) -> NodeName {
    format!("n{n}").into()
}

fn number(name: &NodeName) -> usize {
    name[1..].parse().expect("it has one")
}

impl World {
    pub fn new(seed: u64, weather: Weather, left_out: Option<Rule>) -> Self {
        let begin = Instant::now();
        let mut world = World {
            random: SmallRng::seed_from_u64(seed),
            weather,
            left_out,
            begin,
            now: begin,
            happenings: BTreeMap::new(),
            next: 0,
            nodes: Vec::new(),
            log: Vec::new(),
            cut: Default::default(),
            without_log: BTreeSet::new(),
            log_away_until: begin,
            started: BTreeSet::new(),
            ended: 0,
            starts: 0,
            claims: 0,
        };
        for n in 0..NODES {
            let node = world.boot(n, 1);
            world.nodes.push(node);
            let first = world.within(0.0, 1.0);
            world.at(first, Happening::At(n, 1, Act::Tick));
        }
        for event in 0..weather.events {
            let then = world.within(0.0, 60.0);
            world.at(then, Happening::Submit(EventId::for_test(event.into())));
        }
        for _ in 0..weather.troubles {
            let then = world.within(5.0, 60.0);
            world.at(then, Happening::Trouble);
        }
        world.at(TROUBLED, Happening::Heal);
        world
    }

    fn boot(&self, n: usize, boot: u64) -> Node {
        let process = Process { node: name(n), boot };
        let mut member = Member::new(Times::default(), process, Slots::from([(id(), SLOTS)]));
        member.left_out = self.left_out;
        Node {
            is_up: true,
            is_frozen: false,
            boot,
            member,
            candidate: Candidate::new(Times::default(), name(n), self.now),
            office: None,
            claiming: None,
            running: BTreeMap::new(),
            timer: None,
        }
    }

    fn leaves_out(&self, rule: Rule) -> bool {
        self.left_out == Some(rule)
    }

    fn within(&mut self, from: f64, to: f64) -> Duration {
        Duration::from_secs_f64(self.random.random_range(from..to))
    }

    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    /// About so long, seldom much longer.
    fn about(&mut self, mean: f64) -> Duration {
        let even: f64 = self.random.random_range(0.0001..1.0);
        Duration::from_secs_f64(-even.ln() * mean)
    }

    fn at(&mut self, later: Duration, happening: Happening) {
        let then = (self.now - self.begin + later).as_nanos();
        let key = (then << 64) | u128::from(self.id());
        self.happenings.insert(key, Box::new(happening));
    }

    /// Until all has ended, or its time is over.
    pub fn run(mut self) -> Self {
        while let Some((key, happening)) = self.happenings.pop_first() {
            let then = Duration::from_nanos((key >> 64) as u64);
            self.now = self.begin + then;
            if then > END {
                break;
            }
            self.happen(*happening);
            if then > TROUBLED + Duration::from_secs(1) && self.all_ended() {
                break;
            }
        }
        let records = self.log.iter().map(|(_, record)| record);
        books::check(records, self.weather.events, !self.leaves_out(Rule::RecordedStart));
        self
    }

    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::At(n, boot, act) => {
                let node = &self.nodes[n];
                if !node.is_up || node.boot != boot {
                    return;
                }
                if node.is_frozen {
                    let soon = Duration::from_millis(50);
                    return self.at(soon, Happening::At(n, boot, act));
                }
                self.act(n, act);
                self.settle(n);
            }
            Happening::Deliver(n, message) => {
                if self.nodes[n].is_frozen {
                    let soon = Duration::from_millis(50);
                    return self.at(soon, Happening::Deliver(n, message));
                }
                if self.nodes[n].is_up {
                    self.deliver(n, message);
                    self.settle(n);
                }
            }
            Happening::Arrive { n, boot, expected, id, record } => {
                self.arrive(n, boot, expected, id, record);
            }
            Happening::Submit(event) => self.submit(event),
            Happening::Trouble => self.trouble(),
            Happening::Uncut => self.uncut(),
            Happening::Back(n) => self.back(n),
            Happening::Wake(n, boot) => self.wake(n, boot),
            Happening::Heal => {
                self.uncut();
                self.log_away_until = self.now;
                for n in 0..NODES {
                    self.wake(n, self.nodes[n].boot);
                    self.back(n);
                }
            }
        }
    }

    fn act(&mut self, n: usize, act: Act) {
        let now = self.now;
        match act {
            Act::Tick => {
                let next = self.within(0.9, 1.1);
                self.at(next, Happening::At(n, self.nodes[n].boot, Act::Tick));
                self.nodes[n].member.beat(now);
                let node = &mut self.nodes[n];
                if let Some(office) = &mut node.office {
                    office.owner.handle_timeout(now);
                } else if node.claiming.is_none() && now >= node.candidate.claims_at("gpu", now) {
                    self.claim(n);
                }
            }
            Act::Timer => {
                self.nodes[n].timer = None;
                self.nodes[n].member.handle_timeout(now);
                if let Some(office) = &mut self.nodes[n].office {
                    office.owner.handle_timeout(now);
                }
            }
            Act::Answered { id, answer } => self.answered(n, id, answer),
            Act::Finish(attempt) => {
                if self.nodes[n].running.remove(&attempt).is_some() {
                    self.nodes[n].member.finished(now, attempt, attempt.number);
                }
            }
            Act::Stopped(attempt) => {
                self.nodes[n].running.remove(&attempt);
                self.nodes[n].member.has_stopped(attempt);
            }
            Act::Notice => {
                self.nodes[n].member.handle_timeout(now);
                self.nodes[n].running.values_mut().for_each(|excused| *excused = false);
                self.check_limit();
            }
        }
    }

    // The network.

    fn send(&mut self, from: usize, to: usize, message: Message) {
        if from == to {
            return self.at(Duration::ZERO, Happening::Deliver(to, message));
        }
        let [one, other] = &self.cut;
        let parted = (one.contains(&from) && other.contains(&to))
            || (other.contains(&from) && one.contains(&to));
        if parted || self.chance(self.weather.lost) {
            return;
        }
        let copies = if self.chance(self.weather.doubled) { 2 } else { 1 };
        for _ in 0..copies {
            let (percent, late) = self.weather.late;
            let late = if self.chance(percent) { late } else { 1 };
            let later = self.about(0.01) * late;
            self.at(later, Happening::Deliver(to, message.clone()));
        }
    }

    fn send_all(&mut self, from: usize, message: &Message) {
        for to in 0..NODES {
            self.send(from, to, message.clone());
        }
    }

    fn deliver(&mut self, n: usize, message: Message) {
        let now = self.now;
        let node = &mut self.nodes[n];
        match message {
            Message::Admit(event) => self.admit(n, event),
            Message::Beat(beat) => {
                node.candidate.hear(beat.from.node.clone(), now);
                if let Some(office) = &mut node.office {
                    office.owner.hear(now, beat);
                }
            }
            Message::Report(report) => {
                if let Some(office) = &mut node.office {
                    office.owner.report(report);
                }
            }
            Message::FromOwner(word) => {
                let acknowledges = matches!(word.word, Word::Acknowledge { .. });
                if acknowledges && word.epoch >= node.member.epoch() {
                    node.candidate.hear_owner(now);
                }
                if node.office.as_ref().is_some_and(|it| it.owner.epoch() < word.epoch) {
                    node.office = None;
                }
                node.member.hear(now, word);
            }
        }
    }

    // The record.

    fn append(&mut self, n: usize, expected: usize, id: u64, record: Record) {
        let (percent, slow) = self.weather.slow;
        let slow = if self.chance(percent) { slow } else { 1 };
        let there = self.about(0.005) * slow;
        let boot = self.nodes[n].boot;
        // It is on its way, whatever becomes of the process.
        let then = self.now + there;
        if self.without_log.contains(&n) || then < self.log_away_until {
            let lost = Act::Answered { id, answer: Answer::Lost };
            return self.at(there + ANSWER, Happening::At(n, boot, lost));
        }
        self.at(there, Happening::Arrive { n, boot, expected, id, record });
    }

    fn arrive(&mut self, n: usize, boot: u64, expected: usize, id: u64, record: Record) {
        let back = self.about(0.005);
        if expected != self.log.len() && !self.leaves_out(Rule::Fence) {
            let stale = Act::Answered { id, answer: Answer::Stale };
            return self.at(back, Happening::At(n, boot, stale));
        }
        if self.chance(self.weather.refused) {
            let refused = Act::Answered { id, answer: Answer::Refused };
            return self.at(back, Happening::At(n, boot, refused));
        }
        if record == Record::Claim {
            self.claims += 1;
        }
        self.ended += u64::from(matches!(record, Record::End(_)));
        self.log.push((id, record));
        let kept = Answer::Kept(self.log.len());
        let (wait, answer) = if self.chance(2) { (ANSWER, Answer::Lost) } else { (back, kept) };
        self.at(wait, Happening::At(n, boot, Act::Answered { id, answer }));
    }

    fn claim(&mut self, n: usize) {
        let id = self.id();
        self.nodes[n].claiming = Some((id, self.now));
        self.append(n, self.log.len(), id, Record::Claim);
    }

    fn id(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn answered(&mut self, n: usize, id: u64, answer: Answer) {
        if let Some((claim, began)) = self.nodes[n].claiming
            && claim == id
        {
            self.nodes[n].claiming = None;
            if let Answer::Kept(sequence) = answer {
                self.take_office(n, sequence, began);
            }
            return;
        }
        let Some(office) = &mut self.nodes[n].office else { return };
        let Some((expected, record, began)) = office.on_its_way.clone() else { return };
        if expected != id {
            return;
        }
        match answer {
            Answer::Kept(sequence) => self.kept(n, sequence, record, began),
            Answer::Stale => self.leave_office(n),
            Answer::Refused => self.refused(n, record),
            Answer::Lost if self.without_log.contains(&n) || self.now < self.log_away_until => {
                let wait = Duration::from_millis(500);
                let again = Act::Answered { id, answer: Answer::Lost };
                self.at(wait, Happening::At(n, self.nodes[n].boot, again));
            }
            // Nobody knows: the record says what stands there.
            Answer::Lost => match self.log.get(office.last) {
                Some((kept, _)) if *kept == id => {
                    let sequence = office.last + 1;
                    self.kept(n, sequence, record, began);
                }
                Some(_) => self.leave_office(n),
                None => {
                    let last = office.last;
                    office.on_its_way = Some((id, record.clone(), self.now));
                    self.append(n, last, id, record);
                }
            },
        }
    }

    fn leave_office(&mut self, n: usize) {
        self.nodes[n].office = None;
        self.nodes[n].candidate.hear_owner(self.now);
    }

    fn take_office(&mut self, n: usize, sequence: usize, began: Instant) {
        let (mut queue, mut attempts) = (VecDeque::new(), BTreeMap::new());
        let mut running: BTreeMap<EventId, (Attempt, Process)> = BTreeMap::new();
        for (_, record) in &self.log[..sequence] {
            match record {
                Record::Admit(event) => {
                    queue.push_back(*event);
                    attempts.insert(*event, 0);
                }
                Record::Start(attempt, process) => {
                    queue.retain(|event| *event != attempt.event);
                    attempts.insert(attempt.event, attempt.number);
                    running.insert(attempt.event, (*attempt, process.clone()));
                }
                Record::End(attempt) => {
                    running.remove(&attempt.event);
                    queue.retain(|event| *event != attempt.event);
                }
                Record::Claim | Record::Renew => {}
            }
        }
        if self.leaves_out(Rule::Adoption) {
            running.keys().for_each(|event| queue.push_front(*event));
            running.clear();
        }
        let runs = running.into_values().map(|(attempt, process)| (attempt, id(), process));
        let epoch = u64::try_from(sequence).expect("it is short");
        let mut owner = Owner::new(Times::default(), epoch, began, self.now, runs);
        owner.left_out = self.left_out;
        self.nodes[n].candidate.hear_owner(self.now);
        self.nodes[n].office = Some(Office {
            owner,
            queue,
            attempts,
            admitting: BTreeSet::new(),
            pending: VecDeque::new(),
            on_its_way: None,
            last: sequence,
        });
    }

    fn write(&mut self, n: usize, record: Record) {
        let id = self.id();
        if let Some(office) = &mut self.nodes[n].office {
            office.pending.push_back((id, record));
        }
    }

    fn flush(&mut self, n: usize) {
        let now = self.now;
        let Some(office) = &mut self.nodes[n].office else { return };
        if office.on_its_way.is_some() {
            return;
        }
        let Some((id, record)) = office.pending.pop_front() else { return };
        office.on_its_way = Some((id, record.clone(), now));
        let last = office.last;
        self.append(n, last, id, record);
    }

    /// As a recorder does: what is not an admission is tried again, before what has come since.
    fn refused(&mut self, n: usize, record: Record) {
        let id = self.id();
        let Some(office) = &mut self.nodes[n].office else { return };
        office.on_its_way = None;
        match record {
            // Its client submits it again.
            Record::Admit(event) => drop(office.admitting.remove(&event)),
            record => office.pending.push_front((id, record)),
        }
    }

    fn kept(&mut self, n: usize, sequence: usize, record: Record, began: Instant) {
        let now = self.now;
        let Some(office) = &mut self.nodes[n].office else { return };
        office.last = sequence;
        office.on_its_way = None;
        office.owner.recorded(began);
        match record {
            Record::Admit(event) => {
                office.admitting.remove(&event);
                office.attempts.insert(event, 0);
                office.queue.push_back(event);
            }
            Record::Start(attempt, _) => office.owner.start_recorded(now, attempt),
            Record::End(attempt) => office.owner.end_recorded(attempt),
            Record::Claim | Record::Renew => {}
        }
    }

    // The owner and the nodes.

    fn admit(&mut self, n: usize, event: EventId) {
        let Some(office) = &mut self.nodes[n].office else { return };
        if office.attempts.contains_key(&event) || !office.admitting.insert(event) {
            return;
        }
        self.write(n, Record::Admit(event));
    }

    /// Does what the machines of a node want done.
    fn settle(&mut self, n: usize) {
        loop {
            if let Some(effect) = self.nodes[n].member.poll_effect() {
                self.perform(n, effect);
                continue;
            }
            let Some(office) = &mut self.nodes[n].office else { break };
            if let Some(effect) = office.owner.poll_effect() {
                self.perform_office(n, effect);
                continue;
            }
            if !self.place_next(n) {
                break;
            }
        }
        self.flush(n);
        self.set_timer(n);
    }

    fn place_next(&mut self, n: usize) -> bool {
        let now = self.now;
        let Some(office) = &mut self.nodes[n].office else { return false };
        if office.owner.running() >= LIMIT || !office.owner.can_place(now, &id()) {
            return false;
        }
        let Some(event) = office.queue.pop_front() else { return false };
        let number = office.attempts.get(&event).copied().unwrap_or(0) + 1;
        office.attempts.insert(event, number);
        office.owner.place(now, Attempt { event, number }, &id(), Wish::Any)
    }

    fn perform(&mut self, n: usize, effect: MemberEffect<Output>) {
        match effect {
            MemberEffect::Beat(beat) => self.send_all(n, &Message::Beat(beat)),
            MemberEffect::Report(report) => self.send_all(n, &Message::Report(report)),
            MemberEffect::Start(attempt) => {
                let boot = self.nodes[n].boot;
                let fresh = self.started.insert((n, boot, attempt));
                assert!(fresh, "{attempt:?} starts twice on one node");
                self.starts += 1;
                self.nodes[n].running.insert(attempt, false);
                let took = self.weather.runs.choose(&mut self.random).copied();
                let took = Duration::from_secs_f64(took.unwrap_or(1.0));
                self.at(took, Happening::At(n, boot, Act::Finish(attempt)));
                self.check_limit();
            }
            MemberEffect::Stop(attempt) => {
                let unwinding = self.within(0.0, 0.1);
                let boot = self.nodes[n].boot;
                self.at(unwinding, Happening::At(n, boot, Act::Stopped(attempt)));
            }
        }
    }

    fn perform_office(&mut self, n: usize, effect: OwnerEffect<Output>) {
        let now = self.now;
        match effect {
            OwnerEffect::RecordStart(attempt, _) if self.leaves_out(Rule::RecordedStart) => {
                if let Some(office) = &mut self.nodes[n].office {
                    office.owner.start_recorded(now, attempt);
                }
            }
            OwnerEffect::RecordStart(attempt, process) => {
                self.write(n, Record::Start(attempt, process));
            }
            OwnerEffect::RecordEnd(attempt, output) => {
                assert_eq!(output, attempt.number, "it is what its run gave");
                self.write(n, Record::End(attempt));
            }
            OwnerEffect::Renew => self.write(n, Record::Renew),
            OwnerEffect::Send(node, word) => {
                self.send(n, number(&node), Message::FromOwner(word));
            }
            OwnerEffect::Again { attempt, .. } => {
                if let Some(office) = &mut self.nodes[n].office {
                    office.queue.push_front(attempt.event);
                }
            }
            OwnerEffect::Ended(_) | OwnerEffect::Stopped(_) => {}
        }
    }

    fn set_timer(&mut self, n: usize) {
        let node = &self.nodes[n];
        let owner = node.office.as_ref().and_then(|office| office.owner.next_timeout());
        let due = node.member.next_timeout().into_iter().chain(owner).min();
        let Some(due) = due.filter(|due| node.timer.is_none_or(|set| *due < set)) else { return };
        self.nodes[n].timer = Some(due);
        // A machine that is busy is late.
        let late = self.within(0.0, 0.2);
        let wait = due.saturating_duration_since(self.now) + late;
        self.at(wait, Happening::At(n, self.nodes[n].boot, Act::Timer));
    }

    // Clients and troubles.

    fn submit(&mut self, event: EventId) {
        let accepted = self.log.iter().any(|(_, record)| *record == Record::Admit(event));
        if accepted {
            return;
        }
        let n = self.random.random_range(0..NODES);
        if self.nodes[n].is_up && !self.nodes[n].is_frozen {
            self.send_all(n, &Message::Admit(event));
        }
        self.at(Duration::from_secs(2), Happening::Submit(event));
    }

    fn trouble(&mut self) {
        let mut n = self.random.random_range(0..NODES);
        if self.chance(50) {
            n = self.nodes.iter().position(|node| node.office.is_some()).unwrap_or(n);
        }
        let long = self.weather.lasting.choose(&mut self.random).copied().unwrap_or(1);
        let long = Duration::from_secs(long);
        let node = &mut self.nodes[n];
        match self.weather.kinds.choose(&mut self.random) {
            Some(Crash) if node.is_up => {
                node.is_up = false;
                node.running.clear();
                self.at(long, Happening::Back(n));
            }
            Some(Freeze) if node.is_up => {
                node.is_frozen = true;
                let boot = node.boot;
                self.at(long, Happening::Wake(n, boot));
            }
            Some(Cut) => {
                let count = self.random.random_range(1..NODES);
                let mut one = BTreeSet::new();
                while one.len() < count {
                    one.insert(self.random.random_range(0..NODES));
                }
                let other = (0..NODES).filter(|n| !one.contains(n)).collect();
                self.without_log = if self.chance(70) { one.clone() } else { BTreeSet::new() };
                self.cut = [one, other];
                self.at(long, Happening::Uncut);
            }
            Some(NoRecord) => {
                self.without_log = BTreeSet::from([n]);
                self.at(long, Happening::Uncut);
            }
            Some(Election) => self.log_away_until = self.now + Duration::from_millis(4300),
            Some(Away) => self.log_away_until = self.now + long,
            Some(Crash | Freeze) | None => {}
        }
    }

    fn uncut(&mut self) {
        self.cut = Default::default();
        self.without_log.clear();
    }

    fn back(&mut self, n: usize) {
        if self.nodes[n].is_up {
            return;
        }
        let boot = self.nodes[n].boot + 1;
        self.nodes[n] = self.boot(n, boot);
        self.at(Duration::ZERO, Happening::At(n, boot, Act::Tick));
    }

    fn wake(&mut self, n: usize, boot: u64) {
        let now = self.now;
        let node = &mut self.nodes[n];
        if node.boot != boot || !node.is_frozen {
            return;
        }
        node.is_frozen = false;
        let is_over = node.member.next_timeout().is_some_and(|ends| now >= ends);
        node.running.values_mut().for_each(|excused| *excused = is_over);
        self.check_limit();
        self.at(GRACE, Happening::At(n, boot, Act::Notice));
    }

    // The books.

    fn check_limit(&self) {
        let on = |node: &&Node| node.is_up && !node.is_frozen;
        let running = self.nodes.iter().filter(on).flat_map(|node| &node.running);
        let counted: Vec<EventId> =
            running.filter(|(_, excused)| !**excused).map(|(attempt, _)| attempt.event).collect();
        assert!(counted.len() <= LIMIT, "{} run at once", counted.len());
        let twice = counted.iter().enumerate().any(|(n, event)| counted[..n].contains(event));
        assert!(!twice, "an event runs twice at once");
    }

    fn all_ended(&self) -> bool {
        self.ended >= self.weather.events
    }
}

//! What a node does of its own accord, and what it answers: one task, which takes one thing after another.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;

use super::admitting;
use super::answers;
use super::census::{Census, Present};
use super::frame::Envelope;
use super::front::Front;
use super::granting;
use super::input::{Input, Kept};
use super::keeping::{Claiming, Due};
use super::office::Office;
use super::out::{Out, To};
use super::permits::Permits;
use super::post::Post;
use super::runs::Runs;
use super::tracked::Known;
use super::wire::{Answer, Message, Question};
use crate::clock;
use crate::cluster::handle::ClusterHandle;
use crate::cluster::message::{Epoch, Process, Times};
use crate::cluster::ownership::{Candidate, SILENCE};
use crate::journal::error::JournalError;
use crate::logging::{info, warn};
use crate::queue::blueprint::Blueprint;

/// How often it looks at the time.
pub(super) const TICK: Duration = Duration::from_millis(50);

/// How many things it takes at most before what they have to say is sent.
const TOGETHER: usize = 256;

/// How often it looks whether answers are missing.
const LOOK: Duration = Duration::from_millis(250);

pub(super) struct Agent {
    pub handle: Arc<ClusterHandle>,
    times: Times,
    post: Post,
    front: Front,
    runs: Runs,
    permits: Permits,
    present: Present,
    started: Instant,
    office: Option<Office>,
    /// What has come of a line that is about to be this node's.
    early: Vec<Input>,
    pub candidate: Candidate,
    pub claiming: Claiming,
    /// Who keeps the line, since which claim, and when it was heard last.
    keeper: Option<(Process, Epoch, Instant)>,
    pub blueprint: Option<Box<Blueprint>>,
    asked: HashMap<u64, Asked>,
    next_question: u64,
    next_beat: Instant,
    next_look: Instant,
    leaving: Option<Leaving>,
    pub input: UnboundedSender<Input>,
}

struct Asked {
    question: Question,
    reply: oneshot::Sender<Result<Answer, String>>,
    asked: Instant,
    again: Instant,
}

struct Leaving {
    until: Instant,
    /// There is no other node.
    is_alone: bool,
    /// What still ran has been interrupted.
    interrupted: bool,
    done: Option<oneshot::Sender<bool>>,
}

impl Agent {
    pub fn new(
        handle: Arc<ClusterHandle>,
        times: Times,
        claiming: Claiming,
        front: Front,
        runs: Runs,
        input: UnboundedSender<Input>,
    ) -> Self {
        let now = clock::now();
        Agent {
            post: Post::start(handle.clone(), input.clone()),
            candidate: Candidate::new(times, handle.process.node.clone(), now),
            handle,
            times,
            front,
            runs,
            permits: Permits::default(),
            present: Present::new(SILENCE * times.beat, times.lease),
            started: now,
            office: None,
            early: Vec::new(),
            claiming,
            keeper: None,
            blueprint: None,
            asked: HashMap::new(),
            next_question: 0,
            next_beat: now,
            next_look: now,
            leaving: None,
            input,
        }
    }

    pub async fn run(mut self, mut inputs: UnboundedReceiver<Input>) {
        while let Some(first) = inputs.recv().await {
            // What is there already is taken as well before anything is sent: its messages go together.
            let more = std::iter::from_fn(|| inputs.try_recv().ok());
            let mut taken = 0;
            for input in std::iter::once(first).chain(more).take(TOGETHER) {
                self.take_one(input);
                taken += 1;
            }
            self.post.flush();
            if taken == TOGETHER {
                // What sends it is on this thread as well.
                tokio::task::yield_now().await;
            }
        }
    }

    fn take_one(&mut self, input: Input) {
        let now = clock::now();
        let mut out = Out::new();
        self.take(now, input, &mut out);
        self.send(out);
        while let Some(message) = self.post.here.pop_front() {
            let mut out = Out::new();
            self.came(now, self.handle.process.clone(), message, &mut out);
            self.send(out);
        }
    }

    fn send(&mut self, out: Out) {
        let keeper = self.keeper.as_ref().map(|(process, ..)| process.clone());
        for (to, message) in out {
            self.post.send(to, message, keeper.as_ref());
        }
    }

    /// That of this claim, where the line is this node's.
    fn office(&mut self, epoch: Epoch) -> Option<&mut Office> {
        self.office.as_mut().filter(|office| office.epoch == epoch)
    }

    fn take(&mut self, now: Instant, input: Input, out: &mut Out) {
        self.front.is_heard = self
            .keeper
            .as_ref()
            .is_some_and(|(keeper, ..)| *keeper == self.handle.process || self.post.is_connected());
        // Before anything that a lease may have let in.
        self.runs.handle_timeout(now, &mut self.front, out);
        match input {
            Input::Came(envelope) => {
                let Envelope { from, messages } = *envelope;
                for message in messages {
                    self.came(now, from.clone(), message, out);
                    self.send(std::mem::take(out));
                }
            }
            Input::Tick => self.tick(now, out),
            Input::Started { listeners, blueprint } => {
                for (name, listener) in listeners {
                    self.front.serve(name, listener);
                }
                self.blueprint = Some(blueprint);
            }
            Input::Submit(listener, submit) => self.front.submit(now, &listener, *submit, out),
            Input::Cancel(listener, event) => self.front.cancel(&listener, event, out),
            Input::Follow { event, listener, session, sender } => {
                self.front.follow(now, event, listener, session, sender, out);
            }
            Input::Ask(question, reply) => self.ask(now, question, reply, out),
            Input::Acquire(acquire, reply) => self.permits.acquire(acquire, reply, out),
            Input::Release(permit) => self.permits.release(permit, out),
            Input::Leave { grace, done } => self.leave(now, grace, done, out),
            Input::RunSaid { attempt, event, said } => self.runs.said(attempt, event, *said, out),
            Input::RunEnded { attempt, end } => {
                self.runs.ended(now, attempt, *end, &mut self.front, out);
            }
            Input::RunFailed(attempt, why) => {
                self.runs.failed(now, attempt, &why, &mut self.front, out);
            }
            Input::RunOver(attempt) => self.runs.over(now, attempt, &mut self.front, out),
            Input::Claimed(Ok(kept)) => self.open(now, *kept, out),
            Input::Claimed(Err(trouble)) => {
                self.claiming.has_failed(now);
                if matches!(trouble, JournalError::Owned { .. }) {
                    // Another one was quicker.
                    return self.candidate.hear_owner(now);
                }
                warn!("the line can't be kept here: {trouble}");
            }
            Input::Lost(epoch, why) if self.office(epoch).is_some() => {
                warn!("this node doesn't keep the line any more: {why}");
                self.close();
                out.push((To::All, Message::Leaves(epoch)));
            }
            Input::Lost(..) => {}
            Input::RecordEnds { last, is_released } => {
                self.claiming.saw(now, last);
                if is_released && self.keeper.is_none() {
                    self.candidate.left(now, last);
                }
            }
            Input::Answered(process, id, answer) => {
                out.push((To::Process(process), Message::Answer { id, answer }));
            }
            of_line => self.of_line(now, of_line, out),
        }
    }

    fn of_line(&mut self, now: Instant, input: Input, out: &mut Out) {
        let epoch = match &input {
            Input::Place(epoch, _)
            | Input::Interrupt(epoch, _)
            | Input::LineSaid(epoch, _)
            | Input::StartRecorded(epoch, ..)
            | Input::Settled(epoch, ..)
            | Input::Admitted(epoch, ..)
            | Input::Admits(epoch, ..)
            | Input::PermitDecided(epoch, ..)
            | Input::Found(epoch, ..) => *epoch,
            _ => return,
        };
        let Some(office) = self.office.as_mut().filter(|office| office.epoch == epoch) else {
            let newest = self.office.as_ref().map_or(0, |office| office.epoch);
            if epoch > newest && self.claiming.is_under_way() {
                self.early.push(input);
            }
            return;
        };
        match input {
            Input::Place(_, placing) => office.place(now, *placing, out),
            Input::Interrupt(_, attempt) => office.interrupt(now, attempt, out),
            Input::LineSaid(_, update) => {
                let event = update.event_id();
                if office.tracked.said(now, *update, out) {
                    office.ended(now, event, out);
                }
            }
            Input::StartRecorded(_, attempt, process, result) => {
                office.start_recorded(now, attempt, process, result, out);
            }
            Input::Settled(_, attempt, result) => office.settled(now, attempt, result, out),
            Input::Admitted(_, event, result) => admitting::decided(office, event, result, out),
            Input::Admits(_, from, admit) => {
                admitting::looked(office, &self.input, from, *admit, out);
            }
            Input::PermitDecided(_, from, permit, result) => {
                office.permits.decided(from, permit, *result, out);
            }
            Input::Found(_, to, event, said) => office.tracked.tell(to, event, said, out),
            _ => {}
        }
    }

    fn came(&mut self, now: Instant, from: Process, message: Message, out: &mut Out) {
        self.handle.hear(&from);
        match &message {
            // It is about to end.
            Message::Leaves(_) => self.candidate.forget(&from.node),
            Message::Beat(beat) if beat.leaving => self.candidate.forget(&from.node),
            _ => self.candidate.hear(from.node.clone(), now),
        }
        match message {
            Message::Beat(beat) => {
                let is_older_self =
                    from.node == self.handle.process.node && from.boot > self.handle.process.boot;
                if is_older_self {
                    self.is_replaced(now, out);
                }
                if self.present.beat(now, &beat) {
                    // So that a process that has just come knows soon who is there.
                    self.runs.beats_soon |= from != self.handle.process;
                }
                if let Some(office) = &mut self.office {
                    office.hear(now, beat, out);
                }
                self.open_if_known(now, out);
            }
            Message::Holds(holds) => self.present.holds(&from, holds),
            Message::Permits { epoch, held, waits } => {
                // What was said to an earlier one may be old.
                if let Some(office) = self.office.as_mut().filter(|office| office.epoch == epoch) {
                    granting::are(office, &self.input, &from, held, &waits, out);
                    office.has_said_permits(&from.node);
                }
                self.open_if_known(now, out);
            }
            Message::Keeps(epoch) => self.hear_keeper(now, from, epoch, out),
            Message::Leaves(epoch) => {
                if self.keeper.as_ref().is_none_or(|(_, known, _)| *known <= epoch) {
                    self.keeper = None;
                    self.candidate.left(now, epoch);
                    self.claim_if_due(now);
                }
            }
            Message::Word { word, order, told } => {
                let epoch = word.epoch;
                self.hear_keeper(now, from, epoch, out);
                if self.keeper.as_ref().is_some_and(|(_, known, _)| *known == epoch) {
                    self.front.should_have(now, epoch, told, out);
                }
                self.runs.hear(now, word, order, &mut self.front, out);
            }
            Message::Admitted { epoch, event, ask, result } => {
                // Who kept the line before may refuse what is let in now.
                if self.is_kept_by(&from, epoch) {
                    self.front.admitted(event, ask, result, out);
                }
            }
            Message::Told { epoch, number, event, said } => {
                // One that comes before it is known by whom the line is kept is asked for then.
                if self.is_kept_by(&from, epoch) {
                    self.front.told(now, epoch, number, event, said, out);
                }
            }
            Message::Followed(number) => self.front.has_followed(number),
            Message::Granted { epoch, permit, result } => {
                if self.is_kept_by(&from, epoch) {
                    self.permits.granted(permit, result, &self.input);
                }
            }
            Message::PermitsUnknown(permits) => self.permits.unknown(&permits, out),
            Message::Answer { id, answer } => {
                if let Some(asked) = self.asked.remove(&id) {
                    // Who asked may have stopped waiting.
                    let _ = asked.reply.send(answer);
                }
            }
            to_keeper => self.keeper_came(now, from, to_keeper, out),
        }
    }

    /// What is said to whoever keeps the line.
    fn keeper_came(&mut self, now: Instant, from: Process, message: Message, out: &mut Out) {
        let Some(office) = &mut self.office else { return };
        let is_new = match &message {
            Message::Admit(admit) => office.tracked.knows(admit.event) == Known::No,
            Message::Acquire(_) => true,
            _ => false,
        };
        if is_new && !office.is_open() {
            return office.put_off(from, message);
        }
        match message {
            Message::Report(report) => office.report(now, report, out),
            Message::Said { attempt, event, said } => office.said(attempt, event, said),
            Message::Admit(admit) => admitting::asked(office, &self.input, from, admit, out),
            Message::Cancel { listener, event } => office.cancel(&listener, event),
            Message::Follow { number, events } => {
                out.push((To::Process(from.clone()), Message::Followed(number)));
                for event in events {
                    if !office.tracked.follow(&from, event, out) {
                        answers::find(office, &self.input, from.clone(), event);
                    }
                }
            }
            Message::Acquire(acquire) => {
                granting::acquire(office, &self.input, from, acquire, out);
            }
            Message::Released(permit) => office.permits.released(from, permit),
            Message::Ask { id, question } => {
                answers::answer(office, &self.input, from, id, question);
            }
            _ => {}
        }
    }

    fn hear_keeper(&mut self, now: Instant, from: Process, epoch: Epoch, out: &mut Out) {
        let known = self.keeper.as_ref().map_or(0, |(_, epoch, _)| *epoch);
        if epoch < known || epoch < self.runs.epoch() {
            return;
        }
        let is_new = epoch > known;
        self.keeper = Some((from.clone(), epoch, now));
        self.candidate.hear_owner(now);
        if is_new {
            info!("{} keeps the line now", from.node);
            if self.office.as_ref().is_some_and(|office| office.epoch < epoch) {
                self.close();
            }
            // It has to know what there is before it lets anybody in.
            self.beat(now, out);
            self.front.line_moved(now, out);
            self.permits.line_moved(epoch, out);
            for (id, asked) in &mut self.asked {
                asked.again = now + AGAIN;
                let question = asked.question.clone();
                out.push((To::Keeper, Message::Ask { id: *id, question }));
            }
        }
    }

    /// The line is this node's.
    fn open(&mut self, now: Instant, kept: Kept, out: &mut Out) {
        let Some(thread) = self.claiming.is_over() else { return };
        info!("this node keeps the line now");
        let (epoch, me) = (kept.epoch, self.handle.process.clone());
        // Where nobody kept it before, nobody holds anything.
        let listens = if epoch == FIRST { Duration::ZERO } else { LISTENS };
        let (not_before, until) = (self.started + listens, now + self.times.lease);
        let census = Census::new(&me.node, &self.present, not_before, until);
        let office = Office::open(now, self.times, kept, census, thread, self.input.clone());
        self.office = Some(office);
        out.push((To::All, Message::Keeps(epoch)));
        self.hear_keeper(now, me, epoch, out);
        for input in std::mem::take(&mut self.early) {
            self.of_line(now, input, out);
        }
        // It has left meanwhile.
        if self.leaving.as_ref().is_some_and(|leaving| leaving.done.is_none()) {
            self.hand_over(out);
        }
    }

    /// Lets in who has asked, once it is known who holds what.
    fn open_if_known(&mut self, now: Instant, out: &mut Out) {
        let Some(office) = &mut self.office else { return };
        for (from, message) in office.open_if_known(now, &self.handle.process.node, &self.present) {
            self.keeper_came(now, from, message, out);
        }
    }

    fn beat(&mut self, now: Instant, out: &mut Out) {
        self.next_beat = now + self.times.beat;
        self.runs.beat(now, &mut self.front, out);
    }

    fn close(&mut self) {
        self.early.clear();
        if let Some(office) = self.office.take() {
            office.close();
        }
    }

    fn is_kept_by(&self, process: &Process, since: Epoch) -> bool {
        let by = |(keeper, epoch, _): &(Process, Epoch, _)| keeper == process && *epoch == since;
        self.keeper.as_ref().is_some_and(by)
    }

    fn is_kept(&self, now: Instant) -> bool {
        let lasts = 4 * self.times.beat;
        self.keeper.as_ref().is_some_and(|(_, _, heard)| now - *heard < lasts)
    }

    fn tick(&mut self, now: Instant, out: &mut Out) {
        if let Some(office) = &mut self.office {
            office.handle_timeout(now, out);
        }
        self.open_if_known(now, out);
        if now >= self.next_beat || self.runs.beats_soon {
            self.beat(now, out);
            if let Some(office) = self.office.as_mut().filter(|office| !office.is_lost()) {
                office.tracked.forget(now);
                out.push((To::All, Message::Keeps(office.epoch)));
            }
        }
        if now >= self.next_look {
            self.next_look = now + LOOK;
            let is_kept = self.is_kept(now);
            self.front.handle_timeout(now, is_kept, out);
            self.permits.handle_timeout(now, out);
            self.ask_again(now, out);
            self.claim_if_due(now);
        }
        self.go_on_leaving(now, out);
    }

    fn claim_if_due(&mut self, now: Instant) {
        // One that leaves does so too where all do: what has run here is to be recorded.
        let needs_one = |it: &Leaving| it.done.is_some() && !self.runs.is_done();
        let may_claim = self.office.is_none() && self.leaving.as_ref().is_none_or(needs_one);
        let Some(blueprint) = self.blueprint.as_ref().filter(|_| may_claim) else { return };
        let due = match self.leaving {
            None => {
                Due { at: self.candidate.claims_at("line", now), over: self.candidate.left_until() }
            }
            Some(_) => Due { at: self.candidate.claims_last_at("line", now), over: None },
        };
        let silence = self.times.beat + self.times.beat / 4;
        let is_silent = self.keeper.as_ref().is_none_or(|(_, _, heard)| now - *heard >= silence);
        self.claiming.look(now, due, is_silent, &self.handle, blueprint, &self.input);
    }

    fn ask(
        &mut self,
        now: Instant,
        question: Question,
        reply: oneshot::Sender<Result<Answer, String>>,
        out: &mut Out,
    ) {
        let id = self.next_question;
        self.next_question += 1;
        out.push((To::Keeper, Message::Ask { id, question: question.clone() }));
        self.asked.insert(id, Asked { question, reply, asked: now, again: now + AGAIN });
    }

    fn ask_again(&mut self, now: Instant, out: &mut Out) {
        let over =
            |_: &u64, asked: &mut Asked| now - asked.asked >= ANSWER || asked.reply.is_closed();
        for (_, asked) in self.asked.extract_if(over) {
            let _ = asked.reply.send(Err("nobody keeps the line now; try again later".into()));
        }
        for (id, asked) in self.asked.iter_mut().filter(|(_, asked)| now >= asked.again) {
            asked.again = now + AGAIN;
            out.push((To::Keeper, Message::Ask { id: *id, question: asked.question.clone() }));
        }
    }

    /// Another process of this node's name has begun later: this one is the old one.
    fn is_replaced(&mut self, now: Instant, out: &mut Out) {
        if self.leaving.is_none() {
            warn!(
                "another process has joined as node {:?}: this one takes no more runs; give each node a \
                 name of its own",
                self.handle.process.node
            );
            let (done, _) = oneshot::channel();
            self.leave(now, Duration::ZERO, done, out);
        }
    }

    fn leave(&mut self, now: Instant, grace: Duration, done: oneshot::Sender<bool>, out: &mut Out) {
        self.runs.leave();
        // Without another node it is kept until what runs has ended.
        let is_alone = !self.handle.has_others();
        // Where there are others, what is submitted here until the end goes on there.
        self.front.is_leaving = is_alone;
        if is_alone {
            self.front.stop(false);
        } else {
            self.hand_over(out);
        }
        let until = clock::after(now, grace);
        let done = Some(done);
        self.leaving = Some(Leaving { until, is_alone, interrupted: false, done });
    }

    fn hand_over(&mut self, out: &mut Out) {
        if let Some(office) = self.office.take() {
            let epoch = office.epoch;
            office.close();
            out.push((To::All, Message::Leaves(epoch)));
        }
    }

    fn go_on_leaving(&mut self, now: Instant, out: &mut Out) {
        let Some(leaving) = &mut self.leaving else { return };
        let is_over = self.runs.is_done() || now >= leaving.until + LAST_WORD;
        if is_over {
            let Some(done) = leaving.done.take() else { return };
            // Who asked may have stopped waiting.
            let _ = done.send(!leaving.interrupted);
            if leaving.is_alone {
                self.front.stop(true);
            }
            self.hand_over(out);
        } else if now >= leaving.until && !leaving.interrupted {
            leaving.interrupted = true;
            self.runs.stop_all(now, &mut self.front, out);
        }
    }
}

/// The epoch of the first claim of all.
const FIRST: Epoch = 1;

/// How long it takes until a process that has just started has heard the others.
const LISTENS: Duration = Duration::from_millis(500);

/// How long what was interrupted, and who keeps the line, may take to say so.
const LAST_WORD: Duration = Duration::from_secs(2);

/// How long an answer may take before the question is asked again.
const AGAIN: Duration = Duration::from_secs(1);

/// How long somebody waits for an answer.
const ANSWER: Duration = Duration::from_secs(10);

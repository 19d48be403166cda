//! The events that were submitted on this node, or are followed here: they wait in the line, wherever that is
//! kept.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::deliver::{Deliver, Of};
use super::followed::{AGAIN, Followed};
use super::follows::Follows;
use super::input::Listener;
use super::out::{Out, To};
use super::sessions::Sessions;
use super::wire::{Admit, Message, OrderedEvent, Said};
use crate::actors::messages::{Job, Submit};
use crate::cluster::message::Epoch;
use crate::delivery::sender::EventSender;
use crate::event::failure::Failure;
use crate::event::id::EventId;
use crate::event::refusal::Refusal;
use crate::event::update::Outcome;
use crate::handler::durable::Durable;
use crate::handler::input::Input;
use crate::handler::session_state::SessionState;
use crate::journal::record::End;
use crate::queue::elsewhere::SubmittedBefore;
use crate::scheduler::command::WhenFull;

/// How long an event waits to be let in while nobody keeps the line.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Front {
    deliver: Deliver,
    listeners: HashMap<Arc<str>, Listener>,
    events: HashMap<EventId, Followed>,
    /// How often anything was asked to be let in.
    asks: u64,
    follows: Follows,
    sessions: Sessions,
    /// Since when nobody keeps the line.
    alone_since: Option<Instant>,
    /// The updates that were told to this process by who keeps the line since this claim.
    told: (Epoch, u64),
    /// When it last asked for all of them again.
    asked_again: Option<Instant>,
    /// It is to do so once more.
    is_behind: bool,
    /// It takes no more events.
    pub is_leaving: bool,
    /// What is sent now to who keeps the line may come there.
    pub is_heard: bool,
}

impl Front {
    pub fn new(deliver: Deliver) -> Self {
        Front {
            deliver,
            listeners: HashMap::new(),
            events: HashMap::new(),
            asks: 0,
            follows: Follows::default(),
            sessions: Sessions::default(),
            alone_since: None,
            told: (0, 0),
            asked_again: None,
            is_behind: false,
            is_leaving: false,
            is_heard: false,
        }
    }

    pub fn serve(&mut self, name: Arc<str>, listener: Listener) {
        self.listeners.insert(name, listener);
    }

    fn of(&self, listener: &Arc<str>) -> Of {
        let durability = self.listeners.get(listener).map(|it| it.durability.clone());
        Of::new(durability)
    }

    pub fn listener(&self, name: &str) -> Option<&Listener> {
        self.listeners.get(name)
    }

    /// The input as it was submitted here, for the event's first attempt.
    pub fn take_input(&mut self, event: EventId, attempt: u32) -> Option<Input> {
        let followed = self.events.get_mut(&event)?;
        followed.input.take().filter(|_| attempt == 1)
    }

    /// That of the event's client.
    pub fn session_of(&mut self, event: &OrderedEvent) -> Option<Arc<SessionState>> {
        let here = self.events.get(&event.event).and_then(|followed| followed.session.clone());
        here.or_else(|| self.sessions.of(event))
    }

    /// An event of a listener is to wait in the line.
    pub fn submit(&mut self, now: Instant, name: &Arc<str>, submit: Submit, out: &mut Out) {
        let Submit { job, when_full, .. } = submit;
        if self.is_leaving {
            return job.sender.refuse(Refusal::Stopped);
        }
        let user = job.user().map(Arc::from);
        let Job { id, session, input, sender } = *job;
        let Some(durable) = input.given::<Durable>() else {
            let reason = "its input wasn't written as JSON".into();
            return sender.refuse(Refusal::NotRecorded { reason, full: false });
        };
        if let Some(followed) = self.events.get_mut(&id) {
            // It was sent twice, since the first answer didn't come.
            followed.is_cancelled = false;
            let mut sender = sender;
            if followed.admit.is_none() {
                sender.admit();
            }
            return followed.others.push(sender);
        }
        let admit = Box::new(Admit {
            event: id,
            // It has one once it is asked.
            ask: 0,
            listener: name.clone(),
            input: durable.input.clone(),
            session: durable.session.clone(),
            user,
            key: durable.key.clone(),
            webhook: durable.webhook.clone(),
            not_before: durable.not_before,
            waits: when_full == WhenFull::Wait,
            again: input.given::<SubmittedBefore>().is_some(),
        });
        let mut followed = Followed {
            input: Some(input),
            admit: Some(admit),
            // Twice as long once it is asked.
            pause: AGAIN / 2,
            may_be_in: false,
            ..Followed::new(name.clone(), sender, session, self.of(name))
        };
        followed.ask(now, &mut self.asks, self.is_heard, out);
        self.events.insert(id, followed);
    }

    /// An event that goes on is followed here from now on.
    pub fn follow(
        &mut self,
        now: Instant,
        event: EventId,
        listener: Arc<str>,
        session: Option<Arc<SessionState>>,
        sender: EventSender,
        out: &mut Out,
    ) {
        if let Some(followed) = self.events.get_mut(&event) {
            followed.others.push(sender);
            if followed.admit.is_none() {
                self.follows.say(now, vec![event], out);
            }
            return;
        }
        let of = self.of(&listener);
        self.events.insert(event, Followed::new(listener, sender, session, of));
        self.follows.say(now, vec![event], out);
    }

    /// Whoever keeps the line has heard which events are followed here.
    pub fn has_followed(&mut self, number: u64) {
        self.follows.has_heard(number);
    }

    /// An event is to be ended, whoever follows it.
    pub fn cancel(&mut self, name: &Arc<str>, event: EventId, out: &mut Out) {
        if let Some(followed) = self.events.get_mut(&event) {
            followed.is_cancelled = true;
        }
        let listener = name.clone();
        out.push((To::Keeper, Message::Cancel { listener, event }));
    }

    /// Whether an event was let in, by what was asked under that number.
    pub fn admitted(
        &mut self,
        event: EventId,
        ask: u64,
        result: Result<(), Refusal>,
        out: &mut Out,
    ) {
        let Some(followed) = self.events.get_mut(&event) else { return };
        let Some(admit) = &followed.admit else {
            // That has shown before.
            return;
        };
        match result {
            Ok(()) => {
                if followed.is_cancelled {
                    let listener = followed.listener.clone();
                    out.push((To::Keeper, Message::Cancel { listener, event }));
                }
                followed.let_in();
            }
            // It has been asked again since, and may be let in by that.
            Err(_) if ask < admit.ask => {}
            Err(refusal) => {
                if let Some(followed) = self.events.remove(&event) {
                    followed.refuse(&refusal);
                }
            }
        }
    }

    /// An update of an event that is followed here. Where some before it must be lost, they are asked for.
    pub fn told(
        &mut self,
        now: Instant,
        epoch: Epoch,
        number: u64,
        event: EventId,
        said: Said,
        out: &mut Out,
    ) {
        if epoch < self.told.0 {
            return;
        }
        let expected = if self.told.0 == epoch { self.told.1 + 1 } else { 1 };
        self.told = (epoch, number.max(expected - 1));
        if number > expected {
            self.follow_again(now, out);
        }
        self.pass_on(event, said);
    }

    /// Nobody goes on with them for now: whoever follows one that waits is told so, or `all`.
    pub fn stop(&mut self, all: bool) {
        for (_, followed) in self.events.extract_if(|_, followed| all || !followed.runs) {
            match followed.admit {
                Some(_) => followed.refuse(&Refusal::Stopped),
                None => followed.senders().for_each(|it| it.end_unstarted(Outcome::Stopped)),
            }
        }
    }

    /// So many updates have been told to this process: if some have not come, they are lost.
    pub fn should_have(&mut self, now: Instant, epoch: Epoch, told: u64, out: &mut Out) {
        let has = if self.told.0 == epoch { self.told.1 } else { 0 };
        if told > has && epoch >= self.told.0 {
            self.told = (epoch, told);
            self.follow_again(now, out);
        }
    }

    fn pass_on(&mut self, event: EventId, said: Said) {
        let Some(followed) = self.events.get_mut(&event) else { return };
        followed.let_in();
        match &said {
            Said::Rank { .. } => followed.runs = false,
            Said::Starts { .. } => followed.runs = true,
            _ => {}
        }
        match said {
            Said::Ended { end, duration, average } => self.end(event, end, duration, average),
            Said::Unknown => {
                let gone = "no record of it is left; it ended longer ago than results are kept";
                self.end(event, End::Failed(Failure::unexpected(gone)), 0.0, None);
            }
            said => {
                for sender in std::iter::once(&followed.sender).chain(&followed.others) {
                    if let Some(updates) = sender.updates() {
                        self.deliver.update(event, updates, said.clone(), &followed.of);
                    }
                }
            }
        }
    }

    fn end(&mut self, event: EventId, end: End, duration: f64, average: Option<f64>) {
        let Some(followed) = self.events.remove(&event) else { return };
        let of = followed.of.clone();
        for sender in followed.senders() {
            self.deliver.end(sender, end.clone(), duration, average, of.clone());
        }
    }

    /// Updates are lost: all is asked for again, but not all the time.
    fn follow_again(&mut self, now: Instant, out: &mut Out) {
        self.is_behind = true;
        if self.asked_again.is_none_or(|asked| now - asked >= AGAIN / 2) {
            self.ask_again(now, out);
        }
    }

    /// The one who keeps the line now knows nothing of this process.
    pub fn line_moved(&mut self, now: Instant, out: &mut Out) {
        self.ask_again(now, out);
    }

    fn ask_again(&mut self, now: Instant, out: &mut Out) {
        (self.asked_again, self.is_behind) = (Some(now), false);
        let mut follow = Vec::new();
        for (event, followed) in &mut self.events {
            if !followed.ask(now, &mut self.asks, true, out) {
                follow.push(*event);
            }
        }
        self.follows.say_all(now, &follow, out);
    }

    /// What is due: answers that have not come, and those who have waited for long enough. `is_kept` says
    /// whether somebody keeps the line.
    pub fn handle_timeout(&mut self, now: Instant, is_kept: bool, out: &mut Out) {
        if is_kept && self.is_behind {
            self.follow_again(now, out);
        }
        if is_kept {
            self.alone_since = None;
        } else {
            self.alone_since.get_or_insert(now);
        }
        self.follows.handle_timeout(now, out);
        let alone_since = self.alone_since;
        let mut given_up = Vec::new();
        for (event, followed) in &mut self.events {
            let is_due = followed.asked.is_none_or(|asked| now - asked >= followed.pause);
            if !is_due {
                continue;
            }
            if followed.is_cancelled {
                followed.asked = Some(now);
                let listener = followed.listener.clone();
                out.push((To::Keeper, Message::Cancel { listener, event: *event }));
            }
            // What may be in stays until somebody who keeps the line says so.
            let waits = followed.admit.is_some() && !followed.may_be_in;
            if waits && alone_since.is_some_and(|since| now - since >= PATIENCE) {
                given_up.push(*event);
            } else {
                // What is cancelled has to be known there to have an end.
                followed.ask(now, &mut self.asks, self.is_heard, out);
            }
        }
        let reason = "the cluster keeps no records now; try again later".into();
        let refusal = Refusal::NotRecorded { reason, full: false };
        for followed in given_up.into_iter().filter_map(|event| self.events.remove(&event)) {
            followed.refuse(&refusal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::bounds::UNREAD;
    use crate::delivery::outbox::Outbox;
    use crate::delivery::sender::Follower;
    use crate::event::update::Update;
    use tokio::sync::oneshot;

    fn follow(front: &mut Front, event: EventId) -> Arc<Outbox> {
        let outbox = Arc::new(Outbox::new(UNREAD));
        let follower = Follower::Outbox(outbox.clone());
        let sender = EventSender::follow(event, follower, oneshot::channel().0);
        front.follow(Instant::now(), event, "paint".into(), None, sender, &mut Out::new());
        outbox
    }

    #[test]
    fn who_comes_later_takes_an_event_from_nobody() {
        let now = Instant::now();
        let event = EventId::for_test(1);
        let (deliver, delivering) = Deliver::new();
        let mut front = Front::new(deliver);
        let both = [follow(&mut front, event), follow(&mut front, event)];
        assert!(both.iter().all(|outbox| outbox.try_next().is_none()));
        let said = Said::Ended { end: End::Cancelled, duration: 0.0, average: None };
        front.told(now, 1, 1, event, said, &mut Out::new());
        drop(front);
        actix::System::new().block_on(delivering);
        for outbox in both {
            let update = outbox.try_next().unwrap().update;
            let Update::ProcessCompleted { outcome, .. } = update else { panic!("{update:?}") };
            assert!(matches!(outcome, Outcome::Cancelled), "{outcome:?}");
        }
    }

    type Admission = oneshot::Receiver<Result<(), Refusal>>;

    fn submit(front: &mut Front, now: Instant, again: bool) -> (EventId, Admission, Out) {
        let event = EventId::for_test(7);
        let (admit, admitted) = oneshot::channel();
        let follower = Follower::Outbox(Arc::new(Outbox::new(UNREAD)));
        let text = crate::event::json_text::JsonText::of(&1).unwrap();
        let input = Input::new(1).with(Durable::new(text));
        let input = if again { input.with(SubmittedBefore) } else { input };
        let sender = EventSender::follow(event, follower, admit);
        let job = Box::new(Job { id: event, session: None, input, sender });
        let submit = Submit { job, when_full: WhenFull::Refuse, not_before: None };
        let mut out = Out::new();
        front.submit(now, &"paint".into(), submit, &mut out);
        (event, admitted, out)
    }

    fn again(out: &Out) -> Vec<bool> {
        let admits = out.iter().filter_map(|(_, message)| match message {
            Message::Admit(admit) => Some(admit.again),
            _ => None,
        });
        admits.collect()
    }

    /// Whoever keeps the line then has to look whether it has ended already.
    #[test]
    fn that_an_event_was_submitted_before_is_said_however_often_it_is_asked() {
        let now = Instant::now();
        for (is_heard, before, first, then) in
            [(false, false, false, false), (true, false, false, true), (false, true, true, true)]
        {
            let mut front = Front::new(Deliver::new().0);
            front.is_heard = is_heard;
            let (_, _admitted, out) = submit(&mut front, now, before);
            assert_eq!(again(&out), [first]);
            let mut out = Out::new();
            front.line_moved(now, &mut out);
            assert_eq!(again(&out), [then], "{is_heard}, {before}");
        }
    }

    /// The one that was asked since may be let in: nobody hears of an earlier refusal.
    #[test]
    fn a_refusal_counts_for_what_was_asked_last() {
        let now = Instant::now();
        let mut front = Front::new(Deliver::new().0);
        front.is_heard = true;
        let (event, mut admitted, first) = submit(&mut front, now, false);
        let mut second = Out::new();
        front.handle_timeout(now + AGAIN, true, &mut second);
        let ask = |out: &Out| match &out[0].1 {
            Message::Admit(admit) => admit.ask,
            other => panic!("{other:?}"),
        };
        let (first, second) = (ask(&first), ask(&second));
        let mut out = Out::new();
        front.admitted(event, first, Err(Refusal::Stopped), &mut out);
        assert!(out.is_empty() && admitted.try_recv().is_err());
        front.admitted(event, second, Err(Refusal::Stopped), &mut out);
        // Nothing is on its way that would have to be taken back.
        assert!(out.is_empty() && admitted.try_recv().is_ok_and(|answer| answer.is_err()));
    }

    /// Sent twice, since the answer to the first didn't come: both are answered.
    #[test]
    fn who_submits_an_event_again_hears_of_it_as_well() {
        let now = Instant::now();
        let is_admitted = |mut it: Admission| it.try_recv().ok().map(|answer| answer.is_ok());
        let both = |front: &mut Front, heard: bool| {
            front.is_heard = heard;
            let (event, first, _) = submit(front, now, false);
            let (_, second, _) = submit(front, now, true);
            (event, [first, second])
        };
        let mut front = Front::new(Deliver::new().0);
        // It starts before the answer has come.
        let (event, admissions) = both(&mut front, true);
        front.told(now, 1, 1, event, Said::Starts { eta: None }, &mut Out::new());
        assert_eq!(admissions.map(is_admitted), [Some(true); 2]);
        let mut front = Front::new(Deliver::new().0);
        let (_, admissions) = both(&mut front, false);
        front.handle_timeout(now, false, &mut Out::new());
        front.handle_timeout(now + PATIENCE, false, &mut Out::new());
        assert_eq!(admissions.map(is_admitted), [Some(false); 2]);
        let mut front = Front::new(Deliver::new().0);
        let (_, admissions) = both(&mut front, true);
        front.stop(false);
        assert_eq!(admissions.map(is_admitted), [Some(false); 2]);
    }

    #[test]
    fn what_nobody_can_have_let_in_is_refused_after_a_while_and_nothing_else() {
        let now = Instant::now();
        for is_heard in [false, true] {
            let mut front = Front::new(Deliver::new().0);
            front.is_heard = is_heard;
            let (_, mut admitted, _) = submit(&mut front, now, false);
            front.is_heard = false;
            front.handle_timeout(now, false, &mut Out::new());
            assert!(admitted.try_recv().is_err(), "not at once");
            front.handle_timeout(now + PATIENCE, false, &mut Out::new());
            let refused = admitted.try_recv().is_ok_and(|answer| answer.is_err());
            assert_eq!(refused, !is_heard);
        }
    }
}

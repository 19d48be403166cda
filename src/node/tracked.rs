//! The events of the line, and on which nodes they are followed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::UnboundedSender;

use super::input::Input as AgentInput;
use super::out::{Out, To};
use super::refused::{Asking, Refused};
use super::wire::{Admit, GoesOn, Message, Said};
use crate::clock;
use crate::cluster::message::{Epoch, Process};
use crate::delivery::sender::{Follower, Function};
use crate::event::id::EventId;
use crate::event::output::Output;
use crate::event::update::{Outcome, Update};
use crate::queue::Queue;

/// How long it is known that an event has been let in, though it has ended: as long as a message may be late.
pub(super) const LATE: Duration = Duration::from_secs(60);

pub(super) struct Tracked {
    epoch: Epoch,
    input: UnboundedSender<AgentInput>,
    events: HashMap<EventId, Event>,
    /// Since when it is known what ends.
    since: Instant,
    /// How many updates each process was told.
    told: HashMap<Process, u64>,
    /// Those that have ended not long ago.
    ended: HashMap<EventId, (Instant, GoesOn)>,
    refused: Refused,
}

struct Event {
    listener: Arc<str>,
    user: Option<Arc<str>>,
    session: Option<Arc<str>>,
    is_admitted: bool,
    /// Who waits to hear whether it is let in, each with the number of what it has asked last.
    asking: Vec<Asking>,
    followers: Vec<Process>,
    /// Where it stands, for those who come later.
    last: Option<Said>,
}

/// What is known of an event that is to be let in.
#[derive(Debug, PartialEq)]
pub(super) enum Known {
    No,
    IsBeingAdmitted,
    IsAdmitted,
    HasEnded,
}

impl Tracked {
    pub fn new(epoch: Epoch, input: UnboundedSender<AgentInput>) -> Self {
        let (events, told, ended) = (HashMap::new(), HashMap::new(), HashMap::new());
        let refused = Refused::default();
        Tracked { epoch, input, events, since: clock::now(), told, ended, refused }
    }

    /// Follows the events that earlier owners have left.
    pub fn take_left(&mut self, queue: &Queue) {
        for (event, left) in queue.left().take_all() {
            let listener = queue.inner().listeners[left.listener].api_name.clone();
            let session = left.session.as_ref().map(|session| session.id.clone());
            let user = left.user.clone();
            let (is_admitted, asking, followers, last) = (true, Vec::new(), Vec::new(), None);
            let tracked = Event { listener, user, session, is_admitted, asking, followers, last };
            self.events.insert(event, tracked);
            left.hand_over(self.follower());
        }
    }

    fn follower(&self) -> Follower {
        let (input, epoch) = (self.input.clone(), self.epoch);
        Follower::Function(Function(Box::new(move |update, _| {
            // The agent ends with the process only.
            let _ = input.send(AgentInput::LineSaid(epoch, Box::new(update)));
        })))
    }

    pub fn knows(&self, event: EventId) -> Known {
        match self.events.get(&event) {
            Some(Event { is_admitted: true, .. }) => Known::IsAdmitted,
            Some(_) => Known::IsBeingAdmitted,
            None if self.ended.contains_key(&event) => Known::HasEnded,
            None => Known::No,
        }
    }

    pub fn goes_on(&self, event: EventId) -> bool {
        self.events.contains_key(&event)
    }

    /// An event that is to be let in, and is followed there.
    pub fn begin(&mut self, from: Process, admit: &Admit) -> Follower {
        let event = Event {
            listener: admit.listener.clone(),
            user: admit.user.clone(),
            session: admit.session.clone(),
            is_admitted: false,
            asking: vec![(from.clone(), admit.ask)],
            followers: vec![from],
            last: None,
        };
        self.events.insert(admit.event, event);
        self.follower()
    }

    /// A process asks once more for one that is, or is being, let in. Whether it is.
    pub fn asks(&mut self, from: &Process, admit: &Admit) -> bool {
        let Some(event) = self.events.get_mut(&admit.event) else { return false };
        if !event.is_admitted {
            match event.asking.iter_mut().find(|(process, _)| process == from) {
                Some((_, ask)) => *ask = admit.ask.max(*ask),
                None => event.asking.push((from.clone(), admit.ask)),
            }
        }
        event.is_admitted
    }

    /// An event was let in, or not. Who waits to hear that. Where it wasn't, others who follow it hear that there is
    /// none.
    pub fn decided(&mut self, event: EventId, is_admitted: bool, out: &mut Out) -> Vec<Asking> {
        let Some(tracked) = self.events.get_mut(&event) else { return Vec::new() };
        tracked.is_admitted = is_admitted;
        let asking = std::mem::take(&mut tracked.asking);
        if !is_admitted && let Some(refused) = self.events.remove(&event) {
            for follower in refused.followers {
                if !asking.iter().any(|(process, _)| *process == follower) {
                    self.tell(follower, event, Said::Unknown, out);
                }
            }
            self.refused.put(event, asking.clone());
        }
        asking
    }

    /// Whether this was asked before the event was refused.
    pub fn has_refused(&self, from: &Process, admit: &Admit) -> bool {
        self.refused.covers(from, admit)
    }

    /// Somebody there follows an event. Whether it goes on.
    pub fn follow(&mut self, from: &Process, event: EventId, out: &mut Out) -> bool {
        let Some(tracked) = self.events.get_mut(&event) else { return false };
        if !tracked.followers.contains(from) {
            tracked.followers.push(from.clone());
        }
        if let Some(last) = tracked.last.clone() {
            self.tell(from.clone(), event, last, out);
        }
        true
    }

    pub fn tell(&mut self, to: Process, event: EventId, said: Said, out: &mut Out) {
        let told = self.told.entry(to.clone()).or_default();
        *told += 1;
        out.push((
            To::Process(to),
            Message::Told { epoch: self.epoch, number: *told, event, said },
        ));
    }

    pub fn told_to(&self, process: &Process) -> u64 {
        self.told.get(process).copied().unwrap_or(0)
    }

    /// The line says something of an event. Whether that is its end.
    pub fn said(&mut self, now: Instant, update: Update, out: &mut Out) -> bool {
        // Nobody stops the line: whoever keeps it next goes on with the event.
        if matches!(update, Update::ProcessCompleted { outcome: Outcome::Stopped, .. }) {
            return false;
        }
        let event = update.event_id();
        let said = Said::of(update);
        let ends = said.is_end();
        let Some(tracked) = self.events.get_mut(&event) else { return ends };
        let stays = matches!(said, Said::Rank { .. } | Said::Starts { .. });
        tracked.last = stays.then(|| said.clone());
        let followers = match ends {
            true => std::mem::take(&mut tracked.followers),
            false => tracked.followers.clone(),
        };
        for follower in followers {
            self.tell(follower, event, said.clone(), out);
        }
        if ends && let Some(tracked) = self.events.remove(&event) {
            let ended = GoesOn { ended: true, ..goes_on(event, &tracked) };
            self.ended.insert(event, (now, ended));
        }
        ends
    }

    /// Whether something that has ended not long ago may not be known here.
    pub fn is_new(&self) -> bool {
        clock::since(self.since) < LATE
    }

    /// Forgets what no late message can be about any more.
    pub fn forget(&mut self, now: Instant) {
        self.ended.retain(|_, (at, _)| now - *at < LATE);
    }

    pub fn find(&self, event: EventId) -> Option<GoesOn> {
        self.events.get(&event).map(|tracked| goes_on(event, tracked))
    }

    /// Those of a session that go on, and those that have ended not long ago. None as long as it isn't known of one of
    /// them whether it is let in.
    pub fn of_session(&self, user: Option<&Arc<str>>, session: &str) -> Option<Vec<GoesOn>> {
        let is_of = |its_user: &Option<Arc<str>>, its_session: &Option<Arc<str>>| {
            its_session.as_deref() == Some(session) && its_user.as_ref() == user
        };
        let of = |(_, tracked): &(&EventId, &Event)| is_of(&tracked.user, &tracked.session);
        let events = self.events.iter().filter(of);
        let events =
            events.map(|(event, tracked)| tracked.is_admitted.then(|| goes_on(*event, tracked)));
        let ended = self.ended.values().map(|(_, ended)| ended);
        let ended = ended.filter(|ended| is_of(&ended.user, &ended.session));
        events.chain(ended.map(|ended| Some(ended.clone()))).collect()
    }
}

fn goes_on(event: EventId, tracked: &Event) -> GoesOn {
    let Event { listener, user, session, .. } = tracked;
    let (listener, user, session) = (listener.clone(), user.clone(), session.clone());
    GoesOn { event, listener, user, session, ended: false }
}

/// What a handler says, as the line tells it to those who follow.
pub(super) fn update_of(event_id: EventId, said: Said) -> Option<Update> {
    Some(match said {
        Said::Progress(units) => Update::Progress { event_id, units },
        Said::Log(log) => Update::Log { event_id, log },
        Said::Generating { output, duration } => {
            Update::ProcessGenerating { event_id, output: Output::new(output), duration }
        }
        // These are the line's.
        Said::Rank { .. } | Said::Starts { .. } | Said::Ended { .. } | Said::Unknown => {
            return None;
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::json_text::JsonText;

    fn admit(event: EventId, ask: u64) -> Admit {
        Admit {
            event,
            ask,
            listener: "paint".into(),
            input: JsonText::of(&()).unwrap(),
            session: None,
            user: None,
            key: None,
            webhook: None,
            not_before: None,
            waits: false,
            again: false,
        }
    }

    /// A refusal is the answer to what a node has asked until then, and to nothing that it asks later.
    #[test]
    fn what_was_asked_before_a_refusal_comes_too_late() {
        let mut tracked = Tracked::new(1, tokio::sync::mpsc::unbounded_channel().0);
        let event = EventId::for_test(1);
        let [a, b] = ["a", "b"].map(|node| Process { node: node.into(), boot: 1 });
        tracked.begin(a.clone(), &admit(event, 1));
        assert!(!tracked.asks(&a, &admit(event, 3)) && !tracked.asks(&b, &admit(event, 1)));
        let c = Process { node: "c".into(), boot: 1 };
        let mut out = Out::new();
        assert!(tracked.follow(&c, event, &mut out) && out.is_empty());
        let asking = tracked.decided(event, false, &mut out);
        assert_eq!(asking, [(a.clone(), 3), (b.clone(), 1)]);
        // Who follows it and hasn't asked hears as well that there is none.
        let told = out.iter().map(|(to, message)| match (to, message) {
            (To::Process(to), Message::Told { said: Said::Unknown, .. }) => to.clone(),
            other => panic!("{other:?}"),
        });
        assert_eq!(told.collect::<Vec<_>>(), [c]);
        let comes = [(&a, 2), (&a, 3), (&b, 1), (&a, 4), (&b, 2)];
        let is_late = comes.map(|(from, ask)| tracked.has_refused(from, &admit(event, ask)));
        assert_eq!(is_late, [true, true, true, false, false]);
        tracked.begin(a.clone(), &admit(event, 4));
        assert_eq!(tracked.decided(event, true, &mut out), [(a.clone(), 4)]);
        assert!(tracked.asks(&a, &admit(event, 5)));
    }

    #[test]
    fn what_another_keeper_goes_on_with_has_not_ended() {
        let now = Instant::now();
        let mut tracked = Tracked::new(1, tokio::sync::mpsc::unbounded_channel().0);
        let event_id = EventId::for_test(1);
        tracked.begin(Process { node: "a".into(), boot: 1 }, &admit(event_id, 1));
        tracked.decided(event_id, true, &mut Out::new());
        let ended = |outcome| Update::ProcessCompleted {
            event_id,
            outcome,
            duration: 0.0,
            average_duration: None,
        };
        let mut out = Out::new();
        assert!(!tracked.said(now, ended(Outcome::Stopped), &mut out));
        assert!(out.is_empty() && tracked.goes_on(event_id), "{out:?}");
        assert!(tracked.said(now, ended(Outcome::Cancelled), &mut out));
        assert_eq!((out.len(), tracked.goes_on(event_id)), (1, false));
    }
}

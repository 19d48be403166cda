//! Which events are followed here, as it is said to whoever keeps the line until that has been heard.

use std::collections::BTreeMap;
use std::time::Instant;

use super::followed::AGAIN;
use super::out::{Out, To};
use super::wire::Message;
use crate::event::id::EventId;

/// How many events one message names at most.
const TOGETHER: usize = 2_000;

/// What was said, by its number, and may not have been heard.
#[derive(Debug, Default)]
pub(super) struct Follows {
    said: BTreeMap<u64, Said>,
    next: u64,
}

#[derive(Debug)]
struct Said {
    events: Vec<EventId>,
    last: Instant,
}

impl Follows {
    /// These are followed here as well.
    pub fn say(&mut self, now: Instant, events: Vec<EventId>, out: &mut Out) {
        let number = self.next;
        self.next += 1;
        out.push((To::Keeper, Message::Follow { number, events: events.clone() }));
        self.said.insert(number, Said { events, last: now });
    }

    /// Somebody else is to hear it, who knows of none yet: these are all.
    pub fn say_all(&mut self, now: Instant, events: &[EventId], out: &mut Out) {
        self.said.clear();
        for events in events.chunks(TOGETHER) {
            self.say(now, events.to_vec(), out);
        }
    }

    pub fn has_heard(&mut self, number: u64) {
        self.said.remove(&number);
    }

    /// Says again what may be lost.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Out) {
        for (number, said) in self.said.iter_mut().filter(|(_, said)| now - said.last >= AGAIN) {
            said.last = now;
            let (number, events) = (*number, said.events.clone());
            out.push((To::Keeper, Message::Follow { number, events }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(out: &Out) -> Vec<u64> {
        let number = |(_, message): &_| match message {
            Message::Follow { number, .. } => *number,
            other => panic!("{other:?}"),
        };
        out.iter().map(number).collect()
    }

    /// It may be lost on its way, and who keeps the line doesn't know then whom to tell.
    #[test]
    fn it_is_said_until_it_has_been_heard() {
        let now = Instant::now();
        let mut follows = Follows::default();
        let event = EventId::for_test(1);
        follows.say(now, vec![event], &mut Out::new());
        let again = |follows: &mut Follows, times| {
            let mut out = Out::new();
            follows.handle_timeout(now + AGAIN * times, &mut out);
            numbers(&out)
        };
        assert_eq!((again(&mut follows, 1), again(&mut follows, 2)), (vec![0], vec![0]));
        let mut out = Out::new();
        follows.say_all(now + 2 * AGAIN, &[event], &mut out);
        assert_eq!(numbers(&out), [1]);
        // The one before has heard it.
        follows.has_heard(0);
        assert_eq!(again(&mut follows, 3), [1]);
        follows.has_heard(1);
        assert!(again(&mut follows, 4).is_empty());
    }

    #[test]
    fn many_are_said_in_several_messages() {
        let events: Vec<_> = (0..=TOGETHER as u128).map(EventId::for_test).collect();
        let mut out = Out::new();
        Follows::default().say_all(Instant::now(), &events, &mut out);
        assert_eq!(numbers(&out), [0, 1]);
    }
}

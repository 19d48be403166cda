//! Messages to one process on their way together: under load each would cost more to carry than to say.

use serde::{Deserialize, Serialize};

use super::parts::PART;
use super::wire::Message;
use crate::cluster::message::Process;
use crate::logging::warn;

/// What has come, in the order in which it was sent.
#[derive(Debug, Deserialize)]
pub(super) struct Envelope {
    pub from: Process,
    pub messages: Vec<Message>,
}

/// An envelope that is being written. It is as long as NATS takes at most, but where one message alone is longer.
#[derive(Debug)]
pub(super) struct Frame {
    text: Vec<u8>,
    messages: usize,
}

/// After the last message.
const END: &[u8] = b"]}";

impl Frame {
    pub fn new(from: &Process) -> Self {
        #[derive(Serialize)]
        struct Empty<'a> {
            from: &'a Process,
            messages: [(); 0],
        }
        // The name of a node and a number can be written.
        let mut text = serde_json::to_vec(&Empty { from, messages: [] }).unwrap_or_default();
        text.truncate(text.len().saturating_sub(END.len()));
        Frame { text, messages: 0 }
    }

    /// Adds a message. If there is no room for it, gives what was there before, which is to be sent first.
    pub fn add(&mut self, from: &Process, message: &Message) -> Option<Vec<u8>> {
        let before = self.text.len();
        if self.messages > 0 {
            self.text.push(b',');
        }
        if let Err(error) = serde_json::to_writer(&mut self.text, message) {
            warn!("a message can't be written: {error}");
            self.text.truncate(before);
            return None;
        }
        self.messages += 1;
        if self.messages == 1 || self.text.len() + END.len() <= PART {
            return None;
        }
        let mut next = Frame::new(from);
        next.text.extend_from_slice(&self.text[before + 1..]);
        next.messages = 1;
        self.text.truncate(before);
        self.messages -= 1;
        std::mem::replace(self, next).written()
    }

    /// As it is sent, unless there is nothing to say.
    pub fn written(mut self) -> Option<Vec<u8>> {
        self.text.extend_from_slice(END);
        (self.messages > 0).then_some(self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::message::Attempt;
    use crate::event::id::EventId;
    use crate::event::json_text::JsonText;
    use crate::node::wire::Said;

    fn says(number: u32, length: usize) -> Message {
        let event = EventId::for_test(1);
        let output = JsonText::of(&"x".repeat(length)).unwrap();
        let said = Said::Generating { output, duration: 0.0 };
        Message::Said { attempt: Attempt { event, number }, event, said }
    }

    fn numbers(written: &[u8]) -> Vec<u32> {
        let envelope: Envelope = serde_json::from_slice(written).unwrap();
        assert_eq!(envelope.from, me());
        let number = |message: &Message| match message {
            Message::Said { attempt, .. } => attempt.number,
            other => panic!("{other:?}"),
        };
        envelope.messages.iter().map(number).collect()
    }

    fn me() -> Process {
        Process { node: "a \"node\"".into(), boot: 7 }
    }

    #[test]
    fn messages_travel_together_in_order_as_long_as_there_is_room() {
        let mut frame = Frame::new(&me());
        assert_eq!(Frame::new(&me()).written(), None);
        let mut sent = Vec::new();
        let lengths = [10, 10, PART / 2, PART / 2, 2 * PART, 10];
        for (number, length) in (0..).zip(lengths) {
            sent.extend(frame.add(&me(), &says(number, length)));
        }
        sent.extend(frame.written());
        let numbers: Vec<_> = sent.iter().map(|written| numbers(written)).collect();
        assert_eq!(numbers, [vec![0, 1, 2], vec![3], vec![4], vec![5]]);
        let longer: Vec<_> = sent.iter().map(|written| written.len() > PART).collect();
        assert_eq!(longer, [false, false, true, false]);
    }
}

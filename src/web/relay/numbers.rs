//! The numbers of a stream's messages, read while the stream passes by. Pure.

use bytes::{Bytes, BytesMut};

/// A message that is longer isn't held back until it is whole.
const LONGEST_HELD: usize = 1024 * 1024;

/// Splits a stream of server-sent events into whole messages, so that one that breaks off can go on elsewhere
/// after the last of them.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    /// Numbers are for this node only; the client doesn't expect any.
    strips: bool,
    held: BytesMut,
    /// So much of what is held has been looked at.
    searched: usize,
    /// What is held is the rest of a message whose beginning has been passed on.
    is_begun: bool,
    /// The number of the message that is being passed on in pieces.
    pending: Option<u64>,
    last: Option<u64>,
}

impl Messages {
    pub fn new(strips: bool) -> Self {
        Messages { strips, ..Messages::default() }
    }

    /// More has come: what can be passed on.
    pub fn push(&mut self, bytes: &[u8]) -> Bytes {
        self.held.extend_from_slice(bytes);
        let mut out = BytesMut::new();
        while let Some(end) = self.end_of_message() {
            let message = self.held.split_to(end);
            self.searched = 0;
            self.pass(&message, &mut out);
            self.is_begun = false;
            if let Some(number) = self.pending.take() {
                self.last = Some(number);
            }
        }
        if self.held.len() > LONGEST_HELD {
            // The last byte may be half of an end.
            let begin = self.held.split_to(self.held.len() - 1);
            self.searched = 0;
            self.pass(&begin, &mut out);
            self.is_begun = true;
        }
        out.freeze()
    }

    fn end_of_message(&mut self) -> Option<usize> {
        let from = self.searched.saturating_sub(1);
        let end = self.held[from..].windows(2).position(|pair| pair == b"\n\n");
        self.searched = self.held.len();
        end.map(|at| from + at + 2)
    }

    fn pass(&mut self, message: &[u8], out: &mut BytesMut) {
        let number = (!self.is_begun).then(|| number(message)).flatten();
        let line = match number {
            Some((number, line)) => {
                self.pending = Some(number);
                if self.strips { line } else { 0 }
            }
            None => 0,
        };
        out.extend_from_slice(&message[line..]);
    }

    /// The number of the last message that was passed on whole.
    pub fn last(&self) -> Option<u64> {
        self.last
    }

    /// The stream has ended in order: what is left of it.
    pub fn rest(&mut self) -> Bytes {
        self.held.split().freeze()
    }

    /// The stream breaks off: whether another one can go on after it. Not where half a message has been passed
    /// on.
    pub fn break_off(&mut self) -> bool {
        self.held.clear();
        self.searched = 0;
        !self.is_begun
    }
}

/// A message's number, and how long the line is that says it.
fn number(message: &[u8]) -> Option<(u64, usize)> {
    let rest = message.strip_prefix(b"id: ")?;
    let length = rest.iter().position(|byte| *byte == b'\n')?;
    let number = str::from_utf8(&rest[..length]).ok()?.parse().ok()?;
    Some((number, b"id: ".len() + length + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"id: 1\ndata: {}\n\ndata: id: 9\n\nid: 12\nevent: x\ndata: 2\n\ndata: h\n\n";

    #[test]
    fn numbers_are_read_however_it_is_cut() {
        let bare: &[u8] = b"data: {}\n\ndata: id: 9\n\nevent: x\ndata: 2\n\ndata: h\n\n";
        for size in 1..STREAM.len() {
            for (strips, expected) in [(false, STREAM), (true, bare)] {
                let mut messages = Messages::new(strips);
                let passed: Vec<u8> =
                    STREAM.chunks(size).flat_map(|chunk| messages.push(chunk)).collect();
                assert_eq!(passed, expected);
                assert_eq!(messages.last(), Some(12));
                assert!(messages.rest().is_empty() && messages.break_off());
            }
        }
    }

    #[test]
    fn half_a_message_is_not_passed_on() {
        let mut messages = Messages::new(false);
        assert_eq!(messages.push(b"id: 1\ndata: 1\n\nid: 2\ndata: "), &b"id: 1\ndata: 1\n\n"[..]);
        assert_eq!(messages.last(), Some(1));
        assert!(messages.break_off());
        assert_eq!(messages.push(b"id: 2\ndata: 2\n\n"), &b"id: 2\ndata: 2\n\n"[..]);
        assert_eq!(messages.last(), Some(2));
    }

    #[test]
    fn a_long_message_is_passed_on_in_pieces() {
        let mut messages = Messages::new(true);
        let mut passed = messages.push(b"id: 7\ndata: ").to_vec();
        let piece = vec![b'x'; 100_000];
        for _ in 0..30 {
            passed.extend_from_slice(&messages.push(&piece));
        }
        assert!(passed.len() > 2_000_000, "it isn't held");
        assert_eq!(messages.last(), None);
        passed.extend_from_slice(&messages.push(b"\n\nid: 8\ndata: id: 3\n\n"));
        assert!(passed.starts_with(b"data: x") && passed.ends_with(b"x\n\ndata: id: 3\n\n"));
        assert_eq!(passed.len(), 6 + 3_000_000 + 2 + 13);
        assert_eq!(messages.last(), Some(8));
        messages.push(&vec![b'y'; 2_000_000]);
        assert!(!messages.break_off(), "half of it is with the client");
    }
}

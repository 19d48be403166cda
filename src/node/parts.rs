//! Messages that are longer than NATS takes, in parts.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};

/// What a part has at most, in bytes. NATS takes a mebibyte, its headers included.
pub(super) const PART: usize = 900 << 10;

/// How long the rest of a message may take to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// What messages that have not come whole may take together, in bytes.
const MOST: usize = 512 << 20;

/// The kinds of messages by their first byte.
const WHOLE: u8 = 0;
const PART_OF: u8 = 1;

/// How many bytes stand before a part: its kind, the number of its message, its own, and that of all.
const HEAD: usize = 1 + 16 + 4 + 4;

/// A message as NATS takes it.
pub(super) fn split(text: Vec<u8>) -> Vec<Bytes> {
    if text.len() <= PART {
        let mut whole = BytesMut::with_capacity(text.len() + 1);
        whole.put_u8(WHOLE);
        whole.extend_from_slice(&text);
        return vec![whole.freeze()];
    }
    let (message, parts) = (rand::random::<u128>(), text.chunks(PART));
    let of = u32::try_from(parts.len()).unwrap_or(u32::MAX);
    let part = |(number, text): (u32, &[u8])| {
        let mut part = BytesMut::with_capacity(HEAD + text.len());
        part.put_u8(PART_OF);
        part.put_u128(message);
        part.put_u32(number);
        part.put_u32(of);
        part.extend_from_slice(text);
        part.freeze()
    };
    (0..).zip(parts).map(part).collect()
}

/// Puts parts together again.
#[derive(Debug, Default)]
pub(super) struct Parts {
    messages: HashMap<u128, Unfinished>,
    bytes: usize,
}

#[derive(Debug)]
struct Unfinished {
    parts: Vec<Option<Bytes>>,
    missing: usize,
    last: Instant,
    bytes: usize,
}

impl Parts {
    /// Takes what NATS has brought. Gives a message that is whole now.
    pub fn take(&mut self, now: Instant, bytes: &Bytes) -> Option<Bytes> {
        match *bytes.first()? {
            WHOLE => Some(bytes.slice(1..)),
            PART_OF if bytes.len() > HEAD => {
                let number = |at: usize| {
                    let bytes = bytes.get(at..at + 4).and_then(|it| it.try_into().ok());
                    bytes.map_or(0, u32::from_be_bytes) as usize
                };
                let message = bytes.get(1..17)?.try_into().ok().map(u128::from_be_bytes)?;
                self.part(now, message, number(17), number(21), bytes.slice(HEAD..))
            }
            _ => None,
        }
    }

    fn part(
        &mut self,
        now: Instant,
        message: u128,
        number: usize,
        of: usize,
        text: Bytes,
    ) -> Option<Bytes> {
        self.forget(now);
        if number >= of || of > MOST / PART || self.bytes + text.len() > MOST {
            return None;
        }
        let unfinished = self.messages.entry(message).or_insert_with(|| Unfinished {
            parts: vec![None; of],
            missing: of,
            last: now,
            bytes: 0,
        });
        let part = unfinished.parts.get_mut(number).filter(|part| part.is_none())?;
        self.bytes += text.len();
        unfinished.bytes += text.len();
        *part = Some(text);
        (unfinished.missing, unfinished.last) = (unfinished.missing - 1, now);
        if unfinished.missing > 0 {
            return None;
        }
        let whole = self.messages.remove(&message)?;
        self.bytes -= whole.bytes;
        let mut text = BytesMut::with_capacity(whole.bytes);
        whole.parts.iter().flatten().for_each(|part| text.extend_from_slice(part));
        Some(text.freeze())
    }

    /// What has not come whole for so long that a part of it must be lost.
    fn forget(&mut self, now: Instant) {
        let bytes = &mut self.bytes;
        self.messages.retain(|_, unfinished| {
            let stays = now - unfinished.last < PATIENCE;
            *bytes -= if stays { 0 } else { unfinished.bytes };
            stays
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_split_is_whole_again_in_any_order() {
        let now = Instant::now();
        for length in [0, 1, PART, PART + 1, 3 * PART + 5] {
            let text: Vec<u8> = (0..length).map(|n| (n % 251) as u8).collect();
            let mut parts = split(text.clone());
            parts.reverse();
            let mut together = Parts::default();
            let whole: Vec<Bytes> =
                parts.iter().filter_map(|part| together.take(now, part)).collect();
            assert_eq!(whole, [Bytes::from(text)]);
            assert_eq!((together.bytes, together.messages.len()), (0, 0));
        }
    }

    #[test]
    fn a_message_without_all_its_parts_is_forgotten() {
        let now = Instant::now();
        let mut together = Parts::default();
        let parts = split(vec![7; 2 * PART]);
        assert_eq!(together.take(now, &parts[0]), None);
        assert_eq!(together.take(now, &parts[0]), None, "it came twice");
        assert_eq!(together.bytes, PART);
        let later = now + PATIENCE;
        assert_eq!(together.take(later, &parts[1]), None);
        assert_eq!(together.bytes, PART, "the first one is gone");
        assert_eq!(together.take(later, &Bytes::from_static(&[9, 9])), None);
        assert_eq!(together.take(later, &Bytes::new()), None);
    }
}

//! Events: what identifies one, and how one ends.

use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

const HEX: &[u8; 16] = b"0123456789abcdef";

/// The identity of one event: 128 random bits, written as 32 hexadecimal digits as Gradio does.
///
/// Nobody can guess the id of somebody else's event.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId(u128);

impl EventId {
    pub(crate) fn random() -> Self {
        EventId(rand::random())
    }

    /// Its digits: they are written several times an event, for which formatting is slow.
    /// One that these bytes stand for.
    #[cfg_attr(not(feature = "cluster"), allow(dead_code))]
    pub(crate) fn of_bytes(bytes: [u8; 16]) -> Self {
        EventId(u128::from_be_bytes(bytes))
    }

    fn with_text<T>(self, write: impl FnOnce(&str) -> T) -> T {
        let mut digits = [0; 32];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.0.to_be_bytes()) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 0xf)];
        }
        write(str::from_utf8(&digits).unwrap_or_default())
    }

    /// Appends its digits.
    pub(crate) fn write_to(self, text: &mut Vec<u8>) {
        self.with_text(|digits| text.extend_from_slice(digits.as_bytes()));
    }

    #[cfg(test)]
    pub(crate) fn for_test(n: u128) -> Self {
        EventId(n)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_text(|text| f.write_str(text))
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({self})")
    }
}

impl Serialize for EventId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_text(|text| serializer.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for EventId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// The error of parsing an [`EventId`]: it takes 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event id has 32 hexadecimal digits")]
pub struct ParseEventIdError;

impl FromStr for EventId {
    type Err = ParseEventIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        let value = u128::from_str_radix(text, 16).map_err(|_| ParseEventIdError)?;
        digits.then_some(EventId(value)).ok_or(ParseEventIdError)
    }
}

/// A map by event id. The ids are random already, and never chosen by a client, so that their own
/// bits do as a hash.
pub(crate) type EventMap<V> = std::collections::HashMap<EventId, V, BuildIdHasher>;

pub(crate) type BuildIdHasher = BuildHasherDefault<RandomIdHasher>;

#[derive(Default)]
pub(crate) struct RandomIdHasher(u64);

impl Hasher for RandomIdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut bytes = [0; 8];
            bytes[..chunk.len()].copy_from_slice(chunk);
            self.0 = self.0.rotate_left(32) ^ u64::from_le_bytes(bytes);
        }
    }

    fn write_u128(&mut self, id: u128) {
        self.0 = id as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_survives_its_text() {
        let id = EventId::random();
        assert_eq!(id.to_string().len(), 32);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(EventId(7).to_string().parse(), Ok(EventId(7)));
        assert_eq!(EventId(0xabc).to_string(), format!("{:032x}", 0xabc));
    }

    #[test]
    fn other_text_is_no_id() {
        for text in ["", "7", "+0000000000000000000000000000007", &"é".repeat(16), &"g".repeat(32)]
        {
            assert_eq!(text.parse::<EventId>(), Err(ParseEventIdError), "{text}");
        }
    }
}

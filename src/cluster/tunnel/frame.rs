//! The messages of a tunnel, as bytes.

use bytes::{BufMut, Bytes, BytesMut};

use crate::cluster::message::Process;

/// Of one exchange: a request and its answer.
pub(super) type ExchangeId = u128;

/// What one end of an exchange says to the other.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Frame {
    /// The first message of a request, by whom. It has the number 0.
    Begin { from: Process, part: Bytes },
    /// Some of what is carried.
    Part { number: u64, part: Bytes },
    /// Nothing more is carried this way.
    Last { number: u64 },
    /// All before this number has been read.
    Acknowledge { next: u64 },
    /// Whoever asked doesn't want it any more, or whoever answered doesn't go on.
    Cancel,
    /// The other end knows nothing of it, or not all of it: it was broken off on the way.
    Lost,
}

const BEGIN: u8 = b'b';
const PART: u8 = b'p';
const LAST: u8 = b'l';
const ACKNOWLEDGE: u8 = b'a';
const CANCEL: u8 = b'c';
const LOST: u8 = b'x';

impl Frame {
    pub fn to_bytes(&self) -> Bytes {
        let (kind, number, part) = match self {
            Frame::Begin { from, part } => {
                let from = serde_json::to_vec(from).unwrap_or_default();
                let mut bytes = BytesMut::with_capacity(9 + from.len() + part.len());
                bytes.put_u8(BEGIN);
                bytes.put_u64(from.len() as u64);
                bytes.put_slice(&from);
                bytes.put_slice(part);
                return bytes.freeze();
            }
            Frame::Part { number, part } => (PART, *number, part.as_ref()),
            Frame::Last { number } => (LAST, *number, [].as_slice()),
            Frame::Acknowledge { next } => (ACKNOWLEDGE, *next, [].as_slice()),
            Frame::Cancel => (CANCEL, 0, [].as_slice()),
            Frame::Lost => (LOST, 0, [].as_slice()),
        };
        let mut bytes = BytesMut::with_capacity(9 + part.len());
        bytes.put_u8(kind);
        bytes.put_u64(number);
        bytes.put_slice(part);
        bytes.freeze()
    }

    /// None of what no node of this version has sent.
    pub fn from_bytes(mut bytes: Bytes) -> Option<Self> {
        let head = bytes.get(..9)?;
        let (kind, number) = (head[0], u64::from_be_bytes(head[1..].try_into().ok()?));
        let mut part = bytes.split_off(9);
        Some(match kind {
            BEGIN => {
                let length = usize::try_from(number).ok().filter(|length| *length <= part.len())?;
                let from = serde_json::from_slice(&part.split_to(length)).ok()?;
                Frame::Begin { from, part }
            }
            PART => Frame::Part { number, part },
            LAST => Frame::Last { number },
            ACKNOWLEDGE => Frame::Acknowledge { next: number },
            CANCEL => Frame::Cancel,
            LOST => Frame::Lost,
            _ => return None,
        })
    }
}

/// Says that these exchanges go on at a process, and how many messages it has sent in each: what was lost
/// shows though nothing follows it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Alive {
    pub from: Process,
    pub exchanges: Vec<(ExchangeId, u64)>,
}

impl Alive {
    pub fn to_bytes(&self) -> Bytes {
        let from = serde_json::to_vec(&self.from).unwrap_or_default();
        let mut bytes = BytesMut::with_capacity(8 + from.len() + 24 * self.exchanges.len());
        bytes.put_u64(from.len() as u64);
        bytes.put_slice(&from);
        for (id, next) in &self.exchanges {
            bytes.put_u128(*id);
            bytes.put_u64(*next);
        }
        bytes.freeze()
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_be_bytes(*length)).ok()?;
        let (from, rest) = rest.split_at_checked(length)?;
        let from = serde_json::from_slice(from).ok()?;
        let exchanges = rest.chunks_exact(24).filter_map(|entry| {
            let (id, next) = entry.split_first_chunk::<16>()?;
            Some((u128::from_be_bytes(*id), u64::from_be_bytes(next.try_into().ok()?)))
        });
        Some(Alive { from, exchanges: exchanges.collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sent_is_read() {
        let from = Process { node: "a.*> \u{0}".into(), boot: 7 };
        for frame in [
            Frame::Begin { from: from.clone(), part: Bytes::from_static(b"head") },
            Frame::Begin { from: from.clone(), part: Bytes::new() },
            Frame::Part { number: u64::MAX, part: Bytes::from_static(b"\0\xff") },
            Frame::Last { number: 3 },
            Frame::Acknowledge { next: 4 },
            Frame::Cancel,
            Frame::Lost,
        ] {
            assert_eq!(Frame::from_bytes(frame.to_bytes()), Some(frame));
        }
        for foreign in [&b""[..], b"p", b"zzzzzzzzzz", b"b\xff\xff\xff\xff\xff\xff\xff\xffx"] {
            assert_eq!(Frame::from_bytes(Bytes::from_static(foreign)), None);
        }
        for exchanges in [vec![], vec![(1, 2), (u128::MAX, u64::MAX)]] {
            let alive = Alive { from: from.clone(), exchanges };
            assert_eq!(Alive::from_bytes(&alive.to_bytes()), Some(alive));
        }
        assert_eq!(Alive::from_bytes(b"\xff\xff\xff\xff\xff\xff\xff\xff{}"), None);
    }
}

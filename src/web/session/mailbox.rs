//! What sessions have unread, over all of them: where it is too much, the session with the most
//! drops some.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicIsize, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::delivery::bounds::{Bounds, ByteBounds};
use crate::delivery::outbox::Outbox;
use crate::delivery::unread::{Gone, Read};
use crate::event::id::EventId;
use crate::event::update::Update;

/// What one session may have unread.
const BOUNDS: Bounds = Bounds {
    number: u32::MAX,
    bytes: Some(ByteBounds {
        attended: 256 * 1024,
        absent: 4 * 1024 * 1024,
        all: 32 * 1024 * 1024,
    }),
};

/// What all sessions may have unread, in bytes.
const ALL: isize = 256 * 1024 * 1024;

/// What a session may have unread that doesn't count for that, in bytes. Few have more; the others
/// don't take the common lock.
const GRAIN: isize = 4 * 1024;

/// The maximum of bytes of a message that are handed out at once.
const PIECE: usize = 64 * 1024;

/// What all sessions have unread.
#[derive(Debug)]
pub(crate) struct Ledger {
    all: isize,
    next: AtomicU64,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    bytes: isize,
    by_number: HashMap<u64, (isize, Weak<Mailbox>)>,
    by_bytes: BTreeSet<(isize, u64)>,
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger::new(ALL)
    }
}

impl Ledger {
    fn new(all: isize) -> Self {
        Ledger { all, next: AtomicU64::new(0), held: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes that count.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.lock().bytes.try_into().unwrap_or_default()
    }

    fn change(&self, mailbox: &Arc<Mailbox>, change: isize) {
        let mut held = self.lock();
        let own = held.by_number.entry(mailbox.number);
        let (bytes, _) = own.or_insert_with(|| (0, Arc::downgrade(mailbox)));
        let before = *bytes;
        *bytes += change;
        held.bytes += change;
        held.by_bytes.remove(&(before, mailbox.number));
        held.by_bytes.insert((before + change, mailbox.number));
    }

    /// As long as there is too much, the session with the most drops its largest. The caller holds
    /// no lock of a mailbox.
    fn relieve(&self, gone: &mut Gone) {
        while let Some(largest) = self.largest() {
            if largest.give_up(gone) == 0 {
                return;
            }
        }
    }

    fn largest(&self) -> Option<Arc<Mailbox>> {
        let held = self.lock();
        if held.bytes <= self.all {
            return None;
        }
        let (_, number) = held.by_bytes.last()?;
        held.by_number.get(number)?.1.upgrade()
    }

    fn forget(&self, number: u64) {
        let mut held = self.lock();
        if let Some((bytes, _)) = held.by_number.remove(&number) {
            held.by_bytes.remove(&(bytes, number));
            held.bytes -= bytes;
        }
    }
}

/// What one session has unread.
#[derive(Debug)]
pub(crate) struct Mailbox {
    outbox: Outbox,
    ledger: Arc<Ledger>,
    number: u64,
    /// What the ledger doesn't know yet. A sum, in which the order doesn't matter.
    untold: AtomicIsize,
    writing: Mutex<Writing>,
}

/// A message that is too long to be handed out at once.
#[derive(Debug, Default)]
struct Writing {
    rest: Bytes,
    /// The whole, as long as there is a rest.
    bytes: usize,
    /// It was given up before its end.
    cut: bool,
}

impl Mailbox {
    pub fn new(ledger: Arc<Ledger>) -> Arc<Self> {
        let number = ledger.next.fetch_add(1, Relaxed);
        let outbox = Outbox::new(BOUNDS);
        let (untold, writing) = (AtomicIsize::new(0), Mutex::default());
        Arc::new(Mailbox { outbox, ledger, number, untold, writing })
    }

    /// An event begins; of others nothing is taken.
    pub fn begin(&self, event: EventId) {
        self.outbox.begin(event);
    }

    /// Wakes the reader, though there is no other update.
    pub fn wake(&self) {
        self.outbox.wake();
    }

    /// Takes an update. What gives way for it, here or in another session, is handed back.
    pub fn push(self: &Arc<Self>, update: Update, gone: &mut Gone) {
        self.count(self.outbox.push(update, gone));
        self.ledger.relieve(gone);
    }

    /// Drops what there is of an event, and what still comes.
    pub fn forget(self: &Arc<Self>, event: EventId) {
        self.count(self.outbox.forget(event));
    }

    /// The next update, if there is one now.
    pub fn try_next(self: &Arc<Self>) -> Option<Read> {
        let read = self.outbox.try_next()?;
        self.count(-(read.weight as isize));
        Some(read)
    }

    /// The next update. The latest caller is woken when there is one.
    pub fn poll_next(self: &Arc<Self>, cx: &mut Context<'_>) -> Poll<Read> {
        let read = std::task::ready!(self.outbox.poll_next(cx));
        self.count(-(read.weight as isize));
        Poll::Ready(read)
    }

    /// A stream begins to read, with a message of its own, or the last one has gone.
    pub fn attend(self: &Arc<Self>, attended: bool) {
        self.outbox.attend(attended);
        let written = std::mem::take(&mut *self.writing());
        self.count(-(written.bytes as isize));
    }

    fn writing(&self) -> MutexGuard<'_, Writing> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Of a message that was written from an offset on, only the first piece is handed out now.
    pub fn hold_back(self: &Arc<Self>, text: &mut Vec<u8>, begin: usize) {
        let bytes = text.len() - begin;
        if bytes <= PIECE {
            return;
        }
        let rest = Bytes::from(text.split_off(begin + PIECE));
        *self.writing() = Writing { rest, bytes, cut: false };
        self.count(bytes as isize);
        self.ledger.relieve(&mut Gone::default());
    }

    /// Hands out the next piece of a message, if there is one.
    pub fn continue_message(self: &Arc<Self>, text: &mut Vec<u8>) -> Piece {
        let mut writing = self.writing();
        if writing.cut {
            return Piece::Cut;
        }
        if writing.rest.is_empty() {
            return Piece::None;
        }
        let piece = writing.rest.len().min(PIECE);
        text.extend_from_slice(&writing.rest.split_to(piece));
        if writing.rest.is_empty() {
            let bytes = std::mem::take(&mut *writing).bytes;
            drop(writing);
            self.count(-(bytes as isize));
        }
        Piece::Some
    }

    /// The bytes that are held, but for an update that a reader was waiting for.
    pub fn bytes(&self) -> usize {
        self.outbox.bytes() + self.writing().bytes
    }

    /// Gives up the largest of what is held.
    fn give_up(self: &Arc<Self>, gone: &mut Gone) -> isize {
        let mut writing = self.writing();
        let change = if writing.bytes > self.outbox.bytes() {
            let bytes = writing.bytes;
            *writing = Writing { cut: true, ..Writing::default() };
            -(bytes as isize)
        } else {
            self.outbox.give_up(gone)
        };
        drop(writing);
        self.count(change);
        change
    }

    fn count(self: &Arc<Self>, change: isize) {
        if change == 0 {
            return;
        }
        let untold = self.untold.fetch_add(change, Relaxed) + change;
        if untold.abs() >= GRAIN {
            self.ledger.change(self, self.untold.swap(0, Relaxed));
        }
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        self.ledger.forget(self.number);
    }
}

/// What became of a message that is handed out in pieces.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    Some,
    None,
    /// It was given up; its stream can't go on.
    Cut,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::output::Output;
    use crate::event::update::Outcome;

    fn event(n: u128) -> EventId {
        EventId::for_test(n)
    }

    fn mailbox(ledger: &Arc<Ledger>, events: u128) -> Arc<Mailbox> {
        let mailbox = Mailbox::new(ledger.clone());
        (0..events).for_each(|n| mailbox.begin(event(n)));
        mailbox
    }

    fn result(n: u128, bytes: usize) -> Update {
        let output = Output::new("x".repeat(bytes - 2));
        let outcome = Outcome::Completed(Some(output));
        let (duration, average_duration) = (0.0, None);
        Update::ProcessCompleted { event_id: event(n), outcome, duration, average_duration }
    }

    fn push(mailbox: &Arc<Mailbox>, update: Update) {
        mailbox.push(update, &mut Gone::default());
    }

    /// Whether each result is whole.
    fn whole(mailbox: &Arc<Mailbox>) -> Vec<bool> {
        let read = std::iter::from_fn(|| mailbox.try_next());
        let whole = |read: Read| match read.update {
            Update::ProcessCompleted { outcome, .. } => matches!(outcome, Outcome::Completed(_)),
            other => panic!("{other:?}"),
        };
        read.map(whole).collect()
    }

    #[test]
    fn whoever_has_most_unread_gives_it_up() {
        let ledger = Arc::new(Ledger::new(1_000_000));
        let (small, large) = (mailbox(&ledger, 1), mailbox(&ledger, 20));
        push(&small, result(0, 10_000));
        (0..20).for_each(|n| push(&large, result(n, 100_000)));
        assert!(ledger.bytes() <= 1_000_000);
        let kept = whole(&large);
        assert_eq!(kept.iter().filter(|whole| **whole).count(), 9);
        assert_eq!(kept.len(), 20);
        assert_eq!(whole(&small), [true]);
        assert_eq!(ledger.bytes(), 0);
    }

    #[test]
    fn a_session_has_a_share_of_its_own() {
        let ledger = Arc::new(Ledger::default());
        let mailbox = mailbox(&ledger, 10);
        (0..10).for_each(|n| push(&mailbox, result(n, 8 << 20)));
        assert_eq!(mailbox.bytes(), 32 << 20);
        assert_eq!(whole(&mailbox).iter().filter(|whole| **whole).count(), 4);
    }

    #[test]
    fn a_long_message_is_handed_out_in_pieces_and_counts_until_its_end() {
        let ledger = Arc::new(Ledger::new(1_000_000));
        let mailbox = mailbox(&ledger, 1);
        let message = || vec![b'x'; 3 * PIECE + 1];
        let mut text = message();
        mailbox.hold_back(&mut text, 0);
        assert_eq!((text.len(), mailbox.bytes()), (PIECE, 3 * PIECE + 1));
        while mailbox.continue_message(&mut text) == Piece::Some {}
        assert_eq!((text.len(), mailbox.bytes(), ledger.bytes()), (3 * PIECE + 1, 0, 0));
        // One that is given up ends its stream.
        mailbox.hold_back(&mut message(), 0);
        (0..20).for_each(|_| {
            let other = self::mailbox(&ledger, 1);
            push(&other, result(0, 150_000));
            std::mem::forget(other);
        });
        assert_eq!(mailbox.continue_message(&mut text), Piece::Cut);
        mailbox.attend(true);
        assert_eq!(mailbox.continue_message(&mut text), Piece::None);
        assert!(ledger.bytes() <= 1_000_000);
    }

    /// Locks its mailbox when it is dropped, as a value does that sends updates of its event.
    #[derive(serde::Serialize, schemars::JsonSchema)]
    struct Loud {
        text: String,
        #[serde(skip)]
        mailbox: Arc<Mailbox>,
    }

    impl Drop for Loud {
        fn drop(&mut self) {
            self.mailbox.attend(false);
        }
    }

    #[test]
    fn a_value_that_is_given_up_may_speak() {
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let ledger = Arc::new(Ledger::new(100_000));
            let mailbox = mailbox(&ledger, 1);
            for _ in 0..3 {
                let output =
                    Output::new(Loud { text: "x".repeat(60_000), mailbox: mailbox.clone() });
                let event_id = event(0);
                push(&mailbox, Update::ProcessGenerating { event_id, output, duration: 0.0 });
            }
            done.send(()).unwrap();
        });
        let long = std::time::Duration::from_secs(30);
        is_done.recv_timeout(long).expect("it has not locked itself out");
    }
}

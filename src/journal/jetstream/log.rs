//! What a log must do to be written by one process at a time: append where nobody else has, or say that
//! somebody has. JetStream does; in tests, a log in memory with the troubles of a network does.

use std::future::Future;

use crate::journal::error::JournalError;

/// What came of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Appended {
    /// The group is kept; its last part has this sequence.
    Kept(u64),
    /// It isn't: something else stands where it was to stand. Or this group, of an attempt whose answer was
    /// lost.
    Behind,
    /// It isn't, and no room is left.
    Full,
    /// It isn't, and never will be: it is more than the log takes.
    TooLong(String),
    /// Nobody knows.
    Unknown(String),
}

/// A group as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    /// Of its first part.
    pub sequence: u64,
    /// Of its last part.
    pub last: u64,
    /// Who appended it, and as its how manyth. `None` where it is none of ours.
    pub tag: Option<String>,
    pub text: Vec<u8>,
}

/// A log of one writer. Each part of a group counts in the sequence.
pub(super) trait Log {
    /// The first and the last sequence that are kept; the first is one more where there are none.
    /// Only what is first ever goes, so that there are no gaps.
    fn bounds(&self) -> impl Future<Output = Result<(u64, u64), JournalError>>;

    /// Gives the groups from `first` to `last` to `take`, in order.
    fn replay(
        &self,
        first: u64,
        last: u64,
        take: &mut dyn FnMut(Stored) -> Result<(), JournalError>,
    ) -> impl Future<Output = Result<(), JournalError>>;

    /// The group whose first part has this sequence.
    fn read(&self, sequence: u64) -> impl Future<Output = Result<Option<Stored>, JournalError>>;

    /// Appends a group if `expected` is the last sequence.
    fn append(&self, expected: u64, tag: &str, text: &[u8]) -> impl Future<Output = Appended>;

    /// Removes all before this sequence.
    fn remove_before(&self, sequence: u64) -> impl Future<Output = Result<(), JournalError>>;

    /// Nothing is appended from here any more: others needn't be told that it is.
    fn resign(&self);

    /// What it is called, for people.
    fn name(&self) -> &str;
}

/// What it means that it doesn't answer.
pub(super) fn unreachable(error: impl std::fmt::Display) -> JournalError {
    JournalError::Unreachable(error.to_string())
}

/// Why it is unreachable, without the words that say so.
pub(super) fn reason(trouble: JournalError) -> String {
    match trouble {
        JournalError::Unreachable(why) => why,
        other => other.to_string(),
    }
}

//! Why a journal can't be used, or has not kept a record.

use std::path::PathBuf;

/// Why a journal could not be opened, or has not kept a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The disk is full. What was to be recorded is not; once there is room, records are kept again.
    #[error("the disk of the journal is full; make room on it")]
    Full,
    /// The file or its directory can't be written.
    #[error("the journal {} can't be written; give this process the right to write it and its directory", .0.display())]
    ReadOnly(PathBuf),
    /// There is no directory for the file.
    #[error(
        "the journal {} can't be made: its directory doesn't exist; make {} first",
        path.display(),
        directory.display()
    )]
    NoDirectory {
        /// The file.
        path: PathBuf,
        /// The directory.
        directory: PathBuf,
    },
    /// Another program has locked the file for long. What was to be recorded is not; it is tried again.
    #[error("another program keeps the journal locked; end its transaction")]
    Busy,
    /// Another process has the file.
    #[error("the journal {} is in use by {by}; one process has a journal at a time", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
        /// Which process, as far as it is known.
        by: String,
    },
    /// The file is of a later version of this crate.
    #[error(
        "the journal {} has format {found}, and this version of now-serving knows formats up to \
         {known}; use the version that wrote it, or a later one",
        path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest that is known here.
        known: u32,
    },
    /// The file is something else.
    #[error("{} is no journal of now-serving ({what}); name another file", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is, as far as that is known.
        what: String,
    },
    /// The file is damaged.
    #[error(
        "the journal {} is damaged ({what}); restore it from a backup, or move it away to begin a new one",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// Another process has the journal of this name on NATS.
    #[error("the journal {name} on NATS is in use by {by}; one process has a journal at a time")]
    Owned {
        /// The stream.
        name: String,
        /// Which process, as far as it is known.
        by: String,
    },
    /// Another process has taken the journal over, because this one didn't answer. Nothing is written any
    /// more by this process: what it has accepted goes on in the other one.
    #[error(
        "the journal {name} on NATS was taken over by {by}; restart this service to have it again"
    )]
    TakenOver {
        /// The stream.
        name: String,
        /// Which process, as far as it is known.
        by: String,
    },
    /// NATS has not answered for so long that a process that stands by may have taken the journal over. Nothing
    /// is written any more by this process: what it has accepted goes on in the other one, or here after a
    /// restart.
    #[error(
        "the journal {name} on NATS could not be reached for {seconds} s, and may have been taken over; \
         restart this service"
    )]
    LeaseLost {
        /// The stream.
        name: String,
        /// For how long.
        seconds: u64,
    },
    /// NATS doesn't answer. What was to be recorded is not; it is tried again.
    #[error("NATS can't be reached ({0}); see to its servers and to the network")]
    Unreachable(String),
    /// The servers don't keep streams as a journal needs them.
    #[error("NATS can't keep the journal ({0}); run nats-server 2.12 or later with JetStream")]
    Unfit(String),
    /// Writing has failed, and whether what was written last is on disk is not known. Nothing is
    /// written any more by this process: restart it once the disk is well.
    #[error(
        "the journal can't be written any more ({0}); see to its disk, then restart the service"
    )]
    Broken(String),
}

impl JournalError {
    /// Whether nothing is recorded any more by this process.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self, JournalError::Broken(_)) || self.is_anothers()
    }

    /// Whether another process may go on with what was recorded.
    pub(crate) fn is_anothers(&self) -> bool {
        matches!(self, JournalError::TakenOver { .. } | JournalError::LeaseLost { .. })
    }
}

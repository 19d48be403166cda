//! A directory with a journal in it, which outlives the queues on it.

use std::path::PathBuf;

use now_serving::{JournalError, Queue, QueueBuilder, Sqlite};
use tempfile::TempDir;

pub struct Disk(TempDir);

impl Disk {
    pub fn new() -> Self {
        Disk(tempfile::tempdir().expect("there is room"))
    }

    pub fn path(&self) -> PathBuf {
        self.0.path().join("events.db")
    }

    pub fn open(&self) -> QueueBuilder {
        // Another queue on it may just be going.
        let journal = loop {
            match Sqlite::open(self.path()) {
                Ok(journal) => break journal,
                Err(JournalError::InUse { .. }) => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        };
        Queue::builder().journal(journal)
    }

    /// The disk as it is at this moment, as a process that dies now leaves it.
    pub fn as_it_is(&self) -> Disk {
        let copy = Disk::new();
        for suffix in ["", "-wal"] {
            let name = format!("events.db{suffix}");
            let from = self.0.path().join(&name);
            if from.exists() {
                std::fs::copy(from, copy.0.path().join(name)).expect("there is room");
            }
        }
        copy
    }
}

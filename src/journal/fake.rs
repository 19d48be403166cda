//! A journal in memory that does what disks do: it takes its time, is full or locked, breaks, and loses
//! what was on its way when its process died, or keeps it and nobody hears. For tests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{oneshot, watch};

use super::error::JournalError;
use super::memory::Memory;
use super::record::Kept;
use super::{Batch, Done, Journal, Loaded, Query};

/// What is on disk, and what is on its way there.
#[derive(Default)]
pub(crate) struct Disk {
    pub kept: Memory,
    /// What it answers instead of keeping records.
    pub trouble: Option<JournalError>,
    /// Whether it has broken: what was on its way at that moment may be on disk all the same.
    broken: Option<JournalError>,
    on_their_way: VecDeque<(Batch, Done)>,
    /// The process that writes: others that wrote before it are dead.
    process: u32,
    /// Whether it needs to be told to go on with each batch.
    stepped: bool,
    taken_over: watch::Sender<Option<JournalError>>,
}

/// One process' journal on a disk.
#[derive(Clone)]
pub(crate) struct FakeJournal {
    pub process: u32,
    disk: Arc<Mutex<Disk>>,
}

impl FakeJournal {
    /// One that keeps what it is given at once.
    pub fn new() -> Self {
        FakeJournal { process: 0, disk: Arc::default() }
    }

    /// One whose disk does nothing before it is told to.
    pub fn stepped() -> Self {
        let journal = FakeJournal::new();
        journal.disk().stepped = true;
        journal
    }

    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }

    /// The disk gets to the next batch. Whether there is one.
    pub fn settle_one(&self) -> bool {
        let (done, result) = {
            let mut disk = self.disk();
            let Some((batch, done)) = disk.on_their_way.pop_front() else { return false };
            (done, disk.write(&batch))
        };
        done(result);
        true
    }

    /// Another process takes over.
    pub fn take_over(&self) {
        let mut disk = self.disk();
        let trouble = JournalError::TakenOver { name: "fake".into(), by: "another".into() };
        disk.broken = Some(trouble.clone());
        disk.taken_over.send_replace(Some(trouble));
    }

    /// What has become of the first batch isn't known yet, and the last one is refused meanwhile, as where the
    /// journal is behind a network. Whether there is such a batch.
    pub fn refuse_last(&self) -> bool {
        let refused = {
            let mut disk = self.disk();
            if disk.on_their_way.len() < 2 { None } else { disk.on_their_way.pop_back() }
        };
        let Some((_, done)) = refused else { return false };
        done(Err(JournalError::Unreachable("a cable was pulled".into())));
        true
    }

    /// It breaks; the next batch may have reached the disk before.
    pub fn break_down(&self, keeps_next: bool) {
        let mut disk = self.disk();
        if keeps_next && let Some((batch, _)) = disk.on_their_way.front() {
            let batch = batch.clone();
            disk.kept.take(&batch);
        }
        disk.broken = Some(JournalError::Broken("a cable was pulled".into()));
    }

    /// The process dies: of what is on its way so many batches arrive, as far as the disk takes them, and
    /// nobody hears of that. Gives what the next process opens.
    pub fn die(self, arrive: usize) -> Self {
        let process = self.process + 1;
        {
            let mut disk = self.disk();
            let arriving: Vec<_> = disk.on_their_way.drain(..).take(arrive).collect();
            for (batch, _) in arriving {
                let _ = disk.write(&batch);
            }
            (disk.process, disk.trouble, disk.broken) = (process, None, None);
            disk.taken_over = watch::Sender::default();
        }
        FakeJournal { process, disk: self.disk }
    }

    pub fn on_their_way(&self) -> usize {
        self.disk().on_their_way.len()
    }
}

impl Disk {
    fn write(&mut self, batch: &Batch) -> Result<(), JournalError> {
        match self.broken.as_ref().or(self.trouble.as_ref()) {
            Some(trouble) => Err(trouble.clone()),
            None => {
                self.kept.take(batch);
                Ok(())
            }
        }
    }

    pub fn is_broken(&self) -> bool {
        self.broken.is_some()
    }
}

impl std::fmt::Debug for FakeJournal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FakeJournal({})", self.process)
    }
}

impl Journal for FakeJournal {
    fn append(&self, batch: Batch, done: Done) {
        let mut disk = self.disk();
        if self.process != disk.process {
            // The dead write no more.
            return;
        }
        disk.on_their_way.push_back((batch, done));
        if !disk.stepped {
            drop(disk);
            self.settle_one();
        }
    }

    fn load(&self) -> Result<Loaded, JournalError> {
        Ok(self.disk().kept.loaded())
    }

    fn ends(&self, query: Query) -> oneshot::Receiver<Result<Vec<Kept>, JournalError>> {
        let (reply, answer) = oneshot::channel();
        // Who asked may have stopped waiting.
        let _ = reply.send(Ok(self.disk().kept.find(&query)));
        answer
    }

    fn taken_over(&self) -> Option<watch::Receiver<Option<JournalError>>> {
        Some(self.disk().taken_over.subscribe())
    }

    fn forget(&self, before: u64) {
        self.disk().kept.forget(before);
    }
}

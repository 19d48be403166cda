//! A log in memory with the troubles of a network: what is appended doesn't arrive, arrives late, or arrives
//! and nobody hears of it. For tests.

use std::sync::{Arc, Mutex, MutexGuard};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::log::{Appended, Log, Stored};
use crate::journal::error::JournalError;

pub(super) struct Kept {
    pub groups: Vec<Stored>,
    first: u64,
    last: u64,
    random: SmallRng,
    /// How many of a hundred appends have each trouble.
    pub troubles: u32,
    pub is_full: bool,
    /// The fault that tests must find: it doesn't look at what is expected.
    pub has_no_fence: bool,
    late: Vec<(u64, String, Vec<u8>)>,
    /// What somebody else appends just before the next append.
    pub race: Option<(String, Vec<u8>)>,
}

#[derive(Clone)]
pub(crate) struct FakeLog(Arc<Mutex<Kept>>);

impl FakeLog {
    pub fn new(seed: u64) -> Self {
        FakeLog(Arc::new(Mutex::new(Kept {
            groups: Vec::new(),
            first: 1,
            last: 0,
            random: SmallRng::seed_from_u64(seed),
            troubles: 0,
            is_full: false,
            has_no_fence: false,
            late: Vec::new(),
            race: None,
        })))
    }

    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }
}

impl Kept {
    fn append(&mut self, expected: u64, tag: &str, text: &[u8]) -> Appended {
        if expected != self.last && !self.has_no_fence {
            return Appended::Behind;
        }
        if self.is_full {
            return Appended::Full;
        }
        let sequence = self.last + 1;
        // As where a group takes several messages.
        self.last += self.random.random_range(1..=3);
        let (tag, text) = (Some(tag.to_string()), text.to_vec());
        self.groups.push(Stored { sequence, last: self.last, tag, text });
        Appended::Kept(self.last)
    }

    pub fn deliver_late(&mut self) {
        for (expected, tag, text) in std::mem::take(&mut self.late) {
            self.append(expected, &tag, &text);
        }
    }
}

impl Log for FakeLog {
    async fn bounds(&self) -> Result<(u64, u64), JournalError> {
        let kept = self.kept();
        Ok((kept.first, kept.last))
    }

    async fn replay(
        &self,
        first: u64,
        last: u64,
        take: &mut dyn FnMut(Stored) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let groups = self.kept().groups.clone();
        let asked = groups.into_iter().filter(|group| (first..=last).contains(&group.sequence));
        asked.into_iter().try_for_each(take)
    }

    async fn read(&self, sequence: u64) -> Result<Option<Stored>, JournalError> {
        Ok(self.kept().groups.iter().find(|group| group.sequence == sequence).cloned())
    }

    async fn append(&self, expected: u64, tag: &str, text: &[u8]) -> Appended {
        let mut kept = self.kept();
        if let Some((tag, text)) = kept.race.take() {
            let last = kept.last;
            kept.append(last, &tag, &text);
        }
        if kept.random.random_bool(0.5) {
            kept.deliver_late();
        }
        let unknown = || Appended::Unknown("a cable was pulled".into());
        let roll = kept.random.random_range(0..100);
        if roll < kept.troubles {
            return unknown();
        }
        if roll < 2 * kept.troubles {
            kept.late.push((expected, tag.to_string(), text.to_vec()));
            return unknown();
        }
        let appended = kept.append(expected, tag, text);
        if roll < 3 * kept.troubles { unknown() } else { appended }
    }

    async fn remove_before(&self, sequence: u64) -> Result<(), JournalError> {
        let mut kept = self.kept();
        kept.groups.retain(|group| group.sequence >= sequence);
        kept.first = kept.first.max(sequence);
        Ok(())
    }

    fn resign(&self) {}

    fn name(&self) -> &str {
        "fake"
    }
}

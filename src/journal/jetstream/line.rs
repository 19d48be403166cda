//! The one writer of a log: it reads what is there, claims it, and appends from then on where it knows that
//! nobody else has.
//!
//! The fence is the log's own check of the last sequence: once another process has claimed the log, no
//! append of this one is kept. An append without an answer may have been kept. It is tried again, at the
//! same place, until the log says that it is kept or that something stands there: this group, or another
//! process' claim.

use super::group::{Again, Claim, Group};
use super::ledger::{Cleaning, KnownEnd, Ledger};
use super::log::{Appended, Log, Stored, reason};
use crate::event::id::EventId;
use crate::event::json_text::JsonText;
use crate::journal::error::JournalError;
use crate::journal::record::{Ended, Kept, Record};
use crate::journal::{Loaded, Query};
use crate::logging::warn;

pub(super) struct Line<L> {
    log: L,
    ledger: Ledger,
    /// The last sequence, as far as it is known here.
    last: u64,
    claim: Claim,
    /// Groups that were given a tag.
    tagged: u64,
}

/// A group on its way into the log.
#[derive(Debug)]
pub(super) struct Appending {
    group: Group,
    text: Vec<u8>,
    tag: String,
    /// Whether an attempt may have been kept.
    is_unsure: bool,
    /// How often the log was shorter than it was known to be.
    shorter: u32,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attempt {
    Kept,
    /// It never will be.
    Refused(JournalError),
    /// Nobody knows, for this reason: it is to be tried again.
    Unsure(String),
    /// The same, and there is no room for it now.
    UnsureWithoutRoom,
}

/// Another process' claim.
struct Claimed {
    sequence: u64,
    by: String,
}

enum Follows {
    Group(Stored),
    /// Something that is gone again.
    Removed,
    Nothing,
    /// Not even what was known to be kept is there.
    Less,
}

impl<L: Log> Line<L> {
    /// Reads the log and claims it, from whoever had it; with `over` only if nobody has it by a claim behind
    /// that sequence.
    ///
    /// # Errors
    /// When it can't be read, holds something else, or can't be claimed.
    pub async fn open(log: L, claim: Claim, over: Option<u64>) -> Result<Self, JournalError> {
        let mut line = Line { log, ledger: Ledger::default(), last: 0, claim, tagged: 0 };
        let mut claiming = line.prepare(Group::claim(line.claim.clone()))?;
        let mut unsure = 0;
        let is_behind = |claimed: &Claimed| over.is_some_and(|over| claimed.sequence > over);
        let mut quicker = line.catch_up().await?.filter(is_behind);
        loop {
            if let Some(Claimed { by, .. }) = quicker {
                return Err(JournalError::Owned { name: line.log.name().into(), by });
            }
            match line.attempt(&mut claiming).await {
                Attempt::Kept => return Ok(line),
                // Somebody has written since it was read.
                Attempt::Refused(JournalError::TakenOver { .. }) => {}
                Attempt::Refused(trouble) => return Err(trouble),
                Attempt::Unsure(why) if unsure == ATTEMPTS => {
                    return Err(JournalError::Unreachable(why));
                }
                Attempt::Unsure(_) | Attempt::UnsureWithoutRoom => unsure += 1,
            }
            quicker = line.catch_up().await?;
        }
    }

    /// The sequence of what this process has appended last: after opening, that of its claim.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Reads what stands behind what is known. Gives who has claimed the log there last, of others, and has not
    /// released it there.
    async fn catch_up(&mut self) -> Result<Option<Claimed>, JournalError> {
        let mut claimed = None;
        let (mut first, mut end) = self.log.bounds().await?;
        if first > self.last + 1 {
            // What was read is gone, but for what stands in what follows.
            (self.ledger, self.last) = (Ledger::default(), first - 1);
        }
        while self.last < end {
            let Line { log, ledger, last, claim, .. } = self;
            let name = log.name();
            log.replay(*last + 1, end, &mut |stored| {
                match stored.tag {
                    Some(_) => {
                        let group = Group::decode(name, &stored.text)?;
                        ledger.take(stored.sequence, &group);
                        if let Some(other) = group.claim.filter(|other| other.id != claim.id) {
                            claimed = Some(Claimed { sequence: stored.last, by: other.by });
                        } else if group.released {
                            claimed = None;
                        }
                    }
                    None => warn!("{name}: message {} is none of ours", stored.sequence),
                }
                *last = stored.last;
                Ok(())
            })
            .await?;
            let was_first = first;
            (first, end) = self.log.bounds().await?;
            if first != was_first {
                // Something has gone while it was read: what it ended may look as if it hadn't.
                (self.ledger, self.last) = (Ledger::default(), first - 1);
            }
        }
        Ok(claimed)
    }

    /// # Errors
    /// When it can't be written as JSON.
    pub fn prepare(&mut self, group: Group) -> Result<Appending, JournalError> {
        let text = group.encode()?;
        self.tagged += 1;
        let tag = format!("{}-{}", self.claim.id, self.tagged);
        Ok(Appending { group, text, tag, is_unsure: false, shorter: 0 })
    }

    /// Tries to append it, once. One at a time: before another is begun, this one is kept or refused.
    pub async fn attempt(&mut self, appending: &mut Appending) -> Attempt {
        match self.log.append(self.last, &appending.tag, &appending.text).await {
            Appended::Kept(last) => {
                self.kept(&appending.group, self.last + 1, last);
                Attempt::Kept
            }
            Appended::Behind => self.find_out(appending).await,
            Appended::Full if !appending.is_unsure => Attempt::Refused(JournalError::Full),
            Appended::TooLong(why) if !appending.is_unsure => {
                Attempt::Refused(JournalError::Unfit(why))
            }
            // An attempt before this one may have had room.
            Appended::Full => Attempt::UnsureWithoutRoom,
            Appended::TooLong(why) => Attempt::Unsure(why),
            Appended::Unknown(why) => {
                appending.is_unsure = true;
                Attempt::Unsure(why)
            }
        }
    }

    /// Something stands where it was to stand.
    async fn find_out(&mut self, appending: &mut Appending) -> Attempt {
        let unsure = |appending: &mut Appending, why: &str| {
            appending.is_unsure = true;
            Attempt::Unsure(why.to_string())
        };
        match self.what_follows().await {
            Ok(Follows::Group(stored)) if stored.tag.as_ref() == Some(&appending.tag) => {
                self.kept(&appending.group, stored.sequence, stored.last);
                Attempt::Kept
            }
            Ok(Follows::Group(stored)) if stored.tag.is_none() => {
                // No attempt at this place can be kept any more: the next one is behind it.
                warn!("{}: message {} is none of ours", self.log.name(), stored.sequence);
                self.last = stored.last;
                appending.is_unsure = false;
                Attempt::Unsure("somebody else has written into it".to_string())
            }
            Ok(Follows::Group(stored)) => Attempt::Refused(self.taken_over(Some(&stored))),
            Ok(Follows::Removed) => Attempt::Refused(self.taken_over(None)),
            // A new leader may not know yet what the one before it has kept.
            Ok(Follows::Nothing) => unsure(appending, "it doesn't know yet what it has kept"),
            Ok(Follows::Less) if appending.shorter == ATTEMPTS_AT_LESS => {
                let why = format!("{} has lost what it had acknowledged", self.log.name());
                Attempt::Refused(JournalError::Broken(why))
            }
            Ok(Follows::Less) => {
                appending.shorter += 1;
                unsure(appending, "it doesn't know yet what it has kept")
            }
            Err(trouble) if trouble.is_final() => Attempt::Refused(trouble),
            Err(trouble) => unsure(appending, &reason(trouble)),
        }
    }

    fn kept(&mut self, group: &Group, sequence: u64, last: u64) {
        self.ledger.take(sequence, group);
        self.last = last;
    }

    /// What stands behind what is known.
    async fn what_follows(&self) -> Result<Follows, JournalError> {
        if let Some(stored) = self.log.read(self.last + 1).await? {
            return Ok(Follows::Group(stored));
        }
        // What is on its way may be kept between the two questions.
        let (first, end) = self.log.bounds().await?;
        Ok(if first > self.last + 1 {
            Follows::Removed
        } else if end < self.last {
            Follows::Less
        } else {
            Follows::Nothing
        })
    }

    /// By whom, as far as that can be read.
    fn taken_over(&self, stored: Option<&Stored>) -> JournalError {
        let group = stored.and_then(|stored| Group::decode(self.log.name(), &stored.text).ok());
        let by = group.and_then(|group| group.claim).map(|claim| claim.by);
        let by = by.unwrap_or_else(|| "another process".to_string());
        JournalError::TakenOver { name: self.log.name().to_string(), by }
    }

    pub fn loaded(&self) -> Loaded {
        Loaded { events: self.ledger.live(), steered: self.ledger.steered() }
    }

    /// # Errors
    /// When the log can't be read.
    pub async fn find(&self, query: &Query) -> Result<Vec<Kept>, JournalError> {
        let found = self.ledger.find(query).into_iter().map(|end| self.read_end(end));
        Ok(futures::future::try_join_all(found).await?.into_iter().flatten().collect())
    }

    /// `None` where it is gone.
    async fn read_end(&self, end: &KnownEnd) -> Result<Option<Kept>, JournalError> {
        let ends = self.read(end.ended).await?;
        if ends.is_none() && self.log.bounds().await?.0 > end.ended.min(end.admitted) {
            // Removed by an earlier process, for which it was old enough.
            return Ok(None);
        }
        let ended = ends.as_ref().and_then(|group| ended_in(group, end.event));
        let ended = ended.ok_or_else(|| self.is_missing(end.event, end.ended))?.clone();
        let input = if end.keeps_input() {
            let admissions = match ends.filter(|_| end.admitted == end.ended) {
                Some(same) => Some(same),
                None => self.read(end.admitted).await?,
            };
            let input = admissions.as_ref().and_then(|group| input_in(group, end.event));
            Some(input.ok_or_else(|| self.is_missing(end.event, end.admitted))?.clone())
        } else {
            None
        };
        Ok(Some(Kept {
            listener: end.listener.clone(),
            session: end.session.clone(),
            user: end.user.clone(),
            key: end.key.clone(),
            input,
            ended,
            attempts: end.attempts,
            webhook: end.webhook.clone(),
        }))
    }

    async fn read(&self, sequence: u64) -> Result<Option<Group>, JournalError> {
        let stored = self.log.read(sequence).await?;
        stored.map(|stored| Group::decode(self.log.name(), &stored.text)).transpose()
    }

    fn is_missing(&self, event: EventId, sequence: u64) -> JournalError {
        let what = format!("message {sequence} doesn't have event {event} any more");
        JournalError::Damaged { path: self.log.name().into(), what }
    }

    /// Forgets the ends that were recorded before this moment, and says how a part of the log can go, if that
    /// is worth it.
    ///
    /// # Errors
    /// When the log can't be read.
    pub async fn forget(&mut self, before: u64) -> Result<Option<Cleaning>, JournalError> {
        self.ledger.forget(before);
        let (first, _) = self.log.bounds().await?;
        Ok(self.ledger.cleaning(first, self.last))
    }

    /// Removes what nobody needs, without the ends that were recorded before this moment. It may be done by
    /// whoever has read the log.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn make_room(&mut self, before: u64) -> Result<(), JournalError> {
        self.ledger.forget(before);
        let needed_from = self.ledger.needed_from().unwrap_or(self.last + 1);
        self.log.remove_before(needed_from).await
    }

    /// Looks whether another process has claimed it, without writing anything.
    ///
    /// # Errors
    /// Where one has.
    pub async fn look(&self) -> Result<(), JournalError> {
        match self.what_follows().await {
            Ok(Follows::Group(stored)) if stored.tag.is_some() => {
                Err(self.taken_over(Some(&stored)))
            }
            Ok(Follows::Removed) => Err(self.taken_over(None)),
            // What else there may be shows with the next append.
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// # Errors
    /// When nobody answers. The log is as good as before then.
    pub async fn remove_before(&self, sequence: u64) -> Result<(), JournalError> {
        self.log.remove_before(sequence).await
    }

    pub fn name(&self) -> &str {
        self.log.name()
    }

    /// Nothing is appended any more.
    pub fn resign(&self) {
        self.log.resign();
    }
}

/// How often a log that is shorter than it was is asked again: as long as a new leader may need to know all.
const ATTEMPTS_AT_LESS: u32 = 20;

/// How often a claim without an answer is tried again.
const ATTEMPTS: usize = 5;

fn ended_in(group: &Group, event: EventId) -> Option<&Ended> {
    group.records().find_map(|(.., record)| match record {
        Record::Ended(ended) if ended.event == event => Some(ended),
        _ => None,
    })
}

fn input_in(group: &Group, event: EventId) -> Option<&JsonText> {
    let recorded = group.records().find_map(|(.., record)| match record {
        Record::Admitted(admitted) if admitted.event == event => Some(&admitted.input),
        _ => None,
    });
    recorded.or_else(|| {
        group.again.iter().find_map(|again| match again {
            Again::Live { live, .. } if live.admitted.event == event => Some(&live.admitted.input),
            _ => None,
        })
    })
}

//! Which process is the home of a client's session, or of a call: where its outbox and its replay log are.

use std::fmt::Write;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_nats::connection::State;
use async_nats::jetstream::stream::StorageType;
use bytes::Bytes;
use lru::LruCache;
use sha2::{Digest, Sha256};

use super::bucket::{Away, Bucket, Written};
use super::handle::ClusterHandle;
use super::message::Process;
use crate::clock;
use crate::event::id::EventId;
use crate::logging::debug;

/// How long an entry is kept that nobody renews. Entries are made by whoever sends a request, so not for ever:
/// a flood of sessions that come once is over after as long.
const MAX_AGE: Duration = Duration::from_secs(24 * 3600);

/// How often an entry of a session in use is put again, so that its age doesn't end it. [`MAX_AGE`] alone ends
/// entries: a time to live of its own would be lost with the first change.
const RENEW: Duration = Duration::from_secs(6 * 3600);

/// How long what was read counts without being read again: a process that was cut off, and lost its sessions
/// to others meanwhile, hears of it by then.
const TRUST: Duration = Duration::from_secs(10);

/// How long after it began, was cut off, or stood still a process knows who else lives: as long as several
/// beats of theirs take.
#[cfg(not(test))]
const SETTLE: Duration = Duration::from_secs(3);

/// In tests, nodes hear each other from the beginning.
#[cfg(test)]
const SETTLE: Duration = Duration::ZERO;

/// Two ticks that are as far apart show that the process stood still.
const STOOD_STILL: Duration = Duration::from_millis(2500);

/// So many entries are remembered here.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();

/// What has a home. A digest, so that nothing that a client has chosen gets into a subject, and nobody finds
/// two that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct HomeKey([u8; 32]);

impl HomeKey {
    /// A user's session, by the hash that the client has chosen.
    pub fn of_session(user: Option<&str>, hash: &str) -> Self {
        let user_len = user.map_or(u64::MAX, |user| user.len() as u64);
        let digest = Sha256::new()
            .chain_update(b"session")
            .chain_update(user_len.to_be_bytes())
            .chain_update(user.unwrap_or_default())
            .chain_update(hash);
        HomeKey(digest.finalize().into())
    }

    /// An event with a stream of its own.
    pub fn of_call(event: EventId) -> Self {
        let digest = Sha256::new().chain_update(b"call").chain_update(event.to_string());
        HomeKey(digest.finalize().into())
    }

    /// An upload that its client has numbered.
    pub fn of_upload(id: &str) -> Self {
        HomeKey(Sha256::new().chain_update(b"upload").chain_update(id).finalize().into())
    }

    /// As 64 hexadecimal digits.
    pub fn to_text(self) -> String {
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            // To a string it never fails.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    pub fn from_text(text: &str) -> Option<Self> {
        let digit = |at: usize| u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok();
        let mut bytes = [0; 32];
        for (at, byte) in bytes.iter_mut().enumerate() {
            *byte = digit(at)?;
        }
        (text.len() == 64).then_some(HomeKey(bytes))
    }
}

/// Why nobody knows where something is at home.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum NoHome {
    #[error(transparent)]
    Away(#[from] Away),
    /// This process has heard too little yet to say that another one is dead.
    #[error("this node doesn't know yet which others there are")]
    Unsettled,
}

/// The homes of all that has one: the first process that is asked is it, until it is dead.
pub(crate) struct Homes {
    cluster: Arc<ClusterHandle>,
    bucket: Bucket,
    known: Mutex<LruCache<HomeKey, Known>>,
    attention: Mutex<Attention>,
}

#[derive(Clone)]
struct Known {
    home: Process,
    revision: u64,
    read: Instant,
    /// When this process has put it.
    written: Option<Instant>,
    /// It was nobody's before this process', as far as that is known here.
    is_first: bool,
}

/// How it is known what stands in an entry.
#[derive(Clone, Copy, PartialEq)]
enum By {
    /// This process has made it.
    Creating,
    /// This process has put it in the place of another.
    Taking,
    /// This process has put its own again.
    Renewing,
    Reading,
}

/// Since when this process has heard others without a break.
struct Attention {
    ticked: Instant,
    since: Instant,
}

impl Homes {
    pub fn new(cluster: Arc<ClusterHandle>) -> Self {
        let what = "where sessions are at home";
        let bucket = Bucket::new(cluster.clone(), "homes", what, MAX_AGE, StorageType::Memory);
        let known = Mutex::new(LruCache::new(REMEMBERED));
        let attention = Mutex::new(Attention { ticked: clock::now(), since: clock::now() });
        Homes { cluster, bucket, known, attention }
    }

    /// Makes their bucket where there is none, which may take seconds, and is better done before anybody waits.
    ///
    /// # Errors
    /// When NATS doesn't answer.
    pub async fn prepare(&self) -> Result<(), Away> {
        self.bucket.prepare().await
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<HomeKey, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called each second.
    pub fn tick(&self) {
        let is_connected = self.cluster.client.connection_state() == State::Connected;
        let mut attention = self.attention.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_connected || clock::since(attention.ticked) > STOOD_STILL {
            attention.since = clock::now();
        }
        attention.ticked = clock::now();
    }

    /// Since when there was no break, if there is none now.
    fn attentive_since(&self) -> Option<Instant> {
        let attention = self.attention.lock().unwrap_or_else(PoisonError::into_inner);
        (clock::since(attention.ticked) <= STOOD_STILL).then_some(attention.since)
    }

    /// What was read a moment ago, if the process has heard others since.
    fn remembered(&self, key: HomeKey) -> Option<Known> {
        let attentive_since = self.attentive_since()?;
        let known = self.lock().get(&key)?.clone();
        let is_new = known.read >= attentive_since && clock::since(known.read) < TRUST;
        (is_new && self.cluster.is_live(&known.home)).then_some(known)
    }

    fn remember(&self, key: HomeKey, home: &Process, revision: u64, by: By) {
        let read = clock::now();
        let mut all = self.lock();
        let before = all.peek(&key);
        let same = before.filter(|before| before.revision == revision);
        let (written, is_first) = match by {
            By::Creating => (Some(read), true),
            By::Taking => (Some(read), false),
            By::Renewing => (Some(read), before.is_some_and(|before| before.is_first)),
            By::Reading => same.map_or((None, false), |same| (same.written, same.is_first)),
        };
        all.put(key, Known { home: home.clone(), revision, read, written, is_first });
        drop(all);
        if by == By::Taking {
            debug!("this node is the home of {} now", key.to_text());
        }
    }

    /// The entry by which this process is the home of something that may have been another's before: 0 where none is
    /// known. None where it was never another's, as of something that was begun here at that time.
    pub fn taken(&self, key: HomeKey, begun: Option<Instant>) -> Option<u64> {
        let Some(known) = self.lock().peek(&key).cloned() else { return Some(0) };
        let is_older = known.written.zip(begun).is_some_and(|(written, begun)| begun < written);
        let is_first = known.is_first && !is_older && known.home == self.cluster.process;
        (!is_first).then_some(known.revision)
    }

    /// What is remembered isn't so any more.
    pub fn forget(&self, key: HomeKey) {
        self.lock().pop(&key);
    }

    fn own(&self) -> Bytes {
        serde_json::to_vec(&self.cluster.process).unwrap_or_default().into()
    }

    /// The home, which is this process where there was none, or a dead one.
    ///
    /// # Errors
    /// When NATS is away.
    pub async fn home(&self, key: HomeKey) -> Result<Process, NoHome> {
        if let Some(known) = self.remembered(key) {
            return Ok(known.home);
        }
        // Most that are asked for are new.
        if let Written::As(revision) = self.bucket.create(&key.to_text(), self.own()).await? {
            self.remember(key, &self.cluster.process, revision, By::Creating);
            return Ok(self.cluster.process.clone());
        }
        loop {
            if let Some(home) = self.find(key).await? {
                return Ok(home);
            }
            // It was too old just now.
            if let Written::As(revision) = self.bucket.create(&key.to_text(), self.own()).await? {
                self.remember(key, &self.cluster.process, revision, By::Taking);
                return Ok(self.cluster.process.clone());
            }
        }
    }

    /// Makes this process the home, whichever was.
    ///
    /// # Errors
    /// When NATS is away.
    pub async fn take(&self, key: HomeKey) -> Result<(), NoHome> {
        let revision = self.bucket.put(&key.to_text(), self.own()).await?;
        self.remember(key, &self.cluster.process, revision, By::Taking);
        Ok(())
    }

    /// The home, if there is one; this process where it was a dead one.
    ///
    /// # Errors
    /// When NATS is away.
    pub async fn find(&self, key: HomeKey) -> Result<Option<Process>, NoHome> {
        if let Some(known) = self.remembered(key) {
            return Ok(Some(known.home));
        }
        let own = &self.cluster.process;
        loop {
            let Some((value, revision)) = self.bucket.read(&key.to_text()).await? else {
                self.forget(key);
                return Ok(None);
            };
            // What can't be read is nobody's.
            let home = serde_json::from_slice::<Process>(&value).ok();
            if let Some(home) = home.filter(|home| self.cluster.is_live(home)) {
                self.remember(key, &home, revision, By::Reading);
                return Ok(Some(home));
            }
            let settled = |since: Instant| clock::since(since) >= SETTLE;
            if !self.attentive_since().is_some_and(settled) {
                return Err(NoHome::Unsettled);
            }
            let taken = self.bucket.replace(&key.to_text(), self.own(), revision).await?;
            if let Written::As(revision) = taken {
                self.remember(key, own, revision, By::Taking);
                return Ok(Some(own.clone()));
            }
        }
    }

    /// Whether this process is the home.
    ///
    /// # Errors
    /// When NATS is away.
    pub async fn is_home(&self, key: HomeKey) -> Result<bool, NoHome> {
        Ok(self.find(key).await?.is_some_and(|home| home == self.cluster.process))
    }

    /// Puts an entry of something in use again, if it is this process' and old enough.
    ///
    /// # Errors
    /// When NATS is away.
    pub async fn renew(&self, key: HomeKey) -> Result<(), NoHome> {
        if self.lock().peek(&key).is_none() {
            self.find(key).await?;
        }
        let known = self.lock().peek(&key).cloned();
        let is_due = |known: &Known| known.written.is_none_or(|at| clock::since(at) >= RENEW);
        let Some(known) = known.filter(|it| it.home == self.cluster.process && is_due(it)) else {
            return Ok(());
        };
        match self.bucket.replace(&key.to_text(), self.own(), known.revision).await? {
            Written::As(revision) => {
                self.remember(key, &self.cluster.process, revision, By::Renewing);
            }
            // It is another one's by now.
            Written::Conflict => self.forget(key),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_differ_are_different() {
        let keys = [
            HomeKey::of_session(None, "ab"),
            HomeKey::of_session(Some(""), "ab"),
            HomeKey::of_session(Some("a"), "b"),
            HomeKey::of_session(Some("ab"), ""),
            HomeKey::of_session(None, ""),
            HomeKey::of_session(None, "a.*\u{0} >"),
            HomeKey::of_call(EventId::for_test(1)),
            HomeKey::of_call(EventId::for_test(2)),
        ];
        let different: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        for key in keys {
            assert!(key.to_text().bytes().all(|digit| digit.is_ascii_hexdigit()));
            assert_eq!(HomeKey::from_text(&key.to_text()), Some(key));
        }
        let text = keys[0].to_text();
        for wrong in ["", "0", &text[1..], &format!("{text}00"), &text.replace('a', "ä")] {
            assert_ne!(HomeKey::from_text(wrong), Some(keys[0]), "{wrong}");
        }
    }
}

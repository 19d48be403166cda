//! Logins that hold on every node of a cluster: signed with a key that all nodes have, and ended on all of them
//! by a record of those that have.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Duration;

use async_nats::jetstream::stream::StorageType;
use futures::StreamExt;
use sha2::{Digest, Sha256};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::ended::{EndedLogins, name_of_login, name_of_user};
use super::signed::Claims;
use crate::clock;
use crate::cluster::bucket::{Away, Bucket, Written};
use crate::cluster::handle::ClusterHandle;
use crate::logging::{error, warn};

/// The key's name in its bucket.
const KEY: &str = "logins";

/// How long a request waits for a node that has just begun to know which logins there are.
const BEGINNING: Duration = Duration::from_secs(5);

const AGAIN: Duration = Duration::from_secs(1);

/// The logins of a cluster.
pub(crate) struct SharedLogins {
    /// The same on all nodes, and another one for each cluster.
    pub cookie: String,
    ttl: Duration,
    secrets: Bucket,
    record: Bucket,
    key: OnceLock<Vec<u8>>,
    /// The key is here, and what ended before now is known.
    ready: watch::Sender<bool>,
    state: Mutex<EndedLogins>,
}

impl SharedLogins {
    pub fn new(cluster: &Arc<ClusterHandle>, ttl: Duration) -> Self {
        let digest =
            Sha256::new().chain_update(b"cookie\0").chain_update(&cluster.token).finalize();
        let digits: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let bucket = |name, what, max_age| {
            Bucket::new(cluster.clone(), name, what, max_age, StorageType::File)
        };
        SharedLogins {
            cookie: format!("access-token-{digits}"),
            ttl,
            secrets: bucket("secrets", "the key of logins", Duration::ZERO),
            // No token is older.
            record: bucket("logouts", "which logins have ended", 2 * ttl),
            key: OnceLock::new(),
            ready: watch::Sender::new(false),
            state: Mutex::new(EndedLogins::new(clock::now())),
        }
    }

    fn lock(&self) -> MutexGuard<'_, EndedLogins> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits a while until this node knows which logins there are.
    pub async fn ready(&self) {
        if !*self.ready.borrow() {
            let mut ready = self.ready.subscribe();
            // Until then nobody is logged in.
            let _ = tokio::time::timeout(BEGINNING, ready.wait_for(|ready| *ready)).await;
        }
    }

    fn claims(&self, token: &str) -> Option<Claims> {
        let claims = Claims::verify(self.key.get()?, token)?;
        let over = claims.given.saturating_add(clock::millis(self.ttl));
        (clock::unix_millis() < over).then_some(claims)
    }

    /// Whose token it is, and what is cancelled when the login ends.
    pub fn user(&self, token: &str) -> Option<(Arc<str>, CancellationToken)> {
        if !*self.ready.borrow() {
            return None;
        }
        let claims = self.claims(token)?;
        let ended = self.lock().look_up(&claims)?;
        Some((claims.user.into(), ended))
    }

    /// The same login's next token, where this one is so old that a login which is used would soon end.
    pub fn renewed(&self, token: &str) -> Option<String> {
        let claims = self.claims(token)?;
        let due = claims.given.saturating_add(clock::millis(self.ttl / 4));
        let now = clock::unix_millis();
        (now >= due).then(|| Claims { given: now, ..claims }.sign(self.key.get()?))?
    }

    /// What [`issue`](Self::issue) wants to know of the time before a password was verified.
    pub async fn ends(&self, user: &str) -> Result<u64, Away> {
        self.ready().await;
        let entry = self.record.read(&name_of_user(user)).await?;
        Ok(entry.map_or(0, |(_, revision)| revision))
    }

    /// A token for a user who has just logged in.
    pub fn issue(&self, user: &str, after: u64) -> Option<String> {
        let login = format!("{:032x}", rand::random::<u128>());
        let claims = Claims { user: user.into(), login, given: clock::unix_millis(), after };
        claims.sign(self.key.get()?)
    }

    /// Ends one login, or every login of its user, on all nodes.
    pub async fn revoke(&self, token: &str, all: bool) -> Result<(), Away> {
        let Some(claims) = self.claims(token) else { return Ok(()) };
        match all {
            true => self.revoke_all_of(&claims.user).await,
            false => self.end(&name_of_login(&claims.login)).await,
        }
    }

    /// Ends every login of a user on all nodes.
    pub async fn revoke_all_of(&self, user: &str) -> Result<(), Away> {
        self.end(&name_of_user(user)).await
    }

    async fn end(&self, name: &str) -> Result<(), Away> {
        let revision = self.record.put(name, "ended".into()).await?;
        self.lock().end(name, revision, clock::now());
        Ok(())
    }

    async fn read_key(&self) -> Result<(), Away> {
        let fresh: [u8; 32] = rand::random();
        let key = match self.secrets.create(KEY, fresh.to_vec().into()).await? {
            Written::As(_) => fresh.to_vec(),
            Written::Conflict => {
                let there = self.secrets.read(KEY).await?.map(|(key, _)| key.to_vec());
                there.ok_or_else(|| Away("the key of logins was deleted".into()))?
            }
        };
        // The first one counts.
        let _ = self.key.set(key);
        Ok(())
    }

    /// Hears what ends on other nodes, until NATS is away.
    async fn hear(this: &Weak<Self>) -> Result<(), Away> {
        let mut entries = {
            let Some(logins) = this.upgrade() else { return Ok(()) };
            if logins.key.get().is_none() {
                logins.read_key().await?;
            }
            let (entries, is_empty) = logins.record.watch().await?;
            if is_empty {
                logins.ready.send_replace(true);
            }
            entries
        };
        while let Some(entry) = entries.next().await {
            let entry = entry.map_err(Away::of)?;
            let Some(logins) = this.upgrade() else { return Ok(()) };
            let mut state = logins.lock();
            state.end(&entry.key, entry.revision, clock::now());
            state.sweep(2 * logins.ttl, clock::now());
            drop(state);
            if entry.delta == 0 {
                logins.ready.send_replace(true);
            }
        }
        Err(Away("it isn't heard any more".into()))
    }
}

/// Keeps what is known of a cluster's logins, for as long as they are there.
pub(crate) async fn follow(this: Weak<SharedLogins>) {
    while this.strong_count() > 0 {
        if let Err(trouble) = SharedLogins::hear(&this).await {
            warn!("which logins have ended on other nodes isn't known now: {trouble}");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// Ends every login of a user, however long NATS is away.
pub(crate) async fn end_logins(this: Weak<SharedLogins>, user: String) {
    while let Some(logins) = this.upgrade() {
        match logins.revoke_all_of(&user).await {
            Ok(()) => return,
            Err(trouble) => error!("logins can't be ended on all nodes, will try again: {trouble}"),
        }
        drop(logins);
        tokio::time::sleep(AGAIN).await;
    }
}

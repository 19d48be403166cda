//! A bucket of JetStream's: values by their keys, which all nodes of a cluster see.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream;
use async_nats::jetstream::kv::{Config, CreateErrorKind, Store, UpdateErrorKind, Watch};
use async_nats::jetstream::stream::{LastRawMessageErrorKind, StorageType};
use bytes::Bytes;
use tokio::sync::OnceCell;

use super::handle::ClusterHandle;

/// How long an answer may take. Longer than a bucket takes to choose a new leader.
const ANSWER: Duration = Duration::from_secs(5);

/// How often, and after which pause, it is looked whether a value is there that somebody is writing.
const LOOKS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// NATS doesn't answer, and why.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("NATS can't be reached: {0}")]
pub(crate) struct Away(pub String);

impl Away {
    pub fn of(why: impl std::fmt::Display) -> Self {
        Away(why.to_string())
    }
}

/// What became of a write that names the revision it replaces.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Written {
    /// As this revision.
    As(u64),
    /// Somebody else was faster.
    Conflict,
}

/// One bucket. It is made where there is none, when it is first asked.
pub(crate) struct Bucket {
    cluster: Arc<ClusterHandle>,
    config: Config,
    store: OnceCell<Store>,
}

impl Bucket {
    /// The bucket of this name in the cluster, whose values are dropped when they are as old. `what` says what
    /// it is for.
    pub fn new(
        cluster: Arc<ClusterHandle>,
        name: &str,
        what: &str,
        max_age: Duration,
        storage: StorageType,
    ) -> Self {
        let config = Config {
            bucket: format!("now-serving_{}_{name}", cluster.token),
            description: format!("{what}, of now-serving"),
            history: 1,
            max_age,
            storage,
            ..Config::default()
        };
        Bucket { cluster, config, store: OnceCell::new() }
    }

    /// Asks NATS. While there is no connection nothing is asked: what a client can't send it keeps, and sends
    /// later, when it isn't true any more.
    async fn ask<T>(&self, question: impl Future<Output = T>) -> Result<T, Away> {
        if self.cluster.client.connection_state() != State::Connected {
            return Err(Away("there is no connection".into()));
        }
        tokio::time::timeout(ANSWER, question).await.map_err(Away::of)
    }

    /// Makes it where there is none.
    ///
    /// # Errors
    /// When NATS doesn't answer.
    pub async fn prepare(&self) -> Result<(), Away> {
        self.store().await.map(|_| ())
    }

    async fn store(&self) -> Result<&Store, Away> {
        self.store.get_or_try_init(|| self.open()).await
    }

    async fn open(&self) -> Result<Store, Away> {
        let context = jetstream::new(self.cluster.client.clone());
        let name = &self.config.bucket;
        if let Ok(store) = self.ask(context.get_key_value(name)).await? {
            return Ok(store);
        }
        let is_cluster = self.cluster.client.server_info().cluster.is_some();
        let num_replicas = if is_cluster { 3 } else { 1 };
        let config = Config { num_replicas, ..self.config.clone() };
        match self.ask(context.create_key_value(config)).await? {
            Ok(store) => Ok(store),
            // Another node may have made it meanwhile, of another version, with another configuration.
            Err(error) => {
                let found = self.ask(context.get_key_value(name)).await?;
                found.map_err(|_| Away(format!("the bucket {name} can't be made: {error}")))
            }
        }
    }

    /// The value of a key, and its revision. From the bucket's leader: what another replica says may be older
    /// than what this process has just written.
    pub async fn read(&self, key: &str) -> Result<Option<(Bytes, u64)>, Away> {
        let store = self.store().await?;
        let subject = format!("{}{key}", store.prefix);
        match self.ask(store.stream.get_last_raw_message_by_subject(&subject)).await? {
            // One without a value was deleted.
            Ok(message) if message.payload.is_empty() => Ok(None),
            Ok(message) => Ok(Some((message.payload, message.sequence))),
            Err(error) => match error.kind() {
                LastRawMessageErrorKind::NoMessageFound => Ok(None),
                _ => Err(Away::of(error)),
            },
        }
    }

    /// Puts a value where the key has none.
    pub async fn create(&self, key: &str, value: Bytes) -> Result<Written, Away> {
        let store = self.store().await?;
        match self.ask(store.create(key, value)).await? {
            Ok(revision) => Ok(Written::As(revision)),
            Err(error) => match error.kind() {
                CreateErrorKind::AlreadyExists => Ok(Written::Conflict),
                // As when a replica that is asked what there is doesn't know yet.
                _ => match self.read_soon(key).await? {
                    Some(_) => Ok(Written::Conflict),
                    None => Err(Away::of(error)),
                },
            },
        }
    }

    /// What another process may be writing just now: it is refused already, and can't be read yet.
    async fn read_soon(&self, key: &str) -> Result<Option<(Bytes, u64)>, Away> {
        for _ in 0..LOOKS {
            if let Some(found) = self.read(key).await? {
                return Ok(Some(found));
            }
            tokio::time::sleep(PAUSE).await;
        }
        self.read(key).await
    }

    /// Replaces this revision. It says nothing of how long the value is kept: that is the bucket's.
    pub async fn replace(&self, key: &str, value: Bytes, revision: u64) -> Result<Written, Away> {
        let store = self.store().await?;
        match self.ask(store.update(key, value, revision)).await? {
            Ok(revision) => Ok(Written::As(revision)),
            Err(error) => match error.kind() {
                UpdateErrorKind::WrongLastRevision => Ok(Written::Conflict),
                _ => Err(Away::of(error)),
            },
        }
    }

    /// Puts a value, whatever there is.
    pub async fn put(&self, key: &str, value: Bytes) -> Result<u64, Away> {
        let store = self.store().await?;
        self.ask(store.put(key, value)).await?.map_err(Away::of)
    }

    /// All values, and those that come; and whether there is none so far.
    pub async fn watch(&self) -> Result<(Watch, bool), Away> {
        let store = self.store().await?;
        // Before it is asked whether there is any: what comes in between is heard.
        let entries = self.ask(store.watch_with_history(">")).await?.map_err(Away::of)?;
        let info = self.ask(store.stream.get_info()).await?.map_err(Away::of)?;
        Ok((entries, info.state.messages == 0))
    }
}

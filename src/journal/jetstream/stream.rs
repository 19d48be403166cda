//! A JetStream stream as a log. A group is one message; one that is longer than a message may be is several,
//! published as an atomic batch.

use std::future::{Future, IntoFuture};
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::{
    Config, DiscardPolicy, Info, PersistenceMode, RawMessageErrorKind, RetentionPolicy,
    StorageType, Stream as JetStream,
};
use async_nats::jetstream::{self, ErrorCode};
use async_nats::{Client, HeaderMap, Request};
use bytes::Bytes;
use futures::StreamExt;
use serde::Deserialize;
use tokio::task::AbortHandle;

use super::log::{Appended, Log, Stored, reason, unreachable};
use crate::journal::error::JournalError;

/// Who appended a group, and as its how manyth.
const TAG: &str = "Now-Serving-Group";

/// How many parts a group has, where it has more than one.
const PARTS: &str = "Now-Serving-Parts";

/// What headers take of a message's length, at most.
const HEADERS: usize = 4096;

/// What a server says is too old before.
const OLDEST: (u64, u64) = (2, 12);

/// How long the next message may take while the stream is read.
const NEXT: Duration = Duration::from_secs(10);

/// How long an answer may take, with the way to the client's own queue of what is to be sent.
const ANSWER: Duration = Duration::from_secs(6);

/// How much longer it may take for each megabyte that is to be sent.
const SLOWEST: Duration = Duration::from_millis(500);

/// About how many bytes are on their way at once while the stream is read: a server gives up clients that have
/// 64 MB to be read.
const READ_AHEAD: usize = 16 << 20;

/// As many messages an atomic batch has, at most.
const LONGEST_BATCH: usize = 1000;

pub(super) struct StreamSettings {
    pub name: String,
    pub subject: String,
    pub replicas: Option<usize>,
}

pub(super) struct Stream {
    client: Client,
    stream: JetStream,
    name: String,
    subject: String,
    /// Answers whoever asks who has it.
    answering: Option<AbortHandle>,
}

impl Stream {
    /// The stream of this name, made where there is none.
    ///
    /// # Errors
    /// When it can't be made, or wouldn't keep what it is given.
    pub async fn open(client: Client, settings: StreamSettings) -> Result<Self, JournalError> {
        let server = client.server_info();
        if let Some(version) = too_old(&server.version) {
            return Err(JournalError::Unfit(format!("the server is of version {version}")));
        }
        let StreamSettings { name, subject, replicas } = settings;
        let context = jetstream::new(client.clone());
        let stream = match context.get_stream(&name).await {
            Ok(stream) => stream,
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error)
                    if error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
                {
                    let replicas = replicas_at(&client, replicas);
                    let config = config(&name, &subject, replicas);
                    let made = context.get_or_create_stream(config).await;
                    made.map_err(|error| match error.kind() {
                        CreateStreamErrorKind::JetStream(error) => not_given(&error),
                        _ => unreachable(error),
                    })?
                }
                GetStreamErrorKind::JetStream(error) => return Err(not_given(&error)),
                _ => {
                    let why = format!("JetStream doesn't answer, is it started with -js? {error}");
                    return Err(JournalError::Unreachable(why));
                }
            },
        };
        if let Some(what) = unfit(&stream.cached_info().config) {
            return Err(JournalError::Foreign { path: name.into(), what });
        }
        Ok(Stream { client, stream, name, subject, answering: None })
    }

    /// This task says who has it, until somebody else has.
    pub fn answered_by(&mut self, task: AbortHandle) {
        self.answering = Some(task);
    }

    /// Asks the server. While there is no connection, nothing is asked: what a client can't send it keeps, and it
    /// keeps only so much.
    async fn ask<T>(
        &self,
        time: Duration,
        question: impl Future<Output = T>,
    ) -> Result<T, JournalError> {
        if self.client.connection_state() != State::Connected {
            return Err(JournalError::Unreachable("there is no connection".into()));
        }
        tokio::time::timeout(time, question).await.map_err(unreachable)
    }

    async fn info(&self) -> Result<Info, JournalError> {
        let info = self.ask(ANSWER, self.stream.get_info()).await?.map_err(unreachable)?;
        if info.created != self.stream.cached_info().created {
            let what = format!("the stream {} was deleted and made anew", self.name);
            return Err(JournalError::Broken(what));
        }
        Ok(info)
    }

    async fn message(&self, sequence: u64) -> Result<Option<StreamMessage>, JournalError> {
        match self.ask(ANSWER, self.stream.get_raw_message(sequence)).await? {
            Ok(message) => Ok(Some(message)),
            Err(error) => match error.kind() {
                RawMessageErrorKind::NoMessageFound => Ok(None),
                _ => Err(unreachable(error)),
            },
        }
    }

    /// What the last part of a group is answered, which has so many bytes in all.
    async fn publish(&self, headers: HeaderMap, part: Bytes, bytes: usize) -> Appended {
        let time = ANSWER + SLOWEST * u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        let request = Request::new().headers(headers).payload(part).timeout(Some(time));
        match self.ask(time, self.client.send_request(self.subject.clone(), request)).await {
            Ok(Ok(answer)) => what_became(&answer.payload),
            Ok(Err(error)) => Appended::Unknown(error.to_string()),
            Err(trouble) => Appended::Unknown(reason(trouble)),
        }
    }
}

/// On how many servers something is kept, where that isn't said.
fn replicas_at(client: &Client, said: Option<usize>) -> usize {
    said.unwrap_or(if client.server_info().cluster.is_some() { 3 } else { 1 })
}

/// Nothing is dropped by itself: a stream that is full refuses.
fn config(name: &str, subject: &str, replicas: usize) -> Config {
    Config {
        name: name.to_string(),
        description: Some("accepted events and their ends, of now-serving".into()),
        subjects: vec![subject.to_string()],
        retention: RetentionPolicy::Limits,
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        num_replicas: replicas,
        allow_atomic_publish: true,
        deny_delete: true,
        ..Config::default()
    }
}

/// Why there is no stream: while servers start, for a while; or it can't be.
fn not_given(error: &jetstream::Error) -> JournalError {
    const UNAVAILABLE: usize = 503;
    let is_disabled =
        [ErrorCode::JETSTREAM_NOT_ENABLED, ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT]
            .contains(&error.error_code());
    if error.code() == UNAVAILABLE && !is_disabled {
        JournalError::Unreachable(error.to_string())
    } else {
        JournalError::Unfit(error.to_string())
    }
}

/// Why a stream that somebody else has made or changed can't be a journal.
fn unfit(config: &Config) -> Option<String> {
    let is_limited = config.max_bytes > 0 || config.max_messages > 0;
    if config.retention != RetentionPolicy::Limits {
        Some("the stream doesn't keep what was read; set its retention to limits".into())
    } else if config.max_age > Duration::ZERO || config.max_messages_per_subject > 0 {
        Some("the stream drops messages; take its max_age and max_msgs_per_subject away".into())
    } else if is_limited && config.discard != DiscardPolicy::New {
        Some("the stream drops messages when it is full; set its discard policy to new".into())
    } else if config.storage != StorageType::File {
        Some("the stream is in memory; make one with storage file".into())
    } else if config.persist_mode == Some(PersistenceMode::Async) || config.no_ack {
        Some("the stream acknowledges before it has stored; make one that doesn't".into())
    } else if config.max_message_size > 0 {
        Some("the stream refuses long messages; take its max_msg_size away".into())
    } else if !config.allow_atomic_publish {
        Some("the stream takes no atomic batches; set its allow_atomic".into())
    } else {
        None
    }
}

/// The version, if it is too old. One that can't be read is let through.
fn too_old(version: &str) -> Option<&str> {
    let mut numbers = version.split('.').map_while(|number| number.parse().ok());
    let version_of = (numbers.next()?, numbers.next()?);
    (version_of < OLDEST).then_some(version)
}

/// "atomic publish batch is too large"
const BATCH_TOO_LARGE: ErrorCode = ErrorCode(10199);

fn what_became(answer: &[u8]) -> Appended {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        seq: u64,
        error: Option<jetstream::Error>,
    }
    let Answer { seq, error } = match serde_json::from_slice(answer) {
        Ok(answer) => answer,
        Err(error) => return Appended::Unknown(error.to_string()),
    };
    let Some(error) = error else { return Appended::Kept(seq) };
    let what = error.to_string();
    match error.error_code() {
        ErrorCode::STREAM_WRONG_LAST_SEQUENCE | ErrorCode::STREAM_WRONG_LAST_SEQUENCE_CONSTANT => {
            Appended::Behind
        }
        ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED
        | ErrorCode::STORAGE_RESOURCES_EXCEEDED => Appended::Full,
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | BATCH_TOO_LARGE => Appended::TooLong(what),
        // "maximum bytes exceeded", "maximum messages exceeded"
        ErrorCode::STREAM_STORE_FAILED if what.contains("exceeded") => Appended::Full,
        _ => Appended::Unknown(what),
    }
}

impl Log for Stream {
    async fn bounds(&self) -> Result<(u64, u64), JournalError> {
        let state = self.info().await?.state;
        let last = state.last_sequence;
        Ok(if state.messages == 0 { (last + 1, last) } else { (state.first_sequence, last) })
    }

    async fn replay(
        &self,
        first: u64,
        last: u64,
        take: &mut dyn FnMut(Stored) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let deliver_policy = DeliverPolicy::ByStartSequence { start_sequence: first };
        let max_payload = self.client.server_info().max_payload.max(1);
        let max_batch = i64::try_from((READ_AHEAD / max_payload).clamp(1, 500)).unwrap_or(1);
        let config = OrderedConfig { deliver_policy, max_batch, ..OrderedConfig::default() };
        let consumer = self.stream.create_consumer(config);
        let consumer = self.ask(ANSWER, consumer).await?.map_err(unreachable)?;
        let mut messages = self.ask(ANSWER, consumer.messages()).await?.map_err(unreachable)?;
        let mut gathered: Option<(Stored, usize)> = None;
        loop {
            let next = tokio::time::timeout(NEXT, messages.next()).await.map_err(unreachable)?;
            let ended = || JournalError::Unreachable("reading the stream has ended".into());
            let message = next.ok_or_else(ended)?.map_err(unreachable)?;
            let sequence = message.info().map_err(unreachable)?.stream_sequence;
            let headers = message.headers.clone().unwrap_or_default();
            gathered = match gather(gathered, sequence, &headers, &message.payload) {
                (stored, 0) => {
                    take(stored)?;
                    None
                }
                incomplete => Some(incomplete),
            };
            if sequence >= last {
                return Ok(());
            }
        }
    }

    async fn read(&self, sequence: u64) -> Result<Option<Stored>, JournalError> {
        let mut gathered = None;
        for at in sequence.. {
            let Some(message) = self.message(at).await? else { return Ok(None) };
            gathered = match gather(gathered, at, &message.headers, &message.payload) {
                (stored, 0) => return Ok(Some(stored)),
                incomplete => Some(incomplete),
            };
        }
        Ok(None)
    }

    async fn append(&self, expected: u64, tag: &str, text: &[u8]) -> Appended {
        let longest = self.client.server_info().max_payload.saturating_sub(HEADERS).max(HEADERS);
        let parts = text.len().div_ceil(longest).max(1);
        if parts > LONGEST_BATCH {
            let bytes = text.len();
            return Appended::TooLong(format!("{bytes} bytes are more than it takes at once"));
        }
        let batch = format!("{:032x}", rand::random::<u128>());
        for nth in 1..=parts {
            let mut headers = HeaderMap::new();
            headers.insert(TAG, tag);
            if nth == 1 {
                headers.insert("Nats-Expected-Last-Sequence", expected.to_string());
            }
            if parts > 1 {
                headers.insert(PARTS, parts.to_string());
                headers.insert("Nats-Batch-Id", batch.as_str());
                headers.insert("Nats-Batch-Sequence", nth.to_string());
            }
            let part = &text[(nth - 1) * longest..text.len().min(nth * longest)];
            let part = Bytes::copy_from_slice(part);
            if nth == parts {
                if parts > 1 {
                    headers.insert("Nats-Batch-Commit", "1");
                }
                return self.publish(headers, part, text.len()).await;
            }
            let sent = self.client.publish_with_headers(self.subject.clone(), headers, part);
            match self.ask(ANSWER, sent).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Appended::Unknown(error.to_string()),
                Err(trouble) => return Appended::Unknown(reason(trouble)),
            }
        }
        Appended::Kept(expected)
    }

    async fn remove_before(&self, sequence: u64) -> Result<(), JournalError> {
        let purge = self.stream.purge().sequence(sequence).into_future();
        self.ask(ANSWER, purge).await?.map(|_| ()).map_err(unreachable)
    }

    fn resign(&self) {
        if let Some(answering) = &self.answering {
            answering.abort();
        }
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// Adds a message to the group that it is a part of: the group, and how many parts it lacks.
fn gather(
    gathered: Option<(Stored, usize)>,
    sequence: u64,
    headers: &HeaderMap,
    part: &[u8],
) -> (Stored, usize) {
    if let Some((mut stored, lacks)) = gathered {
        stored.last = sequence;
        stored.text.extend_from_slice(part);
        return (stored, lacks - 1);
    }
    let header = |name: &str| headers.get(name).map(|value| value.as_str());
    let tag = header(TAG).map(str::to_string);
    let parts: usize = header(PARTS).and_then(|parts| parts.parse().ok()).unwrap_or(1);
    (Stored { sequence, last: sequence, tag, text: part.to_vec() }, parts.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_answer_says_of_an_append() {
        assert_eq!(what_became(br#"{"stream":"s","seq":7}"#), Appended::Kept(7));
        let error = |code: u64, what: &str| {
            let answer = serde_json::json!({"error": {
                "code": 400, "err_code": code, "description": what,
            }});
            what_became(answer.to_string().as_bytes())
        };
        assert_eq!(error(10071, "wrong last sequence: 3"), Appended::Behind);
        assert_eq!(error(10077, "maximum bytes exceeded"), Appended::Full);
        assert!(matches!(error(10199, "atomic publish batch is too large"), Appended::TooLong(_)));
        assert_eq!(error(10047, "insufficient storage resources available"), Appended::Full);
        assert!(matches!(error(10008, "system unavailable"), Appended::Unknown(_)));
        assert!(matches!(what_became(b""), Appended::Unknown(_)));
    }

    #[test]
    fn servers_that_lack_atomic_batches_are_too_old() {
        assert_eq!(too_old("2.11.9"), Some("2.11.9"));
        assert_eq!(too_old("2.12.0"), None);
        assert_eq!(too_old("2.15.1-beta"), None);
        assert_eq!(too_old("3.0.0"), None);
    }

    #[test]
    fn a_stream_that_drops_messages_is_no_journal() {
        let ours = config("s", "s", 1);
        assert_eq!(unfit(&ours), None);
        let changed = [
            Config { max_age: Duration::from_secs(1), ..ours.clone() },
            Config { max_bytes: 1, discard: DiscardPolicy::Old, ..ours.clone() },
            Config { retention: RetentionPolicy::WorkQueue, ..ours.clone() },
            Config { storage: StorageType::Memory, ..ours.clone() },
            Config { persist_mode: Some(PersistenceMode::Async), ..ours.clone() },
            Config { max_message_size: 1000, ..ours.clone() },
            Config { allow_atomic_publish: false, ..ours.clone() },
        ];
        assert!(changed.iter().all(|config| unfit(config).is_some()));
        assert_eq!(unfit(&Config { max_bytes: 1, ..ours }), None, "it refuses when it is full");
    }
}

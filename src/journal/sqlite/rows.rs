//! Records as rows, and rows as what they were made of. Each row has a checksum: the disk may keep
//! something else than what it was given.

use std::borrow::Cow;
use std::sync::Arc;

use crc32fast::Hasher;
use rusqlite::{CachedStatement, Connection, Row, params};
use serde::Serialize;

use crate::event::id::EventId;
use crate::event::json_text::JsonText;
use crate::journal::record::{Admitted, Called, End, Ended, Kept, Live, Record, Steered, Webhook};
use crate::journal::{Loaded, Query};
use crate::logging::warn;

/// What is wrong with a row, or an error of SQLite's.
#[derive(Debug)]
pub(super) enum ReadError {
    Sqlite(rusqlite::Error),
    Row(String),
}

impl From<rusqlite::Error> for ReadError {
    fn from(error: rusqlite::Error) -> Self {
        ReadError::Sqlite(error)
    }
}

type Read<T> = Result<T, ReadError>;

/// Over texts and numbers, each told apart from the next and from none.
struct Checksum(Hasher);

impl Checksum {
    fn new() -> Self {
        Checksum(Hasher::new())
    }

    fn text(mut self, text: Option<&str>) -> Self {
        self = self.number(text.map(|text| text.len() as u64));
        self.0.update(text.unwrap_or_default().as_bytes());
        self
    }

    fn number(mut self, number: Option<u64>) -> Self {
        self.0.update(&[u8::from(number.is_some())]);
        self.0.update(&number.unwrap_or_default().to_le_bytes());
        self
    }

    fn get(self) -> i64 {
        self.0.finalize().into()
    }
}

/// Whose an event is: the columns that an end takes over.
struct Identity {
    listener: Arc<str>,
    session: Option<Arc<str>>,
    user: Option<Arc<str>>,
    key: Option<Arc<str>>,
    webhook: Option<Arc<str>>,
}

impl Identity {
    fn of(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Identity {
            listener: text(row, "listener")?.unwrap_or_default(),
            session: text(row, "session")?,
            user: text(row, "user")?,
            key: text(row, "key")?,
            webhook: text(row, "webhook")?,
        })
    }

    fn of_admitted(admitted: &Admitted) -> Self {
        Identity {
            listener: admitted.listener.clone(),
            session: admitted.session.clone(),
            user: admitted.user.clone(),
            key: admitted.key.clone(),
            webhook: admitted.webhook.clone(),
        }
    }

    /// Begins the checksum of a row.
    fn checksum(&self, id: &str) -> Checksum {
        Checksum::new()
            .text(Some(id))
            .text(Some(&self.listener))
            .text(self.session.as_deref())
            .text(self.user.as_deref())
            .text(self.key.as_deref())
            .text(self.webhook.as_deref())
    }
}

fn of_admitted(admitted: &Admitted, id: &str) -> i64 {
    Identity::of_admitted(admitted)
        .checksum(id)
        .number(admitted.not_before.map(stored))
        .number(Some(stored(admitted.at)))
        .text(Some(admitted.input.get()))
        .get()
}

/// Of what changes: how often something was done, and when it is done again.
fn of_state(id: &str, times: u32, next: Option<u64>) -> i64 {
    Checksum::new().text(Some(id)).number(Some(times.into())).number(next).get()
}

fn of_steered(concurrency_id: &str, steered: &str) -> i64 {
    Checksum::new().text(Some(concurrency_id)).text(Some(steered)).get()
}

/// The columns of an end beside those that are taken over, as they stand in its row: what a checksum is
/// made of is never written anew.
struct EndColumns<'a> {
    input: Option<&'a str>,
    attempts: u32,
    ended_at: u64,
    seconds: f64,
    outcome: &'a str,
    detail: Option<&'a str>,
}

impl EndColumns<'_> {
    fn checksum(&self, identity: &Identity, id: &str) -> i64 {
        identity
            .checksum(id)
            .text(self.input)
            .number(Some(self.attempts.into()))
            .number(Some(stored(self.ended_at)))
            .number(Some(self.seconds.to_bits()))
            .text(Some(self.outcome))
            .text(self.detail)
            .get()
    }
}

/// The outcome of an end, and what else there is to say of it.
fn outcome_and_detail(end: &End) -> rusqlite::Result<(&'static str, Option<Cow<'_, str>>)> {
    Ok(match end {
        End::Completed(output) => {
            ("completed", output.as_ref().map(|text| Cow::Borrowed(text.get())))
        }
        End::Failed(failure) => ("failed", Some(Cow::Owned(json(failure)?))),
        End::Cancelled => ("cancelled", None),
        End::TimedOut => ("timed_out", None),
        End::Stopped => ("stopped", None),
    })
}

fn json(value: &impl Serialize) -> rusqlite::Result<String> {
    let text = serde_json::to_string(value);
    text.map_err(|error| rusqlite::Error::ToSqlConversionFailure(error.into()))
}

fn end_of(outcome: &str, detail: Option<String>) -> Result<End, String> {
    Ok(match (outcome, detail) {
        ("completed", output) => End::Completed(output.map(json_text).transpose()?),
        ("failed", Some(failure)) => {
            End::Failed(serde_json::from_str(&failure).map_err(|error| error.to_string())?)
        }
        ("cancelled", _) => End::Cancelled,
        ("timed_out", _) => End::TimedOut,
        ("stopped", _) => End::Stopped,
        (other, _) => return Err(format!("an outcome {other:?}")),
    })
}

fn json_text(text: String) -> Result<JsonText, String> {
    let raw = serde_json::value::RawValue::from_string(text).map_err(|error| error.to_string())?;
    Ok(JsonText(raw.into()))
}

/// A moment as it can be kept: SQLite's integers have a sign. What is later than they reach, in 292 million
/// years, is kept as their last.
fn stored(moment: u64) -> u64 {
    moment.min(i64::MAX.unsigned_abs())
}

fn signed(moment: u64) -> i64 {
    stored(moment).cast_signed()
}

fn unsigned(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<u64>> {
    Ok(row.get::<_, Option<i64>>(column)?.map(|moment| moment.max(0).unsigned_abs()))
}

fn text(row: &Row<'_>, column: &str) -> rusqlite::Result<Option<Arc<str>>> {
    Ok(row.get::<_, Option<String>>(column)?.map(Arc::from))
}

fn live(row: &Row<'_>) -> Read<Live> {
    let id: String = row.get("id")?;
    let wrong = |what: String| ReadError::Row(format!("event {id}: {what}"));
    let event: EventId = id.parse().map_err(|_| wrong("its id is none".into()))?;
    let input = json_text(row.get("input")?).map_err(wrong)?;
    let wrong = |what: &str| ReadError::Row(format!("event {id}: {what}"));
    let Identity { listener, session, user, key, webhook } = Identity::of(row)?;
    let admitted = Admitted {
        event,
        listener,
        session,
        user,
        key,
        webhook,
        not_before: unsigned(row, "not_before")?,
        came_to: None,
        at: unsigned(row, "accepted_at")?.unwrap_or_default(),
        input,
    };
    let attempt = u32::try_from(row.get::<_, i64>("attempt")?).map_err(|_| wrong("its attempt"))?;
    let postponed = unsigned(row, "postponed_until")?;
    let checksums = (of_admitted(&admitted, &id), of_state(&id, attempt, postponed));
    if (row.get("checksum")?, row.get("state_checksum")?) != checksums {
        return Err(wrong("its checksum is another"));
    }
    Ok(Live { admitted, attempt, postponed, place: None })
}

fn kept(row: &Row<'_>) -> Read<Kept> {
    let id: String = row.get("id")?;
    let wrong = |what: String| ReadError::Row(format!("the end of event {id}: {what}"));
    let event: EventId = id.parse().map_err(|_| wrong("its id is none".into()))?;
    let identity = Identity::of(row)?;
    let (outcome, detail): (String, Option<String>) = (row.get("outcome")?, row.get("detail")?);
    let input: Option<String> = row.get("input")?;
    let attempts = row.get::<_, i64>("attempts")?;
    let columns = EndColumns {
        input: input.as_deref(),
        attempts: u32::try_from(attempts).map_err(|_| wrong("its attempts".into()))?,
        ended_at: unsigned(row, "ended_at")?.unwrap_or_default(),
        seconds: row.get("seconds")?,
        outcome: &outcome,
        detail: detail.as_deref(),
    };
    if row.get::<_, i64>("checksum")? != columns.checksum(&identity, &id) {
        return Err(wrong("its checksum is another".into()));
    }
    let calls =
        u32::try_from(row.get::<_, i64>("calls")?).map_err(|_| wrong("its calls".into()))?;
    let next = unsigned(row, "next_call")?;
    if row.get::<_, i64>("calls_checksum")? != of_state(&id, calls, next) {
        return Err(wrong("its calls' checksum is another".into()));
    }
    let EndColumns { attempts, ended_at: at, seconds: duration, .. } = columns;
    let end = end_of(&outcome, detail).map_err(wrong)?;
    let Identity { listener, session, user, key, webhook } = identity;
    let input = input.map(json_text).transpose().map_err(wrong)?;
    let webhook = webhook.map(|url| Webhook { url, calls, next });
    let ended = Ended { event, end, duration, at };
    Ok(Kept { listener, session, user, key, input, ended, attempts, webhook })
}

fn all<T>(
    mut statement: CachedStatement<'_>,
    params: impl rusqlite::Params,
    read: impl Fn(&Row<'_>) -> Read<T>,
) -> Read<Vec<T>> {
    let mut rows = statement.query(params)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push(read(row)?);
    }
    Ok(found)
}

pub(super) fn load(connection: &Connection) -> Read<Loaded> {
    let events = connection.prepare_cached("SELECT * FROM events ORDER BY number")?;
    let ids = connection.prepare_cached("SELECT concurrency_id, steered, checksum FROM ids")?;
    let steered = all(ids, [], |row| {
        let (id, steered): (String, String) = (row.get(0)?, row.get(1)?);
        if row.get::<_, i64>(2)? != of_steered(&id, &steered) {
            return Err(ReadError::Row(format!("id {id:?}: its checksum is another")));
        }
        let read = serde_json::from_str::<Steered>(&steered);
        let steered = read.map_err(|error| ReadError::Row(format!("id {id:?}: {error}")))?;
        Ok((id.into(), steered))
    });
    Ok(Loaded { events: all(events, [], live)?, steered: steered? })
}

pub(super) fn ends(connection: &Connection, query: &Query) -> Read<Vec<Kept>> {
    match query {
        Query::Event(event) => {
            let ends = connection.prepare_cached("SELECT * FROM ends WHERE id = ?1")?;
            all(ends, [event.to_string()], kept)
        }
        Query::Key { listener, user, key } => {
            let ends = connection.prepare_cached(
                "SELECT * FROM ends WHERE key = ?1 AND listener = ?2 AND user IS ?3",
            )?;
            all(ends, params![key, listener, user], kept)
        }
        Query::Session { user, session, since } => {
            let ends = connection.prepare_cached(
                "SELECT * FROM ends WHERE ended_at >= ?1 AND session = ?2 AND user IS ?3
                 ORDER BY ended_at, rowid",
            )?;
            all(ends, params![signed(*since), session, user], kept)
        }
        Query::ToCall(most) => {
            let ends = connection.prepare_cached(
                "SELECT * FROM ends WHERE next_call IS NOT NULL
                 ORDER BY next_call, rowid LIMIT ?1",
            )?;
            all(ends, params![*most as i64], kept)
        }
        Query::Failed { listener, most } => {
            let ends = connection.prepare_cached(
                "SELECT * FROM ends WHERE outcome = 'failed' AND listener = ?1
                 ORDER BY ended_at DESC, rowid DESC LIMIT ?2",
            )?;
            all(ends, params![listener, *most as i64], kept)
        }
    }
}

/// Forgets some of the ends before this moment. Gives how many.
pub(super) fn forget(connection: &Connection, before: u64, most: usize) -> rusqlite::Result<usize> {
    let mut forget = connection.prepare_cached(
        "DELETE FROM ends WHERE id IN (SELECT id FROM ends WHERE ended_at < ?1 LIMIT ?2)",
    )?;
    forget.execute(params![signed(before), most as i64])
}

pub(super) fn write(
    connection: &Connection,
    concurrency_id: &str,
    record: &Record,
) -> rusqlite::Result<()> {
    match record {
        Record::Admitted(admitted) => {
            let id = admitted.event.to_string();
            let mut insert = connection.prepare_cached(
                "INSERT OR IGNORE INTO events (id, listener, session, user, key, webhook, not_before,
                 accepted_at, input, checksum, attempt, postponed_until, state_checksum)
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0, NULL, ?11
                 WHERE NOT EXISTS (SELECT 1 FROM ends WHERE id = ?1)",
            )?;
            insert.execute(params![
                id,
                admitted.listener,
                admitted.session,
                admitted.user,
                admitted.key,
                admitted.webhook,
                admitted.not_before.map(signed),
                signed(admitted.at),
                admitted.input.get(),
                of_admitted(admitted, &id),
                of_state(&id, 0, None),
            ])?;
        }
        Record::Started { event, attempt, .. } => {
            let id = event.to_string();
            let mut update = connection.prepare_cached(
                "UPDATE events SET attempt = ?2, postponed_until = NULL, state_checksum = ?3
                 WHERE id = ?1",
            )?;
            update.execute(params![id, attempt, of_state(&id, *attempt, None)])?;
        }
        Record::Postponed { event, attempt, until } => {
            let (id, until) = (event.to_string(), stored(*until));
            let mut update = connection.prepare_cached(
                "UPDATE events SET attempt = ?2, postponed_until = ?3, state_checksum = ?4
                 WHERE id = ?1 AND attempt <= ?2",
            )?;
            let checksum = of_state(&id, *attempt, Some(until));
            update.execute(params![id, attempt, signed(until), checksum])?;
        }
        Record::Ended(ended) => end(connection, ended)?,
        Record::Called(Called { event, calls, next }) => {
            let (id, next) = (event.to_string(), next.map(stored));
            let mut update = connection.prepare_cached(
                "UPDATE ends SET calls = ?2, next_call = ?3, calls_checksum = ?4
                 WHERE id = ?1 AND webhook IS NOT NULL",
            )?;
            let checksum = of_state(&id, *calls, next);
            update.execute(params![id, calls, next.map(signed), checksum])?;
        }
        Record::Steered(steered) => {
            let text = json(steered)?;
            let mut set = connection.prepare_cached(
                "INSERT INTO ids (concurrency_id, steered, checksum) VALUES (?1, ?2, ?3)
                 ON CONFLICT (concurrency_id) DO UPDATE SET steered = ?2, checksum = ?3",
            )?;
            set.execute(params![concurrency_id, text, of_steered(concurrency_id, &text)])?;
        }
    }
    Ok(())
}

fn end(connection: &Connection, ended: &Ended) -> rusqlite::Result<()> {
    let id = ended.event.to_string();
    let mut take = connection.prepare_cached(
        "DELETE FROM events WHERE id = ?1 RETURNING listener, session, user, key, webhook, attempt,
         CASE WHEN key IS NOT NULL OR ?2 THEN input END AS input",
    )?;
    let mut rows = take.query(params![id, ended.failed()])?;
    let Some(row) = rows.next()? else {
        // Nothing of what it gave: that is for no log.
        warn!("event {id} has ended already, or is unknown: another end is discarded");
        return Ok(());
    };
    let identity = Identity::of(row)?;
    let (input, attempts): (Option<String>, u32) = (row.get("input")?, row.get("attempt")?);
    // What is returned must be read to its end.
    while rows.next()?.is_some() {}
    let (outcome, detail) = outcome_and_detail(&ended.end)?;
    let columns = EndColumns {
        input: input.as_deref(),
        attempts,
        ended_at: ended.at,
        seconds: ended.duration,
        outcome,
        detail: detail.as_deref(),
    };
    let mut insert = connection.prepare_cached(
        "INSERT OR IGNORE INTO ends (id, listener, session, user, key, webhook, input, attempts,
         ended_at, seconds, outcome, detail, checksum, calls, next_call, calls_checksum)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, 0, ?14, ?15)",
    )?;
    let next = identity.webhook.is_some().then_some(stored(columns.ended_at));
    insert.execute(params![
        id,
        identity.listener,
        identity.session,
        identity.user,
        identity.key,
        identity.webhook,
        columns.input,
        columns.attempts,
        signed(columns.ended_at),
        columns.seconds,
        columns.outcome,
        columns.detail,
        columns.checksum(&identity, &id),
        next.map(signed),
        of_state(&id, 0, next),
    ])?;
    Ok(())
}

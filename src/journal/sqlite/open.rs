//! Opening the file: ours alone, ours at all, and in a format that is known here.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::error::reading;
use crate::journal::error::JournalError;

/// Marks the file as ours: "NowS".
const APPLICATION: i32 = 0x4e6f_7753;

/// The format that is written here.
const FORMAT: u32 = 1;

/// How long another program may keep the file locked, such as a shell in a transaction.
const BUSY: Duration = Duration::from_secs(5);

const SCHEMA: &str = "
-- Events that have been accepted and have not ended.
CREATE TABLE events (
    number INTEGER PRIMARY KEY,     -- the order in which they were accepted
    id TEXT NOT NULL UNIQUE,        -- 32 hexadecimal digits
    listener TEXT NOT NULL,
    session TEXT,                   -- that of its client, where the client named one
    user TEXT,
    key TEXT,                       -- the idempotency key
    webhook TEXT,                   -- the URL that its end is posted to
    not_before INTEGER,             -- may start from then on; moments are milliseconds since 1970
    accepted_at INTEGER NOT NULL,
    input TEXT NOT NULL,            -- JSON
    checksum INTEGER NOT NULL,      -- of all of the above but the number
    attempt INTEGER NOT NULL,       -- how often it has started
    postponed_until INTEGER,        -- it failed in passing, and starts again from then on
    state_checksum INTEGER NOT NULL -- of the id and the two
) STRICT;
-- How events have ended.
CREATE TABLE ends (
    id TEXT PRIMARY KEY,
    listener TEXT NOT NULL,
    session TEXT,
    user TEXT,
    key TEXT,
    webhook TEXT,
    input TEXT,                     -- of those with a key, and those that failed
    attempts INTEGER NOT NULL,      -- how often it has started
    ended_at INTEGER NOT NULL,
    seconds REAL NOT NULL,          -- that its last run took
    outcome TEXT NOT NULL,          -- completed, failed, cancelled, timed_out or stopped
    detail TEXT,                    -- JSON: the output, or the failure
    checksum INTEGER NOT NULL,      -- of all of the above
    calls INTEGER NOT NULL,         -- of its webhook
    next_call INTEGER,              -- when that is called again
    calls_checksum INTEGER NOT NULL -- of the id and the two
) STRICT;
CREATE INDEX ends_by_time ON ends (ended_at);
CREATE INDEX ends_to_call ON ends (next_call) WHERE next_call IS NOT NULL;
CREATE INDEX ends_failed ON ends (listener, ended_at) WHERE outcome = 'failed';
CREATE INDEX ends_by_key ON ends (key) WHERE key IS NOT NULL;
-- What operators have set for a concurrency id.
CREATE TABLE ids (
    concurrency_id TEXT PRIMARY KEY,
    steered TEXT NOT NULL,          -- JSON
    checksum INTEGER NOT NULL       -- of the two
) STRICT;
";

/// How often, and after which pause, it is looked whether a file that is in use is free.
const LOOKS: u32 = 10;
const PAUSE: Duration = Duration::from_millis(20);

/// Keeps other processes away. The system takes it back from a process that has died.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    fn take(path: &Path) -> Result<Self, JournalError> {
        let beside = beside(path, ".lock");
        let read_only = || JournalError::ReadOnly(path.to_path_buf());
        let mut file = make(&beside).map_err(|error| match error.kind() {
            ErrorKind::StorageFull => JournalError::Full,
            _ => read_only(),
        })?;
        // A child process that is just being started holds what this one has closed, for a moment.
        let mut locked = file.try_lock();
        for _ in 0..LOOKS {
            if !matches!(locked, Err(TryLockError::WouldBlock)) {
                break;
            }
            std::thread::sleep(PAUSE);
            locked = file.try_lock();
        }
        match locked {
            Ok(()) => {
                // For whoever is kept away. Nothing depends on it.
                let _ = file.set_len(0);
                let _ = file.rewind().and_then(|()| write!(file, "{}", std::process::id()));
                Ok(Lock { _file: file })
            }
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                let by = match pid.trim() {
                    "" => "another process".to_string(),
                    pid if *pid == std::process::id().to_string() => {
                        format!("this process (pid {pid}), which has opened it already")
                    }
                    pid => format!("another process (pid {pid})"),
                };
                Err(JournalError::InUse { path: path.to_path_buf(), by })
            }
            Err(TryLockError::Error(_)) => Err(read_only()),
        }
    }
}

/// Opens a file for this process' user only, and makes it where there is none.
fn make(path: &Path) -> std::io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_os_string();
    name.push(suffix);
    name.into()
}

/// What can be seen before anything is made beside it: a directory, a file of another program's.
fn look(path: &Path) -> Result<(), JournalError> {
    let foreign =
        |what: &str| Err(JournalError::Foreign { path: path.to_path_buf(), what: what.into() });
    if path.is_dir() {
        return foreign("it is a directory");
    }
    let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
    if let Some(directory) = directory.filter(|directory| !directory.exists()) {
        return Err(JournalError::NoDirectory {
            path: path.to_path_buf(),
            directory: directory.to_path_buf(),
        });
    }
    let mut header = [0; 100];
    let read = File::open(path).and_then(|mut file| {
        let length = file.metadata()?.len();
        file.read_exact(&mut header[..length.min(100) as usize])?;
        Ok(length)
    });
    // What can't be read is said when it is opened; an empty file is as good as none.
    if !matches!(read, Ok(length) if length > 0) {
        return Ok(());
    }
    if !header.starts_with(b"SQLite format 3\0") {
        return foreign("it is no SQLite file");
    }
    let application = i32::from_be_bytes([header[68], header[69], header[70], header[71]]);
    // One without a mark may have it in its log.
    if application != APPLICATION && application != 0 {
        return foreign("it is an SQLite file of another program");
    }
    Ok(())
}

pub(super) fn open(path: &Path) -> Result<(Lock, Connection), JournalError> {
    look(path)?;
    let lock = Lock::take(path)?;
    // What clients have sent is in it: nobody else reads it. SQLite's files beside it are as it is.
    if !path.exists() {
        make(path).map_err(|_| JournalError::ReadOnly(path.to_path_buf()))?;
    }
    let connection = connect(path).map_err(|error| reading(&error, path))?;
    let reading = |error: rusqlite::Error| reading(&error, path);
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let foreign = |what: String| JournalError::Foreign { path: path.to_path_buf(), what };
    let (application, format) =
        (number("application_id").map_err(reading)?, number("user_version").map_err(reading)?);
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(reading)?;
    match (application, u32::try_from(format).unwrap_or(u32::MAX)) {
        (0, 0) if tables == 0 => create(&connection).map_err(reading)?,
        (APPLICATION, FORMAT) => {}
        (APPLICATION, found) if found > FORMAT => {
            return Err(JournalError::Newer { path: path.to_path_buf(), found, known: FORMAT });
        }
        (APPLICATION, found) => return Err(foreign(format!("its format is {found}"))),
        _ => return Err(foreign("it is an SQLite file of another program".into())),
    }
    let check: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(reading)?;
    if check != "ok" {
        return Err(JournalError::Damaged { path: path.to_path_buf(), what: check });
    }
    Ok((lock, connection))
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", false)?;
    connection.set_prepared_statement_cache_capacity(32);
    Ok(connection)
}

/// Makes a new file, whole or not at all.
fn create(connection: &Connection) -> rusqlite::Result<()> {
    let journal_mode = |row: &rusqlite::Row<'_>| row.get::<_, String>(0);
    connection.pragma_update_and_check(None, "journal_mode", "WAL", journal_mode)?;
    connection.execute_batch(&format!(
        "BEGIN IMMEDIATE; PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT};
         {SCHEMA} COMMIT;"
    ))
}

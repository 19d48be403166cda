//! Files that are cut off or damaged, and files that are something else: opened as a state that there
//! was, or refused in words; nothing is invented.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{admitted, append, completed, ended, open};
use crate::event::id::EventId;
use crate::journal::error::JournalError;
use crate::journal::record::Record;
use crate::journal::sqlite::Sqlite;
use crate::journal::{Journal, Loaded};

/// A file, and what it held after each batch that was acknowledged.
struct Written {
    database: Vec<u8>,
    wal: Vec<u8>,
    states: Vec<Loaded>,
}

fn wal(path: &Path) -> PathBuf {
    path.with_extension("db-wal")
}

/// Some batches, of which the last are in the write-ahead log only.
fn write() -> Written {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("events.db");
    let mut states = vec![Loaded::default()];
    let mut written = |journal: &Sqlite, batch: Vec<Record>| {
        append(journal, batch).expect("there is room");
        states.push(journal.load().expect("it can be read"));
    };
    let journal = open(&path);
    for n in 0..30 {
        written(&journal, vec![admitted(n), admitted(100 + n)]);
    }
    // Its log goes into the file, where it is closed.
    drop(journal);
    let journal = open(&path);
    for n in 0..12 {
        written(&journal, vec![ended(n, completed(n)), admitted(200 + n)]);
    }
    let read = |path: PathBuf| std::fs::read(path).expect("it is there");
    let (database, wal) = (read(path.clone()), read(wal(&path)));
    assert!(!wal.is_empty());
    Written { database, wal, states }
}

/// Opens the files; if they open, what they hold is a state that there was, or they are refused when they
/// are read.
fn check(written: &Written, database: &[u8], log: &[u8], what: &str) -> bool {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("events.db");
    std::fs::write(&path, database).expect("there is room");
    std::fs::write(wal(&path), log).expect("there is room");
    match Sqlite::open(&path).and_then(|journal| journal.load()) {
        Ok(loaded) => {
            assert!(written.states.contains(&loaded), "{what}: nobody has written {loaded:?}");
            true
        }
        Err(JournalError::Damaged { .. } | JournalError::Foreign { .. }) => false,
        // A bit of its version.
        Err(JournalError::Newer { .. }) => false,
        Err(other) => panic!("{what}: {other}"),
    }
}

#[test]
fn a_log_that_is_cut_off_anywhere_holds_what_there_was_before() {
    let written = write();
    let frame = 24 + 4096;
    for end in 0..=written.wal.len() {
        // Every byte around the beginning of a page, and some within.
        let within = end.saturating_sub(24) % frame;
        let last = end + 2 * frame > written.wal.len();
        let near = within < 32 || within > frame - 8;
        if !(end.is_multiple_of(1009) || (last && (near || end.is_multiple_of(61)))) {
            continue;
        }
        let opens =
            check(&written, &written.database, &written.wal[..end], &format!("cut at {end}"));
        assert!(opens, "cut at {end}");
    }
}

#[test]
fn a_file_that_is_cut_off_is_refused_or_holds_what_there_was() {
    let written = write();
    let last = written.database.len().saturating_sub(2 * 4096);
    for end in (last..written.database.len()).step_by(197) {
        check(&written, &written.database[..end], &[], &format!("cut at {end}"));
        check(
            &written,
            &written.database[..end],
            &written.wal,
            &format!("cut at {end}, with its log"),
        );
    }
}

#[test]
fn bits_that_flip_invent_nothing() {
    let written = write();
    let mut random = StdRng::seed_from_u64(7);
    let known: BTreeSet<EventId> = written
        .states
        .iter()
        .flat_map(|state| &state.events)
        .map(|live| live.admitted.event)
        .collect();
    assert_eq!(known.len(), 72);
    for n in 0..300 {
        let (mut database, mut log) = (written.database.clone(), written.wal.clone());
        let bytes = if n % 2 == 0 { &mut database } else { &mut log };
        let at = random.random_range(0..bytes.len());
        bytes[at] ^= 1 << random.random_range(0..8);
        check(&written, &database, &log, &format!("flip {n}"));
    }
}

#[test]
fn files_that_are_something_else_are_refused_in_words() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = |name: &str| directory.path().join(name);
    let refusal = |path: &Path| Sqlite::open(path).expect_err("it is no journal").to_string();
    std::fs::write(path("text"), "a shopping list, and more than a header".repeat(100)).unwrap();
    assert!(refusal(&path("text")).contains("it is no SQLite file"));
    let other = rusqlite::Connection::open(path("other")).unwrap();
    other.execute_batch("CREATE TABLE users (name TEXT)").unwrap();
    drop(other);
    assert!(refusal(&path("other")).contains("of another program"));
    drop(open(&path("newer")));
    let newer = rusqlite::Connection::open(path("newer")).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    assert!(refusal(&path("newer")).contains("has format 99"));
    std::fs::create_dir(path("directory")).unwrap();
    assert!(refusal(&path("directory")).contains("can't be written"));
    assert!(refusal(&path("missing/events.db")).contains("can't be written"));
}

/// The pages that a file may have, as on a disk that is full.
#[test]
fn a_full_disk_refuses_and_takes_records_again_once_there_is_room() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("events.db");
    let journal = open(&path);
    append(&journal, vec![admitted(0)]).expect("there is room");
    journal.test_max_pages(20);
    let mut kept = 1;
    let refused = loop {
        let batch = (0..20).map(|n| admitted(kept * 1000 + n)).collect();
        match append(&journal, batch) {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, JournalError::Full);
    let there = journal.load().expect("it can be read").events.len();
    assert_eq!(there as u128, 1 + (kept - 1) * 20, "nothing of it is kept");
    journal.test_max_pages(100_000);
    append(&journal, vec![admitted(77)]).expect("there is room again");
}

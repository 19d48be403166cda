//! Files that are cut off or damaged, and files that are something else: opened as a state that there
//! was, or refused in words; nothing is invented.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{admitted, append, completed, ended, ends, open};
use crate::event::id::EventId;
use crate::journal::error::JournalError;
use crate::journal::record::{Kept, Record, SetLimit, Steered};
use crate::journal::sqlite::Sqlite;
use crate::journal::{Journal, Loaded, Query};

/// A file, and what it held after each batch that was acknowledged.
struct Written {
    database: Vec<u8>,
    wal: Vec<u8>,
    states: Vec<Loaded>,
    /// The ends that were recorded, by their events.
    ends: Vec<(EventId, Kept)>,
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
    let steered = |n: u128| {
        let limit = Some(SetLimit::Slots(n as usize + 1));
        Record::Steered(Steered { paused: n.is_multiple_of(2), limit })
    };
    for n in 0..12 {
        written(&journal, vec![ended(n, completed(n)), admitted(200 + n), steered(n)]);
    }
    let ends = (0..12).flat_map(|n| {
        let event = EventId::for_test(n);
        ends(&journal, Query::Event(event)).into_iter().map(move |kept| (event, kept))
    });
    let ends: Vec<_> = ends.collect();
    assert_eq!(ends.len(), 12);
    let read = |path: PathBuf| std::fs::read(path).expect("it is there");
    let (database, wal) = (read(path.clone()), read(wal(&path)));
    assert!(!wal.is_empty());
    Written { database, wal, states, ends }
}

/// Opens the files; if they open, what they hold is a state that there was, or they are refused when they
/// are read.
fn check(written: &Written, database: &[u8], log: &[u8], what: &str) -> bool {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("events.db");
    std::fs::write(&path, database).expect("there is room");
    std::fs::write(wal(&path), log).expect("there is room");
    let opened = Sqlite::open(&path).and_then(|journal| Ok((journal.load()?, journal)));
    match opened {
        Ok((loaded, journal)) => {
            assert!(written.states.contains(&loaded), "{what}: nobody has written {loaded:?}");
            for (event, end) in &written.ends {
                let found = journal.ends(Query::Event(*event)).blocking_recv().expect("it answers");
                match found {
                    // An index that is damaged finds nothing.
                    Ok(found) => assert!(found.iter().all(|kept| kept == end), "{what}: {found:?}"),
                    Err(JournalError::Damaged { .. }) => {}
                    Err(other) => panic!("{what}: {other}"),
                }
            }
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
        // Every byte of the last page; before that, around the beginning of a page, and some within.
        let within = end.saturating_sub(24) % frame;
        let near = within < 32 || within > frame - 8;
        let last = end + frame > written.wal.len();
        let before = end + 3 * frame > written.wal.len() && (near || end.is_multiple_of(61));
        if !(last || before || end.is_multiple_of(1009)) {
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
    let last = written.database.len() - 4096;
    let before = (last - 4096..last).step_by(197);
    for end in before.chain(last..written.database.len()) {
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

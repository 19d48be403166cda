//! The files of a journal: whose they are, and what is said where they can't be used.

use std::path::Path;

use super::{admitted, append, open};
use crate::journal::Journal;
use crate::journal::error::JournalError;
use crate::journal::sqlite::Sqlite;

#[test]
fn nobody_else_opens_it_meanwhile() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("events.db");
    let journal = open(&path);
    let refused = Sqlite::open(&path).expect_err("it is in use");
    assert!(matches!(&refused, JournalError::InUse { by, .. } if by.contains("this process")));
    drop(journal);
    open(&path);
}

#[test]
fn another_process_that_has_it_is_named() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("events.db");
    // What another process would have locked.
    let lock = path.with_extension("db.lock");
    std::fs::write(&lock, "4242").expect("there is room");
    let theirs = std::fs::File::open(&lock).expect("it is there");
    theirs.lock().expect("nobody has it");
    let refused = Sqlite::open(&path).expect_err("it is in use");
    assert!(matches!(&refused, JournalError::InUse { by, .. } if by.contains("pid 4242")));
    drop(theirs);
    open(&path);
}

#[cfg(unix)]
#[test]
fn its_files_are_for_nobody_else() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("there is room");
    let journal = open(&directory.path().join("events.db"));
    append(&journal, vec![admitted(1)]).expect("there is room");
    let mut files = 0;
    for file in std::fs::read_dir(directory.path()).expect("it is there") {
        let file = file.expect("it is there");
        let mode = file.metadata().expect("it is there").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{:?}", file.path());
        files += 1;
    }
    assert!(files >= 3, "the file, its log and its lock");
}

#[test]
fn what_is_no_journal_is_refused_in_words_and_left_as_it_is() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = |name: &str| directory.path().join(name);
    let refusal = |path: &Path| Sqlite::open(path).expect_err("it is no journal").to_string();
    std::fs::write(path("text"), "a shopping list, and more than a header".repeat(100)).unwrap();
    let other = rusqlite::Connection::open(path("other")).unwrap();
    other.execute_batch("CREATE TABLE users (name TEXT); PRAGMA application_id = 7").unwrap();
    drop(other);
    let unmarked = rusqlite::Connection::open(path("unmarked")).unwrap();
    unmarked.execute_batch("CREATE TABLE users (name TEXT)").unwrap();
    drop(unmarked);
    std::fs::create_dir(path("directory")).unwrap();
    let there = |()| {
        let names = std::fs::read_dir(directory.path()).expect("it is there");
        let mut names: Vec<_> =
            names.map(|entry| entry.expect("it is there").file_name()).collect();
        names.sort();
        names
    };
    let before = there(());
    assert!(refusal(&path("text")).contains("it is no SQLite file"));
    assert!(refusal(&path("other")).contains("of another program"));
    assert!(refusal(&path("directory")).contains("it is a directory"));
    assert!(refusal(&path("missing/events.db")).contains("directory doesn't exist"));
    assert_eq!(there(()), before, "nothing was left there");
    assert!(refusal(&path("unmarked")).contains("of another program"));
}

#[test]
fn the_file_of_a_later_version_is_refused_in_words() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("events.db");
    drop(open(&path));
    let newer = rusqlite::Connection::open(&path).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    let refused = Sqlite::open(&path).expect_err("it is newer").to_string();
    assert!(refused.contains("has format 99"), "{refused}");
}

/// The pages that a file may have, as on a disk that is full.
#[test]
fn a_full_disk_refuses_and_takes_records_again_once_there_is_room() {
    let directory = tempfile::tempdir().expect("there is room");
    let journal = open(&directory.path().join("events.db"));
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

#[test]
fn another_program_that_has_it_locked_is_waited_for_and_then_said() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("events.db");
    let journal = open(&path);
    journal.test_busy_timeout(std::time::Duration::from_millis(1));
    let shell = rusqlite::Connection::open(&path).unwrap();
    shell.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert_eq!(append(&journal, vec![admitted(1)]), Err(JournalError::Busy));
    shell.execute_batch("COMMIT").unwrap();
    append(&journal, vec![admitted(2)]).expect("it is let in");
    assert_eq!(journal.load().expect("it can be read").events.len(), 1);
}

/// Writes fail in another way than for want of room.
#[test]
fn after_a_write_that_failed_nothing_more_is_written() {
    use super::{completed, ended};
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("events.db");
    let journal = open(&path);
    append(&journal, vec![admitted(1)]).expect("there is room");
    journal.test_refuse_writes(true);
    let broken = append(&journal, vec![ended(1, completed(1))]).expect_err("it can't be written");
    assert!(matches!(broken, JournalError::Broken(_)), "{broken}");
    // It would go well now, but what became of the last one isn't known.
    journal.test_refuse_writes(false);
    assert_eq!(append(&journal, vec![admitted(2)]), Err(broken));
    let events = journal.load().expect("it can be read").events;
    assert_eq!(events.len(), 1);
    drop(journal);
    append(&open(&path), vec![admitted(2)]).expect("the next process begins anew");
}

#[test]
fn where_forgetting_fails_nothing_more_is_written_either() {
    use super::{completed, ended};
    let directory = tempfile::tempdir().expect("there is room");
    let journal = open(&directory.path().join("events.db"));
    append(&journal, vec![admitted(1), ended(1, completed(1))]).expect("there is room");
    journal.test_refuse_writes(true);
    journal.forget(u64::MAX);
    // It is done when nothing else is to be done: the answer to this comes first or last.
    while !journal.test_is_broken() {}
    journal.test_refuse_writes(false);
    let refused = append(&journal, vec![admitted(2)]).expect_err("it is broken");
    assert!(matches!(refused, JournalError::Broken(_)), "{refused}");
}

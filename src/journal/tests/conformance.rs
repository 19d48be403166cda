//! What every journal must do, against a model that is too simple to be wrong.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{admitted, append, completed, ended, ends, open};
use crate::event::failure::Failure;
use crate::event::id::EventId;
use crate::journal::record::{Admitted, End, Ended, Live, Record, SetLimit, Steered};
use crate::journal::{Journal, Loaded, Query};

/// What a journal must know after the same records.
#[derive(Default)]
struct Model {
    live: Vec<Live>,
    ends: BTreeMap<EventId, (Admitted, Ended)>,
    steered: Option<Steered>,
}

impl Model {
    fn take(&mut self, record: &Record) {
        let live = |model: &Self, event: EventId| {
            model.live.iter().position(|live| live.admitted.event == event)
        };
        match record {
            Record::Admitted(admitted) => {
                if live(self, admitted.event).is_none() {
                    let admitted = admitted.clone();
                    self.live.push(Live { admitted, attempt: 0, postponed: None });
                }
            }
            Record::Started { event, attempt } => {
                if let Some(at) = live(self, *event) {
                    (self.live[at].attempt, self.live[at].postponed) = (*attempt, None);
                }
            }
            Record::Postponed { event, until } => {
                if let Some(at) = live(self, *event) {
                    self.live[at].postponed = Some(*until);
                }
            }
            Record::Ended(ended) => {
                if let Some(at) = live(self, ended.event) {
                    let Live { admitted, .. } = self.live.remove(at);
                    self.ends.entry(ended.event).or_insert((admitted, ended.clone()));
                }
            }
            Record::Steered(steered) => self.steered = Some(*steered),
        }
    }

    fn loaded(&self) -> Loaded {
        let steered = self.steered.map(|steered| ("gpu".into(), steered));
        Loaded { events: self.live.clone(), steered: steered.into_iter().collect() }
    }

    fn check(&self, journal: &dyn Journal) {
        assert_eq!(journal.load().expect("it can be read"), self.loaded());
        for (event, (admitted, ended)) in &self.ends {
            let kept = ends(journal, Query::Event(*event));
            assert_eq!(kept.len(), 1);
            assert_eq!(kept[0].ended, *ended);
            assert_eq!(kept[0].listener, admitted.listener);
            assert_eq!((&kept[0].user, &kept[0].key), (&admitted.user, &admitted.key));
            assert_eq!(kept[0].session, admitted.session);
            if let Some(key) = &admitted.key {
                let (listener, user) = (admitted.listener.clone(), admitted.user.clone());
                let by_key = ends(journal, Query::Key { listener, user, key: key.clone() });
                assert_eq!(by_key, kept);
                assert_eq!(kept[0].input.as_ref(), Some(&admitted.input));
            }
        }
        for live in &self.live {
            assert!(ends(journal, Query::Event(live.admitted.event)).is_empty());
        }
    }
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        (0..9u128).prop_map(completed),
        Just(End::Completed(None)),
        "[a-zé\"\\\\]{0,8}".prop_map(|text| End::Failed(Failure::unexpected(text))),
        Just(End::Cancelled),
        Just(End::TimedOut),
        Just(End::Stopped),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let event = 0..40u128;
    let limit = prop_oneof![
        Just(None),
        (1..9usize).prop_map(|slots| Some(SetLimit::Slots(slots))),
        Just(Some(SetLimit::Unlimited))
    ];
    prop_oneof![
        4 => event.clone().prop_map(admitted),
        2 => (event.clone(), 1..4u32).prop_map(|(n, attempt)| Record::Started {
            event: EventId::for_test(n),
            attempt
        }),
        1 => (event.clone(), 0..9_999u64).prop_map(|(n, until)| Record::Postponed {
            event: EventId::for_test(n),
            until
        }),
        2 => (event, end()).prop_map(|(n, end)| ended(n, end)),
        1 => (any::<bool>(), limit).prop_map(|(paused, limit)| {
            Record::Steered(Steered { paused, limit })
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Now, and when it is opened again.
    #[test]
    fn it_keeps_what_it_is_given(
        batches in prop::collection::vec(prop::collection::vec(record(), 1..8), 1..24),
        reopen in 0..24usize,
    ) {
        let directory = tempfile::tempdir().expect("there is room");
        let path = directory.path().join("events.db");
        let mut journal = open(&path);
        let mut model = Model::default();
        for (n, batch) in batches.into_iter().enumerate() {
            let kept = batch.into_iter().filter(|record| {
                // An id is given once: what has ended is not admitted again.
                let again = |it: &Admitted| model.ends.contains_key(&it.event);
                let fits = !matches!(record, Record::Admitted(it) if again(it));
                if fits {
                    model.take(record);
                }
                fits
            });
            let kept = kept.collect();
            append(&journal, kept).expect("there is room");
            if n == reopen {
                drop(journal);
                journal = open(&path);
            }
        }
        model.check(&journal);
        drop(journal);
        model.check(&open(&path));
    }
}

#[test]
fn everything_that_was_given_is_answered_before_it_is_gone() {
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("events.db");
    let journal = open(&path);
    let (done, is_done) = std::sync::mpsc::channel();
    for n in 0..1000 {
        let done = done.clone();
        let batch = super::Batch { concurrency_id: "gpu".into(), records: vec![admitted(n)] };
        journal.append(batch, Box::new(move |kept| done.send((n, kept)).expect("it is awaited")));
    }
    drop((journal, done));
    let answers: Vec<_> = is_done.iter().collect();
    assert_eq!(answers, (0..1000).map(|n| (n, Ok(()))).collect::<Vec<_>>(), "each once, in order");
    assert_eq!(open(&path).load().expect("it can be read").events.len(), 1000);
}

#[test]
fn ends_are_forgotten_by_their_time_and_no_others() {
    let directory = tempfile::tempdir().expect("there is room");
    let journal = open(&directory.path().join("events.db"));
    let all: Vec<_> = (0..2500)
        .flat_map(|n| [admitted(n), ended(n, End::Cancelled)])
        .chain([admitted(9999)])
        .collect();
    append(&journal, all).expect("there is room");
    let there = |n| !ends(&journal, Query::Event(EventId::for_test(n))).is_empty();
    journal.forget(1000 + 2400);
    // In steps, between which it answers.
    while there(2399) || there(0) {}
    assert!(there(2400) && there(2499));
    assert_eq!(journal.load().expect("it can be read").events.len(), 1);
}

#[test]
fn nobody_else_opens_it_meanwhile() {
    use crate::journal::error::JournalError;
    use crate::journal::sqlite::Sqlite;
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("events.db");
    let journal = open(&path);
    let refused = Sqlite::open(&path).expect_err("it is in use");
    assert!(matches!(&refused, JournalError::InUse { by, .. } if by.contains("this process")));
    drop(journal);
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

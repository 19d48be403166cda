//! What every journal must do, against lists that are too simple to be wrong.

use std::cell::RefCell;

use proptest::prelude::*;

use super::{admitted, append, append_to, completed, ended, ends};
use crate::event::failure::Failure;
use crate::event::id::EventId;
use crate::journal::fake::FakeJournal;
use crate::journal::memory::Memory;
use crate::journal::record::{Admitted, Called, End, Ended, Live, Record, SetLimit, Steered};
use crate::journal::{Batch, Journal, Loaded, Query};

/// Where a journal keeps its records.
pub(super) trait Store: Default {
    type Journal: Journal;

    /// Opens it as one process after another does: whoever had it has dropped it.
    fn open(&self) -> Self::Journal;
}

/// Of the journal in memory.
#[derive(Default)]
struct InMemory(RefCell<Option<FakeJournal>>);

impl Store for InMemory {
    type Journal = FakeJournal;

    fn open(&self) -> FakeJournal {
        let mut last = self.0.borrow_mut();
        let next = last.take().map_or_else(FakeJournal::new, |last| last.die(usize::MAX));
        last.insert(next).clone()
    }
}

#[cfg(feature = "journal")]
struct InFile(tempfile::TempDir);

#[cfg(feature = "journal")]
impl Default for InFile {
    fn default() -> Self {
        InFile(tempfile::tempdir().expect("there is room"))
    }
}

#[cfg(feature = "journal")]
impl Store for InFile {
    type Journal = crate::journal::sqlite::Sqlite;

    fn open(&self) -> Self::Journal {
        super::open(&self.0.path().join("events.db"))
    }
}

#[cfg(feature = "cluster")]
struct InLog(crate::journal::jetstream::fake_log::FakeLog);

#[cfg(feature = "cluster")]
impl Default for InLog {
    fn default() -> Self {
        InLog(crate::journal::jetstream::fake_log::FakeLog::new(1))
    }
}

#[cfg(feature = "cluster")]
impl Store for InLog {
    type Journal = crate::journal::jetstream::Nats;

    fn open(&self) -> Self::Journal {
        let open = crate::journal::jetstream::Nats::test_open(self.0.clone());
        futures::executor::block_on(open).expect("it opens")
    }
}

/// Of the journal on a server of its own.
#[cfg(feature = "cluster")]
struct OnNats(super::nats_server::Servers);

#[cfg(feature = "cluster")]
impl Default for OnNats {
    fn default() -> Self {
        OnNats(super::nats_server::Servers::start(1).expect("there is a server"))
    }
}

#[cfg(feature = "cluster")]
impl Store for OnNats {
    type Journal = crate::journal::jetstream::Nats;

    fn open(&self) -> Self::Journal {
        let url = self.0.url();
        let connect = async { crate::journal::jetstream::Nats::connect(url).await };
        futures::executor::block_on(connect).expect("it connects")
    }
}

fn load(journal: &impl Journal) -> Loaded {
    let mut loaded = journal.load().expect("it can be read");
    loaded.steered.sort_by(|(a, _), (b, _)| a.cmp(b));
    loaded
}

fn check(journal: &impl Journal, expected: &Memory) {
    assert_eq!(load(journal), expected.loaded());
    for (Live { admitted, .. }, ended) in &expected.ends {
        let by_id = Query::Event(ended.event);
        let kept = ends(journal, by_id.clone());
        assert_eq!((kept.len(), &kept), (1, &expected.find(&by_id)));
        if let Some(key) = admitted.key.clone() {
            let (listener, user) = (admitted.listener.clone(), admitted.user.clone());
            let by_key = Query::Key { listener, user, key: key.clone() };
            assert_eq!(ends(journal, by_key), kept);
            let (listener, user) = (admitted.listener.clone(), Some("nobody".into()));
            assert_eq!(ends(journal, Query::Key { listener, user, key }), []);
        }
    }
    for query in [
        Query::ToCall(3),
        Query::ToCall(100),
        Query::Failed { listener: "odd".into(), most: 2 },
        Query::Failed { listener: "even".into(), most: 100 },
    ] {
        assert_eq!(ends(journal, query.clone()), expected.find(&query), "{query:?}");
    }
    for (Live { admitted, .. }, ended) in &expected.ends {
        let Some(session) = admitted.session.clone() else { continue };
        for since in [0, ended.at] {
            let (user, session) = (admitted.user.clone(), session.clone());
            let query = Query::Session { user, session, since };
            assert_eq!(ends(journal, query.clone()), expected.find(&query), "{query:?}");
        }
    }
    for live in &expected.live {
        assert!(ends(journal, Query::Event(live.admitted.event)).is_empty());
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
    let next = prop::option::of(0..5_000u64);
    let moment = prop_oneof![4 => 0..9_999u64, 1 => Just(i64::MAX as u64)];
    let attempt = 1..4u32;
    prop_oneof![
        4 => event.clone().prop_map(admitted),
        2 => (event.clone(), attempt.clone()).prop_map(|(n, attempt)| Record::Started {
            event: EventId::for_test(n),
            attempt,
            place: None,
        }),
        1 => (event.clone(), attempt, moment).prop_map(|(n, attempt, until)| Record::Postponed {
            event: EventId::for_test(n),
            attempt,
            until
        }),
        2 => (event.clone(), end()).prop_map(|(n, end)| ended(n, end)),
        1 => (event, 1..9u32, next).prop_map(|(n, calls, next)| {
            Record::Called(Called { event: EventId::for_test(n), calls, next })
        }),
        1 => (any::<bool>(), limit).prop_map(|(paused, limit)| {
            Record::Steered(Steered { paused, limit })
        }),
    ]
}

fn batches() -> impl Strategy<Value = Vec<(&'static str, Vec<Record>)>> {
    let id = prop_oneof!["gpu", "cpu"].prop_map(|id| if id == "gpu" { "gpu" } else { "cpu" });
    prop::collection::vec((id, prop::collection::vec(record(), 1..8)), 1..24)
}

/// What it was given it keeps, now and when it is opened again, though records come twice, too late or of
/// events that nobody knows.
fn keeps_what_it_is_given<S: Store>(batches: Vec<(&str, Vec<Record>)>, reopen: usize) {
    let store = S::default();
    let mut journal = store.open();
    let mut expected = Memory::default();
    for (n, (id, records)) in batches.into_iter().enumerate() {
        expected.take(&Batch { concurrency_id: id.into(), records: records.clone().into() });
        append_to(&journal, id, records).expect("there is room");
        if n == reopen {
            drop(journal);
            journal = store.open();
        }
    }
    check(&journal, &expected);
    drop(journal);
    check(&store.open(), &expected);
}

fn answers_everything_before_it_is_gone<S: Store>() {
    let store = S::default();
    let journal = store.open();
    let (done, is_done) = std::sync::mpsc::channel();
    for n in 0..1000 {
        let done = done.clone();
        let batch = Batch { concurrency_id: "gpu".into(), records: vec![admitted(n)].into() };
        journal.append(batch, Box::new(move |kept| done.send((n, kept)).expect("it is awaited")));
    }
    drop((journal, done));
    let answers: Vec<_> = is_done.iter().collect();
    assert_eq!(answers, (0..1000).map(|n| (n, Ok(()))).collect::<Vec<_>>(), "each once, in order");
    assert_eq!(load(&store.open()).events.len(), 1000);
}

fn forgets_ends_by_their_time_and_no_others<S: Store>() {
    let store = S::default();
    let journal = store.open();
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
    assert_eq!(load(&journal).events.len(), 1);
}

/// However late a moment is, the records can be read again.
fn keeps_the_latest_moments<S: Store>() {
    let store = S::default();
    let journal = store.open();
    let late = |n: u128| match admitted(n) {
        Record::Admitted(it) => {
            Record::Admitted(Admitted { not_before: Some(u64::MAX), at: u64::MAX, ..it })
        }
        other => other,
    };
    let event = EventId::for_test(2);
    let end = Ended { event, end: End::Cancelled, duration: 0.0, at: u64::MAX };
    let postponed = Record::Postponed { event: EventId::for_test(1), attempt: 1, until: u64::MAX };
    append(&journal, vec![late(1), postponed, late(2), Record::Ended(end)]).expect("there is room");
    drop(journal);
    let journal = store.open();
    let live = load(&journal).events.pop().expect("it is live");
    for moment in [live.admitted.not_before, Some(live.admitted.at), live.postponed] {
        assert!(moment.expect("it was given") >= i64::MAX as u64);
    }
    assert_eq!(ends(&journal, Query::Event(event)).len(), 1);
}

macro_rules! conformance {
    ($name:ident, $store:ty) => {
        conformance!($name, $store, 48, true);
    };
    ($name:ident, $store:ty, $cases:literal, $there:expr) => {
        mod $name {
            use super::*;

            proptest! {
                #![proptest_config(ProptestConfig::with_cases($cases))]

                #[test]
                fn it_keeps_what_it_is_given(batches in batches(), reopen in 0..24usize) {
                    if $there {
                        keeps_what_it_is_given::<$store>(batches, reopen);
                    }
                }
            }

            #[test]
            fn everything_that_was_given_is_answered_before_it_is_gone() {
                if $there {
                    answers_everything_before_it_is_gone::<$store>();
                }
            }

            #[test]
            fn ends_are_forgotten_by_their_time_and_no_others() {
                if $there {
                    forgets_ends_by_their_time_and_no_others::<$store>();
                }
            }

            #[test]
            fn the_latest_moments_can_be_read_again() {
                if $there {
                    keeps_the_latest_moments::<$store>();
                }
            }
        }
    };
}

conformance!(in_memory, InMemory);
#[cfg(feature = "journal")]
conformance!(sqlite, InFile);
#[cfg(feature = "cluster")]
conformance!(in_log, InLog);
#[cfg(feature = "cluster")]
conformance!(on_nats, OnNats, 12, super::super::nats_server::program().is_some());

//! One writer at a time, whatever the network does: what is told as kept is in the log once and in order,
//! what is refused never is, and nobody writes behind another one's claim.

use std::collections::HashMap;

use futures::executor::block_on;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::fake_log::FakeLog;
use super::group::{Claim, Group};
use super::line::{Appending, Attempt, Line};
use crate::event::id::EventId;
use crate::event::json_text::JsonText;
use crate::journal::error::JournalError;
use crate::journal::record::{Admitted, End, Ended, Record, Steered};
use crate::journal::{Batch, Query};

fn admitted(n: u64) -> Record {
    Record::Admitted(Admitted {
        event: EventId::for_test(n.into()),
        listener: "paint".into(),
        session: None,
        user: None,
        key: Some(format!("key {n}").into()),
        webhook: None,
        not_before: None,
        came_to: None,
        at: n,
        input: JsonText::of(&n).unwrap(),
    })
}

fn ended(n: u64) -> Record {
    let event = EventId::for_test(n.into());
    Record::Ended(Ended { event, end: End::Cancelled, duration: 0.0, at: n })
}

fn group(records: Vec<Record>) -> Group {
    Group::of(vec![Batch { concurrency_id: "gpu".into(), records: records.into() }])
}

/// Opens the log, however often that takes.
fn open(log: &FakeLog, id: &str) -> Line<FakeLog> {
    loop {
        let claim = Claim { by: id.to_string(), id: id.to_string() };
        match block_on(Line::open(log.clone(), claim, None)) {
            Ok(line) => return line,
            Err(JournalError::Unreachable(_) | JournalError::Full) => {}
            Err(other) => panic!("{other}"),
        }
    }
}

/// One process after another, each of which may not know of the next.
struct Process {
    line: Line<FakeLog>,
    /// What is on its way, and which event it has.
    appending: Option<(Appending, u64)>,
    is_over: bool,
}

fn history(seed: u64, has_no_fence: bool) {
    let mut random = SmallRng::seed_from_u64(seed);
    let log = FakeLog::new(seed);
    log.kept().troubles = random.random_range(0..25);
    log.kept().has_no_fence = has_no_fence;
    let mut processes: Vec<Process> = Vec::new();
    let (mut next, mut kept, mut refused) = (0, Vec::new(), Vec::new());
    for _ in 0..random.random_range(5..60) {
        match random.random_range(0..20) {
            0 => {
                let is_full = random.random_bool(0.5);
                log.kept().is_full = is_full;
            }
            1 | 2 => {
                log.kept().is_full = false;
                let line = open(&log, &format!("process {}", processes.len()));
                processes.push(Process { line, appending: None, is_over: false });
            }
            _ => {
                let some = random.random_range(0..processes.len().max(1));
                let Some(process) = processes.get_mut(some).filter(|it| !it.is_over) else {
                    continue;
                };
                if process.appending.is_none() {
                    let prepared = process.line.prepare(group(vec![admitted(next)])).unwrap();
                    process.appending = Some((prepared, next));
                    next += 1;
                }
                let (appending, n) = process.appending.as_mut().unwrap();
                match block_on(process.line.attempt(appending)) {
                    Attempt::Kept => kept.push(*n),
                    Attempt::Refused(JournalError::Full) => refused.push(*n),
                    Attempt::Refused(JournalError::TakenOver { .. }) => {
                        refused.push(*n);
                        process.is_over = true;
                    }
                    Attempt::Refused(other) => panic!("{other}"),
                    Attempt::Unsure(_) | Attempt::UnsureWithoutRoom => continue,
                }
                process.appending = None;
            }
        }
    }
    log.kept().deliver_late();
    check(&log, &kept, &refused);
    log.kept().troubles = 0;
    log.kept().is_full = false;
    let loaded = open(&log, "the last").loaded();
    let there: Vec<u64> = loaded.events.iter().map(|live| live.admitted.at).collect();
    assert!(kept.iter().all(|n| there.contains(n)), "what is kept can be read");
}

fn check(log: &FakeLog, kept: &[u64], refused: &[u64]) {
    let mut writer = String::new();
    let mut found: HashMap<u64, usize> = HashMap::new();
    for stored in &log.kept().groups {
        let group = Group::decode("fake", &stored.text).unwrap();
        let by = stored.tag.as_ref().unwrap().rsplit_once('-').unwrap().0.to_string();
        if group.claim.is_some() {
            writer = by;
            continue;
        }
        assert_eq!(by, writer, "nobody writes behind another one's claim");
        for (_, _, record) in group.records() {
            let Record::Admitted(admitted) = record else { panic!("only these are appended") };
            *found.entry(admitted.at).or_default() += 1;
        }
    }
    assert!(found.values().all(|times| *times == 1), "nothing is there twice");
    assert!(kept.iter().all(|n| found.contains_key(n)), "what was told as kept is there");
    assert!(!refused.iter().any(|n| found.contains_key(n)), "what was refused isn't");
}

#[test]
fn one_writes_at_a_time_whatever_the_network_does() {
    for seed in 0..10_000 {
        history(seed, false);
    }
}

/// Of two that open it at the same time, one has it.
#[test]
fn who_was_quicker_has_it() {
    let log = FakeLog::new(1);
    let claim = |by: &str| Claim { by: by.into(), id: by.into() };
    log.kept().race = Some(("quick-1".into(), Group::claim(claim("quick")).encode().unwrap()));
    let slow = block_on(Line::open(log.clone(), claim("slow"), None)).map(|_| ());
    assert_eq!(slow, Err(JournalError::Owned { name: "fake".into(), by: "quick".into() }));
    check(&log, &[], &[]);
}

/// Who takes it to be free may be late: somebody else has claimed it, and may have left it again.
#[test]
fn what_somebody_has_claimed_since_is_left_alone() {
    let log = FakeLog::new(1);
    let free = open(&log, "first").last();
    let claim = |by: &str| Claim { by: by.into(), id: by.into() };
    let try_over = |over| block_on(Line::open(log.clone(), claim("late"), Some(over))).map(|_| ());
    assert_eq!(try_over(free), Ok(()));
    let mut second = open(&log, "second");
    let owned = JournalError::Owned { name: "fake".into(), by: "second".into() };
    assert_eq!(try_over(free), Err(owned));
    let mut release = second.prepare(Group::release()).unwrap();
    assert_eq!(block_on(second.attempt(&mut release)), Attempt::Kept);
    assert_eq!(try_over(free), Ok(()));
}

/// The check can fail.
#[test]
#[should_panic(expected = "nobody writes behind another one's claim")]
fn without_the_fence_two_write() {
    for seed in 0..10_000 {
        history(seed, true);
    }
}

/// What still stands outlives the part of the log where it was recorded.
#[test]
fn a_log_is_cleaned_of_what_is_forgotten() {
    let log = FakeLog::new(1);
    let mut line = open(&log, "first");
    let append = |line: &mut Line<FakeLog>, group: Group| {
        let mut appending = line.prepare(group).unwrap();
        assert_eq!(block_on(line.attempt(&mut appending)), Attempt::Kept);
    };
    let steered = Steered { paused: true, limit: None };
    append(&mut line, group(vec![admitted(1), Record::Steered(steered)]));
    append(
        &mut line,
        group(vec![Record::Started { event: EventId::for_test(1), attempt: 2, place: None }]),
    );
    for n in 10..2010 {
        append(&mut line, group(vec![admitted(n)]));
        append(&mut line, group(vec![ended(n)]));
    }
    append(&mut line, group(vec![admitted(2)]));
    let before = line.loaded();
    assert_eq!(block_on(line.forget(0)).unwrap(), None, "all ends are kept");
    let cleaning = block_on(line.forget(2000)).unwrap().expect("it is worth it");
    let first = cleaning.before;
    let groups = cleaning.groups(1);
    assert_eq!(groups.len(), 2, "in pieces");
    groups.into_iter().for_each(|group| append(&mut line, group));
    block_on(line.remove_before(first)).unwrap();
    assert!(log.kept().groups.len() < 30, "the rest is gone");
    assert_eq!(line.loaded(), before);
    let mut next = open(&log, "second");
    assert_eq!(next.loaded(), before, "the order of admission, attempts and pauses among it");
    let find = |line: &Line<FakeLog>, n: u64| {
        block_on(line.find(&Query::Event(EventId::for_test(n.into())))).unwrap()
    };
    assert_eq!(find(&next, 1999), []);
    assert_eq!(find(&next, 2000)[0].input, Some(JsonText::of(&2000).unwrap()));
    append(&mut next, group(vec![ended(1)]));
    assert_eq!(find(&next, 1)[0].input, Some(JsonText::of(&1).unwrap()), "from its second record");
    assert_eq!(open(&log, "third").loaded().events.len(), 1);
}

//! The journal on real servers: one, and three of which some are killed.

use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures::executor::block_on;

use super::nats_server::Servers;
use super::{admitted, append, completed, ended, ends};
use crate::event::id::EventId;
use crate::event::json_text::JsonText;
use crate::journal::error::JournalError;
use crate::journal::jetstream::Nats;
use crate::journal::record::{Admitted, End, Record};
use crate::journal::{Batch, Journal, Query};

/// Connects, however long the servers need to be there.
fn connect(url: &str, name: &str) -> Nats {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match block_on(async { Nats::connect(url).name(name).await }) {
            Ok(journal) => return journal,
            Err(trouble) => assert!(Instant::now() < until, "{trouble}"),
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// What has 5 MB takes several messages, which are kept together or not at all.
#[test]
fn long_values_are_kept() {
    let Some(servers) = Servers::start(1) else { return };
    let journal = connect(&servers.url(), "long");
    let text = "x".repeat(5_000_000);
    let long = |n| match admitted(n) {
        Record::Admitted(it) => {
            Record::Admitted(Admitted { input: JsonText::of(&text).unwrap(), ..it })
        }
        other => other,
    };
    append(&journal, vec![admitted(1), long(2), long(7), admitted(3)]).unwrap();
    let output = End::Completed(Some(JsonText::of(&text).unwrap()));
    append(&journal, vec![ended(2, output.clone()), ended(7, completed(7))]).unwrap();
    drop(journal);
    let journal = connect(&servers.url(), "long");
    assert_eq!(journal.load().unwrap().events.len(), 2);
    let kept = ends(&journal, Query::Event(EventId::for_test(2)));
    assert_eq!(kept[0].ended.end, output);
    let keyed = ends(&journal, Query::Event(EventId::for_test(7)));
    assert_eq!(keyed[0].input, Some(JsonText::of(&text).unwrap()), "by its key it is wanted");
}

#[test]
fn one_process_has_it_and_says_so() {
    let Some(servers) = Servers::start(1) else { return };
    let journal = connect(&servers.url(), "owned");
    append(&journal, vec![admitted(1)]).unwrap();
    let second = block_on(async { Nats::connect(servers.url()).name("owned").await });
    let by = match second {
        Err(JournalError::Owned { name, by }) => {
            assert_eq!(name, "now-serving_owned_journal");
            by
        }
        other => panic!("{other:?}"),
    };
    assert!(by.starts_with(&format!("process {}", std::process::id())), "{by}");
    let another = connect(&servers.url(), "owned.2");
    assert_eq!(another.load().unwrap().events, [], "two names are two journals");
    append(&journal, vec![admitted(2)]).unwrap();
    drop(journal);
    assert_eq!(connect(&servers.url(), "owned").load().unwrap().events.len(), 2);
}

/// A process that stands by has its turn once the one before it is gone, and not before.
#[test]
fn who_stands_by_takes_over() {
    let Some(servers) = Servers::start(1) else { return };
    let journal = connect(&servers.url(), "standby");
    append(&journal, vec![admitted(1)]).unwrap();
    let (url, (opened, is_open)) = (servers.url(), mpsc::channel());
    let second = std::thread::spawn(move || {
        let connect = async { Nats::connect(url).name("standby").standby().await };
        let journal = block_on(connect).expect("it has its turn");
        opened.send(()).expect("the test waits");
        journal
    });
    for n in 2..100 {
        append(&journal, vec![admitted(n)]).expect("it is ours");
        assert!(is_open.try_recv().is_err(), "it waits");
    }
    drop(journal);
    is_open.recv().expect("it says so");
    assert_eq!(second.join().unwrap().load().unwrap().events.len(), 99);
}

/// Whoever doesn't answer loses it, and can't write any more.
#[test]
fn who_was_taken_over_from_is_told() {
    let Some(servers) = Servers::start(1) else { return };
    let first = connect(&servers.url(), "fenced");
    append(&first, vec![admitted(1)]).unwrap();
    let second = block_on(Nats::test_take_over(servers.url(), "fenced")).unwrap();
    append(&second, vec![admitted(2)]).unwrap();
    let refused = append(&first, vec![admitted(3)]);
    assert!(matches!(refused, Err(JournalError::TakenOver { .. })), "{refused:?}");
    assert_eq!(append(&first, vec![admitted(4)]), refused, "and so it stays");
    append(&second, vec![admitted(5)]).unwrap();
    let there: Vec<u64> =
        second.load().unwrap().events.iter().map(|live| live.admitted.at).collect();
    assert_eq!(there, [1, 2, 5]);
}

/// While no server is there nothing new is taken, and what was on its way is kept once one is.
#[test]
fn it_waits_for_a_server_that_comes_back() {
    let Some(mut servers) = Servers::start(1) else { return };
    let journal = connect(&servers.url(), "away");
    append(&journal, vec![admitted(1)]).unwrap();
    servers.kill(0);
    let (done, is_done) = mpsc::channel();
    let submit = |n: u128| {
        let done = done.clone();
        let batch = Batch { concurrency_id: "gpu".into(), records: vec![admitted(n)].into() };
        journal.append(batch, Box::new(move |kept| done.send((n, kept)).unwrap()));
    };
    submit(2);
    // The first one waits: nobody knows whether it was kept. Those that come meanwhile needn't.
    let refused = loop {
        submit(3);
        match is_done.recv_timeout(Duration::from_millis(100)) {
            Ok((_, kept)) => break kept,
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(closed) => panic!("{closed}"),
        }
    };
    assert!(matches!(refused, Err(JournalError::Unreachable(_))), "{refused:?}");
    servers.start_one(0);
    let kept = is_done.iter().find(|(n, _)| *n == 2).expect("it is answered");
    assert_eq!(kept, (2, Ok(())));
    append(&journal, vec![admitted(4)]).unwrap();
    let there = |n| journal.load().unwrap().events.iter().any(|live| live.admitted.at == n);
    assert!(there(1) && there(2) && there(4));
}

/// Three servers of which one after the other is killed: what was told as kept is there, once and in order.
#[test]
fn killing_servers_loses_nothing() {
    let Some(mut servers) = Servers::start(3) else { return };
    let journal = connect(&servers.url(), "three");
    let mut kept: Vec<u64> = Vec::new();
    let mut n = 0;
    for killed in 0..3 {
        servers.kill(killed);
        let (enough, until) = (kept.len() + 50, Instant::now() + Duration::from_secs(120));
        while kept.len() < enough {
            n += 1;
            match append(&journal, vec![admitted(n)]) {
                Ok(()) => kept.push(n as u64),
                Err(JournalError::Unreachable(_)) => {}
                Err(other) => panic!("{other}"),
            }
            assert!(Instant::now() < until, "two of three are enough");
        }
        servers.start_one(killed);
        // It has to catch up before the next one goes, or two of three are away.
        while !in_step(&servers) {
            std::thread::sleep(Duration::from_millis(50));
            assert!(Instant::now() < until, "it catches up");
        }
    }
    drop(journal);
    let journal = connect(&servers.url(), "three");
    let there: Vec<u64> =
        journal.load().unwrap().events.iter().map(|live| live.admitted.at).collect();
    assert!(there.is_sorted());
    assert!(kept.iter().all(|n| there.contains(n)));
}

/// Whether all three servers have the stream as it is.
fn in_step(servers: &Servers) -> bool {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it starts");
    let asked = runtime.block_on(async {
        let client = async_nats::connect(servers.url_of(0)).await.ok()?;
        let context = async_nats::jetstream::new(client);
        let stream = context.get_stream("now-serving_three_journal").await.ok()?;
        stream.cached_info().cluster.clone()
    });
    asked.is_some_and(|cluster| {
        let current = cluster.replicas.iter().filter(|peer| peer.current && !peer.offline);
        cluster.leader.is_some() && current.count() == servers.count() - 1
    })
}

//! The journal on real servers: one, and three of which some are killed.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
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

/// On a runtime of its own, as a client of NATS' needs it.
fn run<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("it starts").block_on(future)
}

/// As [`admitted`], with this text as its input.
fn admitted_with(n: u128, text: &str) -> Record {
    match admitted(n) {
        Record::Admitted(it) => {
            Record::Admitted(Admitted { input: JsonText::of(&text).unwrap(), ..it })
        }
        other => other,
    }
}

/// What has 5 MB takes several messages, which are kept together or not at all.
#[test]
fn long_values_are_kept() {
    let Some(servers) = Servers::start(1) else { return };
    let journal = connect(&servers.url(), "long");
    let text = "x".repeat(5_000_000);
    let long = |n| admitted_with(n, &text);
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

/// A process that stands by doesn't take what isn't free, though no server is there for a while.
#[test]
fn who_stands_by_waits_while_nobody_can_be_asked() {
    let Some(mut servers) = Servers::start(1) else { return };
    let journal = connect(&servers.url(), "outage");
    append(&journal, vec![admitted(1)]).unwrap();
    let (url, (opened, is_open)) = (servers.url(), mpsc::channel());
    let stands_by = Arc::new(AtomicBool::new(false));
    let waits = stands_by.clone();
    let second = std::thread::spawn(move || {
        let connect = Nats::connect(url).name("outage").standby();
        let journal = run(Nats::open(connect, waits));
        opened.send(()).expect("the test waits");
        journal
    });
    while !stands_by.load(Ordering::Relaxed) {
        std::thread::yield_now();
    }
    servers.kill(0);
    // Longer than it waits for one that is gone.
    std::thread::sleep(Duration::from_secs(10));
    servers.start_one(0);
    let until = Instant::now() + Duration::from_secs(60);
    while append(&journal, vec![admitted(2)]).is_err() {
        assert!(Instant::now() < until, "it is still ours");
    }
    assert!(is_open.try_recv().is_err(), "it waits");
    drop(journal);
    is_open.recv().expect("it says so");
    assert_eq!(second.join().unwrap().unwrap().load().unwrap().events.len(), 2);
}

/// It hears of it though it has nothing to append.
#[test]
fn who_was_taken_over_from_hears_of_it_by_itself() {
    let Some(servers) = Servers::start(1) else { return };
    let first = connect(&servers.url(), "silent");
    let mut taken_over = first.taken_over().expect("it can be");
    let second = block_on(Nats::test_take_over(servers.url(), "silent")).unwrap();
    let trouble = block_on(taken_over.wait_for(Option::is_some)).expect("it is there").clone();
    assert!(matches!(trouble, Some(JournalError::TakenOver { .. })), "{trouble:?}");
    append(&second, vec![admitted(1)]).unwrap();
}

/// Whoever is asked all the time, and has nothing to append, keeps what is its own.
#[test]
fn a_lease_lasts_while_it_is_only_read() {
    let Some(servers) = Servers::start(1) else { return };
    let connect = async { Nats::connect(servers.url()).name("read").standby().await };
    let journal = block_on(connect).unwrap();
    append(&journal, vec![admitted(1), ended(1, End::Cancelled)]).unwrap();
    let asked = Instant::now();
    // Longer than the lease.
    while asked.elapsed() < Duration::from_secs(8) {
        assert_eq!(ends(&journal, Query::Event(EventId::for_test(1))).len(), 1);
    }
    append(&journal, vec![admitted(2)]).expect("it is still its own");
}

/// Of two that stand by one has its turn, and the other one goes on standing by.
#[test]
fn of_two_that_stand_by_one_has_its_turn() {
    let Some(servers) = Servers::start(1) else { return };
    let journal = connect(&servers.url(), "two");
    append(&journal, vec![admitted(1)]).unwrap();
    let (opened, is_open) = mpsc::channel();
    let both: Vec<_> = (0..2)
        .map(|n| {
            let (waits, url, opened) =
                (Arc::new(AtomicBool::new(false)), servers.url(), opened.clone());
            let stands_by = waits.clone();
            let thread = std::thread::spawn(move || {
                let connect = Nats::connect(url).name("two").standby();
                let journal = run(Nats::open(connect, waits));
                opened.send((n, journal.expect("it has its turn"))).expect("the test waits");
            });
            while !stands_by.load(Ordering::Relaxed) {
                std::thread::yield_now();
            }
            thread
        })
        .collect();
    drop(journal);
    let (first, has_it) = is_open.recv().expect("one has it");
    for n in 0..200 {
        append(&has_it, vec![admitted(10 + n)]).expect("it is its own");
    }
    assert!(is_open.try_recv().is_err(), "the other one waits");
    drop(has_it);
    let (second, has_it) = is_open.recv().expect("the other one has it");
    assert_ne!(first, second);
    assert_eq!(has_it.load().unwrap().events.len(), 201);
    both.into_iter().for_each(|thread| thread.join().expect("it ends"));
}

/// Where others stand by, a journal that can't be reached is given up before one of them takes it.
#[test]
fn who_has_stood_by_gives_it_up_where_nats_is_away() {
    let Some(mut servers) = Servers::start(1) else { return };
    let connect = || async { Nats::connect(servers.url()).name("lease").standby().await };
    let journal = block_on(connect()).unwrap();
    append(&journal, vec![admitted(1)]).unwrap();
    let mut taken_over = journal.taken_over().expect("it can be");
    servers.kill(0);
    let trouble = block_on(taken_over.wait_for(Option::is_some)).expect("it is there").clone();
    assert!(matches!(trouble, Some(JournalError::LeaseLost { .. })), "{trouble:?}");
    servers.start_one(0);
    let refused = append(&journal, vec![admitted(2)]).expect_err("it is given up");
    assert!(refused.to_string().contains("restart this service"), "{refused}");
}

/// What has been given up doesn't keep the next one away.
#[test]
fn who_was_taken_over_from_says_no_more_that_it_has_it() {
    let Some(servers) = Servers::start(1) else { return };
    let first = connect(&servers.url(), "resigned");
    let second = block_on(Nats::test_take_over(servers.url(), "resigned")).unwrap();
    assert!(matches!(append(&first, vec![admitted(1)]), Err(JournalError::TakenOver { .. })));
    drop(second);
    let third = connect(&servers.url(), "resigned");
    append(&third, vec![admitted(2)]).unwrap();
    drop(first);
}

/// Many long values are read again, though a server gives up those that don't keep up.
#[test]
fn many_long_values_are_read_again() {
    let Some(servers) = Servers::start(1) else { return };
    let journal = connect(&servers.url(), "many");
    let text = "x".repeat(900_000);
    for n in 0..150 {
        append(&journal, vec![admitted_with(n, &text)]).unwrap();
    }
    drop(journal);
    assert_eq!(connect(&servers.url(), "many").load().unwrap().events.len(), 150);
}

/// What somebody else has written into the stream is passed over.
#[test]
fn a_stray_message_is_passed_over() {
    let Some(servers) = Servers::start(1) else { return };
    let journal = connect(&servers.url(), "stray");
    append(&journal, vec![admitted(1)]).unwrap();
    run(async {
        let client = async_nats::connect(servers.url()).await.expect("it connects");
        let sent = client.request("now-serving.stray.journal", "hello".into()).await;
        sent.expect("it is kept");
    });
    append(&journal, vec![admitted(2)]).unwrap();
    drop(journal);
    assert_eq!(connect(&servers.url(), "stray").load().unwrap().events.len(), 2);
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
    let asked = run(async {
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

/// Runs openssl, which makes the keys and certificates of a test.
fn openssl(directory: &std::path::Path, arguments: &str) {
    let made = std::process::Command::new("openssl")
        .current_dir(directory)
        .args(arguments.split(' '))
        .output()
        .expect("openssl is there");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// An authority, and a server and a client that it vouches for.
fn certificates(directory: &std::path::Path) {
    let authority = "-x509 -days 2 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1";
    openssl(directory, &format!("req {authority} -keyout ca.key -out ca.pem -subj /CN=ours"));
    openssl(directory, &format!("req {authority} -keyout x.key -out other.pem -subj /CN=theirs"));
    std::fs::write(directory.join("names"), "subjectAltName=IP:127.0.0.1").expect("there is room");
    let new = "-nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1";
    for name in ["server", "client"] {
        openssl(
            directory,
            &format!("req {new} -keyout {name}.key -out {name}.csr -subj /CN={name}"),
        );
        let signed = "x509 -req -days 2 -CA ca.pem -CAkey ca.key -CAcreateserial -extfile names";
        openssl(directory, &format!("{signed} -in {name}.csr -out {name}.pem"));
    }
}

/// The connection is encrypted, each side is checked by its certificate, and users by their passwords.
#[test]
fn it_connects_by_tls_and_is_let_in_or_not() {
    let keys = tempfile::tempdir().expect("there is room");
    let path = |name: &str| keys.path().join(name);
    let config = format!(
        "tls: {{cert_file: {:?}, key_file: {:?}, ca_file: {:?}, verify: true}}\n\
         authorization: {{users: [{{user: ada, password: \"s/cret\"}}]}}\n",
        path("server.pem"),
        path("server.key"),
        path("ca.pem"),
    );
    if super::nats_server::program().is_none() {
        return;
    }
    certificates(keys.path());
    let Some(servers) = Servers::start_with(1, &config) else { return };
    let address = servers.url().replace("nats://", "");
    let url = format!("tls://ada:s%2Fcret@{address}");
    let with_client =
        |url: &str| Nats::connect(url).client_certificate(path("client.pem"), path("client.key"));
    let journal =
        block_on(async { with_client(&url).root_certificates(path("ca.pem")).await }).unwrap();
    append(&journal, vec![admitted(1)]).unwrap();
    drop(journal);
    let named = with_client(&format!("tls://{address}")).user_and_password("ada", "s/cret");
    let named = block_on(async { named.root_certificates(path("ca.pem")).await });
    assert_eq!(named.unwrap().load().unwrap().events.len(), 1);
    let refused = [
        with_client(&url).root_certificates(path("other.pem")),
        with_client(&url),
        Nats::connect(&url).root_certificates(path("ca.pem")),
        with_client(&format!("tls://ada:wrong@{address}")).root_certificates(path("ca.pem")),
        with_client(&format!("tls://{address}")).root_certificates(path("ca.pem")),
    ];
    for connect in refused {
        let refused = block_on(async { connect.await });
        assert!(matches!(refused, Err(JournalError::Unreachable(_))), "{refused:?}");
    }
}

/// A file of credentials that isn't there is named.
#[test]
fn credentials_that_are_missing_are_named() {
    let Some(servers) = Servers::start(1) else { return };
    let connect = Nats::connect(servers.url()).credentials_file("/nowhere/nats.creds");
    let refused = block_on(async { connect.await }).unwrap_err();
    assert!(refused.to_string().contains("/nowhere/nats.creds"), "{refused}");
}

/// A stream that is full refuses, loses nothing, and takes records again once it may.
#[test]
fn a_full_stream_is_said_to_be_full() {
    let Some(servers) = Servers::start(1) else { return };
    let journal = connect(&servers.url(), "full");
    append(&journal, vec![admitted(1)]).unwrap();
    let limit = |bytes: i64| {
        run(async {
            let client = async_nats::connect(servers.url()).await.expect("it connects");
            let context = async_nats::jetstream::new(client);
            let stream = context.get_stream("now-serving_full_journal").await.expect("it is there");
            let config = stream.cached_info().config.clone();
            let limited = async_nats::jetstream::stream::Config { max_bytes: bytes, ..config };
            context.update_stream(limited).await.expect("it can be changed");
        });
    };
    limit(4000);
    let mut kept = vec![1];
    let refused = loop {
        let n = kept.len() as u128 + 1;
        match append(&journal, vec![admitted(n)]) {
            Ok(()) => kept.push(n as u64),
            Err(refused) => break refused,
        }
    };
    assert_eq!(refused, JournalError::Full);
    // What takes several messages is refused as well.
    let text = "x".repeat(3_000_000);
    assert_eq!(append(&journal, vec![admitted_with(1000, &text)]), Err(JournalError::Full));
    limit(-1);
    append(&journal, vec![admitted(2000)]).unwrap();
    kept.push(2000);
    drop(journal);
    let there = connect(&servers.url(), "full").load().unwrap();
    assert_eq!(there.events.iter().map(|live| live.admitted.at).collect::<Vec<_>>(), kept);
}

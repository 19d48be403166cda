//! kill -9 at random moments, 300 times, under load, and 30 times with the journal on NATS where there is a
//! server for it: of every event that was accepted there is exactly one
//! end; what must not run twice doesn't; each further start is explained by a death during the one before.
//!
//! The test starts itself once more as the process that is killed. That one says on its standard output
//! what its clients and handlers see; what the pipe has is known, whatever becomes of the process.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use now_serving::{
    AnyJournal, EventContext, EventId, Listener, OnCrash, Outcome, Queue, Sqlite, Submission,
    Update,
};
use rand::RngExt;

#[cfg(feature = "cluster")]
#[allow(dead_code, reason = "others need more of it")]
#[path = "common/nats_server.rs"]
mod nats_server;
#[path = "common/say.rs"]
mod say;

use say::say;

/// How often the process is killed; `KILLS` in the environment says otherwise.
const KILLS: u32 = 300;

/// How often it is with the journal on NATS.
#[cfg(feature = "cluster")]
const KILLS_ON_NATS: u32 = 30;

/// The process that is killed finds the file of its journal under this name, or the URL of the server.
const JOURNAL: &str = "KILL_TEST_JOURNAL";

/// And the ids that were accepted by earlier ones, when it is to tell their ends.
const ASK: &str = "KILL_TEST_ASK";

fn main() {
    match std::env::var(JOURNAL) {
        Ok(at) => actix::System::new().block_on(serve(&at)),
        Err(_) => test_all(),
    }
}

async fn work(name: u64, context: EventContext) -> Result<u64, String> {
    let (event, attempt) = (context.event_id(), context.attempt());
    say(&format!("started {event} {attempt}"));
    let micros = name % 7 * 300;
    tokio::time::sleep(Duration::from_micros(micros)).await;
    if name.is_multiple_of(11) { Err("it can't be done".into()) } else { Ok(name) }
}

async fn follow(id: EventId, updates: Submission) {
    use futures::StreamExt;
    let mut updates = std::pin::pin!(updates);
    while let Some(update) = updates.next().await {
        if let Update::ProcessCompleted { outcome, .. } = update {
            let outcome = match outcome {
                Outcome::Completed(output) => {
                    format!(
                        "completed {:?}",
                        output.and_then(|output| output.downcast::<u64>().ok())
                    )
                }
                outcome => outcome.to_string(),
            };
            say(&format!("ended {id} {outcome}"));
        }
    }
}

#[cfg(feature = "cluster")]
async fn on_nats(url: &str) -> AnyJournal {
    now_serving::Nats::connect(url).await.expect("it connects").into()
}

#[cfg(not(feature = "cluster"))]
async fn on_nats(url: &str) -> AnyJournal {
    panic!("{url} needs the feature cluster")
}

async fn serve(at: &str) {
    let journal = if at.starts_with("nats://") {
        on_nats(at).await
    } else {
        Sqlite::open(at).expect("the journal opens").into()
    };
    let queue = Queue::builder()
        .journal(journal)
        .listener(Listener::new("again", work).durable().concurrency_limit(4).max_attempts(1000))
        .listener(
            Listener::new("once", work).durable().concurrency_limit(4).on_crash(OnCrash::Fail),
        )
        .start()
        .expect("nothing contradicts itself");
    if let Ok(ids) = std::env::var(ASK) {
        for id in ids.split_whitespace() {
            let id: EventId = id.parse().expect("it is one");
            match queue.follow(id).await {
                Ok(updates) => follow(id, updates).await,
                Err(error) => say(&format!("lost {id} {error}")),
            }
        }
        // Those of which nobody has heard.
        while queue.snapshot().await.concurrency_ids.iter().any(|id| id.waiting + id.running > 0) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        queue.shutdown(Duration::from_secs(10)).await;
        return say("done");
    }
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let clients = (0..16).map(|client| {
        let queue = queue.clone();
        async move {
            let listener = if client % 2 == 0 { "again" } else { "once" };
            loop {
                let name = NEXT.fetch_add(1, Ordering::Relaxed);
                let updates = queue.submit(listener, name).await.expect("it is accepted");
                let id = updates.id();
                say(&format!("accepted {id} {listener}"));
                follow(id, updates).await;
            }
        }
    });
    futures::future::join_all(clients).await;
}

/// What is known of an event.
#[derive(Default)]
struct Event {
    listener: Option<String>,
    /// In which process, by its number.
    starts: Vec<u32>,
    ends: Vec<(u32, String)>,
}

fn run(at: &str, ask: Option<&str>, lifetime: Option<Duration>) -> Vec<String> {
    let mut command = Command::new(std::env::current_exe().expect("it runs"));
    command.env(JOURNAL, at).stdout(Stdio::piped());
    if let Some(ids) = ask {
        command.env(ASK, ids);
    }
    let mut child = command.spawn().expect("it starts");
    let out = child.stdout.take().expect("it is piped");
    let (lines, read) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
            let _ = lines.send(String::from_utf8_lossy(&line).into_owned());
        }
    });
    let mut seen = Vec::new();
    if let Some(lifetime) = lifetime {
        // Not before it does something.
        seen.extend(read.recv());
        // The moment of a death is what is drawn by lot here, not something that is waited for.
        std::thread::sleep(lifetime);
        child.kill().expect("it runs");
    }
    seen.extend(read);
    reader.join().expect("it reads to the end");
    child.wait().expect("it has ended");
    seen
}

/// All events that anything was said of.
#[derive(Default)]
struct Books(BTreeMap<String, Event>);

impl Books {
    /// Notes what a process has said. Whether it has done its work.
    fn note(&mut self, process: u32, lines: Vec<String>) -> bool {
        let mut done = false;
        for line in lines {
            done |= line == "done";
            let mut words = line.splitn(3, ' ');
            let (Some(what), Some(id)) = (words.next(), words.next()) else { continue };
            // Cut off by the death: it says less than it would have.
            if id.len() < 32 {
                continue;
            }
            let rest = words.next().unwrap_or_default().to_string();
            let event = self.0.entry(id.to_string()).or_default();
            match what {
                "accepted" if ["again", "once"].contains(&&*rest) => event.listener = Some(rest),
                "started" => event.starts.push(process),
                "ended" => event.ends.push((process, rest)),
                "lost" => panic!("event {id} was accepted, and now: {rest}"),
                _ => {}
            }
        }
        done
    }
}

fn test_all() {
    let kills = std::env::var("KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let directory = tempfile::tempdir().expect("there is room");
    let path = directory.path().join("events.db");
    test(path.to_str().expect("it is text"), kills, Duration::from_millis(60));
    #[cfg(feature = "cluster")]
    if let Some(servers) = nats_server::Servers::start(1) {
        // It takes longer until there is something to be lost.
        test(&servers.url(), KILLS_ON_NATS, Duration::from_millis(300));
    }
}

/// The journal is `at` a path or a URL.
fn test(at: &str, kills: u32, longest: Duration) {
    let mut books = Books::default();
    for process in 0..kills {
        let lifetime = rand::rng().random_range(Duration::ZERO..longest);
        books.note(process, run(at, None, Some(lifetime)));
    }
    let accepted = books.0.iter().filter(|(_, event)| event.listener.is_some());
    let accepted: BTreeSet<String> = accepted.map(|(id, _)| id.clone()).collect();
    let told = books.0.iter().filter_map(|(id, event)| Some((id, event.ends.first()?)));
    let told: BTreeMap<String, String> =
        told.map(|(id, (_, end))| (id.clone(), end.clone())).collect();
    // Some at a time: an argument has its bounds.
    let ids: Vec<String> = accepted.iter().cloned().collect();
    for (process, ids) in (kills..).zip(ids.chunks(2000)) {
        let lines = run(at, Some(&ids.join(" ")), None);
        assert!(books.note(process, lines), "the last process has done its work");
    }
    let mut restarted = 0;
    for (id, event) in &books.0 {
        let once = event.listener.as_deref() == Some("once");
        if once {
            assert!(event.starts.len() <= 1, "{id} must not run twice: {:?}", event.starts);
        }
        restarted += usize::from(event.starts.len() > 1);
        for pair in event.starts.windows(2) {
            assert!(pair[0] < pair[1], "{id} started twice in one process: {:?}", event.starts);
            let ended = event.ends.iter().any(|(process, _)| *process <= pair[0]);
            assert!(!ended, "{id} started again after its end");
        }
        if accepted.contains(id) {
            let last = &event.ends.last().unwrap_or_else(|| panic!("{id} has no end")).1;
            if let Some(before) = told.get(id) {
                // Its last word may have been cut off.
                assert!(last.starts_with(before.as_str()), "{id}: {before}, and then {last}");
            }
        }
    }
    assert!(accepted.len() > kills as usize, "there was a load");
    println!(
        "{kills} kills at {at}: {} events accepted, each with one end; {restarted} started again",
        accepted.len()
    );
}

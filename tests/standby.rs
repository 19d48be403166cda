//! Two processes with one journal on NATS, of which one stands by: the one that has it is killed or frozen under
//! load. Of every event that was accepted there is one end, and never more of them run at once than the limit,
//! in both processes together. A process that was frozen doesn't count until it has noticed that it has lost the
//! journal; then it has stopped everything.
//!
//! The test starts itself once more as each of the two. They say on their standard output what their clients
//! and handlers see. It needs a NATS server: see `common/nats_server.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use now_serving::{EventContext, EventId, Listener, Nats, Queue, Submission, Update};

#[allow(dead_code, reason = "others need more of it")]
#[path = "common/nats_server.rs"]
mod nats_server;
#[path = "common/say.rs"]
mod say;

use say::say;

/// A process finds the server under this name.
const SERVER: &str = "STANDBY_TEST_SERVER";

/// And the events that it is to tell the ends of.
const ASK: &str = "STANDBY_TEST_ASK";

const LIMIT: usize = 2;

fn main() {
    match std::env::var(SERVER) {
        Ok(url) => actix::System::new().block_on(serve(&url)),
        Err(_) => test(),
    }
}

/// Says when a handler has returned, or was interrupted.
struct Running(String);

impl Drop for Running {
    fn drop(&mut self) {
        say(&format!("stopped {}", self.0));
    }
}

async fn work(name: u64, context: EventContext) -> Result<u64, String> {
    let run = format!("{} {}", context.event_id(), context.attempt());
    say(&format!("started {run}"));
    let _running = Running(run);
    tokio::time::sleep(Duration::from_millis(50 + name % 5 * 100)).await;
    Ok(name)
}

async fn follow(id: EventId, mut updates: Submission) {
    while let Some(update) = updates.next().await {
        if let Update::ProcessCompleted { outcome, .. } = update {
            say(&format!("ended {id} {outcome}"));
        }
    }
}

async fn serve(url: &str) {
    let journal = Nats::connect(url).name("standby").standby().await.expect("it has its turn");
    say("serves");
    let lost = journal.lost();
    let queue = Queue::builder()
        .journal(journal)
        .listener(Listener::new("work", work).durable().concurrency_limit(LIMIT).max_attempts(1000))
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
        queue.shutdown(Duration::from_secs(10)).await;
        return say("done");
    }
    let clients = (0..6u64).map(|client| {
        let queue = queue.clone();
        async move {
            for name in client.. {
                // It may be refused: then nothing was promised.
                let Ok(updates) = queue.submit("work", name).await else { return };
                let id = updates.id();
                say(&format!("accepted {id}"));
                follow(id, updates).await;
            }
        }
    });
    let clients = futures::future::join_all(clients);
    let why = futures::future::join(lost, clients).await.0;
    say(&format!("gives up: {why}"));
}

struct Process {
    child: Child,
    number: usize,
}

impl Process {
    fn start(number: usize, url: &str, ask: Option<&str>, lines: &mpsc::Sender<Line>) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("it runs"));
        command.env(SERVER, url).stdout(Stdio::piped());
        if let Some(ids) = ask {
            command.env(ASK, ids);
        }
        let mut child = command.spawn().expect("it starts");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        let lines = lines.clone();
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                let _ = lines.send((number, line));
            }
            let _ = lines.send((number, "gone".into()));
        });
        Process { child, number }
    }

    fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.expect("kill is there").success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process has said.
type Line = (usize, String);

/// What is known of the processes and the events.
#[derive(Default)]
struct Books {
    accepted: BTreeSet<String>,
    ends: BTreeMap<String, BTreeSet<String>>,
    /// By process.
    running: BTreeMap<usize, BTreeSet<String>>,
    /// And those that have not noticed yet that they were.
    frozen: BTreeSet<usize>,
    starts: usize,
}

impl Books {
    fn note(&mut self, (process, line): &Line) {
        let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
        let running = self.running.entry(*process).or_default();
        match what {
            "accepted" => drop(self.accepted.insert(rest.to_string())),
            "started" => {
                self.starts += 1;
                running.insert(rest.to_string());
            }
            "stopped" => drop(running.remove(rest)),
            "gone" => running.clear(),
            "ended" => {
                let (id, outcome) = rest.split_once(' ').expect("it has both");
                // What stopped here goes on there: to its client here it has no end yet.
                if outcome != "stopped" {
                    self.ends.entry(id.to_string()).or_default().insert(outcome.to_string());
                }
            }
            "lost" => panic!("process {process}: {line}"),
            _ => {}
        }
        self.check();
    }

    fn check(&self) {
        let counted = self.running.iter().filter(|(process, _)| !self.frozen.contains(process));
        let counted =
            counted.flat_map(|(process, runs)| runs.iter().map(move |run| (process, run)));
        let counted: Vec<_> = counted.collect();
        assert!(counted.len() <= LIMIT, "these run at once: {counted:?}");
    }
}

/// Notes what is said until `is_it` fits, a process and what it says.
fn until(lines: &mpsc::Receiver<Line>, books: &mut Books, is_it: impl Fn(&Line) -> bool) -> Line {
    loop {
        let line = lines.recv_timeout(Duration::from_secs(60)).expect("something happens");
        if std::env::var_os("STANDBY_TEST_TRACE").is_some() {
            eprintln!("{line:?}");
        }
        books.note(&line);
        if is_it(&line) {
            return line;
        }
    }
}

fn test() {
    let Some(servers) = nats_server::Servers::start(1) else { return };
    let (sender, lines) = mpsc::channel();
    let mut books = Books::default();
    let mut next = 0;
    let mut start = || {
        next += 1;
        Process::start(next, &servers.url(), None, &sender)
    };
    let mut first = start();
    until(&lines, &mut books, |(_, line)| line == "serves");
    for round in 0..4 {
        let second = start();
        // It works for a while.
        let enough = books.starts + 20;
        while books.starts < enough {
            until(&lines, &mut books, |(_, line)| line.starts_with("started"));
        }
        if round % 2 == 0 {
            first.child.kill().expect("it runs");
            let killed = first.number;
            until(&lines, &mut books, |(process, line)| *process == killed && line == "gone");
            until(&lines, &mut books, |(_, line)| line == "serves");
        } else {
            books.frozen.insert(first.number);
            first.signal("-STOP");
            until(&lines, &mut books, |(_, line)| line == "serves");
            let enough = books.starts + 10;
            while books.starts < enough {
                until(&lines, &mut books, |(_, line)| line.starts_with("started"));
            }
            first.signal("-CONT");
            let (woken, waking) = (first.number, Instant::now());
            let gone = until(&lines, &mut books, |(process, line)| {
                *process == woken && line.starts_with("gives up")
            });
            assert!(gone.1.contains("restart this service"), "{gone:?}");
            println!("it has stopped all {} ms after it woke", waking.elapsed().as_millis());
            books.frozen.remove(&woken);
            books.check();
        }
        first = second;
    }
    first.child.kill().expect("it runs");
    let killed = first.number;
    until(&lines, &mut books, |(process, line)| *process == killed && line == "gone");
    let ids: Vec<String> = books.accepted.iter().cloned().collect();
    next += 1;
    let _last = Process::start(next, &servers.url(), Some(&ids.join(" ")), &sender);
    until(&lines, &mut books, |(_, line)| line == "done");
    for id in &books.accepted {
        let ends = books.ends.get(id).unwrap_or_else(|| panic!("{id} has no end"));
        assert_eq!(ends.len(), 1, "{id} has one end: {ends:?}");
    }
    println!(
        "{} events accepted, each with one end; {} starts",
        books.accepted.len(),
        books.starts
    );
}

//! What recording costs: events from submit to end, with a journal and without, beside a bare loop of the
//! same commits and a bare fsync on the same disk. Prints one line of JSON a measurement; `run` makes a
//! table of them, with what one would take otherwise.
//!
//! ```sh
//! cargo bench --features journal --bench journal -- DIRECTORY
//! ```

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use now_serving::{Listener, ListenerHandle, Queue, Sqlite};
use rusqlite::Connection;

/// How long each is measured.
const TIME: Duration = Duration::from_secs(3);

const IN_FLIGHT: [usize; 3] = [1, 64, 1024];

fn say(who: &str, in_flight: usize, what: &str, value: f64) {
    println!(r#"{{"who": "{who}", "in_flight": {in_flight}, "{what}": {value}}}"#);
}

/// As many callers, each with one call after the other, until the time is up. Gives events a second.
async fn calls(handle: &ListenerHandle<String, String>, in_flight: usize, time: Duration) -> f64 {
    let begun = Instant::now();
    let callers = (0..in_flight).map(|_| {
        let handle = handle.clone();
        actix::spawn(async move {
            let mut events = 0u64;
            while begun.elapsed() < time {
                handle.call("a scene at dawn".into()).await.expect("it is rendered");
                events += 1;
            }
            events
        })
    });
    let events = futures::future::join_all(callers).await;
    let events: u64 = events.into_iter().map(|events| events.expect("no caller panics")).sum();
    events as f64 / begun.elapsed().as_secs_f64()
}

fn queue(journal: Option<&Path>) -> Queue {
    let render = async |scene: String| Ok::<_, String>(scene);
    let render = Listener::new("render", render).concurrency_limit(None);
    let builder = Queue::builder();
    let builder = match journal {
        Some(path) => {
            let journal = Sqlite::open(path).expect("the journal opens");
            builder.journal(journal).listener(render.durable())
        }
        None => builder.listener(render),
    };
    builder.start().expect("nothing contradicts itself")
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort();
    times[times.len() / 2].as_secs_f64() * 1e6
}

/// One write of a page and one fsync, again and again. Gives microseconds.
fn fsync(directory: &Path) -> f64 {
    let mut file = std::fs::File::create(directory.join("fsync")).expect("there is room");
    let times = (0..500).map(|_| {
        file.write_all(&[7; 4096]).expect("there is room");
        let begun = Instant::now();
        file.sync_data().expect("the disk is well");
        begun.elapsed()
    });
    median(times.collect())
}

/// Commits that write what the journal writes for as many events: an insert, an update, a move. Gives
/// events a second.
fn bare_commits(directory: &Path, events: usize) -> f64 {
    let path = directory.join(format!("bare-{events}.db"));
    let mut connection = Connection::open(path).expect("there is room");
    connection
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
             CREATE TABLE events (n INTEGER PRIMARY KEY, id TEXT UNIQUE, input TEXT, attempt INTEGER);
             CREATE TABLE ends (id TEXT PRIMARY KEY, at INTEGER, output TEXT);
             CREATE INDEX ends_by_time ON ends (at);",
        )
        .expect("the disk is well");
    let (begun, mut done) = (Instant::now(), 0u64);
    while begun.elapsed() < TIME {
        // Accepted in one commit, ended in the next, as one who waits for his answer sees it.
        let ids: Vec<String> =
            (0..events).map(|_| format!("{:032x}", rand::random::<u128>())).collect();
        let transaction = connection.transaction().expect("the disk is well");
        for id in &ids {
            let insert = "INSERT INTO events (id, input, attempt) VALUES (?1, ?2, 0)";
            let mut insert = transaction.prepare_cached(insert).expect("it is SQL");
            insert.execute([id, "\"a scene at dawn\""]).expect("there is room");
        }
        transaction.commit().expect("the disk is well");
        let transaction = connection.transaction().expect("the disk is well");
        for id in &ids {
            for sql in [
                "UPDATE events SET attempt = 1 WHERE id = ?1",
                "INSERT INTO ends SELECT id, 0, input FROM events WHERE id = ?1",
                "DELETE FROM events WHERE id = ?1",
            ] {
                transaction
                    .prepare_cached(sql)
                    .expect("it is SQL")
                    .execute([id])
                    .expect("there is room");
            }
        }
        transaction.commit().expect("the disk is well");
        done += events as u64;
    }
    done as f64 / begun.elapsed().as_secs_f64()
}

/// From `submit` to its return, alone. Gives microseconds.
async fn admissions(queue: &Queue) -> f64 {
    let mut times = Vec::new();
    for _ in 0..500 {
        let begun = Instant::now();
        let submission = queue.submit("render", "a scene at dawn".to_string()).await;
        times.push(begun.elapsed());
        submission.expect("it is accepted").result::<String>().await.expect("it is rendered");
    }
    median(times)
}

/// How long a start takes that finds as many events waiting. Gives seconds.
async fn recovery(path: &Path, events: usize) -> f64 {
    let first = queue(Some(path));
    first.pause("render").await.expect("it runs");
    let handle = first.listener::<String, String>("render").expect("it is declared");
    let submitted = (0..events).map(|_| handle.submit("a scene at dawn".into()));
    for submission in futures::future::join_all(submitted).await {
        submission.expect("it is accepted").detach();
    }
    drop((handle, first));
    let journal = loop {
        // The first is just going.
        if let Ok(journal) = Sqlite::open(path) {
            break journal;
        }
    };
    drop(journal);
    let begun = Instant::now();
    let second = queue(Some(path));
    assert_eq!(second.snapshot().await.concurrency_ids[0].waiting, events);
    begun.elapsed().as_secs_f64()
}

fn main() {
    let directory = std::env::args().skip(1).find(|argument| !argument.starts_with('-'));
    let directory = directory.map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(directory).expect("there is room");
    let directory = directory.path();
    actix::System::new().block_on(async {
        say("fsync", 1, "microseconds", fsync(directory));
        for in_flight in IN_FLIGHT {
            let path = directory.join(format!("{in_flight}.db"));
            for (who, journal) in [("no journal", None), ("now-serving", Some(&*path))] {
                let queue = queue(journal);
                let handle = queue.listener("render").expect("it is declared");
                calls(&handle, in_flight, TIME / 10).await;
                say(who, in_flight, "events_per_second", calls(&handle, in_flight, TIME).await);
            }
            say("bare commits", in_flight, "events_per_second", bare_commits(directory, in_flight));
        }
        let queue = queue(Some(&directory.join("lone.db")));
        say("lone admission", 1, "microseconds", admissions(&queue).await);
        drop(queue);
        let seconds = recovery(&directory.join("recovery.db"), 100_000).await;
        say("start with 100,000 waiting events", 1, "seconds", seconds);
    });
}

//! Durable jobs in an SQLite file by apalis, measured as `../ours.rs` measures events: as many callers, each
//! with one job after the other, from its push to the moment when it has been done.
//!
//! A caller is told by the handler itself, before the job is marked as done, since asking the file for that is
//! slower. `synchronous=FULL`, without which a commit doesn't wait for the disk, and 4 connections, which did best
//! of 1, 2, 4 and 8, are set in any case. Measured three ways: otherwise as apalis sets it up; tuned, with a large
//! cache, as many jobs at once as are in flight, and an ANALYZE after a tenth of the time; and tuned with a task that
//! gathers what callers push, in one transaction and on one connection, which apalis offers by `push_all` to who
//! writes that task.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};
use std::time::{Duration, Instant};

use apalis::prelude::*;
use apalis_sqlite::{Config, SqliteConnectOptions, SqlitePoolOptions, SqliteStorage};
use futures::stream;
use sqlx::sqlite::SqliteSynchronous;
use tokio::sync::{mpsc, oneshot};
use ulid::Ulid;

/// How long each is measured.
const TIME: Duration = Duration::from_secs(3);

const IN_FLIGHT: [usize; 3] = [1, 64, 1024];

#[derive(Clone, Copy, PartialEq)]
enum Way {
    AsSetUp,
    Tuned,
    Gathered,
}

type Waiting = Arc<Mutex<HashMap<TaskId, oneshot::Sender<()>>>>;

async fn render(scene: String, id: TaskId, waiting: Data<Waiting>) -> Result<String, BoxDynError> {
    let caller = waiting.lock().expect("nobody panics").remove(&id);
    if let Some(caller) = caller {
        let _ = caller.send(());
    }
    Ok(scene)
}

/// Gives jobs a second.
async fn measure(path: &Path, in_flight: usize, way: Way) -> f64 {
    let (tuned, gathers) = (way != Way::AsSetUp, way == Way::Gathered);
    let url = format!("sqlite://{}", path.display());
    let options =
        SqliteConnectOptions::from_str(&url).expect("it is a path").create_if_missing(true);
    let setup = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await;
    let setup = setup.expect("the disk is well");
    SqliteStorage::setup(&setup).await.expect("the disk is well");
    setup.close().await;
    let mut options = options.synchronous(SqliteSynchronous::Full);
    if tuned {
        options = options.pragma("cache_size", "64000").pragma("temp_store", "MEMORY");
    }
    let connections = if gathers { 1 } else { 4 };
    let pool = SqlitePoolOptions::new().max_connections(connections).connect_with(options).await;
    let pool = pool.expect("the disk is well");
    let mut config = Config::default().queue("render");
    if tuned {
        config = config.batch_size(in_flight);
    }
    let storage: SqliteStorage<String> = SqliteStorage::new(&pool).with_config(config);

    let (submit, mut submitted) = mpsc::unbounded_channel::<Task<String>>();
    let (pushed, mut news) = mpsc::unbounded_channel::<()>();
    let gathering = gathers.then(|| {
        let (mut storage, pushed) = (storage.clone(), pushed.clone());
        tokio::spawn(async move {
            let mut jobs = Vec::new();
            while submitted.recv_many(&mut jobs, usize::MAX).await > 0 {
                storage.push_all(stream::iter(jobs.drain(..))).await.expect("there is room");
                let _ = pushed.send(());
            }
        })
    });
    // The worker looks at once, and doesn't wait for its next poll.
    let looks = stream::poll_fn(move |cx| {
        let pushed = ready!(news.poll_recv(cx));
        while news.try_recv().is_ok() {}
        // It may have been polled for something else.
        cx.waker().wake_by_ref();
        Poll::Ready(pushed)
    });
    let waiting = Waiting::default();
    let worker = WorkerBuilder::new("worker")
        .backend(storage.clone().poll_with_stream(looks))
        .data(waiting.clone())
        .build(render);
    let worker = tokio::spawn(async move { worker.run().await.expect("it runs") });

    let mut rate = 0.0;
    for time in [TIME / 10, TIME] {
        let begun = Instant::now();
        let callers: Vec<_> = (0..in_flight)
            .map(|_| {
                let (submit, waiting, pushed) = (submit.clone(), waiting.clone(), pushed.clone());
                let mut storage = storage.clone();
                tokio::spawn(async move {
                    let mut jobs = 0u64;
                    while begun.elapsed() < time {
                        let id = TaskId::from_ulid(Ulid::generate());
                        let (done, is_done) = oneshot::channel();
                        waiting.lock().expect("nobody panics").insert(id.clone(), done);
                        let job =
                            TaskBuilder::new("a scene at dawn".to_string()).task_id(id).build();
                        if gathers {
                            submit.send(job).expect("it is read");
                        } else {
                            storage.push_all(stream::iter([job])).await.expect("there is room");
                            let _ = pushed.send(());
                        }
                        is_done.await.expect("it is done");
                        jobs += 1;
                    }
                    jobs
                })
            })
            .collect();
        let mut jobs = 0;
        for caller in callers {
            jobs += caller.await.expect("no caller panics");
        }
        rate = jobs as f64 / begun.elapsed().as_secs_f64();
        if tuned {
            sqlx::query("ANALYZE").execute(&pool).await.expect("the disk is well");
        }
    }
    worker.abort();
    if let Some(gathering) = gathering {
        gathering.abort();
    }
    pool.close().await;
    rate
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let directory = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    let directory = tempfile::tempdir_in(directory).expect("there is room");
    for in_flight in IN_FLIGHT {
        for (who, way) in [
            ("apalis", Way::AsSetUp),
            ("apalis, tuned", Way::Tuned),
            ("apalis, tuned, pushed together", Way::Gathered),
        ] {
            let path = directory.path().join(format!("{in_flight}-{}.db", way as u8));
            let rate = measure(&path, in_flight, way).await;
            println!(
                r#"{{"who": "{who}", "in_flight": {in_flight}, "events_per_second": {rate}}}"#
            );
        }
    }
}

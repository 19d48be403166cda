//! One process of several that measure together: a node of a cluster, or a worker of a work queue of JetStream's. It
//! submits events, some at a time, that all of the processes run. `run` starts them, and says when to begin.
//!
//! ```text
//! cluster OURS|JETSTREAM --nats URLS --node NAME --in-flight N --limit N --seconds N
//! ```

#[path = "../nats/work_queue.rs"]
mod work_queue;

use std::cell::RefCell;
use std::io::BufRead;
use std::rc::Rc;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use bytes::Bytes;
use now_serving::{JournalError, Listener, Nats, Queue, QueueBuilder};
use serde_json::json;
use work_queue::WorkQueue;

/// Of how many events the times are kept.
const KEPT: usize = 20_000;

struct Options {
    ours: bool,
    nats: String,
    name: String,
    node: String,
    /// Events of this process' own.
    in_flight: usize,
    /// Of all processes together.
    limit: usize,
    seconds: f64,
}

impl Options {
    fn from_args() -> Result<Option<Self>, lexopt::Error> {
        use lexopt::prelude::*;
        let mut options = Options {
            ours: true,
            nats: String::new(),
            name: "bench".into(),
            node: "a".into(),
            in_flight: 1,
            limit: 1,
            seconds: 4.0,
        };
        let mut args = lexopt::Parser::from_env();
        while let Some(arg) = args.next()? {
            match arg {
                Value(who) => options.ours = who == "OURS",
                Long("nats") => options.nats = args.value()?.string()?,
                Long("name") => options.name = args.value()?.string()?,
                Long("node") => options.node = args.value()?.string()?,
                Long("in-flight") => options.in_flight = args.value()?.parse()?,
                Long("limit") => options.limit = args.value()?.parse()?,
                Long("seconds") => options.seconds = args.value()?.parse()?,
                // As `cargo bench` calls it.
                Long("bench") => return Ok(None),
                _ => return Err(arg.unexpected()),
            }
        }
        Ok((!options.nats.is_empty()).then_some(options))
    }
}

/// Nanoseconds of the clock that all processes of the machine share.
fn monotonic() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// What is measured of events: nanoseconds from their submission to their admission, and to their start.
#[derive(Default)]
struct Times {
    admissions: Vec<i64>,
    starts: Vec<i64>,
    events: usize,
}

impl Times {
    fn note(&mut self, admission: i64, start: i64) {
        self.events += 1;
        if self.starts.len() < KEPT {
            self.admissions.push(admission);
            self.starts.push(start);
        }
    }
}

/// Waits for `run`.
async fn told() {
    let (tell, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().lock().read_line(&mut String::new());
        let _ = tell.send(());
    });
    let _ = told.await;
}

/// As many callers, each with one event after the other, until the time is up. `call` gives the times of one.
async fn measure<F: Future<Output = (i64, i64)>>(options: &Options, call: impl Fn() -> F) {
    println!("ready");
    told().await;
    let times = RefCell::new(Times::default());
    let callers = |seconds: f64| {
        let (begun, times, call) = (Instant::now(), &times, &call);
        futures::future::join_all((0..options.in_flight).map(move |_| async move {
            while begun.elapsed() < Duration::from_secs_f64(seconds) {
                let (admission, start) = call().await;
                times.borrow_mut().note(admission, start);
            }
        }))
    };
    callers(options.seconds / 10.0).await;
    times.take();
    let begun = Instant::now();
    callers(options.seconds).await;
    let Times { admissions, starts, events } = times.take();
    let rate = events as f64 / begun.elapsed().as_secs_f64();
    println!("{}", json!({ "rate": rate, "admissions": admissions, "starts": starts }));
    // The others may still need its slots.
    told().await;
}

/// Joins the others, as a node of a name that no other has.
async fn joined(queue: QueueBuilder, options: &Options) -> Result<QueueBuilder, JournalError> {
    let node = format!("node-{}", std::process::id());
    Ok(queue.cluster(Nats::connect(&options.nats).name(&options.name).join(node).await?))
}

async fn ours(options: &Options) {
    let started = async |at: i64| Ok::<_, String>(monotonic() - at);
    let work = Listener::new("work", started).concurrency_limit(options.limit).durable();
    let queue = Queue::builder().listener(work);
    let queue = joined(queue, options).await.expect("it joins").start();
    let queue = queue.expect("nothing contradicts itself");
    let call = || async {
        let begun = monotonic();
        let submission = queue.submit("work", begun).await.expect("it is accepted");
        let admission = monotonic() - begun;
        (admission, submission.result::<i64>().await.expect("it ends"))
    };
    measure(options, call).await;
}

async fn consumers(options: &Options) {
    let servers: Vec<&str> = options.nats.split(',').collect();
    let replicas = if servers.len() > 1 { 3 } else { 1 };
    let client = async_nats::connect(servers).await.expect("it connects");
    let context = jetstream::new(client);
    let queue = Rc::new(WorkQueue::open(&context, &options.name, replicas, options.limit).await);
    let worker = Rc::clone(&queue);
    actix::spawn(async move {
        let started = |at: Bytes| {
            let at: i64 = String::from_utf8_lossy(&at).parse().expect("it is a number");
            Bytes::from((monotonic() - at).to_string())
        };
        worker.work(started).await;
    });
    let call = || async {
        let begun = monotonic();
        let answer = queue.submit(begun.to_string().into()).await;
        let admission = monotonic() - begun;
        let start = answer.await;
        (admission, String::from_utf8_lossy(&start).parse().expect("it is a number"))
    };
    measure(options, call).await;
}

fn main() {
    let options = match Options::from_args() {
        Ok(Some(options)) => options,
        Ok(None) => return println!("it is for benches/cluster/run"),
        Err(error) => {
            eprintln!("cluster: {error}");
            std::process::exit(2);
        }
    };
    actix::System::new().block_on(async {
        if options.ours { ours(&options).await } else { consumers(&options).await }
    });
}

//! A node of the cluster that `tests/cluster/run` breaks: its handlers write in a file, the books, when they begin
//! and when they end. The file belongs to the machine and not to the cluster, so that the books are right whatever
//! the cluster believes.
//!
//! ```text
//! cluster_node --nats nats://127.0.0.1:4222 --name test --node a --port 7861 --books books.jsonl
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actix_web::App;
use now_serving::{Data, EventContext, Listener, Nats, OnDisconnect, Queue, Web, http_server};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// How long running events may go on when a node is stopped in order.
const GRACE: Duration = Duration::from_secs(15);

#[derive(Deserialize, Serialize, JsonSchema)]
struct Work {
    /// How long it takes.
    ms: u64,
    /// What its client calls it. No two events have the same.
    tag: String,
}

/// Which run it was that gave the result: two ends of one event would differ.
#[derive(Deserialize, Serialize, JsonSchema)]
struct Done {
    tag: String,
    attempt: u32,
    node: String,
    pid: u32,
}

/// Where this node's handlers write, a line of JSON an entry.
struct Books {
    file: File,
    node: String,
}

impl Books {
    /// In one write at the end of the file, so that the order of lines is the order in which things happened, over
    /// all processes.
    fn write(&self, what: &str, run: &Run) -> io::Result<()> {
        let line = json!({
            "what": what, "at": monotonic(), "event": run.event, "attempt": run.attempt, "queue": run.queue,
            "tag": run.tag, "node": self.node, "pid": std::process::id(),
        });
        (&self.file).write_all(format!("{line}\n").as_bytes())
    }
}

/// Nanoseconds of the clock that all processes of the machine share, and that is never set.
fn monotonic() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// A run of an event. Dropped before it is done, it was interrupted.
struct Run {
    books: Arc<Books>,
    event: String,
    attempt: u32,
    queue: &'static str,
    tag: String,
    is_done: bool,
}

impl Drop for Run {
    fn drop(&mut self) {
        let what = if self.is_done { "done" } else { "interrupted" };
        self.books.write(what, self).expect("there is room");
    }
}

async fn work(
    queue: &'static str,
    Work { ms, tag }: Work,
    books: Data<Arc<Books>>,
    context: EventContext,
) -> io::Result<Done> {
    let mut run = Run {
        books: Arc::clone(&books),
        event: context.event_id().to_string(),
        attempt: context.attempt(),
        queue,
        tag: tag.clone(),
        is_done: false,
    };
    books.write("begin", &run)?;
    tokio::time::sleep(Duration::from_millis(ms)).await;
    run.is_done = true;
    let node = books.node.clone();
    Ok(Done { tag, attempt: run.attempt, node, pid: std::process::id() })
}

fn listener(name: &str, queue: &'static str) -> Listener<Work, Done> {
    let handler = move |input: Work, books: Data<Arc<Books>>, context: EventContext| {
        work(queue, input, books, context)
    };
    // Nothing that the test does may use an event's attempts up, and clients may need long to come back.
    Listener::new(name, handler)
        .concurrency_id(queue)
        .durable()
        .max_attempts(1000)
        .on_disconnect(OnDisconnect::KeepRunning)
}

struct Options {
    nats: String,
    name: String,
    node: String,
    port: u16,
    books: PathBuf,
}

impl Options {
    fn from_args() -> Result<Self, lexopt::Error> {
        use lexopt::prelude::*;
        let mut options = Options {
            nats: String::new(),
            name: "test".into(),
            node: String::new(),
            port: 0,
            books: "books.jsonl".into(),
        };
        let mut args = lexopt::Parser::from_env();
        while let Some(arg) = args.next()? {
            match arg {
                Long("nats") => options.nats = args.value()?.string()?,
                Long("name") => options.name = args.value()?.string()?,
                Long("node") => options.node = args.value()?.string()?,
                Long("port") => options.port = args.value()?.parse()?,
                Long("books") => options.books = args.value()?.into(),
                _ => return Err(arg.unexpected()),
            }
        }
        Ok(options)
    }
}

#[actix_web::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let options = Options::from_args()?;
    let file = OpenOptions::new().create(true).append(true).open(&options.books)?;
    let queue = Queue::builder()
        .data(Arc::new(Books { file, node: options.node.clone() }))
        .listener(listener("work", "work").concurrency_limit(4))
        .listener(listener("gpu_1", "gpu_queue").concurrency_limit(2))
        .listener(listener("gpu_2", "gpu_queue"))
        .listener(listener("gpu_3", "gpu_queue"));
    let cluster = Nats::connect(&options.nats).name(&options.name).join(&options.node).await?;
    let queue = queue.cluster(cluster).start()?;
    let web = Web::builder(&queue).max_sessions(10_000).start()?;
    let served = web.clone();
    let server = http_server(move || {
        let metrics = served.metrics("/metrics");
        App::new().configure(served.routes()).configure(metrics)
    });
    let server = server.workers(2).bind(("127.0.0.1", options.port))?;
    println!("cluster_node listens on http://{}", server.addrs()[0]);
    Ok(web.serve(server.run(), GRACE).await?)
}

//! Clients of Gradio's protocol by the hundreds or thousands, against any server of it.
//!
//! ```text
//! cargo run --release --example conformance &
//! cargo run --release --example load -- --clients 500 --events 20
//! cargo run --release --example load -- --waiting --clients 1000 --fn 1
//! cargo run --release --example load -- --chat --clients 500 --fn 26
//! ```
//!
//! Each client has a connection and a session of its own. By default it joins with an event, reads its
//! stream to the end, and begins again. With `--waiting` all join before anybody reads, so that they
//! wait together; the time is that of the drain. With `--chat` each follows one event that yields a
//! token every 10 ms, and the times are by how much tokens come later than they are due.

mod http;
mod report;

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::Connection;
use indicatif::{ProgressBar, ProgressStyle};
use report::{Report, cpu_of, peak_of};
use tokio::task::{JoinSet, LocalSet};

/// How fast a chat is, by the listener's own clock.
const TOKEN: Duration = Duration::from_millis(10);

#[derive(Clone, Debug)]
struct Options {
    host: String,
    prefix: String,
    fn_index: usize,
    data: String,
    clients: usize,
    /// Advances with each event; hidden where there is no terminal.
    bar: ProgressBar,
    events: usize,
    mode: Mode,
    pid: Option<u32>,
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Mode {
    Loop,
    Waiting,
    Chat,
}

const USAGE: &str = "Usage: load [--host HOST:PORT] [--prefix PATH] [--fn NUMBER] [--data JSON] \
[--clients N] [--events M] [--waiting | --chat] [--pid PID] [--json]

  --host     the server (default: 127.0.0.1:7861)
  --prefix   what its routes begin with (default: /gradio_api)
  --fn       the listener by number (default: 0)
  --data     its inputs, a JSON array (default: [\"hello\"], for a chat [500])
  --clients  how many (default: 100)
  --events   how many each, one after the other (default: 10, otherwise 1)
  --waiting  all join before anybody reads
  --chat     each follows a stream of tokens
  --pid      of the server, to print its processor time and memory
  --json     the report as JSON";

fn options() -> Result<Options, lexopt::Error> {
    use lexopt::prelude::*;
    let mut options = Options {
        host: "127.0.0.1:7861".into(),
        prefix: "/gradio_api".into(),
        fn_index: 0,
        data: String::new(),
        clients: 100,
        bar: ProgressBar::hidden(),
        events: 10,
        mode: Mode::Loop,
        pid: None,
        json: false,
    };
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("host") => options.host = args.value()?.string()?,
            Long("prefix") => options.prefix = args.value()?.string()?,
            Long("fn") => options.fn_index = args.value()?.parse()?,
            Long("data") => options.data = args.value()?.string()?,
            Long("clients") => options.clients = args.value()?.parse()?,
            Long("events") => options.events = args.value()?.parse()?,
            Long("waiting") => options.mode = Mode::Waiting,
            Long("chat") => options.mode = Mode::Chat,
            Long("pid") => options.pid = Some(args.value()?.parse()?),
            Long("json") => options.json = true,
            Short('h') | Long("help") => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            _ => return Err(arg.unexpected()),
        }
    }
    if options.data.is_empty() {
        options.data = if options.mode == Mode::Chat { "[500]" } else { "[\"hello\"]" }.into();
    }
    Ok(options)
}

/// What one client has seen.
#[derive(Debug, Default)]
struct Seen {
    times: Vec<Duration>,
    errors: usize,
    estimations: usize,
    bytes: u64,
}

struct Client {
    connection: Connection,
    /// On a connection of its own, as Gradio's clients have it: they hang up after the last end.
    stream: Option<Connection>,
    options: Rc<Options>,
    hash: String,
    seen: Seen,
    text: Vec<u8>,
}

impl Client {
    async fn connect(options: &Rc<Options>, number: usize) -> io::Result<Client> {
        Ok(Client {
            connection: Connection::open(&options.host).await?,
            stream: None,
            options: options.clone(),
            hash: format!("load{number:028x}"),
            seen: Seen::default(),
            text: Vec::new(),
        })
    }

    async fn join(&mut self) -> io::Result<bool> {
        let Options { prefix, data, fn_index, .. } = &*self.options;
        let body = format!(
            r#"{{"data":{data},"fn_index":{fn_index},"session_hash":"{}","event_data":null,"trigger_id":null}}"#,
            self.hash
        );
        let path = format!("{prefix}/queue/join");
        let status = self.connection.send("POST", &path, &body).await?;
        self.connection.body().await?;
        if status != 200 {
            self.seen.errors += 1;
        }
        Ok(status == 200)
    }

    /// Opens the stream.
    async fn open(&mut self) -> io::Result<()> {
        let path = format!("{}/queue/data?session_hash={}", self.options.prefix, self.hash);
        self.text.clear();
        let mut stream = Connection::open(&self.options.host).await?;
        stream.send("GET", &path, "").await?;
        self.stream = Some(stream);
        Ok(())
    }

    /// Reads the stream until the event has ended, and hangs up; calls `item` at each value on the way.
    async fn read(&mut self, mut item: impl FnMut(&mut Seen)) -> io::Result<()> {
        let mut event = Vec::new();
        let mut ended = false;
        let Some(mut stream) = self.stream.take() else { return Ok(()) };
        while !ended && stream.event(&mut self.text, &mut event).await? {
            let has = |word: &[u8]| event.windows(word.len()).take(40).any(|part| part == word);
            if has(b"\"process_generating\"") {
                item(&mut self.seen);
            } else if has(b"\"estimation\"") {
                self.seen.estimations += 1;
            } else if has(b"\"process_completed\"") {
                ended = true;
                let good = event.windows(14).any(|part| part == b"\"success\":true");
                self.seen.errors += usize::from(!good);
            } else if has(b"\"close_stream\"") {
                break;
            }
        }
        self.seen.errors += usize::from(!ended);
        self.seen.bytes += stream.bytes;
        Ok(())
    }
}

/// Waits until so many have come here.
#[derive(Clone)]
struct Meeting(Rc<(tokio::sync::Notify, Cell<usize>)>);

impl Meeting {
    fn of(clients: usize) -> Self {
        Meeting(Rc::new((tokio::sync::Notify::new(), Cell::new(clients))))
    }

    async fn meet(&self) {
        let (notify, missing) = &*self.0;
        missing.set(missing.get() - 1);
        if missing.get() == 0 {
            notify.notify_waiters();
        } else {
            notify.notified().await;
        }
    }
}

async fn client(options: Rc<Options>, number: usize, begin: Meeting, all_wait: Meeting) -> Seen {
    let connected = Client::connect(&options, number).await;
    // Those who fail come to the meetings too.
    let mut client = match connected {
        Ok(client) => client,
        Err(_) => {
            begin.meet().await;
            if options.mode == Mode::Waiting {
                all_wait.meet().await;
            }
            return Seen { errors: options.events, ..Seen::default() };
        }
    };
    begin.meet().await;
    let done = match options.mode {
        Mode::Loop => looping(&mut client).await,
        Mode::Waiting => waiting(&mut client, &all_wait).await,
        Mode::Chat => chat(&mut client).await,
    };
    if done.is_err() {
        client.seen.errors += 1;
    }
    client.seen.bytes += client.connection.bytes;
    client.seen
}

async fn looping(client: &mut Client) -> io::Result<()> {
    for _ in 0..client.options.events {
        let began = Instant::now();
        if client.join().await? {
            client.open().await?;
            client.read(|_| {}).await?;
            client.seen.times.push(began.elapsed());
            client.options.bar.inc(1);
        }
    }
    Ok(())
}

async fn waiting(client: &mut Client, all_wait: &Meeting) -> io::Result<()> {
    let began = Instant::now();
    let joined = client.join().await;
    all_wait.meet().await;
    if joined? {
        client.open().await?;
        client.read(|_| {}).await?;
        client.seen.times.push(began.elapsed());
        client.options.bar.inc(1);
    }
    Ok(())
}

async fn chat(client: &mut Client) -> io::Result<()> {
    if client.join().await? {
        client.open().await?;
        let mut first = None;
        let mut tokens = 0;
        client
            .read(|seen| {
                let first = *first.get_or_insert_with(Instant::now);
                let due = TOKEN * tokens;
                tokens += 1;
                seen.times.push(first.elapsed().saturating_sub(due));
            })
            .await?;
        client.options.bar.inc(1);
    }
    Ok(())
}

/// Drawn by a thread of its own, so that it costs the clients nothing.
fn bar(events: usize) -> ProgressBar {
    let bar = ProgressBar::new(events as u64);
    let template = "{elapsed_precise} {wide_bar} {pos} of {len}, {per_sec}, {eta} to go";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

async fn load(mut options: Options) -> Report {
    let events = if options.mode == Mode::Loop { options.events } else { 1 };
    options.bar = bar(options.clients * events);
    let options = Rc::new(options);
    // With the one that holds the watch.
    let (begin, all_wait) = (Meeting::of(options.clients + 1), Meeting::of(options.clients + 1));
    let mut clients = JoinSet::new();
    for number in 0..options.clients {
        let (begin, all_wait) = (begin.clone(), all_wait.clone());
        clients.spawn_local(client(options.clone(), number, begin, all_wait));
        if number % 256 == 0 {
            // Not more at once than fit into a server's backlog.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    begin.meet().await;
    if options.mode == Mode::Waiting {
        all_wait.meet().await;
    }
    let cpu = options.pid.and_then(cpu_of);
    let began = Instant::now();
    let mut report = Report::default();
    let mut times = Vec::new();
    while let Some(seen) = clients.join_next().await {
        let Ok(seen) = seen else {
            report.errors += 1;
            continue;
        };
        report.errors += seen.errors;
        report.estimations += seen.estimations;
        report.bytes += seen.bytes;
        times.extend(seen.times);
    }
    report.seconds = began.elapsed().as_secs_f64();
    options.bar.finish_and_clear();
    report.events = times.len();
    report.events_per_second = report.events as f64 / report.seconds;
    report.times(times);
    let spent = |pid| Some(cpu_of(pid)? - cpu?);
    report.server_cpu = options.pid.and_then(spent);
    report.server_peak_mib = options.pid.and_then(peak_of);
    report
}

fn main() {
    let options = options().unwrap_or_else(|error| {
        eprintln!("load: {error}; see --help");
        std::process::exit(2);
    });
    let json = options.json;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let report = LocalSet::new().block_on(&runtime, load(options));
    if json {
        println!("{}", serde_json::to_string(&report).expect("numbers"));
    } else {
        report.print();
    }
    std::process::exit(i32::from(report.errors > 0));
}

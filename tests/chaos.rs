//! Hundreds of clients that submit, cancel, drop, come back, read slowly and send garbage, against
//! handlers that succeed, fail, panic, hang and stream, while limits change and ids pause. Each
//! promise holds all the time, and at the end the counts match exactly.
//!
//! `CHAOS_SECONDS=600` goes on for longer (default 60), `CHAOS_ROUNDS=10` comes to rest more often
//! (default 3, at least 3), `CHAOS_SEED=7` makes other decisions.
#![cfg(feature = "web")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use actix_web::web;
use common::{Event, Server};
use futures::{Stream, StreamExt, stream};
use now_serving::{
    EventContext, Listener, ListenerSnapshot, OnDisconnect, Queue, QueueSnapshot, Slot, State, Web,
    WebSnapshot,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

/// Counts the bytes in use.
#[global_allocator]
static MEMORY: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

const CLIENTS: usize = 200;
const GRACE: Duration = Duration::from_millis(500);
const TTL: Duration = Duration::from_secs(4);
const TIMEOUT: Duration = Duration::from_secs(60);

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

/// Handlers of a concurrency id at work, against what its limit has been since it last settled.
#[derive(Default)]
struct Gauge {
    inside: AtomicUsize,
    allowed: AtomicUsize,
    overrun: AtomicBool,
}

struct Inside(Arc<Gauge>);

impl Gauge {
    fn enter(self: &Arc<Self>) -> Inside {
        let inside = self.inside.fetch_add(1, SeqCst) + 1;
        if inside > self.allowed.load(SeqCst) {
            self.overrun.store(true, SeqCst);
        }
        Inside(self.clone())
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, SeqCst);
    }
}

/// The ids whose limit changes, in the order of [`Fixture::gauges`].
const IDS: [&str; 3] = ["gpu", "fifo", "batch"];
const LIMITS: [usize; 3] = [2, 1, 2];

// The listeners by number.
const QUICK: usize = 0;
const FAIL: usize = 2;
const PANIC: usize = 3;
const HANG: usize = 4;
const STREAM: usize = 5;
const FIFO: usize = 8;
const LISTENERS: usize = 12;

const NAMES: [&str; LISTENERS] = [
    "quick", "slow", "fail", "panic", "hang", "stream", "block", "batch", "fifo", "stay",
    "slotted", "remember",
];

struct Fixture {
    queue: Queue,
    web: Web,
    gauges: [Arc<Gauge>; 3],
    /// Sessions whose end the hook was called for.
    ended: Arc<AtomicUsize>,
}

fn fixture() -> Fixture {
    let gauges: [Arc<Gauge>; 3] = Default::default();
    for (gauge, limit) in gauges.iter().zip(LIMITS) {
        gauge.allowed.store(limit, SeqCst);
    }
    let [gpu, fifo, batch] = gauges.clone();
    let slow = {
        let gpu = gpu.clone();
        move |ms: u64| {
            let gpu = gpu.clone();
            async move {
                let _inside = gpu.enter();
                sleep(Duration::from_millis(ms % 20)).await;
                Ok::<_, String>(ms)
            }
        }
    };
    let fail = {
        let gpu = gpu.clone();
        move |text: String| {
            let _inside = gpu.enter();
            async move { Err::<(), _>(text) }
        }
    };
    let panics = {
        let gpu = gpu.clone();
        move |early: bool| {
            let inside = gpu.enter();
            assert!(!early, "chaos: a panic before the first await");
            async move {
                let _inside = inside;
                sleep(Duration::from_millis(1)).await;
                panic!("chaos: a panic after it");
                #[allow(unreachable_code)]
                Ok::<(), String>(())
            }
        }
    };
    let hang = async |(): ()| std::future::pending::<Result<(), String>>().await;
    let words = |n: u64, context: EventContext| -> Words {
        let mut text = String::new();
        let words = stream::iter(0..n % 40).then(move |i| {
            text += &format!("word{i} ");
            context.progress(i as f64 / n as f64, "speaking");
            let text = text.clone();
            async move {
                sleep(Duration::from_millis(i % 3)).await;
                Ok(text)
            }
        });
        words.boxed_local()
    };
    let block = {
        let gpu = gpu.clone();
        move |ms: u64, context: EventContext| {
            let _inside = gpu.enter();
            for _ in 0..ms % 20 {
                if context.is_cancelled() {
                    return Err("cancelled".to_string());
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(ms)
        }
    };
    let together = move |inputs: Vec<u64>| {
        let batch = batch.clone();
        async move {
            let _inside = batch.enter();
            sleep(Duration::from_millis(2)).await;
            // Now and then one too few.
            let few = inputs.contains(&13);
            Ok::<_, String>(inputs.into_iter().skip(usize::from(few)).collect::<Vec<_>>())
        }
    };
    let in_turn = move |n: u64| {
        let fifo = fifo.clone();
        async move {
            let _inside = fifo.enter();
            sleep(Duration::from_millis(n % 2)).await;
            Ok::<_, String>(n)
        }
    };
    let slotted = async |n: u64, mut slot: Slot<Vec<u64>>| {
        slot.push(n);
        sleep(Duration::from_millis(1)).await;
        assert!(n != 13, "chaos: a panic that spoils the slot");
        Ok::<_, String>(slot.len())
    };
    let remember = async |n: u64, state: State<Vec<u64>>| {
        Ok::<_, String>(state.update(|state| {
            state.push(n);
            state.len()
        }))
    };
    let ended = Arc::new(AtomicUsize::new(0));
    let hook = ended.clone();
    let queue = Queue::builder()
        .max_size(2000)
        .listener(
            Listener::new("quick", async |x: Value| Ok::<_, String>(x)).concurrency_limit(None),
        )
        .listener(
            Listener::new("slow", slow).concurrency_id("gpu").concurrency_limit(2).max_size(60),
        )
        .listener(Listener::new("fail", fail).concurrency_id("gpu"))
        .listener(Listener::new("panic", panics).concurrency_id("gpu"))
        .listener(
            Listener::new("hang", hang).concurrency_limit(8).time_limit(Duration::from_millis(40)),
        )
        .listener(Listener::stream("stream", words).concurrency_limit(8))
        .listener(Listener::blocking("block", block).concurrency_id("gpu"))
        .listener(
            Listener::batch("batch", together)
                .concurrency_limit(2)
                .max_batch_size(5)
                .max_batch_wait(Duration::from_millis(5)),
        )
        .listener(Listener::new("fifo", in_turn).queue_timeout(Duration::from_secs(2)))
        .listener(
            Listener::new("stay", async |ms: u64| {
                sleep(Duration::from_millis(ms % 400)).await;
                Ok::<_, String>(ms)
            })
            .concurrency_limit(16)
            .on_disconnect(OnDisconnect::KeepRunning),
        )
        .listener(Listener::new("slotted", slotted).concurrency_id("slots").concurrency_limit(2))
        .slots("slots", async |_| Ok::<_, String>(Vec::<u64>::new()))
        .listener(Listener::new("remember", remember).concurrency_limit(None))
        .start()
        .unwrap();
    let web = Web::builder(&queue)
        .reconnect_grace(GRACE)
        .session_ttl(TTL)
        .result_ttl(TTL)
        .max_waiting_per_session(20)
        .on_session_end(move |_| {
            hook.fetch_add(1, SeqCst);
        })
        .start()
        .unwrap();
    Fixture { queue, web, gauges, ended }
}

type Words = std::pin::Pin<Box<dyn Stream<Item = Result<String, String>>>>;

async fn gated() -> &'static str {
    sleep(Duration::from_millis(2)).await;
    "let through"
}

/// What a client knows of an event that it follows, and what must be true of it.
#[derive(Default)]
struct Followed {
    listener: usize,
    rank: Option<u64>,
    estimations: usize,
    text: Option<String>,
    words: usize,
    started: bool,
    ended: usize,
}

impl Followed {
    /// `exact` is whether its client has always sent `Last-Event-ID`.
    fn receive(&mut self, message: &Value, exact: bool) {
        match message["msg"].as_str().unwrap() {
            "estimation" => {
                let rank = message["rank"].as_u64().unwrap();
                assert!(!self.started, "a rank after the start: {message}");
                // P5; sent again after a reconnection.
                assert!(self.rank.is_none_or(|before| rank <= before), "P5: {message}");
                assert!(rank < message["queue_size"].as_u64().unwrap(), "P5: {message}");
                self.rank = Some(rank);
                self.estimations += 1;
            }
            "process_starts" => self.started = true,
            "process_generating" => {
                let output = &message["output"]["data"][0];
                let text = match (self.text.take(), output) {
                    (None, Value::String(whole)) => whole.clone(),
                    // The first was lost, which can't be with `Last-Event-ID`.
                    (None, edits) if !exact => apply(String::new(), edits),
                    (None, other) => panic!("the first item is no value: {other}"),
                    (Some(text), edits) => apply(text, edits),
                };
                // Word after word, none twice; none left out with `Last-Event-ID`.
                let words = text.split_whitespace().count();
                assert!(words > self.words, "an item came twice: {message}");
                assert!(!exact || words == self.words + 1, "an item was lost: {message}");
                self.words = words;
                self.text = Some(text);
            }
            "process_completed" => {
                self.ended += 1;
                // P2; without `Last-Event-ID`, a client may get an end again.
                assert!(!exact || self.ended == 1, "P2: {message}");
                if let (Some(text), Some(data)) = (&self.text, message["output"]["data"].get(0))
                    && exact
                {
                    assert_eq!(data.as_str(), Some(text.as_str()), "the result is the last item");
                }
            }
            _ => {}
        }
    }
}

fn apply(text: String, edits: &Value) -> String {
    edits.as_array().expect("edits").iter().fold(text, |text, edit| {
        match (edit[0].as_str().unwrap(), edit[1].as_array().unwrap().len()) {
            ("append", 0) => text + edit[2].as_str().unwrap(),
            ("replace", 0) => edit[2].as_str().unwrap().to_string(),
            other => panic!("{other:?}"),
        }
    })
}

fn input(listener: usize, rng: &mut StdRng) -> Value {
    match listener {
        FAIL => json!("chaos: no good"),
        PANIC => json!(rng.random::<bool>()),
        QUICK => json!("x".repeat(rng.random_range(0..2000))),
        _ => json!(rng.random_range(0..1000u64)),
    }
}

fn data(listener: usize, rng: &mut StdRng) -> Value {
    if listener == HANG { json!([]) } else { json!([input(listener, rng)]) }
}

/// One client, that goes on until it is stopped.
struct Client {
    server: Arc<Server>,
    queue: Queue,
    rng: StdRng,
    hash: String,
    awc: awc::Client,
}

impl Client {
    async fn live(mut self, over: Arc<AtomicBool>) {
        while !over.load(SeqCst) {
            let choice = self.rng.random_range(0..100);
            let act = async {
                match choice {
                    0..40 => self.follow().await,
                    40..50 => self.call().await,
                    50..60 => self.run().await,
                    60..68 => self.vanish().await,
                    68..74 => self.read_slowly().await,
                    74..82 => self.garbage().await,
                    82..92 => self.in_process().await,
                    92..96 => self.in_turn().await,
                    _ => self.gate().await,
                }
            };
            let done = timeout(TIMEOUT, act).await;
            assert!(done.is_ok(), "a client waits for ever, doing {choice}");
        }
    }

    fn new_session(&mut self) {
        self.hash = format!("{:032x}", self.rng.random::<u128>());
    }

    async fn post(&self, path: &str, body: String) -> (u16, Value) {
        let url = self.server.url(&format!("/gradio_api/{path}"));
        let mut answer = match self.awc.post(&url).send_body(body.clone()).await {
            Ok(answer) => answer,
            // The server has just closed this connection for having been idle.
            Err(_) => awc::Client::builder()
                .timeout(TIMEOUT)
                .finish()
                .post(&url)
                .send_body(body)
                .await
                .expect("a new connection is answered"),
        };
        let status = answer.status().as_u16();
        assert!(status != 500 || path.starts_with("run/"), "{path} {status}");
        let bytes = answer.body().limit(1 << 20).await.unwrap_or_default();
        (status, serde_json::from_slice(&bytes).unwrap_or_default())
    }

    async fn join(&mut self, listener: usize) -> Option<String> {
        let body = json!({"data": data(listener, &mut self.rng), "fn_index": listener, "session_hash": self.hash});
        let (status, answer) = self.post("queue/join", body.to_string()).await;
        assert!(matches!(status, 200 | 429 | 503), "{status} {answer}");
        answer["event_id"].as_str().map(String::from)
    }

    /// Joins some events and follows them to their end, with breaks.
    async fn follow(&mut self) {
        self.new_session();
        let began = Instant::now();
        let mut events: HashMap<String, Followed> = HashMap::new();
        for _ in 0..self.rng.random_range(1..4) {
            let listener = self.rng.random_range(0..LISTENERS);
            if let Some(id) = self.join(listener).await {
                events.insert(id, Followed { listener, ..Followed::default() });
            }
        }
        if events.is_empty() {
            return;
        }
        let numbered = self.rng.random::<bool>();
        // Nothing is lost to a client with `Last-Event-ID`, as long as it comes back in time.
        let mut exact = numbered;
        let (mut last, mut away, mut streams) = (None, None::<Instant>, 0);
        while events.values().any(|event| event.ended == 0) {
            let mut stream = match numbered {
                true => self.server.event_source(&self.hash, last).await,
                false => self.server.session(&self.hash).await,
            };
            exact &= away.is_none_or(|since| since.elapsed() < GRACE);
            streams += 1;
            let mut closed = false;
            let breaks_after = self.rng.random_range(1..60);
            for _ in 0..breaks_after {
                let Some(Event { id, data, .. }) = stream.next().await else { break };
                if data["msg"] == "unexpected_error" {
                    // Of a client that the machine has kept waiting.
                    assert!(began.elapsed() >= TTL, "the session is gone: {data}");
                    return;
                }
                last = id.or(last);
                if let Some(event) = data["event_id"].as_str().and_then(|id| events.get_mut(id)) {
                    event.receive(&data, exact);
                }
                if data["msg"] == "close_stream" {
                    closed = true;
                    break;
                }
                if self.rng.random_range(0..40) == 0 {
                    let ids: Vec<_> = events.keys().cloned().collect();
                    let id = &ids[self.rng.random_range(0..ids.len())];
                    let body = json!({"session_hash": self.hash, "fn_index": 0, "event_id": id});
                    assert_eq!(self.post("cancel", body.to_string()).await.0, 200);
                }
            }
            away = Some(Instant::now());
            drop(stream);
            // P6: at the front every step, further back at most four times a second, and again to a
            // stream that is new. Up to sixty wait, and hundreds of events a second start ahead.
            let max = 16 + 5 * began.elapsed().as_millis() as usize / 1000 + streams;
            for event in events.values() {
                assert!(event.estimations <= max, "P6: {} estimations", event.estimations);
            }
            // All is over. What a client without `Last-Event-ID` has missed can be fetched.
            for (id, event) in events.iter_mut().filter(|(_, event)| closed && event.ended == 0) {
                assert!(!exact, "an end was lost: {id}");
                let path = format!("/gradio_api/call/{}/{id}", NAMES[event.listener]);
                let end = self.server.stream(&path).await.rest().await.remove(0);
                let found = end.data != "404: Not Found";
                assert!(found || began.elapsed() >= TTL, "an end was lost: {id}");
                event.ended += 1;
            }
        }
    }

    async fn call(&mut self) {
        let listener = self.rng.random_range(0..LISTENERS);
        let name = self.name(listener);
        let body = json!({"data": data(listener, &mut self.rng)});
        let (status, answer) = self.post(&format!("call/{name}"), body.to_string()).await;
        assert!(matches!(status, 200 | 503), "{status} {answer}");
        let Some(id) = answer["event_id"].as_str() else { return };
        let path = format!("/gradio_api/call/{name}/{id}");
        if self.rng.random_range(0..3) == 0 {
            return;
        }
        let mut ends = 0;
        for event in self.server.stream(&path).await.rest().await {
            ends += usize::from(matches!(event.name.as_deref(), Some("complete" | "error")));
        }
        assert_eq!(ends, 1, "P2");
    }

    fn name(&self, listener: usize) -> String {
        NAMES[listener].to_string()
    }

    async fn run(&mut self) {
        let listener = self.rng.random_range(0..LISTENERS);
        let body = json!({"data": data(listener, &mut self.rng), "session_hash": self.hash});
        let limit = Duration::from_millis(self.rng.random_range(1..200));
        // It may hang up in the middle.
        let _ =
            timeout(limit, self.post(&format!("run/{}", self.name(listener)), body.to_string()))
                .await;
    }

    /// Joins, may begin to read, and never comes back.
    async fn vanish(&mut self) {
        self.new_session();
        for _ in 0..self.rng.random_range(1..4) {
            let listener = self.rng.random_range(0..LISTENERS);
            self.join(listener).await;
        }
        if self.rng.random::<bool>() {
            let mut stream = self.server.session(&self.hash).await;
            let _ =
                timeout(Duration::from_millis(self.rng.random_range(0..20)), stream.next()).await;
        }
        self.new_session();
    }

    async fn read_slowly(&mut self) {
        self.new_session();
        for _ in 0..3 {
            self.join(STREAM).await;
        }
        let address = self.server.base.trim_start_matches("http://").to_string();
        let Ok(mut socket) = tokio::net::TcpStream::connect(address).await else { return };
        let request = format!(
            "GET /gradio_api/queue/data?session_hash={} HTTP/1.1\r\nhost: a\r\n\r\n",
            self.hash
        );
        let _ = socket.write_all(request.as_bytes()).await;
        sleep(Duration::from_millis(self.rng.random_range(0..300))).await;
        let mut some = [0; 100];
        let _ = timeout(Duration::from_millis(20), socket.read(&mut some)).await;
    }

    async fn garbage(&mut self) {
        let paths = [
            "queue/join",
            "call/slow",
            "call/v2/stream",
            "run/fifo",
            "cancel",
            "upload",
            "nothing",
        ];
        let path = paths[self.rng.random_range(0..paths.len())];
        let bodies =
            ["", "{", "[[[[", "{\"data\": 1}", "{\"data\": [[]], \"fn_index\": -1}", "\u{0}"];
        let body = bodies[self.rng.random_range(0..bodies.len())].to_string();
        let (status, answer) = self.post(path, body).await;
        assert!(matches!(status, 200 | 400 | 404 | 422 | 429 | 503), "{path} {status} {answer}");
    }

    async fn in_process(&mut self) {
        let limit = Duration::from_millis(self.rng.random_range(0..50));
        let n = self.rng.random_range(0..1000u64);
        match self.rng.random_range(0..3) {
            0 => drop(timeout(limit, self.queue.call::<u64, u64>("slow", n)).await),
            1 => {
                if let Ok(mut updates) = self.queue.try_submit("stream", n).await {
                    let _ = timeout(limit, updates.next()).await;
                }
            }
            _ => {
                if let Ok(submission) = self.queue.try_submit("stay", n).await {
                    submission.detach();
                }
            }
        }
    }

    /// P3: what one client submits one after the other starts in this order.
    async fn in_turn(&mut self) {
        self.new_session();
        let mut ids = Vec::new();
        for _ in 0..8 {
            ids.extend(self.join(FIFO).await);
        }
        if ids.is_empty() {
            return;
        }
        let events = self.server.event_source(&self.hash, None).await.rest().await;
        let started: Vec<&str> = events
            .iter()
            .filter(|event| event.data["msg"] == "process_starts")
            .map(|event| event.data["event_id"].as_str().unwrap())
            .collect();
        let expected: Vec<&str> =
            ids.iter().map(String::as_str).filter(|id| started.contains(id)).collect();
        assert_eq!(started, expected, "P3");
    }

    async fn gate(&mut self) {
        let limit = Duration::from_millis(self.rng.random_range(1..100));
        let _ = timeout(limit, self.awc.get(self.server.url("/gated")).send()).await;
    }
}

/// Changes limits, pauses and resumes until it is stopped. Leaves all as it was.
async fn steer(queue: Queue, gauges: [Arc<Gauge>; 3], mut rng: StdRng, over: Arc<AtomicBool>) {
    while !over.load(SeqCst) {
        let which = rng.random_range(0..IDS.len());
        if rng.random_range(0..4) == 0 {
            queue.pause(IDS[which]).await.unwrap();
            sleep(Duration::from_millis(rng.random_range(0..30))).await;
            queue.resume(IDS[which]).await.unwrap();
        } else if IDS[which] != "fifo" {
            set_limit(&queue, which, &gauges[which], rng.random_range(1..5)).await;
        }
        let snapshot = queue.snapshot().await;
        for id in &snapshot.concurrency_ids {
            let filled = id
                .slots
                .iter()
                .filter(|slot| matches!(slot.state, now_serving::SlotState::Busy { .. }));
            assert_eq!(filled.count(), id.running);
        }
        sleep(Duration::from_millis(20)).await;
    }
    for (which, gauge) in gauges.iter().enumerate() {
        queue.resume(IDS[which]).await.unwrap();
        set_limit(&queue, which, gauge, LIMITS[which]).await;
    }
}

async fn set_limit(queue: &Queue, which: usize, gauge: &Gauge, limit: usize) {
    gauge.allowed.fetch_max(limit, SeqCst);
    queue.set_concurrency_limit(IDS[which], limit).await.unwrap();
    // Those beyond a lower limit finish first. Gated requests are no handlers of ours, and count.
    let settled = async {
        while queue.snapshot().await.concurrency_id(IDS[which]).unwrap().running > limit {
            sleep(Duration::from_millis(1)).await;
        }
    };
    if timeout(TIMEOUT, settled).await.is_ok() {
        gauge.allowed.store(limit, SeqCst);
    }
}

fn open_events(listener: &ListenerSnapshot) -> i64 {
    let ended = listener.completed
        + listener.failed
        + listener.cancelled
        + listener.timed_out
        + listener.stopped;
    listener.admitted as i64 - ended as i64
}

/// Waits until nothing is under way and no session is left, and gives the bytes in use then.
async fn settle(web: &Web, over: impl Fn(&QueueSnapshot) -> bool) -> usize {
    let began = Instant::now();
    loop {
        let WebSnapshot { queue: snapshot, clients, .. } = web.snapshot().await;
        let idle = snapshot.concurrency_ids.iter().all(|id| id.running == 0 && id.waiting == 0);
        let alone = clients.sessions == 0 && clients.streams == 0;
        // Idle workers are dropped after a while; those with a resource stay.
        let workers: usize = snapshot.concurrency_ids.iter().map(|id| id.slots.len()).sum();
        if idle && alone && workers == 2 && clients.kept_results == 0 && over(&snapshot) {
            for id in &snapshot.concurrency_ids {
                for listener in &id.listeners {
                    // To the event.
                    assert_eq!(open_events(listener), 0, "{listener:?}");
                }
            }
            return MEMORY.allocated();
        }
        assert!(
            began.elapsed() < 2 * TIMEOUT,
            "it does not come to rest: {clients:?} {snapshot:#?}"
        );
        sleep(Duration::from_millis(20)).await;
    }
}

#[actix::test]
async fn everything_at_once() {
    // The panics of handlers are part of it.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !info.to_string().contains("chaos: ") {
            hook(info);
        }
    }));
    let seed = number("CHAOS_SEED", 1);
    let rounds = number("CHAOS_ROUNDS", 3).max(3) as usize;
    let time = Duration::from_secs(number("CHAOS_SECONDS", 60));
    println!("seed {seed}, {time:?}");
    let house = fixture();
    let server = {
        let served = house.web.clone();
        Arc::new(Server::with(move |config| {
            let gated = web::resource("/gated").wrap(served.gate("slots")).get(gated);
            config.service(gated).configure(served.routes())
        }))
    };
    let mut in_use = Vec::new();
    for round in 0..rounds {
        let over = Arc::new(AtomicBool::new(false));
        let mut tasks = Vec::new();
        // The first is the largest, so that what is kept for reuse is there when it has ended.
        let clients = if round == 0 { 2 * CLIENTS } else { CLIENTS };
        for client in 0..clients {
            let rng = StdRng::seed_from_u64(seed << 32 | (2 * round * CLIENTS + client) as u64);
            let awc = awc::Client::builder().timeout(TIMEOUT).finish();
            let (server, queue, over) = (server.clone(), house.queue.clone(), over.clone());
            let client = Client { server, queue, rng, hash: "0".into(), awc };
            tasks.push(actix_web::rt::spawn(client.live(over)));
        }
        let rng = StdRng::seed_from_u64(!seed ^ round as u64);
        let steering = steer(house.queue.clone(), house.gauges.clone(), rng, over.clone());
        tasks.push(actix_web::rt::spawn(steering));
        sleep(time / rounds as u32).await;
        over.store(true, SeqCst);
        for task in tasks {
            task.await.expect("no client has seen a promise broken");
        }
        for (gauge, id) in house.gauges.iter().zip(IDS) {
            assert!(!gauge.overrun.load(SeqCst), "P1: more than its limit of {id} ran at once");
        }
        let handlers_gone = house.gauges.clone();
        let idle =
            |_: &QueueSnapshot| handlers_gone.iter().all(|gauge| gauge.inside.load(SeqCst) == 0);
        in_use.push(settle(&house.web, idle).await);
        let snapshot = house.queue.snapshot().await;
        let total = |count: fn(&ListenerSnapshot) -> u64| -> u64 {
            snapshot.concurrency_ids.iter().flat_map(|id| &id.listeners).map(count).sum()
        };
        println!(
            "round {round}: admitted {}, completed {}, failed {}, cancelled {}, timed out {}, refused {}, \
             sessions ended {}, {} bytes in use",
            total(|l| l.admitted),
            total(|l| l.completed),
            total(|l| l.failed),
            total(|l| l.cancelled),
            total(|l| l.timed_out),
            total(|l| l.refused),
            house.ended.load(SeqCst),
            in_use[round],
        );
        let counts: [fn(&ListenerSnapshot) -> u64; 4] =
            [|l| l.completed, |l| l.failed, |l| l.cancelled, |l| l.timed_out];
        for count in counts {
            assert!(total(count) > 0, "nothing of a kind happened, so that nothing is shown");
        }
    }
    // What is allocated once is there after the second round.
    let (second, last) = (in_use[1] as f64, in_use[rounds - 1] as f64);
    assert!(last <= 1.1 * second, "memory grows: {in_use:?}");
    // P7.
    let stopped = house.queue.shutdown(Duration::from_secs(5)).await;
    assert!(stopped.stopped && stopped.drained, "{stopped:?}");
}

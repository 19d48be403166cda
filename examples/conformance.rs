//! Nine listeners that behave as those of a reference server written with Gradio, and some more
//! behind them: the server that client suites, benchmarks and load tests run against.
//!
//! ```text
//! cargo run --release --example conformance -- --port 7861
//! curl -X POST http://127.0.0.1:7861/gradio_api/call/echo -d '{"data": ["hi"]}'
//! ```

#[path = "shared/address.rs"]
mod address;
#[path = "shared/cluster.rs"]
mod cluster;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::{App, web};
use address::{Address, ValueOption, Values};
use futures::{Stream, StreamExt, stream};
use now_serving::{
    ApiVisibility, EventContext, FileData, Listener, ListenerInput, ListenerOutput, Queue,
    QueueBuilder, State, UserError, Users, Validation, Web, http_server,
};
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

// The fields' names are the parameters' names.

#[derive(Deserialize, Serialize, JsonSchema)]
struct Text {
    x: String,
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Pause {
    /// Milliseconds.
    ms: f64,
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Count {
    n: i64,
}

async fn echo(Text { x }: Text) -> Result<String, UserError> {
    Ok(x)
}

async fn echo_after_a_millisecond(Text { x }: Text) -> Result<String, UserError> {
    sleep(Duration::from_millis(1)).await;
    Ok(x)
}

async fn sleepy(Pause { ms }: Pause) -> Result<f64, UserError> {
    let pause = Duration::try_from_secs_f64(ms / 1000.0)
        .map_err(|error| UserError::new(format!("{ms} ms is no pause: {error}")))?;
    sleep(pause).await;
    Ok(ms)
}

fn count(Count { n }: Count) -> impl Stream<Item = Result<String, UserError>> {
    stream::iter(0..n).then(async |i| {
        sleep(Duration::from_millis(50)).await;
        Ok(i.to_string().repeat(3))
    })
}

async fn fail(_: Text) -> Result<String, UserError> {
    Err(UserError::new("no good"))
}

async fn prog(Text { x }: Text, context: EventContext) -> Result<String, UserError> {
    context.progress(0.0, "Starting");
    for i in 0..3 {
        sleep(Duration::from_millis(100)).await;
        context.progress(f64::from(i + 1) / 3.0, format!("step {i}"));
    }
    context.info("done it");
    Ok(x)
}

/// One of the guide's three image generators: half a second on the shared GPU.
fn generator(name: &'static str) -> Listener<Text, String> {
    let generate = move |Text { x }: Text| async move {
        sleep(Duration::from_millis(500)).await;
        Ok::<_, UserError>(format!("{name}{x}"))
    };
    kept(Listener::new(name, generate)).concurrency_id("gpu_queue")
}

/// The option of where events are recorded.
const JOURNAL: ValueOption = ValueOption {
    name: "journal",
    value: "FILE",
    help: "Records the events of all listeners that queue in FILE, and goes on with those that are left \
           there; files lie in FILE.files. Needs the feature journal. nats://HOST:PORT/NAME records \
           them there as NAME, and needs the feature cluster.",
};

/// Whether there is a journal.
static RECORDS: OnceLock<bool> = OnceLock::new();

/// Has a listener's events recorded, where there is a journal.
fn kept<I, O>(listener: Listener<I, O>) -> Listener<I, O>
where
    I: ListenerInput + Serialize,
    O: ListenerOutput + DeserializeOwned,
{
    if RECORDS.get() == Some(&true) { listener.durable() } else { listener }
}

/// With the journal on NATS, and files in a directory of its name.
#[cfg(feature = "cluster")]
async fn on_nats(queue: QueueBuilder, url: &str) -> std::io::Result<QueueBuilder> {
    let named = url.split_once("://").and_then(|(_, rest)| rest.rsplit_once('/'));
    let (server, name) = named.ok_or_else(|| std::io::Error::other("nats://HOST:PORT/NAME"))?;
    let journal = now_serving::Nats::connect(format!("nats://{server}")).name(name).await;
    let files = std::env::temp_dir().join(format!("now-serving-{name}"));
    Ok(queue.journal(journal.map_err(std::io::Error::other)?).cache_dir(files))
}

#[cfg(not(feature = "cluster"))]
async fn on_nats(_: QueueBuilder, url: &str) -> std::io::Result<QueueBuilder> {
    Err(std::io::Error::other(format!("--journal {url} needs the feature cluster")))
}

/// With the journal, where there is one.
async fn recorded(queue: QueueBuilder, values: &Values) -> std::io::Result<QueueBuilder> {
    if cluster::is_node(values) {
        return cluster::join(queue, values, &cluster_name(values, "")).await;
    }
    let journal = values.get(JOURNAL.name).map(String::as_str);
    match journal {
        Some(url) if url.starts_with("nats://") => on_nats(queue, url).await,
        _ => in_file(queue, journal),
    }
}

#[cfg(feature = "journal")]
fn in_file(queue: QueueBuilder, file: Option<&str>) -> std::io::Result<QueueBuilder> {
    let Some(file) = file else { return Ok(queue) };
    let journal = now_serving::Sqlite::open(file).map_err(std::io::Error::other)?;
    Ok(queue.journal(journal).cache_dir(format!("{file}.files")))
}

#[cfg(not(feature = "journal"))]
fn in_file(queue: QueueBuilder, file: Option<&str>) -> std::io::Result<QueueBuilder> {
    match file {
        Some(_) => Err(std::io::Error::other("--journal needs the feature journal")),
        None => Ok(queue),
    }
}

/// Some words, several times.
#[derive(Deserialize, Serialize, JsonSchema)]
struct Words {
    /// What to say.
    text: String,
    /// How often to say it.
    #[serde(default = "twice")]
    times: usize,
    ending: Option<String>,
}

fn twice() -> usize {
    2
}

async fn repeat(Words { text, times, ending }: Words) -> Result<String, UserError> {
    Ok(text.repeat(times) + ending.as_deref().unwrap_or_default())
}

fn check(words: &Words) -> Validation {
    Validation::new().check("text", !words.text.is_empty(), "Say something.").check(
        "times",
        words.times < 10,
        "Not so often.",
    )
}

#[derive(Clone, Deserialize, Serialize, JsonSchema)]
struct Message {
    role: String,
    content: String,
}

/// An answer that grows word by word, as a language model's.
fn chat(Count { n }: Count) -> impl Stream<Item = Result<Vec<Message>, UserError>> {
    let mut content = String::new();
    stream::iter(0..n).map(move |i| {
        content += &format!("word{i} ");
        let user = Message { role: "user".into(), content: "hello".into() };
        Ok(vec![user, Message { role: "assistant".into(), content: content.clone() }])
    })
}

async fn boom(_: Text) -> Result<String, String> {
    Err("a secret of the server".into())
}

async fn swap((a, b): (String, f64)) -> Result<(f64, String), UserError> {
    Ok((b, a))
}

async fn nothing((): ()) -> Result<(), UserError> {
    Ok(())
}

/// What this session has sent so far.
async fn remember(Text { x }: Text, history: State<Vec<String>>) -> Result<Vec<String>, UserError> {
    history.update(|history| history.push(x));
    Ok(history.get())
}

/// Another number each time.
async fn tick(_: Text) -> Result<usize, UserError> {
    static TICKS: AtomicUsize = AtomicUsize::new(0);
    Ok(TICKS.fetch_add(1, Ordering::Relaxed))
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Document {
    /// A text file.
    file: FileData,
}

/// The same text, loud, in a file of the same name.
fn shout(Document { file }: Document, context: EventContext) -> std::io::Result<FileData> {
    let text = std::fs::read_to_string(file.path())?;
    context.files().save(file.name(), text.to_uppercase())
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Documents {
    files: Vec<FileData>,
}

/// The names and lengths of some files, and the files themselves.
async fn list(Documents { files }: Documents) -> Result<(Vec<String>, Vec<FileData>), UserError> {
    let describe =
        |file: &FileData| format!("{}: {}", file.name(), file.size().unwrap_or_default());
    Ok((files.iter().map(describe).collect(), files))
}

/// Each item is a file of its own.
fn pages(
    Count { n }: Count,
    context: EventContext,
) -> impl Stream<Item = std::io::Result<FileData>> {
    stream::iter(0..n).map(move |i| context.files().save(&format!("page {i}.txt"), i.to_string()))
}

/// A text that grows by a token every 10 ms, by the clock: a language model at 100 tokens a second.
fn tokens(Count { n }: Count) -> impl Stream<Item = Result<String, UserError>> {
    let mut text = String::new();
    let clock = tokio::time::interval(Duration::from_millis(10));
    stream::unfold((clock, 0), move |(mut clock, i)| async move {
        clock.tick().await;
        (i < n).then_some((i, (clock, i + 1)))
    })
    .map(move |i| {
        text += &format!("tok{} ", i % 1000);
        Ok(text.clone())
    })
}

/// Who has logged in.
async fn whoami((): (), context: EventContext) -> Result<Option<String>, UserError> {
    Ok(context.user().map(String::from))
}

/// The longest file that may be uploaded, in bytes.
const MAX_FILE_SIZE: u64 = 1024 * 1024;

/// How long running events may go on when the server is stopped, in seconds. Tests set another.
const GRACE: u64 = 5;

/// Behind the nine, whose numbers are known to everybody who tests against them.
fn more(queue: QueueBuilder) -> QueueBuilder {
    queue
        .listener(kept(Listener::new("repeat", repeat)).description("Says it again."))
        .listener(kept(Listener::stream("chat", chat)))
        .listener(kept(Listener::new("boom", boom)))
        .listener(kept(Listener::new("swap", swap)))
        .listener(kept(Listener::new("nothing", nothing)))
        .listener(Listener::new("quick", echo).queue(false))
        .listener(Listener::new("quick_fail", fail).queue(false))
        .listener(kept(Listener::new("narrow", sleepy)).max_size(1))
        .listener(kept(Listener::new("checked", repeat)).validator(check))
        .listener(kept(Listener::new("cached", tick)).cache(100))
        .listener(kept(Listener::new("remember", remember)))
        .listener(kept(Listener::new("hidden", echo)).api_visibility(ApiVisibility::Undocumented))
        .listener(kept(Listener::new("secret", echo)).api_visibility(ApiVisibility::Private))
        .listener(kept(Listener::blocking("shout", shout)))
        .listener(kept(Listener::new("list", list)))
        .listener(kept(Listener::stream("pages", pages)))
        .listener(kept(Listener::stream("tokens", tokens)).concurrency_limit(None))
}

/// The name of the cluster of one of its queues.
fn cluster_name(values: &Values, of: &str) -> String {
    let name = values.get(cluster::NAME.name).map_or("conformance", String::as_str);
    format!("{name}{of}")
}

/// Durable, where this is one of several nodes.
fn of_node<I, O>(values: &Values, listener: Listener<I, O>) -> Listener<I, O>
where
    I: ListenerInput + Serialize,
    O: ListenerOutput + DeserializeOwned,
{
    if cluster::is_node(values) { listener.durable() } else { listener }
}

/// For those who log in.
async fn private(values: &Values) -> std::io::Result<Web> {
    let queue = Queue::builder()
        .listener(of_node(values, Listener::new("whoami", whoami)))
        .listener(of_node(values, Listener::blocking("shout", shout)))
        .listener(of_node(values, Listener::new("remember", remember)))
        .listener(of_node(values, Listener::new("for_bob", echo)).allow(|user| user == Some("bob")))
        .listener(
            Listener::new("for_bob_at_once", echo).queue(false).allow(|user| user == Some("bob")),
        );
    let queue = cluster::join(queue, values, &cluster_name(values, "-private"))
        .await?
        .start()
        .map_err(std::io::Error::other)?;
    let web = Web::builder(&queue)
        .auth(Users::new().user("alice", "open sesame"))
        .auth_message("Members only.");
    web.start().map_err(std::io::Error::other)
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("warn")).init();
    let options = [JOURNAL, cluster::NATS, cluster::NODE, cluster::NAME, cluster::FILES];
    let (address, values) = Address::with_options("conformance", 7861, &options);
    RECORDS.get_or_init(|| values.contains_key(JOURNAL.name) || cluster::is_node(&values));
    let nine = Queue::builder()
        .listener(kept(Listener::new("echo", echo)).concurrency_limit(None))
        .listener(kept(Listener::new("echo1", echo_after_a_millisecond)))
        .listener(kept(Listener::new("sleepy", sleepy)).concurrency_limit(8))
        .listener(kept(Listener::stream("count", count)).concurrency_limit(4))
        .listener(kept(Listener::new("fail", fail)))
        .listener(kept(Listener::new("prog", prog)).concurrency_limit(1))
        .listener(generator("gen1").concurrency_limit(2))
        .listener(generator("gen2"))
        .listener(generator("gen3"));
    let queue = recorded(more(nine), &values)
        .await
        .and_then(|queue| queue.start().map_err(std::io::Error::other))
        .unwrap_or_else(|error| Address::fail("conformance", &error));
    let mut builder = Web::builder(&queue).max_file_size(MAX_FILE_SIZE);
    // For tests of what is there after a crash.
    if let Ok(directory) = std::env::var("CONFORMANCE_CACHE_DIR") {
        builder = builder.cache_dir(directory);
    }
    let public = builder.start().map_err(std::io::Error::other)?;
    let private = private(&values).await?;
    let served = public.clone();
    let server = http_server(move || {
        App::new()
            .service(web::scope("/app").configure(served.routes()))
            .service(web::scope("/private").configure(private.routes()))
            .configure(served.routes())
    })
    // The heartbeats of the private queue don't keep a stopped server.
    .shutdown_timeout(1)
    .bind(address.pair())
    .unwrap_or_else(|error| address.refused("conformance", &error));
    println!("conformance listens on http://{}", server.addrs()[0]);
    let grace = std::env::var("CONFORMANCE_GRACE").ok().and_then(|seconds| seconds.parse().ok());
    public.serve(server.run(), Duration::from_secs(grace.unwrap_or(GRACE))).await
}

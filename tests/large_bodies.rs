//! Bodies as large as they may be: what they take in memory, and who reads them.
#![cfg(feature = "web")]

mod common;

use std::sync::{Mutex, PoisonError};
use std::thread::ThreadId;

use common::Server;
use now_serving::{Listener, Queue};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

#[global_allocator]
static MEMORY: cap::Cap<std::alloc::System> = cap::Cap::new(std::alloc::System, usize::MAX);

/// What one test takes is not to be counted in another.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Long enough that what any input may take counts little.
const LONG: usize = 4 * 1024 * 1024 - 256;

/// As long as a body may be, and a little less.
const LONGEST: usize = 16 * 1024 * 1024 - 256;

#[derive(Deserialize, JsonSchema)]
struct Prompt {
    #[allow(dead_code)]
    text: String,
    steps: Option<u8>,
}

#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)]
struct Points {
    #[serde(default)]
    points: Vec<f64>,
    name: Option<String>,
}

fn queue() -> Queue {
    Queue::builder()
        .listener(Listener::new("tree", async |_: Value| Ok::<_, String>("fine")))
        .listener(Listener::new("kept", async |_: Value| Ok::<_, String>("fine")).cache(10))
        .listener(Listener::new("nested", async |_: Vec<Vec<u8>>| Ok::<_, String>("fine")))
        .listener(Listener::new("numbers", async |all: Vec<f64>| Ok::<_, String>(all.len())))
        .listener(Listener::new("pixels", async |all: Vec<u8>| Ok::<_, String>(all.len())))
        .listener(Listener::new("texts", async |all: Vec<String>| Ok::<_, String>(all.len())))
        .listener(Listener::new("records", async |_: Vec<Points>| Ok::<_, String>("fine")))
        .listener(Listener::new("prompt", async |p: Prompt| Ok::<_, String>(p.steps)))
        .listener(Listener::new("text", async |text: String| Ok::<_, String>(text.len())))
        .start()
        .unwrap()
}

/// Sends a body of so many bytes without ever having all of it: a beginning, as many pieces as there
/// is room for, an end. Gives the status and the answer.
async fn send(server: &Server, path: &str, parts: [&str; 3], length: usize) -> (u16, Value) {
    let [begin, piece, end] = parts;
    let pieces = (length - begin.len() - end.len()) / piece.len();
    let length = begin.len() + pieces * piece.len() + end.len();
    let address = server.base.strip_prefix("http://").unwrap();
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{begin}"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    let many = 32 * 1024 / piece.len();
    let chunk = piece.repeat(many);
    for _ in 0..pieces / many {
        socket.write_all(chunk.as_bytes()).await.unwrap();
    }
    socket.write_all(piece.repeat(pieces % many).as_bytes()).await.unwrap();
    socket.write_all(end.as_bytes()).await.unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, serde_json::from_str(body).unwrap_or_default())
}

/// The allocator counts the peak of the process, so that the longest body comes
/// last.
#[actix::test]
async fn no_body_takes_more_than_four_times_its_length() {
    let _alone = ALONE.lock().await;
    let queue = queue();
    let server = Server::start(&queue);
    let small = server.post("/gradio_api/run/numbers", json!({"data": [[1, 2]]})).await;
    assert_eq!(small.1["data"], json!([2]));
    let before = MEMORY.allocated();
    let list = |piece, last| ["{\"data\":[[", piece, last];
    let cases = [
        ("run/tree", list("[0],", "[0]]]}"), 413),
        ("run/kept", list("[0],", "[0]]]}"), 413),
        ("run/tree", list("0,", "0]]}"), 413),
        ("run/tree", list("{\"\":0},", "{}]]}"), 413),
        ("run/nested", list("[0],", "[0]]]}"), 413),
        ("run/records", list("{},", "{}]]}"), 413),
        ("run/texts", list("\"\",", "\"\"]]}"), 413),
        // Numbers as clients write them, and bytes one by one.
        ("run/numbers", list("-0.0123456789,", "1]]}"), 200),
        ("run/numbers", list("0.5,", "1]]}"), 200),
        ("run/pixels", list("255,", "0]]}"), 200),
        ("run/texts", list("\"twenty letters or so\",", "\"\"]]}"), 200),
        ("run/text", ["{\"data\":[\"", "x", "\"]}"], 200),
        ("run/text", ["{\"data\":[\"", "x\\n", "\"]}"], 200),
        // Skipped.
        ("call/prompt", ["{\"x\":[", "[0],", "0],\"data\":[\"a\"]}"], 200),
        ("call/prompt", list("[0],", "[0]],1,2]}"), 422),
        ("call/prompt", ["{\"data\":[\"a\",", "0,", "0]}"], 422),
        ("call/v2/prompt", ["{\"text\":\"a\",\"", "x", "\":1}"], 422),
        ("call/v2/prompt", ["{\"text\":\"a\"", ",\"\":0", "}"], 422),
        ("call/v2/prompt", ["{\"text\":\"a\"", ",\"steps\":1", "}"], 200),
        // Wrong, and not to be repeated in the answer.
        ("run/prompt", ["{\"data\":[\"a\",\"", "\u{7f}", "\"]}"], 422),
        ("run/text", ["{\"data\":[[\"", "\u{7f}", "\"]]}"], 422),
        ("queue/join", ["{\"fn_index\":\"", "\u{7f}", "\"}"], 422),
        ("queue/join", ["", "[", ""], 422),
        ("run/text", ["{\"data\":[", "[", "]}"], 422),
        ("run/text", ["{\"data\":[\"a\"],\"x\":", "{\"a\":", "}"], 422),
        ("run/text", ["{\"data\":[\"", "\u{fc}", ""], 422),
    ];
    let cases = cases.map(|(path, parts, expected)| (path, parts, LONG, expected));
    let longest = [("run/tree", list("[0],", "[0]]]}"), LONGEST, 413)];
    for (path, parts, length, expected) in cases.into_iter().chain(longest) {
        let shown = format!("{path} {parts:?}");
        let (status, answer) = send(&server, &format!("/gradio_api/{path}"), parts, length).await;
        let text = answer.to_string();
        assert_eq!(status, expected, "{shown}: {}", &text[..text.len().min(300)]);
        assert!(text.len() < 5000, "{shown}: an answer of {} bytes", text.len());
        let peak = (MEMORY.max_allocated() - before) as f64 / length as f64;
        assert!(peak <= 4.0, "{shown}: {peak:.1} times the body");
    }
}

static READERS: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());
static DROPPERS: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());

fn note(threads: &Mutex<Vec<ThreadId>>) {
    threads.lock().unwrap_or_else(PoisonError::into_inner).push(std::thread::current().id());
}

fn noted(threads: &Mutex<Vec<ThreadId>>) -> Vec<ThreadId> {
    std::mem::take(&mut threads.lock().unwrap_or_else(PoisonError::into_inner))
}

/// A text that remembers who has read and who has dropped it.
#[derive(JsonSchema)]
#[allow(dead_code)]
struct Watched(String);

impl<'de> Deserialize<'de> for Watched {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        note(&READERS);
        String::deserialize(deserializer).map(Watched)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        note(&DROPPERS);
    }
}

#[actix::test]
async fn a_large_input_is_read_and_dropped_by_no_worker() {
    let _alone = ALONE.lock().await;
    let listener = Listener::new("watch", async |_: Watched| Ok::<_, String>("fine")).cache(10);
    let queue = Queue::builder().listener(listener).start().unwrap();
    let server = Server::start(&queue);
    let run = async |text: String| {
        let (_, answer) = server.post("/gradio_api/run/watch", json!({ "data": [text] })).await;
        assert_eq!(answer["data"], json!(["fine"]));
    };
    // There is one worker. A result that is kept leaves the input with it.
    run("short".into()).await;
    run("short".into()).await;
    let worker = noted(&READERS)[0];
    assert_eq!(noted(&DROPPERS).last(), Some(&worker));
    let long = "long".repeat(100_000);
    run(long.clone()).await;
    run(long).await;
    let readers = noted(&READERS);
    assert!(readers.len() == 2 && !readers.contains(&worker), "{readers:?} {worker:?}");
    let mut droppers = noted(&DROPPERS);
    while droppers.len() < 2 {
        tokio::task::yield_now().await;
        droppers.extend(noted(&DROPPERS));
    }
    assert!(!droppers.contains(&worker), "{droppers:?} {worker:?}");
}

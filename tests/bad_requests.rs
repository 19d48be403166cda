//! Whatever comes in, nothing breaks: no 500, no panic, no hang, and the next request is answered.
//!
//! `BAD_REQUESTS=100000` sends more; `BAD_REQUESTS_SEED=7` sends others.
#![cfg(feature = "web")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::test::{TestRequest, call_service, init_service};
use actix_web::{App, HttpServer, body::MessageBody};
use bytes::Bytes;
use now_serving::{FileData, Listener, Queue, State, Users, Web};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

#[derive(Deserialize, JsonSchema)]
#[allow(dead_code)]
struct Prompt {
    text: String,
    #[serde(default)]
    steps: u8,
    file: Option<FileData>,
    nested: Option<Box<Prompt>>,
}

fn queue(auth: bool) -> (Queue, Web) {
    let queue = Queue::builder()
        .max_size(1000)
        .listener(Listener::new("prompt", async |_: Prompt| Ok::<_, String>("fine")))
        .listener(Listener::new("pair", async |pair: (u8, String)| Ok::<_, String>(pair)))
        .listener(Listener::new("count", async |_: Value, state: State<u64>| {
            Ok::<_, String>(state.update(|n| {
                *n += 1;
                *n
            }))
        }))
        .listener(Listener::new("quick", async |x: Option<f64>| Ok::<_, String>(x)).queue(false))
        .listener(Listener::new("cached", async |x: Vec<i64>| Ok::<_, String>(x)).cache(8))
        .start()
        .unwrap();
    let builder = Web::builder(&queue).max_file_size(2000).max_sessions(50_000);
    let builder = if auth { builder.auth(Users::new().user("a", "b")) } else { builder };
    let web = builder.start().unwrap();
    (queue, web)
}

/// A request before it is sent.
#[derive(Clone, Debug)]
struct Bad {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, Vec<u8>)>,
    body: Vec<u8>,
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        Just(json!({"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}})),
        Just(json!("00000000000000000000000000000000")),
    ];
    let key =
        select(&["data", "fn_index", "session_hash", "event_id", "text", "steps", "path", "x"][..]);
    leaf.prop_recursive(6, 40, 6, move |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(Value::from),
            vec((key.clone(), inner), 0..5)
                .prop_map(|fields| fields.into_iter().map(|(k, v)| (k.to_string(), v)).collect()),
        ]
    })
}

/// Something like what the routes expect.
fn nearly_right() -> impl Strategy<Value = Value> {
    let data = vec(json_value(), 0..4);
    let index = prop_oneof![(0..7u64).prop_map(Value::from), json_value()];
    let hash = prop_oneof!["[a-c]{1,2}".prop_map(Value::from), json_value()];
    (data, index, hash, json_value()).prop_map(|(data, fn_index, session_hash, event_id)| {
        json!({"data": data, "fn_index": fn_index, "session_hash": session_hash, "event_id": event_id})
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let text = prop_oneof![nearly_right(), json_value()].prop_map(|value| value.to_string());
    prop_oneof![
        6 => text.clone().prop_map(String::into_bytes),
        // Cut off somewhere.
        2 => (text.clone(), any::<prop::sample::Index>()).prop_map(|(text, at)| {
            let bytes = text.into_bytes();
            bytes[..at.index(bytes.len())].to_vec()
        }),
        // A byte that is none of UTF-8.
        1 => (text, any::<prop::sample::Index>(), any::<u8>()).prop_map(|(text, at, byte)| {
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes
        }),
        1 => (1..5000usize, select(&[b'[', b'{', b'"', b'9'][..])).prop_map(|(n, byte)| vec![byte; n]),
        1 => (0..400u32).prop_map(|n| format!("{{\"fn_index\": 1e{n}, \"data\": [-1e-{n}]}}").into_bytes()),
        1 => vec(any::<u8>(), 0..300),
        1 => multipart(),
        1 => Just(b"username=a&password=b".to_vec()),
    ]
}

fn multipart() -> impl Strategy<Value = Vec<u8>> {
    let part = ("[a-z\"\\\\;/.%\u{e9}]{0,12}", vec(any::<u8>(), 0..3000), any::<bool>());
    (vec(part, 0..3), any::<bool>()).prop_map(|(parts, whole)| {
        let mut body = Vec::new();
        for (name, content, right) in parts {
            let field = if right { "files" } else { "file" };
            let head = format!(
                "--b\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{name}\"\r\n\r\n"
            );
            body.extend_from_slice(head.as_bytes());
            body.extend_from_slice(&content);
            body.extend_from_slice(b"\r\n");
        }
        if whole {
            body.extend_from_slice(b"--b--\r\n");
        }
        body
    })
}

fn path() -> impl Strategy<Value = String> {
    let route = select(
        &[
            "/config",
            "/login",
            "/logout",
            "/gradio_api/info",
            "/gradio_api/openapi.json",
            "/gradio_api/app_id",
            "/gradio_api/queue/join",
            "/gradio_api/queue/data",
            "/gradio_api/queue/status",
            "/gradio_api/cancel",
            "/gradio_api/reset",
            "/gradio_api/upload",
            "/gradio_api/upload_progress",
            "/gradio_api/heartbeat/",
            "/gradio_api/call/",
            "/gradio_api/call/v2/",
            "/gradio_api/run/",
            "/gradio_api/file=",
            "/gradio_api/",
        ][..],
    );
    let tail = prop_oneof![
        4 => Just(String::new()),
        3 => select(&["prompt", "pair", "count", "quick", "cached", "nobody"][..]).prop_map(String::from),
        1 => "[a-f0-9]{32}(/[a-z.]{1,8})?",
        1 => "[a-z0-9/%.=~-]{0,20}",
        1 => "(%[0-9a-f]{2}){1,8}",
        1 => Just("..%2f..%2f..%2fetc/passwd".to_string()),
    ];
    let query = prop_oneof![
        3 => Just(String::new()),
        2 => "\\?session_hash=[a-c]{1,2}(&last_event_id=[0-9]{1,25})?",
        1 => "\\?(upload_id|session_hash|last_event_id|all_session)=[a-z0-9%&=+-]{0,20}",
    ];
    (route, tail, query).prop_map(|(route, tail, query)| format!("{route}{tail}{query}"))
}

fn headers() -> impl Strategy<Value = Vec<(&'static str, Vec<u8>)>> {
    const KINDS: [&[u8]; 7] = [
        b"application/json",
        b"text/plain",
        b"multipart/form-data; boundary=b",
        b"multipart/form-data",
        b"application/x-www-form-urlencoded",
        b"\xff\xfe",
        b"",
    ];
    let kind = select(&KINDS[..]);
    let name = select(
        &[
            "accept",
            "cookie",
            "origin",
            "host",
            "range",
            "last-event-id",
            "sec-fetch-site",
            "x-forwarded-host",
            "x-forwarded-prefix",
            "x-forwarded-proto",
            "forwarded",
            "if-none-match",
            "if-modified-since",
        ][..],
    );
    let printable = vec(prop_oneof![9 => 0x20..0x7fu8, 1 => 0x80..=0xffu8], 0..40);
    let value = prop_oneof![
        3 => printable,
        1 => Just(b"text/event-stream".to_vec()),
        1 => Just(b"bytes=5-2,-,9999999999999999999-".to_vec()),
        1 => Just(b"99999999999999999999999".to_vec()),
    ];
    (proptest::option::of(kind), vec((name, value), 0..3)).prop_map(|(kind, others)| {
        let kind = kind.map(|kind| ("content-type", kind.to_vec()));
        kind.into_iter().chain(others).collect()
    })
}

fn bad() -> impl Strategy<Value = Bad> {
    let method = prop_oneof![
        6 => Just("POST"),
        4 => Just("GET"),
        1 => select(&["HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "BREW"][..]),
    ];
    (method, path(), headers(), body()).prop_map(|(method, path, headers, body)| Bad {
        method,
        path,
        headers,
        body,
    })
}

/// Counts every panic of the process; none is expected.
static PANICS: AtomicUsize = AtomicUsize::new(0);

fn count_panics() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        PANICS.fetch_add(1, Ordering::SeqCst);
        hook(info);
    }));
}

fn runner() -> TestRunner {
    let seed = std::env::var("BAD_REQUESTS_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or(1);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
}

fn number() -> usize {
    std::env::var("BAD_REQUESTS").ok().and_then(|number| number.parse().ok()).unwrap_or(20_000)
}

const TIMEOUT: Duration = Duration::from_secs(60);

/// Reads what there is of a body; a stream without an end is left.
async fn read(body: impl MessageBody) -> Vec<u8> {
    let mut body = std::pin::pin!(body);
    let mut all = Vec::new();
    while let Ok(Some(chunk)) =
        timeout(Duration::from_millis(1), std::future::poll_fn(|cx| body.as_mut().poll_next(cx)))
            .await
    {
        let chunk: Bytes = chunk.unwrap_or_default();
        all.extend_from_slice(&chunk);
    }
    all
}

#[actix_web::test]
async fn requests_of_all_kinds_are_answered() {
    count_panics();
    let mut runner = runner();
    let strategy = bad();
    let mut seen = std::collections::BTreeMap::new();
    for auth in [false, true] {
        let (queue, routes) = queue(auth);
        let app = init_service(App::new().configure(routes.routes())).await;
        // With a login, nearly everything ends there.
        let number = if auth { number() / 10 } else { number() };
        for _ in 0..number {
            let request = strategy.new_tree(&mut runner).unwrap().current();
            let shown = format!("{request:?}");
            let Ok(uri) = request.path.parse::<actix_web::http::Uri>() else { continue };
            let mut sent = TestRequest::with_uri(&uri.to_string())
                .method(Method::from_bytes(request.method.as_bytes()).unwrap())
                .set_payload(request.body);
            for (name, value) in request.headers {
                let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
                sent = sent.append_header((HeaderName::from_static(name), value));
            }
            let answer = timeout(TIMEOUT, call_service(&app, sent.to_request())).await;
            let answer = answer.unwrap_or_else(|_| panic!("no answer: {shown}"));
            let status = answer.status();
            assert_ne!(status.as_u16(), 500, "{shown}");
            *seen.entry(status.as_u16()).or_insert(0) += 1;
            if status.is_client_error() {
                // Nothing that a browser would take for more than text.
                let kind = answer.headers().get("content-type");
                let kind = kind.map_or("", |kind| kind.to_str().unwrap()).to_string();
                assert!(kind.is_empty() || !kind.contains("html"), "{kind}: {shown}");
            }
            read(answer.into_body()).await;
            assert_eq!(PANICS.load(Ordering::SeqCst), 0, "{shown}");
        }
        // It still works.
        assert_eq!(queue.call("quick", Some(1.5)).await, Ok(Some(1.5)));
        let snapshot = queue.snapshot().await;
        for id in &snapshot.concurrency_ids {
            let stopped = |l: &now_serving::ListenerSnapshot| {
                l.completed + l.failed + l.cancelled + l.timed_out + l.stopped
            };
            let open: u64 = id.listeners.iter().map(|l| l.admitted - stopped(l)).sum();
            assert_eq!(open, (id.waiting + id.running) as u64, "{}", id.concurrency_id);
        }
    }
    // The requests are of many kinds, or this has shown little.
    for status in [200, 401, 400, 404, 405, 413, 422] {
        assert!(seen.get(&status).is_some_and(|seen| *seen > 0), "no {status}: {seen:?}");
    }
}

#[actix_web::test]
async fn what_is_no_http_harms_nobody() {
    count_panics();
    let (queue, routes) = queue(false);
    let server = HttpServer::new(move || App::new().configure(routes.routes()))
        .workers(1)
        .disable_signals()
        .h1_allow_half_closed(false)
        .bind(("127.0.0.1", 0))
        .unwrap();
    let address = server.addrs()[0];
    let running = server.run();
    let handle = running.handle();
    actix_web::rt::spawn(running);
    let mut runner = runner();
    let strategy = (bad(), any::<prop::sample::Index>(), any::<u8>(), any::<bool>());
    for _ in 0..number() / 20 {
        let (request, at, byte, cut) = strategy.new_tree(&mut runner).unwrap().current();
        let shown = format!("{request:?} {byte} {cut}");
        let mut raw =
            format!("{} {} HTTP/1.1\r\nhost: a\r\n", request.method, request.path).into_bytes();
        for (name, value) in &request.headers {
            raw.extend_from_slice(name.as_bytes());
            raw.extend_from_slice(b": ");
            raw.extend_from_slice(value);
            raw.extend_from_slice(b"\r\n");
        }
        raw.extend_from_slice(format!("content-length: {}\r\n\r\n", request.body.len()).as_bytes());
        raw.extend_from_slice(&request.body);
        let at = at.index(raw.len());
        if cut {
            raw.truncate(at);
        } else {
            raw[at] = byte;
        }
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        // The server may have hung up already.
        let _ = socket.write_all(&raw).await;
        let _ = socket.shutdown().await;
        let mut answer = vec![0; 64];
        let read = timeout(TIMEOUT, socket.read(&mut answer)).await;
        let read = read.unwrap_or_else(|_| panic!("no answer, and no end: {shown}")).unwrap_or(0);
        let answer = String::from_utf8_lossy(&answer[..read]);
        assert!(!answer.starts_with("HTTP/1.1 500"), "{answer}: {shown}");
    }
    assert_eq!(queue.call("quick", Some(1.5)).await, Ok(Some(1.5)));
    let mut answer = awc::Client::default()
        .get(format!("http://{address}/gradio_api/queue/status"))
        .send()
        .await
        .unwrap();
    assert!(answer.status().is_success());
    answer.body().await.unwrap();
    assert_eq!(PANICS.load(Ordering::SeqCst), 0);
    handle.stop(false).await;
}

//! Files in and out: uploads, files as inputs and outputs, and how they are served.
#![cfg(feature = "web")]

mod common;

use std::path::Path;
use std::time::Duration;

use awc::Client;
use awc::http::StatusCode;
use common::Server;
use now_serving::{EventContext, FileData, Files, Listener, Queue, QueueBuilder, Web, WebError};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

#[derive(Deserialize, JsonSchema)]
struct Document {
    /// Any text.
    text: FileData,
    /// More of it.
    #[serde(default)]
    more: Vec<FileData>,
}

#[derive(Serialize, JsonSchema)]
struct Loud {
    file: FileData,
    bytes: usize,
}

fn shout(document: Document, context: EventContext) -> std::io::Result<Loud> {
    let mut text = std::fs::read_to_string(document.text.path())?;
    for file in &document.more {
        text += &std::fs::read_to_string(file.path())?;
    }
    let file = context.files().save(document.text.name(), text.to_uppercase())?;
    Ok(Loud { bytes: text.len(), file })
}

/// A file may be all that a listener takes.
fn reverse(text: FileData, context: EventContext) -> std::io::Result<FileData> {
    let text: String = std::fs::read_to_string(text.path())?.chars().rev().collect();
    context.files().save("reversed.txt", text)
}

fn builder() -> QueueBuilder {
    Queue::builder()
        .listener(Listener::blocking("shout", shout))
        .listener(Listener::blocking("reverse", reverse))
}

/// An answer, whole.
struct Answer {
    status: StatusCode,
    headers: awc::http::header::HeaderMap,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| self.text().into())
    }

    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

async fn send(request: awc::ClientRequest, body: Vec<u8>) -> Answer {
    let mut response = request.timeout(Duration::from_secs(60)).send_body(body).await.unwrap();
    let body = response.body().limit(64 << 20).await.unwrap().to_vec();
    Answer { status: response.status(), headers: response.headers().clone(), body }
}

async fn get(url: &str) -> Answer {
    send(Client::default().get(url), Vec::new()).await
}

const BOUNDARY: &str = "------------------------a-boundary";

/// A form with one part for each field's name, file name and content.
fn form(parts: &[(&str, &str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (field, name, content) in parts {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{field}\"; \
             filename=\"{name}\"\r\nContent-Type: application/octet-stream\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    body
}

async fn upload_to(server: &Server, path: &str, parts: &[(&str, &str, &[u8])]) -> Answer {
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let request = Client::default().post(server.url(path)).insert_header(("content-type", kind));
    send(request, form(parts)).await
}

async fn upload(server: &Server, name: &str, content: &[u8]) -> String {
    let answer = upload_to(server, "/gradio_api/upload", &[("files", name, content)]).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    answer.json()[0].as_str().unwrap().to_string()
}

fn file(path: &str) -> Value {
    json!({ "path": path, "meta": { "_type": "gradio.FileData" } })
}

/// The output of a run.
async fn run(server: &Server, data: Value) -> (StatusCode, Value) {
    server.post("/gradio_api/run/shout", json!({ "data": data })).await
}

/// Every file below a directory.
fn files_below(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files_below(&entry.path())),
            false => found.push(entry.path().display().to_string()),
        }
    }
    found
}

#[actix::test]
async fn a_file_comes_in_and_another_goes_out() {
    let queue = builder().start().unwrap();
    let server = Server::start(&queue);
    let path = upload(&server, "a b.txt", b"fox").await;
    let more = upload(&server, "c.txt", b" and hare").await;
    let (status, answer) = run(&server, json!([file(&path), [file(&more)]])).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let loud = &answer["data"][0];
    assert_eq!(loud["bytes"], 12);
    let made = &loud["file"];
    for (key, value) in [
        ("orig_name", json!("a b.txt")),
        ("mime_type", json!("text/plain")),
        ("size", json!(12)),
        ("is_stream", json!(false)),
        ("meta", json!({ "_type": "gradio.FileData" })),
    ] {
        assert_eq!(made[key], value, "{made}");
    }
    let url = made["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("{}/gradio_api/file=", server.base)), "{url}");
    let answer = get(url).await;
    assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "FOX AND HARE"));
    assert_eq!(answer.header("content-type"), "text/plain; charset=utf-8");
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    // Gradio's Python client requests it by the path.
    let by_path = format!("/gradio_api/file={}", made["path"].as_str().unwrap());
    assert_eq!(get(&server.url(&by_path.replace(' ', "%20"))).await.text(), "FOX AND HARE");
    // What we gave may be given back, by its path or its URL.
    for path in [made["path"].as_str().unwrap(), url] {
        let (status, answer) = run(&server, json!([file(path)])).await;
        assert_eq!((status, &answer["data"][0]["bytes"]), (StatusCode::OK, &json!(12)));
    }
}

#[actix::test]
async fn a_file_may_be_the_whole_input_and_the_whole_output() {
    let queue = builder().start().unwrap();
    let server = Server::start(&queue);
    let path = upload(&server, "a.txt", b"fox").await;
    let body = json!({ "data": [file(&path)] });
    let (status, answer) = server.post("/gradio_api/run/reverse", body).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(get(answer["data"][0]["url"].as_str().unwrap()).await.text(), "xof");
    let info = server.get("/gradio_api/info").await;
    let parameters = info["named_endpoints"]["/reverse"]["parameters"].as_array().unwrap();
    assert_eq!((parameters.len(), &parameters[0]["python_type"]["type"]), (1, &json!("filepath")));
    // What upload answered is a path, not a file.
    let (_, answer) = server.post("/gradio_api/run/reverse", json!({ "data": [path] })).await;
    let message = answer["detail"][0]["msg"].as_str().unwrap();
    assert!(
        message.contains("expected a file: an object whose path is what the upload"),
        "{message}"
    );
}

#[actix::test]
async fn urls_are_those_that_the_client_can_reach() {
    let web = Web::new(&builder().start().unwrap());
    let server = Server::with(move |config| {
        config.service(actix_web::web::scope("/app").configure(web.routes()))
    });
    let answer = upload_to(&server, "/app/gradio_api/upload", &[("files", "a.txt", b"a")]).await;
    let body = json!({ "data": [file(answer.json()[0].as_str().unwrap())] });
    let (_, answer) = server.post("/app/gradio_api/run/shout", body.clone()).await;
    let url = answer["data"][0]["file"]["url"].as_str().unwrap();
    assert!(url.starts_with(&format!("{}/app/gradio_api/file=", server.base)), "{url}");
    assert_eq!(get(url).await.text(), "A");
    let request = Client::default()
        .post(server.url("/app/gradio_api/run/shout"))
        .insert_header(("x-forwarded-host", "example.org"))
        .insert_header(("x-forwarded-proto", "https"))
        .insert_header(("x-forwarded-prefix", "/deep"));
    let answer = send(request, body.to_string().into_bytes()).await.json();
    let url = answer["data"][0]["file"]["url"].as_str().unwrap();
    assert!(url.starts_with("https://example.org/deep/app/gradio_api/file="), "{url}");
}

#[actix::test]
async fn the_session_s_stream_names_files_too() {
    let queue = builder().start().unwrap();
    let server = Server::start(&queue);
    let path = upload(&server, "a.txt", b"fox").await;
    server.join("s", 0, json!([file(&path)])).await;
    let messages = server.session("s").await.until("process_completed").await;
    let made = &messages[messages.len() - 1]["output"]["data"][0]["file"];
    assert_eq!(get(made["url"].as_str().unwrap()).await.text(), "FOX");
}

#[actix::test]
async fn parts_of_a_file_can_be_asked_for() {
    let queue = builder().start().unwrap();
    let server = Server::start(&queue);
    let path = upload(&server, "digits.txt", b"0123456789").await;
    let url = server.url(&format!("/gradio_api/file={path}"));
    let whole = get(&url).await;
    assert_eq!(whole.header("accept-ranges"), "bytes");
    let part = |range: &'static str| {
        let request = Client::default().get(&url).insert_header(("range", range));
        send(request, Vec::new())
    };
    for (range, text, message) in [
        ("bytes=2-4", "234", "bytes 2-4/10"),
        ("bytes=7-", "789", "bytes 7-9/10"),
        ("bytes=-2", "89", "bytes 8-9/10"),
    ] {
        let answer = part(range).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::PARTIAL_CONTENT, text));
        assert_eq!(answer.header("content-range"), message);
    }
    assert_eq!(part("bytes=10-12").await.status, StatusCode::RANGE_NOT_SATISFIABLE);
    let tag = whole.header("etag");
    let request = Client::default().get(&url).insert_header(("if-none-match", tag));
    assert_eq!(send(request, Vec::new()).await.status, StatusCode::NOT_MODIFIED);
    let head = send(Client::default().head(&url), Vec::new()).await;
    assert_eq!((head.status, head.header("content-length")), (StatusCode::OK, "10"));
}

#[actix::test]
async fn nothing_else_of_the_machine_is_served_or_read() {
    let directory = tempfile::tempdir().unwrap();
    let queue = builder().start().unwrap();
    let web = Web::builder(&queue).cache_dir(directory.path().join("cache")).start().unwrap();
    let server = Server::start(&web);
    std::fs::write(directory.path().join("secret.txt"), "secret").unwrap();
    let path = upload(&server, "a.txt", b"a").await;
    let id = path.split('/').next().unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(
        directory.path().join("secret.txt"),
        directory.path().join("cache").join(id).join("link.txt"),
    )
    .unwrap();
    let absolute = directory.path().join("secret.txt").display().to_string();
    for wrong in [
        absolute.as_str(),
        "/etc/passwd",
        "../secret.txt",
        "..%2Fsecret.txt",
        "%2e%2e/secret.txt",
        &format!("{id}/../../secret.txt"),
        &format!("{id}/..%2f..%2fsecret.txt"),
        &format!("{id}/%2e%2e%2f%2e%2e%2fsecret.txt"),
        &format!("{id}/link.txt"),
        &format!("{id}/a.txt%00"),
        &format!("{id}/"),
        id,
        "",
        "file:///etc/passwd",
        "http://127.0.0.1:1/",
    ] {
        let answer = get(&server.url(&format!("/gradio_api/file={wrong}"))).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{wrong}");
        assert_eq!(answer.json(), json!({ "detail": "There is no such file here." }));
        let (status, answer) = run(&server, json!([file(wrong)])).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
        let message = answer["detail"][0]["msg"].as_str().unwrap();
        assert!(message.starts_with("text: there is no such file here; send it to"), "{message}");
    }
}

#[actix::test]
async fn what_a_browser_would_run_is_only_downloaded() {
    let queue = builder().start().unwrap();
    let server = Server::start(&queue);
    for name in ["page.html", "drawing.svg", "code.js"] {
        let path = upload(&server, name, b"<script>alert(1)</script>").await;
        let answer = get(&server.url(&format!("/gradio_api/file={path}"))).await;
        assert_eq!(answer.header("content-type"), "application/octet-stream");
        let disposition = answer.header("content-disposition");
        assert!(disposition.starts_with("attachment"), "{disposition}");
        assert!(disposition.contains(name), "{disposition}");
    }
    // A name is never more than a name.
    let path = upload(&server, "../../x;y<b>.txt", b"a").await;
    assert!(path.ends_with("/xyb.txt"), "{path}");
}

#[actix::test]
async fn a_file_that_is_too_large_is_refused_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let queue = builder().start().unwrap();
    let web = Web::builder(&queue).cache_dir(directory.path()).max_file_size(1000).start().unwrap();
    let server = Server::start(&web);
    assert_eq!(server.get("/config").await["max_file_size"], 1000);
    // More than the server reads out of politeness.
    let huge = vec![b'x'; 20 << 20];
    let answer = upload_to(&server, "/gradio_api/upload", &[("files", "a.txt", &huge)]).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let large = vec![b'x'; 1001];
    let parts: [(&str, &str, &[u8]); 2] = [("files", "a.txt", b"a"), ("files", "b.txt", &large)];
    let answer = upload_to(&server, "/gradio_api/upload", &parts).await;
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let message = answer.json()["detail"].as_str().unwrap().to_string();
    assert_eq!(message, "File size exceeded maximum allowed size of 1000 bytes.");
    // All files of a request, or none.
    assert_eq!(files_below(directory.path()), Vec::<String>::new());
    upload(&server, "b.txt", &large[..1000]).await;
    assert_eq!(files_below(directory.path()).len(), 1);
}

#[actix::test]
async fn files_that_are_too_many_for_the_disk_are_refused() {
    let queue = builder().start().unwrap();
    let web = Web::builder(&queue).max_cache_size(10_000).start().unwrap();
    let server = Server::start(&web);
    upload(&server, "a.txt", &[b'x'; 900]).await;
    let answer =
        upload_to(&server, "/gradio_api/upload", &[("files", "b.txt", &[b'x'; 1100])]).await;
    assert_eq!(answer.status, StatusCode::INSUFFICIENT_STORAGE);
    assert_eq!(answer.json()["detail"], "There is no room for more files; try again later.");
    upload(&server, "c.txt", &[b'x'; 90]).await;
    // Empty ones take room, too.
    let answer = upload_to(&server, "/gradio_api/upload", &[("files", "d.txt", b"")]).await;
    assert_eq!(answer.status, StatusCode::INSUFFICIENT_STORAGE);
}

#[cfg(unix)]
#[actix::test]
async fn files_are_for_the_server_s_own_eyes() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let (own, given) = (builder().start().unwrap(), builder().start().unwrap());
    let given = Web::builder(&given).cache_dir(directory.path().join("cache")).start().unwrap();
    for web in [Web::new(&own), given] {
        let file = web.files().save("a.txt", "a").unwrap();
        for directory in file.path().ancestors().skip(1).take(2) {
            let mode = std::fs::metadata(directory).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", directory.display());
        }
    }
}

#[actix::test]
async fn a_form_that_makes_no_sense_is_refused() {
    let queue = builder().start().unwrap();
    let server = Server::start(&queue);
    let answer = upload_to(&server, "/gradio_api/upload", &[]).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let answer = upload_to(&server, "/gradio_api/upload", &[("other", "a.txt", b"a")]).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text().contains("send files in fields named"), "{}", answer.text());
    let (status, answer) = server.post("/gradio_api/upload", json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{answer}");
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    let request = Client::default().post(server.url("/gradio_api/upload"));
    let whole = form(&[("files", "a.txt", b"a")]);
    let cut = whole[..whole.len() - 30].to_vec();
    let answer = send(request.insert_header(("content-type", kind)), cut).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text());
}

#[actix::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let queue = builder().start().unwrap();
    let web = Web::builder(&queue).cache_dir(directory.path()).start().unwrap();
    let server = Server::start(&web);
    let address = server.base.trim_start_matches("http://").to_string();
    let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let whole = form(&[("files", "a.txt", &[b'x'; 100_000])]);
    let head = format!(
        "POST /gradio_api/upload HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\
         content-type: multipart/form-data; boundary={BOUNDARY}\r\n\r\n",
        whole.len()
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(&whole[..50_000]).await.unwrap();
    until(|| !files_below(directory.path()).is_empty()).await;
    drop(socket);
    until(|| files_below(directory.path()).is_empty()).await;
}

/// Waits for what another thread does to the disk.
async fn until(condition: impl Fn() -> bool) {
    let began = std::time::Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(60), "waited in vain");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[actix::test]
async fn an_upload_can_be_followed() {
    let queue = builder().start().unwrap();
    let server = Server::start(&queue);
    let content = vec![b'x'; 300_000];
    let parts: [(&str, &str, &[u8]); 2] = [("files", "a.txt", &content), ("files", "b.txt", b"b")];
    // Requested before the upload, as browsers do.
    let (answer, events) =
        futures::join!(upload_to(&server, "/gradio_api/upload?upload_id=u1", &parts), async {
            server.stream("/gradio_api/upload_progress?upload_id=u1").await.rest().await
        });
    assert_eq!(answer.status, StatusCode::OK);
    let (last, updates) = events.split_last().unwrap();
    assert_eq!(last.data, json!({ "msg": "done" }));
    let of = |name: &str| -> u64 {
        let own = updates.iter().filter(|update| update.data["orig_name"] == name);
        own.map(|update| update.data["chunk_size"].as_u64().unwrap()).sum()
    };
    assert_eq!((of("a.txt"), of("b.txt")), (300_000, 1));
    let answer = get(&server.url("/gradio_api/upload_progress?upload_id=nobody")).await;
    assert_eq!(
        (answer.status, answer.text().as_str()),
        (StatusCode::NOT_FOUND, "Upload not found")
    );
}

#[actix::test]
async fn old_files_go_but_not_one_that_an_event_needs() {
    let directory = tempfile::tempdir().unwrap();
    let turnstile = now_serving::testing::Turnstile::new();
    let slow = {
        let turnstile = turnstile.clone();
        move |document: Document| {
            let turnstile = turnstile.clone();
            async move {
                turnstile.pass().await;
                std::fs::read_to_string(document.text.path())
            }
        }
    };
    let queue = Queue::builder().listener(Listener::new("slow", slow)).start().unwrap();
    let web = Web::builder(&queue)
        .cache_dir(directory.path())
        .cache_ttl(Duration::from_millis(50))
        .start()
        .unwrap();
    let server = Server::start(&web);
    // Held until the event holds it.
    let held = web.files().save("needed.txt", "needed").unwrap();
    let needed = serde_json::to_value(&held).unwrap()["path"].as_str().unwrap().to_string();
    server.join("s", 0, json!([file(&needed)])).await;
    turnstile.arrived(1).await;
    drop(held);
    let old = upload(&server, "old.txt", b"old").await;
    let there = |path: &str| directory.path().join(path).exists();
    until(|| !there(&old)).await;
    assert!(there(&needed));
    turnstile.open();
    let messages = server.session("s").await.until("process_completed").await;
    assert_eq!(messages[messages.len() - 1]["output"]["data"], json!(["needed"]));
    until(|| !there(&needed)).await;
    let gone = get(&server.url(&format!("/gradio_api/file={needed}"))).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND);
}

#[actix::test]
async fn files_of_a_cache_directory_outlive_the_queue() {
    let directory = tempfile::tempdir().unwrap();
    let start = || {
        let queue = builder().start().unwrap();
        Web::builder(&queue).cache_dir(directory.path()).start().unwrap()
    };
    let path = {
        let web = start();
        upload(&Server::start(&web), "a.txt", b"kept").await
    };
    let web = start();
    let server = Server::start(&web);
    assert_eq!(get(&server.url(&format!("/gradio_api/file={path}"))).await.text(), "kept");
}

#[actix::test]
async fn files_are_made_for_calls_in_process_too() {
    let queue = builder().start().unwrap();
    let text = Files::of(&queue).save("a.txt", "fox").unwrap();
    let loud: Loud =
        queue.call("shout", Document { text: text.clone(), more: vec![text] }).await.unwrap();
    assert_eq!(std::fs::read_to_string(loud.file.path()).unwrap(), "FOXFOX");
    assert_eq!((loud.file.name(), loud.file.mime_type()), ("a.txt", Some("text/plain")));
}

#[actix::test]
async fn info_tells_which_parameters_are_files() {
    let queue = builder().start().unwrap();
    let server = Server::start(&queue);
    let info = server.get("/gradio_api/info").await;
    let shout = &info["named_endpoints"]["/shout"];
    let parameters = shout["parameters"].as_array().unwrap();
    assert_eq!(parameters[0]["python_type"]["type"], "filepath");
    assert_eq!(parameters[1]["python_type"]["type"], "list[filepath]");
    let snippet = shout["code_snippets"]["python"].as_str().unwrap();
    assert!(snippet.contains("text=handle_file("), "{snippet}");
    assert!(snippet.starts_with("from gradio_client import Client, handle_file"), "{snippet}");
}

#[actix::test]
async fn a_directory_that_can_t_be_made_is_told_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let taken = directory.path().join("file");
    std::fs::write(&taken, "").unwrap();
    let queue = builder().start().unwrap();
    let web = Web::builder(&queue).cache_dir(taken.join("cache"));
    let error = web.start().unwrap_err().to_string();
    assert!(error.contains("can't be made or read") && error.contains("take another"), "{error}");
}

#[actix::test]
async fn a_queue_has_its_files_in_one_place() {
    let directory = tempfile::tempdir().unwrap();
    let queue = builder().start().unwrap();
    let first = Web::builder(&queue).cache_dir(directory.path()).start().unwrap();
    let file = first.files().save("a.txt", "fox").unwrap();
    assert!(file.path().starts_with(directory.path()));
    // Another one has the same; a handler too, and it can't be had otherwise any more.
    let server = Server::start(&queue);
    let path = serde_json::to_value(&file).unwrap()["path"].clone();
    let (status, answer) = run(&server, json!([{ "path": path }])).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert_eq!(files_below(directory.path()).len(), 2);
    let late = Web::builder(&queue).cache_ttl(Duration::from_secs(1)).start();
    assert_eq!(late.unwrap_err(), WebError::FilesBegun);
}

#[actix::test]
async fn handlers_make_files_where_there_is_no_web() {
    let queue = builder().start().unwrap();
    let reversed: FileData = {
        let file = Files::of(&queue).save("a.txt", "abc").unwrap();
        queue.call("reverse", file).await.unwrap()
    };
    let root = reversed.path().ancestors().nth(2).unwrap().to_path_buf();
    assert_eq!(std::fs::read_to_string(reversed.path()).unwrap(), "cba");
    drop((queue, reversed));
    until(|| !root.exists()).await;
}

#[actix::test]
async fn an_async_handler_gives_bytes_as_a_file() {
    let bytes: Vec<u8> = (0..=255).collect();
    let made = bytes.clone();
    let paint = move |_: (), context: EventContext| {
        let made = made.clone();
        async move { context.files().save_async("all.bin", made).await }
    };
    let queue = Queue::builder().listener(Listener::new("paint", paint)).start().unwrap();
    let file: FileData = queue.call("paint", ()).await.unwrap();
    assert_eq!((file.name(), file.read().await.unwrap()), ("all.bin", bytes.clone()));
    let server = Server::start(&queue);
    let (_, answer) = server.post("/gradio_api/run/paint", json!({"data": []})).await;
    let url = answer["data"][0]["url"].as_str().unwrap();
    let mut response = awc::Client::default().get(url).send().await.unwrap();
    assert_eq!(response.body().await.unwrap(), bytes);
}

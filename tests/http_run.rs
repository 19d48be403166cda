//! `run/{api_name}`: an event and its result in one request.
#![cfg(feature = "web")]

mod common;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use awc::http::StatusCode;
use common::Server;
use futures::stream;
use now_serving::testing::Turnstile;
use now_serving::{Listener, Queue, Web};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

/// What the library logs as an error.
struct Errors(Mutex<Vec<String>>);

static ERRORS: Errors = Errors(Mutex::new(Vec::new()));

impl log::Log for Errors {
    fn enabled(&self, about: &log::Metadata<'_>) -> bool {
        about.level() == log::Level::Error
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

#[derive(JsonSchema)]
struct NoJson;

impl Serialize for NoJson {
    fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        Err(serde::ser::Error::custom("it is no use"))
    }
}

async fn run(server: &Server, path: &str, body: Value) -> (StatusCode, Value) {
    server.post(&format!("/gradio_api/{path}"), body).await
}

#[actix::test]
async fn an_output_that_is_no_json_is_a_logged_error() {
    log::set_logger(&ERRORS).unwrap();
    log::set_max_level(log::LevelFilter::Error);
    let broken = Listener::new("broken", async |(): ()| Ok::<_, String>(NoJson));
    let boom = Listener::new("boom", async |(): ()| Err::<u32, _>("a secret".to_string()));
    let queue = Queue::builder().listener(broken).listener(boom).start().unwrap();
    let server = Server::start(&queue);
    let hidden = (StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": null }));
    assert_eq!(run(&server, "run/broken", json!({"data": []})).await, hidden);
    let errors = ERRORS.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let reported = errors.iter().any(|e| e.contains("broken") && e.contains("it is no use"));
    assert!(reported, "{errors:?}");
    // All that Gradio sends of an error that isn't meant for clients.
    assert_eq!(run(&server, "run/boom", json!({"data": []})).await, hidden);
}

#[actix::test]
async fn a_shown_error_of_an_output_has_its_text() {
    let broken = Listener::new("broken", async |(): ()| Ok::<_, String>(NoJson));
    let queue = Queue::builder().listener(broken).start().unwrap();
    let web = Web::builder(&queue).show_error(true).start().unwrap();
    let server = Server::start(&web);
    let (status, answer) = run(&server, "run/broken", json!({"data": []})).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(answer["error"].as_str().unwrap().contains("it is no use"), "{answer}");
}

#[actix::test]
async fn its_duration_is_the_run_s_own() {
    const HELD: Duration = Duration::from_millis(200);
    let turnstile = Turnstile::new();
    let queue =
        Queue::builder().listener(Listener::new("wait", turnstile.handler())).start().unwrap();
    let server = Server::start(&queue);
    let body = |n: u32| json!({ "data": [n] });
    let hold = async {
        turnstile.arrived(1).await;
        while queue.snapshot().await.concurrency_ids[0].waiting == 0 {}
        let since = Instant::now();
        while since.elapsed() < HELD {
            tokio::task::yield_now().await;
        }
        let opens = Instant::now();
        turnstile.open();
        opens
    };
    let first = run(&server, "run/wait", body(1));
    let second = async {
        turnstile.arrived(1).await;
        run(&server, "run/wait", body(2)).await
    };
    let (_, (status, second), opens) = futures::join!(first, second, hold);
    let since = opens.elapsed().as_secs_f64();
    assert_eq!(status, StatusCode::OK);
    assert!(second["duration"].as_f64().unwrap() <= since, "{second} {since}");
    // The first was held as long.
    assert!(second["average_duration"].as_f64().unwrap() >= HELD.as_secs_f64(), "{second}");
}

#[actix::test]
async fn a_stream_without_a_value_gives_null_for_each_output() {
    let pair = |_: u32| stream::empty::<Result<(u32, String), String>>();
    let nothing = |_: u32| stream::empty::<Result<(), String>>();
    let queue = Queue::builder()
        .listener(Listener::stream("pair", pair))
        .listener(Listener::stream("nothing", nothing))
        .start()
        .unwrap();
    let server = Server::start(&queue);
    for (fn_index, name, data) in [(0, "pair", json!([null, null])), (1, "nothing", json!([]))] {
        let (_, answer) = run(&server, &format!("run/{name}"), json!({"data": [0]})).await;
        assert_eq!(answer["data"], data);
        server.join("s", fn_index, json!([0])).await;
        let messages = server.session("s").await.until("process_completed").await;
        assert_eq!(messages[messages.len() - 1]["output"]["data"], data);
        let (_, answer) = run(&server, &format!("call/{name}"), json!({"data": [0]})).await;
        let id = answer["event_id"].as_str().unwrap();
        let mut events = server.stream(&format!("/gradio_api/call/{name}/{id}")).await;
        assert_eq!(events.rest().await[0].data, data);
    }
}

#[actix::test]
async fn it_has_gradio_s_other_names() {
    let named = |name: &'static str| {
        Listener::new(name, move |(): ()| async move { Ok::<_, String>(name) })
    };
    let secret = named("secret").api_visibility(now_serving::ApiVisibility::Private);
    let queue = Queue::builder()
        .listener(named("one"))
        .listener(named("other"))
        .listener(secret)
        .start()
        .unwrap();
    let server = Server::start(&queue);
    for (path, body, expected) in [
        ("api/one", json!({"data": []}), Some("one")),
        ("api/other/", json!({"data": []}), Some("other")),
        ("run/predict", json!({"data": [], "fn_index": 1}), Some("other")),
        ("api/predict", json!({"data": [], "fn_index": 0}), Some("one")),
        ("run/predict", json!({"data": []}), None),
        ("run/predict", json!({"data": [], "fn_index": 2}), None),
        ("run/predict", json!({"data": [], "fn_index": 3}), None),
        ("api/secret", json!({"data": []}), None),
    ] {
        let (status, answer) = run(&server, path, body).await;
        match expected {
            Some(name) => assert_eq!(answer["data"], json!([name]), "{path}"),
            None => assert_eq!(status, StatusCode::NOT_FOUND, "{path}: {answer}"),
        }
    }
}

#[actix::test]
async fn a_struct_without_fields_takes_no_argument() {
    #[derive(serde::Deserialize, JsonSchema)]
    struct Empty {}
    let queue = Queue::builder()
        .listener(Listener::new("empty", async |_: Empty| Ok::<_, String>("fine")))
        .start()
        .unwrap();
    let server = Server::start(&queue);
    let (status, answer) = run(&server, "run/empty", json!({"data": []})).await;
    assert_eq!((status, &answer["data"]), (StatusCode::OK, &json!(["fine"])));
    let info = server.get("/gradio_api/info").await;
    assert_eq!(info["named_endpoints"]["/empty"]["parameters"], json!([]));
}

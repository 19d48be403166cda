//! `queue/join`, `queue/data`, `queue/status` and `cancel`, as Gradio's own clients use them.
#![cfg(feature = "web")]

mod common;

use common::Server;
use futures::{Stream, StreamExt, stream};
use now_serving::testing::Turnstile;
use now_serving::{EventContext, Listener, Queue, UserError, Web};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize, JsonSchema)]
struct Add {
    a: u32,
    #[serde(default)]
    b: u32,
}

async fn add(Add { a, b }: Add) -> Result<u32, String> {
    Ok(a + b)
}

fn count(n: u32) -> impl Stream<Item = Result<String, String>> {
    stream::iter((0..n).map(|i| Ok(i.to_string().repeat(3))))
}

async fn fail(kind: String) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    match kind.as_str() {
        "user" => Err(UserError::new("no good").into()),
        _ => Err("a secret".into()),
    }
}

async fn talk(x: String, context: EventContext) -> Result<String, String> {
    context.progress(0.33, "step 0");
    context.info("done it");
    Ok(x)
}

fn queue(turnstile: &Turnstile) -> Queue {
    Queue::builder()
        .listener(Listener::new("wait", turnstile.handler()))
        .listener(Listener::new("add", add))
        .listener(Listener::stream("count", count))
        .listener(Listener::new("fail", fail))
        .listener(Listener::new("talk", talk))
        .start()
        .unwrap()
}

const WAIT: usize = 0;
const ADD: usize = 1;
const COUNT: usize = 2;
const FAIL: usize = 3;
const TALK: usize = 4;

fn kinds(messages: &[Value]) -> Vec<&str> {
    messages.iter().map(|message| message["msg"].as_str().unwrap()).collect()
}

/// The keys of a message, and the JSON type of each value.
fn shape(message: &Value) -> Vec<(String, &'static str)> {
    let kind = |value: &Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let fields = message.as_object().unwrap();
    fields.iter().map(|(name, value)| (name.clone(), kind(value))).collect()
}

#[actix::test]
async fn an_event_that_comes_at_once_is_told_on_the_stream_of_the_one_before() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let server = Server::start(&queue);
    // One of them is at once enough, however busy the machine is.
    for round in 0..100 {
        let session = format!("s{round}");
        server.join(&session, ADD, json!([1, 1])).await;
        let mut stream = server.event_source(&session, None).await;
        stream.until("process_completed").await;
        let second = server.join(&session, ADD, json!([1, 2])).await;
        let message = stream.message().await;
        if message["event_id"] == second {
            let rest = stream.until("close_stream").await;
            assert_eq!(kinds(&rest)[rest.len() - 2..], ["process_completed", "close_stream"]);
            return;
        }
        // Too late: it is sent on the next one.
        assert_eq!(message["msg"], "close_stream");
        server.session(&session).await.until("process_completed").await;
    }
    panic!("no event was at once enough");
}

/// A client that learns of its event before the end of its stream opens no other.
#[actix::test]
async fn a_join_is_answered_when_the_client_has_hung_up_its_stream() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let server = Server::start(&queue);
    let mut held = 0;
    for round in 0..20 {
        let session = format!("s{round}");
        server.join(&session, ADD, json!([1, 1])).await;
        let mut stream = server.session(&session).await;
        stream.until("close_stream").await;
        let body = json!({"data": [round], "fn_index": WAIT, "session_hash": session});
        let join = awc::Client::default().post(server.url("/gradio_api/queue/join"));
        let join = actix_web::rt::spawn(join.send_json(&body));
        // It has begun, and other requests are answered meanwhile.
        turnstile.arrived(round + 1).await;
        for _ in 0..3 {
            server.get("/gradio_api/queue/status").await;
        }
        held += usize::from(!join.is_finished());
        drop(stream);
        assert!(join.await.unwrap().unwrap().status().is_success());
        turnstile.let_through(1);
        server.session(&session).await.until("process_completed").await;
    }
    assert!(held > 0, "who doesn't hang up is not waited for for ever, but for a while");
}

#[actix::test]
async fn an_events_messages_have_the_keys_and_types_of_gradios() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let server = Server::start(&queue);
    // A first run makes the estimates known.
    server.join("s", TALK, json!(["hi"])).await;
    server.session("s").await.until("close_stream").await;
    let id = server.join("s", TALK, json!(["hi"])).await;
    let messages = server.session("s").await.until("close_stream").await;
    let expected = [
        json!({"msg":"estimation","event_id":id,"rank":0,"queue_size":1,"rank_eta":0.15}),
        json!({"msg":"process_starts","event_id":id,"eta":0.15}),
        json!({"msg":"progress","event_id":id,"progress_data":[{"index":null,"length":null,"unit":"steps","progress":0.33,"desc":"step 0"}]}),
        json!({"msg":"log","event_id":id,"level":"info","log":"done it","title":"Info","duration":10.0,"visible":true}),
        json!({"msg":"process_completed","event_id":id,"output":{"data":["hi"],"is_generating":false,"duration":0.3,"average_duration":0.3,"render_config":null,"changed_state_ids":[],"used_cache":null},"success":true,"title":null,"used_cache":null,"cache_duration":0.3,"avg_time":0.3}),
        json!({"msg":"close_stream","event_id":null}),
    ];
    assert_eq!(kinds(&messages), kinds(&expected));
    for (message, expected) in messages.iter().zip(&expected) {
        assert_eq!(shape(message), shape(expected));
        assert_eq!(message["event_id"], expected["event_id"]);
    }
    assert_eq!(messages[2]["progress_data"], expected[2]["progress_data"]);
    assert_eq!(messages[3], expected[3]);
    assert_eq!(messages[4]["output"]["data"], json!(["hi"]));
    assert_eq!(shape(&messages[4]["output"]), shape(&expected[4]["output"]));
}

#[actix::test]
async fn positional_data_fills_fields_in_order_and_leaves_defaults() {
    let queue = queue(&Turnstile::new());
    let server = Server::start(&queue);
    for (data, sum) in [(json!([2, 3]), 5), (json!([2]), 2)] {
        server.join("s", ADD, data).await;
        let messages = server.session("s").await.until("process_completed").await;
        assert_eq!(messages.last().unwrap()["output"]["data"], json!([sum]));
    }
}

#[actix::test]
async fn a_streams_first_values_are_whole_and_later_ones_edits() {
    let queue = queue(&Turnstile::new());
    let server = Server::start(&queue);
    server.join("s", COUNT, json!([3])).await;
    let messages = server.session("s").await.until("close_stream").await;
    let data: Vec<&Value> = messages
        .iter()
        .filter(|message| message["msg"] == "process_generating")
        .map(|message| {
            assert_eq!(message["output"]["is_generating"], true);
            assert_eq!((&message["success"], &message["time_limit"]), (&json!(true), &Value::Null));
            &message["output"]["data"]
        })
        .collect();
    assert_eq!(
        data,
        [&json!(["000"]), &json!([[["replace", [], "111"]]]), &json!([[["replace", [], "222"]]])]
    );
    assert_eq!(messages[messages.len() - 2]["output"]["data"], json!(["222"]));
}

#[actix::test]
async fn a_text_that_grows_costs_what_it_grew_by() {
    let grow = |n: usize| {
        let text = |i| "a text that grows".repeat(i + 1);
        stream::iter(0..n).map(move |i| Ok::<_, String>(text(i)))
    };
    let queue = Queue::builder().listener(Listener::stream("grow", grow)).start().unwrap();
    let server = Server::start(&queue);
    // The stream comes after the event, as with Gradio's clients.
    server.join("s", 0, json!([3])).await;
    let messages = server.session("s").await.until("close_stream").await;
    let generating = messages.iter().filter(|message| message["msg"] == "process_generating");
    let data: Vec<_> = generating.map(|message| &message["output"]["data"]).collect();
    let edit = json!([[["append", [], "a text that grows"]]]);
    assert_eq!(data, [&json!(["a text that grows"]), &edit, &edit]);
}

#[actix::test]
async fn errors_for_users_are_shown_and_unexpected_ones_are_not() {
    for show_error in [false, true] {
        let queue = queue(&Turnstile::new());
        let web = Web::builder(&queue).show_error(show_error).start().unwrap();
        let server = Server::start(&web);
        let unexpected = if show_error { json!("a secret") } else { Value::Null };
        for (kind, error) in [("user", json!("no good")), ("other", unexpected)] {
            server.join("s", FAIL, json!([kind])).await;
            let messages = server.session("s").await.until("process_completed").await;
            let last = messages.last().unwrap();
            assert_eq!(last["success"], false);
            assert_eq!(last["title"], "Error");
            let output =
                json!({"error": error, "duration": 10.0, "visible": true, "title": "Error"});
            assert_eq!(last["output"], output);
        }
    }
}

#[actix::test]
async fn a_session_has_all_its_events_on_one_stream_and_only_its_own() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let server = Server::start(&queue);
    let mine: Vec<String> = vec![
        server.join("mine", WAIT, json!([1])).await,
        server.join("mine", ADD, json!([1, 1])).await,
        server.join("mine", WAIT, json!([2])).await,
    ];
    let theirs = server.join("theirs", WAIT, json!([3])).await;
    let mut stream = server.session("mine").await;
    let mut other = server.session("theirs").await;
    turnstile.arrived(1).await;
    assert_eq!(server.get("/gradio_api/queue/status").await["queue_size"], 2);
    turnstile.open();
    let messages = stream.until("close_stream").await;
    assert!(stream.next().await.is_none(), "the stream ends after its last event");
    let mut ended: Vec<&str> = messages
        .iter()
        .filter(|message| message["msg"] == "process_completed")
        .map(|message| message["event_id"].as_str().unwrap())
        .collect();
    ended.sort_unstable();
    let mut expected: Vec<&str> = mine.iter().map(String::as_str).collect();
    expected.sort_unstable();
    assert_eq!(ended, expected);
    let others = other.until("close_stream").await;
    assert!(others[..others.len() - 1].iter().all(|message| message["event_id"] == theirs));
}

#[actix::test]
async fn waiting_clients_see_their_rank_fall() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let server = Server::start(&queue);
    server.join("first", WAIT, json!([0])).await;
    turnstile.arrived(1).await;
    server.join("second", WAIT, json!([1])).await;
    server.join("third", WAIT, json!([2])).await;
    let mut third = server.session("third").await;
    let place = third.message().await;
    assert_eq!((&place["rank"], &place["queue_size"]), (&json!(1), &json!(2)));
    turnstile.let_through(1);
    let place = third.message().await;
    assert_eq!((&place["rank"], &place["queue_size"]), (&json!(0), &json!(1)));
    assert!(place["rank_eta"].as_f64().is_some_and(|eta| eta >= 0.0), "{place}");
    turnstile.open();
    third.until("close_stream").await;
}

#[actix::test]
async fn a_cancel_ends_waiting_and_running_events_of_ones_own_session() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let server = Server::start(&queue);
    let running = server.join("s", WAIT, json!([0])).await;
    turnstile.arrived(1).await;
    let waiting = server.join("s", WAIT, json!([1])).await;
    let mut stream = server.session("s").await;
    // Another session can't cancel, and doesn't learn whether there is one.
    server.cancel("somebody", &waiting).await;
    server.cancel("s", "no id").await;
    server.cancel("s", "0123456789abcdef0123456789abcdef").await;
    assert_eq!(queue.snapshot().await.concurrency_id("wait").unwrap().waiting, 1);
    for id in [&waiting, &running] {
        server.cancel("s", id).await;
        let messages = stream.until("process_completed").await;
        let last = messages.last().unwrap();
        assert_eq!(last["event_id"], json!(id));
        assert_eq!(last["success"], json!(false));
        assert_eq!(last["output"]["error"], json!("The event was cancelled."));
    }
    assert_eq!(stream.message().await["msg"], "close_stream");
    assert_eq!(turnstile.inside(), 0);
}

#[actix::test]
async fn an_unknown_session_is_told_so() {
    let queue = queue(&Turnstile::new());
    let server = Server::start(&queue);
    for query in ["/gradio_api/queue/data?session_hash=x", "/gradio_api/queue/data"] {
        let events = server.stream(query).await.rest().await;
        assert_eq!(events.len(), 1);
        let expected = json!({"msg":"unexpected_error","event_id":null,"message":"404: Not Found",
            "session_not_found":true,"success":false});
        assert_eq!(events[0].data, expected);
    }
}

#[actix::test]
async fn a_newer_stream_of_a_session_takes_over_and_misses_nothing() {
    let turnstile = Turnstile::new();
    let queue = queue(&turnstile);
    let server = Server::start(&queue);
    server.join("s", WAIT, json!([7])).await;
    let mut first = server.session("s").await;
    first.until("process_starts").await;
    drop(first);
    let mut second = server.session("s").await;
    turnstile.open();
    let messages = second.until("close_stream").await;
    assert_eq!(kinds(&messages), ["process_starts", "process_completed", "close_stream"]);
    assert_eq!(messages[1]["output"]["data"], json!([7]));
}

#[actix::test]
async fn awkward_text_survives_both_ways() {
    let queue = queue(&Turnstile::new());
    let server = Server::start(&queue);
    let text =
        format!("\"'\\\n\r\n\t\u{85}\u{2028}\u{2029}\0 🦊 data: x\n\n{}", "é".repeat(1 << 20));
    server.join("s", TALK, json!([text])).await;
    let messages = server.session("s").await.until("process_completed").await;
    assert_eq!(messages.last().unwrap()["output"]["data"], json!([text]));
}

/// `queue/status` is open to everybody, and sends no message to an actor: it answers while the
/// thread of a concurrency id is kept busy.
#[actix::test]
async fn the_status_costs_the_queue_nothing() {
    let (release, released) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = tokio::sync::oneshot::channel();
    let channels = std::sync::Arc::new(std::sync::Mutex::new(Some((begin, released))));
    let hog = move |_: u32| {
        let channels = channels.lock().unwrap().take();
        async move {
            if let Some((begin, released)) = channels {
                begin.send(()).unwrap();
                released.recv().unwrap();
            }
            Ok::<_, String>(0u32)
        }
    };
    let queue = Queue::builder().arbiters(1).listener(Listener::new("hog", hog)).start().unwrap();
    let server = Server::start(&queue);
    queue.pause("hog").await.unwrap();
    for n in 0..3 {
        server.join("s", 0, json!([n])).await;
    }
    assert_eq!(server.get("/gradio_api/queue/status").await["queue_size"], 3);
    let (resumed, ()) = futures::join!(queue.resume("hog"), async {
        begun.await.unwrap();
        assert_eq!(server.get("/gradio_api/queue/status").await["queue_size"], 2);
        release.send(()).unwrap();
    });
    resumed.unwrap();
    let messages = server.session("s").await.until("close_stream").await;
    let ended = messages.iter().filter(|message| message["msg"] == "process_completed").count();
    assert_eq!(ended, 3);
}

/// Writes JSON as it came from elsewhere.
#[derive(serde::Serialize)]
#[serde(transparent)]
struct AsItCame(Box<serde_json::value::RawValue>);

impl JsonSchema for AsItCame {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AsItCame".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!(true)
    }
}

#[actix::test]
async fn json_with_line_breaks_breaks_no_message() {
    let as_it_came = async |text: String| {
        serde_json::value::RawValue::from_string(text).map(AsItCame).map_err(|e| e.to_string())
    };
    let queue = Queue::builder().listener(Listener::new("as_it_came", as_it_came)).start().unwrap();
    let server = Server::start(&queue);
    server.join("s", 0, json!(["[1,\r\n\n 2.50]"])).await;
    let end = server.session("s").await.until("process_completed").await.pop().unwrap();
    assert_eq!(end["output"]["data"], json!([[1, 2.5]]));
}

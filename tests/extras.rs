//! What handlers take beside their input: the service's data, the request, the client's event data.
#![cfg(feature = "web")]

mod common;

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use actix_web::web;
use awc::Client;
use awc::http::StatusCode;
use common::Server;
use futures::{Stream, StreamExt, stream};
use now_serving::{
    CallError, Data, EventContext, EventData, Listener, Queue, QueueBuilder, Request, Slot, State,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a service would keep: here a count, in the place of a pool of connections.
#[derive(Debug, Default)]
struct Store {
    asked: AtomicUsize,
}

impl Store {
    fn ask(&self) -> usize {
        self.asked.fetch_add(1, SeqCst) + 1
    }
}

async fn ask(_: (), store: Data<Store>) -> Result<usize, String> {
    Ok(store.ask())
}

fn ask_blocking(_: (), context: EventContext) -> Result<usize, String> {
    Ok(context.data::<Store>().ok_or("no store")?.ask())
}

fn ask_twice(_: (), store: Data<Store>) -> impl Stream<Item = Result<usize, String>> {
    stream::iter(0..2).map(move |_| Ok(store.ask()))
}

async fn ask_for_all(inputs: Vec<u32>, store: Data<Store>) -> Result<Vec<usize>, String> {
    Ok(inputs.iter().map(|_| store.ask()).collect())
}

#[actix::test]
async fn every_kind_of_handler_shares_the_data_and_so_do_tests_and_routes() {
    let queue = Queue::builder()
        .data(Store::default())
        .data(String::from("another type"))
        .listener(Listener::new("async", ask))
        .listener(Listener::blocking("blocking", ask_blocking))
        .listener(Listener::stream("stream", ask_twice))
        .listener(Listener::batch("batch", ask_for_all))
        .start()
        .unwrap();
    assert_eq!(queue.call("async", ()).await, Ok(1_usize));
    assert_eq!(queue.call("blocking", ()).await, Ok(2_usize));
    assert_eq!(queue.call("stream", ()).await, Ok(4_usize));
    assert_eq!(queue.call("batch", 0_u32).await, Ok(5_usize));
    let store = queue.data::<Store>().unwrap();
    assert_eq!(store.asked.load(SeqCst), 5);
    let app_data: web::Data<Store> = web::Data::from(store.into_inner());
    assert_eq!(app_data.ask(), 6);
    assert!(queue.data::<u8>().is_none());
}

async fn remembers(n: u32, _: State<u32>) -> Result<u32, String> {
    Ok(n)
}

async fn looks(n: u32, _: Option<Request>) -> Result<u32, String> {
    Ok(n)
}

async fn batch(inputs: Vec<u32>, _: EventData<u32>) -> Result<Vec<u32>, String> {
    Ok(inputs)
}

#[actix::test]
async fn what_can_t_be_given_is_refused_at_the_start() {
    let refused = |builder: QueueBuilder| builder.start().unwrap_err().to_string();
    let missing = refused(Queue::builder().data(1_u8).listener(Listener::new("ask", ask)));
    let expected = "listener \"ask\" takes a Data<extras::Store>, which the queue was not given";
    assert!(missing.starts_with(expected), "{missing}");
    let twice = refused(Queue::builder().data(1_u8).data(2_u8));
    assert!(twice.contains("two u8"), "{twice}");
    let cached = refused(Queue::builder().listener(Listener::new("look", looks).cache(2)));
    assert!(cached.contains("takes Request and has a cache"), "{cached}");
    let cached = refused(Queue::builder().listener(Listener::new("keep", remembers).cache(2)));
    assert!(cached.contains("takes State and has a cache"), "{cached}");
    let batch = refused(Queue::builder().listener(Listener::batch("batch", batch)));
    assert!(batch.contains("takes batches and EventData"), "{batch}");
}

#[derive(Debug, Deserialize, Serialize, schemars::JsonSchema, PartialEq)]
struct Seen {
    agent: Option<String>,
    theme: Option<String>,
    cookie: Option<String>,
    path: String,
    local: bool,
}

async fn see(_: (), request: Request) -> Result<Seen, String> {
    Ok(Seen {
        agent: request.header("x-agent").map(String::from),
        theme: request.query_param("__theme"),
        cookie: request.cookie("flavour"),
        path: request.path().into(),
        local: request.peer_addr().is_some_and(|address| address.ip().is_loopback()),
    })
}

async fn came_by(_: (), request: Option<Request>) -> Result<bool, String> {
    Ok(request.is_some())
}

#[actix::test]
async fn a_handler_looks_at_the_request_that_brought_its_event() {
    let queue = Queue::builder()
        .listener(Listener::new("see", see))
        .listener(Listener::new("came_by", came_by))
        .start()
        .unwrap();
    let server = Server::start(&queue);
    for route in ["run/see", "call/see", "queue/join"] {
        let path = format!("/gradio_api/{route}?__theme=dark%21&other=1");
        let request = Client::default().post(server.url(&path)).insert_header(("x-agent", "fox"));
        let request = request.insert_header(("cookie", "other=1; flavour=oat%20meal"));
        let body = json!({"data": [], "fn_index": 0, "session_hash": "s"});
        let mut response = request.send_json(&body).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        let answer: Value = response.json().await.unwrap();
        let seen = match route {
            "run/see" => answer["data"][0].clone(),
            "call/see" => {
                let id = answer["event_id"].as_str().unwrap();
                let path = format!("/gradio_api/call/see/{id}");
                server.stream(&path).await.rest().await.pop().unwrap().data[0].clone()
            }
            _ => {
                let messages = server.session("s").await.until("process_completed").await;
                messages.last().unwrap()["output"]["data"][0].clone()
            }
        };
        let expected = Seen {
            agent: Some("fox".into()),
            theme: Some("dark!".into()),
            cookie: Some("oat meal".into()),
            path: format!("/gradio_api/{route}"),
            local: true,
        };
        assert_eq!(serde_json::from_value::<Seen>(seen).unwrap(), expected);
    }
    let body = json!({"data": []});
    let (_, answer) = server.post("/gradio_api/run/came_by", body).await;
    assert_eq!(answer["data"], json!([true]));
    assert_eq!(queue.call("came_by", ()).await, Ok(false));
    let Err(CallError::Failed(failure)) = queue.call::<_, Seen>("see", ()).await else {
        panic!("there is no request")
    };
    assert!(failure.message.contains("Option<Request>"), "{failure}");
}

#[derive(Deserialize)]
struct Select {
    index: (usize, usize),
}

async fn zoom(n: u32, EventData(select): EventData<Select>) -> Result<(u32, usize), String> {
    Ok((n, select.index.1))
}

async fn maybe(n: u32, data: Option<EventData<String>>) -> Result<(u32, String), String> {
    Ok((n, data.map(|EventData(text)| text).unwrap_or_default()))
}

#[actix::test]
async fn event_data_reaches_the_handler_as_its_own_type() {
    let queue = Queue::builder()
        .listener(Listener::new("zoom", zoom))
        .listener(Listener::new("maybe", maybe))
        .start()
        .unwrap();
    let server = Server::start(&queue);
    let run = async |listener: &str, event_data: Value| {
        let body = json!({"data": [7], "event_data": event_data});
        server.post(&format!("/gradio_api/run/{listener}"), body).await
    };
    let (status, answer) = run("zoom", json!({"index": [3, 4], "value": "x"})).await;
    assert_eq!((status, &answer["data"]), (StatusCode::OK, &json!([7, 4])));
    let (status, answer) = run("zoom", json!({"index": [3, "4"]})).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    let error = answer["error"].as_str().unwrap();
    assert!(error.starts_with("event_data.index[1]: invalid type"), "{error}");
    let (_, answer) = run("zoom", Value::Null).await;
    assert_eq!(answer["error"], "event_data is missing");
    assert_eq!(run("maybe", Value::Null).await.1["data"], json!([7, ""]));
    assert_eq!(run("maybe", json!("x")).await.1["data"], json!([7, "x"]));
    assert_eq!(queue.call("maybe", 7_u32).await, Ok((7_u32, String::new())));

    let body = json!({"data": [1], "fn_index": 0, "session_hash": "s",
        "event_data": {"index": [8, 9]}, "trigger_id": 5});
    assert_eq!(server.post("/gradio_api/queue/join", body).await.0, StatusCode::OK);
    let messages = server.session("s").await.until("process_completed").await;
    assert_eq!(messages.last().unwrap()["output"]["data"], json!([1, 9]));
}

async fn all(
    n: u32,
    slot: Slot<u8>,
    state: State<u32>,
    store: Data<Store>,
    context: EventContext,
    request: Option<Request>,
    data: Option<EventData<u32>>,
) -> Result<(u32, u32, usize), String> {
    assert_eq!((*slot, context.slot(), request.is_some(), data.is_some()), (5, 0, false, false));
    state.set(n);
    Ok((n, state.get(), store.ask()))
}

#[actix::test]
async fn a_handler_takes_all_of_them() {
    let queue = Queue::builder()
        .data(Store::default())
        .listener(Listener::new("all", all))
        .slots("all", |_| async { Ok::<_, String>(5_u8) })
        .start()
        .unwrap();
    assert_eq!(queue.call("all", 3_u32).await, Ok((3_u32, 3_u32, 1_usize)));
}

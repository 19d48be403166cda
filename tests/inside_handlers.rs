//! Calls from inside of actix-web handlers: what their errors answer, and updates that a service
//! forwards itself.
#![cfg(feature = "web")]

mod common;

use std::time::Duration;

use actix_web::{HttpResponse, web};
use awc::http::StatusCode;
use common::Server;
use futures::StreamExt;
use now_serving::testing::Turnstile;
use now_serving::{
    CallError, ControlError, Listener, Output, Queue, Refusal, SubmitError, Update, UserError,
    Validation,
};
use serde_json::{Value, json};

async fn call(
    queue: web::Data<Queue>,
    path: web::Path<(String, u32)>,
) -> Result<String, CallError> {
    let (listener, input) = path.into_inner();
    Ok(queue.try_call::<u32, u32>(&listener, input).await?.to_string())
}

async fn acquire(
    queue: web::Data<Queue>,
    id: web::Path<String>,
) -> Result<String, now_serving::AcquireError> {
    Ok(queue.acquire(&id).await?.slot().to_string())
}

async fn pause(queue: web::Data<Queue>, id: web::Path<String>) -> Result<String, ControlError> {
    queue.pause(&id).await?;
    Ok("paused".into())
}

/// As a service forwards updates over a connection of its own.
async fn forward(
    queue: web::Data<Queue>,
    input: web::Path<u32>,
) -> actix_web::Result<HttpResponse> {
    let mut updates = queue.submit("count", *input).await?;
    let mut lines = String::new();
    while let Some(update) = updates.next().await {
        lines += &serde_json::to_string(&update)?;
        lines += "\n";
    }
    Ok(HttpResponse::Ok().body(lines))
}

fn serve(queue: &Queue) -> Server {
    let queue = web::Data::new(queue.clone());
    Server::with(move |config| {
        config
            .app_data(queue.clone())
            .route("/call/{listener}/{input}", web::post().to(call))
            .route("/acquire/{id}", web::post().to(acquire))
            .route("/pause/{id}", web::post().to(pause))
            .route("/forward/{input}", web::post().to(forward))
    })
}

#[actix::test]
async fn errors_of_calls_answer_as_the_own_routes_do() {
    let turnstile = Turnstile::new();
    let fail = async |n: u32| match n {
        0 => Err::<u32, _>(Box::<dyn std::error::Error>::from("the password is 1234")),
        _ => Err(UserError::new("No foxes today.").into()),
    };
    let checked = async |n: u32| Ok::<_, String>(n);
    let check = |n: &u32| Validation::new().check("steps", *n < 100, "At most 99.");
    let never = async |_: u32| std::future::pending::<Result<u32, String>>().await;
    let queue = Queue::builder()
        .listener(Listener::new("slow", turnstile.handler()).max_size(1))
        .listener(Listener::new("fail", fail))
        .listener(Listener::new("checked", checked).validator(check))
        .listener(Listener::new("never", never).time_limit(Duration::from_millis(1)))
        .start()
        .unwrap();
    let server = serve(&queue);
    let post = async |path: &str| server.post(path, Value::Null).await;
    assert_eq!(post("/call/checked/7").await, (StatusCode::OK, json!(7)));
    let (status, answer) = post("/call/checked/100").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let complaint = json!({"__type__": "validate", "is_valid": false, "message": "At most 99.",
        "parameter_name": "steps"});
    assert_eq!(answer, json!({ "detail": [complaint] }));
    assert_eq!(post("/call/nobody/1").await.0, StatusCode::NOT_FOUND);
    let (status, answer) = post("/call/fail/0").await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(!answer.to_string().contains("1234"), "{answer}");
    let (status, answer) = post("/call/fail/1").await;
    let detail = json!({ "detail": "No foxes today." });
    assert_eq!((status, answer), (StatusCode::INTERNAL_SERVER_ERROR, detail));
    assert_eq!(post("/call/never/1").await.0, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(post("/acquire/nothing").await.0, StatusCode::NOT_FOUND);
    assert_eq!(post("/acquire/checked").await, (StatusCode::OK, json!(0)));
    assert_eq!(post("/pause/nothing").await.0, StatusCode::NOT_FOUND);
    assert_eq!(post("/pause/checked").await, (StatusCode::OK, json!("paused")));

    let running = queue.submit("slow", 0u32).await.unwrap();
    turnstile.arrived(1).await;
    let waiting = queue.submit("slow", 1u32).await.unwrap();
    let (status, retry_after, text) = server.post_text("/call/slow/2", "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(retry_after.unwrap().parse::<u64>().unwrap() >= 1);
    assert!(text.contains("Queue is full. Max size is 1"), "{text}");
    let full = queue.try_call::<u32, u32>("slow", 3).await;
    let Err(CallError::Submit(SubmitError::Refused(Refusal::QueueFull { .. }))) = full else {
        panic!("{full:?}")
    };
    turnstile.open();
    assert_eq!(running.result::<u32>().await, Ok(0));
    assert_eq!(waiting.result::<u32>().await, Ok(1));
    assert_eq!(queue.try_call::<u32, u32>("slow", 3).await, Ok(3));
    queue.shutdown(Duration::ZERO).await;
    assert_eq!(post("/call/checked/7").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[actix::test]
async fn a_service_forwards_updates_itself() {
    let count = |n: u32| futures::stream::iter((1..=n).map(Ok::<_, String>));
    let queue = Queue::builder().listener(Listener::stream("count", count)).start().unwrap();
    let server = serve(&queue);
    let (status, _, text) = server.post_text("/forward/2", "").await;
    assert_eq!(status, StatusCode::OK);
    let messages: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = messages.iter().map(|message| message["msg"].as_str().unwrap()).collect();
    let expected =
        ["process_starts", "process_generating", "process_generating", "process_completed"];
    // Of estimations the latest, which may be none.
    assert!(kinds.ends_with(&expected), "{kinds:?}");
    let data: Vec<_> =
        messages.iter().filter_map(|message| message["output"].get("data")).collect();
    assert_eq!(data, [&json!([1]), &json!([2]), &json!([2])]);
    let ids: Vec<_> = messages.iter().map(|message| &message["event_id"]).collect();
    assert!(ids.iter().all(|id| *id == ids[0] && id.is_string()));
}

#[actix::test]
async fn updates_are_told_to_several() {
    let echo = async |text: String| Ok::<_, String>(text);
    let queue = Queue::builder().listener(Listener::new("echo", echo)).start().unwrap();
    let updates: Vec<Update> = queue.submit("echo", "a".to_string()).await.unwrap().collect().await;
    let copies = updates.clone();
    assert_eq!(serde_json::to_value(&updates).unwrap(), serde_json::to_value(&copies).unwrap());
    let Some(Update::ProcessCompleted { outcome, .. }) = updates.into_iter().next_back() else {
        panic!("the end comes last")
    };
    let now_serving::Outcome::Completed(Some(output)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(output.get::<String>(), Some(&"a".to_string()));
    // Whoever holds it alone takes it.
    let back: Output = output.downcast::<String>().unwrap_err();
    drop(copies);
    assert_eq!(back.downcast::<String>().unwrap(), "a");
}

//! How a service tests its listeners and routes: in process, over HTTP without a server, and with
//! tokio's paused clock. No test waits for real time.
//!
//! ```text
//! cargo test --example tested
//! ```

use std::time::Duration;

use actix_web::{App, web};
use now_serving::{CallError, EventContext, Listener, Queue, QueueBuilder, UserError, Web};

async fn paint(subject: String, context: EventContext) -> Result<String, UserError> {
    if subject.is_empty() {
        return Err(UserError::new("Say what to paint."));
    }
    for _ in context.track(0..60, "strokes") {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    Ok(format!("a picture of {subject}"))
}

/// A route of the service's own.
async fn picture(queue: web::Data<Queue>, subject: web::Path<String>) -> Result<String, CallError> {
    queue.try_call("paint", subject.into_inner()).await
}

/// What `main` and the tests share. They may have another painter.
fn builder(paint: Listener<String, String>) -> QueueBuilder {
    Queue::builder().max_size(1).listener(paint.time_limit(Duration::from_secs(3600)))
}

fn routes(queue: &Queue, web: &Web) -> impl FnOnce(&mut web::ServiceConfig) + Clone + use<> {
    let (web, data) = (web.clone(), web::Data::new(queue.clone()));
    move |service| {
        let picture = web::resource("/pictures/{subject}").app_data(data).get(picture);
        service.service(picture).configure(web.routes());
    }
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let queue = builder(Listener::new("paint", paint)).start().map_err(std::io::Error::other)?;
    // The one whose routes the server has, so that it can close their streams.
    let web = Web::new(&queue);
    let routes = routes(&queue, &web);
    let server = now_serving::http_server(move || App::new().configure(routes.clone()));
    let server = server.bind(("127.0.0.1", 8080))?.run();
    web.serve(server, Duration::from_secs(60)).await
}

#[cfg(test)]
mod tests {
    use actix_web::http::StatusCode;
    use actix_web::test::{TestRequest, call_service, init_service, read_body_json};
    use now_serving::Update;
    use now_serving::testing::{Recorder, Turnstile};
    use serde_json::{Value, json};

    use super::*;

    #[actix_web::test]
    async fn a_picture_takes_a_minute() {
        // A minute that passes in a moment: without threads of its own, the queue has this clock.
        tokio::time::pause();
        let queue = builder(Listener::new("paint", paint)).arbiters(0).start().unwrap();
        let recorder = Recorder::start();
        queue.submit_to("paint", "a fox".to_string(), recorder.recipient()).await.unwrap();
        let updates = recorder.ended(1).await;
        let Some(Update::ProcessCompleted { duration, .. }) = updates.last() else {
            panic!("{updates:?}")
        };
        assert_eq!(duration.round(), 60.0);
    }

    #[actix_web::test]
    async fn clients_are_shown_what_is_wrong() {
        let queue = builder(Listener::new("paint", paint)).start().unwrap();
        let app = init_service(App::new().configure(routes(&queue, &Web::new(&queue)))).await;
        let run = TestRequest::post().uri("/gradio_api/run/paint");
        let answer = call_service(&app, run.set_json(json!({ "data": [""] })).to_request()).await;
        let answer: Value = read_body_json(answer).await;
        assert_eq!(answer["error"], "Say what to paint.");
    }

    #[actix_web::test]
    async fn who_finds_the_queue_full_is_told_when_to_come_back() {
        let turnstile = Turnstile::new();
        let held = turnstile.clone();
        let paint = move |subject: String| {
            let held = held.clone();
            async move {
                held.pass().await;
                Ok::<_, UserError>(subject)
            }
        };
        let queue = builder(Listener::new("paint", paint)).start().unwrap();
        let app = init_service(App::new().configure(routes(&queue, &Web::new(&queue)))).await;
        let running = queue.submit("paint", "a fox".to_string()).await.unwrap();
        turnstile.arrived(1).await;
        let waiting = queue.submit("paint", "a hare".to_string()).await.unwrap();
        let get = TestRequest::get().uri("/pictures/sea").to_request();
        let answer = call_service(&app, get).await;
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert!(answer.headers().contains_key("retry-after"));
        turnstile.open();
        assert_eq!(running.result::<String>().await, Ok("a fox".into()));
        assert_eq!(waiting.result::<String>().await, Ok("a hare".into()));
    }
}

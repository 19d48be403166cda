//! What a gate may be told: how long to wait, how long to run, what to answer. And a route that calls the
//! queue that it stands in.
#![cfg(feature = "web")]

mod common;

use std::time::Duration;

use actix_web::{HttpResponse, web};
use awc::http::StatusCode;
use common::Server;
use futures::stream;
use now_serving::testing::Turnstile;
use now_serving::{CallError, Gate, Listener, Permit, Queue, Refusal, SlotState, Web};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_millis(20);
const NEVER: Duration = Duration::MAX;

/// A route behind a gate, that waits in the turnstile.
fn serve(
    queue: &Queue,
    turnstile: &Turnstile,
    gate: impl Fn(Gate) -> Gate + Clone + Send + 'static,
) -> Server {
    let (served, turnstile) = (Web::new(queue), turnstile.clone());
    Server::with(move |config| {
        let held = turnstile.clone();
        let render = move || {
            let turnstile = held.clone();
            async move {
                turnstile.pass().await;
                "rendered"
            }
        };
        let plain = web::resource("/plain").wrap(served.gate("gpu_queue"));
        let gated = web::resource("/render").wrap(gate(served.gate("gpu_queue")));
        config.service(plain.get(render.clone())).service(gated.get(render))
    })
}

async fn get(server: &Server, path: &str) -> (StatusCode, String) {
    let request = awc::Client::default().get(server.url(path)).timeout(Duration::from_secs(60));
    let mut response = request.send().await.unwrap();
    let body = response.body().await.unwrap();
    (response.status(), String::from_utf8(body.to_vec()).unwrap())
}

async fn until(queue: &Queue, fits: impl Fn(&now_serving::ConcurrencyIdSnapshot) -> bool) {
    while !fits(queue.snapshot().await.concurrency_id("gpu_queue").unwrap()) {
        tokio::task::yield_now().await;
    }
}

fn one_slot() -> Queue {
    Queue::builder().permits("gpu_queue", 1).start().unwrap()
}

#[actix::test]
async fn who_waits_too_long_is_503_and_leaves_the_queue() {
    let (turnstile, queue) = (Turnstile::new(), one_slot());
    let server = serve(&queue, &turnstile, |gate| gate.queue_timeout(SOON).time_limit(NEVER));
    let holds = queue.acquire("gpu_queue").await.unwrap();
    let refused = awc::Client::default().get(server.url("/render")).send().await;
    let mut refused = refused.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    let body = refused.body().await.unwrap();
    let reason = "No slot has come free within 0.02 s; try again later.";
    assert_eq!(body, format!("{{\"detail\":\"{reason}\"}}"));
    // It counts as timed out, and not as one whose client has gone.
    until(&queue, |id| id.permits.as_ref().unwrap().timed_out == 1).await;
    let snapshot = queue.snapshot().await;
    let id = snapshot.concurrency_id("gpu_queue").unwrap();
    assert_eq!((id.waiting, id.running), (0, 1));
    assert_eq!(id.permits.as_ref().unwrap().cancelled, 0);
    drop(holds);
    turnstile.open();
    assert_eq!(get(&server, "/plain").await, (StatusCode::OK, "rendered".into()));
}

#[actix::test]
async fn a_service_answers_refusals_with_a_page_of_its_own() {
    let (turnstile, queue) = (Turnstile::new(), one_slot());
    let server = serve(&queue, &turnstile, |gate| {
        gate.queue_timeout(SOON).on_refusal(|request, refusal| {
            let page = format!("<p>{} is busy. {refusal}</p>", request.path());
            match refusal {
                Refusal::Stopped => HttpResponse::Gone().body(page),
                _ => HttpResponse::ServiceUnavailable().content_type("text/html").body(page),
            }
        })
    });
    let holds = queue.acquire("gpu_queue").await.unwrap();
    let mut refused = awc::Client::default().get(server.url("/render")).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers().get("content-type").unwrap(), "text/html");
    assert!(refused.headers().contains_key("retry-after"), "it is added");
    let body = refused.body().await.unwrap();
    assert!(body.starts_with(b"<p>/render is busy. No slot has come free"), "{body:?}");
    drop(holds);
    queue.shutdown(Duration::ZERO).await;
    let gone = (StatusCode::GONE, "<p>/render is busy. Queue is stopped.</p>".into());
    assert_eq!(get(&server, "/render").await, gone);
}

#[actix::test]
async fn a_route_that_takes_too_long_is_504_and_frees_its_slot() {
    let (turnstile, queue) = (Turnstile::new(), one_slot());
    let server = serve(&queue, &turnstile, |gate| gate.time_limit(SOON).queue_timeout(NEVER));
    let (status, body) = get(&server, "/render").await;
    assert_eq!(status, StatusCode::GATEWAY_TIMEOUT);
    assert!(body.contains("longer than its time limit"), "{body}");
    // Its handler is dropped, and the slot free.
    turnstile.empty().await;
    until(&queue, |id| id.running == 0).await;
    turnstile.open();
    assert_eq!(get(&server, "/render").await, (StatusCode::OK, "rendered".into()));
}

#[actix::test]
async fn a_route_that_runs_to_its_end_keeps_its_slot_past_its_time_limit() {
    let (turnstile, queue) = (Turnstile::new(), one_slot());
    let server = serve(&queue, &turnstile, |gate| gate.time_limit(SOON).run_to_end());
    assert_eq!(get(&server, "/render").await.0, StatusCode::GATEWAY_TIMEOUT);
    turnstile.arrived(1).await;
    let next = async {
        until(&queue, |id| id.waiting == 1).await;
        assert_eq!((turnstile.inside(), turnstile.most_inside()), (1, 1));
        turnstile.open();
    };
    let (next, ()) = futures::join!(get(&server, "/plain"), next);
    assert_eq!(next, (StatusCode::OK, "rendered".into()));
    assert_eq!(turnstile.most_inside(), 1);
}

#[actix::test]
async fn a_body_that_takes_too_long_breaks_off_and_frees_its_slot() {
    let (turnstile, queue) = (Turnstile::new(), one_slot());
    let (served, held) = (Web::new(&queue), turnstile.clone());
    let server = Server::with(move |config| {
        let held = held.clone();
        let pieces = move || {
            let held = held.clone();
            let pieces = stream::unfold(held, async |held| {
                held.pass().await;
                Some((Ok::<_, actix_web::Error>(web::Bytes::from("piece")), held))
            });
            async move { HttpResponse::Ok().streaming(pieces) }
        };
        let gate = served.gate("gpu_queue").time_limit(SOON);
        config.service(web::resource("/stream").wrap(gate).get(pieces))
    });
    // To the letter: not every client notices that the last chunk is missing.
    let mut connection =
        TcpStream::connect(server.base.strip_prefix("http://").unwrap()).await.unwrap();
    connection.write_all(b"GET /stream HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.contains("chunked"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n") && !answer.ends_with("0\r\n\r\n"), "{answer}");
    turnstile.empty().await;
    until(&queue, |id| id.running == 0).await;
}

/// A queue with a listener on the id that the routes stand in, and routes that call it.
fn nested(limit: usize) -> (Queue, Server) {
    let echo = Listener::new("echo", async |text: String| Ok::<_, String>(text));
    let queue = Queue::builder()
        .listener(echo.concurrency_id("gpu_queue").concurrency_limit(limit))
        .permits("other", 1)
        .start()
        .unwrap();
    let (served, calls) = (Web::new(&queue), queue.clone());
    let server = Server::with(move |config| {
        let queue = calls.clone();
        let call = move || {
            let queue = queue.clone();
            async move { queue.call::<_, String>("echo", "called".to_string()).await }
        };
        let queue = calls.clone();
        let gives_back = move |permit: Permit| {
            let queue = queue.clone();
            async move {
                drop(permit);
                queue.call::<_, String>("echo", "called".to_string()).await
            }
        };
        let queue = calls.clone();
        let streams = move || {
            let queue = queue.clone();
            let piece = stream::once(async move {
                let called: Result<String, CallError> =
                    queue.call("echo", "called".to_string()).await;
                let text = called.unwrap_or_else(|error| error.to_string());
                Ok::<_, actix_web::Error>(web::Bytes::from(text))
            });
            async move { HttpResponse::Ok().streaming(piece) }
        };
        let gate = || served.gate("gpu_queue");
        config
            .service(web::resource("/calls").wrap(gate()).get(call.clone()))
            .service(web::resource("/to-end").wrap(gate().run_to_end()).get(call.clone()))
            .service(web::resource("/limited").wrap(gate().time_limit(NEVER)).get(call.clone()))
            .service(web::resource("/inner").wrap(served.gate("other")).wrap(gate()).get(call))
            .service(web::resource("/twice").wrap(gate()).wrap(gate()).get(async || "never"))
            .service(web::resource("/gives-back").wrap(gate()).get(gives_back))
            .service(web::resource("/streams").wrap(gate()).get(streams))
    });
    (queue, server)
}

#[actix::test]
async fn a_route_that_calls_the_id_that_it_holds_is_refused_and_does_not_wait_for_itself() {
    let (queue, server) = nested(1);
    for path in ["/calls", "/to-end", "/limited", "/inner", "/twice"] {
        let (status, body) = get(&server, path).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{path} {body}");
    }
    let (_, body) = get(&server, "/streams").await;
    assert!(body.contains("would wait for itself"), "{body}");
    // What isn't sure to wait for itself is none of that.
    assert_eq!(get(&server, "/gives-back").await, (StatusCode::OK, "called".into()));
    until(&queue, |id| id.running == 0 && id.waiting == 0).await;
    assert_eq!(queue.call("echo", "called".to_string()).await, Ok("called".to_string()));
}

#[actix::test]
async fn a_route_may_call_an_id_with_another_slot() {
    let (_queue, server) = nested(2);
    for path in ["/calls", "/to-end", "/limited", "/inner", "/gives-back", "/streams"] {
        assert_eq!(get(&server, path).await, (StatusCode::OK, "called".into()), "{path}");
    }
    assert_eq!(get(&server, "/twice").await, (StatusCode::OK, "never".into()));
}

#[actix::test]
async fn a_gate_with_a_name_is_counted_by_itself() {
    let (turnstile, queue) = (Turnstile::new(), one_slot());
    let (served, held) = (Web::new(&queue), turnstile.clone());
    let server = Server::with(move |config| {
        let held = held.clone();
        let render = move || {
            let turnstile = held.clone();
            async move {
                turnstile.pass().await;
                "rendered"
            }
        };
        let gate = |name: &str| served.gate("gpu_queue").name(name).queue_timeout(SOON);
        config
            .configure(served.metrics("/metrics"))
            .service(web::resource("/one").wrap(gate("one")).get(render.clone()))
            .service(web::resource("/also-one").wrap(gate("one")).get(render.clone()))
            .service(web::resource("/two").wrap(gate("two")).get(render))
    });
    let rendered = (StatusCode::OK, "rendered".to_string());
    let (first, ()) = futures::join!(get(&server, "/one"), async {
        turnstile.arrived(1).await;
        let snapshot = queue.snapshot().await;
        let id = snapshot.concurrency_id("gpu_queue").unwrap();
        let SlotState::Busy { listener, events, .. } = &id.slots[0].state else { panic!("{id:?}") };
        assert_eq!(&**listener, "(one)");
        assert!(queue.cancel("(one)", events[0]).is_err());
        assert_eq!(get(&server, "/two").await.0, StatusCode::SERVICE_UNAVAILABLE);
        until(&queue, |id| id.gates.len() == 2 && id.gates[1].timed_out == 1).await;
        turnstile.open();
    });
    assert_eq!((first, get(&server, "/also-one").await), (rendered.clone(), rendered));
    drop(queue.acquire("gpu_queue").await.unwrap());
    until(&queue, |id| id.running == 0).await;
    let snapshot = queue.snapshot().await;
    let id = snapshot.concurrency_id("gpu_queue").unwrap();
    let counts = |of: &now_serving::ListenerSnapshot| (of.admitted, of.completed, of.timed_out);
    assert_eq!(id.permits.as_ref().map(counts), Some((1, 1, 0)));
    let gates: Vec<_> = id.gates.iter().map(|gate| (&*gate.api_name, counts(gate))).collect();
    assert_eq!(gates, [("(one)", (2, 2, 0)), ("(two)", (1, 0, 1))]);
    let ended: Vec<_> = id.recent.iter().map(|ended| &*ended.listener).collect();
    assert_eq!(ended, ["(two)", "(one)", "(one)", "(permit)"]);
    let (_, metrics) = get(&server, "/metrics").await;
    let labels = "{concurrency_id=\"gpu_queue\",listener=\"(two)\",outcome=\"timed_out\"}";
    assert!(metrics.contains(&format!("now_serving_ended_events_total{labels} 1")), "{metrics}");
}

//! The gate: routes of one's own wait for a slot like any event.
#![cfg(feature = "web")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use actix_web::body::BoxBody;
use actix_web::dev::{
    HttpServiceFactory, Service, ServiceFactory, ServiceRequest, ServiceResponse,
};
use actix_web::{HttpResponse, Resource, web};
use awc::http::StatusCode;
use common::Server;
use futures::future::join_all;
use futures::{StreamExt, stream};
use now_serving::testing::Turnstile;
use now_serving::{Listener, Permit, Queue, Refusal, Web};
use tokio::sync::Notify;

fn serve(queue: &Queue, turnstile: &Turnstile) -> Server {
    let (queued, turnstile) = (Web::new(queue), turnstile.clone());
    Server::with(move |config| {
        let (held, streamed) = (turnstile.clone(), turnstile.clone());
        let render = move || {
            let turnstile = held.clone();
            async move {
                turnstile.pass().await;
                "rendered"
            }
        };
        let streamed = move || {
            let turnstile = streamed.clone();
            async move {
                let pieces = stream::iter(0..2).then(move |piece| {
                    let turnstile = turnstile.clone();
                    async move {
                        turnstile.pass().await;
                        Ok::<_, actix_web::Error>(web::Bytes::from(format!("piece {piece} ")))
                    }
                });
                HttpResponse::Ok().streaming(pieces)
            }
        };
        config
            .service(web::resource("/render").wrap(queued.gate("gpu_queue")).get(render))
            .service(web::resource("/stream").wrap(queued.gate("gpu_queue")).get(streamed))
            .service(web::resource("/free").get(async || "free"))
    })
}

async fn get(server: &Server, path: &str) -> (StatusCode, String) {
    let request = awc::Client::default().get(server.url(path)).timeout(Duration::from_secs(60));
    let mut response = request.send().await.unwrap();
    let body = response.body().await.unwrap();
    (response.status(), String::from_utf8(body.to_vec()).unwrap())
}

async fn waiting(queue: &Queue, expected: usize) {
    while queue.snapshot().await.concurrency_id("gpu_queue").unwrap().waiting != expected {
        tokio::task::yield_now().await;
    }
}

#[actix::test]
async fn requests_share_the_slots_with_listeners() {
    let turnstile = Turnstile::new();
    let listener = Listener::new("paint", turnstile.handler());
    let queue = Queue::builder()
        .listener(listener.concurrency_id("gpu_queue").concurrency_limit(2))
        .start()
        .unwrap();
    let server = serve(&queue, &turnstile);
    let requests = join_all((0..4).map(|_| get(&server, "/render")));
    let calls = join_all((0..4u32).map(|n| queue.call::<_, u32>("paint", n)));
    let (requests, calls, ()) = futures::join!(requests, calls, async {
        turnstile.arrived(2).await;
        waiting(&queue, 6).await;
        assert_eq!(get(&server, "/free").await.1, "free");
        turnstile.open();
    });
    assert!(requests.iter().all(|answer| *answer == (StatusCode::OK, "rendered".into())));
    assert!(calls.iter().all(Result::is_ok));
    assert_eq!(turnstile.most_inside(), 2);
}

#[actix::test]
async fn a_full_line_is_503_with_retry_after() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder().max_size(1).concurrency_id("gpu_queue", 1).start().unwrap();
    let server = serve(&queue, &turnstile);
    let (first, second, ()) = futures::join!(
        get(&server, "/render"),
        async {
            turnstile.arrived(1).await;
            get(&server, "/render").await
        },
        async {
            waiting(&queue, 1).await;
            let refused = awc::Client::default().get(server.url("/render")).send().await.unwrap();
            assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert!(refused.headers().contains_key("retry-after"));
            turnstile.open();
        }
    );
    assert_eq!((first.0, second.0), (StatusCode::OK, StatusCode::OK));
}

#[actix::test]
async fn a_client_that_goes_away_leaves_the_line_and_the_slot() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder().concurrency_id("gpu_queue", 1).start().unwrap();
    let server = serve(&queue, &turnstile);
    let running = actix::spawn({
        let url = server.url("/render");
        async move { drop(awc::Client::default().get(url).send().await) }
    });
    turnstile.arrived(1).await;
    let gone = actix::spawn({
        let url = server.url("/render");
        async move { drop(awc::Client::default().get(url).send().await) }
    });
    waiting(&queue, 1).await;
    gone.abort();
    waiting(&queue, 0).await;
    running.abort();
    turnstile.empty().await;
    turnstile.open();
    assert_eq!(get(&server, "/render").await.1, "rendered");
}

#[actix::test]
async fn a_streamed_body_holds_the_slot_until_it_has_been_made() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder().concurrency_id("gpu_queue", 1).start().unwrap();
    let server = serve(&queue, &turnstile);
    let (streamed, rendered, ()) =
        futures::join!(get(&server, "/stream"), get(&server, "/render"), async {
            turnstile.arrived(1).await;
            waiting(&queue, 1).await;
            turnstile.open();
        });
    assert_eq!(streamed.1, "piece 0 piece 1 ");
    assert_eq!(rendered.1, "rendered");
    assert_eq!(turnstile.most_inside(), 1);
}

#[actix::test]
async fn nobody_frees_its_slot_by_a_listeners_name() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder()
        .listener(
            Listener::new("a", async |n: u32| Ok::<_, String>(n))
                .concurrency_id("gpu_queue")
                .concurrency_limit(1),
        )
        .start()
        .unwrap();
    let server = serve(&queue, &turnstile);
    let (held, waited, ()) =
        futures::join!(get(&server, "/render"), get(&server, "/render"), async {
            turnstile.arrived(1).await;
            waiting(&queue, 1).await;
            let snapshot = queue.snapshot().await;
            let now_serving::SlotState::Busy { events, .. } =
                &snapshot.concurrency_ids[0].slots[0].state
            else {
                panic!("a gated request runs: {snapshot:?}");
            };
            assert!(queue.cancel("(gate)", events[0]).is_err());
            queue.cancel("a", events[0]).unwrap();
            // What the supervisor was sent before this, it has done.
            queue.resume("gpu_queue").await.unwrap();
            assert_eq!(queue.snapshot().await.concurrency_ids[0].waiting, 1);
            turnstile.open();
        });
    assert_eq!((held.1, waited.1), ("rendered".into(), "rendered".into()));
    assert_eq!(turnstile.most_inside(), 1);
}

#[actix::test]
async fn a_stopped_queue_refuses() {
    let queue = Queue::builder().concurrency_id("gpu_queue", 1).start().unwrap();
    let server = serve(&queue, &Turnstile::new());
    queue.shutdown(Duration::ZERO).await;
    let (status, body) = get(&server, "/render").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains(&Refusal::Stopped.to_string()));
}

#[actix::test]
#[should_panic(expected = "no concurrency id is named \"gpu\"")]
async fn a_gate_needs_its_id() {
    let queue = Queue::builder().concurrency_id("gpu_queue", 1).start().unwrap();
    Web::new(&queue).gate("gpu");
}

/// Notifies when a request has been answered, or has gone with its client.
struct Over(Arc<Notify>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

/// Notices when a request of a resource is over.
fn watched<T>(resource: Resource<T>, over: &Arc<Notify>) -> impl HttpServiceFactory + 'static
where
    T: ServiceFactory<
            ServiceRequest,
            Config = (),
            Response = ServiceResponse<BoxBody>,
            Error = actix_web::Error,
            InitError = (),
        > + 'static,
{
    let over = over.clone();
    resource.wrap_fn(move |request, service| {
        let over = Over(over.clone());
        let response = service.call(request);
        async move {
            let _over = over;
            response.await
        }
    })
}

/// A client that leaves once its request has the slot, and the server notices.
async fn leave(server: &Server, turnstile: &Turnstile, over: &Notify) {
    let url = server.url("/render");
    let client = actix::spawn(async move { drop(awc::Client::default().get(url).send().await) });
    turnstile.arrived(1).await;
    client.abort();
    over.notified().await;
}

fn blocks(turnstile: &Turnstile) -> impl FnOnce() + Send + use<> {
    let turnstile = turnstile.clone();
    move || futures::executor::block_on(turnstile.pass())
}

#[actix::test]
async fn a_permit_that_a_handler_takes_to_a_thread_holds_the_slot_there() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder().concurrency_id("gpu_queue", 1).start().unwrap();
    let (served, held) = (Web::new(&queue), turnstile.clone());
    let over = Arc::new(Notify::new());
    let noticed = over.clone();
    let server = Server::with(move |config| {
        let held = held.clone();
        let render = move |permit: Permit| {
            let work = blocks(&held);
            async move {
                let work = web::block(move || {
                    let _permit = permit;
                    work();
                });
                work.await.map(|()| "rendered")
            }
        };
        let resource = web::resource("/render").wrap(served.gate("gpu_queue")).get(render);
        config.service(watched(resource, &noticed))
    });
    leave(&server, &turnstile, &over).await;
    // The client is gone, and its thread isn't: the others wait.
    the_next_one_waits(&server, &queue, &turnstile).await;
}

/// Another client's request begins when the one before has really ended, and not before.
async fn the_next_one_waits(server: &Server, queue: &Queue, turnstile: &Turnstile) {
    let url = server.url("/render");
    let next = actix::spawn(async move {
        let mut answer = awc::Client::default().get(url).send().await.unwrap();
        answer.body().await.unwrap()
    });
    while queue.snapshot().await.concurrency_ids[0].waiting != 1 {
        assert_eq!(turnstile.most_inside(), 1);
        tokio::task::yield_now().await;
    }
    turnstile.let_through(1);
    turnstile.arrived(2).await;
    turnstile.open();
    assert_eq!(next.await.unwrap(), "rendered");
    assert_eq!(turnstile.most_inside(), 1);
}

#[actix::test]
async fn a_route_that_runs_to_its_end_keeps_its_slot_without_its_client() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder().concurrency_id("gpu_queue", 1).start().unwrap();
    let (served, held) = (Web::new(&queue), turnstile.clone());
    let over = Arc::new(Notify::new());
    let noticed = over.clone();
    let server = Server::with(move |config| {
        let held = held.clone();
        // Knows nothing of permits.
        let render = move || {
            let work = blocks(&held);
            async move { web::block(work).await.map(|()| "rendered") }
        };
        let gate = served.gate("gpu_queue").run_to_end();
        let resource = web::resource("/render").wrap(gate).get(render);
        config.service(watched(resource, &noticed))
    });
    leave(&server, &turnstile, &over).await;
    the_next_one_waits(&server, &queue, &turnstile).await;
}

#[actix::test]
async fn a_permit_is_taken_once_and_only_behind_a_gate() {
    let queue = Queue::builder().concurrency_id("gpu_queue", 1).start().unwrap();
    let served = Web::new(&queue);
    let server = Server::with(move |config| {
        let both = async |first: Option<Permit>, second: Option<Permit>| {
            format!("{} {}", first.is_some(), second.is_some())
        };
        config
            .service(web::resource("/both").wrap(served.gate("gpu_queue")).get(both))
            .service(web::resource("/free").get(both))
            .service(web::resource("/wrong").get(async |_: Permit| "never"))
    });
    assert_eq!(get(&server, "/both").await, (StatusCode::OK, "true false".into()));
    assert_eq!(get(&server, "/free").await, (StatusCode::OK, "false false".into()));
    assert_eq!(get(&server, "/wrong").await.0, StatusCode::INTERNAL_SERVER_ERROR);
    waiting(&queue, 0).await;
    let snapshot = queue.snapshot().await;
    assert_eq!(snapshot.concurrency_ids[0].permits.as_ref().unwrap().admitted, 1);
}

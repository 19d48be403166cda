//! The examples do what they show.
#![cfg(feature = "web")]

#[path = "../examples/chat.rs"]
#[allow(dead_code)]
mod chat;
#[cfg(unix)]
#[path = "../examples/children.rs"]
#[allow(dead_code)]
mod children;
#[path = "../examples/gate.rs"]
#[allow(dead_code)]
mod gate;
#[path = "../examples/members.rs"]
#[allow(dead_code)]
mod members;
#[path = "../examples/websocket.rs"]
#[allow(dead_code)]
mod websocket;

use actix_web::cookie::Cookie;
use actix_web::dev::ServerHandle;
use actix_web::test::{TestRequest, call_and_read_body, call_service, init_service, read_body};
use actix_web::{App, rt, web};
use awc::ws::{Frame, Message};
use futures::{SinkExt, StreamExt};
use now_serving::{CallError, Queue, Update, Web};
use serde_json::Value;

/// Every value that a listener yields.
async fn values(queue: &Queue, listener: &str, input: &str) -> Vec<String> {
    let updates = queue.submit(listener, input.to_string()).await.unwrap();
    let values = updates.filter_map(async |update| match update {
        Update::ProcessGenerating { output, .. } => output.get::<String>().cloned(),
        _ => None,
    });
    values.collect().await
}

#[actix_web::test]
async fn the_chat_streams_what_its_model_says() {
    let queue = chat::queue(chat::start_stand_in().unwrap()).start().unwrap();
    let values = values(&queue, "chat", "to whom it concerns").await;
    assert_eq!(values, ["to ", "to whom ", "to whom it ", "to whom it concerns"]);
}

#[actix_web::test]
async fn the_chat_fails_with_a_text_for_users_where_its_model_is_not_there() {
    let chat::Model { url } = chat::start_stand_in().unwrap();
    for url in [url.replace("/chat", "/elsewhere"), "http://127.0.0.1:1/chat".into()] {
        let queue = chat::queue(chat::Model { url }).start().unwrap();
        let Err(CallError::Failed(failure)) =
            queue.call::<_, String>("chat", "hi".to_string()).await
        else {
            panic!("there is nobody who could answer")
        };
        assert!(failure.for_user && failure.message.contains("try again later"), "{failure}");
    }
}

#[cfg(unix)]
#[actix_web::test]
async fn a_child_that_dies_costs_the_event_that_saw_it_and_no_other() {
    let queue = children::queue().start().unwrap();
    let render = queue.listener::<String, String>("render").unwrap();
    for round in 0..3 {
        let scenes = ["a fox", "the sea"].map(|scene| render.call(format!("{scene} {round}")));
        let rendered = futures::future::join_all(scenes).await;
        assert_eq!(rendered, [Ok(format!("A FOX {round}")), Ok(format!("THE SEA {round}"))]);
        assert!(matches!(render.call("die".into()).await, Err(CallError::Failed(_))));
    }
    let down = queue.shutdown(std::time::Duration::from_secs(10)).await;
    assert!(down.drained && down.closed, "{down:?}");
}

#[actix_web::test]
async fn a_gated_route_renders() {
    let queue = gate::queue().start().unwrap();
    let app = init_service(App::new().configure(gate::routes(&Web::new(&queue)))).await;
    for (path, body) in [("/render/7", "scene 7, rendered\n"), ("/health", "fine\n")] {
        let request = TestRequest::get().uri(path).to_request();
        assert_eq!(call_and_read_body(&app, request).await, body);
    }
    let permits = queue.snapshot().await.concurrency_ids[0].permits.clone();
    assert_eq!(permits.map(|permits| permits.admitted), Some(1), "for the gated one");
}

#[actix_web::test]
async fn members_have_roles_on_every_way_in() {
    let queue = members::queue().start().unwrap();
    let web = members::login(&queue).unwrap();
    let app = init_service(App::new().configure(members::routes(&queue, &web))).await;
    let answer = async |user: Option<&str>, request: TestRequest| {
        let mut request = request;
        if let Some(user) = user {
            let form = [("username", user), ("password", &user[..1])];
            let login = TestRequest::post().uri("/login").set_form(form).to_request();
            let answer = call_service(&app, login).await;
            let cookies: Vec<_> = answer.response().cookies().map(Cookie::into_owned).collect();
            request = request.cookie(cookies[0].clone());
        }
        let answer = call_service(&app, request.to_request()).await;
        (answer.status().as_u16(), String::from_utf8(read_body(answer).await.to_vec()).unwrap())
    };
    let get = |path: &str| TestRequest::get().uri(path);
    let retrain =
        || TestRequest::post().uri("/gradio_api/run/retrain").set_payload(r#"{"data": [3]}"#);
    let (nobody, bob, ada) = (None, Some("bob"), Some("ada"));
    assert_eq!(answer(nobody, get("/")).await, (200, "Log in at /login.".into()));
    assert_eq!(answer(bob, get("/")).await, (200, "Hello, bob.".into()));
    assert_eq!(answer(bob, get("/pictures/fox")).await, (200, "fox, painted for bob".into()));
    let long = format!("/pictures/{}", "fox".repeat(20));
    for (user, path, status) in [
        (nobody, "/pictures/fox", 401),
        (bob, &long, 422),
        (ada, &long, 200),
        (nobody, "/admin/waiting", 401),
        (bob, "/admin/waiting", 403),
        (ada, "/admin/waiting", 200),
        (nobody, "/queues/snapshot", 401),
        (bob, "/queues/snapshot", 403),
        (ada, "/queues/snapshot", 200),
    ] {
        assert_eq!(answer(user, get(path)).await.0, status, "{user:?} {path}");
    }
    for (user, status) in [(nobody, 401), (bob, 403), (ada, 200)] {
        assert_eq!(answer(user, retrain()).await.0, status, "{user:?}");
    }
}

/// A server with the example's route.
fn serve(queue: &Queue) -> (String, ServerHandle) {
    let queue = web::Data::new(queue.clone());
    let server = now_serving::http_server(move || {
        App::new().app_data(queue.clone()).route("/paint", web::get().to(websocket::connect))
    });
    let server = server.workers(1).shutdown_timeout(0).bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}/paint", server.addrs()[0]);
    let server = server.run();
    let handle = server.handle();
    rt::spawn(server);
    (url, handle)
}

#[actix_web::test]
async fn a_websocket_carries_the_updates_of_each_text() {
    let queue = websocket::queue().start().unwrap();
    let (url, server) = serve(&queue);
    let (_, mut socket) = awc::Client::default().ws(url).connect().await.unwrap();
    for subject in ["a fox", "the sea"] {
        socket.send(Message::Text(subject.into())).await.unwrap();
    }
    let mut ended = Vec::new();
    let mut strokes = 0;
    while ended.len() < 2 {
        let Frame::Text(text) = socket.next().await.unwrap().unwrap() else { continue };
        let update: Value = serde_json::from_slice(&text).unwrap();
        match update["msg"].as_str().unwrap() {
            "progress" => strokes += 1,
            "process_completed" => ended.push(update["output"]["data"][0].clone()),
            _ => {}
        }
    }
    assert_eq!(ended, ["a picture of a fox", "a picture of the sea"]);
    assert!(strokes > 0);
    // Who leaves takes his events with him.
    socket.send(Message::Text("a hare".into())).await.unwrap();
    while queue.snapshot().await.listener("paint").unwrap().admitted < 3 {}
    drop(socket);
    while queue.snapshot().await.listener("paint").unwrap().cancelled < 1 {}
    server.stop(false).await;
}

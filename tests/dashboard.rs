//! The dashboard's routes: for operators only, live, and steering the queue.
#![cfg(feature = "web")]

mod common;

use awc::Client;
use awc::http::StatusCode;
use common::Server;
use now_serving::testing::Turnstile;
use now_serving::{Access, Listener, Operators, Queue, Users, Web};
use serde_json::{Value, json};

const PASSWORD: &str = "open sesame";

fn server(turnstile: &Turnstile) -> (Queue, Server) {
    let queue = Queue::builder()
        .listener(
            Listener::new("wait", turnstile.handler()).concurrency_id("gpu").concurrency_limit(2),
        )
        .start()
        .unwrap();
    let served = Web::new(&queue);
    let server = Server::with(move |config| {
        let operators = Users::new().user("operator", PASSWORD);
        config.configure(served.routes()).configure(served.dashboard("/queues", operators))
    });
    (queue, server)
}

/// Status and body.
async fn get(server: &Server, path: &str, password: &str) -> (StatusCode, String) {
    let request = Client::default().get(server.url(path)).basic_auth("operator", password);
    let mut answer = request.send().await.unwrap();
    let body = answer.body().limit(1 << 20).await.unwrap();
    (answer.status(), String::from_utf8(body.to_vec()).unwrap())
}

async fn act(server: &Server, action: Value) -> (StatusCode, Value) {
    let request = Client::default().post(server.url("/queues/actions"));
    let mut answer = request.basic_auth("operator", PASSWORD).send_json(&action).await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

async fn until(queue: &Queue, fits: impl Fn(&now_serving::ConcurrencyIdSnapshot) -> bool) {
    while !fits(queue.snapshot().await.concurrency_id("gpu").unwrap()) {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
}

#[actix::test]
async fn nobody_sees_anything_without_a_login() {
    let (_, server) = server(&Turnstile::new());
    for path in ["/queues", "/queues/", "/queues/snapshot", "/queues/events", "/queues/nothing"] {
        let answer = Client::default().get(server.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "{path}");
        let asks = answer.headers().get("www-authenticate").unwrap().to_str().unwrap();
        assert!(asks.starts_with("Basic realm="), "{asks}");
        let (status, body) = get(&server, path, "open sesamE").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(!body.contains("gpu"), "{body}");
    }
    let (status, _) = server.post("/queues/actions", json!({"action": "drain"})).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, page) = get(&server, "/queues", PASSWORD).await;
    assert_eq!(status, StatusCode::OK);
    assert!(page.contains("<title>Queues") && !page.contains(PASSWORD));
}

#[actix::test]
async fn the_snapshot_is_json_and_is_described() {
    let turnstile = Turnstile::new();
    let (queue, server) = server(&turnstile);
    server.join("s", 0, json!([1])).await;
    turnstile.arrived(1).await;
    let (_, body) = get(&server, "/queues/snapshot", PASSWORD).await;
    let snapshot: Value = serde_json::from_str(&body).unwrap();
    let id = &snapshot["concurrency_ids"][0];
    assert_eq!((&id["concurrency_id"], &id["limit"]), (&json!("gpu"), &json!(2)));
    assert_eq!(id["slots"][0]["state"]["state"], "busy");
    assert_eq!(id["slots"][0]["state"]["listener"], "wait");
    assert_eq!(snapshot["clients"]["sessions"], 1);
    let (_, openapi) = get(&server, "/gradio_api/openapi.json", PASSWORD).await;
    let openapi: Value = serde_json::from_str(&openapi).unwrap();
    assert!(openapi["paths"]["/queues/snapshot"]["get"].is_object());
    // What has ended is sent with its times.
    turnstile.open();
    until(&queue, |gpu| gpu.recent.len() == 1).await;
    let (_, body) = get(&server, "/queues/snapshot", PASSWORD).await;
    let snapshot: Value = serde_json::from_str(&body).unwrap();
    let ended = &snapshot["concurrency_ids"][0]["recent"][0];
    assert_eq!(ended["outcome"], "completed");
    assert!(ended["ran"].as_f64().unwrap() > 0.0, "{ended}");
}

#[actix::test]
async fn every_action_is_described() {
    let (_queue, server) = server(&Turnstile::new());
    let (_, openapi) = get(&server, "/gradio_api/openapi.json", PASSWORD).await;
    let openapi: Value = serde_json::from_str(&openapi).unwrap();
    let post = &openapi["paths"]["/queues/actions"]["post"];
    let schema = &post["requestBody"]["content"]["application/json"]["schema"];
    let mut described = Vec::new();
    for action in schema["oneOf"].as_array().unwrap() {
        let fields = action["properties"].as_object().unwrap();
        let name = fields["action"]["const"].as_str().unwrap();
        let mut body = json!({ "action": name });
        for field in fields.keys().filter(|field| *field != "action") {
            // It asks for each of them.
            let (status, answer) = act(&server, body.clone()).await;
            assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
            assert!(answer.to_string().contains(&format!("missing field `{field}`")), "{answer}");
            body[field] = match field.as_str() {
                "concurrency_id" => json!("gpu"),
                "listener" => json!("wait"),
                "event_id" => json!("0".repeat(32)),
                _ => Value::Null,
            };
        }
        // No event has failed yet.
        let expected = if name == "resubmit" { StatusCode::NOT_FOUND } else { StatusCode::OK };
        assert_eq!(act(&server, body).await.0, expected, "{name}");
        described.push(format!("`{name}`"));
    }
    // The dashboard says which there are.
    let (_, answer) = act(&server, json!({ "action": "dance" })).await;
    assert!(
        answer.to_string().contains(&format!("expected one of {}", described.join(", "))),
        "{answer}"
    );
}

#[actix::test]
async fn the_stream_tells_of_each_ended_event_once() {
    let turnstile = Turnstile::new();
    turnstile.open();
    let (queue, server) = server(&turnstile);
    server.join("s", 0, json!([1])).await;
    until(&queue, |gpu| gpu.recent.len() == 1).await;
    // Of "operator:open sesame".
    let login = "Basic b3BlcmF0b3I6b3BlbiBzZXNhbWU=".to_string();
    let mut stream = server.stream_with("/queues/events", &[("authorization", login)]).await;
    let first = stream.next().await.unwrap().data;
    assert_eq!(first["concurrency_ids"][0]["recent"].as_array().unwrap().len(), 1);
    let second = stream.next().await.unwrap().data;
    assert_eq!(second["concurrency_ids"][0]["recent"], json!([]));
    assert_eq!(second["concurrency_ids"][0]["listeners"][0]["completed"], 1);
}

#[actix::test]
async fn an_operator_steers() {
    let turnstile = Turnstile::new();
    let (queue, server) = server(&turnstile);
    for n in 0..5 {
        server.join("s", 0, json!([n])).await;
    }
    until(&queue, |gpu| gpu.running == 2 && gpu.waiting == 3).await;
    let done = (StatusCode::OK, json!({"success": true}));
    let limit =
        |limit: Value| json!({"action": "set_limit", "concurrency_id": "gpu", "limit": limit});
    assert_eq!(act(&server, limit(json!(4))).await, done);
    until(&queue, |gpu| gpu.running == 4 && gpu.waiting == 1).await;
    assert_eq!(act(&server, json!({"action": "pause", "concurrency_id": "gpu"})).await, done);
    let snapshot = queue.snapshot().await;
    let gpu = snapshot.concurrency_id("gpu").unwrap();
    assert!(gpu.paused);
    let now_serving::SlotState::Busy { events, .. } = &gpu.slots[0].state else {
        panic!("{gpu:?}")
    };
    let cancel = json!({"action": "cancel", "listener": "wait", "event_id": events[0]});
    assert_eq!(act(&server, cancel).await, done);
    // Its slot is free, and stays so.
    until(&queue, |gpu| gpu.running == 3 && gpu.waiting == 1).await;
    assert_eq!(act(&server, json!({"action": "resume", "concurrency_id": "gpu"})).await, done);
    until(&queue, |gpu| gpu.running == 4 && gpu.waiting == 0).await;
    for (wrong, status) in [
        (json!({"action": "set_limit", "concurrency_id": "gpu"}), StatusCode::UNPROCESSABLE_ENTITY),
        (limit(json!(0)), StatusCode::BAD_REQUEST),
        (limit(json!(-1)), StatusCode::UNPROCESSABLE_ENTITY),
        (json!({"action": "pause", "concurrency_id": "none"}), StatusCode::NOT_FOUND),
        (
            json!({"action": "cancel", "listener": "none", "event_id": events[0]}),
            StatusCode::NOT_FOUND,
        ),
        (json!({"action": "cancel", "listener": "wait", "event_id": "x"}), StatusCode::BAD_REQUEST),
        (json!({"action": "explode"}), StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let (given, answer) = act(&server, wrong.clone()).await;
        assert_eq!(given, status, "{wrong} {answer}");
        assert!(answer["detail"].is_string() || answer["detail"].is_array(), "{answer}");
    }
    assert_eq!(act(&server, json!({"action": "drain"})).await, done);
    until(&queue, |gpu| gpu.stopped).await;
    turnstile.open();
    until(&queue, |gpu| gpu.running == 0).await;
}

#[actix::test]
async fn pages_from_elsewhere_steer_nothing() {
    let (queue, server) = server(&Turnstile::new());
    let pause = json!({"action": "pause", "concurrency_id": "gpu"}).to_string();
    for header in [
        ("content-type", "text/plain"),
        ("sec-fetch-site", "cross-site"),
        // A browser over plain HTTP says nothing else.
        ("origin", "https://evil.example"),
        ("origin", "null"),
    ] {
        let request = Client::default().post(server.url("/queues/actions"));
        let request = request.basic_auth("operator", PASSWORD);
        let request = request.insert_header(("content-type", "application/json"));
        let answer = request.insert_header(header).send_body(pause.clone()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{header:?}");
    }
    assert!(!queue.snapshot().await.concurrency_id("gpu").unwrap().paused);
    let request = Client::default().post(server.url("/queues/actions"));
    let own = request.basic_auth("operator", PASSWORD).insert_header(("origin", &*server.base));
    let own = own.insert_header(("content-type", "application/json"));
    assert_eq!(own.send_body(pause).await.unwrap().status(), StatusCode::OK);
}

#[actix::test]
async fn one_login_is_for_the_service_and_its_dashboard() {
    let turnstile = Turnstile::new();
    let wait = Listener::new("wait", turnstile.handler()).concurrency_id("gpu");
    let queue = Queue::builder().listener(wait).start().unwrap();
    let users = Users::new().user("ada", "a").user("bob", "b");
    let served = Web::builder(&queue).auth(users).start().unwrap();
    let server = Server::with(move |config| {
        let operators = Operators::from_login(&served, |user| match user {
            "ada" => Access::All,
            _ => Access::Forbidden,
        });
        config.configure(served.routes()).configure(served.dashboard("/queues", operators))
    });
    let cookie = async |user: &str| {
        let form = [("username", user), ("password", &user[..1])];
        let login = Client::default().post(server.url("/login")).send_form(&form).await.unwrap();
        let set = login.headers().get("set-cookie").unwrap().to_str().unwrap();
        set.split(';').next().unwrap().to_string()
    };
    let (ada, bob) = (cookie("ada").await, cookie("bob").await);
    let look = async |cookie: &str| {
        let request = Client::default().get(server.url("/queues/snapshot"));
        request.insert_header(("cookie", cookie)).send().await.unwrap().status()
    };
    assert_eq!(look(&ada).await, StatusCode::OK);
    assert_eq!(look(&bob).await, StatusCode::FORBIDDEN);
    assert_eq!(look("").await, StatusCode::UNAUTHORIZED);
    let basic = Client::default().get(server.url("/queues")).basic_auth("ada", "a");
    assert_eq!(basic.send().await.unwrap().status(), StatusCode::OK);
    let pause = async |origin: &str| {
        let request = Client::default().post(server.url("/queues/actions"));
        let request = request.insert_header(("cookie", &*ada)).insert_header(("origin", origin));
        let pause = json!({"action": "pause", "concurrency_id": "gpu"});
        request.send_json(&pause).await.unwrap().status()
    };
    assert_eq!(pause("https://evil.example").await, StatusCode::FORBIDDEN);
    assert_eq!(pause(&server.base).await, StatusCode::OK);
    // What is being sent ends with the login.
    let mut stream = server.stream_with("/queues/events", &[("cookie", ada.clone())]).await;
    assert_eq!(stream.next().await.unwrap().data["concurrency_ids"][0]["paused"], true);
    let logout = Client::default().post(server.url("/logout")).insert_header(("cookie", &*ada));
    assert_eq!(logout.send().await.unwrap().status(), StatusCode::OK);
    stream.rest().await;
    assert_eq!(look(&ada).await, StatusCode::UNAUTHORIZED);
}

#[actix::test]
#[should_panic(expected = "there is no login")]
async fn operators_are_not_taken_from_a_login_that_there_is_not() {
    let echo = Listener::new("echo", async |text: String| Ok::<_, String>(text));
    let queue = Queue::builder().listener(echo).start().unwrap();
    Operators::from_login(&Web::new(&queue), |_| Access::All);
}

#[actix::test]
async fn some_operators_may_only_look() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder()
        .listener(Listener::new("wait", turnstile.handler()).concurrency_id("gpu"))
        .start()
        .unwrap();
    let served = Web::new(&queue);
    let server = Server::with(move |config| {
        let users = ["operator", "looker", "nobody", "undecided"];
        let users = users.iter().fold(Users::new(), |users, name| users.user(*name, PASSWORD));
        let operators = Operators::new(users).access(|user| match user {
            "operator" => Access::All,
            "looker" => Access::ReadOnly,
            "nobody" => Access::Forbidden,
            _ => panic!("not decided"),
        });
        config
            .configure(served.routes())
            .configure(served.dashboard("/queues", operators.clone()))
            .configure(served.metrics_for("/metrics", operators))
    });
    let as_user = async |user: &str, path: &str| {
        let request = Client::default().get(server.url(path)).basic_auth(user, PASSWORD);
        let mut answer = request.send().await.unwrap();
        let body = answer.body().limit(1 << 20).await.unwrap();
        (answer.status(), String::from_utf8(body.to_vec()).unwrap())
    };
    for path in ["/queues/snapshot", "/metrics"] {
        for user in ["operator", "looker"] {
            let (status, body) = as_user(user, path).await;
            assert_eq!(status, StatusCode::OK, "{user} {path}");
            assert!(body.contains("gpu"), "{body}");
        }
        for user in ["nobody", "undecided"] {
            let (status, body) = as_user(user, path).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{user} {path}");
            assert!(!body.contains("gpu"), "{body}");
        }
        assert_eq!(as_user("somebody", path).await.0, StatusCode::UNAUTHORIZED);
        let without = Client::default().get(server.url(path)).send().await.unwrap();
        assert_eq!(without.status(), StatusCode::UNAUTHORIZED);
    }
    // The page's style goes by this, and hides what steers.
    let (all, looks) =
        (as_user("operator", "/queues").await.1, as_user("looker", "/queues").await.1);
    assert!(all.contains("<html lang=\"en\" data-access=\"all\">"));
    assert!(looks.contains("<html lang=\"en\" data-access=\"read_only\">"));
    assert!(looks.contains("[data-access=\"read_only\"] .steers, "));
    // And so it is where an action is sent all the same.
    server.join("s", 0, json!([1])).await;
    turnstile.arrived(1).await;
    let snapshot = queue.snapshot().await;
    let now_serving::SlotState::Busy { events, .. } = &snapshot.concurrency_ids[0].slots[0].state
    else {
        panic!("{snapshot:?}")
    };
    let act = async |user: &str, action: &Value| {
        let request = Client::default().post(server.url("/queues/actions"));
        let mut answer = request.basic_auth(user, PASSWORD).send_json(action).await.unwrap();
        (answer.status(), answer.json::<Value>().await.unwrap())
    };
    let cancel = json!({"action": "cancel", "listener": "wait", "event_id": events[0]});
    let limit = json!({"action": "set_limit", "concurrency_id": "gpu", "limit": 5});
    let pause = json!({"action": "pause", "concurrency_id": "gpu"});
    for action in [&cancel, &limit, &pause, &json!({"action": "drain"}), &json!({"action": "?"})] {
        for user in ["looker", "nobody"] {
            let (status, answer) = act(user, action).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{user} {action} {answer}");
        }
    }
    let snapshot = queue.snapshot().await;
    let gpu = snapshot.concurrency_id("gpu").unwrap();
    assert_eq!((gpu.running, gpu.paused, gpu.stopped), (1, false, false));
    assert_eq!(gpu.limit, now_serving::Limit::Slots(1));
    assert_eq!(act("operator", &cancel).await.0, StatusCode::OK);
    turnstile.empty().await;
}

#[cfg(feature = "journal")]
#[actix::test]
async fn what_has_failed_for_good_is_listed_and_submitted_again() {
    let directory = tempfile::tempdir().unwrap();
    let journal = now_serving::Sqlite::open(directory.path().join("events.db")).unwrap();
    let fails = async |n: u32| Err::<u32, _>(now_serving::UserError::new(format!("not {n}")));
    let listener = Listener::new("fail", fails).concurrency_id("gpu").durable();
    let queue = Queue::builder().journal(journal).listener(listener).start().unwrap();
    let served = Web::new(&queue);
    let server = Server::with(move |config| {
        let operators = Users::new().user("operator", PASSWORD);
        config.configure(served.routes()).configure(served.dashboard("/queues", operators))
    });
    let failed = async || {
        let (status, text) = get(&server, "/queues/failed", PASSWORD).await;
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str::<Vec<Value>>(&text).unwrap()
    };
    assert_eq!(get(&server, "/queues/failed", "wrong").await.0, StatusCode::UNAUTHORIZED);
    assert!(failed().await.is_empty());
    assert!(queue.as_user("ada").call::<u32, u32>("fail", 1).await.is_err());
    let first = failed().await.pop().unwrap();
    let parts = ["listener", "user", "message", "attempts"].map(|part| first[part].clone());
    assert_eq!(json!(parts), json!(["fail", "ada", "not 1", 1]));
    let (status, answer) =
        act(&server, json!({ "action": "resubmit", "event_id": first["event_id"] })).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    until(&queue, |gpu| gpu.listeners[0].failed == 2).await;
    let ids: Vec<_> = failed().await.into_iter().map(|event| event["event_id"].clone()).collect();
    assert_eq!(ids, [answer["event_id"].clone(), first["event_id"].clone()], "the last one first");
    for (event_id, expected) in [("nonsense", 400), ("00000000000000000000000000000007", 404)] {
        let (status, answer) =
            act(&server, json!({ "action": "resubmit", "event_id": event_id })).await;
        assert_eq!(status.as_u16(), expected, "{answer}");
    }
}

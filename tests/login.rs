//! Who may use a queue over HTTP, and what belongs to whom.
#![cfg(feature = "web")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::{HttpRequest, web};
use awc::http::StatusCode;
use awc::{Client, ClientRequest};
use common::Server;
use now_serving::testing::Turnstile;
use now_serving::{
    Auth, EventContext, Listener, Queue, QueueBuilder, State, Users, Web, WebBuilder,
};
use serde_json::{Value, json};

async fn who(_: (), context: EventContext) -> Result<Option<String>, String> {
    Ok(context.user().map(String::from))
}

async fn remember(word: String, history: State<Vec<String>>) -> Result<Vec<String>, String> {
    history.update(|history| history.push(word));
    Ok(history.get())
}

fn builder() -> QueueBuilder {
    Queue::builder()
        .listener(Listener::new("who", who))
        .listener(Listener::new("remember", remember))
}

fn members(queue: &Queue) -> WebBuilder {
    Web::builder(queue)
        .auth(Users::new().user("alice", "open sesame").user("bob", "b"))
        .auth_message("Members only.")
}

struct Answer {
    status: StatusCode,
    headers: awc::http::header::HeaderMap,
    body: Value,
}

impl Answer {
    /// The cookie as a client sends it back.
    fn cookie(&self) -> String {
        let set = self.headers.get("set-cookie").expect("a cookie").to_str().unwrap();
        set.split(';').next().unwrap().to_string()
    }
}

async fn send(request: ClientRequest, body: String) -> Answer {
    let mut response = request.send_body(body).await.unwrap();
    let bytes = response.body().await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or_default();
    Answer { status: response.status(), headers: response.headers().clone(), body }
}

async fn log_in(server: &Server, username: &str, password: &str) -> Answer {
    let request = Client::default()
        .post(server.url("/login"))
        .insert_header(("content-type", "application/x-www-form-urlencoded"));
    send(request, format!("username={username}&password={}", password.replace(' ', "+"))).await
}

async fn cookie_of(server: &Server, username: &str, password: &str) -> String {
    let answer = log_in(server, username, password).await;
    assert_eq!((answer.status, &answer.body), (StatusCode::OK, &json!({"success": true})));
    answer.cookie()
}

async fn get_as(server: &Server, cookie: &str, path: &str) -> Answer {
    let request = Client::default().get(server.url(path)).insert_header(("cookie", cookie));
    send(request, String::new()).await
}

async fn post_as(server: &Server, cookie: &str, path: &str, body: Value) -> Answer {
    let request = Client::default().post(server.url(path)).insert_header(("cookie", cookie));
    send(request, body.to_string()).await
}

#[actix::test]
async fn nothing_is_told_to_those_who_have_not_logged_in() {
    let queue = builder().start().unwrap();
    let web = members(&queue).start().unwrap();
    let server = Server::start(&web);
    let message =
        json!({"detail": {"error": "Not authenticated", "auth_message": "Members only."}});
    for path in [
        "/config",
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/gradio_api/app_id",
        "/gradio_api/login_check",
        "/gradio_api/queue/data?session_hash=s",
        "/gradio_api/queue/status",
        "/gradio_api/heartbeat/s",
        "/gradio_api/call/who/00000000000000000000000000000000",
        "/gradio_api/file=a/b",
        "/gradio_api/upload_progress?upload_id=a",
    ] {
        for cookie in ["", "access-token=a", "access-token-unsecure=a"] {
            let answer = get_as(&server, cookie, path).await;
            assert_eq!(
                (answer.status, &answer.body),
                (StatusCode::UNAUTHORIZED, &message),
                "{path}"
            );
        }
    }
    for path in ["queue/join", "call/who", "call/v2/who", "run/who", "cancel", "reset", "upload"] {
        let (status, answer) = server.post(&format!("/gradio_api/{path}"), json!({})).await;
        assert_eq!((status, answer), (StatusCode::UNAUTHORIZED, message.clone()), "{path}");
    }
}

#[actix::test]
async fn a_login_opens_every_route_and_the_handler_knows_the_user() {
    let queue = builder().start().unwrap();
    let web = members(&queue).start().unwrap();
    let server = Server::start(&web);
    let answer = log_in(&server, "alice", "open sesame").await;
    let set = answer.headers.get("set-cookie").unwrap().to_str().unwrap();
    for part in ["access-token-", "HttpOnly", "SameSite=Lax", "Path=/"] {
        assert!(set.contains(part), "{set}");
    }
    assert!(!set.contains("Secure"), "{set}");
    let cookie = answer.cookie();
    let config = get_as(&server, &cookie, "/config").await;
    assert_eq!((config.status, &config.body["username"]), (StatusCode::OK, &json!("alice")));
    assert_eq!(get_as(&server, &cookie, "/gradio_api/login_check").await.status, StatusCode::OK);
    let document = get_as(&server, &cookie, "/gradio_api/openapi.json").await.body;
    let scheme = &document["components"]["securitySchemes"]["login"];
    assert_eq!(scheme["name"], cookie.split('=').next().unwrap());
    assert_eq!(document["security"], json!([{"login": []}]));
    for (path, body) in
        [("run/who", json!({"data": []})), ("run/who", json!({"data": [], "session_hash": "s"}))]
    {
        let answer = post_as(&server, &cookie, &format!("/gradio_api/{path}"), body).await;
        assert_eq!(answer.body["data"], json!(["alice"]));
    }
    // In process there is no user.
    assert_eq!(queue.call("who", ()).await, Ok(None::<String>));
}

#[actix::test]
async fn wrong_credentials_are_401() {
    let queue = builder().start().unwrap();
    let web = members(&queue).start().unwrap();
    let server = Server::start(&web);
    for (name, password) in [
        ("alice", "open"),
        ("alice", ""),
        ("carol", "open sesame"),
        ("", ""),
        ("bob", "open sesame"),
    ] {
        let answer = log_in(&server, name, password).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(answer.body, json!({"detail": "Incorrect credentials."}));
        assert!(answer.headers.get("set-cookie").is_none());
    }
    let (status, answer) = server.post("/login", json!({"username": "alice"})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer["detail"].as_str().unwrap().contains("username and password"), "{answer}");
}

#[actix::test]
async fn a_form_in_parts_is_understood_too() {
    let queue = builder().start().unwrap();
    let web = members(&queue).start().unwrap();
    let server = Server::start(&web);
    let login = |password: String| {
        let part = |name: &str, value: &str| {
            format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
        };
        let body = part("username", " alice ") + &part("password", &password) + "--b--\r\n";
        let request = Client::default()
            .post(server.url("/login"))
            .insert_header(("content-type", "multipart/form-data; boundary=b"));
        send(request, body)
    };
    assert_eq!(login("open sesame".into()).await.status, StatusCode::OK);
    assert_eq!(login("open".into()).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(login("x".repeat(10_000)).await.status, StatusCode::UNPROCESSABLE_ENTITY);
}

#[actix::test]
async fn a_login_is_bound_as_other_bodies_are() {
    let queue = builder().start().unwrap();
    let web = members(&queue).max_body_size(50_000).start().unwrap();
    let server = Server::start(&web);
    let login = |rest: String| {
        let request = Client::default()
            .post(server.url("/login"))
            .insert_header(("content-type", "application/x-www-form-urlencoded"));
        send(request, format!("username=bob&password=b&rest={rest}"))
    };
    assert_eq!(login("x".repeat(20_000)).await.status, StatusCode::OK);
    assert_eq!(login("x".repeat(60_000)).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    // However the form is sent.
    let long = log_in(&server, "bob", &"b".repeat(5000)).await;
    assert_eq!(long.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(long.body["detail"].as_str().unwrap().contains("too long"), "{}", long.body);
}

#[actix::test]
async fn a_session_is_its_user_s_own_whatever_its_hash() {
    let turnstile = Turnstile::new();
    let queue = builder().listener(Listener::new("wait", turnstile.handler())).start().unwrap();
    let web = members(&queue).start().unwrap();
    let server = Server::start(&web);
    let alice = cookie_of(&server, "alice", "open sesame").await;
    let bob = cookie_of(&server, "bob", "b").await;
    let send_word = |cookie: String, word: &'static str| {
        let body = json!({"data": [word], "session_hash": "same"});
        let server = &server;
        async move { post_as(server, &cookie, "/gradio_api/run/remember", body).await.body }
    };
    assert_eq!(send_word(alice.clone(), "a").await["data"], json!([["a"]]));
    assert_eq!(send_word(bob.clone(), "b").await["data"], json!([["b"]]));
    assert_eq!(send_word(alice.clone(), "c").await["data"], json!([["a", "c"]]));
    // An event is followed and cancelled by its own user only.
    let body = json!({"data": [1], "session_hash": "same"});
    let answer = post_as(&server, &alice, "/gradio_api/call/wait", body).await;
    let id = answer.body["event_id"].as_str().unwrap().to_string();
    turnstile.arrived(1).await;
    let cancel = json!({"session_hash": "same", "fn_index": 2, "event_id": id});
    post_as(&server, &bob, "/gradio_api/cancel", cancel.clone()).await;
    let path = format!("/gradio_api/call/wait/{id}");
    let mut stolen = Client::default()
        .get(server.url(&path))
        .insert_header(("cookie", bob.as_str()))
        .send()
        .await
        .unwrap();
    assert_eq!(stolen.body().await.unwrap(), "event: error\ndata: \"404: Not Found\"\n\n");
    assert_eq!(turnstile.inside(), 1);
    post_as(&server, &alice, "/gradio_api/cancel", cancel).await;
    turnstile.empty().await;
}

#[actix::test]
async fn a_logout_ends_the_user_s_logins() {
    let queue = builder().start().unwrap();
    let web = members(&queue).start().unwrap();
    let server = Server::start(&web);
    let mut cookies = Vec::new();
    for (name, password) in [("alice", "open sesame"), ("alice", "open sesame"), ("bob", "b")] {
        cookies.push(cookie_of(&server, name, password).await);
    }
    let client = Client::builder().disable_redirects().finish();
    let head = client.head(server.url("/logout"));
    let out = send(head.insert_header(("cookie", cookies[0].as_str())), String::new()).await;
    assert_eq!(out.status, StatusCode::METHOD_NOT_ALLOWED, "HEAD logs nobody out");
    assert!(out.headers.get("set-cookie").is_none());
    for elsewhere in [
        ("origin", "https://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let request = client.get(server.url("/logout")).insert_header(elsewhere);
        let out = send(request.insert_header(("cookie", &*cookies[0])), String::new()).await;
        assert_eq!(out.status, StatusCode::FORBIDDEN, "{elsewhere:?}");
        assert!(out.headers.get("set-cookie").is_none());
    }
    for cookie in &cookies {
        assert_eq!(get_as(&server, cookie, "/config").await.status, StatusCode::OK);
    }
    let request = client.get(server.url("/logout"));
    let out = send(request.insert_header(("cookie", cookies[0].as_str())), String::new()).await;
    assert_eq!(out.status, StatusCode::OK, "there is no page to lead to");
    assert!(out.headers.get("set-cookie").unwrap().to_str().unwrap().contains("Max-Age=0"));
    let mut statuses = Vec::new();
    for cookie in &cookies {
        statuses.push(get_as(&server, cookie, "/config").await.status);
    }
    assert_eq!(statuses, [StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED, StatusCode::OK]);
}

#[actix::test]
async fn a_logout_ends_what_is_still_being_answered() {
    let turnstile = Turnstile::new();
    let listener = Listener::new("wait", turnstile.handler()).concurrency_limit(None);
    let queue = builder().listener(listener).start().unwrap();
    let web = members(&queue).start().unwrap();
    let server = Server::start(&web);
    let cookie = cookie_of(&server, "alice", "open sesame").await;
    let other = cookie_of(&server, "alice", "open sesame").await;
    let bob = cookie_of(&server, "bob", "b").await;
    let stream = async |cookie: &str, path: &str| {
        server.stream_with(path, &[("cookie", cookie.to_string())]).await
    };
    let mut streams = Vec::new();
    for cookie in [&cookie, &bob] {
        let body = json!({"data": [1], "fn_index": 2, "session_hash": "s"});
        post_as(&server, cookie, "/gradio_api/queue/join", body).await;
        let mut stream = stream(cookie, "/gradio_api/queue/data?session_hash=s").await;
        stream.until("process_starts").await;
        streams.push(stream);
    }
    let call = post_as(&server, &cookie, "/gradio_api/call/wait", json!({"data": [2]})).await;
    let path = format!("/gradio_api/call/wait/{}", call.body["event_id"].as_str().unwrap());
    let mut call = stream(&cookie, &path).await;
    let mut heartbeat = Client::default()
        .get(server.url("/gradio_api/heartbeat/s"))
        .insert_header(("cookie", cookie.as_str()))
        .send()
        .await
        .unwrap();
    let run = post_as(&server, &cookie, "/gradio_api/run/wait", json!({"data": [3]}));
    let log_out_meanwhile = async {
        turnstile.arrived(4).await;
        let client = Client::builder().disable_redirects().finish();
        let request = client.get(server.url("/logout")).insert_header(("cookie", other.as_str()));
        assert_eq!(send(request, String::new()).await.status, StatusCode::OK);
        turnstile.open();
    };
    let (run, ()) = futures::join!(run, log_out_meanwhile);
    assert_eq!(run.status, StatusCode::UNAUTHORIZED, "{}", run.body);
    let ended = |events: Vec<common::Event>| {
        events.iter().any(|event| event.data["msg"] == "process_completed")
    };
    assert_eq!(call.rest().await, []);
    assert!(!ended(streams[0].rest().await));
    assert!(ended(streams[1].rest().await), "another user's goes on");
    assert!(heartbeat.body().await.is_ok(), "it ends");
}

#[actix::test]
async fn a_logout_leads_to_the_page_if_there_is_one() {
    let members = members(&builder().start().unwrap()).start().unwrap();
    let server = Server::with(move |config| {
        let page = actix_web::web::get().to(async || "a page");
        let app = actix_web::web::scope("/app").route("/", page).configure(members.routes());
        config.service(app).configure(members.routes())
    });
    let client = Client::builder().disable_redirects().finish();
    let out = send(client.get(server.url("/app/logout")), String::new()).await;
    assert_eq!(out.status, StatusCode::FOUND);
    assert_eq!(out.headers.get("location").unwrap(), &format!("{}/app/", server.base));
    let out = send(client.get(server.url("/logout")), String::new()).await;
    assert_eq!(out.status, StatusCode::OK);
}

#[actix::test]
async fn a_login_ends_when_it_is_not_used() {
    let queue = builder().start().unwrap();
    let web = members(&queue).login_ttl(Duration::ZERO).start().unwrap();
    let server = Server::start(&web);
    let cookie = cookie_of(&server, "bob", "b").await;
    assert_eq!(get_as(&server, &cookie, "/config").await.status, StatusCode::UNAUTHORIZED);
}

/// A store from which everybody can be removed, also while it verifies a password.
struct Removable {
    turnstile: Turnstile,
    removed: Arc<AtomicBool>,
}

impl Auth for Removable {
    type Error = std::convert::Infallible;

    async fn login(&self, _: &str, _: &str) -> Result<bool, Self::Error> {
        let known = !self.removed.load(Ordering::Relaxed);
        self.turnstile.pass().await;
        Ok(known)
    }
}

#[actix::test]
async fn the_service_ends_the_logins_of_a_user_whom_it_removes() {
    let (turnstile, removed) = (Turnstile::new(), Arc::<AtomicBool>::default());
    let store = Removable { turnstile: turnstile.clone(), removed: removed.clone() };
    let queue = builder().start().unwrap();
    let web = Web::builder(&queue).auth(store).start().unwrap();
    let server = Server::start(&web);
    turnstile.let_through(2);
    let ada = cookie_of(&server, "ada", "a").await;
    let bob = cookie_of(&server, "bob", "b").await;
    let late = log_in(&server, "ada", "a");
    let remove = async {
        // Her password has been found right, but that isn't said yet.
        turnstile.arrived(3).await;
        removed.store(true, Ordering::Relaxed);
        web.end_logins("ada");
        turnstile.open();
    };
    let (late, ()) = futures::join!(late, remove);
    assert_eq!(late.status, StatusCode::UNAUTHORIZED);
    assert_eq!(get_as(&server, &ada, "/config").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(get_as(&server, &bob, "/config").await.status, StatusCode::OK);
    // Without a login there is nothing to end.
    Web::new(&queue).end_logins("ada");
}

/// A store that queries a database, which is sometimes gone, and trusts a proxy's header.
struct Store;

impl Auth for Store {
    type Error = &'static str;

    async fn login(&self, username: &str, password: &str) -> Result<bool, Self::Error> {
        tokio::task::yield_now().await;
        match username {
            "broken" => Err("the database is gone"),
            _ => Ok(password == username),
        }
    }

    fn user(&self, request: &HttpRequest) -> Option<String> {
        Some(request.headers().get("x-user")?.to_str().ok()?.to_string())
    }
}

#[actix::test]
async fn a_service_plugs_in_its_own_store() {
    let queue = Queue::builder().listener(Listener::new("who", who)).start().unwrap();
    let members = Web::builder(&queue).auth(Store).start().unwrap();
    let server =
        Server::with(move |config| config.service(web::scope("/app").configure(members.routes())));
    let form = ("content-type", "application/x-www-form-urlencoded");
    let login = |user: &'static str| {
        let request = Client::default()
            .post(server.url("/app/login"))
            .insert_header(form)
            .insert_header(("x-forwarded-proto", "https"));
        send(request, format!("username={user}&password=dora"))
    };
    let answer = login("broken").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!answer.body.to_string().contains("database"), "{}", answer.body);
    let answer = login("dora").await;
    assert_eq!(answer.status, StatusCode::OK);
    // Behind a proxy with TLS, the cookie is for TLS only.
    assert!(answer.headers.get("set-cookie").unwrap().to_str().unwrap().contains("Secure"));
    let run = |header: (&'static str, String)| {
        let request = Client::default().post(server.url("/app/gradio_api/run/who"));
        send(request.insert_header(header), json!({"data": []}).to_string())
    };
    assert_eq!(run(("cookie", answer.cookie())).await.body["data"], json!(["dora"]));
    assert_eq!(run(("x-user", "emil".into())).await.body["data"], json!(["emil"]));
    assert_eq!(run(("x-other", "emil".into())).await.status, StatusCode::UNAUTHORIZED);
}

#[actix::test]
async fn kept_results_are_a_user_s_own() {
    let queue = Queue::builder().listener(Listener::new("who", who).cache(10)).start().unwrap();
    let web = Web::builder(&queue)
        .auth(Users::new().user("alice", "a").user("bob", "b"))
        .start()
        .unwrap();
    let server = Server::start(&web);
    for user in ["alice", "bob", "alice"] {
        let cookie = cookie_of(&server, user, &user[..1]).await;
        let answer = post_as(&server, &cookie, "/gradio_api/run/who", json!({"data": []})).await;
        assert_eq!(answer.body["data"], json!([user]));
    }
}

#[actix::test]
async fn a_page_from_elsewhere_can_not_act_for_its_visitor() {
    let queue = builder().start().unwrap();
    let web = members(&queue).start().unwrap();
    let server = Server::start(&web);
    let cookie = cookie_of(&server, "bob", "b").await;
    let run = |kind: &'static str, origin: String| {
        let request = Client::default()
            .post(server.url("/gradio_api/run/who"))
            .insert_header(("cookie", cookie.as_str()))
            .insert_header(("content-type", kind))
            .insert_header(("origin", origin));
        send(request, json!({"data": []}).to_string())
    };
    let answer = run("text/plain", "https://evil.example".into()).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.body);
    assert_eq!(run("text/plain", server.base.clone()).await.status, StatusCode::OK);
    let preflighted = run("application/json", "https://evil.example".into()).await;
    assert_eq!(preflighted.status, StatusCode::OK);
    assert!(preflighted.headers.get("access-control-allow-origin").is_none());
}

#[actix::test]
async fn without_auth_there_is_no_login_route() {
    let queue = Queue::builder().listener(Listener::new("who", who)).start().unwrap();
    let server = Server::start(&queue);
    assert_eq!(log_in(&server, "alice", "a").await.status, StatusCode::NOT_FOUND);
    let (_, answer) = server.post("/gradio_api/run/who", json!({"data": []})).await;
    assert_eq!(answer["data"], json!([null]));
}

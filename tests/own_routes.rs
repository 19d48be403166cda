//! The login on routes of the service's own, and users whom a proxy names.
#![cfg(feature = "web")]

mod common;

use actix_web::dev::ServiceResponse;
use actix_web::http::StatusCode;
use actix_web::test::{TestRequest, call_service, init_service, read_body};
use actix_web::{App, HttpResponse, web};
use awc::Client;
use common::Server;
use now_serving::testing::Turnstile;
use now_serving::{EventContext, Listener, Queue, Request, User, Users, Web, WebBuilder, WebError};
use serde_json::{Value, json};

async fn who(
    _: (),
    request: Option<Request>,
    context: EventContext,
) -> Result<(Option<String>, Option<String>), String> {
    let header = request.and_then(|request| request.header("x-forwarded-user").map(String::from));
    Ok((context.user().map(String::from), header))
}

fn queue() -> Queue {
    Queue::builder().listener(Listener::new("who", who)).start().unwrap()
}

fn members(queue: &Queue) -> WebBuilder {
    Web::builder(queue).auth(Users::new().user("ada", "a").user("bob", "b"))
}

async fn name(user: User) -> String {
    user.to_string()
}

async fn maybe(user: Option<User>) -> String {
    user.map_or("nobody".into(), |user| user.name().to_string())
}

/// The cookie of a login.
async fn log_in(server: &Server, user: &str, password: &str) -> String {
    let request = Client::default().post(server.url("/login"));
    let form = [("username", user), ("password", password)];
    let answer = request.send_form(&form).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    let set = answer.headers().get("set-cookie").unwrap().to_str().unwrap();
    set.split(';').next().unwrap().to_string()
}

async fn get(server: &Server, path: &str, headers: &[(&str, &str)]) -> (StatusCode, String) {
    let request = Client::builder().disable_redirects().finish().get(server.url(path));
    let request = headers.iter().fold(request, |request, header| request.append_header(*header));
    let mut answer = request.send().await.unwrap();
    let location = answer.headers().get("location").map(|to| to.to_str().unwrap().to_string());
    let body = String::from_utf8(answer.body().await.unwrap().to_vec()).unwrap();
    (answer.status(), location.unwrap_or(body))
}

#[actix::test]
async fn a_route_takes_the_user_of_the_login() {
    let web = members(&queue()).start().unwrap();
    let server = Server::with(move |config| {
        config
            .configure(web.routes())
            .route("/name", web::get().to(name))
            .route("/name", web::post().to(name))
            .route("/maybe", web::get().to(maybe))
            .route("/maybe", web::post().to(maybe))
    });
    let ada = log_in(&server, "ada", "a").await;
    let cookie = ("cookie", ada.as_str());
    assert_eq!(get(&server, "/name", &[cookie]).await, (StatusCode::OK, "ada".into()));
    assert_eq!(get(&server, "/maybe", &[cookie]).await, (StatusCode::OK, "ada".into()));
    assert_eq!(get(&server, "/name", &[]).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(get(&server, "/maybe", &[]).await, (StatusCode::OK, "nobody".into()));
    // A page of another origin acts in nobody's name.
    let foreign = async |path: &str| {
        let request = Client::default().post(server.url(path)).insert_header(cookie);
        let request = request.insert_header(("origin", "https://evil.org"));
        let mut answer = request.send_body("").await.unwrap();
        (answer.status(), answer.body().await.unwrap())
    };
    assert_eq!(foreign("/name").await.0, StatusCode::FORBIDDEN);
    assert_eq!(foreign("/maybe").await, (StatusCode::OK, "nobody".into()));
    assert_eq!(get(&server, "/logout", &[cookie]).await.0, StatusCode::OK);
    assert_eq!(get(&server, "/name", &[cookie]).await.0, StatusCode::UNAUTHORIZED);
}

#[actix::test]
async fn a_user_where_there_is_no_login_is_the_service_s_mistake() {
    let web = Web::new(&queue());
    let server = Server::with(move |config| {
        config
            .configure(web.routes())
            .route("/name", web::get().to(name))
            .route("/maybe", web::get().to(maybe))
    });
    assert_eq!(get(&server, "/name", &[]).await.0, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(get(&server, "/maybe", &[]).await, (StatusCode::OK, "nobody".into()));
}

#[actix::test]
#[should_panic(expected = "there is no login to require")]
async fn a_login_that_there_is_not_can_not_be_required() {
    Web::new(&queue()).require_login();
}

#[actix::test]
async fn routes_behind_the_login_let_only_users_pass() {
    let web = members(&queue()).start().unwrap();
    let server = Server::with(move |config| {
        let page = web.require_login().login_page("/log-in?theme=dark");
        let ada = web.require_login().allow(|user| user == "ada");
        let panics = web.require_login().allow(|_| panic!("not decided"));
        // Not on the scope of `routes`: the middleware alone knows the login.
        config
            .service(web::scope("/app").configure(web.routes()))
            .service(web::resource("/plain").wrap(web.require_login()).to(name))
            .service(web::resource("/page/{of}").wrap(page).to(name))
            .service(web::resource("/ada").wrap(ada).to(async || "only for ada"))
            .service(web::resource("/panics").wrap(panics).to(name))
    });
    let log_in = async |user: &str, password: &str| {
        let form = [("username", user), ("password", password)];
        let request = Client::default().post(server.url("/app/login"));
        let answer = request.send_form(&form).await.unwrap();
        let set = answer.headers().get("set-cookie").unwrap().to_str().unwrap();
        set.split(';').next().unwrap().to_string()
    };
    let (ada, bob) = (log_in("ada", "a").await, log_in("bob", "b").await);
    let (ada, bob) = (("cookie", ada.as_str()), ("cookie", bob.as_str()));
    let html = ("accept", "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8");
    for headers in [&[][..], &[html], &[("cookie", "access-token=a")]] {
        let (status, body) = get(&server, "/plain", headers).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(body.contains("Not authenticated"), "{body}");
    }
    assert_eq!(get(&server, "/plain", &[bob]).await, (StatusCode::OK, "bob".into()));
    // A browser that asks for a page is led to the login, and comes back from there.
    let to = "/log-in?theme=dark&next=%2Fpage%2Fone%3Fsize%3D2%26x";
    let (status, location) = get(&server, "/page/one?size=2&x", &[html]).await;
    assert_eq!((status, location.as_str()), (StatusCode::FOUND, to));
    for accept in ["*/*", "application/json", "text/htmlx"] {
        let (status, _) = get(&server, "/page/one", &[("accept", accept)]).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{accept}");
    }
    let post = Client::default().post(server.url("/page/one")).insert_header(html);
    assert_eq!(post.send().await.unwrap().status(), StatusCode::UNAUTHORIZED);
    let answer = get(&server, "/page/one", &[html, ada]).await;
    assert_eq!(answer, (StatusCode::OK, "ada".into()));
    // Users who may, and others.
    assert_eq!(get(&server, "/ada", &[ada]).await, (StatusCode::OK, "only for ada".into()));
    assert_eq!(get(&server, "/ada", &[bob]).await.0, StatusCode::FORBIDDEN);
    assert_eq!(get(&server, "/ada", &[]).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(get(&server, "/panics", &[ada]).await.0, StatusCode::FORBIDDEN);
    let foreign = Client::default().post(server.url("/ada")).insert_header(ada);
    let foreign = foreign.insert_header(("origin", "https://evil.org"));
    assert_eq!(foreign.send().await.unwrap().status(), StatusCode::FORBIDDEN);
}

#[actix::test]
async fn a_logout_ends_what_a_route_behind_the_login_still_sends() {
    let web = members(&queue()).start().unwrap();
    let turnstile = Turnstile::new();
    let held = turnstile.clone();
    let server = Server::with(move |config| {
        let held = held.clone();
        let endless = move || {
            let held = held.clone();
            let pieces = futures::stream::unfold((), move |()| {
                let held = held.clone();
                async move {
                    held.pass().await;
                    Some((Ok::<_, actix_web::Error>(web::Bytes::from("piece")), ()))
                }
            });
            async move { HttpResponse::Ok().streaming(pieces) }
        };
        config
            .configure(web.routes())
            .service(web::resource("/endless").wrap(web.require_login()).to(endless))
    });
    let ada = log_in(&server, "ada", "a").await;
    let stream = async {
        let request = Client::default().get(server.url("/endless"));
        request.insert_header(("cookie", ada.as_str())).send().await.unwrap().body().await
    };
    let log_out = async {
        turnstile.arrived(1).await;
        assert_eq!(get(&server, "/logout", &[("cookie", &ada)]).await.0, StatusCode::OK);
    };
    let (body, ()) = futures::join!(stream, log_out);
    assert_eq!(body.unwrap(), "", "it ends, and brings nothing more");
}

/// What a request from `peer` with these headers is answered by `who`, and by a route of the service's own.
async fn asked(
    web: &Web,
    peer: &str,
    headers: &[(&str, &str)],
) -> ((StatusCode, Value), StatusCode) {
    let app = App::new()
        .configure(web.routes())
        .service(web::resource("/name").wrap(web.require_login()).to(name));
    let app = init_service(app).await;
    let request = |request: TestRequest| {
        let request = request.peer_addr(format!("{peer}:1000").parse().unwrap());
        headers.iter().fold(request, |request, header| request.append_header(*header))
    };
    let run = TestRequest::post().uri("/gradio_api/run/who").set_json(json!({"data": []}));
    let answer: ServiceResponse = call_service(&app, request(run).to_request()).await;
    let status = answer.status();
    let body: Value = serde_json::from_slice(&read_body(answer).await).unwrap();
    let own = TestRequest::get().uri("/name");
    let own = call_service(&app, request(own).to_request()).await.status();
    ((status, body["data"].clone()), own)
}

#[actix::test]
async fn a_proxy_s_header_names_the_user_and_nobody_else_s_does() {
    let trusting = Web::builder(&queue())
        .trusted_user_header("X-Forwarded-User", ["10.0.0.0/8", "::1"])
        .start()
        .unwrap();
    let ada = [("x-forwarded-user", "ada")];
    for peer in ["10.1.2.3", "[::1]", "[::ffff:10.1.2.3]"] {
        let (status, data) = asked(&trusting, peer, &ada).await.0;
        assert_eq!((status, data), (StatusCode::OK, json!(["ada", "ada"])), "{peer}");
    }
    let closed = ((StatusCode::UNAUTHORIZED, Value::Null), StatusCode::UNAUTHORIZED);
    for peer in ["127.0.0.1", "11.1.2.3", "[::2]"] {
        assert_eq!(asked(&trusting, peer, &ada).await, closed, "{peer}");
        // Whatever else it says of itself.
        let claims = [ada[0], ("x-forwarded-for", "10.1.2.3"), ("forwarded", "for=10.1.2.3")];
        assert_eq!(asked(&trusting, peer, &claims).await, closed, "{peer}");
    }
    let twice = [("x-forwarded-user", "mallory"), ("x-forwarded-user", "ada")];
    assert_eq!(asked(&trusting, "10.1.2.3", &twice).await, closed);
    assert_eq!(asked(&trusting, "10.1.2.3", &[("x-forwarded-user", " ")]).await, closed);
    assert_eq!(asked(&trusting, "10.1.2.3", &[]).await, closed);
}

#[actix::test]
async fn beside_a_login_a_forged_header_is_neither_believed_nor_seen() {
    let web = members(&queue()).trusted_user_header("X-Forwarded-User", ["10.0.0.1"]);
    let web = web.start().unwrap();
    let routes = web.clone();
    let server = Server::with(move |config| config.configure(routes.routes()));
    let bob = log_in(&server, "bob", "b").await;
    let headers = [("cookie", bob.as_str()), ("x-forwarded-user", "ada")];
    let (status, data) = asked(&web, "127.0.0.1", &headers).await.0;
    assert_eq!((status, data), (StatusCode::OK, json!(["bob", null])));
    let (status, data) = asked(&web, "10.0.0.1", &headers).await.0;
    assert_eq!((status, data), (StatusCode::OK, json!(["ada", "ada"])));
}

#[actix::test]
async fn a_trusted_header_that_can_not_be_read_is_refused_at_the_start() {
    let refused = |name: &str, peer: &str| {
        Web::builder(&queue()).trusted_user_header(name, [peer]).start().err()
    };
    assert_eq!(refused("no header", "::1"), Some(WebError::HeaderName("no header".into())));
    assert_eq!(refused("x-user", "proxy"), Some(WebError::Network("proxy".into())));
    assert_eq!(refused("x-user", "10.0.0.0/8"), None);
}

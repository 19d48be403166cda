//! Whoever guesses passwords leaves a trace in the log.
#![cfg(feature = "web")]

mod common;

use std::sync::Mutex;

use awc::Client;
use awc::http::StatusCode;
use common::Server;
use log::{LevelFilter, Log, Metadata, Record};
use now_serving::{Listener, Queue, Users, Web};

/// What was logged, with its level.
static LOGGED: Mutex<Vec<String>> = Mutex::new(Vec::new());

struct Ear;

impl Log for Ear {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        if record.target().starts_with("now_serving") {
            LOGGED.lock().unwrap().push(format!("{} {}", record.level(), record.args()));
        }
    }

    fn flush(&self) {}
}

#[actix::test]
async fn a_refused_login_is_logged_with_its_address_and_at_debug_its_name() {
    log::set_logger(&Ear).unwrap();
    log::set_max_level(LevelFilter::Debug);
    let echo = Listener::new("echo", async |text: String| Ok::<_, String>(text));
    let queue = Queue::builder().listener(echo).start().unwrap();
    let web = Web::builder(&queue).auth(Users::new().user("ada", "a")).start().unwrap();
    let server = Server::with(move |config| {
        let operators = Users::new().user("ada", "a");
        config.configure(web.routes()).configure(web.dashboard("/queues", operators))
    });
    let form = [("username", "mal\nlory"), ("password", "guessed")];
    let login = Client::default().post(server.url("/login")).send_form(&form).await.unwrap();
    assert_eq!(login.status(), StatusCode::UNAUTHORIZED);
    let request = Client::default().get(server.url("/queues"));
    let looked = request.basic_auth("mal\nlory", "guessed").send().await.unwrap();
    assert_eq!(looked.status(), StatusCode::UNAUTHORIZED);
    let logged = LOGGED.lock().unwrap();
    for line in [
        "INFO a login from 127.0.0.1 was refused",
        r#"DEBUG the login that was refused was of "mal\nlory""#,
        "WARN operators: a login from 127.0.0.1 was refused",
        r#"DEBUG operators: the login that was refused was of "mal\nlory""#,
    ] {
        assert!(logged.iter().any(|logged| logged == line), "{line}: {logged:#?}");
    }
    assert!(logged.iter().all(|line| !line.contains("guessed")));
}

//! Whose event it is, and who may call what: in process and over HTTP.

#[cfg(feature = "web")]
mod common;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;

use now_serving::{CallError, EventContext, Listener, Queue, Refusal, SubmitError, Validation};

async fn who(_: (), context: EventContext) -> Result<Option<String>, String> {
    Ok(context.user().map(String::from))
}

fn forbidden(listener: &str, user: &str) -> SubmitError {
    SubmitError::Forbidden { listener: listener.into(), user: user.into() }
}

#[actix::test]
async fn an_in_process_event_is_whose_name_it_is_in() {
    let batch = async |inputs: Vec<u32>, context: EventContext| {
        Ok::<_, String>(inputs.iter().map(|_| context.user().map(String::from)).collect())
    };
    let queue = Queue::builder()
        .listener(Listener::new("who", who))
        .listener(Listener::batch("batch", batch))
        .start()
        .unwrap();
    let ada = queue.as_user("ada");
    let own = |name: &str| Some(name.to_string());
    assert_eq!(ada.call("who", ()).await, Ok(own("ada")));
    assert_eq!(ada.try_call("who", ()).await, Ok(own("ada")));
    assert_eq!(ada.submit("who", ()).await.unwrap().result().await, Ok(own("ada")));
    assert_eq!(ada.try_submit("who", ()).await.unwrap().result().await, Ok(own("ada")));
    assert_eq!(ada.call("batch", 1u32).await, Ok(own("ada")));
    assert_eq!(ada.as_user(String::from("bob")).call("who", ()).await, Ok(own("bob")));
    assert_eq!(queue.call("who", ()).await, Ok(None::<String>));
    let handle = ada.listener::<(), Option<String>>("who").unwrap();
    assert_eq!(handle.call(()).await, Ok(own("ada")));
    assert_eq!(handle.as_user("bob").call(()).await, Ok(own("bob")));
    assert_eq!(handle.call(()).await, Ok(own("ada")));
}

#[actix::test]
async fn a_nested_call_is_the_service_s_own_unless_it_names_the_user() {
    let asks = async |pass_on: bool, context: EventContext| {
        let queue = context.queue()?;
        let user = context.user().unwrap_or_default();
        let queue = if pass_on { queue.as_user(user) } else { queue };
        queue.call::<(), Option<String>>("who", ()).await
    };
    let queue = Queue::builder()
        .listener(Listener::new("asks", asks))
        .listener(Listener::new("who", who))
        .start()
        .unwrap();
    let ada = queue.as_user("ada");
    assert_eq!(ada.call("asks", false).await, Ok(None::<String>));
    assert_eq!(ada.call("asks", true).await, Ok(Some("ada".to_string())));
}

#[actix::test]
async fn a_listener_allows_whom_it_wants_in_process() {
    let queue = Queue::builder()
        .listener(
            Listener::new("who", who)
                .allow(|user| user == Some("ada"))
                .validator(|_: &()| panic!("it comes after")),
        )
        .listener(Listener::new("panics", who).allow(|_| panic!("not decided")))
        .start()
        .unwrap();
    let bob = queue.as_user("bob");
    let refused = CallError::Submit(forbidden("who", "bob"));
    assert_eq!(bob.call::<_, Option<String>>("who", ()).await, Err(refused.clone()));
    assert_eq!(bob.try_call::<_, Option<String>>("who", ()).await, Err(refused));
    assert_eq!(bob.submit("who", ()).await.unwrap_err(), forbidden("who", "bob"));
    assert_eq!(bob.try_submit("who", ()).await.unwrap_err(), forbidden("who", "bob"));
    let recorder = now_serving::testing::Recorder::start();
    let sent = bob.submit_to("who", (), recorder.recipient()).await;
    assert_eq!(sent.unwrap_err(), forbidden("who", "bob"));
    // Whoever may comes as far as the validator; so does the service itself.
    for queue in [queue.as_user("ada"), queue.clone()] {
        let came = queue.submit("who", ()).await.unwrap_err();
        assert_eq!(came, SubmitError::Refused(Refusal::ValidatorPanicked));
    }
    assert_eq!(bob.submit("panics", ()).await.unwrap_err(), forbidden("panics", "bob"));
    assert_eq!(queue.snapshot().await.listener("who").unwrap().admitted, 0);
}

#[actix::test]
async fn a_validator_sees_the_user() {
    fn check(steps: &u32, user: Option<&str>) -> Validation {
        let max = if user == Some("ada") { 100 } else { 10 };
        Validation::new().check("steps", *steps <= max, format!("At most {max}."))
    }
    let paint = async |steps: u32| Ok::<_, String>(steps);
    let checked = Arc::new(AtomicUsize::new(0));
    let counted = checked.clone();
    let queue = Queue::builder()
        .listener(Listener::new("paint", paint).validator(check))
        .listener(Listener::new("count", paint).validator(
            move |steps: &u32, user: Option<&str>| {
                counted.fetch_add(1, SeqCst);
                Validation::new().check("steps", user.is_some(), "Log in.").check(
                    "steps",
                    *steps > 0,
                    "At least 1.",
                )
            },
        ))
        .start()
        .unwrap();
    assert_eq!(queue.as_user("ada").call("paint", 50u32).await, Ok(50u32));
    for queue in [queue.as_user("bob"), queue.clone()] {
        let error = queue.call::<_, u32>("paint", 50u32).await.unwrap_err();
        assert_eq!(error.to_string(), "steps: At most 10.");
    }
    assert!(queue.call::<_, u32>("count", 1u32).await.is_err());
    assert_eq!(queue.as_user("bob").call("count", 1u32).await, Ok(1u32));
    assert_eq!(checked.load(SeqCst), 2);
}

#[cfg(feature = "web")]
mod over_http {
    use super::*;
    use awc::Client;
    use awc::http::StatusCode;
    use common::Server;
    use now_serving::{Auth, Web};
    use serde_json::{Value, json};

    /// Whoever the header names.
    struct ByHeader;

    impl Auth for ByHeader {
        type Error = std::convert::Infallible;

        async fn login(&self, _: &str, _: &str) -> Result<bool, Self::Error> {
            Ok(false)
        }

        fn user(&self, request: &actix_web::HttpRequest) -> Option<String> {
            Some(request.headers().get("x-user")?.to_str().ok()?.to_string())
        }
    }

    async fn post(server: &Server, user: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let request = Client::default().post(server.url(path)).insert_header(("x-user", user));
        let mut answer = request.send_body(body.to_string()).await.unwrap();
        (answer.status(), answer.json().await.unwrap())
    }

    /// A listener for ada only, with kept results and a validator.
    fn only_ada() -> (Queue, Arc<AtomicUsize>) {
        let validated = Arc::new(AtomicUsize::new(0));
        let counted = validated.clone();
        let echo = async |text: String| Ok::<_, String>(text);
        let echo = Listener::new("echo", echo)
            .cache(10)
            .allow(|user| user == Some("ada"))
            .validator(move |_: &String, user: Option<&str>| {
                assert_eq!(user, Some("ada"));
                counted.fetch_add(1, SeqCst);
                Validation::new()
            });
        (Queue::builder().listener(echo).start().unwrap(), validated)
    }

    const WAYS: [(&str, &str); 7] = [
        ("queue/join", r#"{"data": ["a"], "fn_index": 0, "session_hash": "s"}"#),
        ("call/echo", r#"{"data": ["a"]}"#),
        ("call/v2/echo", r#"{"param_0": "a"}"#),
        ("run/echo", r#"{"data": ["a"]}"#),
        ("api/echo", r#"{"data": ["a"]}"#),
        ("run/any", r#"{"data": ["a"], "fn_index": 0}"#),
        // What is wrong with the input is nobody else's business.
        ("queue/join", r#"{"data": [1], "fn_index": 0, "session_hash": "s"}"#),
    ];

    #[actix::test]
    async fn no_way_in_over_http_goes_around_allow() {
        let (queue, validated) = only_ada();
        let server = Server::start(&Web::builder(&queue).auth(ByHeader).start().unwrap());
        let run = json!({"data": ["a"]});
        let (status, answer) = post(&server, "ada", "/gradio_api/run/echo", run).await;
        assert_eq!((status, &answer["data"]), (StatusCode::OK, &json!(["a"])));
        assert_eq!(validated.load(SeqCst), 1);
        for (way, body) in WAYS {
            let path = format!("/gradio_api/{way}");
            let body: Value = serde_json::from_str(body).unwrap();
            let (status, answer) = post(&server, "bob", &path, body.clone()).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{way} {answer}");
            assert_eq!(answer["detail"], "You may not call /echo.", "{way}");
            if way.starts_with("run") || way.starts_with("api") {
                assert_eq!(answer["error"], answer["detail"]);
            }
            assert_eq!(post(&server, "ada", &path, body).await.0, StatusCode::OK, "{way}");
        }
        let (_, openapi) = {
            let request = Client::default().get(server.url("/gradio_api/openapi.json"));
            let mut answer = request.insert_header(("x-user", "bob")).send().await.unwrap();
            (answer.status(), answer.json::<Value>().await.unwrap())
        };
        let responses = &openapi["paths"]["/gradio_api/call/v2/echo"]["post"]["responses"];
        assert!(responses["403"].is_object(), "{responses}");
    }

    #[actix::test]
    async fn without_a_login_there_is_no_user_to_allow() {
        let (queue, validated) = only_ada();
        let server = Server::start(&queue);
        for (way, body) in WAYS {
            let body: Value = serde_json::from_str(body).unwrap();
            let (status, _) = post(&server, "ada", &format!("/gradio_api/{way}"), body).await;
            assert_eq!(status, StatusCode::FORBIDDEN, "{way}");
        }
        assert_eq!(validated.load(SeqCst), 0);
        // Whatever the name in which the web was made: it has no part in that.
        let server = Server::start(&Web::new(&queue.as_user("ada")));
        let (status, _) =
            post(&server, "ada", "/gradio_api/run/echo", json!({"data": ["a"]})).await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }

    #[actix::test]
    async fn a_route_of_one_s_own_answers_403_for_a_forbidden_call() {
        let (queue, _) = only_ada();
        let server = Server::with(move |config| {
            let queue = queue.clone();
            let echo = move |user: actix_web::web::Path<String>| {
                let queue = queue.as_user(user.into_inner());
                async move { queue.call::<_, String>("echo", "a".to_string()).await }
            };
            config.route("/as/{user}", actix_web::web::get().to(echo))
        });
        let get = async |path: &str| {
            let mut answer = Client::default().get(server.url(path)).send().await.unwrap();
            (answer.status(), answer.body().await.unwrap())
        };
        assert_eq!(get("/as/ada").await, (StatusCode::OK, "a".into()));
        let (status, body) = get("/as/bob").await;
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert_eq!(body, r#"{"detail":"You may not call /echo."}"#);
    }
}

//! How listeners are described to clients, named arguments, and requests that bypass the queue.
#![cfg(feature = "web")]

mod common;

use actix_web::web;
use awc::http::StatusCode;
use common::Server;
use now_serving::{
    ApiVisibility, CallError, Files, Listener, Queue, Refusal, SubmitError, UserError, Validation,
    Web,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

/// Says words.
#[derive(Deserialize, JsonSchema)]
struct Words {
    /// What to say.
    text: String,
    #[serde(default = "twice")]
    times: usize,
}

fn twice() -> usize {
    2
}

async fn repeat(words: Words) -> Result<String, UserError> {
    match words.times {
        0 => Err(UserError::new("nothing to say")),
        times => Ok(words.text.repeat(times)),
    }
}

fn queue() -> Queue {
    Queue::builder()
        .listener(Listener::new("repeat", repeat))
        .listener(Listener::new("quick", repeat).queue(false))
        .listener(Listener::new("swap", async |(a, b): (u8, u8)| Ok::<_, String>((b, a))))
        .listener(Listener::new("hidden", repeat).api_visibility(ApiVisibility::Undocumented))
        .listener(Listener::new("secret", repeat).api_visibility(ApiVisibility::Private))
        .start()
        .unwrap()
}

async fn result(server: &Server, name: &str, arguments: Value) -> Value {
    let (status, answer) = server.post(&format!("/gradio_api/call/v2/{name}"), arguments).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let id = answer["event_id"].as_str().unwrap();
    let events = server.stream(&format!("/gradio_api/call/v2/{name}/{id}")).await.rest().await;
    assert_eq!(events[events.len() - 1].name.as_deref(), Some("complete"));
    events[events.len() - 1].data.clone()
}

#[actix::test]
async fn arguments_may_be_named() {
    let queue = queue();
    let server = Server::start(&queue);
    assert_eq!(result(&server, "repeat", json!({"times": 3, "text": "a"})).await, json!(["aaa"]));
    assert_eq!(result(&server, "repeat", json!({"text": "a", "times": null})).await, json!(["aa"]));
    assert_eq!(result(&server, "swap", json!({"param_1": 2, "param_0": 1})).await, json!([2, 1]));
    for (name, arguments, parameter, message) in [
        ("repeat", json!({"text": "a", "size": 1}), "size", "/repeat takes no size"),
        ("repeat", json!({"times": 1}), "data", "missing field `text`"),
        ("repeat", json!({"text": 1}), "text", "invalid type"),
        ("swap", json!({"param_0": 1}), "param_1", "param_1 is missing"),
    ] {
        let (status, answer) = server.post(&format!("/gradio_api/call/v2/{name}"), arguments).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        let detail = &answer["detail"][0];
        assert_eq!(detail["parameter_name"], parameter, "{answer}");
        assert_eq!(detail["is_valid"], false);
        assert!(detail["message"].as_str().unwrap().starts_with(message), "{answer}");
    }
}

#[actix::test]
async fn a_run_gives_its_result_at_once() {
    let queue = queue();
    let server = Server::start(&queue);
    for name in ["quick", "repeat"] {
        let path = format!("/gradio_api/run/{name}");
        let (status, answer) = server.post(&path, json!({"data": ["a"]})).await;
        assert_eq!((status, &answer["data"]), (StatusCode::OK, &json!(["aa"])));
        assert_eq!(answer["is_generating"], false);
        let (status, answer) = server.post(&path, json!({"data": ["a", 0]})).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
        let error =
            json!({"error": "nothing to say", "duration": 10.0, "visible": true, "title": "Error"});
        assert_eq!(answer, error);
        let (status, answer) = server.post(&path, json!({"data": [1]})).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(answer["error"].as_str().unwrap().starts_with("text: invalid type"), "{answer}");
    }
}

#[actix::test]
async fn visibility_is_kept_by_the_server() {
    let queue = queue();
    let server = Server::start(&queue);
    let info = server.get("/gradio_api/info").await;
    let names: Vec<_> = info["named_endpoints"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(names, ["/repeat", "/quick", "/swap"]);
    assert_eq!(result(&server, "hidden", json!({"text": "a"})).await, json!(["aa"]));
    for path in ["call/secret", "call/v2/secret", "run/secret"] {
        let (status, _) = server.post(&format!("/gradio_api/{path}"), json!({"data": ["a"]})).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{path}");
    }
    let join = json!({"data": ["a"], "fn_index": 4, "session_hash": "s"});
    assert_eq!(server.post("/gradio_api/queue/join", join).await.0, StatusCode::NOT_FOUND);
    let words = Words { text: "a".into(), times: 1 };
    assert_eq!(queue.call("secret", words).await, Ok("a".to_string()));
}

#[actix::test]
async fn nothing_is_told_of_a_private_listener() {
    let queue = queue();
    let server = Server::start(&queue);
    let config = server.get("/config").await;
    let ids: Vec<_> = config["dependencies"].as_array().unwrap().iter().map(|d| &d["id"]).collect();
    assert_eq!(ids, [0, 1, 2, 3], "numbers are places");
    for path in ["/config", "/gradio_api/info", "/gradio_api/openapi.json"] {
        assert!(!server.get(path).await.to_string().contains("secret"), "{path}");
    }
}

#[actix::test]
async fn a_scope_may_have_parameters_of_its_own() {
    let queue = queue();
    let file = Files::of(&queue).save("fox.txt", "fox").unwrap();
    let place = file.path().parent().unwrap().file_name().unwrap().to_str().unwrap();
    let key = format!("{place}/fox.txt");
    let served = Web::new(&queue);
    let server = Server::with(move |config| {
        config.service(web::scope("/t/{tenant}/{place}").configure(served.routes()))
    });
    let api = "/t/acme/x/gradio_api";
    let body = json!({"data": ["a"]});
    let run = server.post(&format!("{api}/run/repeat"), body.clone()).await;
    assert_eq!((run.0, &run.1["data"]), (StatusCode::OK, &json!(["aa"])), "{}", run.1);
    for version in ["call", "call/v2"] {
        let body = if version == "call" { body.clone() } else { json!({"text": "a"}) };
        let (status, answer) = server.post(&format!("{api}/{version}/repeat"), body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        let id = answer["event_id"].as_str().unwrap();
        let end = server.stream(&format!("{api}/{version}/repeat/{id}")).await.rest().await;
        assert_eq!(end.last().unwrap().data, json!(["aa"]));
    }
    assert_eq!(server.stream(&format!("{api}/heartbeat/s")).await.next_text().await, "data: ALIVE");
    let url = server.url(&format!("{api}/file={key}"));
    let mut file = awc::Client::default().get(url).send().await.unwrap();
    assert_eq!(&file.body().await.unwrap()[..], b"fox");
}

#[actix::test]
async fn head_is_answered_where_get_is_and_begins_nothing() {
    let queue = queue();
    let described = Web::new(&queue);
    let served = described.clone();
    let operators = now_serving::Users::new().user("operator", "open");
    let server = Server::with(move |config| {
        config
            .configure(served.routes())
            .configure(served.metrics("/metrics"))
            .configure(served.dashboard("/queues", operators.clone()))
    });
    let head = async |path: &str| {
        let request = awc::Client::default().head(server.url(path)).basic_auth("operator", "open");
        let mut answer = request.send().await.unwrap();
        assert!(answer.body().await.unwrap().is_empty(), "{path}");
        answer
    };
    let api = "/gradio_api";
    for path in ["/config", "/metrics", "/queues", "/queues/snapshot"] {
        assert_eq!(head(path).await.status(), StatusCode::OK, "{path}");
    }
    for path in ["app_id", "info", "openapi.json", "queue/status"] {
        assert_eq!(head(&format!("{api}/{path}")).await.status(), StatusCode::OK, "{path}");
    }
    let body = json!({"data": ["a"]});
    let (_, called) = server.post(&format!("{api}/call/repeat"), body).await;
    let call = format!("call/repeat/{}", called["event_id"].as_str().unwrap());
    server.join("s", 0, json!(["a"])).await;
    for path in [&*call, "queue/data?session_hash=s", "heartbeat/t", "upload_progress?upload_id=u"]
    {
        let answer = head(&format!("{api}/{path}")).await;
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let kind = answer.headers().get("content-type").unwrap();
        assert_eq!(kind, "text/event-stream; charset=utf-8", "{path}");
    }
    let clients = described.snapshot().await.clients;
    assert_eq!((clients.sessions, clients.streams), (2, 0), "those of the call and the join");
    // All is still there for who reads it.
    server.session("s").await.until("process_completed").await;
    let end = server.stream(&format!("{api}/{call}")).await.rest().await;
    assert_eq!(end.last().unwrap().data, json!(["aa"]));
}

#[actix::test]
async fn an_input_is_validated_before_it_queues() {
    let check = |words: &Words| {
        Validation::new().check("text", !words.text.is_empty(), "Say something.").check(
            "times",
            words.times < 10,
            "Not so often.",
        )
    };
    let queue = Queue::builder()
        .listener(Listener::new("repeat", repeat).validator(check))
        .start()
        .unwrap();
    let server = Server::start(&queue);
    let good =
        json!({"__type__": "validate", "is_valid": true, "message": "", "parameter_name": "text"});
    let bad = json!({"__type__": "validate", "is_valid": false, "message": "Not so often.", "parameter_name": "times"});
    let data = json!({"data": ["a", 10], "fn_index": 0, "session_hash": "s"});
    for path in ["queue/join", "call/repeat", "run/repeat"] {
        let (status, answer) = server.post(&format!("/gradio_api/{path}"), data.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(answer["detail"], json!([good, bad]), "{path}");
    }
    assert_eq!(result(&server, "repeat", json!({"text": "a"})).await, json!(["aa"]));
    let refused = queue.call::<_, String>("repeat", Words { text: "".into(), times: 10 }).await;
    let refused = refused.unwrap_err().to_string();
    assert_eq!(refused, "text: Say something.; times: Not so often.");
}

#[actix::test]
async fn a_validator_that_panics_refuses_and_the_listener_goes_on() {
    let check =
        |text: &String| Validation::new().check("param_0", text.parse::<u8>().unwrap() > 0, "");
    let echo = async |text: String| Ok::<_, String>(text);
    let queue =
        Queue::builder().listener(Listener::new("echo", echo).validator(check)).start().unwrap();
    let refused = queue.call::<_, String>("echo", "no number".to_string()).await;
    let panicked = SubmitError::Refused(Refusal::ValidatorPanicked);
    assert_eq!(refused, Err(CallError::Submit(panicked)));
    // No input is at fault.
    let server = Server::start(&queue);
    for path in ["run/echo", "call/echo", "queue/join"] {
        let body = json!({"data": ["no number"], "fn_index": 0, "session_hash": "s"});
        let (status, answer) = server.post(&format!("/gradio_api/{path}"), body).await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR, "{answer}");
        assert_eq!(answer["detail"], "The input could not be checked.");
    }
    assert_eq!(queue.call("echo", "1".to_string()).await, Ok("1".to_string()));
}

#[actix::test]
async fn tools_get_an_openapi_document() {
    let queue = queue();
    let web = Web::builder(&queue).title("Words").start().unwrap();
    let server = Server::start(&web);
    let document = server.get("/gradio_api/openapi.json").await;
    assert_eq!(document["info"]["title"], "Words");
    let paths = document["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 6);
    let post = &paths["/gradio_api/call/v2/repeat"]["post"];
    assert_eq!(post["summary"], "Says words.");
    let schema = &post["requestBody"]["content"]["application/json"]["schema"];
    assert_eq!(schema["required"], json!(["text"]));
    assert_eq!(
        schema["properties"]["text"],
        json!({"type": "string", "description": "What to say."})
    );
    assert_eq!(schema["properties"]["times"]["default"], 2);
}

#[actix::test]
async fn routes_stand_in_a_scope() {
    let queue = queue();
    let served = Web::new(&queue);
    let server = Server::with(move |config| {
        config.service(web::scope("/deep/app").configure(served.routes()))
    });
    let config = server.get("/deep/app/config").await;
    assert_eq!(config["root"], format!("{}/deep/app", server.base));
    let info = server.get("/deep/app/gradio_api/info").await;
    let snippet = info["named_endpoints"]["/repeat"]["code_snippets"]["python"].as_str().unwrap();
    assert!(snippet.contains(&format!("Client(\"{}/deep/app\")", server.base)), "{snippet}");
    let (status, _) = server.post("/deep/app/gradio_api/run/quick", json!({"data": ["a"]})).await;
    assert_eq!(status, StatusCode::OK);
    let reset = server.post("/deep/app/gradio_api/reset", json!({"event_id": null})).await;
    assert_eq!(reset, (StatusCode::OK, json!({"success": true})));
    assert_eq!(server.get("/deep/app/gradio_api/app_id").await["app_id"], config["app_id"]);
}

//! Every message has exactly the keys that Gradio's has, and values of the same kinds.
//!
//! The examples were captured from Gradio 6.31.0.
#![cfg(feature = "web")]

mod common;

use std::time::Duration;

use common::Server;
use futures::{StreamExt, stream};
use now_serving::{EventContext, Listener, Queue, UserError};
use serde_json::{Value, json};

const CAPTURED: &str = r#"[
    {"msg":"estimation","event_id":"…","rank":0,"queue_size":1,"rank_eta":0.15},
    {"msg":"process_starts","event_id":"…","eta":0.15},
    {"msg":"progress","event_id":"…","progress_data":[{"index":null,"length":null,"unit":"steps","progress":0.33,"desc":"step 0"}]},
    {"msg":"log","event_id":"…","log":"done it","level":"info","duration":10.0,"visible":true,"title":"Info"},
    {"msg":"process_generating","event_id":"…","output":{"data":["000"],"is_generating":true,"duration":0.05,"average_duration":0.04,"render_config":null,"changed_state_ids":[],"used_cache":null},"success":true,"time_limit":null},
    {"msg":"process_completed","event_id":"…","output":{"data":["222"],"is_generating":false,"duration":0.3,"average_duration":0.3,"render_config":null,"changed_state_ids":[],"used_cache":null},"success":true,"title":null,"used_cache":null,"cache_duration":0.3,"avg_time":0.3},
    {"msg":"close_stream","event_id":null}
]"#;

const COMPONENT: &str = r#"{"id":1,"type":"api","props":{"_api_info":{"type":"string"},"label":"1st","name":"api","_selectable":false},"skip_api":false,"component_class_id":"2ad6","key":null,"api_info":{"type":"string"},"api_info_as_input":{"type":"string"},"api_info_as_output":{"type":"string"},"example_inputs":"..."}"#;

const DEPENDENCY: &str = r#"{"id":0,"targets":[],"inputs":[1],"outputs":[2],"backend_fn":true,"js":null,"queue":true,"api_name":"count","api_description":null,"scroll_to_output":false,"show_progress":"hidden","show_progress_on":null,"batch":false,"max_batch_size":4,"cancels":[],"types":{"generator":true,"cancel":false},"collects_event_data":false,"trigger_after":null,"trigger_only_on_success":false,"trigger_only_on_failure":false,"trigger_mode":"once","api_visibility":"public","rendered_in":null,"render_id":null,"connection":"sse","time_limit":null,"stream_every":0.5,"event_specific_args":null,"component_prop_inputs":[],"js_implementation":null}"#;

const CONFIG: [&str; 36] = [
    "version",
    "api_prefix",
    "mode",
    "app_id",
    "dev_mode",
    "vibe_mode",
    "analytics_enabled",
    "components",
    "css",
    "connect_heartbeat",
    "js",
    "head",
    "title",
    "space_id",
    "enable_queue",
    "show_error",
    "footer_links",
    "run_history",
    "is_colab",
    "max_file_size",
    "stylesheets",
    "theme",
    "protocol",
    "body_css",
    "fill_height",
    "fill_width",
    "theme_hash",
    "pwa",
    "pages",
    "page",
    "mcp_server",
    "i18n_translations",
    "dependencies",
    "layout",
    "username",
    "root",
];

const INFO: &str = r#"{"parameters":[{"label":"1st","parameter_name":"param_0","parameter_has_default":false,"parameter_default":null,"type":{"type":"string"},"python_type":{"type":"str","description":""},"component":"Api","example_input":"..."}],"returns":[{"label":"1st","type":{"type":"string"},"python_type":{"type":"str","description":""},"component":"Api"}],"api_visibility":"public","description":"","code_snippets":{"python":"…","javascript":"…","bash":"…","cli":"…"}}"#;

fn queue() -> Queue {
    let count = |text: String, context: EventContext| {
        // As Gradio's, the first item takes a moment: it is progress that comes first.
        context.progress(0.5, "halfway");
        context.info("done it");
        stream::iter(0..2).then(move |n| {
            let text = text.clone();
            async move {
                tokio::time::sleep(Duration::from_millis(2)).await;
                Ok::<_, UserError>(text.repeat(n + 1))
            }
        })
    };
    Queue::builder().listener(Listener::stream("count", count)).start().unwrap()
}

/// The same keys, and values of the same kinds. Null may stand for what isn't known yet.
fn like(ours: &Value, captured: &Value, path: &str) {
    match (ours, captured) {
        (Value::Object(ours), Value::Object(captured)) => {
            let keys = |map: &serde_json::Map<String, Value>| {
                let mut keys: Vec<_> = map.keys().cloned().collect();
                keys.sort();
                keys
            };
            assert_eq!(keys(ours), keys(captured), "{path}");
            for (key, captured) in captured {
                like(&ours[key], captured, &format!("{path}.{key}"));
            }
        }
        (Value::Array(ours), Value::Array(captured)) => {
            for (ours, captured) in ours.iter().zip(captured) {
                like(ours, captured, &format!("{path}[]"));
            }
        }
        (Value::Null, _) if path.ends_with("eta") => {}
        _ => assert_eq!(
            std::mem::discriminant(ours),
            std::mem::discriminant(captured),
            "{path}: {ours} is not of the kind of {captured}"
        ),
    }
}

#[actix::test]
async fn messages_have_gradio_s_keys_and_kinds() {
    let queue = queue();
    let server = Server::start(&queue);
    // The second knows how long a run takes.
    for round in 0..2 {
        server.join("a", 0, json!(["x"])).await;
        let messages = server.session("a").await.rest().await;
        for captured in serde_json::from_str::<Vec<Value>>(CAPTURED).unwrap() {
            let kind = captured["msg"].as_str().unwrap();
            let ours = messages.iter().find(|event| event.data["msg"] == kind);
            let ours = ours.unwrap_or_else(|| panic!("round {round}: no {kind} came"));
            like(&ours.data, &captured, kind);
        }
    }
}

#[actix::test]
async fn config_and_info_have_gradio_s_keys_and_kinds() {
    let queue = queue();
    let server = Server::start(&queue);
    let config = server.get("/config").await;
    let keys: Vec<_> = config.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, CONFIG);
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    like(&config["components"][0], &parse(COMPONENT), "component");
    assert_eq!(config["dependencies"][0], parse(DEPENDENCY));
    let info = server.get("/gradio_api/info?serialize=False").await;
    assert_eq!(info["unnamed_endpoints"], json!({}));
    let mut described = info["named_endpoints"]["/count"].clone();
    like(&described, &parse(INFO), "info");
    let snippets = described["code_snippets"].take();
    let mut expected = parse(INFO);
    expected["code_snippets"] = Value::Null;
    assert_eq!(described, expected);
    let base = &server.base;
    assert_eq!(
        snippets["bash"],
        format!(
            "curl -X POST {base}/gradio_api/call/v2/count -s -H \"Content-Type: application/json\" \
             \\\n  -d '{{\"param_0\":\"...\"}}' \\\n  | awk -F'\"' '{{ print $4}}' \\\n  | read \
             EVENT_ID; curl -N {base}/gradio_api/call/count/$EVENT_ID"
        )
    );
}

#[actix::test]
async fn ends_without_a_result_are_gradio_s() {
    let turnstile = now_serving::testing::Turnstile::new();
    let fail = async |_: String| Err::<(), _>(UserError::new("no good"));
    let queue = Queue::builder()
        .listener(Listener::new("fail", fail))
        .listener(Listener::new("wait", turnstile.handler()))
        .start()
        .unwrap();
    let server = Server::start(&queue);
    let end = async |fn_index, data: Value, cancel: bool| {
        let id = server.join("a", fn_index, data).await;
        if cancel {
            server.cancel("a", &id).await;
        }
        let messages = server.session("a").await.until("process_completed").await;
        let mut end = messages[messages.len() - 1].clone();
        assert_eq!(end["event_id"].take(), id);
        end
    };
    let failed: Value = serde_json::from_str(
        r#"{"msg":"process_completed","event_id":null,"output":{"error":"no good","duration":10.0,"visible":true,"title":"Error"},"success":false,"title":"Error","used_cache":null,"cache_duration":null,"avg_time":null}"#,
    )
    .unwrap();
    assert_eq!(end(0, json!(["x"]), false).await, failed);
    // Gradio sends {} and true, on which its own client fails.
    let cancelled: Value = serde_json::from_str(
        r#"{"msg":"process_completed","event_id":null,"output":{"error":"The event was cancelled.","duration":10.0,"visible":false,"title":"Cancelled"},"success":false,"title":"Cancelled","used_cache":null,"cache_duration":null,"avg_time":null}"#,
    )
    .unwrap();
    like(&end(1, json!([1]), true).await, &cancelled, "cancelled");
    let status = server.get("/gradio_api/queue/status").await;
    let empty =
        r#"{"msg":"estimation","event_id":null,"rank":null,"queue_size":0,"rank_eta":null}"#;
    assert_eq!(status.to_string(), empty);
}

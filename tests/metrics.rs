//! Metrics in Prometheus' format.
#![cfg(feature = "web")]

mod common;

use std::time::Duration;

use common::Server;
use now_serving::testing::Turnstile;
use now_serving::{Listener, Queue, Slot, SlotResource, Web};
use serde_json::json;

async fn metrics(server: &Server) -> String {
    let mut answer = awc::Client::default().get(server.url("/metrics")).send().await.unwrap();
    assert!(answer.status().is_success());
    let kind = answer.headers().get("content-type").unwrap().to_str().unwrap().to_string();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    String::from_utf8(answer.body().await.unwrap().to_vec()).unwrap()
}

/// The value of a series.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in\n{text}")).parse().unwrap()
}

#[actix::test]
async fn what_happens_is_counted() {
    let turnstile = Turnstile::new();
    let queue = Queue::builder()
        .listener(Listener::new("wait", turnstile.handler()).concurrency_id("gpu").max_size(1))
        .listener(
            Listener::batch("sum", async |all: Vec<u32>| Ok::<_, String>(all)).max_batch_size(4),
        )
        .start()
        .unwrap();
    let served = Web::new(&queue);
    let server = Server::with(move |app| {
        app.configure(served.routes()).configure(served.metrics("/metrics"))
    });
    server.join("s", 0, json!([0])).await;
    turnstile.arrived(1).await;
    server.join("s", 0, json!([1])).await;
    assert!(queue.try_submit("wait", 2u32).await.is_err());
    let text = metrics(&server).await;
    let gpu = |name: &str| value(&text, &format!("now_serving_{name}{{concurrency_id=\"gpu\"}}"));
    assert_eq!((gpu("slots"), gpu("running"), gpu("waiting"), gpu("paused")), (1., 1., 1., 0.));
    assert!(gpu("oldest_wait_seconds") > 0.0);
    assert_eq!(value(&text, "now_serving_sessions"), 1.0);
    turnstile.open();
    server.session("s").await.until("close_stream").await;
    assert_eq!(queue.call::<u32, u32>("sum", 3).await, Ok(3));
    let text = metrics(&server).await;
    let of = |name: &str, more: &str| {
        let labels = format!("concurrency_id=\"gpu\",listener=\"wait\"{more}");
        value(&text, &format!("now_serving_{name}{{{labels}}}"))
    };
    assert_eq!(of("admitted_events_total", ""), 2.0);
    assert_eq!(of("ended_events_total", ",outcome=\"completed\""), 2.0);
    assert_eq!(of("ended_events_total", ",outcome=\"failed\""), 0.0);
    assert_eq!(of("wait_seconds_count", ""), 2.0);
    assert_eq!(of("run_seconds_count", ""), 2.0);
    assert!(of("run_seconds_sum", "") > 0.0);
    assert!(
        text.contains(
            "now_serving_batch_events_bucket{le=\"1.0\",concurrency_id=\"sum\",listener=\"sum\"} 1"
        ),
        "{text}"
    );
    assert!(text.ends_with("# EOF\n"));
}

#[actix::test]
async fn labels_are_escaped() {
    let queue = Queue::builder().concurrency_id("a \"b\" \\ c\nd", 2).start().unwrap();
    let served = Web::new(&queue);
    let server = Server::with(move |app| app.configure(served.metrics("/metrics")));
    let text = metrics(&server).await;
    let series = r#"now_serving_slots{concurrency_id="a \"b\" \\ c\nd"}"#;
    assert_eq!(value(&text, series), 2.0);
}

/// As far as it goes without promtool: every name has one help and one type before its series, in one
/// piece, with its unit and no other suffix than its type's.
#[actix::test]
async fn names_follow_the_conventions() {
    let queue = Queue::builder()
        .listener(Listener::new("echo", async |n: u32| Ok::<_, String>(n)))
        .start()
        .unwrap();
    let served = Web::new(&queue);
    let server = Server::with(move |app| app.configure(served.metrics("/metrics")));
    let text = metrics(&server).await;
    let mut families: Vec<(String, String)> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(seen.insert(name.to_string()), "{name} comes twice");
            assert!(words.len() > 10, "{line}");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert!(name.starts_with("now_serving_") && !name.ends_with("_total"), "{name}");
            families.push((name.to_string(), kind.to_string()));
        } else {
            let name = line.split(['{', ' ']).next().unwrap();
            let (family, kind) = families.last().unwrap();
            let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line}"));
            let fits: &[&str] = match kind.as_str() {
                "counter" => &["_total"],
                "histogram" => &["_sum", "_count", "_bucket"],
                _ => &[""],
            };
            assert!(fits.contains(&suffix), "{line}");
        }
    }
    assert_eq!(families.len(), 21);
}

#[actix::test]
async fn slots_that_cannot_be_built_are_counted_and_clients_are_told() {
    let broken = SlotResource::new(|_| async { Err::<u32, _>("no driver") })
        .unavailable_after(Duration::ZERO);
    let paint = async |_: u32, _: Slot<u32>| Ok::<u32, String>(1);
    let queue = Queue::builder()
        .listener(Listener::new("paint", paint).concurrency_id("gpu"))
        .slot_resource("gpu", broken)
        .start()
        .unwrap();
    while queue.snapshot().await.concurrency_ids[0].failing_slots == 0 {
        tokio::task::yield_now().await;
    }
    let served = Web::new(&queue);
    let server = Server::with(move |app| {
        app.configure(served.routes()).configure(served.metrics("/metrics"))
    });
    let body = json!({"data": [1]}).to_string();
    let (status, retry_after, text) = server.post_text("/gradio_api/call/paint", body).await;
    assert_eq!(status, awc::http::StatusCode::SERVICE_UNAVAILABLE);
    assert!(retry_after.unwrap().parse::<u64>().unwrap() >= 1);
    assert!(text.contains("try again later") && !text.contains("driver"), "{text}");
    let text = metrics(&server).await;
    assert_eq!(value(&text, "now_serving_failing_slots{concurrency_id=\"gpu\"}"), 1.0);
    assert!(value(&text, "now_serving_unavailable_seconds{concurrency_id=\"gpu\"}") > 0.0);
    let refused = "concurrency_id=\"gpu\",listener=\"paint\",reason=\"unavailable\"";
    assert_eq!(value(&text, &format!("now_serving_refused_events_total{{{refused}}}")), 1.0);
}

#[actix::test]
async fn permits_have_series_only_where_there_are_any() {
    let queue = Queue::builder()
        .permits("gated", 1)
        .listener(Listener::new("echo", async |n: u32| Ok::<_, String>(n)))
        .start()
        .unwrap();
    let served = Web::new(&queue);
    let server = Server::with(move |app| app.configure(served.metrics("/metrics")));
    assert!(!metrics(&server).await.contains("(permit)"));
    drop(queue.acquire("gated").await.unwrap());
    while queue.snapshot().await.concurrency_id("gated").unwrap().running > 0 {}
    let text = metrics(&server).await;
    let labels = "{concurrency_id=\"gated\",listener=\"(permit)\",outcome=\"completed\"}";
    assert_eq!(value(&text, &format!("now_serving_ended_events_total{labels}")), 1.0);
    assert!(!text.contains("concurrency_id=\"echo\",listener=\"(permit)\""), "{text}");
}

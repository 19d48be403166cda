//! What clients hear while the journal can't be written.

use std::sync::Arc;
use std::time::Duration;

use actix_web::test::{TestRequest, call_service, init_service, read_body_json};

use crate::journal::error::JournalError;
use crate::journal::fake::FakeJournal;
use crate::queue::Queue;
use crate::queue::listener::Listener;
use crate::testing::Turnstile;
use crate::web::state::Web;

#[actix::test]
async fn over_http_a_full_disk_is_507_and_a_broken_one_503() {
    let (journal, turnstile) = (FakeJournal::new(), Turnstile::new());
    let listener = Listener::new("wait", turnstile.handler()).durable();
    let builder = Queue::builder().listener(listener).test_journal(Arc::new(journal.clone()));
    let queue = builder.start().expect("it starts");
    let web = Web::new(&queue);
    let app = init_service(actix_web::App::new().configure(web.routes())).await;
    let call = async || {
        let body = serde_json::json!({ "data": [1] });
        let request = TestRequest::post().uri("/gradio_api/call/wait").set_json(body);
        let answer = call_service(&app, request.to_request()).await;
        let status = answer.status().as_u16();
        let detail: serde_json::Value = read_body_json(answer).await;
        (status, detail["detail"].as_str().unwrap_or_default().to_string())
    };
    assert_eq!(call().await.0, 200);
    journal.disk().trouble = Some(JournalError::Full);
    let (status, detail) = call().await;
    assert!(status == 507 && detail.contains("make room on it"), "{status}: {detail}");
    assert_eq!(journal.disk().kept.live.len(), 1, "nothing of it is kept");
    // As soon as it takes records again, it is as before.
    journal.disk().trouble = None;
    while call().await.0 != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    journal.break_down(false);
    let (status, detail) = call().await;
    assert!(status == 503 && detail.contains("restart the service"), "{status}: {detail}");
}

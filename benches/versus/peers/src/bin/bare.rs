//! The floor: actix-web answering the same two requests, with nothing behind them. No event, no
//! queue, no session; the messages that our server sends for an echo, ready made.

use actix_web::web::{Bytes, Data, Path, Query};
use actix_web::{App, HttpResponse, HttpServer, web};
use futures::stream;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Session {
    session_hash: String,
}

async fn join(body: Bytes) -> HttpResponse {
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert!(body["data"].is_array());
    let id = format!("{:032x}", rand::random::<u128>());
    HttpResponse::Ok().json(json!({ "event_id": id }))
}

async fn data(session: Query<Session>, ready: Data<Bytes>) -> HttpResponse {
    assert!(!session.session_hash.is_empty());
    let body = stream::iter([Ok::<_, std::convert::Infallible>(Bytes::clone(&ready))]);
    HttpResponse::Ok().content_type("text/event-stream; charset=utf-8").streaming(body)
}

async fn nothing(_: Path<String>) -> &'static str {
    "nothing"
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let port: u16 = std::env::args().nth(1).unwrap().parse().unwrap();
    let id = "0".repeat(32);
    let ready = [
        json!({"msg":"estimation","event_id":id,"rank":0,"queue_size":1,"rank_eta":0.001}),
        json!({"msg":"process_starts","event_id":id,"eta":0.001}),
        json!({"msg":"process_completed","event_id":id,"output":{"data":["hello"],"is_generating":false,"duration":0.001,"average_duration":0.001,"render_config":null,"changed_state_ids":[],"used_cache":null},"success":true,"title":null,"used_cache":null,"cache_duration":0.001,"avg_time":0.001}),
        json!({"msg":"close_stream","event_id":null}),
    ];
    let ready: String = ready.iter().map(|message| format!("data: {message}\n\n")).collect();
    let ready = Data::new(Bytes::from(ready));
    HttpServer::new(move || {
        App::new()
            .app_data(ready.clone())
            .route("/gradio_api/queue/join", web::post().to(join))
            .route("/gradio_api/queue/data", web::get().to(data))
            .route("/{other:.*}", web::get().to(nothing))
    })
    .bind(("127.0.0.1", port))?
    .run()
    .await
}

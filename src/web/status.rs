//! `GET queue/status`: how many events wait.

use actix_web::{HttpResponse, web};

use super::wire::Message;
use crate::queue::Queue;

pub(crate) async fn status(queue: web::Data<Queue>) -> HttpResponse {
    let snapshot = queue.snapshot().await;
    let queue_size = snapshot.concurrency_ids.iter().map(|id| id.waiting).sum();
    HttpResponse::Ok().json(Message::Estimation {
        event_id: None,
        rank: None,
        queue_size,
        rank_eta: None,
    })
}

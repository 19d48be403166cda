//! `GET queue/status`: how many events wait.

use actix_web::{HttpResponse, web};

use super::wire::Message;
use crate::queue::Queue;

pub(crate) async fn status(queue: web::Data<Queue>) -> HttpResponse {
    HttpResponse::Ok().json(Message::Estimation {
        event_id: None,
        rank: None,
        queue_size: queue.waiting(),
        rank_eta: None,
    })
}

//! `GET queue/status`: how many events wait.

use actix_web::{HttpResponse, web};

use crate::queue::Queue;
use crate::web::protocol::message::Message;

pub(crate) async fn status(queue: web::Data<Queue>) -> HttpResponse {
    HttpResponse::Ok().json(Message::Estimation {
        event_id: None,
        rank: None,
        queue_size: queue.waiting(),
        rank_eta: None,
    })
}

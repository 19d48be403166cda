//! `GET queue/status`: how many events wait.

use actix_web::{HttpResponse, web};

use crate::web::protocol::message::Message;
use crate::web::state::WebState;

pub(crate) async fn status(web: web::Data<WebState>) -> HttpResponse {
    HttpResponse::Ok().json(Message::Estimation {
        event_id: None,
        rank: None,
        queue_size: web.queue.waiting(),
        rank_eta: None,
    })
}

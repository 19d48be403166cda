//! One file a route.

pub(crate) mod call;
pub(crate) mod cancel;
pub(crate) mod config;
pub(crate) mod data;
pub(crate) mod file;
pub(crate) mod heartbeat;
pub(crate) mod info;
pub(crate) mod join;
pub(crate) mod login;
pub(crate) mod openapi;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod upload;
pub(crate) mod upload_progress;

use actix_web::HttpResponse;
use serde::{Deserialize, Serialize};

use crate::event::id::EventId;

/// Which listener a path names. By its name there, as a scope around may have parameters of its own.
#[derive(Deserialize)]
pub(crate) struct Named {
    api_name: String,
}

/// The answer to a request that has submitted an event.
#[derive(Serialize)]
struct Joined {
    event_id: EventId,
}

fn joined(event_id: EventId) -> HttpResponse {
    HttpResponse::Ok().json(Joined { event_id })
}

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

use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

use crate::event::id::EventId;
use crate::web::rejection::Rejection;

/// Which listener a path names. By its name there, as a scope around may have parameters of its own.
#[derive(Deserialize)]
pub(crate) struct Named {
    api_name: String,
}

/// The answer to a request that has submitted an event.
fn joined(event_id: EventId) -> HttpResponse {
    const JSON: HeaderValue = HeaderValue::from_static("application/json");
    let mut text = Vec::with_capacity(64);
    text.extend_from_slice(br#"{"event_id":""#);
    event_id.write_to(&mut text);
    text.extend_from_slice(br#""}"#);
    HttpResponse::Ok().insert_header((CONTENT_TYPE, JSON)).body(text)
}

/// The header of a key by which a client will know its event again.
const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The header of the URL that an event's end is posted to.
const WEBHOOK_URL: &str = "webhook-url";

/// Whoever sends one of these relies on it; here it would mean nothing.
fn refuse_call_headers(request: &HttpRequest) -> Result<(), Rejection> {
    for (header, name) in [(IDEMPOTENCY_KEY, "Idempotency-Key"), (WEBHOOK_URL, "Webhook-Url")] {
        if request.headers().contains_key(header) {
            return Err(Rejection::bad_request(&format!(
                "The header {name} works with call/{{api_name}} and call/v2/{{api_name}} only."
            )));
        }
    }
    Ok(())
}

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

#[cfg(feature = "cluster")]
use actix_web::HttpMessage;
use actix_web::http::header::{CONTENT_TYPE, HeaderValue};
use actix_web::{HttpRequest, HttpResponse};
use serde::Deserialize;

use crate::event::id::EventId;
#[cfg(feature = "cluster")]
use crate::queue::elsewhere::SubmittedBefore;
use crate::web::api::endpoint::Prepared;
use crate::web::rejection::Rejection;
#[cfg(feature = "cluster")]
use crate::web::relayed::NamedEvent;

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

/// The event that a request begins: a new one, or the one that another node has named.
#[cfg_attr(not(feature = "cluster"), allow(unused_variables))]
fn new_event(request: &HttpRequest, input: &mut Prepared) -> EventId {
    #[cfg(feature = "cluster")]
    if let Some(&NamedEvent { id, again }) = request.extensions().get::<NamedEvent>() {
        if again {
            input.give(SubmittedBefore);
        }
        return id;
    }
    EventId::random()
}

/// Why the event of a request isn't accepted. That doesn't count where it was sent before: by that it may be.
#[cfg_attr(not(feature = "cluster"), allow(unused_variables))]
fn refused(request: &HttpRequest, rejection: Rejection) -> Rejection {
    #[cfg(feature = "cluster")]
    if request.extensions().get::<NamedEvent>().is_some_and(|event| event.again) {
        return rejection.uncertain();
    }
    rejection
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

#[cfg(all(test, feature = "cluster"))]
mod tests {
    use actix_web::ResponseError;
    use actix_web::http::StatusCode;
    use actix_web::test::TestRequest;

    use super::*;
    use crate::event::refusal::Refusal;

    /// Whoever reads 503 takes it that there is no event.
    #[test]
    fn a_refusal_is_no_answer_to_what_was_sent_before() {
        let request = TestRequest::default().to_http_request();
        let status = |request: &HttpRequest, rejection| refused(request, rejection).status_code();
        let stopped = || Rejection::of(Refusal::Stopped, &[]);
        assert_eq!(status(&request, stopped()), StatusCode::SERVICE_UNAVAILABLE);
        for (again, expected) in
            [(false, StatusCode::SERVICE_UNAVAILABLE), (true, StatusCode::BAD_GATEWAY)]
        {
            let id = EventId::for_test(1);
            request.extensions_mut().insert(NamedEvent { id, again });
            assert_eq!(status(&request, stopped()), expected);
            // What can't be read is no event, however often it is sent.
            let bad = Rejection::bad_request("Session hash not found.");
            assert_eq!(status(&request, bad), StatusCode::BAD_REQUEST);
        }
    }
}

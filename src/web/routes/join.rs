//! `POST queue/join`: submits an event of a session. As in Gradio, an event whose input is wrong is
//! taken all the same, and fails.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{joined, new_event, refuse_call_headers, refused};
use crate::event::id::EventId;
use crate::event::refusal::Refusal;
use crate::web::api::endpoint::WrongInput;
use crate::web::auth::guard::Caller;
use crate::web::body::json;
use crate::web::body::json::Data;
use crate::web::body::received::Body;
use crate::web::rejection::{Detail, Rejection};
#[cfg(feature = "cluster")]
use crate::web::relay::asking;
use crate::web::state::WebState;

#[derive(Deserialize)]
struct Join<'a> {
    #[serde(borrow, default)]
    data: Data<'a>,
    fn_index: Option<u64>,
    session_hash: Option<String>,
    #[serde(borrow, default)]
    event_data: Option<&'a RawValue>,
}

pub(crate) async fn join(
    web: web::Data<WebState>,
    caller: Caller,
    request: HttpRequest,
    bytes: Body,
) -> Result<HttpResponse, Rejection> {
    #[cfg(feature = "cluster")]
    if let Some(answer) = asking::of_body(&web, &caller, &request, &bytes, None, 3).await? {
        return Ok(answer);
    }
    let read = json::read(&web.reading, bytes, {
        let (web, caller) = (web.clone(), caller.clone());
        move |text| {
            let Join { data, fn_index, session_hash, event_data } = json::from_text(text)?;
            let Some(hash) = session_hash.filter(|hash| !hash.is_empty()) else {
                return Err(Rejection::bad_request("Session hash not found."));
            };
            let index = fn_index.ok_or_else(|| {
                let detail = Detail::new("missing", &["fn_index"], "say which listener is called");
                Rejection::invalid(detail)
            })?;
            let endpoint = web.endpoint(index)?;
            let input = match endpoint.input_from_positional(&data, &web.files, &caller)? {
                Err(WrongInput::Invalid(detail)) => Err(detail.failure()),
                input => Ok(input?),
            };
            Ok((hash, index, input, endpoint.event_data(event_data)))
        }
    });
    let (hash, index, input, event_data) = read.await?;
    refuse_call_headers(&request)?;
    let endpoint = web.endpoint(index)?;
    let begun = web.sessions.begin(&caller, &hash)?;
    let audience = web.audience(endpoint, &request);
    let mut id = EventId::random();
    match input {
        Ok(mut input) => {
            id = new_event(&request, &mut input);
            endpoint.accompany(&mut input, &request, event_data);
            let submitted = begun.session.submit(id, endpoint, input, audience).await;
            submitted.map_err(|rejection| refused(&request, rejection))?;
        }
        Err(_) if web.queue.is_stopped() => return Err(Rejection::of(Refusal::Stopped, &[])),
        // Gradio's clients wait for the event's end on the stream, and for nothing else.
        Err(failure) => begun.session.fail(id, endpoint, failure, audience)?,
    }
    begun.keep().stream_settled().await;
    Ok(joined(id))
}

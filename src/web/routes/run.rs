//! `POST run/{api_name}`: an event and its result in one request; also as `api/{api_name}`, and by any
//! name with a `fn_index`.
//!
//! Gradio's clients call listeners so that don't queue. Others wait in their queue as
//! every event does; in Gradio such a request passes the queue by.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Named, new_event, refuse_call_headers, refused};
use crate::event::refusal::Refusal;
use crate::event::update::{Finished, Outcome};
use crate::scheduler::command::WhenFull;
use crate::web::auth::guard::Caller;
use crate::web::body::json;
use crate::web::body::json::Data;
use crate::web::body::received::Body;
use crate::web::cache::Kept;
use crate::web::protocol::encoder::Encoder;
use crate::web::rejection::{Rejection, status_of};
#[cfg(feature = "cluster")]
use crate::web::relay::asking;
use crate::web::session::registry::Begun;
use crate::web::state::WebState;

#[derive(Deserialize)]
struct Run<'a> {
    #[serde(borrow, default)]
    data: Data<'a>,
    fn_index: Option<u64>,
    session_hash: Option<String>,
    #[serde(borrow, default)]
    event_data: Option<&'a RawValue>,
}

/// A client that goes away cancels its event.
pub(crate) async fn run(
    web: web::Data<WebState>,
    caller: Caller,
    path: web::Path<Named>,
    request: HttpRequest,
    bytes: Body,
) -> Result<HttpResponse, Rejection> {
    let api_name = path.into_inner().api_name;
    #[cfg(feature = "cluster")]
    {
        let answer = asking::of_body(&web, &caller, &request, &bytes, Some(&api_name), 3).await;
        if let Some(answer) = answer.map_err(Rejection::with_error)? {
            return Ok(answer);
        }
    }
    answer(&web, caller, api_name, &request, bytes).await.map_err(Rejection::with_error)
}

async fn answer(
    web: &web::Data<WebState>,
    caller: Caller,
    api_name: String,
    request: &HttpRequest,
    bytes: Body,
) -> Result<HttpResponse, Rejection> {
    let read = json::read(&web.reading, bytes, {
        let (web, caller) = (web.clone(), caller.clone());
        move |text| {
            let Run { data, fn_index, session_hash, event_data } = json::from_text(text)?;
            // As in Gradio, whatever the path.
            let index = match fn_index {
                Some(index) => index,
                None => web.known(&api_name)?.number,
            };
            let endpoint = web.endpoint(index)?;
            let input = endpoint.input_from_positional(&data, &web.files, &caller)??;
            Ok((index, input, session_hash, endpoint.event_data(event_data)))
        }
    });
    let (index, mut input, session_hash, event_data) = read.await?;
    refuse_call_headers(request)?;
    let endpoint = web.endpoint(index)?;
    endpoint.accompany(&mut input, request, event_data);
    let sessions = &web.sessions;
    let (session, begun) = sessions.state(&caller, session_hash.as_deref())?;
    let under_way = session.begin_event(sessions.limits.max_events);
    let _under_way =
        under_way.ok_or_else(|| Rejection::too_many_events(sessions.limits.max_events))?;
    let mut encoder = endpoint.encoder(web.audience(endpoint, request));
    if let Some(kept) = input.kept(endpoint) {
        let outcome = Outcome::Completed(kept.output.as_ref().cloned());
        encoder.mark_cached();
        begun.map(Begun::keep);
        let finished = Finished { outcome, started: None, average_duration: None };
        return Ok(response(&encoder, finished));
    }
    let id = new_event(request, &mut input);
    let (input, keep) = input.split(endpoint);
    let (ended, guard) =
        endpoint.listener_ref.submit_and_wait(id, input, Some(session), WhenFull::Refuse).await;
    let reply = ended.await.unwrap_or(Err(Refusal::Stopped));
    guard.disarm();
    let finished = reply
        .map_err(|refusal| refused(request, Rejection::of(refusal, &endpoint.parameter_names())))?;
    begun.map(Begun::keep);
    // A stream's values on the way are not known here.
    if let (Some((cache, key)), Outcome::Completed(output), false) =
        (keep, &finished.outcome, endpoint.listener_ref.options.generator)
    {
        let output = output.as_ref().cloned();
        let holder = caller.holder(session_hash.as_deref());
        cache.keep(holder, key, Kept { items: Vec::new(), output });
    }
    Ok(response(&encoder, finished))
}

fn response(encoder: &Encoder, finished: Finished) -> HttpResponse {
    let failed = status_of(&finished.outcome);
    match encoder.answered(finished) {
        Ok(Some(answer)) => HttpResponse::Ok().json(answer),
        Ok(None) => {
            HttpResponse::build(failed).json(json!({ "error": "The event was cancelled." }))
        }
        Err(error) => HttpResponse::build(failed).json(error),
    }
}

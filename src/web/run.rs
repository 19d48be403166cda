//! `POST run/{api_name}`: an event and its result in one request.
//!
//! Gradio's clients call listeners so that don't queue. Others take their place in their line as
//! every event does; in Gradio such a request passes the line by.

use std::time::Instant;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use super::body::{self, Data};
use super::cache::Kept;
use super::login::Caller;
use super::received::Body;
use super::refusal::Rejection;
use super::sessions::Begun;
use super::wire::Speaker;
use crate::error::Refusal;
use crate::output::Output;
use crate::queue::Queue;
use crate::scheduler::Patience;
use crate::update::Outcome;

#[derive(Deserialize)]
struct Run<'a> {
    #[serde(borrow, default)]
    data: Data<'a>,
    session_hash: Option<String>,
}

/// A client that goes away cancels its event.
pub(crate) async fn run(
    queue: web::Data<Queue>,
    caller: Caller,
    api_name: web::Path<String>,
    request: HttpRequest,
    bytes: Body,
) -> Result<HttpResponse, Rejection> {
    let inner = queue.inner();
    let api_name = api_name.into_inner();
    super::known(&queue, &api_name).map_err(Rejection::with_error)?;
    let read = body::read(&queue, bytes, {
        let (caller, api_name) = (caller.clone(), api_name.clone());
        move |queue, text| {
            let Run { data, session_hash } = body::from_text::<Run<'_>>(text)?;
            let endpoint = super::known(queue, &api_name)?;
            let input = endpoint.input_from_positional(&data, &queue.inner().web, &caller)??;
            Ok((input, session_hash))
        }
    });
    let (input, session_hash) = read.await.map_err(Rejection::with_error)?;
    let endpoint = super::known(&queue, &api_name).map_err(Rejection::with_error)?;
    let sessions = &inner.web.sessions;
    let (session, begun) = sessions.state(&caller, session_hash.as_deref())?;
    let under_way = session.begin_event(sessions.terms.most_events);
    let _under_way =
        under_way.ok_or_else(|| Rejection::too_many_events(&sessions.terms).with_error())?;
    let began = Instant::now();
    let mut speaker = Speaker::new(endpoint, endpoint.audience(&inner.web, &request));
    if let Some(kept) = input.kept(endpoint) {
        let outcome = Outcome::Completed(kept.output.as_ref().map(Output::share));
        speaker.tells_of_cache();
        begun.map(Begun::keep);
        let answer = speaker.answered(outcome, began.elapsed().as_secs_f64());
        return Ok(HttpResponse::Ok().json(answer));
    }
    let (input, keep) = input.split(endpoint);
    let (ended, guard) = endpoint.entry.ask(input, Some(session), Patience::Refuse).await;
    let reply = ended.await.unwrap_or(Err(Refusal::Stopped));
    guard.disarm();
    let outcome =
        reply.map_err(|refusal| Rejection::of(refusal, &endpoint.parameters).with_error())?;
    begun.map(Begun::keep);
    let status = match &outcome {
        Outcome::Completed(_) => StatusCode::OK,
        Outcome::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        Outcome::Cancelled | Outcome::Stopped => StatusCode::SERVICE_UNAVAILABLE,
        Outcome::Failed(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    // A stream's values on the way are not known here.
    if let (Some((cache, key)), Outcome::Completed(output), false) =
        (keep, &outcome, endpoint.entry.facts.generator)
    {
        let output = output.as_ref().map(Output::share);
        let holder = caller.holder(session_hash.as_deref());
        cache.keep(holder, key, Kept { items: Vec::new(), output });
    }
    let answer = speaker.answered(outcome, began.elapsed().as_secs_f64());
    let answer = answer.unwrap_or_else(|| json!({ "error": "The event was cancelled." }));
    Ok(HttpResponse::build(status).json(answer))
}

//! `POST queue/join`: submits an event of a session.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;
use serde_json::{Value, json};

use super::body;
use super::login::Caller;
use super::received::Body;
use super::refusal::{Detail, Rejection};
use crate::event::EventId;
use crate::queue::Queue;

#[derive(Deserialize)]
struct Join {
    #[serde(default)]
    data: Vec<Value>,
    fn_index: Option<u64>,
    session_hash: Option<String>,
}

pub(crate) async fn join(
    queue: web::Data<Queue>,
    caller: Caller,
    request: HttpRequest,
    bytes: Body,
) -> Result<HttpResponse, Rejection> {
    let Join { data, fn_index, session_hash } = body::parse(&bytes)?;
    let Some(hash) = session_hash.filter(|hash| !hash.is_empty()) else {
        return Err(Rejection::bad_request("Session hash not found."));
    };
    let inner = queue.inner();
    let index = fn_index.ok_or_else(|| {
        Rejection::invalid(Detail::new("missing", &["fn_index"], "say which listener is called"))
    })?;
    let endpoint = usize::try_from(index).ok().and_then(|index| inner.web.endpoints.get(index));
    let endpoint = endpoint
        .filter(|endpoint| endpoint.is_callable())
        .ok_or_else(|| Rejection::not_found(format!("No listener has fn_index {index}.")))?;
    let input = endpoint.input_from_positional(data, &inner.web, &caller)?;
    let id = EventId::random();
    let begun = inner.web.sessions.begin(&caller, &hash)?;
    let audience = endpoint.audience(&inner.web, &request);
    begun.session.submit(id, endpoint, input, audience).await?;
    begun.keep().stream_settled().await;
    Ok(HttpResponse::Ok().json(json!({ "event_id": id })))
}

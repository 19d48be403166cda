//! `POST cancel`: ends an event of the caller's own session. And `POST reset`, which clients send after.

#[cfg(feature = "cluster")]
use actix_web::HttpRequest;
use actix_web::{HttpResponse, web};
use serde::Deserialize;
use serde_json::json;

use crate::event::id::EventId;
use crate::web::auth::guard::Caller;
use crate::web::body::json;
use crate::web::body::received::Body;
use crate::web::rejection::Rejection;
#[cfg(feature = "cluster")]
use crate::web::relay::asking;
use crate::web::state::WebState;

#[derive(Deserialize)]
struct Cancel {
    // None where a call named none.
    session_hash: Option<String>,
    event_id: Option<String>,
}

/// Answers the same whether or not there was such an event, so that nobody learns of others'.
/// Gradio lets anybody cancel any event; here session and event must belong together. A call that
/// named no session is its event's alone: whoever knows that may follow it, and cancel it.
pub(crate) async fn cancel(
    web: web::Data<WebState>,
    caller: Caller,
    #[cfg(feature = "cluster")] request: HttpRequest,
    bytes: Body,
) -> Result<HttpResponse, Rejection> {
    #[cfg(feature = "cluster")]
    if let Some(answer) = asking::of_event(&web, &caller, &request, &bytes, 2).await? {
        return Ok(answer);
    }
    let Cancel { session_hash, event_id } =
        json::read(&web.reading, bytes, |text| json::from_text(text)).await?;
    let sessions = &web.sessions;
    if let Some(Ok(id)) = event_id.map(|id| id.parse::<EventId>()) {
        let called = sessions.find_call(&caller, id).filter(|session| match &session_hash {
            Some(hash) => *session.hash == **hash,
            None => !session.kept.named,
        });
        let named = || sessions.find(&caller, session_hash.as_deref()?);
        if let Some(session) = called.or_else(named) {
            session.cancel(id);
        }
    }
    Ok(HttpResponse::Ok().json(json!({ "success": true })))
}

/// `POST reset`: does nothing, as in Gradio; a cancelled event has nothing left to reset.
pub(crate) async fn reset() -> HttpResponse {
    HttpResponse::Ok().json(json!({ "success": true }))
}

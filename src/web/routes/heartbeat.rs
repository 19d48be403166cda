//! `GET heartbeat/{session_hash}`: a stream that is open for as long as its client is there.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

#[cfg(feature = "cluster")]
use actix_web::{HttpRequest, ResponseError};
use actix_web::{HttpResponse, web};
#[cfg(feature = "cluster")]
use futures::future::{FutureExt, ready};
use serde::Deserialize;
use tokio_util::sync::WaitForCancellationFutureOwned;

use crate::web::auth::guard::Caller;
use crate::web::protocol::sse;
use crate::web::rejection::Rejection;
#[cfg(feature = "cluster")]
use crate::web::relay::{asking, resuming};
#[cfg(feature = "cluster")]
use crate::web::session::registry::MAX_HASH_LEN;
use crate::web::session::registry::{Presence, Sessions};
use crate::web::state::WebState;

// By name, as all parameters of paths: a scope around the routes may have some of its own.
#[derive(Deserialize)]
pub(crate) struct Path {
    session_hash: String,
}

pub(crate) async fn heartbeat(
    web: web::Data<WebState>,
    caller: Caller,
    path: web::Path<Path>,
    #[cfg(feature = "cluster")] request: HttpRequest,
) -> Result<HttpResponse, Rejection> {
    #[cfg(feature = "cluster")]
    if path.session_hash.len() <= MAX_HASH_LEN {
        let about = asking::About::begun_session(&caller, &path.session_hash, 3);
        let here = {
            let (web, caller, hash) = (web.clone(), caller.clone(), path.session_hash.clone());
            move |_| {
                let answer = beat(&web, &caller, &hash);
                ready(answer.unwrap_or_else(|refused| refused.error_response())).boxed_local()
            }
        };
        let answer = resuming::stream_elsewhere(&web, &caller, &request, about, here).await?;
        if let Some(answer) = answer {
            return Ok(answer);
        }
    }
    beat(&web, &caller, &path.session_hash)
}

fn beat(web: &WebState, caller: &Caller, hash: &str) -> Result<HttpResponse, Rejection> {
    let sessions: &Arc<Sessions> = &web.sessions;
    let presence = sessions.attend(caller, hash)?;
    let closing = Box::pin(web.closing.clone().cancelled_owned());
    Ok(sse::response(Heartbeat { begun: false, closing, _presence: presence }))
}

/// Its end, and a while without another, ends the session.
struct Heartbeat {
    begun: bool,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
    _presence: Presence,
}

impl sse::Source for Heartbeat {
    fn poll_event(&mut self, cx: &mut Context<'_>, text: &mut Vec<u8>) -> Poll<bool> {
        if self.closing.as_mut().poll(cx).is_ready() {
            return Poll::Ready(false);
        }
        if std::mem::replace(&mut self.begun, true) {
            // The rest is for the stream's own heartbeat.
            return Poll::Pending;
        }
        self.heartbeat(text);
        Poll::Ready(true)
    }

    fn heartbeat(&mut self, text: &mut Vec<u8>) {
        text.extend_from_slice(b"data: ALIVE\n\n");
    }
}

//! `GET upload_progress`: how far an upload has got.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

#[cfg(feature = "cluster")]
use actix_web::{HttpRequest, ResponseError};
use actix_web::{HttpResponse, web};
#[cfg(feature = "cluster")]
use futures::future::{Either, select};
use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

#[cfg(feature = "cluster")]
use crate::web::auth::guard::Caller;
use crate::web::protocol::sse;
#[cfg(feature = "cluster")]
use crate::web::relay::asking;
use crate::web::state::WebState;
#[cfg(feature = "cluster")]
use crate::web::upload_tracker::MAX_ID_LEN;
use crate::web::upload_tracker::Progress;

#[derive(Deserialize)]
pub(crate) struct Query {
    #[serde(default)]
    upload_id: String,
}

#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "msg", rename_all = "snake_case")]
enum Message {
    Update {
        orig_name: Arc<str>,
        /// The bytes since the last update.
        chunk_size: u64,
    },
    Done,
}

pub(crate) async fn upload_progress(
    web: web::Data<WebState>,
    #[cfg(feature = "cluster")] caller: Caller,
    #[cfg(feature = "cluster")] request: HttpRequest,
    query: web::Query<Query>,
) -> HttpResponse {
    #[cfg(feature = "cluster")]
    if query.upload_id.len() <= MAX_ID_LEN {
        let here = std::pin::pin!(here(&web, &query));
        let elsewhere =
            std::pin::pin!(asking::of_upload(&web, &caller, &request, &query.upload_id));
        return match select(here, elsewhere).await {
            Either::Left((answer, _)) => answer,
            Either::Right((answer, _)) => answer.unwrap_or_else(|refused| refused.error_response()),
        };
    }
    here(&web, &query).await
}

async fn here(web: &WebState, query: &Query) -> HttpResponse {
    let uploads = &web.uploads;
    let unknown = || HttpResponse::NotFound().content_type("text/plain").body("Upload not found");
    let Some(waiter) = uploads.wait(&query.upload_id) else { return unknown() };
    let Some(follower) = waiter.begun().await else { return unknown() };
    sse::response(Following(Box::pin(messages(follower))))
}

/// What has come since, for as long as more comes.
fn messages(follower: watch::Receiver<Progress>) -> impl Stream<Item = Message> {
    let reported: Vec<u64> = Vec::new();
    let steps = stream::unfold(Some((follower, reported)), async |state| {
        let (mut follower, mut reported) = state?;
        loop {
            let progress = follower.borrow_and_update().clone();
            reported.resize(progress.files.len(), 0);
            let mut messages = Vec::new();
            for ((name, came), reported) in progress.files.iter().zip(&mut reported) {
                let chunk_size = came - std::mem::replace(reported, *came);
                if chunk_size > 0 {
                    messages.push(Message::Update { orig_name: name.clone(), chunk_size });
                }
            }
            if progress.done {
                messages.push(Message::Done);
                return Some((messages, None));
            }
            if !messages.is_empty() {
                return Some((messages, Some((follower, reported))));
            }
            if follower.changed().await.is_err() {
                return Some((vec![Message::Done], None));
            }
        }
    });
    steps.flat_map(stream::iter)
}

struct Following(Pin<Box<dyn Stream<Item = Message>>>);

impl sse::Source for Following {
    fn poll_event(&mut self, cx: &mut Context<'_>, text: &mut Vec<u8>) -> Poll<bool> {
        let message = std::task::ready!(self.0.poll_next_unpin(cx));
        if let Some(message) = &message {
            sse::write(text, None, None, message);
        }
        Poll::Ready(message.is_some())
    }

    fn heartbeat(&mut self, text: &mut Vec<u8>) {
        sse::write(text, None, None, &json!({ "msg": "heartbeat" }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::upload_tracker::{MAX_ID_LEN, MAX_UPLOADS, Uploads};

    fn update(name: &str, chunk_size: u64) -> Message {
        Message::Update { orig_name: name.into(), chunk_size }
    }

    #[actix_web::test]
    async fn what_comes_is_told_once() {
        let uploads = Arc::new(Uploads::default());
        let follower = uploads.wait("1").unwrap().follower.take().unwrap();
        let tracker = uploads.begin("1").unwrap();
        assert!(uploads.begin("1").is_none());
        let mut messages = Box::pin(messages(follower));
        tracker.file("a");
        tracker.came(3);
        tracker.came(4);
        assert_eq!(messages.next().await, Some(update("a", 7)));
        tracker.came(1);
        tracker.file("b");
        tracker.came(2);
        assert_eq!(messages.next().await, Some(update("a", 1)));
        assert_eq!(messages.next().await, Some(update("b", 2)));
        tracker.came(5);
        drop(tracker);
        let rest: Vec<_> = messages.collect().await;
        assert_eq!(rest, [update("b", 5), Message::Done]);
    }

    #[actix_web::test]
    async fn who_asks_and_goes_away_leaves_nothing() {
        let uploads = Uploads::default();
        {
            let (first, second) = (uploads.wait("1").unwrap(), uploads.wait("1").unwrap());
            let mut first = Box::pin(first.begun());
            assert!(futures::poll!(&mut first).is_pending());
            drop(first);
            assert_eq!(uploads.lock().len(), 1);
            drop(second);
        }
        assert!(uploads.lock().is_empty());
    }

    #[actix_web::test]
    async fn ids_are_bounded() {
        let uploads = Arc::new(Uploads::default());
        assert!(uploads.begin("").is_none());
        assert!(uploads.begin(&"a".repeat(MAX_ID_LEN + 1)).is_none());
        let begun: Vec<_> = (0..=MAX_UPLOADS).map(|id| uploads.begin(&id.to_string())).collect();
        assert!(begun[MAX_UPLOADS - 1].is_some() && begun[MAX_UPLOADS].is_none());
    }
}

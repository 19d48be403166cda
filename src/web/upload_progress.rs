//! `GET upload_progress`: how far an upload is, for a client that sends one.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::{HttpResponse, web};
use bytes::BytesMut;
use futures::{Stream, StreamExt, stream};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::watch;

use super::sse;
use crate::queue::Queue;

/// How long a client may ask before its upload arrives, as in Gradio.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long the end of an upload can be asked for.
const KEPT: Duration = Duration::from_secs(10);

/// The most uploads that are followed at once. Further ones go unfollowed.
const MOST: usize = 1000;

/// The longest id of an upload that a client may choose, in bytes.
const LONGEST_ID: usize = 128;

/// Every upload whose client gave it an id.
#[derive(Debug, Default)]
pub(crate) struct Uploads(Mutex<HashMap<String, watch::Sender<Progress>>>);

/// How far an upload is.
#[derive(Clone, Debug, Default)]
struct Progress {
    begun: bool,
    /// The files so far, with the bytes that have come.
    files: Vec<(Arc<str>, u64)>,
    done: bool,
}

impl Uploads {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Progress>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The upload of an id, whoever comes first.
    fn find(&self, id: &str) -> Option<watch::Sender<Progress>> {
        self.entry(&mut self.lock(), id)
    }

    fn entry(
        &self,
        uploads: &mut HashMap<String, watch::Sender<Progress>>,
        id: &str,
    ) -> Option<watch::Sender<Progress>> {
        if let Some(found) = uploads.get(id) {
            return Some(found.clone());
        }
        if uploads.len() >= MOST || id.is_empty() || id.len() > LONGEST_ID {
            return None;
        }
        let (new, _) = watch::channel(Progress::default());
        uploads.insert(id.into(), new.clone());
        Some(new)
    }

    fn forget(&self, id: &str, progress: &watch::Sender<Progress>) {
        let mut uploads = self.lock();
        if uploads.get(id).is_some_and(|found| found.same_channel(progress)) {
            uploads.remove(id);
        }
    }

    /// Waits for an upload; the last one who does so in vain takes its entry away.
    fn wait(&self, id: &str) -> Option<Waiter<'_>> {
        let mut uploads = self.lock();
        let progress = self.entry(&mut uploads, id)?;
        let follower = Some(progress.subscribe());
        Some(Waiter { uploads: self, id: id.into(), follower })
    }

    /// An upload begins; it ends when the tracker is dropped.
    pub fn begin(self: &Arc<Self>, id: &str) -> Option<Tracker> {
        let progress = self.find(id)?;
        let mut first = false;
        progress.send_modify(|progress| first = !std::mem::replace(&mut progress.begun, true));
        // Of two with the same id, the second goes unfollowed.
        first.then(|| Tracker { uploads: Arc::downgrade(self), id: id.into(), progress })
    }
}

/// Somebody who asks about an upload that may not have begun.
struct Waiter<'a> {
    uploads: &'a Uploads,
    id: String,
    /// Taken when it has begun.
    follower: Option<watch::Receiver<Progress>>,
}

impl Waiter<'_> {
    async fn begun(mut self) -> Option<watch::Receiver<Progress>> {
        let begun = self.follower.as_mut()?.wait_for(|progress| progress.begun);
        let begun = matches!(tokio::time::timeout(PATIENCE, begun).await, Ok(Ok(_)));
        if begun { self.follower.take() } else { None }
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let Some(follower) = self.follower.take() else { return };
        let mut uploads = self.uploads.lock();
        drop(follower);
        let in_vain = |progress: &watch::Sender<Progress>| {
            !progress.borrow().begun && progress.receiver_count() == 0
        };
        if uploads.get(&self.id).is_some_and(in_vain) {
            uploads.remove(&self.id);
        }
    }
}

/// Tells how an upload goes on.
pub(crate) struct Tracker {
    uploads: Weak<Uploads>,
    id: String,
    progress: watch::Sender<Progress>,
}

impl Tracker {
    pub fn file(&self, name: &str) {
        self.progress.send_modify(|progress| progress.files.push((name.into(), 0)));
    }

    /// More of the last file has come.
    pub fn came(&self, bytes: u64) {
        self.progress.send_modify(|progress| {
            if let Some((_, came)) = progress.files.last_mut() {
                *came += bytes;
            }
        });
    }
}

impl Drop for Tracker {
    fn drop(&mut self) {
        self.progress.send_modify(|progress| progress.done = true);
        let (uploads, progress) = (self.uploads.clone(), self.progress.clone());
        let id = std::mem::take(&mut self.id);
        actix_web::rt::spawn(async move {
            tokio::time::sleep(KEPT).await;
            if let Some(uploads) = uploads.upgrade() {
                uploads.forget(&id, &progress);
            }
        });
    }
}

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
    queue: web::Data<Queue>,
    query: web::Query<Query>,
) -> HttpResponse {
    let uploads = &queue.inner().web.uploads;
    let unknown = || HttpResponse::NotFound().content_type("text/plain").body("Upload not found");
    let Some(waiter) = uploads.wait(&query.upload_id) else { return unknown() };
    let Some(follower) = waiter.begun().await else { return unknown() };
    sse::response(Following(Box::pin(messages(follower))))
}

/// What has come since, for as long as more comes.
fn messages(follower: watch::Receiver<Progress>) -> impl Stream<Item = Message> {
    let told: Vec<u64> = Vec::new();
    let steps = stream::unfold(Some((follower, told)), async |state| {
        let (mut follower, mut told) = state?;
        loop {
            let progress = follower.borrow_and_update().clone();
            told.resize(progress.files.len(), 0);
            let mut news = Vec::new();
            for ((name, came), told) in progress.files.iter().zip(&mut told) {
                let chunk_size = came - std::mem::replace(told, *came);
                if chunk_size > 0 {
                    news.push(Message::Update { orig_name: name.clone(), chunk_size });
                }
            }
            if progress.done {
                news.push(Message::Done);
                return Some((news, None));
            }
            if !news.is_empty() {
                return Some((news, Some((follower, told))));
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
    fn poll_event(&mut self, cx: &mut Context<'_>, text: &mut BytesMut) -> Poll<bool> {
        let message = std::task::ready!(self.0.poll_next_unpin(cx));
        if let Some(message) = &message {
            sse::write(text, None, None, message);
        }
        Poll::Ready(message.is_some())
    }

    fn heartbeat(&mut self, text: &mut BytesMut) {
        sse::write(text, None, None, &json!({ "msg": "heartbeat" }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(uploads.begin(&"a".repeat(LONGEST_ID + 1)).is_none());
        let begun: Vec<_> = (0..=MOST).map(|id| uploads.begin(&id.to_string())).collect();
        assert!(begun[MOST - 1].is_some() && begun[MOST].is_none());
    }
}

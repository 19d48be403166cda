//! `GET upload_progress`: how far an upload is, for a client that sends one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;

/// How long a client may follow an upload before it arrives, as in Gradio.
const BEGIN_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the end of an upload can be fetched.
const KEPT: Duration = Duration::from_secs(10);

/// The maximum of uploads that are followed at once. Further ones go unfollowed.
pub(crate) const MAX_UPLOADS: usize = 1000;

/// The longest id of an upload that a client may choose, in bytes.
pub(crate) const MAX_ID_LEN: usize = 128;

/// Every upload whose client gave it an id.
#[derive(Debug, Default)]
pub(crate) struct Uploads(pub(crate) Mutex<HashMap<String, watch::Sender<Progress>>>);

/// How far an upload is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub(crate) begun: bool,
    /// The files so far, with the bytes that have come.
    pub(crate) files: Vec<(Arc<str>, u64)>,
    pub(crate) done: bool,
}

impl Uploads {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<Progress>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The upload of an id, whichever request comes first.
    pub(crate) fn find(&self, id: &str) -> Option<watch::Sender<Progress>> {
        self.entry(&mut self.lock(), id)
    }

    pub(crate) fn entry(
        &self,
        uploads: &mut HashMap<String, watch::Sender<Progress>>,
        id: &str,
    ) -> Option<watch::Sender<Progress>> {
        if let Some(found) = uploads.get(id) {
            return Some(found.clone());
        }
        if uploads.len() >= MAX_UPLOADS || id.is_empty() || id.len() > MAX_ID_LEN {
            return None;
        }
        let (new, _) = watch::channel(Progress::default());
        uploads.insert(id.into(), new.clone());
        Some(new)
    }

    pub(crate) fn forget(&self, id: &str, progress: &watch::Sender<Progress>) {
        let mut uploads = self.lock();
        if uploads.get(id).is_some_and(|found| found.same_channel(progress)) {
            uploads.remove(id);
        }
    }

    /// Waits for an upload; the last one who does so in vain takes its entry away.
    pub(crate) fn wait(&self, id: &str) -> Option<Waiter<'_>> {
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

/// A client that follows an upload that may not have begun.
pub(crate) struct Waiter<'a> {
    pub(crate) uploads: &'a Uploads,
    pub(crate) id: String,
    /// Taken when it has begun.
    pub(crate) follower: Option<watch::Receiver<Progress>>,
}

impl Waiter<'_> {
    pub(crate) async fn begun(mut self) -> Option<watch::Receiver<Progress>> {
        let begun = self.follower.as_mut()?.wait_for(|progress| progress.begun);
        let begun = matches!(tokio::time::timeout(BEGIN_TIMEOUT, begun).await, Ok(Ok(_)));
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

/// Reports how an upload goes on.
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

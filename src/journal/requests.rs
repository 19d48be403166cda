//! What a journal that has a thread of its own is asked, and how: the requests go there in order, and when
//! nobody can ask any more, it does what is on its way and ends.

use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::error::JournalError;
use super::record::Kept;
use super::{Batch, Done, Loaded, Query};

/// `T` is what the tests of a journal ask for.
pub(super) enum Request<T> {
    Append(Batch, Done),
    Load(mpsc::Sender<Result<Loaded, JournalError>>),
    Ends(Query, oneshot::Sender<Result<Vec<Kept>, JournalError>>),
    Forget(u64),
    #[cfg_attr(not(test), allow(dead_code))]
    Test(T),
}

/// The asking side. Dropped, it waits until the thread has ended.
pub(super) struct Requests<T> {
    sender: Option<UnboundedSender<Request<T>>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Requests<T> {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be none.
    pub fn start(
        serve: impl FnOnce(UnboundedReceiver<Request<T>>) + Send + 'static,
    ) -> Result<Self, JournalError> {
        let (sender, incoming) = unbounded_channel();
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || serve(incoming))
            .map_err(|error| JournalError::Broken(error.to_string()))?;
        Ok(Requests { sender: Some(sender), thread: Some(thread) })
    }

    pub fn send(&self, request: Request<T>) -> Result<(), Request<T>> {
        match &self.sender {
            Some(sender) => sender.send(request).map_err(|back| back.0),
            None => Err(request),
        }
    }

    pub fn append(&self, batch: Batch, done: Done) {
        if let Err(Request::Append(_, done)) = self.send(Request::Append(batch, done)) {
            done(Err(closed()));
        }
    }

    pub fn load(&self) -> Result<Loaded, JournalError> {
        let (reply, answer) = mpsc::channel();
        // Where nobody takes it, nobody answers.
        let _ = self.send(Request::Load(reply));
        answer.recv().unwrap_or_else(|_| Err(closed()))
    }

    pub fn ends(&self, query: Query) -> oneshot::Receiver<Result<Vec<Kept>, JournalError>> {
        let (reply, answer) = oneshot::channel();
        if let Err(Request::Ends(_, reply)) = self.send(Request::Ends(query, reply)) {
            let _ = reply.send(Err(closed()));
        }
        answer
    }

    pub fn forget(&self, before: u64) {
        let _ = self.send(Request::Forget(before));
    }
}

impl<T> Drop for Requests<T> {
    fn drop(&mut self) {
        // The thread does what is on its way, and ends.
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What is said once the thread has ended.
pub(super) fn closed() -> JournalError {
    JournalError::Broken("its thread has ended".into())
}

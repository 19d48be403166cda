//! The journal in an SQLite file: one connection on a thread of its own, one transaction for all that has
//! come by then.

mod error;
mod open;
mod rows;
mod writer;

use std::fmt;
use std::path::{Path, PathBuf};

use tokio::sync::oneshot;

use self::open::Lock;
use self::writer::ForTest;
use super::error::JournalError;
use super::record::Kept;
use super::requests::Requests;
use super::{Batch, Done, Journal, Loaded, Query};

/// A journal in an SQLite file, for [`QueueBuilder::journal`](crate::QueueBuilder::journal).
///
/// Three tables that the `sqlite3` shell shows: `events` that have not ended, `ends`, and `ids` with what
/// operators have set. Written ahead (WAL) with `synchronous=FULL`: what is recorded has reached the disk.
/// Beside the file there are `-wal` and `-shm`, which belong to it, and `.lock`, by which a second process
/// is kept away.
///
/// It is closed when the last clone of its queue is gone, with what is on its way.
pub struct Sqlite {
    path: PathBuf,
    requests: Requests<ForTest>,
    // Given back last.
    _lock: Lock,
}

impl Sqlite {
    /// Opens the file, or makes it where there is none. Blocks while it is checked.
    ///
    /// ```
    /// use now_serving::{Listener, Queue, Sqlite};
    ///
    /// # actix::System::new().block_on(async {
    /// # let directory = tempfile::tempdir()?;
    /// # let path = directory.path().join("events.db");
    /// let render = async |scene: String| Ok::<_, String>(scene.to_uppercase());
    /// let queue = Queue::builder()
    ///     .journal(Sqlite::open(path)?)
    ///     .listener(Listener::new("render", render).durable())
    ///     .start()?;
    /// let event = queue.submit("render", "dawn".to_string()).await?;
    /// // Whatever becomes of this process from here on, the event ends once, and can be asked for.
    /// let noted = event.id().to_string();
    /// # assert_eq!(event.result::<String>().await?, "DAWN");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// When the file can't be made, read or written, is another process', damaged, or something else.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, JournalError> {
        let path = path.as_ref().to_path_buf();
        let (lock, connection) = open::open(&path)?;
        let of_thread = path.clone();
        let requests = Requests::start(move |mut incoming| {
            writer::run(connection, &of_thread, &mut incoming)
        })?;
        Ok(Sqlite { path, requests, _lock: lock })
    }
}

/// For tests of disks that are full or don't work, and of other programs.
#[cfg(test)]
impl Sqlite {
    fn test_with<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut writer::Writer<'_>) -> T + Send + 'static,
    ) -> T {
        let (reply, answer) = std::sync::mpsc::channel();
        let act = move |writer: &mut writer::Writer<'_>| drop(reply.send(act(writer)));
        let _ = self.requests.send(super::requests::Request::Test(Box::new(act)));
        answer.recv().expect("its thread answers")
    }

    pub(crate) fn test_max_pages(&self, pages: u32) {
        self.test_with(move |writer| writer.set("max_page_count", pages));
    }

    pub(crate) fn test_busy_timeout(&self, timeout: std::time::Duration) {
        let millis = u32::try_from(timeout.as_millis()).expect("it is short");
        self.test_with(move |writer| writer.set("busy_timeout", millis));
    }

    pub(crate) fn test_refuse_writes(&self, refuse: bool) {
        self.test_with(move |writer| writer.set("query_only", u32::from(refuse)));
    }

    pub(crate) fn test_is_broken(&self) -> bool {
        self.test_with(|writer| writer.broken.is_some())
    }
}

impl Journal for Sqlite {
    fn append(&self, batch: Batch, done: Done) {
        self.requests.append(batch, done);
    }

    fn load(&self) -> Result<Loaded, JournalError> {
        self.requests.load()
    }

    fn ends(&self, query: Query) -> oneshot::Receiver<Result<Vec<Kept>, JournalError>> {
        self.requests.ends(query)
    }

    fn forget(&self, before: u64) {
        self.requests.forget(before);
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sqlite").field(&self.path).finish()
    }
}

//! The thread that has the connection: it takes all that has come, writes it in one transaction, and says
//! so once that is on disk.

use std::path::Path;

use rusqlite::Connection;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::mpsc::error::TryRecvError;

use super::error::{reading, writing};
use super::rows;
use super::rows::ReadError;
use crate::journal::error::JournalError;
use crate::journal::requests::Request;
use crate::journal::{Batch, Done};
use crate::logging::{error, warn};

/// Batches in one transaction, at most: so that no one waits for long.
const GROUP: usize = 4096;

/// Ends that are forgotten at once, at most.
const FORGET: usize = 1000;

/// What a test wants done with the connection.
pub(super) type ForTest = Box<dyn FnOnce(&mut Writer<'_>) + Send>;

/// Does what it is asked until nobody can ask any more.
pub(super) fn run(
    connection: Connection,
    path: &Path,
    requests: &mut UnboundedReceiver<Request<ForTest>>,
) {
    let mut writer = Writer { connection, path, broken: None, forget: None };
    let mut next = None;
    loop {
        let request = match next.take() {
            Some(request) => request,
            None if writer.forget.is_some() => match requests.try_recv() {
                Ok(request) => request,
                Err(TryRecvError::Empty) => {
                    writer.forget_some();
                    continue;
                }
                Err(TryRecvError::Disconnected) => return,
            },
            None => match requests.blocking_recv() {
                Some(request) => request,
                None => return,
            },
        };
        match request {
            Request::Append(batch, done) => {
                let mut group = vec![(batch, done)];
                while group.len() < GROUP {
                    match requests.try_recv() {
                        Ok(Request::Append(batch, done)) => group.push((batch, done)),
                        Ok(other) => {
                            next = Some(other);
                            break;
                        }
                        Err(_) => break,
                    }
                }
                writer.append(group);
            }
            // Who asked may have stopped waiting.
            Request::Load(reply) => drop(reply.send(writer.read(rows::load))),
            Request::Ends(query, reply) => {
                drop(reply.send(writer.read(|connection| rows::ends(connection, &query))));
            }
            Request::Test(act) => act(&mut writer),
            Request::Forget(before) => writer.forget = Some(before),
        }
    }
}

pub(super) struct Writer<'a> {
    connection: Connection,
    path: &'a Path,
    /// Why nothing is written any more.
    pub(super) broken: Option<JournalError>,
    /// Ends before this moment are to be forgotten.
    forget: Option<u64>,
}

#[cfg(test)]
impl Writer<'_> {
    pub(super) fn set(&self, pragma: &str, value: u32) {
        self.connection.pragma_update(None, pragma, value).expect("it can be set");
    }
}

impl Writer<'_> {
    fn append(&mut self, group: Vec<(Batch, Done)>) {
        let written = match &self.broken {
            Some(broken) => Err(broken.clone()),
            None => self.write(&group).map_err(|error| self.trouble(&error)),
        };
        for (_, done) in group {
            done(written.clone());
        }
    }

    /// What it means that a write has failed.
    fn trouble(&mut self, error: &rusqlite::Error) -> JournalError {
        let trouble = writing(error);
        if matches!(trouble, JournalError::Broken(_)) {
            error!("{}: {error}; nothing more is written", self.path.display());
            self.broken = Some(trouble.clone());
        }
        trouble
    }

    /// All of it, or nothing.
    fn write(&mut self, group: &[(Batch, Done)]) -> rusqlite::Result<()> {
        let transaction =
            self.connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        for (batch, _) in group {
            for record in batch.records.iter() {
                rows::write(&transaction, &batch.concurrency_id, record)?;
            }
        }
        transaction.commit()
    }

    fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, ReadError>,
    ) -> Result<T, JournalError> {
        read(&self.connection).map_err(|error| match error {
            ReadError::Sqlite(error) => reading(&error, self.path),
            ReadError::Row(what) => JournalError::Damaged { path: self.path.to_path_buf(), what },
        })
    }

    /// A bounded step, so that appends needn't wait for long.
    fn forget_some(&mut self) {
        let Some(before) = self.forget else { return };
        let forgotten = match &self.broken {
            Some(_) => Ok(0),
            None => rows::forget(&self.connection, before, FORGET),
        };
        match forgotten {
            Ok(FORGET) => {}
            Ok(_) => self.forget = None,
            Err(error) => {
                // It is asked again in a while.
                let trouble = self.trouble(&error);
                warn!("{}: old ends stay: {trouble}", self.path.display());
                self.forget = None;
            }
        }
    }
}

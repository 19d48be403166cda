//! Access to a queue's files, for handlers and for holders of the queue.

use std::path::PathBuf;
use std::sync::Arc;

use super::scope::recording;
use super::store::{Files, run_sweeper};
use crate::handler::context::EventContext;
use crate::handler::durable::{RecordScope, ScopeOfRecords};
use crate::handler::extensions::Extensions;
use crate::queue::Queue;
use crate::queue::background::Background;
use crate::queue::builder::QueueBuilder;
use crate::queue::error::StartError;

impl RecordScope for Files {
    fn within(&self, convert: &mut dyn FnMut()) {
        recording(self, convert);
    }
}

impl QueueBuilder {
    /// Where the queue's files are, for [durable](crate::Listener::durable) listeners that take or give
    /// [`FileData`](crate::FileData): a directory that stays when the process ends. A file that an event
    /// names is kept until the event's end is forgotten
    /// ([`QueueBuilder::result_ttl`]). Other queues, whose files needn't outlive the process, leave this out,
    /// or set the directory on their `Web`.
    ///
    /// ```
    /// use now_serving::{EventContext, FileData, Listener, Queue, Sqlite};
    ///
    /// async fn shout(text: FileData, context: EventContext) -> std::io::Result<FileData> {
    ///     let text = String::from_utf8_lossy(&text.read().await?).to_uppercase();
    ///     context.files().save_async("shout.txt", text).await
    /// }
    ///
    /// # #[cfg(feature = "journal")]
    /// # actix::System::new().block_on(async {
    /// # let directory = tempfile::tempdir()?;
    /// # let data = directory.path();
    /// let queue = Queue::builder()
    ///     .journal(Sqlite::open(data.join("events.db"))?)
    ///     .cache_dir(data.join("files"))
    ///     .listener(Listener::new("shout", shout).durable())
    ///     .start()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn cache_dir(self, directory: impl Into<PathBuf>) -> Self {
        let directory = directory.into();
        let files = Files::of_records(directory.clone());
        let scope = ScopeOfRecords(Arc::new(files.clone()));
        self.extend(files).extend(scope).on_start(Box::new(move |queue| {
            let (extensions, kept_for) = (&queue.inner().extensions, queue.inner().result_ttl);
            let Some(files) = extensions.get::<Files>() else { return Ok(()) };
            files.settle(kept_for).map_err(|error| StartError::CacheDirectory {
                path: directory,
                error: error.to_string(),
            })?;
            if let Some(Background(arbiter)) = extensions.get() {
                arbiter.spawn(run_sweeper(files));
            }
            Ok(())
        }))
    }
}

impl EventContext {
    /// Where files for the client are made: as configured by the queue's `Web`, or without one in a
    /// temporary directory that is removed with the queue.
    pub fn files(&self) -> &Files {
        Files::in_extensions(self.extensions())
    }
}

impl Files {
    /// The files of a queue: those that its handlers have in [`EventContext::files`].
    ///
    /// ```
    /// use now_serving::{FileData, Files, Listener, Queue};
    ///
    /// async fn length(file: FileData) -> Result<u64, std::io::Error> {
    ///     Ok(file.path().metadata()?.len())
    /// }
    ///
    /// # actix::System::new().block_on(async {
    /// let queue = Queue::builder().listener(Listener::new("length", length)).start().unwrap();
    /// let fox = Files::of(&queue).save("fox.txt", "fox").unwrap();
    /// let length: u64 = queue.call("length", fox).await.unwrap();
    /// assert_eq!(length, 3);
    /// # });
    /// ```
    pub fn of(queue: &Queue) -> &Files {
        Self::in_extensions(&queue.inner().extensions)
    }

    /// Begins them as somebody wants them, unless there are some already. Whether they are these.
    pub(crate) fn begin(self, extensions: &Extensions) -> bool {
        let sweeper = run_sweeper(&self);
        let begun = extensions.insert(self);
        if begun && let Some(Background(arbiter)) = extensions.get() {
            arbiter.spawn(sweeper);
        }
        begun
    }

    fn in_extensions(extensions: &Extensions) -> &Files {
        loop {
            match extensions.get() {
                Some(files) => return files,
                None => {
                    Files::temporary(None, None).begin(extensions);
                }
            }
        }
    }
}

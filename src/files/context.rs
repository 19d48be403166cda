//! Access to a queue's files, for handlers and for holders of the queue.

use super::store::{Files, run_sweeper};
use crate::handler::context::EventContext;
use crate::handler::extensions::Extensions;
use crate::queue::Queue;
use crate::queue::background::Background;

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

//! How a queue comes to be served.

use std::sync::Arc;

use super::error::WebError;
use super::options::{Options, WebBuilder};
use super::state::{Web, WebState};
use crate::files::store::Files;
use crate::queue::Queue;
#[cfg(feature = "cluster")]
use crate::web::relay::serving;

impl Web {
    /// Serves a queue over HTTP, as [`Web::builder`] does by default.
    pub fn new(queue: &Queue) -> Self {
        Self::with(queue, Options::default())
    }

    /// Starts declaring how a queue is served over HTTP.
    ///
    /// ```
    /// use now_serving::{Listener, Queue, Users, Web};
    ///
    /// # actix::System::new().block_on(async {
    /// let queue = Queue::builder()
    ///     .listener(Listener::new("echo", async |text: String| Ok::<_, String>(text)))
    ///     .start()?;
    /// let web = Web::builder(&queue)
    ///     .auth(Users::new().user("alice", "open sesame"))
    ///     .max_file_size(5 * 1024 * 1024)
    ///     .start()?;
    /// # drop(web);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn builder(queue: &Queue) -> WebBuilder {
        WebBuilder { queue: queue.clone(), web: Options::default(), refused: None }
    }

    fn with(queue: &Queue, options: Options) -> Self {
        let files = Files::of(queue).clone();
        let web = Web(Arc::new(WebState::new(queue.clone(), options, files)));
        #[cfg(feature = "cluster")]
        serving::start(&web);
        web
    }
}

impl WebBuilder {
    /// Makes what serves the queue.
    ///
    /// # Errors
    /// When the directory for files can't be made or read; when options of the queue's files are
    /// set and it has begun some already; when an option can't be read.
    pub fn start(self) -> Result<Web, WebError> {
        let WebBuilder { queue, web: options, refused } = self;
        if let Some(refused) = refused {
            return Err(refused);
        }
        if options.concern_files() {
            let extensions = &queue.inner().extensions;
            let begun = extensions.get::<Files>();
            if let Some(files) =
                begun.filter(|it| it.are_of_records() && options.cache_dir.is_none())
            {
                files.set_bounds(options.cache_ttl, options.max_cache_size);
                return Ok(Web::with(&queue, options));
            }
            // Before anything is tidied up where others may be writing.
            if begun.is_some() {
                return Err(WebError::FilesBegun);
            }
            let (directory, ttl) = (options.cache_dir.clone(), options.cache_ttl);
            let files = Files::new(directory, ttl, options.max_cache_size);
            let files = files.map_err(|error| WebError::CacheDirectory {
                path: options.cache_dir.clone().unwrap_or_default(),
                error: error.to_string(),
            })?;
            if !files.begin(extensions) {
                return Err(WebError::FilesBegun);
            }
        }
        Ok(Web::with(&queue, options))
    }
}

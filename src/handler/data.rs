//! What the service gives all its handlers: one value of each type.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// A value that the queue was given by [`QueueBuilder::data`](crate::QueueBuilder::data), shared by all
/// runs; as `web::Data` of actix-web.
///
/// A handler takes it as an argument after its input. `start()` refuses a listener whose handler takes a
/// type that the queue wasn't given. [`EventContext::data`](crate::EventContext::data) gives it as well,
/// and [`Queue::data`](crate::Queue::data) to routes of one's own.
///
/// ```
/// use now_serving::{Data, Listener, Queue};
///
/// struct Models { directory: String }
///
/// async fn paint(prompt: String, models: Data<Models>) -> Result<String, String> {
///     Ok(format!("{prompt} by {}/painter", models.directory))
/// }
///
/// # actix::System::new().block_on(async {
/// let queue = Queue::builder()
///     .data(Models { directory: "/models".into() })
///     .listener(Listener::new("paint", paint))
///     .start()
///     .unwrap();
/// let picture: String = queue.call("paint", "a fox".to_string()).await.unwrap();
/// assert_eq!(picture, "a fox by /models/painter");
/// # });
/// ```
pub struct Data<T>(Arc<T>);

impl<T> Data<T> {
    pub(crate) fn new(value: T) -> Self {
        Data(Arc::new(value))
    }

    /// The value, shared: `actix_web::web::Data::from` takes it.
    pub fn into_inner(self) -> Arc<T> {
        self.0
    }
}

impl<T> Deref for Data<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T> Clone for Data<T> {
    fn clone(&self) -> Self {
        Data(self.0.clone())
    }
}

impl<T: fmt::Debug> fmt::Debug for Data<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Data").field(&self.0).finish()
    }
}

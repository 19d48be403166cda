//! What runs outside of the actors: handlers on threads of their own, and holders of permits. It
//! goes on when its actors are gone, so it is counted apart from them.

use std::sync::Arc;

use tokio::sync::watch;

/// The count of one queue. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outside(Arc<watch::Sender<usize>>);

/// One that counts, until dropped.
#[derive(Debug)]
pub(crate) struct Stay(Outside);

impl Outside {
    pub fn enter(&self) -> Stay {
        self.0.send_modify(|count| *count += 1);
        Stay(self.clone())
    }

    /// Waits until nothing is left.
    pub async fn emptied(&self) {
        // The sender lives in `self`.
        let _ = self.0.subscribe().wait_for(|count| *count == 0).await;
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}

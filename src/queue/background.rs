//! Where a queue does what is to be done now and then.

use std::sync::{Arc, Weak};
use std::time::Duration;

use actix::ArbiterHandle;

use super::Inner;
use crate::clock;

/// Among a queue's extensions: an arbiter that lives as long as the queue, for tasks beside its
/// events.
pub(crate) struct Background(pub ArbiterHandle);

/// How long the end of a durable event is kept, unless the queue says.
pub(super) const RESULT_TTL: Duration = Duration::from_secs(24 * 3600);

/// The longest time for which something is kept that could be forgotten.
const SWEEP: Duration = Duration::from_secs(60);

/// Forgets the ends in the journal that have been kept for long enough, as long as the queue lives.
pub(super) fn forget_old_ends(arbiter: &ArbiterHandle, queue: Weak<Inner>, ttl: Duration) {
    let sweep = (ttl / 10).clamp(Duration::from_millis(100), SWEEP);
    arbiter.spawn(async move {
        loop {
            tokio::time::sleep(sweep).await;
            let Some(queue) = queue.upgrade() else { return };
            if let Some(journal) = &queue.journal {
                journal.forget(clock::unix_millis().saturating_sub(clock::millis(ttl)));
            }
            queue.left.sweep(ttl);
            // Not held while it sleeps.
            drop::<Arc<Inner>>(queue);
        }
    });
}

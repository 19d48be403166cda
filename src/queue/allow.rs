//! Who may call a listener, or use a route.
//!
//! Decided here, and not by the web: calls in process have users too. And by whoever submits, not by the
//! listener's actor: who may not call costs the queue no message.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::event::guarded::discard_payload;
use crate::logging::error;

type Check = dyn Fn(Option<&str>) -> bool + Send + Sync;

/// The service's decision about who may.
#[derive(Clone)]
pub(crate) struct Allow(Arc<Check>);

impl Allow {
    pub fn new(allow: impl Fn(Option<&str>) -> bool + Send + Sync + 'static) -> Self {
        Allow(Arc::new(allow))
    }

    /// Whether this user may. A function that panics allows nobody.
    pub fn allows(&self, user: Option<&str>) -> bool {
        catch_unwind(AssertUnwindSafe(|| (self.0)(user))).unwrap_or_else(|payload| {
            discard_payload(payload);
            error!("a function that was given to allow() panicked; the request is refused");
            false
        })
    }
}

impl fmt::Debug for Allow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allow").finish_non_exhaustive()
    }
}

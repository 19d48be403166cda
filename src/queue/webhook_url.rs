//! The URL that an event's end is posted to. Who posts it lies above; here it is only checked and recorded.

use std::sync::Arc;

/// Given with an input. It has been checked.
#[derive(Clone, Debug)]
pub(crate) struct WebhookUrl(pub Arc<str>);

/// Among a queue's extensions, where ends are posted: says why a URL may not be called.
pub(crate) struct WebhookCheck(pub Box<Check>);

type Check = dyn Fn(&str) -> Result<(), String> + Send + Sync;

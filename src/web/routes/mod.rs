//! One file a route.

pub(crate) mod call;
pub(crate) mod cancel;
pub(crate) mod config;
pub(crate) mod data;
pub(crate) mod file;
pub(crate) mod heartbeat;
pub(crate) mod info;
pub(crate) mod join;
pub(crate) mod login;
pub(crate) mod openapi;
pub(crate) mod run;
pub(crate) mod status;
pub(crate) mod upload;
pub(crate) mod upload_progress;

use crate::queue::Queue;
use crate::web::api::endpoint::Endpoint;
use crate::web::rejection::Rejection;

/// The listener of a name, if clients may call it.
fn known<'a>(queue: &'a Queue, api_name: &str) -> Result<&'a Endpoint, Rejection> {
    queue.inner().endpoint(api_name).ok_or_else(|| Rejection::unknown_listener(api_name))
}

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

use serde::Deserialize;

/// Which listener a path names. By its name there, as a scope around may have parameters of its own.
#[derive(Deserialize)]
pub(crate) struct Named {
    api_name: String,
}

//! What runs an event: handlers, their arguments, their context.

pub(crate) mod backoff;
pub(crate) mod codec;
pub(crate) mod context;
pub(crate) mod data;
pub(crate) mod durable;
pub(crate) mod erased;
pub(crate) mod extensions;
pub(crate) mod extract;
pub(crate) mod input;
pub(crate) mod needs;
pub(crate) mod nesting;
pub(crate) mod outside;
pub(crate) mod progress;
pub(crate) mod run_context;
pub(crate) mod session_state;
pub(crate) mod slot;
pub(crate) mod slot_resource;
pub(crate) mod threads;
pub(crate) mod track;
pub(crate) mod types;
pub(crate) mod user;
pub(crate) mod validator;

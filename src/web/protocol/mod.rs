//! Gradio's protocol: updates to bytes.

pub(crate) mod content;
pub(crate) mod diff;
pub(crate) mod encoder;
pub(crate) mod layout;
pub(crate) mod message;
pub(crate) mod sse;
pub(crate) mod update_json;

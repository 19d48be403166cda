//! Events and their updates. Imports nothing of the crate.

pub(crate) mod failure;
pub(crate) mod guarded;
pub(crate) mod id;
pub(crate) mod json_text;
pub(crate) mod output;
pub(crate) mod refusal;
pub(crate) mod update;
pub(crate) mod validation;

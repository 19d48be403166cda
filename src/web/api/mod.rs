//! What a listener looks like over HTTP.

pub(crate) mod endpoint;
pub(crate) mod parameters;
pub(crate) mod python_type;
pub(crate) mod snippets;

//! A listener's interface over HTTP: parameters, types, examples.

pub(crate) mod endpoint;
pub(crate) mod parameters;
pub(crate) mod python_type;
pub(crate) mod snippets;

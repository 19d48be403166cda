//! Files that come from clients and go to them: where they lie, and how JSON names them.

pub(crate) mod context;
pub(crate) mod directory;
pub(crate) mod file_data;
pub(crate) mod json;
pub(crate) mod key;
pub(crate) mod name;
pub(crate) mod root;
pub(crate) mod scope;
pub(crate) mod store;

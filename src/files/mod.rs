//! Files that come from clients and go to them: where they lie, and how JSON names them.

mod file_data;
mod name;
mod scope;
mod store;

pub use file_data::FileData;
pub(crate) use file_data::is_file;
pub(crate) use scope::{reading, writing};
pub use store::Files;
pub(crate) use store::{FILE_COST, Key, part, sweep_now_and_then};

//! Requests' bodies: received within bounds, and read as JSON.

pub(crate) mod budget;
pub(crate) mod json;
pub(crate) mod pace;
pub(crate) mod received;
pub(crate) mod size;

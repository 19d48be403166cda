//! Requests that come to another node than the one where their session is at home: they are relayed to it, and
//! its answer is streamed back.

pub(crate) mod asking;
pub(crate) mod head;
pub(crate) mod node;
pub(crate) mod numbers;
pub(crate) mod resuming;
pub(crate) mod serving;

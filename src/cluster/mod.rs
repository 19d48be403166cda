//! One concurrency id on several nodes: who may grant runs, and who may run what. Pure: what the machines
//! here are told and what they want done are values; there is no network in here and no clock.
//!
//! One node at a time **owns** a concurrency id: it has the wait queue, records what happens, and places
//! runs on nodes. Whether it still does, the record says: a claim is an append, its sequence is the **epoch**,
//! and no append of an earlier owner is kept after it. Each node is a **member**: it beats, runs what the
//! owner places there, and holds a **lease** that the owner's acknowledgement of a beat extends. A node whose
//! lease has ended stops its runs before the owner places them elsewhere.
//!
//! No clock of one machine is compared with that of another: a lease counts from the moment at which its
//! holder sent a beat, and the owner's wait from the moment at which it received one, which is later.

pub(crate) mod bucket;
pub(crate) mod handle;
pub(crate) mod homes;
mod load;
pub(crate) mod member;
pub(crate) mod message;
pub(crate) mod owner;
pub(crate) mod ownership;
#[cfg(test)]
pub(crate) mod rules;
#[cfg(test)]
mod tests;
pub(crate) mod tunnel;

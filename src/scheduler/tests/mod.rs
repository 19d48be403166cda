//! The promises, tested on random histories and in virtual time.

#[cfg(test)]
pub(crate) mod invariants;
#[cfg(test)]
pub(crate) mod simulation;

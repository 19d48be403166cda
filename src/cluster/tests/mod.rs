//! The machines together, with everything between them that goes wrong.

mod simulation;
mod world;

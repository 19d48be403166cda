//! The machines together, with everything between them that goes wrong.

mod machines;
mod simulation;
mod world;

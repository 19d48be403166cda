//! The machines together, with everything between them that goes wrong.

mod books;
mod machines;
mod simulation;
mod weather;
mod world;

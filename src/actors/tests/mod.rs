//! Tests of several actors together.

mod fairness;

//! For operators: the dashboard and the metrics.

pub(crate) mod dashboard;
pub(crate) mod metrics;
pub(crate) mod operators;

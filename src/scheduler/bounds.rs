//! The bounds of histograms' buckets.

use serde::de::Error;
use serde::{Deserialize, Deserializer};

/// Upper bounds of times, in seconds: from quick functions to pictures that take an hour.
pub(super) const TIMES: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    120.0, 300.0, 600.0, 1800.0, 3600.0,
];

/// Upper bounds of batches, in events.
pub(super) const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// The bounds of an earlier snapshot, which are among these.
pub(super) fn known_bounds<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<&'static [f64], D::Error> {
    let bounds = Vec::<f64>::deserialize(deserializer)?;
    let known = [TIMES, SIZES].into_iter().find(|known| **known == *bounds);
    known.ok_or_else(|| D::Error::custom("a histogram of another version's bounds"))
}

//! How far the run on a slot has got: written by its handler, read for a snapshot.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// One slot's meter. In the upper half the number of the run, in the lower how far it has got, in
/// millionths, or [`UNKNOWN`]. Nothing else hangs on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter(Arc<AtomicU64>);

/// Lets one run write. What is left of an earlier run, for instance on a thread of its own, writes
/// nothing.
#[derive(Debug)]
pub(crate) struct Reporter {
    meter: Meter,
    run: u64,
}

const RUN: u32 = 32;

const UNKNOWN: u64 = u32::MAX as u64;

const WHOLE: f64 = 1e6;

impl Meter {
    /// Another run begins.
    pub fn begin(&self) {
        let run = self.0.load(Relaxed) >> RUN;
        self.0.store((run.wrapping_add(1) & UNKNOWN) << RUN | UNKNOWN, Relaxed);
    }

    /// For the run that has begun last.
    pub fn reporter(&self) -> Reporter {
        Reporter { meter: self.clone(), run: self.0.load(Relaxed) >> RUN }
    }

    /// From 0 to 1; `None` while the run hasn't reported any.
    pub fn progress(&self) -> Option<f64> {
        let part = self.0.load(Relaxed) & UNKNOWN;
        (part != UNKNOWN).then_some(part as f64 / WHOLE)
    }
}

impl Reporter {
    pub fn report(&self, progress: f64) {
        let part = (progress.clamp(0.0, 1.0) * WHOLE) as u64;
        let own = |now: u64| (now >> RUN == self.run).then_some(self.run << RUN | part);
        let _ = self.meter.0.fetch_update(Relaxed, Relaxed, own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_present_run_writes() {
        let meter = Meter::default();
        meter.begin();
        let first = meter.reporter();
        assert_eq!(meter.progress(), None);
        first.report(0.5);
        assert_eq!(meter.progress(), Some(0.5));
        first.report(f64::NAN);
        first.report(7.0);
        assert_eq!(meter.progress(), Some(1.0));
        meter.begin();
        first.report(0.25);
        assert_eq!(meter.progress(), None);
        meter.reporter().report(0.25);
        assert_eq!(meter.progress(), Some(0.25));
    }
}

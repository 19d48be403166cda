//! The clock that limits and estimates go by: the one by which timers fire, so that a test that pauses
//! tokio's clock moves both.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Milliseconds since the Unix epoch, by the system's clock: for records that people read, and that
/// outlive this process.
pub(crate) fn unix_millis() -> u64 {
    unix_millis_of(SystemTime::now())
}

/// The same of another moment.
pub(crate) fn unix_millis_of(moment: SystemTime) -> u64 {
    millis(moment.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// The moment by the clock of this process, if it is still to come.
pub(crate) fn from_unix_millis(moment: u64) -> Option<Instant> {
    let wait = moment.checked_sub(unix_millis()).filter(|wait| *wait > 0)?;
    Some(after(now(), Duration::from_millis(wait)))
}

/// A duration that can be added to any moment of this process.
pub(crate) fn bounded(time: Duration) -> Duration {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    time.min(CENTURY)
}

/// So long after then, a century at most.
pub(crate) fn after(then: Instant, time: Duration) -> Instant {
    then + bounded(time)
}

/// A moment as long from now, in milliseconds since the Unix epoch.
pub(crate) fn unix_millis_after(time: Duration) -> u64 {
    unix_millis().saturating_add(millis(time))
}

/// A duration in milliseconds.
pub(crate) fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The time since then.
pub(crate) fn since(then: Instant) -> Duration {
    now().saturating_duration_since(then)
}

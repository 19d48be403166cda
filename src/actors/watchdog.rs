//! Notices a handler that keeps its thread to itself: an endless loop that never awaits, or blocking
//! work in an async function. It can't be stopped, but it can be named.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use crate::logging::{error, warn};

/// How long a handler may keep its thread, by default.
pub(crate) const TURN_TIMEOUT: Duration = Duration::from_secs(1);

/// What runs on one arbiter right now: which turn of a handler, and whose. Written by the arbiter's
/// own thread, read by the watchdog's; nothing else hangs on it.
#[derive(Debug, Default)]
pub(crate) struct Pulse(AtomicU64);

/// The bits for a listener's number, after 0 for nobody.
const LISTENER: u32 = 16;

impl Pulse {
    /// A handler of the listener with this number gets its turn, until the guard is dropped.
    pub fn turn(&self, listener: u16) -> Turn<'_> {
        let count = self.0.load(Relaxed) >> LISTENER;
        let listener = u64::from(listener.min(u16::MAX - 1)) + 1;
        self.0.store((count + 1) << LISTENER | listener, Relaxed);
        Turn(self)
    }

    fn now(&self) -> Option<(u64, usize)> {
        let value = self.0.load(Relaxed);
        let listener = (value & ((1 << LISTENER) - 1)).checked_sub(1)?;
        Some((value, listener as usize))
    }
}

/// A handler's turn on its thread.
pub(crate) struct Turn<'a>(&'a Pulse);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let count = self.0.0.load(Relaxed) >> LISTENER;
        self.0.0.store(count << LISTENER, Relaxed);
    }
}

/// A thread that checks the pulses regularly. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watchdog {
    _alive: Sender<()>,
}

impl Watchdog {
    /// `names` are those of the listeners by number.
    pub fn start(pulses: &[Arc<Pulse>], names: Vec<Arc<str>>, patience: Duration) -> Option<Self> {
        let (alive, ended) = channel();
        let pulses = pulses.iter().map(|pulse| Watched::new(Arc::downgrade(pulse))).collect();
        let watch = move || watch(pulses, &names, patience, &ended);
        let thread = thread::Builder::new().name("now-serving-watchdog".into()).spawn(watch);
        match thread {
            Ok(_) => Some(Watchdog { _alive: alive }),
            Err(error) => {
                error!("there is no watchdog: its thread could not be started: {error}");
                None
            }
        }
    }
}

/// One arbiter, and since when the same turn has been on.
struct Watched {
    pulse: Weak<Pulse>,
    turn: Option<(u64, Instant)>,
    reported: bool,
}

impl Watched {
    fn new(pulse: Weak<Pulse>) -> Self {
        Watched { pulse, turn: None, reported: false }
    }

    /// The listener that has kept this thread for too long, each turn once.
    fn overdue(&mut self, now: Instant, patience: Duration) -> Option<(usize, Duration)> {
        let seen = self.pulse.upgrade().and_then(|pulse| pulse.now());
        let (value, listener) = match seen {
            Some(seen) => seen,
            None => {
                self.turn = None;
                return None;
            }
        };
        match self.turn {
            Some((turn, since)) if turn == value => {
                let kept = now.saturating_duration_since(since);
                if kept < patience || std::mem::replace(&mut self.reported, true) {
                    return None;
                }
                Some((listener, kept))
            }
            _ => {
                self.turn = Some((value, now));
                self.reported = false;
                None
            }
        }
    }
}

fn watch(mut pulses: Vec<Watched>, names: &[Arc<str>], patience: Duration, ended: &Receiver<()>) {
    let pause = (patience / 4).max(Duration::from_millis(1));
    while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
        let now = Instant::now();
        for watched in &mut pulses {
            if let Some((listener, kept)) = watched.overdue(now, patience) {
                let name = names.get(listener).map_or("one of many listeners", |name| &**name);
                warn!(
                    "{name}: a handler has kept its thread for {:.1} s without awaiting, and \
                     whatever shares the thread waits; use Listener::blocking for work that blocks, \
                     or own_arbiter",
                    kept.as_secs_f64()
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_that_lasts_is_told_once() {
        let pulse = Arc::new(Pulse::default());
        let mut watched = Watched::new(Arc::downgrade(&pulse));
        let begun = Instant::now();
        let mut overdue = |seconds| {
            let now = begun + Duration::from_secs(seconds);
            watched
                .overdue(now, Duration::from_secs(5))
                .map(|(listener, kept)| (listener, kept.as_secs()))
        };
        assert_eq!(overdue(0), None);
        let turn = pulse.turn(7);
        assert_eq!((overdue(1), overdue(3)), (None, None));
        assert_eq!(overdue(6), Some((7, 5)));
        assert_eq!(overdue(9), None);
        drop(turn);
        assert_eq!(overdue(10), None);
        // Others that come and go in between are no single one.
        for seconds in [11, 14, 17, 20] {
            let _turn = pulse.turn(7);
            assert_eq!(overdue(seconds), None);
        }
        let _turn = pulse.turn(0);
        assert_eq!((overdue(21), overdue(26)), (None, Some((0, 5))));
    }
}

//! What goes wrong in a history, and how often.

/// How much goes wrong.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weather {
    pub events: u64,
    /// How many times something breaks, what, and for how many seconds.
    pub troubles: usize,
    pub kinds: &'static [Trouble],
    pub lasting: [u64; 4],
    /// Of a hundred messages: how many are lost, how many doubled, how many late, and how many times later
    /// than others those are.
    pub lost: u32,
    pub doubled: u32,
    pub late: (u32, u32),
    /// Of a hundred appends: how many are slow, and how many times slower than others.
    pub slow: (u32, u32),
    /// Of a hundred appends: how many are refused, as where there is no room.
    pub refused: u32,
    /// Seconds that handlers take.
    pub runs: [f64; 4],
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Trouble {
    Crash,
    Freeze,
    /// Some nodes don't hear the others, and may not reach the record either.
    Cut,
    /// One node doesn't reach the record.
    NoRecord,
    /// The record chooses a new leader.
    Election,
    /// Nobody reaches the record.
    Away,
}

use Trouble::{Away, Crash, Cut, Election, Freeze, NoRecord};

/// Some of everything.
pub(super) const CHANGEABLE: Weather = Weather {
    events: 40,
    troubles: 10,
    kinds: &[Crash, Freeze, Freeze, Cut, Cut, NoRecord, Election, Away],
    lasting: [1, 4, 8, 15],
    lost: 3,
    doubled: 3,
    late: (2, 60),
    slow: (1, 100),
    refused: 2,
    runs: [0.5, 1.0, 3.0, 8.0],
};

/// Much of everything.
pub(super) const STORM: Weather = Weather {
    events: 20,
    troubles: 20,
    kinds: CHANGEABLE.kinds,
    lasting: [4, 8, 15, 25],
    lost: 5,
    doubled: 10,
    late: (5, 300),
    slow: (10, 1500),
    refused: 5,
    runs: [0.5, 3.0, 8.0, 30.0],
};

/// Long cuts, and runs that outlast them.
pub(super) const SPLIT: Weather = Weather {
    events: 10,
    troubles: 4,
    kinds: &[Cut, Cut, NoRecord],
    lasting: [15, 20, 30, 40],
    runs: [0.5, 8.0, 30.0, 60.0],
    ..CHANGEABLE
};

/// A record that is slow or away while processes freeze and wake.
pub(super) const STALLED: Weather = Weather {
    events: 20,
    troubles: 16,
    kinds: &[Away, Freeze, Freeze],
    lasting: [6, 7, 9, 12],
    slow: (20, 1500),
    ..STORM
};

/// Processes that die as soon as they are up, and words that arrive when others are there.
pub(super) const FLAPPING: Weather = Weather {
    events: 20,
    troubles: 60,
    kinds: &[Crash],
    lasting: [0, 0, 1, 2],
    late: (20, 500),
    ..STORM
};

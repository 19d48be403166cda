//! Events that may start only from a moment on, in the order of their moments.

use std::collections::BTreeMap;
use std::time::Instant;

/// Where one is found: by its moment, and by the order in which it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Appointment {
    pub due: Instant,
    number: u64,
}

/// Those that there are, each with its lane.
#[derive(Debug)]
pub(super) struct Appointments<W> {
    entries: BTreeMap<Appointment, (usize, W)>,
    next: u64,
}

impl<W> Default for Appointments<W> {
    fn default() -> Self {
        Appointments { entries: BTreeMap::new(), next: 0 }
    }
}

impl<W> Appointments<W> {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub fn first(&self) -> Option<Appointment> {
        self.entries.first_key_value().map(|(appointment, _)| *appointment)
    }

    pub fn lane_of(&self, appointment: Appointment) -> Option<usize> {
        self.entries.get(&appointment).map(|(lane, _)| *lane)
    }

    pub fn get_mut(&mut self, appointment: Appointment) -> Option<&mut W> {
        self.entries.get_mut(&appointment).map(|(_, waiting)| waiting)
    }

    pub fn insert(&mut self, due: Instant, lane: usize, waiting: W) -> Appointment {
        let appointment = Appointment { due, number: self.next };
        self.next += 1;
        self.entries.insert(appointment, (lane, waiting));
        appointment
    }

    pub fn remove(&mut self, appointment: Appointment) -> Option<(usize, W)> {
        self.entries.remove(&appointment)
    }
}

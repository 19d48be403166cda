//! Events that may start only from a moment on, in the order of their moments.

use std::collections::BTreeSet;
use std::time::Instant;

use slab::Slab;

/// Where one is found. It finds nothing once that has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Appointment {
    number: u64,
    index: usize,
}

#[derive(Debug)]
struct Entry<W> {
    number: u64,
    due: Instant,
    lane: usize,
    waiting: W,
}

/// Those that there are, each with its lane.
#[derive(Debug)]
pub(super) struct Appointments<W> {
    entries: Slab<Entry<W>>,
    /// Of one moment, the first that came comes first.
    order: BTreeSet<(Instant, u64, usize)>,
    next: u64,
}

impl<W> Default for Appointments<W> {
    fn default() -> Self {
        Appointments { entries: Slab::new(), order: BTreeSet::new(), next: 0 }
    }
}

impl<W> Appointments<W> {
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// The next one, with its moment.
    #[inline]
    pub fn first(&self) -> Option<(Instant, Appointment)> {
        let &(due, number, index) = self.order.first()?;
        Some((due, Appointment { number, index }))
    }

    /// In the order of their moments, each with its moment and its lane.
    pub fn iter(&self) -> impl Iterator<Item = (Instant, usize, &W)> {
        let entries = self.order.iter().filter_map(|&(_, _, index)| self.entries.get(index));
        entries.map(|entry| (entry.due, entry.lane, &entry.waiting))
    }

    fn get(&self, appointment: Appointment) -> Option<&Entry<W>> {
        let entry = self.entries.get(appointment.index)?;
        (entry.number == appointment.number).then_some(entry)
    }

    pub fn lane_of(&self, appointment: Appointment) -> Option<usize> {
        self.get(appointment).map(|entry| entry.lane)
    }

    pub fn get_mut(&mut self, appointment: Appointment) -> Option<&mut W> {
        let entry = self.entries.get_mut(appointment.index)?;
        (entry.number == appointment.number).then_some(&mut entry.waiting)
    }

    pub fn insert(&mut self, due: Instant, lane: usize, waiting: W) -> Appointment {
        let number = self.next;
        self.next += 1;
        let index = self.entries.insert(Entry { number, due, lane, waiting });
        self.order.insert((due, number, index));
        Appointment { number, index }
    }

    pub fn remove(&mut self, appointment: Appointment) -> Option<(usize, W)> {
        self.get(appointment)?;
        let Entry { number, due, lane, waiting } = self.entries.remove(appointment.index);
        self.order.remove(&(due, number, appointment.index));
        Some((lane, waiting))
    }
}

//! What the extras of a handler ask of its queue, so that `start()` can refuse what can't be given.

use std::any::{TypeId, type_name};

/// A type, as those know it who can't name it.
#[doc(hidden)]
#[derive(Clone, Copy, Debug)]
pub struct NamedType {
    pub(crate) id: TypeId,
    pub(crate) name: &'static str,
}

impl NamedType {
    pub(crate) fn of<T: 'static>() -> Self {
        Self::called::<T>(type_name::<T>())
    }

    /// By the name that users know.
    pub(crate) fn called<T: 'static>(name: &'static str) -> Self {
        NamedType { id: TypeId::of::<T>(), name }
    }
}

/// What the extras of a handler ask of its queue.
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// The resources that its slot must own.
    pub(crate) slots: Vec<NamedType>,
    /// The data that the queue must have been given.
    pub(crate) data: Vec<NamedType>,
    /// It keeps something for each session.
    pub(crate) state: bool,
    /// What those above the core must give with each event.
    pub(crate) event: Vec<NamedType>,
}

impl Needs {
    /// Whether this must be given with each event.
    pub fn of_event<T: 'static>(&self) -> bool {
        self.event.iter().any(|needed| needed.id == TypeId::of::<T>())
    }

    /// An extra that is its client's own, so that neither a batch nor a kept result can have one.
    pub fn of_client(&self) -> Option<&'static str> {
        let event = self.event.first().map(|needed| needed.name);
        event.or(self.state.then_some("State"))
    }
}

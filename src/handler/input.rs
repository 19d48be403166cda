//! Inputs on their way to a handler, one or a batch.

use std::any::Any;

use super::extensions::Extensions;
use crate::event::guarded::Guarded;

/// An input of a type that only its handler knows. What those above the core give with its event
/// travels with it, so that events with nothing more take no more room for that.
#[derive(Debug)]
pub(crate) struct Input(Guarded<Box<dyn Any + Send>>);

/// What lies in the box of an input that something was given with.
struct Accompanied {
    input: Input,
    extensions: Extensions,
}

impl Input {
    pub fn new<I: Send + 'static>(input: I) -> Self {
        Input(Guarded::new(Box::new(input)))
    }

    /// Gives something with it, for its run.
    pub fn with<T: Send + Sync + 'static>(self, value: T) -> Self {
        if let Some(both) = self.accompanied() {
            both.extensions.insert(value);
            return self;
        }
        let extensions = Extensions::default();
        extensions.insert(value);
        Input::new(Accompanied { input: self, extensions })
    }

    /// Changes what was given with it, if it was.
    pub fn change<T: Send + Sync + 'static>(&mut self, change: impl FnOnce(&mut T)) {
        let input: &mut dyn Any = &mut **self.0;
        if let Some(both) = input.downcast_mut::<Accompanied>()
            && let Some(value) = both.extensions.get_mut()
        {
            change(value);
        }
    }

    /// What was given with it.
    pub fn given<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.accompanied()?.extensions.get()
    }

    fn accompanied(&self) -> Option<&Accompanied> {
        let input: &dyn Any = &**self.0;
        input.downcast_ref()
    }

    /// The input by itself, and what was given with it.
    pub fn split(self) -> (Self, Extensions) {
        match self.0.into_inner().downcast::<Accompanied>() {
            Ok(both) => (both.input, both.extensions),
            Err(alone) => (Input(Guarded::new(alone)), Extensions::default()),
        }
    }

    /// The input, if it is an `I`.
    pub fn get<I: 'static>(&self) -> Option<&I> {
        let input: &dyn Any = &**self.0;
        input.downcast_ref().or_else(|| self.accompanied()?.input.get())
    }

    /// Takes the input out, if it is an `I`.
    pub fn downcast<I: 'static>(self) -> Option<I> {
        match self.0.into_inner().downcast() {
            Ok(input) => Some(*input),
            Err(other) => {
                drop(Guarded::new(other));
                None
            }
        }
    }
}

/// One thing, without an allocation, or several.
#[derive(Debug)]
pub(crate) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

impl<T> OneOrMany<T> {
    pub fn as_slice(&self) -> &[T] {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }

    pub fn as_mut_slice(&mut self) -> &mut [T] {
        match self {
            OneOrMany::One(one) => std::slice::from_mut(one),
            OneOrMany::Many(many) => many,
        }
    }
}

impl<T> IntoIterator for OneOrMany<T> {
    type Item = T;
    type IntoIter = std::iter::Chain<std::option::IntoIter<T>, std::vec::IntoIter<T>>;

    fn into_iter(self) -> Self::IntoIter {
        let (one, many) = match self {
            OneOrMany::One(one) => (Some(one), Vec::new()),
            OneOrMany::Many(many) => (None, many),
        };
        one.into_iter().chain(many)
    }
}

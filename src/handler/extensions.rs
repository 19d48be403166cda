//! What those above the core give to a queue, a listener or a run: one value of each type.

use std::any::Any;
use std::fmt;
use std::sync::OnceLock;

/// A map by type that only grows, so that what is in it can be borrowed without a lock: the handler
/// and the actors pass along what they needn't know.
#[derive(Default)]
pub(crate) struct Extensions(OnceLock<Box<Entry>>);

/// There are few of them, so that walking along is as quick as a table.
struct Entry {
    value: Box<dyn Any + Send + Sync>,
    next: Extensions,
}

impl Extensions {
    pub fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        let entry = self.0.get()?;
        entry.value.downcast_ref().or_else(|| entry.next.get())
    }

    pub fn get_mut<T: Send + Sync + 'static>(&mut self) -> Option<&mut T> {
        let entry = self.0.get_mut()?;
        if entry.value.is::<T>() {
            return entry.value.downcast_mut();
        }
        entry.next.get_mut()
    }

    /// Puts a value in, unless there is one of its type already. Whether it is in.
    pub fn insert<T: Send + Sync + 'static>(&self, value: T) -> bool {
        let mut entry = Box::new(Entry { value: Box::new(value), next: Self::default() });
        let mut node = self;
        loop {
            if let Some(taken) = node.0.get() {
                if taken.value.is::<T>() {
                    return false;
                }
                node = &taken.next;
                continue;
            }
            match node.0.set(entry) {
                Ok(()) => return true,
                // Another thread was first, maybe with another type.
                Err(back) => entry = back,
            }
        }
    }

    /// Changes the value of a type, the default one if there is none yet.
    pub fn change<T: Default + Send + Sync + 'static>(&mut self, change: impl FnOnce(&mut T)) {
        self.insert(T::default());
        let mut node = self.0.get_mut();
        while let Some(entry) = node {
            if let Some(value) = entry.value.downcast_mut() {
                return change(value);
            }
            node = entry.next.0.get_mut();
        }
    }
}

impl fmt::Debug for Extensions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extensions").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_value_of_each_type_and_the_first_stays() {
        let mut extensions = Extensions::default();
        assert!(extensions.insert(1_u8) && extensions.insert("two"));
        assert!(!extensions.insert(3_u8));
        assert_eq!((extensions.get(), extensions.get()), (Some(&1_u8), Some(&"two")));
        extensions.change(|value: &mut u8| *value += 10);
        extensions.change(|value: &mut u32| *value += 20);
        assert_eq!((extensions.get(), extensions.get()), (Some(&11_u8), Some(&20_u32)));
        assert_eq!(extensions.get::<i64>(), None);
    }

    #[test]
    fn of_many_that_insert_at_once_one_succeeds() {
        let extensions = Extensions::default();
        let successes = std::thread::scope(|scope| {
            let threads = (0..8_usize).map(|i| {
                let extensions = &extensions;
                scope.spawn(move || (extensions.insert(i), extensions.insert(i as u8)))
            });
            let threads: Vec<_> = threads.collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(successes.iter().filter(|(first, _)| *first).count(), 1);
        assert_eq!(successes.iter().filter(|(_, second)| *second).count(), 1);
        assert!(extensions.get::<usize>().is_some() && extensions.get::<u8>().is_some());
    }
}

//! How much memory an input may take, in proportion to the JSON that it is made of.

use std::cell::Cell;

/// What any input may take, in bytes, however short its JSON is: lists of records, tables and
/// conversations take many times the bytes of their JSON.
const FREE: usize = 4 * 1024 * 1024;

/// What the allocator takes for each allocation beside the requested bytes.
const ALLOCATION: usize = 8;

/// The memory, in bytes, that the values of one body may still take. With the body itself it comes to
/// less than four times the body's length.
///
/// What a value takes depends on its type: `[0]` is four bytes of JSON, one byte of a `Vec<u8>`, and
/// hundreds of bytes of a tree. So it is counted while the type reads itself, by the sizes of what it
/// reads, and an input that needs more is refused before it is allocated.
#[derive(Clone, Debug)]
pub(crate) struct Allowance {
    left: Cell<usize>,
    exceeded: Cell<bool>,
}

impl Allowance {
    /// For JSON of so many bytes.
    pub fn of_json(bytes: usize) -> Self {
        // With the body and some bytes for what stands around, less than four times.
        let left = Cell::new((bytes / 10).saturating_mul(28).max(FREE));
        Allowance { left, exceeded: Cell::new(false) }
    }

    pub fn unlimited() -> Self {
        Allowance { left: Cell::new(usize::MAX), exceeded: Cell::new(false) }
    }

    /// Whether something was refused for it.
    pub fn is_exceeded(&self) -> bool {
        self.exceeded.get()
    }

    /// Takes an allocation of so many bytes out of it; whether there was enough left.
    pub fn take(&self, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        match self.left.get().checked_sub(bytes.saturating_add(ALLOCATION)) {
            Some(left) => self.left.set(left),
            None => self.exceeded.set(true),
        }
        !self.exceeded.get()
    }
}

/// A list of so many bytes takes memory from the system as it is written to, and no more. For small
/// items, such as numbers, it is counted so: clients send lists of millions.
const WRITTEN: usize = 1024 * 1024;

/// The largest of the small items, in bytes: a pair of numbers.
const SMALL: usize = 16;

/// A collection that grows as those of the standard library do: by doubling what it has room for.
#[derive(Debug, Default)]
pub(crate) struct Growth {
    length: usize,
    capacity: usize,
}

impl Growth {
    /// One more item of so many bytes in a list; whether the allowance has room for it.
    pub fn push(&mut self, size: usize, allowance: &Allowance) -> bool {
        let first = match size {
            0 | 1 => 8,
            2..=1024 => 4,
            _ => 1,
        };
        self.grow(first, size, allowance)
    }

    /// One more entry of a map, whose key and value have so many bytes. Trees take nodes of eleven
    /// entries, hash tables room for more than they hold.
    pub fn insert(&mut self, size: usize, allowance: &Allowance) -> bool {
        self.grow(8, size + 16, allowance)
    }

    fn grow(&mut self, first: usize, size: usize, allowance: &Allowance) -> bool {
        self.length += 1;
        if self.length <= self.capacity {
            return true;
        }
        let more = match self.capacity.saturating_mul(size) {
            WRITTEN.. if size <= SMALL => self.capacity / 8,
            _ => self.capacity.max(first),
        };
        self.capacity += more;
        allowance.take(more.saturating_mul(size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_takes_what_it_has_room_for() {
        let allowance = Allowance::of_json(0);
        let mut growth = Growth::default();
        for _ in 0..5 {
            assert!(growth.push(100, &allowance));
        }
        // Room for four, then for eight.
        assert_eq!(allowance.left.get(), FREE - 800 - 2 * ALLOCATION);
    }

    #[test]
    fn a_large_list_takes_what_is_written_to() {
        let (allowance, numbers) = (Allowance::of_json(4 << 20), (1 << 20) + 1);
        let mut growth = Growth::default();
        assert!((0..numbers).all(|_| growth.push(8, &allowance)));
        let taken = Allowance::of_json(4 << 20).left.get() - allowance.left.get();
        assert!((8 * numbers..10 * numbers).contains(&taken), "{taken}");
    }

    #[test]
    fn what_is_exceeded_stays_so() {
        let allowance = Allowance::of_json(FREE);
        assert!(allowance.take(2 * FREE) && !allowance.is_exceeded());
        assert!(!allowance.take(FREE) && allowance.is_exceeded());
        assert!(!allowance.take(1));
    }
}

//! The store that paths in JSON refer to, while this thread reads or writes it.
//!
//! Serde's traits pass nothing along, and a file may lie anywhere in a type of the user's. So the
//! web sets here, for the time of one conversion, which store a path belongs to, and at which URL
//! clients find it. A path that is read outside of that belongs to nobody.

use std::cell::RefCell;
use std::sync::Arc;

use super::store::Files;

#[derive(Clone)]
enum Scope {
    Nothing,
    Reading(Files),
    Writing(Arc<str>),
    /// To or from a record, which keeps them.
    Recording(Files),
}

thread_local! {
    static SCOPE: RefCell<Scope> = const { RefCell::new(Scope::Nothing) };
}

/// Puts back what was there before, also when the conversion panics.
struct Restore(Scope);

impl Drop for Restore {
    fn drop(&mut self) {
        SCOPE.set(std::mem::replace(&mut self.0, Scope::Nothing));
    }
}

fn within<T>(scope: Scope, convert: impl FnOnce() -> T) -> T {
    let _restore = Restore(SCOPE.replace(scope));
    convert()
}

/// Converts JSON whose paths are those of `files`.
pub(crate) fn reading<T>(files: &Files, convert: impl FnOnce() -> T) -> T {
    within(Scope::Reading(files.clone()), convert)
}

/// Converts to JSON for a client that finds files at `base` and their path.
pub(crate) fn writing<T>(base: &Arc<str>, convert: impl FnOnce() -> T) -> T {
    within(Scope::Writing(base.clone()), convert)
}

/// Converts what is recorded. The files of `files` that it names are kept as long as the record.
pub(super) fn recording<T>(files: &Files, convert: impl FnOnce() -> T) -> T {
    within(Scope::Recording(files.clone()), convert)
}

/// The store whose files are recorded.
pub(super) fn recorded() -> Option<Files> {
    SCOPE.with_borrow(|scope| match scope {
        Scope::Recording(files) => Some(files.clone()),
        _ => None,
    })
}

/// The store that paths are read of.
pub(super) fn store() -> Option<Files> {
    SCOPE.with_borrow(|scope| match scope {
        Scope::Reading(files) | Scope::Recording(files) => Some(files.clone()),
        Scope::Nothing | Scope::Writing(_) => None,
    })
}

/// The URL before the path of a file.
pub(super) fn base() -> Option<Arc<str>> {
    SCOPE.with_borrow(|scope| match scope {
        Scope::Writing(base) => Some(base.clone()),
        Scope::Nothing | Scope::Reading(_) | Scope::Recording(_) => None,
    })
}

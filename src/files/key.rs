//! A file's random id.

use std::fmt;

use super::name::tidy;

/// What clients know a file by: the name of its directory and its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) id: String,
    pub name: String,
}

impl Key {
    pub(crate) fn new(name: &str) -> Self {
        Key { id: format!("{:032x}", rand::random::<u128>()), name: tidy(name) }
    }

    /// The key of a path that a client sent. Whatever else is in it, no other path than that of one
    /// of our files can come of it.
    pub fn parse(path: &str) -> Option<Self> {
        let (id, name) = path.split_once('/')?;
        (is_id(id) && tidy(name) == name).then(|| Key { id: id.into(), name: name.into() })
    }
}

pub(crate) fn is_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.id, self.name)
    }
}

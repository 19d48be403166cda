//! The directory that all files of a queue lie in: a given one, or one of the queue's own.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{fs, io};

use tempfile::TempDir;

use super::directory::make_directory;
use crate::logging::warn;

pub(super) enum Root {
    /// Stays when the process ends.
    Given(PathBuf),
    /// Made when the first file comes, and removed with the queue.
    Own(OnceLock<TempDir>),
}

impl Root {
    /// Where the files are, if there have been any.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Root::Given(path) => Some(path),
            Root::Own(made) => made.get().map(TempDir::path),
        }
    }

    /// The directory, made if it isn't there.
    pub fn make(&self) -> io::Result<&Path> {
        match self {
            Root::Given(path) => make_directory(path).map(|()| path.as_path()),
            Root::Own(made) => {
                if made.get().is_none() {
                    let mut builder = tempfile::Builder::new();
                    #[cfg(unix)]
                    {
                        use std::os::unix::fs::PermissionsExt;
                        builder.permissions(fs::Permissions::from_mode(0o700));
                    }
                    // If another thread was first, this one is removed.
                    let directory = builder.prefix("now-serving-").tempdir()?;
                    let _ = made.set(directory);
                }
                made.get().map(TempDir::path).ok_or_else(|| io::ErrorKind::NotFound.into())
            }
        }
    }

    /// Removes it with all files, unless it was given.
    pub fn remove(&self) {
        let Root::Own(made) = self else { return };
        let Some(root) = made.get().map(TempDir::path) else { return };
        // Out of the way first: who is about to write into it finds nothing, and makes nothing.
        let gone = root.with_extension("gone");
        let removed = fs::rename(root, &gone).and_then(|()| fs::remove_dir_all(gone));
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!("files could not be removed: {error}");
        }
    }
}

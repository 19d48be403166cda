//! The directory of files on disk.

use std::path::{Path, PathBuf};
use std::{fs, io};

use super::key::is_id;

/// What a file takes beside its content, in bytes: its directory, and its entry there.
pub(crate) const FILE_COST: u64 = 4096;

/// Where a file is written before it is whole.
const PART: &str = ".part";

/// What a directory is called, before its id, while it is removed.
pub(crate) const GONE: &str = ".gone-";

/// Where a file is written before it is renamed to its name.
pub(crate) fn part(path: &Path) -> PathBuf {
    path.with_file_name(PART)
}

/// Removes what a process that was killed had begun to write. Nobody else writes there.
pub(crate) fn remove_unfinished(root: &Path) -> io::Result<()> {
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_id) && entry.path().join(PART).exists() {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// What the files right in a directory take, in bytes.
pub(crate) fn size_of(directory: &Path) -> u64 {
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    files.filter_map(|file| file.metadata().ok()).map(|about| about.len() + FILE_COST).sum()
}

/// A directory that no other user may read. One that is there stays as it is.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(path)
}

pub(crate) fn is_kind(path: &Path, kind: fn(&fs::FileType) -> bool) -> bool {
    fs::symlink_metadata(path).is_ok_and(|about| kind(&about.file_type()))
}

//! What an error of SQLite's means for the journal.

use std::path::Path;

use rusqlite::ErrorCode;

use crate::journal::error::JournalError;

/// An error while the file is opened or read.
pub(super) fn reading(error: &rusqlite::Error, path: &Path) -> JournalError {
    let path = path.to_path_buf();
    match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase) => {
            JournalError::Foreign { path, what: "it is no SQLite file".into() }
        }
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            JournalError::ReadOnly(path)
        }
        Some(ErrorCode::DiskFull) => JournalError::Full,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => JournalError::Busy,
        Some(ErrorCode::SystemIoFailure) => JournalError::Broken(error.to_string()),
        _ => JournalError::Damaged { path, what: error.to_string() },
    }
}

/// An error while records are written. After one of these but `Full` and `Busy`, nobody knows what is on
/// disk: an fsync that failed is not tried again.
pub(super) fn writing(error: &rusqlite::Error) -> JournalError {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => JournalError::Full,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => JournalError::Busy,
        _ => JournalError::Broken(error.to_string()),
    }
}

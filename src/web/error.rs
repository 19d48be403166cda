//! Why a queue can't be served.

/// Why [`WebBuilder::start`](crate::WebBuilder::start) refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WebError {
    /// The directory for files can't be made or read.
    #[error("the cache_dir {path:?} can't be made or read: {error}; take another, or leave it out")]
    CacheDirectory {
        /// The directory.
        path: std::path::PathBuf,
        /// The system's error message.
        error: String,
    },
    /// A header's name is none.
    #[error(
        "trusted_user_header names {0:?}, which is no header; take a name such as X-Forwarded-User"
    )]
    HeaderName(String),
    /// An address of a trusted proxy can't be read.
    #[error(
        "trusted_user_header trusts {0:?}; take an address or a network, as 127.0.0.1 or 10.0.0.0/8"
    )]
    Network(String),
    /// A queue has its files in one place.
    #[error(
        "the queue has its files already; set cache_dir, cache_ttl and max_cache_size on its first \
         Web, before any of its events makes files"
    )]
    FilesBegun,
}

//! Which bodies are large.

/// Bodies longer than this, in bytes, are read on a thread that may block: a worker has other clients.
const LARGE: usize = 64 * 1024;

/// Whether JSON of so many bytes, and what is made of it, is for another thread than a worker.
pub(crate) fn is_large(bytes: usize) -> bool {
    bytes > LARGE
}

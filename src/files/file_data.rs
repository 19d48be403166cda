//! A file as an input or an output.

use std::any::Any;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::key::Key;
use super::name::tidy;

/// A file that a client uploaded, or that a handler made for one, as Gradio's `FileData`. Cheap to
/// clone; the file stays at least as long as it.
///
/// As an input, a listener's parameter is a file that the client has uploaded. As an output, the
/// client gets a URL; Gradio's Python client downloads it and gives the path of its copy. A handler
/// makes one with [`Files::save`](crate::Files::save) or [`Files::create`](crate::Files::create).
///
/// It is read from the body of a call only: elsewhere, a path would be whatever somebody wrote
/// there.
///
/// ```
/// use now_serving::{EventContext, FileData, Listener};
///
/// fn upper(text: FileData, context: EventContext) -> std::io::Result<FileData> {
///     let content = std::fs::read_to_string(text.path())?;
///     context.files().save(text.name(), content.to_uppercase())
/// }
///
/// let listener = Listener::blocking("upper", upper);
/// ```
#[derive(Clone)]
pub struct FileData {
    /// What keeps it where it is.
    _lease: Arc<dyn Any + Send + Sync>,
    key: Key,
    path: PathBuf,
    /// As its client calls it, where that is another name than ours.
    orig_name: Option<String>,
}

impl FileData {
    pub(super) fn new(lease: Arc<dyn Any + Send + Sync>, key: Key, path: PathBuf) -> Self {
        FileData { _lease: lease, key, path, orig_name: None }
    }

    /// As its client calls it.
    pub(super) fn called(self, name: &str) -> Self {
        let orig_name = Some(tidy(name)).filter(|name| *name != self.key.name);
        FileData { orig_name, ..self }
    }

    /// Where it is on this machine.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads all of it, without blocking: what a client uploaded, or what a handler gave to a call in
    /// process.
    ///
    /// ```
    /// use now_serving::{EventContext, FileData, Listener};
    ///
    /// /// Bytes in, bytes out: clients send and get files, calls in process give and get a `FileData`.
    /// async fn invert(picture: FileData, context: EventContext) -> std::io::Result<FileData> {
    ///     let inverted: Vec<u8> = picture.read().await?.iter().map(|byte| !byte).collect();
    ///     context.files().save_async("inverted.bin", inverted).await
    /// }
    ///
    /// let listener = Listener::new("invert", invert);
    /// ```
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn read(&self) -> std::io::Result<Vec<u8>> {
        tokio::fs::read(self.path()).await
    }

    /// Its name: as the client calls it, or as the handler named it. A name only, without
    /// directories, but not to be trusted otherwise.
    pub fn name(&self) -> &str {
        self.orig_name.as_deref().unwrap_or(&self.key.name)
    }

    /// The MIME type by its [`name`](FileData::name), such as `image/png`.
    pub fn mime_type(&self) -> Option<&'static str> {
        mime_guess::from_path(self.name()).first_raw()
    }

    /// Its length in bytes; `None` while there is nothing at its path.
    pub fn size(&self) -> Option<u64> {
        std::fs::metadata(self.path()).ok().map(|about| about.len())
    }

    /// What clients call its path.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }
}

impl fmt::Debug for FileData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileData").field("path", &self.path()).finish_non_exhaustive()
    }
}

//! The directory of a queue's files: each in a directory of its own, whose name nobody can guess.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::time::{Duration, SystemTime};
use std::{fmt, fs, io};

use super::directory::{GONE, is_kind, make_directory, part, remove_unfinished, size_of};
use super::file_data::FileData;
use super::key::{Key, is_id};
use super::root::Root;
use crate::logging::{info, warn};

/// How long a file is kept by default.
const TTL: Duration = Duration::from_secs(3600);

/// The shortest and longest interval between sweeps.
const SWEEP_INTERVAL: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(60));

/// The default maximum of bytes.
const MAX_CACHE_BYTES: u64 = 10 * 1024 * 1024 * 1024;

/// The files of a queue: what clients uploaded, and what handlers made for them. Cheap to clone.
///
/// From [`EventContext::files`](crate::EventContext::files) or [`Files::of`].
/// Each file lies in a directory of its own with a random name of 128 bits; who knows its path may
/// read it at `/gradio_api/file=`. A file is removed when it is older than
/// [`cache_ttl`](crate::WebBuilder::cache_ttl) and no event, result or [`FileData`] names it any
/// more.
///
/// ```
/// use now_serving::{EventContext, FileData, UserError};
///
/// async fn shout(text: String, context: EventContext) -> Result<FileData, UserError> {
///     let file = context.files().save("shout.txt", text.to_uppercase());
///     file.map_err(|error| UserError::new(format!("The text can't be stored: {error}")))
/// }
/// ```
#[derive(Clone)]
pub struct Files(Arc<Store>);

pub(super) struct Store {
    root: Root,
    bounds: RwLock<Bounds>,
    /// How long records keep files, where there are records.
    kept_for: OnceLock<Duration>,
    /// The bytes that lie there: as of the last sweep, and what was uploaded since.
    used: AtomicU64,
    /// The directories that somebody holds, by name.
    leases: Mutex<HashMap<String, Weak<Lease>>>,
    /// Files may be made. Held while a directory is.
    open: RwLock<bool>,
}

#[derive(Clone, Copy)]
struct Bounds {
    ttl: Duration,
    /// The maximum of bytes, for uploads.
    max: u64,
}

/// A file's directory, which must stay while this lives.
pub(super) struct Lease {
    id: String,
    store: Arc<Store>,
}

impl Files {
    /// In `directory`, which stays when the process ends; otherwise in one of its own.
    pub(crate) fn new(
        directory: Option<PathBuf>,
        ttl: Option<Duration>,
        max: Option<u64>,
    ) -> io::Result<Self> {
        let Some(directory) = directory else { return Ok(Self::temporary(ttl, max)) };
        make_directory(&directory)?;
        remove_unfinished(&directory)?;
        let files = Self::at(Root::Given(directory), ttl, max);
        files.sweep(SystemTime::now())?;
        Ok(files)
    }

    /// In a directory of its own, made when the first file comes.
    pub(crate) fn temporary(ttl: Option<Duration>, max: Option<u64>) -> Self {
        Self::at(Root::Own(OnceLock::new()), ttl, max)
    }

    /// In a directory that is made when the queue has started: [`Files::settle`].
    pub(super) fn of_records(directory: PathBuf) -> Self {
        Self::at(Root::Given(directory), None, None)
    }

    /// Makes the directory, if it isn't there, for files that records keep for so long.
    pub(super) fn settle(&self, kept_for: Duration) -> io::Result<()> {
        // A queue starts once.
        let _ = self.0.kept_for.set(kept_for);
        remove_unfinished(self.0.root.make()?)
    }

    /// Whether its directory was given to the queue, with its records.
    pub(crate) fn are_of_records(&self) -> bool {
        self.0.kept_for.get().is_some()
    }

    /// Changes what is given.
    pub(crate) fn set_bounds(&self, ttl: Option<Duration>, max: Option<u64>) {
        let mut bounds = self.0.bounds.write().unwrap_or_else(PoisonError::into_inner);
        bounds.ttl = ttl.unwrap_or(bounds.ttl);
        bounds.max = max.unwrap_or(bounds.max);
    }

    /// Keeps a file as long as a record that is made now. By its directory's time, so that it holds in later
    /// processes too.
    pub(super) fn keep(&self, file: &FileData) -> io::Result<()> {
        let Some(kept_for) = self.0.kept_for.get() else { return Ok(()) };
        let Some(directory) = file.path().parent() else { return Ok(()) };
        let spared = kept_for.saturating_sub(self.0.bounds().ttl);
        let until = SystemTime::now().checked_add(spared);
        let directory = fs::File::open(directory)?;
        let known = directory.metadata()?.modified()?;
        match until {
            Some(until) if until > known => directory.set_modified(until),
            _ => Ok(()),
        }
    }

    fn at(root: Root, ttl: Option<Duration>, max: Option<u64>) -> Self {
        let (ttl, max) = (ttl.unwrap_or(TTL), max.unwrap_or(MAX_CACHE_BYTES));
        let (used, leases) = (AtomicU64::new(0), Mutex::default());
        let (open, bounds) = (RwLock::new(true), RwLock::new(Bounds { ttl, max }));
        Files(Arc::new(Store { root, bounds, kept_for: OnceLock::new(), used, leases, open }))
    }

    /// Whether so many more bytes may be uploaded; they count as used.
    pub(crate) fn take_room(&self, bytes: u64) -> bool {
        // A count that guards nothing else.
        self.0.used.fetch_add(bytes, Relaxed).saturating_add(bytes) <= self.0.bounds().max
    }

    /// A place for a new file, to be written by whatever means: its
    /// [`path`](FileData::path) is in a directory of its own, and doesn't exist yet. Clients see
    /// the name, less what is no letter, digit, space or one of `. _ - ,`.
    ///
    /// # Errors
    /// When the directory can't be made.
    pub fn create(&self, name: &str) -> io::Result<FileData> {
        let _open = self.0.stay_open()?;
        let root = self.0.root.make()?;
        let key = Key::new(name);
        let directory = root.join(&key.id);
        make_directory(&directory)?;
        let path = directory.join(&key.name);
        Ok(FileData::new(self.0.hold(&mut self.0.lock(), &key.id), key, path))
    }

    /// Writes a new file. This blocks while the disk is at work: in an async handler, take it for
    /// small files only, or write to the path that [`Files::create`] gives.
    ///
    /// # Errors
    /// When the file can't be written; nothing of it is left then.
    pub fn save(&self, name: &str, bytes: impl AsRef<[u8]>) -> io::Result<FileData> {
        let file = self.create(name)?;
        let part = part(file.path());
        let written = fs::write(&part, bytes).and_then(|()| fs::rename(&part, file.path()));
        written.inspect_err(|_| self.discard(&file))?;
        Ok(file)
    }

    /// As [`Files::save`], on a thread that may block: for async handlers. Bytes that a handler gives as
    /// they are would be a list of numbers in JSON; as a file, clients get them as they are.
    ///
    /// ```
    /// use now_serving::{EventContext, FileData, Listener};
    ///
    /// async fn paint(_: String, context: EventContext) -> std::io::Result<FileData> {
    ///     let picture: Vec<u8> = vec![0x89, b'P', b'N', b'G'];
    ///     context.files().save_async("fox.png", picture).await
    /// }
    /// # let _ = Listener::new("paint", paint);
    /// ```
    ///
    /// # Errors
    /// As [`Files::save`].
    pub async fn save_async(
        &self,
        name: &str,
        bytes: impl AsRef<[u8]> + Send + 'static,
    ) -> io::Result<FileData> {
        let (files, name) = (self.clone(), name.to_owned());
        let saved = tokio::task::spawn_blocking(move || files.save(&name, bytes));
        saved.await.unwrap_or_else(|error| Err(io::Error::other(error)))
    }

    /// What had been taken for an upload that came to nothing.
    pub(crate) fn give_room_back(&self, bytes: u64) {
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.0.used.fetch_update(Relaxed, Relaxed, less);
    }

    /// Takes no more files, and removes all of them unless they lie in a directory that was given.
    pub(crate) fn close(&self) {
        *self.0.open.write().unwrap_or_else(PoisonError::into_inner) = false;
        self.0.root.remove();
    }

    /// A file that is there.
    pub(crate) fn find(&self, key: Key) -> Option<FileData> {
        let path = self.0.root.path()?.join(&key.id).join(&key.name);
        // Until it is held: nobody sweeps meanwhile.
        let mut leases = self.0.lock();
        // A symbolic link could lead anywhere, and none is ever made here.
        let directory = path.parent().is_some_and(|parent| is_kind(parent, fs::FileType::is_dir));
        if !directory || !is_kind(&path, fs::FileType::is_file) {
            return None;
        }
        Some(FileData::new(self.0.hold(&mut leases, &key.id), key, path))
    }

    /// Removes a file that was never whole.
    pub(crate) fn discard(&self, file: &FileData) {
        if let Some(directory) = file.path().parent() {
            let _ = fs::remove_dir_all(directory);
        }
    }

    /// Removes what is older than the ttl and held by nobody.
    fn sweep(&self, now: SystemTime) -> io::Result<usize> {
        let (mut removed, mut used, ttl) = (0, 0, self.0.bounds().ttl);
        let Some(root) = self.0.root.path() else { return Ok(removed) };
        for entry in fs::read_dir(root)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.strip_prefix(GONE).is_some_and(is_id) {
                // A process that ended in between has left it.
                let _ = fs::remove_dir_all(entry.path());
            }
            if !is_id(name) {
                continue;
            }
            let age = entry.metadata().and_then(|about| about.modified());
            let age = age.ok().and_then(|made| now.duration_since(made).ok());
            if age.is_some_and(|age| age > ttl) && self.0.forget(root, name) {
                removed += 1;
            } else {
                used += size_of(&entry.path());
            }
        }
        self.0.used.store(used, Relaxed);
        Ok(removed)
    }
}

impl Store {
    fn bounds(&self) -> Bounds {
        *self.bounds.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Weak<Lease>>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the directory where it is, for as long as files may be made.
    fn stay_open(&self) -> io::Result<RwLockReadGuard<'_, bool>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        match *open {
            true => Ok(open),
            false => Err(io::Error::other("the queue has stopped, and takes no more files")),
        }
    }

    fn hold(self: &Arc<Self>, leases: &mut HashMap<String, Weak<Lease>>, id: &str) -> Arc<Lease> {
        if let Some(lease) = leases.get(id).and_then(Weak::upgrade) {
            return lease;
        }
        let lease = Arc::new(Lease { id: id.into(), store: self.clone() });
        leases.insert(id.into(), Arc::downgrade(&lease));
        lease
    }

    /// Removes a file unless somebody holds it.
    fn forget(&self, root: &Path, id: &str) -> bool {
        let gone = root.join(format!("{GONE}{id}"));
        {
            let leases = self.lock();
            if leases.get(id).is_some_and(|lease| lease.strong_count() > 0) {
                return false;
            }
            // At once, so that nobody finds half of it; the rest takes its time without the lock.
            if fs::rename(root.join(id), &gone).is_err() {
                return false;
            }
        }
        fs::remove_dir_all(gone).is_ok()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut leases = self.store.lock();
        // Another may have found it meanwhile.
        if leases.get(&self.id).is_some_and(|lease| lease.strong_count() == 0) {
            leases.remove(&self.id);
        }
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Files").field(&self.0.root.path()).finish()
    }
}

/// Removes old files for as long as there is a queue that they belong to.
pub(crate) fn run_sweeper(files: &Files) -> impl Future<Output = ()> + Send + use<> {
    let store = Arc::downgrade(&files.0);
    async move {
        loop {
            let Some(ttl) = store.upgrade().map(|store| store.bounds().ttl) else { return };
            tokio::time::sleep((ttl / 10).clamp(SWEEP_INTERVAL.0, SWEEP_INTERVAL.1)).await;
            let Some(store) = store.upgrade() else { return };
            let sweep = move || Files(store).sweep(SystemTime::now());
            match tokio::task::spawn_blocking(sweep).await {
                Ok(Ok(0)) | Err(_) => {}
                Ok(Ok(removed)) => info!("removed {removed} old files"),
                Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
                Ok(Err(error)) => warn!("old files could not be removed: {error}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn files() -> (TempDir, Files) {
        let directory = TempDir::new().unwrap();
        let files = Files::new(Some(directory.path().into()), Some(Duration::from_secs(60)), None);
        let files = files.unwrap();
        (directory, files)
    }

    #[test]
    fn a_path_leads_to_our_files_only() {
        let (directory, files) = files();
        let file = files.save("fox.txt", "fox").unwrap();
        let path = file.key().to_string();
        assert!(files.find(Key::parse(&path).unwrap()).is_some());
        let id = path.split('/').next().unwrap();
        for wrong in [
            "/etc/passwd".into(),
            "../fox.txt".into(),
            id.into(),
            format!("{id}/"),
            format!("{id}/.part"),
            format!("{id}/../{id}/fox.txt"),
            format!("{id}//etc/passwd"),
            format!("./{path}"),
            format!("{}/fox.txt", id.to_uppercase()),
            path.clone() + "\0",
        ] {
            let found = Key::parse(&wrong).and_then(|key| files.find(key));
            assert!(found.is_none(), "{wrong}");
        }
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("/etc/passwd", directory.path().join(id).join("link"))
                .unwrap();
            assert!(files.find(Key::parse(&format!("{id}/link")).unwrap()).is_none());
            let other = "0".repeat(32);
            std::os::unix::fs::symlink("/etc", directory.path().join(&other)).unwrap();
            assert!(files.find(Key::parse(&format!("{other}/passwd")).unwrap()).is_none());
        }
    }

    #[test]
    fn what_is_closed_leaves_nothing_behind_whoever_holds_it() {
        let files = Files::new(None, None, None).unwrap();
        let held = files.save("held.txt", "held").unwrap();
        let unfinished = files.create("unfinished.txt").unwrap();
        let root = files.0.root.path().unwrap().to_path_buf();
        files.close();
        assert!(!root.exists() && !root.with_extension("gone").exists());
        // Those who were about to write, or come later, don't make it anew.
        assert!(fs::write(part(unfinished.path()), "late").is_err());
        assert!(files.save("late.txt", "late").is_err());
        assert!(!root.exists());
        drop(held);
        files.close();
    }

    #[test]
    fn a_directory_that_was_given_stays_when_it_is_closed() {
        let (directory, files) = files();
        let kept = files.save("kept.txt", "kept").unwrap();
        files.close();
        assert!(kept.path().exists() && directory.path().exists());
    }

    #[test]
    fn old_files_go_unless_somebody_holds_them() {
        let (directory, files) = files();
        let held = files.save("held.txt", "held").unwrap();
        let kept = files.save("kept.txt", "kept").unwrap().key().clone();
        std::fs::write(directory.path().join("other"), "not ours").unwrap();
        assert_eq!(files.sweep(SystemTime::now()).unwrap(), 0);
        let later = SystemTime::now() + Duration::from_secs(3600);
        assert_eq!(files.sweep(later).unwrap(), 1);
        assert!(files.find(kept).is_none() && held.path().exists());
        let again = files.find(held.key().clone()).unwrap();
        drop(held);
        assert_eq!(files.sweep(later).unwrap(), 0);
        drop(again);
        assert_eq!(files.sweep(later).unwrap(), 1);
        let left: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn what_a_killed_process_left_goes_at_the_next_start() {
        let (directory, files) = files();
        let (whole, unfinished) = (files.save("a.txt", "a").unwrap(), files.create("b").unwrap());
        fs::write(part(unfinished.path()), "half of").unwrap();
        let gone = directory.path().join(format!("{GONE}{:032x}", 7));
        fs::create_dir(&gone).unwrap();
        Files::new(Some(directory.path().into()), None, None).unwrap();
        assert!(whole.path().exists());
        assert!(!unfinished.path().parent().unwrap().exists() && !gone.exists());
    }

    #[test]
    fn a_directory_of_its_own_goes_with_the_files() {
        let files = Files::new(None, None, None).unwrap();
        assert!(files.find(Key::new("nothing")).is_none());
        let file = files.save("a.txt", "a").unwrap();
        let root = file.path().ancestors().nth(2).unwrap().to_path_buf();
        drop(files);
        assert_eq!(fs::read_to_string(file.path()).unwrap(), "a");
        drop(file);
        assert!(!root.exists());
    }
}

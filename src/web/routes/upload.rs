//! `POST upload`: files for listeners that take some, written to disk as they come.

use std::sync::Arc;
use std::time::Duration;

use actix_multipart::{Field, Multipart, MultipartError};
use actix_web::http::StatusCode;
use actix_web::rt::task::{JoinHandle, spawn_blocking};
use actix_web::{HttpRequest, HttpResponse, web};
use futures::StreamExt;
use serde::Deserialize;
use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};

use crate::files::directory::FILE_COST;
use crate::files::directory::part;
use crate::files::file_data::FileData;
use crate::files::store::Files;
use crate::logging::{error, warn};
use crate::web::auth::guard::Caller;
use crate::web::body::pace::{Paced, is_too_slow};
use crate::web::rejection::Rejection;
#[cfg(feature = "cluster")]
use crate::web::relay::asking;
use crate::web::state::WebState;
#[cfg(feature = "cluster")]
use crate::web::upload_tracker::MAX_ID_LEN;
use crate::web::upload_tracker::{Tracker, Uploads};

/// The maximum of files in one request, as in Gradio.
const MAX_FILES: usize = 1000;

/// What is gathered before it is written, in bytes.
const BUFFER: usize = 256 * 1024;

/// What is read of a request that was refused, in bytes: who is cut off in the middle of sending
/// doesn't read why.
const POLITENESS: u64 = 8 * 1024 * 1024;

/// How long that may take.
const READ_ON_TIMEOUT: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
pub(crate) struct Query {
    upload_id: Option<String>,
}

/// Answers with the paths of the files, by which calls name them. Takes all files or none.
pub(crate) async fn upload(
    web: web::Data<WebState>,
    _: Caller,
    query: web::Query<Query>,
    request: HttpRequest,
    payload: web::Payload,
) -> Result<HttpResponse, Rejection> {
    #[cfg(feature = "cluster")]
    if let Some(id) = query.upload_id.as_deref().filter(|id| id.len() <= MAX_ID_LEN) {
        asking::take_upload(&web, id).await;
    }
    let mut form = Multipart::new(request.headers(), Paced::new(payload));
    let uploads: &Arc<Uploads> = &web.uploads;
    let upload = Upload {
        files: &web.files,
        longest: web.options.max_file_size(),
        tracker: query.upload_id.as_deref().and_then(|id| uploads.begin(id)),
        taken: Vec::new(),
        bytes: 0,
    };
    match upload.take(&mut form).await {
        Ok(files) => {
            let paths: Vec<_> = files.iter().map(|file| file.key().to_string()).collect();
            Ok(HttpResponse::Ok().json(paths))
        }
        Err(Refused { rejection, readable, field }) => {
            if readable {
                // Whether it has sent all or goes on for ever.
                let _ = tokio::time::timeout(READ_ON_TIMEOUT, read_on(field, &mut form)).await;
            }
            Err(rejection)
        }
    }
}

/// Reads some of what the client still sends, beginning with the rest of a field.
async fn read_on(field: Option<Field>, form: &mut Multipart) {
    let mut rest = POLITENESS;
    let mut field = field;
    loop {
        let mut current = match field.take() {
            Some(field) => field,
            None => match form.next().await {
                Some(Ok(field)) => field,
                Some(Err(_)) | None => return,
            },
        };
        // An empty field costs something too.
        rest = rest.saturating_sub(256);
        while let Some(Ok(chunk)) = current.next().await {
            rest = rest.saturating_sub(chunk.len() as u64);
            if rest == 0 {
                return;
            }
        }
        if rest == 0 {
            return;
        }
    }
}

/// The files of one request. They are removed again unless all get whole; also when the request goes
/// away.
struct Upload<'a> {
    files: &'a Files,
    longest: u64,
    tracker: Option<Tracker>,
    taken: Vec<FileData>,
    /// The bytes of these.
    bytes: u64,
}

impl Upload<'_> {
    async fn take(mut self, form: &mut Multipart) -> Result<Vec<FileData>, Refused> {
        let taken = self.take_all(form).await;
        // Before its client is answered that they were refused.
        if let Some(removed) = self.remove_taken() {
            let _ = removed.await;
        }
        taken
    }

    async fn take_all(&mut self, form: &mut Multipart) -> Result<Vec<FileData>, Refused> {
        while let Some(field) = form.next().await {
            let mut field = field?;
            if field.name() != Some("files") {
                let name = field.name().unwrap_or_default();
                let message =
                    format!("The form has a field {name:?}; send files in fields named \"files\".");
                return Err(Rejection::bad_request(&message).into());
            }
            if self.taken.len() == MAX_FILES {
                let message = format!("Send at most {MAX_FILES} files at once.");
                return Err(Rejection::bad_request(&message).into());
            }
            if let Err(refused) = self.receive(&mut field).await {
                return Err(Refused { field: Some(field), ..refused });
            }
        }
        if self.taken.is_empty() {
            return Err(Rejection::bad_request("The form has no field named \"files\".").into());
        }
        // All of it is used from now on.
        self.bytes = 0;
        Ok(std::mem::take(&mut self.taken))
    }

    /// One file, under another name until it is whole.
    async fn receive(&mut self, field: &mut Field) -> Result<(), Refused> {
        let name = field.content_disposition().and_then(|about| about.get_filename());
        let name = name.unwrap_or_default().to_string();
        if let Some(tracker) = &self.tracker {
            tracker.file(&name);
        }
        // An empty one takes room, too.
        self.take_room(FILE_COST)?;
        let files = self.files.clone();
        let made = web::block(move || files.create(&name)).await.map_err(|e| unwritten(&e))?;
        let made = made.map_err(|error| unwritten(&error))?;
        let (path, part) = (made.path().to_path_buf(), part(made.path()));
        self.taken.push(made);
        let file = File::create(&part).await.map_err(|error| unwritten(&error))?;
        let mut file = BufWriter::with_capacity(BUFFER, file);
        let mut length = 0;
        while let Some(chunk) = field.next().await {
            let chunk = chunk?;
            length += chunk.len() as u64;
            if length > self.longest {
                let message =
                    format!("File size exceeded maximum allowed size of {} bytes.", self.longest);
                return Err(Rejection::too_large(message).into());
            }
            self.take_room(chunk.len() as u64)?;
            file.write_all(&chunk).await.map_err(|error| unwritten(&error))?;
            if let Some(tracker) = &self.tracker {
                tracker.came(chunk.len() as u64);
            }
        }
        file.flush().await.map_err(|error| unwritten(&error))?;
        drop(file);
        tokio::fs::rename(part, path).await.map_err(|error| unwritten(&error))?;
        Ok(())
    }

    /// Removes the files that there are.
    fn remove_taken(&mut self) -> Option<JoinHandle<()>> {
        let (files, taken) = (self.files.clone(), std::mem::take(&mut self.taken));
        (!taken.is_empty())
            .then(|| spawn_blocking(move || taken.iter().for_each(|file| files.discard(file))))
    }

    fn take_room(&mut self, bytes: u64) -> Result<(), Rejection> {
        self.bytes += bytes;
        if self.files.take_room(bytes) {
            return Ok(());
        }
        warn!("an upload was refused: the files take too much room, see max_cache_size");
        Err(Rejection::no_room("There is no room for more files; try again later.".into()))
    }
}

impl Drop for Upload<'_> {
    fn drop(&mut self) {
        self.files.give_room_back(self.bytes);
        self.remove_taken();
    }
}

/// Why an upload was not taken.
struct Refused {
    rejection: Rejection,
    /// The form itself is sound; one that isn't must not be read any further.
    readable: bool,
    /// What was being read.
    field: Option<Field>,
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Refused { rejection, readable: true, field: None }
    }
}

impl From<MultipartError> for Refused {
    fn from(error: MultipartError) -> Self {
        if matches!(&error, MultipartError::Payload(error) if is_too_slow(error)) {
            return Refused { rejection: Rejection::too_slow(), readable: false, field: None };
        }
        let message = match error {
            MultipartError::ContentTypeMissing
            | MultipartError::ContentTypeParse
            | MultipartError::ContentTypeIncompatible => "Invalid content type.".into(),
            error => format!("The form can't be read: {error}"),
        };
        Refused { rejection: Rejection::bad_request(&message), readable: false, field: None }
    }
}

/// The client learns nothing of our disk.
fn unwritten(error: &dyn std::fmt::Display) -> Rejection {
    error!("an uploaded file could not be stored: {error}");
    Rejection::new(StatusCode::INSUFFICIENT_STORAGE, "The file can't be stored.".into())
}

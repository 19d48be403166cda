//! `GET file={path}`: a file that a client uploaded or a handler made, in ranges if requested.

use actix_files::NamedFile;
use actix_web::http::header::{
    CACHE_CONTROL, Charset, ContentDisposition, DispositionParam, DispositionType, ExtendedValue,
    HeaderValue, X_CONTENT_TYPE_OPTIONS,
};
use actix_web::{HttpRequest, HttpResponse, web};
use mime_guess::{Mime, mime};
use serde::Deserialize;

use crate::files::key::Key;
use crate::web::rejection::Rejection;
use crate::web::state::WebState;

#[derive(Deserialize)]
pub(crate) struct Path {
    path: String,
}

/// Answers the same for a file that isn't there and for one that lies outside of the store.
pub(crate) async fn file(
    web: web::Data<WebState>,
    path: web::Path<Path>,
    request: HttpRequest,
) -> Result<HttpResponse, Rejection> {
    let missing = || Rejection::not_found("There is no such file here.".into());
    let key = Key::parse(&path.path).ok_or_else(missing)?;
    let (name, files) = (key.name.clone(), web.files.clone());
    let found = web::block(move || Some((NamedFile::open(files.find(key.clone())?.path()).ok()?,)));
    let (named,) = found.await.ok().flatten().ok_or_else(missing)?;
    let kind = mime_guess::from_path(&name).first_or_octet_stream();
    let (kind, disposition) = match is_harmless(&kind) {
        true => (kind, DispositionType::Inline),
        // A browser would run what is in it, with the rights of our own pages.
        false => (mime::APPLICATION_OCTET_STREAM, DispositionType::Attachment),
    };
    let name = ExtendedValue {
        charset: Charset::Ext("UTF-8".into()),
        language_tag: None,
        value: name.into_bytes(),
    };
    let disposition =
        ContentDisposition { disposition, parameters: vec![DispositionParam::FilenameExt(name)] };
    let named = named.set_content_type(kind).set_content_disposition(disposition);
    let mut response = named.into_response(&request);
    let nosniff = HeaderValue::from_static("nosniff");
    response.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, nosniff);
    // For whoever knows its path, and not for proxies to keep. A file never changes.
    let private = HeaderValue::from_static("private, max-age=3600, immutable");
    response.headers_mut().insert(CACHE_CONTROL, private);
    Ok(response)
}

/// Kinds of files that no browser runs.
fn is_harmless(kind: &Mime) -> bool {
    match kind.type_() {
        mime::IMAGE => kind.subtype() != mime::SVG,
        mime::AUDIO | mime::VIDEO => true,
        mime::TEXT => matches!(kind.subtype(), mime::PLAIN | mime::CSV),
        _ => *kind == mime::APPLICATION_JSON || *kind == mime::APPLICATION_PDF,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_browser_would_run_is_not_shown() {
        let shown = |name: &str| is_harmless(&mime_guess::from_path(name).first_or_octet_stream());
        for name in
            ["a.png", "a.jpg", "a.webp", "a.mp3", "a.mp4", "a.txt", "a.csv", "a.json", "a.pdf"]
        {
            assert!(shown(name), "{name}");
        }
        for name in ["a.html", "a.svg", "a.xhtml", "a.xml", "a.js", "a.css", "a", "a.zip"] {
            assert!(!shown(name), "{name}");
        }
    }
}

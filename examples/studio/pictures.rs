//! The pictures painted so far, kept in memory and served by their own route.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use actix_web::http::header::{CACHE_CONTROL, ContentType};
use actix_web::web::{Bytes, Data, Path};
use actix_web::{HttpResponse, Responder};

/// How many are kept; the oldest goes first.
const KEPT: usize = 200;

#[derive(Default)]
pub struct Pictures {
    kept: Mutex<VecDeque<(String, Bytes)>>,
}

impl Pictures {
    /// Keeps a PNG under the name of the event that asked for it, and gives its URL.
    pub fn keep(&self, name: String, png: Vec<u8>) -> String {
        let url = format!("/pictures/{name}.png");
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((name, png.into()));
        if kept.len() > KEPT {
            kept.pop_front();
        }
        url
    }

    fn find(&self, name: &str) -> Option<Bytes> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|(kept, _)| kept == name).map(|(_, png)| png.clone())
    }
}

/// `GET /pictures/{name}.png`
pub async fn picture(pictures: Data<Pictures>, name: Path<String>) -> impl Responder {
    match pictures.find(&name) {
        Some(png) => HttpResponse::Ok()
            .content_type(ContentType::png())
            // A picture never changes.
            .insert_header((CACHE_CONTROL, "private, max-age=31536000, immutable"))
            .body(png),
        None => HttpResponse::NotFound().body("this picture is not kept any more"),
    }
}

//! Receiving a request's body: as fast, as long and as many at once as is allowed.

use std::ops::Deref;
use std::sync::Arc;

use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::{Bytes, Data};
use actix_web::{FromRequest, HttpRequest, dev};
use futures::future::{FutureExt, LocalBoxFuture};
use futures::{Stream, StreamExt};

use super::budget::{Bodies, BodyShare};
use super::pace::{Paced, is_too_slow};
use super::size::is_large;
use crate::web::peer::Peer;
use crate::web::rejection::Rejection;

/// A request's whole body. It counts among the bodies under way until it is dropped, but for a short
/// one that came whole: that waits for nothing, and is parsed and gone before another is looked at.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Bytes,
    _share: Option<BodyShare>,
}

impl Body {
    /// Without what its buffer has beside it: that grew by doubling, where no length was announced.
    pub fn shrunk(mut self) -> Self {
        let mut bytes = Vec::from(std::mem::take(&mut self.bytes));
        bytes.shrink_to_fit();
        self.bytes = bytes.into();
        self
    }
}

impl Deref for Body {
    type Target = Bytes;

    fn deref(&self) -> &Bytes {
        &self.bytes
    }
}

impl FromRequest for Body {
    type Error = Rejection;
    type Future = LocalBoxFuture<'static, Result<Self, Rejection>>;

    fn from_request(request: &HttpRequest, payload: &mut dev::Payload) -> Self::Future {
        let Some(bodies) = request.app_data::<Data<Bodies>>() else {
            let message = "There is no queue here.";
            let missing = Rejection::new(StatusCode::INTERNAL_SERVER_ERROR, message.into());
            return std::future::ready(Err(missing)).boxed_local();
        };
        let (bodies, peer) = (bodies.clone(), Peer::of(request));
        let length = request.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        read(payload.take(), length, bodies.into_inner(), peer).boxed_local()
    }
}

/// Reads a body to its end: no longer than allowed, no slower than allowed, and no more at once.
async fn read(
    payload: impl Stream<Item = Result<Bytes, PayloadError>> + Unpin,
    length: Option<usize>,
    bodies: Arc<Bodies>,
    peer: Peer,
) -> Result<Body, Rejection> {
    let longest = bodies.max_body_size;
    let too_large =
        || Rejection::too_large(format!("The body of a request has at most {longest} bytes."));
    if length.is_some_and(|length| length > longest) {
        return Err(too_large());
    }
    let mut payload = Paced::new(payload);
    let mut share = None;
    let mut bytes = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| match is_too_slow(&error) {
            true => Rejection::too_slow(),
            false => Rejection::bad_request(&format!("The body can't be read: {error}")),
        })?;
        if bytes.len() + chunk.len() > longest {
            return Err(too_large());
        }
        if bytes.is_empty() && length == Some(chunk.len()) && !is_large(chunk.len()) {
            return Ok(Body { bytes: chunk, _share: None });
        }
        share.get_or_insert_with(|| bodies.begin(peer)).grow(chunk.len())?;
        if bytes.capacity() - bytes.len() < chunk.len() {
            // As much again, but never more than what was announced.
            let missing_bytes = length.unwrap_or(longest).saturating_sub(bytes.len());
            bytes.reserve_exact(bytes.len().min(missing_bytes).max(chunk.len()));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(Body { bytes: bytes.into(), _share: share })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    fn chunks(sizes: &[usize]) -> impl Stream<Item = Result<Bytes, PayloadError>> + Unpin + use<> {
        let chunks: Vec<_> = sizes.iter().map(|size| Ok(Bytes::from(vec![b'x'; *size]))).collect();
        stream::iter(chunks)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_read_whole_or_refused_in_words() {
        let bodies = Arc::new(Bodies::new(100));
        let read = |body, length| read(body, length, bodies.clone(), Peer::default());
        let held = read(chunks(&[60, 40]), None).await.unwrap();
        assert_eq!(held.len(), 100);
        let status = |refused: Result<Body, Rejection>| {
            actix_web::ResponseError::status_code(&refused.unwrap_err()).as_u16()
        };
        assert_eq!(status(read(chunks(&[60, 41]), None).await), 413);
        assert_eq!(status(read(chunks(&[]), Some(101)).await), 413);
        let stopped = chunks(&[50]).chain(stream::pending());
        assert_eq!(
            status(super::read(stopped, Some(51), bodies.clone(), Peer::default()).await),
            408
        );
        // Three more of them are this client's share.
        let mut others = Vec::new();
        for _ in 0..3 {
            others.push(read(chunks(&[60, 40]), Some(100)).await.unwrap());
        }
        assert_eq!(status(read(chunks(&[1, 1]), Some(2)).await), 429);
        assert_eq!(status(read(chunks(&[1]), None).await), 429);
        // A short one that is there doesn't stay.
        assert!(read(chunks(&[2]), Some(2)).await.is_ok());
        drop(held);
        assert!(read(chunks(&[1, 1]), Some(2)).await.is_ok());
    }
}

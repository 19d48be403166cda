//! Receiving a request's body: as fast, as long and as many at once as is allowed.

use std::ops::Deref;

use actix_web::error::PayloadError;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_LENGTH;
use actix_web::web::{Bytes, Data};
use actix_web::{FromRequest, HttpRequest, dev};
use futures::future::{FutureExt, LocalBoxFuture};
use futures::{Stream, StreamExt};

use super::budget::{Bodies, BodyShare};
use super::pace::{Paced, is_too_slow};
use crate::web::peer::Peer;
use crate::web::rejection::Rejection;

/// A request's whole body. It counts among the bodies under way until it is dropped.
#[derive(Debug)]
pub(crate) struct Body {
    bytes: Bytes,
    _share: BodyShare,
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
        let (longest, share) = (bodies.max_body_size, bodies.begin(Peer::of(request)));
        let length = request.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        read(payload.take(), length, longest, share).boxed_local()
    }
}

/// Reads a body to its end: no longer than allowed, no slower than allowed, and no more at once.
async fn read(
    payload: impl Stream<Item = Result<Bytes, PayloadError>> + Unpin,
    length: Option<usize>,
    longest: usize,
    mut share: BodyShare,
) -> Result<Body, Rejection> {
    let too_large =
        || Rejection::too_large(format!("The body of a request has at most {longest} bytes."));
    if length.is_some_and(|length| length > longest) {
        return Err(too_large());
    }
    let mut payload = Paced::new(payload);
    let mut bytes = Vec::new();
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| match is_too_slow(&error) {
            true => Rejection::too_slow(),
            false => Rejection::bad_request(&format!("The body can't be read: {error}")),
        })?;
        if bytes.len() + chunk.len() > longest {
            return Err(too_large());
        }
        share.grow(chunk.len())?;
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
    use std::sync::Arc;

    fn chunks(sizes: &[usize]) -> impl Stream<Item = Result<Bytes, PayloadError>> + Unpin + use<> {
        let chunks: Vec<_> = sizes.iter().map(|size| Ok(Bytes::from(vec![b'x'; *size]))).collect();
        stream::iter(chunks)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_is_read_whole_or_refused_in_words() {
        let bodies = Arc::new(Bodies::new(100));
        let begin = || bodies.begin(Peer::default());
        let held = read(chunks(&[60, 40]), None, 100, begin()).await.unwrap();
        assert_eq!(held.len(), 100);
        let status = |refused: Result<Body, Rejection>| {
            actix_web::ResponseError::status_code(&refused.unwrap_err()).as_u16()
        };
        assert_eq!(status(read(chunks(&[60, 41]), None, 100, begin()).await), 413);
        assert_eq!(status(read(chunks(&[]), Some(101), 100, begin()).await), 413);
        let stopped = chunks(&[50]).chain(stream::pending());
        assert_eq!(status(read(stopped, Some(51), 100, begin()).await), 408);
        // Three more of them are this client's share.
        let mut others = Vec::new();
        for _ in 0..3 {
            others.push(read(chunks(&[100]), Some(100), 100, begin()).await.unwrap());
        }
        assert_eq!(status(read(chunks(&[1]), Some(1), 100, begin()).await), 429);
        drop(held);
        assert!(read(chunks(&[1]), Some(1), 100, begin()).await.is_ok());
    }
}

//! The heads of relayed requests and of their answers, as nodes send them to each other.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use actix_http::Payload;
use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode, Uri};
use actix_web::{HttpMessage, HttpRequest, HttpResponse, HttpResponseBuilder};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::web::relayed::{NamedEvent, Relayed};

/// A request's head.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct RequestHead {
    /// What the node that is asked is taken to be the home of.
    pub key: String,
    method: String,
    /// With the query.
    path: String,
    headers: Headers,
    peer: Option<SocketAddr>,
    user: Option<Arc<str>>,
    root: String,
    #[serde(default)]
    pub event: Option<NamedEvent>,
}

/// What a node answers.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum AnswerHead {
    /// It isn't the home, or not any more.
    Moved,
    Answer(ResponseHead),
}

/// An answer's head.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct ResponseHead {
    status: u16,
    headers: Headers,
    /// The length of the body, if that is known.
    length: Option<u64>,
}

/// The values are bytes, each written as the character with its number.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct Headers(Vec<(String, String)>);

/// Headers that concern a connection, and not what is sent over it.
const OF_CONNECTION: [HeaderName; 8] = [
    header::CONNECTION,
    header::CONTENT_LENGTH,
    header::EXPECT,
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

impl Headers {
    fn of(headers: &HeaderMap) -> Self {
        let relayed = headers.iter().filter(|(name, _)| !OF_CONNECTION.contains(name));
        let text = |value: &HeaderValue| value.as_bytes().iter().copied().map(char::from).collect();
        Headers(relayed.map(|(name, value)| (name.to_string(), text(value))).collect())
    }

    fn iter(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        self.0.iter().filter_map(|(name, value)| {
            let bytes: Result<Vec<u8>, _> = value.chars().map(u8::try_from).collect();
            let value = HeaderValue::from_bytes(&bytes.ok()?).ok()?;
            Some((HeaderName::from_str(name).ok()?, value))
        })
    }
}

impl RequestHead {
    /// Of a request whose path has so many segments of ours: what is before them is where the routes stand
    /// here, which may be elsewhere there.
    pub fn of(
        request: &HttpRequest,
        segments: usize,
        key: String,
        user: Option<Arc<str>>,
        root: String,
    ) -> Self {
        let path = request.uri().path().trim_end_matches('/');
        let begin = path.rmatch_indices('/').nth(segments - 1).map_or(0, |(at, _)| at);
        let query = request.uri().query().map(|query| format!("?{query}"));
        RequestHead {
            key,
            method: request.method().to_string(),
            path: format!("{}{}", &path[begin..], query.unwrap_or_default()),
            headers: Headers::of(request.headers()),
            peer: request.peer_addr(),
            user,
            root,
            event: None,
        }
    }

    /// The same request by a client that has read up to this message; none: that begins anew.
    pub fn resumed_after(mut self, number: Option<u64>) -> Self {
        const LAST: &str = "last-event-id";
        self.headers.0.retain(|(name, _)| name != LAST);
        match number {
            Some(number) => self.headers.0.push((LAST.into(), number.to_string())),
            None => {
                let is_other = |pair: &&str| !pair.starts_with("last_event_id=");
                if let Some((path, query)) = self.path.split_once('?') {
                    let query: Vec<_> = query.split('&').filter(is_other).collect();
                    self.path = format!("{path}?{}", query.join("&"));
                }
            }
        }
        self
    }

    pub fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }

    /// The request itself, as it would have come here.
    pub fn into_request(self, body: Bytes) -> Option<actix_http::Request> {
        let has_body = !body.is_empty();
        let length = HeaderValue::from(body.len());
        let mut request = match has_body {
            true => actix_http::Request::with_payload(Payload::from(body)),
            false => actix_http::Request::new(),
        };
        let head = request.head_mut();
        head.method = Method::from_str(&self.method).ok()?;
        head.uri = Uri::from_str(&self.path).ok()?;
        head.peer_addr = self.peer;
        for (name, value) in self.headers.iter() {
            head.headers.append(name, value);
        }
        if has_body {
            head.headers.insert(header::CONTENT_LENGTH, length);
        }
        let (user, root) = (self.user, self.root);
        request.extensions_mut().insert(Relayed { user, root });
        if let Some(event) = self.event {
            request.extensions_mut().insert(event);
        }
        Some(request)
    }
}

impl AnswerHead {
    pub fn of<B: MessageBody>(response: &HttpResponse<B>) -> Self {
        let length = match response.body().size() {
            BodySize::None => Some(0),
            BodySize::Sized(length) => Some(length),
            BodySize::Stream => None,
        };
        let (status, headers) = (response.status().as_u16(), Headers::of(response.headers()));
        AnswerHead::Answer(ResponseHead { status, headers, length })
    }

    pub fn to_bytes(&self) -> Bytes {
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}

impl ResponseHead {
    /// The answer without its body, and the body's length, if that is known.
    pub fn into_builder(self) -> Option<(HttpResponseBuilder, Option<u64>)> {
        let mut response = HttpResponse::build(StatusCode::from_u16(self.status).ok()?);
        for (name, value) in self.headers.iter() {
            response.append_header((name, value));
        }
        Some((response, self.length))
    }

    /// Whether it is an answer that goes on, and not a refusal.
    pub fn is_stream(&self) -> bool {
        self.status == 200 && self.length.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::test::TestRequest;

    fn head(uri: &str, segments: usize) -> RequestHead {
        let request = TestRequest::with_uri(uri)
            .insert_header(("x-odd", HeaderValue::from_bytes(b"f\xfcchse").expect("it is one")))
            .append_header(("cookie", "a=1"))
            .append_header(("cookie", "b=2"))
            .insert_header(("connection", "close"))
            .peer_addr(([10, 0, 0, 1], 1234).into());
        let request = request.to_http_request();
        RequestHead::of(&request, segments, "k".into(), Some("ada".into()), "http://r".into())
    }

    fn sent(head: &RequestHead, body: &'static [u8]) -> actix_http::Request {
        let head: RequestHead = serde_json::from_slice(&head.to_bytes()).expect("it is one");
        head.into_request(Bytes::from_static(body)).expect("it is one")
    }

    #[test]
    fn a_request_comes_as_it_was_sent() {
        let mut request = sent(&head("/a/b/gradio_api/heartbeat/x%2Fy%00?q=%20&r=1", 3), b"body");
        assert_eq!(request.uri(), "/gradio_api/heartbeat/x%2Fy%00?q=%20&r=1");
        assert_eq!(request.peer_addr(), Some(([10, 0, 0, 1], 1234).into()));
        let headers = request.headers();
        assert_eq!(headers.get("x-odd").expect("it is there").as_bytes(), b"f\xfcchse");
        assert_eq!(headers.get_all("cookie").count(), 2);
        assert_eq!(headers.get("content-length").expect("it is there"), "4");
        assert!(!headers.contains_key("connection"));
        let relayed = request.extensions().get::<Relayed>().cloned().expect("it says so");
        assert_eq!((relayed.user.as_deref(), &*relayed.root), (Some("ada"), "http://r"));
        assert!(matches!(request.take_payload(), Payload::H1 { .. }));
        assert!(matches!(sent(&head("/x", 1), b"").take_payload(), Payload::None));
    }

    #[test]
    fn a_stream_goes_on_where_it_was() {
        let uri = "/gradio_api/queue/data?session_hash=s&last_event_id=9";
        let resumed = head(uri, 3).resumed_after(Some(4)).resumed_after(Some(7));
        assert_eq!(sent(&resumed, b"").headers().get_all("last-event-id").count(), 1);
        assert_eq!(sent(&resumed, b"").headers().get("last-event-id").expect("it is"), "7");
        let anew = sent(&resumed.resumed_after(None), b"");
        assert!(!anew.headers().contains_key("last-event-id"));
        assert_eq!(anew.uri(), "/gradio_api/queue/data?session_hash=s");
    }
}

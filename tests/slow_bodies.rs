//! Bodies that stop, trickle or never end are given up, whatever route they are for.
#![cfg(feature = "web")]

use actix_http::Request;
use actix_web::dev::{Payload, Service, ServiceResponse};
use actix_web::error::PayloadError;
use actix_web::test::{TestRequest, init_service, read_body_json, try_call_service};
use actix_web::web::Bytes;
use actix_web::{App, Error};
use futures::{Stream, StreamExt, stream};
use now_serving::{Listener, Queue, Users, Web};
use serde_json::Value;

async fn service() -> impl Service<Request, Response = ServiceResponse, Error = Error> {
    let echo = async |text: String| Ok::<_, String>(text);
    let queue = Queue::builder().arbiters(0).listener(Listener::new("echo", echo)).start().unwrap();
    let open = Web::new(&queue);
    let members = Web::builder(&queue).auth(Users::new().user("alice", "a")).max_body_size(100_000);
    let members = members.start().unwrap();
    let members = actix_web::web::scope("/members").configure(members.routes());
    init_service(App::new().service(members).configure(open.routes())).await
}

/// The answer to a body that comes as a stream.
async fn answer(
    service: &impl Service<Request, Response = ServiceResponse, Error = Error>,
    (path, content_type): (&str, &str),
    body: impl Stream<Item = Bytes> + 'static,
) -> (u16, Value) {
    let request = TestRequest::post().uri(path).insert_header(("content-type", content_type));
    let payload = Payload::Stream { payload: body.map(Ok::<_, PayloadError>).boxed_local() };
    let (request, _) = request.to_request().replace_payload(payload);
    let response = try_call_service(service, request).await.unwrap();
    (response.status().as_u16(), read_body_json(response).await)
}

const FORM: &str = "multipart/form-data; boundary=x";

const LOGIN: &str = "/members/login";

#[actix::test]
async fn one_that_stops_is_408() {
    tokio::time::pause();
    let service = service().await;
    let part = "--x\r\ncontent-disposition: form-data; name=";
    for (target, begin) in [
        (("/gradio_api/queue/join", "application/json"), r#"{"data": ["#.to_string()),
        (("/gradio_api/call/echo", "application/json"), r#"{"data": ["#.into()),
        (("/gradio_api/upload", FORM), format!("{part}\"files\"; filename=\"a\"\r\n\r\nabc")),
        ((LOGIN, "application/x-www-form-urlencoded"), "username=ali".into()),
        ((LOGIN, FORM), format!("{part}\"username\"\r\n\r\nali")),
    ] {
        let began = tokio::time::Instant::now();
        let body = stream::iter([begin.into()]).chain(stream::pending());
        let (status, answer) = answer(&service, target, body).await;
        assert_eq!(
            (status, &answer["detail"]),
            (408, &"The body came too slowly.".into()),
            "{target:?}"
        );
        assert_eq!(began.elapsed().as_secs(), 10, "{target:?}");
    }
}

#[actix::test]
async fn a_login_without_end_is_413() {
    tokio::time::pause();
    let service = service().await;
    let part = "--x\r\ncontent-disposition: form-data; name=\"a\"\r\n\r\nb\r\n";
    for (target, chunk) in
        [((LOGIN, "application/x-www-form-urlencoded"), "username=alice&"), ((LOGIN, FORM), part)]
    {
        let endless = stream::repeat(Bytes::from(chunk.repeat(100)));
        let (status, _) = answer(&service, target, endless).await;
        assert_eq!(status, 413, "{target:?}");
    }
}

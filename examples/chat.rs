//! A chat that streams its answers from the API of a language model: at most two requests at once are
//! with the API, the other clients wait and see their rank. Here a stand-in on this machine is the API.
//!
//! ```text
//! cargo run --example chat
//! curl -s http://127.0.0.1:8080/gradio_api/call/chat -d '{"data": ["hello"]}'
//! curl -N http://127.0.0.1:8080/gradio_api/call/chat/<event_id>
//! ```

use std::future::ready;
use std::time::Duration;

use actix_web::{App, HttpResponse, HttpServer, web};
use futures::{AsyncBufReadExt, Stream, StreamExt, TryStreamExt, stream};
use now_serving::{Data, Listener, Queue, QueueBuilder, UserError, Web};
use serde_json::{Value, json};

/// Where the API is. A real one has a key, too.
pub struct Model {
    pub url: String,
}

/// Each item is the answer so far. A client that leaves drops the stream, and with it the request.
fn chat(text: String, model: Data<Model>) -> impl Stream<Item = Result<String, UserError>> {
    stream::once(ask(text, model)).try_flatten()
}

async fn ask(
    text: String,
    model: Data<Model>,
) -> Result<impl Stream<Item = Result<String, UserError>>, UserError> {
    // The details are for the log; nothing but a UserError is shown to clients.
    let failed = |error: &dyn std::fmt::Display| {
        log::error!("the model: {error}");
        UserError::new("The model can't answer now; try again later.")
    };
    let body = json!({ "stream": true, "messages": [{ "role": "user", "content": text }] });
    let sent = awc::Client::default().post(&model.url).send_json(&body).await;
    let response = sent.map_err(|error| failed(&error))?;
    if !response.status().is_success() {
        return Err(failed(&response.status()));
    }
    let lines = response.map_err(std::io::Error::other).into_async_read().lines();
    let lines = lines.map_err(move |error| failed(&error));
    let mut answer = String::new();
    Ok(lines.try_take_while(|line| ready(Ok(line != "data: [DONE]"))).try_filter_map(move |line| {
        let chunk = line.strip_prefix("data: ").map(serde_json::from_str::<Value>);
        let token =
            chunk.and_then(|chunk| Some(chunk.ok()?["choices"][0]["delta"]["content"].take()));
        let token = token.as_ref().and_then(Value::as_str);
        ready(Ok(token.map(|token| {
            answer += token;
            answer.clone()
        })))
    }))
}

pub fn queue(model: Model) -> QueueBuilder {
    let chat = Listener::stream("chat", chat).concurrency_limit(2);
    Queue::builder().data(model).listener(chat.time_limit(Duration::from_secs(120)))
}

/// The stand-in says again what it is told, word by word, as server-sent events.
async fn stand_in(request: web::Json<Value>) -> HttpResponse {
    let text = request["messages"][0]["content"].as_str().unwrap_or_default();
    let words: Vec<String> = text.split_inclusive(' ').map(String::from).collect();
    let chunks = stream::iter(words).then(async |word| {
        tokio::time::sleep(Duration::from_millis(20)).await;
        format!("data: {}\n\n", json!({ "choices": [{ "delta": { "content": word } }] }))
    });
    let end = stream::iter(["data: [DONE]\n\n".to_string()]);
    HttpResponse::Ok()
        .streaming(chunks.chain(end).map(|text| Ok::<_, actix_web::Error>(text.into())))
}

/// Starts the stand-in on a free port.
pub fn start_stand_in() -> std::io::Result<Model> {
    let server = HttpServer::new(|| App::new().route("/chat", web::post().to(stand_in)));
    let server = server.workers(1).bind(("127.0.0.1", 0))?;
    let url = format!("http://{}/chat", server.addrs()[0]);
    actix_web::rt::spawn(server.run());
    Ok(Model { url })
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let queue = queue(start_stand_in()?).start().map_err(std::io::Error::other)?;
    Web::new(&queue).serve_on(("127.0.0.1", 8080)).await
}

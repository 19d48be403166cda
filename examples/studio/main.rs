//! The studio: three painters, one GPU queue with two slots, live in the browser.
//!
//! ```text
//! cargo run --release --example studio
//! ```
//!
//! With `--data DIR`, and the feature `journal`, what was ordered is painted though the studio is killed
//! meanwhile, and pictures are kept for a day.
//!
//! The guide's scenario on real work: each listener paints a PNG on the processor and reports its
//! progress; the page shows everybody's place in line.

#[path = "../shared/address.rs"]
mod address;
#[path = "../shared/cluster.rs"]
mod cluster;
mod painters;

use std::hash::{DefaultHasher, Hash, Hasher};
#[cfg(feature = "journal")]
use std::path::Path;
use std::time::Duration;

use actix_web::http::header::ContentType;
use actix_web::{App, HttpResponse, web};
use address::{Address, ValueOption};
use now_serving::{
    EventContext, FileData, Listener, Queue, QueueBuilder, SlotState, UserError, Users, Web,
};
use painters::Painter;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The smallest and the largest side of a picture, in pixels.
const SIZES: std::ops::RangeInclusive<usize> = 128..=1024;

/// How long running painters may go on when the server is stopped.
const GRACE: Duration = Duration::from_secs(5);

#[derive(Deserialize, Serialize, JsonSchema)]
struct Prompt {
    /// What to paint.
    prompt: String,
    /// The side of the picture in pixels, from 128 to 1024.
    #[serde(default = "default_size")]
    size: usize,
}

fn default_size() -> usize {
    640
}

/// Paints a PNG on a thread of its own, and stops between two rows when the event is cancelled.
fn generate(
    painter: Painter,
    Prompt { prompt, size }: Prompt,
    context: &EventContext,
) -> Result<FileData, UserError> {
    let prompt = prompt.trim();
    if prompt.is_empty() {
        return Err(UserError::new("Say what to paint.").title("Empty prompt"));
    }
    if !SIZES.contains(&size) {
        let (min, max) = (SIZES.start(), SIZES.end());
        return Err(UserError::new(format!("The side must be {min} to {max} pixels.")));
    }
    let mut reported = 0;
    let mut go_on = |part: f64| {
        // A hundred steps are enough for any progress bar.
        let percent = (100.0 * part) as u32;
        if percent > reported {
            reported = percent;
            context.progress(part, format!("painting, {percent} %"));
        }
        !context.is_cancelled()
    };
    let pixels = painters::paint(painter, seed(prompt), size, &mut go_on)
        .ok_or_else(|| UserError::new("The picture was given up."))?;
    let png = encode(&pixels, size).map_err(std::io::Error::other);
    let file = png.and_then(|png| context.files().save(&format!("{prompt}.png"), png));
    file.map_err(|error| UserError::new(format!("The picture can't be stored: {error}")))
}

/// The same prompt makes the same picture.
fn seed(prompt: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    prompt.to_lowercase().hash(&mut hasher);
    hasher.finish()
}

fn encode(pixels: &[u8], size: usize) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, size as u32, size as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(file)
}

/// The public state of the queue. Of events the first digits only: a whole id gives access to its
/// picture.
async fn queue_state(queue: web::Data<Queue>) -> HttpResponse {
    let snapshot = queue.snapshot().await;
    let Some(gpu) = snapshot.concurrency_id("gpu_queue") else {
        return HttpResponse::ServiceUnavailable().finish();
    };
    let easels = gpu.slots.iter().filter_map(|slot| match &slot.state {
        SlotState::Busy { events, listener, seconds, node, .. } => {
            let event = &events[0].to_string()[..8];
            let mut easel = json!({ "painter": listener, "seconds": seconds, "event": event });
            // Where several studios are one.
            if let Some(node) = node {
                easel["node"] = json!(node);
            }
            Some(easel)
        }
        _ => None,
    });
    let easels: Vec<_> = easels.collect();
    let painted: u64 = gpu.listeners.iter().map(|listener| listener.completed).sum();
    HttpResponse::Ok().insert_header(("cache-control", "no-store")).json(
        json!({ "easels": easels, "limit": gpu.limit, "waiting": gpu.waiting, "painted": painted }),
    )
}

/// Of the dashboard: `STUDIO_PASSWORD`, or another one at each start.
fn password() -> String {
    std::env::var("STUDIO_PASSWORD").unwrap_or_else(|_| format!("{:08x}", rand::random::<u32>()))
}

async fn page() -> HttpResponse {
    HttpResponse::Ok().content_type(ContentType::html()).body(include_str!("page.html"))
}

/// The option of the directory for what outlives the studio.
const DATA: ValueOption = ValueOption {
    name: "data",
    value: "DIR",
    help: "Records orders in DIR and keeps their pictures there, so that both outlive the studio. Needs \
           the feature journal.",
};

#[cfg(feature = "journal")]
fn recorded(queue: QueueBuilder, data: Option<&str>) -> std::io::Result<QueueBuilder> {
    let Some(data) = data.map(Path::new) else { return Ok(queue) };
    std::fs::create_dir_all(data).map_err(|error| {
        std::io::Error::other(format!("{}: {error}; take another --data", data.display()))
    })?;
    let journal = now_serving::Sqlite::open(data.join("events.db"));
    let journal = journal.map_err(std::io::Error::other)?;
    Ok(queue.journal(journal).cache_dir(data.join("files")))
}

#[cfg(not(feature = "journal"))]
fn recorded(queue: QueueBuilder, data: Option<&str>) -> std::io::Result<QueueBuilder> {
    match data {
        Some(_) => Err(std::io::Error::other(
            "--data needs the feature journal; run it by cargo run --release --features journal \
             --example studio -- --data DIR",
        )),
        None => Ok(queue),
    }
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let options = [DATA, cluster::NATS, cluster::NODE, cluster::NAME, cluster::FILES];
    let (address, values) = Address::with_options("studio", 7860, &options);
    let data = values.get(DATA.name).map(String::as_str);
    let is_durable = data.is_some() || cluster::is_node(&values);
    let listener = |name: &str, painter: Painter| {
        let listener = Listener::blocking(name, move |prompt: Prompt, context: EventContext| {
            generate(painter, prompt, &context)
        });
        if is_durable { listener.durable() } else { listener }
    };
    // The guide's example: the first declares two, the others nothing, and two run at once.
    let queue = Queue::builder()
        .listener(
            listener("generate_1", Painter::Valley)
                .concurrency_limit(2)
                .concurrency_id("gpu_queue"),
        )
        .listener(listener("generate_2", Painter::Current).concurrency_id("gpu_queue"))
        .listener(listener("generate_3", Painter::Nebula).concurrency_id("gpu_queue"));
    let name = values.get(cluster::NAME.name).map_or("studio", String::as_str);
    let joined = cluster::join(queue, &values, name).await;
    let queue = joined
        .and_then(|queue| recorded(queue, data))
        .and_then(|queue| queue.start().map_err(std::io::Error::other))
        .unwrap_or_else(|error| Address::fail("studio", &error));
    let line_of = queue.clone();
    let studio = Web::new(&queue);
    let served = studio.clone();
    let password = password();
    let operators = Users::new().user("operator", password.clone());
    let server = now_serving::http_server(move || {
        App::new()
            .app_data(web::Data::new(line_of.clone()))
            .route("/", web::get().to(page))
            .route("/queue", web::get().to(queue_state))
            .configure(served.routes())
            .configure(served.metrics("/metrics"))
            .configure(served.dashboard("/queues", operators.clone()))
    })
    .workers(2)
    .bind(address.pair())
    .unwrap_or_else(|error| address.refused("studio", &error));
    let at = server.addrs()[0];
    println!("The studio is open at http://{at}");
    println!("Its dashboard is at http://{at}/queues: user operator, password {password}");
    studio.serve(server.run(), GRACE).await
}

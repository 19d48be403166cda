//! An actix-web service with routes of its own, one of them gated: at most two requests render at
//! once, three more wait, and the next get a `Retry-After`.
//!
//! ```text
//! cargo run --example gate
//! for i in 1 2 3 4 5 6; do curl -si http://127.0.0.1:8080/render/$i & done; wait
//! curl http://127.0.0.1:8080/health
//! ```
//!
//! The sixth gets `503 Service Unavailable` with `Retry-After`.

#[path = "shared/address.rs"]
mod address;

use std::time::Duration;

use actix_web::web::ServiceConfig;
use actix_web::{App, Error, middleware, web};
use address::Address;
use now_serving::{Permit, Queue, QueueBuilder, Web};

/// Heavy work, on a thread that may block. A client that goes away drops this handler but not the
/// thread; so the thread has the permit, and the slot is busy until the work is done.
async fn render(scene: web::Path<u32>, permit: Permit) -> Result<String, Error> {
    let rendered = web::block(move || {
        let _permit = permit;
        std::thread::sleep(Duration::from_secs(1));
        format!("scene {scene}, rendered\n")
    });
    Ok(rendered.await?)
}

/// Never waits for anybody who renders.
async fn health() -> &'static str {
    "fine\n"
}

pub fn queue() -> QueueBuilder {
    // No listener has this id; its two slots are for requests.
    Queue::builder().permits("render", 2).max_size(3)
}

pub fn routes(web: &Web) -> impl FnOnce(&mut ServiceConfig) + Clone + use<> {
    // All that a route needs.
    let gate = web.gate("render");
    move |service| {
        let render = web::resource("/render/{scene}").wrap(gate).get(render);
        service.service(render).service(web::resource("/health").get(health));
    }
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info")).init();
    let address = Address::from_args("gate", 8080);
    let queue = queue().start().map_err(std::io::Error::other)?;
    let served = Web::new(&queue);
    let routes = routes(&served);
    let server = now_serving::http_server(move || {
        App::new().wrap(middleware::Logger::default()).configure(routes.clone())
    })
    .bind(address.pair())
    .unwrap_or_else(|error| address.refused("gate", &error));
    println!("gate listens on http://{}", server.addrs()[0]);
    served.serve(server.run(), Duration::from_secs(10)).await
}

//! A service with users: routes of its own that share the queue's login, and roles that say who may
//! call what. Over HTTP, whoever may not is answered 403; nothing of his event waits or runs. Admins find the
//! dashboard at <http://127.0.0.1:8080/queues>, by the same login.
//!
//! ```text
//! cargo run --example members
//! curl -s http://127.0.0.1:8080/pictures/fox                                # 401
//! curl -s -c cookies http://127.0.0.1:8080/login -d "username=bob&password=b"
//! curl -s -b cookies http://127.0.0.1:8080/pictures/fox
//! curl -s -b cookies http://127.0.0.1:8080/admin/waiting                    # 403: ada may
//! ```

use std::time::Duration;

use actix_web::web::ServiceConfig;
use actix_web::{App, web};
use now_serving::{
    Access, CallError, EventContext, Listener, Operators, Queue, QueueBuilder, User, UserError,
    Users, Validation, Web, WebError, http_server,
};

/// What a user may do. A real service looks it up.
#[derive(PartialEq)]
enum Role {
    Admin,
    Painter,
}

fn role(user: &str) -> Role {
    if user == "ada" { Role::Admin } else { Role::Painter }
}

async fn paint(subject: String, context: EventContext) -> Result<String, UserError> {
    Ok(format!("{subject}, painted for {}", context.user().unwrap_or("the service")))
}

async fn retrain(epochs: u32) -> Result<u32, UserError> {
    Ok(epochs)
}

/// Painters have a bound that admins don't have.
fn check(subject: &str, user: Option<&str>) -> Validation {
    let free = user.is_some_and(|user| role(user) == Role::Admin);
    Validation::new().check("subject", free || subject.len() <= 40, "At most 40 letters.")
}

pub fn queue() -> QueueBuilder {
    let admin = |user: Option<&str>| user.is_some_and(|user| role(user) == Role::Admin);
    let paint = Listener::new("paint", paint)
        .validator(|subject: &String, user: Option<&str>| check(subject, user));
    Queue::builder()
        .listener(paint.concurrency_id("gpu_queue"))
        .listener(Listener::new("retrain", retrain).concurrency_id("gpu_queue").allow(admin))
}

pub fn login(queue: &Queue) -> Result<Web, WebError> {
    Web::builder(queue).auth(Users::new().user("ada", "a").user("bob", "b")).start()
}

/// For everybody: who has not logged in is nobody.
async fn greet(user: Option<User>) -> String {
    user.map_or("Log in at /login.".into(), |user| format!("Hello, {user}."))
}

/// The call is the user's: what holds at `/gradio_api` holds here too.
async fn picture(
    user: User,
    subject: web::Path<String>,
    queue: web::Data<Queue>,
) -> Result<String, CallError> {
    queue.as_user(user).try_call("paint", subject.into_inner()).await
}

async fn waiting(queue: web::Data<Queue>) -> String {
    let snapshot = queue.snapshot().await;
    snapshot.concurrency_ids.iter().map(|id| id.waiting).sum::<usize>().to_string()
}

pub fn routes(queue: &Queue, web: &Web) -> impl FnOnce(&mut ServiceConfig) + Clone + use<> {
    let (queue, web) = (web::Data::new(queue.clone()), web.clone());
    move |service| {
        // The same login: nobody has a second password for the dashboard.
        let operators = Operators::from_login(&web, |user| match role(user) {
            Role::Admin => Access::All,
            Role::Painter => Access::Forbidden,
        });
        let admins = web.require_login().allow(|user| role(user) == Role::Admin);
        service
            .app_data(queue)
            .configure(web.routes())
            .configure(web.dashboard("/queues", operators))
            .route("/", web::get().to(greet))
            .route("/pictures/{subject}", web::get().to(picture))
            .service(web::scope("/admin").wrap(admins).route("/waiting", web::get().to(waiting)));
    }
}

#[actix_web::main]
async fn main() -> std::io::Result<()> {
    let queue = queue().start().map_err(std::io::Error::other)?;
    let web = login(&queue).map_err(std::io::Error::other)?;
    let routes = routes(&queue, &web);
    let server = http_server(move || App::new().configure(routes.clone()));
    web.serve(server.bind(("127.0.0.1", 8080))?.run(), Duration::from_secs(30)).await
}

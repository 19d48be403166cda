//! The dashboard: a page that shows a queue live, and steers it. For operators, behind a login.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, ContentType};
use actix_web::middleware::from_fn;
use actix_web::web::ServiceConfig;
use actix_web::{HttpMessage, HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures::{StreamExt, stream};
use serde::Deserialize;
use serde_json::json;

use super::operators::{Access, Operator, Operators, guard};
use crate::event::id::EventId;
use crate::logging::info;
use crate::queue::snapshot::QueueSnapshot;
use crate::scheduler::limit::Limit;
use crate::scheduler::snapshot::SlotState;
use crate::web::auth::csrf::is_from_elsewhere;
use crate::web::body::json;
use crate::web::body::received::Body;
use crate::web::protocol::sse;
use crate::web::rejection::Rejection;
use crate::web::state::{Web, WebState};

const PAGE: &str = include_str!("dashboard.html");

/// What the page says of its operator, and what it says to one who may only look.
const STEERS: &str = "data-access=\"all\"";
const LOOKS: &str = "data-access=\"read_only\"";

/// Nothing from elsewhere, and no frame around it that could lead clicks astray.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
     connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// How often the page gets a snapshot.
const PERIOD: Duration = Duration::from_secs(1);

/// The maximum of slots of an id that the page gets.
const MAX_SLOTS: usize = 64;

/// How long running events may go on after a drain.
const DRAIN: Duration = Duration::from_secs(24 * 3600);

impl Web {
    /// The dashboard, for `App::configure`: a page at `path` that shows every concurrency id with its
    /// slots, its wait queue, its listeners and its last events, live, and from which an operator cancels
    /// events, pauses and resumes ids, changes limits and drains the queue. Beside it, the
    /// [`snapshot`](Web::snapshot) as JSON at `{path}/snapshot`, and at `{path}/failed` the durable events that
    /// have failed for good: the last 50 of each listener, with their `message`, `attempts`, and `ended_at` in
    /// milliseconds since the Unix epoch. From the page they can be submitted again.
    ///
    /// Scripts steer by `POST {path}/actions`, with `Content-Type: application/json` and one of
    ///
    /// | body | does |
    /// |---|---|
    /// | `{"action": "pause", "concurrency_id": ".."}`, `"resume"` | [`Queue::pause`](crate::Queue::pause), [`resume`](crate::Queue::resume) |
    /// | `{"action": "set_limit", "concurrency_id": "..", "limit": 2}` | [`Queue::set_concurrency_limit`](crate::Queue::set_concurrency_limit); `null` for unlimited |
    /// | `{"action": "cancel", "listener": "..", "event_id": ".."}` | [`Queue::cancel`](crate::Queue::cancel), which no more than asks: an event that has ended is no error |
    /// | `{"action": "resubmit", "event_id": ".."}` | [`Queue::resubmit`](crate::Queue::resubmit), and gives the new event's `event_id` |
    /// | `{"action": "drain"}` | [`Queue::shutdown`](crate::Queue::shutdown) |
    ///
    /// `operators` are those who may see it: an [`Auth`](crate::Auth), or [`Operators`] of whom some may
    /// only look. They log in by HTTP's basic authentication, for which browsers show a prompt, or are known
    /// by [`Auth::user`](crate::Auth::user). Everybody else gets 401. Use it over TLS only, or on this
    /// machine.
    ///
    /// ```
    /// use actix_web::App;
    /// use now_serving::Users;
    /// # fn app(web: now_serving::Web, password: String) {
    /// let operators = Users::new().user("operator", password);
    /// App::new().configure(web.routes()).configure(web.dashboard("/queues", operators))
    /// # ;
    /// # }
    /// ```
    pub fn dashboard<O: Into<Operators>>(
        &self,
        path: &str,
        operators: O,
    ) -> impl FnOnce(&mut ServiceConfig) + use<O> {
        let path = path.trim_end_matches('/').to_owned();
        let state = web::Data::from(self.0.clone());
        let bodies = web::Data::from(self.0.bodies.clone());
        // For the description of the API. The first one counts.
        let _ = state.dashboard.set(path.clone());
        let operators = operators.into();
        move |service| {
            let guard = from_fn(move |request, next| guard(operators.clone(), request, next));
            service.service(
                web::scope(&path)
                    .app_data(state)
                    .app_data(bodies)
                    .service(web::resource(["", "/"]).get(page).head(page))
                    .service(web::resource("/snapshot").get(snapshot).head(snapshot))
                    .service(
                        web::resource("/events").get(events).head(crate::web::protocol::sse::head),
                    )
                    .service(web::resource("/failed").get(failed).head(failed))
                    .service(web::resource("/actions").post(act))
                    .wrap(guard),
            );
        }
    }
}

async fn page(operator: web::ReqData<Operator>) -> HttpResponse {
    let page = match operator.access {
        Access::All => Cow::Borrowed(PAGE),
        _ => Cow::Owned(PAGE.replacen(STEERS, LOOKS, 1)),
    };
    HttpResponse::Ok()
        .content_type(ContentType::html())
        .insert_header((CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(page.into_owned())
}

async fn snapshot(web: web::Data<WebState>) -> HttpResponse {
    let snapshot = web.snapshot().await;
    HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(snapshot)
}

/// How many failed events of a listener the page gets.
const MAX_FAILED: usize = 50;

/// The durable events that have failed for good, the last one first.
async fn failed(web: web::Data<WebState>) -> Result<HttpResponse, Rejection> {
    let failed = web.queue.failed_events(MAX_FAILED).await;
    let failed = failed.map_err(|error| Rejection::of_submit(&error))?;
    Ok(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(failed))
}

/// The snapshot again and again, less what the page knows already.
async fn events(web: web::Data<WebState>) -> HttpResponse {
    let closing = web.closing.clone();
    let ticks = tokio::time::interval(PERIOD);
    let snapshots =
        stream::unfold((web, ticks, HashMap::new()), async |(web, mut ticks, mut seen)| {
            ticks.tick().await;
            let mut snapshot = web.snapshot().await;
            shorten(&mut snapshot.queue, &mut seen);
            let mut text = Vec::new();
            sse::write(&mut text, None, None, &snapshot);
            Some((Ok::<Bytes, std::convert::Infallible>(text.into()), (web, ticks, seen)))
        });
    sse::stream(snapshots.take_until(closing.cancelled_owned()))
}

/// Leaves out ended events that were sent before, and surplus slots, the busy ones last.
fn shorten(snapshot: &mut QueueSnapshot, seen: &mut HashMap<Arc<str>, u64>) {
    for id in &mut snapshot.concurrency_ids {
        let seen = seen.entry(id.concurrency_id.clone()).or_default();
        id.recent.retain(|ended| ended.number > *seen);
        if let Some(last) = id.recent.last() {
            *seen = last.number;
        }
        if id.slots.len() > MAX_SLOTS {
            id.slots.sort_by_key(|slot| !matches!(slot.state, SlotState::Busy { .. }));
            id.slots.truncate(MAX_SLOTS);
            id.slots.sort_by_key(|slot| slot.slot);
        }
    }
}

/// What an operator may do.
#[derive(Debug, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
enum Action {
    Cancel {
        listener: String,
        event_id: String,
    },
    Pause {
        concurrency_id: String,
    },
    Resume {
        concurrency_id: String,
    },
    /// `null` for unlimited. It must be there: who forgets it must not take a limit away.
    SetLimit {
        concurrency_id: String,
        #[serde(deserialize_with = "Option::deserialize")]
        limit: Option<usize>,
    },
    Resubmit {
        event_id: String,
    },
    Drain {},
}

fn event(event_id: &str) -> Result<EventId, Rejection> {
    event_id.parse().map_err(|_| Rejection::bad_request("event_id is no event's id."))
}

/// The body is JSON, declared as such: what pages of other origins send unasked is refused, and what
/// comes from them after a preflight, which a service may allow for other routes.
async fn act(
    web: web::Data<WebState>,
    operator: web::ReqData<Operator>,
    request: HttpRequest,
    bytes: Body,
) -> Result<HttpResponse, Rejection> {
    if operator.access != Access::All {
        return Err(Rejection::not_for_user("You may look at this queue, but not steer it."));
    }
    if request.content_type() != "application/json" || is_from_elsewhere(&request, &[]) {
        let message = "Send JSON, declared as such, from the dashboard's own page.";
        return Err(Rejection::new(StatusCode::FORBIDDEN, message.into()));
    }
    let action: Action = json::parse(&bytes)?;
    info!("dashboard: {:?} requests {action:?}", operator.name);
    let queue = &web.queue;
    let done = match action {
        Action::Cancel { listener, event_id } => queue.cancel(&listener, event(&event_id)?),
        Action::Resubmit { event_id } => {
            let again = queue.resubmit(event(&event_id)?).await;
            let again = again.map_err(|error| Rejection::of_submit(&error))?;
            let id = again.id();
            again.detach();
            return Ok(HttpResponse::Ok().json(json!({ "success": true, "event_id": id })));
        }
        Action::Pause { concurrency_id } => queue.pause(&concurrency_id).await,
        Action::Resume { concurrency_id } => queue.resume(&concurrency_id).await,
        Action::SetLimit { concurrency_id, limit } => {
            let limit = limit.map_or(Limit::Unlimited, Limit::Slots);
            queue.set_concurrency_limit(&concurrency_id, limit).await
        }
        Action::Drain {} => {
            let queue = queue.clone();
            actix_web::rt::spawn(async move { queue.shutdown(DRAIN).await });
            Ok(())
        }
    };
    done.map_err(|error| Rejection::of_control(&error))?;
    Ok(HttpResponse::Ok().json(json!({ "success": true })))
}

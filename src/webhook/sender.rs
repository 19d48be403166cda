//! Posts the ends that are due, again and again until their receivers have them.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use awc::http::StatusCode;
use awc::http::header::{CONTENT_TYPE, USER_AGENT};
use awc::{Client, Connector};
use futures::StreamExt;
use futures::future::{Either, select};
use futures::stream::FuturesUnordered;
use rustls::ClientConfig;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::message;
use super::signature::signature;
use crate::clock;
use crate::event::id::EventId;
use crate::handler::backoff::Backoff;
use crate::journal::record::{Called, Kept, Record, Webhook};
use crate::journal::{Batch, CallsDue, Journal, Query};
use crate::logging::{info, warn};
use crate::queue::Inner;

/// How long a receiver may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The pause after the first call that failed; each further one is twice as long, up to an hour.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// Calls at once.
const AT_ONCE: usize = 32;

/// The longest time without a look at what is due.
const LOOK: Duration = Duration::from_secs(30);

/// What a call came to.
enum Answer {
    Settled,
    /// The receiver wants no more of this.
    Gone,
    Failed(String),
}

/// Runs for as long as there is the queue.
pub(super) async fn run(
    queue: Weak<Inner>,
    secret: Vec<u8>,
    tls: Arc<ClientConfig>,
    due: Arc<CallsDue>,
) {
    let client = client(tls);
    // Those that are being called, and what is known of others before it is on record.
    let mut calling = FuturesUnordered::new();
    let mut known: HashMap<EventId, Option<u64>> = HashMap::new();
    loop {
        let Some(journal) = journal_of(&queue) else { return };
        let asked = journal.ends(Query::ToCall(AT_ONCE + known.len()));
        drop(journal);
        let (now, mut next) = (clock::unix_millis(), None);
        for kept in asked.await.ok().and_then(Result::ok).unwrap_or_default() {
            let (event, Some(webhook)) = (kept.ended.event, kept.webhook.clone()) else { continue };
            let moment = match known.get(&event) {
                // It is being called, or that is over.
                Some(None) => continue,
                Some(Some(moment)) => *moment,
                None => webhook.next.unwrap_or(u64::MAX),
            };
            if moment > now {
                next = Some(next.map_or(moment, |next: u64| next.min(moment)));
            } else if calling.len() < AT_ONCE {
                known.insert(event, None);
                calling.push(call(&client, &secret, webhook, kept));
            }
        }
        let wait = next.map_or(LOOK, |next| Duration::from_millis(next - now).min(LOOK));
        // When it is time, or another end is on record.
        let news = std::pin::pin!(timeout(wait, due.0.notified()));
        let called = match calling.is_empty() {
            true => {
                let _ = news.await;
                None
            }
            false => match select(calling.next(), news).await {
                Either::Left((called, _)) => called,
                Either::Right(_) => None,
            },
        };
        if let Some((called, kept)) = called {
            let (event, next) = (called.event, called.next);
            let Some(journal) = journal_of(&queue) else { return };
            let recorded = record(&*journal, kept.listener, called);
            drop(journal);
            match recorded.await {
                Ok(true) => {
                    known.remove(&event);
                }
                // A later process calls it once more. This one remembers.
                Ok(false) | Err(_) => {
                    known.insert(event, next);
                }
            }
        }
    }
}

fn journal_of(queue: &Weak<Inner>) -> Option<Arc<dyn Journal>> {
    queue.upgrade()?.journal.clone()
}

/// Whether it was kept.
fn record(journal: &dyn Journal, listener: Arc<str>, called: Called) -> oneshot::Receiver<bool> {
    let (reply, recorded) = oneshot::channel();
    let records = Arc::new(vec![Record::Called(called)]);
    let batch = Batch { concurrency_id: listener, records };
    // The loop may have ended.
    journal.append(
        batch,
        Box::new(move |kept| {
            let _ = reply.send(kept.is_ok());
        }),
    );
    recorded
}

async fn call(client: &Client, secret: &[u8], webhook: Webhook, kept: Kept) -> (Called, Kept) {
    let (event, calls) = (kept.ended.event, webhook.calls.saturating_add(1));
    let next = match post(client, secret, &webhook.url, &kept).await {
        Answer::Settled => None,
        Answer::Gone => {
            info!("the webhook of event {event} is gone");
            None
        }
        Answer::Failed(why) => {
            let pause = Backoff::exponential(FIRST_PAUSE).pause(calls);
            warn!("the webhook of event {event} is called again in {pause:?}: {why}");
            Some(clock::unix_millis_after(pause))
        }
    };
    (Called { event, calls, next }, kept)
}

async fn post(client: &Client, secret: &[u8], url: &str, kept: &Kept) -> Answer {
    let id = kept.ended.event.to_string();
    let body = match message::body(kept) {
        Ok(body) => body,
        Err(error) => return Answer::Failed(format!("its end can't be written: {error}")),
    };
    let timestamp = clock::unix_millis() / 1000;
    let request = client
        .post(url)
        .insert_header((CONTENT_TYPE, "application/json"))
        .insert_header((USER_AGENT, concat!("now-serving/", env!("CARGO_PKG_VERSION"))))
        .insert_header(("webhook-signature", signature(secret, &id, timestamp, &body)))
        .insert_header(("webhook-timestamp", timestamp.to_string()))
        .insert_header(("webhook-id", id));
    match request.send_body(body).await.map(|answer| answer.status()) {
        Ok(status) if status.is_success() => Answer::Settled,
        Ok(StatusCode::GONE) => Answer::Gone,
        Ok(status) => Answer::Failed(format!("it answers {status}")),
        Err(error) => Answer::Failed(error.to_string()),
    }
}

fn client(tls: Arc<ClientConfig>) -> Client {
    let connector = Connector::new().timeout(TIMEOUT).rustls_0_23(tls);
    Client::builder().connector(connector).timeout(TIMEOUT).disable_redirects().finish()
}

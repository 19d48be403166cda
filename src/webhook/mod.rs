//! Ends of durable events, posted to URLs that their submitters name: for those who can't stay to ask.

pub(crate) mod allow_list;
mod message;
mod sender;
mod signature;
mod tls;

use std::fmt;
use std::sync::Arc;

use self::allow_list::{AllowList, NotAllowed};
use crate::journal::CallsDue;
use crate::queue::Queue;
use crate::queue::background::Background;
use crate::queue::builder::{QueueBuilder, StartOnLine};
use crate::queue::error::StartError;
use crate::queue::webhook_url::WebhookCheck;

/// Where the ends of durable events may be posted, and how they are signed. For
/// [`QueueBuilder::webhooks`].
///
/// An event names its webhook when it is submitted: with
/// [`EventBuilder::webhook`](crate::EventBuilder::webhook), or over HTTP by the header `Webhook-Url`. Once its
/// end is on record, a `POST` carries it there, signed as [Standard Webhooks](https://www.standardwebhooks.com)
/// says:
///
/// - `webhook-id`: the event's id, the same for each attempt. An end may come more than once: whoever acts on
///   it must know the ids that he has acted on.
/// - `webhook-timestamp`: when it was sent, in seconds since the Unix epoch.
/// - `webhook-signature`: `v1,` and the base64 of the HMAC-SHA256, by the secret, of id, timestamp and body with
///   a dot between.
///
/// The body is JSON:
///
/// ```json
/// { "type": "event.completed",
///   "data": { "event_id": "…", "api_name": "render", "outcome": "completed", "output": "…", "error": null,
///             "duration": 1.5, "ended_at": 1795735521915 } }
/// ```
///
/// `outcome` is `completed`, `failed`, `cancelled`, `timed_out` or `stopped`. `error` is `null` or
/// `{"title", "message"}`; what a handler's bug says is for the log and not for others. `duration` counts
/// seconds, `ended_at` milliseconds since the Unix epoch.
///
/// An answer of 2xx within 10 seconds settles it; 410 (gone) as well. After any other, or none, it is sent
/// again, 5 seconds later, then with pauses that double up to an hour, for as long as the end is kept
/// ([`QueueBuilder::result_ttl`]). Redirects are not followed. What is left to be sent outlives the process.
#[derive(Clone)]
pub struct Webhooks {
    secret: Vec<u8>,
    allowed: AllowList,
    /// The first of them that can't be one.
    wrong: Option<(String, NotAllowed)>,
}

impl Webhooks {
    /// Signed with this secret, which receivers know: at least 24 random bytes.
    ///
    /// ```
    /// use now_serving::Webhooks;
    ///
    /// # let secret = [7; 32];
    /// let webhooks = Webhooks::new(secret)
    ///     .allow("https://app.example.org/hooks/")
    ///     .allow("http://localhost:3000");
    /// ```
    pub fn new(secret: impl AsRef<[u8]>) -> Self {
        Webhooks { secret: secret.as_ref().to_vec(), allowed: AllowList::default(), wrong: None }
    }

    /// Lets events name this URL and those below it: of the same scheme, host and port, and the same path or
    /// one that goes on after a `/`. Submitters choose among them, so that a service lists only what every
    /// one of them may have called. One that is no such URL makes `start()` fail.
    pub fn allow(mut self, url: impl Into<String>) -> Self {
        let url = url.into();
        if let Err(why) = self.allowed.add(&url) {
            self.wrong.get_or_insert((url, why));
        }
        self
    }
}

/// Without the secret.
impl fmt::Debug for Webhooks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Webhooks").field("allowed", &self.allowed).finish_non_exhaustive()
    }
}

/// The shortest secret, in bytes: as Standard Webhooks asks for.
const MIN_SECRET: usize = 24;

impl QueueBuilder {
    /// Posts the ends of durable events where their submitters want them: see [`Webhooks`].
    ///
    /// ```
    /// use now_serving::{Listener, Queue, Sqlite, Webhooks};
    ///
    /// # actix::System::new().block_on(async {
    /// # let directory = tempfile::tempdir()?;
    /// # let (path, secret) = (directory.path().join("events.db"), [7; 32]);
    /// let render = async |scene: String| Ok::<_, String>(scene.to_uppercase());
    /// let queue = Queue::builder()
    ///     .journal(Sqlite::open(path)?)
    ///     .webhooks(Webhooks::new(secret).allow("http://localhost:3000/hooks/"))
    ///     .listener(Listener::new("render", render).durable())
    ///     .start()?;
    /// let render = queue.listener::<String, String>("render")?;
    /// let event = render.event("dawn".into()).webhook("http://localhost:3000/hooks/render");
    /// event.submit().await?.detach();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn webhooks(self, webhooks: Webhooks) -> Self {
        self.on_start(Box::new(move |queue| {
            if let Some((url, why)) = webhooks.wrong {
                return Err(StartError::Webhook(format!("{url:?} can't be allowed: {why}")));
            }
            if webhooks.secret.len() < MIN_SECRET {
                let given = webhooks.secret.len();
                return Err(StartError::Webhook(format!(
                    "their secret has {given} bytes; take at least {MIN_SECRET} random ones"
                )));
            }
            let inner = queue.inner();
            if inner.journal.is_none() && inner.elsewhere.is_none() {
                return Err(StartError::Webhook(
                    "the queue has no journal; give it one with QueueBuilder::journal".into(),
                ));
            }
            let tls = tls::config()
                .map_err(|error| StartError::Webhook(format!("TLS can't be set up: {error}")))?;
            let (allowed, due) = (webhooks.allowed, Arc::new(CallsDue::default()));
            let check = move |url: &str| match allowed.check(url) {
                Ok(()) => Ok(()),
                Err(why) => Err(why.to_string()),
            };
            inner.extensions.insert(WebhookCheck(Box::new(check)));
            let start = move |queue: &Queue| {
                let inner = queue.inner();
                inner.extensions.insert(due.clone());
                let Some(Background(arbiter)) = inner.extensions.get() else { return };
                let (queue, secret) = (Arc::downgrade(inner), webhooks.secret.clone());
                let (tls, due) = (tls.clone(), due.clone());
                arbiter.spawn_fn(move || {
                    actix::spawn(sender::run(queue, secret, tls, due));
                });
            };
            if inner.elsewhere.is_some() {
                // Where the ends are recorded.
                inner.extensions.insert(StartOnLine(Box::new(start)));
            } else {
                start(queue);
            }
            Ok(())
        }))
    }
}

//! What one would build on JetStream: the event is a message in a work queue, which workers take with as many
//! unacknowledged ones in all as there are slots; the result comes back on a subject of the caller's.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, pull};
use async_nats::jetstream::stream::{Config, RetentionPolicy};
use async_nats::jetstream::{AckKind, Context};
use bytes::Bytes;
use futures::StreamExt;
use futures::channel::oneshot;

pub struct WorkQueue {
    context: Context,
    name: String,
    workers: Consumer<pull::Config>,
    /// One subscription for all answers: the servers may not know of a new one yet when its answer comes.
    inbox: String,
    waiting: Waiting,
}

/// Who waits for which answer.
type Waiting = Rc<RefCell<HashMap<String, oneshot::Sender<Bytes>>>>;

impl WorkQueue {
    /// The queue of this name, made where it isn't there yet.
    pub async fn open(context: &Context, name: &str, replicas: usize, slots: usize) -> Self {
        let config = Config {
            name: name.into(),
            subjects: vec![format!("{name}.*")],
            retention: RetentionPolicy::WorkQueue,
            num_replicas: replicas,
            ..Config::default()
        };
        let stream = context.get_or_create_stream(config).await.expect("it can be made");
        let config = pull::Config {
            durable_name: Some("workers".into()),
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: i64::try_from(slots).expect("it is small"),
            ..pull::Config::default()
        };
        let workers = stream.get_or_create_consumer("workers", config).await;
        let workers = workers.expect("it can be made");
        let (inbox, waiting) = (context.client().new_inbox(), Waiting::default());
        let answers = context.client().subscribe(format!("{inbox}.*")).await;
        let (mut answers, waits) = (answers.expect("it is sent"), Rc::clone(&waiting));
        actix::spawn(async move {
            while let Some(answer) = answers.next().await {
                if let Some(waits) = waits.borrow_mut().remove(answer.subject.as_str()) {
                    let _ = waits.send(answer.payload);
                }
            }
        });
        WorkQueue { context: context.clone(), name: name.into(), workers, inbox, waiting }
    }

    /// Takes events until it is dropped, each in a task of its own.
    pub async fn work<F: Fn(Bytes) -> Bytes + Clone + 'static>(&self, handler: F) {
        let mut messages = self.workers.messages().await.expect("it can be read");
        while let Some(Ok(message)) = messages.next().await {
            let (replies, handler) = (self.context.client(), handler.clone());
            actix::spawn(async move {
                let reply = message.headers.as_ref().and_then(|headers| headers.get("Reply"));
                let reply = reply.expect("it was given").to_string();
                let output = handler(message.payload.clone());
                message.ack_with(AckKind::Ack).await.expect("it is sent");
                replies.publish(reply, output).await.expect("it is sent");
            });
        }
    }

    /// Returns once the servers have it, with what waits for its output.
    pub async fn submit(&self, input: Bytes) -> impl Future<Output = Bytes> + use<> {
        let (sender, answer) = oneshot::channel();
        let reply = format!("{}.{:x}", self.inbox, rand::random::<u64>());
        self.waiting.borrow_mut().insert(reply.clone(), sender);
        let mut headers = HeaderMap::new();
        headers.insert("Reply", reply);
        let subject = format!("{}.1", self.name);
        let sent = self.context.publish_with_headers(subject, headers, input).await;
        sent.expect("it is sent").await.expect("it is kept");
        async move { answer.await.expect("it is answered") }
    }

    #[allow(dead_code, reason = "another benchmark leaves it to the servers' end")]
    pub async fn delete(self) {
        self.context.delete_stream(&self.name).await.expect("it can be deleted");
    }
}

//! What can go wrong, one error a boundary: starting, submitting, calling, controlling.

use crate::event::failure::Failure;
use crate::event::id::EventId;
use crate::event::refusal::Refusal;
use crate::journal::error::JournalError;
use crate::scheduler::limit::Limit;

/// Why [`QueueBuilder::start`](crate::QueueBuilder::start) refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Two listeners have the same name.
    #[error("two listeners are named {0:?}; give each an api name of its own")]
    DuplicateListener(String),
    /// The events of a cluster are recorded, so that they outlive a node: all that queue must be durable.
    #[error(
        "listener {0:?} isn't durable, and the queue is one of a cluster; call durable() on it, or \
         queue(false) where its events are to run at once, wherever they come in"
    )]
    NotDurableInCluster(String),
    /// A cluster keeps its events' records itself.
    #[error("the queue has a journal and a cluster, which keeps one itself; leave out journal()")]
    JournalInCluster,
    /// A listener's name can't stand in a URL.
    #[error(
        "listener {0:?} has no usable name; use letters, digits, '_', '-' and '.', at least one"
    )]
    BadListenerName(String),
    /// A limit of 0 would never run anything.
    #[error("{0} has a concurrency limit of 0; take 1 or more, or None for unlimited")]
    ZeroLimit(String),
    /// A size of 0 would refuse everything.
    #[error("{0} has a max_size of 0; take 1 or more, or none for a wait queue without a bound")]
    ZeroMaxSize(String),
    /// A batch of 0 would never run anything.
    #[error("listener {0:?} has a max_batch_size of 0; take 1 or more")]
    ZeroBatchSize(String),
    /// A batch option stands on a listener that takes no batches.
    #[error("listener {listener:?} sets {option}, but takes no batches; use Listener::batch")]
    NotABatch {
        /// The listener.
        listener: String,
        /// The option.
        option: &'static str,
    },
    /// A listener has `queue(false)`, and an option of queued listeners.
    #[error("listener {listener:?} has queue(false), but also {option}; leave one of them out")]
    Unqueued {
        /// The listener.
        listener: String,
        /// The option.
        option: String,
    },
    /// A batch function takes what is one client's.
    #[error(
        "listener {listener:?} takes batches and {extra}, but the events of a batch come from \
         several sessions; leave one of them out"
    )]
    BatchExtra {
        /// The listener.
        listener: String,
        /// The type that it takes.
        extra: &'static str,
    },
    /// A handler takes data that the queue wasn't given.
    #[error(
        "listener {listener:?} takes a Data<{wanted}>, which the queue was not given; give it one by \
         QueueBuilder::data"
    )]
    MissingData {
        /// The listener.
        listener: String,
        /// The type that it takes.
        wanted: &'static str,
    },
    /// Two values of one type were given as data.
    #[error("the queue was given two {0} by data(); wrap each in a type of its own")]
    DuplicateData(&'static str),
    /// A validator takes another type than the listener's input.
    #[error("listener {listener:?} takes {takes}, but its validator looks at {given}")]
    WrongValidator {
        /// The listener.
        listener: String,
        /// Its input.
        takes: &'static str,
        /// What the validator takes.
        given: &'static str,
    },
    /// A cache of 0 would keep nothing.
    #[error("listener {0:?} has a cache of 0 results; take 1 or more, or leave it out")]
    ZeroCache(String),
    /// Kept results would mix the sessions.
    #[error(
        "listener {listener:?} takes {extra} and has a cache, which would give one client's \
         results to another; leave one of them out"
    )]
    CachedExtra {
        /// The listener.
        listener: String,
        /// The type that it takes.
        extra: &'static str,
    },
    /// The concurrency id is empty.
    #[error("{0} names an empty concurrency id; give it a name, or leave it out")]
    EmptyConcurrencyId(String),
    /// A resource is built per slot, and this id has no number of slots.
    #[error(
        "concurrency id {id:?} builds a resource per slot, but {listener} leaves it unlimited; \
         give one of its listeners a concurrency_limit"
    )]
    ResourceWithoutLimit {
        /// The concurrency id.
        id: String,
        /// The listeners concerned.
        listener: String,
    },
    /// Two builders are declared for the slots of one concurrency id.
    #[error("concurrency id {0:?} builds its slots' resource in two ways; leave one slots() out")]
    DuplicateSlots(String),
    /// No listener uses the id.
    #[error("{what} names concurrency id {id:?}, which no listener uses; {}", advice(.what, .near))]
    UnknownConcurrencyId {
        /// The builder's method.
        what: &'static str,
        /// The id.
        id: String,
        /// One that is used, and may have been meant.
        near: Option<String>,
    },
    /// A handler takes a resource that its id doesn't build.
    #[error("listener {listener:?} takes {wanted}, but concurrency id {id:?} {has}")]
    WrongResource {
        /// The listener.
        listener: String,
        /// Its concurrency id.
        id: String,
        /// The type that the handler takes.
        wanted: String,
        /// What the id has instead.
        has: String,
    },
    /// The events of a concurrency id are to run on one thread of its own, and on several.
    #[error(
        "concurrency id {id:?} has spread() on listener {spread:?}, but own_arbiter() on listener \
         {own_arbiter:?}, which keeps it on one thread; leave one of them out"
    )]
    SpreadOnOwnArbiter {
        /// The concurrency id.
        id: String,
        /// The listener with [`Listener::spread`](crate::Listener::spread).
        spread: String,
        /// The listener with [`Listener::own_arbiter`](crate::Listener::own_arbiter).
        own_arbiter: String,
    },
    /// A listener's events are to be recorded, and there is nothing to record them in.
    #[error(
        "listener {0:?} is durable, but the queue has no journal; give it one by \
         QueueBuilder::journal (feature \"journal\"), or leave durable() out"
    )]
    DurableWithoutJournal(String),
    /// A listener has an option of durable listeners and isn't one.
    #[error(
        "listener {listener:?} sets {option}, but isn't durable; add durable(), or leave it out"
    )]
    NotDurable {
        /// The listener.
        listener: String,
        /// The option.
        option: &'static str,
    },
    /// An event that may never start would never run.
    #[error("listener {0:?} has max_attempts of 0; take 1 or more")]
    ZeroAttempts(String),
    /// The journal can't be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The environment variable can't be read.
    #[error(
        "NOW_SERVING_DEFAULT_CONCURRENCY_LIMIT is {0:?}; set a number of 1 or more, or none for \
         unlimited"
    )]
    BadEnvironment(String),
    /// Actors need a running actix system.
    #[error(
        "no actix system runs on this thread; call start() inside #[actix::main] or System::run, and \
         under #[tokio::main] on a thread with a system of its own, as the README shows"
    )]
    NoSystem,
    /// The directory for files can't be made or read.
    #[error("the cache_dir {path:?} can't be made or read: {error}; take another, or leave it out")]
    CacheDirectory {
        /// The directory.
        path: std::path::PathBuf,
        /// The system's error message.
        error: String,
    },
    /// Something about [`Webhooks`](crate::QueueBuilder#method.webhooks) doesn't fit.
    #[error("webhooks can't be called: {0}")]
    Webhook(String),
}

fn advice(what: &str, near: &Option<String>) -> String {
    let spelling = match near {
        Some(near) => format!("did you mean {near:?}?"),
        None => "check its spelling".into(),
    };
    match what {
        "concurrency_id()" => {
            format!("{spelling} One for gates and permits alone is for permits()")
        }
        _ => spelling,
    }
}

/// Why an event could not be submitted.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// The queue did not admit it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No listener has this name.
    #[error("no listener is named {0:?}")]
    UnknownListener(String),
    /// A handler calls for a slot that only itself could free, or those that wait for it.
    #[error(
        "this call would wait for itself for ever: the handler that makes it, with those that wait for \
         that handler, holds every slot of concurrency id {concurrency_id:?} (limit {slots}); raise \
         the limit, give the called listener an id of its own, or don't wait for it in the handler"
    )]
    WaitsForItself {
        /// The concurrency id of the called listener.
        concurrency_id: String,
        /// Its limit.
        slots: usize,
    },
    /// The listener doesn't allow this user to call it.
    #[error("user {user:?} may not call listener {listener:?}, see Listener::allow")]
    Forbidden {
        /// The listener.
        listener: String,
        /// The user in whose name it was called, by [`Queue::as_user`](crate::Queue::as_user).
        user: String,
    },
    /// An idempotency key is given to a listener whose events aren't recorded.
    #[error(
        "listener {0:?} isn't durable, so that an idempotency key or a webhook means nothing to it; \
         make it durable(), or leave that out"
    )]
    NotDurable(String),
    /// To be submitted again, an event must have failed.
    #[error("no event {0} is kept that has failed")]
    NotFailed(EventId),
    /// The event names a webhook that may not be called.
    #[error("the webhook can't be called: {0}")]
    Webhook(String),
    /// An idempotency key that stands for another input already.
    #[error(
        "idempotency key {0:?} was used with another input; take another key for another event"
    )]
    KeyReused(String),
    /// The journal could not be read.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The listener takes or gives another type.
    #[error("listener {listener:?} {takes_or_gives} {expected}, not {given}")]
    WrongType {
        /// The listener's name.
        listener: String,
        /// "takes" or "gives".
        takes_or_gives: &'static str,
        /// The type of the declaration.
        expected: &'static str,
        /// The type of the call.
        given: &'static str,
    },
}

/// Why a call gave no result.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// The event never entered the wait queue.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The handler returned an error or panicked.
    #[error("{0}")]
    Failed(Failure),
    /// The event was cancelled.
    #[error("the event was cancelled")]
    Cancelled,
    /// The event waited longer than its `queue_timeout` or ran longer than its `time_limit`.
    #[error("the event timed out")]
    TimedOut,
    /// The queue was stopped before the event ended.
    #[error("the queue was stopped")]
    Stopped,
    /// The handler gave a stream that ended without an item.
    #[error("the listener ended without a value")]
    NoOutput,
    /// The result was requested as another type than the listener's.
    #[error("the result is no {0}")]
    WrongOutput(&'static str),
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        CallError::Submit(SubmitError::Refused(refusal))
    }
}

/// Why [`Queue::acquire`](crate::Queue::acquire) gave no permit.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum AcquireError {
    /// It was not admitted to the wait queue, or the queue was stopped while it waited.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no such concurrency id.
    #[error("no concurrency id is named {0:?}")]
    UnknownConcurrencyId(String),
    /// A handler asks for a slot that only itself could free, or those that wait for it.
    #[error(
        "this permit would be waited for for ever: the handler that asks for it, with those that wait \
         for that handler, holds every slot of concurrency id {concurrency_id:?} (limit {slots})"
    )]
    WaitsForItself {
        /// The concurrency id.
        concurrency_id: String,
        /// Its limit.
        slots: usize,
    },
}

/// Why a running queue could not be changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ControlError {
    /// No listener uses this concurrency id.
    #[error("no concurrency id is named {0:?}")]
    UnknownConcurrencyId(String),
    /// No listener has this name.
    #[error("no listener is named {0:?}")]
    UnknownListener(String),
    /// A limit of 0 would never run anything.
    #[error("a concurrency limit of 0 runs nothing; pause the id instead")]
    ZeroLimit,
    /// A resource is built per slot, so that there must be a number of slots.
    #[error("concurrency id {0:?} builds a resource per slot and can't be {limit}", limit = Limit::Unlimited)]
    ResourceWithoutLimit(String),
    /// The queue was stopped.
    #[error("the queue is stopped")]
    Stopped,
    /// It could not be done.
    #[error("it could not be done: {0}")]
    NotDone(String),
    /// It is done and holds in this process, but isn't on record: it is recorded as soon as that is possible.
    #[error("it is done, but a later process wouldn't know of it yet: {0}")]
    NotRecorded(JournalError),
}

impl ControlError {
    /// Whether it is for want of room on the disk.
    pub(crate) fn is_disk_full(&self) -> bool {
        matches!(self, ControlError::NotRecorded(JournalError::Full))
    }
}

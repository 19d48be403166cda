//! The builder: resolves every limit before the first event, refuses contradictions, and starts
//! the actors.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, System};

use super::error::StartError;
use super::listener::Listener;
use super::listener_ref::ListenerRef;
use super::plan::{ArbiterThread, Plan};
use super::{ConcurrencyId, Inner, Queue, validate};
use crate::actors::gauges::Gauges;
use crate::actors::listener::ListenerActor;
use crate::actors::supervisor::Supervisor;
use crate::actors::watchdog::Watchdog;
use crate::actors::worker_config::{WorkerConfig, WorkerListener};
use crate::actors::{Capacity, watchdog};
use crate::handler::outside::Outside;
use crate::handler::slot_resource::{Factory, SlotResource};
use crate::handler::threads::Threads;
use crate::handler::validator::Validator;
use crate::logging::{info, warn};
use crate::scheduler::limit::{Limit, merge};
use crate::scheduler::rules::{BatchRules, ListenerRules, ResourceRules, Rules};

/// Declares a [`Queue`]: its listeners and its limits. From [`Queue::builder`].
#[must_use = "nothing runs before start()"]
#[derive(Default)]
pub struct QueueBuilder {
    pub(crate) listeners: Vec<Listener>,
    pub(crate) declared: Vec<(String, Limit)>,
    factories: Vec<(String, Factory)>,
    default_limit: Option<Limit>,
    pub(crate) max_size: Option<usize>,
    max_eta: Option<Duration>,
    arbiters: Option<usize>,
    watchdog: Option<Duration>,
    #[cfg(feature = "web")]
    pub(crate) web: crate::web::options::Options,
}

impl QueueBuilder {
    /// Adds a listener. Over HTTP, listeners are numbered in the order in which they are added.
    pub fn listener(mut self, listener: Listener) -> Self {
        self.listeners.push(listener);
        self
    }

    /// The limit of listeners that declare none: a number of 1 or more, or `None` for unlimited.
    ///
    /// When not said, the environment variable `NOW_SERVING_DEFAULT_CONCURRENCY_LIMIT` holds (a
    /// number, or `none`), and without that, 1. As Gradio's `default_concurrency_limit`.
    pub fn default_concurrency_limit(mut self, limit: impl Into<Limit>) -> Self {
        self.default_limit = Some(limit.into());
        self
    }

    /// Declares a concurrency id with an explicit limit of its own: for a gate that no listener
    /// shares, or to say the limit in one place. Counts as one more declaration beside those of the
    /// listeners.
    pub fn concurrency_id(mut self, id: impl Into<String>, limit: impl Into<Limit>) -> Self {
        self.declared.push((id.into(), limit.into()));
        self
    }

    /// Builds a resource for each slot of a concurrency id: a model on GPU `slot`, a connection, a
    /// child process. Handlers take it as [`Slot<R>`](crate::Slot).
    ///
    /// Short for [`QueueBuilder::slot_resource`] with [`SlotResource::new`].
    ///
    /// ```
    /// # use now_serving::{Listener, Queue, Slot};
    /// # struct Gpu;
    /// # impl Gpu { async fn open(_: usize) -> Result<Gpu, String> { Ok(Gpu) } }
    /// # async fn paint(prompt: String, _: Slot<Gpu>) -> Result<String, String> { Ok(prompt) }
    /// Queue::builder()
    ///     .listener(Listener::new("paint", paint).concurrency_id("gpu_queue").concurrency_limit(2))
    ///     .slots("gpu_queue", |slot| async move { Gpu::open(slot).await })
    /// # ;
    /// ```
    pub fn slots<F, Fut, R, E>(self, concurrency_id: impl Into<String>, build: F) -> Self
    where
        F: Fn(usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + 'static,
        R: 'static,
        E: fmt::Display,
    {
        self.slot_resource(concurrency_id, SlotResource::new(build))
    }

    /// Gives each slot of a concurrency id a resource of its own, and says how it is built, checked,
    /// made clean again and closed: see [`SlotResource`].
    ///
    /// Each slot's worker builds its own before it takes events. As many slots as the limit says are
    /// opened at the start, at most 64, and stay open; further ones open as events need them and
    /// close when idle for a minute. At most 16 slots of an id are opened at once.
    pub fn slot_resource<R: 'static>(
        mut self,
        concurrency_id: impl Into<String>,
        resource: SlotResource<R>,
    ) -> Self {
        self.factories.push((concurrency_id.into(), resource.into()));
        self
    }

    /// The most events that may wait in all lines together, as Gradio's `max_size`. Without, there
    /// is no bound. Callers that wait for room get it first come, first served, whatever their
    /// concurrency id. See also [`Listener::max_size`].
    pub fn max_size(mut self, events: usize) -> Self {
        self.max_size = Some(events);
        self
    }

    /// Refuses an event when its estimated wait is longer than this.
    pub fn max_eta(mut self, wait: Duration) -> Self {
        self.max_eta = Some(wait);
        self
    }

    /// The number of threads that the actors and async handlers run on (default: one a core), beside
    /// those of [`Listener::own_arbiter`]. Each concurrency id stays on one of them. 0 starts no thread: everything runs on the arbiter
    /// that calls [`QueueBuilder::start`].
    pub fn arbiters(mut self, threads: usize) -> Self {
        self.arbiters = Some(threads);
        self
    }

    /// How long a handler may keep its thread without awaiting before a warning names it in the log
    /// (default: one second; zero for no such watch). Blocking handlers have threads of their own
    /// and are not concerned.
    pub fn watchdog(mut self, patience: Duration) -> Self {
        self.watchdog = Some(patience);
        self
    }

    /// Resolves every limit, starts the actors and gives the queue.
    ///
    /// # Errors
    /// When declarations contradict each other, naming the listener; when no actix system runs on
    /// this thread.
    pub fn start(self) -> Result<Queue, StartError> {
        let default = match self.default_limit {
            Some(limit) => limit,
            None => limit_from_environment()?,
        };
        validate::check(&self, default)?;
        let plans = self.plan(default)?;
        if System::try_current().is_none() {
            return Err(StartError::NoSystem);
        }
        let own = |plan: &Plan| plan.members.iter().any(|&m| self.listeners[m].own_arbiter);
        let shared = plans.iter().filter(|plan| !own(plan)).count();
        let threads = self.arbiters.unwrap_or_else(cores).min(shared);
        let mut arbiters: Vec<Arbiter> = (0..threads).map(|_| Arbiter::new()).collect();
        let place = |handle| ArbiterThread { handle, pulse: Arc::default() };
        let mut places: Vec<ArbiterThread> =
            arbiters.iter().map(Arbiter::handle).map(place).collect();
        if places.is_empty() {
            places.push(place(Arbiter::current()));
        }
        let pooled = places.len();
        #[cfg(feature = "web")]
        let files = self.web.files()?;
        let outside = Outside::default();
        let threads = Arc::new(Threads::new(outside.clone()));
        let capacity = self.max_size.map(|max| Arc::new(Capacity::new(max)));
        let mut ids = Vec::new();
        let mut entries: Vec<Option<Arc<ListenerRef>>> =
            self.listeners.iter().map(|_| None).collect();
        let mut next = 0..;
        for plan in plans {
            let at = if own(&plan) {
                arbiters.push(Arbiter::new());
                places.extend(arbiters.last().map(Arbiter::handle).map(place));
                places.len() - 1
            } else {
                next.next().unwrap_or_default() % pooled
            };
            let ArbiterThread { handle: arbiter, pulse } = &places[at];
            info!("{}: limit {}", plan.rules.concurrency_id, plan.rules.limit);
            let Plan { rules, members } = plan;
            let name = rules.concurrency_id.clone();
            let prepared = rules.resource.is_some();
            let served = WorkerConfig {
                concurrency_id: name.clone(),
                listeners: self.served(&members),
                factory: self.factory(&name).cloned(),
                pulse: pulse.clone(),
                threads: threads.clone(),
                #[cfg(feature = "web")]
                files: files.clone(),
            };
            let gauges = Arc::new(Gauges::new(rules.listeners.len()));
            let shared = (gauges.clone(), capacity.clone());
            let supervisor = Supervisor::start_in_arbiter(arbiter, move |_| {
                Supervisor::new(rules, served, shared.0, shared.1)
            });
            let edge = |listener: usize, validator: Option<Validator>| -> Addr<ListenerActor> {
                let supervisor = supervisor.clone().into();
                let (capacity, gauges) = (capacity.clone(), gauges.clone());
                ListenerActor::start_in_arbiter(arbiter, move |_| {
                    ListenerActor::new(listener, supervisor, validator, capacity, gauges)
                })
            };
            for (number, &member) in members.iter().enumerate() {
                let listener = &self.listeners[member];
                entries[member] = Some(Arc::new(ListenerRef {
                    api_name: listener.api_name.clone(),
                    input: listener.input,
                    output: listener.output,
                    options: listener.options(),
                    address: edge(number, listener.validator.clone()),
                }));
            }
            ids.push(ConcurrencyId { name, prepared, supervisor, gauges });
        }
        #[cfg(feature = "web")]
        let web = crate::web::state::Web::new(
            entries.iter().flatten(),
            self.web,
            files,
            &places[0].handle,
        );
        let listeners: Vec<_> = entries.into_iter().flatten().collect();
        let names = listeners.iter().map(|listener| listener.api_name.clone()).collect();
        let pulses: Vec<_> = places.into_iter().map(|place| place.pulse).collect();
        let patience = self.watchdog.unwrap_or(watchdog::PATIENCE);
        let watchdog = (!patience.is_zero()).then(|| Watchdog::start(&pulses, names, patience));
        Ok(Queue::new(Inner {
            _watchdog: watchdog.flatten(),
            by_name: Inner::numbered(&listeners),
            #[cfg(feature = "web")]
            web,
            listeners,
            ids,
            outside,
            arbiters,
        }))
    }

    /// The listeners of each concurrency id, and the rules that they agree on.
    fn plan(&self, default: Limit) -> Result<Vec<Plan>, StartError> {
        let mut members: Vec<(Arc<str>, Vec<usize>)> = Vec::new();
        let mut found: HashMap<Arc<str>, usize> = HashMap::new();
        for (index, listener) in self.listeners.iter().enumerate() {
            // A listener of its own id gets one that no declared id can be: declared ids are
            // looked up apart from it.
            let id: Arc<str> = match &listener.concurrency_id {
                Some(id) => id.as_str().into(),
                None => listener.api_name.clone(),
            };
            let at = *found.entry(id.clone()).or_insert_with(|| {
                members.push((id, Vec::new()));
                members.len() - 1
            });
            members[at].1.push(index);
        }
        for (id, _) in &self.declared {
            let id: Arc<str> = id.as_str().into();
            found.entry(id.clone()).or_insert_with(|| {
                members.push((id, Vec::new()));
                members.len() - 1
            });
        }
        if let Some((id, _)) = self.factories.iter().find(|(id, _)| !found.contains_key(&**id)) {
            return Err(StartError::UnknownConcurrencyId { what: "slots()", id: id.clone() });
        }
        let mut built = HashSet::new();
        if let Some((id, _)) = self.factories.iter().find(|(id, _)| !built.insert(id)) {
            return Err(StartError::DuplicateSlots(id.clone()));
        }
        members.into_iter().map(|(id, members)| self.plan_one(id, members, default)).collect()
    }

    fn plan_one(
        &self,
        id: Arc<str>,
        members: Vec<usize>,
        default: Limit,
    ) -> Result<Plan, StartError> {
        let listeners: Vec<&Listener> = members.iter().map(|&m| &self.listeners[m]).collect();
        let unqueued = listeners.iter().find(|listener| !listener.queued);
        let alone = listeners.len() == 1 && !self.declared.iter().any(|(name, _)| **name == *id);
        if let Some(listener) = unqueued.filter(|_| !alone) {
            return Err(StartError::Unqueued {
                listener: listener.api_name.to_string(),
                option: format!("others on its concurrency id {id:?}"),
            });
        }
        let default = if unqueued.is_some() { Limit::Unlimited } else { default };
        let declared = self.declared.iter().filter(|(name, _)| **name == *id);
        let declarations = listeners.iter().map(|l| l.limit).chain(declared.map(|(_, l)| Some(*l)));
        let merged = merge(declarations, default);
        if merged.conflict {
            warn!("{id}: several limits are declared; the lowest, {}, holds", merged.limit);
        }
        let factory = self.factory(&id);
        for listener in &listeners {
            for need in &listener.needs {
                if factory.is_none_or(|factory| factory.built.id != need.id) {
                    return Err(StartError::WrongResource {
                        listener: listener.api_name.to_string(),
                        id: id.to_string(),
                        wanted: format!("a Slot<{}>", need.name),
                        has: factory.map_or("builds none; see slots()".into(), |factory| {
                            format!("builds a {}", factory.built.name)
                        }),
                    });
                }
            }
        }
        if factory.is_some() && merged.limit == Limit::Unlimited {
            let names: Vec<_> = listeners.iter().map(|l| format!("{:?}", l.api_name)).collect();
            return Err(StartError::ResourceWithoutLimit {
                id: id.to_string(),
                listener: format!("listener {}", names.join(", ")),
            });
        }
        let rules: Vec<ListenerRules> = listeners
            .iter()
            .map(|listener| ListenerRules {
                api_name: listener.api_name.clone(),
                batch: listener
                    .batch
                    .map(|batch| BatchRules { max_wait: bounded(batch.max_wait), ..batch }),
                time_limit: listener.time_limit.map(bounded),
                queue_timeout: listener.queue_timeout.map(bounded),
            })
            .collect();
        Ok(Plan {
            rules: Rules {
                concurrency_id: id,
                limit: merged.limit,
                max_size: listeners.iter().filter_map(|l| l.max_size).min(),
                max_eta: self.max_eta,
                resource: factory
                    .map(|factory| ResourceRules::new(merged.limit, factory.unavailable_after)),
                listeners: rules,
                queue_max_size: self.max_size,
            },
            members,
        })
    }

    fn factory(&self, id: &str) -> Option<&Factory> {
        self.factories.iter().find(|(name, _)| name == id).map(|(_, factory)| factory)
    }

    fn served(&self, members: &[usize]) -> Vec<WorkerListener> {
        members
            .iter()
            .map(|&member| WorkerListener {
                api_name: self.listeners[member].api_name.clone(),
                number: u16::try_from(member).unwrap_or(u16::MAX),
                start: self.listeners[member].start.clone(),
                takes_slot: !self.listeners[member].needs.is_empty(),
            })
            .collect()
    }
}

impl fmt::Debug for QueueBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueBuilder").field("listeners", &self.listeners).finish_non_exhaustive()
    }
}

/// A duration that can be added to any moment.
fn bounded(time: Duration) -> Duration {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
    time.min(CENTURY)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

fn limit_from_environment() -> Result<Limit, StartError> {
    match std::env::var("NOW_SERVING_DEFAULT_CONCURRENCY_LIMIT") {
        Err(std::env::VarError::NotPresent) => Ok(Limit::Slots(1)),
        Err(std::env::VarError::NotUnicode(text)) => {
            Err(StartError::BadEnvironment(text.to_string_lossy().into()))
        }
        Ok(text) => parse_limit(&text).ok_or(StartError::BadEnvironment(text)),
    }
}

fn parse_limit(text: &str) -> Option<Limit> {
    if text.trim().eq_ignore_ascii_case("none") {
        return Some(Limit::Unlimited);
    }
    text.trim().parse().ok().filter(|&slots| slots > 0).map(Limit::Slots)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_a_number_or_none() {
        assert_eq!(parse_limit("3"), Some(Limit::Slots(3)));
        assert_eq!(parse_limit(" None "), Some(Limit::Unlimited));
        for text in ["", "0", "-1", "many", "1.5"] {
            assert_eq!(parse_limit(text), None, "{text}");
        }
    }
}

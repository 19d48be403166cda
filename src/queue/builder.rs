//! The builder: declares a queue, and starts its actors.

use std::collections::BTreeMap;
use std::fmt;
use std::mem::take;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use actix::{Actor, Addr, Arbiter, System};

use super::background::{Background, RESULT_TTL, forget_old_ends};
use super::blueprint::{Blueprint, is_of_line};
use super::declarations::Declarations;
#[cfg(feature = "cluster")]
use super::elsewhere::Elsewhere;
use super::elsewhere::of_runs_placed_here;
use super::error::StartError;
use super::listener::Listener;
use super::listener_ref::ListenerRef;
use super::live_events::LiveEvents;
use super::plan::{Placement, Plan};
use super::recovery::recover;
use super::{ConcurrencyId, Inner, Queue, plan, spelling, validate};
use crate::actors::arbiter_thread::ArbiterThread;
use crate::actors::gauges::Gauges;
use crate::actors::listener::ListenerActor;
use crate::actors::supervisor::Supervisor;
use crate::actors::watchdog::Watchdog;
use crate::actors::worker_config::WorkerConfig;
use crate::actors::{Capacity, watchdog};
use crate::handler::data::Data;
use crate::handler::extensions::Extensions;
use crate::handler::needs::NamedType;
use crate::handler::nesting::IdSlots;
use crate::handler::outside::Outside;
use crate::handler::slot_resource::SlotResource;
use crate::handler::threads::Threads;
use crate::handler::validator::Validator;
use crate::logging::info;
use crate::scheduler::limit::Limit;

/// Declares a [`Queue`]: its listeners and its limits. From [`Queue::builder`].
#[must_use = "nothing runs before start()"]
#[derive(Default)]
pub struct QueueBuilder {
    declared: Declarations,
    on_start: Vec<OnStart>,
}

/// What those above the core do when the queue has started.
type OnStart = Box<dyn FnOnce(&Queue) -> Result<(), StartError> + Send>;

/// Among a queue's extensions: what begins where its line is kept, each time that begins to be kept there.
#[cfg_attr(not(feature = "cluster"), allow(dead_code))]
pub(crate) struct StartOnLine(pub Box<dyn Fn(&Queue) + Send + Sync>);

impl Queue {
    /// Starts declaring a queue.
    pub fn builder() -> QueueBuilder {
        QueueBuilder::default()
    }
}

impl QueueBuilder {
    #[cfg(feature = "cluster")]
    pub(crate) fn of(declared: Declarations) -> Self {
        QueueBuilder { declared, on_start: Vec::new() }
    }

    /// Its events wait elsewhere.
    #[cfg(feature = "cluster")]
    pub(crate) fn elsewhere(mut self, elsewhere: Arc<dyn Elsewhere>) -> Self {
        self.declared.elsewhere = Some(elsewhere);
        self
    }

    /// Adds a listener. Over HTTP, listeners are numbered in the order in which they are added.
    pub fn listener<I, O>(mut self, listener: Listener<I, O>) -> Self {
        self.declared.listeners.push(listener.into_declared());
        self
    }

    /// The limit of listeners that declare none: a number of 1 or more, or `None` for unlimited.
    ///
    /// By default, the environment variable `NOW_SERVING_DEFAULT_CONCURRENCY_LIMIT` holds (a
    /// number, or `none`), and without that, 1. As Gradio's `default_concurrency_limit`.
    pub fn default_concurrency_limit(mut self, limit: impl Into<Limit>) -> Self {
        self.declared.default_limit = Some(limit.into());
        self
    }

    /// Declares the limit of a concurrency id in one place. Counts as one more declaration beside those of
    /// its listeners; where there are listeners, one of them must have the id, so that a slip doesn't
    /// leave the limit unsaid. An id for gates and permits alone is declared by
    /// [`QueueBuilder::permits`].
    pub fn concurrency_id(mut self, id: impl Into<String>, limit: impl Into<Limit>) -> Self {
        self.declared.limits.push((id.into(), limit.into()));
        self
    }

    /// Declares a concurrency id that needs no listener, for `Web::gate` and [`Queue::acquire`]. A listener
    /// may have it as well.
    ///
    /// ```
    /// use now_serving::{Listener, Queue};
    ///
    /// # actix::System::new().block_on(async {
    /// let queue = Queue::builder()
    ///     .permits("render", 2)
    ///     .listener(Listener::new("echo", async |text: String| Ok::<_, String>(text)))
    ///     .start()
    ///     .unwrap();
    /// let permit = queue.acquire("render").await.unwrap();
    /// # drop(permit);
    /// # });
    /// ```
    pub fn permits(mut self, id: impl Into<String>, limit: impl Into<Limit>) -> Self {
        let id = id.into();
        self.declared.permits.push(id.clone());
        self.declared.limits.push((id, limit.into()));
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

    /// Gives each slot of a concurrency id a resource of its own, and defines how it is built,
    /// checked, made clean again and closed: see [`SlotResource`].
    ///
    /// Each slot's worker builds its own before it takes events. As many slots as the limit, but at
    /// most 64, are opened at the start and stay open; further ones open as events need them and
    /// close when idle for a minute. At most 16 slots of an id are opened at once.
    pub fn slot_resource<R: 'static>(
        mut self,
        concurrency_id: impl Into<String>,
        resource: SlotResource<R>,
    ) -> Self {
        self.declared.factories.push((concurrency_id.into(), resource.into()));
        self
    }

    /// Gives all handlers a value, one of each type: they take it as [`Data<T>`](Data). What is
    /// behind an [`Arc`] already is shared as `Data<Arc<T>>`.
    pub fn data<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        self.declared.data_types.push(NamedType::of::<T>());
        self.declared.data.insert(Data::new(value));
        self
    }

    /// The maximum of waiting events in all wait queues together, as Gradio's `max_size`. Without,
    /// there is no bound. Callers that wait for room get it first come, first served, whatever
    /// their concurrency id. See also [`Listener::max_size`].
    pub fn max_size(mut self, events: usize) -> Self {
        self.declared.max_size = Some(events);
        self
    }

    /// Refuses an event when its estimated wait is longer than this.
    pub fn max_eta(mut self, wait: Duration) -> Self {
        self.declared.max_eta = Some(wait);
        self
    }

    /// Records the events of [durable](crate::Listener::durable) listeners, so that they outlive the
    /// process. What an earlier process has left in it goes on when the queue starts.
    #[cfg(any(feature = "journal", feature = "cluster"))]
    pub fn journal(mut self, journal: impl Into<crate::journal::handle::AnyJournal>) -> Self {
        self.declared.journal = Some(journal.into().0);
        self
    }

    #[cfg(test)]
    pub(crate) fn test_journal(mut self, journal: Arc<dyn crate::journal::Journal>) -> Self {
        self.declared.journal = Some(journal);
        self
    }

    /// Gives those above the core something of theirs before the queue starts.
    pub(crate) fn extend<T: Send + Sync + 'static>(self, value: T) -> Self {
        self.declared.data.insert(value);
        self
    }

    /// Lets those above the core do something when the queue has started, or refuse to.
    pub(crate) fn on_start(mut self, act: OnStart) -> Self {
        self.on_start.push(act);
        self
    }

    /// How long the end of a durable event is kept in the journal, to be asked for (default: a day).
    pub fn result_ttl(mut self, ttl: Duration) -> Self {
        self.declared.result_ttl = Some(ttl);
        self
    }

    /// The number of threads that the actors and async handlers run on (default: one a core), beside
    /// those of [`Listener::own_arbiter`]. Each concurrency id stays on one of them; those with
    /// [`Listener::spread`] have as many threads again for their handlers, together. 0 starts no such
    /// thread: everything runs on the arbiter that calls [`QueueBuilder::start`].
    pub fn arbiters(mut self, threads: usize) -> Self {
        self.declared.arbiters = Some(threads);
        self
    }

    /// How long a handler may keep its thread without awaiting before a warning names it in the log
    /// (default: one second; zero for no such watch). Blocking handlers have threads of their own
    /// and are not concerned.
    pub fn watchdog(mut self, turn_timeout: Duration) -> Self {
        self.declared.watchdog = Some(turn_timeout);
        self
    }

    /// Resolves every limit, starts the actors and gives the queue.
    ///
    /// # Errors
    /// When declarations contradict each other, naming the listener; when no actix system runs on
    /// this thread.
    pub fn start(mut self) -> Result<Queue, StartError> {
        let default = match self.declared.default_limit {
            Some(limit) => limit,
            None => plan::limit_from_environment()?,
        };
        validate::check(&self.declared, default)?;
        let plans = plan::plan(&self.declared, default)?;
        let elsewhere = self.declared.elsewhere.take();
        let mut blueprint =
            elsewhere.as_ref().map(|_| Blueprint::of(&self.declared, &plans, default));
        let no_slots = BTreeMap::new();
        let slots_here = elsewhere.as_ref().map_or(&no_slots, |it| it.slots_here());
        if let Some(blueprint) = &mut blueprint {
            for (id, slots) in slots_here {
                if !blueprint.ids.contains(id) {
                    let near = spelling::nearest(id, blueprint.ids.iter().map(|id| &**id));
                    let (what, near) = ("Cluster::slots()", near.map(String::from));
                    let id = id.to_string();
                    return Err(StartError::UnknownConcurrencyId { what, id, near });
                }
                blueprint.slots.insert(id.clone(), *slots);
            }
        }
        let mut recovery = recover(&self.declared, &plans)?;
        if System::try_current().is_none() {
            return Err(StartError::NoSystem);
        }
        // What the layers above the core declared for each listener.
        let listeners = &mut self.declared.listeners;
        let mut extensions_of: Vec<Extensions> =
            listeners.iter_mut().map(|listener| take(&mut listener.extensions)).collect();
        let shared = plans.iter().filter(|plan| plan.placement != Placement::Own).count();
        let spreads = plans.iter().any(|plan| plan.placement == Placement::Spread);
        let threads = self.declared.arbiters.unwrap_or_else(plan::cores);
        let mut arbiters = Vec::new();
        let mut pool = start_threads(threads.min(shared), &mut arbiters);
        if pool.is_empty() {
            pool.push(ArbiterThread::new(Arbiter::current()));
        }
        let pooled = pool.len();
        // Apart from the pool: what computes there would keep supervisors from starting anything else.
        let mut spread = start_threads(if spreads { threads } else { 0 }, &mut arbiters);
        let mut pulses: Vec<_> = spread.iter().map(|thread| thread.pulse.clone()).collect();
        let extensions = Arc::new(take(&mut self.declared.data));
        extensions.insert(Background(pool[0].handle.clone()));
        if let Some(blueprint) = blueprint {
            extensions.insert(blueprint);
        }
        let outside = Outside::default();
        let threads = Arc::new(Threads::new(outside.clone()));
        let capacity = self.declared.max_size.map(|max| Arc::new(Capacity::new(max)));
        let mut ids = Vec::new();
        let mut entries: Vec<Option<Arc<ListenerRef>>> =
            self.declared.listeners.iter().map(|_| None).collect();
        let live = Arc::new(LiveEvents::default());
        let mut next = 0..;
        for plan in plans {
            let at = if plan.placement == Placement::Own {
                pool.extend(start_threads(1, &mut arbiters));
                pool.len() - 1
            } else {
                next.next().unwrap_or_default() % pooled
            };
            let ArbiterThread { handle: arbiter, pulse } = &pool[at];
            info!("{}: limit {}", plan.rules.concurrency_id, plan.rules.limit);
            let line = elsewhere.as_ref().filter(|_| is_of_line(&self.declared, &plan));
            let Plan { rules, members, placement } = plan;
            let declared_slots = rules.limit.slots();
            let rules = match line.is_some() {
                true => {
                    let slots = slots_here.get(&rules.concurrency_id).copied();
                    of_runs_placed_here(rules, slots)
                }
                false => rules,
            };
            let name = rules.concurrency_id.clone();
            let prepared = rules.resource.is_some();
            let slots = Arc::new(IdSlots::new(name.clone(), declared_slots));
            let config = WorkerConfig {
                concurrency_id: name.clone(),
                slots: slots.clone(),
                listeners: plan::worker_listeners(
                    &self.declared,
                    &extensions,
                    &members,
                    line.is_none(),
                ),
                factory: self.declared.factory(&name).cloned(),
                pulse: pulse.clone(),
                spread: if placement == Placement::Spread { spread.clone() } else { Vec::new() },
                threads: threads.clone(),
                extensions: extensions.clone(),
            };
            if !config.spread.is_empty() {
                // The next id's first slot comes after the last of this one.
                spread.rotate_left(declared_slots % config.spread.len());
            }
            let gauges = Arc::new(Gauges::new(rules.listeners.len()));
            let shared = (gauges.clone(), capacity.clone().filter(|_| line.is_none()));
            let recovered = recovery.of_id(&name);
            let supervisor = Supervisor::start_in_arbiter(arbiter, move |_| {
                Supervisor::new(rules, config, shared.0, shared.1, recovered)
            });
            let is_elsewhere = line.is_some();
            let line = line.map(|elsewhere| elsewhere.line(arbiter, &name));
            let edge = |listener: usize, validator: Option<Validator>| -> Addr<ListenerActor> {
                let supervisor = line.clone().unwrap_or_else(|| supervisor.clone().into());
                let capacity = capacity.as_ref().filter(|_| !is_elsewhere);
                let (capacity, gauges) = (capacity.cloned(), gauges.clone());
                ListenerActor::start_in_arbiter(arbiter, move |_| {
                    ListenerActor::new(listener, supervisor, validator, capacity, gauges)
                })
            };
            for (number, &member) in members.iter().enumerate() {
                let listener = &self.declared.listeners[member];
                entries[member] = Some(Arc::new(ListenerRef {
                    api_name: listener.api_name.clone(),
                    input: listener.input,
                    output: listener.output,
                    options: listener.options(),
                    extensions: take(&mut extensions_of[member]),
                    slots: slots.clone(),
                    durability: listener.durability(&extensions),
                    keyed: recovery.keyed(member),
                    live: live.clone(),
                    address: edge(number, listener.validator.clone()),
                }));
            }
            ids.push(ConcurrencyId { name, prepared, is_elsewhere, supervisor, slots, gauges });
        }
        let listeners: Vec<_> = entries.into_iter().flatten().collect();
        let names = listeners.iter().map(|listener| listener.api_name.clone()).collect();
        pulses.extend(pool.into_iter().map(|thread| thread.pulse));
        let turn_timeout = self.declared.watchdog.unwrap_or(watchdog::TURN_TIMEOUT);
        let watchdog =
            (!turn_timeout.is_zero()).then(|| Watchdog::start(&pulses, names, turn_timeout));
        let queue = Queue::new(Inner {
            _watchdog: watchdog.flatten(),
            elsewhere,
            extensions,
            by_name: Inner::numbered(&listeners),
            listeners,
            ids,
            outside,
            stopped: AtomicBool::new(false),
            arbiters,
            journal: self.declared.journal.take(),
            result_ttl: self.declared.result_ttl.unwrap_or(RESULT_TTL),
            live,
            left: recovery.left,
        });
        if (queue.inner.journal.is_some() || queue.inner.elsewhere.is_some())
            && let Some(Background(arbiter)) = queue.inner.extensions.get()
        {
            forget_old_ends(arbiter, Arc::downgrade(&queue.inner), queue.inner.result_ttl);
        }
        for on_start in self.on_start {
            on_start(&queue)?;
        }
        Ok(queue.for_its_handlers())
    }
}

/// Starts as many threads. Their arbiters are kept to be stopped.
fn start_threads(threads: usize, arbiters: &mut Vec<Arbiter>) -> Vec<ArbiterThread> {
    let started = arbiters.len();
    arbiters.extend((0..threads).map(|_| Arbiter::new()));
    arbiters[started..].iter().map(Arbiter::handle).map(ArbiterThread::new).collect()
}

impl fmt::Debug for QueueBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueBuilder")
            .field("listeners", &self.declared.listeners)
            .finish_non_exhaustive()
    }
}

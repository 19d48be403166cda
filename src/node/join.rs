//! Joining a cluster, and what a queue then asks of it.

use std::any::Any;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use actix::{Actor, Arbiter, ArbiterHandle};
use async_nats::jetstream::stream::StorageType;
use futures::FutureExt;
use futures::future::{BoxFuture, LocalBoxFuture};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::agent::{Agent, TICK};
use super::bring;
use super::deliver::Deliver;
use super::forwarder::Forwarder;
use super::front::Front;
use super::input::{Input, Listener};
use super::keeping::Claiming;
use super::runs::Runs;
use super::wire::{Acquire, Answer, Control as SetControl, GoesOn, Question};
use crate::actors::listener::SupervisorRef;
use crate::actors::messages::Control;
use crate::clock;
use crate::cluster::bucket::{Away, Bucket};
use crate::cluster::handle::ClusterHandle;
use crate::cluster::homes::Homes;
use crate::cluster::message::{Process, Slots, Times};
use crate::event::id::EventId;
use crate::event::refusal::Refusal;
use crate::journal::Query;
use crate::journal::error::JournalError;
use crate::journal::jetstream::{ConnectNats, escape};
use crate::journal::record::Kept;
use crate::logging::debug;
use crate::queue::blueprint::Blueprint;
use crate::queue::builder::QueueBuilder;
use crate::queue::elsewhere::{Elsewhere, KeyedElsewhere};
use crate::queue::error::ControlError;
use crate::queue::keyed::UserKey;
use crate::queue::snapshot::QueueSnapshot;
use crate::queue::{Inner, Queue};

/// How long joining may take, once a server is connected.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long after a failure it is tried again.
const AGAIN: Duration = Duration::from_millis(250);

/// A cluster that this process has joined as a node, for [`QueueBuilder::cluster`](crate::QueueBuilder::cluster).
/// From [`ConnectNats::join`](crate::ConnectNats::join).
pub struct Cluster {
    handle: Arc<ClusterHandle>,
    connect: ConnectNats,
    salt: [u8; 32],
    slots: BTreeMap<Arc<str>, usize>,
}

impl Cluster {
    /// How many runs of a concurrency id this node takes at once; by default as many as its limit says. 0 for a
    /// node that is to run none of it. Where the slots own a resource ([`QueueBuilder::slots`]), so many are built
    /// here. The limit is that of the whole cluster, which runs as many as its nodes take together, and never
    /// more than the limit.
    ///
    /// ```no_run
    /// # use now_serving::{Listener, Nats, Queue, Slot};
    /// # struct Gpu;
    /// # impl Gpu { async fn open(_: usize) -> Result<Gpu, String> { Ok(Gpu) } }
    /// # async fn paint(prompt: String, _: Slot<Gpu>) -> Result<String, String> { Ok(prompt) }
    /// # async fn join() -> Result<(), Box<dyn std::error::Error>> {
    /// // Each machine has one GPU; four machines paint four pictures at once.
    /// let cluster = Nats::connect("nats://10.0.0.1").name("studio").join("node-1").await?;
    /// let queue = Queue::builder()
    ///     .cluster(cluster.slots("gpu_queue", 1))
    ///     .listener(
    ///         Listener::new("paint", paint).durable().concurrency_id("gpu_queue").concurrency_limit(64),
    ///     )
    ///     .slots("gpu_queue", |slot| async move { Gpu::open(slot).await })
    ///     .start()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn slots(mut self, concurrency_id: impl Into<Arc<str>>, slots: usize) -> Self {
        self.slots.insert(concurrency_id.into(), slots);
        self
    }
}

impl ConnectNats {
    /// Joins the cluster of this name as a node. Each process that runs at the same time has a node name of its
    /// own, and keeps it over its restarts: of two processes of one name, the one that joined first takes no
    /// more runs.
    ///
    /// ```no_run
    /// use now_serving::{Listener, Nats, Queue};
    ///
    /// # async fn join() -> Result<(), Box<dyn std::error::Error>> {
    /// let nats = Nats::connect("nats://10.0.0.1,nats://10.0.0.2,nats://10.0.0.3").name("studio");
    /// let cluster = nats.join("node-1").await?;
    /// let render = async |scene: String| Ok::<_, String>(scene.to_uppercase());
    /// let queue = Queue::builder()
    ///     .cluster(cluster)
    ///     .listener(Listener::new("render", render).durable())
    ///     .start()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// When no server can be reached, none lets this client in, or JetStream isn't there.
    pub async fn join(self, node: impl Into<String>) -> Result<Cluster, JournalError> {
        let (node, token) = (node.into(), escape(&self.name));
        let client = self.client().await?;
        let handle = ClusterHandle::new(
            client.clone(),
            token.clone(),
            Process { node: node.clone().into(), boot: 0 },
        );
        let (boot, salt) = number(Arc::new(handle), &node).await?;
        let process = Process { node: node.into(), boot };
        let handle = Arc::new(ClusterHandle::new(client, token, process));
        let homes = Homes::new(handle.clone());
        patiently(async || homes.prepare().await).await?;
        Ok(Cluster { handle, connect: self, salt, slots: BTreeMap::new() })
    }
}

/// The number of this process, higher than that of any that joined as this node before: by a counter in the
/// cluster, since no clock tells that.
async fn number(handle: Arc<ClusterHandle>, node: &str) -> Result<(u64, [u8; 32]), JournalError> {
    let what = "numbers the processes of nodes";
    let nodes = Bucket::new(handle, "nodes", what, Duration::ZERO, StorageType::File);
    let boot = patiently(async || nodes.put(&escape(node), "joined".into()).await).await?;
    // No node is named so: its name is escaped.
    const SALT: &str = "cluster/salt";
    let salt = async || {
        let new: [u8; 32] = rand::random();
        nodes.create(SALT, new.to_vec().into()).await?;
        let salt = nodes.read(SALT).await?.and_then(|(salt, _)| salt.as_ref().try_into().ok());
        salt.ok_or_else(|| Away("the cluster's salt is gone".into()))
    };
    Ok((boot, patiently(salt).await?))
}

/// Servers that have just started may need some seconds.
async fn patiently<T>(act: impl AsyncFn() -> Result<T, Away>) -> Result<T, JournalError> {
    let until = clock::now() + PATIENCE;
    loop {
        match act().await {
            Ok(done) => return Ok(done),
            Err(why) if clock::now() >= until => return Err(JournalError::Unreachable(why.0)),
            Err(why) => debug!("joining the cluster: {}; it is tried again", why.0),
        }
        tokio::time::sleep(AGAIN).await;
    }
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Cluster").field(&self.handle.process.node).finish()
    }
}

impl QueueBuilder {
    /// Makes the queue one of a cluster: the same queue on several nodes, with one line, one limit for each
    /// concurrency id, and events that outlive a node. All its listeners that queue are
    /// [durable](crate::Listener::durable), and the same on each node.
    ///
    /// What a handler takes of its client ([`State`](crate::State) and what HTTP gives) stays on the node that
    /// the event came to, and so does its run, as long as that node is there.
    pub fn cluster(self, cluster: Cluster) -> Self {
        let (input, inputs) = unbounded_channel();
        let Cluster { handle, connect, salt, slots } = cluster;
        let node = Arc::new(Node {
            handle: handle.clone(),
            connect,
            input,
            salt,
            inputs: Mutex::new(Some(inputs)),
            names: Mutex::default(),
            slots,
            queue: OnceLock::new(),
            threads: OnceLock::new(),
        });
        let starts = node.clone();
        self.extend(handle).elsewhere(node).on_start(Box::new(move |queue| {
            starts.started(queue);
            Ok(())
        }))
    }
}

/// The names of the listeners of a concurrency id, by number.
type Names = Arc<OnceLock<HashMap<usize, Arc<str>>>>;

/// This process' part in the cluster, as its queue knows it.
struct Node {
    handle: Arc<ClusterHandle>,
    connect: ConnectNats,
    input: UnboundedSender<Input>,
    /// The cluster's own, so that nobody else can tell the id of an event from its key.
    salt: [u8; 32],
    /// What comes to the agent, until that is started.
    inputs: Mutex<Option<UnboundedReceiver<Input>>>,
    names: Mutex<HashMap<Arc<str>, Names>>,
    /// How many runs it takes at once, where that is said.
    slots: BTreeMap<Arc<str>, usize>,
    /// Once it has started.
    queue: OnceLock<Weak<Inner>>,
    /// The agent's, and that for values.
    threads: OnceLock<[Arbiter; 2]>,
}

impl Drop for Node {
    fn drop(&mut self) {
        for thread in self.threads.get().into_iter().flatten() {
            thread.stop();
        }
    }
}

impl Node {
    /// The queue has started: what is placed here can run.
    fn started(&self, queue: &Queue) {
        let inputs = self.inputs.lock().unwrap_or_else(PoisonError::into_inner).take();
        let inner = queue.inner();
        let blueprint = inner.extensions.get::<Blueprint>().cloned();
        let Some((inputs, mut blueprint)) = inputs.zip(blueprint) else { return };
        // Once only.
        let _ = self.queue.set(Arc::downgrade(inner));
        let mut listeners = Vec::new();
        let mut names: HashMap<Arc<str>, HashMap<usize, Arc<str>>> = HashMap::new();
        for listener in &blueprint.listeners {
            let (name, id) = (&listener.api_name, &listener.concurrency_id);
            names.entry(id.clone()).or_default().insert(listener.lane, name.clone());
            let supervisor = inner.id(id);
            let durability = inner.listener_ref(name).and_then(|it| it.durability.clone());
            if let Some((id, durability)) = supervisor.zip(durability) {
                let (lane, supervisor) = (listener.lane, id.supervisor.clone());
                listeners.push((name.clone(), Listener { lane, durability, supervisor }));
            }
        }
        for (id, names) in names {
            // Once only.
            let _ = self.names_of(&id).set(names);
        }
        blueprint.extensions = Some(inner.extensions.clone());
        let slots: Slots = blueprint.slots.clone();
        let blueprint = Box::new(blueprint);
        let started = self.input.send(Input::Started { listeners, blueprint });
        debug_assert!(started.is_ok(), "the agent's inputs are here");
        let (thread, values) = (Arbiter::new(), Arbiter::new());
        let (deliver, delivering) = Deliver::new();
        values.spawn(delivering);
        let of_values = values.handle();
        let (handle, connect, input) =
            (self.handle.clone(), self.connect.clone(), self.input.clone());
        thread.spawn(async move {
            let ticks = input.clone();
            actix::spawn(async move {
                let mut tick = tokio::time::interval(TICK);
                tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
                loop {
                    tick.tick().await;
                    if ticks.send(Input::Tick).is_err() {
                        return;
                    }
                }
            });
            let times = Times::default();
            let process = handle.process.clone();
            let runs = Runs::new(times, process, slots, input.clone(), of_values);
            let front = Front::new(deliver);
            Agent::new(handle, times, Claiming::new(connect), front, runs, input).run(inputs).await;
        });
        // Once only.
        let _ = self.threads.set([thread, values]);
    }

    fn ask(&self, question: Question) -> BoxFuture<'static, Result<Answer, String>> {
        let (reply, answer) = oneshot::channel();
        let asked = self.input.send(Input::Ask(question, reply));
        async move {
            let gone = || Err("this node has left the cluster".to_string());
            if asked.is_err() {
                return gone();
            }
            answer.await.unwrap_or_else(|_| gone())
        }
        .boxed()
    }

    fn names_of(&self, id: &Arc<str>) -> Names {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.entry(id.clone()).or_default().clone()
    }

    fn bring(&self, question: Question) -> LocalBoxFuture<'static, Result<(), JournalError>> {
        let (asked, input) = (self.ask(question), self.input.clone());
        let queue = self.queue.get().and_then(Weak::upgrade);
        async move {
            let answer = asked.await.map_err(JournalError::Unreachable)?;
            if let (Answer::Events(events), Some(queue)) = (answer, queue) {
                events.into_iter().for_each(|event: GoesOn| bring::bring(&queue, event, &input));
            }
            Ok(())
        }
        .boxed_local()
    }
}

impl Elsewhere for Node {
    fn line(&self, arbiter: &ArbiterHandle, id: &Arc<str>) -> SupervisorRef {
        let (names, agent) = (self.names_of(id), self.input.clone());
        Forwarder::start_in_arbiter(arbiter, move |_| Forwarder { names, agent }).into()
    }

    fn slots_here(&self) -> &BTreeMap<Arc<str>, usize> {
        &self.slots
    }

    fn snapshot(&self) -> BoxFuture<'static, Option<QueueSnapshot>> {
        let asked = self.ask(Question::Snapshot);
        let snapshot = async move {
            match asked.await {
                Ok(Answer::Snapshot(snapshot)) => Some(*snapshot),
                Ok(_) | Err(_) => None,
            }
        };
        snapshot.boxed()
    }

    fn control(
        &self,
        id: &Arc<str>,
        control: Control,
    ) -> BoxFuture<'static, Result<(), ControlError>> {
        let control = match control {
            Control::Pause => SetControl::Pause,
            Control::Resume => SetControl::Resume,
            Control::SetLimit(limit) => SetControl::SetLimit(limit.into()),
        };
        let asked = self.ask(Question::Control { concurrency_id: id.clone(), control });
        let controlled = async move {
            match asked.await {
                Ok(Answer::Controlled(None)) => Ok(()),
                Ok(Answer::Controlled(Some(why))) => {
                    Err(ControlError::NotRecorded(JournalError::Unreachable(why)))
                }
                Ok(_) => Err(ControlError::Stopped),
                Err(why) => Err(ControlError::NotDone(why)),
            }
        };
        controlled.boxed()
    }

    fn acquire(
        &self,
        id: &Arc<str>,
        label: Arc<str>,
        queue_timeout: Option<Duration>,
    ) -> BoxFuture<'static, Result<(usize, Box<dyn Any + Send>), Refusal>> {
        let (reply, granted) = oneshot::channel();
        let concurrency_id = id.clone();
        let acquire = Acquire { permit: 0, concurrency_id, label, queue_timeout, slot: None };
        let asked = self.input.send(Input::Acquire(acquire, reply));
        let granted = async move {
            if asked.is_err() {
                return Err(Refusal::Stopped);
            }
            let (slot, release) = granted.await.unwrap_or(Err(Refusal::Stopped))?;
            let release: Box<dyn Any + Send> = Box::new(release);
            Ok((slot, release))
        };
        granted.boxed()
    }

    fn keyed_id(&self, listener: &str, (user, key): &UserKey) -> EventId {
        let mut hash = Sha256::new();
        hash.update(self.salt);
        // What has a length of its own can't be taken for something else.
        for part in [Some(listener), user.as_deref(), Some(key)] {
            let length = part.map_or(u64::MAX, |part| part.len() as u64);
            hash.update(length.to_be_bytes());
            hash.update(part.unwrap_or_default());
        }
        let mut bytes = [0; 16];
        bytes.iter_mut().zip(hash.finalize()).for_each(|(byte, hashed)| *byte = hashed);
        EventId::of_bytes(bytes)
    }

    fn keyed(
        &self,
        listener: &Arc<str>,
        (user, key): &UserKey,
    ) -> BoxFuture<'static, Result<Option<KeyedElsewhere>, JournalError>> {
        let (listener, user, key) = (listener.clone(), user.clone(), key.clone());
        let asked = self.ask(Question::Keyed { listener, user, key });
        let keyed = async move {
            match asked.await {
                Ok(Answer::Keyed(keyed)) => Ok(keyed),
                Ok(_) => Ok(None),
                Err(why) => Err(JournalError::Unreachable(why)),
            }
        };
        keyed.boxed()
    }

    fn ends(&self, query: Query) -> BoxFuture<'static, Result<Vec<Kept>, JournalError>> {
        let asked = self.ask(Question::Ends(query));
        let ends = async move {
            match asked.await {
                Ok(Answer::Ends(ends)) => Ok(ends),
                Ok(_) => Ok(Vec::new()),
                Err(why) => Err(JournalError::Unreachable(why)),
            }
        };
        ends.boxed()
    }

    fn fetch(&self, event: EventId) -> LocalBoxFuture<'static, Result<(), JournalError>> {
        self.bring(Question::Event(event))
    }

    fn fetch_session(
        &self,
        user: Option<Arc<str>>,
        session: Arc<str>,
    ) -> LocalBoxFuture<'static, Result<(), JournalError>> {
        self.bring(Question::Session { user, session })
    }

    fn leave(&self, grace: Duration) -> BoxFuture<'static, bool> {
        let (done, is_done) = oneshot::channel();
        let asked = self.input.send(Input::Leave { grace, done });
        async move { asked.is_ok() && is_done.await.unwrap_or(false) }.boxed()
    }
}

//! The promises about durable events, on random histories with crashes: the real queue, on a journal
//! that loses, delays and answers ambiguously, in virtual time and on one thread.
//!
//! What was accepted is on record, has one end, and that end is what its client was told; what must not
//! run twice doesn't; the limit holds; after a crash what waits is in its order, and what an operator
//! set is still set.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures::StreamExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::oneshot;

use crate::event::failure::UserError;
use crate::event::id::EventId;
use crate::event::update::{Outcome, Update};
use crate::handler::backoff::Backoff;
use crate::handler::context::EventContext;
use crate::handler::durable::OnCrash;
use crate::journal::error::JournalError;
use crate::journal::record::{Ended, Kept, Live, Record, Steered};
use crate::journal::{Batch, Done, Journal, Loaded, Query};
use crate::queue::Queue;
use crate::queue::listener::Listener;

const MAX_ATTEMPTS: u32 = 3;

/// What is on disk, and what is on its way there.
#[derive(Default)]
struct Disk {
    live: Vec<Live>,
    ends: Vec<Ended>,
    steered: Option<Steered>,
    /// How many starts of an event are on record.
    starts: HashMap<EventId, u32>,
    on_their_way: VecDeque<(u32, Batch, Done)>,
    /// The process that writes: others that wrote before it are dead.
    process: u32,
    full: bool,
}

impl Disk {
    fn apply(&mut self, batch: &Batch) {
        for record in &batch.records {
            let live = |event: EventId| move |live: &Live| live.admitted.event == event;
            match record {
                Record::Admitted(admitted) => {
                    let admitted = admitted.clone();
                    self.live.push(Live { admitted, attempt: 0, postponed: None });
                }
                Record::Started { event, attempt } => {
                    if let Some(at) = self.live.iter().position(live(*event)) {
                        (self.live[at].attempt, self.live[at].postponed) = (*attempt, None);
                        self.starts.insert(*event, *attempt);
                    }
                }
                Record::Postponed { event, until } => {
                    if let Some(at) = self.live.iter().position(live(*event)) {
                        self.live[at].postponed = Some(*until);
                    }
                }
                Record::Ended(ended) => {
                    if let Some(at) = self.live.iter().position(live(ended.event)) {
                        self.live.remove(at);
                        self.ends.push(ended.clone());
                    }
                }
                Record::Steered(steered) => self.steered = Some(*steered),
            }
        }
    }

    fn is_on_record(&self, event: EventId) -> bool {
        self.live.iter().any(|live| live.admitted.event == event)
            || self.ends.iter().any(|ended| ended.event == event)
    }
}

/// One process' journal on the shared disk.
#[derive(Clone)]
struct StepJournal {
    process: u32,
    disk: Arc<Mutex<Disk>>,
}

impl StepJournal {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }

    /// The disk gets to the next batch: keeps it, or is full.
    fn settle_one(&self) -> bool {
        let (done, result) = {
            let mut disk = self.disk();
            let Some((process, batch, done)) = disk.on_their_way.pop_front() else { return false };
            assert_eq!(process, disk.process, "a dead process wrote");
            if disk.full {
                (done, Err(JournalError::Full))
            } else {
                disk.apply(&batch);
                (done, Ok(()))
            }
        };
        done(result);
        true
    }
}

impl fmt::Debug for StepJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StepJournal({})", self.process)
    }
}

impl Journal for StepJournal {
    fn append(&self, batch: Batch, done: Done) {
        let mut disk = self.disk();
        if self.process == disk.process {
            disk.on_their_way.push_back((self.process, batch, done));
        }
    }

    fn load(&self) -> Result<Loaded, JournalError> {
        let disk = self.disk();
        let steered = disk.steered.map(|steered| ("gpu".into(), steered));
        Ok(Loaded { events: disk.live.clone(), steered: steered.into_iter().collect() })
    }

    fn ends(&self, query: Query) -> oneshot::Receiver<Result<Vec<Kept>, JournalError>> {
        let Query::Event(event) = query else { panic!("{query:?}") };
        let disk = self.disk();
        let found = disk.ends.iter().filter(|ended| ended.event == event);
        let kept = found.map(|ended| Kept {
            listener: "again".into(),
            session: None,
            user: None,
            key: None,
            input: None,
            ended: ended.clone(),
        });
        let (reply, answer) = oneshot::channel();
        let _ = reply.send(Ok(kept.collect()));
        answer
    }

    fn forget(&self, _: u64) {}
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    Completes,
    Fails,
    FailsInPassing,
}

/// What is known of an event from outside.
#[derive(Default)]
struct Fate {
    listener: usize,
    /// Its submitter has heard that it was accepted.
    accepted: bool,
    /// The starts that were seen, each with the process and the attempt that its handler was told.
    starts: Vec<(u32, u32)>,
    /// How often it failed in passing.
    in_passing: u32,
    told: Vec<Outcome>,
    cancelled: bool,
}

/// What handlers and clients report. Shared by all processes.
#[derive(Default)]
struct Book {
    fates: BTreeMap<u32, Fate>,
    ids: HashMap<EventId, u32>,
    /// The inputs whose handlers run, with what lets each go on.
    running: Vec<(u32, oneshot::Sender<Finish>)>,
    most_running: usize,
}

type SharedBook = Rc<RefCell<Book>>;

thread_local!(static BOOK: RefCell<SharedBook> = RefCell::default());

thread_local!(static PROCESS: std::cell::Cell<u32> = const { std::cell::Cell::new(0) });

async fn work(number: u32, context: EventContext) -> Result<u32, UserError> {
    let finish = BOOK.with(|book| {
        let book = book.borrow().clone();
        let mut book = book.borrow_mut();
        let fate = book.fates.get_mut(&number).expect("it was submitted");
        fate.starts.push((PROCESS.get(), context.attempt()));
        let (finish, finishes) = oneshot::channel();
        book.running.push((number, finish));
        book.running.retain(|(_, finish)| !finish.is_closed());
        book.most_running = book.most_running.max(book.running.len());
        finishes
    });
    match finish.await {
        Ok(Finish::Completes) => Ok(number),
        Ok(Finish::Fails) => Err(UserError::new("it can't be done")),
        Ok(Finish::FailsInPassing) => Err(UserError::new("not now").transient()),
        Err(_) => std::future::pending().await,
    }
}

const LISTENERS: [&str; 2] = ["again", "once"];

struct World {
    journal: StepJournal,
    queue: Queue,
    book: SharedBook,
    random: StdRng,
    limit: usize,
    next: u32,
    /// The tasks of those who submitted, in this process.
    clients: Vec<tokio::task::JoinHandle<()>>,
}

/// Lets everything that can happen at this moment happen: the clock goes on only when nothing else does.
async fn quiet() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

fn start(journal: &StepJournal, limit: usize) -> Queue {
    PROCESS.set(journal.process);
    let again = Listener::new("again", work)
        .concurrency_id("gpu")
        .concurrency_limit(limit)
        .durable()
        .max_attempts(MAX_ATTEMPTS)
        .retry(Backoff::constant(Duration::from_millis(20)));
    let once = Listener::new("once", work).concurrency_id("gpu").durable().on_crash(OnCrash::Fail);
    let builder = Queue::builder().arbiters(0).listener(again).listener(once);
    builder.test_journal(Arc::new(journal.clone())).start().expect("nothing contradicts itself")
}

/// Notes what a client is told.
async fn follow(book: SharedBook, number: u32, mut updates: crate::queue::submission::Submission) {
    while let Some(update) = updates.next().await {
        if let Update::ProcessCompleted { outcome, .. } = update {
            let mut book = book.borrow_mut();
            book.fates.get_mut(&number).expect("it was submitted").told.push(outcome);
        }
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let book = SharedBook::default();
        BOOK.set(book.clone());
        let mut random = StdRng::seed_from_u64(seed);
        let limit = random.random_range(1..4);
        let journal = StepJournal { process: 0, disk: Arc::default() };
        let queue = start(&journal, limit);
        World { journal, queue, book, random, limit, next: 0, clients: Vec::new() }
    }

    async fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..30 => self.submit(),
            30..55 => drop(self.journal.settle_one()),
            55..75 => self.finish(),
            75..80 => self.cancel(),
            80..84 => {
                let wait = self.random.random_range(1..40);
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            84..87 => self.steer().await,
            87..90 => {
                let full = self.random.random_bool(0.3);
                self.journal.disk().full = full;
            }
            90..96 => return self.crash().await,
            _ => while self.journal.settle_one() {},
        }
        quiet().await;
        self.check();
    }

    fn submit(&mut self) {
        let number = self.next;
        self.next += 1;
        let listener = self.random.random_range(0..LISTENERS.len());
        self.book.borrow_mut().fates.insert(number, Fate { listener, ..Fate::default() });
        let (queue, book, journal) = (self.queue.clone(), self.book.clone(), self.journal.clone());
        self.clients.push(actix::spawn(async move {
            let Ok(updates) = queue.try_submit(LISTENERS[listener], number).await else { return };
            drop(queue);
            let id = updates.id();
            assert!(journal.disk().is_on_record(id), "{number} was accepted and isn't on record");
            book.borrow_mut().ids.insert(id, number);
            book.borrow_mut().fates.get_mut(&number).expect("it was submitted").accepted = true;
            follow(book, number, updates).await;
        }));
    }

    fn finish(&mut self) {
        let mut book = self.book.borrow_mut();
        book.running.retain(|(_, finish)| !finish.is_closed());
        if book.running.is_empty() {
            return;
        }
        let nth = self.random.random_range(0..book.running.len());
        let (number, finish) = book.running.swap_remove(nth);
        let how = match self.random.random_range(0..6) {
            0..3 => Finish::Completes,
            3 => Finish::Fails,
            _ => Finish::FailsInPassing,
        };
        if how == Finish::FailsInPassing {
            book.fates.get_mut(&number).expect("it was submitted").in_passing += 1;
        }
        let _ = finish.send(how);
    }

    fn cancel(&mut self) {
        let mut book = self.book.borrow_mut();
        let ids: Vec<_> = book.ids.iter().map(|(id, number)| (*number, *id)).collect();
        if ids.is_empty() {
            return;
        }
        let (number, id) = ids[self.random.random_range(0..ids.len())];
        let fate = book.fates.get_mut(&number).expect("it was submitted");
        fate.cancelled = true;
        let handle = self.queue.listener::<u32, u32>(LISTENERS[fate.listener]);
        handle.expect("it is declared").cancel(id);
    }

    async fn steer(&mut self) {
        match self.random.random_range(0..4) {
            0 => self.queue.pause("gpu").await.expect("it runs"),
            1 | 2 => self.queue.resume("gpu").await.expect("it runs"),
            _ => {
                self.limit = self.random.random_range(1..4);
                self.queue.set_concurrency_limit("gpu", self.limit).await.expect("it runs");
            }
        }
    }

    /// The process dies: of what was on its way to the disk some arrives, and nobody hears of that.
    async fn crash(&mut self) {
        self.clients.drain(..).for_each(|client| client.abort());
        let disk = self.journal.disk.clone();
        let process = self.journal.process + 1;
        {
            let mut disk = disk.lock().unwrap();
            let arrive = self.random.random_range(0..=disk.on_their_way.len());
            let batches: Vec<_> = disk.on_their_way.drain(..).collect();
            if !disk.full {
                batches.iter().take(arrive).for_each(|(_, batch, _)| disk.apply(batch));
            }
            disk.process = process;
            disk.full = false;
        }
        self.book.borrow_mut().running.clear();
        self.journal = StepJournal { process, disk };
        // Its handlers are dropped where they are; what it still does reaches nobody.
        let dead = std::mem::replace(&mut self.queue, start(&self.journal, self.limit));
        drop(dead);
        let steered = self.journal.disk().steered;
        let order: Vec<_> = {
            let disk = self.journal.disk();
            disk.live.iter().filter(|live| live.attempt == 0).map(|l| l.admitted.event).collect()
        };
        self.check_recovered(steered, &order).await;
        quiet().await;
        for (id, number) in self.book.borrow().ids.clone() {
            let (queue, book) = (self.queue.clone(), self.book.clone());
            if book.borrow().fates[&number].told.is_empty() {
                self.clients.push(actix::spawn(async move {
                    let updates = queue.follow(id).await.expect("what was accepted is known");
                    drop(queue);
                    follow(book, number, updates).await;
                }));
            }
        }
        quiet().await;
        self.check();
    }

    /// Before anything of the new process is on record, it is as the old one was.
    async fn check_recovered(&mut self, steered: Option<Steered>, order: &[EventId]) {
        let snapshot = self.queue.snapshot().await;
        let id = &snapshot.concurrency_ids[0];
        let Steered { paused, limit } = steered.unwrap_or_default();
        assert_eq!(id.paused, paused);
        if let Some(limit) = limit {
            assert_eq!(id.limit, limit.into());
            self.limit = crate::scheduler::limit::Limit::from(limit).slots();
        }
        let numbers = &self.book.borrow().ids;
        let _known: Vec<_> = order.iter().filter_map(|event| numbers.get(event)).collect();
        let disk = self.journal.disk();
        let here = id.running + id.waiting + id.scheduled;
        // Those that are over by the death of their process wait to be recorded so.
        assert!(here <= disk.live.len() && order.len() <= here, "{here} of {}", disk.live.len());
    }

    fn check(&self) {
        let book = self.book.borrow();
        let disk = self.journal.disk();
        for (id, number) in &book.ids {
            let fate = &book.fates[number];
            assert!(disk.is_on_record(*id), "{number} was accepted and is lost");
            let ends = disk.ends.iter().filter(|ended| ended.event == *id).count();
            assert!(ends <= 1, "{number} has {ends} ends");
            let told = fate.told.iter().filter(|outcome| !matches!(outcome, Outcome::Stopped));
            assert!(told.clone().count() <= ends, "{number} was told an end that isn't on record");
        }
        for (number, fate) in &book.fates {
            let starts = fate.starts.len();
            if LISTENERS[fate.listener] == "once" {
                // What failed in passing was not interrupted by a death.
                assert!(starts as u32 <= 1 + fate.in_passing, "{number} ran twice");
            }
            // A start that a death followed before it was on record isn't counted, once.
            let uncounted = 1;
            assert!(starts as u32 <= MAX_ATTEMPTS + uncounted, "{number} started {starts} times");
            for pair in fate.starts.windows(2) {
                let explained = pair[0].0 < pair[1].0 || fate.in_passing > 0;
                assert!(explained, "{number} started again for nothing: {:?}", fate.starts);
            }
        }
    }

    /// The disk is well, nobody dies any more, and every handler returns.
    async fn come_to_rest(&mut self) {
        self.journal.disk().full = false;
        self.queue.resume("gpu").await.expect("it runs");
        for _ in 0..10_000 {
            while self.journal.settle_one() {}
            quiet().await;
            let running = std::mem::take(&mut self.book.borrow_mut().running);
            for (_, finish) in running {
                let _ = finish.send(Finish::Completes);
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
            if self.journal.disk().live.is_empty() {
                break;
            }
        }
        quiet().await;
        self.check();
        let snapshot = self.queue.snapshot().await;
        let disk = self.journal.disk();
        let left: Vec<_> =
            disk.live.iter().map(|live| (live.admitted.event, live.attempt)).collect();
        assert!(left.is_empty(), "these never ended: {left:?}\n{snapshot:#?}");
        let book = self.book.borrow();
        for (id, number) in &book.ids {
            let fate = &book.fates[number];
            assert_eq!(fate.told.len(), 1, "{number} was told {:?}", fate.told);
            let ended = disk.ends.iter().find(|ended| ended.event == *id);
            let ended = ended.expect("it has an end").clone();
            let on_record = crate::queue::follow::outcome(None, ended);
            let same = std::mem::discriminant(&fate.told[0]) == std::mem::discriminant(&on_record);
            assert!(same || matches!(fate.told[0], Outcome::Completed(_)), "{number}");
        }
    }
}

async fn history(seed: u64, steps: usize) {
    let mut world = World::new(seed);
    for _ in 0..steps {
        world.step().await;
    }
    world.come_to_rest().await;
}

#[test]
fn what_is_accepted_survives_any_history_of_crashes() {
    let first = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(0);
    for seed in first..2000 {
        actix::System::new().block_on(async move {
            tokio::time::pause();
            let mut history = std::pin::pin!(history(seed, 40));
            let unwound = std::panic::AssertUnwindSafe(&mut history);
            if let Err(panic) = futures::FutureExt::catch_unwind(unwound).await {
                eprintln!("the history of seed {seed} breaks a promise");
                std::panic::resume_unwind(panic);
            }
        });
    }
}

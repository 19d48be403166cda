//! The promises about durable events, on random histories with crashes: the real queue, on a journal
//! that loses, delays and answers ambiguously, in virtual time and on one thread.
//!
//! What was accepted is on record, has one end, and that end is what its client was told; what must not
//! run twice doesn't; the limit holds; after a crash what waits is in its order, and what an operator
//! set is still set.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
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
use crate::journal::fake::FakeJournal;
use crate::journal::record::{Live, SetLimit, Steered};
use crate::queue::Queue;
use crate::queue::listener::Listener;

const MAX_ATTEMPTS: u32 = 3;

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
    /// It did so at its last start, in this process.
    waits_again: bool,
    told: Vec<Outcome>,
    cancelled: bool,
}

impl Fate {
    /// What its clients were told, but for "stopped": that goes on in the next process.
    fn ends(&self) -> impl Iterator<Item = &Outcome> {
        self.told.iter().filter(|outcome| !matches!(outcome, Outcome::Stopped))
    }
}

/// What handlers and clients report. Shared by all processes.
#[derive(Default)]
struct Book {
    fates: BTreeMap<u32, Fate>,
    ids: HashMap<EventId, u32>,
    /// The inputs whose handlers run, with what lets each go on.
    running: Vec<(u32, oneshot::Sender<Finish>)>,
    most_running: usize,
    steering: Steering,
    /// Events that waited when this process took them back, in their order.
    taken_back: Vec<u32>,
}

/// What an operator has asked for, and up to which of that was acknowledged: what an earlier process
/// acknowledged holds, and what came after may.
#[derive(Default)]
struct Steering {
    asked: Vec<Steered>,
    acknowledged: usize,
}

impl Steering {
    fn now(&self) -> Steered {
        self.asked.last().copied().unwrap_or_default()
    }

    /// What a new process may begin with.
    fn may_be(&self) -> Vec<Steered> {
        let first = self.acknowledged.saturating_sub(1);
        let default = (self.acknowledged == 0).then(Steered::default);
        default.into_iter().chain(self.asked[first..].iter().copied()).collect()
    }
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
        fate.waits_again = false;
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
    journal: FakeJournal,
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

fn start(journal: &FakeJournal, limit: usize) -> Queue {
    PROCESS.set(journal.process);
    let again = Listener::new("again", work)
        .concurrency_id("gpu")
        .concurrency_limit(limit)
        .durable()
        .max_attempts(MAX_ATTEMPTS)
        .retry(Backoff::constant(Duration::from_millis(20)));
    let once = Listener::new("once", work)
        .concurrency_id("gpu")
        .durable()
        .on_crash(OnCrash::Fail)
        .retry(Backoff::constant(Duration::from_millis(20)));
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
        let journal = FakeJournal::stepped();
        let queue = start(&journal, limit);
        World { journal, queue, book, random, limit, next: 0, clients: Vec::new() }
    }

    async fn step(&mut self) {
        match self.random.random_range(0..100) {
            0..30 => self.submit(),
            30..33 => drop(self.journal.refuse_last()),
            33..55 => drop(self.journal.settle_one()),
            55..75 => self.finish(),
            75..80 => self.cancel(),
            80..84 => {
                let wait = self.random.random_range(1..40);
                tokio::time::sleep(Duration::from_millis(wait)).await;
            }
            84..87 => self.steer(),
            87..90 => {
                let trouble = match self.random.random_range(0..6) {
                    0 => Some(JournalError::Full),
                    1 => Some(JournalError::Busy),
                    _ => None,
                };
                self.journal.disk().trouble = trouble;
            }
            90 if self.random.random_bool(0.2) => {
                self.journal.break_down(self.random.random_bool(0.5));
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
            assert!(journal.disk().kept.knows(id), "{number} was accepted and isn't on record");
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
            let fate = book.fates.get_mut(&number).expect("it was submitted");
            (fate.in_passing, fate.waits_again) = (fate.in_passing + 1, true);
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

    fn steer(&mut self) {
        let (queue, book) = (self.queue.clone(), self.book.clone());
        let steering = &mut self.book.borrow_mut().steering;
        let mut set = steering.now();
        let what = self.random.random_range(0..4);
        match what {
            0 => set.paused = true,
            1 | 2 => set.paused = false,
            _ => {
                self.limit = self.random.random_range(1..4);
                set.limit = Some(SetLimit::Slots(self.limit));
            }
        }
        steering.asked.push(set);
        let (number, limit) = (steering.asked.len(), self.limit);
        self.clients.push(actix::spawn(async move {
            let kept = match what {
                0 => queue.pause("gpu").await,
                1 | 2 => queue.resume("gpu").await,
                _ => queue.set_concurrency_limit("gpu", limit).await,
            };
            if kept.is_ok() {
                let steering = &mut book.borrow_mut().steering;
                steering.acknowledged = steering.acknowledged.max(number);
            }
        }));
    }

    /// The process dies: of what was on its way to the disk some arrives, and nobody hears of that.
    async fn crash(&mut self) {
        self.clients.drain(..).for_each(|client| client.abort());
        let arrive = self.random.random_range(0..=self.journal.on_their_way());
        {
            let mut book = self.book.borrow_mut();
            book.running.clear();
            book.fates.values_mut().for_each(|fate| fate.waits_again = false);
        }
        self.journal = self.journal.clone().die(arrive);
        // Its handlers are dropped where they are; what it still does reaches nobody.
        let dead = std::mem::replace(&mut self.queue, start(&self.journal, self.limit));
        drop(dead);
        self.check_recovered().await;
        quiet().await;
        for (id, number) in self.book.borrow().ids.clone() {
            let (queue, book) = (self.queue.clone(), self.book.clone());
            if book.borrow().fates[&number].ends().next().is_none() {
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
    async fn check_recovered(&mut self) {
        let snapshot = self.queue.snapshot().await;
        let id = &snapshot.concurrency_ids[0];
        let mut book = self.book.borrow_mut();
        let disk = &self.journal.disk().kept;
        let steered = disk.steered.first().map(|(_, steered)| *steered).unwrap_or_default();
        assert!(
            book.steering.may_be().contains(&steered),
            "{steered:?} isn't what was acknowledged"
        );
        book.steering = Steering { asked: vec![steered], acknowledged: 1 };
        assert_eq!(id.paused, steered.paused);
        if let Some(limit) = steered.limit {
            assert_eq!(id.limit, limit.into());
            self.limit = crate::scheduler::limit::Limit::from(limit).slots();
        }
        // What ran comes before what waits, as far as it may start again.
        let number = |live: &Live| book.ids.get(&live.admitted.event).copied();
        let ran = |live: &&Live| {
            live.attempt > 0 && live.attempt < MAX_ATTEMPTS && &*live.admitted.listener == "again"
        };
        let here = disk.live.iter().filter(|live| live.postponed.is_none());
        let again = here.clone().filter(ran).filter_map(number);
        let waits = here.filter(|live| live.attempt == 0).filter_map(number);
        let taken_back = again.chain(waits).collect();
        book.taken_back = taken_back;
    }

    fn check(&self) {
        let book = self.book.borrow();
        let disk = &self.journal.disk().kept;
        for (id, number) in &book.ids {
            let fate = &book.fates[number];
            assert!(disk.knows(*id), "{number} was accepted and is lost");
            let ends = disk.ends.iter().filter(|(_, ended)| ended.event == *id).count();
            assert!(ends <= 1, "{number} has {ends} ends");
            assert!(fate.ends().count() <= ends, "{number} was told an end that isn't on record");
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
        // Those that waited start in their order.
        let started = |number: &u32| {
            book.fates[number].starts.iter().any(|(process, _)| *process == self.journal.process)
        };
        let waits = |number: &&u32| !started(number) && !book.fates[number].cancelled;
        let first = book.taken_back.iter().position(|number| waits(&number));
        if let Some(first) = first {
            let overtook = book.taken_back[first..].iter().find(|number| started(number));
            assert_eq!(overtook, None, "overtook {} of {:?}", first, book.taken_back);
        }
    }

    /// Nothing waits to be recorded, and nothing starts: what there is of events is on record.
    fn check_on_record(&self) {
        let (book, disk) = (self.book.borrow(), &self.journal.disk().kept);
        for live in &disk.live {
            let Some(number) = book.ids.get(&live.admitted.event) else { continue };
            let fate = &book.fates[number];
            if fate.waits_again && !fate.cancelled {
                assert!(live.postponed.is_some(), "a later process takes {number} for interrupted");
            }
            let started =
                fate.starts.iter().filter(|(process, _)| *process == self.journal.process);
            let attempt = started.map(|(_, attempt)| *attempt).max().unwrap_or_default();
            assert!(live.attempt >= attempt, "a start of {number} isn't on record");
        }
    }

    /// The disk is well, nobody dies any more, and every handler returns.
    async fn come_to_rest(&mut self) {
        self.journal.disk().trouble = None;
        if self.journal.disk().is_broken() {
            self.crash().await;
        }
        let queue = self.queue.clone();
        actix::spawn(async move { queue.pause("gpu").await.expect("it runs") });
        for _ in 0..3 {
            while self.journal.settle_one() {}
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        self.check_on_record();
        let queue = self.queue.clone();
        actix::spawn(async move { queue.resume("gpu").await.expect("it runs") });
        for _ in 0..10_000 {
            while self.journal.settle_one() {}
            quiet().await;
            let running = std::mem::take(&mut self.book.borrow_mut().running);
            for (_, finish) in running {
                let _ = finish.send(Finish::Completes);
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
            if self.journal.disk().kept.live.is_empty() {
                break;
            }
        }
        quiet().await;
        self.check();
        let snapshot = self.queue.snapshot().await;
        let disk = &self.journal.disk().kept;
        let left: Vec<_> =
            disk.live.iter().map(|live| (live.admitted.event, live.attempt)).collect();
        assert!(left.is_empty(), "these never ended: {left:?}\n{snapshot:#?}");
        let book = self.book.borrow();
        for (id, number) in &book.ids {
            let fate = &book.fates[number];
            assert_eq!(fate.ends().count(), 1, "{number} was told {:?}", fate.told);
            let ended = disk.end(*id).expect("it has an end").clone();
            let on_record = crate::queue::follow::outcome(None, ended.end);
            let told = fate.ends().next().expect("it is one");
            let same = std::mem::discriminant(told) == std::mem::discriminant(&on_record);
            // Without a type its output can't be read again.
            let completed = disk.has_completed(*id) && matches!(told, Outcome::Completed(_));
            assert!(same || completed, "{number} was told {told:?}, on record is {on_record:?}");
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

//! A day of a busy queue in virtual time: ten thousand events, seeded, in milliseconds.
//!
//! Reports how wrong the estimates are, against those that Gradio would have given on the same
//! load: an all-time mean, without regard to what runs. `cargo test simulation -- --nocapture`
//! prints them.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::event::id::EventId;
use crate::scheduler::command::{Arrival, Command, Effect, OutcomeCounts, WhenFull};
use crate::scheduler::limit::Limit;
use crate::scheduler::rules::{ListenerRules, Rules};
use crate::scheduler::{rank_updates, *};

const EVENTS: usize = 10_000;

const LISTENERS: usize = 3;

/// Mean run times in seconds. At half time the load changes: models get smaller, or bigger.
const MEANS: [[f64; LISTENERS]; 2] = [[4.0, 1.0, 8.0], [2.0, 5.0, 2.0]];

/// An exponential draw.
fn exponential(random: &mut StdRng, mean: f64) -> f64 {
    -mean * (1.0 - random.random::<f64>()).ln()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Arrive(usize),
    Finish(usize),
    Cancel(usize),
    Resize,
}

/// What Gradio would say: the all-time mean of everybody ahead, shared by the slots, plus one's own.
#[derive(Default)]
struct AllTimeMean {
    runs: [(f64, f64); LISTENERS],
}

impl AllTimeMean {
    fn mean(&self, listener: usize) -> Option<f64> {
        let (sum, count) = self.runs[listener];
        (count > 0.0).then(|| sum / count)
    }

    fn eta(&self, ahead: &[usize], listener: usize, limit: usize) -> Option<f64> {
        let ahead: Option<f64> = ahead.iter().map(|listener| self.mean(*listener)).sum();
        Some(ahead? / limit as f64 + self.mean(listener)?)
    }
}

struct Simulation {
    scheduler: Scheduler<usize>,
    random: StdRng,
    now: Instant,
    due: BTreeMap<(Instant, Due), ()>,
    limit: usize,
    listener: Vec<usize>,
    submitted: Vec<Instant>,
    wait_queue: Vec<usize>,
    running: HashMap<usize, (usize, Instant)>,
    gradio: AllTimeMean,
    /// What each event was told at first: by us, and by Gradio.
    last_notified: Vec<(Option<f64>, Option<f64>)>,
    errors: [Vec<f64>; 2],
    ended: usize,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let listener = |n: usize| ListenerRules {
            api_name: format!("generate_{n}").into(),
            batch: None,
            time_limit: None,
            queue_timeout: None,
            durable: false,
        };
        let rules = Rules {
            concurrency_id: "gpu_queue".into(),
            limit: Limit::Slots(2),
            max_size: None,
            max_eta: None,
            resource: None,
            listeners: (0..LISTENERS).map(listener).collect(),
            queue_max_size: None,
        };
        let now = Instant::now();
        Simulation {
            scheduler: Scheduler::new(rules, now),
            random: StdRng::seed_from_u64(seed),
            now,
            due: BTreeMap::from([((now, Due::Arrive(0)), ())]),
            limit: 2,
            listener: Vec::new(),
            submitted: Vec::new(),
            wait_queue: Vec::new(),
            running: HashMap::new(),
            gradio: AllTimeMean::default(),
            last_notified: Vec::new(),
            errors: [Vec::new(), Vec::new()],
            ended: 0,
        }
    }

    fn after(&mut self, seconds: f64, due: Due) {
        self.due.insert((self.now + Duration::from_secs_f64(seconds), due), ());
    }

    fn run(&mut self) {
        self.after(300.0, Due::Resize);
        loop {
            let timeout = self.scheduler.next_timeout();
            let Some(((at, due), ())) = self.due.pop_first() else { break };
            if timeout.is_some_and(|timeout| timeout < at) {
                self.due.insert((at, due), ());
                self.now = self.now.max(timeout.unwrap_or(at));
                self.scheduler.handle_timeout(self.now);
            } else {
                self.now = at;
                self.happen(due);
            }
            self.settle();
        }
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::Arrive(n) => self.arrive(n),
            Due::Finish(slot) => {
                let Some((n, started)) = self.running.remove(&slot) else { return };
                let took = (self.now - started).as_secs_f64();
                let runs = &mut self.gradio.runs[self.listener[n]];
                *runs = (runs.0 + took, runs.1 + 1.0);
                let waited = (self.now - self.submitted[n]).as_secs_f64();
                if let (Some(ours), Some(gradio)) = self.last_notified[n] {
                    self.errors[0].push((ours - waited).abs());
                    self.errors[1].push((gradio - waited).abs());
                }
                self.ended += 1;
                let counts = OutcomeCounts { completed: 1, ..OutcomeCounts::default() };
                self.scheduler.handle(self.now, Command::Done { slot, counts, ready: true });
            }
            Due::Cancel(n) => {
                if self.wait_queue.contains(&n) {
                    self.wait_queue.retain(|other| *other != n);
                    self.ended += 1;
                    let id = EventId::for_test(n as u128);
                    let listener = self.listener[n];
                    self.scheduler.handle(self.now, Command::Cancel { listener, id });
                }
            }
            Due::Resize => {
                self.limit = self.random.random_range(3..6);
                let limit = Limit::Slots(self.limit);
                self.scheduler.handle(self.now, Command::SetLimit(limit));
                if self.submitted.len() < EVENTS {
                    self.after(300.0, Due::Resize);
                }
            }
        }
    }

    fn arrive(&mut self, n: usize) {
        let listener = self.random.random_range(0..LISTENERS);
        self.listener.push(listener);
        self.submitted.push(self.now);
        let ahead: Vec<usize> = self.wait_queue.iter().map(|n| self.listener[*n]).collect();
        self.last_notified.push((None, self.gradio.eta(&ahead, listener, self.limit)));
        self.wait_queue.push(n);
        self.scheduler.handle(
            self.now,
            Command::Admit(Arrival {
                id: EventId::for_test(n as u128),
                listener,
                watched: true,
                when_full: WhenFull::Refuse,
                not_before: None,
                placed: false,
                payload: n,
            }),
        );
        if self.random.random::<f64>() < 0.05 {
            let when_full = exponential(&mut self.random, 20.0);
            self.after(when_full, Due::Cancel(n));
        }
        if n + 1 < EVENTS {
            // A load that three slots can't quite keep up with, and four can.
            let pause = exponential(&mut self.random, 1.3);
            self.after(pause, Due::Arrive(n + 1));
        }
    }

    fn settle(&mut self) {
        while let Some(effect) = self.scheduler.poll_effect() {
            match effect {
                Effect::Start { slot, event, .. } => {
                    assert!(self.running.len() < self.limit, "the limit holds");
                    assert_eq!(self.wait_queue.remove(0), event, "the order holds");
                    let half = usize::from(event >= EVENTS / 2);
                    let mean = MEANS[half][self.listener[event]];
                    // Runs vary by a third around their mean.
                    let took = mean * self.random.random_range(0.67..1.33);
                    self.after(took, Due::Finish(slot));
                    assert!(self.running.insert(slot, (event, self.now)).is_none());
                }
                Effect::NotifyRank { key, estimation } => {
                    let n = *self.scheduler.waiting_mut(key).expect("it waits");
                    self.last_notified[n].0 = self.last_notified[n].0.or(estimation.eta);
                }
                Effect::Open { .. } | Effect::Close { .. } | Effect::End { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

fn quantile(errors: &mut [f64], part: f64) -> f64 {
    errors.sort_by(f64::total_cmp);
    errors[((errors.len() - 1) as f64 * part) as usize]
}

#[test]
fn ten_thousand_events_keep_order_and_limits_and_get_better_estimates_than_gradios() {
    let began = Instant::now();
    let mut simulation = Simulation::new(20_261_123);
    simulation.run();
    assert_eq!(simulation.ended, EVENTS);
    assert_eq!(simulation.scheduler.running(), 0);
    let [ours, gradio] = &mut simulation.errors;
    assert!(ours.len() > EVENTS * 9 / 10);
    let (median, p90) = (quantile(ours, 0.5), quantile(ours, 0.9));
    let (gradio_median, gradio_p90) = (quantile(gradio, 0.5), quantile(gradio, 0.9));
    println!(
        "{EVENTS} events in {:?}: the first estimate is off by {median:.1} s (median) and \
         {p90:.1} s (p90); with Gradio's all-time mean by {gradio_median:.1} s and {gradio_p90:.1} s",
        began.elapsed(),
    );
    assert!(median < gradio_median && p90 < gradio_p90);
}

/// The estimations sent while `clients` wait for one slot, and the seconds in which it serves them.
fn estimations(clients: usize, run: Duration) -> (f64, f64) {
    let began = Instant::now();
    let mut now = began;
    let listener = ListenerRules {
        api_name: "a".into(),
        batch: None,
        time_limit: None,
        queue_timeout: None,
        durable: false,
    };
    let rules = Rules {
        concurrency_id: "a".into(),
        limit: Limit::Slots(1),
        max_size: None,
        max_eta: None,
        resource: None,
        listeners: vec![listener],
        queue_max_size: None,
    };
    let mut scheduler = Scheduler::new(rules, now);
    let mut told = 0u32;
    let mut ends = None;
    let mut next = 0;
    loop {
        while let Some(effect) = scheduler.poll_effect() {
            match effect {
                Effect::NotifyRank { .. } => told += 1,
                Effect::Start { slot, .. } => ends = Some((now + run, slot)),
                _ => {}
            }
        }
        if next < clients {
            let (id, when_full) = (EventId::for_test(next as u128), WhenFull::Refuse);
            let placed = false;
            let arrival = Arrival {
                id,
                listener: 0,
                watched: true,
                when_full,
                not_before: None,
                placed,
                payload: next,
            };
            scheduler.handle(now, Command::Admit(arrival));
            next += 1;
            continue;
        }
        let Some((end, slot)) = ends else {
            return (f64::from(told), (now - began).as_secs_f64());
        };
        match scheduler.next_timeout().filter(|timeout| *timeout < end) {
            Some(timeout) => {
                now = now.max(timeout);
                scheduler.handle_timeout(now);
            }
            None => {
                now = end;
                ends = None;
                let counts = OutcomeCounts { completed: 1, ..OutcomeCounts::default() };
                scheduler.handle(now, Command::Done { slot, counts, ready: true });
            }
        }
    }
}

/// P6: each client hears of the steps near the front, and further back of a change of 2 %, at most
/// once a tick. That is N log N. Gradio sends 493,676 for a thousand clients and short runs.
#[test]
fn waiting_clients_cost_few_messages() {
    let millisecond = Duration::from_millis(1);
    for (clients, run) in [
        (1_000, millisecond),
        (10_000, millisecond),
        (1_000, Duration::from_secs(1)),
        (4_000, Duration::from_secs(1)),
    ] {
        let (told, seconds) = estimations(clients, run);
        println!("{clients} clients waiting, {run:?} each: {told} estimations");
        let (clients, front) = (clients as f64, rank_updates::FRONT as f64);
        let steps = (clients / front).ln() / 0.02;
        let ticks = seconds / rank_updates::TICK.as_secs_f64();
        assert!(told <= clients * (2.0 + front + steps.min(ticks)), "{told}");
    }
}

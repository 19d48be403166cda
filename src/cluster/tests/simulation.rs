//! Seeded histories with trouble, checked after every step: never more than the limit at once, one end for each
//! event, the order of admission, each further start explained. And with one rule left out at a time, which
//! must be found.

use std::ops::Range;
use std::panic::catch_unwind;

use super::weather::{CHANGEABLE, FLAPPING, SPLIT, STALLED, STORM, Weather};
use super::world::World;
use crate::cluster::rules::Rule;

/// Histories in one run, of each weather.
const HISTORIES: u64 = 2_000;

fn hold(weather: Weather) {
    for seed in 0..HISTORIES {
        World::new(seed, weather, None).run();
    }
}

#[test]
fn the_promises_hold_in_changeable_weather() {
    hold(CHANGEABLE);
}

#[test]
fn the_promises_hold_in_a_storm() {
    hold(STORM);
}

#[test]
fn the_promises_hold_where_the_network_splits() {
    hold(SPLIT);
}

#[test]
fn the_promises_hold_where_the_record_stalls() {
    hold(STALLED);
}

#[test]
fn the_promises_hold_where_processes_flap() {
    hold(FLAPPING);
}

/// There is trouble enough: owners change, and runs start again.
#[test]
fn histories_are_troubled() {
    let worlds = (0..20).map(|seed| World::new(seed, CHANGEABLE, None).run());
    let (claims, starts) = worlds
        .fold((0, 0), |(claims, starts), world| (claims + world.claims, starts + world.starts));
    assert!(claims > 40, "{claims} claims");
    assert!(starts > 805, "{starts} starts");
}

/// Whether the simulation finds that a rule is left out, in these histories.
fn finds(rule: Rule, weather: Weather, mut seeds: Range<u64>) {
    let fails = |seed: &u64| catch_unwind(|| World::new(*seed, weather, Some(rule)).run()).is_err();
    assert!(seeds.any(|seed| fails(&seed)), "{rule:?} is left out, and nothing shows");
}

macro_rules! finds {
    ($($name:ident: $rule:ident, $weather:ident, $seeds:expr;)*) => {
        $(#[test] fn $name() { finds(Rule::$rule, $weather, $seeds); })*
    };
}

finds! {
    without_the_fence: Fence, STORM, 0..100;
    without_renewal: Renewal, SPLIT, 0..1000;
    without_two_leases: TwoLeases, STORM, 0..100;
    without_self_stop: SelfStop, STORM, 0..100;
    without_adoption: Adoption, STORM, 0..100;
    without_recorded_starts: RecordedStart, STORM, 0..100;
    without_boots: Boot, FLAPPING, 0..1000;
    without_beats: Beat, FLAPPING, 0..1000;
    without_stopped_runs: StoppedRuns, STORM, 0..100;
    without_whose_word_counts: WhoseWord, STORM, 0..1000;
    without_the_duplicate_check: Duplicate, STORM, 0..100;
    without_old_selves: OldSelf, STORM, 0..100;
    without_sending_again: SendAgain, STORM, 0..100;
    without_settlement: Settlement, STORM, 0..1000;
}

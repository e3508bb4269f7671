//! Runs the gate under a scheduler: `schedules SCENARIO COUNT SEED`. docs/schedules.md tells more.
//!
//! The files of the gate, the lobby, the log, the conversation and TCP's sending are compiled here as
//! they are, over other primitives: `net::primitives`, `net::clock` and `net::socket` of this package.
#![allow(
    dead_code,
    unused_imports,
    reason = "gatecast's files are here for their callers elsewhere"
)]

mod judge;
mod model;
mod net;
mod server;
mod transport;

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    process::ExitCode,
    sync::atomic::Ordering,
    time::Instant,
};

use gatecast::internals::{digest, error, proto, session, text, transfer, units};
use model::{FILE, SCENARIOS, Scenario};
use shuttle::{
    Config, FailurePersistence, MaxSteps, Runner,
    scheduler::{PctScheduler, RandomScheduler},
};

/// Schedules of one seed, scheduler and scenario; whatever fails is found again within so many.
const BATCH: usize = 250;

/// An honest execution has some thousand steps; one that is stuck has no end.
const STEPS: usize = 400_000;

/// How many priority changes PCT puts into an execution.
const DEPTH: usize = 4;

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let number = |at: usize| args.get(at).and_then(|arg| arg.parse::<u64>().ok());
    let (Some(name), Some(count), Some(seed)) = (args.first(), number(1), number(2)) else {
        eprintln!("usage: schedules SCENARIO|every COUNT SEED");
        return ExitCode::from(2);
    };
    let chosen: Vec<&Scenario> =
        SCENARIOS.iter().filter(|s| name == "every" || name == s.name).collect();
    if chosen.is_empty() {
        eprintln!("no scenario '{name}'");
        return ExitCode::from(2);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("f");
    std::fs::write(&file, FILE).expect("room");
    let begun = Instant::now();
    let mut batch = 0;
    while judge::count::schedules.load(Ordering::Relaxed) < count {
        let left = count - judge::count::schedules.load(Ordering::Relaxed);
        let scenario = chosen[batch % chosen.len()];
        let is_pct = batch / chosen.len() % 2 == 1;
        let seed = seed.wrapping_add((batch / (2 * chosen.len())) as u64);
        let most = BATCH.min(usize::try_from(left).unwrap_or(BATCH));
        if !run(scenario, most, seed, is_pct, &file) {
            let done = judge::count::schedules.load(Ordering::Relaxed);
            let way = if is_pct { "PCT" } else { "random" };
            println!("FAILED: {}, {way}, seed {seed}, after {done} schedules", scenario.name);
            println!("again: schedules {} {} {seed}", scenario.name, 2 * BATCH);
            return ExitCode::FAILURE;
        }
        batch += 1;
    }
    let took = begun.elapsed().as_secs_f64();
    for (name, count) in judge::count::all() {
        println!("{count:>11} {name}");
    }
    println!(
        "{count} schedules of {name} in {took:.0} s ({:.0} a second), seed {seed}: 0 early, 0 stuck",
        count as f64 / took
    );
    ExitCode::SUCCESS
}

/// Runs `count` schedules of one seed; false if one of them broke a property or was stuck.
fn run(scenario: &'static Scenario, count: usize, seed: u64, is_pct: bool, file: &Path) -> bool {
    let mut config = Config::new();
    config.stack_size = 256 * 1024;
    config.failure_persistence = FailurePersistence::None;
    config.max_steps = MaxSteps::FailAfter(STEPS);
    config.silence_warnings = true;
    let file = file.to_owned();
    let sha1 = digest::Digest::of(FILE);
    let body = move || model::execute(scenario, &file, sha1);
    let run = || {
        if is_pct {
            Runner::new(PctScheduler::new_from_seed(seed, DEPTH, count), config).run(body)
        } else {
            Runner::new(RandomScheduler::new_from_seed(seed, count), config).run(body)
        }
    };
    catch_unwind(AssertUnwindSafe(run)).is_ok()
}

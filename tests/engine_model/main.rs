//! The engine against a model of the world: random pipelines, random fates, a crash after any event; a rule a property.

mod generate;
mod rules;
mod world;

use rand::SeedableRng as _;
use rand::rngs::StdRng;

/// How many pipelines are tried: `FERRY_SWEEP` asks for the long form.
fn rounds(short: u64) -> u64 {
    std::env::var("FERRY_SWEEP").ok().and_then(|n| n.parse().ok()).unwrap_or(short)
}

/// One life of one pipeline. A failure names the seed: `FERRY_SEED=n` runs it alone.
fn live(seed: u64, crashes: f64) {
    let mut rng = StdRng::seed_from_u64(seed);
    let definition = generate::definition(&mut rng);
    let mut world = world::World::new(seed, definition, crashes, rng);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| world.live()));
    if let Err(panic) = outcome {
        #[expect(clippy::print_stderr, reason = "the story of a failure is for people")]
        {
            eprintln!("{}\nseed {seed}, crashes {crashes}", world.story());
        }
        std::panic::resume_unwind(panic);
    }
}

fn sweep(from: u64, crashes: f64, short: u64) {
    if let Some(seed) = std::env::var("FERRY_SEED").ok().and_then(|n| n.parse().ok()) {
        return live(seed, crashes);
    }
    for seed in from..from + rounds(short) {
        live(seed, crashes);
    }
}

#[test]
fn every_rule_holds_when_nothing_crashes() {
    sweep(0, 0.0, 3000);
}

#[test]
fn every_rule_holds_when_the_runner_crashes_now_and_then() {
    sweep(1_000_000, 0.05, 4000);
}

#[test]
fn every_rule_holds_when_the_runner_crashes_all_the_time() {
    sweep(2_000_000, 0.35, 2000);
}

//! Runner and connections killed at random moments of a move, in both modes, again and again: in the end the service runs on
//! exactly one host, and its client has noticed nothing but pauses.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use super::bench::Bench;
use super::lab::counter::{self, Asker};
use super::lab::{Lab, Machine};
use super::lazy::LAZY;
use super::{MOVE, has_address, left};

/// Ends every connection to the host by SSH.
fn hang_up(host: &Machine) {
    host.says(
        "for p in /proc/[0-9]*; do case $(tr '\\0' ' ' <$p/cmdline 2>/dev/null) in *listener*) ;; sshd:*) kill -s KILL ${p#/proc/} || :;; esac; done",
    );
}

fn story(round: u64) {
    let mut rng = StdRng::seed_from_u64(round);
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
    counter::long_pipes();
    counter::start(alpha, 24);
    let mode = if round.is_multiple_of(2) { LAZY } else { "" };
    let retry = "    retry: { attempts: 3, initial: 100ms }\n";
    bench.write("move.yaml", &(lab.yaml(&["alpha", "beta"]) + MOVE + mode + retry));
    let asker = Asker::start();
    let mut told = Vec::new();
    let mut arguments = vec!["run", "move.yaml", "--yes"];
    let goes_back = rng.random_bool(0.3);
    for turn in 0.. {
        assert!(turn < 8, "round {round}: it does not come to an end: {told:?}");
        let mut runner = bench.start(&arguments);
        // The last turns are left alone.
        if turn < 3 {
            std::thread::sleep(Duration::from_millis(rng.random_range(0..2500)));
            match rng.random_range(0..3) {
                0 => runner.kill(),
                1 => hang_up(alpha),
                _ => hang_up(beta),
            }
        }
        let ran = runner.ends();
        told.push((arguments.join(" "), ran.code, ran.stdout));
        if ran.code == Some(0) {
            break;
        }
        let has_begun = bench.path(".ferry").exists() && bench.run(&["show", "last"]).code == Some(0);
        arguments = match (has_begun, goes_back && turn > 0) {
            (false, _) => vec!["run", "move.yaml", "--yes"],
            (true, true) => vec!["rollback", "last", "--yes"],
            (true, false) => vec!["resume", "last"],
        };
    }
    let was_rolled_back = arguments[0] == "rollback";
    let (at, other) = if was_rolled_back { (alpha, beta) } else { (beta, alpha) };
    assert!(counter::runs(at) && !counter::runs(other), "round {round}: {told:?}");
    assert!(has_address(at) && !has_address(other), "round {round}: {told:?}");
    assert_eq!(left(alpha) + &left(beta), "", "round {round}: {told:?}");
    asker.stop();
}

#[test]
fn killed_at_any_moment_it_runs_on_exactly_one_host() {
    let rounds = std::env::var("FERRY_KILLS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(2);
    let begin = std::env::var("FERRY_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for round in begin..begin + rounds {
        story(round);
    }
}

//! Kills, cuts and cancels inside `postgres.cutover`, each at a point where the protocol is held on purpose: whatever
//! happens, no two servers ever accept writes, no acknowledged write is lost, and no pause outlives its watchdog.

#[allow(dead_code, reason = "it is shared with the tests of the command line")]
#[path = "cli/bench.rs"]
mod bench;
mod lab;

#[path = "postgres_kills/breaks.rs"]
mod breaks;
#[path = "postgres_kills/events.rs"]
mod events;
#[path = "postgres_kills/hold.rs"]
mod hold;
#[path = "postgres_kills/journey.rs"]
mod journey;

use std::time::{Duration, Instant};

use bench::Started;
use ferry::engine::Event;
use hold::{Held, Still, Transaction};
use journey::{Journey, Leg};
use lab::ledger::Habit;
use lab::{Lab, until};

/// There and back in one run, so that the second cutover begins behind the first one's pivot.
const THERE_AND_BACK: &str = "steps:
  - { id: replica, uses: postgres.replica, with: { from: alpha, to: beta } }
  - id: cutover
    uses: postgres.cutover
    pivot: true
    with: { replica: \"{{ steps.replica.outputs }}\", routers: [{ pgbouncer: { host: gate } }] }
  - { id: back, uses: postgres.failback, with: { cutover: \"{{ steps.cutover.outputs }}\" } }
  - id: home
    uses: postgres.cutover
    needs: [back]
    with: { replica: \"{{ steps.back.outputs }}\", routers: [{ pgbouncer: { host: gate } }], max_pause: 30s, watchdog: 60s }
";

#[test]
fn a_cancel_in_the_pause_of_a_second_cutover_puts_back_and_is_resumed() {
    let lab = Lab::new(&["alpha", "beta", "gate"]);
    let journey = Journey::new(&lab);
    let (alpha, beta) = (&journey.alpha, &journey.beta);
    journey.bench.write("round.yaml", &(lab.yaml(&["alpha", "beta", "gate"]) + THERE_AND_BACK));
    journey.bench.run(&["run", "round.yaml", "--yes", "--until", "back"]);
    assert!(!beta.is_in_recovery() && alpha.is_in_recovery(), "it has not come to the standby");
    let ledger = beta.ledger(&[
        ("kept", journey.pooler.url(), Habit::Keeps),
        ("alpha", alpha.url(), Habit::Anew),
        ("beta", beta.url(), Habit::Anew),
    ]);
    ledger.under_way();
    // Nobody else than this client can say when the pause is complete: the pivot comes behind its commit.
    let held = Transaction::begin(&journey.pooler.url(), "1");
    let runner = journey.bench.start(&["resume", "last", "--yes"]);
    journey.is_paused();
    journey.bench.run(&["cancel", "last"]).exits(0);
    let is_cancelled = || journey.events().iter().any(|event| matches!(event, Event::CancelRequested { .. }));
    until("the cancel is in the journal", || is_cancelled().then_some(()));
    assert!(held.commit(), "it was only held back");
    let ran = runner.ends();
    assert_ne!(ran.code, Some(0), "{ran:?}");
    // Its pivot was refused, and so nothing was sent: all is as it was, and clients write.
    ledger.under_way();
    assert!(!beta.is_in_recovery() && alpha.is_in_recovery(), "{ran:?}");
    let pivots = |journey: &Journey<'_>| {
        let events = journey.events();
        events.iter().filter(|event| matches!(event, Event::PivotPassed { step, .. } if step.as_str() == "home")).count()
    };
    let log = journey.bench.run(&["logs", "last", "home"]).stdout;
    assert!(log.contains("pause and fence are lifted") && !log.contains("the pause is over"), "{log}");
    journey.bench.run(&["resume", "last", "--yes"]).exits(0);
    let log = journey.bench.run(&["logs", "last", "home"]).stdout;
    assert!(log.contains("the pause is over") && !log.contains("goes forward"), "{log}");
    assert!(pivots(&journey) > 0);
    ledger.under_way();
    let seen = ledger.stop();
    seen.never_both("beta", "alpha");
    assert!(seen.is_whole_on(alpha) > 100 && seen.client("kept").errors.is_empty());
    assert_eq!(alpha.sql("select count(*) from ledger where client = 'held'"), "1");
    assert!(!alpha.is_in_recovery() && !beta.runs());
}

/// Where a runner is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    /// The fence lies in its place, and nobody is held back yet.
    Staged,
    /// Clients are held back, and one is still at work.
    Paused,
    /// The fence is loaded, and the standby has not got the last of the log.
    Fenced,
    /// All is being put back, and the pooler does not answer.
    Releasing,
    /// The pivot is passed, the promote is sent, and the standby has not applied the last of the log.
    Promoting,
    /// The standby is promoted, and the pooler does not answer.
    Switching,
    /// Clients are at the new primary, the old one is stopped, and something is still to be tidied up.
    Finishing,
}

impl Point {
    /// Brings a runner there and holds it, until what comes back is dropped.
    pub fn come<'a>(self, journey: &'a Journey<'_>) -> (Started, Option<Held<'a>>) {
        let (old, new) = journey.ends();
        let fenced = || old.asked("app", "select 1").is_err_and(|said| said.contains("pg_hba.conf rejects"));
        let staged = || std::fs::read_to_string(old.file("pg_hba.conf")).is_ok_and(|text| text.starts_with("# ferry ferry_"));
        let sent = "select count(*) from pg_stat_activity where query like '%pg_promote(false)%' and pid <> pg_backend_pid()";
        match self {
            Self::Staged => {
                let runner = journey.start();
                until("the fence lies in its place", || staged().then_some(()));
                (runner, None)
            }
            Self::Paused => {
                let held = Transaction::begin(&journey.pooler.url(), "1");
                let runner = journey.start();
                journey.is_paused();
                (runner, Some(held.into()))
            }
            Self::Fenced => {
                let held = Still::of(new, "walreceiver");
                let runner = journey.start();
                until("the fence is loaded", || fenced().then_some(()));
                (runner, Some(held.into()))
            }
            Self::Releasing => {
                let receiver = Still::of(new, "walreceiver");
                let runner = journey.start();
                until("the fence is loaded", || fenced().then_some(()));
                let pooler = Still::pooler(journey);
                // Who waits behind the fence fails, and all is put back.
                until("the fence is broken off", || old.signal("DO", "TERM"));
                drop(receiver);
                let gate = journey.lab.host("gate");
                until("the fence is lifted and the pooler is asked", || {
                    (!staged() && gate.says("ls /etc/pgbouncer | grep -F .new || true").is_empty()).then_some(())
                });
                (runner, Some(pooler.into()))
            }
            Self::Promoting | Self::Switching | Self::Finishing => {
                let replay = Still::of(new, "startup");
                let runner = journey.start();
                until("the pivot is passed", || journey.is_past().then_some(()));
                until("the promote is sent", || (new.sql(sent) != "0").then_some(()));
                let held = match self {
                    Self::Switching => Still::pooler(journey),
                    Self::Finishing => Still::of(new, "checkpointer"),
                    _ => return (runner, Some(replay.into())),
                };
                drop(replay);
                until("it is promoted", || (!new.is_in_recovery()).then_some(()));
                if self == Self::Finishing {
                    until("the old primary is stopped", || (!old.runs()).then_some(()));
                }
                (runner, Some(held.into()))
            }
        }
    }
}

/// One leg whose runner is killed there; then it is taken up again, or rolled back.
fn killed(journey: &Journey<'_>, point: Point, goes_back: bool) {
    let what = format!("killed at {point:?}");
    let leg = match point {
        Point::Releasing => Leg { watchdog: Duration::from_mins(1), ..Leg::default() },
        _ => Leg::default(),
    };
    let begun = Instant::now();
    let ledger = journey.set_out(leg);
    let ready = begun.elapsed();
    let (mut runner, held) = point.come(journey);
    runner.kill();
    drop(held);
    let killed = begun.elapsed();
    if point == Point::Paused {
        // Nobody takes it up: the watchdog does.
        ledger.under_way();
    }
    if goes_back {
        let ran = journey.bench.run(&["rollback", "last", "--yes"]);
        assert_eq!(ran.code, Some(0), "{what}: {ran:?}");
        journey.went_back(ledger, &what);
    } else {
        let ran = journey.resume();
        journey.arrived(&ran, ledger, &what);
    }
    tell(&format!("{what}: ready after {ready:?}, killed after {killed:?}, over after {:?}", begun.elapsed()));
}

/// For those who read the output of a sweep.
#[expect(clippy::print_stdout, reason = "what was seen is worth more than that it passed")]
fn tell(text: &str) {
    println!("{text}");
}

/// Every point, with every way to go on, instead of a few.
fn all() -> bool {
    std::env::var("FERRY_SWEEP").is_ok()
}

#[test]
fn a_runner_that_is_killed_before_the_pivot_leaves_a_source_that_serves() {
    let lab = Lab::new(&["alpha", "beta", "gate"]);
    let journey = Journey::new(&lab);
    killed(&journey, Point::Paused, true);
    killed(&journey, Point::Fenced, true);
    killed(&journey, Point::Releasing, true);
    if all() {
        for point in [Point::Staged, Point::Paused, Point::Fenced, Point::Releasing] {
            killed(&journey, point, true);
            killed(&journey, point, false);
        }
    }
}

#[test]
fn a_runner_that_is_killed_behind_the_pivot_goes_on_from_where_it_was() {
    let lab = Lab::new(&["alpha", "beta", "gate"]);
    let journey = Journey::new(&lab);
    killed(&journey, Point::Promoting, false);
    killed(&journey, Point::Switching, false);
    if all() {
        killed(&journey, Point::Finishing, false);
    }
}

//! Connections, servers, the pooler and the network that break in the middle of a cutover. The runner lives and tries again,
//! as its pipeline says.

use std::time::{Duration, Instant};

use ferry::engine::{Event, Outcome};
use ferry::error::{ErrorClass, Failure};

use crate::hold::{Transaction, sessions, signal};
use crate::journey::{Journey, Leg};
use crate::lab::{Lab, until};
use crate::{Point, all, tell};

/// What breaks.
#[derive(Debug, Clone, Copy)]
enum Break {
    /// Every SSH connection to the host of the old primary, of the new one, of the pooler.
    SshToOld,
    SshToNew,
    SshToGate,
    /// The old primary is killed, and started again.
    Old,
    /// The new one is killed.
    New,
    /// The pooler is killed, and started again.
    Pooler,
    /// The new one's host is cut off, and comes back when the old one serves again.
    Network,
}

/// One leg in which this breaks at that point; it goes through all the same.
fn broken(journey: &Journey<'_>, point: Point, breaks: Break) {
    let what = format!("{breaks:?} broken at {point:?}");
    let max_pause = if matches!(breaks, Break::Network) { Duration::from_secs(4) } else { Duration::from_secs(30) };
    let begun = Instant::now();
    let ledger = journey.set_out(Leg { attempts: 60, max_pause, ..Leg::default() });
    let (old, new) = journey.ends();
    let (runner, held) = point.come(journey);
    let cut = |host| signal(host, &sessions(host), "KILL");
    match breaks {
        Break::SshToOld => cut(old.host),
        Break::SshToNew => cut(new.host),
        Break::SshToGate => cut(journey.pooler.host),
        Break::Old => old.kill(),
        Break::New => new.kill(),
        Break::Pooler => journey.pooler.kill(),
        Break::Network => new.host.cut(),
    }
    drop(held);
    match breaks {
        Break::Old => old.start(),
        Break::Pooler => journey.pooler.start(),
        Break::Network => {
            until("the old primary serves again", || old.asked("app", "select 1").ok());
            new.host.mend();
        }
        _ => {}
    }
    let mut ran = runner.ends();
    if ran.code != Some(0) {
        tell(&format!("{what}: is resumed"));
        ran = journey.resume();
    }
    journey.arrived(&ran, ledger, &what);
    tell(&format!("{what}: over after {:?}", begun.elapsed()));
}

#[test]
fn a_connection_that_breaks_in_any_phase_costs_an_attempt() {
    let lab = Lab::new(&["alpha", "beta", "gate"]);
    let journey = Journey::new(&lab);
    broken(&journey, Point::Fenced, Break::SshToOld);
    broken(&journey, Point::Switching, Break::SshToGate);
    if all() {
        broken(&journey, Point::Fenced, Break::Network);
        for point in [Point::Staged, Point::Paused, Point::Fenced, Point::Promoting, Point::Switching, Point::Finishing] {
            for breaks in [Break::SshToOld, Break::SshToNew, Break::SshToGate] {
                broken(&journey, point, breaks);
            }
        }
    }
}

#[test]
fn a_server_that_dies_in_any_phase_costs_an_attempt() {
    let lab = Lab::new(&["alpha", "beta", "gate"]);
    let journey = Journey::new(&lab);
    broken(&journey, Point::Promoting, Break::New);
    broken(&journey, Point::Switching, Break::Pooler);
    if all() {
        for point in [Point::Staged, Point::Paused, Point::Fenced] {
            broken(&journey, point, Break::Old);
            broken(&journey, point, Break::Pooler);
        }
        for point in [Point::Promoting, Point::Switching, Point::Finishing] {
            broken(&journey, point, Break::New);
            broken(&journey, point, Break::Pooler);
        }
    }
}

#[test]
fn the_network_between_the_servers_is_cut_in_the_pause() {
    let lab = Lab::new(&["alpha", "beta", "gate"]);
    broken(&Journey::new(&lab), Point::Fenced, Break::Network);
}

/// What attempts have failed with so far.
fn failures(journey: &Journey<'_>) -> Vec<Failure> {
    let failed = journey.events().into_iter().filter_map(|event| match event {
        Event::AttemptEnded { outcome: Outcome::Failed { failure }, .. } => Some(failure),
        _ => None,
    });
    failed.collect()
}

#[test]
fn a_word_to_the_pooler_that_comes_too_late_holds_nobody_back() {
    let lab = Lab::new(&["alpha", "beta", "gate"]);
    let journey = Journey::new(&lab);
    let gate = journey.pooler.host;
    // What lies about too early costs an attempt, and the next is met.
    let ledger = journey.set_out(Leg { max_pause: Duration::from_mins(1), attempts: 60, ..Leg::default() });
    // Should the word be faster than this test, then the pause does not come to its end all the same.
    let held = Transaction::begin(&journey.pooler.url(), "1");
    let mut runner = journey.start();
    let begins = || journey.bench.run(&["logs", "last", "cutover"]).stdout.contains("the pause begins");
    let slow = loop {
        let before = failures(&journey).len();
        // The last thing that is laid ready there waits for its own word; behind it the forecast is made once more.
        until("all is laid ready", || {
            gate.inside("pgrep -f '[.]new /etc/pgbouncer/pgbouncer.ini'").status.success().then_some(())
        });
        std::thread::sleep(Duration::from_millis(50));
        // What is said from now on lies about at the gate, as behind a network that was cut.
        let slow = sessions(gate);
        signal(gate, &slow, "STOP");
        let goes_on = || begins() || failures(&journey).len() > before;
        until("the pause begins, or the gate was missed before", || goes_on().then_some(()));
        if begins() {
            break slow;
        }
        signal(gate, &slow, "CONT");
    };
    std::thread::sleep(Duration::from_millis(300));
    runner.kill();
    drop(held);
    journey.bench.run(&["rollback", "last", "--yes"]).exits(0);
    signal(gate, &slow, "CONT");
    until("it has arrived or will not", || (!gate.inside(&format!("kill -0 {}", slow.join(" "))).status.success()).then_some(()));
    journey.went_back(ledger, "a late word");
}

#[test]
fn a_transaction_that_does_not_end_holds_nobody_back_for_longer_than_is_allowed() {
    let lab = Lab::new(&["alpha", "beta", "gate"]);
    let journey = Journey::new(&lab);
    let max_pause = Duration::from_secs(4);
    let ledger = journey.set_out(Leg { attempts: 200, max_pause, ..Leg::default() });
    let held = Transaction::begin(&journey.pooler.url(), "1");
    let runner = journey.start();
    // While it is young a pause begins, and is given up; then none begins.
    until("it is told who is in the way", || {
        failures(&journey).iter().any(|failure| failure.message.contains("a transaction of")).then_some(())
    });
    assert!(failures(&journey).iter().all(|failure| failure.class == ErrorClass::Transient), "{:?}", failures(&journey));
    ledger.under_way();
    assert!(held.commit());
    let (_, new) = journey.ends();
    journey.arrived(&runner.ends(), ledger, "a long transaction");
    assert_eq!(new.sql("select count(*) from ledger where client = 'held'"), "1");
}

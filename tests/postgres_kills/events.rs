//! A runner that is killed at each event of a cutover as soon as it stands in the journal.

use crate::journey::{Journey, Leg};
use crate::lab::Lab;
use crate::{all, tell};

/// One leg whose runner is killed when so many events are told and the next begins; then it is taken up again, or rolled
/// back where that is still allowed. Whether it came to that.
fn killed_at(journey: &Journey<'_>, moment: usize, goes_back: bool) -> bool {
    let ledger = journey.set_out(Leg::default());
    let mut runner = journey.bench.start(&["resume", "last", "--yes", "--json"]);
    let was_killed = runner.kill_at_line(moment);
    let last = journey.events().pop();
    let what = format!("killed at event {moment}, {}", serde_json::to_value(&last).expect("JSON")["event"]);
    if goes_back && was_killed && !journey.is_past() {
        let ran = journey.bench.run(&["rollback", "last", "--yes"]);
        assert_eq!(ran.code, Some(0), "{what}: {ran:?}");
        journey.went_back(ledger, &what);
        tell(&format!("{what}: rolled back"));
    } else {
        let ran = journey.resume();
        journey.arrived(&ran, ledger, &what);
        tell(&format!("{what}: went on"));
    }
    was_killed
}

#[test]
fn a_runner_that_is_killed_at_each_event_goes_on_or_goes_back() {
    let lab = Lab::new(&["alpha", "beta", "gate"]);
    let journey = Journey::new(&lab);
    // Two of them here, each of them and both ways in `make sweep`.
    let moments = if all() { (0..200).step_by(1) } else { (6..15).step_by(8) };
    let mut kills = 0;
    for moment in moments {
        kills += usize::from(killed_at(&journey, moment, moment % 2 == 0));
        if all() && !killed_at(&journey, moment, moment % 2 == 1) {
            break;
        }
    }
    assert!(kills > if all() { 10 } else { 0 }, "only {kills} kills");
}

//! `mode: post-copy`: the process runs at the target, and its memory follows.

use std::path::PathBuf;

use super::bench::{Bench, Started};
use super::lab::counter::{self, Asker};
use super::lab::link::Weather;
use super::lab::{Lab, Machine, until};
use super::{MOVE, STRAIGHT, has_address, left, scripted};

pub const LAZY: &str = "      mode: post-copy\n      pages: { from: 10.77.0.10, to: 10.77.0.20 }\n";

/// Memory that takes a while to follow, for its way is narrow.
const NARROW: Weather =
    Weather { delay: std::time::Duration::ZERO, rate: Some(60_000_000), loss: 0.0, queue: std::time::Duration::from_millis(200) };

fn pipeline(lab: &Lab, more: &str) -> String {
    counter::long_pipes();
    lab.yaml(&["alpha", "beta"]) + MOVE + LAZY + more
}

/// A file of the step in the folder of images.
fn note(host: &Machine, name: &str) -> Option<PathBuf> {
    let folders = std::fs::read_dir(format!("/proc/{}/root/dev/shm", host.process())).ok()?;
    folders.flatten().map(|folder| folder.path().join(name)).find(|file| file.exists())
}

fn number(host: &Machine, name: &str) -> Option<u64> {
    std::fs::read_to_string(note(host, name)?).ok()?.split_whitespace().next()?.parse().ok()
}

/// Waits until part of the memory has left.
fn until_some_has_left(alpha: &Machine) {
    until("part of the memory has left", || number(alpha, "sent").filter(|sent| *sent > 1 << 20));
}

#[test]
fn memory_follows_its_process_there_and_back() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
    counter::start(alpha, 64);
    bench.write("move.yaml", &pipeline(&lab, ""));
    let plan = bench.run(&["plan", "move.yaml"]).exits(0).stdout;
    assert!(plan.contains("its memory follows"), "{plan}");
    assert_eq!(left(alpha) + &left(beta), "", "a plan changes nothing");
    let asker = Asker::start();
    bench.run(&["run", "move.yaml", "--yes"]).exits(0);
    assert!(!counter::runs(alpha) && counter::runs(beta));
    assert!(!has_address(alpha) && has_address(beta));
    assert_eq!(left(alpha) + &left(beta), "");
    let shown = bench.run(&["--json", "show", "last"]).exits(0).stdout;
    assert!(shown.contains("\"pages\"") && shown.contains("\"follow\""), "{shown}");
    bench.run(&["rollback", "last", "--yes"]).exits(0);
    assert!(counter::runs(alpha) && !counter::runs(beta));
    assert!(has_address(alpha) && !has_address(beta));
    assert_eq!(left(alpha) + &left(beta), "");
    let (answers, longest) = asker.stop();
    assert!(answers > 100, "{answers} answers, the longest took {longest:?}");
}

#[test]
fn images_go_straight_where_there_is_a_way() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
    counter::start(alpha, 16);
    bench.write("move.yaml", &(lab.yaml(&["alpha", "beta"]) + MOVE + STRAIGHT));
    let asker = Asker::start();
    bench.run(&["run", "move.yaml", "--yes"]).exits(0);
    assert!(!counter::runs(alpha) && counter::runs(beta));
    assert_eq!(left(alpha) + &left(beta), "");
    let shown = bench.run(&["--json", "show", "last"]).exits(0).stdout;
    assert!(shown.contains("\"images\"") && !shown.contains("\"follow\""), "{shown}");
    // The way back is shut: nothing is frozen.
    beta.says(
        "nft 'table inet wall { chain in { type filter hook input priority 0; tcp dport 27500 reject with tcp reset; }; }'",
    );
    let ran = bench.run(&["rollback", "last", "--yes"]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert!(!counter::runs(alpha) && counter::runs(beta));
    beta.says("nft delete table inet wall");
    bench.run(&["rollback", "last", "--yes"]).exits(0);
    assert!(counter::runs(alpha) && !counter::runs(beta));
    asker.stop();
}

#[test]
fn what_keeps_memory_from_following_is_said_before_anything_is_frozen() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
    counter::start(alpha, 1);
    bench.write("none.yaml", &(lab.yaml(&["alpha", "beta"]) + MOVE + "      mode: post-copy\n"));
    let said = bench.run(&["plan", "none.yaml"]).exits(2).stdout;
    assert!(said.contains("`post-copy` needs `pages`"), "{said}");
    // A kernel that could is not this project's word to take: it says that ferry cannot yet.
    let can_track = alpha.inside("criu check --feature mem_dirty_track").status.success();
    for mode in ["pre-copy", "hybrid"] {
        bench.write("rounds.yaml", &(lab.yaml(&["alpha", "beta"]) + MOVE + &format!("      mode: {mode}\n")));
        let said = bench.run(&["plan", "rounds.yaml"]).exits(2).stdout;
        let reason = if can_track { "but ferry cannot yet" } else { "its kernel has no tracking of the pages" };
        assert!(said.contains(&format!("`{mode}`")) && said.contains(reason), "{said}");
    }
    // Somebody else's rules are between the hosts.
    alpha.says(
        "nft 'table inet wall { chain in { type filter hook input priority 0; tcp dport 27500 reject with tcp reset; }; }'",
    );
    bench.write("move.yaml", &pipeline(&lab, ""));
    let asker = Asker::start();
    let ran = bench.run(&["run", "move.yaml", "--yes"]).exits(1);
    assert!(ran.stdout.contains("pages cannot go from `alpha` to `beta`"), "{ran:?}");
    assert!(counter::runs(alpha) && has_address(alpha) && !has_address(beta));
    assert_eq!(left(alpha) + &left(beta), "table inet wall");
    asker.stop();
}

#[test]
fn what_cannot_be_restored_goes_on_where_it_was_frozen() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
    counter::start(alpha, 16);
    let fails = "case $1 in restore) echo 'Error (criu/x.c:1): no luck today' >\"$3/restore.log\"; exit 1;; esac";
    counter::long_pipes();
    bench.write("move.yaml", &(scripted(&lab, "", fails).replace("    retry:", &format!("{LAZY}    retry:"))));
    let asker = Asker::start();
    let ran = bench.run(&["run", "move.yaml", "--yes"]).exits(1);
    assert!(ran.stdout.contains("CRIU cannot restore the process on `beta`: no luck today"), "{ran:?}");
    assert!(counter::runs(alpha) && !counter::runs(beta) && !counter::is_frozen(alpha));
    assert!(has_address(alpha) && !has_address(beta));
    assert_eq!(left(alpha) + &left(beta), "");
    // What was wrong is mended.
    scripted(&lab, "", "");
    bench.run(&["resume", "last"]).exits(0);
    assert!(!counter::runs(alpha) && counter::runs(beta));
    asker.stop();
}

#[test]
fn a_runner_that_is_killed_before_memory_follows_leaves_a_service_that_the_next_one_finds() {
    let held = |what: &str| format!("case $1 in {what}) touch /srv/reached; while [ ! -e /srv/go ]; do sleep 0.01; done;; esac");
    let after = |what: &str| format!("case $1 in {what}) criu \"$@\"; code=$?; touch /srv/reached; sleep 0.5; exit $code;; esac");
    let nothing = String::new();
    let stories = [
        ("before the freeze", held("dump"), nothing.clone()),
        ("before memory is asked for", nothing.clone(), held("lazy-pages")),
        ("before the restore", nothing.clone(), held("restore")),
        ("after the restore", nothing, after("restore")),
    ];
    let all = std::env::var_os("FERRY_SWEEP").is_some();
    for (at, (when, at_source, at_target)) in stories.into_iter().enumerate() {
        // The short form takes each story one way.
        for goes_on in [true, false].into_iter().filter(|goes_on| all || *goes_on == (at % 2 == 1)) {
            let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
            let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
            counter::start(alpha, 4);
            counter::long_pipes();
            let text = scripted(&lab, &at_source, &at_target).replace("    retry:", &format!("{LAZY}    retry:"));
            bench.write("move.yaml", &text);
            let asker = Asker::start();
            let mut runner = bench.start(&["run", "move.yaml", "--yes"]);
            let held = if at_source.is_empty() { beta } else { alpha };
            until("CRIU is at work", || held.path("/srv/reached").exists().then_some(()));
            runner.kill();
            held.says("touch /srv/go");
            settles(&bench, alpha, beta, goes_on, when);
            let (answers, _) = asker.stop();
            assert!(answers > 10, "{when}, {goes_on}: {answers}");
        }
    }
}

/// The next runner brings it to an end.
fn settles(bench: &Bench, alpha: &Machine, beta: &Machine, goes_on: bool, when: &str) {
    bench.run(if goes_on { &["resume", "last"][..] } else { &["rollback", "last", "--yes"] }).exits(0);
    let (at, other) = if goes_on { (beta, alpha) } else { (alpha, beta) };
    assert!(counter::runs(at) && !counter::runs(other), "{when}, {goes_on}");
    assert!(has_address(at) && !has_address(other), "{when}, {goes_on}");
    assert_eq!(left(alpha) + &left(beta), "", "{when}, {goes_on}");
}

#[test]
fn a_runner_that_is_killed_while_memory_follows_is_not_needed_for_it() {
    for goes_on in [true, false] {
        let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
        let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
        alpha.weather(NARROW);
        counter::start(alpha, 32);
        bench.write("move.yaml", &pipeline(&lab, ""));
        let asker = Asker::start();
        let mut runner = bench.start(&["run", "move.yaml", "--yes"]);
        until_some_has_left(alpha);
        runner.kill();
        alpha.weather(Weather::default());
        settles(&bench, alpha, beta, goes_on, "while memory follows");
        asker.stop();
    }
}

/// What happens to the two hosts.
type Strike = fn(&Machine, &Machine);

/// A run whose memory is on its way.
fn under_way(lab: &Lab, bench: &Bench) -> Started {
    let alpha = lab.host("alpha");
    alpha.weather(NARROW);
    counter::start(alpha, 64);
    bench.write("move.yaml", &pipeline(lab, ""));
    assert_eq!((counter::ask(), counter::ask()), (1, 2));
    let runner = bench.start(&["run", "move.yaml", "--yes"]);
    until_some_has_left(alpha);
    runner
}

#[test]
fn what_dies_while_memory_follows_leaves_the_frozen_process_for_a_person() {
    let kills: [(&str, Strike); 4] = [
        ("what fetches the memory", |_, beta| kill(beta, &number(beta, "fetcher").expect("it is noted").to_string())),
        ("the process itself", |alpha, beta| kill(beta, &alpha.says("cat /run/counter.pid"))),
        ("the gate", |alpha, _| kill(alpha, &number(alpha, "gate").expect("it is noted").to_string())),
        ("the page server", |alpha, _| kill(alpha, "$(pidof criu)")),
    ];
    for (what, strikes) in kills {
        let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
        let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
        let runner = under_way(&lab, &bench);
        strikes(alpha, beta);
        let ran = runner.ends().exits(5);
        assert!(ran.stdout.contains("ended on `beta` before all of its memory was there"), "{what}: {ran:?}");
        assert!(!counter::runs(beta), "{what}");
        assert!(counter::is_frozen(alpha), "{what}: it is frozen, and not let go on unasked");
        // Nobody lets it go on by resuming.
        bench.run(&["resume", "last"]).exits(5);
        assert!(counter::is_frozen(alpha), "{what}");
        alpha.weather(Weather::default());
        let ran = bench.run(&["rollback", "last", "--yes"]).exits(0);
        assert!(ran.stderr.contains("what it did since is lost"), "{what}: {ran:?}");
        assert!(counter::runs(alpha) && !counter::is_frozen(alpha) && !counter::runs(beta), "{what}");
        assert!(has_address(alpha) && !has_address(beta), "{what}");
        assert_eq!(counter::ask(), 3, "{what}: it goes on as it was when it left");
        assert_eq!(left(alpha) + &left(beta), "", "{what}");
    }
}

fn kill(host: &Machine, whom: &str) {
    host.says(&format!("kill -s KILL {whom}"));
}

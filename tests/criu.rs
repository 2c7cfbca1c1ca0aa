//! `criu.migrate` between two hosts of the lab: a service moves with its memory and its connection.

#[allow(dead_code, reason = "it is shared with the tests of the command line")]
#[path = "cli/bench.rs"]
mod bench;
#[path = "criu/gaps.rs"]
mod gaps;
mod lab;
#[path = "criu/lazy.rs"]
mod lazy;
#[path = "criu/stored.rs"]
mod stored;
#[path = "criu/sweep.rs"]
mod sweep;

use bench::Bench;
use lab::counter::{self, Asker};
use lab::{Lab, Machine};

const MOVE: &str = "steps:\n  - id: counter\n    uses: criu.migrate\n    with:\n      from: alpha\n      to: beta\n      process: { pid_file: /run/counter.pid }\n\
    \x20     address: { ip: 10.77.0.99, device: eth0 }\n";

/// Memory goes from host to host, past ferry.
const STRAIGHT: &str = "      pages: { from: 10.77.0.10, to: 10.77.0.20 }\n";

/// What CRIU and ferry could leave on a host: images, a lock on a connection, a guard.
fn left(host: &Machine) -> String {
    host.says("ls -A /dev/shm; nft list tables")
}

fn has_address(host: &Machine) -> bool {
    host.says("ip addr show dev eth0").contains("10.77.0.99/")
}

#[test]
fn a_service_moves_with_its_connection_and_comes_back() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
    counter::start(alpha, 16);
    bench.write("move.yaml", &(lab.yaml(&["alpha", "beta"]) + MOVE));
    let plan = bench.run(&["plan", "move.yaml"]).exits(0).stdout;
    assert!(plan.contains("freezes process 5") && plan.contains("with 10.77.0.99 and its connections"), "{plan}");
    assert_eq!(left(alpha) + &left(beta), "", "a plan changes nothing");
    let asker = Asker::start();
    bench.run(&["run", "move.yaml", "--yes"]).exits(0);
    assert!(!counter::runs(alpha) && counter::runs(beta));
    assert!(!has_address(alpha) && has_address(beta));
    assert_eq!(left(alpha) + &left(beta), "");
    bench.run(&["rollback", "last", "--yes"]).exits(0);
    assert!(counter::runs(alpha) && !counter::runs(beta));
    assert!(has_address(alpha) && !has_address(beta));
    assert_eq!(left(alpha) + &left(beta), "");
    let (answers, longest) = asker.stop();
    assert!(answers > 100, "{answers} answers, the longest took {longest:?}");
}

#[test]
fn what_the_target_lacks_is_said_by_the_plan() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
    counter::start(alpha, 1);
    bench.write("move.yaml", &(lab.yaml(&["alpha", "beta"]) + MOVE));
    // The number is taken there.
    beta.says("echo 5000 >/proc/sys/kernel/ns_last_pid; setsid sleep 100 </dev/null >/dev/null 2>&1 &");
    let said = bench.run(&["plan", "move.yaml"]).exits(2).stdout;
    assert!(said.contains("cannot take the process: process number 500") && said.contains("is taken"), "{said}");
    // There is no such process.
    bench.write("none.yaml", &(lab.yaml(&["alpha", "beta"]) + &MOVE.replace("pid_file: /run/counter.pid", "pid: 4444")));
    let said = bench.run(&["plan", "none.yaml"]).exits(2).stdout;
    assert!(said.contains("there is no process 4444 on `alpha`"), "{said}");
    assert_eq!(left(alpha) + &left(beta), "");
    assert!(counter::runs(alpha));
}

/// The pipeline with a CRIU of the test's own: a script on either host.
fn scripted(lab: &Lab, at_source: &str, at_target: &str) -> String {
    for (host, script) in [("alpha", at_source), ("beta", at_target)] {
        let file = lab.host(host).path("/srv/criu");
        std::fs::write(&file, format!("#!/bin/sh\n{script}\nexec criu \"$@\"\n")).expect("written");
        lab.host(host).says("chmod 755 /srv/criu");
    }
    lab.yaml(&["alpha", "beta"]) + MOVE + "      criu: /srv/criu\n    retry: { attempts: 1 }\n"
}

#[test]
fn what_cannot_be_restored_there_runs_on_here_with_its_connection() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
    counter::start(alpha, 4);
    let fails = "case $1 in restore) echo 'Error (criu/x.c:1): no luck today' >\"$3/restore.log\"; exit 1;; esac";
    bench.write("move.yaml", &scripted(&lab, "", fails));
    let asker = Asker::start();
    let ran = bench.run(&["run", "move.yaml", "--yes"]).exits(1);
    assert!(ran.stdout.contains("CRIU cannot restore the process on `beta`: no luck today"), "{ran:?}");
    assert!(counter::runs(alpha) && !counter::runs(beta));
    assert!(has_address(alpha) && !has_address(beta));
    assert_eq!(left(alpha) + &left(beta), "");
    // What was wrong is mended.
    bench.write("move.yaml", &scripted(&lab, "", ""));
    bench.run(&["resume", "last"]).exits(0);
    assert!(!counter::runs(alpha) && counter::runs(beta));
    asker.stop();
}

#[test]
fn a_runner_that_is_killed_leaves_a_service_that_the_next_one_finds() {
    // Told when CRIU begins, and told to go on.
    let held = |what: &str| format!("case $1 in {what}) touch /srv/reached; while [ ! -e /srv/go ]; do sleep 0.01; done;; esac");
    let after = |what: &str| format!("case $1 in {what}) criu \"$@\"; code=$?; touch /srv/reached; sleep 0.5; exit $code;; esac");
    let nothing = String::new();
    let stories = [
        ("before the dump", held("dump"), nothing.clone()),
        ("after the dump", after("dump"), nothing.clone()),
        ("before the restore", nothing.clone(), held("restore")),
        ("after the restore", nothing, after("restore")),
    ];
    for (when, at_source, at_target) in stories {
        for goes_on in [true, false] {
            let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
            let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
            counter::start(alpha, 4);
            bench.write("move.yaml", &scripted(&lab, &at_source, &at_target));
            let asker = Asker::start();
            let mut runner = bench.start(&["run", "move.yaml", "--yes"]);
            let held = if at_source.is_empty() { beta } else { alpha };
            lab::until("CRIU is at work", || held.path("/srv/reached").exists().then_some(()));
            runner.kill();
            held.says("touch /srv/go");
            bench.run(if goes_on { &["resume", "last"][..] } else { &["rollback", "last", "--yes"] }).exits(0);
            let (at, other) = if goes_on { (beta, alpha) } else { (alpha, beta) };
            assert!(counter::runs(at) && !counter::runs(other), "{when}, {goes_on}");
            assert!(has_address(at) && !has_address(other), "{when}, {goes_on}");
            assert_eq!(left(alpha) + &left(beta), "", "{when}, {goes_on}");
            let (answers, _) = asker.stop();
            assert!(answers > 10, "{when}, {goes_on}: {answers}");
        }
    }
}

#[test]
fn an_address_moves_and_comes_back() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
    let steps = "steps:\n  - id: address\n    uses: address.move\n    with: { from: alpha, to: beta, address: { ip: 10.77.0.99, device: eth0 } }\n";
    bench.write("move.yaml", &(lab.yaml(&["alpha", "beta"]) + steps));
    let said = bench.run(&["plan", "move.yaml"]).exits(2).stdout;
    assert!(said.contains("neither `alpha` nor `beta` has the address 10.77.0.99"), "{said}");
    alpha.says("ip addr add 10.77.0.99/32 dev eth0");
    let said = bench.run(&["plan", "move.yaml"]).exits(0).stdout;
    assert!(said.contains("moves 10.77.0.99 from `alpha` to `beta`") && has_address(alpha), "{said}");
    bench.run(&["run", "move.yaml", "--yes"]).exits(0);
    assert!(!has_address(alpha) && has_address(beta));
    assert!(bench.run(&["plan", "move.yaml"]).exits(0).stdout.contains("10.77.0.99 is at `beta`"));
    bench.run(&["rollback", "last", "--yes"]).exits(0);
    assert!(has_address(alpha) && !has_address(beta));
    beta.says("ip addr add 10.77.0.99/32 dev eth0");
    let said = bench.run(&["plan", "move.yaml"]).exits(2).stdout;
    assert!(said.contains("both `alpha` and `beta` have the address"), "{said}");
}

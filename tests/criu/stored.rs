//! `criu.checkpoint` and `criu.restore`: images that are kept.

use super::bench::Bench;
use super::lab::counter::{self, Asker};
use super::lab::{Lab, until};
use super::left;

const CHECKPOINT: &str = "steps:\n  - id: images\n    uses: criu.checkpoint\n    with: { host: alpha, process: { pid_file: /run/counter.pid }, \
    images: /srv/images, MORE }\n";
const RESTORE: &str = "steps:\n  - id: counter\n    uses: criu.restore\n    with: { host: beta, images: /srv/images }\n";

#[test]
fn a_process_becomes_images_and_runs_again_elsewhere() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
    counter::start(alpha, 4);
    assert_eq!((counter::ask(), counter::ask()), (1, 2));
    bench.write("images.yaml", &(lab.yaml(&["alpha", "beta"]) + &CHECKPOINT.replace("MORE", "connections: true")));
    let plan = bench.run(&["plan", "images.yaml"]).exits(0).stdout;
    assert!(plan.contains("dumps process 5") && plan.contains("; it ends"), "{plan}");
    assert!(!alpha.path("/srv/images").exists() && counter::runs(alpha), "a plan changes nothing");
    bench.run(&["run", "images.yaml", "--yes"]).exits(0);
    assert!(!counter::runs(alpha) && alpha.path("/srv/images/inventory.img").exists());
    // Undone, it runs on with what it had.
    bench.run(&["rollback", "last", "--yes"]).exits(0);
    assert!(counter::runs(alpha) && !alpha.path("/srv/images").exists());
    assert_eq!(counter::ask(), 3);
    // Elsewhere: images and address are carried over by hand.
    bench.run(&["run", "images.yaml", "--yes"]).exits(0);
    alpha.says("ip addr del 10.77.0.99/32 dev eth0; nft flush ruleset");
    bench.write("restore.yaml", &(lab.yaml(&["alpha", "beta"]) + RESTORE));
    let said = bench.run(&["plan", "restore.yaml"]).exits(2).stdout;
    assert!(said.contains("there are no images of `criu.checkpoint` in `/srv/images` on `beta`"), "{said}");
    let copied = std::process::Command::new("cp").arg("-a").args([alpha.path("/srv/images"), beta.path("/srv/images")]).status();
    assert!(copied.expect("cp runs").success());
    beta.says("ip addr add 10.77.0.99/32 dev eth0; arping -q -U -c 1 -w 1 -I eth0 -S 10.77.0.99 10.77.0.99 || true");
    bench.run(&["run", "restore.yaml", "--yes"]).exits(0);
    assert!(counter::runs(beta));
    assert_eq!(counter::ask(), 4);
    // Undone, it is in its images again, with what it has learned.
    bench.run(&["rollback", "last", "--yes"]).exits(0);
    assert!(!counter::runs(beta));
    bench.run(&["run", "restore.yaml", "--yes"]).exits(0);
    assert_eq!(counter::ask(), 5);
}

#[test]
fn a_process_that_is_left_running_is_not_disturbed() {
    let (lab, bench) = (Lab::new(&["alpha"]), Bench::new());
    let alpha = lab.host("alpha");
    counter::start(alpha, 4);
    let more = CHECKPOINT.replace("MORE", "leave_running: true, connections: true");
    bench.write("images.yaml", &(lab.yaml(&["alpha"]) + &more));
    let asker = Asker::start();
    bench.run(&["run", "images.yaml", "--yes"]).exits(0);
    assert!(counter::runs(alpha) && alpha.path("/srv/images/inventory.img").exists());
    // Somebody's folder is nobody else's.
    let said = bench.run(&["plan", "images.yaml"]).exits(2).stdout;
    assert!(said.contains("`/srv/images` on `alpha` is not empty"), "{said}");
    bench.run(&["rollback", "last", "--yes"]).exits(0);
    assert!(counter::runs(alpha) && !alpha.path("/srv/images").exists());
    assert_eq!(left(alpha), "");
    asker.stop();
}

#[test]
fn a_runner_that_is_killed_leaves_a_process_or_its_images() {
    for when in ["before", "after"] {
        for goes_on in [true, false] {
            let (lab, bench) = (Lab::new(&["alpha"]), Bench::new());
            let alpha = lab.host("alpha");
            counter::start(alpha, 4);
            let held = "touch /srv/reached; while [ ! -e /srv/go ]; do sleep 0.01; done";
            let script = if when == "before" {
                format!("{held}; exec criu \"$@\"")
            } else {
                format!("criu \"$@\"; code=$?; {held}; exit $code")
            };
            let script = format!("#!/bin/sh\ncase $1 in dump) {script};; esac\nexec criu \"$@\"\n");
            std::fs::write(alpha.path("/srv/criu"), script).expect("written");
            alpha.says("chmod 755 /srv/criu");
            bench.write("images.yaml", &(lab.yaml(&["alpha"]) + &CHECKPOINT.replace("MORE", "criu: /srv/criu")));
            let mut runner = bench.start(&["run", "images.yaml", "--yes"]);
            until("CRIU is at work", || alpha.path("/srv/reached").exists().then_some(()));
            runner.kill();
            alpha.says("touch /srv/go");
            bench.run(if goes_on { &["resume", "last"][..] } else { &["rollback", "last", "--yes"] }).exits(0);
            assert_eq!(counter::runs(alpha), !goes_on, "{when}, {goes_on}");
            assert_eq!(alpha.path("/srv/images/inventory.img").exists(), goes_on, "{when}, {goes_on}");
        }
    }
}

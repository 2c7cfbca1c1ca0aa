//! `container.migrate` between two hosts of the lab: a container moves with its memory and its connection.

#[allow(dead_code, reason = "it is shared with the tests of the command line")]
#[path = "cli/bench.rs"]
mod bench;
mod lab;
#[path = "parts/mod.rs"]
mod parts;

use bench::Bench;
use lab::counter::{ADDRESS, Asker};
use lab::{Lab, Machine, container};
use parts::NEW;

const MOVE: &str = "steps:\n  - id: counter\n    uses: container.migrate\n    with:\n      from: alpha\n      to: beta\n      container: counter\n\
    \x20     address: { ip: 10.77.0.99, device: eth0 }\n";

/// What podman, CRIU and ferry could leave on a host: images, a lock on a connection, a guard.
fn left(host: &Machine) -> String {
    host.says("ls -A /dev/shm | grep -v '^libpod_lock'; nft list tables")
}

/// The container runs on the first of the hosts, and nothing of it is on the other.
#[track_caller]
fn is_at(at: &Machine, other: &Machine, when: &str) {
    assert_eq!((container::all(at).as_str(), container::all(other).as_str()), ("counter running", ""), "{when}");
    let has_address = |host: &Machine| host.says("ip addr show dev eth0").contains("10.77.0.99/");
    assert!(has_address(at) && !has_address(other), "{when}");
    assert_eq!(left(at) + &left(other), "", "{when}");
}

#[test]
fn a_container_moves_with_its_connection_and_comes_back() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
    container::image(&[alpha, beta]);
    container::count(alpha, 16);
    alpha.says("podman exec counter sh -c 'echo written >/root/file'");
    bench.write("move.yaml", &(lab.yaml(&["alpha", "beta"]) + MOVE));
    let plan = bench.run(&["plan", "move.yaml"]).exits(0).stdout;
    assert!(plan.contains("freezes container `counter`") && plan.contains("with 10.77.0.99 and its connections"), "{plan}");
    is_at(alpha, beta, "a plan changes nothing");
    let asker = Asker::start();
    let told = bench.run(&["run", "move.yaml", "--yes", "--json"]).exits(0).stdout;
    is_at(beta, alpha, "moved");
    let states = ["start", "snapshot", "ready", "in progress", "migrated"].map(|state| format!("state: {state}"));
    let at: Vec<_> = states.iter().map(|state| told.find(state.as_str())).collect();
    assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{at:?} {told}");
    // What it had written into its own files has come along.
    assert_eq!(beta.says("podman exec counter cat /root/file"), "written");
    bench.run(&["rollback", "last", "--yes"]).exits(0);
    is_at(alpha, beta, "back");
    assert_eq!(alpha.says("podman exec counter cat /root/file"), "written");
    let (answers, longest) = asker.stop();
    assert!(answers > 100, "{answers} answers, the longest took {longest:?}");
    container::clean(&[alpha, beta]);
}

#[test]
fn what_is_in_the_way_of_a_container_is_said_by_the_plan() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
    container::image(&[alpha]);
    container::count(alpha, 1);
    let says = |pipeline: &str, what: &str| {
        bench.write("move.yaml", &(lab.yaml(&["alpha", "beta"]) + pipeline));
        let said = bench.run(&["plan", "move.yaml"]).exits(2).stdout;
        assert!(said.contains(what), "{what}: {said}");
    };
    let of = |name: &str| MOVE.replace("container: counter", &format!("container: {name}"));
    says(&of("nobody"), "there is no container `nobody` on `alpha`");
    says(MOVE, "`beta` cannot take the container: the image localhost/box:latest is missing");
    // Another image of the same name, and the container's name taken.
    beta.says("mkdir /srv/other; tar -C /srv/other -cf /srv/other.tar . && podman import -q /srv/other.tar box && podman create --name counter box true");
    says(MOVE, "localhost/box:latest is another image, there is a container counter already");
    beta.says("podman rm counter && podman rmi -f box");
    std::fs::copy(alpha.path("/srv/box.tar"), beta.path("/srv/box.tar")).expect("a copy");
    beta.says("podman load -q -i /srv/box.tar");
    // A folder of the host's own, a volume, a network of its own, a runtime without CRIU, one that has ended.
    alpha.says("mkdir /srv/here");
    container::run(alpha, "mounted", "-v /srv/here:/mnt", &format!("counter.py {ADDRESS} 7001 1"));
    says(&of("mounted"), "/srv/here, which is mounted, is missing");
    container::run(alpha, "kept", "-v things:/mnt", &format!("counter.py {ADDRESS} 7002 1"));
    says(&of("kept"), "container `kept` has the volume `things`");
    container::run(alpha, "apart", "--network none", "counter.py 127.0.0.1 7003 1");
    says(&of("apart"), "container `apart` is in the network `none`");
    container::run(alpha, "passing", "--rm", &format!("counter.py {ADDRESS} 7004 1"));
    says(&of("passing"), "container `passing` was started with `--rm`");
    alpha.says("podman stop --time 0 mounted");
    says(&of("mounted"), "container `mounted` is exited on `alpha`");
    let runtime = "#!/bin/sh\ncase $1 in --version) echo crun version 9; echo +SYSTEMD;; *) exec runc \"$@\";; esac\n";
    std::fs::write(alpha.path("/srv/crun"), runtime).expect("written");
    alpha.says("chmod 755 /srv/crun; podman --runtime /srv/crun run -d --name fast --network host -v /usr:/usr:ro localhost/box sleep 100");
    says(&of("fast"), "host `alpha` has crun version 9, which is built without CRIU");
    assert_eq!(left(alpha) + &left(beta), "");
    container::clean(&[alpha, beta]);
}

/// The pipeline with a podman of the test's own: a script on either host. `$2` is `checkpoint` or `restore`.
fn scripted(lab: &Lab, [from, to]: [&Machine; 2], at_source: &str, at_target: &str) -> String {
    for (host, script) in [(from, at_source), (to, at_target)] {
        std::fs::write(host.path("/srv/podman"), format!("#!/bin/sh\n{script}\nexec podman \"$@\"\n")).expect("written");
        host.says("chmod 755 /srv/podman");
    }
    let way = MOVE.replace("from: alpha", &format!("from: {}", from.name)).replace("to: beta", &format!("to: {}", to.name));
    lab.yaml(&["alpha", "beta"]) + &way + "      podman: /srv/podman\n    retry: { attempts: 1 }\n"
}

#[test]
fn a_container_that_cannot_be_restored_there_runs_on_here_with_its_connection() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
    container::image(&[alpha, beta]);
    container::count(alpha, 4);
    let asker = Asker::start();
    // CRIU itself finds a file broken there.
    let breaks = "case $2 in restore) for f in /dev/shm/ferry-*/core-1.img; do : >$f; done;; esac";
    bench.write("move.yaml", &scripted(&lab, [alpha, beta], "", breaks));
    let ran = bench.run(&["run", "move.yaml", "--yes"]).exits(1);
    assert!(ran.stdout.contains("podman cannot restore the container on `beta`: "), "{ran:?}");
    is_at(alpha, beta, "not restored");
    // A checkpoint that does not come about.
    let refuses = "case $2 in checkpoint) echo 'no luck today' >&2; exit 1;; esac";
    bench.write("move.yaml", &scripted(&lab, [alpha, beta], refuses, ""));
    let ran = bench.run(&["run", "move.yaml", "--yes"]).exits(1);
    assert!(ran.stdout.contains("podman cannot checkpoint the container on `alpha`: no luck today"), "{ran:?}");
    is_at(alpha, beta, "not checkpointed");
    // What was wrong is mended.
    bench.write("move.yaml", &scripted(&lab, [alpha, beta], "", ""));
    bench.run(&["resume", "last"]).exits(0);
    is_at(beta, alpha, "resumed");
    asker.stop();
    container::clean(&[alpha, beta]);
}

#[test]
fn a_runner_that_is_killed_leaves_a_container_that_the_next_one_finds() {
    // Told when podman begins, and told to go on.
    let held = |what: &str| format!("case $2 in {what}) touch /srv/reached; while [ ! -e /srv/go ]; do sleep 0.01; done;; esac");
    let after =
        |what: &str| format!("case $2 in {what}) podman \"$@\"; code=$?; touch /srv/reached; sleep 0.5; exit $code;; esac");
    let nothing = String::new();
    let stories = [
        ("before the checkpoint", held("checkpoint"), nothing.clone()),
        ("after the checkpoint", after("checkpoint"), nothing.clone()),
        ("before the restore", nothing.clone(), held("restore")),
        ("after the restore", nothing, after("restore")),
    ];
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (mut at, mut other) = (lab.host("alpha"), lab.host("beta"));
    container::image(&[at, other]);
    container::count(at, 4);
    let asker = Asker::start();
    // In the short form each once, resumed or rolled back in turn.
    let all = std::env::var_os("FERRY_SWEEP").is_some();
    for (number, (when, at_source, at_target)) in stories.into_iter().enumerate() {
        for goes_on in [false, true].into_iter().filter(|goes_on| all || *goes_on == (number % 2 == 1)) {
            let way = scripted(&lab, [at, other], &at_source, &at_target);
            bench.write("move.yaml", &way);
            let mut runner = bench.start(&["run", "move.yaml", "--yes"]);
            let held = if at_source.is_empty() { other } else { at };
            lab::until("podman is at work", || held.path("/srv/reached").exists().then_some(()));
            runner.kill();
            held.says("touch /srv/go");
            bench.run(if goes_on { &["resume", "last"][..] } else { &["rollback", "last", "--yes"] }).exits(0);
            if goes_on {
                // The next one goes the other way.
                (at, other) = (other, at);
            }
            is_at(at, other, &format!("{when}, {goes_on}"));
            held.says("rm -f /srv/reached /srv/go");
        }
    }
    asker.stop();
    container::clean(&[at, other]);
}

#[test]
fn a_container_goes_into_a_file_and_comes_out_of_it_elsewhere() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
    container::image(&[alpha, beta]);
    container::count(alpha, 4);
    let save = "steps:\n  - id: save\n    uses: container.checkpoint\n    on: alpha\n    with: { container: counter, file: /srv/counter.tar";
    let plan = |text: &str| bench.write("file.yaml", &(lab.yaml(&["alpha", "beta"]) + text));
    plan(&format!("{save} }}\n"));
    let said = bench.run(&["plan", "file.yaml"]).exits(0).stdout;
    assert!(said.contains("which is stopped, into `/srv/counter.tar`"), "{said}");
    assert_eq!((container::all(alpha).as_str(), left(alpha).as_str()), ("counter running", ""));
    // Stopped, and running again when it is taken back.
    bench.run(&["run", "file.yaml", "--yes"]).exits(0);
    assert_eq!(container::all(alpha), "counter exited");
    bench.run(&["rollback", "last", "--yes"]).exits(0);
    assert_eq!((container::all(alpha).as_str(), left(alpha).as_str()), ("counter running", ""));
    assert!(!alpha.path("/srv/counter.tar").exists());
    // It runs on, and its twin elsewhere has counted as far.
    let ask = || -> String {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect((ADDRESS, lab::counter::PORT)).expect("it accepts");
        stream.write_all(b"xx").expect("it reads");
        let mut said = String::new();
        stream.shutdown(std::net::Shutdown::Write).expect("a connection");
        stream.read_to_string(&mut said).expect("it answers");
        said
    };
    assert_eq!(ask(), "1\n2\n");
    plan(&format!("{save}, keeps_running: true }}\n"));
    bench.run(&["run", "file.yaml", "--yes"]).exits(0);
    assert_eq!((container::all(alpha).as_str(), left(alpha).as_str()), ("counter running", ""));
    let said = bench.run(&["plan", "file.yaml"]).exits(2).stdout;
    assert!(said.contains("`/srv/counter.tar` is there already"), "{said}");
    std::fs::copy(alpha.path("/srv/counter.tar"), beta.path("/srv/counter.tar")).expect("a copy");
    alpha.says(&format!("podman rm -f -t 0 counter; ip addr del {ADDRESS}/32 dev eth0"));
    plan("steps:\n  - id: load\n    uses: container.restore\n    on: beta\n    with: { file: /srv/counter.tar, name: twin }\n");
    let said = bench.run(&["plan", "file.yaml"]).exits(0).stdout;
    assert!(said.contains("restores container `twin`"), "{said}");
    assert_eq!(container::all(beta), "");
    beta.says(&format!("ip addr add {ADDRESS}/32 dev eth0; arping -q -U -c 1 -I eth0 -S {ADDRESS} {ADDRESS} || true"));
    bench.run(&["run", "file.yaml", "--yes"]).exits(0);
    assert_eq!((container::all(beta).as_str(), left(beta).as_str()), ("twin running", ""));
    // Not from the machine of the test, which may have the address at the other host still.
    let from_there = "python3 -c \"import socket; s = socket.create_connection(('10.77.0.99', 7000)); s.sendall(b'x'); print(s.recv(9).decode())\"";
    assert_eq!(beta.says(from_there), "3");
    bench.run(&["rollback", "last", "--yes"]).exits(0);
    assert_eq!((container::all(beta).as_str(), left(beta).as_str()), ("", ""));
    container::clean(&[alpha, beta]);
}

/// One of `pipelines/` as it stands, but for the lab's keys.
fn published(lab: &Lab, name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(name);
    let mut text = std::fs::read_to_string(path).expect("it is there");
    for host in ["source", "target"] {
        let line = format!("{host}: {{ ssh: \"{{{{ inputs.{host} }}}}\"");
        assert!(text.contains(&line), "the pipeline has changed: {line}");
        text = text.replace(&line, &format!("{line}, config: \"{}\"", lab.folder().join("config").display()));
    }
    text
}

#[test]
fn a_clock_that_writes_to_a_store_misses_no_more_than_its_freeze() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
    let store = parts::s3_on(Some("10.77.0.1"), &[NEW]).expect("rclone is installed");
    container::image(&[alpha, beta]);
    alpha.says(&format!("ip addr add {ADDRESS}/32 dev eth0"));
    let script = format!("clock.py 10.77.0.1:{} {} {} {ADDRESS}", store.port, NEW.id, NEW.secret);
    container::run(alpha, "clock", "", &script);
    let object = store.data.path().join("box/clock.txt");
    let times = || -> Vec<f64> {
        let text = std::fs::read_to_string(&object).unwrap_or_default();
        text.lines().filter_map(|line| line.parse().ok()).collect()
    };
    lab::until("the clock has written", || (times().len() > 2).then_some(()));
    bench.write("move.yaml", &published(&lab, "container-live-migration.yaml"));
    let inputs = ["-i", "source=root@alpha", "-i", "target=root@beta", "-i", "container=clock", "-i", "address=10.77.0.99"];
    let ran = bench.run(&[&["run", "move.yaml", "--yes"][..], &inputs].concat()).exits(0);
    assert_eq!((container::all(alpha).as_str(), container::all(beta).as_str()), ("", "clock running"));
    let then = times().len();
    lab::until("the clock goes on", || (times().len() > then + 2).then_some(()));
    // Its own record tells: nothing that it had written is gone, and the gap is a second and the freeze.
    let gaps: Vec<f64> = times().windows(2).map(|two| two[1] - two[0]).collect();
    let longest = gaps.iter().copied().fold(0.0, f64::max);
    assert!(gaps.iter().all(|gap| *gap > 0.0) && longest < 30.0, "{gaps:?} {ran:?}");
    container::clean(&[alpha, beta]);
}

#[test]
fn several_go_at_once_when_that_is_faster() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let (alpha, beta) = (lab.host("alpha"), lab.host("beta"));
    container::image(&[alpha, beta]);
    let mut all = Vec::new();
    for n in 1..=4 {
        alpha.says(&format!("ip addr add 10.77.0.10{n}/32 dev eth0"));
        container::run(alpha, &format!("c{n}"), "", &format!("counter.py 10.77.0.10{n} 7000 8"));
        all.push(format!("\"c{n}\":\"10.77.0.10{n}\""));
    }
    for n in 1..=4 {
        lab::until("it listens", || std::net::TcpStream::connect((format!("10.77.0.10{n}"), 7000)).ok());
    }
    bench.write("move.yaml", &published(&lab, "containers-in-parallel.yaml"));
    let containers = format!("containers={{{}}}", all.join(", "));
    let inputs = ["-i", "source=root@alpha", "-i", "target=root@beta", "-i", &containers];
    let told = bench.run(&[&["run", "move.yaml", "--yes", "--json"][..], &inputs].concat()).exits(0).stdout;
    let running = "c1 running\nc2 running\nc3 running\nc4 running";
    assert_eq!((container::all(alpha).as_str(), container::all(beta).as_str()), ("", running));
    assert_eq!(left(alpha) + &left(beta), "");
    // One alone, and then, as two are not slower than none, two.
    let measured: Vec<serde_json::Value> = told
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|line| line["event"] == "measured")
        .collect();
    let at_once: Vec<u64> = measured.iter().filter_map(|line| line["at_once"].as_u64()).collect();
    assert!(at_once.starts_with(&[1]) && at_once.is_sorted(), "{measured:?}");
    assert!(measured.iter().all(|line| line["rate"].as_u64() > Some(0)), "{measured:?}");
    for n in 1..=4 {
        for state in ["start", "snapshot", "ready", "in progress", "migrated"] {
            let is_it =
                |line: &&str| line.contains(&format!("\"containers[c{n}]\"")) && line.contains(&format!("state: {state}"));
            assert_eq!(told.lines().filter(is_it).count(), 1, "{n} {state}");
        }
    }
    container::clean(&[alpha, beta]);
}

//! Whole runs against hosts by SSH: the same step types, killed, resumed, rolled back; and what `doctor` says of a host.

#[allow(dead_code, reason = "it is shared with the tests of the command line")]
#[path = "cli/bench.rs"]
mod bench;
mod lab;

use bench::Bench;
use lab::Lab;

/// A pipeline whose host `far` is alpha of the lab.
fn pipeline(lab: &Lab, keys: &str, steps: &str) -> String {
    let config = lab.folder().join("config");
    format!("hosts: {{ far: {{ ssh: alpha, config: \"{}\"{keys} }} }}\n{steps}", config.display())
}

#[test]
fn steps_act_on_the_host_and_are_taken_back_there() {
    let (lab, bench) = (Lab::new(&["alpha"]), Bench::new());
    lab.host("alpha").says("echo old >/srv/conf; chmod 600 /srv/conf");
    bench.write(
        "move.yaml",
        &pipeline(
            &lab,
            ", user: root",
            "steps:\n  - id: conf\n    uses: file.write\n    on: far\n    with: { path: /srv/conf, content: \"new\\n\", owner: ada }\n\
             \x20 - id: name\n    uses: command\n    on: far\n    needs: [conf]\n    with: { run: \"hostname; pwd; cat /srv/conf\", outputs: lines }\n\
             outputs: { said: \"{{ steps.name.outputs.lines }}\", where: \"{{ hosts.far.ssh }}\" }\n",
        ),
    );
    let plan = bench.run(&["plan", "move.yaml"]).exits(0);
    assert!(plan.stdout.contains("writes `/srv/conf` over what is there"), "{plan:?}");
    assert_eq!(lab.host("alpha").says("cat /srv/conf"), "old", "a plan changes nothing");
    let run = bench.run(&["run", "move.yaml", "--yes", "--json"]).exits(0);
    assert!(run.stdout.contains("alpha"), "{run:?}");
    assert_eq!(lab.host("alpha").says("stat -c '%U %a' /srv/conf; cat /srv/conf"), "ada 600\nnew");
    bench.run(&["rollback", "last", "--yes"]).exits(0);
    assert_eq!(lab.host("alpha").says("stat -c '%U %a' /srv/conf; cat /srv/conf"), "root 600\nold");
    assert_eq!(lab.host("alpha").says("ls -A /srv /tmp | grep ferry | wc -l"), "0", "nothing stays behind");
}

#[test]
fn a_killed_runner_leaves_nothing_at_work_and_the_run_is_resumed() {
    let (lab, bench) = (Lab::new(&["alpha"]), Bench::new());
    let host = lab.host("alpha");
    bench.write(
        "long.yaml",
        &pipeline(
            &lab,
            ", user: ada",
            "steps:\n  - id: long\n    uses: command\n    on: far\n    with: { run: \"echo $$ >>/tmp/starts; test -e /tmp/go || sleep 4711 & wait\" }\n",
        ),
    );
    let mut runner = bench.start(&["run", "long.yaml", "--yes"]);
    Bench::wait_until(|| host.running("sleep 4711") > 1);
    runner.kill();
    Bench::wait_until(|| host.running("sleep 4711") == 0);
    Bench::wait_until(|| host.says("ls -A /tmp | grep -c ferry-; true") == "0");
    host.says("touch /tmp/go");
    bench.run(&["resume", "last"]).exits(0);
    assert_eq!(host.says("wc -l </tmp/starts"), "2");
}

#[test]
fn a_network_that_is_gone_for_a_while_costs_an_attempt() {
    let (lab, bench) = (Lab::new(&["alpha"]), Bench::new());
    let host = lab.host("alpha");
    bench.write(
        "retry.yaml",
        &pipeline(
            &lab,
            ", user: ada",
            "steps:\n  - id: long\n    uses: command\n    on: far\n    retry: { attempts: 8, initial: 1s, max: 2s }\n    with: { run: \"echo $$ >>/tmp/starts; \
             test -e /tmp/go || sleep 4711 & wait\" }\n",
        ),
    );
    let runner = bench.start(&["run", "retry.yaml", "--yes"]);
    Bench::wait_until(|| host.running("sleep 4711") > 1);
    host.cut();
    // The far end ends it by itself when it hears nothing any more.
    Bench::wait_until(|| host.running("sleep 4711") == 0);
    host.says("touch /tmp/go");
    host.mend();
    let ran = runner.ends().exits(0);
    assert!(ran.stderr.contains("lost") || ran.stdout.contains("lost"), "{ran:?}");
    assert_eq!(host.says("wc -l </tmp/starts"), "2");
}

#[test]
fn doctor_says_what_a_host_has_and_lacks() {
    let (lab, bench) = (Lab::new(&["alpha"]), Bench::new());
    bench.write(
        "far.yaml",
        &pipeline(
            &lab,
            ", user: ada, become: bob",
            "steps:\n  - id: conf\n    uses: file.write\n    on: far\n    with: { path: conf, content: x }\n",
        ),
    );
    let fine = bench.run(&["doctor", "far.yaml", "--host", "far", "--json"]).exits(0).json();
    let checks = fine["checks"].as_array().expect("a list");
    let says = |name: &str| {
        let check = checks.iter().find(|check| check["name"] == name).unwrap_or_else(|| panic!("no `{name}` in {fine:#}"));
        (check["state"].as_str().unwrap_or_default().to_owned(), check["says"].as_str().unwrap_or_default().to_owned())
    };
    assert!(says("far ssh").1.contains("lets `ada` in"), "{fine:#}");
    assert_eq!(says("far become"), ("fine".to_owned(), "commands run as `bob`".to_owned()));
    assert!(says("far tar").1.contains("tar (GNU tar)"), "{fine:#}");
    assert!(says("far stat").1.contains("coreutils"), "{fine:#}");
    assert_eq!(says("far clock").0, "fine");
    // A program that a step needs, taken away.
    lab.host("alpha").says("mount --bind /dev/null /usr/bin/readlink");
    let lacking = bench.run(&["doctor", "far.yaml", "--host", "far"]).exits(2);
    assert!(lacking.stdout.contains("readlink") && lacking.stdout.contains("`file.write` needs it"), "{lacking:?}");
    // A machine that no pipeline names, and one that does not answer.
    let config = lab.folder().join("config");
    bench.write("gone.yaml", &format!("hosts: {{ gone: {{ ssh: 10.77.0.99, config: \"{}\" }} }}\nsteps: []\n", config.display()));
    let host = bench.run(&["doctor", "--host", "local"]).exits(0);
    assert!(host.stdout.contains("local system"), "{host:?}");
    let unknown = bench.run(&["doctor", "far.yaml", "--host", "fra"]).exits(2);
    assert!(unknown.stderr.contains("did you mean `far`"), "{unknown:?}");
}

#[test]
fn ports_and_programs_are_looked_at_from_the_host() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    // Only alpha may look at beta.
    lab.host("beta").says("ip route add blackhole 10.77.0.1/32");
    bench.write(
        "looks.yaml",
        &pipeline(
            &lab,
            ", user: ada",
            "steps:\n  - id: there\n    uses: validate.tcp\n    on: far\n    with: { address: \"10.77.0.20:22\", greets: SSH-2.0 }\n\
             \x20 - id: not_here\n    uses: validate.tcp\n    with: { address: \"10.77.0.20:22\", reachable: false, within: 300ms }\n\
             \x20 - id: closed\n    uses: validate.tcp\n    on: far\n    with: { address: \"10.77.0.20:9\", reachable: false }\n\
             \x20 - id: program\n    uses: validate.command\n    on: far\n    with: { run: \"hostname; id -un; pwd\", become: bob, equals: \"alpha\\nbob\\n/home/bob\" }\n\
             \x20 - id: nobody\n    uses: validate.command\n    with: { run: \"id -un\", become: nobody, equals: nobody }\n\
             outputs: { greeting: \"{{ steps.there.outputs.greeting }}\" }\n",
        ),
    );
    let ran = bench.run(&["run", "looks.yaml", "--yes", "--json"]).exits(0);
    assert!(ran.stdout.contains("OpenSSH"), "{ran:?}");
}

#[test]
fn the_pipeline_of_two_hosts_runs_and_goes_back() {
    let (lab, bench) = (Lab::new(&["alpha", "beta"]), Bench::new());
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/two-hosts.yaml")).expect("it is there");
    let config = lab.folder().join("config");
    // As it stands, but for the lab's keys.
    let text = text.replace("}}\" }\n  target: { ssh", &format!("}}}}\", config: {} }}\n  target: {{ ssh", config.display()));
    let text = text.replace("target }}\" }\n\nsteps", &format!("target }}}}\", config: {} }}\n\nsteps", config.display()));
    bench.write("two.yaml", &text);
    bench.run(&["run", "two.yaml", "--yes", "-i", "source=root@alpha", "-i", "target=ada@beta"]).exits(0);
    assert_eq!(lab.host("beta").says("cat /home/ada/ferry-zone"), lab.host("alpha").says("date +%Z"));
    bench.run(&["rollback", "last", "--yes"]).exits(0);
    assert_eq!(lab.host("beta").says("ls /home/ada | wc -l"), "0");
}

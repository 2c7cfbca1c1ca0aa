//! How a run ends that somebody ends, and what of a failure reaches the terminal.

use super::bench::Bench;

#[test]
fn what_a_failing_command_writes_is_no_order_to_the_terminal() {
    let bench = Bench::new();
    let run = r"printf '\033]0;title\007\033[2Jlast\302\233K\n' >&2; exit 1";
    bench.write("p.yaml", &format!("steps:\n  - id: a\n    uses: command\n    with: {{ run: {run:?} }}\n"));
    let ran = bench.run(&["run", "p.yaml"]).exits(1);
    let told = format!("{}{}", ran.stdout, ran.stderr);
    assert!(told.contains("exit code 1: ]0;title[2JlastK"), "{told}");
    assert!(!told.chars().any(|c| c != '\n' && c.is_control()), "{told:?}");
}

#[test]
fn a_terminal_that_goes_away_cancels_the_run_unless_that_is_ignored() {
    let bench = Bench::new();
    let text = "steps:\n  - id: a\n    uses: command\n    with: { run: 'echo x > began; while [ ! -e go ]; do sleep 0.02; done' }\nfinally:\n  - id: f\n    uses: file.write\n    with: { path: cleaned, content: x }\n";
    bench.write("p.yaml", text);
    let started = bench.start(&["run", "p.yaml"]);
    bench.wait_for("began");
    started.signal("HUP");
    started.ends().exits(130);
    assert!(bench.path("cleaned").exists());
    assert_eq!(bench.run(&["runs", "--json"]).json()["runs"][0]["status"], "cancelled");

    // As under `nohup`: a signal that is ignored when the process starts stays ignored.
    let bench = Bench::new();
    bench.write("p.yaml", text);
    let mut shell = std::process::Command::new("sh");
    shell
        .args(["-c", r#"trap '' HUP; exec "$0" run p.yaml"#])
        .arg(assert_cmd::cargo::cargo_bin!("ferry"))
        .current_dir(bench.path("."));
    let mut child = shell.spawn().expect("`sh` runs");
    bench.wait_for("began");
    let sent = std::process::Command::new("kill").args(["-HUP", &child.id().to_string()]).status();
    assert!(sent.expect("`kill` runs").success());
    bench.write("go", "");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_cancel_during_finally_is_a_cancel_and_no_failure() {
    let bench = Bench::new();
    let text = "steps:\n  - id: a\n    uses: file.write\n    with: { path: a.txt, content: a }\nfinally:\n  - id: f\n    uses: command\n    with: { run: 'echo x > began; while [ ! -e go ]; do sleep 0.02; done' }\n";
    bench.write("p.yaml", text);
    let started = bench.start(&["run", "p.yaml"]);
    bench.wait_for("began");
    started.signal("INT");
    started.ends().exits(130);
    assert_eq!(bench.run(&["runs", "--json"]).json()["runs"][0]["status"], "cancelled");
    bench.write("go", "");
    bench.run(&["resume", "last"]).exits(0);
}

#[test]
fn a_pipe_is_no_pipeline_and_is_not_waited_for() {
    let bench = Bench::new();
    let made = std::process::Command::new("mkfifo").arg(bench.path("f.yaml")).status();
    assert!(made.expect("`mkfifo` runs").success());
    bench.write("p.yaml", "steps:\n  - id: a\n    uses: ./f.yaml\n");
    for file in ["f.yaml", "p.yaml"] {
        let ran = bench.run(&["check", file]).exits(2);
        assert!(ran.stderr.contains("not a regular file"), "{}", ran.stderr);
    }
}

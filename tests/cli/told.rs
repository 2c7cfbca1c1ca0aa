//! What is told from outside: a signal to a command, a name in the environment.

use super::bench::Bench;

#[test]
fn a_command_that_ends_while_the_run_is_told_to_stop_has_done_what_it_has_done() {
    let bench = Bench::new();
    let text = "steps:\n  - id: a\n    uses: command\n    with: { run: 'trap \"\" TERM; echo x > began; while [ ! -e go ]; do sleep 0.02; done', undo: 'trap \"exit 0\" TERM; echo x > undoing; while [ ! -e gone ]; do sleep 0.02; done; echo x > undone' }\n  - id: b\n    uses: command\n    needs: [a]\n    with: { run: 'exit 3' }\n";
    bench.write("p.yaml", text);
    bench.write("go", "");
    bench.run(&["run", "p.yaml"]).exits(1);
    let started = bench.start(&["rollback", "last", "--yes"]);
    bench.wait_for("undoing");
    started.signal("INT");
    started.ends();
    assert!(!bench.path("undone").exists());
    bench.write("gone", "");
    bench.run(&["rollback", "last", "--yes"]).exits(0);
    assert!(bench.path("undone").exists(), "an undo that was stopped half-way runs again");
}

#[test]
fn the_environment_does_not_say_who_somebody_is() {
    let bench = Bench::new();
    bench.write("p.yaml", "steps:\n  - id: go\n    uses: approval\n    with: { message: Go?, approvers: [ada-nobody] }\n");
    bench.run(&["run", "p.yaml"]).exits(5);
    let ran = bench.ferry(&["approve", "last", "go"]).env("USER", "ada-nobody").env("LOGNAME", "ada-nobody").output();
    assert_eq!(ran.expect("it starts").status.code(), Some(2));
}

#[test]
fn a_key_that_has_another_name_now_is_told_so() {
    let bench = Bench::new();
    bench.write("p.yaml", "steps:\n  - id: a\n    uses: object.sync\n    with: { from: ./a, to: ./b, delete: true }\n");
    let ran = bench.ferry(&["check", "p.yaml"]).output().expect("it starts");
    assert_eq!(ran.status.code(), Some(2));
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    assert!(said.contains("has no key `delete`") && said.contains("`delete: true` is now `mode: mirror`"), "{said}");
}

#[test]
fn a_step_that_follows_without_end_is_told_so() {
    let bench = Bench::new();
    let text = |more: &str, follow: &str| {
        format!(
            "steps:\n  - id: a\n    uses: object.sync\n{more}    with: {{ from: ./a, to: ./b, follow: {follow} }}\n  - {{ id: b, uses: command, needs: [a], with: {{ run: x }} }}\n"
        )
    };
    for (more, follow, code) in [
        ("", "true", 2),
        ("", "{ every: 1m }", 2),
        ("", "{ until_lag: 5s }", 0),
        ("", "false", 0),
        ("    background: { until: b }\n", "true", 0),
    ] {
        bench.write("p.yaml", &text(more, follow));
        let ran = bench.ferry(&["check", "p.yaml"]).output().expect("it starts");
        let said = String::from_utf8_lossy(&ran.stderr).into_owned();
        assert_eq!(ran.status.code(), Some(code), "{more}{follow}: {said}");
        assert!(
            code == 0 || said.contains("write `background: { until: STEP }` beside it, or `follow: { until_lag: … }`"),
            "{said}"
        );
    }
}

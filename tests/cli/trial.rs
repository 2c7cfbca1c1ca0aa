//! `ferry trial`: figures of several runs, and what is said when one of them does not come to its end.

use super::bench::Bench;

#[test]
fn outputs_of_several_runs_become_figures() {
    let bench = Bench::new();
    let steps = "steps:\n  - id: count\n    uses: command\n    with: { run: 'echo x >> lines; wc -l < lines', outputs: json }\n\
        outputs:\n  lines: '{{ steps.count.outputs.json }}'\n";
    bench.write("count.yaml", steps);
    let ran = bench.run(&["trial", "count.yaml", "--times", "3", "--json", "--svg", "lines.svg"]).exits(0);
    let document: serde_json::Value = serde_json::from_str(&ran.stdout).expect("one document");
    assert_eq!(document["figures"][0]["values"], serde_json::json!([1.0, 2.0, 3.0]), "{document}");
    assert_eq!(document["figures"][0]["median"], 2.0);
    assert_eq!(document["runs"].as_array().map(Vec::len), Some(3));
    assert!(std::fs::read_to_string(bench.path("lines.svg")).expect("it was written").starts_with("<svg"));
}

#[test]
fn a_run_that_fails_ends_it_and_is_named() {
    let bench = Bench::new();
    bench.write("once.yaml", "steps:\n  - id: a\n    uses: command\n    with: { run: 'mkdir made' }\n");
    let ran = bench.run(&["trial", "once.yaml", "--times", "3"]).exits(1);
    assert!(ran.stderr.contains("is failed: the trial ends with it") && ran.stderr.contains("ferry show"), "{}", ran.stderr);
    assert_eq!(bench.run(&["runs", "--json"]).exits(0).stdout.matches("\"id\"").count(), 2, "the third was not begun");
}

#[test]
fn a_run_that_does_not_begin_says_why() {
    let bench = Bench::new();
    let steps = "hosts: { far: { ssh: nobody@127.0.0.1, port: 1 } }\nsteps:\n  - id: copy\n    uses: postgres.replica\n\
        \x20   with: { from: far, to: { host: local, data: /nowhere } }\n";
    bench.write("far.yaml", steps);
    for more in [&["--json"][..], &[]] {
        let ran = bench.run(&[&["trial", "far.yaml", "--times", "2"], more].concat()).exits(2);
        let said = ran.stdout + &ran.stderr;
        assert!(said.contains("did not begin") && said.contains("step `copy`: host `far`"), "{said}");
    }
    bench.write("wrong.yaml", "steps:\n  - id: copy\n    uses: nothing.such\n");
    let ran = bench.run(&["trial", "wrong.yaml"]).exits(2);
    assert!(ran.stderr.contains("nothing.such"), "{}", ran.stderr);
}

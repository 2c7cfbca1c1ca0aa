//! Places on the command line: what is not there is said, before anything is begun.

use super::bench::Bench;

#[test]
fn ls_of_a_folder_that_is_missing_or_a_file_says_so() {
    let bench = Bench::new();
    bench.write("file.yaml", "x");
    for place in ["./nonesuch", "./nonesuch/"] {
        let ran = bench.run(&["ls", place]);
        assert_ne!(ran.code, Some(0), "{ran:?}");
        assert!(ran.stderr.contains("there is no folder") && ran.stderr.contains("path is right"), "{ran:?}");
    }
    let ran = bench.run(&["ls", "./file.yaml"]);
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("is a file"), "{ran:?}");
    std::fs::create_dir(bench.path("empty")).expect("made");
    bench.run(&["ls", "./empty"]).exits(0);
}

#[test]
fn a_sync_from_a_missing_folder_exits_2_and_begins_no_run() {
    let bench = Bench::new();
    let ran = bench.run(&["sync", "./nope", "./x"]).exits(2);
    assert!(ran.stderr.contains("there is no folder `./nope`"), "{ran:?}");
    let none = |bench: &Bench| !bench.path(".ferry").exists() && !bench.path("x").exists();
    assert!(none(&bench));
    let text = "steps:\n  - id: a\n    uses: object.list\n    with: { from: ./nope }\n  - id: b\n    uses: object.sync\n    with: { from: ./nope, to: ./x }\n";
    bench.write("p.yaml", text);
    let ran = bench.run(&["run", "p.yaml"]).exits(2);
    assert!(ran.stderr.contains("2 steps are in the way"), "{ran:?}");
    let planned = bench.run(&["plan", "p.yaml"]);
    assert_ne!(planned.code, Some(0), "{planned:?}");
    assert!(none(&bench));
}

#[test]
fn a_source_that_an_earlier_step_makes_is_no_obstacle() {
    let bench = Bench::new();
    let text = "steps:\n  - id: make\n    uses: command\n    with: { run: 'mkdir made && echo x > made/a', undo: 'rm -r made' }\n  - id: copy\n    uses: object.sync\n    needs: [make]\n    with: { from: ./made, to: ./x }\n  - id: same\n    uses: object.compare\n    needs: [copy]\n    with: { from: ./made, to: ./x }\n";
    bench.write("p.yaml", text);
    let planned = bench.run(&["plan", "p.yaml"]).exits(0);
    assert!(planned.stdout.contains("an earlier step may bring it"), "{planned:?}");
    bench.run(&["run", "p.yaml"]).exits(0);
    assert!(bench.path("x/a").exists());
}

#[test]
fn a_plan_counts_one_object_as_one_and_a_written_file_as_none() {
    let bench = Bench::new();
    bench.write("in/a", "x");
    let write = "steps:\n  - id: w\n    uses: file.write\n    with: { path: out.txt, content: x }\n";
    bench.write("write.yaml", write);
    let planned = bench.run(&["plan", "write.yaml"]).exits(0);
    assert!(!planned.stdout.contains("to move"), "{planned:?}");
    bench.write("both.yaml", &format!("{write}  - id: s\n    uses: object.sync\n    with: {{ from: ./in, to: ./x }}\n"));
    let planned = bench.run(&["plan", "both.yaml"]).exits(0);
    assert!(planned.stdout.contains("to move: 1 object, 1 B"), "{planned:?}");
}

#[test]
fn a_rollback_leaves_no_folder_that_the_sync_made() {
    let bench = Bench::new();
    bench.write("in/a/b", "x");
    bench.run(&["sync", "./in", "./x/y"]).exits(0);
    assert!(bench.path("x/y/a/b").exists());
    bench.run(&["rollback", "last"]).exits(0);
    assert!(!bench.path("x").exists());
}

#[test]
fn a_run_that_is_refused_leaves_no_journal() {
    let bench = Bench::new();
    let asks = "secrets: { key: { command: 'echo x >> asked; echo secret' } }\n";
    bench.write(
        "refused.yaml",
        &format!("{asks}steps:\n  - {{ id: a, uses: command, with: {{ run: 'true', env: {{ A: '{{{{ secrets.key }}}}' }} }} }}\n  - {{ id: b, uses: object.list, with: {{ from: ./no-such-folder }} }}\n"),
    );
    let ran = bench.run(&["run", "refused.yaml"]).exits(2);
    assert!(ran.stderr.contains("no-such-folder"), "{ran:?}");
    let refused = bench.run(&["run", "refused.yaml", "--json"]).exits(2).json();
    assert!(refused["plan"]["steps"].is_array(), "{refused}");
    bench.run(&["run", "refused.yaml", "--until", "nobody"]).exits(2);
    bench.run(&["sync", "./no-such-folder", "./copy"]).exits(2);
    assert!(!bench.path(".ferry").exists());
    // What looked first has asked for the secret: the run does not ask again.
    std::fs::remove_file(bench.path("asked")).expect("the command was asked");
    bench.write(
        "fine.yaml",
        &format!(
            "{asks}steps:\n  - {{ id: a, uses: command, with: {{ run: 'true', env: {{ A: '{{{{ secrets.key }}}}' }} }} }}\n"
        ),
    );
    bench.run(&["run", "fine.yaml"]).exits(0);
    assert_eq!(std::fs::read_to_string(bench.path("asked")).expect("it was asked").lines().count(), 1);
}

//! Resume with an edited pipeline, each case by name. Every step writes down that it ran.

use super::bench::{Bench, Ran};

fn step(id: &str, rest: &str) -> String {
    format!("  - id: {id}\n    uses: command\n    {rest}\n")
}

/// A step that writes a word into `world`, and takes it back with `un-` before it.
fn says(id: &str, needs: &str, word: &str) -> String {
    step(id, &format!("needs: [{needs}]\n    with: {{ run: 'echo {word} >> world', undo: 'echo un-{word} >> world' }}"))
}

fn fails(id: &str, needs: &str) -> String {
    step(id, &format!("needs: [{needs}]\n    retry: {{ attempts: 1 }}\n    with: {{ run: 'exit 3' }}"))
}

fn pipeline(steps: &[String]) -> String {
    format!("name: edited\nsteps:\n{}", steps.concat())
}

/// A run whose `a` and `b` are done and whose `c` failed.
fn failed() -> Bench {
    let bench = Bench::new();
    bench.write("p.yaml", &pipeline(&[says("a", "", "a"), says("b", "a", "b"), fails("c", "b")]));
    bench.run(&["run", "p.yaml"]).exits(1);
    bench
}

fn resume(bench: &Bench, steps: &[String], accept: &[&str]) -> Ran {
    bench.write("p.yaml", &pipeline(steps));
    let mut args = vec!["resume", "last", "--pipeline", "p.yaml"];
    args.extend(accept.iter().flat_map(|accept| ["--accept", accept]));
    bench.run(&args)
}

fn world(bench: &Bench) -> Vec<String> {
    let text = std::fs::read_to_string(bench.path("world")).expect("something ran");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_step_not_yet_run_takes_the_new_text() {
    let bench = failed();
    resume(&bench, &[says("a", "", "a"), says("b", "a", "b"), says("c", "b", "new-c"), says("d", "c", "d")], &[]).exits(0);
    assert_eq!(world(&bench), ["a", "b", "new-c", "d"]);
}

#[test]
fn a_completed_step_that_changed_is_refused_until_it_is_said_what_is_meant() {
    for (accept, more) in [
        ("a=keep", ["c"].as_slice()),
        ("a=rerun", ["other", "c"].as_slice()),
        ("a=undo-first", ["un-a", "other", "c"].as_slice()),
    ] {
        let bench = failed();
        let edited = [says("a", "", "other"), says("b", "a", "b"), says("c", "a, b", "c")];
        let ran = resume(&bench, &edited, &[]).exits(2);
        assert!(ran.stderr.contains("--accept a=") && ran.stderr.contains("echo other"), "{ran:?}");
        assert_eq!(world(&bench), ["a", "b"], "a refusal does nothing");
        let ran = resume(&bench, &edited, &[accept]).exits(0);
        assert_eq!(&world(&bench)[2..], more, "{accept}: {ran:?}");
    }
}

#[test]
fn a_step_inserted_before_completed_ones_is_refused_until_it_is_said_what_is_meant() {
    let bench = failed();
    let edited = [says("new", "", "new"), says("a", "new", "a"), says("b", "a", "b"), says("c", "b", "c")];
    let ran = resume(&bench, &edited, &[]).exits(2);
    assert!(ran.stderr.contains("--accept new="), "{ran:?}");
    assert_eq!(world(&bench), ["a", "b"], "a refusal does nothing");
    resume(&bench, &edited, &["new=keep"]).exits(0);
    let mut after = world(&bench).split_off(2);
    after.sort();
    assert_eq!(after, ["c", "new"], "what was done is not done again");
}

#[test]
fn a_removed_step_is_still_undone_by_a_rollback() {
    let bench = failed();
    resume(&bench, &[says("a", "", "a"), fails("c", "a")], &[]).exits(1);
    bench.run(&["rollback", "last"]).exits(0);
    assert_eq!(world(&bench), ["a", "b", "un-b", "un-a"]);
}

#[test]
fn a_removed_step_that_never_started_is_forgotten() {
    let bench = Bench::new();
    bench.write("p.yaml", &pipeline(&[says("a", "", "a"), fails("c", "a"), says("d", "c", "d")]));
    bench.run(&["run", "p.yaml"]).exits(1);
    resume(&bench, &[says("a", "", "a"), says("c", "a", "c")], &[]).exits(0);
    assert_eq!(world(&bench), ["a", "c"]);
}

#[test]
fn a_changed_for_each_list_runs_only_what_is_new_and_undoes_what_left() {
    let each = |list: &str| {
        let rest = "with: { run: 'echo {{ each.value }} >> world', undo: 'echo un-{{ each.value }} >> world' }";
        step("each", &format!("for_each: [{list}]\n    max_parallel: 1\n    {rest}"))
    };
    let bench = Bench::new();
    bench.write("p.yaml", &pipeline(&[each("eu, us"), fails("c", "each")]));
    bench.run(&["run", "p.yaml"]).exits(1);
    assert_eq!(world(&bench), ["eu", "us"]);
    // One in front and one gone: instances are known by key, not by place.
    resume(&bench, &[each("ap, us"), fails("c", "each")], &[]).exits(1);
    assert_eq!(world(&bench), ["eu", "us", "ap"]);
    bench.run(&["rollback", "last"]).exits(0);
    let mut back = world(&bench).split_off(3);
    back.sort();
    assert_eq!(back, ["un-ap", "un-eu", "un-us"]);
}

#[test]
fn a_step_is_accepted_by_the_name_that_people_read() {
    let bench = Bench::new();
    let text = |word: &str, end: &str| {
        format!(
            "steps:\n  - id: say\n    for_each: ['a/b', '[x]']\n    uses: command\n    with: {{ run: 'echo {word} >> said' }}\n  \
             - id: end\n    uses: command\n    needs: [say]\n    retry: {{ attempts: 1 }}\n    with: {{ run: '{end}' }}\n"
        )
    };
    bench.write("each.yaml", &text("old", "exit 3"));
    bench.run(&["run", "each.yaml"]).exits(1);
    bench.write("each.yaml", &text("new", "true"));
    let resume = ["resume", "last", "--pipeline", "each.yaml", "--accept"];
    let ran = bench.run(&[&resume[..], &["say[a/b]=rerun"]].concat()).exits(2);
    assert!(!ran.stderr.contains("--accept say[a"), "the first is said: {ran:?}");
    bench.run(&[&resume[..], &["say[a/b]=rerun", "--accept", "say[%5Bx%5D]=keep"]].concat()).exits(0);
    assert_eq!(std::fs::read_to_string(bench.path("said")).expect("they ran"), "old\nold\nnew\n");
}

#[test]
fn a_ledger_that_is_lost_is_missed_also_when_the_step_was_edited_since() {
    let bench = Bench::new();
    bench.write("src/x", "content");
    let sync = |to: &str| format!("  - {{ id: s, uses: object.sync, with: {{ from: ./src, to: ./{to} }} }}\n");
    bench.write("p.yaml", &pipeline(&[sync("one"), fails("c", "s")]));
    bench.run(&["run", "p.yaml"]).exits(1);
    resume(&bench, &[sync("two"), fails("c", "s")], &["s=rerun"]).exits(1);
    let run = std::fs::read_dir(bench.path(".ferry/runs")).expect("there").next().expect("one").expect("readable").path();
    std::fs::remove_dir_all(run.join("scratch")).expect("removed");
    let ran = bench.run(&["rollback", "last", "--yes"]).exits(4);
    assert!(ran.stderr.contains("is gone"), "{ran:?}");
    assert!(bench.path("one/x").exists() && !bench.path("two").exists());
}

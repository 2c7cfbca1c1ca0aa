//! Runs on the real binary: how each end exits, and what other processes may do to a run.

use ferry::engine::Event;
use ferry::journal::Journal;
use serde_json::Value;

use super::bench::{Bench, Started};

/// Waits for `release` to exist, and says in `began` that it has started. Ends well when it is told to stop.
const SLOW: &str = r#"
name: slow
steps:
  - id: first
    uses: file.write
    with: { path: first.txt, content: "first" }
  - id: slow
    uses: command
    needs: [first]
    retry: { attempts: 1 }
    with: { run: "echo x >> began; while [ ! -e release ]; do sleep 0.05; done; echo done >> ended" }
  - id: last
    uses: file.write
    needs: [slow]
    with: { path: last.txt, content: "last" }
"#;

const ASKS: &str = r#"
name: asks
steps:
  - id: go
    uses: approval
    with: { message: "Cut over?" }
  - id: after
    uses: file.write
    needs: [go]
    with: { path: after.txt, content: "after" }
"#;

fn failing(on_failure: &str, undo: &str) -> String {
    format!(
        "name: failing\non_failure: {on_failure}\nsteps:\n  \
         - id: made\n    uses: command\n    with: {{ run: 'echo made > made.txt', undo: '{undo}' }}\n  \
         - id: broken\n    uses: command\n    needs: [made]\n    retry: {{ attempts: 1 }}\n    with: {{ run: 'exit 3' }}\n"
    )
}

fn slow() -> (Bench, Started) {
    let bench = Bench::new();
    bench.write("slow.yaml", SLOW);
    let started = bench.start(&["run", "slow.yaml"]);
    bench.wait_for("began");
    (bench, started)
}

/// The status that the journal says.
fn status(bench: &Bench) -> String {
    let runs = bench.run(&["runs", "--json"]).exits(0).json();
    runs["runs"][0]["status"].as_str().expect("a run has a status").to_owned()
}

/// Whether the newest run's journal holds such an event.
fn has(bench: &Bench, is_it: impl Fn(&Event) -> bool) -> bool {
    let journal = Journal::read(bench.path(".ferry")).expect("there is a journal");
    let run = journal.find_run("last").expect("there is a run");
    journal.records(&run).expect("it can be read").iter().any(|record| is_it(&record.event))
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[test]
fn a_run_that_succeeds_exits_0_and_tells_its_outputs() {
    let bench = Bench::new();
    bench.write(
        "ok.yaml",
        "steps:\n  - id: say\n    uses: command\n    with: { run: 'echo hello', outputs: text }\noutputs:\n  said: '{{ steps.say.outputs.text }}'\n",
    );
    let ran = bench.run(&["run", "ok.yaml"]).exits(0);
    assert!(ran.stdout.contains("succeeded") && ran.stdout.contains("hello"), "{ran:?}");
    let ran = bench.run(&["run", "ok.yaml", "--json"]).exits(0);
    let lines = lines(&ran.stdout);
    let result = lines.last().expect("a result");
    assert_eq!((&result["type"], &result["status"], &result["exit"]), (&"result".into(), &"succeeded".into(), &0.into()));
    assert_eq!(result["outputs"]["said"], "hello");
    assert!(lines.iter().any(|line| line["type"] == "record" && line["event"] == "run_created"), "{lines:?}");
}

#[test]
fn a_run_that_fails_exits_1_and_says_what_to_do() {
    let bench = Bench::new();
    bench.write("failing.yaml", &failing("stop", "rm -f made.txt"));
    let ran = bench.run(&["run", "failing.yaml"]).exits(1);
    for word in ["step `broken` failed", "again:", "ferry resume", "ferry rollback"] {
        assert!(ran.stdout.contains(word), "`{word}` is missing: {ran:?}");
    }
    assert!(bench.path("made.txt").exists());
    let ran = bench.run(&["rollback", "last"]).exits(0);
    assert!(ran.stdout.contains("rolled back"), "{ran:?}");
    assert!(!bench.path("made.txt").exists());
}

#[test]
fn a_wrong_pipeline_exits_2_and_leaves_nothing() {
    let bench = Bench::new();
    bench.write("wrong.yaml", "steps:\n  - id: a\n    uses: comand\n");
    for args in [&["check", "wrong.yaml"][..], &["plan", "wrong.yaml"], &["run", "wrong.yaml"], &["graph", "wrong.yaml"]] {
        let ran = bench.run(args).exits(2);
        assert!(ran.stderr.contains("wrong.yaml:3") && ran.stderr.contains("did you mean `command`"), "{args:?}: {ran:?}");
    }
    bench.run(&["run", "no-such.yaml"]).exits(2);
    bench.write(
        "fine.yaml",
        "inputs: { who: { type: string } }\nsteps:\n  - id: a\n    uses: command\n    with: { run: 'true' }\n",
    );
    let ran = bench.run(&["run", "fine.yaml"]).exits(2);
    assert!(ran.stderr.contains("`who`"), "{ran:?}");
    assert!(!bench.path(".ferry").exists());
}

#[test]
fn a_run_that_fails_and_rolls_back_exits_3() {
    let bench = Bench::new();
    bench.write("failing.yaml", &failing("rollback", "rm -f made.txt"));
    bench.run(&["run", "failing.yaml"]).exits(3);
    assert!(!bench.path("made.txt").exists());
}

#[test]
fn a_rollback_that_fails_too_exits_4() {
    let bench = Bench::new();
    bench.write("failing.yaml", &failing("rollback", "exit 9"));
    let ran = bench.run(&["run", "failing.yaml"]).exits(4);
    assert!(ran.stdout.contains("`made`"), "what is left behind is named: {ran:?}");
    // `--on-failure` wins over the pipeline.
    bench.run(&["run", "failing.yaml", "--on-failure", "stop"]).exits(1);
}

#[test]
fn a_run_that_waits_for_a_person_exits_5_and_goes_on_when_answered() {
    let bench = Bench::new();
    bench.write("asks.yaml", ASKS);
    let ran = bench.run(&["run", "asks.yaml", "--yes"]).exits(5);
    assert!(ran.stdout.contains("ferry approve") && ran.stdout.contains("Cut over?"), "`--yes` approves nothing: {ran:?}");
    bench.run(&["approve", "last", "nothing"]).exits(2);
    bench.run(&["resume", "last"]).exits(5);
    let answer = bench.run(&["approve", "last", "go", "--comment", "fine", "--json"]).exits(0).json();
    assert_eq!((&answer["approved"], &answer["live"]), (&true.into(), &false.into()));
    bench.run(&["resume", "last"]).exits(0);
    assert!(bench.path("after.txt").exists());
}

#[test]
fn an_approval_is_given_from_another_process() {
    let bench = Bench::new();
    bench.write("asks.yaml", ASKS);
    let started = bench.start(&["run", "asks.yaml", "--wait"]);
    Bench::wait_until(|| {
        bench.path(".ferry/ferry.db").exists() && bench.run(&["runs", "--status", "waiting"]).stdout.contains("asks")
    });
    Bench::wait_until(|| bench.run(&["runs"]).code == Some(0) && bench.run(&["approve", "last", "go"]).code == Some(0));
    started.ends().exits(0);
    assert!(bench.path("after.txt").exists());
}

#[test]
fn a_denied_approval_fails_the_run() {
    let bench = Bench::new();
    bench.write("asks.yaml", ASKS);
    bench.run(&["run", "asks.yaml"]).exits(5);
    bench.run(&["approve", "last", "go", "--deny", "--comment", "not today"]).exits(0);
    let ran = bench.run(&["resume", "last"]).exits(1);
    assert!(ran.stdout.contains("not today") || ran.stderr.contains("not today"), "{ran:?}");
    assert!(!bench.path("after.txt").exists());
}

#[test]
fn a_killed_run_is_resumed_without_repeating_what_was_done() {
    let (bench, mut started) = slow();
    started.kill();
    assert!(bench.run(&["runs"]).exits(0).stdout.contains("dead"));
    bench.write("release", "");
    std::fs::remove_file(bench.path("first.txt")).expect("the first step wrote it");
    bench.run(&["resume", "last"]).exits(0);
    assert!(!bench.path("first.txt").exists(), "a completed step does not run again");
    assert_eq!(std::fs::read_to_string(bench.path("began")).expect("it was written").lines().count(), 2);
    assert!(bench.path("last.txt").exists());
}

#[test]
fn a_run_is_cancelled_from_another_process_and_resumed() {
    let (bench, started) = slow();
    bench.run(&["cancel", "last"]).exits(0);
    let ran = started.ends().exits(130);
    assert!(ran.stdout.contains("cancelled") && ran.stdout.contains("ferry resume"), "{ran:?}");
    assert_eq!(status(&bench), "cancelled");
    bench.write("release", "");
    bench.run(&["resume", "last"]).exits(0);
    bench.run(&["cancel", "last"]).exits(2);
}

#[test]
fn one_sigint_cancels_and_stays_resumable() {
    let (bench, started) = slow();
    started.signal("INT");
    started.ends().exits(130);
    assert_eq!(status(&bench), "cancelled");
    bench.write("release", "");
    bench.run(&["resume", "last"]).exits(0);
}

#[test]
fn a_second_sigint_ends_at_once_and_the_run_can_be_resumed() {
    let bench = Bench::new();
    // It does not listen: only the second signal gets through to the runner at once.
    let stubborn = SLOW.replace("echo x >> began;", "trap '' TERM; echo x >> began;");
    bench.write("slow.yaml", &stubborn);
    let started = bench.start(&["run", "slow.yaml"]);
    bench.wait_for("began");
    started.signal("INT");
    Bench::wait_until(|| has(&bench, |event| matches!(event, Event::CancelRequested { .. })));
    started.signal("INT");
    started.ends().exits(130);
    bench.write("release", "");
    bench.run(&["resume", "last"]).exits(0);
}

#[test]
fn a_second_runner_is_told_who_holds_the_run() {
    let (bench, started) = slow();
    let ran = bench.run(&["resume", "last"]).exits(2);
    assert!(ran.stderr.contains("is held by") && ran.stderr.contains(&started.id().to_string()), "{ran:?}");
    bench.write("release", "");
    started.ends().exits(0);
}

#[test]
fn runs_live_at_the_top_of_the_repository_out_of_its_way() {
    let bench = Bench::new();
    std::fs::create_dir(bench.path(".git")).expect("a folder can be made");
    bench.write("deep/down/ok.yaml", "steps:\n  - id: a\n    uses: command\n    with: { run: 'true' }\n");
    bench.run(&["run", "deep/down/ok.yaml"]).exits(0);
    assert_eq!(std::fs::read_to_string(bench.path(".ferry/.gitignore")).expect("it is there"), "*\n");
    bench.run(&["-C", "deep/down", "run", "ok.yaml"]).exits(0);
    let runs = bench.run(&["-C", "deep", "runs", "--json"]).exits(0).json();
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(2));
    bench.run(&["run", "deep/down/ok.yaml", "--store", "sqlite:elsewhere"]).exits(0);
    assert!(bench.path("elsewhere/ferry.db").exists());
    let ran = bench.run(&["runs", "--store", "postgres://db/ferry"]).exits(2);
    assert!(ran.stderr.contains("later version"), "{ran:?}");
    let ran = Bench::new().run(&["runs"]).exits(2);
    assert!(ran.stderr.contains("no journal"), "{ran:?}");
}

#[test]
fn a_run_is_explained_and_compared() {
    let bench = Bench::new();
    bench.write("failing.yaml", &failing("stop", "rm -f made.txt"));
    bench.run(&["run", "failing.yaml"]).exits(1);
    bench.run(&["run", "failing.yaml", "--until", "made"]).exits(0);
    let runs = bench.run(&["runs", "--json"]).exits(0).json();
    let first = runs["runs"][1]["id"].as_str().expect("an id").to_owned();
    let shown = bench.run(&["show", &first]).exits(0).stdout;
    assert!(shown.contains("broken") && shown.contains("failed"), "{shown}");
    let document = bench.run(&["show", &first, "--json"]).exits(0).json();
    assert_eq!((&document["status"], &document["is_live"]), (&"failed".into(), &false.into()));
    let why = bench.run(&["why", &first, "broken", "--json"]).exits(0).json();
    assert!(why["answer"].as_str().is_some_and(|answer| answer.contains("broken")), "{why}");
    let ran = bench.run(&["why", &first, "brokn"]).exits(2);
    assert!(ran.stderr.contains("did you mean `broken`"), "{ran:?}");
    let diff = bench.run(&["diff", &first, "last", "--json"]).exits(0).json();
    assert!(diff["steps"].as_array().is_some_and(|steps| steps.iter().any(|step| step["step"] == "broken")), "{diff}");
    bench.run(&["report", &first, "--html", "run.html"]).exits(0);
    let page = std::fs::read_to_string(bench.path("run.html")).expect("it was written");
    assert!(page.contains("<html") && page.contains("broken"), "{page}");
    bench.run(&["show", "zzz"]).exits(2);
}

#[test]
fn what_steps_write_is_kept_for_logs() {
    let bench = Bench::new();
    bench.write(
        "talks.yaml",
        "steps:\n  - id: one\n    uses: command\n    with: { run: 'echo out; echo err >&2' }\n  \
         - id: two\n    uses: command\n    needs: [one]\n    with: { run: 'echo second' }\n",
    );
    bench.run(&["run", "talks.yaml"]).exits(0);
    let all = bench.run(&["logs", "last"]).exits(0).stdout;
    assert!(all.contains("out") && all.contains("err") && all.contains("second"), "{all}");
    let one = lines(&bench.run(&["logs", "last", "one", "--json"]).exits(0).stdout);
    assert!(one.iter().any(|line| line["stream"] == "stderr" && line["text"] == "err"), "{one:?}");
    assert!(one.iter().all(|line| line["step"] == "one"), "{one:?}");
    bench.run(&["logs", "last", "three"]).exits(2);
    bench.run(&["logs", "last", "-f"]).exits(0);
}

#[test]
fn a_rollback_counts_what_was_undone_and_nothing_else() {
    let bench = Bench::new();
    let text = failing("stop", "rm -f made.txt");
    bench.write(
        "failing.yaml",
        &format!(
            "{text}  - id: sure\n    uses: assert\n    needs: [made]\n    with: {{ that: true }}\n  \
             - id: kept\n    uses: file.write\n    undo: skip\n    with: {{ path: kept.txt, content: x }}\n"
        ),
    );
    bench.run(&["run", "failing.yaml"]).exits(1);
    let ran = bench.run(&["rollback", "last"]).exits(0);
    // `broken` says no undo, `sure` has nothing to undo, and `kept` stays.
    assert!(ran.stdout.contains(": 1 step undone"), "{ran:?}");
}

#[test]
fn a_rollback_is_shown_before_it_is_done() {
    let bench = Bench::new();
    bench.write("failing.yaml", &failing("stop", "rm -f made.txt"));
    bench.run(&["run", "failing.yaml"]).exits(1);
    let ran = bench.run(&["rollback", "last", "--plan"]).exits(0);
    assert!(ran.stdout.contains("made"), "{ran:?}");
    let plan = bench.run(&["rollback", "last", "--plan", "--json"]).exits(0).json();
    assert_eq!(plan["past_pivot"], false);
    assert!(bench.path("made.txt").exists(), "a plan undoes nothing");
    assert_eq!(status(&bench), "failed");
}

#[test]
fn an_edited_pipeline_is_refused_by_name_until_it_is_said_what_is_meant() {
    let bench = Bench::new();
    let text = failing("stop", "rm -f made.txt");
    bench.write("failing.yaml", &text);
    bench.run(&["run", "failing.yaml"]).exits(1);
    let edited = text.replace("echo made", "echo other").replace("exit 3", "true");
    bench.write("failing.yaml", &edited);
    let ran = bench.run(&["resume", "last", "--pipeline", "failing.yaml"]).exits(2);
    assert!(ran.stderr.contains("--accept made=") && ran.stderr.contains("echo other"), "{ran:?}");
    bench.run(&["resume", "last", "--pipeline", "failing.yaml", "--accept", "made=keep"]).exits(0);
    assert_eq!(std::fs::read_to_string(bench.path("made.txt")).expect("it was made"), "made\n");
}

#[test]
fn one_sync_is_a_run_like_any_other() {
    let bench = Bench::new();
    bench.write("data/a.txt", "a");
    bench.write("data/b.tmp", "b");
    bench.run(&["sync", "./data", "./copy", "--exclude", "*.tmp"]).exits(0);
    assert!(bench.path("copy/a.txt").exists() && !bench.path("copy/b.tmp").exists());
    let listed = lines(&bench.run(&["ls", "./copy", "--json"]).exits(0).stdout);
    assert_eq!((&listed[0]["key"], &listed[1]["objects"]), (&"a.txt".into(), &1.into()));
    bench.run(&["rollback", "last"]).exits(0);
    assert!(!bench.path("copy/a.txt").exists());
    let ran = bench.run(&["sync", "s3://b/?secret_access_key=x", "./copy"]).exits(2);
    assert!(ran.stderr.contains("journal") && !ran.stderr.contains("=x"), "{ran:?}");
}

#[test]
fn a_run_at_work_is_rolled_back_from_another_process() {
    let (bench, started) = slow();
    let ran = bench.run(&["rollback", "last"]).exits(0);
    assert!(ran.stdout.contains("rolled back"), "{ran:?}");
    started.ends().exits(3);
    assert!(!bench.path("first.txt").exists(), "what was done is put back");
    bench.run(&["resume", "last"]).exits(2);
}

#[test]
fn a_step_that_needs_a_person_pauses_the_run_with_5() {
    let bench = Bench::new();
    bench.write(
        "pauses.yaml",
        "steps:\n  - id: flaky\n    uses: command\n    retry: { attempts: 1, exhausted: pause }\n    with: { run: '[ -e fixed ]' }\n",
    );
    let ran = bench.run(&["run", "pauses.yaml"]).exits(5);
    assert!(ran.stdout.contains("needs a person") && ran.stdout.contains("ferry resume"), "{ran:?}");
    bench.write("fixed", "");
    bench.run(&["resume", "last"]).exits(0);
}

#[test]
fn sigterm_cancels_as_one_sigint_does() {
    let (bench, started) = slow();
    started.signal("TERM");
    started.ends().exits(130);
    assert_eq!(status(&bench), "cancelled");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let bench = Bench::new();
    let path = assert_cmd::cargo::cargo_bin!("ferry");
    let script = format!("'{}' steps --json | head -c 1 > /dev/null; echo ${{PIPESTATUS[0]}}", path.display());
    let output = std::process::Command::new("bash").args(["-c", &script]).current_dir(bench.path("")).output();
    let output = output.expect("bash runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "0", "{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_second_answer_to_the_same_question_is_refused() {
    let bench = Bench::new();
    bench.write("asks.yaml", ASKS);
    bench.run(&["run", "asks.yaml"]).exits(5);
    bench.run(&["approve", "last", "go", "--deny"]).exits(0);
    let second = bench.run(&["approve", "last", "go"]).exits(2);
    assert!(second.stderr.contains("already denied by") && second.stderr.contains("ferry resume"), "{second:?}");
    let ran = bench.run(&["resume", "last"]).exits(1);
    assert!(ran.stdout.contains("only a person can say what to do"), "{ran:?}");
    assert!(!ran.stdout.contains("fails the same way") && ran.stdout.contains("to ask again"), "{ran:?}");
}

#[test]
fn an_answer_that_does_not_count_is_not_told_as_one_that_does() {
    use ferry::engine::StepPath;
    use ferry::journal::Request;
    let bench = Bench::new();
    bench.write("asks.yaml", ASKS);
    bench.run(&["run", "asks.yaml"]).exits(5);
    let journal = Journal::open(bench.path(".ferry")).expect("there is a journal");
    let run = journal.find_run("last").expect("there is a run");
    let answer = |digest: &str| Request::Approve {
        by: "mallory".to_owned(),
        step: StepPath::from("go"),
        digest: digest.to_owned(),
        approved: true,
        comment: None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(journal.put(&run, &answer("of another question"))).expect("room");
    let ran = bench.run(&["resume", "last"]).exits(5);
    assert!(ran.stderr.contains("the yes of mallory does not count"), "{ran:?}");
    assert!(!ran.stderr.contains("approved by mallory"), "{ran:?}");
    runtime.block_on(journal.put(&run, &answer("of a third question"))).expect("room");
    let ran = bench.run(&["--json", "resume", "last"]).exits(5);
    let told = lines(&ran.stdout);
    assert!(told.iter().any(|line| line["event"] == "approval_given" && line["dropped"] == true), "{told:?}");
    let shown = bench.run(&["show", "last"]).exits(0);
    assert!(!shown.stdout.contains("mallory"), "{shown:?}");
    let why = bench.run(&["why", "last", "go"]).exits(0);
    assert!(why.stdout.contains("did not count"), "{why:?}");
}

#[test]
fn an_instance_is_found_by_its_key_as_it_was_given() {
    let bench = Bench::new();
    bench.write(
        "keys.yaml",
        "steps:\n  - id: o\n    for_each: [k/1, '50%']\n    uses: command\n    with: { run: 'echo {{ each.value }}' }\n",
    );
    bench.run(&["run", "keys.yaml"]).exits(0);
    for key in ["o[k/1]", "o[k%2F1]", "o[50%]"] {
        let why = bench.run(&["why", "last", key]).exits(0);
        assert!(why.stdout.contains("succeeded"), "{why:?}");
        let logs = bench.run(&["logs", "last", key]).exits(0);
        assert_eq!(logs.stdout.lines().count(), 1, "{logs:?}");
    }
    bench.run(&["why", "last", "o[k]"]).exits(2);
}

#[test]
fn the_name_of_a_step_is_read_beside_its_id() {
    let bench = Bench::new();
    bench.write(
        "named.yaml",
        "steps:\n  - { id: a, name: Copy the invoices, uses: command, with: { run: 'true' } }\n  \
         - { id: each, name: Greet all, for_each: [x, y], uses: command, with: { run: 'true' } }\n",
    );
    bench.run(&["run", "named.yaml"]).exits(0);
    for args in [&["plan", "named.yaml"][..], &["graph", "named.yaml"], &["show", "last"]] {
        let ran = bench.run(args).exits(0);
        assert!(ran.stdout.lines().any(|line| line.contains("a ") && line.contains("Copy the invoices")), "{args:?}: {ran:?}");
        assert_eq!(ran.stdout.matches("Greet all").count(), 1, "once, not at every instance: {args:?}: {ran:?}");
    }
    assert_eq!(bench.run(&["show", "last", "--json"]).exits(0).json()["steps"][0]["name"], "Copy the invoices");
    bench.run(&["report", "last", "--html", "report.html"]).exits(0);
    let page = std::fs::read_to_string(bench.path("report.html")).expect("it was written");
    assert!(page.contains("Copy the invoices"), "the report names it");
}

#[test]
fn a_rollback_of_a_live_run_past_its_pivot_is_refused_at_once() {
    let bench = Bench::new();
    bench.write("slow.yaml", &SLOW.replace("    uses: command\n", "    uses: command\n    pivot: true\n"));
    let started = bench.start(&["run", "slow.yaml"]);
    bench.wait_for("began");
    let ran = bench.run(&["rollback", "last"]);
    assert!(ran.code != Some(0) && ran.stderr.contains("past its pivot"), "{ran:?}");
    bench.write("release", "");
    started.ends().exits(0);
}

//! Going forward: outputs, conditions, instances, pipelines as steps, retries, secrets.

use std::sync::Arc;

use ferry::engine::{Event, Outcome, Resolution, RunStatus, State};
use ferry::executor::{ExecutorError, log_files};
use serde_json::{Value, json};

use super::lab::{Ear, Lab, failure};

#[tokio::test]
async fn outputs_reach_later_steps_with_their_types() {
    let lab = Lab::new();
    let (run, status) = lab
        .run(
            "
steps:
  - { id: a, uses: test.act, with: { output: { list: [1, 2], n: 7 } } }
  - { id: b, uses: test.act, with: { output: { got: '{{ steps.a.outputs.list }}', text: 'n is {{ steps.a.outputs.n }}' } } }
outputs: { all: '{{ steps.b.outputs.got }}' }
",
        )
        .await;
    assert_eq!(status, RunStatus::Succeeded);
    assert_eq!(lab.world(), ["run a", "done a", "run b", "done b"]);
    let engine = lab.engine(&run);
    assert_eq!(engine.step(&"b".into()).expect("there").output, Some(json!({ "got": [1, 2], "text": "n is 7" })));
    let summary = lab.executor.journal.run(&run).expect("there");
    assert_eq!((summary.status, summary.live, summary.by.as_str()), (RunStatus::Succeeded, false, "anna@desk"));
    assert_eq!(lab.outputs(&run).await.expect("over"), json!({ "all": [1, 2] }));
}

#[tokio::test]
async fn nothing_is_shown_before_it_is_on_disk() {
    let mut lab = Lab::new();
    let ear = Ear::new();
    *ear.journal.lock().expect("no panic") = Some(lab.executor.journal.clone());
    lab.executor.observers.push(ear.clone());
    let (run, _) = lab.run("steps: [{ id: a, uses: test.act }, { id: b, uses: test.act }]").await;
    let events = ear.events.lock().expect("no panic");
    assert_eq!(events.len(), lab.records(&run).len());
    assert!(events.iter().all(|(_, is_durable)| *is_durable), "{events:?}");
}

#[tokio::test]
async fn an_intent_and_a_checkpoint_are_on_disk_before_the_step_goes_on() {
    let lab = Lab::new();
    let (run, status) = lab
        .run(
            "
steps:
  - { id: a, uses: test.act, with: { reads_journal: true } }
  - { id: b, uses: test.act, with: { checkpoints: 3, reads_journal: true }, undo: skip, needs: [a] }
",
        )
        .await;
    assert_eq!(status, RunStatus::Succeeded);
    let left = |step: &str| lab.engine(&run).step(&step.into()).expect("there").output.clone();
    assert_eq!(left("a"), Some(json!({ "intents": 1, "token": null })));
    assert_eq!(left("b"), Some(json!({ "intents": 1, "token": 3 })));
    assert_eq!(lab.executor.rollback(&run, false).await.expect("an end"), RunStatus::RolledBack);
    assert_eq!(lab.count("undo a"), 1);
}

#[tokio::test]
async fn a_failure_that_may_pass_is_tried_again_and_one_that_stays_is_not() {
    let lab = Lab::new();
    let (run, status) = lab.run("steps: [{ id: a, uses: test.act, with: { fails: 2 } }]").await;
    assert_eq!(status, RunStatus::Succeeded);
    assert_eq!(lab.world(), ["run a", "run a", "run a", "done a"]);
    assert_eq!(lab.engine(&run).step(&"a".into()).expect("there").attempts, 3);
    let inspected = lab.records(&run).iter().filter(|record| matches!(record.event, Event::Inspected { .. })).count();
    assert_eq!(inspected, 1, "what was there before the first attempt is kept");

    let lab = Lab::new();
    let (run, status) = lab.run("steps: [{ id: a, uses: test.act, with: { refuses: the door is shut } }]").await;
    assert_eq!(status, RunStatus::Failed);
    assert_eq!(lab.count("run a"), 1);
    assert_eq!(failure(&lab.engine(&run), "a"), "the door is shut");
}

#[tokio::test]
async fn a_condition_is_journaled_with_its_operands() {
    let lab = Lab::new();
    let (run, status) = lab
        .run(
            "
inputs: { size: { type: integer, default: 3 } }
steps:
  - { id: a, uses: test.act, if: '{{ gt inputs.size 5 }}' }
  - { id: b, uses: test.act, needs: [a], if: '{{ lt inputs.size 5 }}' }
",
        )
        .await;
    assert_eq!(status, RunStatus::Succeeded);
    assert_eq!(lab.world(), ["run b", "done b"]);
    let resolved = lab.records(&run).into_iter().find_map(|record| match record.event {
        Event::Resolved { step, operands, resolution } if step.as_str() == "a" => Some((resolution, operands)),
        _ => None,
    });
    let (resolution, operands) = resolved.expect("its condition was asked");
    assert_eq!(resolution, Resolution::Skip);
    assert_eq!(operands["if"]["values"], json!({ "inputs.size": 3 }));
    assert_eq!(operands["if"]["result"], json!(false));
}

#[tokio::test]
async fn an_operand_with_an_odd_key_is_journaled_as_it_is_written() {
    let lab = Lab::new();
    let (run, _) = lab
        .run(
            "
inputs: { sizes: { type: map, default: { 'a key': 3, 'b.c': { d: 4 } } } }
steps:
  - { id: a, uses: test.act, if: '{{ gt inputs.sizes.[a key] inputs.sizes.[b.c].d }}' }
",
        )
        .await;
    let values = lab.records(&run).into_iter().find_map(|record| match record.event {
        Event::Resolved { operands, .. } => Some(operands["if"]["values"].clone()),
        _ => None,
    });
    assert_eq!(values, Some(json!({ "inputs.sizes.[a key]": 3, "inputs.sizes.[b.c].d": 4 })));
}

#[tokio::test]
async fn instances_leave_a_map_by_key() {
    let lab = Lab::new();
    let (run, status) = lab
        .run(
            "
steps:
  - { id: a, uses: test.act, for_each: [eu/1, us], with: { output: 'at {{ each.index }} {{ each.value }}' }, if: '{{ ne each.key \"ap\" }}' }
  - { id: none, uses: test.act, for_each: [] }
  - { id: m, uses: test.act, for_each: { x: 1, y: 2 }, with: { output: '{{ each.value }}' } }
  - { id: b, uses: test.act, needs: [none], with: { output: { a: '{{ steps.a.outputs }}', m: '{{ steps.m.outputs }}', none: '{{ steps.none.outputs }}' } } }
",
        )
        .await;
    let engine = lab.engine(&run);
    assert_eq!(status, RunStatus::Succeeded, "{:?}", failure(&engine, "b"));
    let wanted = json!({ "a": { "eu/1": "at 0 eu/1", "us": "at 1 us" }, "m": { "x": 1, "y": 2 }, "none": {} });
    assert_eq!(engine.step(&"b".into()).expect("there").output, Some(wanted));
}

#[tokio::test]
async fn the_same_key_twice_is_a_failure() {
    let lab = Lab::new();
    let (run, status) = lab
        .run("inputs: { keys: { type: list, default: [x, y, x] } }\nsteps: [{ id: a, uses: test.act, for_each: '{{ inputs.keys }}' }]")
        .await;
    assert_eq!(status, RunStatus::Failed);
    let message = failure(&lab.engine(&run), "a");
    assert!(message.contains("key `x` twice, at 1 and 3"), "{message}");
    assert!(lab.world().is_empty());
}

#[tokio::test]
async fn a_pipeline_is_one_step_with_inputs_and_outputs() {
    let lab = Lab::new();
    lab.write(
        "inner.yaml",
        "
inputs: { from: { type: string }, size: { type: integer, default: 2 } }
steps:
  - { id: base, uses: test.act, with: { output: '{{ inputs.from }}-{{ inputs.size }}' } }
  - { id: ship, uses: test.act, with: { output: '{{ steps.base.outputs }}!' } }
outputs: { result: '{{ steps.ship.outputs }}' }
",
    );
    let (run, status) = lab
        .run(
            "
steps:
  - { id: replica, uses: ./inner.yaml, for_each: [eu, us], with: { from: '{{ each.value }}' } }
  - { id: one, uses: ./inner.yaml, with: { from: x, size: 9 } }
  - { id: end, uses: test.act, with: { output: { all: '{{ steps.replica.outputs }}', one: '{{ steps.one.outputs.result }}' } } }
",
        )
        .await;
    let engine = lab.engine(&run);
    assert_eq!(status, RunStatus::Succeeded, "{:?}", failure(&engine, "end"));
    let wanted = json!({ "all": { "eu": { "result": "eu-2!" }, "us": { "result": "us-2!" } }, "one": "x-9!" });
    assert_eq!(engine.step(&"end".into()).expect("there").output, Some(wanted));
    assert_eq!(lab.count("done replica[eu]/base"), 1);
}

#[tokio::test]
async fn a_background_step_serves_until_the_named_step_is_over() {
    let lab = Lab::new();
    let (run, status) = lab
        .run(
            "
steps:
  - { id: probe, uses: test.act, background: { until: b }, with: { waits_for: never, output: gaps } }
  - { id: a, uses: test.act, needs: [probe] }
  - { id: b, uses: test.act, needs: [a] }
  - { id: c, uses: test.act, needs: [b], with: { output: ok } }
",
        )
        .await;
    assert_eq!(status, RunStatus::Succeeded);
    let probe = lab.engine(&run).step(&"probe".into()).expect("there").clone();
    assert_eq!((probe.state, probe.output), (State::Succeeded, Some(json!("gaps"))));
    let at = |line: &str| lab.world().iter().position(|have| have == line);
    assert!(at("run probe") < at("run a") && at("done b") < at("done probe"), "{:?}", lab.world());
}

#[tokio::test]
async fn a_secret_is_in_no_artefact_and_stays_usable() {
    let canary = "c4nary-Wert/with\"quotes+";
    let mut lab = Lab::new();
    let ear = Ear::new();
    lab.executor.observers.push(ear.clone());
    lab.write("secret.txt", &format!("{canary}\n"));
    let (run, status) = lab
        .run(
            "
secrets: { repl: { file: secret.txt } }
steps:
  - { id: a, uses: test.act, with: { secret: 'x{{ secrets.repl }}' } }
  - { id: b, uses: test.act, with: { secret: '{{ steps.a.outputs.token }}', output: '{{ base64 secrets.repl }}' } }
",
        )
        .await;
    assert_eq!(status, RunStatus::Succeeded, "{:?}", failure(&lab.engine(&run), "b"));
    // The step got the value: `x` and the secret; then `t-x` and the secret, out of the first one's outputs.
    assert_eq!(lab.count(&format!("{} bytes a", canary.len() + 1)), 1, "{:?}", lab.world());
    assert_eq!(lab.count(&format!("{} bytes b", canary.len() + 3)), 1, "{:?}", lab.world());
    let output = lab.engine(&run).step(&"a".into()).expect("there").output.clone().expect("succeeded");
    assert_eq!(output["token"], json!(format!("t-x{}", ferry::secret::mark("repl"))));
    let warnings = lab.engine(&run).step(&"a".into()).expect("there").warnings;
    assert_eq!(warnings, 1);

    let journal = lab.executor.journal.clone();
    let files = log_files(&journal.run_dir(&run)).expect("readable");
    assert_eq!(files.iter().map(|file| file.step.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    let (lines, end) = files[0].read(0).expect("readable");
    assert!(lines.iter().any(|line| line.text == "the secret is x***" && line.attempt == 1), "{lines:?}");
    assert_eq!(files[0].read(end).expect("readable").0, []);
    assert!(ear.lines.lock().expect("no panic").iter().all(|line| !line.contains("c4nary")));
    let mut searched = 0;
    for entry in walk(&lab.path(".ferry")) {
        let bytes = std::fs::read(&entry).expect("readable");
        searched += bytes.len();
        for form in [canary.to_owned(), canary.replace('"', "\\\""), "YzRuYXJ5LVdlcnQ".to_owned(), "c4nary".to_owned()] {
            let is_in = bytes.windows(form.len()).any(|window| window == form.as_bytes());
            assert!(!is_in, "`{form}` is in {}", entry.display());
        }
    }
    assert!(searched > 1000);
}

fn walk(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("readable").path();
        if path.is_dir() { files.extend(walk(&path)) } else { files.push(path) }
    }
    files
}

#[tokio::test]
async fn a_secret_of_several_lines_is_masked_in_the_log_as_a_whole() {
    let lab = Lab::new();
    lab.write("key.pem", "-----BEGIN-----\nAAAAline1\nBBBBline2\n-----END-----\n");
    let (run, status) = lab
        .run(
            "
secrets: { key: { file: key.pem } }
steps:
  - id: a
    uses: command
    with: { run: 'echo before; cat; echo after', stdin: '{{ secrets.key }}' }
",
        )
        .await;
    assert_eq!(status, RunStatus::Succeeded, "{:?}", failure(&lab.engine(&run), "a"));
    let files = log_files(&lab.executor.journal.run_dir(&run)).expect("readable");
    let text: Vec<String> = files[0].read(0).expect("readable").0.into_iter().map(|line| line.text).collect();
    assert!(text.iter().any(|line| line == "before"), "{text:?}");
    assert!(!text.iter().any(|line| line.contains("line1") || line.contains("line2")), "{text:?}");
}

/// `object.sync` remembers the name that it came to: a mark in its place would sort behind every name there is, and the
/// rest would be left out.
#[tokio::test]
async fn a_checkpoint_with_a_secret_in_it_comes_back_as_it_was() {
    let lab = Lab::new();
    lab.write("tenant.txt", "acme/secret");
    let text = r"
secrets: { tenant: { file: tenant.txt } }
steps: [{ id: a, uses: test.act, with: { place: 'acme/secret/2024/x' } }]
";
    let (run, status) = lab.run(text).await;
    assert_eq!(status, RunStatus::Failed);
    let token = lab.records(&run).into_iter().find_map(|record| match record.event {
        Event::Checkpoint { token, .. } => Some(token),
        _ => None,
    });
    assert_eq!(token, Some(json!(format!("{}/2024/x", ferry::secret::mark("tenant")))), "the journal has the mark");
    assert_eq!(lab.resume(&run).await, RunStatus::Succeeded, "{}", failure(&lab.engine(&run), "a"));

    // What could not be had back is refused when it is written, not when it is needed.
    let (run, _) = lab.run("steps: [{ id: a, uses: test.act, with: { place: MARK } }]").await;
    assert!(failure(&lab.engine(&run), "a").contains("cannot be had back"), "{}", failure(&lab.engine(&run), "a"));
}

#[tokio::test]
async fn a_missing_secret_fails_the_step_that_needs_it_and_stops_a_start_that_looks_first() {
    let lab = Lab::new();
    let text = "
secrets: { a: { env: FERRY_TEST_NOT_SET }, b: { command: 'printf given' } }
steps:
  - { id: x, uses: test.act, with: { secret: '{{ secrets.b }}' } }
  - { id: y, uses: test.act, needs: [x], with: { secret: '{{ secrets.a }}' } }
";
    let (run, status) = lab.run(text).await;
    assert_eq!(status, RunStatus::Failed);
    assert_eq!(lab.count("5 bytes x"), 1);
    let message = failure(&lab.engine(&run), "y");
    assert!(message.contains("secret `a`") && message.contains("FERRY_TEST_NOT_SET"), "{message}");

    let mut new = lab.new_run(text);
    new.preflight = true;
    let id = new.id.clone();
    let error = lab.executor.start(new).await.expect_err("something is wrong");
    let ExecutorError::Preflight(plan) = &error else { panic!("{error:?}") };
    assert_eq!(plan.blocking().map(|step| step.step.as_str()).collect::<Vec<_>>(), ["y"]);
    assert!(lab.executor.journal.run(&id).is_err(), "nothing was started");
}

#[tokio::test]
async fn a_command_for_a_secret_is_asked_once_for_the_preflight_and_the_run() {
    let lab = Lab::new();
    let mut new = lab.new_run(
        "
secrets: { a: { command: 'echo asked >> asked.log; printf given' } }
steps: [{ id: x, uses: test.act, with: { secret: '{{ secrets.a }}' } }]
",
    );
    new.preflight = true;
    assert_eq!(lab.executor.start(new).await.expect("an end"), RunStatus::Succeeded);
    assert_eq!(std::fs::read_to_string(lab.path("asked.log")).expect("there"), "asked\n");
}

#[tokio::test]
async fn steps_that_work_in_parallel_share_their_transactions() {
    let lab = Lab::new();
    let steps: Vec<String> = (0..200).map(|n| format!("  - {{ id: s{n}, uses: test.act }}")).collect();
    let (run, status) = lab.run(&format!("max_parallel: 50\nsteps:\n{}", steps.join("\n"))).await;
    assert_eq!(status, RunStatus::Succeeded);
    let (events, commits) = (lab.records(&run).len() as u64, lab.executor.journal.commits());
    assert!(events > 600 && commits * 4 < events, "{events} events in {commits} transactions");
}

#[tokio::test]
async fn progress_is_shown_and_not_flooded() {
    let mut lab = Lab::new();
    let ear = Ear::new();
    lab.executor.observers.push(ear.clone());
    let (run, session) = lab.spawn("steps: [{ id: a, uses: test.act, with: { waits_for: go, ticks: true } }]");
    lab.until("run a").await;
    tokio::time::sleep(std::time::Duration::from_millis(350)).await;
    lab.write("go", "");
    assert_eq!(session.await.expect("no panic").expect("an end"), RunStatus::Succeeded);
    let shown = ear.progress.lock().expect("no panic").len();
    assert!((3..=9).contains(&shown), "{shown} times in {} events", lab.records(&run).len());
}

#[tokio::test]
async fn a_step_that_panics_fails_and_hurts_nobody_else() {
    let lab = Lab::new();
    let (run, status) = lab
        .run("steps: [{ id: a, uses: test.act, with: { panics: an off-by-one }, continue_on_error: true }, { id: b, uses: test.act, needs: [a] }]")
        .await;
    assert_eq!(status, RunStatus::Failed, "a failure that is tolerated stays one");
    assert!(failure(&lab.engine(&run), "a").contains("an off-by-one"));
    assert_eq!(lab.count("done b"), 1);
    assert_eq!(lab.count("run a"), 1, "a bug is not tried again");
}

#[tokio::test]
async fn inputs_are_checked_before_anything_is_written() {
    let lab = Lab::new();
    let mut new =
        lab.new_run("inputs: { n: { type: integer } }\nsteps: [{ id: a, uses: test.act, with: { output: '{{ inputs.n }}' } }]");
    new.inputs.insert("n".to_owned(), Value::from("many"));
    let error = lab.executor.start(new).await.expect_err("it is no number");
    assert!(matches!(error, ExecutorError::Problems(_)), "{error:?}");
    assert!(lab.executor.journal.runs().expect("readable").is_empty());
}

#[tokio::test]
async fn an_attempt_ends_once_in_the_journal() {
    let lab = Arc::new(Lab::new());
    let (run, _) = lab.run("steps: [{ id: a, uses: test.act, for_each: [1, 2, 3], with: { fails: 1 } }]").await;
    let records = lab.records(&run);
    for n in 1..=3 {
        let path = format!("a[{n}]");
        let ends = records.iter().filter(|record| {
            matches!(&record.event, Event::AttemptEnded { step, outcome: Outcome::Succeeded { .. }, .. } if step.as_str() == path)
        });
        assert_eq!(ends.count(), 1, "{path}");
    }
}

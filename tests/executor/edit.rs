//! Resume with an edited pipeline: each case by name.

use std::collections::BTreeMap;

use ferry::engine::{Accept, RunStatus, StepPath};
use ferry::executor::{EditTable, ExecutorError, Resume};
use serde_json::json;

use super::lab::Lab;

const BEFORE: &str = "
steps:
  - { id: a, uses: test.act, with: { output: one } }
  - { id: b, uses: test.act, needs: [a], with: { refuses: no } }
";

async fn failed() -> (Lab, String) {
    let lab = Lab::new();
    let (run, status) = lab.run(BEFORE).await;
    assert_eq!(status, RunStatus::Failed);
    (lab, run)
}

fn how(lab: &Lab, text: &str, accept: &[(&str, Accept)]) -> Resume {
    let loaded = lab.load(text);
    let accept: BTreeMap<StepPath, Accept> = accept.iter().map(|(step, what)| (StepPath::from(*step), *what)).collect();
    Resume { until: None, pipeline: Some((lab.path("p.yaml"), loaded)), accept }
}

async fn refused(lab: &Lab, run: &str, text: &str) -> EditTable {
    let before = lab.records(run).len();
    let error = lab.executor.resume(run, how(lab, text, &[])).await.expect_err("it has to be said what is meant");
    assert_eq!(lab.records(run).len(), before, "nothing was written");
    let ExecutorError::Edited(table) = error else { panic!("{error:?}") };
    *table
}

#[tokio::test]
async fn a_step_that_has_not_succeeded_takes_the_new_text() {
    let (lab, run) = failed().await;
    let text = BEFORE.replace("refuses: no", "output: '{{ steps.a.outputs }} two'");
    let table = lab.executor.compare(&run, &lab.path("p.yaml"), &lab.load(&text)).await.expect("comparable");
    assert_eq!(table.differences.iter().map(|row| row.change.step.as_str()).collect::<Vec<_>>(), ["b"]);
    assert!(table.open().next().is_none());
    assert_eq!(lab.executor.resume(&run, how(&lab, &text, &[])).await.expect("an end"), RunStatus::Succeeded);
    assert_eq!(lab.count("run a"), 1);
    assert_eq!(lab.engine(&run).step(&"b".into()).expect("there").output, Some(json!("one two")));
    // A later look at the run reads the new text.
    assert_eq!(lab.outputs(&run).await.expect("readable"), json!({}));
}

#[tokio::test]
async fn a_completed_step_that_changed_is_refused_with_the_difference() {
    let (lab, run) = failed().await;
    let text = BEFORE.replace("output: one", "output: other").replace("refuses: no", "name: b");
    let table = refused(&lab, &run, &text).await;
    let open: Vec<_> = table.open().collect();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].change.step.as_str(), "a");
    assert_eq!((&open[0].was["with"]["output"], &open[0].becomes["with"]["output"]), (&json!("one"), &json!("other")));
    let error = ExecutorError::Edited(Box::new(table));
    assert!(error.to_string().contains("`a`"), "{error}");
}

#[tokio::test]
async fn a_completed_step_is_kept_run_again_or_undone_first_as_it_was_said() {
    for (accept, world) in [
        (Accept::Keep, ["run b", "done b"].as_slice()),
        (Accept::Rerun, ["run a", "done a", "run b", "done b"].as_slice()),
        (Accept::UndoFirst, ["undo a", "run a", "done a", "run b", "done b"].as_slice()),
    ] {
        let (lab, run) = failed().await;
        let text = BEFORE.replace("output: one", "output: other").replace("refuses: no", "name: b");
        let status = lab.executor.resume(&run, how(&lab, &text, &[("a", accept)])).await.expect("it was said");
        assert_eq!(status, RunStatus::Succeeded, "{accept:?}");
        assert_eq!(&lab.world()[3..], world, "{accept:?}");
    }
}

#[tokio::test]
async fn the_same_in_other_words_is_no_change() {
    let (lab, run) = failed().await;
    let text = BEFORE.replace("output: one", "output: '{{ lower \"ONE\" }}'").replace("refuses: no", "name: b");
    assert_eq!(lab.executor.resume(&run, how(&lab, &text, &[])).await.expect("an end"), RunStatus::Succeeded);
    assert_eq!(lab.count("run a"), 1);
}

#[tokio::test]
async fn a_store_behind_a_completed_step_that_changed_changes_the_step() {
    let text = "
stores: { s: { scheme: fs, root: /tmp/one } }
steps:
  - { id: a, uses: test.act, with: { output: 's:x/' } }
  - { id: b, uses: test.act, needs: [a], with: { refuses: no } }
";
    let lab = Lab::new();
    let (run, _) = lab.run(text).await;
    let table = refused(&lab, &run, &text.replace("/tmp/one", "/tmp/two")).await;
    assert_eq!(table.open().map(|row| row.change.step.as_str()).collect::<Vec<_>>(), ["a"]);
}

#[tokio::test]
async fn a_step_in_front_of_completed_ones_is_refused_until_it_is_said() {
    let (lab, run) = failed().await;
    let text = "
steps:
  - { id: new, uses: test.act }
  - { id: a, uses: test.act, needs: [new], with: { output: one } }
  - { id: b, uses: test.act, needs: [a], with: { name: b } }
";
    let table = refused(&lab, &run, text).await;
    assert_eq!(table.open().map(|row| row.change.step.as_str()).collect::<Vec<_>>(), ["new"]);
    let status = lab.executor.resume(&run, how(&lab, text, &[("new", Accept::Keep)])).await.expect("it was said");
    assert_eq!(status, RunStatus::Succeeded);
    assert_eq!((lab.count("run a"), lab.count("run new")), (1, 1));
}

#[tokio::test]
async fn a_step_that_is_gone_is_still_undone_by_a_rollback() {
    let lab = Lab::new();
    let (run, _) = lab
        .run(
            "
steps:
  - { id: a, uses: test.act }
  - { id: x, uses: test.act, undo: { uses: test.act, with: { name: put x back } } }
  - { id: b, uses: test.act, needs: [a, x], with: { refuses: no } }
",
        )
        .await;
    let text = BEFORE.replace(", with: { output: one }", "");
    assert_eq!(lab.executor.resume(&run, how(&lab, &text, &[])).await.expect("an end"), RunStatus::Failed);
    assert_eq!(lab.executor.rollback(&run, false).await.expect("an end"), RunStatus::RolledBack);
    assert_eq!((lab.count("undo a"), lab.count("done put x back")), (1, 1), "{:?}", lab.world());
}

#[tokio::test]
async fn a_for_each_that_changed_runs_what_is_new_and_nothing_twice() {
    let text = |list: &str, end: &str| {
        format!(
            "steps:\n  - {{ id: a, uses: test.act, for_each: {list}, with: {{ output: '{{{{ each.value }}}}' }} }}\n  - {{ id: b, uses: test.act, with: {{ output: '{{{{ steps.a.outputs }}}}', {end} }} }}\n"
        )
    };
    let lab = Lab::new();
    let (run, status) = lab.run(&text("[eu, us]", "refuses: no")).await;
    assert_eq!(status, RunStatus::Failed);
    // One in front: instances are known by key, not by place.
    let how = how(&lab, &text("[ap, eu, us]", "name: b"), &[("a", Accept::Rerun), ("b", Accept::Rerun)]);
    let status = lab.executor.resume(&run, how).await;
    assert_eq!(status.expect("an end"), RunStatus::Succeeded, "{:?}", lab.world());
    assert_eq!((lab.count("run a[eu]"), lab.count("run a[us]"), lab.count("run a[ap]")), (1, 1, 1));
    let output = lab.engine(&run).step(&"b".into()).expect("there").output.clone();
    assert_eq!(output, Some(json!({ "ap": "ap", "eu": "eu", "us": "us" })));
}

#[tokio::test]
async fn without_an_edit_the_run_keeps_the_text_it_was_started_with() {
    let (lab, run) = failed().await;
    // What is on the disk now is of no concern.
    lab.write("p.yaml", "no pipeline at all");
    assert_eq!(lab.resume(&run).await, RunStatus::Failed);
    assert_eq!((lab.count("run a"), lab.count("run b")), (1, 2));
}

#[tokio::test]
async fn a_store_behind_a_step_that_failed_half_way_changes_the_step_and_its_undo_stays_where_it_was() {
    let text = "
stores: { s: { scheme: fs, root: /tmp/one } }
steps: [{ id: a, uses: test.act, with: { shows: 's:x/', refuses: no, name: a } }]
";
    let lab = Lab::new();
    let (run, _) = lab.run(text).await;
    let edited = text.replace("/tmp/one", "/tmp/two");
    let table = lab.executor.compare(&run, &lab.path("p.yaml"), &lab.load(&edited)).await.expect("comparable");
    assert_eq!(table.differences.len(), 1, "the text is the same, and what it means is not: {table:?}");
    assert_eq!(table.differences[0].was["stores"]["s"]["root"], json!("/tmp/one"));
    assert_eq!(lab.executor.resume(&run, how(&lab, &edited, &[])).await.expect("an end"), RunStatus::Failed);
    assert_eq!(lab.engine(&run).step(&"a".into()).expect("there").inspections.len(), 2, "the new place was looked at");
    assert_eq!(lab.executor.rollback(&run, false).await.expect("an end"), RunStatus::RolledBack);
    let world = ["run a in tmp/one/x/", "run a in tmp/two/x/", "undo a in tmp/two/x/", "undo a in tmp/one/x/"];
    assert_eq!(lab.world(), world);
}

#[tokio::test]
async fn what_a_step_kept_before_an_edit_belongs_to_the_undo_of_what_it_did_before() {
    let text = "steps: [{ id: a, uses: test.act, with: { keeps_notes: true, refuses: no, output: one } }]";
    let lab = Lab::new();
    let (run, _) = lab.run(text).await;
    assert_eq!(lab.resume(&run).await, RunStatus::Failed);
    let edited = text.replace("one", "two");
    assert_eq!(lab.executor.resume(&run, how(&lab, &edited, &[])).await.expect("an end"), RunStatus::Failed);
    assert_eq!(lab.executor.rollback(&run, false).await.expect("an end"), RunStatus::RolledBack);
    assert_eq!(lab.world(), ["run a after 0", "run a after 1", "run a after 0", "undo a after 1", "undo a after 2"]);
}

#[tokio::test]
async fn a_default_inside_a_pipeline_used_as_a_step_that_changed_changes_the_steps_inside() {
    let inner = "inputs: { word: { type: string, default: one } }
steps:
  - { id: x, uses: test.act, with: { output: '{{ inputs.word }}' } }
  - { id: y, uses: test.act, needs: [x], with: { name: 'y {{ inputs.word }}', refuses: no } }
";
    let lab = Lab::new();
    lab.write("inner.yaml", inner);
    let text = "steps: [{ id: m, uses: ./inner.yaml }]";
    let (run, _) = lab.run(text).await;
    lab.write("inner.yaml", &inner.replace("default: one", "default: two").replace(", refuses: no", ""));
    let table = refused(&lab, &run, text).await;
    assert_eq!(table.open().map(|row| row.change.step.as_str()).collect::<Vec<_>>(), ["m/x"]);
    let status = lab.executor.resume(&run, how(&lab, text, &[("m/x", Accept::Keep)])).await.expect("it was said");
    assert_eq!(status, RunStatus::Succeeded);
    assert_eq!(lab.world(), ["run m/x", "done m/x", "run y one", "run y two", "done y two"]);
}

#[tokio::test]
async fn an_edited_pipeline_in_another_folder_moves_no_path_of_what_was_begun() {
    let (lab, run) = failed().await;
    std::fs::create_dir(lab.path("sub")).expect("room");
    let text = BEFORE.replace("refuses: no", "name: b");
    lab.write("sub/p.yaml", &text);
    let load =
        || ferry::pipeline::load(&lab.path("sub/p.yaml"), &super::lab::Disk, lab.executor.registry.catalogue()).expect("sound");
    let how = |accept: &[(&str, Accept)]| Resume {
        pipeline: Some((lab.path("sub/p.yaml"), load())),
        accept: accept.iter().map(|(step, what)| (StepPath::from(*step), *what)).collect(),
        ..Resume::default()
    };
    let error = lab.executor.resume(&run, how(&[])).await.expect_err("`a` was done elsewhere");
    let ExecutorError::Edited(table) = error else { panic!("{error:?}") };
    assert_eq!(table.open().map(|row| row.change.step.as_str()).collect::<Vec<_>>(), ["a"]);
    assert!(table.differences[0].becomes["base"].as_str().is_some_and(|base| base.ends_with("sub")), "{table:?}");
    let status = lab.executor.resume(&run, how(&[("a", Accept::Keep)])).await.expect("it was said");
    assert_eq!(status, RunStatus::Succeeded);
    assert_eq!(lab.executor.rollback(&run, false).await.expect("an end"), RunStatus::RolledBack);
    let there = std::fs::read_to_string(lab.path("sub/world.log")).expect("`b` took the new text");
    assert_eq!(there, "run b\ndone b\nundo b\n");
    assert_eq!(lab.world(), ["run a", "done a", "run b", "undo b", "undo a"]);
}

/// The second look sees what the first writing left: each has a copy of its own to go back to.
#[tokio::test]
async fn a_large_file_that_is_written_again_after_an_edit_is_put_back_as_it_was_at_first() {
    let lab = Lab::new();
    let (first, second) = ("first\n".repeat(30_000), "second\n".repeat(30_000));
    lab.write("conf", &first);
    lab.write("new.txt", &second);
    let text = "
steps:
  - { id: a, uses: file.write, with: { path: conf, template: new.txt } }
  - { id: b, uses: test.act, needs: [a], with: { refuses: no } }
";
    let (run, _) = lab.run(text).await;
    assert_eq!(std::fs::read_to_string(lab.path("conf")).expect("written"), second);
    let edited = text.replace("template: new.txt", "content: third").replace("refuses: no", "name: b");
    let status = lab.executor.resume(&run, how(&lab, &edited, &[("a", Accept::Rerun)])).await.expect("it was said");
    assert_eq!((status, super::lab::failure(&lab.engine(&run), "a")), (RunStatus::Succeeded, String::new()));
    assert_eq!(std::fs::read_to_string(lab.path("conf")).expect("written"), "third");
    assert_eq!(lab.executor.rollback(&run, false).await.expect("a session"), RunStatus::RolledBack);
    assert!(std::fs::read_to_string(lab.path("conf")).expect("put back") == first);
}

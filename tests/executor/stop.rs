//! Ends before the end: a dead runner, a cancel, a rollback; `finally`; locks.

use std::time::{Duration, Instant};

use ferry::engine::{Event, Outcome, RunStatus, State};
use ferry::executor::{ExecutorError, Resume};
use ferry::journal::{JournalError, Request};

use super::lab::{Lab, failure};

const CHAIN: &str = "
steps:
  - { id: a, uses: test.act }
  - { id: b, uses: test.act, needs: [a], with: { checkpoints: 3, waits_for: go } }
  - { id: c, uses: test.act, needs: [b] }
finally:
  - { id: tell, uses: test.act, with: { name: 'told {{ run.status }}' } }
";

/// Starts a run in a runtime of its own, and takes the runtime away when `line` is in the world: all that a killed
/// runner leaves is its journal.
fn die_at(lab: &Lab, text: &str, line: &str) -> String {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("threads");
    let new = lab.new_run(text);
    let (run, executor) = (new.id.clone(), lab.executor.clone());
    runtime.spawn(async move { executor.start(new).await });
    let begun = std::time::Instant::now();
    while lab.count(line) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20), "`{line}` never came: {:?}", lab.world());
        std::thread::sleep(Duration::from_millis(2));
    }
    // Until what it did before it waits is on disk too.
    std::thread::sleep(Duration::from_millis(100));
    runtime.shutdown_timeout(Duration::from_secs(5));
    run
}

#[test]
fn a_dead_runner_is_resumed_from_the_checkpoint_and_nothing_completed_runs_again() {
    let lab = Lab::new();
    let run = die_at(&lab, CHAIN, "run b");
    assert_eq!(lab.executor.journal.run(&run).expect("there").status, RunStatus::Running);
    assert!(!lab.executor.journal.run(&run).expect("there").live);
    lab.write("go", "");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    assert_eq!(runtime.block_on(lab.resume(&run)), RunStatus::Succeeded);
    assert_eq!(
        lab.world(),
        [
            "run a",
            "done a",
            "run b",
            "run b",
            "from 3 b",
            "done b",
            "run c",
            "done c",
            "run told succeeded",
            "done told succeeded"
        ]
    );
    let interrupted = lab.records(&run).iter().any(
        |record| matches!(&record.event, Event::AttemptEnded { step, outcome: Outcome::Interrupted, .. } if step.as_str() == "b"),
    );
    assert!(interrupted, "what its death meant is journaled");
    let events = lab.records(&run).len();
    assert_eq!(runtime.block_on(lab.executor.resume(&run, Resume::default())).expect("it is over"), RunStatus::Succeeded);
    assert_eq!(lab.records(&run).len(), events, "asking again does nothing");
}

#[test]
fn an_interrupted_attempt_is_undone() {
    let lab = Lab::new();
    let run = die_at(&lab, CHAIN, "run b");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    assert_eq!(runtime.block_on(lab.executor.rollback(&run, false)).expect("an end"), RunStatus::RolledBack);
    let world = lab.world();
    assert_eq!(world[3..], ["undo b", "undo a", "run told rolled_back", "done told rolled_back"], "{world:?}");
    let events = lab.records(&run).len();
    assert_eq!(runtime.block_on(lab.executor.rollback(&run, false)).expect("nothing is left"), RunStatus::RolledBack);
    assert_eq!(lab.records(&run).len(), events, "asking again does nothing");
}

#[test]
fn a_dead_rollback_is_taken_up() {
    let lab = Lab::new();
    let text = "
on_failure: rollback
steps:
  - { id: a, uses: test.act }
  - { id: b, uses: test.act, needs: [a], undo: { uses: test.act, with: { name: put back, waits_for: go } } }
  - { id: c, uses: test.act, needs: [b], with: { refuses: no } }
";
    let run = die_at(&lab, text, "run put back");
    lab.write("go", "");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    assert_eq!(runtime.block_on(lab.resume(&run)), RunStatus::RolledBack);
    assert_eq!(lab.count("undo a"), 1);
    assert_eq!(lab.count("done put back"), 1);
    assert_eq!(lab.count("undo c"), 1, "a failed step was started too: {:?}", lab.world());
}

#[tokio::test]
async fn a_cancel_lets_steps_stop_runs_finally_and_can_be_resumed() {
    let lab = Lab::new();
    let (run, session) = lab.spawn(CHAIN);
    lab.until("run b").await;
    let request = Request::Cancel { by: "bert@desk".to_owned() };
    lab.executor.request(&run, request).await.expect("room");
    assert_eq!(session.await.expect("no panic").expect("an end"), RunStatus::Cancelled);
    assert_eq!(lab.world()[2..], ["run b", "stop b", "run told cancelled", "done told cancelled"]);
    assert!(lab.executor.journal.letters(&run, 0).expect("readable").is_empty(), "the request is answered");
    let who = lab.records(&run).into_iter().find_map(|record| match record.event {
        Event::CancelRequested { by } => Some(by),
        _ => None,
    });
    assert_eq!(who.as_deref(), Some("bert@desk"));
    lab.write("go", "");
    assert_eq!(lab.resume(&run).await, RunStatus::Succeeded);
    assert_eq!(lab.count("run a"), 1);
    assert_eq!(lab.count("from 3 b"), 1, "it goes on from its checkpoint");
}

#[tokio::test]
async fn a_step_that_was_told_to_stop_and_finished_all_the_same_is_done() {
    let lab = Lab::new();
    let mut settings = lab.executor.settings.clone();
    settings.grace = Duration::from_secs(20);
    let lab = Lab { executor: lab.executor.clone().settings(settings), ..lab };
    let (run, session) = lab.spawn("steps: [{ id: a, uses: test.act, with: { waits_for: go, is_deaf: true } }]");
    lab.until("run a").await;
    lab.executor.request(&run, Request::Cancel { by: "b".to_owned() }).await.expect("room");
    lab.until_event(&run, |event| matches!(event, Event::CancelRequested { .. })).await;
    lab.write("go", "");
    session.await.expect("no panic").expect("an end");
    assert_eq!(lab.engine(&run).step(&"a".into()).expect("there").state, State::Succeeded);
}

#[tokio::test]
async fn a_request_to_an_earlier_runner_does_not_stop_the_next() {
    let lab = Lab::new();
    let (run, status) =
        lab.run("steps: [{ id: a, uses: test.act, with: { waits_for: go }, timeout: 5ms, retry: { attempts: 1 } }]").await;
    assert_eq!(status, RunStatus::Failed);
    for request in [Request::Cancel { by: "b".to_owned() }, Request::Rollback { by: "b".to_owned(), past_pivot: false }] {
        lab.executor.request(&run, request).await.expect("room");
    }
    lab.write("go", "");
    assert_eq!(lab.resume(&run).await, RunStatus::Succeeded);
    assert!(lab.executor.journal.letters(&run, 0).expect("readable").is_empty());
}

#[tokio::test]
async fn a_failure_rolls_back_last_first_and_names_what_is_left_behind() {
    let lab = Lab::new();
    let (run, status) = lab
        .run(
            "
on_failure: rollback
steps:
  - { id: a, uses: test.act }
  - { id: b, uses: test.act, needs: [a], with: { keeps: true } }
  - { id: x, uses: test.act, needs: [a], with: { output: { id: 42 } }, undo: { uses: test.act, with: { name: 'delete {{ steps.a.state }}' } } }
  - { id: c, uses: test.act, needs: [b, x], with: { refuses: no } }
"
            .replace("{{ steps.a.state }}", "by hand")
            .as_str(),
        )
        .await;
    assert_eq!(status, RunStatus::RollbackFailed);
    let engine = lab.engine(&run);
    assert_eq!(
        engine.step(&"b".into()).expect("there").undo_failure.as_ref().expect("it stays").message,
        "it does not come back"
    );
    assert!(engine.left_behind().any(|node| node.path.as_str() == "b"));
    assert_eq!(lab.count("done delete by hand"), 1, "the pipeline's own undo runs in place of the type's");
    assert_eq!(lab.count("undo x"), 0);
    let at = |line: &str| lab.world().iter().position(|have| have == line);
    assert!(at("undo c") < at("undo b"), "{:?}", lab.world());
}

#[tokio::test]
async fn a_run_that_failed_is_rolled_back_on_demand_and_not_past_its_pivot() {
    let text = "
steps:
  - { id: a, uses: test.act, pivot: PIVOT }
  - { id: b, uses: test.act, needs: [a], with: { refuses: no } }
";
    let lab = Lab::new();
    let (run, status) = lab.run(&text.replace("PIVOT", "false")).await;
    assert_eq!(status, RunStatus::Failed);
    assert_eq!(lab.executor.rollback(&run, false).await.expect("an end"), RunStatus::RolledBack);
    assert_eq!(lab.world()[3..], ["undo b", "undo a"]);

    let lab = Lab::new();
    let (run, _) = lab.run(&text.replace("PIVOT", "true")).await;
    let before = lab.records(&run).len();
    let error = lab.executor.rollback(&run, false).await.expect_err("it goes forward only");
    assert!(matches!(error, ExecutorError::PastPivot { .. }), "{error:?}");
    assert_eq!(lab.records(&run).len(), before, "nothing was written");
    assert_eq!(lab.executor.rollback(&run, true).await.expect("it was said"), RunStatus::RolledBack);
}

#[tokio::test]
async fn a_lock_is_held_by_one_run_at_a_time() {
    let lab = Lab::new();
    let text = |name: &str, file: &str| {
        format!(
            "steps: [{{ id: {name}, uses: test.act, lock: 'dns-{{{{ pipeline.name }}}}', with: {{ waits_for: {file} }} }}]\nname: shop"
        )
    };
    let (first, one) = lab.spawn(&text("a", "go1"));
    lab.until("run a").await;
    let (second, two) = lab.spawn(&text("b", "go2"));
    lab.until_event(&second, |event| matches!(event, Event::LockBusy { .. })).await;
    assert_eq!(lab.count("run b"), 0);
    let busy: Vec<String> = lab
        .records(&second)
        .into_iter()
        .filter_map(|record| match record.event {
            Event::LockBusy { holder, .. } => Some(holder),
            _ => None,
        })
        .collect();
    assert!(busy.len() == 1 && busy[0].contains("step `a`") && busy[0].contains(&first), "{busy:?}");
    lab.write("go1", "");
    lab.write("go2", "");
    assert_eq!(one.await.expect("no panic").expect("an end"), RunStatus::Succeeded);
    assert_eq!(two.await.expect("no panic").expect("an end"), RunStatus::Succeeded);
    assert_eq!(lab.world(), ["run a", "done a", "run b", "done b"]);
    assert!(lab.executor.journal.locks_of(&second).expect("readable").is_empty());
}

#[tokio::test]
async fn a_wait_for_a_lock_of_another_run_has_a_limit_and_one_within_a_run_has_none() {
    let lab = Lab::new();
    let wait = "lock: { name: l, wait: 1ms }";
    let (first, one) = lab.spawn(&format!(
        "steps:\n  - {{ id: a, uses: test.act, lock: l, with: {{ waits_for: go }} }}\n  - {{ id: z, uses: test.act, with: {{ waits_for: z }} }}\n  - {{ id: b, uses: test.act, needs: [z], {wait} }}\n"
    ));
    lab.until("run a").await;
    lab.write("z", "");
    lab.until_event(&first, |event| matches!(event, Event::LockBusy { .. })).await;
    let (second, status) =
        lab.run(&format!("steps: [{{ id: c, uses: test.act, timeout: 1ms, {wait}, with: {{ waits_for: go }} }}]")).await;
    assert_eq!(status, RunStatus::Failed);
    let engine = lab.engine(&second);
    let failure = engine.step(&"c".into()).and_then(|node| node.failure.clone()).expect("it says why");
    assert!(failure.message.contains("the lock `l` was not free within 1ms: it is held by step"), "{failure:?}");
    assert_eq!(lab.count("run c"), 0);
    lab.write("go", "");
    assert_eq!(one.await.expect("no panic").expect("an end"), RunStatus::Succeeded);
    assert!(lab.executor.journal.locks_of(&second).expect("readable").is_empty());
}

#[tokio::test]
async fn a_run_that_waits_for_a_lock_can_be_cancelled() {
    let lab = Lab::new();
    let (_, one) = lab.spawn("steps: [{ id: a, uses: test.act, lock: l, with: { waits_for: go } }]");
    lab.until("run a").await;
    let (second, two) = lab.spawn("steps: [{ id: b, uses: test.act, lock: l }]");
    lab.until_event(&second, |event| matches!(event, Event::LockBusy { .. })).await;
    lab.executor.request(&second, Request::Cancel { by: "b".to_owned() }).await.expect("room");
    assert_eq!(two.await.expect("no panic").expect("an end"), RunStatus::Cancelled);
    lab.write("go", "");
    assert_eq!(one.await.expect("no panic").expect("an end"), RunStatus::Succeeded);
}

#[tokio::test]
async fn a_run_with_nobody_at_it_is_cancelled_here_and_one_at_work_is_asked() {
    let lab = Lab::new();
    let (run, session) = lab.spawn(CHAIN);
    lab.until("run b").await;
    let error = lab.executor.cancel(&run).await.expect_err("somebody is at work");
    assert!(matches!(error, ExecutorError::Journal(JournalError::Held { .. })), "{error:?}");
    session.abort();
    let _ = session.await;
    assert_eq!(lab.executor.cancel(&run).await.expect("an end"), RunStatus::Cancelled);
    assert_eq!(lab.count("done told cancelled"), 1, "{:?}", lab.world());
    let error = lab.executor.cancel(&run).await.expect_err("it is");
    assert!(matches!(error, ExecutorError::Status { .. }), "{error:?}");
}

#[tokio::test]
async fn a_failed_step_keeps_its_failure_when_finally_succeeds() {
    let lab = Lab::new();
    let (run, status) = lab
        .run("steps: [{ id: a, uses: test.act, with: { refuses: no } }]\nfinally: [{ id: tell, uses: test.act, with: { output: '{{ run.status }}' } }]")
        .await;
    assert_eq!(status, RunStatus::Failed);
    let engine = lab.engine(&run);
    assert_eq!(engine.step(&"tell".into()).expect("there").output, Some("failed".into()));
    assert_eq!(failure(&engine, "a"), "no");
}

#[cfg(unix)]
#[tokio::test]
async fn sigint_once_cancels_and_twice_ends_at_once_and_both_can_be_resumed() {
    let interrupt = || {
        let pid = std::process::id().to_string();
        let sent = std::process::Command::new("kill").args(["-INT", &pid]).status().expect("kill is there");
        assert!(sent.success());
    };
    let mut lab = Lab::new();
    lab.executor.settings.listens_to_signals = true;
    lab.executor.settings.grace = Duration::from_mins(1);
    let (run, session) = lab.spawn("steps: [{ id: a, uses: test.act, with: { waits_for: go, is_deaf: true } }]");
    lab.until("run a").await;
    interrupt();
    lab.until_event(&run, |event| matches!(event, Event::CancelRequested { .. })).await;
    assert!(!session.is_finished(), "the step gets its time");
    interrupt();
    let error = session.await.expect("no panic").expect_err("at once");
    assert!(matches!(&error, ExecutorError::Interrupted { run: named } if *named == run), "{error:?}");
    lab.write("go", "");
    lab.executor.settings.listens_to_signals = false;
    assert_eq!(lab.resume(&run).await, RunStatus::Succeeded);

    let (run, session) = {
        std::fs::remove_file(lab.path("go")).expect("there");
        lab.executor.settings.listens_to_signals = true;
        lab.spawn("steps: [{ id: b, uses: test.act, with: { waits_for: go } }]")
    };
    lab.until("run b").await;
    interrupt();
    assert_eq!(session.await.expect("no panic").expect("an end"), RunStatus::Cancelled);
    lab.write("go", "");
    assert_eq!(lab.resume(&run).await, RunStatus::Succeeded);
}

#[tokio::test]
async fn until_a_step_means_that_step_and_what_it_needs() {
    let lab = Lab::new();
    let text = "steps: [{ id: a, uses: test.act }, { id: b, uses: test.act, needs: [a] }, { id: c, uses: test.act, needs: [b] }, { id: x, uses: test.act }]";
    let mut new = lab.new_run(text);
    new.until = Some("b".to_owned());
    let run = new.id.clone();
    assert_eq!(lab.executor.start(new).await.expect("an end"), RunStatus::Paused);
    assert_eq!(lab.world(), ["run a", "done a", "run b", "done b"]);
    assert_eq!(lab.resume(&run).await, RunStatus::Succeeded);
    assert_eq!((lab.count("run a"), lab.count("run c"), lab.count("run x")), (1, 1, 1));

    let mut new = lab.new_run(text);
    new.until = Some("nope".to_owned());
    let error = lab.executor.start(new).await.expect_err("there is no such step");
    assert!(matches!(error, ExecutorError::Setup(_)), "{error:?}");
    assert_eq!(lab.executor.journal.runs().expect("readable").len(), 1);
}

#[tokio::test]
async fn a_cancelled_step_that_must_not_be_repeated_is_asked_about_when_the_run_is_resumed() {
    let lab = Lab::new();
    let (run, session) = lab.spawn("steps: [{ id: a, uses: test.act, with: { waits_for: go, once: true } }]");
    lab.until("run a").await;
    lab.executor.request(&run, Request::Cancel { by: "bert@desk".to_owned() }).await.expect("room");
    assert_eq!(session.await.expect("no panic").expect("an end"), RunStatus::Cancelled);
    lab.write("go", "");
    assert_eq!(lab.resume(&run).await, RunStatus::Paused);
    assert_eq!(lab.count("run a"), 1);
    assert_eq!(failure(&lab.engine(&run), "a"), "it was stopped at work, and nothing can tell whether it has acted");
    assert_eq!(lab.resume(&run).await, RunStatus::Succeeded, "now somebody has looked");
}

#[tokio::test]
async fn a_request_to_a_runner_that_is_still_opening_the_run_is_heard() {
    let lab = Lab::new();
    let command = "if [ -e hold ]; then touch began; while [ ! -e free ]; do sleep 0.01; done; fi; echo x";
    let text = format!(
        "secrets: {{ s: {{ command: '{command}' }} }}\nsteps: [{{ id: a, uses: test.act, with: {{ waits_for: go, name: '{{{{ run.id }}}}' }} }}]"
    );
    let (run, session) = lab.spawn(&text);
    lab.until(&format!("run {run}")).await;
    lab.executor.request(&run, Request::Cancel { by: "bert@desk".to_owned() }).await.expect("room");
    assert_eq!(session.await.expect("no panic").expect("an end"), RunStatus::Cancelled);

    lab.write("hold", "");
    // Another process: what a command for a secret said is not remembered.
    let other = Lab::on(tempfile::tempdir().expect("a folder"), lab.executor.journal.clone());
    let (executor, id) = (other.executor.clone(), run.clone());
    let session = tokio::spawn(async move { executor.resume(&id, Resume::default()).await });
    let begun = Instant::now();
    while !lab.path("began").exists() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it never began");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    lab.executor.request(&run, Request::Cancel { by: "bert@desk".to_owned() }).await.expect("room");
    lab.write("free", "");
    assert_eq!(session.await.expect("no panic").expect("an end"), RunStatus::Cancelled);
}

//! Limits: time, idleness, size, a full journal, a runner that was taken over, a clock that jumps.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use ferry::clock::{Clock, SystemClock};
use ferry::engine::{Event, RunStatus};
use ferry::executor::{ExecutorError, Resume};
use ferry::journal::{FILE, Journal, JournalError, OpenOptions};
use jiff::{SignedDuration, Timestamp};

use super::lab::{Lab, failure};

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_stopped_and_tried_again() {
    let lab = Lab::new();
    let (run, status) =
        lab.run("steps: [{ id: a, uses: test.act, timeout: 40ms, with: { waits_for: never, ticks: true } }]").await;
    assert_eq!(status, RunStatus::Failed);
    assert_eq!(lab.count("run a"), 3, "time may do better next time");
    let message = failure(&lab.engine(&run), "a");
    assert_eq!(message, "the attempt did not end within 40ms");
}

#[tokio::test]
async fn a_step_that_does_not_listen_is_given_up_after_the_grace_time() {
    let lab = Lab::new();
    let begun = Instant::now();
    let (_, status) = lab
        .run("steps: [{ id: a, uses: test.act, timeout: 20ms, retry: { attempts: 1 }, with: { waits_for: never, is_deaf: true } }]")
        .await;
    assert_eq!(status, RunStatus::Failed);
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn idle_means_without_progress_and_not_long() {
    let lab = Lab::new();
    let (run, session) = lab.spawn(
        "
steps:
  - { id: still, uses: test.act, timeout: { idle: 150ms }, retry: { attempts: 1 }, with: { waits_for: never } }
  - { id: moving, uses: test.act, timeout: { idle: 150ms }, retry: { attempts: 1 }, with: { waits_for: go, ticks: true } }
",
    );
    lab.until("stop still").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    lab.write("go", "");
    assert_eq!(session.await.expect("no panic").expect("an end"), RunStatus::Failed);
    assert_eq!(failure(&lab.engine(&run), "still"), "the attempt made no progress for 150ms");
    assert_eq!(lab.count("done moving"), 1);
}

#[tokio::test]
async fn outputs_that_are_too_large_are_refused_with_a_hint() {
    let lab = Lab::new();
    let (run, status) = lab.run("steps: [{ id: a, uses: test.act, with: { bytes: 262200 } }]").await;
    assert_eq!(status, RunStatus::Failed);
    let engine = lab.engine(&run);
    let failure = engine.step(&"a".into()).expect("there").failure.clone().expect("it failed");
    assert!(failure.message.contains("262202 bytes"), "{failure:?}");
    assert!(failure.help.is_some_and(|help| help.contains("a file or a store")));
    assert_eq!(lab.count("run a"), 1, "the same output is as large the next time");

    let (_, status) = lab.run("steps: [{ id: a, uses: test.act, with: { bytes: 262000 } }]").await;
    assert_eq!(status, RunStatus::Succeeded);
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_ends_the_run_and_what_is_at_work() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let options = OpenOptions { max_size: Some(130 * 4096), ..OpenOptions::default() };
    let journal = Journal::open_with(temp.path().join(".ferry"), options).expect("the tables fit");
    let lab = Lab::on(temp, journal);
    let long: Vec<String> =
        (0..60).map(|n| format!("  - {{ id: s{n}, uses: test.act, with: {{ output: {} }} }}", "z".repeat(3000))).collect();
    let (run, session) = lab.spawn(&format!(
        "steps:\n  - {{ id: long, uses: test.act, with: {{ waits_for: go, is_deaf: true }} }}\n{}",
        long.join("\n")
    ));
    let error = session.await.expect("no panic").expect_err("the journal is full");
    assert!(matches!(error, ExecutorError::Journal(JournalError::Full { .. })), "{error:?}");
    // What was at work is gone: it does not see the file that it waits for.
    lab.write("go", "");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(lab.count("done long"), 0);

    // With room again the run goes on where the journal ends, and what it knows to be done is not done again.
    let dir = lab.path(".ferry");
    let done: Vec<String> = lab
        .records(&run)
        .into_iter()
        .filter_map(|record| match record.event {
            Event::AttemptEnded { step, .. } => Some(format!("done {step}")),
            _ => None,
        })
        .collect();
    assert!(done.len() > 2, "{done:?}");
    let mut lab = lab;
    lab.executor.journal = Journal::open(&dir).expect("whole");
    assert_eq!(lab.resume(&run).await, RunStatus::Succeeded);
    for line in done {
        assert_eq!(lab.count(&line), 1, "{line}");
    }
}

#[tokio::test]
async fn a_second_runner_is_refused_and_one_that_was_taken_over_stops() {
    let lab = Lab::new();
    let (run, session) = lab.spawn("steps: [{ id: a, uses: test.act, with: { waits_for: go } }, { id: b, uses: test.act }]");
    lab.until("run a").await;
    let error = lab.executor.resume(&run, Resume::default()).await.expect_err("somebody is at work");
    assert!(matches!(error, ExecutorError::Journal(JournalError::Held { .. })), "{error:?}");
    // As if the lease of a runner on another machine had run out: someone else counts the token up.
    let raw = rusqlite::Connection::open(lab.path(".ferry").join(FILE)).expect("there");
    raw.execute("UPDATE leases SET token = token + 1", []).expect("a table of ours");
    lab.write("go", "");
    let error = session.await.expect("no panic").expect_err("it was taken over");
    assert!(matches!(error, ExecutorError::Journal(JournalError::Fenced { .. })), "{error:?}");
}

/// A wall clock that is an hour off each time somebody looks, forth and back.
#[derive(Debug)]
struct Jumping {
    real: Arc<dyn Clock>,
    looks: AtomicI64,
}

impl Clock for Jumping {
    fn now(&self) -> Timestamp {
        let looks = self.looks.fetch_add(1, Ordering::Relaxed);
        self.real.now() + SignedDuration::from_hours(if looks % 2 == 0 { 5 } else { -5 })
    }

    fn monotonic(&self) -> Duration {
        self.real.monotonic()
    }
}

#[tokio::test]
async fn a_clock_that_jumps_moves_nothing() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let clock: Arc<dyn Clock> = Arc::new(Jumping { real: SystemClock::shared(), looks: AtomicI64::new(0) });
    let options = OpenOptions { clock: Some(clock.clone()), ..OpenOptions::default() };
    let journal = Journal::open_with(temp.path().join(".ferry"), options).expect("new");
    let mut lab = Lab::on(temp, journal);
    lab.executor.clock = clock;
    let begun = Instant::now();
    let (run, status) = lab
        .run(
            "steps: [{ id: a, uses: test.act, timeout: 1h, with: { fails: 2 } }, { id: b, uses: test.act, needs: [a], lock: l }]",
        )
        .await;
    assert_eq!(status, RunStatus::Succeeded);
    assert!(begun.elapsed() < Duration::from_secs(20));
    let records = lab.records(&run);
    assert!(records.windows(2).any(|pair| pair[1].at < pair[0].at), "the clock did jump");
    assert!(records.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1));
}

#[tokio::test]
async fn what_is_too_large_for_the_journal_fails_its_step_and_nothing_else() {
    let lab = Lab::new();
    let text = "
inputs: { big: { type: string } }
steps:
  - { id: config, uses: test.act, continue_on_error: true, with: { output: '{{ inputs.big }}{{ inputs.big }}' } }
  - { id: list, uses: test.act, continue_on_error: true, for_each: { x: '{{ inputs.big }}', y: '{{ inputs.big }}' } }
  - { id: fine, uses: test.act }
";
    let mut new = lab.new_run(text);
    new.inputs.insert("big".to_owned(), "x".repeat(9 << 20).into());
    let id = new.id.clone();
    assert_eq!(lab.executor.start(new).await.expect("an end of its own"), RunStatus::Failed);
    let engine = lab.engine(&id);
    for step in ["config", "list"] {
        assert!(failure(&engine, step).contains("more than the 16.0 MiB that the journal takes"), "{}", failure(&engine, step));
    }
    assert_eq!(lab.count("done fine"), 1);
}

#[tokio::test]
async fn a_limit_that_is_passed_asks_a_person_where_nothing_may_be_repeated() {
    let lab = Lab::new();
    let (run, status) =
        lab.run("steps: [{ id: a, uses: test.act, timeout: 40ms, with: { waits_for: never, ticks: true, once: true } }]").await;
    assert_eq!(status, RunStatus::Paused);
    assert_eq!(lab.count("run a"), 1, "it may have acted");
    let message = failure(&lab.engine(&run), "a");
    assert_eq!(message, "the attempt did not end within 40ms, and nothing can tell whether it has acted");
}

#[tokio::test]
async fn a_limit_beyond_all_clocks_is_none() {
    let lab = Lab::new();
    let (_, status) = lab.run("steps: [{ id: a, uses: test.act, timeout: 500000000000000000s }]").await;
    assert_eq!(status, RunStatus::Succeeded);
}

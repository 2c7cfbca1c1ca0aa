//! Approvals: asked, answered, refused, bound to what was shown.

use ferry::engine::{Event, RunStatus, State};
use ferry::executor::{ExecutorError, Resume};

use super::lab::{Lab, failure};

const TEXT: &str = "
steps:
  - { id: a, uses: test.act, with: { output: { lag: 12 } } }
  - { id: go, uses: approval, with: { message: 'Lag is {{ steps.a.outputs.lag }}. Cut over?', approvers: [anna] } }
  - { id: b, uses: test.act, needs: [go] }
";

#[tokio::test]
async fn a_run_leaves_when_only_a_person_is_awaited_and_takes_the_answer_when_it_is_resumed() {
    let lab = Lab::new();
    let (run, status) = lab.run(TEXT).await;
    assert_eq!(status, RunStatus::Waiting);
    assert_eq!(lab.executor.journal.run(&run).expect("there").status, RunStatus::Waiting);
    let engine = lab.engine(&run);
    let question = engine.step(&"go".into()).expect("there").question.clone().expect("it was asked");
    assert_eq!(question.message, "Lag is 12. Cut over?");

    // A restart implies nothing.
    assert_eq!(lab.resume(&run).await, RunStatus::Waiting);
    assert_eq!(lab.count("run b"), 0);

    lab.executor.approve(&run, "go", true, Some("looks good".to_owned())).await.expect("room");
    assert_eq!(lab.resume(&run).await, RunStatus::Succeeded);
    assert_eq!(lab.count("done b"), 1);
    let given = lab.records(&run).into_iter().find_map(|record| match record.event {
        Event::ApprovalGiven { by, comment, approved, .. } => Some((by, comment, approved)),
        _ => None,
    });
    assert_eq!(given, Some(("anna@desk".to_owned(), Some("looks good".to_owned()), true)));
    let error = lab.executor.approve(&run, "go", true, None).await.expect_err("it was answered");
    assert!(matches!(error, ExecutorError::NoQuestion { .. }), "{error:?}");
}

#[tokio::test]
async fn an_answer_reaches_a_run_that_stays() {
    let mut lab = Lab::new();
    lab.executor.settings.waits_for_people = true;
    let (run, session) = lab.spawn(TEXT);
    lab.until_event(&run, |event| matches!(event, Event::ApprovalAsked { .. })).await;
    lab.executor.approve(&run, "go", true, None).await.expect("room");
    assert_eq!(session.await.expect("no panic").expect("an end"), RunStatus::Succeeded);
}

#[tokio::test]
async fn a_no_fails_the_step_and_a_stranger_is_not_heard() {
    let mut lab = Lab::new();
    let (run, _) = lab.run(TEXT).await;
    lab.executor.by = "bert@desk".to_owned();
    let error = lab.executor.approve(&run, "go", true, None).await.expect_err("he was not asked");
    assert!(error.to_string().contains("`bert@desk` may not answer step `go`: it asks anna"), "{error}");
    let error = lab.executor.approve(&run, "nope", true, None).await.expect_err("no such step");
    assert!(error.to_string().contains("no step `nope`"), "{error}");
    lab.executor.by = "anna@desk".to_owned();
    lab.executor.approve(&run, "go", false, Some("not today".to_owned())).await.expect("room");
    assert_eq!(lab.resume(&run).await, RunStatus::Failed);
    let engine = lab.engine(&run);
    assert_eq!(failure(&engine, "go"), "`anna@desk` said no: not today");
    assert_eq!(engine.step(&"b".into()).expect("there").state, State::Blocked);
}

#[tokio::test]
async fn an_approval_that_nobody_gives_in_time_fails() {
    let mut lab = Lab::new();
    lab.executor.settings.waits_for_people = true;
    let (run, status) = lab.run("steps: [{ id: go, uses: approval, with: { message: Go?, at_most: 30ms } }]").await;
    assert_eq!(status, RunStatus::Failed);
    assert_eq!(failure(&lab.engine(&run), "go"), "nobody answered in time");
}

#[tokio::test]
async fn an_answer_to_a_step_that_an_edit_has_taken_out_is_dropped() {
    let lab = Lab::new();
    let (run, _) = lab.run(TEXT).await;
    lab.executor.approve(&run, "go", true, None).await.expect("room");
    let text = "
steps:
  - { id: a, uses: test.act, with: { output: { lag: 12 } } }
  - { id: stay, uses: test.act, with: { waits_for: heard } }
";
    let how = Resume { pipeline: Some((lab.path("p.yaml"), lab.load(text))), ..Resume::default() };
    let (executor, id) = (lab.executor.clone(), run.clone());
    let session = tokio::spawn(async move { executor.resume(&id, how).await });
    let begun = std::time::Instant::now();
    while !lab.executor.journal.letters(&run, 0).expect("readable").is_empty() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "it does not lie there for ever");
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    lab.write("heard", "");
    assert_eq!(session.await.expect("no panic").expect("an end"), RunStatus::Succeeded);
    assert_eq!(lab.engine(&run).fault_found(), None);
    assert!(!lab.records(&run).iter().any(|record| matches!(record.event, Event::ApprovalGiven { .. })));
}

#[tokio::test]
async fn the_time_for_an_answer_does_not_start_anew_with_each_session() {
    let mut lab = Lab::new();
    let (run, status) = lab.run("steps: [{ id: go, uses: approval, with: { message: Go?, at_most: 1h } }]").await;
    assert_eq!(status, RunStatus::Waiting);
    lab.executor.settings.waits_for_people = true;
    lab.executor.clock = std::sync::Arc::new(Later);
    assert_eq!(lab.resume(&run).await, RunStatus::Failed);
    assert_eq!(failure(&lab.engine(&run), "go"), "nobody answered in time");
}

/// Two hours from now.
#[derive(Debug)]
struct Later;

impl ferry::clock::Clock for Later {
    fn now(&self) -> jiff::Timestamp {
        jiff::Timestamp::now() + jiff::SignedDuration::from_hours(2)
    }

    fn monotonic(&self) -> std::time::Duration {
        std::time::Duration::ZERO
    }
}

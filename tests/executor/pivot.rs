//! A pivot inside a step: until it is passed everything goes back, this step too; from then on the run goes forward only.

use std::time::Duration;

use ferry::catalogue::{Background, Interrupted, Pivot, Traits, Undo};
use ferry::engine::{Event, RunStatus, State};
use ferry::error::StepError;
use ferry::executor::ExecutorError;
use ferry::journal::{Journal, Request};
use ferry::steps::{Preview, Step, StepContext};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::lab::{Lab, WORLD, failure, trace};

/// A switch over: it prepares, passes its pivot, and acts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Switch {
    /// The first attempt fails before the pivot.
    #[serde(default)]
    fails_before: bool,
    /// The first attempt fails after the pivot, before it has acted.
    #[serde(default)]
    fails_after: bool,
    /// It waits for this file before the pivot, and does not listen when it is told to stop.
    #[serde(default)]
    waits_before: Option<String>,
    /// It waits for this file after the pivot, before it acts.
    #[serde(default)]
    waits_after: Option<String>,
    /// It finds nothing to do, and succeeds without having passed its pivot.
    #[serde(default)]
    is_done: bool,
}

async fn wait_for(ctx: &StepContext, file: Option<&String>) {
    let Some(file) = file else { return };
    while !ctx.base.join(file).exists() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl Step for Switch {
    const TYPE: &'static str = "test.switch";
    const EXAMPLE: &'static str = "id: a\nuses: test.switch\nwith: {}\n";
    const PIVOT: Pivot = Pivot::Inside;
    type Before = ();
    type Output = Value;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Built, interrupted: Interrupted::LookFirst }
    }

    async fn inspect(&self, _: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    fn preview(&self, (): &()) -> Preview {
        Preview { does: "switches over".to_owned(), undo: "lets go".to_owned(), ..Preview::default() }
    }

    async fn run(&self, ctx: &StepContext, (): &()) -> Result<Value, StepError> {
        trace(ctx, if ctx.attempt.past_pivot { "prepare, past the pivot" } else { "prepare" });
        let is_first = ctx.attempt.number == 1;
        if self.is_done {
            return Ok(Value::Null);
        }
        if self.fails_before && is_first {
            return Err(StepError::permanent("too slow"));
        }
        wait_for(ctx, self.waits_before.as_ref()).await;
        if let Err(error) = ctx.pass_pivot().await {
            trace(ctx, "let go");
            return Err(error);
        }
        // What the step does next is done on the strength of the journal, not of its own word.
        let records = Journal::read(ctx.base.join(".ferry")).expect("there").records(&ctx.attempt.run).expect("whole");
        let is_mine = |event: &Event| matches!(event, Event::PivotPassed { attempt, .. } if *attempt == ctx.attempt.number);
        assert!(records.iter().any(|record| is_mine(&record.event)), "it is on disk when the call returns");
        if self.fails_after && is_first {
            return Err(StepError::permanent("no answer"));
        }
        wait_for(ctx, self.waits_after.as_ref()).await;
        trace(ctx, "act");
        Ok(Value::Null)
    }

    async fn undo(&self, ctx: &StepContext, (): &()) -> Result<(), StepError> {
        if ctx.pass_pivot().await.is_ok() {
            return Err(StepError::permanent("an undo has passed a pivot"));
        }
        trace(ctx, "undo");
        Ok(())
    }
}

/// What clients see: it is ready only while no switch over has begun that has not acted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Door {}

impl Step for Door {
    const TYPE: &'static str = "test.door";
    const EXAMPLE: &'static str = "id: a\nuses: test.door\nwith: {}\n";
    const BACKGROUND: Background = Background::ReadyWhenSaid;
    type Before = ();
    type Output = Value;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Nothing, interrupted: Interrupted::RunAgain }
    }

    async fn inspect(&self, _: &StepContext) -> Result<(), StepError> {
        Ok(())
    }

    fn preview(&self, (): &()) -> Preview {
        Preview { does: "looks".to_owned(), ..Preview::default() }
    }

    async fn run(&self, ctx: &StepContext, (): &()) -> Result<Value, StepError> {
        loop {
            let world = std::fs::read_to_string(ctx.base.join(WORLD)).unwrap_or_default();
            if world.matches("prepare").count() == 0 || world.contains("act ") {
                ctx.ready();
            }
            tokio::select! {
                () = ctx.over.cancelled() => return Ok(Value::Null),
                () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
                () = tokio::time::sleep(Duration::from_millis(1)) => {}
            }
        }
    }

    async fn undo(&self, _: &StepContext, (): &()) -> Result<(), StepError> {
        Ok(())
    }
}

fn pipeline(with: &str) -> String {
    format!(
        "on_failure: rollback\nsteps:\n  - {{ id: a, uses: test.act }}\n  - {{ id: cut, uses: test.switch, needs: [a], pivot: true, with: {with} }}\n  - {{ id: b, uses: test.act, needs: [cut] }}\n"
    )
}

fn passes(event: &Event) -> bool {
    matches!(event, Event::PivotPassed { .. })
}

#[tokio::test]
async fn a_step_that_fails_before_its_pivot_is_rolled_back_with_everything() {
    let lab = Lab::new();
    let (run, status) = lab.run(&pipeline("{ fails_before: true }")).await;
    assert_eq!(status, RunStatus::RolledBack);
    assert_eq!(lab.world(), ["run a", "done a", "prepare cut", "undo cut", "undo a"]);
    assert!(!lab.engine(&run).is_past_pivot());
}

#[tokio::test]
async fn a_step_that_fails_after_its_pivot_goes_forward_only() {
    let lab = Lab::new();
    let (run, status) = lab.run(&pipeline("{ fails_after: true }")).await;
    assert_eq!(status, RunStatus::Failed, "it does not go back by itself");
    assert!(lab.engine(&run).is_past_pivot());
    let error = lab.executor.rollback(&run, false).await.expect_err("it goes forward only");
    assert!(matches!(error, ExecutorError::PastPivot { .. }), "{error:?}");
    assert_eq!(lab.resume(&run).await, RunStatus::Succeeded);
    assert_eq!(lab.world()[2..], ["prepare cut", "prepare, past the pivot cut", "act cut", "run b", "done b"]);
    assert_eq!(lab.records(&run).iter().filter(|record| passes(&record.event)).count(), 2, "said again does no harm");
}

#[tokio::test]
async fn going_back_past_the_pivot_on_purpose_undoes_the_step() {
    let lab = Lab::new();
    let (run, _) = lab.run(&pipeline("{ fails_after: true }")).await;
    assert_eq!(lab.executor.rollback(&run, true).await.expect("it was said"), RunStatus::RolledBack);
    assert_eq!(lab.world()[3..], ["undo cut", "undo a"]);
}

#[tokio::test]
async fn a_pivot_that_comes_after_the_rollback_is_not_passed() {
    for request in [Request::Rollback { by: "b".to_owned(), past_pivot: false }, Request::Cancel { by: "b".to_owned() }] {
        let lab = Lab::new();
        let (run, session) = lab.spawn(&pipeline("{ waits_before: go }"));
        lab.until("prepare cut").await;
        let goes_back = matches!(request, Request::Rollback { .. });
        lab.executor.request(&run, request).await.expect("room");
        lab.until_event(&run, |event| matches!(event, Event::RollbackRequested { .. } | Event::CancelRequested { .. })).await;
        lab.write("go", "");
        let status = session.await.expect("no panic").expect("an end");
        assert!(!lab.engine(&run).is_past_pivot());
        assert_eq!(lab.count("act cut"), 0);
        if goes_back {
            assert_eq!(status, RunStatus::RolledBack);
            assert_eq!(lab.world()[2..], ["prepare cut", "let go cut", "undo cut", "undo a"]);
        } else {
            assert_eq!(status, RunStatus::Cancelled);
            assert_eq!(lab.engine(&run).step(&"cut".into()).expect("there").state, State::Stopped);
            assert_eq!(lab.executor.rollback(&run, false).await.expect("an end"), RunStatus::RolledBack);
        }
    }
}

#[tokio::test]
async fn a_rollback_that_comes_after_the_pivot_is_not_begun() {
    let lab = Lab::new();
    let (run, session) = lab.spawn(&pipeline("{ waits_after: go }"));
    lab.until_event(&run, passes).await;
    lab.executor.request(&run, Request::Rollback { by: "b".to_owned(), past_pivot: false }).await.expect("room");
    while !lab.executor.journal.letters(&run, 0).expect("readable").is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    lab.write("go", "");
    assert_eq!(session.await.expect("no panic").expect("an end"), RunStatus::Succeeded);
    assert_eq!(lab.count("undo cut"), 0);
}

#[tokio::test]
async fn a_rollback_and_a_pivot_at_the_same_moment_are_decided_on_one_side() {
    for round in 0_u64..24 {
        let lab = Lab::new();
        let (run, session) = lab.spawn(&pipeline("{ waits_before: go }"));
        lab.until("prepare cut").await;
        let request = Request::Rollback { by: "b".to_owned(), past_pivot: false };
        if round % 2 == 0 {
            lab.write("go", "");
            tokio::time::sleep(Duration::from_micros(round * 250)).await;
            lab.executor.request(&run, request).await.expect("room");
        } else {
            lab.executor.request(&run, request).await.expect("room");
            tokio::time::sleep(Duration::from_micros(round * 250)).await;
            lab.write("go", "");
        }
        let status = session.await.expect("no panic").expect("an end");
        match status {
            RunStatus::Succeeded => assert_eq!((lab.count("act cut"), lab.count("undo cut")), (1, 0), "{:?}", lab.world()),
            RunStatus::RolledBack => assert_eq!((lab.count("act cut"), lab.count("undo cut")), (0, 1), "{:?}", lab.world()),
            other => panic!("{other:?}: {:?}", lab.world()),
        }
    }
}

#[tokio::test]
async fn an_attempt_interrupted_before_its_pivot_goes_back_and_one_after_it_goes_on() {
    let lab = Lab::new();
    let (run, session) = lab.spawn(&pipeline("{ waits_before: go }"));
    lab.until("prepare cut").await;
    session.abort();
    let _ = session.await;
    assert_eq!(lab.executor.rollback(&run, false).await.expect("an end"), RunStatus::RolledBack);
    assert_eq!(lab.world()[2..], ["prepare cut", "undo cut", "undo a"]);

    let lab = Lab::new();
    let (run, session) = lab.spawn(&pipeline("{ waits_after: go }"));
    lab.until_event(&run, passes).await;
    session.abort();
    let _ = session.await;
    let error = lab.executor.rollback(&run, false).await.expect_err("it goes forward only");
    assert!(matches!(error, ExecutorError::PastPivot { .. }), "{error:?}");
    lab.write("go", "");
    assert_eq!(lab.resume(&run).await, RunStatus::Succeeded);
    assert_eq!(lab.world()[2..], ["prepare cut", "prepare, past the pivot cut", "act cut", "run b", "done b"]);
}

#[tokio::test]
async fn an_interrupted_switch_over_does_not_wait_for_what_it_keeps_from_being_ready() {
    for held in ["waits_before", "waits_after"] {
        let lab = Lab::new();
        let text = format!(
            "max_parallel: 1\nsteps:\n  - {{ id: door, uses: test.door, background: {{ until: cut }} }}\n\
             \x20 - {{ id: a, uses: test.act, needs: [door] }}\n\
             \x20 - {{ id: cut, uses: test.switch, needs: [a], pivot: true, with: {{ {held}: go }} }}\n\
             \x20 - {{ id: b, uses: test.act, needs: [cut] }}\n"
        );
        let (run, session) = lab.spawn(&text);
        lab.until("prepare cut").await;
        session.abort();
        let _ = session.await;
        lab.write("go", "");
        let resumed = tokio::time::timeout(Duration::from_secs(20), lab.resume(&run)).await;
        assert_eq!(resumed.expect("it does not wait for the door"), RunStatus::Succeeded);
        assert_eq!((lab.count("act cut"), lab.count("done b")), (1, 1), "{:?}", lab.world());
    }
}

#[tokio::test]
async fn a_pivot_that_succeeds_without_saying_so_is_passed_too() {
    let lab = Lab::new();
    let text = pipeline("{ is_done: true }")
        .replace("uses: test.act, needs: [cut]", "uses: test.act, needs: [cut], with: { refuses: no }");
    let (run, status) = lab.run(&text).await;
    assert_eq!(status, RunStatus::Failed);
    assert!(lab.engine(&run).is_past_pivot());
    assert_eq!(failure(&lab.engine(&run), "b"), "no");
}

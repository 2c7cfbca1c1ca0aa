//! Plans: what they know, what they wait for, and that they change nothing.

use ferry::executor::{ExecutorError, Half, PlanState, plan};
use serde_json::{Map, json};

use super::lab::{Disk, Lab, registry};

#[tokio::test]
async fn a_plan_shows_what_it_can_and_says_what_the_rest_waits_for() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(
        temp.path().join("inner.yaml"),
        "inputs: { n: { type: integer } }\nsteps: [{ id: x, uses: test.act, with: { output: '{{ inputs.n }}' } }]\noutputs: { n: '{{ steps.x.outputs }}' }\n",
    )
    .expect("room");
    let path = temp.path().join("p.yaml");
    std::fs::write(
        &path,
        "
name: shop
inputs: { list: { type: list, default: [eu, us] } }
steps:
  - { id: a, uses: test.act, for_each: '{{ inputs.list }}', with: { output: '{{ each.value }}' } }
  - { id: off, uses: test.act, if: '{{ eq 1 2 }}' }
  - { id: inner, uses: ./inner.yaml, with: { n: 3 } }
  - { id: go, uses: approval, needs: [a], with: { message: 'Go with {{ json inputs.list }}?' } }
  - { id: cut, uses: test.act, needs: [go, inner], pivot: true }
  - { id: late, uses: test.act, needs: [cut], with: { output: '{{ steps.a.outputs }}' } }
finally:
  - { id: tell, uses: test.act }
  - { id: word, uses: test.act, with: { output: 'it {{ run.status }}' } }
",
    )
    .expect("room");
    let registry = registry();
    let loaded = ferry::pipeline::load(&path, &Disk, registry.catalogue()).expect("it is right");
    let plan = plan(&registry, &path, &loaded, &Map::new()).await.expect("a plan");
    let told: Vec<_> = plan.steps.iter().map(|step| (step.step.as_str(), step.state, step.half)).collect();
    assert_eq!(
        told,
        [
            ("a", PlanState::Group, Half::Before),
            ("a[eu]", PlanState::Ready, Half::Before),
            ("a[us]", PlanState::Ready, Half::Before),
            ("off", PlanState::Skipped, Half::Before),
            ("inner", PlanState::Group, Half::Before),
            ("inner/x", PlanState::Ready, Half::Before),
            ("go", PlanState::Approval, Half::Before),
            ("cut", PlanState::Ready, Half::Pivot),
            ("late", PlanState::Later, Half::After),
            ("tell", PlanState::Ready, Half::Finally),
            ("word", PlanState::Later, Half::Finally),
        ]
    );
    let by = |step: &str| plan.steps.iter().find(|planned| planned.step.as_str() == step).expect("planned");
    assert_eq!(by("a[eu]").preview.as_ref().expect("looked at").does, "adds a line to 0");
    assert_eq!(by("word").waits_for.as_deref(), Some("how the run ends"));
    assert_eq!(by("late").waits_for.as_deref(), Some("a"));
    assert_eq!(by("go").question.as_deref(), Some("Go with [\"eu\",\"us\"]?"));
    assert!(plan.has_pivot && plan.blocking().next().is_none());
    assert_eq!(plan.bytes, Some(50));
    assert_eq!(serde_json::to_value(&plan).expect("a plan is JSON")["steps"][1]["half"], json!("before"));
    let left: Vec<_> = std::fs::read_dir(temp.path()).expect("there").map(|entry| entry.expect("readable").file_name()).collect();
    assert_eq!(left.len(), 2, "a plan leaves nothing behind: {left:?}");
}

#[tokio::test]
async fn what_a_plan_finds_wrong_keeps_a_run_from_starting() {
    let lab = Lab::new();
    let mut new =
        lab.new_run("steps: [{ id: a, uses: test.act, with: { blind: the bucket is not there } }, { id: b, uses: test.act }]");
    new.preflight = true;
    let error = lab.executor.start(new.clone()).await.expect_err("something is wrong");
    let ExecutorError::Preflight(plan) = &error else { panic!("{error:?}") };
    let failed = plan.blocking().next().expect("it is named");
    assert_eq!(failed.failure.as_ref().expect("with a reason").message, "the bucket is not there");
    assert!(lab.world().is_empty() && lab.executor.journal.runs().expect("readable").is_empty());
}

#[tokio::test]
async fn what_an_earlier_step_may_bring_does_not() {
    let lab = Lab::new();
    let new =
        lab.new_run("steps: [{ id: a, uses: test.act }, { id: b, uses: test.act, needs: [a], with: { blind: not there yet } }]");
    let plan = lab.executor.plan(&new).await.expect("a plan");
    assert_eq!(plan.steps[1].state, PlanState::Failed);
    assert!(plan.blocking().next().is_none());
    assert!(lab.world().is_empty());
}

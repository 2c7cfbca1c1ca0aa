//! Random pipelines, small enough to read and odd enough to hit every rule.

use std::time::Duration;

use ferry::engine::{
    Background, BackgroundDef, Backoff, Body, Definition, Exhausted, Interrupted, OnFailure, Parallel, Retry, StepDef, Timeout,
    UndoDef,
};
use rand::Rng as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;

/// A pipeline of up to eight steps a level, two levels deep.
pub fn definition(rng: &mut StdRng) -> Definition {
    let steps = list(rng, "s", 8, 0, true);
    let finally = if rng.random_bool(0.4) { list(rng, "f", 2, 1, false) } else { Vec::new() };
    Definition {
        name: "random".to_owned(),
        steps,
        finally,
        max_parallel: rng.random_range(1..4),
        on_failure: if rng.random_bool(0.3) { OnFailure::Rollback } else { OnFailure::Stop },
        finally_budget: Duration::from_mins(1),
    }
}

fn list(rng: &mut StdRng, name: &str, most: usize, depth: u32, may_pivot: bool) -> Vec<StepDef> {
    let count = rng.random_range(1..=most);
    let pivot = (may_pivot && rng.random_bool(0.3)).then(|| rng.random_range(0..count));
    let mut steps: Vec<StepDef> = Vec::new();
    for at in 0..count {
        let mut step = step(rng, &format!("{name}{at}"), depth);
        for earlier in &steps {
            if rng.random_bool(0.3) {
                step.needs.push(earlier.id.clone());
            }
        }
        step.pivot = pivot == Some(at);
        step.pivot_inside = matches!(step.body, Body::Task) && rng.random_bool(0.5);
        steps.push(step);
    }
    // A background step serves until a later step that is no background step itself.
    for at in 0..count.saturating_sub(1) {
        let later: Vec<String> =
            steps[at + 1..].iter().filter(|step| step.background.is_none()).map(|step| step.id.clone()).collect();
        if let (true, Body::Task, Some(until)) = (rng.random_bool(0.15), &steps[at].body, later.choose(rng)) {
            let ready = if rng.random_bool(0.5) { Background::ReadyAtStart } else { Background::ReadyWhenSaid };
            let def = BackgroundDef { until: until.clone(), ready };
            // `until` must not itself be served in the background, or nothing would ever end.
            if !steps[..at].iter().any(|s| s.background.as_ref().is_some_and(|b| b.until == steps[at].id)) {
                steps[at].background = Some(def);
            }
        }
    }
    steps
}

fn step(rng: &mut StdRng, id: &str, depth: u32) -> StepDef {
    let body = match rng.random_range(0..100) {
        0..8 => Body::Approval { at_most: rng.random_bool(0.3).then_some(Duration::from_secs(5)) },
        8..20 if depth < 2 => {
            let mut inner = definition_of(list(rng, "s", 3, depth + 1, false));
            inner.finally.clear();
            Body::Pipeline(Box::new(inner))
        }
        _ => Body::Task,
    };
    let for_each = rng.random_bool(0.15);
    let is_pipeline = matches!(body, Body::Pipeline(_));
    StepDef {
        id: id.to_owned(),
        name: None,
        uses: "test".to_owned(),
        body,
        needs: Vec::new(),
        resolve: for_each || is_pipeline || rng.random_bool(0.3),
        for_each,
        max_parallel: (for_each && rng.random_bool(0.5)).then(|| match rng.random_range(0..3) {
            0 => Parallel::Auto,
            most => Parallel::AtMost(most),
        }),
        retry: Retry {
            attempts: rng.random_range(1..4),
            backoff: *[Backoff::Constant, Backoff::Linear, Backoff::Exponential].choose(rng).expect("not empty"),
            exhausted: *[Exhausted::Fail, Exhausted::Fail, Exhausted::Pause, Exhausted::Rollback].choose(rng).expect("not empty"),
            interruptions: rng.random_range(1..4),
            ..Retry::default()
        },
        timeout: Timeout::default(),
        pivot: false,
        pivot_inside: false,
        background: None,
        undo: *[
            UndoDef::Built,
            UndoDef::Built,
            UndoDef::Built,
            UndoDef::Custom,
            UndoDef::Nothing,
            UndoDef::Skip,
            UndoDef::Impossible,
        ]
        .choose(rng)
        .expect("not empty"),
        continue_on_error: rng.random_bool(0.15),
        lock_wait: Some(Duration::from_mins(1)),
        placement: None,
        interrupted: *[Interrupted::RunAgain, Interrupted::LookFirst, Interrupted::LookFirst, Interrupted::AskPerson]
            .choose(rng)
            .expect("not empty"),
    }
}

fn definition_of(steps: Vec<StepDef>) -> Definition {
    Definition {
        name: "inner".to_owned(),
        steps,
        finally: Vec::new(),
        max_parallel: 1,
        on_failure: OnFailure::Stop,
        finally_budget: Duration::from_mins(1),
    }
}

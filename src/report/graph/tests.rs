//! Drawings of one pipeline that has everything.

use std::time::Duration;

use super::*;
use crate::engine::{Background, BackgroundDef, Body, Interrupted, OnFailure, Retry, StepDef, Timeout, UndoDef};
use crate::report::Style;

fn step(id: &str, uses: &str, needs: &[&str]) -> StepDef {
    StepDef {
        id: id.to_owned(),
        uses: uses.to_owned(),
        body: Body::Task,
        needs: needs.iter().map(|need| (*need).to_owned()).collect(),
        resolve: false,
        for_each: false,
        max_parallel: None,
        retry: Retry::default(),
        timeout: Timeout::default(),
        pivot: false,
        background: None,
        undo: UndoDef::Built,
        continue_on_error: false,
        placement: None,
        interrupted: Interrupted::RunAgain,
    }
}

fn definition(name: &str, steps: Vec<StepDef>, finally: Vec<StepDef>) -> Definition {
    Definition {
        name: name.to_owned(),
        steps,
        finally,
        max_parallel: 8,
        on_failure: OnFailure::Stop,
        finally_budget: Duration::from_mins(5),
    }
}

fn orders() -> Definition {
    let inner = definition(
        "replica",
        vec![step("base", "postgres.base_backup", &[]), step("wal", "postgres.wal_ship", &["base"])],
        vec![],
    );
    definition(
        "orders <aws> & azure",
        vec![
            StepDef { for_each: true, ..step("uploads", "object.sync", &[]) },
            StepDef { body: Body::Pipeline(Box::new(inner)), ..step("replica", "./replica.yaml", &[]) },
            StepDef {
                background: Some(BackgroundDef { until: "same".to_owned(), ready: Background::ReadyAtStart }),
                undo: UndoDef::Nothing,
                ..step("probe", "probe.postgres", &["replica"])
            },
            StepDef { undo: UndoDef::Skip, continue_on_error: true, ..step("notes", "http.request", &["uploads"]) },
            StepDef {
                body: Body::Approval { at_most: None },
                undo: UndoDef::Nothing,
                ..step("go", "approval", &["uploads", "probe", "replica"])
            },
            StepDef { pivot: true, undo: UndoDef::Impossible, ..step("cutover", "postgres.cutover", &["go"]) },
            StepDef { undo: UndoDef::Nothing, ..step("same", "postgres.compare", &["cutover", "notes"]) },
            StepDef { undo: UndoDef::Impossible, ..step("clean", "object.delete", &["cutover"]) },
        ],
        vec![StepDef { undo: UndoDef::Nothing, ..step("tell", "http.request", &[]) }],
    )
}

fn some_states() -> States {
    [
        ("uploads", State::Running),
        ("replica/base", State::Succeeded),
        ("replica/wal", State::Failed),
        ("probe", State::Blocked),
        ("notes", State::Skipped),
        ("go", State::Awaiting),
    ]
    .map(|(path, state)| (path.to_owned(), state))
    .into()
}

#[test]
fn a_terminal_shows_the_dag_and_both_halves() {
    insta::assert_snapshot!(text(&orders(), &States::new(), Style::default()));
}

#[test]
fn a_terminal_shows_a_run() {
    insta::assert_snapshot!(text(&orders(), &some_states(), Style { unicode: false, ..Style::default() }));
}

#[test]
fn mermaid_has_every_edge() {
    insta::assert_snapshot!(mermaid(&orders(), &some_states()));
}

#[test]
fn dot_has_every_edge() {
    insta::assert_snapshot!(dot(&orders(), &some_states()));
}

#[test]
fn svg_is_well_formed_and_escaped() {
    let drawn = svg(&orders(), &some_states());
    assert!(!drawn.contains("<aws>") && drawn.contains("&lt;aws&gt; &amp; azure"), "the name is text");
    assert_eq!(drawn.matches("<g ").count(), drawn.matches("</g>").count());
    assert_eq!(drawn.matches("<g ").count(), 10, "each step once, and those inside the pipeline instead of it");
    assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "every place is a number");
    assert!(
        !drawn.contains("http") || drawn.matches("http").count() == 1 + drawn.matches("http.request").count(),
        "nothing is loaded"
    );
}

#[test]
fn every_step_is_drawn_once_and_after_its_needs() {
    let drawn = text(&orders(), &States::new(), Style::default());
    let line = |id: &str| drawn.lines().position(|line| line.contains(&format!(" {id} "))).unwrap_or_else(|| panic!("{id}"));
    for (need, step) in [("uploads", "go"), ("replica/wal", "probe"), ("go", "cutover"), ("cutover", "same"), ("notes", "same")] {
        assert!(line(need) < line(step), "{need} before {step}");
    }
}

#[test]
fn a_wide_and_long_dag_is_drawn_in_time() {
    let mut steps = vec![step("root", "wait", &[])];
    for chain in 0..100 {
        for link in 0..20 {
            let before = if link == 0 { "root".to_owned() } else { format!("s{chain}-{}", link - 1) };
            steps.push(step(&format!("s{chain}-{link}"), "command", &[&before]));
        }
    }
    let ends: Vec<String> = (0..100).map(|chain| format!("s{chain}-19")).collect();
    steps.push(step("end", "wait", &ends.iter().map(String::as_str).collect::<Vec<_>>()));
    let wide = definition("wide", steps, vec![]);
    let drawn = text(&wide, &States::new(), Style::default());
    assert_eq!(drawn.lines().filter(|line| line.contains(" command ")).count(), 2000);
    assert!(drawn.lines().all(|line| console::measure_text_width(line) < 200), "rails are bounded");
    assert_eq!(svg(&wide, &States::new()).matches("<g ").count(), 2002);
}

#[test]
fn an_empty_pipeline_is_drawn() {
    let empty = definition("empty", vec![], vec![]);
    assert_eq!(text(&empty, &States::new(), Style::default()), "empty\n\n");
    assert!(svg(&empty, &States::new()).ends_with("</svg>\n"));
    assert!(!svg(&empty, &States::new()).contains("NaN"));
}

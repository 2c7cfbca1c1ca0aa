//! Drawings of one pipeline that has everything.

use super::*;
use crate::engine::{Body, StepDef};
use crate::report::Style;
use crate::report::sample::{definition, orders, step};

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
fn every_drawing_shows_the_names_of_steps() {
    let named = |id: &str, name: &str| StepDef { name: Some(name.to_owned()), ..step(id, "command", &[]) };
    let inner = definition("inner", vec![named("deep", "Deep <inside>")], vec![]);
    let module = StepDef { body: Body::Pipeline(Box::new(inner)), ..named("tidy", "Tidy up") };
    let pipeline = definition("named", vec![named("copy", "Copy the\nuploads")], vec![module]);
    let drawn = [mermaid, dot, svg].map(|draw| draw(&pipeline, &States::new()));
    for drawn in &drawn {
        assert!(drawn.contains("Copy the uploads"), "{drawn}");
    }
    let [mermaid, dot, svg] = drawn;
    assert!(mermaid.contains("<b>tidy/deep</b><br/>Deep #lt;inside#gt;<br/>command"), "{mermaid}");
    assert!(dot.contains("tidy/deep\\nDeep <inside>\\ncommand") && svg.contains("Deep &lt;inside&gt; · command"), "{dot}{svg}");
    // What `finally` runs stands inside it.
    let place = |what: &str| mermaid.find(what).unwrap_or_else(|| panic!("`{what}` is missing: {mermaid}"));
    assert!(place("subgraph finally") < place("tidy · Tidy up") && place("Tidy up") < place("tidy/deep"), "{mermaid}");
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
fn ten_thousand_steps_are_drawn() {
    let chain: Vec<_> = (0..5000)
        .map(|link: usize| {
            let before = link.checked_sub(1).map(|before| format!("c{before}"));
            step(&format!("c{link}"), "command", &before.iter().map(String::as_str).collect::<Vec<_>>())
        })
        .chain((0..5000).map(|leaf| step(&format!("l{leaf}"), "command", &[&format!("c{leaf}")])))
        .collect();
    let long = definition("long", chain, vec![]);
    for drawn in [text(&long, &States::new(), Style::default()), mermaid(&long, &States::new()), svg(&long, &States::new())] {
        assert_eq!(drawn.matches("command").count(), if drawn.starts_with("<svg") { 20_000 } else { 10_000 });
    }
}

#[test]
fn an_empty_pipeline_is_drawn() {
    let empty = definition("empty", vec![], vec![]);
    assert_eq!(text(&empty, &States::new(), Style::default()), "empty\n\n");
    assert!(svg(&empty, &States::new()).ends_with("</svg>\n"));
    assert!(!svg(&empty, &States::new()).contains("NaN"));
}

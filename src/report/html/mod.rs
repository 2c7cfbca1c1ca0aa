//! `ferry report --html`: a run as one page that needs nothing else: no script, no font, no file of others.
//!
//! In: the history of a run. Out: a page. Everything that comes from a pipeline or from the world is text in it
//! (`escape`), secrets are `***`. Never here: a link that leads out, a value that a browser would load.

mod speed;
mod steps;

use std::fmt::Write as _;
use std::time::Duration;

use super::escape::escaped;
use super::graph;
use super::history::{Attempt, Axis, History, clock, moment};
use super::style::state_word;
use super::summary::{Row, failure_lines, failure_of, rows, status_word};
use super::telling::{counted, summary};
use crate::engine::{Node, Outcome, RunStatus, State};
use crate::units::Span;

const STYLE: &str = include_str!("page.css");

/// A run as a page.
pub fn html(history: &History) -> String {
    let mut out = String::with_capacity(64 * 1024);
    let title = format!("{} · {}", history.pipeline(), history.run());
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<meta name=\"referrer\" content=\"no-referrer\">\n<title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n",
        escaped(&title)
    );
    head(history, &mut out);
    alerts(history, &mut out);
    if let Some(definition) = history.engine.definition() {
        let drawn = graph::svg(definition, &graph::states_of(&history.engine));
        let _ = write!(out, "<h2>Steps as a graph</h2>\n<div class=\"picture\">{drawn}</div>\n");
    }
    timeline(history, &mut out);
    speed::pictures(&history.speeds, &mut out);
    steps::table(history, &mut out);
    checks(history, &mut out);
    clients(history, &mut out);
    people(history, &mut out);
    inputs(history, &mut out);
    let _ = write!(
        out,
        "<footer>ferry {} · times are UTC · as of {}</footer>\n</main>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION"),
        history.last.map(moment).unwrap_or_default()
    );
    out
}

fn status_class(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Succeeded => "succeeded",
        RunStatus::Failed | RunStatus::RollbackFailed => "failed",
        RunStatus::Running | RunStatus::RollingBack => "running",
        RunStatus::RolledBack => "undone",
        RunStatus::Waiting | RunStatus::Paused | RunStatus::Cancelled => "waits",
    }
}

fn state_class(state: State) -> &'static str {
    match state {
        State::Succeeded => "succeeded",
        State::Failed | State::UndoFailed => "failed",
        State::Undone => "undone",
        State::Paused | State::Stopped | State::Awaiting | State::Backoff | State::UndoBackoff => "waits",
        State::Blocked | State::Skipped | State::Queued | State::UndoBlocked | State::UndoQueued => "none",
        _ => "running",
    }
}

fn head(history: &History, out: &mut String) {
    let status = history.engine.status();
    let died = if history.is_interrupted() { ", its runner died" } else { "" };
    let _ = write!(
        out,
        "<div class=\"head\"><div><h1>{}</h1><div class=\"soft\">run <code>{}</code>, started by {}</div></div><span class=\"pill {}\">{}{died}</span></div>\n<dl class=\"facts\">",
        escaped(history.pipeline()),
        escaped(history.run()),
        escaped(&history.by),
        status_class(status),
        status_word(status),
    );
    let leaves: Vec<&Node> = history.engine.steps().filter(|node| !node.is_group()).collect();
    let done = leaves.iter().filter(|node| node.state == State::Succeeded).count();
    let skipped = leaves.iter().filter(|node| node.state == State::Skipped).count();
    let skipped = if skipped > 0 { format!(", {skipped} skipped") } else { String::new() };
    let retries: u32 = leaves.iter().map(|node| node.attempts.saturating_sub(1)).sum();
    let warnings: u32 = leaves.iter().map(|node| node.warnings).sum();
    let mut facts = vec![
        ("started", history.created().map(moment).unwrap_or_default()),
        ("at work", Span(history.worked()).to_string()),
        ("steps done", format!("{done} of {}{skipped}", leaves.len())),
        ("attempts again", retries.to_string()),
        ("sessions", history.sessions.len().to_string()),
        ("pivot", if history.engine.is_past_pivot() { "passed".to_owned() } else { "not passed".to_owned() }),
    ];
    if let Some(ended) = history.ended() {
        facts.insert(1, ("ended", moment(ended)));
    }
    if warnings > 0 {
        facts.push(("warnings", warnings.to_string()));
    }
    for (name, fact) in facts {
        let _ = write!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", escaped(&fact));
    }
    out.push_str("</dl>\n");
}

/// What went wrong, before everything else.
fn alerts(history: &History, out: &mut String) {
    for node in history.engine.steps().filter(|node| !node.is_group()) {
        let Some(failure) = failure_of(history, node) else { continue };
        let is_over = node.state.is_over();
        let _ = write!(
            out,
            "<div class=\"alert{}\"><p><strong><code>{}</code> {}</strong>: {}</p>",
            if is_over { "" } else { " warn" },
            escaped(node.path.as_str()),
            if node.state == State::Undone { "failed, and was undone" } else { state_word(node.state) },
            escaped(&failure.message)
        );
        for (name, line) in failure_lines(failure) {
            let _ = write!(out, "<p><span class=\"soft\">{name}:</span> {}</p>", escaped(&line));
        }
        out.push_str("</div>\n");
    }
    let left: Vec<String> =
        history.engine.left_behind().map(|node| format!("<code>{}</code>", escaped(node.path.as_str()))).collect();
    if matches!(history.engine.status(), RunStatus::RollbackFailed | RunStatus::RolledBack) && !left.is_empty() {
        let _ = writeln!(out, "<div class=\"alert\"><p><strong>Left behind</strong>: {}</p></div>", left.join(", "));
    }
}

/// The attempts over the working time of the run.
fn timeline(history: &History, out: &mut String) {
    let axis = Axis::of(history);
    let Some((created, last)) = history.created().zip(history.last) else { return };
    let rows: Vec<Row<'_>> = rows(history)
        .into_iter()
        .filter(|row| history.step(&row.node.path).is_some_and(|step| !step.attempts.is_empty() || step.approval.is_some()))
        .collect();
    if rows.is_empty() {
        return;
    }
    let _ = write!(
        out,
        "<h2>Timeline</h2>\n<div class=\"lanes\"><div class=\"lane\"><span></span><div class=\"scale\"><span>{}</span><span>{} at work</span><span>{}</span></div></div>\n",
        clock(created),
        Span(axis.total()),
        clock(last)
    );
    let seams: String = axis.seams().iter().fold(String::new(), |mut seams, seam| {
        let _ = write!(seams, "<u style=\"left:{:.2}%\" title=\"taken up again\"></u>", seam * 100.0);
        seams
    });
    for row in rows {
        let Some(step) = history.step(&row.node.path) else { continue };
        let name = escaped(row.node.path.as_str());
        let _ =
            write!(out, "<div class=\"lane\"><span class=\"mono\" title=\"{name}\">{name}</span><div class=\"track\">{seams}");
        if let Some(wait) = step.approval {
            bar(&axis, wait.from, wait.to.unwrap_or(last), "ask", "waited for a person", out);
        }
        for attempt in &step.attempts {
            let to = attempt.to.unwrap_or(last);
            bar(
                &axis,
                attempt.from,
                to,
                bar_class(attempt),
                &attempt_title(attempt, super::history::between(attempt.from, to)),
                out,
            );
        }
        out.push_str("</div></div>\n");
    }
    out.push_str("<div class=\"key\"><span><i class=\"ok\"></i>done</span><span><i class=\"bad\"></i>failed</span><span><i class=\"cut\"></i>interrupted or stopped</span><span><i class=\"undo\"></i>undo</span><span><i class=\"ask\"></i>waits for a person</span><span>┊ taken up again; the time between is left out</span></div></div>\n");
}

fn bar(axis: &Axis, from: jiff::Timestamp, to: jiff::Timestamp, class: &str, title: &str, out: &mut String) {
    let (left, right) = (axis.place(from) * 100.0, axis.place(to) * 100.0);
    let _ = write!(
        out,
        "<i class=\"{class}\" style=\"left:{:.2}%;width:{:.2}%\" title=\"{}\"></i>",
        left.min(99.7),
        (right - left).max(0.0),
        escaped(title)
    );
}

fn bar_class(attempt: &Attempt) -> &'static str {
    match (&attempt.outcome, attempt.is_undo) {
        (Some(Outcome::Failed { .. }), _) => "bad",
        (Some(Outcome::Interrupted | Outcome::Stopped), _) => "cut",
        (_, true) => "undo",
        (Some(Outcome::Succeeded { .. }), false) => "ok",
        (None, false) => "busy",
    }
}

fn attempt_title(attempt: &Attempt, took: Duration) -> String {
    let what = if attempt.is_undo { "undo" } else { "attempt" };
    format!("{what} {}: {}, {}", attempt.number, outcome_word(attempt), Span(took))
}

fn outcome_word(attempt: &Attempt) -> &'static str {
    match &attempt.outcome {
        None => "at work",
        Some(Outcome::Succeeded { .. }) => "succeeded",
        Some(Outcome::Failed { .. }) => "failed",
        Some(Outcome::Stopped) => "stopped",
        Some(Outcome::Interrupted) => "interrupted",
    }
}

/// The steps that only compare what is with what should be.
fn checks(history: &History, out: &mut String) {
    let is_check =
        |uses: &str| uses == "assert" || uses.starts_with("validate.") || uses.ends_with(".compare") || uses.ends_with(".verify");
    let checks: Vec<&Node> = history.engine.steps().filter(|node| !node.is_group() && is_check(&node.def.uses)).collect();
    if checks.is_empty() {
        return;
    }
    let _ = write!(
        out,
        "<h2>Checks</h2>\n<p class=\"soft\">What is, compared with what should be: {}.</p>\n<table><tr><th>step</th><th>type</th><th>state</th><th>found</th></tr>\n",
        counted(checks.len(), "step", "steps")
    );
    for node in checks {
        let found = match failure_of(history, node) {
            Some(failure) => failure.message.clone(),
            None => node.output.as_ref().map(summary).unwrap_or_default(),
        };
        let _ = writeln!(
            out,
            "<tr><td><code>{}</code></td><td class=\"soft\">{}</td><td><span class=\"pill {}\">{}</span></td><td>{}</td></tr>",
            escaped(node.path.as_str()),
            escaped(&node.def.uses),
            state_class(node.state),
            state_word(node.state),
            escaped(&found)
        );
    }
    out.push_str("</table>\n");
}

/// What clients saw while the run was at work.
fn clients(history: &History, out: &mut String) {
    let told = crate::report::probes::told(history);
    if told.is_empty() {
        return;
    }
    out.push_str("<h2>What clients saw</h2>\n<table><tr><th>step</th><th>seen</th></tr>\n");
    for probe in told {
        for line in probe.lines {
            let _ = writeln!(out, "<tr><td><code>{}</code></td><td>{}</td></tr>", escaped(probe.step), escaped(&line));
        }
    }
    out.push_str("</table>\n");
}

/// Who did what.
fn people(history: &History, out: &mut String) {
    out.push_str("<h2>People</h2>\n<table><tr><th>when</th><th>who</th><th>what</th></tr>\n");
    let started = history.created().map(|at| (at, history.by.as_str(), "started the run"));
    let said = history.said.iter().map(|said| (said.at, said.by.as_str(), said.what.as_str()));
    for (at, by, what) in started.into_iter().chain(said) {
        let _ =
            writeln!(out, "<tr><td class=\"soft\">{}</td><td>{}</td><td>{}</td></tr>", moment(at), escaped(by), escaped(what));
    }
    out.push_str("</table>\n");
}

fn inputs(history: &History, out: &mut String) {
    let inputs = history.inputs();
    if inputs.is_empty() {
        return;
    }
    out.push_str("<h2>Inputs</h2>\n<table><tr><th>name</th><th>value</th></tr>\n");
    for (name, value) in &inputs {
        let _ = writeln!(
            out,
            "<tr><td><code>{}</code></td><td><code>{}</code></td></tr>",
            escaped(name),
            escaped(&value.to_string())
        );
    }
    out.push_str("</table>\n");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_page_needs_nothing_else() {
        let page = html(&History::of(&sample::succeeded().records, false));
        for loads in ["<script", "src=", "href=", "url(http", "@import", "<link", "<iframe", "<img", "onload", "onclick"] {
            assert!(!page.contains(loads), "{loads}");
        }
        assert!(page.contains("default-src 'none'"));
    }

    #[test]
    fn everything_from_outside_is_text() {
        let page = html(&History::of(&sample::until_approval().records, true));
        assert!(!page.contains("<aws>") && page.contains("orders &lt;aws&gt; &amp; azure"));
        assert!(!page.contains("<1>"));
        assert!(!page.contains(crate::secret::MARK_START) && page.contains("***"));
    }

    #[test]
    fn the_page_tells_every_step_and_attempt() {
        let page = html(&History::of(&sample::succeeded().records, false));
        for told in
            ["replica/base", "attempt 2: interrupted", "eve@desk", "approved `go`: fine", "Checks", "2 sessions", "longest_gap"]
        {
            let told = told.replace("2 sessions", "<dt>sessions</dt><dd>2</dd>");
            assert!(page.contains(&told), "{told}");
        }
        assert_eq!(page.matches("<details").count(), page.matches("</details>").count());
        assert_eq!(page.matches("<div").count(), page.matches("</div>").count());
        assert_eq!(page.matches("<table").count(), page.matches("</table>").count());
    }

    #[test]
    fn a_failure_stands_before_everything_else() {
        let page = html(&History::of(&sample::failed().records, false));
        let (alert, graph) = (page.find("refused the connection"), page.find("Steps as a graph"));
        assert!(alert < graph && alert.is_some());
        assert!(page.contains("start `db-2`"));
    }
}

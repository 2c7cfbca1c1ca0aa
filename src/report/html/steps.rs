//! The table of steps: a line each, and behind it the attempts, the failure, the configuration and the outputs.

use std::fmt::Write as _;

use serde_json::Value;

use super::{outcome_word, state_class};
use crate::engine::Outcome;
use crate::report::escape::escaped;
use crate::report::history::{History, between, clock};
use crate::report::style::{state_sign, state_word};
use crate::report::summary::{Row, failure_lines, failure_of, rows, what};
use crate::units::Span;

/// Values longer than this are cut: a page is for reading.
const LONGEST: usize = 20_000;

pub(super) fn table(history: &History, out: &mut String) {
    out.push_str("<h2>Steps</h2>\n<div class=\"steps\">\n");
    for row in rows(history) {
        line(history, &row, out);
    }
    out.push_str("</div>\n");
}

fn line(history: &History, row: &Row<'_>, out: &mut String) {
    let node = row.node;
    let took = history.took(&node.path).map_or(String::new(), |took| Span(took).to_string());
    let _ = write!(
        out,
        "<details><summary><span class=\"mono\" style=\"padding-left:{}px\">{}</span><span class=\"soft opt mono\">{}</span><span><span class=\"pill {}\">{} {}</span></span><span class=\"opt num\">{took}</span><span class=\"opt\">{}</span></summary><div class=\"inner\">",
        row.depth * 16,
        escaped(node.path.as_str()),
        escaped(&node.def.uses),
        state_class(node.state),
        state_sign(node.state).0,
        state_word(node.state),
        escaped(&what(history, row)),
    );
    attempts(history, row, out);
    if let Some(failure) = failure_of(history, node) {
        let _ = write!(out, "<div class=\"alert\"><p>{}</p>", escaped(&failure.message));
        for (name, line) in failure_lines(failure) {
            let _ = write!(out, "<p><span class=\"soft\">{name}:</span> {}</p>", escaped(&line));
        }
        out.push_str("</div>");
    }
    if let Some(question) = &node.question {
        let _ = write!(
            out,
            "<h3>Question</h3><p>{}</p><p class=\"soft\">the answer is bound to <code>{}</code></p>",
            escaped(&question.message),
            escaped(&question.digest)
        );
    }
    if let Some(inspection) = node.inspections.last() {
        value("Configuration", &inspection.config, out);
        let _ = write!(out, "<p class=\"soft\">digest <code>{}</code></p>", escaped(&inspection.digest));
    }
    if let Some(output) = node.output.as_ref().filter(|output| !output.is_null()) {
        value("Outputs", output, out);
    }
    out.push_str("</div></details>\n");
}

fn attempts(history: &History, row: &Row<'_>, out: &mut String) {
    let Some(step) = history.step(&row.node.path).filter(|step| !step.attempts.is_empty()) else { return };
    out.push_str("<h3>Attempts</h3><table><tr><th>attempt</th><th>from</th><th>to</th><th>took</th><th>ended</th><th>checkpoints</th></tr>");
    for attempt in &step.attempts {
        let why = match &attempt.outcome {
            Some(Outcome::Failed { failure }) => format!(": {}", failure.message),
            _ => String::new(),
        };
        let _ = write!(
            out,
            "<tr><td>{}{}</td><td class=\"soft\">{}</td><td class=\"soft\">{}</td><td>{}</td><td>{}{}</td><td>{}</td></tr>",
            if attempt.is_undo { "undo " } else { "" },
            attempt.number,
            clock(attempt.from),
            attempt.to.map(clock).unwrap_or_default(),
            attempt.to.map(|to| Span(between(attempt.from, to)).to_string()).unwrap_or_default(),
            outcome_word(attempt),
            escaped(&why),
            attempt.checkpoints
        );
    }
    out.push_str("</table>");
}

fn value(title: &str, value: &Value, out: &mut String) {
    let mut text = serde_json::to_string_pretty(value).unwrap_or_default();
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.push_str("\n…");
    }
    let _ = write!(out, "<h3>{title}</h3><pre>{}</pre>", escaped(&text));
}

//! What the probes of a run saw, in words: gaps and errors for each kind of client, and what the ledger proves.

use std::fmt::Write as _;

use serde_json::Value;

use super::history::History;
use super::telling::{counted_u64, grouped};
use crate::units::Span;

/// What a probe tells, line by line.
pub struct Told<'a> {
    /// The step.
    pub step: &'a str,
    /// What each kind of client saw, and what the ledger proves.
    pub lines: Vec<String>,
}

/// The probes that have ended well, in the pipeline's order.
pub fn told(history: &History) -> Vec<Told<'_>> {
    let probes = history.engine.steps().filter(|node| !node.is_group() && node.def.uses.starts_with("probe."));
    probes
        .filter_map(|node| {
            let lines = lines(node.output.as_ref()?);
            (!lines.is_empty()).then(|| Told { step: node.path.as_str(), lines })
        })
        .collect()
}

fn lines(output: &Value) -> Vec<String> {
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64).unwrap_or(0);
    let span = |value: &Value, name: &str| {
        let span = value.get(name).and_then(|span| serde_json::from_value::<Span>(span.clone()).ok());
        span.map_or_else(|| "?".to_owned(), |span| span.to_string())
    };
    let mut lines = Vec::new();
    for (kind, words) in [("kept", "kept connection"), ("fresh", "new connections")] {
        let Some(seen) = output.get(kind) else { continue };
        let took = seen.get("took").unwrap_or(&Value::Null);
        lines.push(format!(
            "{words}: longest gap {}, {}, {} good answers in {} (99 of 100 within {})",
            span(seen, "longest_gap"),
            counted_u64(number(seen, "errors"), "error", "errors"),
            grouped(number(seen, "good")),
            span(took, "p50"),
            span(took, "p99"),
        ));
    }
    if let Some(ledger) = output.get("ledger") {
        let (acknowledged, once) = (number(ledger, "acknowledged"), number(ledger, "exactly_once"));
        let mut line = format!(
            "ledger: {} of {} there exactly once",
            grouped(once),
            format_args!("{} acknowledged {}", grouped(acknowledged), if acknowledged == 1 { "write" } else { "writes" }),
        );
        let unknown = number(ledger, "unknown");
        if unknown > 0 {
            let arrived = number(ledger, "unknown_arrived");
            let _ = write!(line, "; {unknown} without an answer, {arrived} of them there");
        }
        lines.push(line);
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_probe_is_told_in_a_line_for_each_kind_of_client_and_one_for_the_ledger() {
        let took = json!({ "p50": "900us", "p90": "1ms", "p99": "2ms", "p999": "9ms", "max": "174ms" });
        let seen = json!({
            "longest_gap": "174ms", "errors": 0, "good": 12_345,
            "kept": { "longest_gap": "174ms", "errors": 0, "good": 12_000, "took": took },
            "fresh": { "longest_gap": "231ms", "errors": 1, "good": 345, "took": took },
            "ledger": { "acknowledged": 12_345, "exactly_once": 12_345, "sent": 12_347, "unknown": 2, "unknown_arrived": 1 },
        });
        assert_eq!(
            lines(&seen),
            [
                "kept connection: longest gap 174ms, 0 errors, 12,000 good answers in 900us (99 of 100 within 2ms)",
                "new connections: longest gap 231ms, 1 error, 345 good answers in 900us (99 of 100 within 2ms)",
                "ledger: 12,345 of 12,345 acknowledged writes there exactly once; 2 without an answer, 1 of them there",
            ]
        );
        assert!(lines(&json!({ "longest_gap": "412ms" })).is_empty());
    }
}

//! `ferry diff`: what differs between two runs: inputs, texts, steps, durations, outputs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::Style;
use super::history::{History, moment};
use super::style::{Tone, padded, state_tone, state_word};
use super::summary::status_word;
use super::telling::{one_line, shortened};
use crate::engine::{Node, State};
use crate::secret::{map_strings, unmarked};
use crate::units::Span;

/// Durations that differ by less than this are not told.
const LEAST: Duration = Duration::from_secs(1);

/// One value that is not the same in both.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// Where: `bucket`, `steps[2].with.from`.
    pub place: String,
    /// In the first run; nothing when it is not there.
    pub first: Option<Value>,
    /// In the second run.
    pub second: Option<Value>,
}

/// What differs between two runs.
#[derive(Debug)]
pub struct Diff {
    heads: [Head; 2],
    inputs: Vec<Difference>,
    /// Files whose text differs, with the lines that are only in one.
    texts: Vec<(String, Vec<(char, String)>)>,
    steps: Vec<StepDiff>,
    same: usize,
}

#[derive(Debug)]
struct Head {
    run: String,
    pipeline: String,
    status: &'static str,
    started: String,
    worked: Duration,
}

/// What differs in one step.
#[derive(Debug)]
struct StepDiff {
    step: String,
    states: [Option<State>; 2],
    attempts: [u32; 2],
    took: [Option<Duration>; 2],
    config: Vec<Difference>,
    output: Vec<Difference>,
    /// The resolved definition is not the same although the configuration reads the same.
    is_digest_only: bool,
}

/// Compares two runs.
pub fn diff(first: &History, second: &History) -> Diff {
    let index = |history: &History| -> BTreeMap<String, usize> {
        history.engine.steps().enumerate().map(|(place, node)| (node.path.to_string(), place)).collect()
    };
    let nodes = [first, second].map(|history| history.engine.steps().collect::<Vec<_>>());
    let (in_first, in_second) = (index(first), index(second));
    let mut order: Vec<&String> =
        nodes[0].iter().filter_map(|node| in_first.get_key_value(node.path.as_str()).map(|(path, _)| path)).collect();
    order.extend(
        nodes[1]
            .iter()
            .filter_map(|node| in_second.get_key_value(node.path.as_str()).map(|(path, _)| path))
            .filter(|path| !in_first.contains_key(*path)),
    );

    let mut steps = Vec::new();
    let mut same = 0;
    for path in order {
        let pair = [in_first.get(path).map(|&at| nodes[0][at]), in_second.get(path).map(|&at| nodes[1][at])];
        match step_diff(path, pair, [first, second]) {
            Some(step) => steps.push(step),
            None => same += 1,
        }
    }
    let mut inputs = Vec::new();
    differences("", &Value::Object(first.inputs()), &Value::Object(second.inputs()), &mut inputs);
    Diff { heads: [head(first), head(second)], inputs, texts: texts(first, second), steps, same }
}

fn head(history: &History) -> Head {
    Head {
        run: history.run().to_owned(),
        pipeline: history.pipeline().to_owned(),
        status: status_word(history.engine.status()),
        started: history.created().map(moment).unwrap_or_default(),
        worked: history.worked(),
    }
}

fn step_diff(path: &str, nodes: [Option<&Node>; 2], histories: [&History; 2]) -> Option<StepDiff> {
    let states = nodes.map(|node| node.map(|node| node.state));
    let attempts = nodes.map(|node| node.map_or(0, |node| node.attempts));
    let took = [0, 1].map(|at| nodes[at].and_then(|node| histories[at].took(&node.path)));
    let (mut config, mut output) = (Vec::new(), Vec::new());
    let mut is_digest_only = false;
    if let [Some(a), Some(b)] = nodes {
        if let (Some(a), Some(b)) = (a.inspections.last(), b.inspections.last()) {
            differences("", &a.config, &b.config, &mut config);
            is_digest_only = config.is_empty() && a.digest != b.digest;
        }
        differences("", a.output.as_ref().unwrap_or(&Value::Null), b.output.as_ref().unwrap_or(&Value::Null), &mut output);
    }
    let is_slower = match took {
        [Some(a), Some(b)] => a.abs_diff(b) >= LEAST && a.abs_diff(b) * 5 >= a.min(b),
        [None, None] => false,
        _ => true,
    };
    let differs = states[0] != states[1]
        || attempts[0] != attempts[1]
        || is_slower
        || !config.is_empty()
        || !output.is_empty()
        || is_digest_only;
    differs.then(|| StepDiff { step: path.to_owned(), states, attempts, took, config, output, is_digest_only })
}

/// Every place at which two values differ.
fn differences(place: &str, first: &Value, second: &Value, found: &mut Vec<Difference>) {
    let below = |part: &str| if place.is_empty() { part.to_owned() } else { format!("{place}.{part}") };
    match (first, second) {
        (Value::Object(a), Value::Object(b)) => {
            for (name, value) in a {
                match b.get(name) {
                    Some(other) => differences(&below(name), value, other, found),
                    None => found.push(Difference { place: below(name), first: Some(value.clone()), second: None }),
                }
            }
            for (name, value) in b.iter().filter(|(name, _)| !a.contains_key(*name)) {
                found.push(Difference { place: below(name), first: None, second: Some(value.clone()) });
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (at, (value, other)) in a.iter().zip(b).enumerate() {
                differences(&format!("{place}[{at}]"), value, other, found);
            }
        }
        _ if first != second => {
            found.push(Difference { place: place.to_owned(), first: Some(first.clone()), second: Some(second.clone()) });
        }
        _ => {}
    }
}

/// The lines that only one of the two texts has, in order, for each file.
fn texts(first: &History, second: &History) -> Vec<(String, Vec<(char, String)>)> {
    let sources = |history: &History| -> BTreeMap<String, String> {
        let found = history.engine.document().get("sources").cloned().unwrap_or_default();
        // Sources may be a map of texts, or hold one.
        let map = match &found {
            Value::Object(fields) if fields.values().all(Value::is_string) => Some(fields.clone()),
            Value::Object(fields) => fields.values().find_map(Value::as_object).cloned(),
            _ => None,
        };
        map.into_iter().flatten().filter_map(|(path, text)| Some((path, text.as_str()?.to_owned()))).collect()
    };
    let (a, b) = (sources(first), sources(second));
    let mut paths: Vec<&String> = a.keys().chain(b.keys()).collect();
    paths.sort();
    paths.dedup();
    paths
        .into_iter()
        .filter(|path| a.get(*path) != b.get(*path))
        .map(|path| {
            let text = |of: &BTreeMap<String, String>| of.get(path).cloned().unwrap_or_default();
            (path.clone(), lines(&text(&a), &text(&b)))
        })
        .collect()
}

/// The difference of two texts by lines: what is the same at both ends is left out, the middle by longest common
/// subsequence while that is affordable.
fn lines(first: &str, second: &str) -> Vec<(char, String)> {
    let (a, b): (Vec<&str>, Vec<&str>) = (first.lines().collect(), second.lines().collect());
    let head = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let tail = a[head..].iter().rev().zip(b[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[head..a.len() - tail], &b[head..b.len() - tail]);
    let mut out = Vec::new();
    if a.len() * b.len() > 4_000_000 {
        out.extend(a.iter().map(|line| ('-', (*line).to_owned())));
        out.extend(b.iter().map(|line| ('+', (*line).to_owned())));
        return out;
    }
    let mut longest = vec![vec![0_u32; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            longest[i][j] = if a[i] == b[j] { longest[i + 1][j + 1] + 1 } else { longest[i + 1][j].max(longest[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == b.len() || (i < a.len() && longest[i + 1][j] >= longest[i][j + 1]) {
            out.push(('-', a[i].to_owned()));
            i += 1;
        } else {
            out.push(('+', b[j].to_owned()));
            j += 1;
        }
    }
    out
}

impl Diff {
    /// Whether nothing but ids, times and persons differs.
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.texts.is_empty() && self.steps.is_empty() && self.heads[0].status == self.heads[1].status
    }

    /// For a person.
    pub fn text(&self, style: Style) -> String {
        let mut out = String::new();
        for (sign, head) in ["-", "+"].into_iter().zip(&self.heads) {
            let _ = writeln!(
                out,
                "{} {}  {}  {}  {}  {}",
                style.paint(tone_of(sign), sign),
                style.paint(Tone::Strong, &head.run),
                style.paint(Tone::Plain, &head.pipeline),
                head.status,
                head.started,
                Span(head.worked)
            );
        }
        if self.is_empty() {
            out.push_str("\nno difference\n");
            return out;
        }
        if !self.inputs.is_empty() {
            let _ = writeln!(out, "\n{}", style.paint(Tone::Strong, "inputs"));
            told(&self.inputs, "  ", style, &mut out);
        }
        for (path, lines) in &self.texts {
            let _ = writeln!(out, "\n{}", style.paint(Tone::Strong, path));
            for (sign, line) in lines {
                let _ = writeln!(
                    out,
                    "  {}",
                    style.paint(if *sign == '-' { Tone::Bad } else { Tone::Good }, &format!("{sign} {line}"))
                );
            }
        }
        if !self.steps.is_empty() {
            let _ = writeln!(out, "\n{}", style.paint(Tone::Strong, "steps"));
        }
        let names = self.steps.iter().map(|step| console::measure_text_width(&step.step)).max().unwrap_or(0).min(44);
        for step in &self.steps {
            let words = step.states.map(|state| state.map_or("not there", state_word));
            let tones = step.states.map(|state| state.map_or(Tone::Faint, state_tone));
            let mut facts = vec![if words[0] == words[1] {
                style.paint(tones[0], words[0])
            } else {
                format!("{} → {}", style.paint(tones[0], words[0]), style.paint(tones[1], words[1]))
            }];
            if step.attempts[0] != step.attempts[1] {
                facts.push(format!("attempts {} → {}", step.attempts[0], step.attempts[1]));
            }
            if let [Some(a), Some(b)] = step.took
                && Span(a).to_string() != Span(b).to_string()
            {
                facts.push(format!("{} → {}", Span(a), Span(b)));
            }
            if step.is_digest_only {
                facts.push("its resolved definition changed".to_owned());
            }
            let _ =
                writeln!(out, "  {}  {}", padded(&shortened(&one_line(&unmarked(&step.step)), names), names), facts.join(", "));
            for (name, differences) in [("configuration", &step.config), ("outputs", &step.output)] {
                if !differences.is_empty() {
                    let _ = writeln!(out, "    {}", style.paint(Tone::Faint, name));
                    told(differences, "      ", style, &mut out);
                }
            }
        }
        if self.same > 0 {
            let _ = writeln!(out, "\n{}", style.paint(Tone::Faint, &format!("{} steps are the same in both", self.same)));
        }
        out
    }

    /// For a program.
    pub fn to_json(&self) -> Value {
        let list = |differences: &[Difference]| -> Vec<Value> {
            differences
                .iter()
                .map(|difference| json!({ "place": difference.place, "first": difference.first, "second": difference.second }))
                .collect()
        };
        let millis = |took: Option<Duration>| took.map(|took| u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        let document = json!({
            "runs": self.heads.iter().map(|head| json!({
                "run": head.run, "pipeline": head.pipeline, "status": head.status, "worked_ms": millis(Some(head.worked)),
            })).collect::<Vec<_>>(),
            "inputs": list(&self.inputs),
            "texts": self.texts.iter().map(|(path, lines)| json!({
                "path": path,
                "lines": lines.iter().map(|(sign, line)| format!("{sign}{line}")).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "steps": self.steps.iter().map(|step| json!({
                "step": step.step,
                "states": step.states,
                "attempts": step.attempts,
                "worked_ms": step.took.map(millis),
                "with": list(&step.config),
                "outputs": list(&step.output),
            })).collect::<Vec<_>>(),
            "same_steps": self.same,
        });
        map_strings(&document, &|text| unmarked(text).into_owned())
    }
}

fn tone_of(sign: &str) -> Tone {
    if sign == "-" { Tone::Bad } else { Tone::Good }
}

fn told(differences: &[Difference], indent: &str, style: Style, out: &mut String) {
    for difference in differences {
        let value = |value: &Option<Value>| match value {
            None => "not there".to_owned(),
            Some(value) => shortened(&one_line(&map_strings(value, &|text| unmarked(text).into_owned()).to_string()), 60),
        };
        let _ = writeln!(
            out,
            "{indent}{}: {} → {}",
            style.paint(Tone::Plain, if difference.place.is_empty() { "all" } else { &difference.place }),
            style.paint(Tone::Bad, &value(&difference.first)),
            style.paint(Tone::Good, &value(&difference.second))
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Event;
    use crate::report::sample;

    #[test]
    fn two_runs_are_told_apart() {
        let first = History::of(&sample::until_approval().records, false);
        let mut pen = sample::succeeded();
        if let Event::RunCreated { run, document, .. } = &mut pen.records[0].event {
            "01994000".clone_into(run);
            document["inputs"]["bucket"] = json!("invoices");
            document["sources"]["orders.yaml"] = json!("name: orders\non_failure: rollback\n");
        }
        let second = History::of(&pen.records, false);
        insta::assert_snapshot!(diff(&first, &second).text(Style::default()));
        let document = diff(&first, &second).to_json();
        assert_eq!(document["inputs"][0]["second"], "invoices");
        assert_eq!(document["texts"][0]["lines"][0], "+on_failure: rollback");
    }

    #[test]
    fn a_run_does_not_differ_from_itself() {
        let history = History::of(&sample::succeeded().records, false);
        let itself = diff(&history, &history);
        assert!(itself.is_empty());
        assert!(itself.text(Style::default()).ends_with("no difference\n"));
    }

    #[test]
    fn lines_are_compared_as_texts() {
        let found = lines("a\nb\nc\nd", "a\nx\nc\ny\nd");
        assert_eq!(found, [('-', "b".to_owned()), ('+', "x".to_owned()), ('+', "y".to_owned())]);
    }
}

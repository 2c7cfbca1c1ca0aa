//! The words for what happens in a run: one line for each event that a person wants to hear of.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use crate::engine::{Engine, Event, Outcome, Resolution, State, StepPath};
use crate::error::{ErrorClass, Failure};
use crate::journal::Record;
use crate::secret::unmarked;
use crate::steps::Progress;
use crate::units::{ByteSize, Span};

/// What kind of news a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Something begins: told line by line, not on a live screen, which shows it anyway.
    Begins,
    /// A step did what was expected.
    Done,
    /// A step was put back.
    Undone,
    /// A step does not run.
    Skipped,
    /// A person is asked.
    Asks,
    /// Something stopped that can go on.
    Stopped,
    /// Something to know.
    Note,
    /// The world said no.
    Failed,
}

impl Mark {
    /// The sign in front of the line.
    pub fn sign(self) -> &'static str {
        match self {
            Self::Begins => "·",
            Self::Done => "✓",
            Self::Undone => "↩",
            Self::Skipped => "–",
            Self::Asks => "?",
            Self::Stopped => "■",
            Self::Note => "!",
            Self::Failed => "✗",
        }
    }

    /// The sign in its colour.
    pub fn styled(self) -> console::StyledObject<&'static str> {
        let sign = console::style(self.sign()).for_stderr();
        match self {
            Self::Done | Self::Undone => sign.green(),
            Self::Failed => sign.red(),
            Self::Asks | Self::Note | Self::Stopped => sign.yellow(),
            Self::Begins | Self::Skipped => sign.dim(),
        }
    }
}

/// One piece of news.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its kind.
    pub mark: Mark,
    /// The step it is about; `None` for the run.
    pub step: Option<StepPath>,
    /// How long it took.
    pub took: Option<Duration>,
    /// What happened.
    pub text: String,
    /// Lines that belong to it: causes, help.
    pub more: Vec<String>,
}

impl Told {
    fn of(mark: Mark, step: &StepPath, text: impl Into<String>) -> Self {
        Self { mark, step: Some(step.clone()), took: None, text: text.into(), more: Vec::new() }
    }

    fn run(mark: Mark, text: impl Into<String>) -> Self {
        Self { mark, step: None, took: None, text: text.into(), more: Vec::new() }
    }

    fn took(mut self, took: Option<Duration>) -> Self {
        self.took = took;
        self
    }

    fn more(mut self, more: Vec<String>) -> Self {
        self.more = more;
        self
    }
}

/// Follows a run event by event. It remembers when attempts began, nothing else.
#[derive(Debug, Default)]
pub struct Story {
    began: HashMap<StepPath, Timestamp>,
}

impl Story {
    /// What is to be told of a record. The engine has taken it in already.
    pub fn tell(&mut self, record: &Record, engine: &Engine) -> Option<Told> {
        let at = record.at;
        Some(match &record.event {
            Event::RunCreated { run, definition, by, .. } => {
                Told::run(Mark::Begins, format!("run {run} of `{}` started by {by}", definition.name))
            }
            Event::Resumed { by, .. } => Told::run(Mark::Note, format!("resumed by {by}")),
            Event::PipelineChanged { by, changed, .. } => {
                Told::run(Mark::Note, format!("pipeline changed by {by}: {}", counted(changed.len(), "step", "steps")))
            }
            Event::CancelRequested { by } => {
                Told::run(Mark::Stopped, format!("cancel asked for by {by}: what runs is told to stop"))
            }
            Event::RollbackRequested { by, past_pivot } => {
                let pivot = if *past_pivot { ", past the pivot" } else { "" };
                Told::run(Mark::Note, format!("rollback asked for by {by}{pivot}"))
            }
            Event::Resolved { step, resolution, .. } => match resolution {
                Resolution::Skip => Told::of(Mark::Skipped, step, "skipped: its condition said no"),
                Resolution::Instances { items } => {
                    Told::of(Mark::Begins, step, format!("for each of {}", counted(items.len(), "item", "items")))
                }
                Resolution::Failed { failure } => failed(step, "could not be resolved", failure),
                Resolution::Run { .. } | Resolution::Inputs { .. } => return None,
            },
            Event::LockBusy { step, holder } => {
                let lock = engine.step(step).and_then(|node| node.lock.as_deref()).unwrap_or("?");
                Told::of(Mark::Note, step, format!("waits for the lock `{lock}`, held by {holder}"))
            }
            Event::LockTimedOut { step, .. } => {
                let node = engine.step(step)?;
                let failure = if node.state.is_undo() { &node.undo_failure } else { &node.failure };
                failed(step, "gave up", failure.as_ref()?)
            }
            Event::InspectFailed { step, failure } => failed(step, &again("could not be inspected", step, engine), failure),
            Event::AttemptStarted { step, attempt } => {
                self.began.insert(step.clone(), at);
                let text = if *attempt > 1 { format!("started, attempt {attempt}") } else { "started".to_owned() };
                Told::of(Mark::Begins, step, text)
            }
            Event::Ready { step, .. } => Told::of(Mark::Begins, step, "ready: serves the steps behind it"),
            Event::PivotPassed { step, .. } if engine.has_dropped() => {
                Told::of(Mark::Note, step, "was told to stop before its pivot: it does not pass it")
            }
            Event::PivotPassed { step, .. } if engine.step(step).is_some_and(|node| node.def.pivot) => {
                Told::of(Mark::Note, step, "passes the pivot: from here on the run goes forward only")
            }
            Event::AttemptEnded { step, outcome, .. } => self.ended(step, outcome, at, engine),
            Event::ApprovalAsked { step, message, .. } => {
                self.began.insert(step.clone(), at);
                Told::of(Mark::Asks, step, format!("waits for approval: {}", one_line(&unmarked(message))))
                    .more(vec![format!("answer with `ferry approve {} {step}`, or with --deny", engine.run())])
            }
            Event::ApprovalGiven { step, approved, by, .. } if engine.has_dropped() => {
                let word = if *approved { "yes" } else { "no" };
                Told::of(Mark::Note, step, format!("the {word} of {by} does not count: {}", not_taken(step, by, engine)))
            }
            Event::ApprovalGiven { step, approved, by, comment, .. } => {
                let comment = comment.as_deref().map(|comment| format!(": {}", one_line(comment))).unwrap_or_default();
                let (mark, word) = if *approved { (Mark::Done, "approved") } else { (Mark::Failed, "denied") };
                Told::of(mark, step, format!("{word} by {by}{comment}")).took(self.since(step, at))
            }
            Event::UndoStarted { step, .. } => {
                self.began.insert(step.clone(), at);
                Told::of(Mark::Begins, step, "undo started")
            }
            Event::Measured { step, at_once, .. } if !engine.has_dropped() => {
                let now = engine.step(step)?.instance_limit();
                let which = if now > *at_once { "one more" } else { "no more" };
                Told::of(Mark::Note, step, format!("{which} at once: {now}"))
            }
            Event::UndoEnded { step, outcome, .. } => self.undone(step, outcome, at, engine),
            Event::LockAcquired { .. }
            | Event::Inspected { .. }
            | Event::Checkpoint { .. }
            | Event::Measured { .. }
            | Event::PivotPassed { .. }
            | Event::TimerFired { .. }
            | Event::Settled { .. } => return None,
        })
    }

    fn since(&self, step: &StepPath, at: Timestamp) -> Option<Duration> {
        let began = self.began.get(step)?;
        Duration::try_from(at.duration_since(*began)).ok()
    }

    fn ended(&self, step: &StepPath, outcome: &Outcome, at: Timestamp, engine: &Engine) -> Told {
        let took = self.since(step, at);
        match outcome {
            Outcome::Succeeded { output, warnings } => Told::of(Mark::Done, step, summary_with(output, *warnings)).took(took),
            Outcome::Failed { failure } => failed(step, &again("failed", step, engine), failure).took(took),
            Outcome::Stopped => Told::of(Mark::Stopped, step, "stopped; a resumed run goes on with it").took(took),
            Outcome::Interrupted => Told::of(Mark::Stopped, step, "was interrupted: its runner died"),
        }
    }

    fn undone(&self, step: &StepPath, outcome: &Outcome, at: Timestamp, engine: &Engine) -> Told {
        let took = self.since(step, at);
        match outcome {
            Outcome::Succeeded { .. } => Told::of(Mark::Undone, step, "undone").took(took),
            Outcome::Failed { failure } => failed(step, &again("could not be undone", step, engine), failure).took(took),
            Outcome::Stopped => Told::of(Mark::Stopped, step, "undo stopped").took(took),
            Outcome::Interrupted => Told::of(Mark::Stopped, step, "undo was interrupted: its runner died"),
        }
    }
}

/// Why an answer to an approval was dropped.
fn not_taken(step: &StepPath, by: &str, engine: &Engine) -> &'static str {
    match engine.step(step).and_then(|node| node.question.as_ref().filter(|_| node.state == State::Awaiting)) {
        None => "nobody is asked here now",
        Some(question) if !question.may_answer(by) => "the question is not for them",
        Some(_) => "it answers another question than the one asked now",
    }
}

/// `failed, is tried again`, when the engine says so.
fn again(word: &str, step: &StepPath, engine: &Engine) -> String {
    match engine.step(step).map(|node| node.state) {
        Some(State::Backoff | State::UndoBackoff) => format!("{word}, is tried again"),
        Some(State::Paused) => format!("{word}, waits for a person"),
        _ => word.to_owned(),
    }
}

fn failed(step: &StepPath, word: &str, failure: &Failure) -> Told {
    let is_final = !word.contains("again");
    let mut told =
        Told::of(if is_final { Mark::Failed } else { Mark::Note }, step, format!("{word}: {}", printable(&failure.message)));
    if is_final {
        told.more = causes_and_help(failure);
    }
    told
}

/// The lines under a failure: why, whether trying again can help, what to do.
pub fn causes_and_help(failure: &Failure) -> Vec<String> {
    let mut lines: Vec<String> = failure
        .causes
        .iter()
        .filter(|cause| !failure.message.contains(cause.as_str()))
        .map(|cause| format!("because: {}", one_line(cause)))
        .collect();
    lines.push(format!("again: {}", again_text(failure.class)));
    lines.extend(failure.help.as_ref().map(|help| format!("help: {}", printable(help))));
    lines
}

/// Whether trying again can help.
pub fn again_text(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Transient => "trying again may help",
        ErrorClass::Permanent => "trying again fails the same way until something is changed",
        ErrorClass::NeedsPerson => "only a person can say what to do",
    }
}

/// How far a step is: `41%, 1.2 GiB of 2.9 GiB, 312 of 780 objects`.
pub fn progress_text(progress: &Progress) -> String {
    let mut parts = Vec::new();
    if let Some(share) = share(progress) {
        parts.push(format!("{:.0}%", (share * 100.0).floor()));
    }
    match (progress.bytes, progress.bytes_total) {
        (Some(done), Some(total)) => parts.push(format!("{} of {}", ByteSize(done), ByteSize(total))),
        (Some(done), None) => parts.push(ByteSize(done).to_string()),
        _ => {}
    }
    match (progress.objects, progress.objects_total) {
        (Some(done), Some(total)) => parts.push(format!("{done} of {}", counted_u64(total, "object", "objects"))),
        (Some(done), None) => parts.push(counted_u64(done, "object", "objects")),
        _ => {}
    }
    parts.extend(beside(progress));
    parts.extend(progress.message.as_deref().map(one_line));
    parts.join(", ")
}

/// What else is known of the work: errors, and how much is under way at once.
pub fn beside(progress: &Progress) -> impl Iterator<Item = String> {
    let errors = progress.errors.filter(|errors| *errors > 0).map(|errors| counted_u64(errors, "error", "errors"));
    errors.into_iter().chain(progress.at_once.map(|limit| format!("{limit} at once")))
}

/// The part that is done, between 0 and 1: of the bytes when their total is known, else of the objects.
pub fn share(progress: &Progress) -> Option<f64> {
    let of = |done: Option<u64>, total: Option<u64>| match (done, total) {
        (Some(done), Some(total)) if total > 0 => Some((done as f64 / total as f64).clamp(0.0, 1.0)),
        _ => None,
    };
    of(progress.bytes, progress.bytes_total).or_else(|| of(progress.objects, progress.objects_total))
}

/// The outputs of a step in a few words: its first scalars, bytes as sizes.
pub fn summary(output: &Value) -> String {
    const MOST: usize = 4;
    match output {
        Value::Object(fields) => {
            // What every command and assertion leaves says nothing new beside the sign.
            let is_usual = |name: &str, value: &Value| match name {
                "ran" | "held" => value.as_bool() == Some(true),
                "code" => value.as_i64() == Some(0),
                // For programs: nobody reads one.
                _ if name.ends_with("sha256") => true,
                _ => false,
            };
            let told: Vec<String> = fields
                .iter()
                .filter(|(name, value)| !is_usual(name, value))
                .filter_map(|(name, value)| Some((format!("{}{}", label(name), scalar(name, value)?), value)))
                // A first zero is news, the zeros behind it are not.
                .enumerate()
                .filter(|(index, (_, value))| *index == 0 || value.as_u64() != Some(0))
                .map(|(_, (text, _))| text)
                .take(MOST)
                .collect();
            told.join(", ")
        }
        Value::Array(items) => counted(items.len(), "item", "items"),
        other => scalar("", other).unwrap_or_default(),
    }
}

/// The same with the number of warnings, said once: some outputs count their own.
pub fn summary_with(output: &Value, warnings: u32) -> String {
    let mut output = output.clone();
    let own = output.as_object_mut().and_then(|fields| {
        let count = fields.get("warnings").and_then(Value::as_u64)?;
        fields.remove("warnings").map(|_| count)
    });
    let warnings = own.unwrap_or(0).max(warnings.into());
    let mut told = vec![summary(&output)];
    if warnings > 0 {
        told.push(counted_u64(warnings, "warning", "warnings"));
    }
    told.retain(|text| !text.is_empty());
    told.join(", ")
}

/// Some values say themselves what they are.
fn label(name: &str) -> String {
    if matches!(name, "text" | "path" | "by") { String::new() } else { format!("{} ", name.replace('_', " ")) }
}

fn scalar(name: &str, value: &Value) -> Option<String> {
    match value {
        Value::Number(number) if name.split('_').any(|word| word == "bytes" || word == "size") => {
            number.as_u64().map(|bytes| ByteSize(bytes).to_string())
        }
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(yes) => Some(if *yes { "yes" } else { "no" }.to_owned()),
        Value::String(text) if !text.trim().is_empty() => Some(shortened(&one_line(&unmarked(text.trim())), 48)),
        Value::Array(items) if !items.is_empty() => Some(items.len().to_string()),
        _ => None,
    }
}

/// `1 step`, `2 steps`.
pub fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// The same of a larger number.
pub fn counted_u64(count: u64, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A number with its thousands apart: `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Text of others on one line, without what would move the cursor.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.trim().chars() {
        match c {
            '\n' | '\t' => line.push(' '),
            c if c.is_control() => {}
            c => line.push(c),
        }
    }
    line
}

/// Text of others as it is, line by line, without what would move the cursor or reach the terminal as an order.
pub fn printable(text: &str) -> String {
    text.chars().filter(|&c| c == '\n' || c == '\t' || !c.is_control()).collect()
}

/// At most this many columns, with `…` where something is missing.
pub fn shortened(text: &str, columns: usize) -> String {
    console::truncate_str(text, columns, "…").into_owned()
}

/// `in 3.2s`.
pub fn took_text(took: Duration) -> String {
    Span(took).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn warnings_are_told_once() {
        let output = json!({ "copied": 3, "left_out": 5, "warnings": 5 });
        assert_eq!(summary_with(&output, 5), "copied 3, left out 5, 5 warnings");
        assert_eq!(summary_with(&json!({ "copied": 3, "warnings": 0 }), 0), "copied 3");
        assert_eq!(summary_with(&json!(null), 1), "1 warning");
    }

    #[test]
    fn outputs_are_told_in_a_few_words() {
        for (output, told) in [
            (json!({ "objects": 780, "bytes_copied": 3_145_728, "failed": [], "note": "" }), "objects 780, bytes copied 3.0 MiB"),
            (json!({ "stdout": "one\ntwo\u{1b}[31m" }), "stdout one two[31m"),
            (json!([1, 2]), "2 items"),
            (json!(null), ""),
            (json!("text"), "text"),
        ] {
            assert_eq!(summary(&output), told);
        }
    }

    #[test]
    fn progress_is_told_by_bytes_before_objects() {
        let progress = Progress {
            bytes: Some(1 << 20),
            bytes_total: Some(4 << 20),
            objects: Some(1),
            objects_total: Some(2),
            ..Progress::default()
        };
        assert_eq!(progress_text(&progress), "25%, 1.0 MiB of 4.0 MiB, 1 of 2 objects");
        assert_eq!(progress_text(&Progress { objects: Some(1), ..Progress::default() }), "1 object");
        assert_eq!(share(&Progress { bytes: Some(0), bytes_total: Some(0), ..Progress::default() }), None);
    }
}

//! `ferry why`: why a step ran, ran again, was skipped, or waits, from the records.

use std::fmt::Write as _;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::Style;
use super::history::{History, between, moment};
use super::style::{Tone, padded, state_sign, state_tone};
use super::summary::{failure_lines, failure_of};
use super::telling::{counted, one_line};
use super::waits::{Waiting, operands_text, reason, skipped, waiting};
use crate::engine::{Event, Interrupted, Node, Outcome, Resolution, RunStatus, State, StepPath};
use crate::error::{ErrorClass, Failure};
use crate::journal::Record;
use crate::secret::{map_strings, unmarked};
use crate::units::Span;

/// The answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Why {
    /// The step.
    pub step: StepPath,
    /// Where it is.
    pub state: State,
    /// In one sentence.
    pub answer: String,
    /// What it waits for.
    pub waits: Option<Waiting>,
    /// What led there, in order.
    pub because: Vec<Because>,
    /// What can be done.
    pub next: Vec<String>,
}

/// A cause, and when it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Because {
    /// When.
    pub at: Option<Timestamp>,
    /// What.
    pub what: String,
}

/// Why the step of this name is where it is; the error lists names that are near.
pub fn why(history: &History, records: &[Record], path: &StepPath) -> Result<Why, String> {
    let Some(node) = history.engine.step(path) else {
        let mut near: Vec<_> = history
            .engine
            .steps()
            .map(|node| (strsim::damerau_levenshtein(node.path.as_str(), path.as_str()), &node.path))
            .collect();
        near.sort();
        let near: Vec<String> = near.iter().filter(|(far, _)| *far <= 4).take(3).map(|(_, near)| format!("`{near}`")).collect();
        return Err(if near.is_empty() {
            format!("run {} has no step `{path}`", history.run())
        } else {
            format!("run {} has no step `{path}`; did you mean {}?", history.run(), near.join(" or "))
        });
    };
    let waits = waiting(history, node);
    let because = causes(history, records, node);
    Ok(Why { step: path.clone(), state: node.state, answer: answer(history, node), waits, because, next: next(history, node) })
}

fn answer(history: &History, node: &Node) -> String {
    let path = &node.path;
    let over = history.ended().is_some();
    match node.state {
        State::Blocked if over || history.is_interrupted() => {
            let status = super::summary::status_word(history.engine.status());
            let waits = reason(history, node);
            let waits = if waits.is_empty() { String::new() } else { format!(": it {waits}") };
            if history.is_interrupted() {
                format!("`{path}` has not started when the run's runner died{waits}")
            } else {
                format!("`{path}` has not started, and the run's status is `{status}`{waits}")
            }
        }
        State::Skipped => format!("`{path}` was skipped: {}", skipped(history, node)),
        State::Succeeded if node.attempts > 1 => format!("`{path}` succeeded at attempt {}", node.attempts),
        State::Failed | State::Paused | State::UndoFailed | State::Backoff | State::UndoBackoff => {
            let message = failure_of(history, node).map(|failure| format!(": {}", failure.message)).unwrap_or_default();
            format!("`{path}` {}{message}", sentence(node.state))
        }
        state => {
            let reason = reason(history, node);
            let reason = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            format!("`{path}` {}{reason}", sentence(state))
        }
    }
}

fn sentence(state: State) -> &'static str {
    match state {
        State::Blocked => "has not started",
        State::Resolving => "has its templates rendered",
        State::Locking | State::UndoLocking => "waits for its lock",
        State::Queued | State::UndoQueued => "waits for a place among the steps at work",
        State::Inspecting => "looks at the world before its first attempt",
        State::Asking => "is about to ask a person",
        State::Awaiting => "waits for a person's answer",
        State::Starting => "is about to start",
        State::Running => "is at work",
        State::Backoff => "failed and waits to try again",
        State::Paused => "needs a person",
        State::Open => "is at work: the steps inside it are at it",
        State::Succeeded => "succeeded",
        State::Failed => "failed",
        State::Skipped => "was skipped",
        State::Stopped => "was told to stop, and did",
        State::UndoBlocked => "waits for what depends on it to be undone",
        State::UndoStarting | State::Undoing | State::UndoOpen => "is being undone",
        State::UndoBackoff => "could not be undone and waits to try again",
        State::Undone => "was undone",
        State::UndoFailed => "could not be undone",
    }
}

fn causes(history: &History, records: &[Record], node: &Node) -> Vec<Because> {
    let mut because = Vec::new();
    let path = &node.path;
    if !node.def.needs.is_empty() && node.was_started() {
        because.push(Because { at: None, what: needs_text(history, node) });
    }
    // A later attempt answers the question why it ran again: what came before it says so.
    let mut before: Option<&Outcome> = None;
    let mut resumed: Option<(&str, Timestamp)> = None;
    for record in records {
        let at = Some(record.at);
        let mut add = |what: String| because.push(Because { at, what: unmarked(&what).into_owned() });
        match &record.event {
            Event::Resumed { by, .. } => resumed = Some((by, record.at)),
            Event::PipelineChanged { by, accept, changed, .. } => {
                if let Some(accept) = accept.get(path) {
                    let word =
                        serde_json::to_value(accept).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default();
                    add(format!("{by} changed the pipeline and accepted `{word}` for this step"));
                } else if changed.contains(path) {
                    add(format!("{by} changed the pipeline: this step has a new text"));
                }
            }
            Event::RollbackRequested { by, .. } if node.was_started() => add(format!("{by} asked for the rollback")),
            event if event.step() != Some(path) => {}
            Event::Resolved { resolution: Resolution::Run { lock: None }, operands: Value::Null, .. } => {}
            Event::Resolved { resolution, operands, .. } => add(resolved_text(resolution, operands)),
            Event::LockBusy { holder, .. } => add(format!("its lock was held by {holder}")),
            Event::LockTimedOut { lock, .. } => add(format!("it had waited for the lock `{lock}` as long as it may")),
            Event::LockAcquired { .. } => add("it took its lock".to_owned()),
            Event::InspectFailed { failure, .. } => add(format!("it could not be looked at: {}", failure.message)),
            Event::AttemptStarted { attempt, .. } => {
                add(attempt_text(node, *attempt, before, resumed));
                (before, resumed) = (None, None);
            }
            Event::PivotPassed { .. } if history.dropped.contains(&record.seq) => {
                add("it was told to stop before it had passed its pivot".to_owned());
            }
            Event::PivotPassed { .. } => add("it passed its pivot: from here on it goes forward only".to_owned()),
            Event::AttemptEnded { outcome, attempt, .. } => {
                add(format!("attempt {attempt} {}", outcome_text(outcome)));
                before = Some(outcome);
            }
            Event::ApprovalAsked { message, .. } => add(format!("it asked: {}", one_line(message))),
            Event::ApprovalGiven { approved, by, comment, .. } => {
                let comment = comment.as_deref().map(|comment| format!(": {}", one_line(comment))).unwrap_or_default();
                let dropped = if history.dropped.contains(&record.seq) { ", which did not count" } else { "" };
                add(format!("{by} {} it{comment}{dropped}", if *approved { "approved" } else { "denied" }));
            }
            Event::UndoStarted { attempt, .. } => {
                add(format!("undo {attempt} started: a rollback undoes every step that was started"));
            }
            Event::UndoEnded { outcome, attempt, .. } => add(format!("undo {attempt} {}", outcome_text(outcome))),
            _ => {}
        }
    }
    because
}

fn needs_text(history: &History, node: &Node) -> String {
    let parent = match &node.each {
        Some(_) => node.path.parent().and_then(|group| group.parent()),
        None => node.path.parent(),
    };
    let told: Vec<String> = node
        .def
        .needs
        .iter()
        .map(|need| {
            let need = parent.as_ref().map_or_else(|| StepPath::root(need), |parent| parent.child(need));
            match history.engine.step(&need).map(|need| (need.state, need.def.continue_on_error)) {
                Some((State::Skipped, _)) => format!("`{need}` (skipped)"),
                Some((State::Failed, true)) => format!("`{need}` (which may fail)"),
                _ => format!("`{need}`"),
            }
        })
        .collect();
    format!("it ran after {}", told.join(", "))
}

fn resolved_text(resolution: &Resolution, operands: &Value) -> String {
    let with = if operands.is_null() { String::new() } else { format!(": {}", operands_text(operands)) };
    match resolution {
        Resolution::Skip => format!("its condition said no{with}"),
        Resolution::Run { lock: Some(lock) } => format!("it may run under the lock `{lock}`{with}"),
        Resolution::Run { lock: None } => format!("its condition said yes{with}"),
        Resolution::Instances { items } => format!("it runs for each of {}{with}", counted(items.len(), "item", "items")),
        Resolution::Inputs { .. } => format!("the inputs of its pipeline were rendered{with}"),
        Resolution::Failed { failure } => format!("its templates could not be rendered: {}{with}", failure.message),
    }
}

fn attempt_text(node: &Node, attempt: u32, before: Option<&Outcome>, resumed: Option<(&str, Timestamp)>) -> String {
    let most = node.def.retry.attempts;
    let by = resumed.map(|(by, _)| format!("{by} resumed the run, and "));
    let why = match (before, by) {
        (None, None) if attempt == 1 => return "attempt 1 started".to_owned(),
        (Some(Outcome::Failed { failure }), None) => match failure.class {
            ErrorClass::Transient => format!("the failure may pass by itself, and {most} attempts are allowed"),
            ErrorClass::Permanent | ErrorClass::NeedsPerson => "it was told to".to_owned(),
        },
        (Some(Outcome::Failed { .. }), Some(by)) => format!("{by}a failed step is tried again"),
        (Some(Outcome::Interrupted), by) => {
            let means = match node.def.interrupted {
                Interrupted::RunAgain => "an interrupted attempt of this type runs again",
                Interrupted::LookFirst => "after an interruption this type looks first what happened",
                Interrupted::AskPerson => "a person said that it may run again",
            };
            format!("{}{means}", by.unwrap_or_default())
        }
        (Some(Outcome::Stopped), by) => format!("{}it goes on where it stopped", by.unwrap_or_default()),
        (Some(Outcome::Succeeded { .. }), _) => "what it had done no longer counted".to_owned(),
        (None, Some(by)) => format!("{by}it had not started"),
        (None, None) => "nobody knows".to_owned(),
    };
    format!("attempt {attempt} started: {why}")
}

fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Succeeded { .. } => "succeeded".to_owned(),
        Outcome::Failed { failure: Failure { message, class, .. } } => {
            let class = match class {
                ErrorClass::Transient => "transient",
                ErrorClass::Permanent => "permanent",
                ErrorClass::NeedsPerson => "needs a person",
            };
            format!("failed ({class}): {message}")
        }
        Outcome::Stopped => "was told to stop, and did".to_owned(),
        Outcome::Interrupted => "was interrupted: its runner died, and it may or may not have acted".to_owned(),
    }
}

fn next(history: &History, node: &Node) -> Vec<String> {
    let run = history.run();
    let mut next: Vec<String> = failure_of(history, node)
        .map(failure_lines)
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name == "help")
        .map(|(_, line)| line)
        .collect();
    match node.state {
        State::Awaiting => next.push(format!("`ferry approve {run} {}` says yes, with `--deny` no", node.path)),
        State::Failed | State::Paused | State::Stopped => next.push(format!("`ferry resume {run}` tries it again")),
        State::UndoFailed => next.push(format!("`ferry rollback {run}` tries it again")),
        state if history.is_interrupted() && !state.is_over() => next.push(format!("`ferry resume {run}` goes on")),
        State::Blocked if history.engine.status() == RunStatus::Failed => next.push(format!("`ferry resume {run}` goes on")),
        _ => {}
    }
    next
}

impl Why {
    /// For a person. `now` is what the age of a wait is counted from.
    pub fn text(&self, now: Timestamp, style: Style) -> String {
        let (unicode, ascii) = state_sign(self.state);
        let mut out = format!(
            "{} {}\n",
            style.paint(state_tone(self.state), style.sign(unicode, ascii)),
            style.paint(Tone::Strong, &unmarked(&self.answer))
        );
        if let Some(waits) = &self.waits {
            let on = if waits.on.is_empty() { waits.kind.to_owned() } else { format!("{}: {}", waits.kind, waits.on.join(", ")) };
            let mut facts = vec![("waits for", on)];
            facts.extend(waits.since.map(|since| ("since", format!("{} ({})", moment(since), Span(between(since, now))))));
            facts.extend(waits.until.map(|until| {
                let left = if until > now { format!("in {}", Span(between(now, until))) } else { "now due".to_owned() };
                ("until", format!("{} ({left})", moment(until)))
            }));
            for (name, fact) in facts {
                let _ = writeln!(
                    out,
                    "  {}  {}",
                    style.paint(Tone::Faint, &padded(name, 9)),
                    style.paint(Tone::Plain, &unmarked(&fact))
                );
            }
        }
        if !self.because.is_empty() {
            out.push('\n');
        }
        for because in &self.because {
            let at = because.at.map_or(String::new(), moment);
            let _ =
                writeln!(out, "  {}  {}", style.paint(Tone::Faint, &padded(&at, 20)), style.paint(Tone::Plain, &because.what));
        }
        for (index, next) in self.next.iter().enumerate() {
            let _ = writeln!(out, "{}  {}", if index == 0 { "\n  help:" } else { "       " }, style.paint(Tone::Plain, next));
        }
        out
    }

    /// For a program.
    pub fn to_json(&self) -> Value {
        let document = json!({
            "step": self.step,
            "state": self.state,
            "answer": self.answer,
            "waits": self.waits.as_ref().map(|waits| json!({
                "kind": waits.kind, "on": waits.on, "since": waits.since, "until": waits.until,
            })),
            "because": self.because.iter().map(|because| json!({ "at": because.at, "what": because.what })).collect::<Vec<_>>(),
            "help": self.next,
        });
        map_strings(&document, &|text| unmarked(text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn told(records: &[Record], path: &str) -> String {
        let history = History::of(records, true);
        let now = "2026-11-21T08:10:00Z".parse().expect("a time");
        why(&history, records, &path.into()).expect(path).text(now, Style::default())
    }

    #[test]
    fn it_says_why_a_step_ran_again() {
        insta::assert_snapshot!(told(&sample::until_approval().records, StepPath::root("uploads").instance("us/<1>").as_str()));
    }

    #[test]
    fn it_says_why_a_step_was_skipped_with_the_operands() {
        insta::assert_snapshot!(told(&sample::until_approval().records, "notes"));
    }

    #[test]
    fn it_says_what_a_step_waits_for_since_when_and_until_when() {
        insta::assert_snapshot!(told(&sample::until_approval().records, "go"));
    }

    #[test]
    fn it_says_what_a_step_that_has_not_started_waits_for() {
        insta::assert_snapshot!(told(&sample::until_approval().records, "same"));
        insta::assert_snapshot!(told(&sample::failed().records, "c"));
    }

    #[test]
    fn an_unknown_step_gets_the_nearest_names() {
        let records = sample::failed().records;
        let error = why(&History::of(&records, false), &records, &"bb".into()).expect_err("unknown");
        assert!(error.contains("did you mean `b`"), "{error}");
    }
}

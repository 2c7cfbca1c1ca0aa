//! How a run's end is told: what failed, whether trying again helps, what to do next; and the exit status it means.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::Exit;
use crate::engine::{Engine, Node, RunStatus, State};
use crate::report::telling::{causes_and_help, counted, one_line, printable};
use crate::secret::unmarked;
use crate::units::Span;

/// Steps whose failure is told in full. The rest are counted: the first failures are what a person acts on.
const MOST: usize = 5;

/// What the person asked for: the same end of a run is a success of one command and a failure of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// `run`, `resume`, `sync`: that it succeeds.
    Forward,
    /// `rollback`: that it is undone.
    Rollback,
    /// `cancel`: that it stops.
    Cancel,
}

/// The exit status that a run's end means.
pub fn exit_of(engine: &Engine, asked: Asked) -> Exit {
    match (engine.status(), asked) {
        (RunStatus::Succeeded, Asked::Forward | Asked::Cancel)
        | (RunStatus::RolledBack, Asked::Rollback)
        | (RunStatus::Cancelled, Asked::Cancel) => Exit::Succeeded,
        (RunStatus::RolledBack, Asked::Forward | Asked::Cancel) => Exit::RolledBack,
        (RunStatus::RollbackFailed, _) => Exit::RollbackFailed,
        // `--until` ends a run in the middle on purpose; a step that needs a person does not.
        (RunStatus::Paused, Asked::Forward) if paused(engine).next().is_none() => Exit::Succeeded,
        (RunStatus::Paused | RunStatus::Waiting, _) => Exit::WaitingForPerson,
        // A run that came to its end before it was told to go back was not undone.
        (RunStatus::Failed, _) | (RunStatus::Succeeded, Asked::Rollback) => Exit::Failed,
        (RunStatus::Cancelled | RunStatus::Running | RunStatus::RollingBack, _) => Exit::Interrupted,
    }
}

fn paused(engine: &Engine) -> impl Iterator<Item = &Node> {
    engine.steps().filter(|node| node.state == State::Paused)
}

fn failed(engine: &Engine) -> impl Iterator<Item = &Node> {
    engine.steps().filter(|node| !node.is_group() && matches!(node.state, State::Failed | State::UndoFailed | State::Paused))
}

/// The end as data: the last line of a `--json` stream.
pub fn document(engine: &Engine, exit: Exit, outputs: &Value) -> Value {
    let failures: Vec<Value> = failed(engine)
        .map(|node| {
            let failure = if node.state == State::UndoFailed { &node.undo_failure } else { &node.failure };
            json!({ "step": node.path, "state": node.state, "attempts": node.attempts, "failure": failure })
        })
        .collect();
    let waiting: Vec<Value> = engine
        .steps()
        .filter(|node| node.state == State::Awaiting)
        .map(|node| json!({ "step": node.path, "message": node.question.as_ref().map(|question| unmarked(&question.message)) }))
        .collect();
    let (done, total) = counts(engine);
    json!({
        "type": "result",
        "run": engine.run(),
        "status": engine.status(),
        "exit": exit.code(),
        "steps": { "done": done, "total": total },
        "failures": failures,
        "waiting": waiting,
        "left_behind": left_behind(engine).map(|node| &node.path).collect::<Vec<_>>(),
        "outputs": outputs,
    })
}

/// What a rollback could not put back. Before one, nothing is left behind: it is only not undone.
fn left_behind(engine: &Engine) -> impl Iterator<Item = &Node> {
    let was_rolled_back = matches!(engine.status(), RunStatus::RolledBack | RunStatus::RollbackFailed);
    engine.left_behind().filter(move |_| was_rolled_back)
}

fn counts(engine: &Engine) -> (usize, usize) {
    let mut done = 0;
    let mut total = 0;
    for node in engine.steps().filter(|node| !node.is_group()) {
        total += 1;
        done += usize::from(matches!(node.state, State::Succeeded | State::Skipped));
    }
    (done, total)
}

/// The end for people. `table` is what the command has to tell beside it.
pub fn text(engine: &Engine, took: Option<Duration>, outputs: &Value, table: &str) -> String {
    let status = engine.status();
    let run = engine.run();
    let (done, total) = counts(engine);
    let took = took.map(|took| format!(" after {}", Span(took))).unwrap_or_default();
    let (sign, word) = match status {
        RunStatus::Succeeded => (console::style("✓").green(), "succeeded"),
        RunStatus::Failed => (console::style("✗").red(), "failed"),
        RunStatus::RolledBack => (console::style("↩").green(), "was rolled back"),
        RunStatus::RollbackFailed => (console::style("✗").red(), "could not be rolled back"),
        RunStatus::Waiting => (console::style("?").yellow(), "waits for a person"),
        RunStatus::Paused if paused(engine).next().is_none() => (console::style("■").yellow(), "stopped where it was told to"),
        RunStatus::Paused => (console::style("?").yellow(), "is paused: a step needs a person"),
        RunStatus::Cancelled => (console::style("■").yellow(), "was cancelled"),
        RunStatus::Running | RunStatus::RollingBack => (console::style("■").yellow(), "was interrupted"),
    };
    let steps = match status {
        RunStatus::RolledBack | RunStatus::RollbackFailed => {
            // A step that had nothing to undo, or that the pipeline says to leave, was never at it.
            let undone = engine.steps().filter(|node| node.state == State::Undone && node.undo_attempts > 0).count();
            format!("{} undone", counted(undone, "step", "steps"))
        }
        _ => format!("{done} of {} done", counted(total, "step", "steps")),
    };
    let mut text = format!("{sign} run {run} {word}{took}: {steps}\n");
    for (name, value) in outputs.as_object().into_iter().flatten() {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _ = writeln!(text, "  {name}: {}", one_line(&value));
    }
    text.push_str(table);
    let failures: Vec<&Node> = failed(engine).collect();
    for node in failures.iter().take(MOST) {
        text.push('\n');
        text.push_str(&failure(node));
    }
    if failures.len() > MOST {
        let _ = writeln!(text, "\n  and {} more: `ferry show {run}`", failures.len() - MOST);
    }
    for node in engine.steps().filter(|node| node.state == State::Awaiting) {
        let message = node.question.as_ref().map(|question| one_line(&unmarked(&question.message))).unwrap_or_default();
        let _ = writeln!(text, "\n? step `{}` waits for approval: {message}", node.path);
    }
    let stuck = engine.stuck();
    if !stuck.is_empty() {
        text.push_str("\nnothing could go on:\n");
        for path in stuck.iter().take(MOST) {
            let needs: Vec<String> = engine.waits_for(path).iter().map(|need| format!("`{need}`")).collect();
            let _ = writeln!(text, "  `{path}` waits for {}", needs.join(", "));
        }
    }
    let stopped: Vec<String> = engine
        .steps()
        .filter(|node| !node.is_group() && node.state == State::Stopped)
        .map(|node| format!("`{}`", node.path))
        .collect();
    if !stopped.is_empty() {
        let _ = writeln!(text, "\nstopped, to go on when resumed: {}", stopped.join(", "));
    }
    let left: Vec<String> = left_behind(engine).map(|node| format!("`{}`", node.path)).collect();
    if !left.is_empty() {
        let _ = writeln!(text, "\nleft behind by: {}", left.join(", "));
    }
    let next = next_steps(engine);
    if !next.is_empty() {
        text.push('\n');
        let width = next.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0);
        for (index, (command, says)) in next.iter().enumerate() {
            let lead = if index == 0 { "next:" } else { "     " };
            let _ = writeln!(text, "{lead} {command:width$}  {says}");
        }
    }
    text
}

/// A failed step in the style of the house.
fn failure(node: &Node) -> String {
    let is_undo = node.state == State::UndoFailed;
    let failure = if is_undo { &node.undo_failure } else { &node.failure };
    let word = if is_undo { "could not be undone" } else { "failed" };
    let attempts = if is_undo { node.undo_attempts } else { node.attempts };
    let after = if attempts > 1 { format!(" after {attempts} attempts") } else { String::new() };
    let Some(failure) = failure else {
        return format!("{} step `{}` {word}{after}\n", console::style("×").red(), node.path);
    };
    let message = printable(&failure.message);
    let mut text = format!("{} step `{}` {word}{after}: {message}\n", console::style("×").red(), node.path);
    for line in causes_and_help(failure) {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// What a person may do now.
fn next_steps(engine: &Engine) -> Vec<(String, &'static str)> {
    let run = engine.run();
    let resume = |says| (format!("ferry resume {run}"), says);
    let rollback = |says| (format!("ferry rollback {run}"), says);
    let undo = if engine.is_past_pivot() {
        (format!("ferry rollback {run} --past-pivot"), "goes back although the pivot has started")
    } else {
        rollback("undoes what was started")
    };
    match engine.status() {
        RunStatus::Succeeded | RunStatus::RolledBack => Vec::new(),
        RunStatus::Failed => {
            let mut next = vec![resume("tries the failed steps again and goes on"), undo];
            if let Some(node) = failed(engine).next() {
                next.push((format!("ferry why {run} {}", node.path), "says how it came to this"));
            }
            next
        }
        RunStatus::Waiting => {
            let mut next: Vec<_> = engine
                .steps()
                .filter(|node| node.state == State::Awaiting)
                .take(MOST)
                .map(|node| (format!("ferry approve {run} {}", node.path), "says yes; with --deny, no"))
                .collect();
            next.push(resume("goes on once it is answered"));
            next
        }
        RunStatus::Paused | RunStatus::Cancelled | RunStatus::Running => vec![resume("goes on from here"), undo],
        RunStatus::RollingBack | RunStatus::RollbackFailed => vec![rollback("tries again what could not be undone")],
    }
}

//! What a step waits for: a reason, a since, an until, and where a chain of waits ends.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::history::History;
use super::style::state_word;
use super::summary::failure_of;
use super::telling::{one_line, shortened};
use crate::engine::{Body, Command, Node, Resolution, State, StepPath, Timer};
use crate::secret::{map_strings, unmarked};

/// A wait with a reason, a since and an until.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// `dependency`, `lock`, `approval`, `retry`, `place`, `person`.
    pub kind: &'static str,
    /// What or whom it waits for.
    pub on: Vec<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Until when at the latest.
    pub until: Option<Timestamp>,
}

/// Why a step is not at work, in a few words; empty when there is nothing to say.
pub fn reason(history: &History, node: &Node) -> String {
    let waits = |word: &str| match waiting(history, node) {
        Some(waiting) if !waiting.on.is_empty() => format!("{word} {}", waiting.on.join(", ")),
        _ => String::new(),
    };
    match node.state {
        State::Blocked => {
            let ends = ends_of_waiting(history, node);
            let ends = if ends.is_empty() { String::new() } else { format!(", in the end for {}", ends.join(", ")) };
            format!("{}{ends}", waits("waits for"))
        }
        State::Queued | State::UndoQueued => "waits for a place".to_owned(),
        State::Locking | State::UndoLocking => waits("waits for the lock"),
        State::Awaiting => node.question.as_ref().map(|question| one_line(&unmarked(&question.message))).unwrap_or_default(),
        State::Backoff | State::UndoBackoff => {
            failure_of(history, node).map(|failure| failure.message.clone()).unwrap_or_default()
        }
        State::Undone => failure_of(history, node).map_or(String::new(), |failure| format!("had failed: {}", failure.message)),
        State::Skipped => skipped(history, node),
        State::Stopped => "a resumed run goes on with it".to_owned(),
        State::Running if node.is_background() && node.is_ready => "serves the steps behind it".to_owned(),
        _ => String::new(),
    }
}

pub(super) fn skipped(history: &History, node: &Node) -> String {
    match (&node.resolution, history.step(&node.path).and_then(|step| step.resolved.as_ref())) {
        (Some(Resolution::Skip), Some((_, operands))) if !operands.is_null() => {
            format!("its condition said no: {}", operands_text(operands))
        }
        (Some(Resolution::Skip), _) => "its condition said no".to_owned(),
        _ => match node.path.parent().and_then(|parent| history.engine.step(&parent)) {
            Some(parent) if parent.state == State::Skipped => format!("`{}` was skipped", parent.path),
            _ => String::new(),
        },
    }
}

/// What was asked, what it gave, and the values that went in: "`{{ inputs.tell }}` gave false, with inputs.tell = false".
pub(super) fn operands_text(operands: &Value) -> String {
    const LONGEST: usize = 160;
    let shown = |value: &Value| {
        let text = map_strings(value, &|text| unmarked(text).into_owned()).to_string();
        shortened(&one_line(&text), LONGEST)
    };
    let list = |fields: &Map<String, Value>| {
        fields.iter().map(|(name, value)| format!("{} = {}", unmarked(name), shown(value))).collect::<Vec<_>>().join(", ")
    };
    let Value::Object(fields) = operands else { return shown(operands) };
    let told: Vec<String> = fields
        .iter()
        .map(|(key, asked)| {
            let Some(text) = asked.get("text").and_then(Value::as_str) else {
                return format!("{} = {}", unmarked(key), shown(asked));
            };
            let result = asked.get("result").map_or(String::new(), |result| format!(" gave {}", shown(result)));
            let values = asked.get("values").and_then(Value::as_object).filter(|values| !values.is_empty());
            let values = values.map_or(String::new(), |values| format!(", with {}", list(values)));
            format!("`{}`{result}{values}", one_line(&unmarked(text)))
        })
        .collect();
    told.join("; ")
}

/// What a step waits for, if it waits.
pub(super) fn waiting(history: &History, node: &Node) -> Option<Waiting> {
    let engine = &history.engine;
    let step = history.step(&node.path);
    let last = step.and_then(|step| step.last);
    let wait = |kind, on: Vec<String>, since, until| Some(Waiting { kind, on, since, until });
    match node.state {
        State::Blocked | State::UndoBlocked => {
            let on = engine
                .waits_for(&node.path)
                .iter()
                .map(|need| match engine.step(need).map(|need| need.state) {
                    Some(state) => format!("`{need}` ({})", state_word(state)),
                    None => format!("`{need}`"),
                })
                .collect();
            // In a run that is over nothing is on its way: there it is a reason, and no wait.
            let since = history.created().filter(|_| history.ended().is_none() && !history.is_interrupted());
            wait("dependency", on, since, None)
        }
        State::Queued | State::UndoQueued => {
            let working =
                engine.steps().filter(|node| node.state.is_working()).map(|node| format!("`{}`", node.path)).take(8).collect();
            wait("place", working, last, None)
        }
        State::Locking | State::UndoLocking => {
            let holder = node.lock_holder.as_deref().map(|holder| format!(", held by {holder}")).unwrap_or_default();
            let on = vec![format!("`{}`{holder}", node.lock.as_deref().unwrap_or("?"))];
            let since = step.and_then(|step| step.lock).map(|lock| lock.from).or(last);
            // A step of the same run is waited for however long it takes.
            let own = format!("run `{}`", history.run());
            let at_most = node.def.lock_wait.filter(|_| node.lock_holder.as_ref().is_some_and(|holder| !holder.contains(&own)));
            wait("lock", on, since, later(since, at_most))
        }
        State::Awaiting => {
            let approvers = node.question.as_ref().map(|question| question.approvers.clone()).unwrap_or_default();
            let on = if approvers.is_empty() { vec!["anybody's answer".to_owned()] } else { approvers };
            let since = step.and_then(|step| step.approval).map(|approval| approval.from);
            let at_most = match node.def.body {
                Body::Approval { at_most } => at_most,
                _ => None,
            };
            wait("approval", on, since, later(since, at_most))
        }
        State::Backoff | State::UndoBackoff => {
            // The engine knows how long this wait is: it asks for the same timer after every restart.
            let after = engine.open_commands().into_iter().find_map(|command| match command {
                Command::StartTimer { timer: Timer::Retry { step, .. } | Timer::UndoRetry { step, .. }, after }
                    if step == node.path =>
                {
                    Some(after)
                }
                _ => None,
            });
            wait("retry", Vec::new(), last, later(last, after))
        }
        State::Paused => wait("person", Vec::new(), last, None),
        _ => None,
    }
}

/// Where a chain of steps that wait for each other ends: the steps that something is to happen to. Empty when that is
/// what the step itself waits for.
fn ends_of_waiting(history: &History, node: &Node) -> Vec<String> {
    const MOST: usize = 4;
    let engine = &history.engine;
    let mut seen: BTreeSet<StepPath> = BTreeSet::new();
    let mut open = engine.waits_for(&node.path);
    let mut ends = Vec::new();
    let mut is_direct = true;
    while let Some(path) = open.pop() {
        if !seen.insert(path.clone()) {
            continue;
        }
        match engine.step(&path) {
            Some(need) if need.state == State::Blocked && !engine.waits_for(&path).is_empty() => {
                is_direct = false;
                open.extend(engine.waits_for(&path));
            }
            Some(need) => ends.push(format!("`{path}` ({})", state_word(need.state))),
            None => {}
        }
    }
    ends.sort();
    if is_direct {
        return Vec::new();
    }
    if ends.len() > MOST {
        let more = ends.len() - MOST;
        ends.truncate(MOST);
        ends.push(format!("{more} more"));
    }
    ends
}

fn later(since: Option<Timestamp>, after: Option<Duration>) -> Option<Timestamp> {
    since?.checked_add(after?).ok()
}

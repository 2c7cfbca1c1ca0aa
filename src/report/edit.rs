//! What an edited pipeline means for a run, as a table: before a resume goes on with it.

use std::fmt::Write as _;

use serde_json::Value;

use super::telling::{Mark, counted, one_line, shortened};
use crate::engine::edit::ChangeKind;
use crate::engine::{Accept, StepPath};
use crate::executor::{Difference, EditTable};

/// The table, with the texts of what needs an answer.
pub fn text(table: &EditTable) -> String {
    if table.differences.is_empty() {
        return format!("the pipeline changes nothing in run {}\n", table.run);
    }
    let count = counted(table.differences.len(), "change", "changes");
    let mut text = format!("{count} to run {}:\n", table.run);
    let width = table.differences.iter().map(|one| console::measure_text_width(one.change.step.as_str())).max().unwrap_or(0);
    for one in &table.differences {
        let mark = if one.is_open() { Mark::Failed } else { Mark::Done };
        let name = super::style::padded(one.change.step.as_str(), width);
        let _ = writeln!(text, "{} {name}  {}", mark.styled(), says(one));
        if one.change.needs_accept {
            text.push_str(&texts(&one.was, &one.becomes));
        }
    }
    let open: Vec<&Difference> = table.open().collect();
    if let Some(first) = open.first() {
        let _ = writeln!(text, "\nsay what is meant: `--accept {}=keep|rerun|undo-first`", first.change.step);
    }
    text
}

fn says(one: &Difference) -> String {
    let meant = match one.accepted {
        Some(Accept::Keep) => "; it counts as done",
        Some(Accept::Rerun) => "; it runs again",
        Some(Accept::UndoFirst) => "; it is undone, then runs again",
        None => "",
    };
    let kind = match &one.change.kind {
        ChangeKind::Added => "new: it runs when its turn comes".to_owned(),
        ChangeKind::InsertedBefore { completed } => format!("new, in front of what is completed: {}", names(completed)),
        ChangeKind::Removed => "gone; it had not started".to_owned(),
        ChangeKind::RemovedStarted => "gone after it had started; a rollback still undoes it".to_owned(),
        ChangeKind::Changed => "not completed: it takes the new text".to_owned(),
        ChangeKind::ChangedCompleted => "completed, and changed".to_owned(),
        ChangeKind::KindChanged => "became a group or ceased to be one after it had started: give it another id".to_owned(),
    };
    format!("{kind}{meant}")
}

fn names(steps: &[StepPath]) -> String {
    const MOST: usize = 5;
    let mut names: Vec<String> = steps.iter().take(MOST).map(|step| format!("`{step}`")).collect();
    if steps.len() > MOST {
        names.push(format!("and {} more", steps.len() - MOST));
    }
    names.join(", ")
}

/// The keys that differ, one line each way.
fn texts(was: &Value, becomes: &Value) -> String {
    let mut text = String::new();
    let empty = serde_json::Map::new();
    let (old, new) = match (was, becomes) {
        (Value::Null, Value::Null) => return text,
        (old, new) => (old.as_object().unwrap_or(&empty), new.as_object().unwrap_or(&empty)),
    };
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let (a, b) = (old.get(key), new.get(key));
        if a == b {
            continue;
        }
        for (sign, value) in [("-", a), ("+", b)] {
            if let Some(value) = value {
                let value = crate::secret::unmarked(&value.to_string()).into_owned();
                let _ = writeln!(text, "      {sign} {key}: {}", shortened(&one_line(&value), 100));
            }
        }
    }
    text
}

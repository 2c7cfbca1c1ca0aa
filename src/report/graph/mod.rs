//! Draws the DAG: as text, Mermaid, DOT and SVG.
//!
//! In: a definition, and the states of a run if it is one. Out: text. A pipeline used as a step is drawn with the steps
//! inside it, a `for_each` as one step. Never here: a file, a network, another program.

mod dot;
mod layout;
mod mermaid;
mod nested;
mod net;
mod svg;
mod text;

use std::collections::BTreeMap;

use crate::engine::{Definition, Engine, State, StepPath};

pub use dot::dot;
pub use mermaid::mermaid;
pub use svg::svg;
pub use text::text;

/// The state of each step of a drawing, by its path without keys: `replica/base` stands for all its instances.
pub type States = BTreeMap<String, State>;

/// The states of a run. Of the instances of a `for_each`, the worst is shown.
pub fn states_of(engine: &Engine) -> States {
    let mut states = States::new();
    for node in engine.steps() {
        let state = states.entry(place_of(&node.path)).or_insert(node.state);
        if weight(node.state) > weight(*state) {
            *state = node.state;
        }
    }
    states
}

/// The path without the keys of instances.
pub(crate) fn place_of(path: &StepPath) -> String {
    path.segments().map(|segment| segment.id).collect::<Vec<_>>().join("/")
}

/// Which of two states a reader has to know of.
fn weight(state: State) -> u8 {
    match state {
        State::Skipped => 0,
        State::Blocked | State::UndoBlocked | State::Queued | State::UndoQueued => 1,
        State::Succeeded => 2,
        State::Undone => 3,
        State::Open | State::UndoOpen => 4,
        State::Stopped => 5,
        State::Paused => 7,
        State::Failed | State::UndoFailed => 8,
        _ => 6,
    }
}

/// The name of the class that colours a state in Mermaid, DOT and SVG.
fn class_of(state: State) -> &'static str {
    match state {
        State::Succeeded => "succeeded",
        State::Failed | State::UndoFailed => "failed",
        State::Skipped => "skipped",
        State::Undone => "undone",
        State::Paused | State::Stopped | State::Awaiting => "waits",
        State::Blocked | State::Queued | State::UndoBlocked | State::UndoQueued => "pending",
        _ => "running",
    }
}

/// The colour behind each class, in the formats that know no dark page.
const FILLS: [(&str, &str); 6] = [
    ("succeeded", "#bbf7d0"),
    ("failed", "#fecaca"),
    ("running", "#bae6fd"),
    ("waits", "#fde68a"),
    ("undone", "#e9d5ff"),
    ("skipped", "#e5e7eb"),
];

/// The formats of `ferry graph`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For a terminal.
    Text,
    /// For Markdown.
    Mermaid,
    /// For Graphviz.
    Dot,
    /// For a page.
    Svg,
}

/// The drawing in this format.
pub fn draw(format: Format, definition: &Definition, states: &States, style: super::Style) -> String {
    match format {
        Format::Text => text(definition, states, style),
        Format::Mermaid => mermaid(definition, states),
        Format::Dot => dot(definition, states),
        Format::Svg => svg(definition, states),
    }
}

#[cfg(test)]
mod tests;

//! How text for people is dressed: colours and characters as an argument, never as a global.

use console::Style as Paint;

use crate::engine::State;

/// How text is dressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Whether colours may be used (`NO_COLOR`, a pipe: no).
    pub color: bool,
    /// Whether the reader's terminal shows more than ASCII.
    pub unicode: bool,
    /// How many columns there are.
    pub width: usize,
}

impl Default for Style {
    /// For a pipe or a file: no colours.
    fn default() -> Self {
        Self { color: false, unicode: true, width: 100 }
    }
}

/// What a piece of text means; the colour follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it is.
    Plain,
    /// What one looks for first.
    Strong,
    /// Beside the point.
    Faint,
    /// Did what was expected.
    Good,
    /// The world said no.
    Bad,
    /// Needs a look.
    Warn,
    /// Is at work.
    Busy,
}

impl Style {
    /// The text in the colour of its meaning. Control characters are taken out first: text of others moves no cursor.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        if !self.color || tone == Tone::Plain {
            return text;
        }
        let paint = Paint::new().force_styling(true);
        let paint = match tone {
            Tone::Plain => paint,
            Tone::Strong => paint.bold(),
            Tone::Faint => paint.dim(),
            Tone::Good => paint.green(),
            Tone::Bad => paint.red().bold(),
            Tone::Warn => paint.yellow(),
            Tone::Busy => paint.cyan(),
        };
        paint.apply_to(text).to_string()
    }

    /// One of two spellings, by what the terminal shows.
    pub fn sign(self, unicode: &'static str, ascii: &'static str) -> &'static str {
        if self.unicode { unicode } else { ascii }
    }
}

/// The text filled up with spaces to this many columns.
pub(crate) fn padded(text: &str, columns: usize) -> String {
    let width = console::measure_text_width(text);
    format!("{text}{}", " ".repeat(columns.saturating_sub(width)))
}

/// The word that people read for a state.
pub fn state_word(state: State) -> &'static str {
    match state {
        State::Blocked => "not started",
        State::Resolving | State::Inspecting | State::Asking | State::Starting => "starting",
        State::Locking | State::UndoLocking => "waits for a lock",
        State::Queued | State::UndoQueued => "queued",
        State::Awaiting => "waits for approval",
        State::Running => "running",
        State::Backoff | State::UndoBackoff => "waits to try again",
        State::Paused => "paused",
        State::Open => "open",
        State::Succeeded => "succeeded",
        State::Failed => "failed",
        State::Skipped => "skipped",
        State::Stopped => "stopped",
        State::UndoBlocked => "waits to be undone",
        State::UndoStarting | State::Undoing | State::UndoOpen => "being undone",
        State::Undone => "undone",
        State::UndoFailed => "undo failed",
    }
}

/// The one character that stands for a state, in Unicode and in ASCII.
pub fn state_sign(state: State) -> (&'static str, &'static str) {
    match state {
        State::Succeeded => ("✓", "+"),
        State::Failed | State::UndoFailed => ("✗", "x"),
        State::Skipped => ("–", "-"),
        State::Undone => ("↩", "<"),
        State::Paused | State::Stopped => ("■", "!"),
        State::Awaiting => ("?", "?"),
        State::Blocked | State::Queued | State::UndoBlocked | State::UndoQueued => ("○", "o"),
        _ => ("●", ">"),
    }
}

/// What a state means.
pub fn state_tone(state: State) -> Tone {
    match state {
        State::Succeeded => Tone::Good,
        State::Failed | State::UndoFailed => Tone::Bad,
        State::Skipped | State::Blocked | State::Queued | State::UndoBlocked | State::UndoQueued => Tone::Faint,
        State::Undone | State::Paused | State::Stopped | State::Awaiting => Tone::Warn,
        _ => Tone::Busy,
    }
}

//! The two streams: stdout carries what was asked for, stderr everything else.

use std::io::{self, IsTerminal as _, Write as _};

use serde::Serialize;

use crate::report::Style;

/// Where a command's words go.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Whether stdout is for programs.
    pub json: bool,
}

impl Output {
    /// The streams of this process.
    pub fn new(json: bool, no_color: bool) -> Self {
        if no_color || std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
            console::set_colors_enabled(false);
            console::set_colors_enabled_stderr(false);
        }
        Self { json }
    }

    /// What was asked for, as text for people or programs, with a line break at its end.
    pub fn text(self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        out.write_all(text.as_bytes())?;
        if !text.is_empty() && !text.ends_with('\n') {
            out.write_all(b"\n")?;
        }
        out.flush()
    }

    /// What was asked for, as one JSON document: indented for a person's terminal, one line for a program.
    pub fn document(self, document: &impl Serialize) -> io::Result<()> {
        let text =
            if io::stdout().is_terminal() { serde_json::to_string_pretty(document) } else { serde_json::to_string(document) };
        self.text(&text.map_err(io::Error::other)?)
    }

    /// One of many JSON documents: always one line.
    pub fn json_line(self, document: &impl Serialize) -> io::Result<()> {
        self.text(&serde_json::to_string(document).map_err(io::Error::other)?)
    }

    /// How text on stdout is dressed.
    pub fn style(self) -> Style {
        let (_, columns) = console::Term::stdout().size();
        let width = if io::stdout().is_terminal() { usize::from(columns).max(40) } else { Style::default().width };
        Style { color: !self.json && console::colors_enabled(), width, ..Style::default() }
    }

    /// Something for the person beside what was asked for. A stderr that is gone is no reason to stop.
    pub fn note(self, text: &str) {
        let mut err = io::stderr().lock();
        let _ = writeln!(err, "{}", text.trim_end_matches('\n'));
    }
}

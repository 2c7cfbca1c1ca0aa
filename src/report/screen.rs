//! What the live view shows, as text: pure, so that it can be tested without a terminal.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::telling::{beside, counted_u64, grouped, one_line, share, shortened};
use crate::engine::{Engine, Node, RunStatus, State, StepPath};
use crate::steps::Progress;
use crate::units::{ByteSize, Rate, Span};

/// How far back the rate looks. Shorter jumps with every object, longer keeps telling of a stall long gone.
const WINDOW: Duration = Duration::from_secs(5);
const BAR: usize = 22;
/// The bar on a terminal that is not wide.
const SHORT_BAR: usize = 14;
/// Below this many columns what is known of a transfer takes two lines.
const WIDE: usize = 130;

/// A step that is at work or waits.
#[derive(Debug)]
struct Row {
    state: State,
    attempt: u32,
    since: Duration,
    progress: Progress,
    /// When how many bytes (or objects, where bytes are not counted) were done.
    samples: VecDeque<(Duration, u64)>,
    reason: String,
    is_ready: bool,
}

/// The state of the screen. Times are monotonic and given from outside.
#[derive(Debug, Default)]
pub struct Screen {
    rows: BTreeMap<StepPath, Row>,
    done: usize,
    total: usize,
    failed: usize,
    working: usize,
    waiting: usize,
    status: Option<RunStatus>,
    run: String,
    width: usize,
}

impl Screen {
    /// Takes over what the engine says of every step. Costs a walk over all steps: not for every event.
    pub fn refresh(&mut self, engine: &Engine, now: Duration) {
        engine.run().clone_into(&mut self.run);
        self.status = Some(engine.status());
        (self.done, self.total, self.failed, self.working, self.waiting) = (0, 0, 0, 0, 0);
        self.width = 0;
        let mut seen = Vec::new();
        for node in engine.steps() {
            if node.is_group() {
                continue;
            }
            self.total += 1;
            self.width = self.width.max(console::measure_text_width(node.path.as_str()));
            self.done += usize::from(matches!(node.state, State::Succeeded | State::Skipped | State::Undone));
            self.failed += usize::from(matches!(node.state, State::Failed | State::UndoFailed | State::Paused));
            self.working += usize::from(node.state.is_working());
            self.waiting += usize::from(reason(node).is_some());
            if self.follow(node, now) {
                seen.push(node.path.clone());
            }
        }
        seen.sort();
        self.rows.retain(|path, _| seen.binary_search(path).is_ok());
    }

    /// Takes over what the engine says of one step, and says whether it has a row now.
    pub fn follow(&mut self, node: &Node, now: Duration) -> bool {
        let reason = reason(node);
        if node.is_group() || (!node.state.is_working() && reason.is_none()) {
            self.rows.remove(&node.path);
            return false;
        }
        let row = self.rows.entry(node.path.clone()).or_insert_with(|| Row::new(node.state, now));
        let attempt = if node.state.is_undo() { node.undo_attempts } else { node.attempts };
        if row.state != node.state || row.attempt != attempt {
            *row = Row { attempt, ..Row::new(node.state, now) };
        }
        row.reason = reason.unwrap_or_default();
        row.is_ready = node.is_ready;
        true
    }

    /// The columns that names of steps take: the same above and below, so that nothing jumps.
    pub fn width(&self) -> usize {
        self.width.clamp(8, 28)
    }

    /// Takes in how far a step is.
    pub fn progress(&mut self, step: &StepPath, progress: &Progress, now: Duration) {
        let Some(row) = self.rows.get_mut(step) else { return };
        if let Some(done) = progress.bytes.or(progress.objects) {
            row.samples.push_back((now, done));
            while row.samples.len() > 2 && row.samples.front().is_some_and(|(at, _)| now.saturating_sub(*at) > WINDOW) {
                row.samples.pop_front();
            }
        }
        row.progress = progress.clone();
    }

    /// The lines to show: steps at work, steps that wait, the footer. Never more than `height`, none wider than `width`.
    pub fn lines(&self, now: Duration, elapsed: Duration, width: usize, height: usize) -> Vec<String> {
        let mut rows: Vec<(&StepPath, &Row)> = self.rows.iter().collect();
        rows.sort_by_key(|(_, row)| (!row.state.is_working(), row.since));
        let room = height.saturating_sub(2).max(1);
        let name = self.width();
        let shown: Vec<Vec<String>> = rows.into_iter().map(|(path, row)| row.lines(path, name, now, width)).collect();
        let needed: usize = shown.iter().map(Vec::len).sum();
        // A second line is left out before a step is.
        let is_tight = needed > room;
        let fits = if shown.len() > room { room - 1 } else { shown.len() };
        let hidden = shown.len() - fits;
        let mut lines = Vec::new();
        for mut row in shown.into_iter().take(fits) {
            row.truncate(if is_tight { 1 } else { row.len() });
            lines.extend(row.iter().map(|line| shortened(line, width)));
        }
        if hidden > 0 {
            lines.push(format!("  … and {hidden} more"));
        }
        lines.push(shortened(&self.footer(elapsed), width));
        lines
    }

    fn footer(&self, elapsed: Duration) -> String {
        let mut parts = vec![format!("{}/{} steps done", self.done, self.total)];
        for (count, word) in [(self.working, "at work"), (self.waiting, "waiting"), (self.failed, "failed")] {
            if count > 0 {
                parts.push(format!("{count} {word}"));
            }
        }
        parts.push(Span(Duration::from_secs(elapsed.as_secs())).to_string());
        if self.status == Some(RunStatus::RollingBack) {
            parts.push("rolling back".to_owned());
        }
        parts.push(format!("run {}", self.run));
        console::style(parts.join(" · ")).for_stderr().dim().to_string()
    }
}

impl Row {
    fn new(state: State, since: Duration) -> Self {
        Self {
            state,
            attempt: 0,
            since,
            progress: Progress::default(),
            samples: VecDeque::new(),
            reason: String::new(),
            is_ready: false,
        }
    }

    /// A line; two where bytes and objects are counted and the terminal is not wide.
    fn lines(&self, path: &StepPath, names: usize, now: Duration, width: usize) -> Vec<String> {
        let name = pad(&shortened(path.as_str(), names), names);
        let elapsed = Span(Duration::from_secs(now.saturating_sub(self.since).as_secs()));
        if !self.reason.is_empty() {
            let sign = console::style("⏸").for_stderr().yellow();
            return vec![format!("{sign} {name}  {}  {elapsed}", self.reason)];
        }
        let sign = console::style(frame(now)).for_stderr().cyan();
        let Progress { bytes, objects, .. } = self.progress;
        let is_split = bytes.is_some() && objects.is_some() && width < WIDE;
        let (mut parts, mut below) = (Vec::new(), Vec::new());
        if let Some(share) = share(&self.progress) {
            let columns = if is_split { SHORT_BAR } else { BAR };
            parts.push(format!("{} {:>3.0}%", bar(share, columns), (share * 100.0).floor()));
        }
        parts.extend(self.bytes());
        if !is_split {
            parts.extend(self.objects());
        }
        if let Some(rate) = self.rate() {
            parts.push(self.rate_text(rate));
            parts.extend(self.eta(rate).map(|eta| format!("eta {eta}")));
        }
        let rest = if is_split { &mut below } else { &mut parts };
        if is_split {
            rest.extend(self.objects());
        }
        let errors = self.progress.errors.filter(|errors| *errors > 0);
        if let Some(errors) = errors {
            rest.push(console::style(counted_u64(errors, "error", "errors")).for_stderr().red().to_string());
        }
        rest.extend(beside(&Progress { errors: None, ..self.progress.clone() }));
        rest.extend(self.progress.message.as_deref().map(one_line));
        rest.push(self.doing().to_owned());
        if self.attempt > 1 {
            rest.push(format!("attempt {}", self.attempt));
        }
        rest.push(elapsed.to_string());
        rest.retain(|part| !part.is_empty());
        let mut lines = vec![format!("{sign} {name}  {}", parts.join("  "))];
        if is_split {
            // Below the bytes; further left rather than cut off.
            let below = below.join("  ");
            let room = width.saturating_sub(console::measure_text_width(&below));
            lines.push(format!("{}{below}", pad("", room.clamp(2, names + 4))));
        }
        lines
    }

    fn doing(&self) -> &'static str {
        match self.state {
            State::Inspecting => "looks at the world",
            State::Asking => "prepares its question",
            State::UndoStarting | State::Undoing => "undoes",
            _ if self.is_ready => "serves",
            _ => "",
        }
    }

    fn bytes(&self) -> Option<String> {
        let done = ByteSize(self.progress.bytes?);
        Some(match self.progress.bytes_total {
            Some(total) => format!("{done}/{}", ByteSize(total)),
            None => done.to_string(),
        })
    }

    fn objects(&self) -> Option<String> {
        let done = grouped(self.progress.objects?);
        Some(match self.progress.objects_total {
            Some(total) => format!("{done}/{} objects", grouped(total)),
            None => format!("{done} objects"),
        })
    }

    /// Units per second over the window. A step that goes on from a checkpoint starts high: only differences count.
    fn rate(&self) -> Option<f64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let seconds = last.0.saturating_sub(first.0).as_secs_f64();
        (seconds >= 0.2).then(|| last.1.saturating_sub(first.1) as f64 / seconds)
    }

    fn rate_text(&self, rate: f64) -> String {
        if self.progress.bytes.is_some() {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a rate is not negative, and saturates"
            )]
            return Rate(rate as u64).to_string();
        }
        format!("{rate:.0}/s")
    }

    fn eta(&self, rate: f64) -> Option<Span> {
        let Progress { bytes, bytes_total, objects, objects_total, .. } = self.progress;
        let (done, total) = bytes.zip(bytes_total).or_else(|| objects.zip(objects_total))?;
        let left = total.checked_sub(done).filter(|left| *left > 0)? as f64;
        let seconds = left / rate;
        (rate > 0.0 && seconds < 8_640_000.0).then(|| Span(Duration::from_secs_f64(seconds.ceil())))
    }
}

/// Why a step waits, if it waits for something that has a name.
fn reason(node: &Node) -> Option<String> {
    let failure = || node.failure.as_ref().map(|failure| one_line(&failure.message)).unwrap_or_default();
    Some(match node.state {
        State::Locking | State::UndoLocking => {
            let holder = node.lock_holder.as_deref().map(|holder| format!(", held by {holder}")).unwrap_or_default();
            format!("waits for the lock `{}`{holder}", node.lock.as_deref().unwrap_or("?"))
        }
        State::Awaiting => {
            let question = node.question.as_ref().map(|question| one_line(&question.message)).unwrap_or_default();
            format!("waits for approval: {question}")
        }
        State::Backoff => format!("waits before attempt {}: {}", node.attempts + 1, failure()),
        State::UndoBackoff => {
            let failure = node.undo_failure.as_ref().map(|failure| one_line(&failure.message)).unwrap_or_default();
            format!("waits before undoing again: {failure}")
        }
        State::Paused => format!("waits for a person: {}", failure()),
        _ => return None,
    })
}

fn bar(share: f64, columns: usize) -> String {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is between 0 and 1")]
    let halves = (share * (columns * 2) as f64).floor() as usize;
    let (full, half) = (halves / 2, halves % 2);
    let rest = columns - full - half;
    let done = format!("{}{}", "━".repeat(full), if half == 1 { "╸" } else { "" });
    format!("{}{}", console::style(done).for_stderr().cyan(), console::style("─".repeat(rest)).for_stderr().dim())
}

fn frame(now: Duration) -> &'static str {
    const FRAMES: [&str; 10] = ["⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"];
    let tick = usize::try_from(now.as_millis() / 100).unwrap_or(0);
    FRAMES[tick % FRAMES.len()]
}

/// Pads to a width in columns, which for wide characters is not the number of characters.
pub(super) fn pad(text: &str, width: usize) -> String {
    console::pad_str(text, width, console::Alignment::Left, None).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(samples: &[(u64, u64)], total: u64) -> Row {
        let mut row = Row::new(State::Running, Duration::ZERO);
        row.samples = samples.iter().map(|(at, bytes)| (Duration::from_secs(*at), *bytes)).collect();
        let bytes = samples.last().map(|(_, bytes)| *bytes);
        row.progress = Progress { bytes, bytes_total: Some(total), ..Progress::default() };
        row
    }

    #[test]
    fn a_resumed_transfer_tells_its_own_rate_and_eta() {
        let row = row(&[(0, 900 << 20), (2, 920 << 20)], 1000 << 20);
        let line = row.lines(&StepPath::root("copy"), 8, Duration::from_secs(3), 80).join("\n");
        let line = console::strip_ansi_codes(&line).into_owned();
        assert!(line.contains("copy") && line.contains("92%"), "{line}");
        assert!(line.contains("10.0 MiB/s") && line.contains("eta 8s"), "{line}");
    }

    #[test]
    fn a_transfer_is_told_whole_on_a_terminal_of_80_columns() {
        let mut row = row(&[(0, 0), (5, 40 << 30)], 999 << 30);
        row.progress.objects = Some(1_234_567);
        row.progress.objects_total = Some(23_456_789);
        row.progress.errors = Some(12);
        row.progress.at_once = Some(1024);
        row.progress.message = Some("still listing".to_owned());
        for width in [79, 200] {
            let lines = row.lines(&StepPath::root("sync"), 8, Duration::from_secs(61), width);
            assert!(lines.iter().all(|line| console::measure_text_width(line) <= width), "{lines:#?}");
            let text = console::strip_ansi_codes(&lines.join("\n")).into_owned();
            for told in
                ["4%", "40.0 GiB/999.0 GiB", "8.0 GiB/s", "eta", "1,234,567/23,456,789 objects", "12 errors", "1024 at once"]
            {
                assert!(text.contains(told), "{told}: {text}");
            }
        }
    }

    #[test]
    fn a_stalled_transfer_has_no_eta() {
        let row = row(&[(0, 5), (4, 5)], 10);
        assert_eq!(row.rate().and_then(|rate| row.eta(rate)), None);
    }

    #[test]
    fn more_rows_than_the_terminal_has_are_counted() {
        let mut screen = Screen::default();
        for index in 0..30 {
            screen.rows.insert(StepPath::root(&format!("step-{index}")), Row::new(State::Running, Duration::ZERO));
        }
        let lines = screen.lines(Duration::ZERO, Duration::ZERO, 60, 10);
        assert!(lines.len() <= 10, "{lines:?}");
        assert!(lines.iter().any(|line| line.contains("and 23 more")), "{lines:?}");
        assert!(lines.iter().all(|line| console::measure_text_width(line) <= 60), "{lines:?}");
    }
}

//! `ferry show`: what became of a run, as text and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::history::{Attempt, Axis, History, between, clock, moment};
use super::style::{Tone, padded, state_sign, state_tone, state_word};
use super::telling::{again_text, one_line, shortened, summary_with};
use super::{Style, waits};
use crate::engine::{Node, Outcome, RunStatus, State};
use crate::error::Failure;
use crate::secret::{map_strings, unmarked};
use crate::units::Span;

/// Instances of a `for_each` that did what was expected are counted, not listed, beyond this many.
const MOST_INSTANCES: usize = 12;

/// The word that people read for a run's status.
pub fn status_word(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Running => "running",
        RunStatus::Waiting => "waiting",
        RunStatus::Paused => "paused",
        RunStatus::Failed => "failed",
        RunStatus::RollingBack => "rolling back",
        RunStatus::RolledBack => "rolled back",
        RunStatus::RollbackFailed => "rollback failed",
        RunStatus::Cancelled => "cancelled",
        RunStatus::Succeeded => "succeeded",
    }
}

fn status_tone(status: RunStatus) -> Tone {
    match status {
        RunStatus::Succeeded => Tone::Good,
        RunStatus::Failed | RunStatus::RollbackFailed => Tone::Bad,
        RunStatus::Running | RunStatus::RollingBack => Tone::Busy,
        RunStatus::Waiting | RunStatus::Paused | RunStatus::RolledBack | RunStatus::Cancelled => Tone::Warn,
    }
}

/// The run for a person.
pub fn text(history: &History, style: Style) -> String {
    let mut out = String::new();
    header(history, style, &mut out);
    out.push('\n');
    table(history, style, &mut out);
    timeline(history, style, &mut out);
    speeds(history, style, &mut out);
    clients(history, style, &mut out);
    let left: Vec<String> = history.engine.left_behind().map(|node| format!("`{}`", node.path)).collect();
    if matches!(history.engine.status(), RunStatus::RollbackFailed | RunStatus::RolledBack) && !left.is_empty() {
        let _ = writeln!(out, "\n{} {}", style.paint(Tone::Bad, "left behind:"), left.join(", "));
    }
    out
}

fn header(history: &History, style: Style, out: &mut String) {
    let status = history.engine.status();
    let mut word = status_word(status).to_owned();
    if history.is_interrupted() {
        word.push_str(", its runner died");
    }
    let _ = writeln!(
        out,
        "{}  {}  {}",
        style.paint(Tone::Strong, history.run()),
        style.paint(Tone::Plain, history.pipeline()),
        style.paint(status_tone(status), &word)
    );
    let mut facts = Vec::new();
    if let Some(created) = history.created() {
        facts.push(("started", format!("{} by {}", moment(created), history.by)));
    }
    for said in &history.said {
        facts.push(("", format!("{} {} {}", moment(said.at), said.by, said.what)));
    }
    if let Some(ended) = history.ended() {
        facts.push(("ended", moment(ended)));
    }
    let sessions = if history.sessions.len() > 1 { format!(" in {} sessions", history.sessions.len()) } else { String::new() };
    facts.push(("at work", format!("{}{sessions}", Span(history.worked()))));
    if history.engine.is_past_pivot() {
        let passed = history.pivot.as_ref().map(|(at, step)| format!(" {} by `{step}`", moment(*at))).unwrap_or_default();
        facts.push(("pivot", format!("passed{passed}: the run goes forward")));
    }
    if history.is_interrupted() {
        facts.push(("next", format!("`ferry resume {}` goes on, `ferry rollback {}` goes back", history.run(), history.run())));
    }
    for (name, fact) in facts {
        let _ = writeln!(out, "{}  {}", style.paint(Tone::Faint, &padded(name, 8)), style.paint(Tone::Plain, &unmarked(&fact)));
    }
}

/// A line of the table, or of the page.
pub(super) struct Row<'a> {
    pub node: &'a Node,
    pub depth: usize,
    /// How many instances this line stands for beside its own.
    pub more: usize,
}

/// The steps that are shown one by one: of many instances only those that did not do what was expected.
pub(super) fn rows(history: &History) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    let mut skipped: Option<&str> = None;
    for node in history.engine.steps() {
        if skipped.is_some_and(|prefix| node.path.as_str().strip_prefix(prefix).is_some_and(|rest| rest.starts_with('/'))) {
            continue;
        }
        skipped = None;
        let path = node.path.as_str();
        let depth = path.matches(['/', '[']).count();
        if node.is_instance()
            && node.each_index >= MOST_INSTANCES
            && matches!(node.state, State::Succeeded | State::Skipped | State::Blocked | State::Undone)
            && let Some(group) = node.path.parent()
            && let Some(row) = rows.iter_mut().rev().find(|row| row.node.path == group)
        {
            row.more += 1;
            skipped = Some(path);
            continue;
        }
        rows.push(Row { node, depth, more: 0 });
    }
    rows
}

/// What is to be told of a step in one line.
pub(super) fn what(history: &History, row: &Row<'_>) -> String {
    let node = row.node;
    let told = match node.state {
        State::Succeeded => summary_with(node.output.as_ref().unwrap_or(&Value::Null), node.warnings),
        State::UndoFailed => node.undo_failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default(),
        State::Failed | State::Paused => node.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default(),
        _ => waits::reason(history, node),
    };
    let instances = if node.def.for_each && !node.is_instance() {
        let children: Vec<_> = history.engine.children(node).collect();
        let done = children.iter().filter(|child| child.state == State::Succeeded).count();
        if children.is_empty() { String::new() } else { format!("{done} of {} done", children.len()) }
    } else {
        String::new()
    };
    let more = if row.more > 0 { format!("{} more not listed", row.more) } else { String::new() };
    // Once, not at every instance.
    let name = node.def.name.as_deref().filter(|_| !node.is_instance()).unwrap_or_default().to_owned();
    [name, instances, told, more].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
}

/// The failure that a reader has to know of. What was undone tells why it failed before: most often that is why the run
/// was rolled back.
pub(super) fn failure_of<'a>(history: &'a History, node: &'a Node) -> Option<&'a Failure> {
    match node.state {
        State::UndoFailed | State::UndoBackoff => node.undo_failure.as_ref(),
        State::Failed | State::Paused | State::Backoff => node.failure.as_ref(),
        state if state == State::Undone || state.is_undo() => {
            let attempts = &history.step(&node.path)?.attempts;
            match attempts.iter().rev().find(|attempt| !attempt.is_undo)?.outcome.as_ref()? {
                Outcome::Failed { failure } => Some(failure),
                _ => None,
            }
        }
        _ => None,
    }
}

fn table(history: &History, style: Style, out: &mut String) {
    let rows = rows(history);
    let name = |row: &Row<'_>| format!("{}{}", "  ".repeat(row.depth), one_line(&unmarked(row.node.path.as_str())));
    let columns = |of: &dyn Fn(&Row<'_>) -> usize| rows.iter().map(of).max().unwrap_or(0);
    let names = columns(&|row| console::measure_text_width(&name(row))).min(44);
    let words = columns(&|row| state_word(row.node.state).len());
    for row in &rows {
        let node = row.node;
        let (unicode, ascii) = state_sign(node.state);
        let tone = state_tone(node.state);
        let took = history.took(&node.path).map_or(String::new(), |took| Span(took).to_string());
        let attempts = if node.attempts > 1 { format!("{}×", node.attempts) } else { String::new() };
        let room = style.width.saturating_sub(names + words + 20).max(24);
        let _ = writeln!(
            out,
            "{}",
            format!(
                "{} {}  {}  {} {}  {}",
                style.paint(tone, style.sign(unicode, ascii)),
                padded(&shortened(&name(row), names), names),
                style.paint(tone, &padded(state_word(node.state), words)),
                padded(&took, 6),
                padded(&attempts, 3),
                style.paint(Tone::Plain, &shortened(&one_line(&unmarked(&what(history, row))), room))
            )
            .trim_end()
        );
        if let Some(failure) = failure_of(history, node) {
            for (name, line) in failure_lines(failure) {
                let _ = writeln!(out, "  {} {}", style.paint(Tone::Faint, &format!("{name}:")), style.paint(Tone::Plain, &line));
            }
        }
    }
}

/// Why, whether trying again can help, and what to do.
pub(super) fn failure_lines(failure: &Failure) -> Vec<(&'static str, String)> {
    let mut lines: Vec<_> = failure.causes.iter().map(|cause| ("because", one_line(&unmarked(cause)))).collect();
    lines.push(("again", again_text(failure.class).to_owned()));
    lines.extend(failure.help.iter().map(|help| ("help", one_line(&unmarked(help)))));
    lines
}

/// Bars over the working time of the run.
fn timeline(history: &History, style: Style, out: &mut String) {
    let axis = Axis::of(history);
    let Some((from, last)) = history.created().zip(history.last) else { return };
    let rows: Vec<Row<'_>> = rows(history)
        .into_iter()
        .filter(|row| history.step(&row.node.path).is_some_and(|step| !step.attempts.is_empty() || step.approval.is_some()))
        .take(60)
        .collect();
    if rows.is_empty() {
        return;
    }
    let names = rows.iter().map(|row| console::measure_text_width(row.node.path.as_str())).max().unwrap_or(0).min(28);
    let columns = style.width.saturating_sub(names + 4).clamp(20, 72);
    let begins = clock(from);
    let ends = format!("{} ({})", clock(last), Span(axis.total()));
    let _ = writeln!(
        out,
        "\n{}  {}{}",
        style.paint(Tone::Strong, &padded("when", names)),
        style.paint(Tone::Faint, &padded(&begins, columns.saturating_sub(console::measure_text_width(&ends)))),
        style.paint(Tone::Faint, &ends)
    );
    let column = |share: f64| -> usize {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share is between 0 and 1")]
        let column = (share * columns as f64) as usize;
        column.min(columns - 1)
    };
    let seams: Vec<usize> = axis.seams().into_iter().map(column).collect();
    for row in rows {
        let mut cells = vec![(' ', Tone::Plain); columns];
        for &seam in &seams {
            cells[seam] = (if style.unicode { '┊' } else { ':' }, Tone::Faint);
        }
        let Some(step) = history.step(&row.node.path) else { continue };
        if let Some(wait) = step.approval {
            let (a, b) = (column(axis.place(wait.from)), column(axis.place(wait.to.unwrap_or(last))));
            cells[a..=b.max(a)].fill((if style.unicode { '·' } else { '.' }, Tone::Warn));
        }
        for attempt in &step.attempts {
            let (a, b) = (column(axis.place(attempt.from)), column(axis.place(attempt.to.unwrap_or(last))));
            cells[a..=b.max(a)].fill(bar_of(attempt, style));
        }
        let bar: String = cells.into_iter().map(|(cell, tone)| style.paint(tone, cell.encode_utf8(&mut [0; 4]))).collect();
        let _ = writeln!(
            out,
            "{}  {}",
            padded(&shortened(&one_line(&unmarked(row.node.path.as_str())), names), names),
            bar.trim_end()
        );
    }
    let legend = if style.unicode {
        "█ done  ▓ failed  ░ interrupted or stopped  ▒ undo  · waits for a person  ┊ taken up again"
    } else {
        "# done  x failed  ~ interrupted or stopped  < undo  . waits for a person  : taken up again"
    };
    let _ = writeln!(out, "{}", style.paint(Tone::Faint, legend));
}

/// How fast steps moved bytes: a line of blocks each.
fn speeds(history: &History, style: Style, out: &mut String) {
    if history.speeds.is_empty() {
        return;
    }
    let names = history.speeds.iter().map(|speed| console::measure_text_width(speed.step.as_str())).max().unwrap_or(0).min(28);
    let _ = writeln!(out, "\n{}", style.paint(Tone::Strong, "how fast"));
    for speed in &history.speeds {
        let name = padded(&shortened(&one_line(&unmarked(speed.step.as_str())), names), names);
        let words = speed.words();
        let room = style.width.saturating_sub(names + words.chars().count() + 4);
        let blocks = if style.unicode && room >= 8 { format!("{}  ", speed.blocks(room.min(40))) } else { String::new() };
        let _ = writeln!(out, "{name}  {}{}", style.paint(Tone::Busy, &blocks), style.paint(Tone::Faint, &words));
    }
}

/// What clients saw meanwhile.
fn clients(history: &History, style: Style, out: &mut String) {
    let told = super::probes::told(history);
    if told.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n{}", style.paint(Tone::Strong, "what clients saw"));
    for probe in told {
        for line in probe.lines {
            let name = shortened(&one_line(&unmarked(probe.step)), 28);
            let _ = writeln!(out, "{}  {}", style.paint(Tone::Faint, &name), style.paint(Tone::Plain, &line));
        }
    }
}

fn bar_of(attempt: &Attempt, style: Style) -> (char, Tone) {
    let (unicode, ascii, tone) = match (&attempt.outcome, attempt.is_undo) {
        (Some(Outcome::Failed { .. }), _) => ('▓', 'x', Tone::Bad),
        (Some(Outcome::Interrupted | Outcome::Stopped), _) => ('░', '~', Tone::Warn),
        (_, true) => ('▒', '<', Tone::Warn),
        (Some(Outcome::Succeeded { .. }), false) => ('█', '#', Tone::Good),
        (None, false) => ('█', '#', Tone::Busy),
    };
    (if style.unicode { unicode } else { ascii }, tone)
}

/// The run for a program. Secrets are `***`; times are RFC 3339, durations whole milliseconds.
pub fn to_json(history: &History) -> Value {
    let engine = &history.engine;
    let steps: Vec<Value> = engine.steps().map(|node| step_json(history, node)).collect();
    let document = json!({
        "run": history.run(),
        "pipeline": history.pipeline(),
        "status": engine.status(),
        "is_live": history.is_live,
        "is_interrupted": history.is_interrupted(),
        "is_past_pivot": engine.is_past_pivot(),
        "pivot": history.pivot.as_ref().map(|(at, step)| json!({ "step": step, "at": at })),
        "by": history.by,
        "started": history.created(),
        "ended": history.ended(),
        "worked_ms": millis(history.worked()),
        "inputs": history.inputs(),
        "sessions": history.sessions.iter().map(|session| json!({
            "from": session.from, "to": session.to, "status": session.status,
        })).collect::<Vec<_>>(),
        "said": history.said.iter().map(|said| json!({
            "at": said.at, "by": said.by, "what": said.what, "step": said.step,
        })).collect::<Vec<_>>(),
        "left_behind": engine.left_behind().map(|node| &node.path).collect::<Vec<_>>(),
        "stuck": engine.stuck(),
        "steps": steps,
    });
    map_strings(&document, &|text| unmarked(text).into_owned())
}

fn step_json(history: &History, node: &Node) -> Value {
    let step = history.step(&node.path);
    json!({
        "step": node.path,
        "name": node.def.name,
        "uses": node.def.uses,
        "state": node.state,
        "is_group": node.is_group(),
        "is_finally": node.is_finally,
        "attempts": node.attempts,
        "interruptions": node.interruptions,
        "warnings": node.warnings,
        "worked_ms": history.took(&node.path).map(millis),
        "tries": step.map(|step| step.attempts.iter().map(|attempt| json!({
            "number": attempt.number,
            "undo": attempt.is_undo,
            "from": attempt.from,
            "to": attempt.to,
            "took_ms": attempt.to.map(|to| millis(between(attempt.from, to))),
            "outcome": match &attempt.outcome {
                None => Value::Null,
                Some(Outcome::Succeeded { .. }) => json!("succeeded"),
                Some(Outcome::Failed { .. }) => json!("failed"),
                Some(Outcome::Stopped) => json!("stopped"),
                Some(Outcome::Interrupted) => json!("interrupted"),
            },
            "failure": match &attempt.outcome {
                Some(Outcome::Failed { failure }) => json!(failure),
                _ => Value::Null,
            },
            "checkpoints": attempt.checkpoints,
        })).collect::<Vec<_>>()).unwrap_or_default(),
        "reason": waits::reason(history, node),
        "failure": node.failure,
        "undo_failure": node.undo_failure,
        "output": node.output,
        "digest": node.inspections.last().map(|inspection| &inspection.digest),
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_run_that_waits_is_told() {
        let history = History::of(&sample::until_approval().records, true);
        assert_eq!(history.engine.fault_found(), None);
        insta::assert_snapshot!(text(&history, Style::default()));
    }

    #[test]
    fn a_run_that_succeeded_is_told() {
        let history = History::of(&sample::succeeded().records, false);
        assert_eq!(history.engine.status(), RunStatus::Succeeded, "{:?}", history.engine.fault_found());
        insta::assert_snapshot!(text(&history, Style { unicode: false, ..Style::default() }));
    }

    #[test]
    fn a_run_whose_runner_died_says_how_it_goes_on() {
        let history = History::of(&sample::until_approval().records, false);
        let shown = text(&history, Style::default());
        assert!(shown.contains("its runner died") && shown.contains("ferry resume 01993f2a"), "{shown}");
    }

    #[test]
    fn a_colour_is_only_written_when_asked_for() {
        let history = History::of(&sample::failed().records, false);
        assert!(!text(&history, Style::default()).contains('\u{1b}'));
        let dressed = text(&history, Style { color: true, ..Style::default() });
        assert!(dressed.contains('\u{1b}'));
        assert_eq!(console::strip_ansi_codes(&dressed), text(&history, Style::default()));
    }

    #[test]
    fn a_run_that_failed_says_what_to_do() {
        let history = History::of(&sample::failed().records, false);
        insta::assert_snapshot!(text(&history, Style::default()));
    }

    #[test]
    fn a_rollback_tells_what_failed_and_what_is_left_behind() {
        let history = History::of(&sample::rolled_back().records, false);
        assert_eq!(history.engine.fault_found(), None);
        insta::assert_snapshot!(text(&history, Style::default()));
    }

    #[test]
    fn a_run_can_be_told_at_any_moment_and_with_any_clock() {
        let records = sample::succeeded().records;
        for end in 1..=records.len() {
            for jump in [0, -7200, 7200] {
                let mut records = records[..end].to_vec();
                let middle = end / 2;
                for record in &mut records[middle..] {
                    record.at = record.at.checked_add(jiff::SignedDuration::from_secs(jump)).expect("a time");
                }
                let history = History::of(&records, end % 2 == 0);
                assert!(text(&history, Style::default()).contains("01993f2a"));
                assert!(to_json(&history)["steps"].is_array());
                assert!(crate::report::html::html(&history).ends_with("</html>\n"));
                let now = records[0].at;
                for node in history.engine.steps() {
                    let told = crate::report::why::why(&history, &records, &node.path).expect("it is there");
                    assert!(told.text(now, Style::default()).contains(node.path.as_str()));
                }
                assert!(!crate::report::diff::diff(&history, &history).text(Style::default()).is_empty());
            }
        }
    }

    #[test]
    fn a_program_reads_the_same() {
        let document = to_json(&History::of(&sample::succeeded().records, false));
        assert_eq!(document["status"], "succeeded");
        assert_eq!(document["sessions"].as_array().map(Vec::len), Some(2));
        let us = document["steps"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|step| step["tries"].as_array().is_some_and(|t| t.len() == 3));
        let outcomes: Vec<_> =
            us.expect("three tries")["tries"].as_array().into_iter().flatten().map(|t| t["outcome"].clone()).collect();
        assert_eq!(outcomes, ["failed", "interrupted", "succeeded"]);
        assert_eq!(document["inputs"]["password"], "***");
    }

    #[test]
    fn no_mark_and_no_control_character_is_shown() {
        for records in [sample::until_approval().records, sample::succeeded().records] {
            let history = History::of(&records, true);
            let shown = format!("{}{}", text(&history, Style::default()), to_json(&history));
            assert!(!shown.contains(crate::secret::MARK_START), "{shown}");
            assert!(shown.contains("***"));
        }
    }
}

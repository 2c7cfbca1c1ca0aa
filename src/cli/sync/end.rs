//! The table behind a sync: what was copied, what was not, how fast, and where the proof lies.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::engine::{Engine, State};
use crate::report::speed::Speed;
use crate::report::telling::{grouped, one_line};
use crate::units::{ByteSize, Rate, Span};

/// The end of a run of one sync as a table; nothing when it never came to copy, or when the run is another.
pub fn table(engine: &Engine, took: Duration, speeds: &[Speed]) -> Option<String> {
    let mut steps = engine.steps();
    let node = steps.next().filter(|node| node.def.uses == "object.sync")?;
    if steps.next().is_some() {
        return None;
    }
    let is_done = node.state == State::Succeeded;
    // What a step that has not ended did is in its last progress token.
    let told = if is_done { node.output.as_ref() } else { node.checkpoint.as_ref() }?;
    let count = |name: &str| told.get(name).and_then(Value::as_u64).unwrap_or(0);
    let text = |name: &str| told.get(name).and_then(Value::as_str).filter(|text| !text.is_empty()).map(one_line);
    let (bytes, copied) = (count("bytes"), count("copied"));
    let mut rows =
        vec![("objects", grouped(count("objects"))), ("copied", grouped(copied)), ("skipped", grouped(count("skipped")))];
    // Zeros that everybody expects say nothing; what has a row in every case is what was asked for.
    let others = [
        ("overwritten", "overwritten"),
        ("inside the service", "copied_inside"),
        ("gone", "gone"),
        ("kept", "kept"),
        ("left out", "left_out"),
        ("warnings", "warnings"),
    ];
    for (name, key) in others {
        if count(key) > 0 {
            rows.push((name, grouped(count(key))));
        }
    }
    rows.push(("deleted", grouped(count("deleted"))));
    rows.push(("failed", grouped(count("failed"))));
    rows.push(("bytes", format!("{} ({})", ByteSize(bytes), grouped(bytes))));
    rows.push(("time", Span(took).to_string()));
    let seconds = took.as_secs_f64();
    // What earlier attempts have copied was not copied in this time.
    if bytes > 0 && seconds > 0.0 && node.attempts == 1 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is not negative, and saturates")]
        let rate = Rate((bytes as f64 / seconds) as u64);
        rows.push(("rate", format!("{rate}, {:.0} objects/s", copied as f64 / seconds)));
    }
    // A terminal of 80 columns has room for it.
    rows.extend(speeds.iter().find(|speed| speed.step == node.path).map(|speed| ("over time", speed.blocks(60))));
    if is_done {
        rows.push(("verified", grouped(count("verified"))));
    }
    rows.extend(text("manifest").map(|path| ("manifest", from_here(&path))));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let mut table = String::new();
    for (name, value) in rows {
        let _ = writeln!(table, "  {name:width$}  {value}");
    }
    if !is_done {
        table.insert_str(0, "  so far:\n");
    }
    Some(table)
}

/// A path as it is from where the person stands.
fn from_here(path: &str) -> String {
    let here = std::env::current_dir().unwrap_or_default();
    Path::new(path).strip_prefix(here).map_or_else(|_| path.to_owned(), |path| path.display().to_string())
}

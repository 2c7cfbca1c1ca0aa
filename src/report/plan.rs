//! A plan as people read it: what each step would do, in the order in which they may start, both halves of the pivot.

use std::fmt::Write as _;

use super::style::{Style, Tone, padded};
use super::telling::{causes_and_help, counted, counted_u64, one_line};
use crate::engine::UndoDef;
use crate::executor::{Half, Plan, PlanState, Planned};
use crate::units::ByteSize;

/// The plan as text.
pub fn text(plan: &Plan, style: Style) -> String {
    let mut text = format!("plan of `{}`: {}\n", plan.pipeline, counted(leaves(plan).count(), "step", "steps"));
    for (name, value) in &plan.inputs {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _ = writeln!(text, "  {} {}", style.paint(Tone::Faint, &format!("{name}:")), one_line(&value));
    }
    let name = plan.steps.iter().map(|step| console::measure_text_width(step.step.as_str())).max().unwrap_or(0).min(40);
    let uses = plan.steps.iter().map(|step| console::measure_text_width(&step.uses)).max().unwrap_or(0).min(24);
    let pivot = if plan.steps.iter().any(|step| step.half == Half::Pivot && step.pivot_inside) {
        "the pivot lies inside this step: until there a rollback undoes it, from there on the run goes forward only"
    } else {
        "the pivot: once it has started, the run goes forward only"
    };
    for (half, heading) in [
        (Half::Before, if plan.has_pivot { "before the pivot: a rollback undoes these" } else { "" }),
        (Half::Pivot, pivot),
        (Half::After, "after the pivot"),
        (Half::Finally, "finally, whatever the outcome"),
    ] {
        let mut steps = plan.steps.iter().filter(|step| step.half == half).peekable();
        if steps.peek().is_none() {
            continue;
        }
        text.push('\n');
        if !heading.is_empty() {
            let _ = writeln!(text, "{}", style.paint(Tone::Strong, heading));
        }
        for step in steps {
            text.push_str(&step_text(step, name, uses, style));
        }
    }
    text.push('\n');
    text.push_str(&footer(plan, style));
    text
}

fn leaves(plan: &Plan) -> impl Iterator<Item = &Planned> {
    plan.steps.iter().filter(|step| step.state != PlanState::Group)
}

fn step_text(step: &Planned, name: usize, uses: usize, style: Style) -> String {
    let (sign, ascii, tone) = match step.state {
        PlanState::Ready if step.preview.as_ref().is_some_and(|preview| preview.already_done) => ("✓", "+", Tone::Good),
        PlanState::Ready => ("●", "*", Tone::Busy),
        PlanState::Later => ("○", "o", Tone::Faint),
        PlanState::Skipped => ("–", "-", Tone::Faint),
        PlanState::Group => ("▾", "v", Tone::Faint),
        PlanState::Approval => ("?", "?", Tone::Warn),
        PlanState::Failed if step.is_blocking => ("✗", "x", Tone::Bad),
        PlanState::Failed => ("!", "!", Tone::Warn),
    };
    // Once, not at every instance.
    let title = step.name.as_deref().filter(|_| !step.step.as_str().ends_with(']')).map(one_line);
    let does = [title, Some(does(step)).filter(|does| !does.is_empty())].into_iter().flatten().collect::<Vec<_>>().join(": ");
    let mut text = format!(
        "  {} {}  {}  {does}\n",
        style.paint(tone, style.sign(sign, ascii)),
        padded(step.step.as_str(), name),
        style.paint(Tone::Faint, &padded(&step.uses, uses)),
    );
    let margin = " ".repeat(name + uses + 8);
    let undo = undo(step);
    if !undo.is_empty() {
        let _ = writeln!(text, "{margin}{}", style.paint(Tone::Faint, &format!("undo: {undo}")));
    }
    for warning in step.preview.iter().flat_map(|preview| &preview.warnings).chain(&step.foreseen) {
        let _ = writeln!(text, "{margin}{} {}", style.paint(Tone::Warn, "!"), one_line(warning));
    }
    if let Some(failure) = &step.failure {
        for line in causes_and_help(failure) {
            let _ = writeln!(text, "{margin}{line}");
        }
    }
    text
}

fn does(step: &Planned) -> String {
    if let Some(failure) = &step.failure {
        let later = if step.is_blocking { "" } else { " (an earlier step may bring it)" };
        return format!("{}{later}", one_line(&failure.message));
    }
    match (&step.preview, step.state) {
        (Some(preview), _) if preview.already_done => format!("nothing: {}", one_line(&preview.does)),
        (Some(preview), _) => one_line(&preview.does),
        (None, PlanState::Approval) => format!("asks: {}", one_line(step.question.as_deref().unwrap_or("?"))),
        (None, PlanState::Skipped) => "does not run: its condition says no".to_owned(),
        (None, PlanState::Group) => String::new(),
        (None, _) => step.waits_for.as_deref().map(|waits| format!("known later: {}", one_line(waits))).unwrap_or_default(),
    }
}

fn undo(step: &Planned) -> String {
    if matches!(step.state, PlanState::Group | PlanState::Approval | PlanState::Skipped) || step.half != Half::Before {
        return String::new();
    }
    match (step.undo, &step.preview) {
        (UndoDef::Built, Some(preview)) => one_line(&preview.undo),
        (UndoDef::Built, None) => "as its type does".to_owned(),
        (UndoDef::Custom, _) => "as the pipeline says under `undo:`".to_owned(),
        (UndoDef::Skip, _) => "none, as the pipeline says".to_owned(),
        (UndoDef::Impossible, _) => "impossible".to_owned(),
        (UndoDef::Nothing, _) => String::new(),
    }
}

fn footer(plan: &Plan, style: Style) -> String {
    let mut text = String::new();
    let amounts: Vec<String> = plan
        .objects
        .map(|objects| counted_u64(objects, "object", "objects"))
        .into_iter()
        .chain(plan.bytes.map(|bytes| ByteSize(bytes).to_string()))
        .collect();
    if !amounts.is_empty() {
        let later = leaves(plan).filter(|step| step.state == PlanState::Later).count();
        let rest = if later > 0 {
            format!(", and what {} will find", counted(later, "later step", "later steps"))
        } else {
            String::new()
        };
        let _ = writeln!(text, "to move: {}{rest}", amounts.join(", "));
    }
    let blocking = plan.blocking().count();
    if blocking > 0 {
        let _ = writeln!(
            text,
            "{}",
            style.paint(Tone::Bad, &format!("{} in the way: a run would not start", counted(blocking, "step is", "steps are")))
        );
    } else {
        let warnings = plan.warnings().count();
        let told = if warnings > 0 { format!(", {}", counted(warnings, "warning", "warnings")) } else { String::new() };
        let _ = writeln!(text, "nothing was changed{told}");
    }
    text
}

//! `ferry rollback`: undoes what a run has started, last first.

use serde_json::{Value, json};
use std::fmt::Write as _;

use super::drive::{Drive, LOOK, Waiting, until_free};
use super::ending::{self, Asked};
use super::project::read_run;
use super::{Context, Exit, Fault, block_on, by};
use crate::engine::{Engine, Node, RunStatus, UndoDef};
use crate::executor::{ExecutorError, fold_run};
use crate::journal::{Journal, Request};
use crate::report::telling::counted;

/// Undo everything a run has started, last first
///
/// Steps that failed or were interrupted are undone too. It is journaled and can be killed and taken up again with the
/// same command. A run that is at work is told to stop and roll back; this command then waits for it.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Exit status 0 when everything was undone, 4 when something is left behind.\n\n\
    Examples:\n  ferry rollback last --plan\n  ferry rollback last\n  ferry rollback 0199c4 --past-pivot --yes\n\n\
    JSON: as `ferry run`; with --plan {\"run\", \"past_pivot\", \"steps\": [{\"step\", \"uses\", \"state\",\n      \
    \"undo\": \"built|custom|nothing|skip|impossible\"}]}, last started first.")]
pub struct Rollback {
    /// The run
    run: String,
    /// Show what would be undone, and do nothing
    #[arg(long)]
    plan: bool,
    /// Go back although the pivot has started
    #[arg(long)]
    past_pivot: bool,
    /// Do it without asking
    #[arg(short, long)]
    yes: bool,
}

impl Rollback {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let journal = if self.plan { context.journal()? } else { context.journal_to_write()? };
        let (run, engine) = read_run(&journal, &self.run)?;
        if self.plan {
            return show(context, &engine);
        }
        let is_live = journal.holder(&run)?.is_some();
        if is_live && engine.is_past_pivot() && !self.past_pivot {
            return Err(ExecutorError::PastPivot { run }.into());
        }
        if !self.yes && context.can_ask() {
            context.out.note(&text(&engine));
            if !Context::ask("undo these?") {
                return Err(Fault::wrong("nothing was done"));
            }
        }
        if journal.holder(&run)?.is_some() {
            return self.ask_runner(context, &journal, &run);
        }
        let drive = Drive::new(context, journal, crate::steps::builtin()).waiting(Waiting::default());
        let id = run.clone();
        drive.carry(&run, Asked::Rollback, async move |executor| executor.rollback(&id, self.past_pivot).await)
    }

    /// The run is at work in another process: that one undoes it, and this one says how it ended.
    fn ask_runner(&self, context: &Context, journal: &Journal, run: &str) -> Result<Exit, Fault> {
        context.out.note(&format!("run {run} is at work: its runner is asked to roll back"));
        block_on(async {
            journal.put(run, &Request::Rollback { by: by(), past_pivot: self.past_pivot }).await?;
            self.until_taken(journal, run).await?;
            Ok::<_, Fault>(until_free(journal, run).await?)
        })??;
        let (engine, _) = fold_run(journal, run)?;
        let exit = ending::exit_of(&engine, Asked::Rollback);
        if context.out.json {
            context.out.json_line(&ending::document(&engine, exit, &Value::Null))?;
        } else {
            context.out.text(&ending::text(&engine, None, &Value::Null, ""))?;
        }
        Ok(exit)
    }

    /// Waits until the runner has taken the request. It drops one that comes too late: the pivot may have started since
    /// this command has looked.
    async fn until_taken(&self, journal: &Journal, run: &str) -> Result<(), Fault> {
        while journal.letters(run, 0)?.iter().any(|letter| matches!(letter.request, Request::Rollback { .. })) {
            if journal.holder(run)?.is_none() {
                return Ok(());
            }
            tokio::time::sleep(LOOK).await;
        }
        let (engine, _) = fold_run(journal, run)?;
        let goes_back = matches!(engine.status(), RunStatus::RollingBack | RunStatus::RolledBack | RunStatus::RollbackFailed);
        if engine.is_past_pivot() && !self.past_pivot && !goes_back && journal.holder(run)?.is_some() {
            return Err(ExecutorError::PastPivot { run: run.to_owned() }.into());
        }
        Ok(())
    }
}

/// The steps that a rollback is about, last started first.
fn to_undo(engine: &Engine) -> Vec<&Node> {
    let mut nodes: Vec<&Node> =
        engine.steps().filter(|node| !node.is_group() && !node.is_finally && node.next_undo().is_some()).collect();
    nodes.sort_by_key(|node| std::cmp::Reverse(node.start_order));
    nodes
}

fn show(context: &Context, engine: &Engine) -> Result<Exit, Fault> {
    if context.out.json {
        let steps: Vec<Value> = to_undo(engine)
            .into_iter()
            .map(|node| json!({ "step": node.path, "uses": node.def.uses, "state": node.state, "undo": node.def.undo }))
            .collect();
        context.out.document(&json!({ "run": engine.run(), "past_pivot": engine.is_past_pivot(), "steps": steps }))?;
    } else {
        context.out.text(&text(engine))?;
    }
    Ok(Exit::Succeeded)
}

fn text(engine: &Engine) -> String {
    let nodes = to_undo(engine);
    let mut text =
        format!("a rollback of run {} is about {}", engine.run(), counted(nodes.len(), "started step", "started steps"));
    text.push_str(if nodes.is_empty() { "\n" } else { ", last first:\n" });
    let width = nodes.iter().map(|node| console::measure_text_width(node.path.as_str())).max().unwrap_or(0);
    for node in nodes {
        let says = match node.def.undo {
            UndoDef::Built => "is put back",
            UndoDef::Custom => "is undone as the pipeline says",
            UndoDef::Nothing => "has nothing to put back",
            UndoDef::Skip => "stays: the pipeline says `undo: skip`",
            UndoDef::Impossible => "stays: it cannot be undone",
        };
        let _ = writeln!(text, "  {:width$}  {}  {says}", node.path.as_str(), node.def.uses);
    }
    if engine.is_past_pivot() {
        text.push_str("the pivot has started: this needs --past-pivot\n");
    }
    text
}

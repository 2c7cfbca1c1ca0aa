//! `ferry logs`: what the steps of a run wrote.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;

use super::{Context, Exit, Fault, nearest};
use crate::engine::StepPath;
use crate::executor::{LogFile, LogLine, log_files};
use crate::journal::Journal;
use crate::report::telling::one_line;
use crate::steps::LogStream;

/// How often a followed log is looked at. Files have no way to tell that they grew which works on every system.
const LOOK: Duration = Duration::from_millis(200);

/// Show what the steps of a run wrote
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  ferry logs last\n  ferry logs last copy\n  ferry logs last -f\n  ferry logs last build --attempt 2\n\n\
    JSON lines: {\"step\", \"at\", \"attempt\", \"stream\": \"ferry|stdout|stderr\", \"text\"}\n\
    Lines are in the order of their time; secrets are masked where they were written."
)]
pub struct Logs {
    /// The run
    run: String,
    /// Only this step, and the steps inside it
    step: Option<String>,
    /// Stay, and show what is added, until the run has no runner any more
    #[arg(short, long)]
    follow: bool,
    /// Only this attempt
    #[arg(long, value_name = "NUMBER")]
    attempt: Option<u32>,
}

#[derive(Debug, Serialize)]
struct Line {
    step: StepPath,
    #[serde(flatten)]
    line: LogLine,
}

/// How far each log was read.
#[derive(Debug, Default)]
struct Read {
    files: std::collections::BTreeMap<StepPath, u64>,
}

impl Logs {
    pub(super) fn run(mut self, context: &Context) -> Result<Exit, Fault> {
        let journal = context.journal()?;
        let run = journal.find_run(&self.run)?;
        let folder = journal.run_dir(&run);
        if let Some(step) = &self.step {
            self.step = Some(known(&journal, &run, step)?);
        }
        let mut read = Read::default();
        loop {
            // Asked before reading: what is written up to the runner's end is then still read.
            let live = journal.holder(&run)?.is_some();
            let files =
                log_files(&folder).map_err(|error| Fault::wrong(format!("cannot read the logs of run `{run}`")).cause(error))?;
            let mut lines = Vec::new();
            for file in files.iter().filter(|file| self.wants(&file.step)) {
                lines.extend(read.more(file)?);
            }
            lines.retain(|line| self.attempt.is_none_or(|attempt| line.line.attempt == attempt));
            lines.sort_by_key(|line| line.line.at);
            self.show(context, &lines)?;
            if !self.follow || !live {
                return Ok(Exit::Succeeded);
            }
            std::thread::sleep(LOOK);
        }
    }

    fn wants(&self, step: &StepPath) -> bool {
        self.step.as_deref().is_none_or(|wanted| {
            let rest = step.as_str().strip_prefix(wanted);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '[']))
        })
    }

    fn show(&self, context: &Context, lines: &[Line]) -> Result<(), Fault> {
        if context.out.json {
            for line in lines {
                context.out.json_line(line)?;
            }
            return Ok(());
        }
        let mut text = String::new();
        for Line { step, line } in lines {
            let name = if self.step.as_deref() == Some(step.as_str()) { String::new() } else { format!("{step} ") };
            let sign = match line.stream {
                LogStream::Stdout => console::style("│"),
                LogStream::Stderr => console::style("│").yellow(),
                LogStream::Ferry => console::style("·").dim(),
            };
            let time = console::style(line.at.strftime("%H:%M:%S").to_string()).dim();
            let _ = writeln!(text, "{time} {name}{sign} {}", one_line_keeping_lead(&line.text));
        }
        if !text.is_empty() {
            context.out.text(&text)?;
        }
        Ok(())
    }
}

/// A step that never wrote has no file: whether it is a step says the journal.
fn known(journal: &Journal, run: &str, step: &str) -> Result<String, Fault> {
    let (_, engine) = super::project::read_run(journal, run)?;
    let path = super::project::step_named(&engine, step);
    if engine.step(&path).is_some() {
        return Ok(path.as_str().to_owned());
    }
    let near = nearest(step, engine.steps().map(|node| node.path.as_str()));
    Err(Fault::wrong(format!("run `{run}` has no step `{step}`"))
        .help(near.map_or_else(|| format!("`ferry show {run}` lists its steps"), |near| format!("did you mean `{near}`?"))))
}

/// Indentation means something in logs.
fn one_line_keeping_lead(text: &str) -> String {
    let lead = text.len() - text.trim_start_matches(' ').len();
    format!("{}{}", &text[..lead], one_line(text))
}

impl Read {
    fn more(&mut self, file: &LogFile) -> Result<Vec<Line>, Fault> {
        let from = self.files.entry(file.step.clone()).or_default();
        let (lines, at) = file
            .read(*from)
            .map_err(|error| Fault::wrong(format!("cannot read the log of step `{}`", file.step)).cause(error))?;
        *from = at;
        Ok(lines.into_iter().map(|line| Line { step: file.step.clone(), line }).collect())
    }
}

//! `ferry doctor`: what is missing on this machine, and on hosts.

mod host;
mod uploads;

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use self::host::Patient;
use super::{Context, Exit, Fault, block_on, nearest};
use crate::journal::{Journal, JournalError};
use crate::pipeline::{HostSpec, Loaded, SecretSpec};
use crate::units::Span;

/// Every event is on disk before anything follows from it: a disk slower than this is felt.
const SLOW_DISK: Duration = Duration::from_millis(50);

/// Say what is missing on this machine, on hosts and for a pipeline, and what syncs have left unfinished; change nothing unasked
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Exit status 2 when something is missing.\n\nExamples:\n  ferry doctor\n  ferry doctor --abort-uploads\n  ferry doctor pipelines/shop.yaml\n  \
    ferry doctor pipelines/shop.yaml --host source\n  ferry doctor --host ubuntu@db.aws.example\n\n\
    JSON: {\"ok\", \"checks\": [{\"name\", \"state\": \"fine|odd|missing\", \"says\", \"help\"}]}"
)]
pub struct Doctor {
    /// A pipeline whose secrets, hosts and programs are looked for too
    #[arg(value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    file: Option<PathBuf>,
    /// A host: one of FILE by name, else what one would write behind `ssh`; and nothing but hosts is looked at
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Throw unfinished uploads away that this project's runs have begun and no unfinished run needs
    #[arg(long)]
    abort_uploads: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Fine,
    Odd,
    Missing,
}

#[derive(Debug, Clone, Serialize)]
struct Check {
    name: String,
    state: State,
    says: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<String>,
}

impl Check {
    fn new(name: impl Into<String>, state: State, says: impl Into<String>) -> Self {
        Self { name: name.into(), state, says: says.into(), help: None }
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}

impl Doctor {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let mut checks = Vec::new();
        if self.hosts.is_empty() {
            checks = vec![version(), shell(), certificates()];
            checks.extend(runs(context)?);
            checks.extend(block_on(uploads::check(context, self.abort_uploads))??);
        }
        let mut patients = Vec::new();
        match &self.file {
            None => {
                for name in &self.hosts {
                    patients.push(Patient::of_name(name)?);
                }
            }
            Some(file) => {
                let registry = crate::steps::builtin();
                let loaded = context.load(file, registry.catalogue())?;
                if self.hosts.is_empty() {
                    checks.extend(pipeline(&loaded, file));
                }
                let base = file.parent().unwrap_or(Path::new(""));
                for name in self.named(&loaded)? {
                    patients.push(Patient::of_pipeline(&name, &loaded.pipeline, registry.catalogue(), base)?);
                }
            }
        }
        // Side by side: one that does not answer does not hold the others up.
        let looks = async { futures::future::join_all(patients.iter().map(Patient::checks)).await };
        checks.extend(block_on(looks)?.into_iter().flatten());
        let ok = checks.iter().all(|check| check.state != State::Missing);
        if context.out.json {
            context.out.document(&json!({ "ok": ok, "checks": checks }))?;
        } else {
            context.out.text(&text(&checks))?;
        }
        Ok(if ok { Exit::Succeeded } else { Exit::Wrong })
    }
}

impl Doctor {
    /// The hosts of a pipeline that are meant: those that are named, else all by SSH.
    fn named(&self, loaded: &Loaded) -> Result<Vec<String>, Fault> {
        let hosts = &loaded.pipeline.hosts;
        if self.hosts.is_empty() {
            let by_ssh = hosts.iter().filter(|(_, spec)| matches!(spec, HostSpec::Ssh(_)));
            return Ok(by_ssh.map(|(name, _)| name.clone()).collect());
        }
        if let Some(name) = self.hosts.iter().find(|name| *name != "local" && !hosts.contains_key(*name)) {
            let fault = Fault::wrong(format!("the pipeline has no host `{name}`"));
            return Err(fault.help(match nearest(name, hosts.keys().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "leave FILE out to look at a machine by its address".to_owned(),
            }));
        }
        Ok(self.hosts.clone())
    }
}

fn text(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let sign = match check.state {
            State::Fine => console::style("✓").green(),
            State::Odd => console::style("!").yellow(),
            State::Missing => console::style("✗").red(),
        };
        let _ = writeln!(text, "{sign} {:width$}  {}", check.name, check.says);
        if let Some(help) = &check.help {
            let _ = writeln!(text, "  {:width$}  help: {help}", "");
        }
    }
    text
}

fn version() -> Check {
    let says = format!("{} on {} {}", env!("CARGO_PKG_VERSION"), std::env::consts::OS, std::env::consts::ARCH);
    Check::new("ferry", State::Fine, says)
}

fn shell() -> Check {
    match Command::new("sh").args(["-c", "exit 0"]).status() {
        Ok(status) if status.success() => Check::new("sh", State::Fine, "runs"),
        Ok(status) => Check::new("sh", State::Missing, format!("ends with {status}")),
        Err(error) => {
            Check::new("sh", State::Missing, error.to_string()).help("`command` steps with `run: TEXT` need a POSIX shell")
        }
    }
}

fn certificates() -> Check {
    match reqwest::Client::builder().build() {
        Ok(_) => Check::new("TLS", State::Fine, "certificates of this machine are found"),
        Err(error) => Check::new("TLS", State::Missing, error.to_string()).help("install the package `ca-certificates`"),
    }
}

/// Where runs are kept: whether the journal there can be read, and whether and how fast the disk takes a write.
fn runs(context: &Context) -> Result<Vec<Check>, Fault> {
    let folder = context.store_of_here()?;
    let shown = folder.display();
    let mut checks = Vec::new();
    match Journal::read(&folder).and_then(|journal| journal.runs()) {
        Ok(runs) => {
            let live = runs.iter().filter(|run| run.live).count();
            checks.push(Check::new("journal", State::Fine, format!("{shown}: {} runs, {live} at work", runs.len())));
        }
        Err(JournalError::Missing { .. }) => {
            checks.push(Check::new("journal", State::Fine, format!("none yet; the first run makes `{shown}`")));
        }
        Err(error) => checks.push(Check::new("journal", State::Missing, error.to_string()).help(error.help_text())),
    }
    let place = folder.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("."));
    checks.push(match time_of_write(place) {
        Ok(took) if took > SLOW_DISK => Check::new("disk", State::Odd, format!("a write takes {} to be durable", Span(took)))
            .help("every event waits for the disk: keep runs on a local one with `--store`"),
        Ok(took) => Check::new("disk", State::Fine, format!("a write takes {} to be durable", Span(took))),
        Err(error) => Check::new("disk", State::Missing, format!("cannot write in `{}`: {error}", place.display()))
            .help("name another folder for runs with `--store`"),
    });
    Ok(checks)
}

/// The best of three, in a file that goes away again.
fn time_of_write(folder: &Path) -> std::io::Result<Duration> {
    let mut file = tempfile::tempfile_in(folder)?;
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let start = Instant::now();
        file.write_all(&[0; 512])?;
        file.sync_data()?;
        best = best.min(start.elapsed());
    }
    Ok(best)
}

fn pipeline(loaded: &Loaded, file: &Path) -> Vec<Check> {
    let pipeline = &loaded.pipeline;
    let mut checks = vec![Check::new("pipeline", State::Fine, format!("`{}` is fine", pipeline.name))];
    for (name, spec) in &pipeline.secrets {
        let label = format!("secret {name}");
        checks.push(match spec {
            // A template in it is known only to a run.
            SecretSpec::Env(text) | SecretSpec::File(text) if text.contains("{{") => {
                Check::new(label, State::Fine, "depends on the inputs of a run")
            }
            SecretSpec::Env(variable) if std::env::var_os(variable).is_some() => {
                Check::new(label, State::Fine, format!("the variable `{variable}` is set"))
            }
            SecretSpec::Env(variable) => Check::new(label, State::Missing, format!("the variable `{variable}` is not set"))
                .help(format!("`export {variable}=…` before `ferry run`")),
            SecretSpec::File(path) => {
                let path = file.parent().unwrap_or(Path::new("")).join(path);
                match std::fs::File::open(&path) {
                    Ok(_) => Check::new(label, State::Fine, format!("`{}` can be read", path.display())),
                    Err(error) => Check::new(label, State::Missing, format!("cannot read `{}`: {error}", path.display())),
                }
            }
            SecretSpec::Command(_) => Check::new(label, State::Fine, "comes from a command, which a run starts"),
        });
    }
    checks
}

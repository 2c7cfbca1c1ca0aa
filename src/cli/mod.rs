//! The command line: one file per command.
//!
//! In: arguments. Out: an exit status, what was asked for on stdout, everything else on stderr. Never here: a decision
//! about a run (the engine's), or work on hosts and stores (the executor's and the steps').
#![allow(clippy::needless_pass_by_value, reason = "a command consumes its parsed arguments")]

mod approve;
mod base;
mod cancel;
mod check;
mod completions;
mod diff;
mod doctor;
mod drive;
mod ending;
mod exit;
mod fault;
mod graph;
mod init;
mod load;
mod logs;
mod ls;
mod output;
mod places;
mod plan;
mod project;
mod reference;
mod report;
mod resume;
mod rollback;
mod run;
mod runs;
mod schema;
mod show;
mod steps;
mod sync;
mod trial;
mod wal;
mod why;

use std::ffi::OsString;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use exit::Exit;
pub use fault::Fault;
pub use output::Output;
pub use reference::manual;

/// Moves running services and their data from one cloud to another.
///
/// A pipeline is a YAML file: a DAG of typed steps. ferry checks it, shows what it would do, runs it, and can be killed
/// at any moment and resumed, or rolled back.
#[derive(Debug, Parser)]
#[command(name = "ferry", version, propagate_version = false, disable_help_subcommand = true)]
#[command(after_help = exit_statuses(), max_term_width = 110)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every command takes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// One JSON document (JSON lines for streams) on stdout instead of text for people.
    #[arg(long, global = true)]
    pub json: bool,
    /// Where runs live: `sqlite:PATH` or a directory. Else `.ferry/` beside the pipeline's project.
    #[arg(long, global = true, env = "FERRY_STORE", value_name = "STORE", hide_env_values = true)]
    pub store: Option<String>,
    /// How the log on stderr is written.
    #[arg(long, global = true, value_enum, default_value_t = LogFormat::Human, value_name = "FORMAT", hide_possible_values = true)]
    pub log_format: LogFormat,
    /// Log more on stderr, what steps write included: -v, -vv, -vvv.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// No colours. The variable `NO_COLOR` says the same.
    #[arg(long, global = true)]
    pub no_color: bool,
    /// Work as if started in this directory.
    #[arg(short = 'C', global = true, value_name = "DIR")]
    pub directory: Option<PathBuf>,
}

/// How the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Human,
    /// A JSON object per line.
    Json,
}

/// Every command, in the order of a migration.
#[derive(Debug, Subcommand)]
enum Command {
    Check(check::Check),
    Plan(plan::Plan),
    Run(run::Run),
    Resume(resume::Resume),
    Rollback(rollback::Rollback),
    Cancel(cancel::Cancel),
    Approve(approve::Approve),
    Why(why::Why),
    Trial(trial::Trial),
    Diff(diff::Diff),
    Runs(runs::Runs),
    Show(show::Show),
    Logs(logs::Logs),
    Report(report::Report),
    Graph(graph::Graph),
    Steps(steps::Steps),
    Schema(schema::Schema),
    Sync(sync::Sync),
    Ls(ls::Ls),
    Wal(wal::Wal),
    Base(base::Base),
    Init(init::Init),
    Doctor(doctor::Doctor),
    Completions(completions::Completions),
}

/// What a command is given besides its own arguments.
#[derive(Debug)]
pub struct Context {
    /// What every command takes.
    pub global: Global,
    /// Where words go.
    pub out: Output,
}

/// Entry point of the binary.
pub fn main() -> ExitCode {
    start(std::env::args_os().collect()).into()
}

fn start(args: Vec<OsString>) -> Exit {
    let cli = match Cli::try_parse_from(&args) {
        Ok(cli) => cli,
        Err(error) => return wrong_command_line(&error, &args),
    };
    let out = Output::new(cli.global.json, cli.global.no_color);
    let context = Context { global: cli.global, out };
    match context.dispatch(cli.command) {
        Ok(exit) => exit,
        Err(fault) => fault.report(out),
    }
}

impl Context {
    fn dispatch(&self, command: Command) -> Result<Exit, Fault> {
        if let Some(directory) = &self.global.directory {
            std::env::set_current_dir(directory)
                .map_err(|error| Fault::wrong(format!("cannot work in `{}`", directory.display())).cause(error))?;
        }
        self.start_log();
        match command {
            Command::Check(args) => args.run(self),
            Command::Plan(args) => args.run(self),
            Command::Run(args) => args.run(self),
            Command::Resume(args) => args.run(self),
            Command::Rollback(args) => args.run(self),
            Command::Cancel(args) => args.run(self),
            Command::Approve(args) => args.run(self),
            Command::Why(args) => args.run(self),
            Command::Trial(args) => args.run(self),
            Command::Diff(args) => args.run(self),
            Command::Show(args) => args.run(self),
            Command::Runs(args) => args.run(self),
            Command::Report(args) => args.run(self),
            Command::Logs(args) => args.run(self),
            Command::Graph(args) => args.run(self),
            Command::Schema(args) => args.run(self),
            Command::Steps(args) => args.run(self),
            Command::Sync(args) => args.run(self),
            Command::Ls(args) => args.run(self),
            Command::Wal(args) => args.run(self),
            Command::Base(args) => args.run(self),
            Command::Init(args) => args.run(self),
            Command::Doctor(args) => args.run(self),
            Command::Completions(args) => args.run(self),
        }
    }

    /// The program's own log on stderr. Other crates' words stay out: they know nothing of secrets, and some write what
    /// they send. `FERRY_LOG` takes what `-v` cannot say (`ferry=debug,opendal=trace`), at the reader's own risk.
    fn start_log(&self) {
        let level = match self.global.verbose {
            0 => "off,ferry=warn",
            1 => "off,ferry=info",
            2 => "off,ferry=debug",
            _ => "off,ferry=trace",
        };
        let filter = tracing_subscriber::EnvFilter::try_from_env("FERRY_LOG")
            .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false);
        // A second start in one process (tests) keeps the first log.
        let _ = match self.global.log_format {
            LogFormat::Human => log.with_ansi(console::colors_enabled_stderr()).compact().try_init(),
            LogFormat::Json => log.json().flatten_event(true).try_init(),
        };
    }
}

/// clap's own words, on the stream and with the exit status of this program. `--json` may stand anywhere, also in a
/// command line that cannot be parsed.
fn wrong_command_line(error: &clap::Error, args: &[OsString]) -> Exit {
    if !error.use_stderr() {
        let _ = error.print();
        return Exit::Succeeded;
    }
    if args.iter().any(|arg| arg == "--json") {
        let text = error.render().to_string();
        // What is missing, or what may stand there, is told in lines of its own.
        let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        let message = lines.join(" ").trim_start_matches("error: ").to_owned();
        let help = text
            .lines()
            .map(str::trim)
            .find_map(|line| line.strip_prefix("tip: "))
            .unwrap_or("`ferry --help` lists the commands");
        return Fault::wrong(message).help(help).report(Output { json: true });
    }
    let _ = error.print();
    if wal::is_fetch(args) { Exit::StopsRecovery } else { Exit::Wrong }
}

/// Who is at the keyboard: `user@host`.
fn by() -> String {
    let host = hostname::get().map_or_else(|_| "?".to_owned(), |host| host.to_string_lossy().into_owned());
    format!("{}@{host}", account())
}

/// The name of the account that this process runs under. Not from the environment, where everybody may write any name:
/// an approval names who may give it. An account without a name is its number.
fn account() -> String {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(process) = std::fs::metadata("/proc/self") else { return named().unwrap_or_else(|| "?".to_owned()) };
    let id = process.uid().to_string();
    let accounts = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let account = accounts.lines().find(|line| line.split(':').nth(2) == Some(id.as_str()));
    let listed = account.and_then(|line| line.split(':').next()).map(str::to_owned);
    // Accounts of a directory service are in no file.
    listed.or_else(named).unwrap_or(id)
}

/// What the system's own `id` says.
fn named() -> Option<String> {
    let said = std::process::Command::new("/usr/bin/id").arg("-un").output().ok().filter(|said| said.status.success())?;
    let name = String::from_utf8(said.stdout).ok()?.trim().to_owned();
    (!name.is_empty()).then_some(name)
}

/// How long work on the disk is waited for when everything else is over.
const LAST_WAIT: std::time::Duration = std::time::Duration::from_millis(500);

/// Runs a future to its end. Only commands that need one start a runtime: `ferry --version` does not pay for it.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, Fault> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Fault::wrong("cannot start the runtime").cause(error).exit(Exit::Failed))?;
    let result = runtime.block_on(future);
    // Disk work that hangs must not hold the process: what was begun on a file is whole or nothing at any moment.
    runtime.shutdown_timeout(LAST_WAIT);
    Ok(result)
}

/// The name that was probably meant.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len() / 4)
        .min()
        .map(|(_, candidate)| candidate)
}

fn exit_statuses() -> String {
    let mut text = String::from("Exit status:\n");
    for exit in Exit::ALL {
        let _ = writeln!(text, "  {:>3}  {}", exit.code(), exit.meaning());
    }
    text.push_str("\nRUN is a run's id, a unique prefix of it, or `last`. `ferry COMMAND --help` shows examples and the JSON.");
    text
}

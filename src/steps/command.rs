//! `command`: a program of the user's, run on a host.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::scalar::{Line, Scalar};
use super::{LogStream, Preview, Step, StepContext};
use crate::catalogue::{Background, Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::hosts::{Finished, Invocation, SECRET_ARGUMENT, STDOUT_KEPT};
use crate::secret::{Text, is_marked};

/// Runs a command on a host.
///
/// The command runs in the pipeline's folder, on the machine that the step's `on` names. It finds `FERRY_RUN`,
/// `FERRY_STEP`, `FERRY_ATTEMPT` and `FERRY_KEY` in its environment; the key is the same for every attempt of this step
/// in this run and different for every other, so it can name what must not be created twice.
///
/// Secrets go into `env` or `stdin`: a secret in `run` itself is refused, because every user of a machine can read the
/// arguments of every program. What the command writes goes to the log, secrets masked.
///
/// After an interruption it runs again, so write commands that may run twice, or give a `check`: a command whose
/// success means that the work is already done. With a `check`, ferry asks first and runs the command only when
/// there is still something to do.
///
/// A cancel sends SIGTERM to the command and all it started, and SIGKILL ten seconds later. When ferry itself dies,
/// they die with it. What a command leaves in the background when it ends is left alone; redirect its outputs.
///
/// Undo runs the `undo` command if there is one, unless the work was already done before the step began. Without one
/// there is nothing to undo.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// What to run: a string goes to `sh -c`, a list is executed as it is.
    #[schemars(extend("x-public" = SECRET_ARGUMENT))]
    run: Line,
    /// Added to the environment of `run`, `check` and `undo`. The right place for secrets.
    #[serde(default)]
    env: BTreeMap<String, Scalar>,
    /// Where to run it; the pipeline's folder, unless given. A relative path starts there.
    #[serde(default)]
    #[schemars(extend("x-public" = SECRET_ARGUMENT))]
    workdir: Option<String>,
    /// The user to run all of it as: the host's own `become`, or who logs in there, unless given. On this machine only
    /// root may become another.
    #[serde(default, rename = "become")]
    run_as: Option<String>,
    /// What `run` reads from its standard input.
    #[serde(default)]
    stdin: Option<Text>,
    /// A command that changes nothing and succeeds when the work is already done.
    #[serde(default)]
    #[schemars(extend("x-public" = SECRET_ARGUMENT))]
    check: Option<Line>,
    /// A command that takes back what `run` did. It runs also when `run` failed half-way, and may run twice.
    #[serde(default)]
    #[schemars(extend("x-public" = SECRET_ARGUMENT))]
    undo: Option<Line>,
    /// What to keep of the standard output: nothing, one text, its lines, or the JSON value it is.
    #[serde(default)]
    outputs: Keep,
    /// The exit codes that mean success.
    #[serde(default = "zero")]
    ok_codes: Vec<i32>,
    /// The exit codes of failures that may pass by themselves: the step's `retry` applies to these. Every other code
    /// stops at once. 75 is the code that mail programs use for "try again later".
    #[serde(default = "temporary")]
    retry_codes: Codes,
}

/// What is kept of a command's standard output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Keep {
    /// Nothing.
    #[default]
    None,
    /// All of it as `outputs.text`, without the last line end.
    Text,
    /// Its lines as the list `outputs.lines`.
    Lines,
    /// The JSON value that it is, as `outputs.json`.
    Json,
}

/// Exit codes.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Codes {
    /// These.
    These(Vec<i32>),
    /// Every one.
    Any(Any),
}

/// The word `any`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Any {
    /// Every code.
    Any,
}

fn zero() -> Vec<i32> {
    vec![0]
}

fn temporary() -> Codes {
    Codes::These(vec![75])
}

/// What `check` said before the step began.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    /// Whether the work was already done; nothing when there is no `check`.
    already_done: Option<bool>,
}

/// What a command leaves.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct Output {
    /// Whether it ran: false when `check` said that the work was already done.
    ran: bool,
    /// Its exit code; nothing when it did not run, or was ended as a background step.
    code: Option<i32>,
    /// Its standard output with `outputs: text`.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// The lines of its standard output with `outputs: lines`.
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<Vec<String>>,
    /// The value that its standard output is with `outputs: json`.
    #[serde(skip_serializing_if = "Option::is_none")]
    json: Option<Value>,
}

impl Command {
    async fn execute(&self, ctx: &StepContext, line: &Line, stdin: Option<Text>) -> Result<Finished, StepError> {
        let host = ctx.host()?;
        let workdir = if host.is_local() {
            let workdir = self.workdir.as_ref().map_or_else(|| ctx.base.clone(), |workdir| ctx.resolve_path(workdir));
            Some(workdir.to_string_lossy().into_owned())
        } else {
            self.workdir.clone()
        };
        let mut env: BTreeMap<String, Text> = BTreeMap::from([
            ("FERRY_RUN".to_owned(), Text::new(&*ctx.attempt.run)),
            ("FERRY_STEP".to_owned(), Text::new(&*ctx.attempt.step)),
            ("FERRY_ATTEMPT".to_owned(), Text::new(ctx.attempt.number.to_string())),
            ("FERRY_KEY".to_owned(), Text::new(ctx.idempotence_key())),
        ]);
        env.extend(self.env.iter().map(|(name, Scalar(value))| (name.clone(), value.clone())));
        let invocation = Invocation { argv: line.argv(), env, workdir, stdin, run_as: self.run_as.clone() };
        let on_line = |is_stderr: bool, line: &str| {
            ctx.signals.log(if is_stderr { LogStream::Stderr } else { LogStream::Stdout }, line);
        };
        // A background command is told to end in the same way when its duty is done.
        let stop = ctx.cancel.child_token();
        let running = host.execute(&invocation, &ctx.vault, &stop, &on_line);
        tokio::pin!(running);
        tokio::select! {
            finished = &mut running => return finished,
            () = ctx.over.cancelled() => stop.cancel(),
        }
        running.await
    }

    /// A secret in an argument would be refused by the host; a plan says so before anything has begun.
    fn refuse_secret_arguments(&self) -> Result<(), StepError> {
        let lines = [Some(&self.run), self.check.as_ref(), self.undo.as_ref()];
        let public = lines.into_iter().flatten().flat_map(Line::argv).chain(self.workdir.clone());
        match public.into_iter().find(|text| is_marked(text)) {
            None => Ok(()),
            Some(text) => Err(crate::hosts::secret_argument(&text)),
        }
    }

    /// Whether `check` says that the work is done. Any exit code but 0 says no: the tool it asks may not be there yet.
    async fn is_done(&self, ctx: &StepContext, check: &Line) -> Result<bool, StepError> {
        let finished = self.execute(ctx, check, None).await?;
        if finished.was_asked {
            return Err(ctx.stopped());
        }
        match finished.code {
            Some(code) => Ok(code == 0),
            None => Err(StepError::transient(format!("the check `{}` {}", check.title(), ended(&finished)))),
        }
    }

    /// A failure by its exit code, one by one.
    fn refused(&self, what: &str, line: &Line, finished: &Finished) -> StepError {
        let said = finished.stderr_tail.lines().rev().find(|line| !line.trim().is_empty());
        let said = said.map(|line| format!(": {}", line.trim())).unwrap_or_default();
        let message = format!("{what} `{}` {}{said}", line.title(), ended(finished));
        let can_pass = match (&self.retry_codes, finished.code) {
            (Codes::Any(_), Some(_)) => true,
            (Codes::These(codes), Some(code)) => codes.contains(&code),
            (_, None) => false,
        };
        let error = match finished.code {
            Some(_) if can_pass => StepError::transient(message).help("it is tried again as `retry` says"),
            Some(126) => StepError::permanent(message).help("the program was found but may not be executed"),
            Some(127) => StepError::permanent(message).help("a program that it names was not found: install it, or write its whole path"),
            Some(_) => StepError::permanent(message)
                .help("`ferry logs` shows all it wrote; list the code in `retry_codes` when trying again can help, in `ok_codes` when it is no failure"),
            // Somebody or something ended it from outside: nobody here knows how far it came.
            None => StepError::permanent(message).help("out of memory, or somebody ended it; resume the run to try again"),
        };
        if finished.stderr_tail.is_empty() { error } else { error.cause(finished.stderr_tail.clone()) }
    }

    fn keep(&self, finished: Finished) -> Result<Output, StepError> {
        let output = Output { ran: true, code: finished.code, ..Output::default() };
        if self.outputs == Keep::None {
            return Ok(output);
        }
        if finished.stdout_cut {
            return Err(StepError::permanent(format!(
                "`{}` wrote more than {} to its standard output, and its outputs are wanted",
                self.run.title(),
                crate::units::ByteSize(STDOUT_KEPT as u64)
            ))
            .help("write less, write to a file, or take `outputs: none`"));
        }
        let text = String::from_utf8(finished.stdout).map_err(|_| {
            StepError::permanent(format!("the standard output of `{}` is not UTF-8 text", self.run.title()))
                .help("have it write text, for example through `base64`, or take `outputs: none`")
        })?;
        Ok(match self.outputs {
            Keep::None => output,
            Keep::Text => Output { text: Some(text.trim_end_matches(['\n', '\r']).to_owned()), ..output },
            Keep::Lines => Output { lines: Some(text.lines().map(str::to_owned).collect()), ..output },
            Keep::Json => {
                let value = serde_json::from_str(&text).map_err(|error| {
                    StepError::permanent(format!("the standard output of `{}` is not JSON", self.run.title()))
                        .cause(error)
                        .help("have it write one JSON value and nothing else; messages belong on standard error")
                })?;
                Output { json: Some(value), ..output }
            }
        })
    }
}

/// How a program ended, for people.
fn ended(finished: &Finished) -> String {
    match (finished.code, finished.signal) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by {}", signal_name(signal)),
        (None, None) => "ended in an unknown way".to_owned(),
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        14 => "SIGALRM",
        15 => "SIGTERM",
        24 => "SIGXCPU",
        25 => "SIGXFSZ",
        other => return format!("signal {other}"),
    };
    format!("{name} ({signal})")
}

impl Step for Command {
    const TYPE: &'static str = "command";
    const EXAMPLE: &'static str = r#"
id: schema
uses: command
with:
  run: psql -v ON_ERROR_STOP=1 -f schema.sql
  env: { PGHOST: db.acme.example, PGPASSWORD: "{{ secrets.db }}" }
  check: psql -c 'select 1 from orders limit 0'
  undo: psql -c 'drop table if exists orders'
"#;
    const BACKGROUND: Background = Background::ReadyAtStart;
    const TOOLS: &'static [&'static str] = &["sh"];

    type Before = Before;
    type Output = Output;

    fn traits(with: &Value) -> Traits {
        let given = |key: &str| with.get(key).is_some_and(|value| !value.is_null());
        Traits {
            undo: if given("undo") { Undo::Built } else { Undo::Nothing },
            interrupted: if given("check") { Interrupted::LookFirst } else { Interrupted::RunAgain },
        }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Before, StepError> {
        self.refuse_secret_arguments()?;
        let already_done = match &self.check {
            Some(check) => Some(self.is_done(ctx, check).await?),
            None => None,
        };
        Ok(Before { already_done })
    }

    fn preview(&self, before: &Before) -> Preview {
        let already_done = before.already_done == Some(true);
        let does = if already_done {
            format!("nothing: `{}` says that it is done", self.check.as_ref().map(Line::title).unwrap_or_default())
        } else {
            format!("runs `{}`", self.run.title())
        };
        let undo = match &self.undo {
            Some(_) if already_done => "nothing: it was done before".to_owned(),
            Some(undo) => format!("runs `{}`", undo.title()),
            None => "nothing to undo".to_owned(),
        };
        Preview { does, undo, already_done, ..Preview::default() }
    }

    async fn run(&self, ctx: &StepContext, _: &Before) -> Result<Output, StepError> {
        if let Some(check) = &self.check
            && self.is_done(ctx, check).await?
        {
            ctx.log(format!("`{}` says that the work is done", check.title()));
            return Ok(Output::default());
        }
        let finished = self.execute(ctx, &self.run, self.stdin.clone()).await?;
        // Only who was asked to stop was stopped: one that came to its end meanwhile has done what it has done, and one
        // that catches the signal and exits with 0 has not.
        if finished.was_asked {
            // In the background it served until its duty was over; how it takes the signal is its own business.
            return if ctx.cancel.is_cancelled() { Err(ctx.stopped()) } else { self.keep(finished) };
        }
        match finished.code {
            Some(code) if self.ok_codes.contains(&code) => self.keep(finished),
            _ => Err(self.refused("the command", &self.run, &finished)),
        }
    }

    async fn undo(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let Some(undo) = &self.undo else { return Ok(()) };
        if before.already_done == Some(true) {
            return Ok(());
        }
        let finished = self.execute(ctx, undo, None).await?;
        match finished.code {
            _ if finished.was_asked => Err(ctx.stopped()),
            Some(0) => Ok(()),
            _ => Err(self.refused("the undo", undo, &finished)),
        }
    }
}

//! `validate.command`: what a program says has to be what is expected.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{in_time, rounded};
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::hosts::{Invocation, SECRET_ARGUMENT, secret_argument};
use crate::secret::{Text, is_marked};
use crate::steps::http::differs;
use crate::steps::scalar::{Line, Scalar};
use crate::steps::{LogStream, Preview, Step, StepContext};
use crate::units::Span;

/// Runs a command that changes nothing, and fails unless it says what is expected.
///
/// The command runs on the machine that the step's `on` names. Its exit code has to be one of `codes`, and its standard
/// output has to be, to contain, or as JSON to hold what is given; without any of these the exit code decides alone.
/// Secrets go into `env` or `stdin`.
///
/// Anything else than expected fails at once; an answer that comes too late, or none, is asked for again as `retry` says.
///
/// After an interruption it is run again. There is nothing to undo.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValidateCommand {
    /// What to run: a string goes to `sh -c`, a list is executed as it is.
    #[schemars(extend("x-public" = SECRET_ARGUMENT))]
    run: Line,
    /// Added to its environment. The right place for secrets.
    #[serde(default)]
    env: BTreeMap<String, Scalar>,
    /// Where to run it; the pipeline's folder, or the login folder on another host, unless given.
    #[serde(default)]
    #[schemars(extend("x-public" = SECRET_ARGUMENT))]
    workdir: Option<String>,
    /// The user to run it as: the host's own `become`, or who logs in there, unless given. On this machine only root may
    /// become another.
    #[serde(default, rename = "become")]
    run_as: Option<String>,
    /// What it reads from its standard input.
    #[serde(default)]
    stdin: Option<Text>,
    /// The exit codes that are expected.
    #[serde(default = "zero")]
    codes: Vec<i32>,
    /// What its standard output has to be, but for white space around it.
    #[serde(default)]
    equals: Option<Scalar>,
    /// What its standard output has to contain.
    #[serde(default)]
    contains: Option<Scalar>,
    /// What its standard output as JSON has to hold. Keys that are not named may be anything; lists have to be the same.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    json: Option<Value>,
    /// How long it may take to be good enough.
    #[serde(default)]
    within: Option<Span>,
}

fn zero() -> Vec<i32> {
    vec![0]
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Validated {
    /// The exit code.
    code: i32,
    /// How long it took.
    took: Span,
}

impl ValidateCommand {
    fn invocation(&self, ctx: &StepContext, is_local: bool) -> Result<Invocation, StepError> {
        let public = self.run.argv().into_iter().chain(self.workdir.clone());
        if let Some(marked) = public.into_iter().find(|text| is_marked(text)) {
            return Err(secret_argument(&marked));
        }
        let workdir = if is_local {
            let workdir = self.workdir.as_ref().map_or_else(|| ctx.base.clone(), |workdir| ctx.resolve_path(workdir));
            Some(workdir.to_string_lossy().into_owned())
        } else {
            self.workdir.clone()
        };
        let env = self.env.iter().map(|(name, Scalar(value))| (name.clone(), value.clone())).collect();
        Ok(Invocation { argv: self.run.argv(), env, workdir, stdin: self.stdin.clone(), run_as: self.run_as.clone() })
    }

    /// What its output differs in.
    fn differs(&self, ctx: &StepContext, stdout: &[u8]) -> Result<Option<String>, StepError> {
        use secrecy::ExposeSecret as _;
        let text = String::from_utf8_lossy(stdout);
        let short = |text: &str| ctx.vault.mask(text.trim()).chars().take(120).collect::<String>();
        if let Some(Scalar(wanted)) = &self.equals
            && text.trim() != ctx.reveal(wanted)?.expose_secret().trim()
        {
            return Ok(Some(format!("it says `{}`, not `{wanted}`", short(&text))));
        }
        if let Some(Scalar(wanted)) = &self.contains
            && !text.contains(ctx.reveal(wanted)?.expose_secret())
        {
            return Ok(Some(format!("it says `{}`, and nothing of `{wanted}`", short(&text))));
        }
        let Some(wanted) = &self.json else { return Ok(None) };
        Ok(match serde_json::from_str(&text) {
            Ok(found) => differs(ctx, wanted, &found, ""),
            Err(error) => Some(format!("it says no JSON: {error}")),
        })
    }
}

impl Step for ValidateCommand {
    const TYPE: &'static str = "validate.command";
    const EXAMPLE: &'static str = r"
id: primary
uses: validate.command
with:
  run: [psql, -XAtc, select pg_is_in_recovery()]
  equals: f
  within: 2s
";
    const TOOLS: &'static [&'static str] = &["sh"];

    type Before = ();
    type Output = Validated;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Nothing, interrupted: Interrupted::RunAgain }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<(), StepError> {
        self.invocation(ctx, true).map(drop)
    }

    fn preview(&self, (): &()) -> Preview {
        let does = format!("runs `{}` and looks at what it says", self.run.title());
        Preview { does, undo: "nothing to undo".to_owned(), ..Preview::default() }
    }

    async fn run(&self, ctx: &StepContext, (): &()) -> Result<Validated, StepError> {
        let host = ctx.host()?;
        let invocation = self.invocation(ctx, host.is_local())?;
        let start = ctx.clock.monotonic();
        let note = |is_stderr: bool, line: &str| {
            ctx.signals.log(if is_stderr { LogStream::Stderr } else { LogStream::Stdout }, line);
        };
        let finished = host.execute(&invocation, &ctx.vault, &ctx.cancel, &note).await?;
        let took = ctx.clock.monotonic().saturating_sub(start);
        if finished.was_asked {
            return Err(ctx.stopped());
        }
        let what = format!("`{}`", self.run.title());
        let Some(code) = finished.code else {
            return Err(StepError::transient(format!("{what} was ended by a signal"))
                .help("out of memory, or somebody ended it; it is asked again as `retry` says"));
        };
        if !self.codes.contains(&code) {
            let said = finished.stderr_tail.lines().next_back().map(|line| format!(": {line}")).unwrap_or_default();
            return Err(StepError::permanent(format!("{what} ended with exit code {code}{said}"))
                .help("find out why, then resume the run; list the code in `codes` if it is what you expect"));
        }
        if finished.stdout_cut {
            return Err(StepError::permanent(format!("{what} says more than can be looked at")).help("have it say less"));
        }
        if let Some(difference) = self.differs(ctx, &finished.stdout)? {
            return Err(StepError::permanent(format!("{what} is not as expected: {difference}"))
                .help("find out why it is not so and put it right, then resume the run"));
        }
        in_time(&what, took, self.within)?;
        Ok(Validated { code, took: rounded(took) })
    }

    async fn undo(&self, _: &StepContext, (): &()) -> Result<(), StepError> {
        Ok(())
    }
}

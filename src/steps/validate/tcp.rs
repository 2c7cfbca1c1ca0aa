//! `validate.tcp`: a port has to accept connections, or to refuse them.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::rounded;
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::hosts::{Host, Invocation};
use crate::steps::{Preview, Step, StepContext};
use crate::units::Span;

/// How much of a greeting is looked at.
const GREETING: usize = 512;

/// Looks there from another machine: `$1` and `$2` are host and port, `$3` seconds, `$4` says whether to wait for words.
/// 7: nobody accepts. 8: no answer in time.
const FROM_THERE: &str = r#"
command -v timeout >/dev/null && command -v bash >/dev/null || exit 127;
timeout "$3" bash -c 'exec 3<>"/dev/tcp/$1/$2" || exit 7; [ -z "$3" ] || dd bs=512 count=1 <&3' tcp "$1" "$2" "$4" 2>/dev/null;
c=$?; [ $c -ne 124 ] || exit 8; exit $c
"#;

/// Fails unless a port accepts connections; or, with `reachable: false`, unless it does not.
///
/// The port is tried once, from the machine that the step's `on` names; there, on a host by SSH, `bash` and `timeout` are
/// needed. `greets` asks for words that the server has to say first, as those of SSH and SMTP do.
///
/// A port that does not answer is tried again as `retry` says, and so is one that answers though it must not.
///
/// After an interruption it is run again. There is nothing to undo.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ValidateTcp {
    /// The `host:port`.
    address: String,
    /// Whether it is expected to accept.
    #[serde(default = "yes")]
    reachable: bool,
    /// What the server's first words have to contain.
    #[serde(default)]
    greets: Option<String>,
    /// How long it may take; 5 seconds, unless given.
    #[serde(default = "five_seconds")]
    within: Span,
}

fn yes() -> bool {
    true
}

fn five_seconds() -> Span {
    Span(Duration::from_secs(5))
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Validated {
    /// Whether it accepts.
    reachable: bool,
    /// How long it took.
    took: Span,
    /// The server's first words, when they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    greeting: Option<String>,
}

impl ValidateTcp {
    fn parts(&self) -> Result<(&str, u16), StepError> {
        let parts = self.address.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse().ok()?)));
        parts.filter(|(host, _)| !host.is_empty()).ok_or_else(|| {
            StepError::permanent(format!("`{}` is not a `host:port`", self.address)).help("write it like `db.acme.example:5432`")
        })
    }

    /// What it says first, or why it does not accept.
    async fn look_here(&self) -> Result<Vec<u8>, String> {
        let looking = async {
            let mut stream = TcpStream::connect(self.address.as_str()).await?;
            let mut greeting = vec![0; GREETING];
            let read = if self.greets.is_some() { stream.read(&mut greeting).await? } else { 0 };
            greeting.truncate(read);
            Ok::<_, std::io::Error>(greeting)
        };
        match tokio::time::timeout(self.within.0, looking).await {
            Ok(looked) => looked.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no answer within {}", self.within)),
        }
    }

    async fn look_there(&self, ctx: &StepContext, host: &dyn Host) -> Result<Result<Vec<u8>, String>, StepError> {
        let (name, port) = self.parts()?;
        let seconds = format!("{:.3}", self.within.0.as_secs_f64());
        let greets = if self.greets.is_some() { "yes" } else { "" };
        let line = FROM_THERE.trim().replace('\n', " ");
        let port = port.to_string();
        let argv = ["sh", "-c", &line, "ferry", name.trim_matches(['[', ']']), &port, &seconds, greets];
        let finished = host.execute(&Invocation::new(argv), &ctx.vault, &ctx.cancel, &|_, _| {}).await?;
        if finished.was_asked {
            return Err(ctx.stopped());
        }
        match finished.code {
            Some(0) => Ok(Ok(finished.stdout)),
            Some(8) => Ok(Err(format!("no answer within {}", self.within))),
            Some(127) => Err(StepError::permanent(format!("host `{}` has no `bash` or no `timeout`", host.name()))
                .help("install both there, or look from this machine: leave `on` out")),
            _ => Ok(Err("nobody accepts".to_owned())),
        }
    }
}

impl Step for ValidateTcp {
    const TYPE: &'static str = "validate.tcp";
    const EXAMPLE: &'static str = r"
id: pooler
uses: validate.tcp
with:
  address: db.acme.example:6432
  within: 500ms
";

    type Before = ();
    type Output = Validated;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Nothing, interrupted: Interrupted::RunAgain }
    }

    async fn inspect(&self, _: &StepContext) -> Result<(), StepError> {
        self.parts().map(drop)
    }

    fn preview(&self, (): &()) -> Preview {
        let not = if self.reachable { "" } else { "does not " };
        let accepts = if self.reachable { "accepts" } else { "accept" };
        let does = format!("looks whether `{}` {not}{accepts}", self.address);
        Preview { does, undo: "nothing to undo".to_owned(), ..Preview::default() }
    }

    async fn run(&self, ctx: &StepContext, (): &()) -> Result<Validated, StepError> {
        self.parts()?;
        let host = ctx.host()?;
        let start = ctx.clock.monotonic();
        let looked = if host.is_local() {
            tokio::select! {
                looked = self.look_here() => looked,
                () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
            }
        } else {
            self.look_there(ctx, &*host).await?
        };
        let took = rounded(ctx.clock.monotonic().saturating_sub(start));
        let address = &self.address;
        match (looked, self.reachable) {
            (Err(_), false) => Ok(Validated { reachable: false, took, greeting: None }),
            (Err(why), true) => Err(StepError::transient(format!("`{address}` does not accept connections: {why}"))
                .help("see whether the server runs and nothing stands in between; it is tried again as `retry` says")),
            (Ok(_), false) => Err(StepError::transient(format!("`{address}` accepts connections, and must not"))
                .help("stop the server or close its port; it is tried again as `retry` says")),
            (Ok(words), true) => {
                let said = String::from_utf8_lossy(&words).into_owned();
                match &self.greets {
                    Some(wanted) if !said.contains(wanted.as_str()) => {
                        let said: String = ctx.vault.mask(said.trim()).chars().take(80).collect();
                        Err(StepError::permanent(format!("`{address}` says `{said}`, and nothing of `{wanted}`"))
                            .help("another server listens there, or another version: correct the address, or `greets`"))
                    }
                    Some(_) => Ok(Validated { reachable: true, took, greeting: Some(said.trim().to_owned()) }),
                    None => Ok(Validated { reachable: true, took, greeting: None }),
                }
            }
        }
    }

    async fn undo(&self, _: &StepContext, (): &()) -> Result<(), StepError> {
        Ok(())
    }
}

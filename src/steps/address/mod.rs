//! `address.move`: an address goes from host to host.

mod place;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub use self::place::{Address, UNGUARD};
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::hosts::Shell;
use crate::steps::{Preview, Step, StepContext};

/// Moves an IP address from one host to another, and tells the neighbours.
///
/// Both hosts are in one network segment: the address is taken from the device of one, given to that of the other, and a
/// gratuitous ARP tells everybody in the segment. For a moment nobody has it; never both. Connections that go through it
/// break, unless what is behind them comes along: that is `criu.migrate`.
///
/// The address does not outlive a restart of the host: write it into the host's own configuration as well.
///
/// After an interruption it is run again. Undo moves it back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddressMove {
    /// The host that has it.
    #[schemars(extend("format" = "host"))]
    from: String,
    /// The host that gets it.
    #[schemars(extend("format" = "host"))]
    to: String,
    /// The address.
    address: Address,
    /// The user who may change addresses there; `root` unless given.
    #[serde(default = "root", rename = "become")]
    run_as: String,
}

fn root() -> String {
    "root".to_owned()
}

/// Who had it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    from: bool,
    to: bool,
}

/// Where it is now.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Moved {
    /// The address.
    ip: String,
    /// The host that has it.
    host: String,
}

impl AddressMove {
    fn shells(&self, ctx: &StepContext, cancel: &CancellationToken) -> Result<(Shell, Shell), StepError> {
        let shell = |name: &str| {
            let (vault, cancel) = (ctx.vault.clone(), cancel.clone());
            Ok::<_, StepError>(Shell { host: ctx.hosts.get(name)?, run_as: Some(self.run_as.clone()), vault, cancel })
        };
        Ok((shell(&self.from)?, shell(&self.to)?))
    }
}

impl Step for AddressMove {
    const TYPE: &'static str = "address.move";
    const EXAMPLE: &'static str = r"
id: address
uses: address.move
with:
  from: source
  to: target
  address: { ip: 203.0.113.7, device: eth0 }
";
    const TOOLS: &'static [&'static str] = &["ip", "arping"];

    type Before = Before;
    type Output = Moved;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Built, interrupted: Interrupted::RunAgain }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Before, StepError> {
        let (from, to) = self.shells(ctx, &ctx.cancel)?;
        let before = Before { from: self.address.is_at(&from, false).await?, to: self.address.is_at(&to, true).await? };
        match before {
            Before { from: false, to: false } => Err(StepError::permanent(format!(
                "neither `{}` nor `{}` has the address {}",
                self.from, self.to, self.address.ip
            ))
            .help("correct `address`, or the hosts")),
            Before { from: true, to: true } => Err(StepError::needs_person(format!(
                "both `{}` and `{}` have the address {}",
                self.from, self.to, self.address.ip
            ))
            .help("find out which of the two is meant to have it, and take it from the other")),
            before => Ok(before),
        }
    }

    fn preview(&self, before: &Before) -> Preview {
        let (ip, from, to) = (self.address.ip, &self.from, &self.to);
        Preview {
            does: if before.to { format!("{ip} is at `{to}`") } else { format!("moves {ip} from `{from}` to `{to}`") },
            undo: if before.to { "leaves it there".to_owned() } else { format!("moves it back to `{from}`") },
            already_done: before.to,
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, _: &Before) -> Result<Moved, StepError> {
        // Half-way nothing is dropped.
        let (from, to) = self.shells(ctx, &CancellationToken::new())?;
        self.address.away(&from, false).await?;
        self.address.give(&to, true).await?;
        Ok(Moved { ip: self.address.ip.to_string(), host: self.to.clone() })
    }

    async fn undo(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        if before.to {
            return Ok(());
        }
        let (from, to) = self.shells(ctx, &CancellationToken::new())?;
        self.address.away(&to, true).await?;
        self.address.give(&from, false).await
    }
}

//! `container.migrate`: a running container goes from host to host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::super::address::Address;
use super::super::criu::named::{criu, root, shm};
use super::super::criu::site::Site;
use super::carry::{Cargo, Carried, enter};
use super::place::{Place, podman};
use super::preflight::{self, Container};
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::hosts::Shell;
use crate::steps::{Preview, Step, StepContext};
use crate::units::{ByteSize, Span};

/// Moves a running container of Podman to another host: its memory, what it has written into its own file system and, with an
/// address that comes along, its TCP connections.
///
/// Podman has it checkpointed at the source by CRIU, into memory (`images` is a folder there): the container is stopped then. The
/// checkpoint goes to the target through ferry, from memory to memory, the address with it, and the container is restored there
/// under its own name. Until it answers, a guard drops what comes to the address, so that nobody's connection is reset. In the
/// end it is removed at the source.
///
/// The plan looks whether CRIU works with both kernels and with the container's runtime (`runc`; `crun` where it is built with
/// CRIU), whether its image and what is mounted into it are at the target, its name free there, and room for it.
///
/// It is never on both hosts. When the target cannot restore it, it runs again at the source from the same checkpoint, its
/// connections with it, and the step fails as transient. After an interruption the step looks where it runs, or where its whole
/// checkpoint is, and goes on from there. Undo brings it back the same way.
///
/// As it goes it tells its state: `start`, `snapshot`, `ready`, `in progress`, `migrated`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainerMigrate {
    /// The host that it runs on.
    #[schemars(extend("format" = "host"))]
    from: String,
    /// The host that it goes to.
    #[schemars(extend("format" = "host"))]
    to: String,
    /// Its name.
    container: String,
    /// The address that its clients use: it goes along. The container is in the host's network then.
    #[serde(default)]
    address: Option<Address>,
    /// A folder for images on both hosts, in memory; `/dev/shm` unless given.
    #[serde(default = "shm")]
    images: String,
    /// Podman, where it is not on the path.
    #[serde(default = "podman")]
    podman: String,
    /// CRIU, where it is not on the path.
    #[serde(default = "criu")]
    criu: String,
    /// Further options for `podman container checkpoint` and `restore`: `--file-locks`.
    #[serde(default)]
    options: Vec<String>,
    /// The user whose container it is; `root` unless given, and CRIU takes no other.
    #[serde(default = "root", rename = "become")]
    run_as: String,
}

/// What was there before.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    container: Container,
    warnings: Vec<String>,
}

/// Where it runs, and what the way there cost.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Migrated {
    /// The host that it runs on.
    host: String,
    /// Its name.
    container: String,
    /// Its number, the same as before.
    id: String,
    /// How long it did not run. Nothing when an interrupted attempt had begun it.
    #[serde(skip_serializing_if = "Option::is_none")]
    freeze: Option<Span>,
    /// Of that, until it was checkpointed.
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<Span>,
    /// Until its checkpoint was at the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<Span>,
    /// Until it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    restore: Option<Span>,
    /// How large the checkpoint was.
    #[serde(skip_serializing_if = "Option::is_none")]
    images: Option<ByteSize>,
}

impl ContainerMigrate {
    /// Both hosts. Nothing of what is done there is dropped half-way when the run is cancelled.
    fn places(&self, ctx: &StepContext) -> Result<(Place<'_>, Place<'_>), StepError> {
        let place = |name: &str, is_target| {
            let (vault, cancel) = (ctx.vault.clone(), CancellationToken::new());
            let shell = Shell { host: ctx.hosts.get(name)?, run_as: Some(self.run_as.clone()), vault, cancel };
            let folder = format!("{}/ferry-{}", self.images.trim_end_matches('/'), &ctx.idempotence_key()[..12]);
            let guard = format!("ferry_{}", &ctx.idempotence_key()[..12]);
            let site = Site { shell, criu: &self.criu, folder, guard, is_target, at: None };
            Ok::<_, StepError>(Place { site, podman: &self.podman })
        };
        Ok((place(&self.from, false)?, place(&self.to, true)?))
    }

    fn cargo<'a>(&'a self, before: &'a Before) -> Cargo<'a> {
        let mut flags: Vec<&str> = self.options.iter().map(String::as_str).collect();
        if self.address.is_some() {
            flags.push("--tcp-established");
        }
        Cargo { container: &before.container, address: self.address.as_ref(), flags }
    }

    /// Brings the container from one host to the other, from wherever it is by now.
    async fn bring(
        &self,
        ctx: &StepContext,
        before: &Before,
        from: &Place<'_>,
        to: &Place<'_>,
    ) -> Result<Option<Carried>, StepError> {
        let Container { id, name, .. } = &before.container;
        enter(ctx, "start");
        let (here, there) = tokio::try_join!(from.find(id), to.find(id))?;
        let cargo = self.cargo(before);
        let carried = match (here.runs, there.runs) {
            (true, true) => {
                let (here, there) = (from.host(), to.host());
                return Err(StepError::needs_person(format!("container `{name}` runs on `{here}` and on `{there}`"))
                    .help("find out which one clients talk to, and remove the other"));
            }
            (true, false) => Some(cargo.carry(ctx, from, to).await?),
            (false, true) => {
                // An attempt that died has brought it here. Its guard goes with the images.
                if let Some(address) = &self.address {
                    address.away(&from.site.shell, from.site.is_target).await?;
                    address.give(&to.site.shell, to.site.is_target).await?;
                }
                enter(ctx, "migrated");
                None
            }
            (false, false) if here.exists && here.is_dumped => {
                ctx.log(format!("its checkpoint is whole on `{}`: goes on from it", from.host()));
                cargo.land(ctx, from, to).await?;
                None
            }
            (false, false) if there.exists && there.is_dumped => {
                // It had been on its way back.
                cargo.again(to, from).await?;
                None
            }
            (false, false) => {
                return Err(StepError::needs_person(format!(
                    "container `{name}` runs neither on `{}` nor on `{}`, and no whole checkpoint of it is there",
                    from.host(),
                    to.host()
                ))
                .help("it has ended, or somebody ended it: start it anew"));
            }
        };
        // It runs there: what is here is of no more use, and could be started by mistake.
        from.remove(id).await?;
        from.site.tidy().await?;
        to.site.tidy().await?;
        Ok(carried)
    }
}

impl Step for ContainerMigrate {
    const TYPE: &'static str = "container.migrate";
    const EXAMPLE: &'static str = r"
id: shop
uses: container.migrate
with:
  from: source
  to: target
  container: shop
  address: { ip: 203.0.113.7, device: eth0 }
";
    const TOOLS: &'static [&'static str] = &["podman", "criu", "tar", "nft", "ip", "arping", "setsid"];

    type Before = Before;
    type Output = Migrated;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Built, interrupted: Interrupted::LookFirst }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Before, StepError> {
        let (from, to) = self.places(ctx)?;
        let (container, warnings) = preflight::look(&from, &to, &self.container, &self.images, self.address.is_some()).await?;
        if let Some(address) = &self.address
            && (!address.is_at(&from.site.shell, false).await? || address.is_at(&to.site.shell, true).await?)
        {
            return Err(StepError::permanent(format!("`{}` is not at `{}` alone", address.ip, from.host()))
                .help("correct `address`: it goes along with the container"));
        }
        Ok(Before { container, warnings })
    }

    fn preview(&self, before: &Before) -> Preview {
        let Container { name, image, memory, .. } = &before.container;
        let with = self.address.as_ref().map(|address| format!(" with {} and its connections", address.ip)).unwrap_or_default();
        Preview {
            does: format!(
                "freezes container `{name}` (`{image}`, {memory}) on `{}` and restores it on `{}`{with}",
                self.from, self.to
            ),
            undo: format!("brings it back to `{}` the same way", self.from),
            bytes: Some(memory.0),
            warnings: before.warnings.clone(),
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, before: &Before) -> Result<Migrated, StepError> {
        let (from, to) = self.places(ctx)?;
        let carried = self.bring(ctx, before, &from, &to).await?;
        let phase = |at: usize| carried.as_ref().map(|carried| carried.phases[at]);
        Ok(Migrated {
            host: self.to.clone(),
            container: before.container.name.clone(),
            id: before.container.id.clone(),
            freeze: carried.as_ref().map(|carried| carried.freeze),
            checkpoint: phase(0),
            copy: phase(1),
            restore: phase(2),
            images: carried.as_ref().map(|carried| carried.images),
        })
    }

    async fn undo(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let (from, to) = self.places(ctx)?;
        let id = &before.container.id;
        if from.find(id).await?.runs {
            // It never left, or has come back. What an attempt that died has made at the target does not run.
            if !to.find(id).await?.runs {
                to.remove(id).await?;
            }
            from.site.tidy().await?;
            return to.site.tidy().await;
        }
        self.bring(ctx, before, &to, &from).await.map(drop)
    }
}

//! `container.checkpoint` and `container.restore`: a running container into a file of its host, and out of one.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::super::criu::named::{criu, root};
use super::super::criu::site::Site;
use super::place::{Place, podman};
use super::preflight::{self, Container};
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::hosts::Shell;
use crate::steps::{Preview, Step, StepContext};
use crate::units::ByteSize;

/// Checkpoints a running container of Podman into a file on its host: its memory, what it has written into its own file system
/// and, if told so, its TCP connections. It is stopped then, unless `keeps_running` is given.
///
/// The file appears when it is whole. After an interruption the step looks whether podman has come to its end meanwhile. Undo
/// lets the container run again from its checkpoint, if it was stopped, and removes the file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainerCheckpoint {
    /// Its name.
    container: String,
    /// The file; its folder is there. A file that is there already is not written over.
    file: String,
    /// Whether it runs on.
    #[serde(default)]
    keeps_running: bool,
    /// Whether its open TCP connections go into the file. Without this, one that has any is not checkpointed.
    #[serde(default)]
    connections: bool,
    /// Podman, where it is not on the path.
    #[serde(default = "podman")]
    podman: String,
    /// CRIU, where it is not on the path.
    #[serde(default = "criu")]
    criu: String,
    /// Further options for `podman container checkpoint`: `--file-locks`, `--compress=zstd`.
    #[serde(default)]
    options: Vec<String>,
    /// The user whose container it is; `root` unless given, and CRIU takes no other.
    #[serde(default = "root", rename = "become")]
    run_as: String,
}

/// Makes a running container of Podman of a file that `container.checkpoint` has written, on this host or another.
///
/// Its image and what is mounted into it have to be there, and its name free. After an interruption the step looks whether it
/// runs. Undo removes the container; the file stays.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContainerRestore {
    /// The file.
    file: String,
    /// Its name; that which it had unless given.
    #[serde(default)]
    name: Option<String>,
    /// Whether the file holds open TCP connections. Its address has to be here then.
    #[serde(default)]
    connections: bool,
    /// Podman, where it is not on the path.
    #[serde(default = "podman")]
    podman: String,
    /// CRIU, where it is not on the path.
    #[serde(default = "criu")]
    criu: String,
    /// Further options for `podman container restore`: `--file-locks`, `--publish`.
    #[serde(default)]
    options: Vec<String>,
    /// The user whose container it becomes; `root` unless given, and CRIU takes no other.
    #[serde(default = "root", rename = "become")]
    run_as: String,
}

/// Podman on the host of the step.
fn place<'a>(ctx: &StepContext, podman: &'a str, criu: &'a str, run_as: &str) -> Result<Place<'a>, StepError> {
    let shell =
        Shell { host: ctx.host()?, run_as: Some(run_as.to_owned()), vault: ctx.vault.clone(), cancel: CancellationToken::new() };
    let (folder, guard) = (format!("/dev/shm/ferry-{}", &ctx.idempotence_key()[..12]), String::new());
    Ok(Place { site: Site { shell, criu, folder, guard, is_target: false, at: None }, podman })
}

/// What there was before.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    container: Container,
}

/// The file.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Checkpointed {
    /// Where it is.
    file: String,
    /// How large.
    bytes: ByteSize,
    /// The container's name.
    container: String,
    /// Its number.
    id: String,
    /// Its image.
    image: String,
}

/// The container.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Restored {
    /// Its name.
    container: String,
    /// Its image.
    image: String,
}

impl ContainerCheckpoint {
    fn flags(&self) -> Vec<&str> {
        let mut flags: Vec<&str> = self.options.iter().map(String::as_str).collect();
        flags.extend(self.keeps_running.then_some("--leave-running"));
        flags.extend(self.connections.then_some("--tcp-established"));
        flags
    }
}

impl Step for ContainerCheckpoint {
    const TYPE: &'static str = "container.checkpoint";
    const EXAMPLE: &'static str = r"
id: shop
uses: container.checkpoint
on: source
with: { container: shop, file: /var/backups/shop.tar }
";
    const TOOLS: &'static [&'static str] = &["podman", "criu", "nft", "setsid"];

    type Before = Before;
    type Output = Checkpointed;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Built, interrupted: Interrupted::LookFirst }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Before, StepError> {
        let place = place(ctx, &self.podman, &self.criu, &self.run_as)?;
        if place.size(&self.file).await?.is_some() {
            return Err(StepError::permanent(format!("`{}` is there already on `{}`", self.file, place.host()))
                .help("take another `file`, or remove that one"));
        }
        Ok(Before { container: preflight::alone(&place, &self.container).await? })
    }

    fn preview(&self, before: &Before) -> Preview {
        let Container { name, image, memory, .. } = &before.container;
        let after = if self.keeps_running { ", which runs on" } else { ", which is stopped" };
        let undo = if self.keeps_running { "removes the file" } else { "lets it run again and removes the file" };
        Preview {
            does: format!("checkpoints container `{name}` (`{image}`, {memory}){after}, into `{}`", self.file),
            undo: undo.to_owned(),
            bytes: Some(memory.0),
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, before: &Before) -> Result<Checkpointed, StepError> {
        let place = place(ctx, &self.podman, &self.criu, &self.run_as)?;
        let Container { id, name, image, .. } = &before.container;
        let found = place.find(id).await?;
        let bytes = match place.size(&self.file).await? {
            // An attempt that died has written it.
            Some(bytes) => bytes,
            None if found.runs => place.save(id, &self.file, &self.flags()).await?,
            None => {
                return Err(StepError::needs_person(format!("container `{name}` does not run any more on `{}`", place.host()))
                    .help("start it, then resume the run"));
            }
        };
        place.site.tidy().await?;
        Ok(Checkpointed { file: self.file.clone(), bytes, container: name.clone(), id: id.clone(), image: image.clone() })
    }

    async fn undo(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let place = place(ctx, &self.podman, &self.criu, &self.run_as)?;
        let id = &before.container.id;
        let found = place.find(id).await?;
        if found.exists && !found.runs {
            let flags: Vec<&str> = self.connections.then_some("--tcp-established").into_iter().collect();
            place.wake(id, &flags).await?;
        }
        place.delete(&self.file).await?;
        place.site.tidy().await
    }
}

impl Step for ContainerRestore {
    const TYPE: &'static str = "container.restore";
    const EXAMPLE: &'static str = r"
id: shop
uses: container.restore
on: target
with: { file: /var/backups/shop.tar }
";
    const TOOLS: &'static [&'static str] = &["podman", "criu", "nft", "setsid", "tar"];

    type Before = Before;
    type Output = Restored;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Built, interrupted: Interrupted::LookFirst }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Before, StepError> {
        let place = place(ctx, &self.podman, &self.criu, &self.run_as)?;
        Ok(Before { container: preflight::saved(&place, &self.file, self.name.as_deref()).await? })
    }

    fn preview(&self, before: &Before) -> Preview {
        let Container { name, image, memory, .. } = &before.container;
        Preview {
            does: format!("restores container `{name}` (`{image}`) from `{}`", self.file),
            undo: format!("removes container `{name}`"),
            bytes: Some(memory.0),
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, before: &Before) -> Result<Restored, StepError> {
        let place = place(ctx, &self.podman, &self.criu, &self.run_as)?;
        let Container { name, image, .. } = &before.container;
        if !place.find(name).await?.runs {
            // What an attempt that died has made of it: nobody else had the name.
            place.remove(name).await?;
            let mut flags: Vec<&str> = self.options.iter().map(String::as_str).collect();
            flags.extend(self.connections.then_some("--tcp-established"));
            if let Some(name) = &self.name {
                flags.extend(["--name", name.as_str()]);
            }
            place.load(name, &self.file, &flags).await?;
        }
        place.site.tidy().await?;
        Ok(Restored { container: name.clone(), image: image.clone() })
    }

    async fn undo(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let place = place(ctx, &self.podman, &self.criu, &self.run_as)?;
        place.find(&before.container.name).await?;
        place.remove(&before.container.name).await?;
        place.site.tidy().await
    }
}

//! `criu.migrate`: a running process goes from host to host.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::super::address::Address;
use super::carry::{Cargo, Carried};
use super::estimate::Estimate;
use super::mode::{Mode, Pages};
use super::named::{Named, criu, root, shm};
use super::preflight::{self, Needs, Process};
use super::site::Site;
use super::through;
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::hosts::Shell;
use crate::steps::{Preview, Step, StepContext};
use crate::units::{ByteSize, Span};

/// Moves a running process, with all processes below it, to another host: its memory, its open files and, with an address
/// that comes along, its TCP connections.
///
/// CRIU freezes and dumps it into images at the source (`images` is a folder in memory, so that they never touch a disk); it
/// is gone from there. They go to the target from memory to memory, straight with `pages`, else through ferry, the address with them, and the process is
/// restored there under its own number. Until it answers, a guard drops what comes to the address, so that nobody's
/// connection is reset. Clients see a pause, no error.
///
/// The plan looks whether CRIU works with both kernels, whether the files that the process uses are the same at the target,
/// its process numbers free, and room for it there.
///
/// With `mode: post-copy` only what is no memory is dumped and copied; the process runs at the target, and its memory follows,
/// straight from host to host, what it asks for first. The freeze does not grow with the memory then. Until the last page
/// is in, both hosts are needed: the source keeps the process frozen and whole. If it dies at the target meanwhile, the step
/// fails and waits for a person: a rollback lets it go on at the source as it was when it left.
///
/// It is never on both hosts. When the target cannot restore it, it runs again at the source from the same images, its
/// connections with it, and the step fails as transient. After an interruption the step looks where it runs, or where its
/// whole images are, and goes on from there. Undo brings it back the same way.
///
/// A process that systemd or another supervisor started is not known to that of the target.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CriuMigrate {
    /// The host that it runs on.
    #[schemars(extend("format" = "host"))]
    from: String,
    /// The host that it goes to.
    #[schemars(extend("format" = "host"))]
    to: String,
    /// Which process.
    process: Named,
    /// The address that its clients use: it goes along.
    #[serde(default)]
    address: Option<Address>,
    /// How its memory goes along: with it, or after it.
    #[serde(default)]
    mode: Mode,
    /// Where the hosts reach each other: memory goes straight from one to the other then. `post-copy` asks for it.
    #[serde(default)]
    pages: Option<Pages>,
    /// A folder for images on both hosts, in memory; `/dev/shm` unless given.
    #[serde(default = "shm")]
    images: String,
    /// The program, where it is not on the path.
    #[serde(default = "criu")]
    criu: String,
    /// Further options for `criu dump` and `criu restore`: `--file-locks`, `--ext-unix-sk`.
    #[serde(default)]
    options: Vec<String>,
    /// The user who may use CRIU there; `root` unless given.
    #[serde(default = "root", rename = "become")]
    run_as: String,
}

/// What was there before.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    process: Process,
    warnings: Vec<String>,
    /// What is expected of it.
    #[serde(default)]
    estimate: Option<Estimate>,
}

/// Where it runs, and what the way there cost.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Migrated {
    /// The host that it runs on.
    host: String,
    /// Its number, the same as before.
    pid: u32,
    /// How long it did not run. Nothing when an interrupted attempt had begun it.
    #[serde(skip_serializing_if = "Option::is_none")]
    freeze: Option<Span>,
    /// How long the plan expected that to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    expected: Option<Span>,
    /// Of the freeze, until it was dumped.
    #[serde(skip_serializing_if = "Option::is_none")]
    dump: Option<Span>,
    /// Until its images were at the target.
    #[serde(skip_serializing_if = "Option::is_none")]
    copy: Option<Span>,
    /// Until it ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    restore: Option<Span>,
    /// How large the images were. They went straight from host to host with `pages` in `checkpoint`, else through ferry.
    #[serde(skip_serializing_if = "Option::is_none")]
    images: Option<ByteSize>,
    /// How much memory came after it ran, straight from host to host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pages: Option<ByteSize>,
    /// How long that took.
    #[serde(skip_serializing_if = "Option::is_none")]
    follow: Option<Span>,
}

impl CriuMigrate {
    /// Both hosts. Nothing of what is done there is dropped half-way when the run is cancelled.
    fn sites(&self, ctx: &StepContext) -> Result<(Site<'_>, Site<'_>), StepError> {
        let site = |name: &str, is_target| {
            let (vault, cancel) = (ctx.vault.clone(), CancellationToken::new());
            let shell = Shell { host: ctx.hosts.get(name)?, run_as: Some(self.run_as.clone()), vault, cancel };
            let folder = format!("{}/ferry-{}", self.images.trim_end_matches('/'), &ctx.idempotence_key()[..12]);
            let guard = format!("ferry_{}", &ctx.idempotence_key()[..12]);
            let at = self.pages.as_ref().map(|pages| (if is_target { pages.to } else { pages.from }, pages.port));
            Ok::<_, StepError>(Site { shell, criu: &self.criu, folder, guard, is_target, at })
        };
        Ok((site(&self.from, false)?, site(&self.to, true)?))
    }

    fn cargo<'a>(&'a self, before: &'a Before) -> Cargo<'a> {
        let mut flags: Vec<&str> = self.options.iter().map(String::as_str).collect();
        if self.address.is_some() {
            flags.extend(["--tcp-established", "--network-lock", "nftables"]);
        }
        Cargo { process: &before.process, address: self.address.as_ref(), flags }
    }

    /// Brings the process from one host to the other, from wherever it is by now.
    async fn bring(
        &self,
        ctx: &StepContext,
        before: &Before,
        from: &Site<'_>,
        to: &Site<'_>,
    ) -> Result<Option<Carried>, StepError> {
        let Process { pid, sum, .. } = &before.process;
        let cargo = self.cargo(before);
        let (here, there) = tokio::try_join!(from.find(*pid, sum), to.find(*pid, sum))?;
        let carried = match (here.runs, there.runs) {
            (true, true) => {
                return Err(StepError::needs_person(format!(
                    "process {pid} runs on `{}` and on `{}`: one of the two is not this step's",
                    from.host(),
                    to.host()
                ))
                .help("find out which one clients talk to, and end the other"));
            }
            (true, false) if self.mode == Mode::PostCopy => Some(cargo.lead(ctx, from, to).await?),
            (true, false) => Some(cargo.carry(ctx, from, to).await?),
            (false, true) => {
                // An attempt that died has brought it here. Its guard goes with the images.
                if let Some(address) = &self.address {
                    address.away(&from.shell, from.is_target).await?;
                    address.give(&to.shell, to.is_target).await?;
                }
                None
            }
            (false, false) if here.is_dumped => {
                ctx.log(format!("its images are whole on `{}`: goes on from them", from.host()));
                cargo.land(ctx, from, to, false).await?;
                None
            }
            (false, false) if there.is_dumped => {
                // It had been on its way back.
                cargo.again(to, from).await?;
                None
            }
            (false, false) => {
                return Err(StepError::needs_person(format!(
                    "process {pid} runs neither on `{}` nor on `{}`, and no whole images of it are there",
                    from.host(),
                    to.host()
                ))
                .help("it has ended, or somebody ended it: start it anew"));
            }
        };
        from.tidy().await?;
        to.tidy().await?;
        Ok(carried)
    }
}

impl Step for CriuMigrate {
    const TYPE: &'static str = "criu.migrate";
    const EXAMPLE: &'static str = r"
id: counter
uses: criu.migrate
with:
  from: source
  to: target
  process: { pid_file: /run/counter.pid }
  address: { ip: 203.0.113.7, device: eth0 }
";
    const TOOLS: &'static [&'static str] = &["criu", "tar", "nft", "ip", "arping", "setsid"];

    type Before = Before;
    type Output = Migrated;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Built, interrupted: Interrupted::LookFirst }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Before, StepError> {
        let (from, to) = self.sites(ctx)?;
        let pid = self.process.pid(&from.shell).await?;
        self.mode.has_all(self.pages.as_ref())?;
        let needs = Needs { images: &self.images, guard: self.address.is_some(), mode: self.mode };
        let (process, warnings) = preflight::look(&from, &to, pid, &needs).await?;
        if let Some(address) = &self.address
            && (!address.is_at(&from.shell, false).await? || address.is_at(&to.shell, true).await?)
        {
            return Err(StepError::permanent(format!("`{}` is not at `{}` alone", address.ip, from.host()))
                .help("correct `address`: it goes along with the process"));
        }
        // Where there is little, the way hardly counts.
        let is_much = process.memory.0 > 8 << 20;
        let rate = if is_much && self.pages.is_none() { Some(through::sample(&*ctx.clock, &from, &to).await?) } else { None };
        let estimate = Some(Estimate::new(self.mode, process.memory, rate));
        Ok(Before { process, warnings, estimate })
    }

    fn preview(&self, before: &Before) -> Preview {
        let Process { pid, command, memory, pids, .. } = &before.process;
        let more = if pids.len() > 1 { format!(" and {} below it", pids.len() - 1) } else { String::new() };
        let with = self.address.as_ref().map(|address| format!(" with {} and its connections", address.ip)).unwrap_or_default();
        Preview {
            does: format!(
                "freezes process {pid}{more} (`{command}`, {memory}) on `{}` and restores it on `{}`{with}{}",
                self.from,
                self.to,
                before.estimate.as_ref().map(|estimate| format!("; {}", estimate.says())).unwrap_or_default()
            ),
            undo: format!("brings it back to `{}` the same way", self.from),
            bytes: Some(memory.0),
            warnings: before.warnings.clone(),
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, before: &Before) -> Result<Migrated, StepError> {
        let (from, to) = self.sites(ctx)?;
        self.cargo(before).settle(ctx, &from, &to, false).await?;
        let carried = self.bring(ctx, before, &from, &to).await?;
        let phase = |at: usize| carried.as_ref().map(|carried| carried.phases[at]);
        Ok(Migrated {
            host: self.to.clone(),
            pid: before.process.pid,
            freeze: carried.as_ref().map(|carried| carried.freeze),
            expected: before.estimate.as_ref().filter(|_| carried.is_some()).map(|estimate| estimate.freeze),
            dump: phase(0),
            copy: phase(1),
            restore: phase(2),
            images: carried.as_ref().map(|carried| carried.images),
            pages: carried.as_ref().and_then(|carried| carried.pages).map(|(pages, _)| pages),
            follow: carried.as_ref().and_then(|carried| carried.pages).map(|(_, time)| time),
        })
    }

    async fn undo(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let (from, to) = self.sites(ctx)?;
        self.cargo(before).settle(ctx, &from, &to, true).await?;
        let found = from.find(before.process.pid, &before.process.sum).await?;
        if found.runs {
            // It never left, or has come back.
            from.tidy().await?;
            return to.tidy().await;
        }
        self.bring(ctx, before, &to, &from).await.map(drop)
    }
}

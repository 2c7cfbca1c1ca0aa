//! `criu.checkpoint`: a running process becomes images.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::mode::Mode;
use super::named::{Named, criu, root};
use super::preflight::{self, Needs};
use super::stored::{Label, disown, site};
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::steps::{Preview, Step, StepContext};
use crate::units::ByteSize;

/// Makes images of a running process, and of all processes below it: its memory, its open files and, if asked for, its TCP
/// connections.
///
/// They lie in a folder on the process's host, with a label by which `criu.restore` knows them, there or where the folder was
/// copied to. The process ends with it, unless `leave_running`; then the images are as old as the moment at which it was frozen.
///
/// After an interruption the step looks whether the process runs and whether its images are whole. Undo restores it from them if
/// the step ended it, and removes them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CriuCheckpoint {
    /// The host that it runs on.
    #[schemars(extend("format" = "host"))]
    host: String,
    /// Which process.
    process: Named,
    /// A folder for the images: new, or empty.
    images: String,
    /// Whether it runs on.
    #[serde(default)]
    leave_running: bool,
    /// Whether its TCP connections go into the images. Without it a process that has any cannot be dumped.
    #[serde(default)]
    connections: bool,
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

/// What there was before.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    label: Label,
}

/// What was made.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Checkpointed {
    /// The host that they lie on.
    host: String,
    /// Their folder.
    images: String,
    /// The number of the process.
    pid: u32,
    /// How large they are.
    size: ByteSize,
}

impl Step for CriuCheckpoint {
    const TYPE: &'static str = "criu.checkpoint";
    const EXAMPLE: &'static str = r"
id: images
uses: criu.checkpoint
with:
  host: source
  process: { pid_file: /run/counter.pid }
  images: /var/lib/images/counter
";
    const TOOLS: &'static [&'static str] = &["criu", "nft", "setsid"];

    type Before = Before;
    type Output = Checkpointed;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Built, interrupted: Interrupted::LookFirst }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Before, StepError> {
        let at = site(ctx, &self.host, &self.criu, &self.run_as, self.images.clone())?;
        let pid = self.process.pid(&at.shell).await?;
        let parent = self.images.trim_end_matches('/').rsplit_once('/').map_or("/", |(parent, _)| parent);
        let parent = if parent.is_empty() { "/" } else { parent };
        let needs = Needs { images: parent, guard: self.connections, mode: Mode::Checkpoint };
        let fit = preflight::host(&at, &needs).await?;
        let (process, files) = preflight::process(&at, pid).await?;
        if fit.room < process.memory.0 {
            return Err(StepError::needs_person(format!(
                "`{}` has no room for {}: {} free in `{parent}`",
                self.host,
                process.memory,
                ByteSize(fit.room)
            ))
            .help("make room there, or take another folder for `images`"));
        }
        let there = at.shell.script("look into the folder", r#"ls -A "$1" 2>/dev/null | head -n 1"#, &[&self.images]).await?;
        if !there.is_empty() {
            return Err(StepError::permanent(format!("`{}` on `{}` is not empty: `{there}` is there", self.images, self.host))
                .help("take a folder that is new"));
        }
        let mut flags = self.options.clone();
        if self.connections {
            flags.extend(["--tcp-established", "--network-lock", "nftables"].map(str::to_owned));
        }
        Ok(Before { label: Label { process, files, flags, key: ctx.idempotence_key() } })
    }

    fn preview(&self, before: &Before) -> Preview {
        let process = &before.label.process;
        let (pid, command, memory) = (process.pid, &process.command, process.memory);
        let then = if self.leave_running { "it runs on" } else { "it ends" };
        Preview {
            does: format!("dumps process {pid} (`{command}`, {memory}) on `{}` into `{}`; {then}", self.host, self.images),
            undo: if self.leave_running { "removes the images".to_owned() } else { "restores it from them".to_owned() },
            bytes: Some(memory.0),
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, before: &Before) -> Result<Checkpointed, StepError> {
        let at = site(ctx, &self.host, &self.criu, &self.run_as, self.images.clone())?;
        let process = &before.label.process;
        let found = at.find(process.pid, &process.sum).await?;
        if !found.is_dumped {
            if !found.runs {
                return Err(StepError::needs_person(format!("process {} does not run on `{}`", process.pid, self.host))
                    .help("it has ended, or somebody ended it: start it anew"));
            }
            before.label.claim(&at).await?;
            let mut flags = before.label.flags();
            if self.leave_running {
                flags.push("-R");
            }
            ctx.log("the process is frozen");
            at.dump(process.pid, &flags, None).await?;
        }
        let size = at.shell.script("measure the images", r#"du -sk "$1" | cut -f 1"#, &[&self.images]).await?;
        let size = ByteSize(size.trim().parse::<u64>().unwrap_or(0) * 1024);
        ctx.log(format!("its images are in `{}` on `{}`: {size}", self.images, self.host));
        Ok(Checkpointed { host: self.host.clone(), images: self.images.clone(), pid: process.pid, size })
    }

    async fn undo(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let at = site(ctx, &self.host, &self.criu, &self.run_as, self.images.clone())?;
        let process = &before.label.process;
        let found = at.find(process.pid, &process.sum).await?;
        if !found.runs && found.is_dumped {
            at.restore(&before.label.flags()).await?;
        }
        disown(&at, &before.label.key).await
    }
}

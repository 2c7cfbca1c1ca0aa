//! `criu.restore`: images become a running process.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::mode::Mode;
use super::named::{criu, root};
use super::preflight::{self, Needs};
use super::stored::{Label, replace, site};
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::steps::{Preview, Step, StepContext};

/// Makes a running process of the images of a `criu.checkpoint`.
///
/// They lie in a folder on the host that it is to run on: where they were made, or copied there whole. The same programs and
/// files have to be there, and the process's numbers free; the plan looks. The images stay. TCP connections that are in them
/// go on only if the address is there already, and nobody has answered on it meanwhile: `criu.migrate` sees to that.
///
/// After an interruption the step looks whether it runs. Undo makes images of it again, in the same folder, with what it has in
/// memory by then.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CriuRestore {
    /// The host that it is to run on.
    #[schemars(extend("format" = "host"))]
    host: String,
    /// The folder of its images there.
    images: String,
    /// The program, where it is not on the path.
    #[serde(default = "criu")]
    criu: String,
    /// The user who may use CRIU there; `root` unless given.
    #[serde(default = "root", rename = "become")]
    run_as: String,
}

/// What there was before.
#[derive(Debug, Serialize, Deserialize)]
pub struct Before {
    label: Label,
    /// Whether it ran already.
    ran: bool,
}

/// What runs.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Restored {
    /// The host that it runs on.
    host: String,
    /// Its number.
    pid: u32,
}

impl CriuRestore {
    /// Where undo makes images before they take the place of the old ones.
    fn anew(&self, ctx: &StepContext) -> String {
        format!("{}.ferry-{}", self.images.trim_end_matches('/'), &ctx.idempotence_key()[..12])
    }
}

impl Step for CriuRestore {
    const TYPE: &'static str = "criu.restore";
    const EXAMPLE: &'static str = r"
id: counter
uses: criu.restore
with:
  host: target
  images: /var/lib/images/counter
";
    const TOOLS: &'static [&'static str] = &["criu", "nft", "setsid"];

    type Before = Before;
    type Output = Restored;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Built, interrupted: Interrupted::LookFirst }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Before, StepError> {
        let at = site(ctx, &self.host, &self.criu, &self.run_as, self.images.clone())?;
        let label = Label::read(&at).await?;
        let found = at.find(label.process.pid, &label.process.sum).await?;
        if !found.is_dumped {
            return Err(StepError::permanent(format!("the images in `{}` on `{}` are not whole", self.images, self.host))
                .help("copy the whole folder, or make them anew"));
        }
        let needs_nft = label.flags.iter().any(|flag| flag == "--tcp-established");
        preflight::host(&at, &Needs { images: &self.images, guard: needs_nft, mode: Mode::Checkpoint }).await?;
        if !found.runs {
            preflight::can_take(&at, &label.process, label.files.clone()).await?;
        }
        Ok(Before { label, ran: found.runs })
    }

    fn preview(&self, before: &Before) -> Preview {
        let process = &before.label.process;
        let (pid, command, memory) = (process.pid, &process.command, process.memory);
        Preview {
            does: if before.ran {
                format!("process {pid} runs on `{}`", self.host)
            } else {
                format!("restores process {pid} (`{command}`, {memory}) on `{}` from `{}`", self.host, self.images)
            },
            undo: if before.ran { "leaves it there".to_owned() } else { format!("dumps it into `{}` again", self.images) },
            already_done: before.ran,
            bytes: Some(memory.0),
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, before: &Before) -> Result<Restored, StepError> {
        let at = site(ctx, &self.host, &self.criu, &self.run_as, self.images.clone())?;
        let process = &before.label.process;
        if !at.find(process.pid, &process.sum).await?.runs {
            at.restore(&before.label.flags()).await?;
            ctx.log(format!("process {} runs on `{}`", process.pid, self.host));
        }
        Ok(Restored { host: self.host.clone(), pid: process.pid })
    }

    async fn undo(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        if before.ran {
            return Ok(());
        }
        let at = site(ctx, &self.host, &self.criu, &self.run_as, self.images.clone())?;
        let anew = site(ctx, &self.host, &self.criu, &self.run_as, self.anew(ctx))?;
        let process = &before.label.process;
        let found = anew.find(process.pid, &process.sum).await?;
        if found.runs {
            anew.make_folder().await?;
            before.label.write(&anew).await?;
            anew.shell.write(&format!("{}/ferry.key", anew.folder), format!("{}\n", before.label.key)).await?;
            anew.dump(process.pid, &before.label.flags(), None).await?;
        } else if !found.is_dumped {
            // It never ran, or has ended by itself.
            return Ok(());
        }
        replace(&at, &anew.folder).await
    }
}

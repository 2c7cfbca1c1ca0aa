//! Images that are kept: what lies with them, and where.

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::preflight::Process;
use super::site::Site;
use crate::error::StepError;
use crate::hosts::Shell;
use crate::steps::StepContext;

/// Lies with the images, so that they can be restored by whoever finds them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Label {
    /// The process.
    pub process: Process,
    /// The files that it uses, with their sizes, a line each.
    pub files: String,
    /// What CRIU was told, and has to be told again.
    pub flags: Vec<String>,
    /// Of the step that made them.
    pub key: String,
}

/// Its name in the folder.
const LABEL: &str = "ferry.json";

/// The folder is there, empty, and this step's. `$1` the folder, `$2` the step's key.
const CLAIM: &str = r#"if [ -e "$1/ferry.key" ] && [ "$(cat "$1/ferry.key")" = "$2" ]; then rm -rf -- "$1"/*; fi
if [ -n "$(ls -A "$1" 2>/dev/null)" ]; then echo 'it is not empty' >&2; exit 1; fi
mkdir -p -m 700 -- "$1" && printf '%s\n' "$2" >"$1/ferry.key""#;

/// The folder goes, if it is this step's.
const DISOWN: &str = r#"[ "$(cat "$1/ferry.key" 2>/dev/null)" = "$2" ] || exit 0; rm -rf -- "$1"/*; rmdir -- "$1""#;

/// One folder of images takes the place of another, which goes.
const REPLACE: &str = r#"if [ -e "$2" ]; then rm -rf -- "$1" && mv -- "$2" "$1"; fi"#;

impl Label {
    /// What CRIU is told.
    pub(super) fn flags(&self) -> Vec<&str> {
        self.flags.iter().map(String::as_str).collect()
    }

    /// The one in this folder.
    pub(super) async fn read(at: &Site<'_>) -> Result<Self, StepError> {
        let text = at.shell.read(&format!("{}/{LABEL}", at.folder)).await?;
        let (folder, host) = (&at.folder, at.host());
        let Some(text) = text else {
            return Err(StepError::permanent(format!("there are no images of `criu.checkpoint` in `{folder}` on `{host}`"))
                .help("correct `images`"));
        };
        serde_json::from_str(&text).map_err(|error| {
            StepError::permanent(format!("`{folder}/{LABEL}` on `{host}` is not what `criu.checkpoint` wrote")).cause(error)
        })
    }

    /// Claims the folder, and puts the label there.
    pub(super) async fn claim(&self, at: &Site<'_>) -> Result<(), StepError> {
        at.shell.script(&format!("take `{}` for images", at.folder), CLAIM, &[&at.folder, &self.key]).await?;
        self.write(at).await
    }

    /// Puts it into the folder.
    pub(super) async fn write(&self, at: &Site<'_>) -> Result<(), StepError> {
        let text = serde_json::to_string(self).map_err(|error| StepError::permanent("the label is no JSON").cause(error))?;
        at.shell.write(&format!("{}/{LABEL}", at.folder), text).await
    }
}

/// A folder of images on a host, as CRIU's.
pub(super) fn site<'a>(
    ctx: &StepContext,
    host: &str,
    criu: &'a str,
    run_as: &str,
    folder: String,
) -> Result<Site<'a>, StepError> {
    let (vault, cancel) = (ctx.vault.clone(), CancellationToken::new());
    let shell = Shell { host: ctx.hosts.get(host)?, run_as: Some(run_as.to_owned()), vault, cancel };
    let guard = format!("ferry_{}", &ctx.idempotence_key()[..12]);
    Ok(Site { shell, criu, folder, guard, is_target: false, at: None })
}

/// Removes the folder, if this step made it.
pub(super) async fn disown(at: &Site<'_>, key: &str) -> Result<(), StepError> {
    at.shell.script("remove the images", DISOWN, &[&at.folder, key]).await.map(drop)
}

/// The images in `new`, if there are any, take the place of those in this folder.
pub(super) async fn replace(at: &Site<'_>, new: &str) -> Result<(), StepError> {
    at.shell.script("put the new images into place", REPLACE, &[&at.folder, new]).await.map(drop)
}

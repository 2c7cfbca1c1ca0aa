//! `file.write`: a file on a host, written whole or not at all.

mod former;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::former::{Attributes, Content, Former, attributes, copy, drifted, is_as_before, keep_copy, kept};
use super::scalar::Scalar;
use super::{Preview, Step, StepContext};
use crate::catalogue::{Interrupted, Traits, Undo};
use crate::error::StepError;
use crate::hosts::{FileState, Host, Invocation};
use crate::secret::Text;

/// Writes a file on a host.
///
/// The file is written under a temporary name in the same folder, made durable and renamed, so that nobody ever sees
/// half of it. A symbolic link is followed. Mode and owner stay what they were unless given; a new file can be read by
/// all (`0644`), one with secrets in it by its owner only (`0600`). The folder has to be there.
///
/// What was there before is kept with the run. When somebody else changes the file between the step's look at it and
/// its write, or before an undo, ferry stops and says so instead of overwriting the change.
///
/// After an interruption it is run again. Undo puts back what was there, with mode and owner, or removes the file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("oneOf" = [{ "required": ["content"] }, { "required": ["template"] }]))]
pub struct FileWrite {
    /// The file. A relative path starts at the pipeline's folder on this machine, at the login folder on another host.
    path: String,
    /// What is to be in it.
    #[serde(default)]
    content: Option<Text>,
    /// A file beside the pipeline whose text, its templates rendered, is to be in it.
    #[serde(default)]
    template: Option<Template>,
    /// The permission bits, in quotes: `"0640"`.
    #[serde(default)]
    mode: Option<Mode>,
    /// Who is to own it: `user`, `user:group`, by name or number.
    #[serde(default)]
    owner: Option<String>,
}

/// A template file. Whoever loads the pipeline puts its text in place of its name, so that `check` sees the names in it
/// and the run keeps the text that it was started with.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    /// The text, rendered.
    rendered: Scalar,
}

impl JsonSchema for Template {
    fn schema_name() -> Cow<'static, str> {
        "TemplateFile".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "template-file", "x-secret": true })
    }
}

/// Permission bits, written as people write them.
#[derive(Debug, Clone, Copy)]
struct Mode(u32);

impl<'de> Deserialize<'de> for Mode {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || serde::de::Error::custom("a mode is three or four octal digits in quotes: `\"0640\"`");
        // A number has been read as a decimal or as an octal one by now, and nobody knows which was meant.
        let Value::String(text) = Value::deserialize(deserializer)? else { return Err(wrong()) };
        if !matches!(text.len(), 3 | 4) {
            return Err(wrong());
        }
        u32::from_str_radix(&text, 8).map(Self).map_err(|_| wrong())
    }
}

impl JsonSchema for Mode {
    fn schema_name() -> Cow<'static, str> {
        "Mode".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-7]{3,4}$", "examples": ["0640"] })
    }
}

/// What `inspect` saw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Before {
    /// Whether the file was already as it is to be.
    already_done: bool,
    #[serde(flatten)]
    former: Former,
}

/// What writing a file leaves.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Written {
    /// The file.
    path: String,
    /// Whether anything had to be changed.
    changed: bool,
    /// Its length.
    bytes: u64,
}

/// A file as it is now.
struct Found {
    content: Vec<u8>,
    attributes: Attributes,
}

/// A file as it is to be.
struct Wanted {
    content: SecretString,
    mode: Option<u32>,
    owner: Option<(u32, u32)>,
}

impl Wanted {
    fn is_met(&self, found: &Found) -> bool {
        found.content == self.content.expose_secret().as_bytes()
            && self.mode.is_none_or(|mode| mode == found.attributes.mode)
            && self.owner.is_none_or(|owner| owner == (found.attributes.uid, found.attributes.gid))
    }
}

impl FileWrite {
    fn place(&self, ctx: &StepContext) -> Result<(Arc<dyn Host>, PathBuf), StepError> {
        let host = ctx.host()?;
        let path = if host.is_local() { ctx.resolve_path(&self.path) } else { PathBuf::from(&self.path) };
        Ok((host, path))
    }

    fn text(&self) -> Result<&Text, StepError> {
        match (&self.content, &self.template) {
            (Some(content), None) => Ok(content),
            (None, Some(template)) => Ok(&template.rendered.0),
            _ => {
                Err(StepError::permanent("a `file.write` needs exactly one of `content` and `template`")
                    .help("leave the other out"))
            }
        }
    }

    async fn wanted(&self, ctx: &StepContext, host: &Arc<dyn Host>, found: Option<&Found>) -> Result<Wanted, StepError> {
        let text = self.text()?;
        let owner = match &self.owner {
            None => None,
            Some(owner) => Some(numbers(ctx, host, owner, found).await?),
        };
        let protect = (text.is_secret() && found.is_none()).then_some(0o600);
        Ok(Wanted { content: ctx.reveal(text)?, mode: self.mode.map(|mode| mode.0).or(protect), owner })
    }

    /// The former content, as far as it was kept.
    async fn former(&self, ctx: &StepContext, before: &Former) -> Result<Option<Vec<u8>>, StepError> {
        let bytes = |text: &SecretString| text.expose_secret().as_bytes().to_vec();
        match before {
            Former::Absent | Former::Secret { .. } => Ok(None),
            Former::Same { .. } => Ok(Some(bytes(&ctx.reveal(self.text()?)?))),
            Former::Large { .. } => copy(ctx).await,
            Former::File { content: Content::Text(text), .. } => Ok(Some(bytes(&ctx.reveal(&Text::new(text.as_str()))?))),
            Former::File { content: Content::Base64(text), .. } => {
                let text = ctx.reveal(&Text::new(text.as_str()))?;
                STANDARD.decode(text.expose_secret()).map(Some).map_err(|error| {
                    StepError::permanent(format!("the journal's copy of `{}` is damaged", self.path)).cause(error)
                })
            }
        }
    }
}

async fn look(host: &Arc<dyn Host>, path: &Path) -> Result<Option<Found>, StepError> {
    let Some(FileState { content, mode, uid, gid }) = host.read_file(path).await? else { return Ok(None) };
    let content = STANDARD
        .decode(content)
        .map_err(|error| StepError::permanent(format!("the host sent `{}` damaged", path.display())).cause(error))?;
    Ok(Some(Found { content, attributes: Attributes { mode, uid, gid } }))
}

/// The numbers of `user:group`, asked of the host when they are names.
async fn numbers(ctx: &StepContext, host: &Arc<dyn Host>, owner: &str, found: Option<&Found>) -> Result<(u32, u32), StepError> {
    let (user, group) = owner.split_once(':').map_or((owner, None), |(user, group)| (user, Some(group)));
    let uid = match (user, found) {
        ("", Some(found)) => found.attributes.uid,
        _ => number(ctx, host, &["id", "-u", user], user, "user").await?,
    };
    let gid = match group {
        Some(group) if !group.is_empty() => number(ctx, host, &["getent", "group", group], group, "group").await?,
        // As `chown user:` does: the user's own group.
        _ => number(ctx, host, &["id", "-g", user], user, "group of user").await.or_else(|error| {
            // A number that no user has is its own group unless the file says otherwise.
            user.parse::<u32>().map(|number| found.map_or(number, |found| found.attributes.gid)).map_err(|_| error)
        })?,
    };
    Ok((uid, gid))
}

async fn number(ctx: &StepContext, host: &Arc<dyn Host>, argv: &[&str], name: &str, what: &str) -> Result<u32, StepError> {
    if argv[1] != "-g"
        && let Ok(number) = name.parse()
    {
        return Ok(number);
    }
    let invocation =
        Invocation { argv: argv.iter().map(|part| (*part).to_owned()).collect(), env: BTreeMap::new(), ..Invocation::default() };
    let finished = host.execute(&invocation, &ctx.vault, &ctx.cancel, &|_, _| {}).await?;
    let said = String::from_utf8_lossy(&finished.stdout);
    // `getent` says `name:x:number:members`, `id` the number alone.
    let field = said.trim().split(':').nth(if argv[0] == "getent" { 2 } else { 0 });
    field.filter(|_| finished.code == Some(0)).and_then(|number| number.parse().ok()).ok_or_else(|| {
        StepError::permanent(format!("there is no {what} `{name}` on host `{}`", host.name()))
            .help("create it in a step before this one, or correct `owner`")
    })
}

impl Step for FileWrite {
    const TYPE: &'static str = "file.write";
    const EXAMPLE: &'static str = r#"
id: settings
uses: file.write
with:
  path: /etc/shop/database.conf
  content: |
    host = {{ inputs.database }}
    password = {{ secrets.db }}
  mode: "0640"
  owner: root:shop
"#;
    const TOOLS: &'static [&'static str] = &["sh", "stat", "readlink", "cat", "mv", "rm", "chmod", "chown", "sync", "id"];

    type Before = Before;
    type Output = Written;

    fn traits(_: &Value) -> Traits {
        Traits { undo: Undo::Built, interrupted: Interrupted::RunAgain }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Before, StepError> {
        let (host, path) = self.place(ctx)?;
        let found = look(&host, &path).await?;
        // An owner that does not exist is found out before anything is changed.
        let wanted = self.wanted(ctx, &host, found.as_ref()).await?;
        let already_done = found.as_ref().is_some_and(|found| wanted.is_met(found));
        Ok(Before { already_done, former: kept(ctx, &wanted, found.as_ref()) })
    }

    fn preview(&self, before: &Before) -> Preview {
        let does = match &before.former {
            _ if before.already_done => format!("nothing: `{}` is already so", self.path),
            Former::Absent => format!("creates `{}`", self.path),
            _ => format!("writes `{}` over what is there", self.path),
        };
        let mut preview = Preview { does, ..Preview::default() };
        preview.undo = match &before.former {
            _ if before.already_done => "nothing: it was so before".to_owned(),
            Former::Absent => "removes the file".to_owned(),
            Former::Secret { .. } => {
                preview
                    .warnings
                    .push(format!("`{}` holds a secret in a form that cannot be kept: undo cannot put it back", self.path));
                "names the file: its former content cannot be kept".to_owned()
            }
            Former::File { .. } | Former::Large { .. } | Former::Same { .. } => {
                "puts back what was there, with mode and owner".to_owned()
            }
        };
        preview.already_done = before.already_done;
        preview
    }

    async fn run(&self, ctx: &StepContext, before: &Before) -> Result<Written, StepError> {
        let (host, path) = self.place(ctx)?;
        host.clear_unfinished(&path).await?;
        let found = look(&host, &path).await?;
        let wanted = self.wanted(ctx, &host, found.as_ref()).await?;
        let bytes = wanted.content.expose_secret().len() as u64;
        let written = |changed| Written { path: self.path.clone(), changed, bytes };
        let before = &before.former;
        let former = self.former(ctx, before).await?;
        if let Some(found) = &found
            && wanted.is_met(found)
        {
            return Ok(written(!is_as_before(before, former.as_deref(), Some(found))));
        }
        if !is_as_before(before, former.as_deref(), found.as_ref()) {
            return Err(drifted(&path, before, found.as_ref()));
        }
        if let (Former::Large { .. }, None, Some(found)) = (before, &former, &found) {
            // Durable before the file is touched: from here on undo has what it needs.
            keep_copy(ctx, &found.content).await?;
        }
        if ctx.cancel.is_cancelled() {
            return Err(ctx.stopped());
        }
        host.write_file(&path, wanted.content.expose_secret().as_bytes(), wanted.mode, wanted.owner).await?;
        Ok(written(true))
    }

    async fn undo(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let (host, path) = self.place(ctx)?;
        host.clear_unfinished(&path).await?;
        let found = look(&host, &path).await?;
        let before = &before.former;
        let former = self.former(ctx, before).await?;
        let is_ours = match &found {
            Some(found) => self.wanted(ctx, &host, Some(found)).await?.is_met(found),
            None => false,
        };
        if is_as_before(before, former.as_deref(), found.as_ref()) && !(is_ours && matches!(before, Former::Secret { .. })) {
            return Ok(());
        }
        if !is_ours {
            return Err(drifted(&path, before, found.as_ref()));
        }
        match (before, former) {
            (Former::Absent, _) => host.remove_file(&path).await,
            (_, Some(content)) => {
                let old = attributes(before);
                host.write_file(&path, &content, old.map(|old| old.mode), old.map(|old| (old.uid, old.gid))).await
            }
            (_, None) => Err(StepError::needs_person(format!("the former content of `{}` could not be kept", path.display()))
                .help("put the file back from your own copy, then run the rollback again with `undo: skip` for this step")),
        }
    }
}

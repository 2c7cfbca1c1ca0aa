//! What was there before a file was written: how the journal keeps it, and whether it is there still.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Found, Wanted, look};
use crate::error::StepError;
use crate::secret::{Text, is_marked};
use crate::steps::StepContext;
use crate::units::ByteSize;

/// What is kept of a file in the journal; a larger one is kept beside it, in the run's own folder.
const LARGEST_IN_JOURNAL: usize = 128 << 10;

/// Its copy in the step's folder of the run.
const COPY: &str = "former";
/// Its copy with marks in place of secrets.
const MARKED_COPY: &str = "former.marked";

/// What was there before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "was", rename_all = "snake_case")]
pub enum Former {
    /// No file.
    Absent,
    /// A file that is kept in the journal.
    File {
        /// Its content.
        content: Content,
        /// Permission bits, owner's and group's number.
        #[serde(flatten)]
        attributes: Attributes,
    },
    /// A file whose content is kept beside the journal, or not at all.
    Large {
        /// Its length in bytes.
        length: u64,
        /// Permission bits, owner's and group's number.
        #[serde(flatten)]
        attributes: Attributes,
    },
    /// A file with the very content that this step writes, of which the journal cannot keep a copy.
    Same {
        /// Permission bits, owner's and group's number.
        #[serde(flatten)]
        attributes: Attributes,
    },
    /// A file with a secret in it in a form that no journal may keep.
    Secret {
        /// Permission bits, owner's and group's number.
        #[serde(flatten)]
        attributes: Attributes,
    },
}

/// The content of a file as a journal keeps it: secrets that the run knows become their marks in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// As text.
    Text(String),
    /// As base64.
    Base64(String),
}

/// Mode and owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// What the journal keeps of a file. What it cannot give back byte by byte is not kept.
pub(super) fn kept(ctx: &StepContext, wanted: &Wanted, found: Option<&Found>) -> Former {
    let Some(Found { content, attributes }) = found else { return Former::Absent };
    let attributes = *attributes;
    let is_same = wanted.content.expose_secret().as_bytes() == content;
    if content.len() > LARGEST_IN_JOURNAL && !is_same {
        return Former::Large { length: content.len() as u64, attributes };
    }
    let content = match std::str::from_utf8(content) {
        Ok(text) => Content::Text(text.to_owned()),
        Err(_) => Content::Base64(STANDARD.encode(content)),
    };
    let (Content::Text(text) | Content::Base64(text)) = &content;
    if marked(ctx, text).is_some() {
        Former::File { content, attributes }
    } else if is_same {
        Former::Same { attributes }
    } else {
        Former::Secret { attributes }
    }
}

/// A text with marks in place of secrets; `None` when it could not be had back from that.
fn marked(ctx: &StepContext, text: &str) -> Option<String> {
    let Value::String(kept) = ctx.vault.conceal(&Value::from(text)) else { return None };
    let back = ctx.vault.reveal(&kept).ok()?;
    (back.expose_secret() == text).then_some(kept)
}

/// Keeps a large file with the run, durably; a text without the secrets of the run.
pub(super) async fn keep_copy(ctx: &StepContext, content: &[u8]) -> Result<(), StepError> {
    std::fs::create_dir_all(&ctx.scratch)
        .map_err(|error| StepError::permanent("cannot keep the former file with the run").cause(error))?;
    let kept = std::str::from_utf8(content).ok().and_then(|text| marked(ctx, text)).filter(|kept| is_marked(kept));
    let (name, content) = kept.as_ref().map_or((COPY, content), |kept| (MARKED_COPY, kept.as_bytes()));
    crate::hosts::local("local").write_file(&ctx.scratch.join(name), content, Some(0o600), None).await
}

/// The copy of a large file, if there is one yet.
pub(super) async fn copy(ctx: &StepContext) -> Result<Option<Vec<u8>>, StepError> {
    let host = crate::hosts::local("local");
    if let Some(found) = look(&host, &ctx.scratch.join(MARKED_COPY)).await? {
        let text = String::from_utf8(found.content)
            .map_err(|error| StepError::permanent("the run's copy of the former file is damaged").cause(error))?;
        return Ok(Some(ctx.reveal(&Text::new(text))?.expose_secret().as_bytes().to_vec()));
    }
    Ok(look(&host, &ctx.scratch.join(COPY)).await?.map(|found| found.content))
}

pub(super) fn attributes(before: &Former) -> Option<Attributes> {
    match before {
        Former::Absent => None,
        Former::File { attributes, .. }
        | Former::Large { attributes, .. }
        | Former::Same { attributes }
        | Former::Secret { attributes } => Some(*attributes),
    }
}

/// Whether the file is as `inspect` saw it, as far as that is known.
pub(super) fn is_as_before(before: &Former, former: Option<&[u8]>, found: Option<&Found>) -> bool {
    match (before, found) {
        (Former::Absent, None) => true,
        (Former::Absent, Some(_)) | (_, None) => false,
        (Former::File { attributes, .. } | Former::Same { attributes }, Some(found)) => {
            *attributes == found.attributes && former.is_some_and(|former| former == found.content)
        }
        (Former::Large { length, attributes }, Some(found)) => {
            *attributes == found.attributes
                && former.map_or(found.content.len() as u64 == *length, |former| former == found.content)
        }
        (Former::Secret { attributes }, Some(found)) => *attributes == found.attributes,
    }
}

pub(super) fn drifted(path: &Path, before: &Former, found: Option<&Found>) -> StepError {
    let one = |attributes: Option<Attributes>, length: Option<u64>| match attributes {
        None => "no file".to_owned(),
        Some(Attributes { mode, uid, gid }) => {
            let size = length.map(|length| format!("{}, ", ByteSize(length))).unwrap_or_default();
            format!("{size}mode {mode:04o}, owner {uid}:{gid}")
        }
    };
    let length = match before {
        Former::File { content: Content::Text(text), .. } => Some(text.len() as u64),
        Former::Large { length, .. } => Some(*length),
        _ => None,
    };
    StepError::needs_person(format!(
        "somebody else has changed `{}`: it was {}, and is {}",
        path.display(),
        one(attributes(before), length),
        one(found.map(|found| found.attributes), found.map(|found| found.content.len() as u64)),
    ))
    .help("look at the file; put it back as it was, or take `undo: skip` when the change is to stay, then go on")
}

//! The last look at a target that keeps names in a way of its own: file systems and servers may take two names for one.

use std::path::Path;

use super::manifest;
use crate::error::StepError;
use crate::steps::StepContext;
use crate::steps::object::{objects, some};
use crate::stores::Store;

/// Whether servers that keep objects as files would take this name for another: a letter and its accent, slashes that
/// stand for nothing, dots that lead elsewhere, characters that are no text. Upper and lower case stay apart on those.
pub fn is_odd(key: &str) -> bool {
    let is_combining = |c| matches!(c, '\u{300}'..='\u{36f}' | '\u{1100}'..='\u{11ff}' | '\u{3099}' | '\u{309a}');
    key.chars().any(|c| c.is_control() || c == '\\' || is_combining(c))
        || key.split('/').any(|part| part.is_empty() || part == "." || part == ".." || part.trim() != part)
}

/// Sees that the target lists all that the manifest names, with its size. Where two names became one (upper and lower
/// case, two forms of an accent) the second object has replaced the first, and nothing else tells.
pub async fn all_are_there(ctx: &StepContext, target: &Store, manifest: &Path) -> Result<(), StepError> {
    let mut listing = target.list(None);
    let mut there = listing.next().await?;
    let (mut missing, mut count) = (Vec::new(), 0_u64);
    for named in manifest::read(manifest)? {
        let named = named?;
        if ctx.cancel.is_cancelled() {
            return Err(ctx.stopped());
        }
        while there.as_ref().is_some_and(|there| there.key < named.key) {
            there = listing.next().await?;
        }
        let listed = there.as_ref().filter(|there| there.key == named.key && there.kind.is_object());
        if listed.is_some_and(|listed| listed.facts.size == named.size) {
            continue;
        }
        let how = if listed.is_some() { "has another size" } else { "is not listed" };
        ctx.log(format!("copied, and {how} afterwards: {}", named.key));
        count += 1;
        if missing.len() < 5 {
            missing.push(named.key);
        }
    }
    if count == 0 {
        return Ok(());
    }
    let label = target.label();
    let what = format!("{} of what was copied to `{label}`", objects(count));
    Err(StepError::permanent(format!("{what} cannot be found there as it was sent: {}", some(&missing, count))).help(
        "the target takes two names for one (upper and lower case, two forms of an accent), or somebody else has changed it \
         meanwhile: rename such objects or leave them out with `exclude`, then start the sync as a new run",
    ))
}

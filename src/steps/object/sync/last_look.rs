//! The last look at a target that keeps names in a way of its own: file systems and servers may take two names for one.

use std::path::Path;

use super::manifest;
use crate::error::StepError;
use crate::steps::StepContext;
use crate::steps::object::{objects, some};
use crate::stores::Store;

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

//! The second half of a move: what was copied is deleted at the source, each object only behind a look at its copy and
//! at itself.
//!
//! The manifest says what was copied from what. It is walked along with fresh listings of both sides: the copy must still
//! be there, and the source must still be the object that was copied. Then the deletion is written down, and only then
//! made, under the condition that nobody has written to the object in between.

use super::failures::there_is_no_point;
use super::ledger::{Line, Moved};
use super::manifest::{self, Named};
use super::task::Task;
use super::window::Done;
use super::work::Work;
use crate::error::StepError;
use crate::steps::object::merge::Pair;
use crate::steps::object::{objects, some};
use crate::stores::{Listed, classify};

/// How many names of what was left alone are kept for the warning.
const NAMES: usize = 5;

impl Work<'_> {
    /// Deletes at the source what is at the target.
    pub(super) async fn remove(&mut self) -> Result<(), StepError> {
        self.window.manifest.flush()?;
        self.copies = Some(manifest::copies(&self.ctx.scratch)?);
        if self.window.token.after.is_none() {
            self.see_apart().await?;
        }
        self.pass(true).await?;
        self.copies = None;
        self.nothing_failed()?;
        let kept = self.window.token.done.kept;
        if kept > 0 {
            let label = self.transfer.source.label();
            let what = "written to since the sync had listed them, and left alone";
            self.ctx.warn(format!("{} in `{label}` {what}: {}", objects(kept), some(&self.kept, kept)));
        }
        Ok(())
    }

    /// Decides about one name of either side.
    pub(super) fn decide_removal(&mut self, pair: Pair) -> Result<(), StepError> {
        let Pair { key, source, target } = pair;
        let named = self.named(&key)?;
        let was_removed = self.removed.remove(&key).is_some();
        let Some(source) = source.filter(|source| source.kind.is_object()) else {
            // An earlier attempt has deleted it, and could not say so any more.
            return self.window.close(key, if was_removed { Done::Deleted } else { Done::Nothing }, None);
        };
        let Some(Named { sides: Some(sides), blake3, .. }) = named else { return self.keep(key) };
        if !(sides.source.is_surely(&source.facts) && sides.changed == source.changed) {
            return self.keep(key);
        }
        let is_whole = |there: &Listed| there.kind.is_object() && sides.target.agree(&there.facts);
        if !target.as_ref().is_some_and(is_whole) {
            let label = self.transfer.target.label();
            let how = if target.is_some() { "was changed" } else { "is gone" };
            let message = format!("`{key}` is not deleted at the source: its copy in `{label}` {how} since it was made");
            self.window.open(key);
            self.fail(StepError::permanent(message).help(
                "see who else writes there, then start the move as a new run: it copies what is missing, and deletes the rest",
            ));
            return there_is_no_point(self);
        }
        let moved = Moved { was: source.facts, copy: sides.target, blake3 };
        let number = self.window.open(key.clone());
        self.decided.push_back(Task::Remove { number, key, moved });
        Ok(())
    }

    /// What the manifest says of this name.
    pub(super) fn named(&mut self, key: &str) -> Result<Option<Named>, StepError> {
        let Some(copies) = &mut self.copies else { return Ok(None) };
        loop {
            match copies.next_if(|named| named.as_ref().map_or(true, |named| named.key.as_str() <= key)) {
                None => return Ok(None),
                Some(Ok(named)) if named.key == key => return Ok(Some(named)),
                // Of an earlier attempt, or gone at both sides.
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
            }
        }
    }

    /// An object that is new, or another one, since it was copied.
    fn keep(&mut self, key: String) -> Result<(), StepError> {
        self.is_kept(&key);
        self.window.close(key, Done::Kept, None)
    }

    /// Says that an object stays at the source.
    pub(super) fn is_kept(&mut self, key: &str) {
        self.ctx.log(format!("left alone at the source, written to meanwhile: {key}"));
        if self.kept.len() < NAMES {
            self.kept.push(key.to_owned());
        }
    }

    /// Sees that the source is not the target by another name (an address, a proxy, another account): then nothing had to
    /// be copied, and each deletion would take the only one.
    async fn see_apart(&self) -> Result<(), StepError> {
        let (source, target) = (&self.transfer.source, &self.transfer.target);
        let done = &self.window.token.done;
        let has_created = done.copied > done.overwritten;
        if !source.may_see(target) || (has_created && source.prefix() == target.prefix()) {
            return Ok(());
        }
        let key = format!(".ferry-{}", self.ctx.idempotence_key());
        self.transfer.ledger.intend(&[Line::Create { key: key.clone(), size: 0 }]).await?;
        let written = target.operator().write(&target.path(&key)?, Vec::<u8>::new()).await;
        written.map_err(|error| classify(&format!("cannot write `{key}` to `{}`", target.label()), error))?;
        let seen = source.seen_from(target, &key).await;
        target.remove(&key).await?;
        if seen?.is_none() {
            return Ok(());
        }
        let (source, target) = (source.label(), target.label());
        Err(StepError::needs_person(format!(
            "what is written to `{target}` shows up by way of `{source}`: both seem to be one store"
        ))
        .help("nothing was deleted; correct `from` or `to`"))
    }
}

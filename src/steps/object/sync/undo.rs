//! Undo of a sync: what its ledger says it created goes away, what it replaced comes back where the store kept it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Mutex;

use futures::{StreamExt as _, TryStreamExt as _};
use opendal::options::RestoreOptions;

use super::ObjectSync;
use super::ledger::{self, Touched};
use super::put_back;
use super::window::Token;
use crate::error::StepError;
use crate::steps::object::{objects, some};
use crate::steps::{Progress, StepContext};
use crate::stores::{Facts, Store, classify, is_at_once};

/// How many objects are put back at once.
const AT_ONCE: usize = 16;

enum Back {
    /// Nothing of ours is there any more.
    Clean(String),
    /// Someone else has changed it since: it stays.
    Changed(String),
    /// What was there before is lost.
    Lost(String),
}

/// Puts both places back. `on_the_way` is how many of the folders to it were not there. Doing it twice does no harm.
pub async fn undo(config: &ObjectSync, ctx: &StepContext, target: &Store, on_the_way: usize) -> Result<(), StepError> {
    let token: Option<Token> = ctx.checkpoint();
    let vouched = token.and_then(|token| token.vouches());
    let Some(told) = ledger::read(&ctx.scratch, target, None, vouched).await? else {
        if ledger::is_put_away(&ctx.scratch) {
            return Ok(());
        }
        // A checkpoint comes before the first change.
        if ctx.attempt.checkpoint.is_none() {
            return target.remove_empty(&BTreeSet::new(), on_the_way).await;
        }
        return Err(ledger::not_whole(&ctx.scratch, target.label(), "is gone"));
    };
    // What was never whole first: it is in nobody's way, and costs money.
    if let Some(bucket) = target.bucket() {
        for (key, uploads) in &told.unfinished {
            for upload in uploads {
                super::uploads::drop_one(&*bucket, target, key, &upload.id).await?;
            }
        }
    }
    let mut touched = told.touched;
    // The copies are all that there is of what was deleted at the source: that comes first.
    let back = put_back::to_the_source(config, ctx, target, told.removed).await?;
    for key in &back.stays {
        touched.remove(key);
    }
    let all = touched.len() as u64;
    // What was there before the move has no copy to be deleted.
    let clean = back.put.iter().filter(|key| !touched.contains_key(*key)).cloned().collect();
    let (mut clean, mut changed, mut lost, mut done): (Vec<_>, _, _, _) = (clean, Vec::new(), Vec::new(), 0_u64);
    let seen = Mutex::default();
    let work = futures::stream::iter(touched).map(|(key, touched)| put_back(target, key, touched, &seen));
    let mut work = work.buffer_unordered(AT_ONCE);
    loop {
        let back = tokio::select! {
            biased;
            () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
            back = work.try_next() => back?,
        };
        match back {
            None => break,
            Some(Back::Clean(key)) => clean.push(key),
            Some(Back::Changed(key)) => changed.push(key),
            Some(Back::Lost(key)) => lost.push(key),
        }
        done += 1;
        ctx.progress(Progress { objects: Some(done), objects_total: Some(all), ..Progress::default() });
    }
    for (names, what) in [
        (&changed, "changed by someone else since, and left as they are"),
        (&lost, "overwritten or deleted, and the store has kept no version of them"),
        (&back.stays, "moved there, and left there because somebody has written to the source by the same name since"),
        (&back.lost, "moved there and changed or deleted by someone else since: they cannot be put back at the source"),
    ] {
        if !names.is_empty() {
            let count = names.len() as u64;
            ctx.warn(format!("{} in `{}` {what}: {}", objects(count), target.label(), some(names, count)));
            for name in names {
                ctx.log(format!("left behind: {name}"));
            }
        }
    }
    target.remove_empty(&told.folders, on_the_way).await?;
    if changed.is_empty() && lost.is_empty() && back.is_whole() {
        return ledger::put_away(&ctx.scratch).await;
    }
    clean.retain(|key| !back.lost.contains(key));
    // The ledger stays: the next undo looks at what is left, and at nothing else.
    ledger::tell_back(&ctx.scratch, clean).await?;
    Err(left_behind(target, &changed, &lost, &back))
}

fn left_behind(target: &Store, changed: &[String], lost: &[String], back: &put_back::Back) -> StepError {
    let mut what = Vec::new();
    if !lost.is_empty() {
        let count = lost.len() as u64;
        what.push(format!("{} overwritten or deleted without a version kept: {}", objects(count), some(lost, count)));
    }
    if !changed.is_empty() {
        let count = changed.len() as u64;
        what.push(format!("{} changed by someone else since: {}", objects(count), some(changed, count)));
    }
    for (names, why) in [
        (&back.stays, "stay there, because the source has another by that name"),
        (&back.lost, "cannot be put back at the source, because the copy was changed or deleted"),
    ] {
        if !names.is_empty() {
            let count = names.len() as u64;
            what.push(format!("{} that were moved {why}: {}", objects(count), some(names, count)));
        }
    }
    let message = format!("not everything in `{}` could be put back: {}", target.label(), what.join("; "));
    StepError::needs_person(message)
        .help("all else is undone; put these back from a backup if they are needed, or leave them (the step's log names all)")
}

async fn put_back(target: &Store, key: String, touched: Touched, seen: &Mutex<HashSet<String>>) -> Result<Back, StepError> {
    // A folder has become a link since: what it shows was never written here.
    if target.link_on_the_way(&key, seen).await.is_some() {
        return Ok(Back::Changed(key));
    }
    let is_marker = key.ends_with('/') && target.bucket().is_none();
    let now = if is_marker { Some(Facts::default()) } else { target.stat(&key).await? };
    let Some(was) = touched.was else {
        let Some(now) = now else { return Ok(Back::Clean(key)) };
        // Without a word about the end, the runner died in between: then it is ours if it is no larger than what was
        // being written, for nothing was there before.
        let is_ours = match &touched.left {
            Some(left) => is_marker || left.agree(&now),
            None => touched.sizes.iter().any(|size| now.size <= *size),
        };
        if !is_ours {
            return Ok(Back::Changed(key));
        }
        target.remove(&key).await?;
        return Ok(Back::Clean(key));
    };
    // Without an `ETag` only the time to its last digit tells that a person has put it back.
    let is_it = |now: &Facts| match (&now.etag, now.modified) {
        (Some(_), _) => was.agree(now),
        (None, Some(at)) => {
            was.size == now.size && was.modified.is_some_and(|was| is_at_once(was, at)) && touched.left.as_ref() != Some(now)
        }
        (None, None) => false,
    };
    if now.as_ref().is_some_and(is_it) {
        return Ok(Back::Clean(key));
    }
    let Some(version) = was.version.clone() else { return Ok(Back::Lost(key)) };
    let is_ours = match (&touched.left, &now) {
        (Some(left), Some(now)) => left.agree(now),
        (None, Some(now)) => touched.sizes.contains(&now.size),
        (_, None) => touched.is_deleted,
    };
    if !is_ours {
        return Ok(Back::Changed(key));
    }
    let options = RestoreOptions { version: Some(version), ..RestoreOptions::default() };
    match target.operator().restore_options(&target.path(&key)?, options).await {
        Ok(()) => Ok(Back::Clean(key)),
        Err(error) if crate::stores::is_missing(&error) => Ok(Back::Lost(key)),
        Err(error) => Err(classify(&format!("cannot restore `{key}` in `{}`", target.label()), error)),
    }
}

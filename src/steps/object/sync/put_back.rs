//! Undo of a move, first half: what was deleted at the source comes back from its copy at the target.
//!
//! Nothing is deleted here. A ledger of its own, `back/` in the step's folder, says what was begun at the source, so that
//! an undo that dies half-way knows its own half objects from what somebody else has written meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};

use super::ObjectSync;
use super::carry::StorageClass;
use super::copy::{Copied, Job, Origin, Transfer, Trouble};
use super::ledger::{self, Ledger, Line, Moved, Told, Touched};
use super::level::Level;
use super::limits::{Mode, Verify};
use super::pace::Pace;
use super::uploads;
use crate::error::StepError;
use crate::steps::{Progress, StepContext};
use crate::stores::{Facts, Kind, Listed, Store};

/// The folder of the ledger about the source.
const FOLDER: &str = "back";
/// Copies back at once.
const AT_ONCE: u32 = 16;

/// What became of the objects that a move has deleted, or was about to.
#[derive(Debug, Default)]
pub struct Back {
    /// They are at the source: the copies are not needed any more.
    pub put: Vec<String>,
    /// Somebody has written to the source by that name: the copy is the only one of what was moved, and stays.
    pub stays: Vec<String>,
    /// The copy is not what the step left, or is gone.
    pub lost: Vec<String>,
}

impl Back {
    /// Whether all of them are at the source.
    pub fn is_whole(&self) -> bool {
        self.stays.is_empty() && self.lost.is_empty()
    }
}

enum One {
    Put,
    Stays,
    Lost,
}

/// Sees that all that a move has deleted is at the source again.
pub async fn to_the_source(
    config: &ObjectSync,
    ctx: &StepContext,
    target: &Store,
    removed: BTreeMap<String, Moved>,
) -> Result<Back, StepError> {
    let mut back = Back::default();
    if removed.is_empty() {
        return Ok(back);
    }
    let owner = ctx.idempotence_key();
    let source = ctx.stores.open_to_write(&config.from, &ctx.base, &owner)?;
    source.clear_unfinished(&owner).await;
    let scratch = ctx.scratch.join(FOLDER);
    let told = ledger::read(&scratch, &source, None, None).await?.unwrap_or_default();
    if let Some(bucket) = source.bucket() {
        uploads::drop_strays(&*bucket, &source, &told).await?;
    }
    let Told { touched: mut begun, unfinished, .. } = told;
    let ledger = Ledger::open(&scratch, source.label(), source.whereabouts()).await?;
    let level = Level::new(Some(AT_ONCE), ctx.clock.monotonic());
    let verify = if source.bucket().is_none() { Verify::Full } else { config.verify };
    let (pace, stop) = (Pace::new(config.bandwidth.clone()), ctx.cancel.child_token());
    let gate = level.gate().clone();
    // A table of storage classes is about the way there.
    let back_again = ObjectSync { mode: Mode::Copy, storage_class: StorageClass::default(), ..config.clone() };
    let transfer = Transfer::new(target.clone(), source.clone(), ledger, pace, gate, stop, verify, &back_again, unfinished);
    let transfer = Arc::new(transfer);
    let all = removed.len() as u64;
    let work = futures::stream::iter(removed).map(|(key, moved)| {
        let (transfer, begun) = (transfer.clone(), begun.remove(&key));
        async move {
            let ended = one(&transfer, &key, &moved, begun.as_ref()).await?;
            Ok::<_, StepError>((key, ended))
        }
    });
    let mut work = work.buffer_unordered(AT_ONCE as usize);
    let mut done = 0;
    loop {
        let ended = tokio::select! {
            biased;
            () = ctx.cancel.cancelled() => return Err(ctx.stopped()),
            ended = work.try_next() => ended?,
        };
        let Some((key, ended)) = ended else { break };
        match ended {
            One::Put => &mut back.put,
            One::Stays => &mut back.stays,
            One::Lost => &mut back.lost,
        }
        .push(key);
        done += 1;
        let message = Some("back to the source".to_owned());
        ctx.progress(Progress { objects: Some(done), objects_total: Some(all), message, ..Progress::default() });
    }
    drop(work);
    source.clear_unfinished(&owner).await;
    // No copy is deleted before this is known for good.
    transfer.ledger.flush().await?;
    for key in &back.put {
        source.settle(key).await?;
    }
    Ok(back)
}

/// `transfer` goes from the target to the source. `begun` is what an earlier undo has done about this name.
async fn one(transfer: &Arc<Transfer>, key: &str, moved: &Moved, begun: Option<&Touched>) -> Result<One, StepError> {
    let (target, source) = (&transfer.source, &transfer.target);
    let (now, copy) = tokio::try_join!(source.stat(key), target.stat(key))?;
    let copy = copy.filter(|copy| moved.copy.agree(copy));
    let has_put = begun.and_then(|begun| begun.left.as_ref());
    let there = match &now {
        // It was never deleted; or an earlier undo has put it back.
        Some(now) if moved.was.is_surely(now) || has_put.is_some_and(|put| put.agree(now)) => return Ok(One::Put),
        Some(now) => {
            let Some(copy) = &copy else { return Ok(One::Stays) };
            if now.size == copy.size && is_same_content(transfer, key).await? {
                return Ok(One::Put);
            }
            // Half of what an earlier undo was writing when it died; nothing of that size is anybody else's work.
            let is_ours = begun.is_some_and(|begun| begun.left.is_none() && begun.sizes.iter().any(|size| now.size < *size));
            if !is_ours {
                return Ok(One::Stays);
            }
            Some(now.clone())
        }
        None if copy.is_none() => {
            // An earlier undo has put it back and deleted the copy, and somebody has deleted it since.
            return Ok(if has_put.is_some() { One::Put } else { One::Lost });
        }
        None => None,
    };
    let Some(copy) = copy else { return Ok(One::Lost) };
    let listed =
        |facts: Facts| Listed { key: key.to_owned(), kind: kind(key), facts, md5: None, storage_class: None, changed: None };
    transfer.ledger.intend(&[Line::Create { key: key.to_owned(), size: copy.size }]).await?;
    let job = Job { number: 0, listed: listed(copy), there: there.map(listed), was: None, is_ours: false };
    match transfer.copy(&job).await {
        Ok(Copied::There { blake3, .. }) => {
            if let Some((sent, now)) = moved.blake3.as_ref().zip(blake3).filter(|(sent, now)| *sent != now) {
                let label = target.label();
                return Err(StepError::needs_person(format!(
                    "the copy of `{key}` in `{label}` is not what was moved: {now}, not {sent}"
                ))
                .help("nothing was deleted; see whether the source has a backup of it, and what has changed the copy"));
            }
            Ok(One::Put)
        }
        Ok(Copied::Gone) => Ok(One::Lost),
        Err(Trouble::Object(error) | Trouble::Step(error)) => Err(error),
    }
}

fn kind(key: &str) -> Kind {
    if key.ends_with('/') { Kind::Marker } else { Kind::Object }
}

async fn is_same_content(transfer: &Transfer, key: &str) -> Result<bool, StepError> {
    let hash = async |store: &Store| {
        let origin = Origin::look(store, key).await.map_err(Trouble::from)?;
        transfer.hash_of(store, &origin).await.map_err(Trouble::from)
    };
    let both = async { Ok::<_, Trouble>(hash(&transfer.source).await? == hash(&transfer.target).await?) };
    match both.await {
        Ok(is_same) => Ok(is_same),
        Err(Trouble::Object(error) | Trouble::Step(error)) => Err(error),
    }
}

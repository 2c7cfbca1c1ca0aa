//! What a sync would do, found by looking: both listings merged, nothing changed.

use futures::TryStreamExt as _;
use serde::{Deserialize, Serialize};

use super::ObjectSync;
use super::carry::{Carriage, Kept};
use super::limits::Mode;
use crate::error::StepError;
use crate::steps::Preview;
use crate::steps::object::filter::Filter;
use crate::steps::object::merge::pairs;
use crate::steps::object::same::Answer;
use crate::steps::object::{objects, some, some_of};
use crate::stores::{Kind, Store};
use crate::units::ByteSize;

/// How many names that would be deleted a plan shows.
const EXTRAS: usize = 20;
/// The MD5 of nothing.
const EMPTY: &str = "d41d8cd98f00b204e9800998ecf8427e";

/// What a sync saw before its first attempt. Counts only: what it changes is in its ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncBefore {
    /// Objects at the source that the filters let through.
    pub objects: u64,
    /// Objects that would be created.
    pub create: u64,
    /// Objects that would be overwritten.
    pub overwrite: u64,
    /// Bytes of both.
    pub bytes: u64,
    /// Objects that are there already.
    pub same: u64,
    /// Objects whose contents would be compared first.
    pub read: u64,
    /// Objects whose time for files would be asked for first.
    #[serde(default)]
    pub ask: u64,
    /// What becomes of what is kept with the objects.
    #[serde(default)]
    pub kept: Kept,
    /// Objects only at the target.
    pub extra: u64,
    /// The first of what is only at the target.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub extras: Vec<String>,
    /// The first few of what would be overwritten.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub overwritten: Vec<String>,
    /// Links, sockets and the like: the first few, and how many.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// How many they are.
    #[serde(default)]
    pub left_out_count: u64,
    /// How many of them are symbolic links.
    #[serde(default)]
    pub links: u64,
    /// How many folders on the way to the target, itself among them, are not there.
    #[serde(default)]
    pub folders: usize,
    /// Whether the service copies or this machine sends, and why. Said by a plan only, of two buckets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<String>,
    /// Whether overwritten objects can be restored, as far as the kind of store tells.
    #[serde(default)]
    pub can_restore: bool,
}

/// Whether an entry is copied at all, and if not, why its name or kind forbids it.
pub fn is_copied(source: &Store, target: &Store, listed: &crate::stores::Listed) -> Result<bool, StepError> {
    match listed.kind {
        Kind::Link | Kind::Other => Ok(false),
        Kind::Object | Kind::BadName => source.usable(listed).and_then(|()| target.must_take(&listed.key)).map(|()| true),
        // Between buckets it is an object like any other.
        Kind::Marker if source.bucket().is_some() && target.bucket().is_some() => target.must_take(&listed.key).map(|()| true),
        Kind::Marker if listed.md5.as_deref().is_some_and(|md5| md5 != EMPTY) => {
            Err(StepError::permanent(format!("`{}` in `{}` holds bytes, and its name ends with `/`", listed.key, source.label()))
                .help("rename the object, or leave it out with `exclude`"))
        }
        // In folders a marker has nothing to say.
        Kind::Marker => Ok(target.abilities().is_flat && target.path(&listed.key).is_ok()),
    }
}

/// Sees that both places can be listed. What is there is found by the step itself, while it copies.
pub async fn glance(source: &Store, target: &Store) -> Result<SyncBefore, StepError> {
    let (mut from, mut to) = (source.list(None), target.list(None));
    let (from, to) = tokio::join!(from.next(), to.next());
    from?;
    to?;
    Ok(SyncBefore { can_restore: target.abilities().versions, ..SyncBefore::default() })
}

/// Looks at both places.
pub async fn look(source: &Store, target: &Store, filter: &Filter, config: &ObjectSync) -> Result<SyncBefore, StepError> {
    let mut before = SyncBefore { can_restore: target.abilities().versions, ..SyncBefore::default() };
    before.way = config.server_side.way(source, target);
    before.kept = Kept::new(source, target, config.tags);
    let carriage = Carriage::new(source, target, config.tags, config.storage_class.clone());
    let mut refused: Vec<StepError> = Vec::new();
    let mut refused_count = 0_u64;
    let mut pairs = pairs(source, target, None, filter);
    while let Some(pair) = pairs.try_next().await? {
        let Some(listed) = &pair.source else {
            if pair.target.is_some_and(|target| target.kind.is_object()) {
                before.extra += 1;
                if before.extras.len() < EXTRAS {
                    before.extras.push(pair.key);
                }
            }
            continue;
        };
        match is_copied(source, target, listed) {
            Ok(true) => {}
            Ok(false) => {
                if listed.kind.is_left_out() {
                    before.left_out_count += 1;
                    before.links += u64::from(listed.kind == Kind::Link);
                    if before.left_out.len() < 5 {
                        before.left_out.push(pair.key);
                    }
                }
                continue;
            }
            Err(error) => {
                refused_count += 1;
                if refused.len() < 5 {
                    refused.push(error);
                }
                continue;
            }
        }
        before.objects += 1;
        match pair.target.as_ref().map(|there| config.compare.of_copy(listed, there)) {
            None => {
                before.create += 1;
                before.bytes += listed.facts.size;
                before.kept.see(listed, &carriage);
            }
            Some(Answer::Different) => {
                before.overwrite += 1;
                before.bytes += listed.facts.size;
                before.kept.see(listed, &carriage);
                if before.overwritten.len() < 5 {
                    before.overwritten.push(pair.key);
                }
            }
            Some(Answer::Same) => before.same += 1,
            Some(Answer::Read) => before.read += 1,
            Some(Answer::Ask) => before.ask += 1,
        }
    }
    if let Some(first) = refused.first() {
        let messages: Vec<&str> = refused.iter().map(|error| error.message.as_str()).collect();
        let rest = refused_count - messages.len() as u64;
        let rest = if rest > 0 { format!("; and {rest} more") } else { String::new() };
        let error = StepError::permanent(format!("{} cannot be copied: {}{rest}", objects(refused_count), messages.join("; ")));
        return Err(error.help(first.help.clone().unwrap_or_default()));
    }
    Ok(before)
}

/// What a plan tells of it.
pub fn preview(before: &SyncBefore, config: &ObjectSync) -> Preview {
    let (from, to) = (&config.from, &config.to);
    let deletes = if config.mode == Mode::Mirror { before.extra } else { 0 };
    let copies = before.create + before.overwrite;
    let mut does = vec![if copies == 0 {
        format!("copies nothing from `{from}` to `{to}`: {} already there", objects(before.same))
    } else {
        format!("copies {}, {}, from `{from}` to `{to}`", objects(copies), ByteSize(before.bytes))
    }];
    if let Some(way) = before.way.as_ref().filter(|_| copies > 0) {
        does.push(way.clone());
    }
    if copies > 0 && before.same > 0 {
        does.push(format!("{} already there", objects(before.same)));
    }
    if before.read > 0 {
        does.push(format!("compares the contents of {}", objects(before.read)));
    }
    let is_move = config.mode == Mode::Move;
    if is_move && before.objects > 0 {
        does.push(format!("then deletes {} at `{from}`, each once its copy is whole", objects(before.objects)));
    }
    if before.ask > 0 {
        does.push(format!("asks for the times of {}", objects(before.ask)));
    }
    does.extend(before.kept.does());
    if deletes > 0 {
        does.push(format!("deletes {} only at the target", objects(deletes)));
    }
    does.extend(config.follow.told());
    let mut warnings = before.kept.warnings(from, to);
    if before.objects == 0 && !config.allow_empty {
        warnings.push(format!("there is nothing at `{from}` now: the step fails if that stays so"));
    }
    let lost = before.overwrite + deletes;
    if before.overwrite > 0 {
        let can = if before.can_restore { "can be restored only where the bucket keeps versions" } else { "cannot be restored" };
        warnings.push(format!(
            "overwrites {}, which {can}: {}",
            objects(before.overwrite),
            some(&before.overwritten, before.overwrite)
        ));
    }
    if deletes > 0 {
        let names = some_of(&before.extras, deletes, EXTRAS);
        warnings.push(format!(
            "deletes {} that {} only at `{to}`: {names}",
            objects(deletes),
            if deletes == 1 { "is" } else { "are" }
        ));
    }
    if before.left_out_count > 0 {
        let (all, links) = (before.left_out_count, before.links);
        let what = match links {
            1 if all == 1 => "a symbolic link".to_owned(),
            _ if links == all => format!("{all} symbolic links"),
            0 => format!("{all} that are neither files nor folders"),
            _ => format!("{all} that are neither files nor folders, symbolic links among them"),
        };
        warnings.push(format!("leaves out {what}: {}", some(&before.left_out, all)));
    }
    let undo = if lost == 0 {
        "deletes what it created".to_owned()
    } else {
        format!("deletes what it created; restores {} where the bucket keeps versions, else names them", objects(lost))
    };
    let undo = if is_move && before.objects > 0 { format!("puts back what it deleted at `{from}`, then {undo}") } else { undo };
    Preview {
        does: does.join("; "),
        undo,
        already_done: copies + before.read + before.ask + deletes == 0
            && before.objects > 0
            && !is_move
            && config.follow.way().is_none(),
        bytes: Some(before.bytes),
        objects: Some(copies),
        warnings,
    }
}

//! Uploads in parts that syncs of this project have begun and not ended: they are seen in no listing, and cost money.

use std::collections::BTreeSet;

use super::{Check, State};
use crate::cli::{Context, Fault, by};
use crate::engine::RunStatus;
use crate::executor::{Executor, Target};
use crate::journal::{Journal, RunSummary};
use crate::report::telling::counted;
use crate::steps::{Left, left};
use crate::stores::bucket::{BucketError, Upload};
use crate::units::{ByteSize, Span};

/// How many names are told.
const MOST: usize = 3;

/// Looks at every run with a ledger that tells of unfinished uploads. `aborts`: those that no run needs are thrown away.
pub(super) async fn check(context: &Context, aborts: bool) -> Result<Vec<Check>, Fault> {
    let Ok(journal) = Journal::read(context.store_of_here()?) else { return Ok(Vec::new()) };
    let executor = Executor::new(journal.clone(), crate::steps::builtin(), by());
    let mut checks = Vec::new();
    for run in journal.runs()? {
        // Most runs have moved no object.
        let dirs = std::fs::read_dir(journal.run_dir(&run.id)).into_iter().flatten().flatten();
        if !dirs.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("scratch")) {
            continue;
        }
        match executor.sync_targets(&run.id).await {
            Ok((status, targets)) => {
                for target in targets {
                    checks.extend(one(&run, status, &target, aborts).await);
                }
            }
            Err(error) => checks.push(Check::new(format!("uploads of {}", run.id), State::Odd, error.to_string())),
        }
    }
    Ok(checks)
}

/// What one sync has left.
async fn one(run: &RunSummary, status: RunStatus, target: &Target, aborts: bool) -> Option<Check> {
    let owned = left(&target.scratch);
    if owned.is_empty() {
        return None;
    }
    let label = format!("uploads of {}", target.step);
    let place = &target.place;
    let found = match &target.store {
        Err(error) => Err(error.message.clone()),
        Ok(store) => match store.bucket() {
            None => return None,
            Some(bucket) => match bucket.uploads(store.prefix()).await {
                Ok(found) => Ok((store, bucket, found)),
                Err(BucketError::Missing) => Ok((store, bucket, Vec::new())),
                Err(error) => Err(error.into_step(&format!("cannot list the unfinished uploads in `{place}`")).message),
            },
        },
    };
    let (store, bucket, found) = match found {
        Ok(found) => found,
        Err(why) => {
            let says = format!("{} of run {} at `{place}`, not looked at: {why}", uploads(owned.len()), run.id);
            return Some(Check::new(label, State::Odd, says).help(rollback(run)));
        }
    };
    let is_there = |owned: &Left| found.iter().find(|upload| upload.id == owned.id);
    let mine: Vec<(&Left, &Upload)> = owned.iter().filter_map(|owned| Some((owned, is_there(owned)?))).collect();
    let ids: BTreeSet<&str> = owned.iter().map(|owned| owned.id.as_str()).collect();
    let foreign = found.iter().filter(|upload| !ids.contains(upload.id.as_str())).count();
    let foreign = if foreign > 0 { format!("; {} there by others, left alone", uploads(foreign)) } else { String::new() };
    if mine.is_empty() {
        return None;
    }
    let is_over = matches!(status, RunStatus::Succeeded | RunStatus::RolledBack) && !run.live;
    let told = told(&mine);
    if is_over && aborts {
        let mut failed = Vec::new();
        for (owned, _) in &mine {
            if let Err(error) = bucket.abort(&store.whole_key(&owned.key), &owned.id).await {
                failed.push(error.into_step(&format!("cannot throw away the upload of `{}`", owned.key)).message);
            }
        }
        return Some(match failed.first() {
            None => Check::new(label, State::Fine, format!("thrown away at `{place}`: {told}{foreign}")),
            Some(first) => Check::new(label, State::Odd, format!("{first}{foreign}")),
        });
    }
    let says = format!("{told} at `{place}`, of run {}{foreign}", run.id);
    Some(match (run.live, is_over) {
        (true, _) => Check::new(label, State::Fine, format!("{says}: the run is at work")),
        (_, true) => {
            Check::new(label, State::Odd, says).help("no run needs them: `ferry doctor --abort-uploads` throws them away")
        }
        _ => Check::new(label, State::Odd, says).help(rollback(run)),
    })
}

fn uploads(count: usize) -> String {
    counted(count, "unfinished upload", "unfinished uploads")
}

fn rollback(run: &RunSummary) -> String {
    format!("`ferry resume {0}` goes on with them, `ferry rollback {0}` throws them away", run.id)
}

/// How many, how much of them has arrived, how old, and the first names.
fn told(mine: &[(&Left, &Upload)]) -> String {
    let arrived: u64 = mine.iter().map(|(owned, _)| owned.arrived).sum();
    let oldest = mine.iter().filter_map(|(_, upload)| upload.started).min();
    let age = oldest.and_then(|at| std::time::Duration::try_from(jiff::Timestamp::now().duration_since(at)).ok());
    let age = age.map(|age| format!(", begun {} ago", Span(std::time::Duration::from_secs(age.as_secs())))).unwrap_or_default();
    let names: Vec<String> = mine.iter().take(MOST).map(|(owned, _)| format!("`{}`", owned.key)).collect();
    let more = if mine.len() > MOST { format!(" and {} more", mine.len() - MOST) } else { String::new() };
    format!("{}, {}{age}: {}{more}", uploads(mine.len()), ByteSize(arrived), names.join(", "))
}

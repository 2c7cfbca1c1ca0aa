//! From a range that differs down to the rows that do.
//!
//! Two snapshots are of two moments when clients write meanwhile. So a row that differs is looked at again, as it is now:
//! first where it is written, then, again and again, where it follows, then once more where it is written. If the follower
//! ever shows what was there before or after, the row is equal. If it was the same before and after, and the follower,
//! which had replayed all of it, shows something else, it differs. If neither, it was changed meanwhile, and the next round
//! decides.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::session::{Follows, caught_up, live, rows};
use super::table::{Key, Range, Table};
use super::{Compare, Pair, Sums};
use crate::error::StepError;
use crate::postgres::Database;
use crate::steps::StepContext;

/// A range of so many rows is listed.
const LISTED: u64 = 2000;
/// So many rows of a table are named.
pub(super) const NAMED: usize = 20;
/// How often a row that is changed again and again is looked at.
const ROUNDS: usize = 30;
/// How often the follower is asked in a round.
const LOOKS: usize = 10;

/// How a row differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum How {
    /// The target does not have it.
    Missing,
    /// The source does not have it.
    Extra,
    /// Both have it, with other content.
    Changed,
    /// It is changed too often to be compared.
    Unsettled,
}

/// What is found in a table.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Rows, each with its key.
    pub(super) rows: Vec<(How, String)>,
    /// Ranges that differ and were not looked into any further.
    pub(super) ranges: Vec<Range>,
}

/// What rows there are: label and hashes by key.
type Rows = BTreeMap<Vec<String>, (Option<String>, String)>;

async fn list(database: &Database, table: &Table, sql: &str) -> Result<Rows, StepError> {
    let width = table.key.len();
    let all = rows(database, "read rows", sql).await?;
    Ok(all
        .into_iter()
        .filter_map(|mut row| {
            let hash = row.pop()??;
            let label = row.pop()?;
            let key: Vec<String> = row.into_iter().collect::<Option<_>>()?;
            (key.len() == width).then_some((key, (label, hash)))
        })
        .collect())
}

/// The connections that show what is there now.
pub(super) struct Now {
    from: Database,
    to: Database,
}

impl Now {
    pub(super) async fn open(ctx: &StepContext, config: &Compare, database: &str) -> Result<Self, StepError> {
        Ok(Self { from: live(ctx, &config.from, database).await?, to: live(ctx, &config.to, database).await? })
    }
}

/// Rows that differ within a range that does.
pub(super) async fn find(
    ctx: &StepContext,
    pair: &Pair,
    table: &Table,
    range: Range,
    now: (&Now, Follows),
    found: &mut Found,
) -> Result<(), StepError> {
    let mut open = vec![range];
    while let Some(range) = open.pop() {
        if ctx.cancel.is_cancelled() {
            return Err(ctx.stopped());
        }
        let Some((from, to)) = pair.differ(table, &range).await? else { continue };
        if found.rows.len() >= NAMED || table.key.is_empty() {
            found.ranges.push(range);
            continue;
        }
        if from.rows.max(to.rows) <= LISTED {
            let sql = table.list(&range);
            let (here, there) = tokio::try_join!(list(&pair.from, table, &sql), list(&pair.to, table, &sql))?;
            settle(ctx, table, here, there, now, found).await?;
            continue;
        }
        match halves(pair, table, &range, from, to).await? {
            Some((first, second)) => open.extend([second, first]),
            None => found.ranges.push(range),
        }
    }
    Ok(())
}

/// A range in two, at the middle of the side with more rows.
async fn halves(pair: &Pair, table: &Table, range: &Range, from: Sums, to: Sums) -> Result<Option<(Range, Range)>, StepError> {
    let (side, count) = if from.rows >= to.rows { (&pair.from, from.rows) } else { (&pair.to, to.rows) };
    let middle = rows(side, "part a range", &table.nth(range, count / 2)).await?.into_iter().next();
    let Some(middle) = middle.and_then(|row| row.into_iter().collect::<Option<Vec<String>>>()) else { return Ok(None) };
    if range.from.as_ref() == Some(&middle) {
        return Ok(None);
    }
    let first = Range { from: range.from.clone(), until: Some(middle.clone()) };
    Ok(Some((first, Range { from: Some(middle), until: range.until.clone() })))
}

/// Which of the rows that differ between two snapshots really do.
async fn settle(
    ctx: &StepContext,
    table: &Table,
    here: Rows,
    there: Rows,
    (now, follows): (&Now, Follows),
    found: &mut Found,
) -> Result<(), StepError> {
    let hash = |rows: &Rows, key: &Vec<String>| rows.get(key).map(|(_, hash)| hash.clone());
    let all: BTreeSet<&Vec<String>> = here.keys().chain(there.keys()).collect();
    let mut open: Vec<Vec<String>> = all.into_iter().filter(|key| hash(&here, key) != hash(&there, key)).cloned().collect();
    let mut labels: BTreeMap<Vec<String>, String> = BTreeMap::new();
    for (key, (label, _)) in here.iter().chain(&there) {
        if let Some(label) = label {
            labels.insert(key.clone(), label.clone());
        }
    }
    let named = |key: &Vec<String>| match labels.get(key) {
        Some(label) => Key(std::slice::from_ref(label)).to_string(),
        None => Key(key).to_string(),
    };
    let (leads, followed) = if follows.is_from() { (&now.to, &now.from) } else { (&now.from, &now.to) };
    let mut round = 0;
    while !open.is_empty() && round < ROUNDS {
        round += 1;
        if ctx.cancel.is_cancelled() {
            return Err(ctx.stopped());
        }
        let sql = table.list_keys(&open);
        let before = list(leads, table, &sql).await?;
        if follows == Follows::Neither {
            // Whoever copies from the one to the other, if anybody does, gets some time for it.
            tokio::time::sleep(Duration::from_millis(100)).await;
        } else {
            caught_up(ctx, leads, followed, follows).await?;
        }
        let mut shown: Vec<Rows> = vec![list(followed, table, &sql).await?];
        let after = list(leads, table, &sql).await?;
        let moves = |key: &Vec<String>| hash(&before, key) != hash(&after, key);
        if open.iter().any(&moves) {
            for _ in 1..LOOKS {
                shown.push(list(followed, table, &sql).await?);
            }
        }
        let mut rest = Vec::new();
        for key in open {
            let (one, other) = (hash(&before, &key), hash(&after, &key));
            if shown.iter().any(|rows| hash(rows, &key) == one || hash(rows, &key) == other) {
                continue;
            }
            // Between two servers of which none is a standby, three looks have to say the same.
            if moves(&key) || (follows == Follows::Neither && round < 3) {
                rest.push(key);
                continue;
            }
            let shown = hash(&shown[0], &key);
            let (here, there) = if follows.is_from() { (shown, one) } else { (one, shown) };
            let how = match (here, there) {
                (Some(_), None) => How::Missing,
                (None, Some(_)) => How::Extra,
                _ => How::Changed,
            };
            found.rows.push((how, named(&key)));
        }
        open = rest;
    }
    found.rows.extend(open.iter().map(|key| (How::Unsettled, named(key))));
    Ok(())
}

//! The comparison: database by database, each in two snapshots, its tables in parts, several parts at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use globset::{GlobSet, GlobSetBuilder};
use tokio::sync::OnceCell;

use super::rows::{Found, How, NAMED, Now, find};
use super::session::{Follows, Session, caught_up, live, rows};
use super::table::{Range, Table, tables};
use super::{Compare, Compared, Difference, Kind, Pair, SHOWN, Sums, Told, facts};
use crate::error::StepError;
use crate::steps::{Progress, StepContext};
use crate::units::{Rate, Span};

/// Keys that are looked at for one border between parts.
const KEYS_EACH: u64 = 200;

/// A table with what is known of it so far.
struct Open {
    table: Table,
    rows: u64,
    parts: usize,
    found: Found,
    is_different: bool,
}

/// What is to be done, and what has been.
struct Board {
    parts: Mutex<VecDeque<(usize, Range)>>,
    open: Mutex<Vec<Open>>,
    bytes: Mutex<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What was found in all databases.
#[derive(Default)]
struct All {
    told: Vec<Told>,
    differences: Vec<Difference>,
    notes: Vec<String>,
}

impl Compare {
    /// Which tables are compared.
    pub(super) fn filter(&self) -> Result<(Option<GlobSet>, GlobSet), StepError> {
        let set = |patterns: &[String]| {
            let mut set = GlobSetBuilder::new();
            for pattern in patterns {
                set.add(globset::Glob::new(pattern).map_err(|error| {
                    StepError::permanent(format!("`{pattern}` is not a pattern: {}", error.kind()))
                        .help("write it like `public.log_*`")
                })?);
            }
            set.build().map_err(|error| StepError::permanent("the patterns are too large").cause(error).help("give fewer"))
        };
        let include = if self.include.is_empty() { None } else { Some(set(&self.include)?) };
        Ok((include, set(&self.exclude)?))
    }
}

/// Compares all.
pub(super) async fn compare(ctx: &StepContext, config: &Compare) -> Result<Compared, StepError> {
    let started = ctx.clock.monotonic();
    let is_physical = config.is_physical(ctx).await?;
    let mut all = All::default();
    if config.schema {
        let (from, to) =
            tokio::try_join!(live(ctx, &config.from, &config.from.database), live(ctx, &config.to, &config.to.database))?;
        let (settings, others): (Vec<_>, Vec<_>) = facts::of_cluster(&from, &to, is_physical)
            .await?
            .into_iter()
            .partition(|difference| difference.kind == Kind::Setting);
        let is_moved = |difference: &Difference| difference.kind != Kind::Database || config.databases.is_empty();
        // A cluster that has taken some databases of another in has roles of its own.
        let is_guest = !is_physical && !config.databases.is_empty();
        let is_its_own = |difference: &Difference| is_guest && difference.kind == Kind::Role && difference.what != facts::MISSING;
        let (own, others): (Vec<_>, Vec<_>) = others.into_iter().filter(is_moved).partition(is_its_own);
        all.differences.extend(others);
        all.notes.extend(settings.iter().map(|setting| format!("setting {}", setting.told())));
        all.notes.extend(own.iter().map(|role| format!("role {}", role.told())));
    }
    for database in config.databases(ctx).await? {
        one_database(ctx, config, &database, is_physical, &mut all).await?;
    }
    for note in &all.notes {
        ctx.log(note);
    }
    write(ctx, "tables.jsonl", &all.told).await?;
    write(ctx, "differences.jsonl", &all.differences).await?;
    let took = ctx.clock.monotonic().saturating_sub(started);
    let bytes: u64 = all.told.iter().map(|told| told.bytes).sum();
    let rate = u64::try_from(u128::from(bytes) * 1_000_000 / took.as_micros().max(1)).unwrap_or(u64::MAX);
    let mut largest = all.told.clone();
    largest.sort_by_key(|told| std::cmp::Reverse(told.bytes));
    largest.truncate(SHOWN);
    let tables = all.told.len() as u64;
    if tables == 0 && all.differences.is_empty() {
        return Err(StepError::permanent("there is no table to compare")
            .help("correct `databases`, `include` and `exclude`: an empty comparison proves nothing"));
    }
    Ok(Compared {
        equal: all.differences.is_empty(),
        tables,
        equal_tables: all.told.iter().filter(|told| told.equal).count() as u64,
        rows: all.told.iter().map(|told| told.rows).sum(),
        bytes,
        took: Span(Duration::from_millis(u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1))),
        rate: (rate > 0).then_some(Rate(rate)),
        differences: all.differences.len() as u64,
        first_differences: all.differences.into_iter().take(SHOWN).collect(),
        largest,
        notes: all.notes.into_iter().take(SHOWN).collect(),
    })
}

async fn one_database(
    ctx: &StepContext,
    config: &Compare,
    name: &str,
    is_physical: bool,
    all: &mut All,
) -> Result<(), StepError> {
    let (leads, follows_it) = tokio::try_join!(live(ctx, &config.from, name), live(ctx, &config.to, name))?;
    let follows = Follows::of_database(&leads, &follows_it).await?;
    // The standby's snapshot is the later one, so that what is missing there is not what it could not know yet.
    let (from, to) = if follows.is_from() {
        let to = Session::open(ctx, &config.to, name).await?;
        caught_up(ctx, &follows_it, &leads, follows).await?;
        (Session::open(ctx, &config.from, name).await?, to)
    } else {
        let from = Session::open(ctx, &config.from, name).await?;
        if follows != Follows::Neither {
            caught_up(ctx, &leads, &follows_it, follows).await?;
        }
        (from, Session::open(ctx, &config.to, name).await?)
    };
    drop((leads, follows_it));
    if config.schema {
        let differences = facts::of_database(name, from.leader(), to.leader()).await?.into_iter();
        let is_left = |difference: &Difference| match difference.kind {
            // They do not follow by rows: a cutover carries them over.
            Kind::Sequence => follows.is_by_rows() && difference.what != facts::MISSING,
            Kind::LargeObject => config.without_large_objects,
            _ => false,
        };
        let (left, differences): (Vec<_>, Vec<_>) = differences.partition(is_left);
        all.differences.extend(differences);
        all.notes.extend(left.iter().map(|difference| format!("does not follow by rows: {}", difference.told())));
    }
    let (include, exclude) = config.filter()?;
    let is_meant = |table: &Table| {
        let title = table.title();
        include.as_ref().is_none_or(|include| include.is_match(&title)) && !exclude.is_match(&title)
    };
    let (here, left) = tables(from.leader(), is_physical, follows).await?;
    let (there, _) = tables(to.leader(), is_physical, follows).await?;
    all.notes.extend(left.into_iter().map(|(table, why)| format!("`{table}` in `{name}` is left out: {why}")));
    let mut there: BTreeMap<String, Table> = there.into_iter().map(|table| (table.title(), table)).collect();
    let mut open = Vec::new();
    let missing = |name: &str, table: String, what: &str| Difference {
        kind: Kind::Table,
        database: name.to_owned(),
        name: table,
        what: what.to_owned(),
    };
    for table in here.into_iter().filter(is_meant) {
        let Some(other) = there.remove(&table.title()) else {
            all.differences.push(missing(name, table.title(), "missing in the target"));
            continue;
        };
        let columns = |table: &Table| {
            let mut names: Vec<String> = table.columns.iter().map(|column| column.name.clone()).collect();
            names.sort();
            names
        };
        if columns(&table) != columns(&other) {
            all.differences.push(missing(name, table.title(), "other columns in the target"));
            continue;
        }
        open.push(Open { table, rows: 0, parts: 0, found: Found::default(), is_different: false });
    }
    all.differences.extend(there.into_values().filter(is_meant).map(|table| missing(name, table.title(), "not in the source")));
    let open = in_parts(ctx, config, name, (&from, &to, follows), open).await?;
    for table in &open {
        tell(name, table, all);
    }
    Ok(())
}

/// Parts the tables and compares the parts.
async fn in_parts(
    ctx: &StepContext,
    config: &Compare,
    name: &str,
    (from, to, follows): (&Session<'_>, &Session<'_>, Follows),
    mut open: Vec<Open>,
) -> Result<Vec<Open>, StepError> {
    // The largest first: what begins last is to be small.
    open.sort_by_key(|open| std::cmp::Reverse(open.table.bytes));
    let mut parts = VecDeque::new();
    for (at, open) in open.iter_mut().enumerate() {
        let ranges = ranges(from, &open.table, config.chunk.0).await?;
        open.parts = ranges.len();
        parts.extend(ranges.into_iter().map(|range| (at, range)));
    }
    let total = open.iter().map(|open| open.table.bytes).sum();
    let workers = config.parallel.clamp(1, 64).min(parts.len());
    let board = Board { parts: Mutex::new(parts), open: Mutex::new(open), bytes: Mutex::new(0) };
    let now = OnceCell::new();
    let working = (0..workers).map(|_| {
        let (board, now) = (&board, &now);
        async move {
            let pair = Pair { from: from.join().await?, to: to.join().await? };
            loop {
                let Some((at, range)) = lock(&board.parts).pop_front() else { return Ok::<(), StepError>(()) };
                let table = lock(&board.open)[at].table.clone();
                let (here, there) = pair.sums(&table, &range).await?;
                let mut found = Found::default();
                if here != there {
                    let now = now.get_or_try_init(|| Now::open(ctx, config, name)).await?;
                    // What one part has found does not shorten what another names: all parts of a table may differ.
                    find(ctx, &pair, &table, range, (now, follows), &mut found).await?;
                }
                board.done(ctx, name, at, here, found, total);
            }
        }
    });
    futures::future::try_join_all(working).await?;
    Ok(board.open.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner))
}

impl Board {
    fn done(&self, ctx: &StepContext, name: &str, at: usize, sums: Sums, mut found: Found, total: u64) {
        let mut open = lock(&self.open);
        let parts = open[at].parts.max(1) as u64;
        let one = &mut open[at];
        one.rows += sums.rows;
        one.is_different |= !found.rows.is_empty() || !found.ranges.is_empty();
        one.found.rows.append(&mut found.rows);
        one.found.ranges.append(&mut found.ranges);
        let mut bytes = lock(&self.bytes);
        *bytes += one.table.bytes / parts;
        let message = format!("`{name}`: `{}`", one.table.title());
        ctx.progress(Progress { bytes: Some(*bytes), bytes_total: Some(total), message: Some(message), ..Progress::default() });
    }
}

/// A table in parts of about this many bytes.
async fn ranges(from: &Session<'_>, table: &Table, chunk: u64) -> Result<Vec<Range>, StepError> {
    let parts = table.bytes / chunk.max(1 << 20);
    if parts < 1 || table.key.is_empty() || table.is_bag {
        return Ok(vec![Range::default()]);
    }
    let parts = parts + 1;
    let borders: Vec<Vec<String>> = if table.key[0] == "ctid" {
        let step = table.pages.div_ceil(parts).max(1);
        (1..parts).map(|part| part * step).filter(|page| *page < table.pages).map(|page| vec![format!("({page},0)")]).collect()
    } else {
        // A page holds many rows, so few pages are enough.
        let percent = (parts * KEYS_EACH) as f64 / table.pages.max(1) as f64;
        let keys = rows(from.leader(), "look at some keys", &table.some_keys(percent.clamp(0.0001, 100.0))).await?;
        let keys: Vec<Vec<String>> = keys.into_iter().filter_map(|row| row.into_iter().collect()).collect();
        let step = keys.len() / usize::try_from(parts).unwrap_or(usize::MAX);
        if step == 0 { Vec::new() } else { keys.into_iter().step_by(step).skip(1).collect() }
    };
    let mut ranges = Vec::with_capacity(borders.len() + 1);
    let mut last = None;
    for border in borders {
        if last.as_ref() == Some(&border) {
            continue;
        }
        ranges.push(Range { from: last.replace(border.clone()), until: Some(border) });
    }
    ranges.push(Range { from: last, until: None });
    Ok(ranges)
}

/// What is told of a table that was compared.
fn tell(database: &str, open: &Open, all: &mut All) {
    let title = open.table.title();
    let difference = |kind, what| Difference { kind, database: database.to_owned(), name: title.clone(), what };
    let names = if open.table.label.is_empty() { &open.table.key } else { &open.table.label };
    let names = names.join(", ");
    for (how, key) in open.found.rows.iter().take(NAMED) {
        let how = match how {
            How::Missing => "missing in the target",
            How::Extra => "not in the source",
            How::Changed => "other content in the target",
            How::Unsettled => "changed too often to be compared",
        };
        all.differences.push(difference(Kind::Row, format!("row ({names}) = {key}: {how}")));
    }
    if open.found.rows.len() > NAMED {
        let more = open.found.rows.len() - NAMED;
        all.differences.push(difference(Kind::Range, format!("{more} more rows differ")));
    }
    for range in open.found.ranges.iter().take(NAMED) {
        all.differences.push(difference(Kind::Range, format!("rows differ: {}", open.table.told(range))));
    }
    all.told.push(Told {
        database: database.to_owned(),
        table: title.clone(),
        rows: open.rows,
        bytes: open.table.bytes,
        equal: !open.is_different,
    });
}

/// A file with a line for each.
async fn write<T: serde::Serialize>(ctx: &StepContext, name: &str, lines: &[T]) -> Result<(), StepError> {
    let unwritable = |error: std::io::Error| {
        StepError::permanent(format!("cannot write `{name}` in the step's folder"))
            .cause(error)
            .help("make room, then resume the run")
    };
    let mut text = Vec::new();
    for line in lines {
        serde_json::to_writer(&mut text, line).map_err(|error| unwritable(error.into()))?;
        text.push(b'\n');
    }
    tokio::fs::create_dir_all(&ctx.scratch).await.map_err(unwritable)?;
    tokio::fs::write(ctx.scratch.join(name), text).await.map_err(unwritable)
}

//! Changes of the schema do not follow row by row. What the source has by now is looked up once more before the pause: a
//! table that was made since would be left behind with all that is in it.

use std::collections::BTreeMap;

use tokio_postgres::types::ToSql;

use super::sequences::Sequences;
use crate::error::StepError;
use crate::postgres::Database;

/// Tables and sequences with their columns, `name type` each; generated columns are made where they are.
const THINGS: &str = "select format('%I.%I', n.nspname, c.relname) || case when c.relkind = 'S' then ' (a sequence)' else '' end,
      coalesce((select array_agg(format('%I %I.%I', a.attname, tn.nspname, t.typname) || coalesce(' ' || nullif(a.atttypmod, -1), ''))
                from pg_attribute a join pg_type t on t.oid = a.atttypid join pg_namespace tn on tn.oid = t.typnamespace
                where c.relkind = 'r' and a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''), '{}')
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'S') and c.relpersistence = 'p' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'";

/// Those of an extension come with it.
const OF_PEOPLE: &str =
    "not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')";

/// `$1` is the subscription: its tables whose first copy is over.
const THAT_FOLLOW: &str =
    "(c.relkind = 'S' or exists (select from pg_subscription_rel r join pg_subscription s on s.oid = r.srsubid
    where r.srrelid = c.oid and r.srsubstate = 'r' and s.subname = $1))";

/// Fails when a source has something that its target does not follow.
pub(super) async fn agree(all: &[Sequences]) -> Result<(), StepError> {
    futures::future::try_join_all(all.iter().map(one)).await.map(drop)
}

async fn one(pair: &Sequences) -> Result<(), StepError> {
    let (from, to, subscription) = pair.ends();
    let (theirs, ours) = (format!("{THINGS} and {OF_PEOPLE}"), format!("{THINGS} and {THAT_FOLLOW}"));
    let values: [&(dyn ToSql + Sync); 1] = [&subscription];
    let (theirs, ours) = tokio::try_join!(things(from, &theirs, &[]), things(to, &ours, &values))?;
    let Some((name, columns)) = theirs
        .iter()
        .find(|(name, columns)| ours.get(*name).is_none_or(|ours| columns.iter().any(|column| !ours.contains(column))))
    else {
        return Ok(());
    };
    let what = match ours.get(name).and_then(|ours| columns.iter().find(|column| !ours.contains(column))) {
        Some(column) => format!("`{}` of {name}", column.split(' ').next().unwrap_or_default()),
        None => name.clone(),
    };
    Err(StepError::needs_person(format!("{what} does not follow: the schema of `{}` was changed while its rows did", from.title()))
        .help(format!(
            "nothing was begun. Make the same change at `{}`, say `alter subscription {subscription} refresh publication` there and resume the run; or roll back and begin anew",
            to.title()
        )))
}

async fn things(
    database: &Database,
    sql: &str,
    values: &[&(dyn ToSql + Sync)],
) -> Result<BTreeMap<String, Vec<String>>, StepError> {
    let doing = "look at its tables once more";
    let rows = database.rows(doing, sql, values).await?;
    let read = rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?)));
    read.collect::<Result<_, _>>().map_err(|error| database.failed(doing, error))
}

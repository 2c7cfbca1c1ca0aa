//! What is compared beside the rows: the schema, sequences, extensions, collations, roles, settings, large objects.

use std::collections::{BTreeMap, BTreeSet};

use super::session::rows;
use super::{Difference, Kind};
use crate::error::StepError;
use crate::postgres::Database;

/// What is there in the source alone.
pub(super) const MISSING: &str = "missing in the target";

/// Not PostgreSQL's own, and not those of extensions, which are compared by their versions.
const OURS: &str = "n.nspname !~ '^pg_' and n.nspname <> 'information_schema'";

/// Questions about one database: kind, then a query of names and texts.
fn in_database() -> Vec<(Kind, String)> {
    let ours = OURS;
    vec![
        (
            Kind::Schema,
            format!(
                "select format('column %I.%I.%I', n.nspname, c.relname, a.attname), concat_ws(' ', format_type(a.atttypid, a.atttypmod), \
                 case when a.attnotnull then 'not null' end, pg_get_expr(d.adbin, d.adrelid), nullif(a.attgenerated::text, ''), \
                 nullif(a.attidentity::text, ''), (select format('collate %I', collname) from pg_collation l where l.oid = a.attcollation \
                 and l.collname <> 'default')) from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on \
                 n.oid = c.relnamespace left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum where a.attnum > 0 and \
                 not a.attisdropped and c.relkind in ('r', 'p', 'f', 'v', 'm', 'c') and c.relpersistence <> 't' and {ours}"
            ),
        ),
        (
            Kind::Schema,
            format!(
                "select format('%s %I.%I', c.relkind, n.nspname, c.relname), concat_ws(' ', pg_get_userbyid(c.relowner), c.relpersistence, \
                 c.reloptions::text, c.relacl::text, c.relrowsecurity, c.relforcerowsecurity, pg_get_expr(c.relpartbound, c.oid), \
                 case c.relkind when 'p' then pg_get_partkeydef(c.oid) when 'i' then pg_get_indexdef(c.oid) when 'v' then \
                 pg_get_viewdef(c.oid) when 'm' then pg_get_viewdef(c.oid) end, (select string_agg(i.inhparent::regclass::text, ',' order \
                 by i.inhseqno) from pg_inherits i where i.inhrelid = c.oid), (select 'invalid' from pg_index i where i.indexrelid = c.oid \
                 and not i.indisvalid)) from pg_class c join pg_namespace n on n.oid = c.relnamespace where c.relpersistence <> 't' and \
                 c.relkind <> 't' and {ours}"
            ),
        ),
        (
            Kind::Schema,
            format!(
                "select format('constraint %s %I', coalesce(nullif(o.conrelid, 0)::regclass::text, o.contypid::regtype::text), o.conname), \
                 concat(pg_get_constraintdef(o.oid), case when not o.convalidated then ' not valid' end) from pg_constraint o \
                 join pg_namespace n on n.oid = o.connamespace where {ours}"
            ),
        ),
        (
            Kind::Schema,
            format!(
                "select format('trigger %s %I', t.tgrelid::regclass, t.tgname), concat(pg_get_triggerdef(t.oid), t.tgenabled) from pg_trigger t \
                 join pg_class c on c.oid = t.tgrelid join pg_namespace n on n.oid = c.relnamespace where not t.tgisinternal and {ours}"
            ),
        ),
        (
            Kind::Schema,
            format!(
                "select format('function %I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), concat(md5(case when \
                 p.prokind in ('f', 'p') then pg_get_functiondef(p.oid) else p.prosrc end), ' ', pg_get_userbyid(p.proowner), ' ', \
                 p.proacl::text) from pg_proc p join pg_namespace n on n.oid = p.pronamespace where {ours}"
            ),
        ),
        (
            Kind::Schema,
            format!(
                "select format('type %I.%I', n.nspname, t.typname), concat_ws(' ', t.typtype, format_type(t.typbasetype, t.typtypmod), \
                 (select string_agg(quote_literal(e.enumlabel), ', ' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid)) \
                 from pg_type t join pg_namespace n on n.oid = t.typnamespace where t.typtype in ('d', 'e', 'r', 'm') and {ours}"
            ),
        ),
        (
            Kind::Schema,
            format!(
                "select format('schema %I', n.nspname), concat_ws(' ', pg_get_userbyid(n.nspowner), n.nspacl::text) from pg_namespace n \
                 where {ours} union all select format('policy %I on %s', polname, polrelid::regclass), concat_ws(' ', polcmd, polpermissive, \
                 pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) from pg_policy union all select \
                 format('rule %I on %s', r.rulename, r.ev_class::regclass), pg_get_ruledef(r.oid) from pg_rewrite r join pg_class c on \
                 c.oid = r.ev_class join pg_namespace n on n.oid = c.relnamespace where r.rulename <> '_RETURN' and {ours}"
            ),
        ),
        (Kind::Extension, "select extname, extversion from pg_extension".to_owned()),
        (
            Kind::Collation,
            "select distinct format('%s %I', l.collprovider, l.collname), coalesce(pg_collation_actual_version(l.oid), '') from pg_collation l \
             where l.oid in (select attcollation from pg_attribute union select unnest(indcollation) from pg_index) and \
             pg_collation_actual_version(l.oid) is not null"
                .to_owned(),
        ),
        (
            Kind::LargeObject,
            "select 'large objects', concat_ws(' ', count(*), sum(hashtextextended(concat_ws(',', loid, pageno, encode(data, 'base64')), 0)), \
             sum(hashtextextended(concat_ws(',', loid, pageno, encode(data, 'base64')), 1))) from pg_largeobject"
                .to_owned(),
        ),
    ]
}

/// Questions about the whole cluster.
fn in_cluster(is_physical: bool) -> Vec<(Kind, String)> {
    // Two servers keep the same password under different salts; a physical copy keeps it as it is.
    let password = if is_physical { "md5(rolpassword)" } else { "left(rolpassword, 5)" };
    vec![
        (
            Kind::Role,
            format!(
            "select rolname, concat_ws(' ', rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, \
             rolconnlimit, rolvaliduntil, (select string_agg(concat(d.datname, ' ', s.setconfig::text), ' ' order by d.datname) from \
             pg_db_role_setting s left join pg_database d on d.oid = s.setdatabase where s.setrole = a.oid), {password}, (select string_agg(r.rolname, ', ' order by r.rolname) from \
             pg_auth_members m join pg_roles r on r.oid = m.roleid where m.member = a.oid)) from pg_authid a where rolname !~ '^(pg_|ferry_[0-9a-f]{{12}}$)'"
            ),
        ),
        (
            Kind::Database,
            "select datname, concat_ws(' ', pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype, datallowconn, \
             datconnlimit, datacl::text) from pg_database"
                .to_owned(),
        ),
        (
            Kind::Setting,
            "select name, setting from pg_settings where context <> 'internal' and source not in ('default', 'override', 'client', \
             'session', 'environment variable') and name not in ('data_directory', 'config_file', 'hba_file', 'ident_file', \
             'external_pid_file', 'port', 'listen_addresses', 'unix_socket_directories', 'cluster_name', 'primary_conninfo', \
             'primary_slot_name', 'restore_command', 'archive_command', 'archive_mode', 'hot_standby_feedback', 'recovery_target_timeline', \
             'ssl_cert_file', 'ssl_key_file', 'ssl_ca_file', 'log_timezone', 'transaction_read_only', 'search_path') and name !~ '^(log_|logging_)'"
                .to_owned(),
        ),
    ]
}

async fn texts(database: &Database, kind: Kind, sql: &str) -> Result<BTreeMap<String, String>, StepError> {
    let rows = rows(database, &format!("read {}", kind.plural()), sql).await?;
    let pairs = rows.into_iter().filter_map(|row| {
        let mut row = row.into_iter();
        Some((row.next()??, row.next().flatten().unwrap_or_default()))
    });
    Ok(pairs.collect())
}

fn differences(kind: Kind, database: &str, from: &BTreeMap<String, String>, to: &BTreeMap<String, String>) -> Vec<Difference> {
    let names: BTreeSet<&String> = from.keys().chain(to.keys()).collect();
    let differ = names.into_iter().filter(|name| from.get(*name) != to.get(*name));
    differ
        .map(|name| {
            let what = match (from.get(name), to.get(name)) {
                (Some(_), None) => MISSING.to_owned(),
                (None, Some(_)) => "not in the source".to_owned(),
                // What a password is like is nobody's business.
                (Some(_), Some(_)) if kind == Kind::Role => "other attributes, memberships or password".to_owned(),
                (Some(one), Some(other)) => format!("`{}` in the source, `{}` in the target", short(one), short(other)),
                (None, None) => String::new(),
            };
            Difference { kind, database: database.to_owned(), name: name.clone(), what }
        })
        .collect()
}

fn short(text: &str) -> String {
    let cut: String = text.chars().take(100).collect();
    if cut.len() < text.len() { format!("{cut}…") } else { cut }
}

/// All that differs in a database beside the rows of its tables.
pub(super) async fn of_database(name: &str, from: &Database, to: &Database) -> Result<Vec<Difference>, StepError> {
    let mut found = Vec::new();
    for (kind, sql) in in_database() {
        let (here, there) = tokio::try_join!(texts(from, kind, &sql), texts(to, kind, &sql))?;
        found.extend(differences(kind, name, &here, &there));
    }
    found.extend(sequences(name, from, to).await?);
    Ok(found)
}

/// All that differs between the clusters as such.
pub(super) async fn of_cluster(from: &Database, to: &Database, is_physical: bool) -> Result<Vec<Difference>, StepError> {
    let mut found = Vec::new();
    for (kind, sql) in in_cluster(is_physical) {
        let (here, there) = tokio::try_join!(texts(from, kind, &sql), texts(to, kind, &sql))?;
        found.extend(differences(kind, "", &here, &there));
    }
    Ok(found)
}

/// A sequence must not be behind: it would give numbers out twice. Ahead it may be: a copy has what is logged ahead, up to 32
/// numbers, and a target that is written to goes on.
async fn sequences(name: &str, from: &Database, to: &Database) -> Result<Vec<Difference>, StepError> {
    let sql = format!(
        "select format('%I.%I', n.nspname, c.relname), concat_ws(' ', s.seqincrement, s.seqcycle, pg_sequence_last_value(c.oid)) \
         from pg_sequence s join pg_class c on c.oid = s.seqrelid join pg_namespace n on n.oid = c.relnamespace where {OURS} and \
         c.relpersistence = 'p'"
    );
    let kind = Kind::Sequence;
    // A standby reads its sequences first: what it shows then cannot be behind what the source shows later for any other
    // reason than that it is.
    let here = texts(from, kind, &sql).await?;
    let there = texts(to, kind, &sql).await?;
    let is_behind = |one: &str, other: &str| {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let (one, other) = (words(one), words(other));
        if one.len() < 2 || other.len() < 2 || one[..2] != other[..2] {
            return true;
        }
        let value = |words: &[String]| words.get(2).and_then(|value| value.parse::<i64>().ok());
        match (value(&one), value(&other)) {
            (Some(source), Some(target)) if one[0].starts_with('-') => target > source,
            (Some(source), Some(target)) => target < source,
            (Some(_), None) => true,
            (None, _) => false,
        }
    };
    let mut found = differences(kind, name, &here, &there);
    found.retain(|difference| match (here.get(&difference.name), there.get(&difference.name)) {
        (Some(one), Some(other)) => is_behind(one, other),
        _ => true,
    });
    Ok(found)
}

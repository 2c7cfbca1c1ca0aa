//! Roles and schemas: taken from the source by PostgreSQL's own `pg_dump`, straight into the target.

use tokio::io::duplex;

use super::look::list;
use super::{Before, Logical, slot};
use crate::error::StepError;
use crate::hosts::{Finished, Invocation, Streams};
use crate::postgres::{Owner, quote_literal, quote_name};
use crate::secret::Text;
use crate::steps::{LogStream, Progress, StepContext};

/// Roles as the statements that make them, what they may do and whose members they are. `$1`: their names.
const ROLES: &str = "select format('create role %I with %s %s %s %s %s %s %s connection limit %s%s%s', rolname,
        case when rolsuper then 'superuser' else 'nosuperuser' end, case when rolinherit then 'inherit' else 'noinherit' end,
        case when rolcreaterole then 'createrole' else 'nocreaterole' end, case when rolcreatedb then 'createdb' else 'nocreatedb' end,
        case when rolcanlogin then 'login' else 'nologin' end, case when rolreplication then 'replication' else 'noreplication' end,
        case when rolbypassrls then 'bypassrls' else 'nobypassrls' end, rolconnlimit,
        coalesce(' password ' || quote_literal(rolpassword), ''), coalesce(' valid until ' || quote_literal(rolvaliduntil), '')), rolname
    from pg_authid where rolname = any($1) order by rolname";

const MEMBERS: &str =
    "select format('grant %I to %I%s', r.rolname, m.rolname, case when a.admin_option then ' with admin option' else '' end)
    from pg_auth_members a join pg_roles r on r.oid = a.roleid join pg_roles m on m.oid = a.member
    where m.rolname = any($1) or r.rolname = any($1) order by 1";

/// What belongs to a database or a role and is in no dump of a database: settings, privileges, the comment. `$1`: the
/// database, `$2`: roles that are made. A setting that is a list is stored as it is written.
const BESIDE: &str = "with d as (select * from pg_database where datname = $1), settings as (
      select s.setrole, s.setdatabase, split_part(c, '=', 1) as name, substr(c, strpos(c, '=') + 1) as value
      from pg_db_role_setting s, unnest(s.setconfig) c where c not like 'ferry.%'),
    said as (select setrole, setdatabase, format('%I = %s', name, case when value not in ('', '\"\"') and name in ('search_path', 'temp_tablespaces',
      'local_preload_libraries', 'session_preload_libraries') then value else quote_literal(nullif(value, '\"\"')) end) as what from settings)
    select format('alter database %I set %s', d.datname, what) from d join said on setdatabase = d.oid and setrole = 0
    union all select format('alter role %I in database %I set %s', rolname, d.datname, what)
      from d join said on setdatabase = d.oid join pg_roles r on r.oid = setrole
    union all select format('alter role %I set %s', rolname, what) from said join pg_roles r on r.oid = setrole
      where setdatabase = 0 and rolname = any($2)
    union all select format('revoke all on database %I from public, %I', datname, pg_get_userbyid(datdba)) from d where datacl is not null
    union all select format('grant %s on database %I to %s%s', a.privilege_type, datname, case a.grantee when 0 then 'public'
      else quote_ident(pg_get_userbyid(a.grantee)) end, case when a.is_grantable then ' with grant option' else '' end) from d, aclexplode(datacl) a
      where a.grantee = 0 or pg_get_userbyid(a.grantee) !~ '^ferry_[0-9a-f]{12}$'
    union all select format('comment on database %I is %L', datname, shobj_description(oid, 'pg_database')) from d
      where shobj_description(oid, 'pg_database') is not null";

impl Logical {
    /// Makes the roles that the target lacks, passwords as they are stored.
    pub(super) async fn copy_roles(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let reach = ctx.reach();
        let (source, target) = (reach.connect(&self.from).await?, reach.connect(&self.to).await?);
        let there = list(&target, "select rolname from pg_roles").await?;
        let doing = "ask for the roles";
        for row in source.rows(doing, ROLES, &[&before.roles]).await? {
            let failed = |error| source.failed(doing, error);
            let (make, name): (String, String) = (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
            if !there.contains(&name) {
                target.orders(&format!("make the role `{name}`"), &make).await?;
            }
        }
        for row in source.rows(doing, MEMBERS, &[&before.roles]).await? {
            let grant: String = row.try_get(0).map_err(|error| source.failed(doing, error))?;
            target.orders("make a role a member of another", &grant).await?;
        }
        Ok(())
    }

    pub(super) async fn drop_roles(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let target = ctx.reach().connect(&self.to).await?;
        for role in &before.roles {
            target.orders(&format!("drop the role `{role}`"), &format!("drop role if exists {}", quote_name(role))).await?;
        }
        Ok(())
    }

    /// Ends what an earlier attempt has sent to the target and is still at work: a statement outlives the runner that sent it.
    pub(super) async fn end_left(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let target = ctx.reach().connect(&self.to).await?;
        let sql = "select pg_terminate_backend(pid, 10000) from pg_stat_activity
                   where application_name = $1 and backend_type = 'client backend' and pid <> pg_backend_pid()";
        target.rows("end what an earlier attempt is still at", sql, &[&before.name]).await.map(drop)
    }

    /// Whether the database at the target is there, and this run's.
    pub(super) async fn made(&self, ctx: &StepContext, before: &Before, database: &str) -> Result<Option<bool>, StepError> {
        let target = ctx.reach().connect(&self.to).await?;
        let asked = "select exists (select from pg_db_role_setting s where s.setdatabase = d.oid and s.setrole = 0
                     and 'ferry.made=' || $2 = any(s.setconfig)) from pg_database d where datname = $1";
        target.maybe::<bool>("look for the database", asked, &[&database, &before.name]).await
    }

    /// Makes the database with its schema, unless an earlier attempt has. One that is half made is made anew.
    pub(super) async fn copy_schema(&self, ctx: &StepContext, before: &Before, database: &str) -> Result<(), StepError> {
        let reach = ctx.reach();
        let target = reach.connect(&self.to).await?;
        let (name, key) = (quote_name(database), quote_literal(&before.name));
        match self.made(ctx, before, database).await? {
            Some(true) => {
                let whole = "select exists (select from pg_db_role_setting s join pg_database d on d.oid = s.setdatabase
                             where d.datname = $1 and s.setrole = 0 and 'ferry.schema=whole' = any(s.setconfig))";
                if target.one::<bool>("look whether its schema is whole", whole, &[&database]).await? {
                    return Ok(());
                }
                target.orders("drop what was half made", &format!("drop database {name} with (force)")).await?;
            }
            Some(false) => {
                return Err(StepError::needs_person(format!(
                    "somebody has made a database `{database}` at `{}`",
                    self.to.title()
                ))
                .help("nothing that others have made is ever overwritten: rename it, then resume the run"));
            }
            None => {}
        }
        ctx.progress(Progress { message: Some(format!("copies the schema of `{database}`")), ..Progress::default() });
        let source = reach.connect(&self.from).await?;
        // Closed from its first moment until a cutover: who wrote to it meanwhile would write beside the source. It has a name
        // that only this step gives until it is marked as made by it: what undo drops is never in doubt.
        let unborn = quote_name(&slot(&before.name, &before.databases, database));
        target.orders("drop what was half made", &format!("drop database if exists {unborn} with (force)")).await?;
        let asked = "select format('create database %s template template0 encoding %L lc_collate %L lc_ctype %L owner %I connection limit 0',
                     $2::text, pg_encoding_to_char(encoding), datcollate, datctype, pg_get_userbyid(datdba)) from pg_database where datname = $1";
        let make: String = source.one("ask what the database is like", asked, &[&database, &unborn]).await?;
        target.orders("make the database", &make).await?;
        target.orders("mark the database", &format!("alter database {unborn} set ferry.made = {key}")).await?;
        let asked = "select datconnlimit::text from pg_database where datname = $1";
        let limit: String = source.one("ask how many may use the database", asked, &[&database]).await?;
        target
            .orders("mark the database", &format!("alter database {unborn} set ferry.clients = {}", quote_literal(&limit)))
            .await?;
        target.orders("name the database", &format!("alter database {unborn} rename to {name}")).await?;
        self.pipe(ctx, before, database).await?;
        for statement in source.rows("ask what belongs to the database", BESIDE, &[&database, &before.roles]).await? {
            let statement: String =
                statement.try_get(0).map_err(|error| source.failed("ask what belongs to the database", error))?;
            target.orders("carry over what belongs to the database", &statement).await?;
        }
        target.orders("mark the database", &format!("alter database {name} set ferry.schema = 'whole'")).await
    }

    /// `pg_dump` there into `psql` here: nothing lies on a disk in between.
    async fn pipe(&self, ctx: &StepContext, before: &Before, database: &str) -> Result<(), StepError> {
        let reach = ctx.reach();
        let (from, to) = (reach.host(&self.from)?, reach.host(&self.to)?);
        let owner = Owner::of(&reach, &self.to)?;
        let bin = owner.programs(&self.to, before.source.major()).await?;
        // Of the newer version, where the target has one: it can read the older server, but not write for it.
        let dump = Invocation {
            run_as: Some(self.from.run_as.clone()),
            ..Invocation::new([
                format!("{}/pg_dump", before.source.bin),
                "--schema-only".into(),
                "--no-publications".into(),
                "--no-subscriptions".into(),
                format!("--host={}", self.from.socket),
                format!("--port={}", self.from.port),
                format!("--username={}", self.from.user),
                database.into(),
            ])
        };
        let load = Invocation {
            run_as: Some(self.to.run_as.clone()),
            env: [("PGOPTIONS".to_owned(), Text::new("-c client_min_messages=warning"))].into(),
            ..Invocation::new([
                format!("{bin}/psql"),
                "-wXq".into(),
                "--set=ON_ERROR_STOP=1".into(),
                "--single-transaction".into(),
                "--output=/dev/null".into(),
                format!("--host={}", self.to.socket),
                format!("--port={}", self.to.port),
                format!("--username={}", self.to.user),
                format!("--dbname={database}"),
            ])
        };
        let (mut out, mut into) = duplex(256 * 1024);
        let log = |_: bool, line: &str| ctx.signals.log(LogStream::Stderr, line);
        let dumping = async {
            let streams = Streams { output: Some(&mut out), ..Streams::default() };
            let finished = from.stream(&dump, &ctx.vault, &ctx.cancel, streams, &log).await;
            // The end of the dump is the end of what `psql` reads.
            drop(out);
            finished
        };
        let loading = to.stream(&load, &ctx.vault, &ctx.cancel, Streams { input: Some(&mut into), ..Streams::default() }, &log);
        let (dumped, loaded) = tokio::join!(dumping, loading);
        let ended = |what: &str, finished: &Finished| {
            if finished.was_asked {
                return Err(ctx.stopped());
            }
            if finished.code == Some(0) {
                return Ok(());
            }
            Err(StepError::permanent(format!("cannot {what} `{database}`: {}", finished.stderr_tail.trim()))
                .help("put right what it says, then resume the run: the schema is made anew"))
        };
        ended("make the schema of", &loaded?)?;
        ended("read the schema of", &dumped?)
    }
}

//! The fence around the old primary: a `pg_hba.conf` that lets nobody in, put into place beforehand and loaded in the
//! pause, and the end of everybody who is already in.
//!
//! Why nobody writes behind it. (1) The postmaster forks a process for each connection and reads `pg_hba.conf` only
//! itself: whoever is let in was forked either before it has read the fence, or after, and then the fence turns them
//! away. (2) That it has read the fence is seen from outside: a connection is turned away by its `reject` line. (3) Who
//! was forked before is a child of the postmaster at that moment. Those that are logged in stand in `pg_stat_activity`
//! and are ended until none is left; those that are still logging in do not, and are ended by their process number.

use super::follower::Follower;
use super::{Cutover, sequences, ship};
use crate::error::{ErrorClass, StepError};
use crate::postgres::{Database, Lsn, Owner, hba, quote_literal};

/// Waits until the server turns a connection away by the fence, then ends the processes that are between their fork and
/// their entry in the table of sessions. Run by the server itself, as its owner. `$1` the postmaster's number, `$2` psql,
/// `$3` its socket's folder, `$4` its port; the numbers of known sessions come as input.
///
/// Each millisecond counts here: a program is started only where the shell cannot do it, and `psql`, which takes long to
/// start, only where there is no Perl.
const GATE: &str = r#"pm=$1; known=" $(tr '\n' ' ') "; i=0
knock() { perl -MSocket -e 'socket($s, PF_UNIX, SOCK_STREAM, 0) and connect($s, pack_sockaddr_un($ARGV[0])) or exit 9;
  $b = pack("N", 196608) . "user\0ferry_nobody\0database\0postgres\0\0"; syswrite $s, pack("N", 4 + length $b) . $b;
  1 while sysread $s, $r, 4096, length $r; print $r' "$3/.s.PGSQL.$4" 2>/dev/null ||
  PGCONNECT_TIMEOUT=5 "$2" -wXAtqc '' -h "$3" -p "$4" -U ferry_nobody postgres 2>&1; }
until knock "$@" | tr '\0' ' ' | grep -q 'pg_hba.conf rejects'; do
  i=$((i+1)); [ $i -lt 200 ] || { echo 'the fence does not turn connections away' >&2; exit 3; }; sleep 0.005; done
read -r all 2>/dev/null <"/proc/$pm/task/$pm/children" || all=$(ps -o pid= --ppid "$pm")
for p in $all; do
  case "$known" in *" $p "*) continue;; esac
  case "$(ps -o args= -p "$p")" in 'postgres: logger'*|'postgres: '*': logger'*|'postgres: archiver'*|'postgres: '*': archiver'*|'postgres: '*'stats collector'*) ;; *) kill -TERM "$p" 2>/dev/null;; esac
done; exit 0"#;

/// Where the fence and what was before it lie.
pub(super) struct Files {
    /// The file that the server reads.
    pub hba: String,
    /// What stood there before: it exists from before the fence is in its place until the fence is lifted.
    pub kept: String,
    /// The script that the server runs.
    pub gate: String,
}

impl Files {
    pub(super) fn of(hba: &str, data: &str, key: &str) -> Self {
        Self { hba: hba.to_owned(), kept: format!("{hba}.{key}"), gate: format!("{data}/{key}.sh") }
    }
}

/// Puts the fence into its place; the server does not read it yet.
pub(super) async fn stage(owner: &Owner, files: &Files, key: &str, copy: &str) -> Result<(), StepError> {
    let missing = || StepError::permanent(format!("there is no `{}` on `{}`", files.hba, owner.host()));
    let text = owner.read(&files.hba).await?.ok_or_else(missing)?;
    owner.write(&files.gate, GATE).await?;
    if hba::is_fence(&text, key) {
        return Ok(());
    }
    // The old file is safe before the new one takes its name.
    owner
        .script("keep pg_hba.conf", r#"cp -p "$1" "$2.new" && sync "$2.new" && mv -f "$2.new" "$2""#, &[&files.hba, &files.kept])
        .await?;
    owner.write(&files.hba, hba::fence(&text, key, copy)).await
}

/// Takes the fence away, if it stands: the file, and what the server has read. `is_open` waits until the server lets
/// somebody in: it reads its file when it comes to it, and a pooler that is turned away until then tells its clients.
pub(super) async fn lift(
    owner: &Owner,
    files: &Files,
    data: &str,
    key: &str,
    is_open: impl Future<Output = ()>,
) -> Result<bool, StepError> {
    let text = owner.read(&files.hba).await?.unwrap_or_default();
    let stood = hba::is_fence(&text, key);
    if stood {
        owner.script("put pg_hba.conf back", r#"[ -e "$2" ] && mv -f "$2" "$1""#, &[&files.hba, &files.kept]).await?;
    }
    // The script goes last: while it is there the server may have read the fence, though the file is back.
    if (stood || owner.read(&files.gate).await?.is_some()) && owner.is_running(data).await? {
        owner.reload(data).await?;
        is_open.await;
    }
    owner.script("remove what the fence needed", r#"rm -f "$1" "$2" "$2.new""#, &[&files.gate, &files.kept]).await?;
    Ok(stood)
}

/// What happened at the fence.
pub(super) struct Fenced {
    /// Everything that anybody was ever told is committed lies before this place.
    pub lsn: Lsn,
    /// How many sessions were ended.
    pub ended: u64,
    /// The statements that set the sequences of the database through which it was done, when rows follow.
    pub values: Option<String>,
}

impl Cutover {
    /// Loads the fence, ends everybody who is in, and waits until the standby has on its disk whatever they were told is
    /// committed, or until that is archived: one round trip to the source. After `millis` it gives up. Where rows follow it
    /// is the target that waits.
    pub(super) async fn load_fence(&self, source: &Database, files: &Files, key: &str, millis: u64) -> Result<Fenced, StepError> {
        let sql = self.fence_statement(files, key, millis);
        let said = source.client().simple_query(&sql).await.map_err(|error| too_late(source, "fence the old primary", error))?;
        let last = |name: &str| {
            said.iter().rev().find_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => row.try_get(name).ok().flatten().map(str::to_owned),
                _ => None,
            })
        };
        let answer = last("ferry_answer").ok_or_else(|| StepError::permanent("the fence gave no answer"))?;
        let (lsn, ended) = answer.split_once(' ').ok_or_else(|| StepError::permanent("the fence gave no answer"))?;
        let lsn = lsn.parse().map_err(StepError::permanent)?;
        Ok(Fenced { lsn, ended: ended.parse().unwrap_or(0), values: last("ferry_values") })
    }

    fn fence_statement(&self, files: &Files, key: &str, millis: u64) -> String {
        let last = self.last_of_the_log(millis);
        let psql = format!("{}/psql", self.replica.from().bin.as_deref().unwrap_or_default());
        let shell = |word: &str| format!("'{}'", word.replace('\'', r"'\''"));
        let words =
            [files.gate.as_str(), "POSTMASTER", &psql, &self.replica.from().socket, &self.replica.from().port.to_string()];
        let words: Vec<String> = words.iter().map(|word| shell(word)).collect();
        let program = format!("sh {}", words.join(" "));
        // What is replicated on its own is not waited for: a standby of a synchronous set that is cut off would hold the
        // pause. A message that is committed flushes what others have committed without flushing. All that is sent at
        // once is one transaction unless it says otherwise, and would be committed at its end only: hence `commit`.
        format!(
            "set synchronous_commit = local; select pg_reload_conf();
             do $$ declare program text := {program}; begin
               program := replace(program, 'POSTMASTER', (select split_part(pg_read_file('postmaster.pid'), E'\\n', 1)));
               execute format('copy (select pid from pg_stat_activity) to program %L', program);
             end $$;
             do $$ declare rest int[]; ended int[] := '{{}}'; late timestamptz := clock_timestamp() + {millis} * interval '1 ms'; begin
               loop
                 select array_agg(pid), ended || array_agg(pid) filter (where pg_terminate_backend(pid) and pid <> all(ended)) into rest, ended from pg_stat_activity
                   where pid <> pg_backend_pid() and backend_type in ('client backend', 'parallel worker', 'logical replication worker')
                     and application_name is distinct from {application};
                 exit when rest is null;
                 if clock_timestamp() > late then raise 'sessions do not end' using errcode = 'query_canceled'; end if;
                 perform pg_stat_clear_snapshot(), pg_sleep(0.0005);
               end loop;
               perform set_config('ferry.ended', cardinality(ended)::text, false);
             end $$;
             begin; select pg_logical_emit_message(true, 'ferry', 'fence'); commit;
             {last}
             select current_setting('ferry.at') || ' ' || current_setting('ferry.ended') as ferry_answer",
            program = quote_literal(&program),
            application = quote_literal(key),
        )
    }

    /// In SQL: notes the place behind all that was committed, and waits until whoever follows has it on its disk; through
    /// an archive, until that is archived. Of rows the target says itself that it has them.
    fn last_of_the_log(&self, millis: u64) -> String {
        match &self.replica {
            Follower::Log(_) => return ship::archives(millis),
            // Rows of a transaction that is prepared are sent when it is committed, and nobody can commit it any more.
            Follower::Rows(_) => {
                return format!(
                    "do $$ begin if exists (select from pg_prepared_xacts) then
                       raise 'there are prepared transactions, which do not follow' using errcode = 'object_in_use'; end if; end $$;
                     select set_config('ferry.at', pg_current_wal_flush_lsn()::text, false); {};",
                    sequences::VALUES
                );
            }
            Follower::Files(_) => {}
        }
        let slots: Vec<String> = self.replica.slots().iter().map(|slot| quote_literal(slot)).collect();
        let (slots, count) = (slots.join(", "), slots.len());
        format!(
            "do $$ declare at pg_lsn := pg_current_wal_flush_lsn(); late timestamptz := clock_timestamp() + {millis} * interval '1 ms'; begin
               loop
                 exit when {count} = (select count(*) from pg_replication_slots s join pg_stat_replication r on r.pid = s.active_pid
                                      where s.slot_name in ({slots}) and r.flush_lsn >= at);
                 if clock_timestamp() > late then raise 'the standby does not get the last of the log' using errcode = 'query_canceled'; end if;
                 perform pg_stat_clear_snapshot(), pg_sleep(0.0005);
               end loop;
               perform set_config('ferry.at', at::text, false);
             end $$;"
        )
    }
}

/// Nothing has happened yet that cannot be put back: whatever went wrong, it may go right another time.
pub(super) fn too_late(server: &Database, doing: &str, error: tokio_postgres::Error) -> StepError {
    let failed = server.failed(doing, error);
    StepError { class: ErrorClass::Transient, ..failed }
        .help("everything is put back and the old primary serves again; it is tried again as `retry` says")
}

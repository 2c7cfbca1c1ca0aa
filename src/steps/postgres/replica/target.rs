//! Looking before the copy: does the source allow a standby, and is there a place for it?

use super::{Before, Replica};
use crate::error::StepError;
use crate::postgres::{Cluster, Database, Owner};
use crate::steps::StepContext;
use crate::units::ByteSize;

/// The state of a data directory. `$1` the directory.
const DIRECTORY: &str = r#"[ -e "$1" ] || { echo absent; exit 0; }
[ -d "$1" ] || { echo file; exit 0; }
[ -z "$(ls -A "$1" 2>&1)" ] && echo empty || echo full"#;

/// The machine, and how much room is left where the directory is or will be. `$1` the directory.
const ROOM: &str = r#"d=$1; while [ ! -d "$d" ]; do d=$(dirname "$d"); done
uname -m; df -Pk "$d" | awk 'NR==2 {print $4}'; [ -w "$d" ] && echo writable || echo "$d""#;

/// Which of these addresses answers. `$1` `pg_isready`, `$2` the port, then addresses.
const ANSWERS: &str = r#"r=$1; p=$2; shift 2
for a; do "$r" -q -t 3 -h "$a" -p "$p"; [ $? -le 1 ] && { echo "$a"; exit 0; }; done; exit 4"#;

impl Replica {
    pub(super) async fn look(&self, ctx: &StepContext) -> Result<Before, StepError> {
        let reach = ctx.reach();
        let (database, cluster) = reach.cluster(&self.from).await?;
        let name = reach.application.clone();
        allows_a_standby(&database, &cluster, &self.from.title(), &name).await?;
        let owner = Owner::of(&reach, &self.to)?;
        let bin = owner.server_programs(&self.to, cluster.major()).await?;
        let data = self.to.data.clone().unwrap_or_else(|| cluster.data.clone());
        let mut warnings = Vec::new();
        let kind = owner.script("look at the data directory", DIRECTORY, &[&data]).await?;
        match kind.as_str() {
            "absent" | "empty" => {}
            _ => {
                return Err(StepError::permanent(format!("`{data}` of `{}` is not empty", self.to.title()))
                    .help("nothing that others have made is ever overwritten: move it away, or give another `data`"));
            }
        }
        self.has_room(ctx, &owner, &cluster, &data).await?;
        let address = self.address(ctx, &owner, &bin).await?;
        if !cluster.ssl {
            warnings.push(format!(
                "`{}` offers no TLS: the copy and all that follows goes over the network in the clear",
                self.from.title()
            ));
        }
        let own = matches!(cluster.listen_addresses.as_str(), "*" | "0.0.0.0" | "::" | "localhost" | "0.0.0.0,::");
        if !own && !self.settings.contains_key("listen_addresses") && self.to.config.is_none() {
            warnings.push(format!(
                "the source listens on `{}`, and so would the copy: give `settings: {{ listen_addresses: … }}`",
                cluster.listen_addresses
            ));
        }
        for path in &cluster.tablespaces {
            let to = self.tablespaces.get(path).unwrap_or(path);
            let kind = owner.script("look at a tablespace's folder", DIRECTORY, &[to]).await?;
            if !matches!(kind.as_str(), "absent" | "empty") {
                return Err(StepError::permanent(format!(
                    "`{to}` of `{}`, for the tablespace in `{path}`, is not empty",
                    self.to.title()
                ))
                .help(format!("give another folder: `tablespaces: {{ {path}: … }}`")));
            }
        }
        Ok(Before { cluster, address, data, was_absent: kind == "absent", bin, name, warnings })
    }

    async fn has_room(&self, ctx: &StepContext, owner: &Owner, cluster: &Cluster, data: &str) -> Result<(), StepError> {
        let title = self.to.title();
        let said = owner.script("look for room", ROOM, &[data]).await?;
        let mut lines = said.lines();
        let machine = lines.next().unwrap_or_default();
        let there = Owner::of(&ctx.reach(), &self.from)?.script("ask what machine it is", "uname -m", &[]).await?;
        if machine != there {
            return Err(StepError::permanent(format!(
                "`{}` is a {there} machine, and `{title}` a {machine} one",
                self.from.title()
            ))
            .help("data files cannot move between them: use `postgres.logical`"));
        }
        let free = lines.next().and_then(|line| line.trim().parse::<u64>().ok()).unwrap_or(u64::MAX / 1024) * 1024;
        // What is written while the copy is made comes on top.
        let needed = cluster.bytes + cluster.bytes / 10 + (256 << 20);
        if free < needed {
            return Err(StepError::needs_person(format!(
                "`{title}` has {} free, and the copy needs {}",
                ByteSize(free),
                ByteSize(needed)
            ))
            .help("make room there, then resume the run"));
        }
        match lines.next() {
            Some("writable") | None => Ok(()),
            Some(folder) => {
                Err(StepError::needs_person(format!("`{}` may not write to `{folder}` of `{title}`", self.to.run_as))
                    .help(format!("let it: `install -d -o {0} -g {0} -m 700 {data}` there", self.to.run_as)))
            }
        }
    }

    /// Where the target reaches the source.
    pub(in crate::steps::postgres) async fn address(
        &self,
        ctx: &StepContext,
        owner: &Owner,
        bin: &str,
    ) -> Result<String, StepError> {
        let ready = format!("{bin}/pg_isready");
        if let Some(address) = &self.from.address {
            let endpoint = self.from.network().unwrap_or_else(|| (address.clone(), self.from.port));
            let finished = owner.try_script(ANSWERS, &[&ready, &endpoint.1.to_string(), &endpoint.0], None).await?;
            return match finished.code {
                Some(0) => Ok(format!("{}:{}", bracketed(&endpoint.0), endpoint.1)),
                _ => Err(StepError::transient(format!("`{}` does not reach `{address}`", self.to.title()))
                    .help("open the way between the two hosts, or correct `from.address`")),
            };
        }
        let asked = Owner::of(&ctx.reach(), &self.from)?.script("ask for its addresses", "hostname -I; hostname -f", &[]).await?;
        let candidates: Vec<&str> = asked.split_whitespace().filter(|word| !word.starts_with("127.")).collect();
        let port = self.from.port.to_string();
        let arguments: Vec<&str> = [ready.as_str(), &port].into_iter().chain(candidates.iter().copied()).collect();
        let finished = owner.try_script(ANSWERS, &arguments, None).await?;
        if finished.code == Some(0) {
            let found = String::from_utf8_lossy(&finished.stdout).trim().to_owned();
            return Ok(format!("{}:{port}", bracketed(&found)));
        }
        Err(StepError::transient(format!(
            "`{}` reaches no server on port {port} of `{}` (tried {})",
            self.to.title(),
            self.from.title(),
            candidates.join(", ")
        ))
        .help("say where it is reached with `from: { host: …, address: … }`, let it listen there (`listen_addresses`), and open the way between the hosts"))
    }
}

fn bracketed(machine: &str) -> String {
    if machine.contains(':') { format!("[{machine}]") } else { machine.to_owned() }
}

async fn allows_a_standby(database: &Database, cluster: &Cluster, title: &str, name: &str) -> Result<(), StepError> {
    if cluster.in_recovery {
        return Err(
            StepError::permanent(format!("`{title}` follows another server itself")).help("copy from the server that it follows")
        );
    }
    if cluster.major() < 12 {
        return Err(StepError::permanent(format!("`{title}` is PostgreSQL {}, and this needs 12 or newer", cluster.version))
            .help("use `postgres.logical`, or dump and load"));
    }
    let restart = |name: &str, value: &str| {
        format!("at the source: `alter system set {name} = {value}`, then restart it; ferry restarts no server that clients use")
    };
    if cluster.wal_level == "minimal" {
        return Err(StepError::permanent(format!("`wal_level` of `{title}` is `minimal`, and a standby needs `replica`"))
            .help(restart("wal_level", "replica")));
    }
    let used = "select (select count(*) from pg_stat_replication where application_name <> $1)::int8,
                       (select count(*) from pg_replication_slots where slot_name <> $1)::int8";
    let rows = database.rows("count senders and slots", used, &[&name]).await?;
    let count = |at: usize| rows.first().and_then(|row| row.try_get::<_, i64>(at).ok()).unwrap_or(0);
    for (limit, used, more) in [("max_wal_senders", count(0), 3), ("max_replication_slots", count(1), 1)] {
        let most = cluster.limit(limit);
        if used + more > most {
            return Err(StepError::permanent(format!(
                "`{limit}` of `{title}` is {most}, {used} are in use and {more} more are needed"
            ))
            .help(restart(limit, &(used + more + 2).to_string())));
        }
    }
    Ok(())
}

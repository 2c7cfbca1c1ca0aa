//! PgBouncer as the router: `PAUSE`, another `pgbouncer.ini`, `RELOAD`, `RESUME`, all through its console.

use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;
use tokio_postgres::SimpleQueryMessage;

use super::{Seen, Task, ini, watchdog};
use crate::error::StepError;
use crate::postgres::{Database, Owner, Reach, Server, Waiting, quote_name};
use crate::secret::Text;

/// A `PgBouncer` with transaction pooling.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pgbouncer {
    /// The host it runs on.
    #[schemars(extend("format" = "host"))]
    pub(super) host: String,
    /// Its configuration file; `/etc/pgbouncer/pgbouncer.ini` unless given.
    #[serde(default = "ini_file")]
    ini: String,
    /// The folder of its socket; `/var/run/postgresql` unless given.
    #[serde(default = "socket")]
    socket: String,
    /// Its port; 6432 unless given.
    #[serde(default = "port")]
    port: u16,
    /// Who uses its console; `pgbouncer` unless given, which may do so without a password as the user that it runs as.
    #[serde(default = "user")]
    user: String,
    /// The password, where one is asked for.
    #[serde(default)]
    password: Option<Text>,
    /// The user of the operating system that it runs as; `postgres` unless given.
    #[serde(default = "run_as", rename = "become")]
    run_as: String,
    /// The databases of its `[databases]` that are to lead to the target; all, unless given.
    #[serde(default)]
    databases: Vec<String>,
    /// `host[:port]` where it reaches the target. Found out, unless given.
    #[serde(default)]
    to: Option<String>,
}

fn ini_file() -> String {
    "/etc/pgbouncer/pgbouncer.ini".to_owned()
}

fn socket() -> String {
    "/var/run/postgresql".to_owned()
}

fn port() -> u16 {
    6432
}

fn user() -> String {
    "pgbouncer".to_owned()
}

fn run_as() -> String {
    "postgres".to_owned()
}

/// Which of these machines accepts on the port `$1`.
const ACCEPTS: &str = r#"p=$1; shift; for a; do
perl -MIO::Socket::INET -e 'exit !IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1], Timeout => 3)' "$a" "$p" && { echo "$a"; exit 0; }; done; exit 4"#;

/// Puts the new file into its place.
const LAY: &str = r#"mv -f "$1" "$2""#;

/// A pooler with two consoles open: one may be waiting in `PAUSE` while the other is needed.
pub(in crate::steps::postgres::cutover) struct Ready<'a> {
    router: &'a Pgbouncer,
    owner: Owner,
    console: Database,
    /// Waits for its word to put the new file into place.
    laying: Option<Waiting>,
    seen: &'a Seen,
    key: String,
}

impl Pgbouncer {
    /// Its console as a server.
    fn console(&self) -> Server {
        Server {
            port: self.port,
            user: self.user.clone(),
            password: self.password.clone(),
            database: "pgbouncer".to_owned(),
            socket: self.socket.clone(),
            run_as: self.run_as.clone(),
            ..Server::on(self.host.clone())
        }
    }

    fn owner(&self, reach: &Reach) -> Result<Owner, StepError> {
        Owner::of(reach, &self.console())
    }

    fn laid(&self, key: &str) -> String {
        format!("{}.{key}.new", self.ini)
    }

    fn kept(&self, key: &str) -> String {
        format!("{}.{key}", self.ini)
    }

    fn socket_file(&self) -> String {
        format!("{}/.s.PGSQL.{}", self.socket.trim_end_matches('/'), self.port)
    }

    fn title(&self) -> String {
        format!("PgBouncer on `{}`", self.host)
    }

    /// Looks where its databases lead, whether it can hold clients back and reaches the target, and changes nothing.
    pub(super) async fn look(&self, reach: &Reach, to: &Server) -> Result<Seen, StepError> {
        let seen = self.look_at(reach).await?;
        let (machine, port) = self.way(reach, to, &self.owner(reach)?).await?;
        Ok(Seen { machine, port, ..seen })
    }

    /// The same without the target.
    pub(super) async fn look_at(&self, reach: &Reach) -> Result<Seen, StepError> {
        let console = reach.connect(&self.console()).await?;
        let owner = self.owner(reach)?;
        let text = owner.read(&self.ini).await?.ok_or_else(|| {
            StepError::permanent(format!("{} has no `{}`", self.title(), self.ini)).help("correct `ini` of the router")
        })?;
        let all = ini::databases(&text);
        for name in &self.databases {
            if !all.iter().any(|(known, ..)| known == name) {
                let known: Vec<&str> = all.iter().map(|(known, ..)| known.as_str()).collect();
                return Err(StepError::permanent(format!("`{}` of `{}` has no database `{name}`", self.ini, self.host))
                    .help(format!("it has {}; a file that it includes is not read", known.join(", "))));
            }
        }
        let is_meant = |name: &str| self.databases.is_empty() || self.databases.iter().any(|wanted| wanted == name);
        let meant: Vec<_> = all.iter().filter(|(name, ..)| is_meant(name)).collect();
        let Some((_, machine, port)) = meant.first() else {
            return Err(StepError::permanent(format!("`{}` of `{}` has no databases", self.ini, self.host))
                .help("correct `ini` of the router"));
        };
        if let Some((other, ..)) = meant.iter().find(|(_, other, at)| (other, at) != (machine, port)) {
            return Err(StepError::permanent(format!(
                "the databases of {} lead to more than one server: `{other}` is another's",
                self.title()
            ))
            .help("say with `databases` of the router which of them move"));
        }
        let mut warnings = Vec::new();
        let rows = table(&console, "SHOW DATABASES").await?;
        // Files that it includes are not read here, but it has read them.
        let whole = meant.len() == all.len()
            && rows.iter().all(|row| row.get("name") == "pgbouncer" || row.leads_to(machine.as_deref(), *port));
        if !whole && meant.iter().any(|(name, ..)| name == "*") {
            return Err(StepError::permanent(format!("clients whom {} leads by its `*` cannot be held back alone", self.title()))
                .help("it has databases that stay where they are: name those that move in its `[databases]` and under `databases` of the router"));
        }
        for row in rows {
            if is_meant(row.get("name")) && row.get("pool_mode") == "session" {
                warnings.push(format!(
                    "database `{}` of {} pools sessions: a pause waits for clients to leave",
                    row.get("name"),
                    self.title()
                ));
            }
        }
        let modes = table(&console, "SHOW CONFIG").await?;
        if modes.iter().any(|row| row.get("key") == "pool_mode" && row.get("value") == "session") {
            warnings.push(format!(
                "{} pools sessions: a pause waits for clients to leave; `pool_mode = transaction` does not",
                self.title()
            ));
        }
        if self.password.is_some() {
            warnings.push(format!("{} asks for a password: no watchdog ends a pause that the runner has left", self.title()));
        } else if !watchdog::can(&owner).await? {
            return Err(StepError::permanent(format!("host `{}` has no `perl` or no `setsid`", self.host))
                .help("the watchdog that ends an abandoned pause needs them: install `perl-base` and `util-linux`"));
        }
        let names = meant.iter().map(|(name, ..)| name.clone()).collect();
        Ok(Seen { names, whole, machine: String::new(), port: 0, warnings })
    }

    /// Where it reaches the target.
    async fn way(&self, reach: &Reach, to: &Server, owner: &Owner) -> Result<(String, u16), StepError> {
        let given = self.to.as_ref().or(to.address.as_ref()).map(|address| {
            Server { address: Some(address.clone()), ..to.clone() }.network().unwrap_or_else(|| (address.clone(), to.port))
        });
        let candidates = match &given {
            Some((machine, _)) => machine.clone(),
            None => Owner::of(reach, to)?.script("ask for its addresses", "hostname -I; hostname -f", &[]).await?,
        };
        let port = given.as_ref().map_or(to.port, |(_, port)| *port);
        let candidates: Vec<&str> = candidates.split_whitespace().filter(|word| !word.starts_with("127.")).collect();
        let shown = port.to_string();
        let arguments: Vec<&str> = std::iter::once(shown.as_str()).chain(candidates.iter().copied()).collect();
        let finished = owner.try_script(ACCEPTS, &arguments, None).await?;
        if finished.code == Some(0) {
            return Ok((String::from_utf8_lossy(&finished.stdout).trim().to_owned(), port));
        }
        Err(StepError::transient(format!(
            "{} does not reach port {port} of `{}` (tried {})",
            self.title(),
            to.title(),
            candidates.join(", ")
        ))
        .help("open the way, or say where it is with `to` of the router"))
    }

    /// Opens the console, lays the new file beside the old one and keeps a copy of that.
    pub(super) async fn prepare<'a>(&'a self, task: &Task<'a>, seen: &'a Seen) -> Result<Ready<'a>, StepError> {
        let owner = self.owner(task.reach)?;
        let console = task.reach.connect(&self.console()).await?;
        let text = owner.read(&self.ini).await?.unwrap_or_default();
        let keep = r#"cp -p "$1" "$2.part" && sync "$2.part" && mv -f "$2.part" "$2"; cp -p "$1" "$3""#;
        owner.script("keep pgbouncer.ini", keep, &[&self.ini, &self.kept(task.key), &self.laid(task.key)]).await?;
        owner.write(&self.laid(task.key), ini::leading_to(&text, &seen.names, &seen.machine, seen.port)).await?;
        let socket = self.socket_file();
        if self.password.is_none() {
            watchdog::start(&owner, task.key, task.watchdog.as_secs().max(1), &socket, &self.user, &orders("RESUME", seen))
                .await?;
        }
        let laying = owner.wait(LAY, &[&self.laid(task.key), &self.ini]).await;
        Ok(Ready { router: self, owner, console, laying, seen, key: task.key.to_owned() })
    }

    /// The old file, and no pause.
    pub(super) async fn release(&self, task: &Task<'_>, seen: &Seen) -> Result<(), StepError> {
        let owner = self.owner(task.reach)?;
        let put_back =
            r#"set -e; [ ! -e "$2" ] || { cp -p "$2" "$2.part"; mv -f "$2.part" "$1"; echo back; }; rm -f "$3" "$2.part""#;
        let kept = self.kept(task.key);
        let said = owner.script("put pgbouncer.ini back", put_back, &[&self.ini, &kept, &self.laid(task.key)]).await?;
        if said.is_empty() {
            // Nothing was laid ready, so nothing was paused.
            return Ok(());
        }
        // A `PAUSE` that comes after the `RESUME` would be nobody's, and without a watchdog.
        owner.end_left(&self.socket_file()).await?;
        self.go_on(task, seen, &owner).await?;
        // The copy goes last: a runner that dies before this leaves it as the sign that clients may still be held back.
        owner.script("remove the copy of pgbouncer.ini", r#"rm -f "$1""#, &[&kept]).await.map(drop)
    }

    /// The new file, and no pause.
    pub(super) async fn forward(&self, task: &Task<'_>, seen: &Seen) -> Result<(), StepError> {
        let owner = self.owner(task.reach)?;
        let text = owner.read(&self.ini).await?.unwrap_or_default();
        let new = ini::leading_to(&text, &seen.names, &seen.machine, seen.port);
        if new != text {
            owner.write(&self.ini, new).await?;
        }
        self.go_on(task, seen, &owner).await
    }

    async fn go_on(&self, task: &Task<'_>, seen: &Seen, owner: &Owner) -> Result<(), StepError> {
        let console = task.reach.connect(&self.console()).await?;
        let text = owner.read(&self.ini).await?.unwrap_or_default();
        // A `RELOAD` too many closes connections to the server that are still logging in, and the pooler tells its clients
        // that its logins fail.
        if !self.has_loaded(&console, &text, seen).await? {
            console.orders("reload PgBouncer", "RELOAD").await?;
        }
        resume(&console, seen).await?;
        watchdog::end(owner, task.key).await
    }

    /// Whether the databases lead where this file says.
    async fn has_loaded(&self, console: &Database, text: &str, seen: &Seen) -> Result<bool, StepError> {
        let loaded = table(console, "SHOW DATABASES").await?;
        let written = ini::databases(text);
        let mut meant = written.iter().filter(|(name, ..)| seen.names.contains(name));
        Ok(meant.all(|(name, machine, port)| {
            // What `*` stands for has names that are not in the file.
            let mut rows = loaded
                .iter()
                .filter(|row| if name == "*" { row.get("name") != "pgbouncer" } else { row.get("name") == name })
                .peekable();
            rows.peek().is_some() && rows.all(|row| row.leads_to(machine.as_deref(), *port))
        }))
    }

    pub(super) async fn tidy(&self, task: &Task<'_>) -> Result<(), StepError> {
        let owner = self.owner(task.reach)?;
        watchdog::end(&owner, task.key).await?;
        let remove = r#"rm -f "$1" "$1.part" "$2""#;
        owner.script("remove the old pgbouncer.ini", remove, &[&self.kept(task.key), &self.laid(task.key)]).await.map(drop)
    }
}

impl Ready<'_> {
    /// `PAUSE` waits for transactions to end without limit of its own, and its answer is not to be trusted alone: after
    /// a `RECONNECT` it comes at once. What counts is that no connection to the server is at work, or about to be.
    pub(super) async fn pause(&self, at_most: Duration) -> Result<(), StepError> {
        let pausing = async {
            for order in orders("PAUSE", self.seen) {
                match self.console.client().simple_query(&order).await {
                    Ok(_) => {}
                    Err(error) if error.to_string().contains("already") || is_said(&error, "already") => {}
                    Err(error) => return Err(self.console.failed("pause PgBouncer", error)),
                }
            }
            loop {
                let active: u64 = table(&self.console, "SHOW POOLS")
                    .await?
                    .iter()
                    .filter(|row| self.seen.whole || self.seen.names.iter().any(|name| name == row.get("database")))
                    // One that is still logging in would meet the fence, and the pooler would tell its clients.
                    .flat_map(|row| ["sv_active", "sv_login", "sv_tested"].map(|kind| row.get(kind).parse::<u64>().unwrap_or(0)))
                    .sum();
                if active == 0 {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(at_most, pausing).await.unwrap_or_else(|_| {
            Err(StepError::transient(format!(
                "transactions did not end within {} ms: {} could not pause",
                at_most.as_millis(),
                self.router.title()
            ))
            .help(
                "the old primary serves again; look for long transactions in `pg_stat_activity`, or allow a longer `max_pause`",
            ))
        })
    }

    /// The new file, read: while clients are held back, and so while the target is being promoted.
    pub(super) async fn lay(&self) -> Result<(), StepError> {
        let is_laid = match &self.laying {
            Some(laying) => laying.go().await.is_ok(),
            None => false,
        };
        if !is_laid {
            let laid = self.router.laid(&self.key);
            self.owner.script("put the new pgbouncer.ini into place", LAY, &[&laid, &self.router.ini]).await?;
        }
        self.console.orders("reload PgBouncer", "RELOAD").await
    }

    pub(super) async fn switch(&self) -> Result<(), StepError> {
        resume(&self.console, self.seen).await
    }
}

/// `PAUSE` or `RESUME` of what moves. The whole pooler at once where it leads nowhere else: one word holds all databases, also
/// those that `*` stands for and that nobody has asked for yet.
fn orders(verb: &str, seen: &Seen) -> Vec<String> {
    if seen.whole {
        vec![verb.to_owned()]
    } else {
        seen.names.iter().map(|name| format!("{verb} {}", quote_name(name))).collect()
    }
}

/// Lets clients go on; those that were not held do so already.
async fn resume(console: &Database, seen: &Seen) -> Result<(), StepError> {
    for order in orders("RESUME", seen) {
        match console.client().simple_query(&order).await {
            Ok(_) => {}
            Err(error) if is_said(&error, "not paused") => {}
            Err(error) => return Err(console.failed("resume PgBouncer", error)),
        }
    }
    Ok(())
}

fn is_said(error: &tokio_postgres::Error, what: &str) -> bool {
    error.as_db_error().is_some_and(|error| error.message().contains(what))
}

/// A row of a console's table.
struct Row(tokio_postgres::SimpleQueryRow);

impl Row {
    /// A column; empty when there is none of this name.
    fn get(&self, name: &str) -> &str {
        self.0.try_get(name).ok().flatten().unwrap_or_default()
    }

    fn leads_to(&self, machine: Option<&str>, port: u16) -> bool {
        self.get("host") == machine.unwrap_or_default() && self.get("port") == port.to_string()
    }
}

async fn table(console: &Database, order: &str) -> Result<Vec<Row>, StepError> {
    let said = console.said("ask PgBouncer", order).await?;
    Ok(said
        .into_iter()
        .filter_map(|message| if let SimpleQueryMessage::Row(row) = message { Some(Row(row)) } else { None })
        .collect())
}

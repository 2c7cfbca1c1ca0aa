//! `ferry doctor --host`: whether a host can be reached, who one is there, and which programs it has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use super::{Check, State};
use crate::catalogue::Catalogue;
use crate::cli::Fault;
use crate::error::StepError;
use crate::hosts::{Finished, Host, Invocation, LocalHost, SshHost, Target};
use crate::pipeline::{HostSpec, Pipeline};
use crate::secret::Vault;
use crate::units::Span;

/// What migrations usually want of a host. None of it has to be there; what a pipeline's own step types need has to.
const USUAL: &[&str] = &[
    "sh",
    "tar",
    "zstd",
    "gzip",
    "rsync",
    "curl",
    "sudo",
    "psql",
    "pg_basebackup",
    "pg_ctl",
    "pg_verifybackup",
    "pg_rewind",
    "pgbouncer",
    "haproxy",
    "nft",
    "criu",
    "podman",
    "docker",
];

/// Clocks that are further apart than this confuse who compares logs.
const APART: Duration = Duration::from_secs(2);

/// Says what it is and which of `$@` it has, a line each: the word, its path, its version. PostgreSQL's programs lie
/// where Debian and Red Hat keep them.
const LOOK: &str = r#"
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin; for d in /usr/lib/postgresql/*/bin /usr/pgsql-*/bin; do [ -d "$d" ] && PATH=$PATH:$d; done
n=; [ -r /etc/os-release ] && n=$(. /etc/os-release; printf %s "$PRETTY_NAME")
printf '=\t%s\t%s\n' "$(uname -srm)" "$n"
printf '@\t%s\n' "$(date +%s)"
for t in "$@"; do
  p=$(command -v "$t") || { printf '%s\n' "$t"; continue; }
  case $t in haproxy) v=-v;; *) v=--version;; esac
  w=$("$p" $v </dev/null 2>/dev/null | head -n 1) || w=
  printf '%s\t%s\t%s\n' "$t" "$p" "$w"
done
"#;

/// A host that is to be looked at.
pub(super) struct Patient {
    name: String,
    place: Place,
    /// Programs that steps on it need, and the types of these steps.
    needed: BTreeMap<String, BTreeSet<String>>,
}

enum Place {
    Here,
    There(Target),
    /// Only a run knows where it is.
    Unknown,
}

impl Patient {
    /// A host of a pipeline, with what its steps need there.
    pub(super) fn of_pipeline(name: &str, pipeline: &Pipeline, catalogue: &Catalogue, base: &Path) -> Result<Self, Fault> {
        let place = match pipeline.hosts.get(name) {
            Some(HostSpec::Ssh(keys)) => Self::place(keys, base)?,
            _ => Place::Here,
        };
        let mut needed: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for step in pipeline.steps.iter().chain(&pipeline.finally) {
            let on = step.on.as_ref().and_then(Value::as_str).unwrap_or("local");
            for tool in catalogue.get(&step.uses).filter(|_| on == name).into_iter().flat_map(|info| &info.tools) {
                needed.entry(tool.clone()).or_default().insert(step.uses.clone());
            }
        }
        Ok(Self { name: name.to_owned(), place, needed })
    }

    /// What one would write behind `ssh`, or `local`.
    pub(super) fn of_name(name: &str) -> Result<Self, Fault> {
        let keys = Map::from_iter([("ssh".to_owned(), name.into())]);
        let place = if name == "local" { Place::Here } else { Self::place(&keys, Path::new(""))? };
        Ok(Self { name: name.to_owned(), place, needed: BTreeMap::new() })
    }

    fn place(keys: &Map<String, Value>, base: &Path) -> Result<Place, Fault> {
        if keys.values().any(|value| value.as_str().is_some_and(|text| text.contains("{{"))) {
            return Ok(Place::Unknown);
        }
        Target::read(keys, base).map(Place::There).map_err(|error| {
            let help = error.help.clone().unwrap_or_default();
            Fault::wrong(error.message.clone()).help(help)
        })
    }

    /// What there is to say of it.
    pub(super) async fn checks(&self) -> Vec<Check> {
        let label = |what: &str| format!("{} {what}", self.name);
        let mut checks = Vec::new();
        let host: Box<dyn Host> = match &self.place {
            Place::Unknown => {
                let says = "depends on the inputs of a run";
                return vec![
                    Check::new(label("address"), State::Odd, says)
                        .help("name the machine itself: `ferry doctor --host user@machine`"),
                ];
            }
            Place::Here => Box::new(LocalHost::default()),
            Place::There(target) => {
                let host = SshHost::new(self.name.clone(), target.clone());
                match host.reach().await {
                    Ok((user, trip)) => {
                        let says = format!("`{}` lets `{user}` in; a word goes and comes back in {}", target.ssh, Span(trip));
                        checks.push(Check::new(label("ssh"), State::Fine, says));
                    }
                    Err(error) => return vec![failed(label("ssh"), &error)],
                }
                if let Some(user) = &target.run_as {
                    checks.push(match output(&host, Invocation::new(["id", "-un"])).await {
                        Ok(who) if who.trim() == user => {
                            Check::new(label("become"), State::Fine, format!("commands run as `{user}`"))
                        }
                        Ok(who) => Check::new(label("become"), State::Missing, format!("commands run as `{}`", who.trim())),
                        Err(error) => return [checks, vec![failed(label("become"), &error)]].concat(),
                    });
                }
                Box::new(host)
            }
        };
        checks.extend(self.programs(&*host).await);
        checks
    }

    async fn programs(&self, host: &dyn Host) -> Vec<Check> {
        let label = |what: &str| format!("{} {what}", self.name);
        let usual = USUAL.iter().map(|tool| (*tool).to_owned()).filter(|tool| !self.needed.contains_key(tool));
        let wanted: Vec<String> = self.needed.keys().cloned().chain(usual).collect();
        let argv = ["sh", "-c", LOOK, "ferry"].into_iter().map(str::to_owned).chain(wanted);
        let said = match output(host, Invocation::new(argv)).await {
            Ok(said) => said,
            Err(error) => return vec![failed(label("sh"), &error)],
        };
        let mut checks = Vec::new();
        let mut absent = Vec::new();
        for line in said.lines() {
            let words: Vec<&str> = line.split('\t').collect();
            match words.as_slice() {
                ["=", system, name] => {
                    checks.push(Check::new(label("system"), State::Fine, format!("{system} {name}").trim().to_owned()));
                }
                ["@", seconds] => checks.extend(clock(label("clock"), seconds)),
                [tool, path, version] => {
                    let says = if version.is_empty() { (*path).to_owned() } else { format!("{version} ({path})") };
                    checks.push(Check::new(label(tool), State::Fine, says));
                }
                [tool] => match self.needed.get(*tool) {
                    Some(types) => {
                        let types: Vec<String> = types.iter().map(|name| format!("`{name}`")).collect();
                        let says = format!("is not there, and {} needs it", types.join(", "));
                        checks.push(
                            Check::new(label(tool), State::Missing, says).help(format!("install `{tool}` on `{}`", self.name)),
                        );
                    }
                    None => absent.push(*tool),
                },
                _ => {}
            }
        }
        if !absent.is_empty() {
            let says = absent.join(", ");
            checks.push(Check::new(label("without"), State::Fine, format!("{says}: step types that need one of these say so")));
        }
        checks
    }
}

/// Whole seconds there against ours.
fn clock(label: String, there: &str) -> Option<Check> {
    let there = Duration::from_secs(there.trim().parse().ok()?);
    let here = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let apart = here.abs_diff(there);
    if apart > APART {
        let says = format!("is {} apart from the one here", Span(Duration::from_secs(apart.as_secs())));
        return Some(
            Check::new(label, State::Odd, says).help("have both follow a time server: logs of both sides are hard to compare"),
        );
    }
    Some(Check::new(label, State::Fine, "agrees with the one here"))
}

fn failed(label: String, error: &StepError) -> Check {
    let check = Check::new(label, State::Missing, error.message.clone());
    match &error.help {
        Some(help) => check.help(help.clone()),
        None => check,
    }
}

/// What a program prints.
async fn output(host: &dyn Host, invocation: Invocation) -> Result<String, StepError> {
    let (vault, cancel) = (Vault::default(), CancellationToken::new());
    let Finished { stdout, .. } = host.execute(&invocation, &vault, &cancel, &|_, _| {}).await?;
    Ok(String::from_utf8_lossy(&stdout).into_owned())
}

//! `ferry base`: base backups of a PostgreSQL cluster into an archive, and out of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::json;

use super::wal::{Place, masked};
use super::{Context, Exit, Fault, block_on};
use crate::archive::base::{self, Backup, Follow, Goal, Restore, Source, Steps};
use crate::error::StepError;
use crate::report::telling::counted_u64;
use crate::units::ByteSize;

/// How often `--json` tells how far it is.
const EVERY: Duration = Duration::from_millis(500);

/// Take a base backup of a PostgreSQL cluster into an archive, and make a cluster of one
///
/// On the database's own host, as the server's user. The step types `postgres.base_backup` and `postgres.restore` call it.
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    after_long_help = "Examples:\n  ferry base push --archive /etc/ferry/archive.yaml monday\n  \
    ferry base ls --archive /etc/ferry/archive.yaml\n  \
    ferry base fetch --archive /etc/ferry/archive.yaml latest --to /var/lib/postgresql/15/main --recover\n\n\
    JSON: push and fetch: lines {\"bytes\", \"bytes_total\"} while at work, then {\"ferry\", \"name\", \"system\", \"version\", \"segment\",\n      \
    \"timeline\", \"start\", \"stop\", \"times\", \"bytes\", \"stored\", \"files\", \"tablespaces\", \"resumed\", \"was_there\"}; ls: a line each"
)]
pub struct Base {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Take a backup of the server on this host
    Push {
        #[command(flatten)]
        place: Place,
        /// What the backup is called; one of that name that was not finished is gone on with
        #[arg(value_name = "NAME")]
        name: String,
        /// The folder of the server's socket
        #[arg(long, value_name = "DIR", default_value = "/var/run/postgresql")]
        socket: PathBuf,
        /// The server's port
        #[arg(long, value_name = "PORT", default_value_t = 5432)]
        port: u16,
        /// Who logs in
        #[arg(long, value_name = "USER", default_value = "postgres")]
        user: String,
        /// To which database
        #[arg(long, value_name = "DATABASE", default_value = "postgres")]
        database: String,
        /// Let the server take its time for the checkpoint at the beginning
        #[arg(long)]
        spread: bool,
    },
    /// Make a data directory of a backup
    Fetch {
        #[command(flatten)]
        place: Place,
        /// The backup's name, or `latest`
        #[arg(value_name = "NAME")]
        name: String,
        /// The data directory: none yet, an empty one, or one that an interrupted `fetch` of the same backup has begun
        #[arg(long, value_name = "DIR")]
        to: PathBuf,
        /// Where a tablespace goes: its number or where it was, `=`, and where it is to be
        #[arg(long, value_name = "OLD=NEW")]
        tablespace: Vec<String>,
        /// The server replays the log and then serves; else it follows as a standby
        #[arg(long)]
        recover: bool,
        /// Replay no further than the backup needs to be one state
        #[arg(long, conflicts_with_all = ["time", "lsn", "point"])]
        consistent: bool,
        /// Replay up to this time: `2026-11-21 20:00:00+00`
        #[arg(long, value_name = "TIME", conflicts_with_all = ["lsn", "point"])]
        time: Option<String>,
        /// Replay up to this place in the log: `16/B374D848`
        #[arg(long, value_name = "LSN", conflicts_with = "point")]
        lsn: Option<String>,
        /// Replay up to this restore point
        #[arg(long, value_name = "NAME")]
        point: Option<String>,
    },
    /// Whether there is a whole backup of this name
    #[command(hide = true)]
    Has {
        #[command(flatten)]
        place: Place,
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Remove a backup
    #[command(hide = true)]
    Rm {
        #[command(flatten)]
        place: Place,
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// List the whole backups of an archive
    Ls {
        #[command(flatten)]
        place: Place,
    },
}

impl Base {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let place = match &self.what {
            What::Push { place, .. }
            | What::Fetch { place, .. }
            | What::Ls { place }
            | What::Rm { place, .. }
            | What::Has { place, .. } => place,
        };
        let archive = place.open()?;
        let file = std::path::absolute(&place.archive).map_err(|error| Fault::wrong("cannot find the settings").cause(error))?;
        let last = Mutex::new(Instant::now());
        let tell = |steps: Steps| {
            let Ok(mut last) = last.lock() else { return };
            if context.out.json && (last.elapsed() >= EVERY || steps.bytes == steps.bytes_total) {
                *last = Instant::now();
                let _ = context.out.json_line(&steps);
            }
        };
        let failed = |error: StepError| Fault::from(masked(&archive, &error)).exit(Exit::Failed);
        match self.what {
            What::Push { name, socket, port, user, database, spread, .. } => {
                let source = Source { socket, port, user, database, at_once: !spread };
                let taken = block_on(base::backup(&archive, &source, &name, &tell))?.map_err(failed)?;
                if context.out.json {
                    context.out.json_line(&taken)?;
                } else {
                    let (files, bytes) = (taken.summary.files, taken.summary.bytes);
                    let word = if taken.was_there { "is there already" } else { "taken" };
                    let files = counted_u64(files, "file", "files");
                    context.out.text(&format!(
                        "{name}: {word}, {files}, {}, {} stored",
                        ByteSize(bytes),
                        ByteSize(taken.summary.stored)
                    ))?;
                }
            }
            What::Fetch { name, to, tablespace, recover, consistent, time, lsn, point, .. } => {
                let goal = match (consistent, time, lsn, point) {
                    (true, ..) => Goal::Consistent,
                    (_, Some(time), ..) => Goal::Time(time),
                    (_, _, Some(lsn), _) => Goal::Lsn(lsn),
                    (.., Some(point)) => Goal::Name(point),
                    _ => Goal::End,
                };
                let wanted = Restore {
                    data: std::path::absolute(&to).map_err(|error| Fault::wrong("cannot find the folder").cause(error))?,
                    tablespaces: tablespaces(&tablespace)?,
                    follow: if recover { Follow::Recover } else { Follow::Standby },
                    goal,
                    restore_command: restore_command(&file, !recover)?,
                };
                let restored = block_on(async {
                    let name = if name == "latest" {
                        let none = || StepError::permanent(format!("there is no whole backup in `{}`", archive.label()));
                        Backup::newest(&archive).await?.ok_or_else(none)?
                    } else {
                        name
                    };
                    base::restore(&archive, &name, &wanted, &tell).await
                })?;
                let restored = restored.map_err(failed)?;
                if context.out.json {
                    context.out.json_line(&restored)?;
                } else {
                    let files = counted_u64(restored.summary.files, "file", "files");
                    let (name, bytes) = (&restored.summary.name, ByteSize(restored.summary.bytes));
                    context.out.text(&format!("{name}: {files}, {bytes} in {}", wanted.data.display()))?;
                }
            }
            What::Rm { name, .. } => {
                let objects = block_on(base::remove(&archive, &name))?.map_err(failed)?;
                if context.out.json {
                    context.out.json_line(&json!({ "ferry": 1, "name": name, "objects": objects }))?;
                }
            }
            What::Has { name, .. } => {
                let found = block_on(Backup::read(&archive, &name))?.map_err(failed)?.is_some();
                context.out.json_line(&json!({ "ferry": 1, "name": name, "found": found }))?;
            }
            What::Ls { .. } => {
                let backups = block_on(async {
                    let mut backups = Vec::new();
                    for name in base::names(&archive).await? {
                        backups.extend(Backup::read(&archive, &name).await?.map(|backup| backup.summary));
                    }
                    Ok::<_, StepError>(backups)
                })?;
                for summary in backups.map_err(failed)? {
                    if context.out.json {
                        context.out.json_line(&json!(summary))?;
                    } else {
                        let ended = jiff::Timestamp::from_second(summary.times.1).unwrap_or_default();
                        let files = counted_u64(summary.files, "file", "files");
                        let (name, bytes, start) = (&summary.name, ByteSize(summary.bytes), &summary.start);
                        context.out.text(&format!(
                            "{name}  {ended}  {bytes} in {files}, from {start} on timeline {}",
                            summary.timeline
                        ))?;
                    }
                }
            }
        }
        Ok(Exit::Succeeded)
    }
}

fn tablespaces(given: &[String]) -> Result<BTreeMap<String, PathBuf>, Fault> {
    let pair = |text: &String| {
        let (old, new) = text.split_once('=').filter(|(old, new)| !old.is_empty() && new.starts_with('/'))?;
        Some((old.to_owned(), PathBuf::from(new)))
    };
    let wrong = |text: &String| Fault::wrong(format!("`--tablespace {text}` is not `OLD=NEW` with a whole path"));
    given.iter().map(|text| pair(text).ok_or_else(|| wrong(text))).collect()
}

/// What the server is to call for its log: this very program.
fn restore_command(file: &Path, standby: bool) -> Result<String, Fault> {
    let ferry = std::env::current_exe().map_err(|error| Fault::wrong("cannot find out what this program is").cause(error))?;
    // `%` stands for something in PostgreSQL's commands.
    let quoted = |path: &Path| format!("\"{}\"", path.display()).replace('%', "%%");
    let standby = if standby { " --standby" } else { "" };
    Ok(format!("{} wal fetch --archive {}{standby} %f %p", quoted(&ferry), quoted(file)))
}

//! `ferry wal`: the write-ahead log of a PostgreSQL cluster into an archive, and out of it, one file at a time.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{Context, Exit, Fault, block_on};
use crate::archive::{self, Archive, Fetched, Settings};
use crate::error::{ErrorClass, StepError};

/// Archive PostgreSQL's write-ahead log, and bring it back
///
/// For PostgreSQL, not for people: `archive_command` and `restore_command` call it on the database's own host. The step
/// types `postgres.wal_ship` and `postgres.restore` set it up.
#[derive(Debug, clap::Args)]
#[command(
    subcommand_required = true,
    arg_required_else_help = true,
    after_long_help = "Examples:\n  archive_command = 'ferry wal push --archive /etc/ferry/archive.yaml %p'\n  \
    restore_command = 'ferry wal fetch --archive /etc/ferry/archive.yaml %f %p'\n\n\
    Exit status of push: 0 the file is safely archived; 1 it is not, PostgreSQL asks again.\n\
    Exit status of fetch: 0 the file is there; 1 the archive has no such file, which is the log's end for PostgreSQL;\n\
    255 it cannot be known or had, and recovery must not go on. With --standby what may pass is told as 1: a standby asks again.\n\n\
    JSON: push {\"file\", \"was_new\", \"ahead\"}, fetch {\"file\", \"found\"}"
)]
pub struct Wal {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Store a file of `pg_wal`: `archive_command`
    Push {
        #[command(flatten)]
        place: Place,
        /// The file: `%p`
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// Bring a file back: `restore_command`
    Fetch {
        #[command(flatten)]
        place: Place,
        /// This server is a standby, which asks again: what cannot be had now is told as not there
        #[arg(long)]
        standby: bool,
        /// The file: `%f`
        #[arg(value_name = "NAME")]
        name: String,
        /// Where it is to be: `%p`
        #[arg(value_name = "PATH")]
        path: PathBuf,
    },
    /// What `fetch` leaves behind to fetch the next segments
    #[command(hide = true)]
    Ahead {
        #[command(flatten)]
        place: Place,
        #[arg(value_name = "NAME")]
        name: String,
        #[arg(value_name = "SPOOL")]
        spool: PathBuf,
    },
}

/// Where the archive is.
#[derive(Debug, clap::Args)]
pub(super) struct Place {
    /// The file that says where the archive is
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    pub(super) archive: PathBuf,
}

impl Place {
    pub(super) fn open(&self) -> Result<Archive, StepError> {
        let base = self.archive.parent().unwrap_or(Path::new("/")).to_owned();
        Settings::read(&self.archive)?.open(&base)
    }
}

/// Whether a command line is one on which recovery depends: then no failure may look like the log's end.
pub(super) fn is_fetch(args: &[std::ffi::OsString]) -> bool {
    let mut words = args.iter().skip(1).filter(|arg| !arg.to_string_lossy().starts_with('-'));
    words.next().is_some_and(|word| word == "wal") && words.next().is_some_and(|word| word == "fetch")
}

impl Wal {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        match self.what {
            What::Push { place, path } => {
                let pushed = block_on(async {
                    let archive = place.open()?;
                    archive::push(&archive, &path).await.map_err(|error| masked(&archive, &error))
                })?;
                let pushed = pushed.map_err(|error| Fault::from(error).exit(Exit::Failed))?;
                if context.out.json {
                    let file = path.file_name().unwrap_or_default().to_string_lossy();
                    context.out.document(&json!({ "file": file, "was_new": pushed.was_new, "ahead": pushed.ahead }))?;
                }
                Ok(Exit::Succeeded)
            }
            What::Fetch { place, standby, name, path } => fetch(context, &place, standby, &name, &path),
            What::Ahead { place, name, spool } => {
                let archive = place.open()?;
                block_on(archive::ahead(&archive, &name, &spool))?.map_err(|error| masked(&archive, &error))?;
                Ok(Exit::Succeeded)
            }
        }
    }
}

fn fetch(context: &Context, place: &Place, standby: bool, name: &str, path: &Path) -> Result<Exit, Fault> {
    let stops = |error: StepError| {
        let may_pass = error.class == ErrorClass::Transient;
        Fault::from(error).exit(if standby && may_pass { Exit::Failed } else { Exit::StopsRecovery })
    };
    let archive = place.open().map_err(stops)?;
    let fetched = block_on(archive::fetch(&archive, name, path)).map_err(|fault| fault.exit(Exit::StopsRecovery))?;
    let fetched = fetched.map_err(|error| stops(masked(&archive, &error)))?;
    if context.out.json {
        context.out.document(&json!({ "file": name, "found": fetched != Fetched::Missing }))?;
    }
    match fetched {
        Fetched::Missing => Ok(Exit::Failed),
        Fetched::There { more } => {
            if let Some(spool) = more {
                start_ahead(place, name, &spool);
            }
            Ok(Exit::Succeeded)
        }
    }
}

/// Leaves a process behind that fetches the next segments while this one is replayed. It ends by itself when some lie
/// ready. That it cannot be started costs speed and nothing else.
fn start_ahead(place: &Place, name: &str, spool: &Path) {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};
    let Ok(ferry) = std::env::current_exe() else { return };
    let mut command = Command::new(ferry);
    command.args(["wal", "ahead", "--archive"]).arg(&place.archive).arg(name).arg(spool);
    // A group of its own: what ends the server's child is not meant for it.
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    let _ = command.spawn();
}

pub(super) fn masked(archive: &Archive, error: &StepError) -> StepError {
    let failure = archive.vault.mask_failure(error);
    let mut told = StepError::new(failure.class, failure.message);
    told.help = failure.help;
    match failure.causes.into_iter().next() {
        Some(cause) => told.cause(cause),
        None => told,
    }
}

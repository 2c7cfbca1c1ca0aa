//! What can be wrong with a journal, and what to do about it.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use miette::Diagnostic;
use rusqlite::ErrorCode;

use super::Holder;

/// The journal said no. Nothing was half-written.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum JournalError {
    /// There is no journal.
    #[error("there is no journal in `{}`", .dir.display())]
    #[diagnostic(
        code(ferry::journal::missing),
        help("runs are kept in `.ferry` beside the pipeline's project: go there, or name the folder with `--store`")
    )]
    Missing {
        /// The folder looked at.
        dir: PathBuf,
    },
    /// The file is not what was written.
    #[error("the journal `{}` is damaged: {what}", .path.display())]
    #[diagnostic(
        code(ferry::journal::damaged),
        help("nothing was changed: copy the file aside, look at the disk, and restore `.ferry` from a backup")
    )]
    Damaged {
        /// The database.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
    /// A database of another program.
    #[error("`{}` is a database, but not a journal of ferry", .path.display())]
    #[diagnostic(
        code(ferry::journal::foreign),
        help("nothing was changed: move the file away, or name another folder with `--store`")
    )]
    Foreign {
        /// The database.
        path: PathBuf,
    },
    /// Written by a later version.
    #[error("the journal `{}` has format {found}, this ferry knows formats up to {known}", .path.display())]
    #[diagnostic(code(ferry::journal::newer), help("nothing was changed: use the ferry that wrote it, or a newer one"))]
    Newer {
        /// The database.
        path: PathBuf,
        /// The format found.
        found: i64,
        /// The latest known.
        known: i64,
    },
    /// The disk, or the limit of the file, is reached.
    #[error("there is no room to write to the journal `{}`", .path.display())]
    #[diagnostic(code(ferry::journal::full), help("nothing was half-written: make room on the disk, then `ferry resume`"))]
    Full {
        /// The database.
        path: PathBuf,
    },
    /// The folder or the file cannot be written.
    #[error("cannot write to the journal `{}`: {why}", .path.display())]
    #[diagnostic(
        code(ferry::journal::unwritable),
        help("nothing was half-written: see that the folder exists, is mounted for writing and belongs to you, then try again")
    )]
    Unwritable {
        /// The database or its folder.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The file cannot be read.
    #[error("cannot read the journal `{}`: {why}", .path.display())]
    #[diagnostic(code(ferry::journal::unreadable), help("see that the folder exists and that you may read it"))]
    Unreadable {
        /// The database.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// It was opened for reading.
    #[error("the journal `{}` was opened for reading", .path.display())]
    #[diagnostic(code(ferry::journal::read_only), help("use a command that acts on runs"))]
    ReadOnly {
        /// The database.
        path: PathBuf,
    },
    /// Other processes held the file for too long.
    #[error("the journal `{}` was held by another process for too long", .path.display())]
    #[diagnostic(code(ferry::journal::busy), help("nothing was written: look which process works on it, then try again"))]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// The database engine gave up for a reason that says nothing about the file: no memory, a limit of its own.
    #[error("cannot work with the journal `{}`: {why}", .path.display())]
    #[diagnostic(
        code(ferry::journal::failed),
        help("nothing was half-written: try again; the file itself is not known to be damaged")
    )]
    Failed {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        why: String,
    },
    /// Another runner holds the run.
    #[error("run `{run}` is held by {holder}, since {since}")]
    #[diagnostic(code(ferry::journal::held), help("watch it with `ferry show {run}`, or stop it with `ferry cancel {run}`"))]
    Held {
        /// The run.
        run: String,
        /// Who holds it.
        holder: Box<Holder>,
        /// Since when.
        since: Timestamp,
    },
    /// Another runner has taken the run over.
    #[error("another runner has taken over run `{run}`")]
    #[diagnostic(
        code(ferry::journal::fenced),
        help("nothing more was written from here: `ferry show {run}` says how it goes on")
    )]
    Fenced {
        /// The run.
        run: String,
    },
    /// An event is larger than the format allows.
    #[error("an event of {size} bytes does not fit into the journal: {what}")]
    #[diagnostic(code(ferry::journal::too_large), help("write large data to a file or a store, and pass on where it is"))]
    TooLarge {
        /// What the event is.
        what: String,
        /// Its size.
        size: usize,
    },
    /// No run is called so.
    #[error("there is no run `{text}`")]
    #[diagnostic(
        code(ferry::journal::no_run),
        help("`ferry runs` lists the runs; an id, a unique part at its start or end, or `last` names one")
    )]
    NoRun {
        /// What was looked for.
        text: String,
    },
    /// Several runs are.
    #[error("`{text}` names more than one run: {}", .runs.join(", "))]
    #[diagnostic(code(ferry::journal::ambiguous), help("give more of the id"))]
    Ambiguous {
        /// What was looked for.
        text: String,
        /// The runs.
        runs: Vec<String>,
    },
}

impl JournalError {
    /// What SQLite said about this database, in our words.
    pub(super) fn of(path: &Path, error: &rusqlite::Error) -> Self {
        let path = path.to_owned();
        let code = error.sqlite_error_code();
        let why = error.to_string();
        match code {
            Some(ErrorCode::DiskFull) => Self::Full { path },
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Busy { path },
            // A write beyond what the disk or a quota gives may come back as a failed write rather than as "full".
            Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::SystemIoFailure) => {
                Self::Unwritable { path, why }
            }
            Some(ErrorCode::NotADatabase) => Self::Damaged { path, what: "it is not a database".to_owned() },
            // None: a column is not what the format says it is.
            Some(ErrorCode::DatabaseCorrupt) | None => Self::Damaged { path, what: why },
            Some(_) => Self::Failed { path, why },
        }
    }

    /// The same, for a file opened for reading.
    pub(super) fn of_reading(path: &Path, error: &rusqlite::Error) -> Self {
        match Self::of(path, error) {
            Self::Unwritable { path, why } => Self::Unreadable { path, why },
            other => other,
        }
    }

    /// The sentence that says what to do.
    pub fn help_text(&self) -> String {
        Diagnostic::help(self).map(|help| help.to_string()).unwrap_or_default()
    }
}

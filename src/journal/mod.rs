//! The durable log of runs: the only truth about a run.
//!
//! In: the events of a run, from the one runner that holds its lease. Out: the same events in the same order, in this
//! process or the next. A batch of events is one transaction: on disk whole, or not at all. What is kept beside the
//! events (summaries, leases, locks, requests) is an index over them or belongs to no event. Never here: a decision
//! about a run, a repair of a damaged file, a write to a file that is not ours. The format is in `docs/journal.md`.

mod append;
mod error;
mod inbox;
mod lease;
mod locks;
mod process;
mod read;
mod schema;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use rusqlite::Connection;

pub use append::MAX_EVENT;
pub use error::JournalError;
pub use inbox::{Letter, Request};
pub use lease::{LEASE_TIME, Lease};
pub use locks::{LockHolder, LockTry};
pub use process::Holder;
pub use read::{Record, RunSummary};

use crate::clock::{Clock, SystemClock};

/// The name of the database in the project's `.ferry` folder.
pub const FILE: &str = "ferry.db";

/// A project's journal. Cloning shares it; the last clone closes it.
#[derive(Clone)]
pub struct Journal {
    inner: Arc<Inner>,
}

struct Inner {
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    // Dropped before the writer: the last connection to close moves the log into the database, and a reading one may not.
    reader: Mutex<Connection>,
    /// `None` when opened for reading.
    writer: Option<writer::Writer>,
    commits: AtomicU64,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("dir", &self.inner.dir).finish_non_exhaustive()
    }
}

/// How a journal is opened for writing.
#[derive(Debug, Clone, Default)]
pub struct OpenOptions {
    /// Where the times of records and leases come from; the machine's clock unless given.
    pub clock: Option<Arc<dyn Clock>>,
    /// The database does not grow beyond this many bytes: a write that would is refused as on a full disk.
    pub max_size: Option<u64>,
}

impl Journal {
    /// Opens the journal in this folder (usually `.ferry`) for writing, and creates both where there are none.
    pub fn open(dir: impl AsRef<Path>) -> Result<Self, JournalError> {
        Self::open_with(dir, OpenOptions::default())
    }

    /// As [`Journal::open`], with options.
    pub fn open_with(dir: impl AsRef<Path>, options: OpenOptions) -> Result<Self, JournalError> {
        let dir = dir.as_ref();
        let connection = schema::open(dir, options.max_size)?;
        let reader = schema::open_reader(dir)?;
        let path = dir.join(FILE);
        let writer = writer::Writer::start(connection, path)?;
        Ok(Self::assemble(dir, options.clock, Some(writer), reader))
    }

    /// Opens the journal in this folder for reading. Nothing is created and nothing is changed.
    pub fn read(dir: impl AsRef<Path>) -> Result<Self, JournalError> {
        let dir = dir.as_ref();
        let reader = schema::open_reader(dir)?;
        Ok(Self::assemble(dir, None, None, reader))
    }

    fn assemble(dir: &Path, clock: Option<Arc<dyn Clock>>, writer: Option<writer::Writer>, reader: Connection) -> Self {
        let inner = Inner {
            dir: dir.to_owned(),
            clock: clock.unwrap_or_else(SystemClock::shared),
            reader: Mutex::new(reader),
            writer,
            commits: AtomicU64::new(0),
        };
        Self { inner: Arc::new(inner) }
    }

    /// The folder: the database is in it, and what else is kept of a run.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The folder that belongs to one run: its logs, and what its steps keep.
    pub fn run_dir(&self, run: &str) -> PathBuf {
        self.inner.dir.join("runs").join(run)
    }

    /// How many transactions of events this process has committed.
    pub fn commits(&self) -> u64 {
        self.inner.commits.load(Ordering::Relaxed)
    }

    fn path(&self) -> PathBuf {
        self.inner.dir.join(FILE)
    }

    /// To the microsecond, as it is stored: what `append` returns equals what is read back.
    fn now(&self) -> Timestamp {
        lease::time(self.inner.clock.now().as_microsecond())
    }

    fn reader(&self) -> MutexGuard<'_, Connection> {
        // A reader that panicked left no half-done change behind: it changes nothing.
        self.inner.reader.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does `job` on the write thread, so that no async thread waits for the disk.
    async fn write<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let writer = self.inner.writer.as_ref().ok_or_else(|| JournalError::ReadOnly { path: self.path() })?;
        writer.run(job).await
    }

    /// The error of a statement, told with the file's path.
    fn failed(&self, error: &rusqlite::Error) -> JournalError {
        JournalError::of(&self.path(), error)
    }
}

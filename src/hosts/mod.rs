//! Where commands run and files lie: this machine now, machines by SSH later.
//!
//! In: an [`Invocation`] or a path. Out: what the program said, or a `StepError` whose class is decided here. Never
//! here: a shell that was not asked for, a secret in an argument list, a program that outlives its cancel.

mod local;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use local::LocalHost;

use crate::error::StepError;
use crate::secret::{Text, Vault, unmarked};

/// A program to run on a host.
#[derive(Debug, Clone, Default)]
pub struct Invocation {
    /// Program and arguments. No shell: `["sh", "-c", …]` asks for one. Marks are refused: arguments are public.
    pub argv: Vec<String>,
    /// Added to the environment; the right place for secrets.
    pub env: BTreeMap<String, Text>,
    /// Where it runs; the host's default unless given.
    pub workdir: Option<String>,
    /// What it reads.
    pub stdin: Option<Text>,
}

/// How much of a program's standard output is kept in memory.
pub const STDOUT_KEPT: usize = 1 << 20;

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Whether it was asked to stop before it ended.
    pub was_asked: bool,
    /// What it wrote to standard output, up to [`STDOUT_KEPT`].
    pub stdout: Vec<u8>,
    /// Whether it wrote more than that.
    pub stdout_cut: bool,
    /// The end of what it wrote to standard error, for messages; secrets masked.
    pub stderr_tail: String,
}

/// Called with each line as it comes: `true` for standard error.
pub type OnLine<'a> = &'a (dyn Fn(bool, &str) + Send + Sync);

/// A file as `inspect` records it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileState {
    /// Its content, base64.
    pub content: String,
    /// Permission bits.
    pub mode: u32,
    /// Owner's number.
    pub uid: u32,
    /// Group's number.
    pub gid: u32,
}

/// A machine that steps act on.
pub trait Host: Send + Sync + std::fmt::Debug {
    /// The name in the pipeline.
    fn name(&self) -> &str;
    /// Whether it is the machine that ferry runs on: relative paths start at the pipeline's folder only there.
    fn is_local(&self) -> bool {
        false
    }
    /// Runs a program to its end. When `cancel` fires, the whole process group gets SIGTERM, then SIGKILL. When the
    /// runner dies, the process group ends too.
    fn execute<'a>(
        &'a self,
        invocation: &'a Invocation,
        vault: &'a Vault,
        cancel: &'a CancellationToken,
        on_line: OnLine<'a>,
    ) -> BoxFuture<'a, Result<Finished, StepError>>;
    /// A file's state; `None` when there is none. Anything but a regular file is an error.
    fn read_file<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<Option<FileState>, StepError>>;
    /// Writes a file whole or not at all (temporary name, fsync, rename). `None` keeps what was there, or the default.
    fn write_file<'a>(
        &'a self,
        path: &'a Path,
        content: &'a [u8],
        mode: Option<u32>,
        owner: Option<(u32, u32)>,
    ) -> BoxFuture<'a, Result<(), StepError>>;
    /// Removes what a runner that died left half-written beside a file. A host whose files cannot be left so does nothing.
    fn clear_unfinished<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), StepError>> {
        let _ = path;
        Box::pin(async { Ok(()) })
    }
    /// Removes a file; none there is no error.
    fn remove_file<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), StepError>>;
}

/// What to do with a secret instead of writing it into an argument.
pub const SECRET_ARGUMENT: &str = "every user of a machine can read arguments: pass the secret with `env:` or `stdin:`, and write `$NAME` for it in a \
     shell command";

/// What is said of a secret in an argument list, by whoever finds it first.
pub fn secret_argument(marked: &str) -> StepError {
    let shown = unmarked(marked.trim());
    StepError::permanent(format!("a secret stands in the arguments of a command: `{shown}`")).help(SECRET_ARGUMENT)
}

/// The machine that ferry runs on, under a name of the pipeline.
pub fn local(name: &str) -> Arc<dyn Host> {
    Arc::new(LocalHost::named(name))
}

/// The hosts of a run, by name. `local` is always there.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    hosts: Arc<BTreeMap<String, Arc<dyn Host>>>,
}

impl Hosts {
    /// These hosts.
    pub fn new(hosts: impl IntoIterator<Item = Arc<dyn Host>>) -> Self {
        Self { hosts: Arc::new(hosts.into_iter().map(|host| (host.name().to_owned(), host)).collect()) }
    }

    /// The host of this name.
    pub fn get(&self, name: &str) -> Result<Arc<dyn Host>, StepError> {
        self.hosts.get(name).cloned().ok_or_else(|| {
            StepError::permanent(format!("no host `{name}` can be reached from here"))
                .help("hosts by SSH come with a later version; `local` works")
        })
    }
}

//! Where commands run and files lie: this machine and machines by SSH, behind one trait.
//!
//! In: an [`Invocation`] or a path. Out: what the program said, or a `StepError` whose class is decided here. Never
//! here: a shell that was not asked for, a secret in an argument list, a program that outlives its cancel, a host key
//! that does not match.

mod forward;
mod frame;
mod lifeline;
mod lines;
mod local;
mod output;
mod script;
mod shell;
mod ssh;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

pub use forward::{Duplex, Endpoint, Forward};
pub use local::LocalHost;
pub use shell::Shell;
pub use ssh::{Patience, Reached, SshHost, Target};

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
    /// The user it runs as, by `runuser` or `sudo -n`; the host's own `become`, then the user who logs in, unless given.
    pub run_as: Option<String>,
}

impl Invocation {
    /// This program with these arguments.
    pub fn new(argv: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self { argv: argv.into_iter().map(Into::into).collect(), ..Self::default() }
    }

    /// This line of shell.
    pub fn shell(line: impl Into<String>) -> Self {
        Self::new(["sh".to_owned(), "-c".to_owned(), line.into()])
    }

    /// The program, for messages.
    fn program(&self) -> &str {
        self.argv.first().map_or("", String::as_str)
    }
}

/// Streams of a program that are too long to be kept in memory, or that somebody else makes or takes.
#[derive(Default)]
pub struct Streams<'a> {
    /// What it reads, in place of [`Invocation::stdin`]. When reading fails, the program is ended and so is the call.
    pub input: Option<&'a mut (dyn AsyncRead + Send + Unpin)>,
    /// Where its standard output goes, in place of [`Finished::stdout`] and the log. When writing fails, as above.
    pub output: Option<&'a mut (dyn AsyncWrite + Send + Unpin)>,
}

impl Streams<'_> {
    /// The same streams for a shorter time.
    fn reborrow(&mut self) -> Streams<'_> {
        Streams {
            input: self.input.as_deref_mut().map(|input| input as _),
            output: self.output.as_deref_mut().map(|output| output as _),
        }
    }
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
    /// runner dies or the connection is lost, the process group ends too.
    fn execute<'a>(
        &'a self,
        invocation: &'a Invocation,
        vault: &'a Vault,
        cancel: &'a CancellationToken,
        on_line: OnLine<'a>,
    ) -> BoxFuture<'a, Result<Finished, StepError>> {
        self.stream(invocation, vault, cancel, Streams::default(), on_line)
    }
    /// As [`Host::execute`], with streams that are read and written at the pace of the slower side.
    fn stream<'a>(
        &'a self,
        invocation: &'a Invocation,
        vault: &'a Vault,
        cancel: &'a CancellationToken,
        streams: Streams<'a>,
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
    /// Copies a file from the host into a stream, and says how long it was; `None` when there is none.
    fn get_file<'a>(
        &'a self,
        path: &'a Path,
        to: &'a mut (dyn AsyncWrite + Send + Unpin),
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Option<u64>, StepError>>;
    /// Copies exactly `length` bytes of a stream into a file, as [`Host::write_file`] does.
    fn put_file<'a>(
        &'a self,
        path: &'a Path,
        from: &'a mut (dyn AsyncRead + Send + Unpin),
        length: u64,
        owned: Owned,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<(), StepError>>;
    /// Removes what a runner that died left half-written beside a file. A host whose files cannot be left so does nothing.
    fn clear_unfinished<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), StepError>> {
        let _ = path;
        Box::pin(async { Ok(()) })
    }
    /// Removes a file; none there is no error.
    fn remove_file<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), StepError>>;
    /// A way from here to a port or a socket as the host sees it.
    fn forward<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, Result<Forward, StepError>>;
}

/// Whose a file is to be and who may do what with it; what is not given stays, or is the default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Owned {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner's and group's number.
    pub owner: Option<(u32, u32)>,
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
            StepError::permanent(format!("the pipeline has no host `{name}`")).help("list it under `hosts:`, or use `local`")
        })
    }
}

/// The value of a text at the sink.
fn reveal(vault: &Vault, text: &Text) -> Result<secrecy::SecretString, StepError> {
    vault.reveal(text.marked()).map_err(|unknown| {
        StepError::permanent(format!("the secret `{}` is not at hand", unknown.0))
            .help("list it under `secrets:` in the pipeline")
    })
}

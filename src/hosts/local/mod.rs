//! This machine as a host: programs as child processes, files on its own file systems.
//!
//! In: an invocation or a path. Out: how the program ended, or a `StepError`. Never here: a program that outlives a
//! cancel or ferry itself, a file that is seen half written.

mod files;
mod lifeline;
mod lines;
mod process;

use std::path::Path;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::{FileState, Finished, Host, Invocation, OnLine};
use crate::error::StepError;
use crate::secret::Vault;

/// How long a cancelled program has between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(10);

/// This machine.
#[derive(Debug, Clone)]
pub struct LocalHost {
    name: String,
    grace: Duration,
}

impl Default for LocalHost {
    fn default() -> Self {
        Self::named("local")
    }
}

impl LocalHost {
    /// This machine under a name of the pipeline.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), grace: GRACE }
    }

    /// How long a cancelled program has to end by itself.
    #[must_use]
    pub fn with_grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }
}

impl Host for LocalHost {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_local(&self) -> bool {
        true
    }

    fn execute<'a>(
        &'a self,
        invocation: &'a Invocation,
        vault: &'a Vault,
        cancel: &'a CancellationToken,
        on_line: OnLine<'a>,
    ) -> BoxFuture<'a, Result<Finished, StepError>> {
        process::execute(invocation, vault, cancel, self.grace, on_line).boxed()
    }

    fn read_file<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<Option<FileState>, StepError>> {
        let path = path.to_owned();
        blocking(move || files::read(&path)).boxed()
    }

    fn write_file<'a>(
        &'a self,
        path: &'a Path,
        content: &'a [u8],
        mode: Option<u32>,
        owner: Option<(u32, u32)>,
    ) -> BoxFuture<'a, Result<(), StepError>> {
        let (path, content) = (path.to_owned(), content.to_owned());
        blocking(move || files::write(&path, &content, mode, owner)).boxed()
    }

    fn clear_unfinished<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), StepError>> {
        let path = path.to_owned();
        blocking(move || files::clear_unfinished(&path)).boxed()
    }

    fn remove_file<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), StepError>> {
        let path = path.to_owned();
        blocking(move || files::remove(&path)).boxed()
    }
}

/// Disk work beside the async threads. What was begun is finished even when nobody waits for it any more.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StepError> + Send + 'static) -> Result<T, StepError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StepError::permanent("the work on a file was broken off").cause(error)))
}

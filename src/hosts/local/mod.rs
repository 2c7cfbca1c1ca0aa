//! This machine as a host: programs as child processes, files on its own file systems.
//!
//! In: an invocation or a path. Out: how the program ended, or a `StepError`. Never here: a program that outlives a
//! cancel or ferry itself, a file that is seen half written.

mod files;
mod process;

use std::path::Path;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::{Endpoint, FileState, Finished, Forward, Host, Invocation, OnLine, Owned, Streams};
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

    fn stream<'a>(
        &'a self,
        invocation: &'a Invocation,
        vault: &'a Vault,
        cancel: &'a CancellationToken,
        streams: Streams<'a>,
        on_line: OnLine<'a>,
    ) -> BoxFuture<'a, Result<Finished, StepError>> {
        process::execute(invocation, vault, cancel, self.grace, streams, on_line).boxed()
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

    fn get_file<'a>(
        &'a self,
        path: &'a Path,
        to: &'a mut (dyn AsyncWrite + Send + Unpin),
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Option<u64>, StepError>> {
        async move {
            let path = path.to_owned();
            let Some(file) = blocking(move || files::open(&path)).await? else { return Ok(None) };
            let mut file = tokio::fs::File::from_std(file);
            let copied = copy(&mut file, to, cancel).await?;
            Ok(Some(copied))
        }
        .boxed()
    }

    fn put_file<'a>(
        &'a self,
        path: &'a Path,
        from: &'a mut (dyn AsyncRead + Send + Unpin),
        length: u64,
        owned: Owned,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<(), StepError>> {
        async move {
            let target = path.to_owned();
            let new = blocking(move || files::begin(&target, owned.mode, owned.owner)).await?;
            let mut file = tokio::fs::File::from_std(new.file()?);
            let mut limited = from.take(length);
            let copied = copy(&mut limited, &mut file, cancel).await?;
            if copied != length {
                return Err(StepError::transient(format!(
                    "`{}` did not arrive whole: {copied} of {length} bytes",
                    path.display()
                ))
                .help("nothing was changed; it is tried again as `retry` says"));
            }
            blocking(move || new.finish()).await
        }
        .boxed()
    }

    fn clear_unfinished<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), StepError>> {
        let path = path.to_owned();
        blocking(move || files::clear_unfinished(&path)).boxed()
    }

    fn remove_file<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), StepError>> {
        let path = path.to_owned();
        blocking(move || files::remove(&path)).boxed()
    }

    fn forward<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, Result<Forward, StepError>> {
        async { Ok(Forward::direct(to)) }.boxed()
    }
}

/// Copies until the end, or until it is told to stop.
async fn copy(
    from: &mut (impl AsyncRead + Unpin + ?Sized),
    to: &mut (impl AsyncWrite + Unpin + ?Sized),
    cancel: &CancellationToken,
) -> Result<u64, StepError> {
    use tokio::io::AsyncWriteExt as _;
    tokio::select! {
        biased;
        () = cancel.cancelled() => Err(StepError::transient("stopped on request")),
        copied = async {
            let copied = tokio::io::copy(from, to).await?;
            to.flush().await?;
            Ok(copied)
        } => copied.map_err(|error| files::failed("cannot copy a file".to_owned(), error)),
    }
}

/// Disk work beside the async threads. What was begun is finished even when nobody waits for it any more.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, StepError> + Send + 'static) -> Result<T, StepError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(StepError::permanent("the work on a file was broken off").cause(error)))
}

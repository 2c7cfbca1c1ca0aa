//! Images from host to host, from memory to memory: through the runner, or straight.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWriteExt as _, DuplexStream};

use super::lazy::PAGES;
use super::site::Site;
use crate::clock::Clock;
use crate::error::StepError;
use crate::hosts::{Invocation, Streams};
use crate::units::{ByteSize, Rate};

/// How much is under way between the two hosts.
const PIPE: usize = 1 << 20;

/// What a sample sends at most, and for how long: bytes that no connection makes smaller.
const SAMPLE: &str = "timeout 1 head -c 33554432 /dev/urandom; exit 0";

/// The images. How many bytes they were.
pub(super) async fn copy(from: &Site<'_>, to: &Site<'_>) -> Result<ByteSize, StepError> {
    // What else lies there are notes of the host.
    let read = ["sh", "-c", r#"cd "$1" && exec tar -cf - ./*.img"#, "ferry", &from.folder];
    through(from, &read, to, &["tar", "-C", &to.folder, "-xf", "-"], &|_| {}).await
}

/// The images by the way that `pages` names. How many bytes they were.
pub(super) async fn straight(from: &Site<'_>, to: &Site<'_>) -> Result<ByteSize, StepError> {
    let ((address, port), (peer, _)) = (from.place()?, to.place()?);
    let (address, port, peer) = (address.to_string(), port.to_string(), peer.to_string());
    let give = [PAGES, &from.folder, &address, &port, &peer];
    let take = [PAGES, &address, &port, &to.folder];
    let sent = tokio::try_join!(
        from.shell.script("send the images", r#"exec perl -e "$1" give "$2" "$3" "$4" "$5""#, &give),
        to.shell.script("take the images", r#"exec perl -e "$1" take "$2" "$3" "$4""#, &take),
    );
    match sent {
        Ok((size, _)) => Ok(ByteSize(size.trim().parse().unwrap_or(0))),
        // Another attempt may find the way open.
        Err(error) => Err(StepError::transient(error.to_string())),
    }
}

/// How fast images would go. Nothing is kept of what is sent.
pub(super) async fn sample(clock: &dyn Clock, from: &Site<'_>, to: &Site<'_>) -> Result<Rate, StepError> {
    let start = clock.monotonic();
    let bytes = through(from, &["sh", "-c", SAMPLE], to, &["sh", "-c", "cat >/dev/null"], &|_| {}).await?;
    let time = clock.monotonic().saturating_sub(start).max(Duration::from_millis(1));
    Ok(Rate(u64::try_from(u128::from(bytes.0) * 1000 / time.as_millis()).unwrap_or(u64::MAX).max(1)))
}

/// What `read` says at one host is what `write` hears at the other. `tell` is told how much it was so far.
pub(in crate::steps) async fn through(
    from: &Site<'_>,
    read: &[&str],
    to: &Site<'_>,
    write: &[&str],
    tell: &(dyn Fn(u64) + Send + Sync),
) -> Result<ByteSize, StepError> {
    let (mut near, far) = tokio::io::duplex(PIPE);
    let mut far = Counted { inner: far, bytes: 0, tell };
    let read = async {
        let streams = Streams { output: Some(&mut near), ..Streams::default() };
        let finished = from.shell.stream(Invocation::new(read.iter().copied()), streams, &|_, _| {}).await?;
        from.shell.succeeded("read the images", &finished)?;
        near.shutdown().await.map_err(|error| StepError::transient("the images do not go through").cause(error))
    };
    let write = async {
        let streams = Streams { input: Some(&mut far), ..Streams::default() };
        let finished = to.shell.stream(Invocation::new(write.iter().copied()), streams, &|_, _| {}).await?;
        to.shell.succeeded("write the images", &finished)
    };
    tokio::try_join!(read, write)?;
    Ok(ByteSize(far.bytes))
}

/// A stream that counts.
struct Counted<'a> {
    inner: DuplexStream,
    bytes: u64,
    tell: &'a (dyn Fn(u64) + Send + Sync),
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
        buffer: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        let before = buffer.filled().len();
        let polled = std::pin::Pin::new(&mut self.inner).poll_read(context, buffer);
        self.bytes += (buffer.filled().len() - before) as u64;
        (self.tell)(self.bytes);
        polled
    }
}

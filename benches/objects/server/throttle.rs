//! A connection that is no faster than it is told, each way by itself.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep_until};

/// What may pass at once: small enough that the rate is even, large enough that timers cost nothing.
const PIECE: usize = 128 << 10;
/// How much of an idle time is made up for, so that late timers do not lower the rate.
const GRACE: Duration = Duration::from_millis(20);

/// A TCP connection with a limit of its own.
pub struct Throttled {
    inner: TcpStream,
    read: Option<Limit>,
    write: Option<Limit>,
}

struct Limit {
    bytes_per_second: f64,
    free_at: Instant,
    sleep: Pin<Box<Sleep>>,
}

impl Throttled {
    /// `bytes_per_second` of 0 is no limit.
    pub fn new(inner: TcpStream, bytes_per_second: u64) -> Self {
        let limit = || (bytes_per_second > 0).then(|| Limit::new(bytes_per_second));
        Self { inner, read: limit(), write: limit() }
    }
}

impl Limit {
    fn new(bytes_per_second: u64) -> Self {
        let now = Instant::now();
        Self { bytes_per_second: bytes_per_second as f64, free_at: now, sleep: Box::pin(sleep_until(now)) }
    }

    fn poll_free(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.free_at > Instant::now() {
            self.sleep.as_mut().reset(self.free_at);
            ready!(self.sleep.as_mut().poll(context));
        }
        Poll::Ready(())
    }

    fn took(&mut self, bytes: usize) {
        let from = self.free_at.max(Instant::now() - GRACE);
        self.free_at = from + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
    }
}

impl AsyncRead for Throttled {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let Some(limit) = &mut this.read else { return Pin::new(&mut this.inner).poll_read(context, buffer) };
        ready!(limit.poll_free(context));
        let length = PIECE.min(buffer.remaining());
        let mut part = ReadBuf::new(buffer.initialize_unfilled_to(length));
        ready!(Pin::new(&mut this.inner).poll_read(context, &mut part))?;
        let read = part.filled().len();
        buffer.advance(read);
        limit.took(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Throttled {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(limit) = &mut this.write else { return Pin::new(&mut this.inner).poll_write(context, bytes) };
        ready!(limit.poll_free(context));
        let wrote = ready!(Pin::new(&mut this.inner).poll_write(context, &bytes[..bytes.len().min(PIECE)]))?;
        limit.took(wrote);
        Poll::Ready(Ok(wrote))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.write.is_some() {
            let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
            return self.poll_write(context, first);
        }
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    // Said also where there is a limit: else hyper copies every body into one buffer.
    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

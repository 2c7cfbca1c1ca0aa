//! What a program reads and writes: kept, streamed, cut into lines for the log.

use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::lines::{Lines, Tail};
use super::{OnLine, STDOUT_KEPT};
use crate::error::StepError;
use crate::secret::Vault;

/// How much is read or written at once.
pub(in crate::hosts) const PIECE: usize = 64 << 10;

/// Where the standard output of a program goes.
pub(in crate::hosts) enum Stdout<'a> {
    /// Into memory, as far as there is room, and line by line into the log.
    Kept { bytes: Vec<u8>, is_cut: bool, lines: Lines<'a>, on_line: OnLine<'a> },
    /// To somebody who takes it.
    Stream(&'a mut (dyn AsyncWrite + Send + Unpin)),
}

impl<'a> Stdout<'a> {
    pub(in crate::hosts) fn new(
        output: Option<&'a mut (dyn AsyncWrite + Send + Unpin)>,
        vault: &'a Vault,
        on_line: OnLine<'a>,
    ) -> Self {
        match output {
            Some(stream) => Self::Stream(stream),
            None => Self::Kept { bytes: Vec::new(), is_cut: false, lines: Lines::new(vault), on_line },
        }
    }

    pub(in crate::hosts) async fn take(&mut self, piece: &[u8]) -> Result<(), StepError> {
        match self {
            Self::Stream(stream) => stream.write_all(piece).await.map_err(cannot_take)?,
            Self::Kept { bytes, is_cut, lines, on_line } => {
                let room = STDOUT_KEPT - bytes.len();
                bytes.extend_from_slice(&piece[..piece.len().min(room)]);
                *is_cut |= piece.len() > room;
                lines.push(piece, |line| on_line(false, line));
            }
        }
        Ok(())
    }

    /// Gives the last line, or makes sure that all has been taken.
    pub(in crate::hosts) async fn finish(&mut self) -> Result<(), StepError> {
        match self {
            Self::Stream(stream) => stream.flush().await.map_err(cannot_take),
            Self::Kept { lines, on_line, .. } => {
                lines.finish(|line| on_line(false, line));
                Ok(())
            }
        }
    }

    /// What was kept, and whether that is not all.
    pub(in crate::hosts) fn kept(self) -> (Vec<u8>, bool) {
        match self {
            Self::Stream(_) => (Vec::new(), false),
            Self::Kept { bytes, is_cut, .. } => (bytes, is_cut),
        }
    }
}

/// What a program writes to standard error: lines for the log, and the end of it for messages.
pub(in crate::hosts) struct Stderr<'a> {
    tail: Tail<'a>,
    lines: Lines<'a>,
    on_line: OnLine<'a>,
}

impl<'a> Stderr<'a> {
    pub(in crate::hosts) fn new(vault: &'a Vault, on_line: OnLine<'a>) -> Self {
        Self { tail: Tail::new(vault), lines: Lines::new(vault), on_line }
    }

    pub(in crate::hosts) fn take(&mut self, piece: &[u8]) {
        self.tail.push(piece);
        self.lines.push(piece, |line| (self.on_line)(true, line));
    }

    pub(in crate::hosts) fn finish(&mut self) {
        self.lines.finish(|line| (self.on_line)(true, line));
    }

    pub(in crate::hosts) fn tail(&self) -> String {
        self.tail.text()
    }
}

/// What a program is to read.
pub(in crate::hosts) enum Stdin<'a> {
    Nothing,
    Text(SecretString),
    Stream(&'a mut (dyn AsyncRead + Send + Unpin)),
}

impl Stdin<'_> {
    /// Writes `head` and then all of it. A program that does not read to the end is its own business: a broken pipe is
    /// no error. What cannot be read here is one: the program would take it for the end.
    pub(in crate::hosts) async fn feed(self, head: Option<&[u8]>, mut pipe: impl AsyncWrite + Unpin) -> Result<(), StepError> {
        if let Some(head) = head
            && pipe.write_all(head).await.is_err()
        {
            return Ok(());
        }
        match self {
            Self::Nothing => {}
            Self::Text(text) => {
                let _ = pipe.write_all(text.expose_secret().as_bytes()).await;
            }
            Self::Stream(from) => {
                let mut piece = vec![0; PIECE];
                loop {
                    let read = from
                        .read(&mut piece)
                        .await
                        .map_err(|error| StepError::transient("cannot read what a command is to be given").cause(error))?;
                    if read == 0 || pipe.write_all(&piece[..read]).await.is_err() {
                        break;
                    }
                }
            }
        }
        let _ = pipe.shutdown().await;
        Ok(())
    }
}

fn cannot_take(error: std::io::Error) -> StepError {
    use std::io::ErrorKind;
    let message = "cannot write what a command sends";
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            StepError::needs_person(format!("{message}: the disk is full")).help("make room, then resume the run")
        }
        _ => StepError::transient(message),
    }
    .cause(error)
}

/// The next bytes of a stream; nothing at its end. A read error is the end: the program is gone.
pub(in crate::hosts) async fn piece(stream: &mut (impl AsyncRead + Unpin), buffer: &mut [u8]) -> Option<usize> {
    stream.read(buffer).await.ok().filter(|read| *read > 0)
}

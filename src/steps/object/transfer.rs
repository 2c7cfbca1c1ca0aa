//! One object from the source to the target: streamed, checked before it becomes visible, written down before and after.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::TryStreamExt as _;
use opendal::options::{ReaderOptions, WriteOptions};
use opendal::{Metadata, Writer};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::ledger::{Ledger, Line};
use super::pace::Pace;
use super::same::checksum;
use crate::error::{ErrorClass, StepError};
use crate::stores::{Facts, Kind, Listed, Store, classify, is_changed, is_missing};

/// A piece of a body. Five of them are in memory for a large object: one being read, four being written.
const PIECE: u64 = 8 << 20;
/// Pieces of one object that are written at once.
const AT_ONCE: u64 = 4;
/// Services take 10,000 pieces of an object at most.
const MOST_PIECES: u64 = 9_500;
/// The unit in which memory is counted.
const UNIT: u64 = 64 << 10;
/// Bytes of bodies that may be in memory at once.
const MEMORY: u64 = 256 << 20;
/// The largest object for a store that takes it only in one piece.
const LARGEST_WHOLE: u64 = 2 << 30;

/// What all copies of a step share.
pub struct Transfer {
    pub source: Store,
    pub target: Store,
    pub ledger: Ledger,
    pub pace: Pace,
    /// Bytes that have arrived so far, for progress.
    pub moved: AtomicU64,
    /// Told when the step stops: copies end at the next piece.
    pub stop: CancellationToken,
    pub verify: bool,
    memory: Semaphore,
}

/// How the copy of one object ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copied {
    /// It is at the target, with this many bytes.
    There(u64),
    /// It is no longer at the source.
    Gone,
}

/// How it ended badly.
#[derive(Debug)]
pub enum Trouble {
    /// This object cannot be copied; others can.
    Object(StepError),
    /// There is no point in going on.
    Step(StepError),
}

impl From<StepError> for Trouble {
    /// What is permanent is the object's; what may pass, or needs a person, is the store's.
    fn from(error: StepError) -> Self {
        if error.class == ErrorClass::Permanent { Self::Object(error) } else { Self::Step(error) }
    }
}

/// What came of passing a body on.
enum Sent {
    /// All bytes, and the answer proved that they are the object's that was looked at.
    Proved,
    /// All bytes; whether the object is still what it was has to be looked at.
    Whole,
    /// The object has another size than it had, or is another.
    Changed,
}

enum Try {
    Copied(Copied),
    /// The source is not what it was when the copy began.
    Changed,
    /// The file system refuses user metadata: once more without.
    WithoutMetadata,
}

impl Transfer {
    pub fn new(source: Store, target: Store, ledger: Ledger, pace: Pace, stop: CancellationToken, verify: bool) -> Self {
        let memory = Semaphore::new(usize::try_from(MEMORY / UNIT).unwrap_or(usize::MAX));
        Self { source, target, ledger, pace, moved: AtomicU64::new(0), stop, verify, memory }
    }

    /// Copies an object. `there` is what the target listed by that name.
    pub async fn copy(&self, listed: &Listed, there: Option<&Listed>) -> Result<Copied, Trouble> {
        let key = &listed.key;
        let (from, to) = (self.source.path(key)?, self.target.path(key)?);
        if listed.kind == Kind::Marker {
            return self.mark(listed, there, &to).await;
        }
        let mut is_noted = false;
        let mut changes = 0;
        while changes < 2 {
            match self.once(key, &from, &to, there, &mut is_noted).await? {
                Try::Copied(copied) => return Ok(copied),
                Try::Changed => changes += 1,
                Try::WithoutMetadata => {}
            }
        }
        Err(Trouble::Object(
            StepError::transient(format!("`{key}` in `{}` changed while it was copied, twice", self.source.label()))
                .help("stop what writes to it, then resume; or leave it out with `exclude`"),
        ))
    }

    /// An empty object whose name ends with `/`.
    async fn mark(&self, listed: &Listed, there: Option<&Listed>, to: &str) -> Result<Copied, Trouble> {
        if there.is_none() {
            self.ledger.intend(&Line::Create { key: listed.key.clone(), size: 0 }).await.map_err(Trouble::Step)?;
            self.target.operator().create_dir(to).await.map_err(|error| self.not_written(&listed.key, error))?;
            self.ledger.done(&listed.key, Facts::default());
        }
        Ok(Copied::There(0))
    }

    async fn once(&self, key: &str, from: &str, to: &str, there: Option<&Listed>, is_noted: &mut bool) -> Result<Try, Trouble> {
        let metadata = match self.source.operator().stat(from).await {
            Ok(metadata) => metadata,
            Err(error) if is_missing(&error) => return self.gone(key).await.map(Try::Copied),
            Err(error) => return Err(self.not_read(key, error)),
        };
        let size = metadata.content_length();
        if !self.target.abilities().streams && size > LARGEST_WHOLE {
            return Err(Trouble::Object(
                StepError::permanent(format!(
                    "`{key}` is too large for `{}`, which takes an object only in one piece",
                    self.target.label()
                ))
                .help("leave it out with `exclude`, or copy to another kind of store"),
            ));
        }
        if !*is_noted {
            self.note(key, size, there).await.map_err(Trouble::Step)?;
            *is_noted = true;
        }
        let written = if self.source.is_same_bucket(&self.target) && self.target.abilities().server_copy {
            let copied = self.target.operator().copy(from, to).await.map_err(|error| self.not_written(key, error))?;
            self.moved.fetch_add(size, Ordering::Relaxed);
            if !self.is_still(from, &metadata).await {
                return Ok(Try::Changed);
            }
            copied
        } else {
            match self.stream(key, from, to, &metadata).await? {
                Ok(written) => written,
                Err(again) => return Ok(again),
            }
        };
        self.arrived(key, size, &written).await?;
        if self.verify {
            self.check(key, &metadata, from).await?;
        }
        Ok(Try::Copied(Copied::There(size)))
    }

    /// Writes down what is about to be done.
    async fn note(&self, key: &str, size: u64, there: Option<&Listed>) -> Result<(), StepError> {
        let line = match there {
            None => {
                for key in self.target.missing_for(key).await {
                    self.ledger.beside(&Line::Folder { key });
                }
                Line::Create { key: key.to_owned(), size }
            }
            Some(listed) => {
                // A listing does not tell versions; undo needs it.
                let seen = if self.target.abilities().versions { self.target.stat(key).await? } else { None };
                let was = seen.as_ref().map_or_else(|| listed.facts.clone(), Facts::of);
                Line::Overwrite { key: key.to_owned(), was, size }
            }
        };
        self.ledger.intend(&line).await
    }

    /// The body, piece by piece. What is written becomes visible with the last call, after the source was seen to be
    /// what it was.
    async fn stream(&self, key: &str, from: &str, to: &str, metadata: &Metadata) -> Result<Result<Metadata, Try>, Trouble> {
        let size = metadata.content_length();
        let piece = PIECE.max(size.div_ceil(MOST_PIECES));
        let in_memory = if self.target.abilities().streams { size.min(piece * (AT_ONCE + 1)) } else { size };
        let units = u32::try_from(in_memory.min(MEMORY).div_ceil(UNIT)).unwrap_or(1);
        let _permit = self.memory.acquire_many(units).await.expect("the semaphore is never closed");
        let mut writer = match self.target.operator().writer_options(to, self.write_options(metadata, piece)).await {
            Ok(writer) => writer,
            Err(error) => return Err(self.not_written(key, error)),
        };
        let sent = self.send(key, from, metadata, &mut writer).await;
        let still = match &sent {
            // The answer that carried the body told which object it was.
            Ok(Sent::Proved) => true,
            Err(Trouble::Step(error)) if self.stop.is_cancelled() => {
                let _ = writer.abort().await;
                return Err(Trouble::Step(StepError::transient(error.message.clone())));
            }
            _ => self.is_still(from, metadata).await,
        };
        match sent {
            Ok(Sent::Proved | Sent::Whole) if still => {}
            Ok(_) => {
                let _ = writer.abort().await;
                return Ok(Err(Try::Changed));
            }
            Err(trouble) => {
                let _ = writer.abort().await;
                return if still { Err(trouble) } else { Ok(Err(Try::Changed)) };
            }
        }
        match writer.close().await {
            Ok(written) => Ok(Ok(written)),
            Err(error) if error.to_string().contains("os error 95") && self.target.abilities().user_metadata => {
                self.target.forget_metadata();
                Ok(Err(Try::WithoutMetadata))
            }
            Err(error) => {
                let _ = writer.abort().await;
                Err(self.not_written(key, error))
            }
        }
    }

    /// Passes the body on.
    async fn send(&self, key: &str, from: &str, metadata: &Metadata, writer: &mut Writer) -> Result<Sent, Trouble> {
        let size = metadata.content_length();
        if size == 0 {
            return Ok(Sent::Whole);
        }
        let abilities = self.source.abilities();
        let mut options = ReaderOptions::default();
        if abilities.reads_if_match {
            options.if_match = metadata.etag().map(str::to_owned);
            if size > 2 * PIECE {
                options.chunk = usize::try_from(PIECE).ok();
                options.concurrent = 2;
            }
        }
        let reader = self.source.operator().reader_options(from, options).await.map_err(|error| self.not_read(key, error))?;
        let mut stream = match reader.clone().into_stream(0..size).await {
            Ok(stream) => stream,
            Err(error) if is_changed(&error) => return Ok(Sent::Changed),
            Err(error) => return Err(self.not_read(key, error)),
        };
        let mut came = 0;
        loop {
            let piece = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Trouble::Step(StepError::transient("stopped on request"))),
                piece = stream.try_next() => piece,
            };
            let piece = match piece {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) if is_changed(&error) => return Ok(Sent::Changed),
                Err(error) => return Err(self.not_read(key, error)),
            };
            let bytes = piece.len() as u64;
            self.pace.pay(bytes).await;
            writer.write(piece).await.map_err(|error| self.not_written(key, error))?;
            came += bytes;
            self.moved.fetch_add(bytes, Ordering::Relaxed);
        }
        if came != size && self.is_still(from, metadata).await {
            return Err(Trouble::Step(StepError::transient(format!(
                "`{}` sent {came} of the {size} bytes of `{key}`",
                self.source.label()
            ))));
        }
        if came != size {
            return Ok(Sent::Changed);
        }
        // One answer carried it all; and servers that do not know `If-Match` still say what they sent.
        let is_one_answer = size <= 2 * PIECE;
        match reader.metadata().map(Facts::of).filter(|facts| is_one_answer && facts.etag.is_some()) {
            Some(sent) if sent.agree(&Facts::of(metadata)) => Ok(Sent::Proved),
            Some(_) => Ok(Sent::Changed),
            None => Ok(Sent::Whole),
        }
    }

    fn write_options(&self, metadata: &Metadata, piece: u64) -> WriteOptions {
        let can = self.target.operator().info().capability();
        let text = |is_kept: bool, value: Option<&str>| value.filter(|_| is_kept).map(str::to_owned);
        let own: HashMap<String, String> = metadata
            .user_metadata()
            .filter(|_| self.target.abilities().user_metadata)
            .map(|own| own.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
            .unwrap_or_default();
        let size = metadata.content_length();
        let is_streamed = self.target.abilities().streams;
        let chunk = if !is_streamed {
            Some(size + 1)
        } else if self.target.abilities().is_flat {
            Some(piece)
        } else {
            None
        };
        WriteOptions {
            content_type: text(can.write_with_content_type, metadata.content_type()),
            content_disposition: text(can.write_with_content_disposition, metadata.content_disposition()),
            content_encoding: text(can.write_with_content_encoding, metadata.content_encoding()),
            cache_control: text(can.write_with_cache_control, metadata.cache_control()),
            user_metadata: (!own.is_empty()).then_some(own),
            concurrent: if self.target.abilities().is_flat && size > piece { usize::try_from(AT_ONCE).unwrap_or(1) } else { 1 },
            chunk: chunk.and_then(|chunk| usize::try_from(chunk).ok()),
            ..WriteOptions::default()
        }
    }

    /// Whether the object at the source is still what it was. An answer that does not come counts as yes: then the
    /// first failure is the one to tell.
    async fn is_still(&self, from: &str, metadata: &Metadata) -> bool {
        match self.source.operator().stat(from).await {
            Ok(now) => {
                let (was, is) = (Facts::of(metadata), Facts::of(&now));
                was.agree(&is) && (was.etag.is_some() || was.modified == is.modified)
            }
            Err(error) => !is_missing(&error),
        }
    }

    /// Sees that the target has the object, whole, and writes that down.
    async fn arrived(&self, key: &str, size: u64, written: &Metadata) -> Result<(), Trouble> {
        let mut is = Facts::of(written);
        if is.etag.is_none() {
            let seen = self.target.stat(key).await?.ok_or_else(|| {
                Trouble::Step(StepError::transient(format!("`{key}` was written to `{}` and is not there", self.target.label())))
            })?;
            is = Facts::of(&seen);
            if is.size != size {
                return Err(Trouble::Step(StepError::transient(format!(
                    "`{key}` was written to `{}` with {size} bytes and is there with {}",
                    self.target.label(),
                    is.size
                ))));
            }
        }
        is.size = size;
        self.ledger.done(key, is);
        Ok(())
    }

    async fn check(&self, key: &str, metadata: &Metadata, from: &str) -> Result<(), Trouble> {
        let quiet = |_| {};
        let (source, target) = tokio::join!(checksum(&self.source, key, &quiet), checksum(&self.target, key, &quiet));
        let (source, target) = (source?, target?);
        if source == target {
            return Ok(());
        }
        if self.is_still(from, metadata).await {
            return Err(Trouble::Object(
                StepError::transient(format!(
                    "`{key}` has another content in `{}` than in `{}`",
                    self.target.label(),
                    self.source.label()
                ))
                .help("one of the stores or the way between them changes bytes: try again, and see both stores' logs"),
            ));
        }
        Err(Trouble::Object(StepError::transient(format!("`{key}` in `{}` changed while it was verified", self.source.label()))))
    }

    /// It was listed and is not found: deleted meanwhile, or known by a name that does not lead there.
    async fn gone(&self, key: &str) -> Result<Copied, Trouble> {
        let before: String = match key.rfind('/') {
            Some(at) => key[..=at].to_owned(),
            None => String::new(),
        };
        if self.source.abilities().is_flat {
            return Ok(Copied::Gone);
        }
        let mut listing = self.source.list(Some(&before).filter(|before| !before.is_empty()).map(String::as_str));
        while let Some(listed) = listing.next().await? {
            if listed.key == key {
                return Err(Trouble::Object(
                    StepError::permanent(format!("`{key}` is listed in `{}` but not found by that name", self.source.label()))
                        .help("its name holds bytes that are lost on the way (not UTF-8, or white space at its end): rename it, or leave it out with `exclude`"),
                ));
            }
            if listed.key.as_str() > key {
                break;
            }
        }
        Ok(Copied::Gone)
    }

    fn not_read(&self, key: &str, error: opendal::Error) -> Trouble {
        classify(&format!("cannot read `{key}` in `{}`", self.source.label()), error).into()
    }

    fn not_written(&self, key: &str, error: opendal::Error) -> Trouble {
        classify(&format!("cannot write `{key}` to `{}`", self.target.label()), error).into()
    }
}

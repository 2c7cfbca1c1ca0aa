//! An object into a store that takes it from beginning to end: pieces are read ahead, written in order.

use std::collections::HashMap;

use futures::{StreamExt as _, TryStreamExt as _};
use opendal::Writer;
use opendal::options::WriteOptions;

use super::{Job, Origin, PART, Stop, Transfer, WHOLE};
use crate::stores::Facts;
use crate::stores::bucket::Properties;

/// Pieces of one object that are read ahead.
const AHEAD: usize = 4;

impl Transfer {
    pub(super) async fn stream(&self, job: &Job, origin: &Origin) -> Result<(Facts, String), Stop> {
        match self.stream_once(job, origin).await {
            // The file system refuses user metadata: once more without.
            Err(Stop::Step(error) | Stop::Object(error)) if is_refused(&error) && self.target.abilities().user_metadata => {
                self.target.forget_metadata();
                self.stream_once(job, origin).await
            }
            ended => ended,
        }
    }

    /// What is written becomes visible with the last call, after the source was seen to be what it was.
    async fn stream_once(&self, job: &Job, origin: &Origin) -> Result<(Facts, String), Stop> {
        let key = &job.listed.key;
        let size = origin.facts.size;
        let to = self.target.path(key)?;
        let piece = if size <= WHOLE { size.max(1) } else { PART };
        // A store that takes an object only in one piece keeps it in memory.
        let kept = if self.target.abilities().streams { 0 } else { size };
        let _kept = if kept > 0 { Some(self.room(kept).await?) } else { None };
        let mut hasher = blake3::Hasher::new();
        let pieces = (0..size.div_ceil(piece)).map(|number| number * piece..((number + 1) * piece).min(size));
        let mut read = futures::stream::iter(pieces)
            .map(|range| async move {
                let bytes = range.end - range.start;
                let room = if kept > 0 { None } else { Some(self.room(bytes).await?) };
                self.pace.pay(bytes).await;
                let range = (size > WHOLE).then_some(range);
                let (body, properties) = self.unless_stopped(origin.read(&self.source, range)).await?;
                Ok::<_, Stop>((body, properties, room))
            })
            .buffered(AHEAD);
        let first = read.try_next().await?;
        let properties = first.as_ref().and_then(|(_, properties, _)| properties.clone());
        let properties = properties.unwrap_or_else(|| origin.properties.clone());
        let carried = self.carriage.carry(key, properties, origin.facts.modified)?;
        let options = self.write_options(&carried.properties, size);
        let writer = self.target.operator().writer_options(&to, options).await;
        let mut writer = writer.map_err(|error| self.not_written(key, error))?;
        let sent = async {
            let mut next = first;
            while let Some((body, _, room)) = next {
                let bytes = body.len() as u64;
                hasher.update(&body);
                writer.write(body).await.map_err(|error| self.not_written(key, error))?;
                self.count(bytes);
                drop(room);
                next = read.try_next().await?;
            }
            if origin.is_still(&self.source).await { Ok(()) } else { Err(Stop::Changed) }
        }
        .await;
        if let Err(stop) = sent {
            let _ = writer.abort().await;
            return Err(if origin.is_still(&self.source).await { stop } else { Stop::Changed });
        }
        let written = self.close(key, writer).await?;
        if let Some(time) = carried.time
            && let Err(error) = self.target.set_modified(key, time).await
        {
            let label = self.target.label();
            self.warn_once("times", || format!("files in `{label}` do not get the times of their objects: {error}"));
        }
        Ok((written, hasher.finalize().to_hex().to_string()))
    }

    async fn close(&self, key: &str, mut writer: Writer) -> Result<Facts, Stop> {
        match writer.close().await {
            Ok(written) => Ok(Facts::of(&written)),
            Err(error) => {
                let _ = writer.abort().await;
                Err(self.not_written(key, error))
            }
        }
    }

    fn write_options(&self, properties: &Properties, size: u64) -> WriteOptions {
        let can = self.target.operator().info().capability();
        let kept = |is_kept: bool, value: &Option<String>| value.clone().filter(|_| is_kept);
        let own: HashMap<String, String> = if self.target.abilities().user_metadata {
            properties.user.iter().map(|(name, value)| (name.clone(), value.clone())).collect()
        } else {
            HashMap::new()
        };
        let chunk = match self.target.abilities() {
            abilities if !abilities.streams => Some(size + 1),
            abilities if abilities.is_flat => Some(PART.max(size.div_ceil(super::MOST_PARTS))),
            _ => None,
        };
        WriteOptions {
            content_type: kept(can.write_with_content_type, &properties.content_type),
            content_disposition: kept(can.write_with_content_disposition, &properties.content_disposition),
            content_encoding: kept(can.write_with_content_encoding, &properties.content_encoding),
            cache_control: kept(can.write_with_cache_control, &properties.cache_control),
            user_metadata: (!own.is_empty()).then_some(own),
            chunk: chunk.and_then(|chunk| usize::try_from(chunk).ok()),
            ..WriteOptions::default()
        }
    }
}

/// `EOPNOTSUPP`: extended attributes, where user metadata is kept.
fn is_refused(error: &crate::error::StepError) -> bool {
    error.cause.as_ref().is_some_and(|cause| cause.to_string().contains("os error 95"))
}

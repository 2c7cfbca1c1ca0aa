//! Whole blobs: looked at, read, written, copied, tagged.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method};

use super::super::super::Facts;
use super::super::address::encode;
use super::super::checksum::{Checksum, ChecksumKind, md5_hex};
use super::super::header;
use super::super::types::{BucketError, Carry, Condition, CopyFrom, Got, Head, Properties};
use super::super::xml::{self, Met};
use super::Azblob;
use super::request::{Call, crc};
use crate::error::StepError;

impl Azblob {
    pub(super) async fn head_blob(&self, key: &str) -> Result<Head, BucketError> {
        let mut headers = HeaderMap::new();
        self.key_headers(&mut headers)?;
        let call = Call { method: Method::HEAD, key: Some(key), headers, ..Call::default() };
        let answer = self.send(call).await.map_err(|refusal| self.failed(refusal, "look at", key))?;
        Ok(head(answer.headers()))
    }

    pub(super) async fn get_blob(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        if_match: Option<&str>,
    ) -> Result<Got, BucketError> {
        if range.as_ref().is_some_and(Range::is_empty) {
            return Ok(Got { head: self.head_blob(key).await?, body: Bytes::new() });
        }
        let mut tries = self.wire.tries();
        loop {
            let mut headers = HeaderMap::new();
            self.key_headers(&mut headers)?;
            if let Some(range) = &range {
                header::put(&mut headers, "range", &format!("bytes={}-{}", range.start, range.end.saturating_sub(1)))?;
            }
            if let Some(etag) = if_match {
                header::put(&mut headers, "if-match", etag)?;
            }
            let call = Call { key: Some(key), headers, ..Call::default() };
            let answer = self.send(call).await.map_err(|refusal| self.failed(refusal, "read", key))?;
            let head = head(answer.headers());
            let starts_at = header::range_start(answer.headers());
            let body = answer.into_body();
            let fits = match &range {
                Some(range) => {
                    starts_at == Some(range.start)
                        && body.len() as u64 == range.end.min(head.facts.size).saturating_sub(range.start)
                }
                None => body.len() as u64 == head.facts.size && head.md5.as_ref().is_none_or(|md5| *md5 == md5_hex(&body)),
            };
            if fits {
                return Ok(Got { head, body });
            }
            if !tries.again(None).await {
                return Err(StepError::transient(format!(
                    "cannot read `{key}` in the container `{}`: the bytes did not arrive as they are kept",
                    self.name
                ))
                .help("try again; if this goes on, the blob is damaged there, or the network on the way")
                .into());
            }
        }
    }

    pub(super) async fn put_blob(
        &self,
        key: &str,
        properties: &Properties,
        body: Bytes,
        condition: &Condition,
    ) -> Result<Facts, BucketError> {
        let mut headers = HeaderMap::new();
        self.property_headers(&mut headers, properties)?;
        put_condition(&mut headers, condition)?;
        header::put(&mut headers, "x-ms-blob-type", "BlockBlob")?;
        let call = Call { method: Method::PUT, key: Some(key), headers, body: body.clone(), is_checked: true, ..Call::default() };
        match self.send(call).await {
            Ok(answer) => {
                self.check(key, answer.headers(), &body)?;
                Ok(facts_of_write(answer.headers(), body.len() as u64))
            }
            // The answer to an earlier try was lost: the blob that is in the way may be this one.
            Err(refusal) if refusal.is_condition() && refusal.may_be_done => {
                let head = self.head_blob(key).await?;
                let is_this = head.facts.size == body.len() as u64 && head.md5.is_some_and(|md5| md5 == md5_hex(&body));
                if is_this { Ok(head.facts) } else { Err(BucketError::Changed) }
            }
            Err(refusal) => Err(self.failed(refusal, "write", key)),
        }
    }

    /// Holds the answer to a write against what was sent.
    pub(super) fn check(&self, key: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), StepError> {
        let told = crc(headers);
        if told.is_none() {
            // It took no notice of the checksum: from now on there is one that everything checks.
            self.has_no_crc.store(true, Ordering::Relaxed);
        }
        if told.and_then(|sum| sum.holds(body)) == Some(false) {
            return Err(StepError::transient(format!(
                "cannot write `{key}` in the container `{}`: the bytes did not arrive as they were sent",
                self.name
            ))
            .help("try again; if this goes on, see the network"));
        }
        Ok(())
    }

    pub(super) async fn copy_blob(
        &self,
        from: &CopyFrom,
        key: &str,
        carry: Carry<'_>,
        condition: &Condition,
    ) -> Result<Facts, BucketError> {
        let mut headers = HeaderMap::new();
        self.source_headers(&mut headers, from).await.map_err(|refusal| self.failed(refusal, "copy to", key))?;
        put_condition(&mut headers, condition)?;
        match carry {
            Carry::Replaced(properties) => {
                self.property_headers(&mut headers, properties)?;
                header::put(&mut headers, "x-ms-blob-type", "BlockBlob")?;
                header::put(&mut headers, "x-ms-copy-source-blob-properties", "false")?;
            }
            // Of the two requests this is the one that keeps everything, metadata included.
            Carry::Kept { storage_class, tags } => {
                header::put(&mut headers, "x-ms-requires-sync", "true")?;
                if let Some(tier) = storage_class {
                    header::put(&mut headers, "x-ms-access-tier", tier)?;
                }
                if tags {
                    header::put(&mut headers, "x-ms-copy-source-tag-option", "COPY")?;
                }
            }
        }
        let call = Call { method: Method::PUT, key: Some(key), headers, is_slow: true, ..Call::default() };
        let answer = self.send(call).await.map_err(|refusal| self.not_copied(refusal, "copy to", key))?;
        let made = facts_of_write(answer.headers(), 0);
        let head = self.head_blob(key).await?;
        if made.etag.is_some() && made.etag != head.facts.etag {
            return Err(BucketError::Changed);
        }
        Ok(head.facts)
    }

    pub(super) async fn get_tags(&self, key: &str) -> Result<BTreeMap<String, String>, BucketError> {
        let call = Call { key: Some(key), query: vec![("comp", "tags")], ..Call::default() };
        let answer = self.send(call).await.map_err(|refusal| self.failed(refusal, "read the tags of", key))?;
        let mut tags = BTreeMap::new();
        let mut name = String::new();
        xml::read(answer.body(), |met| match met {
            Met::Close("Key", text) => name = text,
            Met::Close("Value", text) => _ = tags.insert(std::mem::take(&mut name), text),
            _ => {}
        })?;
        Ok(tags)
    }

    /// The properties of a blob that is made.
    pub(super) fn property_headers(&self, headers: &mut HeaderMap, properties: &Properties) -> Result<(), StepError> {
        self.key_headers(headers)?;
        let plain = [
            ("x-ms-blob-content-type", &properties.content_type),
            ("x-ms-blob-content-encoding", &properties.content_encoding),
            ("x-ms-blob-content-disposition", &properties.content_disposition),
            ("x-ms-blob-cache-control", &properties.cache_control),
            ("x-ms-blob-content-language", &properties.content_language),
            ("x-ms-access-tier", &properties.storage_class),
        ];
        for (name, value) in plain {
            if let Some(value) = value {
                header::put(headers, name, value)?;
            }
        }
        for (name, value) in &properties.user {
            header::put(headers, &format!("x-ms-meta-{name}"), &header::word(value))?;
        }
        if !properties.tags.is_empty() {
            let mut tags = String::new();
            for (name, value) in &properties.tags {
                if !tags.is_empty() {
                    tags.push('&');
                }
                encode(&mut tags, name, false);
                tags.push('=');
                encode(&mut tags, value, false);
            }
            header::put(headers, "x-ms-tags", &tags)?;
        }
        Ok(())
    }
}

pub(super) fn put_condition(headers: &mut HeaderMap, condition: &Condition) -> Result<(), StepError> {
    match condition {
        Condition::None => Ok(()),
        Condition::Absent => header::put(headers, "if-none-match", "*"),
        Condition::Still(etag) => header::put(headers, "if-match", etag),
    }
}

pub(super) fn facts_of_write(headers: &HeaderMap, size: u64) -> Facts {
    Facts {
        size,
        etag: header::etag(headers),
        modified: header::date(headers, "last-modified"),
        version: header::text(headers, "x-ms-version-id"),
    }
}

/// Base64 as hexadecimal digits.
pub(super) fn hex(md5: &str) -> Option<String> {
    let bytes: [u8; 16] = STANDARD.decode(md5).ok()?.try_into().ok()?;
    Some(format!("{:032x}", u128::from_be_bytes(bytes)))
}

fn head(headers: &HeaderMap) -> Head {
    // With a part of a blob `Content-MD5` is the part's.
    let is_part = headers.contains_key("content-range");
    let md5 = header::text(headers, if is_part { "x-ms-blob-content-md5" } else { "content-md5" });
    let mut properties = header::properties(headers, "x-ms-meta-", "x-ms-access-tier");
    if header::text(headers, "x-ms-access-tier-inferred").as_deref() == Some("true") {
        // The account's default, not the blob's own.
        properties.storage_class = None;
    }
    Head {
        facts: Facts { size: header::whole_size(headers).unwrap_or_default(), ..facts_of_write(headers, 0) },
        properties,
        checksum: md5.as_ref().map(|value| Checksum { kind: ChecksumKind::Md5, value: value.clone(), is_whole: true }),
        md5: md5.as_deref().and_then(hex),
        parts: None,
        tags: header::number(headers, "x-ms-tag-count").and_then(|count| u32::try_from(count).ok()).unwrap_or_default(),
    }
}

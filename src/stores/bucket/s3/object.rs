//! Whole objects: looked at, read, written, copied, tagged.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::header::{IF_MATCH, IF_NONE_MATCH, RANGE};
use http::{HeaderMap, Method};

use super::super::super::Facts;
use super::super::address::{encode, encoded};
use super::super::checksum::{Checksum, ChecksumKind, md5_hex, md5_of_etag, parts_of_etag};
use super::super::types::{BucketError, Carry, Condition, CopyFrom, Got, Head, Properties};
use super::super::{header, xml};
use super::S3;
use super::list::STANDARD;
use super::request::{Call, checksum_header};
use crate::error::StepError;

/// The checksums that an answer may hold, the best first.
const TOLD: [ChecksumKind; 5] =
    [ChecksumKind::Crc64Nvme, ChecksumKind::Crc32c, ChecksumKind::Crc32, ChecksumKind::Sha256, ChecksumKind::Sha1];

impl S3 {
    pub(super) async fn head_object(&self, key: &str) -> Result<Head, BucketError> {
        loop {
            let asks = self.asks_checksum();
            let mut headers = HeaderMap::new();
            self.read_headers(&mut headers, asks)?;
            let call = Call { method: Method::HEAD, key: Some(key), headers, ..Call::default() };
            let refusal = match self.send(call).await {
                Ok(answer) => return Ok(head(answer.headers())),
                Err(refusal) => refusal,
            };
            if !matches!(refusal.status, 400 | 403) {
                return Err(self.failed(refusal, "look at", key));
            }
            // Such an answer has no body that says why. A GET of one byte gets the same answer with one.
            match self.get_object(key, Some(0..1), None).await {
                // The checksum of what a key of one's own has encrypted may be kept from who may look at the object.
                Ok(_) | Err(BucketError::Changed) if asks => {
                    self.learned.no_checksum_of_reads.store(true, Ordering::Relaxed);
                }
                Ok(_) | Err(BucketError::Changed) => return Err(self.failed(refusal, "look at", key)),
                Err(told) => return Err(told),
            }
        }
    }

    pub(super) async fn get_object(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        if_match: Option<&str>,
    ) -> Result<Got, BucketError> {
        if range.as_ref().is_some_and(Range::is_empty) {
            return Ok(Got { head: Box::pin(self.head_object(key)).await?, body: Bytes::new() });
        }
        let doing = || format!("cannot read `{key}` in the bucket `{}`", self.name);
        let mut tries = self.wire.tries();
        loop {
            let asks = range.is_none() && self.asks_checksum();
            let mut headers = HeaderMap::new();
            self.read_headers(&mut headers, asks)?;
            if let Some(range) = &range {
                header::put(&mut headers, RANGE.as_str(), &format!("bytes={}-{}", range.start, range.end.saturating_sub(1)))?;
            }
            if let Some(etag) = if_match {
                header::put(&mut headers, IF_MATCH.as_str(), etag)?;
            }
            let call = Call { key: Some(key), headers, ..Call::default() };
            let answer = match self.send(call).await {
                Ok(answer) => answer,
                Err(refusal) if asks && matches!(refusal.status, 400 | 501) && refusal.names("checksum") => {
                    self.learned.no_checksum_of_reads.store(true, Ordering::Relaxed);
                    continue;
                }
                Err(refusal) => return Err(self.failed(refusal, "read", key)),
            };
            let mut head = head(answer.headers());
            // Some services take no notice of the condition.
            if if_match.is_some() && head.facts.etag.is_some() && !same_etag(if_match, head.facts.etag.as_deref()) {
                return Err(BucketError::Changed);
            }
            // Some services send a part with the status of the whole: what tells is the header.
            let starts_at = header::range_start(answer.headers());
            let is_part = starts_at.is_some();
            let mut body = answer.into_body();
            if !is_part {
                head.facts.size = body.len() as u64;
            }
            let fits = match &range {
                // Some services send the whole object whatever was asked for.
                Some(range) if !is_part => {
                    let (start, end) = (cut(range.start, &body), cut(range.end, &body));
                    body = body.slice(start.min(end)..end);
                    true
                }
                Some(range) => {
                    starts_at == Some(range.start)
                        && body.len() as u64 == range.end.min(head.facts.size).saturating_sub(range.start)
                }
                None => head.checksum.as_ref().and_then(|sum| sum.holds(&body)) != Some(false),
            };
            if fits {
                return Ok(Got { head, body });
            }
            if !tries.again(None).await {
                return Err(StepError::transient(format!("{}: the bytes did not arrive as they are kept", doing()))
                    .help("try again; if this goes on, the object is damaged there, or the network on the way")
                    .into());
            }
        }
    }

    pub(super) async fn put_object(
        &self,
        key: &str,
        properties: &Properties,
        body: Bytes,
        condition: &Condition,
    ) -> Result<Facts, BucketError> {
        let mut headers = HeaderMap::new();
        self.property_headers(&mut headers, properties)?;
        put_condition(&mut headers, condition)?;
        let size = body.len() as u64;
        let call = Call { method: Method::PUT, key: Some(key), headers, body: body.clone(), is_checked: true, ..Call::default() };
        match self.send_checked(call).await {
            Ok((answer, sent)) => {
                if !has_arrived(checksum(answer.headers()).as_ref(), sent.as_ref(), &body) {
                    return Err(self.arrived_changed(key).into());
                }
                Ok(facts_of_write(answer.headers(), size))
            }
            // The answer to an earlier try was lost: the object that is in the way may be this one.
            Err(refusal) if refusal.is_condition() && refusal.may_be_done => {
                let head = self.head_object(key).await?;
                let is_this = match head.checksum.as_ref().and_then(|sum| sum.holds(&body)) {
                    Some(holds) => holds,
                    None => head.md5.is_some_and(|md5| md5 == md5_hex(&body)),
                };
                if is_this && head.facts.size == size { Ok(head.facts) } else { Err(BucketError::Changed) }
            }
            Err(refusal) => Err(self.failed(refusal, "write", key)),
        }
    }

    pub(super) async fn copy_object(
        &self,
        from: &CopyFrom,
        key: &str,
        carry: Carry<'_>,
        condition: &Condition,
    ) -> Result<Facts, BucketError> {
        let mut headers = HeaderMap::new();
        let replaces_tags = match carry {
            Carry::Replaced(properties) => {
                self.property_headers(&mut headers, properties)?;
                header::put(&mut headers, "x-amz-metadata-directive", "REPLACE")?;
                true
            }
            Carry::Kept { storage_class, tags } => {
                self.write_headers(&mut headers, storage_class)?;
                !tags
            }
        };
        if replaces_tags && !self.learned.no_tags.load(Ordering::Relaxed) {
            header::put(&mut headers, "x-amz-tagging-directive", "REPLACE")?;
        }
        self.source_headers(&mut headers, from)?;
        put_condition(&mut headers, condition)?;
        let call = Call { method: Method::PUT, key: Some(key), headers, may_hide_error: true, ..Call::default() };
        let answer = self.send(call).await.map_err(|refusal| self.not_copied(refusal, "copy to", key))?;
        let etag = xml::find(answer.body(), "ETag").filter(|etag| !etag.is_empty());
        let mut facts = facts_of_write(answer.headers(), 0);
        if facts.etag.is_none() {
            facts.etag = etag;
        }
        // The answer tells no size.
        let head = self.head_object(key).await?;
        if facts.etag.is_some() && !same_etag(facts.etag.as_deref(), head.facts.etag.as_deref()) {
            return Err(BucketError::Changed);
        }
        Ok(head.facts)
    }

    pub(super) async fn get_tags(&self, key: &str) -> Result<BTreeMap<String, String>, BucketError> {
        let call = Call { key: Some(key), query: vec![("tagging", "")], ..Call::default() };
        let answer = self.send(call).await.map_err(|refusal| self.failed(refusal, "read the tags of", key))?;
        let mut tags = BTreeMap::new();
        let mut name = String::new();
        xml::read(answer.body(), |met| match met {
            xml::Met::Close("Key", text) => name = text,
            xml::Met::Close("Value", text) => _ = tags.insert(std::mem::take(&mut name), text),
            _ => {}
        })?;
        Ok(tags)
    }

    fn asks_checksum(&self) -> bool {
        !self.learned.no_checksum_of_reads.load(Ordering::Relaxed)
    }

    /// What goes with a request that reads.
    pub(super) fn read_headers(&self, headers: &mut HeaderMap, asks_checksum: bool) -> Result<(), StepError> {
        if asks_checksum {
            header::put(headers, "x-amz-checksum-mode", "ENABLED")?;
        }
        self.key_headers(headers)
    }

    /// The key of the customer's own goes with every request about the content.
    pub(super) fn key_headers(&self, headers: &mut HeaderMap) -> Result<(), StepError> {
        let own = [
            ("x-amz-server-side-encryption-customer-algorithm", &self.settings.customer_algorithm),
            ("x-amz-server-side-encryption-customer-key", &self.settings.customer_key),
            ("x-amz-server-side-encryption-customer-key-md5", &self.settings.customer_key_md5),
        ];
        for (name, value) in own {
            if let Some(value) = value {
                header::put_secret(headers, name, value)?;
            }
        }
        Ok(())
    }

    /// What goes with a request that makes an object.
    fn write_headers(&self, headers: &mut HeaderMap, storage_class: Option<&str>) -> Result<(), StepError> {
        self.key_headers(headers)?;
        let rest = [
            ("x-amz-server-side-encryption", self.settings.encryption.as_deref()),
            ("x-amz-server-side-encryption-aws-kms-key-id", self.settings.encryption_key_id.as_deref()),
            ("x-amz-storage-class", storage_class.or(self.settings.storage_class.as_deref())),
            ("x-amz-acl", self.settings.acl.as_deref()),
        ];
        for (name, value) in rest {
            if let Some(value) = value {
                header::put(headers, name, value)?;
            }
        }
        Ok(())
    }

    /// The properties of an object that is made.
    pub(super) fn property_headers(&self, headers: &mut HeaderMap, properties: &Properties) -> Result<(), StepError> {
        self.write_headers(headers, properties.storage_class.as_deref())?;
        let plain = [
            ("content-type", &properties.content_type),
            ("content-encoding", &properties.content_encoding),
            ("content-disposition", &properties.content_disposition),
            ("cache-control", &properties.cache_control),
            ("content-language", &properties.content_language),
            ("expires", &properties.expires),
        ];
        for (name, value) in plain {
            if let Some(value) = value {
                header::put(headers, name, value)?;
            }
        }
        for (name, value) in &properties.user {
            header::put(headers, &format!("x-amz-meta-{name}"), &header::word(value))?;
        }
        if !properties.tags.is_empty() && !self.learned.no_tags.load(Ordering::Relaxed) {
            let mut tags = String::new();
            for (name, value) in &properties.tags {
                if !tags.is_empty() {
                    tags.push('&');
                }
                encode(&mut tags, name, false);
                tags.push('=');
                encode(&mut tags, value, false);
            }
            header::put(headers, "x-amz-tagging", &tags)?;
        }
        Ok(())
    }

    /// The source of a copy.
    pub(super) fn source_headers(&self, headers: &mut HeaderMap, from: &CopyFrom) -> Result<(), StepError> {
        header::put(headers, "x-amz-copy-source", &format!("/{}/{}", from.bucket, encoded(&from.key, true)))?;
        if let Some(etag) = &from.if_match {
            header::put(headers, "x-amz-copy-source-if-match", etag)?;
        }
        let own = [
            ("x-amz-copy-source-server-side-encryption-customer-algorithm", &self.settings.customer_algorithm),
            ("x-amz-copy-source-server-side-encryption-customer-key", &self.settings.customer_key),
            ("x-amz-copy-source-server-side-encryption-customer-key-md5", &self.settings.customer_key_md5),
        ];
        for (name, value) in own {
            if let Some(value) = value {
                header::put_secret(headers, name, value)?;
            }
        }
        Ok(())
    }

    pub(super) fn arrived_changed(&self, key: &str) -> StepError {
        StepError::transient(format!(
            "cannot write `{key}` in the bucket `{}`: the bytes did not arrive as they were sent",
            self.name
        ))
        .help("try again; if this goes on, see the network")
    }
}

fn cut(at: u64, body: &Bytes) -> usize {
    usize::try_from(at).unwrap_or(usize::MAX).min(body.len())
}

pub(super) fn put_condition(headers: &mut HeaderMap, condition: &Condition) -> Result<(), StepError> {
    match condition {
        Condition::None => Ok(()),
        Condition::Absent => header::put(headers, IF_NONE_MATCH.as_str(), "*"),
        Condition::Still(etag) => header::put(headers, IF_MATCH.as_str(), etag),
    }
}

pub(super) fn same_etag(a: Option<&str>, b: Option<&str>) -> bool {
    a.map(|etag| etag.trim_matches('"')) == b.map(|etag| etag.trim_matches('"'))
}

/// The checksum in an answer.
pub(super) fn checksum(headers: &HeaderMap) -> Option<Checksum> {
    let (kind, value) = TOLD.iter().find_map(|kind| Some((*kind, header::text(headers, &checksum_header(*kind))?)))?;
    let is_of_parts = value.contains('-') || header::text(headers, "x-amz-checksum-type").as_deref() == Some("COMPOSITE");
    let sum = Checksum { kind, value, is_whole: !is_of_parts };
    // Some services call by one name what is another's value.
    (is_of_parts || sum.is_well_formed()).then_some(sum)
}

/// Whether the checksum that the service says it has found is that of what was sent.
pub(super) fn has_arrived(found: Option<&Checksum>, sent: Option<&Checksum>, body: &[u8]) -> bool {
    match (found, sent) {
        (Some(found), Some(sent)) if found.kind == sent.kind && found.is_whole => found.value == sent.value,
        (found, _) => found.and_then(|sum| sum.holds(body)) != Some(false),
    }
}

pub(super) fn facts_of_write(headers: &HeaderMap, size: u64) -> Facts {
    Facts {
        size,
        etag: header::etag(headers),
        modified: None,
        version: header::text(headers, "x-amz-version-id").filter(|version| version != "null"),
    }
}

fn head(headers: &HeaderMap) -> Head {
    let etag = header::etag(headers);
    // With such encryption the `ETag` looks like an MD5 and is none.
    let is_opaque = headers.contains_key("x-amz-server-side-encryption-customer-algorithm")
        || header::text(headers, "x-amz-server-side-encryption").is_some_and(|kind| kind.starts_with("aws:kms"));
    let mut properties = header::properties(headers, "x-amz-meta-", "x-amz-storage-class");
    properties.storage_class = properties.storage_class.filter(|class| class != STANDARD);
    Head {
        md5: etag.as_deref().and_then(md5_of_etag).filter(|_| !is_opaque).map(str::to_ascii_lowercase),
        parts: etag.as_deref().and_then(parts_of_etag),
        facts: Facts {
            size: header::whole_size(headers).unwrap_or_default(),
            etag,
            modified: header::date(headers, "last-modified"),
            version: header::text(headers, "x-amz-version-id").filter(|version| version != "null"),
        },
        properties,
        checksum: checksum(headers),
        tags: header::number(headers, "x-amz-tagging-count").and_then(|count| u32::try_from(count).ok()).unwrap_or_default(),
    }
}

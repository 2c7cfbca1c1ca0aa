//! Uploads in parts. Their ids outlive the process: what a checkpoint holds goes on after a restart.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;

use bytes::Bytes;
use http::header::ETAG;
use http::{HeaderMap, Method, Response};

use super::super::super::Facts;
use super::super::checksum::{Checksum, ChecksumKind, etag_of_parts};
use super::super::header;
use super::super::repeat::Refusal;
use super::super::types::{BucketError, Circle, Condition, CopyFrom, Part, Properties};
use super::super::xml::{self, Met};
use super::S3;
use super::object::{checksum, facts_of_write, has_arrived, put_condition, same_etag};
use super::request::{Call, checksum_header};
use crate::error::StepError;

/// A part that the service has.
#[derive(Default)]
struct There {
    etag: String,
    size: Option<u64>,
}

impl There {
    fn is(&self, part: &Part) -> bool {
        same_etag(Some(&self.etag), Some(&part.etag)) && self.size.is_none_or(|size| size == part.size)
    }
}

impl S3 {
    pub(super) async fn begin_upload(&self, key: &str, properties: &Properties) -> Result<String, BucketError> {
        let mut headers = HeaderMap::new();
        self.property_headers(&mut headers, properties)?;
        let query = vec![("uploads", "")];
        let call = Call {
            method: Method::POST,
            key: Some(key),
            query,
            headers,
            is_checked: true,
            may_hide_error: true,
            ..Call::default()
        };
        let answer = self.send(call).await.map_err(|refusal| self.failed(refusal, "begin an upload of", key))?;
        let id = xml::find(answer.body(), "UploadId").filter(|id| !id.is_empty());
        Ok(id.ok_or_else(|| self.garbled("begin an upload of", key))?)
    }

    pub(super) async fn upload_part(&self, key: &str, upload: &str, number: u32, body: Bytes) -> Result<Part, BucketError> {
        let mut headers = HeaderMap::new();
        self.key_headers(&mut headers)?;
        let text = number.to_string();
        let query = vec![("partNumber", text.as_str()), ("uploadId", upload)];
        let call =
            Call { method: Method::PUT, key: Some(key), query, headers, body: body.clone(), is_checked: true, ..Call::default() };
        let (answer, sent) = self.send_checked(call).await.map_err(|refusal| self.failed(refusal, "send a part of", key))?;
        let found = checksum(answer.headers());
        if !has_arrived(found.as_ref(), sent.as_ref(), &body) {
            return Err(self.arrived_changed(key).into());
        }
        let etag = header::text(answer.headers(), ETAG.as_str()).ok_or_else(|| self.garbled("send a part of", key))?;
        Ok(Part { number, etag, size: body.len() as u64, checksum: found })
    }

    pub(super) async fn copy_to_part(
        &self,
        from: &CopyFrom,
        range: Range<u64>,
        key: &str,
        upload: &str,
        number: u32,
    ) -> Result<Part, BucketError> {
        let mut headers = HeaderMap::new();
        self.key_headers(&mut headers)?;
        self.source_headers(&mut headers, from)?;
        let bytes = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        header::put(&mut headers, "x-amz-copy-source-range", &bytes)?;
        let text = number.to_string();
        let query = vec![("partNumber", text.as_str()), ("uploadId", upload)];
        let call = Call { method: Method::PUT, key: Some(key), query, headers, may_hide_error: true, ..Call::default() };
        let answer = self.send(call).await.map_err(|refusal| self.not_copied(refusal, "copy a part of", key))?;
        // Some services take no notice of the source, and put an empty part there.
        let etag = xml::find(answer.body(), "ETag");
        let etag = etag.ok_or_else(|| BucketError::Refused(self.garbled("copy a part of", key)))?;
        let checksum = [ChecksumKind::Crc64Nvme, ChecksumKind::Crc32c].into_iter().find_map(|kind| {
            let value = xml::find(answer.body(), &format!("Checksum{}", kind.word().to_ascii_uppercase()))?;
            Some(Checksum { kind, value, is_whole: true })
        });
        Ok(Part { number, etag, size: range.end.saturating_sub(range.start), checksum })
    }

    pub(super) async fn complete_upload(
        &self,
        key: &str,
        upload: &str,
        parts: &[Part],
        condition: &Condition,
    ) -> Result<Facts, BucketError> {
        let mut parts: Vec<&Part> = parts.iter().collect();
        parts.sort_by_key(|part| part.number);
        let whole = Checksum::joined(parts.iter().filter_map(|part| Some((part.checksum.as_ref()?, part.size))));
        let mut whole = whole.filter(|_| parts.iter().all(|part| part.checksum.is_some()));
        let mut tries = self.wire.tries();
        loop {
            let result = self.ask_to_complete(key, upload, &parts, condition, whole.as_ref()).await;
            let refusal = match result {
                Ok(answer) => return self.completed(key, &parts, &answer, whole.as_ref()),
                Err(refusal) => refusal,
            };
            // The service has made checksums of its own kind, or has lost them on the way.
            if whole.is_some() && matches!(refusal.status, 400 | 501) && refusal.names("checksum") && !refusal.is_mismatch() {
                whole = None;
                continue;
            }
            let is_gone = refusal.code == "NoSuchUpload" || refusal.status == 404;
            if is_gone || (refusal.is_condition() && refusal.may_be_done) {
                let may_be_done = refusal.may_be_done;
                if let Some(facts) = self.is_completed(key, &parts, whole.as_ref(), may_be_done).await? {
                    return Ok(facts);
                }
            }
            if refusal.code == "InvalidPart" {
                // It may be putting them together for an earlier request, and may be done in between.
                if let Ok(Some(facts)) = self.is_completed(key, &parts, whole.as_ref(), false).await {
                    return Ok(facts);
                }
                match self.parts_there(key, upload).await {
                    Ok(there) => {
                        let is_other = |part: &&&Part| there.get(&part.number).is_none_or(|there| !there.is(part));
                        let other: Vec<u32> = parts.iter().filter(is_other).map(|part| part.number).collect();
                        if !other.is_empty() {
                            return Err(BucketError::Parts(other));
                        }
                    }
                    // Some throw the upload away with that answer.
                    Err(BucketError::Missing) => {
                        let done = self.is_completed(key, &parts, whole.as_ref(), false).await;
                        return done.ok().flatten().ok_or(BucketError::Missing);
                    }
                    // Not every service lists them.
                    Err(_) => {}
                }
                // Some see late what they have. To send the same list for ever would be of no use.
                if tries.again(None).await {
                    continue;
                }
                return Err(BucketError::Missing);
            }
            return Err(self.failed(refusal, "complete the upload of", key));
        }
    }

    /// The parts that an upload has, as the service sees it.
    async fn parts_there(&self, key: &str, upload: &str) -> Result<BTreeMap<u32, There>, BucketError> {
        let (mut found, mut circle, mut behind) = (BTreeMap::new(), Circle::default(), None::<String>);
        loop {
            let mut query = vec![("uploadId", upload)];
            query.extend(behind.as_deref().map(|behind| ("part-number-marker", behind)));
            let answer = self.send(Call { key: Some(key), query, ..Call::default() }).await;
            let answer = answer.map_err(|refusal| self.failed(refusal, "list the parts of", key))?;
            let (mut number, mut part, mut next) = (None, There::default(), None);
            let (mut is_listing, mut is_cut) = (false, false);
            xml::read(answer.body(), |met| match met {
                Met::Open("ListPartsResult" | "ListMultipartUploadPartsResult") => is_listing = true,
                Met::Close("PartNumber", text) => number = text.trim().parse().ok(),
                Met::Close("ETag", text) => part.etag = text,
                Met::Close("Size", text) => part.size = text.trim().parse().ok(),
                Met::Close("Part", _) => {
                    let part = std::mem::take(&mut part);
                    found.extend(number.take().map(|number: u32| (number, part)));
                }
                Met::Close("IsTruncated", text) => is_cut = text.trim() == "true",
                Met::Close("NextPartNumberMarker", text) => next = Some(text),
                _ => {}
            })?;
            if !is_listing {
                return Err(self.garbled("list the parts of", key).into());
            }
            behind = next.filter(|next| is_cut && circle.goes_on(next, false));
            if behind.is_none() {
                return if is_cut { Err(self.garbled("list the parts of", key).into()) } else { Ok(found) };
            }
        }
    }

    async fn ask_to_complete(
        &self,
        key: &str,
        upload: &str,
        parts: &[&Part],
        condition: &Condition,
        whole: Option<&Checksum>,
    ) -> Result<Response<Bytes>, Refusal> {
        let headers = self.headers_to_complete(condition, whole).map_err(Refusal::decided)?;
        let mut body = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">".to_owned();
        for part in parts {
            let _ = write!(body, "<Part><PartNumber>{}</PartNumber><ETag>", part.number);
            xml::escape(&mut body, &part.etag);
            body.push_str("</ETag>");
            if let Some(sum) = part.checksum.as_ref().filter(|_| whole.is_some()) {
                let word = sum.kind.word().to_ascii_uppercase();
                let _ = write!(body, "<Checksum{word}>{}</Checksum{word}>", sum.value);
            }
            body.push_str("</Part>");
        }
        body.push_str("</CompleteMultipartUpload>");
        let query = vec![("uploadId", upload)];
        let body = body.into();
        self.send(Call { method: Method::POST, key: Some(key), query, headers, body, may_hide_error: true, ..Call::default() })
            .await
    }

    fn headers_to_complete(&self, condition: &Condition, whole: Option<&Checksum>) -> Result<HeaderMap, StepError> {
        let mut headers = HeaderMap::new();
        self.key_headers(&mut headers)?;
        put_condition(&mut headers, condition)?;
        header::put(&mut headers, "content-type", "application/xml")?;
        if let Some(sum) = whole {
            header::put(&mut headers, &checksum_header(sum.kind), &sum.value)?;
            header::put(&mut headers, "x-amz-checksum-type", "FULL_OBJECT")?;
        }
        Ok(headers)
    }

    fn completed(
        &self,
        key: &str,
        parts: &[&Part],
        answer: &Response<Bytes>,
        whole: Option<&Checksum>,
    ) -> Result<Facts, BucketError> {
        let mut facts = facts_of_write(answer.headers(), parts.iter().map(|part| part.size).sum());
        if let Some(etag) = xml::find(answer.body(), "ETag").filter(|etag| !etag.is_empty()) {
            facts.etag = Some(etag);
        }
        if let Some(sum) = whole
            && let Some(told) = xml::find(answer.body(), &format!("Checksum{}", sum.kind.word().to_ascii_uppercase()))
            && !told.contains('-')
            && told != sum.value
        {
            return Err(self.arrived_changed(key).into());
        }
        Ok(facts)
    }

    /// Whether the object that is there is the one of these parts: the answer to an earlier `complete` may have been
    /// lost, in this process or in the one before it.
    async fn is_completed(
        &self,
        key: &str,
        parts: &[&Part],
        whole: Option<&Checksum>,
        may_be_done: bool,
    ) -> Result<Option<Facts>, BucketError> {
        let head = match self.head_object(key).await {
            Ok(head) => head,
            Err(BucketError::Missing) => return Ok(None),
            Err(error) => return Err(error),
        };
        if head.facts.size != parts.iter().map(|part| part.size).sum::<u64>() {
            return Ok(None);
        }
        let expected = etag_of_parts(parts.iter().map(|part| part.etag.as_str()));
        let is_it = same_etag(expected.as_deref(), head.facts.etag.as_deref())
            || (whole.is_some() && head.checksum.as_ref().filter(|sum| sum.is_whole) == whole)
            // An older object of the same size and parts is not told from this one by these alone.
            || (may_be_done && head.parts.is_none_or(|count| count as usize == parts.len()));
        Ok(is_it.then_some(head.facts))
    }

    pub(super) async fn abort_upload(&self, key: &str, upload: &str) -> Result<(), BucketError> {
        let call = Call { method: Method::DELETE, key: Some(key), query: vec![("uploadId", upload)], ..Call::default() };
        match self.send(call).await.map_err(|refusal| self.failed(refusal, "throw away an upload of", key)) {
            Ok(_) | Err(BucketError::Missing) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn garbled(&self, doing: &str, key: &str) -> StepError {
        StepError::permanent(format!(
            "cannot {doing} `{key}` in the bucket `{}`: the answer does not say what it has to",
            self.name
        ))
        .help("see that `endpoint` is the store itself, and not a page or a proxy")
    }
}

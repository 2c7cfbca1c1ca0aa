//! Uploads in blocks. A block's id is the upload's id and the number of the part, in digits of the same count, since all
//! ids of a blob have to be of one length.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, Method};

use super::super::super::Facts;
use super::super::header;
use super::super::types::{BucketError, Condition, CopyFrom, Part, Properties, Upload};
use super::super::xml::{self, Met};
use super::Azblob;
use super::blob::{facts_of_write, put_condition};
use super::request::{Call, crc};

/// How many characters of a block's id are the upload's.
const UPLOAD: usize = 32;
const NUMBER: usize = 6;

/// A new upload's id. Nothing is told to the service: the first block begins it.
pub(super) fn begin() -> String {
    uuid::Uuid::now_v7().simple().to_string()
}

fn block_id(upload: &str, number: u32) -> String {
    STANDARD.encode(format!("{upload}{number:0NUMBER$}"))
}

/// The upload that a block is of, when it is one of ours.
fn upload_of(block: &str) -> Option<String> {
    let text = String::from_utf8(STANDARD.decode(block).ok()?).ok()?;
    let (upload, number) = text.split_at_checked(UPLOAD)?;
    let is_ours = upload.bytes().all(|byte| byte.is_ascii_hexdigit())
        && number.len() == NUMBER
        && number.bytes().all(|byte| byte.is_ascii_digit());
    is_ours.then(|| upload.to_owned())
}

impl Azblob {
    pub(super) async fn put_block(&self, key: &str, upload: &str, number: u32, body: Bytes) -> Result<Part, BucketError> {
        let mut headers = HeaderMap::new();
        self.key_headers(&mut headers)?;
        let id = block_id(upload, number);
        let query = vec![("comp", "block"), ("blockid", id.as_str())];
        let call =
            Call { method: Method::PUT, key: Some(key), query, headers, body: body.clone(), is_checked: true, ..Call::default() };
        let answer = self.send(call).await.map_err(|refusal| self.failed(refusal, "send a part of", key))?;
        self.check(key, answer.headers(), &body)?;
        Ok(Part { number, size: body.len() as u64, checksum: crc(answer.headers()), etag: id })
    }

    pub(super) async fn copy_to_block(
        &self,
        from: &CopyFrom,
        range: Range<u64>,
        key: &str,
        upload: &str,
        number: u32,
    ) -> Result<Part, BucketError> {
        let mut headers = HeaderMap::new();
        self.key_headers(&mut headers)?;
        self.source_headers(&mut headers, from).await.map_err(|refusal| self.failed(refusal, "copy a part of", key))?;
        let bytes = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        header::put(&mut headers, "x-ms-source-range", &bytes)?;
        let id = block_id(upload, number);
        let query = vec![("comp", "block"), ("blockid", id.as_str())];
        let call = Call { method: Method::PUT, key: Some(key), query, headers, is_slow: true, ..Call::default() };
        let answer = self.send(call).await.map_err(|refusal| self.not_copied(refusal, "copy a part of", key))?;
        let size = range.end.saturating_sub(range.start);
        Ok(Part { number, size, checksum: crc(answer.headers()), etag: id })
    }

    pub(super) async fn put_block_list(
        &self,
        key: &str,
        properties: &Properties,
        parts: &[Part],
        condition: &Condition,
    ) -> Result<Facts, BucketError> {
        let mut parts: Vec<&Part> = parts.iter().collect();
        parts.sort_by_key(|part| part.number);
        let mut headers = HeaderMap::new();
        self.property_headers(&mut headers, properties)?;
        put_condition(&mut headers, condition)?;
        let mut body = "<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>".to_owned();
        for part in &parts {
            body.push_str("<Latest>");
            xml::escape(&mut body, &part.etag);
            body.push_str("</Latest>");
        }
        body.push_str("</BlockList>");
        let query = vec![("comp", "blocklist")];
        let call =
            Call { method: Method::PUT, key: Some(key), query, headers, body: body.into(), is_slow: true, ..Call::default() };
        let refusal = match self.send(call).await {
            Ok(answer) => return Ok(facts_of_write(answer.headers(), parts.iter().map(|part| part.size).sum())),
            Err(refusal) => refusal,
        };
        // The ids are nobody else's: a blob that is made of these blocks is this one, whoever has lost the answer.
        if refusal.is_condition() || refusal.code == "InvalidBlockList" {
            let committed = self.block_ids(key, "committed").await.unwrap_or_default();
            if !parts.is_empty() && committed.iter().eq(parts.iter().map(|part| &part.etag)) {
                return Ok(self.head_blob(key).await?.facts);
            }
        }
        if refusal.code == "InvalidBlockList" {
            // Blocks expire after seven days, and whoever writes the name drops them.
            let there = self.block_ids(key, "all").await?;
            let other: Vec<u32> = parts.iter().filter(|part| !there.contains(&part.etag)).map(|part| part.number).collect();
            if !other.is_empty() {
                return Err(BucketError::Parts(other));
            }
        }
        Err(self.failed(refusal, "complete the upload of", key))
    }

    async fn block_ids(&self, key: &str, of: &str) -> Result<Vec<String>, BucketError> {
        let query = vec![("comp", "blocklist"), ("blocklisttype", of)];
        let answer = self.send(Call { key: Some(key), query, ..Call::default() }).await;
        let answer = answer.map_err(|refusal| self.failed(refusal, "list the blocks of", key))?;
        let mut ids = Vec::new();
        xml::read(answer.body(), |met| {
            if let Met::Close("Name", text) = met {
                ids.push(text);
            }
        })?;
        Ok(ids)
    }

    /// Blobs that have nothing but blocks so far. A blob that is there and is being written anew is not found.
    pub(super) async fn list_uploads(&self, prefix: &str) -> Result<Vec<Upload>, BucketError> {
        let mut uploads = Vec::new();
        for key in self.uncommitted(prefix).await? {
            let blocks = match self.block_ids(&key, "uncommitted").await {
                Ok(blocks) => blocks,
                Err(BucketError::Missing) => continue,
                Err(error) => return Err(error),
            };
            let mut ids: Vec<String> = blocks.iter().filter_map(|block| upload_of(block)).collect();
            ids.sort();
            ids.dedup();
            uploads.extend(ids.into_iter().map(|id| Upload { key: key.clone(), started: begun(&id), id }));
        }
        Ok(uploads)
    }
}

/// When an upload was begun: its id begins with the time.
fn begun(id: &str) -> Option<jiff::Timestamp> {
    let (seconds, nanos) = uuid::Uuid::parse_str(id).ok()?.get_timestamp()?.to_unix();
    jiff::Timestamp::new(i64::try_from(seconds).ok()?, i32::try_from(nanos).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_blocks_have_one_length_and_tell_their_upload() {
        let upload = begin();
        assert_eq!(upload.len(), UPLOAD);
        let ids: Vec<String> = [1, 50_000].iter().map(|number| block_id(&upload, *number)).collect();
        assert_eq!(ids[0].len(), ids[1].len());
        assert_eq!(upload_of(&ids[1]), Some(upload.clone()));
        assert_eq!(upload_of(&STANDARD.encode("somebody else's")), None);
        assert!(begun(&upload).is_some());
    }
}

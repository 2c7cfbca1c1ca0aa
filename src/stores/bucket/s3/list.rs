//! Listings, unfinished uploads, and deleting many at once.

use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use http::{HeaderMap, Method};

use super::super::address::decoded;
use super::super::checksum::{Checksum, ChecksumKind, md5_of_etag};
use super::super::header;
use super::super::repeat::Refusal;
use super::super::types::{BucketError, Circle, Condition, Entry, Page, PageQuery, Upload};
use super::super::xml::{self, Met};
use super::S3;
use super::object::put_condition;
use super::request::Call;
use crate::error::StepError;

/// Where objects are kept of which nothing else is said.
pub(super) const STANDARD: &str = "STANDARD";
/// What a listing gives, and one `delete` takes, at most.
const MOST: usize = 1000;
/// Deletes at once where each key needs a request.
const SINGLES: usize = 32;

/// A listing's answer before names are decoded.
#[derive(Default)]
struct Raw {
    entries: Vec<Entry>,
    prefixes: Vec<String>,
    is_encoded: bool,
    is_cut: bool,
    token: Option<String>,
    marker: Option<String>,
}

impl S3 {
    pub(super) async fn list_page(&self, query: PageQuery) -> Result<Page, BucketError> {
        let most = if query.most == 0 { MOST } else { MOST.min(query.most as usize) }.to_string();
        let is_v1 = self.settings.lists_v1;
        let mut asked = vec![("encoding-type", "url"), ("max-keys", most.as_str())];
        if query.delimiter {
            asked.push(("delimiter", "/"));
        }
        if !query.prefix.is_empty() {
            asked.push(("prefix", &query.prefix));
        }
        if !is_v1 {
            asked.push(("list-type", "2"));
        }
        match (&query.token, &query.start_after) {
            (Some(token), _) => asked.push((if is_v1 { "marker" } else { "continuation-token" }, token)),
            (None, Some(after)) => asked.push((if is_v1 { "marker" } else { "start-after" }, after)),
            (None, None) => {}
        }
        let answer =
            self.send(Call { query: asked, ..Call::default() }).await.map_err(|refusal| self.failed_bucket(refusal, "list"))?;
        let raw = parse(answer.body())?;
        let is_cut = raw.is_cut;
        let (token, marker) = (raw.token.clone(), raw.marker.clone());
        let is_encoded = raw.is_encoded;
        let mut page = raw.page()?;
        if is_cut {
            page.next = if is_v1 {
                let last = page.entries.last().map(|entry| entry.key.clone()).max(page.prefixes.last().cloned());
                let marker = marker.map(|marker| if is_encoded { decoded(&marker) } else { Ok(marker) }).transpose()?;
                marker.or(last)
            } else {
                token
            };
            if page.next.is_none() || page.next == query.token {
                return Err(StepError::permanent(format!(
                    "the bucket `{}` is not listed to its end: it says that there is more and not where",
                    self.name
                ))
                .help("try `disable_list_objects_v2: true` in the store's options")
                .into());
            }
        }
        Ok(page)
    }

    pub(super) async fn list_uploads(&self, prefix: &str) -> Result<Vec<Upload>, BucketError> {
        let (mut found, mut circle) = (Vec::new(), Circle::default());
        let mut behind: Option<(String, String)> = None;
        loop {
            let mut asked = vec![("uploads", ""), ("encoding-type", "url")];
            if !prefix.is_empty() {
                asked.push(("prefix", prefix));
            }
            if let Some((key, id)) = &behind {
                asked.push(("key-marker", key));
                asked.push(("upload-id-marker", id));
            }
            let answer = self
                .send(Call { query: asked, ..Call::default() })
                .await
                .map_err(|refusal| self.failed_bucket(refusal, "list the uploads of"))?;
            let (uploads, next) = parse_uploads(answer.body())?;
            let is_new = next.as_ref().is_some_and(|(key, id)| circle.goes_on(&format!("{key} {id}"), false));
            // Some services take no notice of the prefix.
            found.extend(uploads.into_iter().filter(|upload| upload.key.starts_with(prefix)));
            if !is_new {
                return Ok(found);
            }
            behind = next;
        }
    }

    pub(super) async fn delete_objects(&self, keys: &[String]) -> Result<Vec<(String, StepError)>, BucketError> {
        let mut failed = Vec::new();
        // What XML cannot hold goes one by one.
        let (many, mut single): (Vec<&String>, Vec<&String>) = keys.iter().partition(|key| xml::can_hold(key));
        if many.len() == 1 || self.learned.no_batch_delete.load(Ordering::Relaxed) {
            single.extend(many);
        } else {
            for batch in many.chunks(MOST) {
                if !self.delete_batch(batch, &mut failed).await? {
                    self.learned.no_batch_delete.store(true, Ordering::Relaxed);
                    single.extend(batch);
                }
            }
        }
        let single: Vec<String> = single.into_iter().cloned().collect();
        let mut singles = futures::stream::iter(single).map(|key| self.delete_one(key)).buffer_unordered(SINGLES);
        while let Some(result) = singles.next().await {
            failed.extend(result);
        }
        Ok(failed)
    }

    pub(super) async fn delete_object_if(&self, key: &str, etag: &str) -> Result<(), BucketError> {
        let mut headers = HeaderMap::new();
        put_condition(&mut headers, &Condition::Still(etag.to_owned()))?;
        let call = Call { method: Method::DELETE, key: Some(key), headers, ..Call::default() };
        self.send(call).await.map(drop).map_err(|refusal| self.failed(refusal, "delete", key))
    }

    async fn delete_one(&self, key: String) -> Option<(String, StepError)> {
        let call = Call { method: Method::DELETE, key: Some(&key), ..Call::default() };
        match self.send(call).await.map_err(|refusal| self.failed(refusal, "delete", &key)) {
            Ok(_) | Err(BucketError::Missing) => None,
            Err(error) => {
                let error = error.into_step(&format!("cannot delete `{key}` in the bucket `{}`", self.name));
                Some((key, error))
            }
        }
    }

    /// False: the service does not take many at once.
    async fn delete_batch(&self, keys: &[&String], failed: &mut Vec<(String, StepError)>) -> Result<bool, BucketError> {
        let mut body = String::with_capacity(keys.iter().map(|key| key.len() + 40).sum());
        body.push_str("<Delete xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Quiet>true</Quiet>");
        for key in keys {
            body.push_str("<Object><Key>");
            xml::escape(&mut body, key);
            body.push_str("</Key></Object>");
        }
        body.push_str("</Delete>");
        let mut headers = HeaderMap::new();
        // Every service takes this one here, and some insist on it.
        if let Some(sum) = Checksum::of(ChecksumKind::Md5, body.as_bytes()) {
            header::put(&mut headers, "content-md5", &sum.value)?;
        }
        header::put(&mut headers, "content-type", "application/xml")?;
        let query = vec![("delete", "")];
        let call = Call { method: Method::POST, query, headers, body: body.into(), may_hide_error: true, ..Call::default() };
        let answer = match self.send(call).await {
            Ok(answer) => answer,
            Err(refusal) if matches!(refusal.status, 405 | 501) => return Ok(false),
            Err(refusal) => return Err(self.failed_bucket(refusal, "delete in")),
        };
        let (mut key, mut code, mut message) = (String::new(), String::new(), String::new());
        let mut is_error = false;
        xml::read(answer.body(), |met| match met {
            Met::Open("Error") => {
                is_error = true;
                code.clear();
                message.clear();
            }
            Met::Close("Key", text) => key = text,
            Met::Close("Code", text) => code = text,
            Met::Close("Message", text) => message = text,
            Met::Close("Error", _) if is_error => {
                is_error = false;
                if code != "NoSuchKey" {
                    failed.push((key.clone(), self.not_deleted(&key, &code, &message)));
                }
            }
            _ => {}
        })?;
        Ok(true)
    }

    fn not_deleted(&self, key: &str, code: &str, message: &str) -> StepError {
        let status = match code {
            "AccessDenied" => 403,
            "SlowDown" => 503,
            "InternalError" => 500,
            _ => 400,
        };
        Refusal::told(status, code, message).into_step(&format!("cannot delete `{key}` in the bucket `{}`", self.name))
    }
}

impl Raw {
    fn page(self) -> Result<Page, StepError> {
        let read = |name: String| if self.is_encoded { decoded(&name) } else { Ok(name) };
        let mut entries = self.entries;
        for entry in &mut entries {
            entry.key = read(std::mem::take(&mut entry.key))?;
        }
        let prefixes = self.prefixes.into_iter().map(read).collect::<Result<_, _>>()?;
        Ok(Page { entries, prefixes, next: None })
    }
}

fn parse(body: &[u8]) -> Result<Raw, StepError> {
    let mut raw = Raw::default();
    let mut entry: Option<Entry> = None;
    let mut is_owner = false;
    let mut in_prefixes = false;
    let mut is_listing = false;
    xml::read(body, |met| match met {
        Met::Open("Contents") => entry = Some(Entry::default()),
        Met::Open("CommonPrefixes") => in_prefixes = true,
        Met::Open("Owner") => is_owner = true,
        Met::Open("ListBucketResult") => is_listing = true,
        Met::Close("Owner", _) => is_owner = false,
        Met::Close("CommonPrefixes", _) => in_prefixes = false,
        Met::Close("Prefix", text) if in_prefixes => raw.prefixes.push(text),
        Met::Close("EncodingType", text) => raw.is_encoded = text.eq_ignore_ascii_case("url"),
        Met::Close("IsTruncated", text) => raw.is_cut = text.trim() == "true",
        Met::Close("NextContinuationToken", text) => raw.token = Some(text).filter(|text| !text.is_empty()),
        Met::Close("NextMarker", text) => raw.marker = Some(text).filter(|text| !text.is_empty()),
        Met::Close("Contents", _) => raw.entries.extend(entry.take()),
        Met::Close(name, text) if !is_owner => {
            if let Some(entry) = &mut entry {
                fill(entry, name, text);
            }
        }
        _ => {}
    })?;
    if is_listing {
        return Ok(raw);
    }
    Err(StepError::permanent("the store's answer is no listing")
        .help("see that `endpoint` is the store itself, and not a page or a proxy"))
}

fn fill(entry: &mut Entry, name: &str, text: String) {
    match name {
        "Key" => entry.key = text,
        "Size" => entry.facts.size = text.trim().parse().unwrap_or_default(),
        "LastModified" => entry.facts.modified = text.trim().parse().ok(),
        "ETag" if !text.trim_matches('"').is_empty() => {
            entry.md5 = md5_of_etag(&text).map(str::to_ascii_lowercase);
            // Some services leave the quotes out here, and want them in conditions.
            entry.facts.etag = Some(if text.contains('"') { text } else { format!("\"{text}\"") });
        }
        "StorageClass" => entry.storage_class = Some(text).filter(|class| class != STANDARD),
        _ => {}
    }
}

/// Uploads, and behind what the next ones are.
type Uploads = (Vec<Upload>, Option<(String, String)>);

fn parse_uploads(body: &[u8]) -> Result<Uploads, StepError> {
    let mut uploads = Vec::new();
    let mut upload: Option<Upload> = None;
    let (mut is_cut, mut is_encoded) = (false, false);
    let (mut key, mut id) = (String::new(), String::new());
    xml::read(body, |met| match met {
        Met::Open("Upload") => upload = Some(Upload { key: String::new(), id: String::new(), started: None }),
        Met::Close("Upload", _) => uploads.extend(upload.take()),
        Met::Close("EncodingType", text) => is_encoded = text.eq_ignore_ascii_case("url"),
        Met::Close("IsTruncated", text) => is_cut = text.trim() == "true",
        Met::Close("NextKeyMarker", text) => key = text,
        Met::Close("NextUploadIdMarker", text) => id = text,
        Met::Close(name, text) => {
            if let Some(upload) = &mut upload {
                match name {
                    "Key" => upload.key = text,
                    "UploadId" => upload.id = text,
                    "Initiated" => upload.started = text.trim().parse().ok(),
                    _ => {}
                }
            }
        }
        Met::Open(_) | Met::Marked => {}
    })?;
    if is_encoded {
        for upload in &mut uploads {
            upload.key = decoded(&upload.key)?;
        }
        key = decoded(&key)?;
    }
    Ok((uploads, is_cut.then_some((key, id))))
}

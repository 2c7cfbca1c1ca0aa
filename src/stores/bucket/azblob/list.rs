//! Listings and deletes.

use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use http::{HeaderMap, Method};

use super::super::address::decoded;
use super::super::types::{BucketError, Circle, Condition, Entry, Page, PageQuery};
use super::super::xml::{self, Met};
use super::Azblob;
use super::blob::{hex, put_condition};
use super::request::Call;
use crate::error::StepError;

/// What a listing gives at most.
const MOST: u32 = 5000;
/// Deletes at once: each is a request.
const SINGLES: usize = 32;
/// The first version that lists from a key on.
const STARTS_FROM: &str = "2026-02-06";

impl Azblob {
    pub(super) async fn list_page(&self, mut query: PageQuery) -> Result<Page, BucketError> {
        let mut circle = Circle::default();
        loop {
            let mut page = self.one_page(&query, None).await?;
            // What cannot list from a key on begins at the beginning: what was asked for is left.
            if let Some(after) = query.start_after.as_deref() {
                page.entries.retain(|entry| entry.key.as_str() > after);
                page.prefixes.retain(|prefix| prefix.as_str() > after || after.starts_with(prefix.as_str()));
            }
            match page.next {
                Some(next) if page.entries.is_empty() && page.prefixes.is_empty() => {
                    if !circle.goes_on(&next, false) {
                        return Err(Circle::failure(&self.name).into());
                    }
                    query.token = Some(next);
                }
                _ => return Ok(page),
            }
        }
    }

    async fn one_page(&self, query: &PageQuery, include: Option<&str>) -> Result<Page, BucketError> {
        let most = if query.most == 0 { MOST } else { MOST.min(query.most) }.to_string();
        loop {
            let mut asked = vec![("restype", "container"), ("comp", "list"), ("maxresults", most.as_str())];
            if !query.prefix.is_empty() {
                asked.push(("prefix", &query.prefix));
            }
            if query.delimiter {
                asked.push(("delimiter", "/"));
            }
            if let Some(include) = include {
                asked.push(("include", include));
            }
            let mut version = None;
            match (&query.token, &query.start_after) {
                (Some(token), _) => asked.push(("marker", token)),
                (None, Some(after)) if !self.has_no_start.load(Ordering::Relaxed) => {
                    asked.push(("startFrom", after));
                    version = Some(STARTS_FROM);
                }
                _ => {}
            }
            let starts = version.is_some();
            match self.send(Call { query: asked, version, ..Call::default() }).await {
                Ok(answer) => return Ok(parse(answer.body())?),
                Err(refusal) if starts && matches!(refusal.status, 400 | 403 | 501) => {
                    self.has_no_start.store(true, Ordering::Relaxed);
                }
                Err(refusal) => return Err(self.failed_container(refusal, "list")),
            }
        }
    }

    /// The names that may have nothing but blocks: they are empty, and no checksum is kept with them.
    pub(super) async fn uncommitted(&self, prefix: &str) -> Result<Vec<String>, BucketError> {
        let mut query = PageQuery { prefix: prefix.to_owned(), ..PageQuery::default() };
        let (mut found, mut circle) = (Vec::new(), Circle::default());
        loop {
            let page = self.one_page(&query, Some("uncommittedblobs")).await?;
            let empty = page.entries.into_iter().filter(|entry| entry.facts.size == 0 && entry.md5.is_none());
            found.extend(empty.map(|entry| entry.key));
            match page.next {
                Some(next) if circle.goes_on(&next, false) => query.token = Some(next),
                Some(_) => return Err(Circle::failure(&self.name).into()),
                None => return Ok(found),
            }
        }
    }

    pub(super) async fn delete_blobs(&self, keys: &[String]) -> Vec<(String, StepError)> {
        let keys = keys.to_vec();
        let mut done = futures::stream::iter(keys).map(|key| self.delete_one(key)).buffer_unordered(SINGLES);
        let mut failed = Vec::new();
        while let Some(result) = done.next().await {
            failed.extend(result);
        }
        failed
    }

    pub(super) async fn delete_blob_if(&self, key: &str, etag: &str) -> Result<(), BucketError> {
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
                let error = error.into_step(&format!("cannot delete `{key}` in the container `{}`", self.name));
                Some((key, error))
            }
        }
    }
}

fn parse(body: &[u8]) -> Result<Page, StepError> {
    let mut page = Page::default();
    let mut entry: Option<Entry> = None;
    let (mut is_prefix, mut is_encoded, mut is_listing) = (false, false, false);
    let mut wrong = None;
    xml::read(body, |met| match met {
        Met::Open("Blob") => entry = Some(Entry::default()),
        Met::Open("BlobPrefix") => is_prefix = true,
        Met::Open("EnumerationResults") => is_listing = true,
        Met::Marked => is_encoded = true,
        Met::Close("Blob", _) => page.entries.extend(entry.take()),
        Met::Close("BlobPrefix", _) => is_prefix = false,
        Met::Close("NextMarker", text) => page.next = Some(text).filter(|text| !text.is_empty()),
        Met::Close("Name", text) => {
            // A name that XML cannot hold.
            let name = if std::mem::take(&mut is_encoded) { decoded(&text.replace('+', "%2B")) } else { Ok(text) };
            match (name, &mut entry) {
                (Err(error), _) => wrong = Some(error),
                (Ok(name), Some(entry)) => entry.key = name,
                (Ok(name), None) if is_prefix => page.prefixes.push(name),
                (Ok(_), None) => {}
            }
        }
        Met::Close(name, text) => {
            if let Some(entry) = &mut entry {
                fill(entry, name, &text);
            }
        }
        Met::Open(_) => {}
    })?;
    match wrong {
        Some(error) => Err(error),
        None if is_listing => Ok(page),
        None => Err(StepError::permanent("the store's answer is no listing")
            .help("see that `endpoint` is the store itself, and not a page or a proxy")),
    }
}

fn fill(entry: &mut Entry, name: &str, text: &str) {
    match name {
        "Content-Length" => entry.facts.size = text.trim().parse().unwrap_or_default(),
        "Last-Modified" => {
            entry.facts.modified = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text.trim()).ok();
        }
        // Without the quotes that conditions need.
        "Etag" if !text.is_empty() => entry.facts.etag = Some(format!("\"{}\"", text.trim_matches('"'))),
        "Content-MD5" => entry.md5 = hex(text),
        "AccessTier" => entry.storage_class = Some(text.to_owned()),
        // The account's default, not the blob's own.
        "AccessTierInferred" if text == "true" => entry.storage_class = None,
        "VersionId" => entry.facts.version = Some(text.to_owned()),
        _ => {}
    }
}

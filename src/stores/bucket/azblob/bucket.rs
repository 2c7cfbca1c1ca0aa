//! The face of an Azure container.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::super::super::Facts;
use super::super::address::has_dots;
use super::super::types::{Can, Carry, Condition, CopyFrom, Got, Head, Page, PageQuery, Part, Properties, Upload};
use super::super::{Answer, Bucket};
use super::{Azblob, block};
use crate::error::StepError;

impl Bucket for Azblob {
    fn list(&self, query: PageQuery) -> Answer<'_, Page> {
        Box::pin(self.list_page(query))
    }

    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Head> {
        Box::pin(self.head_blob(key))
    }

    fn get<'a>(&'a self, key: &'a str, range: Option<Range<u64>>, if_match: Option<&'a str>) -> Answer<'a, Got> {
        Box::pin(self.get_blob(key, range, if_match))
    }

    fn tags<'a>(&'a self, key: &'a str) -> Answer<'a, BTreeMap<String, String>> {
        Box::pin(self.get_tags(key))
    }

    fn put<'a>(&'a self, key: &'a str, properties: &'a Properties, body: Bytes, condition: &'a Condition) -> Answer<'a, Facts> {
        Box::pin(self.put_blob(key, properties, body, condition))
    }

    fn begin<'a>(&'a self, _: &'a str, _: &'a Properties) -> Answer<'a, String> {
        Box::pin(async { Ok(block::begin()) })
    }

    fn put_part<'a>(&'a self, key: &'a str, upload: &'a str, number: u32, body: Bytes) -> Answer<'a, Part> {
        Box::pin(self.put_block(key, upload, number, body))
    }

    fn complete<'a>(
        &'a self,
        key: &'a str,
        _: &'a str,
        properties: &'a Properties,
        parts: &'a [Part],
        condition: &'a Condition,
    ) -> Answer<'a, Facts> {
        Box::pin(self.put_block_list(key, properties, parts, condition))
    }

    fn abort<'a>(&'a self, _: &'a str, _: &'a str) -> Answer<'a, ()> {
        // Blocks expire by themselves. Deleting the name would delete the blob that may be there.
        Box::pin(async { Ok(()) })
    }

    fn uploads<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Upload>> {
        Box::pin(self.list_uploads(prefix))
    }

    fn delete<'a>(&'a self, keys: &'a [String]) -> Answer<'a, Vec<(String, StepError)>> {
        Box::pin(async { Ok(self.delete_blobs(keys).await) })
    }

    fn delete_if<'a>(&'a self, key: &'a str, etag: &'a str) -> Answer<'a, ()> {
        Box::pin(self.delete_blob_if(key, etag))
    }

    fn copy<'a>(&'a self, from: &'a CopyFrom, key: &'a str, carry: Carry<'a>, condition: &'a Condition) -> Answer<'a, Facts> {
        Box::pin(self.copy_blob(from, key, carry, condition))
    }

    fn can_copy(&self, key: &str) -> bool {
        // The source is an address there, and addresses with dots mean another one.
        !has_dots(key)
    }

    fn copy_part<'a>(
        &'a self,
        from: &'a CopyFrom,
        range: Range<u64>,
        key: &'a str,
        upload: &'a str,
        number: u32,
    ) -> Answer<'a, Part> {
        Box::pin(self.copy_to_block(from, range, key, upload, number))
    }

    fn throttled(&self) -> u64 {
        self.wire.throttled()
    }

    fn can(&self) -> Can {
        Can {
            conditions: true,
            copies_across: true,
            tags: true,
            starts_after: !self.has_no_start.load(Ordering::Relaxed),
            deletes_at_once: 1,
        }
    }

    fn name(&self) -> &str {
        &self.name
    }
}

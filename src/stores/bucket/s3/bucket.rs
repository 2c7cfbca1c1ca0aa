//! The face of an S3 bucket.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::super::super::Facts;
use super::super::types::{Can, Carry, Condition, CopyFrom, Got, Head, Page, PageQuery, Part, Properties, Upload};
use super::super::{Answer, Bucket};
use super::S3;
use crate::error::StepError;

impl Bucket for S3 {
    fn list(&self, query: PageQuery) -> Answer<'_, Page> {
        Box::pin(self.list_page(query))
    }

    fn head<'a>(&'a self, key: &'a str) -> Answer<'a, Head> {
        Box::pin(self.head_object(key))
    }

    fn get<'a>(&'a self, key: &'a str, range: Option<Range<u64>>, if_match: Option<&'a str>) -> Answer<'a, Got> {
        Box::pin(self.get_object(key, range, if_match))
    }

    fn tags<'a>(&'a self, key: &'a str) -> Answer<'a, BTreeMap<String, String>> {
        Box::pin(self.get_tags(key))
    }

    fn put<'a>(&'a self, key: &'a str, properties: &'a Properties, body: Bytes, condition: &'a Condition) -> Answer<'a, Facts> {
        Box::pin(self.put_object(key, properties, body, condition))
    }

    fn begin<'a>(&'a self, key: &'a str, properties: &'a Properties) -> Answer<'a, String> {
        Box::pin(self.begin_upload(key, properties))
    }

    fn put_part<'a>(&'a self, key: &'a str, upload: &'a str, number: u32, body: Bytes) -> Answer<'a, Part> {
        Box::pin(self.upload_part(key, upload, number, body))
    }

    fn complete<'a>(
        &'a self,
        key: &'a str,
        upload: &'a str,
        _: &'a Properties,
        parts: &'a [Part],
        condition: &'a Condition,
    ) -> Answer<'a, Facts> {
        Box::pin(self.complete_upload(key, upload, parts, condition))
    }

    fn abort<'a>(&'a self, key: &'a str, upload: &'a str) -> Answer<'a, ()> {
        Box::pin(self.abort_upload(key, upload))
    }

    fn uploads<'a>(&'a self, prefix: &'a str) -> Answer<'a, Vec<Upload>> {
        Box::pin(self.list_uploads(prefix))
    }

    fn delete<'a>(&'a self, keys: &'a [String]) -> Answer<'a, Vec<(String, StepError)>> {
        Box::pin(self.delete_objects(keys))
    }

    fn delete_if<'a>(&'a self, key: &'a str, etag: &'a str) -> Answer<'a, ()> {
        Box::pin(self.delete_object_if(key, etag))
    }

    fn copy<'a>(&'a self, from: &'a CopyFrom, key: &'a str, carry: Carry<'a>, condition: &'a Condition) -> Answer<'a, Facts> {
        Box::pin(self.copy_object(from, key, carry, condition))
    }

    fn can_copy(&self, _: &str) -> bool {
        true
    }

    fn copy_part<'a>(
        &'a self,
        from: &'a CopyFrom,
        range: Range<u64>,
        key: &'a str,
        upload: &'a str,
        number: u32,
    ) -> Answer<'a, Part> {
        Box::pin(self.copy_to_part(from, range, key, upload, number))
    }

    fn throttled(&self) -> u64 {
        self.wire.throttled()
    }

    fn can(&self) -> Can {
        Can {
            conditions: !self.learned.no_conditions.load(Ordering::Relaxed),
            copies_across: true,
            tags: !self.learned.no_tags.load(Ordering::Relaxed),
            starts_after: true,
            deletes_at_once: if self.learned.no_batch_delete.load(Ordering::Relaxed) { 1 } else { 1000 },
        }
    }

    fn name(&self) -> &str {
        &self.name
    }
}

//! Listings as S3 answers them: pages of objects, of uploads and of parts.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use s3s::dto::{self, ETag, Timestamp};
use s3s::{S3Result, s3_error};

use super::memory::{Bucket, Page, Query};

/// A page of `ListObjectsV2`.
pub fn page(bucket: &Bucket, input: dto::ListObjectsV2Input) -> S3Result<dto::ListObjectsV2Output> {
    // A token is where the next page begins, so that it also holds when that key is gone by then.
    let from = match (&input.continuation_token, &input.start_after) {
        (Some(token), _) => {
            let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| s3_error!(InvalidArgument))?;
            String::from_utf8(bytes).map_err(|_| s3_error!(InvalidArgument))?
        }
        (None, Some(after)) if !after.is_empty() => format!("{after}\0"),
        _ => String::new(),
    };
    let most = most(input.max_keys);
    let prefix = input.prefix.clone().unwrap_or_default();
    let delimiter = input.delimiter.clone().unwrap_or_default();
    let found = bucket.list(&Query { prefix: &prefix, delimiter: &delimiter, from, most });
    let name = Naming::of(input.encoding_type.as_ref());
    let next = found.next.clone();
    let count = found.objects.len() + found.prefixes.len();
    let (contents, prefixes) = told(found, &name);
    Ok(dto::ListObjectsV2Output {
        name: Some(input.bucket),
        prefix: input.prefix.map(|prefix| name.of_key(&prefix)),
        delimiter: input.delimiter.map(|delimiter| name.of_key(&delimiter)),
        start_after: input.start_after.map(|after| name.of_key(&after)),
        max_keys: i32::try_from(most).ok(),
        key_count: i32::try_from(count).ok(),
        continuation_token: input.continuation_token,
        is_truncated: Some(next.is_some()),
        next_continuation_token: next.map(|next| URL_SAFE_NO_PAD.encode(next)),
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        encoding_type: input.encoding_type,
        ..dto::ListObjectsV2Output::default()
    })
}

/// A page of `ListObjects`, the first version.
pub fn old_page(bucket: &Bucket, input: dto::ListObjectsInput) -> dto::ListObjectsOutput {
    let marker = input.marker.clone().unwrap_or_default();
    let delimiter = input.delimiter.clone().unwrap_or_default();
    // A marker that is a folder stands for all that is in it.
    let in_folder = !delimiter.is_empty() && marker.ends_with(&delimiter);
    let from = match marker.as_str() {
        "" => String::new(),
        _ if in_folder => format!("{marker}{}", char::MAX),
        _ => format!("{marker}\0"),
    };
    let most = most(input.max_keys);
    let prefix = input.prefix.clone().unwrap_or_default();
    let found = bucket.list(&Query { prefix: &prefix, delimiter: &delimiter, from, most });
    let name = Naming::of(input.encoding_type.as_ref());
    let is_truncated = found.next.is_some();
    let last = found.objects.last().map(|(key, _)| key).max(found.prefixes.last()).filter(|_| is_truncated).cloned();
    let (contents, prefixes) = told(found, &name);
    dto::ListObjectsOutput {
        name: Some(input.bucket),
        prefix: input.prefix.map(|prefix| name.of_key(&prefix)),
        delimiter: input.delimiter.map(|delimiter| name.of_key(&delimiter)),
        marker: input.marker.map(|marker| name.of_key(&marker)),
        next_marker: last.map(|last| name.of_key(&last)),
        max_keys: i32::try_from(most).ok(),
        is_truncated: Some(is_truncated),
        contents: Some(contents),
        common_prefixes: Some(prefixes),
        encoding_type: input.encoding_type,
        ..dto::ListObjectsOutput::default()
    }
}

/// The uploads of a bucket, all on one page.
pub fn uploads(bucket: &Bucket, input: dto::ListMultipartUploadsInput) -> dto::ListMultipartUploadsOutput {
    let name = Naming::of(input.encoding_type.as_ref());
    let prefix = input.prefix.clone().unwrap_or_default();
    let upload = |(key, id, started): (String, String, std::time::SystemTime)| dto::MultipartUpload {
        key: Some(name.of_key(&key)),
        upload_id: Some(id),
        initiated: Some(Timestamp::from(started)),
        ..dto::MultipartUpload::default()
    };
    dto::ListMultipartUploadsOutput {
        uploads: Some(bucket.uploads(&prefix).into_iter().map(upload).collect()),
        bucket: Some(input.bucket),
        prefix: input.prefix.map(|prefix| name.of_key(&prefix)),
        is_truncated: Some(false),
        encoding_type: input.encoding_type,
        ..dto::ListMultipartUploadsOutput::default()
    }
}

/// The parts of an upload.
pub fn parts(bucket: &Bucket, input: dto::ListPartsInput) -> S3Result<dto::ListPartsOutput> {
    let after = input.part_number_marker.unwrap_or_default();
    let most = most(input.max_parts);
    let mut found = bucket.parts(input.key.clone(), input.upload_id.clone())?;
    found.retain(|(number, ..)| *number > after);
    let is_truncated = found.len() > most;
    found.truncate(most);
    let last = found.last().map(|(number, ..)| *number);
    let part = |(number, etag, size): (i32, String, u64)| dto::Part {
        part_number: Some(number),
        e_tag: Some(ETag::Strong(etag)),
        size: i64::try_from(size).ok(),
        ..dto::Part::default()
    };
    Ok(dto::ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        is_truncated: Some(is_truncated),
        next_part_number_marker: last.filter(|_| is_truncated),
        parts: Some(found.into_iter().map(part).collect()),
        ..dto::ListPartsOutput::default()
    })
}

fn most(asked: Option<i32>) -> usize {
    usize::try_from(asked.unwrap_or(1000)).unwrap_or_default().min(1000)
}

fn told(page: Page, name: &Naming) -> (dto::ObjectList, dto::CommonPrefixList) {
    let objects = page.objects.into_iter().map(|(key, object)| dto::Object {
        key: Some(name.of_key(&key)),
        size: i64::try_from(object.content.size).ok(),
        e_tag: Some(ETag::Strong(object.etag.clone())),
        last_modified: Some(Timestamp::from(object.modified)),
        storage_class: Some(dto::ObjectStorageClass::from(
            object.properties.storage_class.clone().unwrap_or_else(|| "STANDARD".to_owned()),
        )),
        ..dto::Object::default()
    });
    let prefixes = page.prefixes.iter().map(|prefix| dto::CommonPrefix { prefix: Some(name.of_key(prefix)) });
    (objects.collect(), prefixes.collect())
}

/// How keys are written: XML cannot hold all of them.
struct Naming {
    is_url: bool,
}

impl Naming {
    fn of(asked: Option<&dto::EncodingType>) -> Self {
        Self { is_url: asked.is_some_and(|asked| asked.as_str() == "url") }
    }

    fn of_key(&self, key: &str) -> String {
        if !self.is_url {
            return key.to_owned();
        }
        let mut text = String::with_capacity(key.len());
        for byte in key.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
                text.push(char::from(byte));
            } else {
                let _ = write!(text, "%{byte:02X}");
            }
        }
        text
    }
}

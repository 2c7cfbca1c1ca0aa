//! The S3 operations, on top of the buckets in memory.

use std::borrow::Cow;
use std::time::SystemTime;

use s3s::dto::{self, CopySource, ETag, ETagCondition, StreamingBlob, Timestamp};
use s3s::{Body, S3, S3Request, S3Response, S3Result, s3_error};

use super::content::{Checksums, Object, Properties, Taken, take};
use super::listing;
use super::memory::{Condition, Memory};

/// The server.
pub struct Server {
    memory: Memory,
}

impl Server {
    /// Serves these buckets.
    pub fn new(memory: Memory) -> Self {
        Self { memory }
    }
}

/// The properties of an input that has them all.
macro_rules! properties {
    ($input:expr) => {
        Properties {
            content_type: $input.content_type.clone(),
            content_encoding: $input.content_encoding.clone(),
            content_disposition: $input.content_disposition.clone(),
            content_language: $input.content_language.clone(),
            cache_control: $input.cache_control.clone(),
            expires: $input.expires.clone(),
            storage_class: $input.storage_class.as_ref().map(|class| class.as_str().to_owned()),
            tags: $input.tagging.clone(),
            user: $input.metadata.clone().into_iter().flatten().collect(),
        }
    };
}

/// The answer to a HEAD or a GET, without a body.
macro_rules! told {
    ($output:ident, $object:expr) => {{
        let object: &Object = $object;
        let of = &object.properties;
        dto::$output {
            accept_ranges: Some("bytes".to_owned()),
            content_length: Some(signed(object.content.size)),
            content_type: Some(of.content_type.clone().unwrap_or_else(|| "binary/octet-stream".to_owned())),
            content_encoding: of.content_encoding.clone(),
            content_disposition: of.content_disposition.clone(),
            content_language: of.content_language.clone(),
            cache_control: of.cache_control.clone(),
            expires: of.expires.clone(),
            storage_class: of.storage_class.clone().map(dto::StorageClass::from),
            metadata: (!of.user.is_empty()).then(|| of.user.clone().into_iter().collect()),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(Timestamp::from(object.modified)),
            ..dto::$output::default()
        }
    }};
}

/// Whether an object may be read under the conditions of an input: 412 and 304 as HTTP says.
macro_rules! check_read {
    ($input:expr, $object:expr) => {{
        let object: &Object = $object;
        if $input.if_match.as_ref().is_some_and(|condition| !meets(condition, object)) {
            return Err(s3_error!(PreconditionFailed));
        }
        if $input.if_none_match.as_ref().is_some_and(|condition| meets(condition, object)) {
            return Err(s3_error!(NotModified));
        }
        let modified = Timestamp::from(whole_seconds(object.modified));
        if $input.if_match.is_none() && $input.if_unmodified_since.as_ref().is_some_and(|since| modified > *since) {
            return Err(s3_error!(PreconditionFailed));
        }
        if $input.if_none_match.is_none() && $input.if_modified_since.as_ref().is_some_and(|since| modified <= *since) {
            return Err(s3_error!(NotModified));
        }
    }};
}

fn meets(condition: &ETagCondition, object: &Object) -> bool {
    condition.as_etag().is_none_or(|etag| etag.value() == object.etag)
}

fn whole_seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(since.as_secs())
}

fn signed(size: u64) -> i64 {
    i64::try_from(size).expect("no object is that large")
}

fn write_condition(if_match: Option<&ETagCondition>, if_none_match: Option<&ETagCondition>) -> Condition {
    Condition {
        absent: if_none_match.is_some_and(ETagCondition::is_any),
        etag: if_match.and_then(ETagCondition::as_etag).map(|etag| etag.value().to_owned()),
    }
}

/// The headers in which clients say and ask checksums.
const CHECKSUMS: &[&str] = &["crc32", "crc32c", "crc64nvme", "sha1", "sha256"];

/// What the client said in headers or behind the body.
fn checksums<T>(request: &S3Request<T>) -> Checksums {
    let mut found = Checksums::default();
    let behind = request.trailing_headers.as_ref().and_then(s3s::TrailingHeaders::take).unwrap_or_default();
    for name in CHECKSUMS.iter().map(|name| format!("x-amz-checksum-{name}")) {
        let value = request.headers.get(&name).or_else(|| behind.get(&name)).and_then(|value| value.to_str().ok());
        if let Some(value) = value {
            found.by_header.insert(name, value.to_owned());
        }
    }
    found
}

fn tell_checksums<T>(mut response: S3Response<T>, checksums: &Checksums) -> S3Response<T> {
    for (name, value) in &checksums.by_header {
        if let (Ok(name), Ok(value)) = (hyper::header::HeaderName::try_from(name.as_str()), value.parse()) {
            response.headers.insert(name, value);
        }
    }
    response
}

fn source(from: &CopySource) -> S3Result<(&str, &str)> {
    match from {
        CopySource::Bucket { bucket, key, .. } => Ok((bucket, key)),
        _ => Err(s3_error!(NotImplemented)),
    }
}

fn body(pieces: Vec<hyper::body::Bytes>) -> StreamingBlob {
    if let [one] = pieces.as_slice() {
        return StreamingBlob::from(Body::from(one.clone()));
    }
    StreamingBlob::wrap(futures::stream::iter(pieces.into_iter().map(Ok::<_, std::io::Error>)))
}

#[expect(clippy::unnecessary_wraps, reason = "the end of every operation that is asked for a result")]
fn ok<T>(output: T) -> S3Result<S3Response<T>> {
    Ok(S3Response::new(output))
}

#[async_trait::async_trait]
impl S3 for Server {
    async fn list_buckets(&self, _: S3Request<dto::ListBucketsInput>) -> S3Result<S3Response<dto::ListBucketsOutput>> {
        let bucket = |name| dto::Bucket { name: Some(name), ..dto::Bucket::default() };
        let buckets = self.memory.names().into_iter().map(bucket).collect();
        ok(dto::ListBucketsOutput { buckets: Some(buckets), ..dto::ListBucketsOutput::default() })
    }

    async fn create_bucket(&self, request: S3Request<dto::CreateBucketInput>) -> S3Result<S3Response<dto::CreateBucketOutput>> {
        self.memory.create(&request.input.bucket);
        ok(dto::CreateBucketOutput { location: Some(format!("/{}", request.input.bucket)) })
    }

    async fn head_bucket(&self, request: S3Request<dto::HeadBucketInput>) -> S3Result<S3Response<dto::HeadBucketOutput>> {
        self.memory.bucket(&request.input.bucket)?;
        ok(dto::HeadBucketOutput::default())
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<dto::GetBucketLocationInput>,
    ) -> S3Result<S3Response<dto::GetBucketLocationOutput>> {
        self.memory.bucket(&request.input.bucket)?;
        ok(dto::GetBucketLocationOutput::default())
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<dto::ListObjectsV2Input>,
    ) -> S3Result<S3Response<dto::ListObjectsV2Output>> {
        ok(listing::page(&*self.memory.bucket(&request.input.bucket)?, request.input)?)
    }

    async fn list_objects(&self, request: S3Request<dto::ListObjectsInput>) -> S3Result<S3Response<dto::ListObjectsOutput>> {
        ok(listing::old_page(&*self.memory.bucket(&request.input.bucket)?, request.input))
    }

    async fn head_object(&self, request: S3Request<dto::HeadObjectInput>) -> S3Result<S3Response<dto::HeadObjectOutput>> {
        let object = self.memory.bucket(&request.input.bucket)?.get(&request.input.key)?;
        check_read!(request.input, &object);
        let response = S3Response::new(told!(HeadObjectOutput, &object));
        let asked = request.input.checksum_mode.is_some();
        Ok(if asked { tell_checksums(response, &object.checksums) } else { response })
    }

    async fn get_object(&self, request: S3Request<dto::GetObjectInput>) -> S3Result<S3Response<dto::GetObjectOutput>> {
        let object = self.memory.bucket(&request.input.bucket)?.get(&request.input.key)?;
        check_read!(request.input, &object);
        let size = object.content.size;
        let mut output = told!(GetObjectOutput, &object);
        let tags = object.properties.tags.as_ref();
        output.tag_count = tags.map(|tags| i32::try_from(tags.split('&').count()).unwrap_or(i32::MAX));
        let range = match request.input.range {
            None => 0..size,
            Some(range) => {
                let range = range.check(size).map_err(|_| s3_error!(InvalidRange))?;
                output.content_range = Some(format!("bytes {}-{}/{size}", range.start, range.end - 1));
                output.content_length = Some(signed(range.end - range.start));
                range
            }
        };
        let pieces = object.content.range(&range).ok_or_else(|| s3_error!(NotImplemented, "only sizes are kept (--drain)"))?;
        output.body = Some(body(pieces));
        let is_whole = output.content_range.is_none();
        let response = S3Response::new(output);
        let asked = is_whole && request.input.checksum_mode.is_some();
        Ok(if asked { tell_checksums(response, &object.checksums) } else { response })
    }

    async fn put_object(&self, mut request: S3Request<dto::PutObjectInput>) -> S3Result<S3Response<dto::PutObjectOutput>> {
        let bucket = self.memory.bucket(&request.input.bucket)?;
        let condition = write_condition(request.input.if_match.as_ref(), request.input.if_none_match.as_ref());
        let body = request.input.body.take();
        let Taken { content, digest } = take(body, self.memory.keeping, request.input.content_md5.as_deref()).await?;
        let checksums = checksums(&request);
        let object = Object {
            content,
            etag: super::content::etag(digest),
            modified: SystemTime::now(),
            properties: properties!(request.input),
            checksums,
        };
        let object = bucket.put(request.input.key, object, &condition)?;
        let e_tag = Some(ETag::Strong(object.etag.clone()));
        let output = dto::PutObjectOutput { e_tag, ..dto::PutObjectOutput::default() };
        Ok(tell_checksums(S3Response::new(output), &object.checksums))
    }

    async fn copy_object(&self, request: S3Request<dto::CopyObjectInput>) -> S3Result<S3Response<dto::CopyObjectOutput>> {
        let input = request.input;
        let (bucket, key) = source(&input.copy_source)?;
        let from = self.memory.bucket(bucket)?.get(key)?;
        if input.copy_source_if_match.as_ref().is_some_and(|condition| !meets(condition, &from)) {
            return Err(s3_error!(PreconditionFailed));
        }
        let replaces = input.metadata_directive.as_ref().is_some_and(|directive| directive.as_str() == "REPLACE");
        let object = Object {
            content: from.content.clone(),
            etag: from.etag.clone(),
            modified: SystemTime::now(),
            properties: if replaces { properties!(input) } else { from.properties.clone() },
            checksums: from.checksums.clone(),
        };
        let object = self.memory.bucket(&input.bucket)?.put(input.key, object, &Condition::default())?;
        let result = dto::CopyObjectResult {
            e_tag: Some(ETag::Strong(object.etag.clone())),
            last_modified: Some(Timestamp::from(object.modified)),
            ..dto::CopyObjectResult::default()
        };
        ok(dto::CopyObjectOutput { copy_object_result: Some(result), ..dto::CopyObjectOutput::default() })
    }

    async fn get_object_tagging(
        &self,
        request: S3Request<dto::GetObjectTaggingInput>,
    ) -> S3Result<S3Response<dto::GetObjectTaggingOutput>> {
        let object = self.memory.bucket(&request.input.bucket)?.get(&request.input.key)?;
        let tags = url::form_urlencoded::parse(object.properties.tags.as_deref().unwrap_or_default().as_bytes());
        let tag = |(key, value): (Cow<str>, Cow<str>)| dto::Tag { key: Some(key.into()), value: Some(value.into()) };
        ok(dto::GetObjectTaggingOutput { tag_set: tags.map(tag).collect(), ..dto::GetObjectTaggingOutput::default() })
    }

    async fn delete_object(&self, request: S3Request<dto::DeleteObjectInput>) -> S3Result<S3Response<dto::DeleteObjectOutput>> {
        self.memory.bucket(&request.input.bucket)?.delete(&request.input.key);
        ok(dto::DeleteObjectOutput::default())
    }

    async fn delete_objects(
        &self,
        request: S3Request<dto::DeleteObjectsInput>,
    ) -> S3Result<S3Response<dto::DeleteObjectsOutput>> {
        let bucket = self.memory.bucket(&request.input.bucket)?;
        let mut deleted = Vec::new();
        for object in request.input.delete.objects {
            bucket.delete(&object.key);
            deleted.push(dto::DeletedObject { key: Some(object.key), ..dto::DeletedObject::default() });
        }
        let quiet = request.input.delete.quiet == Some(true);
        ok(dto::DeleteObjectsOutput { deleted: (!quiet).then_some(deleted), ..dto::DeleteObjectsOutput::default() })
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<dto::CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<dto::CreateMultipartUploadOutput>> {
        let input = request.input;
        let id = self.memory.bucket(&input.bucket)?.begin(input.key.clone(), properties!(input));
        ok(dto::CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..dto::CreateMultipartUploadOutput::default()
        })
    }

    async fn upload_part(&self, mut request: S3Request<dto::UploadPartInput>) -> S3Result<S3Response<dto::UploadPartOutput>> {
        let bucket = self.memory.bucket(&request.input.bucket)?;
        let body = request.input.body.take();
        let part = take(body, self.memory.keeping, request.input.content_md5.as_deref()).await?;
        let checksums = checksums(&request);
        let etag = bucket.part(request.input.key, request.input.upload_id, request.input.part_number, part)?;
        let output = dto::UploadPartOutput { e_tag: Some(ETag::Strong(etag)), ..dto::UploadPartOutput::default() };
        Ok(tell_checksums(S3Response::new(output), &checksums))
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<dto::UploadPartCopyInput>,
    ) -> S3Result<S3Response<dto::UploadPartCopyOutput>> {
        let input = request.input;
        let (bucket, key) = source(&input.copy_source)?;
        let from = self.memory.bucket(bucket)?.get(key)?;
        if input.copy_source_if_match.as_ref().is_some_and(|condition| !meets(condition, &from)) {
            return Err(s3_error!(PreconditionFailed));
        }
        let range = match &input.copy_source_range {
            None => 0..from.content.size,
            Some(range) => {
                let range = dto::Range::parse(range).map_err(|_| s3_error!(InvalidArgument))?;
                range.check(from.content.size).map_err(|_| s3_error!(InvalidRange))?
            }
        };
        let pieces = from.content.range(&range).ok_or_else(|| s3_error!(NotImplemented, "only sizes are kept (--drain)"))?;
        let part = take(Some(body(pieces)), self.memory.keeping, None).await?;
        let bucket = self.memory.bucket(&input.bucket)?;
        let etag = bucket.part(input.key, input.upload_id, input.part_number, part)?;
        let result = dto::CopyPartResult { e_tag: Some(ETag::Strong(etag)), ..dto::CopyPartResult::default() };
        ok(dto::UploadPartCopyOutput { copy_part_result: Some(result), ..dto::UploadPartCopyOutput::default() })
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<dto::CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<dto::CompleteMultipartUploadOutput>> {
        let input = request.input;
        let condition = write_condition(input.if_match.as_ref(), input.if_none_match.as_ref());
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
        let named: Vec<(i32, String)> = named
            .into_iter()
            .map(|part| {
                (part.part_number.unwrap_or_default(), part.e_tag.map_or_else(String::new, |etag| etag.value().to_owned()))
            })
            .collect();
        let object = self.memory.bucket(&input.bucket)?.complete(input.key.clone(), input.upload_id, &named, &condition)?;
        ok(dto::CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(object.etag.clone())),
            ..dto::CompleteMultipartUploadOutput::default()
        })
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<dto::AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<dto::AbortMultipartUploadOutput>> {
        self.memory.bucket(&request.input.bucket)?.abort(request.input.key, request.input.upload_id)?;
        ok(dto::AbortMultipartUploadOutput::default())
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<dto::ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<dto::ListMultipartUploadsOutput>> {
        ok(listing::uploads(&*self.memory.bucket(&request.input.bucket)?, request.input))
    }

    async fn list_parts(&self, request: S3Request<dto::ListPartsInput>) -> S3Result<S3Response<dto::ListPartsOutput>> {
        ok(listing::parts(&*self.memory.bucket(&request.input.bucket)?, request.input)?)
    }
}

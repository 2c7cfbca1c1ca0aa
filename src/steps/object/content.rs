//! Whether two objects of one size have the same content: by reading one of them, or both.

use std::sync::{Mutex, PoisonError};

use md5::Md5;
use sha2::Sha256;

use super::etag::Candidates;
use super::same::parts;
use crate::error::StepError;
use crate::stores::bucket::{Bucket, BucketError};
use crate::stores::{Listed, Store, classify};

/// How much of an object in a bucket is read at once.
const PIECE: u64 = 8 << 20;

/// An object, and where it is.
#[derive(Clone, Copy)]
pub struct Object<'a> {
    pub store: &'a Store,
    pub listed: &'a Listed,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Whether both are the same.
    pub is_same: bool,
    /// Whether it took the contents of both sides.
    pub is_both: bool,
}

/// Compares two contents. `seen` is told of the bytes as they come. Where one side lists an MD5, or the `ETag` of parts whose
/// size can be found, only the other is read; not if `must_read_both`.
pub async fn compare(
    a: Object<'_>,
    b: Object<'_>,
    must_read_both: bool,
    seen: &(dyn Fn(u64) + Sync),
) -> Result<Found, StepError> {
    if !must_read_both {
        for (known, other) in [(b, a), (a, b)] {
            let Some(md5) = &known.listed.md5 else { continue };
            let is_same = self::md5(other, seen).await? == *md5;
            return Ok(Found { is_same, is_both: false });
        }
        for (known, other) in [(b, a), (a, b)] {
            let candidates = parts(known.listed).and_then(|etag| Candidates::new(etag, known.listed.facts.size));
            let Some(candidates) = candidates else { continue };
            if has_etag(other, candidates, seen).await? {
                return Ok(Found { is_same: true, is_both: false });
            }
            // Its parts had another size, or it is another content.
            break;
        }
    }
    let (a, b) = tokio::try_join!(sha256(a, seen), sha256(b, seen))?;
    Ok(Found { is_same: a == b, is_both: true })
}

/// What a content is put through.
enum Sum {
    Md5(Md5),
    Sha256(Sha256),
    Etag(Candidates),
}

impl Sum {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(sum) => md5::Digest::update(sum, bytes),
            Self::Sha256(sum) => sha2::Digest::update(sum, bytes),
            Self::Etag(candidates) => candidates.update(bytes),
        }
    }
}

/// Puts the whole content of an object through a sum.
async fn sum_of(object: Object<'_>, sum: Sum, seen: &(dyn Fn(u64) + Sync)) -> Result<Sum, StepError> {
    let sum = Mutex::new((sum, 0));
    read(object, seen, &|bytes| {
        let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
        sum.0.update(bytes);
        sum.1 += bytes.len() as u64;
    })
    .await?;
    let (sum, size) = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    whole(object, size)?;
    Ok(sum)
}

async fn md5(object: Object<'_>, seen: &(dyn Fn(u64) + Sync)) -> Result<String, StepError> {
    match sum_of(object, Sum::Md5(Md5::default()), seen).await? {
        Sum::Md5(sum) => Ok(format!("{:032x}", u128::from_be_bytes(md5::Digest::finalize(sum).into()))),
        _ => unreachable!("a sum stays what it is"),
    }
}

async fn sha256(object: Object<'_>, seen: &(dyn Fn(u64) + Sync)) -> Result<[u8; 32], StepError> {
    match sum_of(object, Sum::Sha256(Sha256::default()), seen).await? {
        Sum::Sha256(sum) => Ok(sha2::Digest::finalize(sum).into()),
        _ => unreachable!("a sum stays what it is"),
    }
}

async fn has_etag(object: Object<'_>, candidates: Candidates, seen: &(dyn Fn(u64) + Sync)) -> Result<bool, StepError> {
    match sum_of(object, Sum::Etag(candidates), seen).await? {
        Sum::Etag(candidates) => Ok(candidates.found()),
        _ => unreachable!("a sum stays what it is"),
    }
}

/// What was read has to be what was listed: else nothing was compared.
fn whole(object: Object<'_>, size: u64) -> Result<(), StepError> {
    if size == object.listed.facts.size {
        return Ok(());
    }
    let message = format!("cannot read `{}` in `{}`: it changed meanwhile", object.listed.key, object.store.label());
    Err(StepError::transient(message).help("stop what writes to it"))
}

/// Reads an object from beginning to end.
async fn read(object: Object<'_>, seen: &(dyn Fn(u64) + Sync), take: &(dyn Fn(&[u8]) + Sync)) -> Result<(), StepError> {
    use futures::TryStreamExt as _;
    let (store, key) = (object.store, &object.listed.key);
    if let Some(bucket) = store.bucket() {
        return read_in(&*bucket, object, seen, take).await;
    }
    let failed = |error| classify(&format!("cannot read `{key}` in `{}`", store.label()), error);
    let path = store.path(key)?;
    let metadata = store.operator().stat(&path).await.map_err(failed)?;
    if metadata.content_length() > 0 {
        let reader = store.operator().reader(&path).await.map_err(failed)?;
        let mut stream = reader.into_stream(0..metadata.content_length()).await.map_err(failed)?;
        while let Some(piece) = stream.try_next().await.map_err(failed)? {
            seen(piece.len() as u64);
            for bytes in piece {
                take(&bytes);
            }
        }
    }
    Ok(())
}

/// The same in a bucket, which holds names that are no paths, piece by piece of one state of the object.
async fn read_in(
    bucket: &dyn Bucket,
    object: Object<'_>,
    seen: &(dyn Fn(u64) + Sync),
    take: &(dyn Fn(&[u8]) + Sync),
) -> Result<(), StepError> {
    let doing = format!("cannot read `{}` in `{}`", object.listed.key, object.store.label());
    let failed = |error: BucketError| match error {
        BucketError::Changed => StepError::transient(format!("{doing}: it changed meanwhile")).help("stop what writes to it"),
        error => error.into_step(&doing),
    };
    let key = object.store.whole_key(&object.listed.key);
    let head = bucket.head(&key).await.map_err(failed)?;
    let (size, etag) = (head.facts.size, head.facts.etag);
    let mut at = 0;
    while at < size {
        let got = bucket.get(&key, Some(at..(at + PIECE).min(size)), etag.as_deref()).await.map_err(failed)?;
        if got.head.facts.size != size || got.body.is_empty() {
            return Err(failed(BucketError::Changed));
        }
        take(&got.body);
        at += got.body.len() as u64;
        seen(got.body.len() as u64);
    }
    Ok(())
}

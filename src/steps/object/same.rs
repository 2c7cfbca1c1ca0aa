//! When an object at the target counts as the one at the source.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::StepError;
use crate::stores::bucket::{Bucket, BucketError};
use crate::stores::{Listed, Store, classify};

/// How much of an object in a bucket is read at once.
const PIECE: u64 = 8 << 20;

/// How objects of the same name are compared. Sizes are compared in every case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// The MD5 that both stores list; where one has none, as `mtime`.
    #[default]
    Auto,
    /// The size alone.
    Size,
    /// The MD5 that both stores list; where one has none, they count as different.
    Etag,
    /// The target is not older than the source, or has its time. Of a file in a directory the time of its last change of any kind counts
    /// too, so that one which was restored, unpacked or renamed with an old time is new. Not seen are another content
    /// of the same size with an old time on SFTP and WebDAV, a whole folder that was moved into place, and what differs
    /// by less than the two machines' clocks. A file that has the time which its object tells for files is the same, if it
    /// was made later than the object: each such object is asked for that time.
    Mtime,
    /// The SHA-256 of both contents: reads every object of equal size twice.
    Checksum,
}

/// What listings alone can say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// They count as the same.
    Same,
    /// They do not.
    Different,
    /// Both contents have to be read.
    Read,
    /// The target is a file that was made later than the source and has an older time: the one that the object tells for
    /// files, or not. The source has to be asked for that.
    Ask,
}

/// Many stores tell whole seconds only; then seconds are compared.
fn is_not_older(target: jiff::Timestamp, source: jiff::Timestamp) -> bool {
    if target.subsec_nanosecond() == 0 || source.subsec_nanosecond() == 0 {
        target.as_second() >= source.as_second()
    } else {
        target >= source
    }
}

/// Whether a file has this time; file systems and protocols cut it to microseconds, milliseconds or seconds.
pub fn is_at(file: jiff::Timestamp, time: jiff::Timestamp) -> bool {
    let (file, time) = (file.as_nanosecond(), time.as_nanosecond());
    [1, 1_000, 1_000_000, 1_000_000_000].into_iter().any(|unit| time.div_euclid(unit) * unit == file)
}

impl Rule {
    /// Compares what is listed, for a copy: it is to be avoided where nothing speaks for it.
    pub fn of_copy(self, source: &Listed, target: &Listed) -> Answer {
        let answer = |same: bool| if same { Answer::Same } else { Answer::Different };
        if source.kind != target.kind || source.facts.size != target.facts.size {
            return Answer::Different;
        }
        let by_md5 = source.md5.as_ref().zip(target.md5.as_ref()).map(|(a, b)| a == b);
        // A file that was restored or unpacked has an old time of its own, and is new all the same.
        let written = source.facts.modified.max(source.changed);
        let by_time = written.zip(target.facts.modified).map(|(a, b)| match target.changed {
            _ if is_not_older(b, a) => Answer::Same,
            // Some services show the time that an object was given for files as the one when it was written.
            None if source.changed.is_some() && source.facts.modified.is_some_and(|own| is_at(b, own)) => Answer::Same,
            // A copy that was given the time of its original.
            Some(made) if is_not_older(made, a) => match (source.changed, source.facts.modified) {
                (Some(_), Some(own)) => answer(is_at(b, own)),
                _ => Answer::Ask,
            },
            _ => Answer::Different,
        });
        let by_time = by_time.unwrap_or(Answer::Different);
        match self {
            Self::Size => Answer::Same,
            Self::Auto => by_md5.map_or(by_time, answer),
            Self::Etag => answer(by_md5.unwrap_or(false)),
            Self::Mtime => by_time,
            Self::Checksum => Answer::Read,
        }
    }

    /// Compares what is listed, for a proof: where it does not prove anything, contents are read.
    pub fn of_proof(self, source: &Listed, target: &Listed) -> Answer {
        match (self, self.of_copy(source, target)) {
            (_, _) if source.facts.size != target.facts.size || source.kind != target.kind => Answer::Different,
            (Self::Auto, _) if source.facts.size > 0 && source.md5.is_none() | target.md5.is_none() => Answer::Read,
            (Self::Auto, _) if source.facts.size == 0 => Answer::Same,
            (_, Answer::Ask) => Answer::Read,
            (_, answer) => answer,
        }
    }
}

/// The SHA-256 and the size of an object's content. `seen` is told of the bytes as they come.
pub async fn checksum(store: &Store, key: &str, seen: &(dyn Fn(u64) + Sync)) -> Result<(String, u64), StepError> {
    use futures::TryStreamExt as _;
    if let Some(bucket) = store.bucket() {
        return checksum_in(&*bucket, store, key, seen).await;
    }
    let failed = |error| classify(&format!("cannot read `{key}` in `{}`", store.label()), error);
    let path = store.path(key)?;
    let metadata = store.operator().stat(&path).await.map_err(failed)?;
    let mut digest = Sha256::new();
    let mut size = 0;
    if metadata.content_length() > 0 {
        let reader = store.operator().reader(&path).await.map_err(failed)?;
        let mut stream = reader.into_stream(0..metadata.content_length()).await.map_err(failed)?;
        while let Some(piece) = stream.try_next().await.map_err(failed)? {
            size += piece.len() as u64;
            seen(piece.len() as u64);
            for bytes in piece {
                digest.update(&bytes);
            }
        }
    }
    Ok((format!("{:x}", digest.finalize()), size))
}

/// The same in a bucket, which holds names that are no paths, piece by piece of one state of the object.
async fn checksum_in(
    bucket: &dyn Bucket,
    store: &Store,
    key: &str,
    seen: &(dyn Fn(u64) + Sync),
) -> Result<(String, u64), StepError> {
    let doing = format!("cannot read `{key}` in `{}`", store.label());
    let failed = |error: BucketError| match error {
        BucketError::Changed => StepError::transient(format!("{doing}: it changed meanwhile")).help("stop what writes to it"),
        error => error.into_step(&doing),
    };
    let key = store.whole_key(key);
    let head = bucket.head(&key).await.map_err(failed)?;
    let (size, etag) = (head.facts.size, head.facts.etag);
    let (mut digest, mut at) = (Sha256::new(), 0);
    while at < size {
        let got = bucket.get(&key, Some(at..(at + PIECE).min(size)), etag.as_deref()).await.map_err(failed)?;
        if got.head.facts.size != size || got.body.is_empty() {
            return Err(failed(BucketError::Changed));
        }
        digest.update(&got.body);
        at += got.body.len() as u64;
        seen(got.body.len() as u64);
    }
    Ok((format!("{:x}", digest.finalize()), size))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::{Facts, Kind};

    fn listed(size: u64, md5: Option<&str>, second: i64) -> Listed {
        let modified = jiff::Timestamp::from_second(second).ok();
        let facts = Facts { size, modified, ..Facts::default() };
        Listed { key: "a".to_owned(), kind: Kind::Object, facts, md5: md5.map(str::to_owned), storage_class: None, changed: None }
    }

    #[test]
    fn each_rule_sees_what_it_says() {
        let (old, new) = (listed(1, None, 10), listed(1, None, 20));
        assert_eq!(Rule::Auto.of_copy(&old, &new), Answer::Same);
        assert_eq!(Rule::Auto.of_copy(&new, &old), Answer::Different);
        assert_eq!(Rule::Size.of_copy(&new, &old), Answer::Same);
        assert_eq!(Rule::Etag.of_copy(&old, &new), Answer::Different);
        assert_eq!(Rule::Checksum.of_copy(&old, &new), Answer::Read);
        assert_eq!(Rule::Size.of_copy(&old, &listed(2, None, 20)), Answer::Different);
        let (a, b) = (listed(1, Some("aa"), 10), listed(1, Some("bb"), 20));
        assert_eq!(Rule::Auto.of_copy(&a, &b), Answer::Different);
        assert_eq!(Rule::Auto.of_copy(&b, &listed(1, Some("bb"), 10)), Answer::Same);
    }

    #[test]
    fn a_time_that_was_set_back_is_not_believed() {
        let (mut source, target) = (listed(1, None, 10), listed(1, None, 20));
        for (changed, answer) in [(15, Answer::Same), (30, Answer::Different)] {
            source.changed = jiff::Timestamp::from_second(changed).ok();
            assert_eq!(Rule::Auto.of_copy(&source, &target), answer);
            assert_eq!(Rule::Mtime.of_copy(&source, &target), answer);
            assert_eq!(Rule::Size.of_copy(&source, &target), Answer::Same);
        }
    }

    #[test]
    fn a_copy_that_has_the_time_of_its_original_is_known() {
        let second = |second| jiff::Timestamp::from_second(second).ok();
        let made = Listed { changed: second(30), ..listed(1, None, 10) };
        let file = |modified, changed| Listed { changed: second(changed), ..listed(1, None, modified) };
        // From a bucket: the object knows, the listing does not.
        assert_eq!(Rule::Auto.of_copy(&listed(1, None, 20), &made), Answer::Ask);
        assert_eq!(Rule::Auto.of_copy(&listed(1, None, 40), &made), Answer::Different);
        assert_eq!(Rule::Mtime.of_proof(&listed(1, None, 20), &made), Answer::Read);
        // From a directory.
        assert_eq!(Rule::Auto.of_copy(&file(10, 20), &made), Answer::Same);
        assert_eq!(Rule::Auto.of_copy(&file(12, 20), &made), Answer::Different);
        assert_eq!(Rule::Auto.of_copy(&file(10, 40), &made), Answer::Different);
        // To a service that shows it in place of its own.
        assert_eq!(Rule::Auto.of_copy(&file(10, 20), &listed(1, None, 10)), Answer::Same);
        assert_eq!(Rule::Auto.of_copy(&file(10, 20), &listed(1, None, 11)), Answer::Different);
    }

    #[test]
    fn a_proof_reads_where_the_listing_proves_nothing() {
        assert_eq!(Rule::Auto.of_proof(&listed(1, None, 10), &listed(1, Some("a"), 20)), Answer::Read);
        assert_eq!(Rule::Auto.of_proof(&listed(0, None, 30), &listed(0, None, 20)), Answer::Same);
        assert_eq!(Rule::Auto.of_proof(&listed(1, Some("a"), 30), &listed(1, Some("a"), 20)), Answer::Same);
        assert_eq!(Rule::Auto.of_proof(&listed(1, None, 10), &listed(2, None, 20)), Answer::Different);
    }
}

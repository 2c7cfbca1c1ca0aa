//! One opened place: its operator, its names, and what the store behind it can do.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use opendal::{Metadata, Operator};

use super::apart::Spot;
use super::bucket::{Bucket, BucketError};
use super::classify::{classify, is_missing};
use super::listing::{Kind, Listed, Listing};
use super::open::{Opened, UNFINISHED, Wanted};
use crate::error::StepError;

/// What a store can do, as far as copying is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Abilities {
    /// Keeps a content type and the other HTTP headers of an object.
    pub content_type: bool,
    /// Keeps names and values of the user's own.
    pub user_metadata: bool,
    /// Can keep old versions of an object (whether this bucket does is seen on its objects).
    pub versions: bool,
    /// Copies an object within itself without sending it.
    pub server_copy: bool,
    /// Reads only the object that was listed, by its `ETag`.
    pub reads_if_match: bool,
    /// An object shows up whole or not at all.
    pub appears_whole: bool,
    /// Takes an object in pieces; else the whole object has to lie in memory.
    pub streams: bool,
    /// Holds names as they are; else as files in folders.
    pub is_flat: bool,
}

/// What identifies the state of an object: two equal facts are the same object, unchanged.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Facts {
    /// Bytes.
    pub size: u64,
    /// As the store gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// When it was last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<jiff::Timestamp>,
    /// Its version, when the store keeps versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl Facts {
    /// What a store says of an object.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.content_length(),
            // Some services give an empty one.
            etag: metadata.etag().filter(|etag| !etag.trim_matches('"').is_empty()).map(str::to_owned),
            modified: metadata.last_modified().map(opendal::raw::Timestamp::into_inner),
            version: metadata.version().filter(|version| *version != "null").map(str::to_owned),
        }
    }

    /// Whether both are the same state as surely as the store can tell: the same `ETag`, or the same time to its last digit.
    pub fn is_surely(&self, other: &Self) -> bool {
        let etags = self.etag.as_ref().zip(other.etag.as_ref());
        self.size == other.size
            && match (etags, self.modified.zip(other.modified)) {
                (Some((a, b)), _) => a.trim_matches('"') == b.trim_matches('"'),
                (None, Some((a, b))) => is_at_once(a, b),
                (None, None) => false,
            }
    }

    /// Whether both can be the same state. What only one of them knows does not count; listings round times to seconds.
    pub fn agree(&self, other: &Self) -> bool {
        if self.size != other.size {
            return false;
        }
        if let (Some(a), Some(b)) = (&self.etag, &other.etag) {
            return a.trim_matches('"') == b.trim_matches('"');
        }
        match (self.modified, other.modified) {
            (Some(a), Some(b)) => a.as_second().abs_diff(b.as_second()) <= 1,
            _ => true,
        }
    }
}

/// A listing may round to seconds.
pub(crate) fn is_at_once(a: jiff::Timestamp, b: jiff::Timestamp) -> bool {
    if a.subsec_nanosecond() == 0 || b.subsec_nanosecond() == 0 { a.as_second() == b.as_second() } else { a == b }
}

/// An opened place. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    label: Arc<str>,
    prefix: Arc<str>,
    scheme: Arc<str>,
    identity: Arc<str>,
    account: Arc<str>,
    has_own_key: bool,
    spot: Arc<Spot>,
    operator: Operator,
    is_ordered: Arc<AtomicBool>,
    keeps_metadata: Arc<AtomicBool>,
    bucket: Option<Arc<dyn Bucket>>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Store").field(&self.label).finish()
    }
}

impl Store {
    pub(super) fn new(label: String, wanted: Wanted, opened: Opened) -> Self {
        let (identity, spot) = (wanted.key(None), wanted.spot().into());
        let (account, has_own_key) = (wanted.account().into(), wanted.has_own_key());
        Self {
            label: label.into(),
            prefix: wanted.prefix.into(),
            scheme: wanted.scheme.into(),
            identity: identity.into(),
            account,
            has_own_key,
            spot,
            operator: opened.operator,
            is_ordered: opened.is_ordered,
            keeps_metadata: opened.keeps_metadata,
            bucket: opened.bucket,
        }
    }

    /// The place for people: `old:uploads/`.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The operator; paths in it come from [`Store::path`].
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The bucket behind it, asked directly, with keys that begin with [`Store::prefix`]. `None` for what has no buckets.
    pub fn bucket(&self) -> Option<Arc<dyn Bucket>> {
        self.bucket.clone()
    }

    /// The prefix in the operator: empty, or ends with `/`.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// A key as the bucket knows it, with this place's prefix.
    pub fn whole_key(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// OpenDAL's scheme.
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// Whether the place is the whole store.
    pub fn is_everything(&self) -> bool {
        self.prefix.is_empty()
    }

    /// What the store can do.
    pub fn abilities(&self) -> Abilities {
        let can = self.operator.info().capability();
        let is_flat = matches!(&*self.scheme, "s3" | "azblob" | "gcs" | "memory");
        Abilities {
            content_type: can.write_with_content_type,
            user_metadata: can.write_with_user_metadata
                && &*self.scheme != "webdav"
                && self.keeps_metadata.load(Ordering::Relaxed),
            versions: can.restore_with_version,
            server_copy: can.copy && is_flat && &*self.scheme != "memory",
            reads_if_match: can.read_with_if_match && is_flat,
            appears_whole: &*self.scheme != "sftp",
            streams: can.write_can_multi,
            is_flat,
        }
    }

    /// Remembers that the file system refuses user metadata.
    pub fn forget_metadata(&self) {
        self.keeps_metadata.store(false, Ordering::Relaxed);
    }

    /// Whether both places lie in the same bucket of the same service, reached with the same account.
    pub fn is_same_bucket(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// Whether the service copies objects from that place to this one by itself; if not, why. Another bucket counts, as
    /// long as the same key is asked with: only then is it known that the service may read the source.
    pub fn copies_from(&self, from: &Self) -> Result<(), &'static str> {
        if self.scheme != from.scheme {
            return Err("the services are of different kinds");
        }
        if self.bucket.is_none() || from.bucket.is_none() {
            let is_one = self.is_same_bucket(from) && self.abilities().server_copy;
            return if is_one { Ok(()) } else { Err("these are not two places in one service that copies by itself") };
        }
        if self.spot.service != from.spot.service {
            return Err("these are two services");
        }
        if self.account != from.account {
            return Err("the two places are reached with different keys");
        }
        if self.has_own_key {
            return Err("the objects are encrypted with a key of your own");
        }
        Ok(())
    }

    /// Where it lies, without secrets: scheme, host, bucket and prefix, the same however it is spelled.
    pub fn whereabouts(&self) -> String {
        self.spot.to_string()
    }

    /// Where it lies, however it is spelled.
    pub(super) fn spot(&self) -> &Spot {
        &self.spot
    }

    /// Whether flat listings can be trusted to come in order.
    pub(super) fn lists_flat(&self) -> bool {
        self.abilities().is_flat
            && self.operator.info().capability().list_with_recursive
            && self.is_ordered.load(Ordering::Relaxed)
    }

    pub(super) fn distrust_order(&self) {
        self.is_ordered.store(false, Ordering::Relaxed);
    }

    /// Whether this key is ferry's own: a file that is not whole yet.
    pub(super) fn is_unfinished(&self, key: &str) -> bool {
        &*self.scheme == "fs" && key.starts_with(UNFINISHED)
    }

    /// Removes what this owner left unfinished when its runner died, and the folder if nobody else uses it.
    pub async fn clear_unfinished(&self, owner: &str) {
        if &*self.scheme == "fs" {
            let folder = format!("/{}{UNFINISHED}", self.prefix);
            let _ = tokio::fs::remove_dir_all(format!("{folder}/{owner}")).await;
            let _ = tokio::fs::remove_dir(folder).await;
        }
    }

    /// The operator's path of a key. Refuses names that the way there would change: the object would be lost, or
    /// another would be hit.
    pub fn path(&self, key: &str) -> Result<String, StepError> {
        let refuse = |why: &str| {
            StepError::permanent(format!("the name `{key}` cannot be used in `{}`: {why}", self.label))
                .help("rename the object, or leave it out with `exclude`")
        };
        let path = format!("{}{key}", self.prefix);
        let inner = key.strip_suffix('/').unwrap_or(key);
        if inner.is_empty() {
            return Err(refuse("it is empty"));
        }
        for part in inner.split('/') {
            match part {
                "" => return Err(refuse("it has an empty part between slashes, which is lost on the way")),
                "." | ".." => return Err(refuse(&format!("`{part}` means a folder on the way there"))),
                _ => {}
            }
        }
        if path.trim() != path {
            return Err(refuse("white space at its border is lost on the way"));
        }
        if key.contains('\0') {
            return Err(refuse("it holds a NUL"));
        }
        if self.is_unfinished(key) {
            return Err(refuse("ferry keeps unfinished files there"));
        }
        let longest = match &*self.scheme {
            "s3" | "gcs" | "azblob" => 1024,
            "memory" => usize::MAX,
            _ => {
                if inner.split('/').any(|part| part.len() > 255) {
                    return Err(refuse("a part of it is longer than 255 bytes"));
                }
                4000
            }
        };
        if path.len() > longest {
            return Err(refuse(&format!("it is longer than {longest} bytes with its prefix")));
        }
        Ok(path)
    }

    /// Refuses a name that this store cannot hold. A bucket that is asked directly holds any, `a//b` and `../a` too.
    pub fn must_take(&self, key: &str) -> Result<(), StepError> {
        if self.bucket.is_none() {
            return self.path(key).map(drop);
        }
        let longest = 1024;
        let why = match self.whole_key(key).len() {
            0 => "it is empty".to_owned(),
            length if length > longest => format!("it is longer than {longest} bytes with its prefix"),
            _ => return Ok(()),
        };
        Err(StepError::permanent(format!("the name `{key}` cannot be used in `{}`: {why}", self.label))
            .help("rename the object, or leave it out with `exclude`"))
    }

    /// Refuses what was listed under a name that could only be shown, or that the store cannot be asked for.
    pub fn usable(&self, listed: &Listed) -> Result<(), StepError> {
        if listed.kind == Kind::BadName {
            return Err(StepError::permanent(format!(
                "the name `{}` cannot be used in `{}`: it is not UTF-8",
                listed.key, self.label
            ))
            .help("rename the file, or leave it out with `exclude`"));
        }
        self.must_take(&listed.key)
    }

    /// Fails when the place is a folder that is not there, or a file. In a bucket a prefix without objects is no error.
    pub async fn must_exist(&self) -> Result<(), StepError> {
        if self.is_there().await? {
            return Ok(());
        }
        Err(StepError::permanent(format!("there is no folder `{}`", self.label)).help("see that the path is right"))
    }

    /// Fails when the place is a file. A folder may be missing: what writes there makes it.
    pub async fn must_be_no_file(&self) -> Result<(), StepError> {
        self.is_there().await.map(|_| ())
    }

    async fn is_there(&self) -> Result<bool, StepError> {
        if self.abilities().is_flat || self.prefix.is_empty() {
            return Ok(true);
        }
        let is_a_file = if &*self.scheme == "fs" {
            match tokio::fs::metadata(format!("/{}", self.prefix.trim_end_matches('/'))).await {
                Ok(metadata) => !metadata.is_dir(),
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
                // A part of the way there is a file.
                Err(error) if error.kind() == ErrorKind::NotADirectory => true,
                // The listing tells what is wrong.
                Err(_) => return Ok(true),
            }
        } else {
            match self.operator.stat(&self.prefix).await {
                Ok(metadata) => metadata.is_file(),
                Err(error) if is_missing(&error) => return Ok(false),
                Err(error) => return Err(classify(&format!("cannot look at `{}`", self.label), error)),
            }
        };
        if is_a_file {
            return Err(StepError::permanent(format!("`{}` is a file, or lies below one, and a place is a folder", self.label))
                .help("name the file's folder, and the file itself under `include`"));
        }
        Ok(true)
    }

    /// All objects in byte order of their keys, from behind `after`.
    pub fn list(&self, after: Option<&str>) -> Listing {
        Listing::new(self.clone(), after)
    }

    /// What the store says of an object; `None` when there is none.
    pub async fn stat(&self, key: &str) -> Result<Option<Facts>, StepError> {
        if let Some(bucket) = &self.bucket {
            self.must_take(key)?;
            return match bucket.head(&self.whole_key(key)).await {
                Ok(head) => Ok(Some(head.facts)),
                Err(BucketError::Missing) => Ok(None),
                Err(error) => Err(error.into_step(&format!("cannot look at `{key}` in `{}`", self.label))),
            };
        }
        match self.operator.stat(&self.path(key)?).await {
            Ok(metadata) => Ok(Some(Facts::of(&metadata))),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(classify(&format!("cannot look at `{key}` in `{}`", self.label), error)),
        }
    }

    /// Sets the time of a file in a directory. Other stores have none of their own.
    pub async fn set_modified(&self, key: &str, time: jiff::Timestamp) -> Result<(), std::io::Error> {
        if &*self.scheme != "fs" {
            return Ok(());
        }
        let path = self.path(key).map_err(std::io::Error::other)?;
        tokio::task::spawn_blocking(move || {
            use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};
            // Nanoseconds count from the second before, in times before 1970 too.
            let nanos = i64::from(time.subsec_nanosecond());
            let last_modification =
                Timespec { tv_sec: time.as_second() + nanos.div_euclid(1_000_000_000), tv_nsec: nanos.rem_euclid(1_000_000_000) };
            let times = Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification };
            Ok(utimensat(CWD, format!("/{path}"), &times, AtFlags::SYMLINK_NOFOLLOW)?)
        })
        .await
        .map_err(std::io::Error::other)?
    }

    /// Removes an object; none there is no error.
    pub async fn remove(&self, key: &str) -> Result<(), StepError> {
        if let Some(bucket) = &self.bucket {
            self.must_take(key)?;
            let failed = bucket.delete(&[self.whole_key(key)]).await;
            let failed = failed.map_err(|error| error.into_step(&format!("cannot delete `{key}` in `{}`", self.label)))?;
            return failed.into_iter().next().map_or(Ok(()), |(_, error)| Err(error));
        }
        match self.operator.delete(&self.path(key)?).await {
            Ok(()) => Ok(()),
            Err(error) if is_missing(&error) => Ok(()),
            Err(error) => Err(classify(&format!("cannot delete `{key}` in `{}`", self.label), error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::secret::Vault;
    use crate::stores::Stores;

    fn open(place: &str) -> Store {
        Stores::new(BTreeMap::new(), Vault::default()).open(place, Path::new("/")).expect("it opens")
    }

    #[test]
    fn a_name_that_the_way_there_would_change_is_refused_by_name() {
        let store = open("s3://bucket/in/?region=us-east-1");
        for key in ["a//b", "/a", "../a", "a/..", "a/./b", "a ", "", "a\0b", &"x".repeat(1025)] {
            let error = store.path(key).expect_err(key);
            assert!(error.message.contains(key), "{error}");
        }
        for key in ["a b", " a", "ü/✓", "a%2Fb", "a?b#c", "..a", "a/", &"x".repeat(1021)] {
            assert_eq!(store.path(key).expect(key), format!("in/{key}"));
        }
        assert!(open("file:///tmp").path(&"x".repeat(256)).is_err());
    }

    #[test]
    fn a_service_copies_between_places_that_one_key_opens() {
        let at = |place: &str| {
            open(&format!("{place}{}region=x&access_key_id=a&secret_access_key=b", if place.contains('?') { '&' } else { '?' }))
        };
        let target = at("s3://new/in/?endpoint=http://127.0.0.1:9000");
        for same in ["s3://old/?endpoint=http://localhost:9000/", "s3://new/?endpoint=http://127.0.0.1:9000"] {
            assert_eq!(target.copies_from(&at(same)), Ok(()), "{same}");
        }
        for other in
            ["s3://old/?endpoint=http://127.0.0.1:9001", "s3://old/", "s3://old/?endpoint=http://127.0.0.1:9000&session_token=t"]
        {
            assert!(target.copies_from(&at(other)).is_err(), "{other}");
        }
        assert_eq!(at("s3://new/").copies_from(&at("s3://old/?endpoint=https://s3.eu-west-1.amazonaws.com")), Ok(()));
        let azure = |account: &str, more: &str| {
            open(&format!("azblob://box/?endpoint=http://127.0.0.1:9/{account}&account_name={account}&{more}"))
        };
        let target = azure("one", "account_key=a2V5");
        assert_eq!(target.copies_from(&azure("one", "account_key=b3RoZXI=")), Ok(()));
        assert!(target.copies_from(&azure("two", "account_key=a2V5")).is_err());
        assert!(target.copies_from(&azure("one", "sas_token=sig")).is_err());
        assert!(open("file:///tmp/a").copies_from(&open("file:///tmp/b")).is_err());
    }

    #[test]
    fn opening_a_directory_to_look_at_it_creates_nothing() {
        let folder = tempfile::tempdir().expect("a directory");
        let there = folder.path().join("not/there");
        let store = open(&format!("file://{}", there.display()));
        assert!(!there.exists());
        assert_eq!(store.prefix(), format!("{}/", there.display()).trim_start_matches('/'));
    }

    #[test]
    fn a_wrong_option_is_refused_with_the_nearest_name() {
        let stores = Stores::new(BTreeMap::new(), Vault::default());
        let error = stores.open("s3://bucket/?regoin=x", Path::new("/")).expect_err("no such option");
        assert_eq!(error.help.as_deref(), Some("did you mean `region`?"));
    }
}

//! The reading end of a copy: one object of the source, opened, and its pieces.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use opendal::options::ReaderOptions;
use opendal::{Metadata, Reader};

use super::super::carry::Tags;
use super::Stop;
use crate::error::{ErrorClass, StepError};
use crate::stores::bucket::{Bucket, BucketError, Properties};
use crate::stores::{Facts, Listed, Store, classify, is_changed, is_missing};

/// An object at the source as it was when its copy began.
#[derive(Clone)]
pub struct Origin {
    /// Its state.
    pub facts: Facts,
    /// What is kept with it. Empty until it is known: a bucket tells it with the first piece.
    pub properties: Properties,
    /// Whether its tags are read along with it.
    tags: Tags,
    /// How many tags it was said to have when it was looked at.
    told: u32,
    way: Way,
}

#[derive(Clone)]
enum Way {
    Bucket { bucket: Arc<dyn Bucket>, key: String },
    Plain { reader: Reader, path: String },
}

impl Origin {
    /// Opens an object as it was listed. A bucket is not asked for it: the first piece tells whether it is still that.
    pub async fn open(store: &Store, listed: &Listed, tags: Tags) -> Result<Self, Stop> {
        if let Some(bucket) = store.bucket().filter(|_| listed.facts.etag.is_some()) {
            let way = Way::Bucket { bucket, key: store.whole_key(&listed.key) };
            // Azure tells the tier in listings, and not with the content.
            let properties = Properties { storage_class: listed.storage_class.clone(), ..Properties::default() };
            return Ok(Self { facts: listed.facts.clone(), properties, tags, told: 0, way });
        }
        Ok(Self::look(store, &listed.key).await?.asking(tags))
    }

    /// Opens an object as it is now.
    pub async fn look(store: &Store, key: &str) -> Result<Self, Stop> {
        if let Some(bucket) = store.bucket() {
            let key = store.whole_key(key);
            let head = bucket.head(&key).await.map_err(|error| not_read(store, &key, error))?;
            let (facts, properties, way) = (head.facts, head.properties, Way::Bucket { bucket, key });
            return Ok(Self { facts, properties, tags: Tags::No, told: head.tags, way });
        }
        let path = store.path(key)?;
        let metadata = store.operator().stat(&path).await.map_err(|error| failed(store, key, error))?;
        let abilities = store.abilities();
        let if_match = metadata.etag().map(str::to_owned).filter(|_| abilities.reads_if_match);
        let options = ReaderOptions { if_match, ..ReaderOptions::default() };
        let reader = store.operator().reader_options(&path, options).await.map_err(|error| failed(store, key, error))?;
        let (facts, properties, way) = (Facts::of(&metadata), properties(&metadata), Way::Plain { reader, path });
        Ok(Self { facts, properties, tags: Tags::No, told: 0, way })
    }

    /// Opens a large object as it is now, and sees how many tags it has: many S3 services tell that with the content only,
    /// and so the first byte is read.
    pub async fn look_for_tags(store: &Store, key: &str, tags: Tags) -> Result<Self, Stop> {
        let Some(bucket) = store.bucket().filter(|_| store.scheme() == "s3" && tags == Tags::Auto) else {
            return Self::look(store, key).await;
        };
        let key = store.whole_key(key);
        let head = bucket.get(&key, Some(0..1), None).await.map_err(|error| not_read(store, &key, error))?.head;
        let (facts, properties, way) = (head.facts, head.properties, Way::Bucket { bucket, key });
        Ok(Self { facts, properties, tags: Tags::No, told: head.tags, way })
    }

    /// With its tags, when it is read whole.
    pub fn asking(self, tags: Tags) -> Self {
        Self { tags, ..self }
    }

    /// What is kept with an object that was looked at, and its tags.
    pub async fn tagged(self, store: &Store, tags: Tags) -> Result<Properties, Stop> {
        match &self.way {
            Way::Bucket { bucket, key } if tags.asks(self.told) => tagged(store, &**bucket, key, self.properties).await,
            _ => Ok(self.properties),
        }
    }

    /// A range of its bytes, whole; `None` for all of it. Fails with `Changed` when it is not what it was.
    pub async fn read(&self, store: &Store, range: Option<Range<u64>>) -> Result<(Bytes, Option<Properties>), Stop> {
        match &self.way {
            Way::Bucket { bucket, key } => {
                let got = bucket.get(key, range.clone(), self.facts.etag.as_deref()).await;
                let got = got.map_err(|error| not_read(store, key, error))?;
                let wanted = range.as_ref().map_or(self.facts.size, |range| range.end - range.start);
                // Servers that do not know `If-Match` still say what they send.
                if !got.head.facts.agree(&self.facts) || got.body.len() as u64 != wanted {
                    return Err(Stop::Changed);
                }
                let mut properties = got.head.properties;
                properties.storage_class = properties.storage_class.or_else(|| self.properties.storage_class.clone());
                if range.is_none() && self.tags.asks(got.head.tags) {
                    properties = tagged(store, &**bucket, key, properties).await?;
                }
                Ok((got.body, Some(properties)))
            }
            Way::Plain { reader, path } => {
                let range = range.unwrap_or(0..self.facts.size);
                let wanted = range.end - range.start;
                if wanted == 0 {
                    return Ok((Bytes::new(), None));
                }
                let read = reader.read(range).await.map_err(|error| failed(store, path, error))?;
                if read.len() as u64 == wanted {
                    return Ok((read.to_bytes(), None));
                }
                if !self.is_still(store).await {
                    return Err(Stop::Changed);
                }
                let (came, label) = (read.len(), store.label());
                let message = format!("`{label}` sent {came} of the {wanted} bytes of `{path}`");
                Err(Stop::Step(StepError::transient(message)))
            }
        }
    }

    /// Whether the object at the source is still what it was. An answer that does not come counts as yes: then the
    /// first failure is the one to tell.
    pub async fn is_still(&self, store: &Store) -> bool {
        let now = match &self.way {
            // Every piece was read under its condition.
            Way::Bucket { .. } => return true,
            Way::Plain { path, .. } => store.operator().stat(path).await,
        };
        match now {
            Ok(now) => {
                let is = Facts::of(&now);
                self.facts.agree(&is) && (self.facts.etag.is_some() || self.facts.modified == is.modified)
            }
            Err(error) => !is_missing(&error),
        }
    }
}

/// Properties with the tags.
async fn tagged(store: &Store, bucket: &dyn Bucket, key: &str, properties: Properties) -> Result<Properties, Stop> {
    let tags = bucket.tags(key).await.map_err(|error| not_read(store, key, error))?;
    Ok(Properties { tags, ..properties })
}

/// What OpenDAL tells of what is kept with an object.
fn properties(metadata: &Metadata) -> Properties {
    let text = |value: Option<&str>| value.map(str::to_owned);
    Properties {
        content_type: text(metadata.content_type()),
        content_encoding: text(metadata.content_encoding()),
        content_disposition: text(metadata.content_disposition()),
        cache_control: text(metadata.cache_control()),
        user: metadata
            .user_metadata()
            .map(|own| own.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
            .unwrap_or_default(),
        ..Properties::default()
    }
}

fn failed(store: &Store, key: &str, error: opendal::Error) -> Stop {
    if is_missing(&error) {
        return Stop::Gone;
    }
    if is_changed(&error) {
        return Stop::Changed;
    }
    classify(&format!("cannot read `{key}` in `{}`", store.label()), error).into()
}

fn not_read(store: &Store, key: &str, error: BucketError) -> Stop {
    match error {
        BucketError::Missing => Stop::Gone,
        BucketError::Changed => Stop::Changed,
        BucketError::Failed(error) | BucketError::Refused(error) => {
            let message = format!("cannot read `{key}` in `{}`: {}", store.label(), error.message);
            Stop::from(StepError { message, ..error })
        }
        // Nothing that reads gives it.
        error @ BucketError::Parts(_) => error.into_step(&format!("cannot read `{key}` in `{}`", store.label())).into(),
    }
}

impl From<StepError> for Stop {
    /// What is permanent is the object's; what may pass, or needs a person, is the store's.
    fn from(error: StepError) -> Self {
        if error.class == ErrorClass::Permanent { Self::Object(error) } else { Self::Step(error) }
    }
}

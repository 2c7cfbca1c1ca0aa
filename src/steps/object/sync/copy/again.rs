//! What is there is read again: its content, or the time that a file has.

use super::super::carry::{self, file_time};
use super::super::hash;
use super::super::ledger::Line;
use super::{Job, Origin, PART, Stop, Transfer, Trouble, WHOLE};
use crate::error::StepError;
use crate::steps::object::content::{self, Object};
use crate::steps::object::same::is_at;
use crate::stores::Store;
use crate::stores::bucket::BucketError;

impl Transfer {
    /// Reads again what an earlier attempt has left and could not look at any more. False: it is another content.
    pub async fn verify(&self, key: &str, sent: Option<&str>) -> Result<bool, Trouble> {
        match self.check(key, sent).await {
            Ok(()) => Ok(true),
            Err(Stop::Step(error)) => Err(Trouble::Step(error)),
            Err(_) => Ok(false),
        }
    }

    /// Whether the object that is there has the content of the source's.
    pub async fn has_same_content(&self, job: &Job) -> Result<bool, StepError> {
        let Some(there) = &job.there else { return Ok(false) };
        let source = Object { store: &self.source, listed: &job.listed };
        let target = Object { store: &self.target, listed: there };
        Ok(content::compare(source, target, self.reads_both, &|_| {}).await?.is_same)
    }

    /// Whether the file that is there has the time which its object at the source tells for files.
    pub async fn has_its_time(&self, job: &Job) -> Result<bool, StepError> {
        let (Some(bucket), Some(there)) = (self.source.bucket(), &job.there) else { return Ok(false) };
        let key = &job.listed.key;
        let time = match bucket.head(&self.source.whole_key(key)).await {
            Ok(head) => file_time(carry::Kind::of(&self.source), &head.properties.user),
            Err(BucketError::Missing) => None,
            Err(error) => return Err(error.into_step(&format!("cannot look at `{key}` in `{}`", self.source.label()))),
        };
        Ok(time.zip(there.facts.modified).is_some_and(|(time, there)| is_at(there, time)))
    }

    /// Reads the target again: what arrived is what was sent. What the service copied within itself was not sent: then the
    /// source is read too.
    pub(super) async fn check(&self, key: &str, sent: Option<&str>) -> Result<(), Stop> {
        let sent = match sent {
            Some(sent) => sent.to_owned(),
            None => self.hash_of(&self.source, &Origin::look(&self.source, key).await?).await?,
        };
        if self.hash_of(&self.target, &Origin::look(&self.target, key).await?).await? == sent {
            return self.ledger.tell(&Line::Verified { key: key.to_owned() }).map_err(Stop::Step);
        }
        let (target, source) = (self.target.label(), self.source.label());
        Err(Stop::Object(
            StepError::transient(format!("`{key}` has another content in `{target}` than what was read from `{source}`"))
                .help("one of the stores or the way between them changes bytes: try again, and see both stores' logs"),
        ))
    }

    /// The BLAKE3 of an object, piece by piece.
    pub async fn hash_of(&self, store: &Store, origin: &Origin) -> Result<String, Stop> {
        let size = origin.facts.size;
        if size <= WHOLE {
            let _room = self.room(size).await?;
            return Ok(hash::of(&origin.read(store, None).await?.0));
        }
        let mut hasher = blake3::Hasher::new();
        let mut at = 0;
        while at < size {
            let end = (at + PART).min(size);
            let _room = self.room(end - at).await?;
            hasher.update(&origin.read(store, Some(at..end)).await?.0);
            at = end;
        }
        Ok(hasher.finalize().to_hex().to_string())
    }
}

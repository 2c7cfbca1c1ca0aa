//! How what is kept with an object gets to another kind of place: storage classes, tags, names, times.
//!
//! In: what the source tells. Out: what the target is given. What cannot get there is known before, and a plan says it.
//! Between two buckets of one kind everything stays as it is, byte for byte.

mod class;
mod kept;
mod lost;
mod name;
mod tags;
mod time;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub use class::StorageClass;
pub use kept::Kept;
pub use tags::Tags;
pub use time::file_time;

use crate::error::StepError;
use crate::stores::Store;
use crate::stores::bucket::Properties;

/// A kind of place, as far as it keeps things in a way of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    S3,
    Azure,
    Gcs,
    /// A directory of this machine.
    Directory,
    Sftp,
    Other,
}

impl Kind {
    /// The kind of a place.
    pub fn of(store: &Store) -> Self {
        match store.scheme() {
            "s3" => Self::S3,
            "azblob" => Self::Azure,
            "gcs" => Self::Gcs,
            "fs" => Self::Directory,
            "sftp" => Self::Sftp,
            _ => Self::Other,
        }
    }

    /// Whether the time of a file there is the file's own: it was set by who made it, not by when it was put there.
    fn has_own_times(self) -> bool {
        matches!(self, Self::Directory | Self::Sftp)
    }

    /// Whether a bucket of this kind can be asked directly.
    fn is_asked(self) -> bool {
        matches!(self, Self::S3 | Self::Azure)
    }
}

/// From one place to another.
#[derive(Debug)]
pub struct Carriage {
    from: Kind,
    to: Kind,
    tags: Tags,
    classes: StorageClass,
}

impl Carriage {
    pub fn new(source: &Store, target: &Store, tags: Tags, classes: StorageClass) -> Self {
        let (from, to) = (Kind::of(source), Kind::of(target));
        let tags = if from.is_asked() && to.is_asked() { tags } else { Tags::No };
        Self { from, to, tags, classes }
    }

    /// Whether tags are asked for, of which so many were told.
    pub fn tags(&self) -> Tags {
        self.tags
    }

    /// The storage class at the target of what lies in this one at the source.
    pub fn class<'a>(&'a self, class: Option<&'a str>) -> Option<&'a str> {
        self.classes.at(self.to, self.from, class)
    }

    /// What the target is given of an object with these properties, last changed then. `time` in the answer is for
    /// the file that is made, where the target has files.
    pub fn carry(&self, key: &str, properties: Properties, modified: Option<Timestamp>) -> Result<Carried, StepError> {
        let class = self.class(properties.storage_class.as_deref()).map(str::to_owned);
        let own = modified.filter(|_| self.from.has_own_times());
        if self.from == self.to && self.from.is_asked() {
            return Ok(Carried { properties: Properties { storage_class: class, ..properties }, time: None });
        }
        let mut user = BTreeMap::new();
        for (name, value) in properties.user {
            let name = if self.from == Kind::Azure { name::decoded(&name) } else { name };
            user.insert(name, value);
        }
        let time = own.or_else(|| time::told(&user));
        match self.to {
            Kind::Directory => _ = time.and_then(|_| user.remove(time::MTIME)),
            _ => _ = time.and_then(|time| user.insert(time::MTIME.to_owned(), time::written(self.to, time)?)),
        }
        if self.to.is_asked() {
            user = name::folded(key, user)?;
        }
        if self.to == Kind::Azure {
            user = user.into_iter().map(|(name, value)| (name::encoded(&name), value)).collect();
        }
        let time = time.filter(|_| self.to == Kind::Directory);
        Ok(Carried { properties: Properties { user, storage_class: class, ..properties }, time })
    }
}

/// What the target is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// With the object.
    pub properties: Properties,
    /// As the time of the file.
    pub time: Option<Timestamp>,
}

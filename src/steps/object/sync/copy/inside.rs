//! A copy that the service makes within itself: nothing is sent.

use std::sync::atomic::Ordering;

use super::{Copied, Job, Origin, Stop, Transfer};
use crate::stores::Facts;

impl Transfer {
    /// Whether both places are in one bucket of a service that copies within itself.
    pub(super) fn is_inside(&self) -> bool {
        self.source.is_same_bucket(&self.target) && self.target.abilities().server_copy
    }

    pub(super) async fn inside(&self, job: &Job, origin: &Origin) -> Result<Copied, Stop> {
        let key = &job.listed.key;
        let (from, to) = (self.source.path(key)?, self.target.path(key)?);
        let room = self.room(0).await?;
        let copied = self.target.operator().copy(&from, &to).await.map_err(|error| self.not_written(key, error))?;
        let now = Origin::look(&self.source, key).await?;
        if !now.facts.agree(&origin.facts) {
            return Err(Stop::Changed);
        }
        self.moved.fetch_add(origin.facts.size, Ordering::Relaxed);
        self.ends.fetch_add(1, Ordering::Relaxed);
        // A verification takes a place of its own.
        drop(room);
        self.arrived(key, origin.facts.size, Facts::of(&copied), None).await
    }
}

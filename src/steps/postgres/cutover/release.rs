//! The way back from before the pivot: no pause, no fence, the old primary serves.

use std::time::Duration;

use super::follower::{Follower, Method};
use super::router::Task;
use super::{Before, Cutover, back, fence};
use crate::error::StepError;
use crate::postgres::{Owner, Reach};
use crate::steps::StepContext;

/// How often, and how many times, is looked whether the old primary lets somebody in again.
const EVERY: Duration = Duration::from_millis(20);
const LOOKS: u32 = 100;

impl Cutover {
    /// Puts everything back, from whatever state before the pivot. First the fence, so that clients that go on are let in.
    pub(super) async fn release(&self, ctx: &StepContext, reach: &Reach, before: &Before) -> Result<(), StepError> {
        let task = self.task(reach);
        let owner = Owner::of(reach, self.replica.from())?;
        let is_open = async {
            for _ in 0..LOOKS {
                if reach.connect(self.replica.from()).await.is_ok() {
                    return;
                }
                tokio::time::sleep(EVERY).await;
            }
            // The fence is gone all the same, and the pause has to end.
            ctx.warn(format!("`{}` still lets nobody in", self.replica.from().title()));
        };
        let lifted = fence::lift(&owner, &Self::files(before, task.key), &before.source.data, task.key, is_open).await;
        // A pause is ended also when the fence stands: an error is better for clients than no answer.
        let mut first = lifted.as_ref().err().map(ToString::to_string);
        let mut failed = lifted.err();
        for (router, seen) in self.routers.iter().zip(&before.routers) {
            if let Err(error) = router.release(&task, seen).await {
                first.get_or_insert_with(|| error.to_string());
                failed.get_or_insert(error);
            }
        }
        if let (true, Follower::Rows(rows)) = (self.way_back, &self.replica)
            && let Err(error) = back::take_back(reach, rows, task.key).await
        {
            // They hold the target's log back.
            first.get_or_insert_with(|| error.to_string());
            failed.get_or_insert(error);
        }
        match failed {
            None => {
                ctx.log("pause and fence are lifted: the old primary serves");
                Ok(())
            }
            Some(error) => {
                ctx.warn(format!("not all could be put back: {}", first.unwrap_or_default()));
                Err(error)
            }
        }
    }

    /// Undo.
    pub(super) async fn put_back(&self, ctx: &StepContext, before: &Before) -> Result<(), StepError> {
        let reach = Self::reach(ctx);
        if Self::is_past(ctx) {
            return Err(self.no_way_back());
        }
        // The journal says that no promote was sent. Somebody else may have sent one.
        if self.replica.method() == Method::Physical
            && let Ok((_, target)) = reach.cluster(self.replica.to()).await
            && !target.in_recovery
        {
            return Err(self.no_way_back());
        }
        self.release(ctx, &reach, before).await
    }

    fn no_way_back(&self) -> StepError {
        StepError::needs_person(format!("`{}` is the primary now: the cutover cannot be undone", self.replica.to().title())).help(
            "`ferry resume` goes forward; `postgres.failback` and another cutover go back without losing what was written since",
        )
    }
}

impl Task<'_> {
    /// The two servers in messages.
    pub(super) fn both(&self) -> (String, String) {
        (self.from.title(), self.to.title())
    }
}

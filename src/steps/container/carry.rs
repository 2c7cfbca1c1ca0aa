//! A container carried from one host to the other: checkpointed, copied, restored; or put back where it was.

use std::time::Duration;

use super::super::address::Address;
use super::super::criu::carry::span;
use super::super::criu::through::through;
use super::place::Place;
use super::preflight::Container;
use crate::error::StepError;
use crate::steps::{Progress, StepContext};
use crate::units::{ByteSize, Span};

/// The container that goes along with its address, and how podman is told.
pub(super) struct Cargo<'a> {
    pub container: &'a Container,
    pub address: Option<&'a Address>,
    pub flags: Vec<&'a str>,
}

/// How long the container did not run, and what was moved meanwhile.
pub(super) struct Carried {
    pub freeze: Span,
    pub phases: [Span; 3],
    pub images: ByteSize,
}

/// What a container is at from now on, for those who watch.
pub(super) fn enter(ctx: &StepContext, state: &str) {
    ctx.log(format!("state: {state}"));
    tell(ctx, state, None);
}

/// How far it is. That is told no more often than people can read it: each state is in the log as well.
fn tell(ctx: &StepContext, state: &str, bytes: Option<u64>) {
    ctx.progress(Progress { bytes, message: Some(state.to_owned()), ..Progress::default() });
}

impl Cargo<'_> {
    /// The whole way. A container that cannot be restored there runs again here, and the failure says why.
    pub(super) async fn carry(&self, ctx: &StepContext, from: &Place<'_>, to: &Place<'_>) -> Result<Carried, StepError> {
        tokio::try_join!(from.prepare(&self.container.id), self.clear(to))?;
        let start = ctx.clock.monotonic();
        enter(ctx, "snapshot");
        ctx.log("the container is frozen");
        if let Err(error) = from.dump(&self.container.id, &self.flags, self.address).await {
            return Err(self.thaw(ctx, from, to, error).await);
        }
        let dumped = ctx.clock.monotonic();
        enter(ctx, "ready");
        let (copied, images) = self.ship(ctx, from, to).await?;
        let end = ctx.clock.monotonic();
        let phases = [dumped.saturating_sub(start), copied.saturating_sub(dumped), end.saturating_sub(copied)].map(span);
        let freeze = span(end.saturating_sub(start));
        ctx.log(format!(
            "the container runs on `{}` after {freeze}: checkpoint {}, copy of {images} {}, restore {}",
            to.host(),
            phases[0],
            phases[1],
            phases[2]
        ));
        Ok(Carried { freeze, phases, images })
    }

    /// Makes room where it goes. What attempts that died have made of it there goes.
    async fn clear(&self, to: &Place<'_>) -> Result<(), StepError> {
        to.remove(&self.container.id).await?;
        to.site.make_folder().await
    }

    /// From the whole checkpoint of an attempt that died on.
    pub(super) async fn land(&self, ctx: &StepContext, from: &Place<'_>, to: &Place<'_>) -> Result<(), StepError> {
        self.clear(to).await?;
        self.ship(ctx, from, to).await.map(drop)
    }

    /// The checkpoint is copied, and the container restored there, or again here.
    async fn ship(&self, ctx: &StepContext, from: &Place<'_>, to: &Place<'_>) -> Result<(Duration, ByteSize), StepError> {
        let shipping = async {
            let give = async {
                let Some(address) = self.address else { return Ok(()) };
                address.away(&from.site.shell, from.site.is_target).await?;
                address.give_guarded(&to.site.shell, to.site.is_target, &to.site.guard).await
            };
            enter(ctx, "in progress");
            let under_way = |bytes| tell(ctx, "in progress", Some(bytes));
            let (images, ()) = tokio::try_join!(copy(from, to, &under_way), give)?;
            let copied = ctx.clock.monotonic();
            to.restore(&self.container.id, &self.flags).await?;
            ctx.log("state: migrated");
            tell(ctx, "migrated", Some(images.0));
            Ok((copied, images))
        };
        match shipping.await {
            Ok(shipped) => Ok(shipped),
            Err(error) => Err(self.back(ctx, from, to, error).await),
        }
    }

    /// A checkpoint that failed leaves the container as it was. If its processes are gone and all of them are in memory, it
    /// was podman that failed and not CRIU: they are made of that again.
    async fn thaw(&self, ctx: &StepContext, from: &Place<'_>, to: &Place<'_>, error: StepError) -> StepError {
        let Ok(found) = from.find(&self.container.id).await else { return error };
        if found.is_dumped {
            // It was the way there that failed. The next attempt goes on from the checkpoint.
            return error;
        }
        if !found.runs && from.restore_here(&self.container.id, &self.flags).await.is_err() {
            return error;
        }
        ctx.log("it was not checkpointed: it runs on where it was");
        for place in [from, to] {
            if let Err(more) = place.site.tidy().await {
                ctx.warn(format!("what was left on `{}` could not be removed: {more}", place.host()));
            }
        }
        error
    }

    /// The container runs again where it came from, with its address and its connections.
    async fn back(&self, ctx: &StepContext, from: &Place<'_>, to: &Place<'_>, error: StepError) -> StepError {
        ctx.log(format!("it does not come to run on `{}` ({error}): it is restored on `{}`", to.host(), from.host()));
        match self.again(from, to).await {
            Ok(()) => {
                ctx.log(format!("it runs on `{}` again", from.host()));
                error
            }
            Err(more) => {
                let (here, folder) = (from.host(), &from.site.folder);
                StepError::needs_person(format!("{error}; and it cannot be restored on `{here}` either: {more}")).help(format!(
                    "its checkpoint is in `{folder}` on `{here}`: when what is wrong there is mended, `ferry resume` tries again"
                ))
            }
        }
    }

    /// Restores the container where it was checkpointed. It is nowhere else then.
    pub(super) async fn again(&self, at: &Place<'_>, other: &Place<'_>) -> Result<(), StepError> {
        other.remove(&self.container.id).await?;
        if let Some(address) = self.address {
            address.away(&other.site.shell, other.site.is_target).await?;
            address.give_guarded(&at.site.shell, at.site.is_target, &at.site.guard).await?;
        }
        at.restore_here(&self.container.id, &self.flags).await?;
        other.site.tidy().await?;
        at.site.tidy().await
    }
}

/// CRIU's images and what podman and the runtime have beside them. What else lies there are notes of the host.
const IMAGES: &str =
    r#"cd "$1" && set -- ./*.img && for f in ./*.json ./*.tar; do [ ! -e "$f" ] || set -- "$@" "$f"; done; exec tar -cf - "$@""#;

/// The checkpoint, from memory to memory, through the runner. How many bytes it was; `tell` is told of them as they go.
async fn copy(from: &Place<'_>, to: &Place<'_>, tell: &(dyn Fn(u64) + Send + Sync)) -> Result<ByteSize, StepError> {
    let read = ["sh", "-c", IMAGES, "ferry", &from.site.folder];
    through(&from.site, &read, &to.site, &["tar", "-C", &to.site.folder, "-xf", "-"], tell).await
}

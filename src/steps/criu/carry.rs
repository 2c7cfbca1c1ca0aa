//! A process carried from one host to the other: frozen, copied, restored; or put back where it was.

use std::time::Duration;

use super::super::address::Address;
use super::preflight::Process;
use super::site::Site;
use super::through::{copy, straight};
use crate::error::StepError;
use crate::steps::StepContext;
use crate::units::{ByteSize, Span};

/// The service that goes along with its address, and how CRIU is told.
pub(super) struct Cargo<'a> {
    pub process: &'a Process,
    pub address: Option<&'a Address>,
    pub flags: Vec<&'a str>,
}

/// How long the process did not run, and what was moved meanwhile.
pub(super) struct Carried {
    pub freeze: Span,
    pub phases: [Span; 3],
    pub images: ByteSize,
    /// The memory that came when it ran again, and how long that took.
    pub pages: Option<(ByteSize, Span)>,
}

/// To the millisecond.
pub(in crate::steps) fn span(time: Duration) -> Span {
    Span(Duration::from_millis(u64::try_from(time.as_millis()).unwrap_or(u64::MAX)))
}

impl Cargo<'_> {
    /// The whole way. A process that cannot be restored there runs again here, and the failure says why.
    pub(super) async fn carry(&self, ctx: &StepContext, from: &Site<'_>, to: &Site<'_>) -> Result<Carried, StepError> {
        // What can be done before the freeze is.
        tokio::try_join!(from.make_folder(), to.make_folder())?;
        if from.at.is_some() {
            let tried = async {
                from.open_gate(to).await?;
                to.try_gate(from).await?;
                from.close_gate().await
            };
            if let Err(error) = tried.await {
                tokio::try_join!(from.tidy(), to.tidy())?;
                return Err(error);
            }
        }
        let start = ctx.clock.monotonic();
        ctx.log("the process is frozen");
        if let Err(error) = from.dump(self.process.pid, &self.flags, self.address).await {
            return Err(self.unfrozen(ctx, from, to, error).await);
        }
        let dumped = ctx.clock.monotonic();
        let (copied, images) = self.land(ctx, from, to, true).await?;
        let end = ctx.clock.monotonic();
        let phases = [dumped.saturating_sub(start), copied.saturating_sub(dumped), end.saturating_sub(copied)].map(span);
        let freeze = span(end.saturating_sub(start));
        ctx.log(format!(
            "the process runs on `{}` after {freeze}: dump {}, copy of {images} {}, restore {}",
            to.host(),
            phases[0],
            phases[1],
            phases[2]
        ));
        Ok(Carried { freeze, phases, images, pages: None })
    }

    /// From whole images on: they are copied and the process is restored there, or again here. An attempt that dumped it itself
    /// has `prepared` the target, and taken the address away.
    pub(super) async fn land(
        &self,
        ctx: &StepContext,
        from: &Site<'_>,
        to: &Site<'_>,
        is_prepared: bool,
    ) -> Result<(Duration, ByteSize), StepError> {
        let landing = async {
            if !is_prepared {
                to.make_folder().await?;
            }
            let give = async {
                let Some(address) = self.address else { return Ok(()) };
                if !is_prepared {
                    address.away(&from.shell, from.is_target).await?;
                }
                address.give_guarded(&to.shell, to.is_target, &to.guard).await
            };
            let send = async { if from.at.is_some() { straight(from, to).await } else { copy(from, to).await } };
            let (images, ()) = tokio::try_join!(send, give)?;
            let copied = ctx.clock.monotonic();
            to.restore(&self.flags).await?;
            Ok((copied, images))
        };
        match landing.await {
            Ok(landed) => Ok(landed),
            Err(error) => Err(self.back(ctx, from, to, error).await),
        }
    }

    /// A dump that failed leaves the process as it was, if it is there.
    pub(super) async fn unfrozen(&self, ctx: &StepContext, from: &Site<'_>, to: &Site<'_>, error: StepError) -> StepError {
        match from.find(self.process.pid, &self.process.sum).await {
            Ok(found) if found.runs => {
                ctx.log("it was not dumped: it runs on where it was");
                for site in [from, to] {
                    if let Err(more) = site.tidy().await {
                        ctx.warn(format!("what was to be on `{}` could not be removed: {more}", site.host()));
                    }
                }
                error
            }
            // The next attempt looks again, and goes on if the images are whole.
            _ => error,
        }
    }

    /// The process runs again where it came from, with its address and its connections.
    async fn back(&self, ctx: &StepContext, from: &Site<'_>, to: &Site<'_>, error: StepError) -> StepError {
        ctx.log(format!("it does not come to run on `{}` ({error}): it is restored on `{}`", to.host(), from.host()));
        match self.again(from, to).await {
            Ok(()) => {
                ctx.log(format!("it runs on `{}` again", from.host()));
                error
            }
            Err(more) => {
                let (here, folder) = (from.host(), &from.folder);
                StepError::needs_person(format!("{error}; and it cannot be restored on `{here}` either: {more}")).help(format!(
                    "its images are in `{folder}` on `{here}`: when what is wrong there is mended, `ferry resume` tries again"
                ))
            }
        }
    }

    /// Restores the process of its images at this site. It is nowhere else then.
    pub(super) async fn again(&self, at: &Site<'_>, other: &Site<'_>) -> Result<(), StepError> {
        other.kill(self.process.pid, &self.process.sum).await?;
        if let Some(address) = self.address {
            address.away(&other.shell, other.is_target).await?;
            address.give_guarded(&at.shell, at.is_target, &at.guard).await?;
        }
        at.restore(&self.flags).await?;
        other.tidy().await?;
        at.tidy().await
    }
}

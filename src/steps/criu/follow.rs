//! Memory that follows its process: the way to the target, and back from wherever it was when it broke.

use std::time::Duration;

use super::carry::{Cargo, Carried, span};
use super::site::{Found, Site};
use super::through::copy;
use crate::error::StepError;
use crate::steps::{Progress, StepContext};
use crate::units::ByteSize;

impl Cargo<'_> {
    /// The whole way: frozen here, restored there, and then its memory.
    pub(super) async fn lead(&self, ctx: &StepContext, from: &Site<'_>, to: &Site<'_>) -> Result<Carried, StepError> {
        let pid = self.process.pid;
        tokio::try_join!(from.make_folder(), to.make_folder())?;
        let opened = async {
            from.open_gate(to).await?;
            to.try_gate(from).await
        };
        if let Err(error) = opened.await {
            tokio::try_join!(from.tidy(), to.tidy())?;
            return Err(error);
        }
        let start = ctx.clock.monotonic();
        ctx.log("the process is frozen");
        if let Err(error) = from.serve(pid, &self.flags, self.address).await {
            // When it was frozen all the same, the next attempt finds it.
            return Err(self.unfrozen(ctx, from, to, error).await);
        }
        let dumped = ctx.clock.monotonic();
        let (copied, images) = match self.arrive(ctx, from, to).await {
            Ok(arrived) => arrived,
            Err(error) => {
                let there = to.find(pid, &self.process.sum).await?;
                if !there.is_given {
                    ctx.log(format!("it does not come to run on `{}` ({error})", to.host()));
                    self.take_back(ctx, from, to, false).await?;
                    return Err(error);
                }
                self.let_in(from, to).await?;
                (dumped, ByteSize(0))
            }
        };
        let end = ctx.clock.monotonic();
        let phases = [dumped.saturating_sub(start), copied.saturating_sub(dumped), end.saturating_sub(copied)].map(span);
        let freeze = span(end.saturating_sub(start));
        ctx.log(format!("the process runs on `{}` after {freeze}; its memory follows", to.host()));
        let pages = self.follow(ctx, from, to).await?;
        let whole = ctx.clock.monotonic().saturating_sub(end);
        ctx.log(format!("all of its memory is there after {}: {pages}", span(whole)));
        Ok(Carried { freeze, phases, images, pages: Some((pages, span(whole))) })
    }

    /// Everything but the memory goes there, and the process is restored.
    async fn arrive(&self, ctx: &StepContext, from: &Site<'_>, to: &Site<'_>) -> Result<(Duration, ByteSize), StepError> {
        let give = async {
            let Some(address) = self.address else { return Ok(()) };
            address.give_guarded(&to.shell, to.is_target, &to.guard).await
        };
        let (images, ()) = tokio::try_join!(copy(from, to), give)?;
        let copied = ctx.clock.monotonic();
        to.fetch(self.process.pid, &self.flags, from).await?;
        Ok((copied, images))
    }

    /// Waits until all of its memory is at the target, then ends the frozen process at the source.
    async fn follow(&self, ctx: &StepContext, from: &Site<'_>, to: &Site<'_>) -> Result<ByteSize, StepError> {
        let (pid, sum) = (self.process.pid, &self.process.sum);
        loop {
            let (there, sent) = tokio::try_join!(to.wait(pid, sum), from.sent())?;
            let total = Some(self.process.memory.0.max(sent.0));
            ctx.progress(Progress { bytes: Some(sent.0), bytes_total: total, ..Progress::default() });
            if there.is_fetching {
                if ctx.cancel.is_cancelled() {
                    return Err(ctx.stopped());
                }
                continue;
            }
            if there.runs && there.is_fetched {
                from.finish(pid, sum).await?;
                return Ok(sent);
            }
            return Err(self.lost(from, to, &there, sent));
        }
    }

    /// A transfer that an earlier attempt has begun comes to its end, or the process goes back to where it came from.
    /// `gives_up` says that a person has given up what the process did at the target, if it died there.
    pub(super) async fn settle(
        &self,
        ctx: &StepContext,
        from: &Site<'_>,
        to: &Site<'_>,
        gives_up: bool,
    ) -> Result<(), StepError> {
        let (pid, sum) = (self.process.pid, &self.process.sum);
        let (here, there) = tokio::try_join!(from.find(pid, sum), to.find(pid, sum))?;
        let (source, target, found) = match (here.is_held, there.is_held) {
            (true, _) => (from, to, there),
            (false, true) => (to, from, here),
            (false, false) => {
                let goes_on = |found: &Found| found.runs && !found.is_fetching && !found.is_cut_off;
                if goes_on(&here) || goes_on(&there) {
                    return Ok(());
                }
                return Self::is_whole(from, &here).and(Self::is_whole(to, &there));
            }
        };
        if !found.is_given {
            ctx.log(format!("it was frozen on `{}` and has not run on `{}`", source.host(), target.host()));
            return self.take_back(ctx, source, target, false).await;
        }
        // While its memory comes, the kernel may not say what its command line is.
        if (found.runs || found.is_fetching) && !found.is_cut_off {
            ctx.log(format!("its memory is on the way from `{}` to `{}`", source.host(), target.host()));
            self.let_in(source, target).await?;
            match self.follow(ctx, source, target).await {
                Err(error) if gives_up && !ctx.cancel.is_cancelled() => {
                    // Only when it has died: while it may live, nobody takes it away.
                    let found = target.find(pid, sum).await?;
                    if (found.runs || found.is_fetching) && !found.is_cut_off {
                        return Err(error);
                    }
                }
                other => return other.map(drop),
            }
        } else if !gives_up {
            let sent = source.sent().await?;
            return Err(self.lost(source, target, &found, sent));
        }
        ctx.warn(format!(
            "the process ended on `{}` before all of its memory was there: it goes on on `{}` as it was when it left, and what it \
             did since is lost",
            target.host(),
            source.host()
        ));
        self.take_back(ctx, source, target, true).await
    }

    /// A process whose memory does not come any more, and is nowhere else.
    fn is_whole(at: &Site<'_>, found: &Found) -> Result<(), StepError> {
        if !found.is_fetching && !found.is_cut_off {
            return Ok(());
        }
        Err(StepError::needs_person(format!(
            "the memory of the process has not all come to `{}`, and it is no more where it came from: the process is lost",
            at.host()
        ))
        .help("start the service anew; what it wrote to files is there"))
    }

    /// Frozen at the source, and no more what it was at the target.
    fn lost(&self, from: &Site<'_>, to: &Site<'_>, found: &Found, sent: ByteSize) -> StepError {
        let (here, there, pid) = (from.host(), to.host(), self.process.pid);
        let how = if found.runs { "runs" } else { "ended" };
        let what =
            if found.runs { ", and nobody knows whether all of its memory came" } else { " before all of its memory was there" };
        StepError::needs_person(format!("process {pid} {how} on `{there}`{what} ({sent} had left `{here}`)")).help(format!(
            "it is frozen on `{here}` as it was when it left: when it is ended on `{there}`, `ferry rollback` lets it go on; what \
             it did on `{there}` is lost then, and its connections with it"
        ))
    }

    /// Clients come to the target, also when whoever was to let them in has died.
    async fn let_in(&self, from: &Site<'_>, to: &Site<'_>) -> Result<(), StepError> {
        if let Some(address) = self.address {
            address.away(&from.shell, from.is_target).await?;
            address.give(&to.shell, to.is_target).await?;
            to.unguard().await?;
        }
        Ok(())
    }

    /// The frozen process goes on at the source, with its address; what was restored at the target goes.
    async fn take_back(&self, ctx: &StepContext, from: &Site<'_>, to: &Site<'_>, is_behind: bool) -> Result<(), StepError> {
        to.call_off(self.process.pid, &self.process.sum).await?;
        if let Some(address) = self.address {
            address.away(&to.shell, to.is_target).await?;
            address.give_guarded(&from.shell, from.is_target, &from.guard).await?;
        }
        from.thaw(self.process.pid, is_behind).await?;
        ctx.log(format!("it runs on `{}` again", from.host()));
        to.tidy().await?;
        from.tidy().await
    }
}

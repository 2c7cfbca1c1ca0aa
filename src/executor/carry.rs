//! Carries out one command: renders what has to be rendered now, and spawns what takes time.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::attempt::Work;
use super::level::{Level, render_failure};
use super::render::{config, question, question_digest};
use super::resolve::{Part, Rendered, Resolver, permanent};
use super::run::{Active, Loop};
use super::scope::View;
use super::session::inside;
use super::surroundings::{Surroundings, digest, surroundings};
use super::tasks::{Key, Ticket};
use super::{ExecutorError, inbox};
use crate::engine::{Command, Event, Interrupted, Node, Outcome, Resolution, StepPath, StopReason, Timeout, Timer, UndoDef};
use crate::error::Failure;
use crate::journal::JournalError;
use crate::pipeline::template::render;
use crate::pipeline::{Pipeline, StepSpec};

impl Loop {
    pub(super) async fn carry_out(&mut self, command: Command) -> Result<(), ExecutorError> {
        match command {
            Command::Resolve { step } => self.resolve(&step),
            Command::AcquireLock { step, lock, at_most } => {
                let (journal, lease, outbox) = (self.journal.clone(), self.lease.clone(), self.outbox.clone());
                let wanted = inbox::Wanted { step: step.clone(), lock, at_most };
                self.spawn(Key::Lock(step), |ticket, _, _| inbox::lock(journal, lease, wanted, outbox, ticket));
            }
            Command::ReleaseLock { step, lock } => {
                // What was asked of the journal before this is done before this.
                self.give_up(&Key::Lock(step.clone()));
                self.journal.unlock(&self.lease, &step, &lock).await?;
            }
            Command::Inspect { step } => self.inspect(step),
            Command::AskApproval { step } => self.ask(&step),
            Command::Attempt { step, attempt, interrupted, timeout } => self.attempt(step, attempt, interrupted, timeout),
            Command::Undo { step, attempt, inspection, interrupted, timeout } => {
                self.undo(step, attempt, inspection, interrupted, timeout);
            }
            Command::Stop { step, reason, .. } => self.stop(&step, reason),
            Command::StartTimer { timer, after } => self.start_timer(timer, after),
            Command::Measure { step, at_once } => self.measure(step, at_once),
            Command::Settle { status } => self.outbox.tell(Event::Settled { status }),
        }
        Ok(())
    }

    /// Spawns a task that can be told to stop. An earlier one for the same is given up.
    fn spawn<F>(&mut self, key: Key, task: impl FnOnce(Ticket, CancellationToken, CancellationToken) -> F)
    where
        F: Future<Output = Result<(), JournalError>> + Send + 'static,
    {
        self.started += 1;
        let (cancel, over, number) = (CancellationToken::new(), CancellationToken::new(), self.started);
        let ticket = Ticket { key: key.clone(), number };
        let abort = self.tasks.spawn(task(ticket, cancel.clone(), over.clone()));
        if let Some(earlier) = self.active.insert(key, Active { number, cancel, over, abort }) {
            earlier.abort.abort();
        }
    }

    fn give_up(&mut self, key: &Key) {
        if let Some(active) = self.active.remove(key) {
            active.cancel.cancel();
            active.abort.abort();
        }
    }

    fn stop(&mut self, step: &StepPath, reason: StopReason) {
        self.give_up(&Key::Look(step.clone()));
        for key in [Key::Attempt(step.clone()), Key::Undo(step.clone())] {
            let Some(active) = self.active.get(&key) else { continue };
            match reason {
                StopReason::Cancelled => active.cancel.cancel(),
                StopReason::Over => {
                    active.over.cancel();
                    // A step that does not listen is not waited for for ever.
                    let (cancel, grace) = (active.cancel.clone(), self.session.settings.grace);
                    self.tasks.spawn(async move {
                        tokio::time::sleep(grace).await;
                        cancel.cancel();
                        Ok(())
                    });
                }
            }
        }
    }

    fn start_timer(&mut self, timer: Timer, mut after: std::time::Duration) {
        if let Timer::Approval { step } = &timer
            && let Some(asked) = self.asked_at.get(step)
        {
            // An earlier session has put the question: the wall clock bridges the time between two processes.
            let gone = self.session.clock.now().duration_since(*asked);
            after = after.saturating_sub(std::time::Duration::try_from(gone).unwrap_or_default());
        }
        let (outbox, key) = (self.outbox.clone(), Key::Timer(timer.clone()));
        // On the monotonic clock: a wall clock that jumps moves nothing.
        self.spawn(key, |ends, _, _| async move {
            tokio::time::sleep(after).await;
            outbox.end(ends, Event::TimerFired { timer });
            Ok(())
        });
    }

    fn measure(&mut self, step: StepPath, at_once: u32) {
        let (outbox, meter) = (self.outbox.clone(), self.session.meters.of(&step));
        self.spawn(Key::Measure(step.clone()), |ends, _, _| async move {
            let rate = meter.rate(at_once).await;
            outbox.end(ends, Event::Measured { step, at_once, rate });
            Ok(())
        });
    }

    /// A step with the pipeline around it and what was written of it.
    fn find(&self, step: &StepPath) -> Result<(&Node, Arc<Level>), Failure> {
        let node =
            self.engine.step(step).ok_or_else(|| permanent(format!("there is no step `{step}`"), "this is a bug of ferry"))?;
        let level = self.session.level(inside(step).as_ref()).ok_or_else(|| {
            permanent(
                format!("the pipeline around step `{step}` could not be opened"),
                "the log says why: correct it, then resume",
            )
        })?;
        Ok((node, level))
    }

    fn resolve(&mut self, step: &StepPath) {
        let resolved = self.find(step).and_then(|(node, level)| self.render_resolution(node, &level));
        let (rendered, operands, module) = match resolved {
            Ok(resolved) => resolved,
            Err(failure) => (Rendered::Answer(Resolution::Failed { failure }), Value::Null, None),
        };
        let step = step.clone();
        let (given, digest, lock, module) = match (rendered, module) {
            (Rendered::Inputs { given, digest, lock }, Some(module)) => (given, digest, lock, module),
            (Rendered::Answer(resolution), _) => return self.outbox.tell(Event::Resolved { step, resolution, operands }),
            (Rendered::Inputs { .. }, None) => unreachable!("only a pipeline used as a step has inputs"),
        };
        let inputs = match module.inputs(&given) {
            Ok(inputs) => inputs,
            Err(problems) => {
                let text = problems.iter().map(|problem| problem.message.clone()).collect::<Vec<_>>().join("; ");
                let failure = permanent(format!("the inputs of `{step}` are wrong: {text}"), "correct its `with`");
                return self.outbox.tell(Event::Resolved { step, resolution: Resolution::Failed { failure }, operands });
            }
        };
        let (session, outbox, key) = (self.session.clone(), self.outbox.clone(), Key::Look(step.clone()));
        self.spawn(key, |ends, _, _| async move {
            let around = session.level(inside(&step).as_ref());
            let level = Level::open(&session, Some(step.clone()), module, inputs.clone(), around.as_deref()).await;
            let resolution = match level {
                Ok(level) => {
                    session.enter(level);
                    Resolution::Inputs { inputs: inputs.into(), digest, lock }
                }
                Err(failure) => Resolution::Failed { failure },
            };
            outbox.end(ends, Event::Resolved { step, resolution, operands });
            Ok(())
        });
    }

    fn render_resolution(&self, node: &Node, level: &Level) -> Result<(Rendered, Value, Option<Arc<Pipeline>>), Failure> {
        let spec = spec_of(level, &node.path)?;
        let part = if node.each.is_some() { Part::Instance } else { Part::Step };
        let view = View { session: &self.session, engine: &self.engine };
        Ok(view.scope(level, View::each(node), |scope| {
            let vault = &self.session.vault;
            let mut resolver = Resolver { level, spec, scope, vault, operands: serde_json::Map::new(), waits_for: None };
            let rendered = resolver.resolve(part);
            let operands = if resolver.operands.is_empty() { Value::Null } else { resolver.operands.into() };
            (rendered, operands, spec.module.clone())
        }))
    }

    fn render_config(&self, node: &Node, level: &Level) -> Result<Value, Failure> {
        let spec = spec_of(level, &node.path)?;
        let view = View { session: &self.session, engine: &self.engine };
        let config = view
            .scope(level, View::each(node), |scope| config(spec, scope, &self.session.vault))
            .map_err(|error| render_failure(&format!("step `{}`", node.path), &error))?;
        self.session.missing_in(&config).map_or(Ok(config), Err)
    }

    fn inspect(&mut self, step: StepPath) {
        let prepared = self.find(&step).and_then(|(node, level)| {
            let config = self.render_config(node, &level)?;
            Ok((config, level, node.def.timeout.clone(), node.inspections.len()))
        });
        let (config, level, timeout, inspection) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => return self.outbox.tell(Event::InspectFailed { step, failure }),
        };
        let recorded = surroundings(&config, &level);
        let digest = digest(&config, &recorded);
        let around = Surroundings::now(&level);
        let (session, outbox, key) = (self.session.clone(), self.outbox.clone(), Key::Look(step.clone()));
        let past_pivot = self.engine.is_past_pivot();
        self.spawn(key, |ends, cancel, over| async move {
            let work = Work {
                session,
                around,
                step: step.clone(),
                inspection,
                config,
                number: 0,
                interrupted: false,
                past_pivot,
                checkpoint: None,
                timeout,
                asks: false,
                outbox: None,
                cancel,
                over,
            };
            let event = match work.inspect().await {
                Ok(before) => Event::Inspected { step, before, config: work.config, surroundings: recorded, digest },
                Err(failure) => Event::InspectFailed { step, failure },
            };
            outbox.end(ends, event);
            Ok(())
        });
    }

    fn ask(&mut self, step: &StepPath) {
        let asked = self.find(step).and_then(|(node, level)| self.render_config(node, &level));
        let step = step.clone();
        self.outbox.tell(match asked {
            Ok(config) => {
                let (message, approvers) = question(&config["with"]);
                let digest = question_digest(&self.session.run, step.as_str(), &message, &approvers);
                Event::ApprovalAsked { step, message, digest, approvers }
            }
            Err(failure) => Event::InspectFailed { step, failure },
        });
    }

    fn attempt(&mut self, step: StepPath, number: u32, interrupted: bool, timeout: Timeout) {
        let prepared = self.find(&step).and_then(|(node, level)| {
            let seen = node.inspections.last().cloned();
            let seen = seen.ok_or_else(|| permanent("the step was not inspected", "this is a bug of ferry"))?;
            let around = Surroundings::recorded(&level, &self.session, &seen.surroundings);
            let asks = node.def.interrupted == Interrupted::AskPerson;
            Ok((seen, node.checkpoint.clone(), around, node.inspections.len() - 1, asks))
        });
        let (seen, checkpoint, around, inspection, asks) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => {
                let outcome = Outcome::Failed { failure };
                return self.outbox.tell(Event::AttemptEnded { step, attempt: number, outcome });
            }
        };
        let (session, outbox, key) = (self.session.clone(), self.outbox.clone(), Key::Attempt(step.clone()));
        let past_pivot = self.engine.is_past_pivot();
        self.spawn(key, |ends, cancel, over| async move {
            let outbox = Some(outbox);
            let config = seen.config;
            let teller = outbox.clone();
            let work = Work {
                session,
                around,
                step,
                inspection,
                config,
                number,
                interrupted,
                past_pivot,
                checkpoint,
                timeout,
                asks,
                outbox,
                cancel,
                over,
            };
            let event = work.attempt(seen.before).await;
            if let Some(teller) = teller {
                teller.end(ends, event);
            }
            Ok(())
        });
    }

    fn undo(&mut self, step: StepPath, number: u32, inspection: usize, interrupted: bool, timeout: Timeout) {
        let prepared = self.prepare_undo(&step, inspection);
        let (mut work, before, custom) = match prepared {
            Ok(prepared) => prepared,
            Err(failure) => {
                let outcome = Outcome::Failed { failure };
                return self.outbox.tell(Event::UndoEnded { step, attempt: number, outcome });
            }
        };
        let (outbox, key) = (self.outbox.clone(), Key::Undo(step));
        self.spawn(key, |ends, cancel, over| async move {
            work = Work { number, interrupted, timeout, cancel, over, outbox: Some(outbox.clone()), ..work };
            outbox.end(ends, work.undo(before, custom).await);
            Ok(())
        });
    }

    fn prepare_undo(&self, step: &StepPath, inspection: usize) -> Result<(Work, Value, Option<Value>), Failure> {
        // A step that an edit took out may have lost the pipeline around it: what it needs was recorded.
        let (node, level) = match self.find(step) {
            Ok(found) => found,
            Err(failure) => {
                let node = self.engine.step(step).filter(|node| node.is_orphan).ok_or(failure.clone())?;
                (node, self.session.level(None).ok_or(failure)?)
            }
        };
        let seen = node
            .inspections
            .get(inspection)
            .ok_or_else(|| permanent("nothing is known to go back to", "this is a bug of ferry"))?;
        let recorded = seen.config.get("undo").cloned();
        let custom = match (node.def.undo, recorded) {
            (UndoDef::Custom, Some(body)) => Some(body),
            (UndoDef::Custom, None) => Some(self.render_undo(node, &level)?),
            _ => None,
        };
        let work = Work {
            session: self.session.clone(),
            around: Surroundings::recorded(&level, &self.session, &seen.surroundings),
            step: step.clone(),
            inspection,
            config: seen.config.clone(),
            number: 0,
            interrupted: false,
            past_pivot: self.engine.is_past_pivot(),
            checkpoint: seen.checkpoint.clone(),
            timeout: Timeout::default(),
            asks: false,
            outbox: None,
            cancel: CancellationToken::new(),
            over: CancellationToken::new(),
        };
        Ok((work, seen.before.clone(), custom))
    }

    /// An `undo:` that names what the step itself has left.
    fn render_undo(&self, node: &Node, level: &Level) -> Result<Value, Failure> {
        let spec = spec_of(level, &node.path)?;
        let Some(body) = &spec.undo else { return Err(permanent("its `undo` is gone", "put it back into the pipeline")) };
        let view = View { session: &self.session, engine: &self.engine };
        let with = view
            .undo_scope(level, node, |scope| render(&body.with, scope, &self.session.vault))
            .map_err(|error| render_failure(&format!("`undo` of step `{}`", node.path), &error))?;
        Ok(json!({ "uses": body.uses, "with": with }))
    }
}

fn spec_of<'a>(level: &'a Level, step: &StepPath) -> Result<&'a StepSpec, Failure> {
    level
        .spec(step.id())
        .map(|(spec, _)| spec)
        .ok_or_else(|| permanent(format!("the pipeline has no step `{step}`"), "resume with a pipeline that has it"))
}

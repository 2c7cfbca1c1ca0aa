//! A run as it was: its records folded into sessions and attempts with their times, for everything that tells of it.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::speed::Speed;
use crate::engine::{Engine, Event, Outcome, RunStatus, StepPath};
use crate::journal::Record;

/// A run, read from its records.
#[derive(Debug)]
pub struct History {
    /// The state that the records add up to.
    pub engine: Engine,
    /// The records of answers that did not count, by their number.
    pub dropped: HashSet<u64>,
    /// When the run passed its pivot, and by which step.
    pub pivot: Option<(Timestamp, StepPath)>,
    /// Who started it.
    pub by: String,
    /// From when to when runners were at work on it.
    pub sessions: Vec<Session>,
    /// What people asked for and said, in order.
    pub said: Vec<Said>,
    /// The time of the last record.
    pub last: Option<Timestamp>,
    /// Whether a runner is at work on it now. Records cannot tell.
    pub is_live: bool,
    /// How fast its steps moved bytes, where that is known. It lies beside the journal.
    pub speeds: Vec<Speed>,
    steps: HashMap<StepPath, StepHistory>,
}

/// The work of one runner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// When it began.
    pub from: Timestamp,
    /// Its last record.
    pub to: Timestamp,
    /// What it ended with; nothing when its runner died or is at work.
    pub status: Option<RunStatus>,
}

/// Something that a person did to the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// When.
    pub at: Timestamp,
    /// Who.
    pub by: String,
    /// What, as `approved go` or `resumed`.
    pub what: String,
    /// The step it was about.
    pub step: Option<StepPath>,
}

/// What happened to a step, with times.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StepHistory {
    /// Every attempt and every undo, in order.
    pub attempts: Vec<Attempt>,
    /// When its templates were rendered, and the values of the operands.
    pub resolved: Option<(Timestamp, Value)>,
    /// Since when it waits for its lock, and for how long it waited in the end.
    pub lock: Option<Wait>,
    /// The wait for a person's answer.
    pub approval: Option<Wait>,
    /// When it was looked at, the last time.
    pub inspected: Option<Timestamp>,
    /// When something last happened to it.
    pub last: Option<Timestamp>,
}

/// A wait for something outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wait {
    /// Since when.
    pub from: Timestamp,
    /// Until when; nothing while it lasts.
    pub to: Option<Timestamp>,
}

/// One try of a step, or of its undo.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Counts from 1 over the run.
    pub number: u32,
    /// Whether it is an undo.
    pub is_undo: bool,
    /// When the intent was journaled.
    pub from: Timestamp,
    /// When it ended; nothing while it is at work, or when its runner died.
    pub to: Option<Timestamp>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// How many progress tokens it wrote.
    pub checkpoints: u32,
    /// When it was ready to serve.
    pub ready: Option<Timestamp>,
}

impl History {
    /// Folds the records of one run. `is_live`: whether a runner is at work on it.
    pub fn of(records: &[Record], is_live: bool) -> Self {
        let mut history = Self {
            engine: Engine::new(),
            dropped: HashSet::new(),
            pivot: None,
            by: String::new(),
            sessions: Vec::new(),
            said: Vec::new(),
            last: None,
            is_live,
            speeds: Vec::new(),
            steps: HashMap::new(),
        };
        for record in records {
            history.session(record);
            // What the engine would have done about it is done already, or is in the next records.
            drop(history.engine.on(&record.event));
            if history.pivot.is_none() && history.engine.is_past_pivot() {
                history.pivot = record.event.step().map(|step| (record.at, step.clone()));
            }
            if matches!(record.event, Event::ApprovalGiven { .. } | Event::PivotPassed { .. }) && history.engine.has_dropped() {
                history.dropped.insert(record.seq);
                continue;
            }
            history.take(record);
        }
        history
    }

    fn session(&mut self, record: &Record) {
        let was_settled = self.sessions.last().is_none_or(|session| session.status.is_some());
        if was_settled || matches!(record.event, Event::Resumed { .. }) && !self.just_changed(record.at) {
            self.sessions.push(Session { from: record.at, to: record.at, status: None });
        }
        if let Some(session) = self.sessions.last_mut() {
            session.to = session.to.max(record.at);
            if let Event::Settled { status } = &record.event {
                session.status = Some(*status);
            }
        }
        self.last = Some(record.at);
    }

    /// `PipelineChanged` and the `Resumed` behind it begin one session.
    fn just_changed(&self, now: Timestamp) -> bool {
        self.said.last().is_some_and(|said| {
            said.what == "changed the pipeline" && self.sessions.last().is_some_and(|session| session.from == said.at)
        }) && self.last.is_some_and(|last| (now.duration_since(last)).as_secs() < 5)
    }

    fn take(&mut self, record: &Record) {
        let at = record.at;
        match &record.event {
            Event::RunCreated { by, .. } => self.by.clone_from(by),
            Event::Resumed { by, .. } => self.say(at, by, "resumed the run", None),
            Event::PipelineChanged { by, .. } => self.say(at, by, "changed the pipeline", None),
            Event::CancelRequested { by } => self.say(at, by, "cancelled the run", None),
            Event::RollbackRequested { by, past_pivot } => {
                let what = if *past_pivot { "asked for the rollback, past the pivot" } else { "asked for the rollback" };
                self.say(at, by, what, None);
            }
            Event::ApprovalGiven { step, approved, by, comment, .. } => {
                let comment = comment.as_deref().map(|comment| format!(": {comment}")).unwrap_or_default();
                let what = format!("{} `{step}`{comment}", if *approved { "approved" } else { "denied" });
                self.say(at, by, &what, Some(step));
            }
            _ => {}
        }
        // An interruption is noticed when the run is taken up again; the last thing that its runner wrote is as near as
        // anybody knows.
        let died = self.sessions.len().checked_sub(2).map_or(at, |before| self.sessions[before].to);
        let began = self.sessions.last().map_or(at, |session| session.from);
        let Some(path) = record.event.step() else { return };
        let step = self.steps.entry(path.clone()).or_default();
        step.last = Some(at);
        match &record.event {
            Event::Resolved { operands, .. } => step.resolved = Some((at, operands.clone())),
            // Told again when the holder changes; the wait goes on.
            Event::LockBusy { .. } if step.lock.is_some_and(|wait| wait.to.is_none() && wait.from >= began) => {}
            Event::LockBusy { .. } => step.lock = Some(Wait { from: at, to: None }),
            Event::LockAcquired { .. } | Event::LockTimedOut { .. } => end(&mut step.lock, at),
            Event::Inspected { .. } => step.inspected = Some(at),
            Event::ApprovalAsked { .. } => step.approval = Some(Wait { from: at, to: None }),
            Event::ApprovalGiven { .. } => end(&mut step.approval, at),
            Event::AttemptStarted { attempt, .. } => step.attempts.push(Attempt::begun(*attempt, false, at)),
            Event::UndoStarted { attempt, .. } => step.attempts.push(Attempt::begun(*attempt, true, at)),
            Event::Checkpoint { attempt, .. } => {
                if let Some(attempt) = step.attempt(*attempt, false) {
                    attempt.checkpoints += 1;
                }
            }
            Event::Ready { attempt, .. } => {
                if let Some(attempt) = step.attempt(*attempt, false) {
                    attempt.ready = Some(at);
                }
            }
            Event::AttemptEnded { attempt, outcome, .. } => step.ended(*attempt, false, at, died, outcome),
            Event::UndoEnded { attempt, outcome, .. } => step.ended(*attempt, true, at, died, outcome),
            _ => {}
        }
    }

    fn say(&mut self, at: Timestamp, by: &str, what: &str, step: Option<&StepPath>) {
        self.said.push(Said { at, by: by.to_owned(), what: what.to_owned(), step: step.cloned() });
    }

    /// The run's id.
    pub fn run(&self) -> &str {
        self.engine.run()
    }

    /// The pipeline's name.
    pub fn pipeline(&self) -> &str {
        self.engine.definition().map_or("", |definition| &definition.name)
    }

    /// The run's inputs.
    pub fn inputs(&self) -> Map<String, Value> {
        self.engine.document().get("inputs").and_then(Value::as_object).cloned().unwrap_or_default()
    }

    /// What happened to a step.
    pub fn step(&self, path: &StepPath) -> Option<&StepHistory> {
        self.steps.get(path)
    }

    /// When it was created.
    pub fn created(&self) -> Option<Timestamp> {
        self.sessions.first().map(|session| session.from)
    }

    /// When its last session ended, if it did.
    pub fn ended(&self) -> Option<Timestamp> {
        self.sessions.last().filter(|session| session.status.is_some()).map(|session| session.to)
    }

    /// Whether its runner died: nobody is at work, and nothing says how it ended.
    pub fn is_interrupted(&self) -> bool {
        !self.is_live && self.ended().is_none()
    }

    /// How long runners were at work on it.
    pub fn worked(&self) -> Duration {
        self.sessions.iter().map(|session| between(session.from, session.to)).sum()
    }

    /// How long a step was at work, all attempts together; undos are not counted.
    pub fn took(&self, path: &StepPath) -> Option<Duration> {
        let last = self.last?;
        let attempts = &self.steps.get(path)?.attempts;
        let run: Vec<&Attempt> = attempts.iter().filter(|attempt| !attempt.is_undo).collect();
        (!run.is_empty()).then(|| run.iter().map(|attempt| between(attempt.from, attempt.to.unwrap_or(last))).sum())
    }
}

impl Attempt {
    fn begun(number: u32, is_undo: bool, from: Timestamp) -> Self {
        Self { number, is_undo, from, to: None, outcome: None, checkpoints: 0, ready: None }
    }
}

impl StepHistory {
    fn attempt(&mut self, number: u32, is_undo: bool) -> Option<&mut Attempt> {
        self.attempts.iter_mut().rev().find(|attempt| attempt.number == number && attempt.is_undo == is_undo)
    }

    fn ended(&mut self, number: u32, is_undo: bool, at: Timestamp, died: Timestamp, outcome: &Outcome) {
        if let Some(attempt) = self.attempt(number, is_undo).filter(|attempt| attempt.outcome.is_none()) {
            attempt.to = Some(if *outcome == Outcome::Interrupted { died.max(attempt.from) } else { at });
            attempt.outcome = Some(outcome.clone());
        }
    }
}

fn end(wait: &mut Option<Wait>, at: Timestamp) {
    if let Some(wait) = wait {
        wait.to = Some(at);
    }
}

/// The time between two records; a clock that jumped back gives nothing.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or_default()
}

/// A time for people, in UTC so that reports from different places can be compared: `2026-11-21 07:05:08Z`.
pub fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Only the time of day.
pub fn clock(at: Timestamp) -> String {
    at.strftime("%H:%M:%SZ").to_string()
}

/// The working time of a run on one axis: the time between sessions is left out.
#[derive(Debug)]
pub struct Axis {
    sessions: Vec<(Timestamp, Timestamp)>,
    total: f64,
}

impl Axis {
    /// The axis of a run.
    pub fn of(history: &History) -> Self {
        let sessions: Vec<_> = history.sessions.iter().map(|session| (session.from, session.to)).collect();
        let total = sessions.iter().map(|(from, to)| between(*from, *to).as_secs_f64()).sum::<f64>().max(0.001);
        Self { sessions, total }
    }

    /// Where a moment is, between 0 and 1.
    pub fn place(&self, at: Timestamp) -> f64 {
        let mut before = 0.0;
        for (from, to) in &self.sessions {
            if at < *to {
                before += between(*from, at).as_secs_f64();
                break;
            }
            before += between(*from, *to).as_secs_f64();
        }
        (before / self.total).clamp(0.0, 1.0)
    }

    /// How long the whole is.
    pub fn total(&self) -> Duration {
        Duration::from_secs_f64(self.total)
    }

    /// Where one session ends and the next begins.
    pub fn seams(&self) -> Vec<f64> {
        self.sessions.iter().skip(1).map(|(from, _)| self.place(*from)).collect()
    }
}

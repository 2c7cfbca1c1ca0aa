//! The ways into a session: start, resume, roll back, cancel; and requests to a session of another process.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use jiff::Timestamp;

use super::edit::{self, Resume};
use super::level::{Level, render_failure};
use super::resolve::permanent;
use super::run::Loop;
use super::scope::View;
use super::session::Session;
use super::{Document, Executor, ExecutorError, NewRun, plan};
use crate::engine::{Engine, Event, Node, Resolution, RunStatus, State, StepPath};
use crate::journal::{Journal, JournalError, Lease, Record, Request};
use crate::pipeline::Loaded;
use crate::steps::Depth;

/// The state of a run as its journal tells it, and when it began. No more than one event lies in memory.
pub fn fold_run(journal: &Journal, run: &str) -> Result<(Engine, Timestamp), JournalError> {
    fold_each(journal, run, |_| {})
}

fn fold_each(journal: &Journal, run: &str, mut see: impl FnMut(&Record)) -> Result<(Engine, Timestamp), JournalError> {
    let mut engine = Engine::new();
    let mut started_at = Timestamp::default();
    journal.each(run, 0, |record| {
        if record.seq == 1 {
            started_at = record.at;
        }
        see(&record);
        // Commands are for the runner that was there; what is still open is asked for in the end.
        drop(engine.on(&record.event));
    })?;
    Ok((engine, started_at))
}

/// A run that was taken: nobody else can write to it.
pub(super) struct Taken {
    pub(super) lease: Lease,
    pub(super) engine: Engine,
    pub(super) document: Document,
    pub(super) started_at: Timestamp,
    pub(super) asked_at: HashMap<StepPath, Timestamp>,
}

impl Executor {
    /// Starts a run and carries it on until nothing is left to do in this session.
    pub async fn start(&self, new: NewRun) -> Result<RunStatus, ExecutorError> {
        let inputs = new.loaded.pipeline.inputs(&new.inputs)?;
        let document = Document::new(&new.path, &new.loaded, inputs);
        knows(&new.loaded, new.until.as_deref())?;
        {
            let answers = new.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
            self.asked.lock().unwrap_or_else(PoisonError::into_inner).extend(answers);
        }
        if new.preflight {
            let (clock, asked) = (self.clock.clone(), self.asked.clone());
            let plan = plan::make(&self.registry, clock, asked, &new.loaded, &document, Depth::Brief).await?;
            if plan.blocking().next().is_some() {
                return Err(ExecutorError::Preflight(Box::new(plan)));
            }
        }
        let session = Arc::new(Session::of_run(self, &new.id, self.clock.now(), &document));
        let definition = new.loaded.pipeline.definition();
        let on_failure = new.on_failure.unwrap_or(definition.on_failure);
        self.enter(&session, &Engine::new(), &new.loaded, &document).await?;
        let lease = self.journal.acquire(&new.id, &self.by).await?;
        let created = Event::RunCreated {
            run: new.id.clone(),
            definition: Box::new(definition),
            document: document.to_value(),
            on_failure,
            until: new.until,
            by: self.by.clone(),
        };
        // The session holds what it needs of the file.
        drop(new.loaded);
        Loop::new(self, session, Engine::new(), lease).begin(created).await
    }

    /// Takes a run up again, with its own pipeline or with an edited one.
    pub async fn resume(&self, run: &str, how: Resume) -> Result<RunStatus, ExecutorError> {
        let taken = self.take(run).await?;
        let status = taken.engine.status();
        // Whoever repeats `resume` until it succeeds is told that it has. A runner that died just before it could write
        // down that the run is over leaves that to be written.
        if status == RunStatus::Succeeded && how.pipeline.is_none() {
            return self.nothing_to_do(taken).await;
        }
        if matches!(status, RunStatus::Succeeded | RunStatus::RolledBack) {
            let run = run.to_owned();
            let help = "start a new run with `ferry run`";
            return self.give_back(taken, ExecutorError::Status { run, status, what: "resumed", help }).await;
        }
        let resumed = Event::Resumed { by: self.by.clone(), until: how.until.clone() };
        let Some((path, loaded)) = &how.pipeline else {
            return self.take_up(taken, vec![resumed], None).await;
        };
        let checked = edit::check(self, &taken, path, loaded, &how.accept).await;
        let (document, changed) = match checked {
            Ok(checked) => checked,
            Err(error) => return self.give_back(taken, error).await,
        };
        let change = Event::PipelineChanged {
            definition: Box::new(loaded.pipeline.definition()),
            document: document.to_value(),
            changed,
            accept: how.accept.clone(),
            by: self.by.clone(),
        };
        let taken = Taken { document, ..taken };
        self.take_up(taken, vec![change, resumed], Some(loaded)).await
    }

    /// Undoes what a run has started. Fails with `Held` when the run is at work: then [`Executor::request`] asks it.
    pub async fn rollback(&self, run: &str, past_pivot: bool) -> Result<RunStatus, ExecutorError> {
        let taken = self.take(run).await?;
        let status = taken.engine.status();
        let run = run.to_owned();
        if status == RunStatus::RolledBack {
            return self.nothing_to_do(taken).await;
        }
        if taken.engine.is_past_pivot() && !past_pivot {
            return self.give_back(taken, ExecutorError::PastPivot { run }).await;
        }
        let mut why = vec![Event::RollbackRequested { by: self.by.clone(), past_pivot }];
        // A rollback that was begun goes on; asking for it again would change nothing.
        if matches!(status, RunStatus::RollingBack | RunStatus::RollbackFailed) {
            why = vec![Event::Resumed { by: self.by.clone(), until: None }];
        }
        self.take_up(taken, why, None).await
    }

    /// Stops a run that has no living runner for good: what it was at is ended, and `finally` runs. Fails with `Held`
    /// when the run is at work: then [`Executor::request`] asks it.
    pub async fn cancel(&self, run: &str) -> Result<RunStatus, ExecutorError> {
        let taken = self.take(run).await?;
        let status = taken.engine.status();
        if taken.engine.is_at_rest() && !matches!(status, RunStatus::Paused | RunStatus::Waiting) {
            let help = "it is not at work";
            return self.give_back(taken, ExecutorError::Status { run: run.to_owned(), status, what: "cancelled", help }).await;
        }
        self.take_up(taken, vec![Event::CancelRequested { by: self.by.clone() }], None).await
    }

    /// Asks the runner of a run for something. It hears of it within a tenth of a second.
    pub async fn request(&self, run: &str, request: Request) -> Result<(), ExecutorError> {
        self.journal.run(run)?;
        Ok(self.journal.put(run, &request).await?)
    }

    /// Answers an approval. The answer is bound to what was asked; a run that is not at work takes it when it is
    /// resumed.
    pub async fn approve(&self, run: &str, step: &str, approved: bool, comment: Option<String>) -> Result<(), ExecutorError> {
        let (engine, _) = fold_run(&self.journal, run)?;
        let no = |message: String| ExecutorError::NoQuestion { message };
        let path = StepPath::from(step);
        let node = engine.step(&path).ok_or_else(|| no(format!("run `{run}` has no step `{step}`")))?;
        let question = match &node.question {
            Some(question) if node.state == State::Awaiting => question,
            _ => return Err(no(format!("step `{step}` of run `{run}` is not waiting for an answer"))),
        };
        if !question.may_answer(&self.by) {
            let who = question.approvers.join(", ");
            return Err(no(format!("`{}` may not answer step `{step}`: it asks {who}", self.by)));
        }
        let digest = question.digest.clone();
        let request = Request::Approve { by: self.by.clone(), step: path, digest, approved, comment };
        Ok(self.journal.put(run, &request).await?)
    }

    /// The `outputs` of a run that has succeeded; null of any other.
    pub async fn outputs(&self, engine: &Engine, started_at: Timestamp) -> Result<serde_json::Value, ExecutorError> {
        if engine.outcome() != RunStatus::Succeeded {
            return Ok(serde_json::Value::Null);
        }
        let run = engine.run();
        let document = Document::of(run, engine.document())?;
        let loaded = document.load(self.registry.catalogue())?;
        let session = Arc::new(Session::looking(self, run, started_at, &document));
        let top = self.enter(&session, engine, &loaded, &document).await?;
        let outputs = View { session: &session, engine }.outputs(&top);
        outputs.map_err(|error| render_failure("the outputs of the run", &error).into())
    }

    async fn take(&self, run: &str) -> Result<Taken, ExecutorError> {
        // Before the lease: a run that does not exist leaves no trace.
        self.journal.run(run)?;
        let lease = self.journal.acquire(run, &self.by).await?;
        match read(&self.journal, run).await {
            Ok(Folded { engine, document, started_at, asked_at }) => Ok(Taken { lease, engine, document, started_at, asked_at }),
            Err(error) => {
                self.journal.release(lease).await?;
                Err(error)
            }
        }
    }

    async fn give_back<T>(&self, taken: Taken, error: ExecutorError) -> Result<T, ExecutorError> {
        self.journal.release(taken.lease).await?;
        Err(error)
    }

    /// The run is where it was asked to go.
    async fn nothing_to_do(&self, taken: Taken) -> Result<RunStatus, ExecutorError> {
        if taken.engine.is_at_rest() {
            let status = taken.engine.status();
            self.journal.release(taken.lease).await?;
            return Ok(status);
        }
        self.take_up(taken, vec![Event::Resumed { by: self.by.clone(), until: None }], None).await
    }

    async fn take_up(&self, taken: Taken, why: Vec<Event>, edited: Option<&Loaded>) -> Result<RunStatus, ExecutorError> {
        let run = taken.engine.run().to_owned();
        let session = Arc::new(Session::of_run(self, &run, taken.started_at, &taken.document));
        let until = why.iter().find_map(|event| match event {
            Event::Resumed { until, .. } => until.as_deref(),
            _ => None,
        });
        let entered = async {
            let own;
            let loaded = if let Some(loaded) = edited {
                loaded
            } else {
                own = taken.document.load(self.registry.catalogue())?;
                &own
            };
            knows(loaded, until)?;
            self.enter(&session, &taken.engine, loaded, &taken.document).await?;
            // What was asked of an earlier runner is over. Answers of people stay good, and so does what was asked since
            // this one has the lease.
            let letters = self.journal.letters(&run, 0)?;
            let earlier = letters.iter().take_while(|letter| letter.id <= taken.lease.last_letter());
            let stale = earlier.filter(|letter| !matches!(letter.request, Request::Approve { .. }));
            Ok::<_, ExecutorError>(stale.map(|letter| letter.id).collect::<Vec<_>>())
        }
        .await;
        match entered {
            Ok(stale) => Loop::new(self, session, taken.engine, taken.lease).take_up(why, stale, taken.asked_at).await,
            Err(error) => self.give_back(taken, error).await,
        }
    }

    /// Opens the run's pipeline and every pipeline in it that has begun.
    pub(super) async fn enter(
        &self,
        session: &Arc<Session>,
        engine: &Engine,
        loaded: &Loaded,
        document: &Document,
    ) -> Result<Arc<Level>, ExecutorError> {
        let pipeline = loaded.pipeline.clone();
        let top = session.enter(Level::open(session, None, pipeline, document.inputs.clone(), None).await?);
        // Parents come before what is inside them.
        for node in engine.steps() {
            if let Err(failure) = enter_module(session, node).await {
                // Its steps say so when their turn comes; the rest of the run does not need it.
                tracing::warn!(step = %node.path, %failure, "cannot open the pipeline of the step");
            }
        }
        Ok(top)
    }
}

/// `--until` names a step of the top list.
pub(super) fn knows(loaded: &Loaded, until: Option<&str>) -> Result<(), ExecutorError> {
    let Some(id) = until else { return Ok(()) };
    if loaded.pipeline.steps.iter().any(|step| step.id == id) {
        return Ok(());
    }
    let names: Vec<&str> = loaded.pipeline.steps.iter().map(|step| step.id.as_str()).take(20).collect();
    Err(permanent(
        format!("`--until` names `{id}`, but the pipeline has no such step"),
        format!("its steps: {}", names.join(", ")),
    )
    .into())
}

async fn enter_module(session: &Session, node: &Node) -> Result<(), String> {
    let Some(Resolution::Inputs { inputs, .. }) = &node.resolution else { return Ok(()) };
    let around = session.level(super::session::inside(&node.path).as_ref()).ok_or("the pipeline around it is not open")?;
    let Some(module) = around.spec(node.path.id()).and_then(|(spec, _)| spec.module.clone()) else { return Ok(()) };
    let inputs = inputs.as_object().cloned().unwrap_or_default();
    let level = Level::open(session, Some(node.path.clone()), module, inputs, Some(&around)).await;
    session.enter(level.map_err(|failure| failure.message)?);
    Ok(())
}

/// A run as its journal tells it.
pub(super) struct Folded {
    pub(super) engine: Engine,
    pub(super) document: Document,
    pub(super) started_at: Timestamp,
    /// When each approval was asked for last.
    asked_at: HashMap<StepPath, Timestamp>,
}

/// Folds a run, off the async threads: it may be long.
pub(super) async fn read(journal: &Journal, run: &str) -> Result<Folded, ExecutorError> {
    let (reader, id) = (journal.clone(), run.to_owned());
    let folded = tokio::task::spawn_blocking(move || {
        let mut asked_at = HashMap::new();
        let (engine, started_at) = fold_each(&reader, &id, |record| {
            if let Event::ApprovalAsked { step, .. } = &record.event {
                asked_at.insert(step.clone(), record.at);
            }
        })?;
        Ok::<_, JournalError>((engine, started_at, asked_at))
    });
    let fault = |what: String| ExecutorError::Fault { run: run.to_owned(), what };
    let (engine, started_at, asked_at) = folded.await.map_err(|error| fault(format!("folding it found a bug: {error}")))??;
    if let Some(what) = engine.fault_found() {
        return Err(fault(what.to_owned()));
    }
    let document = Document::of(run, engine.document())?;
    Ok(Folded { engine, document, started_at, asked_at })
}

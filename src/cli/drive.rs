//! Carries a run on with somebody watching: the view, the keyboard, the signals, the end.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::ending::{self, Asked};
use super::{Context, Exit, Fault, block_on, by};
use crate::engine::{Engine, RunStatus};
use crate::executor::{Executor, ExecutorError, NewRun, Observer, Settings, fold_run};
use crate::journal::{Journal, JournalError, Request};
use crate::report::jsonl::JsonLines;
use crate::report::live::{Answer, Answers, Live};
use crate::report::plain::Plain;
use crate::report::speed::Speed;
use crate::secret::{map_strings, unmarked};
use crate::steps::Registry;

/// How often a run that another process carries on is looked at.
pub(super) const LOOK: Duration = Duration::from_millis(100);

/// Whether the command stays when only a person can go on.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub struct Waiting {
    /// Stay when only an answer of a person is awaited; the default on a terminal
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,
    /// Leave with exit status 5 when only an answer of a person is awaited; the default elsewhere
    #[arg(long)]
    no_wait: bool,
}

/// A command that carries a run on.
pub(super) struct Drive<'a> {
    context: &'a Context,
    journal: Journal,
    registry: Registry,
    waiting: Waiting,
    table: Option<Table>,
}

/// What a command tells beside the usual end of a run.
pub(super) type Table = fn(&Engine, Duration, &[Speed]) -> Option<String>;

impl<'a> Drive<'a> {
    pub(super) fn new(context: &'a Context, journal: Journal, registry: Registry) -> Self {
        Self { context, journal, registry, waiting: Waiting::default(), table: None }
    }

    /// Tells this too when the run has ended.
    pub(super) fn ends_with(mut self, table: Table) -> Self {
        self.table = Some(table);
        self
    }

    pub(super) fn waiting(mut self, waiting: Waiting) -> Self {
        self.waiting = waiting;
        self
    }

    /// Starts a run and stays with it.
    pub(super) fn start(self, new: NewRun) -> Result<Exit, Fault> {
        let run = new.id.clone();
        self.carry(&run, Asked::Forward, async move |executor| executor.start(new).await)
    }

    /// Carries a run on with `job`, and tells how it ended.
    pub(super) fn carry(
        self,
        run: &str,
        asked: Asked,
        job: impl AsyncFnOnce(&Executor) -> Result<RunStatus, ExecutorError>,
    ) -> Result<Exit, Fault> {
        block_on(async {
            let view = self.view(run);
            let settings = Settings { waits_for_people: self.waits(), listens_to_signals: true, ..Settings::default() };
            let executor =
                Executor::new(self.journal.clone(), self.registry.clone(), by()).observer(view.observer()).settings(settings);
            let began = Instant::now();
            let result = job(&executor).await;
            view.finish();
            if let Err(error) = result {
                return Err(self.fault(error, run));
            }
            self.tell(&executor, run, asked, began.elapsed()).await
        })?
    }

    async fn tell(&self, executor: &Executor, run: &str, asked: Asked, took: Duration) -> Result<Exit, Fault> {
        let out = self.context.out;
        let (engine, started_at) = fold_run(&self.journal, run)?;
        let exit = ending::exit_of(&engine, asked);
        let outputs = match engine.status() {
            // The run has succeeded whatever becomes of telling it: what cannot be told is said beside.
            RunStatus::Succeeded => executor.outputs(&engine, started_at).await.unwrap_or_else(|error| {
                out.note(&format!("the outputs cannot be told: {error}"));
                Value::Null
            }),
            _ => Value::Null,
        };
        let outputs = map_strings(&outputs, &|text| unmarked(text).into_owned());
        if out.json {
            out.json_line(&ending::document(&engine, exit, &outputs))?;
        } else {
            let speeds = || Speed::of_all(&crate::executor::samples(&self.journal.run_dir(run)));
            let table = self.table.and_then(|table| table(&engine, took, &speeds())).unwrap_or_default();
            out.text(&ending::text(&engine, Some(took), &outputs, &table))?;
        }
        Ok(exit)
    }

    /// An error of the executor. Once there is a run, it is the run that has failed, not the command line.
    fn fault(&self, error: ExecutorError, run: &str) -> Fault {
        let is_before = match &error {
            ExecutorError::Journal(error) => {
                matches!(error, JournalError::Held { .. } | JournalError::NoRun { .. }) || self.journal.run(run).is_err()
            }
            _ => true,
        };
        let fault = Fault::from(error);
        if is_before { fault } else { fault.exit(Exit::Failed) }
    }

    fn waits(&self) -> bool {
        if self.context.can_ask() { !self.waiting.no_wait } else { self.waiting.wait && !self.waiting.no_wait }
    }

    fn view(&self, run: &str) -> View {
        let shows_logs = self.context.global.verbose > 0;
        if self.context.out.json {
            return View::Json(Arc::default());
        }
        if !Live::is_possible() {
            return View::Plain(Arc::new(Plain::new(shows_logs)));
        }
        let answers = (self.context.can_ask() && self.waits()).then(|| self.answers(run));
        View::Live(Arc::new(Live::start(answers, shows_logs)))
    }

    /// Answers take the way of `ferry approve`: through the inbox, bound to what was shown.
    fn answers(&self, run: &str) -> Answers {
        let (journal, run, runtime) = (self.journal.clone(), run.to_owned(), tokio::runtime::Handle::current());
        Box::new(move |answer: Answer| {
            let Answer { step, digest, approved } = answer;
            let request = Request::Approve { by: by(), step, digest, approved, comment: None };
            let (journal, run) = (journal.clone(), run.clone());
            runtime.spawn(async move {
                if let Err(error) = journal.put(&run, &request).await {
                    tracing::error!(%error, "the answer could not be written to the journal");
                }
            });
        })
    }
}

/// Who watches.
enum View {
    Live(Arc<Live>),
    Plain(Arc<Plain>),
    Json(Arc<JsonLines>),
}

impl View {
    fn observer(&self) -> Arc<dyn Observer> {
        match self {
            Self::Live(live) => live.clone(),
            Self::Plain(plain) => plain.clone(),
            Self::Json(json) => json.clone(),
        }
    }

    /// Leaves the screen to what follows.
    fn finish(&self) {
        if let Self::Live(live) = self {
            live.finish();
        }
    }
}

impl Context {
    /// Whether a person looks on and can answer.
    pub(super) fn can_ask(&self) -> bool {
        !self.out.json && io::stdin().is_terminal() && io::stderr().is_terminal()
    }

    /// Asks a question that is answered no by everything but a yes.
    pub(super) fn ask(question: &str) -> bool {
        let mut err = io::stderr().lock();
        let _ = write!(err, "{question} [y/N] ");
        let _ = err.flush();
        let mut line = String::new();
        let _ = io::stdin().lock().read_line(&mut line);
        matches!(line.trim().to_lowercase().as_str(), "y" | "yes")
    }
}

/// Waits until no runner is at work on a run any more.
pub(super) async fn until_free(journal: &Journal, run: &str) -> Result<(), JournalError> {
    while journal.holder(run)?.is_some() {
        // Another process releases it; SQLite has no way to tell.
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

//! A project folder, step types that leave traces in it, and an executor on its journal.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ferry::catalogue::{Background, Interrupted, Traits, Undo};
use ferry::engine::{Engine, Event, RunStatus};
use ferry::error::StepError;
use ferry::executor::{Executor, ExecutorError, NewRun, Observer, Resume, Settings, fold_run};
use ferry::journal::{Journal, Record};
use ferry::pipeline::{self, Files, Loaded};
use ferry::secret::Text;
use ferry::steps::{LogStream, Preview, Progress, Registry, Step, StepContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The trace file in the project folder: what steps did to the world, in order.
pub const WORLD: &str = "world.log";

/// A step that does what the test wants, and leaves a line in the world for each thing it does.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Act {
    /// The name in its traces; the step's path unless given.
    #[serde(default)]
    name: Option<String>,
    /// What it leaves.
    #[serde(default)]
    #[schemars(extend("x-secret" = true))]
    output: Value,
    /// How many attempts fail in a way that may pass.
    #[serde(default)]
    fails: u32,
    /// It fails for good, with this message.
    #[serde(default)]
    refuses: Option<String>,
    /// Its undo fails for good.
    #[serde(default)]
    keeps: bool,
    /// It waits until this file is there, told to stop or not.
    #[serde(default)]
    waits_for: Option<String>,
    /// It does not listen when it is told to stop.
    #[serde(default)]
    is_deaf: bool,
    /// How many checkpoints it writes before it waits.
    #[serde(default)]
    checkpoints: u32,
    /// It panics with this message.
    #[serde(default)]
    panics: Option<String>,
    /// How large its output is.
    #[serde(default)]
    bytes: Option<usize>,
    /// `inspect` fails with this message.
    #[serde(default)]
    blind: Option<String>,
    /// A text that may hold a secret: its length is traced, and the value is logged and left.
    #[serde(default)]
    secret: Option<Text>,
    /// It leaves what the journal holds of it at this moment: how many intents, and the last checkpoint.
    #[serde(default)]
    reads_journal: bool,
    /// What its first attempt writes as a checkpoint and fails with; a later one goes on only if it gets just that back.
    /// `MARK` in it is the character that opens a mark.
    #[serde(default)]
    place: Option<String>,
    /// It must not be repeated unasked.
    #[serde(default)]
    #[expect(dead_code, reason = "only its traits ask")]
    once: bool,
    /// A place: its traces say where that is.
    #[serde(default)]
    shows: Option<String>,
    /// It leaves a line in its scratch folder, and its trace says how many there were.
    #[serde(default)]
    keeps_notes: bool,
    /// It says that it gets on until it is told to stop, this often.
    #[serde(default)]
    ticks: bool,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Seen {
    lines: usize,
}

impl Act {
    fn trace(&self, ctx: &StepContext, what: &str) {
        let mut name = self.name.clone().unwrap_or_else(|| ctx.attempt.step.clone());
        if let Some(place) = &self.shows {
            let store = ctx.stores.open(place, &ctx.base).expect("a place");
            name = format!("{name} in {}", store.prefix());
        }
        if self.keeps_notes {
            let notes = ctx.scratch.join("notes");
            let before = std::fs::read_to_string(&notes).unwrap_or_default();
            std::fs::create_dir_all(&ctx.scratch).expect("room");
            std::fs::write(&notes, format!("{before}{what}\n")).expect("room");
            name = format!("{name} after {}", before.lines().count());
        }
        add_line(ctx, &format!("{what} {name}"));
    }
}

/// Leaves a line in the world: what a step did, and its name.
pub fn trace(ctx: &StepContext, what: &str) {
    add_line(ctx, &format!("{what} {}", ctx.attempt.step));
}

fn add_line(ctx: &StepContext, line: &str) {
    let world = ctx.base.join(WORLD);
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(world).expect("the project folder is there");
    file.write_all(format!("{line}\n").as_bytes()).expect("room");
}

impl Step for Act {
    const TYPE: &'static str = "test.act";
    const EXAMPLE: &'static str = "id: a\nuses: test.act\nwith: {}\n";
    const BACKGROUND: Background = Background::ReadyAtStart;
    type Before = Seen;
    type Output = Value;

    fn traits(with: &Value) -> Traits {
        let is_once = with.get("once") == Some(&Value::Bool(true));
        let interrupted = if is_once { Interrupted::AskPerson } else { Interrupted::RunAgain };
        Traits { undo: Undo::Built, interrupted }
    }

    async fn inspect(&self, ctx: &StepContext) -> Result<Seen, StepError> {
        if let Some(message) = &self.blind {
            return Err(StepError::permanent(message));
        }
        let lines = std::fs::read_to_string(ctx.base.join(WORLD)).unwrap_or_default().lines().count();
        Ok(Seen { lines })
    }

    fn preview(&self, before: &Seen) -> Preview {
        Preview {
            does: format!("adds a line to {}", before.lines),
            undo: "says so".to_owned(),
            bytes: Some(10),
            ..Preview::default()
        }
    }

    async fn run(&self, ctx: &StepContext, _: &Seen) -> Result<Value, StepError> {
        self.trace(ctx, "run");
        if let Some(message) = &self.panics {
            panic!("{message}");
        }
        let from = ctx.checkpoint::<u32>().unwrap_or(0);
        if from > 0 {
            self.trace(ctx, &format!("from {from}"));
        }
        for token in from..self.checkpoints {
            ctx.save(&(token + 1)).await?;
        }
        if let Some(place) = self.place.as_deref().map(|place| place.replace("MARK", "\u{F5E5}")) {
            if ctx.attempt.number == 1 {
                ctx.save(&place).await?;
                return Err(StepError::permanent("it went no further"));
            }
            if ctx.attempt.checkpoint.as_ref().and_then(Value::as_str) != Some(&*place) {
                return Err(StepError::permanent("another checkpoint came back"));
            }
        }
        if self.reads_journal {
            let journal = Journal::read(ctx.base.join(".ferry")).expect("there");
            let records = journal.records(&ctx.attempt.run).expect("whole");
            let mine = records.iter().filter(|record| record.event.step().is_some_and(|step| step.as_str() == ctx.attempt.step));
            let events: Vec<&Event> = mine.map(|record| &record.event).collect();
            let intents = events.iter().filter(|event| matches!(event, Event::AttemptStarted { .. })).count();
            let token = events.iter().rev().find_map(|event| match event {
                Event::Checkpoint { token, .. } => Some(token.clone()),
                _ => None,
            });
            return Ok(serde_json::json!({ "intents": intents, "token": token }));
        }
        if let Some(file) = &self.waits_for {
            let mut objects = 0;
            while !ctx.base.join(file).exists() {
                let is_told = ctx.cancel.is_cancelled() || ctx.over.is_cancelled();
                if is_told && !self.is_deaf {
                    if ctx.over.is_cancelled() {
                        break;
                    }
                    self.trace(ctx, "stop");
                    return Err(ctx.stopped());
                }
                if self.ticks {
                    objects += 1;
                    ctx.progress(Progress { objects: Some(objects), ..Progress::default() });
                }
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        if let Some(secret) = &self.secret {
            use secrecy::ExposeSecret as _;
            let value = ctx.reveal(secret)?.expose_secret().to_owned();
            self.trace(ctx, &format!("{} bytes", value.len()));
            ctx.log(format!("the secret is {value}"));
            ctx.signals.log(LogStream::Stdout, &value);
            ctx.warn(format!("it is {value}"));
            return Ok(serde_json::json!({ "token": format!("t-{value}"), "plain": 1 }));
        }
        if ctx.attempt.number <= self.fails {
            return Err(StepError::transient(format!("attempt {} fails", ctx.attempt.number)));
        }
        if let Some(message) = &self.refuses {
            return Err(StepError::permanent(message));
        }
        if let Some(bytes) = self.bytes {
            return Ok(Value::from("x".repeat(bytes)));
        }
        self.trace(ctx, "done");
        Ok(self.output.clone())
    }

    async fn undo(&self, ctx: &StepContext, _: &Seen) -> Result<(), StepError> {
        self.trace(ctx, "undo");
        if self.reads_journal {
            let journal = Journal::read(ctx.base.join(".ferry")).expect("there");
            let records = journal.records(&ctx.attempt.run).expect("whole");
            assert!(matches!(records.last().expect("some").event, Event::UndoStarted { .. }), "the intent is on disk");
        }
        if self.keeps { Err(StepError::permanent("it does not come back").help("look yourself")) } else { Ok(()) }
    }
}

/// Files of the disk.
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        std::fs::read(path)
    }
}

/// A project folder with a journal.
pub struct Lab {
    pub temp: tempfile::TempDir,
    pub executor: Executor,
}

impl Lab {
    pub fn new() -> Self {
        let temp = tempfile::tempdir().expect("a temporary folder");
        let journal = Journal::open(temp.path().join(".ferry")).expect("a new journal");
        Self::on(temp, journal)
    }

    pub fn on(temp: tempfile::TempDir, journal: Journal) -> Self {
        let registry = registry();
        let settings = Settings {
            waits_for_people: false,
            grace: Duration::from_millis(100),
            poll: Duration::from_millis(5),
            ..Settings::default()
        };
        Self { executor: Executor::new(journal, registry, "anna@desk").settings(settings), temp }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).expect("room");
    }

    /// Writes a pipeline and reads it. Waits between attempts are short.
    pub fn load(&self, text: &str) -> Loaded {
        self.write("p.yaml", &format!("defaults: {{ retry: {{ attempts: 3, initial: 1ms, max: 2ms }} }}\n{text}"));
        match pipeline::load(&self.path("p.yaml"), &Disk, self.executor.registry.catalogue()) {
            Ok(loaded) => loaded,
            Err(problems) => panic!("{}", problems.render(false)),
        }
    }

    pub fn new_run(&self, text: &str) -> NewRun {
        let mut new = NewRun::new(self.path("p.yaml"), self.load(text), Map::new());
        new.preflight = false;
        new
    }

    /// Starts a run; its id and status.
    pub async fn run(&self, text: &str) -> (String, RunStatus) {
        let new = self.new_run(text);
        let id = new.id.clone();
        (id, self.executor.start(new).await.expect("the session has an end of its own"))
    }

    /// Starts a run in a task of its own.
    pub fn spawn(&self, text: &str) -> (String, tokio::task::JoinHandle<Result<RunStatus, ExecutorError>>) {
        let new = self.new_run(text);
        let (id, executor) = (new.id.clone(), self.executor.clone());
        (id, tokio::spawn(async move { executor.start(new).await }))
    }

    pub async fn resume(&self, run: &str) -> RunStatus {
        self.executor.resume(run, Resume::default()).await.expect("the session has an end of its own")
    }

    pub fn records(&self, run: &str) -> Vec<Record> {
        self.executor.journal.records(run).expect("whole")
    }

    pub fn engine(&self, run: &str) -> Engine {
        fold_run(&self.executor.journal, run).expect("whole").0
    }

    pub async fn outputs(&self, run: &str) -> Result<Value, ExecutorError> {
        let (engine, started_at) = fold_run(&self.executor.journal, run)?;
        self.executor.outputs(&engine, started_at).await
    }

    /// What steps did, in order.
    pub fn world(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.path(WORLD)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// How often a line is in the world.
    pub fn count(&self, line: &str) -> usize {
        self.world().iter().filter(|have| *have == line).count()
    }

    /// Waits until a line is in the world.
    pub async fn until(&self, line: &str) {
        let begun = Instant::now();
        while self.count(line) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "`{line}` never came: {:?}", self.world());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until an event of a run is on disk.
    pub async fn until_event(&self, run: &str, is_it: impl Fn(&Event) -> bool) {
        let begun = Instant::now();
        loop {
            if self.executor.journal.records(run).is_ok_and(|records| records.iter().any(|record| is_it(&record.event))) {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "the event never came");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

pub fn registry() -> Registry {
    ferry::steps::builtin().with::<Act>().with::<crate::pivot::Switch>().with::<crate::pivot::Door>()
}

/// The failure of a step.
pub fn failure(engine: &Engine, step: &str) -> String {
    let node = engine.step(&step.into()).expect("a step of the run");
    node.failure.as_ref().map(|failure| failure.message.clone()).unwrap_or_default()
}

/// Remembers what it is told.
#[derive(Default)]
pub struct Ear {
    pub progress: Mutex<Vec<Progress>>,
    pub lines: Mutex<Vec<String>>,
    pub events: Mutex<Vec<(u64, bool)>>,
    pub journal: Mutex<Option<Journal>>,
}

impl Ear {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }
}

impl Observer for Ear {
    fn record(&self, record: &Record, engine: &Engine) {
        // On disk before anybody sees it.
        let is_durable = self
            .journal
            .lock()
            .expect("no panic")
            .as_ref()
            .is_none_or(|journal| journal.records(engine.run()).is_ok_and(|records| records.len() as u64 >= record.seq));
        self.events.lock().expect("no panic").push((record.seq, is_durable));
    }

    fn progress(&self, _: &ferry::engine::StepPath, _: u32, progress: &Progress) {
        self.progress.lock().expect("no panic").push(progress.clone());
    }

    fn log(&self, _: &ferry::engine::StepPath, _: LogStream, line: &str) {
        self.lines.lock().expect("no panic").push(line.to_owned());
    }
}

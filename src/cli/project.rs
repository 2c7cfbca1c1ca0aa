//! Where runs live, and how the commands get at them.

use std::path::{Path, PathBuf};

use super::{Context, Fault};
use crate::engine::{Engine, StepPath};
use crate::executor::{self, fold_run};
use crate::journal::{Journal, JournalError, Record};
use crate::report::history::History;
use crate::report::speed::Speed;

/// The folder in which a project keeps its runs.
const FOLDER: &str = ".ferry";

impl Context {
    /// The journal for a command that looks at runs. Nothing is created.
    pub(super) fn journal(&self) -> Result<Journal, Fault> {
        Ok(Journal::read(self.store_of_here()?)?)
    }

    /// The journal for a command that acts on a run that is there.
    pub(super) fn journal_to_write(&self) -> Result<Journal, Fault> {
        let folder = self.store_of_here()?;
        // Opening for writing would create an empty journal where somebody only stands in the wrong folder.
        Journal::read(&folder)?;
        Ok(Journal::open(folder)?)
    }

    /// The journal for a new run of this pipeline; created where there is none.
    pub(super) fn journal_for(&self, pipeline: &Path) -> Result<Journal, Fault> {
        let folder = match self.named_store()? {
            Some(folder) => folder,
            None => folder_for(pipeline)?,
        };
        let journal = Journal::open(&folder)?;
        keep_out_of_git(&folder);
        // The commands that act on the run look upwards from where the person stands.
        if self.store_of_here().is_ok_and(|here| std::path::absolute(here).ok() != std::path::absolute(&folder).ok()) {
            let folder = folder.display();
            self.out.note(&format!("runs are kept in {folder}: later commands find them there, or with --store {folder}"));
        }
        Ok(journal)
    }

    /// The folder that the commands which look at runs look into.
    pub(super) fn store_of_here(&self) -> Result<PathBuf, Fault> {
        if let Some(folder) = self.named_store()? {
            return Ok(folder);
        }
        let here = current_folder()?;
        Ok(found_above(&here).unwrap_or_else(|| here.join(FOLDER)))
    }

    /// What `--store` or `FERRY_STORE` names: `sqlite:PATH`, a folder, or the database in it.
    fn named_store(&self) -> Result<Option<PathBuf>, Fault> {
        let Some(store) = self.global.store.as_deref().filter(|store| !store.is_empty()) else { return Ok(None) };
        if store.starts_with("postgres://") || store.starts_with("postgresql://") {
            return Err(Fault::wrong("runs cannot be kept in PostgreSQL yet")
                .help("name a folder or `sqlite:PATH`; a journal that a team shares comes with a later version"));
        }
        let path = match store.split_once(':') {
            Some(("sqlite", path)) => path.strip_prefix("//").unwrap_or(path),
            Some((scheme, _)) if !scheme.contains('/') && scheme.len() > 1 => {
                return Err(Fault::wrong(format!("`{scheme}:` is not a kind of store for runs"))
                    .help("`--store` and FERRY_STORE take a folder or `sqlite:PATH`"));
            }
            _ => store,
        };
        let path = Path::new(path);
        let is_database = path.file_name().is_some_and(|name| name == crate::journal::FILE);
        Ok(Some(if is_database { path.parent().unwrap_or(Path::new(".")).to_owned() } else { path.to_owned() }))
    }
}

fn current_folder() -> Result<PathBuf, Fault> {
    std::env::current_dir().map_err(|error| Fault::wrong("the current directory cannot be read").cause(error))
}

/// The nearest `.ferry` above a folder, itself included.
fn found_above(folder: &Path) -> Option<PathBuf> {
    folder.ancestors().map(|ancestor| ancestor.join(FOLDER)).find(|candidate| candidate.is_dir())
}

/// Where the runs of a pipeline are kept: in the `.ferry` above it; else in a new one at the top of its repository; else
/// where the person stands, when the pipeline is below; else beside the pipeline.
fn folder_for(pipeline: &Path) -> Result<PathBuf, Fault> {
    let here = current_folder()?;
    let file = std::path::absolute(pipeline).unwrap_or_else(|_| here.join(pipeline));
    let folder = file.parent().unwrap_or(&here);
    if let Some(found) = found_above(folder) {
        return Ok(found);
    }
    let repository = folder.ancestors().find(|ancestor| ancestor.join(".git").exists());
    let project = repository.unwrap_or(if folder.starts_with(&here) { &here } else { folder });
    Ok(project.join(FOLDER))
}

/// Runs are not sources. A folder that cannot take the file is told by the journal, not here.
fn keep_out_of_git(folder: &Path) {
    let file = folder.join(".gitignore");
    if !file.exists() {
        let _ = std::fs::write(file, "*\n");
    }
}

/// The id and the state of a run: `text` is an id, a unique part of one, or `last`.
pub(super) fn read_run(journal: &Journal, text: &str) -> Result<(String, Engine), Fault> {
    let run = journal.find_run(text)?;
    let (engine, _) = fold_run(journal, &run)?;
    Ok((run, engine))
}

/// The step that a person means: by its path, or by the path with the key as it was given (`copy[a/b]`).
pub(super) fn step_named(engine: &Engine, text: &str) -> StepPath {
    let path = StepPath::from(text);
    if engine.step(&path).is_some() {
        return path;
    }
    let found = engine.steps().find(|node| node.path.unescaped() == text);
    found.map_or(path, |node| node.path.clone())
}

/// The records and the story of a run, named as for [`read_run`].
pub(super) fn read_history(journal: &Journal, text: &str) -> Result<(Vec<Record>, History), Fault> {
    let run = journal.find_run(text)?;
    let is_live = journal.holder(&run)?.is_some();
    let records = journal.records(&run)?;
    let mut history = History::of(&records, is_live);
    history.speeds = Speed::of_all(&executor::samples(&journal.run_dir(&run)));
    Ok((records, history))
}

impl From<JournalError> for Fault {
    fn from(error: JournalError) -> Self {
        Fault::wrong(error.to_string()).help(error.help_text())
    }
}

//! What is done about one name: written down first, then done.

use std::sync::Arc;

use super::copy::{Copied, Job, Transfer, Trouble};
use super::ledger::{Line, Moved};
use crate::error::{ErrorClass, StepError};
use crate::steps::object::same::Answer;
use crate::stores::{Facts, Removed};

/// What is to be done about a name.
pub enum Task {
    /// The contents are compared, the source is asked for a file's time, or the version at the target is looked up, before
    /// it is decided.
    Look {
        job: Job,
        answer: Answer,
    },
    Copy(Job),
    Delete {
        number: u64,
        key: String,
        was: Facts,
    },
    /// What an earlier attempt has copied is read again: it died before it could.
    Verify {
        job: Job,
        blake3: Option<String>,
    },
    /// The object at the source, whose copy is whole, is deleted.
    Remove {
        number: u64,
        key: String,
        moved: Moved,
    },
    /// It must not be done.
    Refused {
        key: String,
        error: StepError,
    },
}

/// How a task ended.
pub enum Ended {
    /// The object is to be copied.
    Differs(Job),
    /// It is the same.
    Same(Job),
    Copied {
        job: Job,
        copied: Copied,
    },
    Deleted {
        number: u64,
    },
    /// Somebody has written to it: it is not deleted.
    Kept {
        number: u64,
        key: String,
    },
    Failed {
        key: String,
        trouble: Trouble,
    },
}

/// Writes down what is about to be done, and gives it back when that is on disk.
pub async fn note(transfer: Arc<Transfer>, mut tasks: Vec<Task>) -> (Vec<Task>, Result<(), StepError>) {
    let extra = tasks.iter().find_map(|task| if let Task::Delete { key, was, .. } = task { Some((key, was)) } else { None });
    if let Some((key, was)) = extra
        && let Err(error) = transfer.sees_no_source(key, was).await
    {
        return (tasks, Err(error));
    }
    let mut lines = Vec::with_capacity(tasks.len());
    for task in &mut tasks {
        if let Task::Copy(job) = task
            && let Some(folder) = transfer.target.link_on_the_way(&job.listed.key, &transfer.real_folders).await
        {
            let (key, label) = (job.listed.key.clone(), transfer.target.label());
            let message = format!("`{key}` cannot be written to `{label}`: `{folder}` there is a symbolic link");
            let error = StepError::permanent(message)
                .help("copy to where it leads, put a folder in its place, or leave the object out with `exclude`");
            *task = Task::Refused { key, error };
        }
        match task {
            Task::Look { .. } | Task::Verify { .. } | Task::Refused { .. } => {}
            Task::Remove { key, moved, .. } => {
                let (was, copy, blake3) = (moved.was.clone(), moved.copy.clone(), moved.blake3.clone());
                lines.push(Line::Remove { key: key.clone(), was, copy, blake3 });
            }
            Task::Delete { key, was, .. } => lines.push(Line::Delete { key: key.clone(), was: was.clone() }),
            Task::Copy(job) => {
                let (key, size) = (job.listed.key.clone(), job.listed.facts.size);
                let Some(there) = &job.there else {
                    for key in transfer.target.missing_for(&key).await {
                        lines.push(Line::Folder { key });
                    }
                    lines.push(Line::Create { key, size });
                    continue;
                };
                let was = job.was.clone().unwrap_or_else(|| there.facts.clone());
                lines.push(Line::Overwrite { key, was, size });
            }
        }
    }
    let noted = transfer.ledger.intend(&lines).await;
    (tasks, noted)
}

impl Transfer {
    /// Deletes what the source does not list. A bucket is asked once more: a page of its listing that left names out must
    /// not delete their objects.
    pub async fn delete(&self, key: &str) -> Result<(), StepError> {
        if self.source.bucket().is_some() && self.source.must_take(key).is_ok() && self.source.stat(key).await?.is_some() {
            let message = format!("`{key}` is not deleted in `{}`: it is in `{}`", self.target.label(), self.source.label());
            return Err(StepError::transient(format!("{message} too, although the listing there left it out"))
                .help("try again; if this goes on, that store does not list all that it holds"));
        }
        self.target.remove(key).await
    }
}

pub async fn work_on(transfer: &Arc<Transfer>, task: Task) -> Ended {
    let failed = |key: &str, trouble: Trouble| Ended::Failed { key: key.to_owned(), trouble };
    match task {
        Task::Look { mut job, answer } => {
            let key = job.listed.key.clone();
            if answer == Answer::Ask {
                match transfer.has_its_time(&job).await {
                    Ok(true) => return Ended::Same(job),
                    Ok(false) => {}
                    Err(error) => return failed(&key, error.into()),
                }
            }
            if answer == Answer::Read {
                match transfer.has_same_content(&job).await {
                    Ok(true) => return Ended::Same(job),
                    Ok(false) => {}
                    Err(error) => return failed(&key, error.into()),
                }
            }
            // A listing does not tell versions; undo needs them.
            if transfer.target.abilities().versions {
                match transfer.target.stat(&key).await {
                    Ok(seen) => job.was = seen,
                    Err(error) => return failed(&key, error.into()),
                }
            }
            Ended::Differs(job)
        }
        Task::Copy(job) => match transfer.copy(&job).await {
            Ok(copied) => Ended::Copied { job, copied },
            Err(trouble) => failed(&job.listed.key, trouble),
        },
        Task::Refused { key, error } => failed(&key, error.into()),
        Task::Verify { job, blake3 } => match transfer.verify(&job.listed.key, blake3.as_deref()).await {
            Ok(true) => {
                let is = job.there.as_ref().map(|there| there.facts.clone()).unwrap_or_default();
                let (bytes, of) = (job.listed.facts.size, job.listed.facts.clone());
                let is_inside = blake3.is_none();
                Ended::Copied { job, copied: Copied::There { bytes, is, of, blake3, is_inside } }
            }
            Ok(false) => Ended::Differs(job),
            Err(trouble) => failed(&job.listed.key, trouble),
        },
        Task::Remove { number, key, moved } => {
            // From here on the copy is the only one.
            if let Err(error) = transfer.target.settle(&key).await {
                return failed(&key, error.into());
            }
            match transfer.source.remove_if(&key, &moved.was).await {
                Ok(Removed::Gone) => Ended::Deleted { number },
                Ok(Removed::Changed) => Ended::Kept { number, key },
                Err(error) => failed(&key, error.into()),
            }
        }
        Task::Delete { number, key, .. } => match transfer.delete(&key).await {
            Ok(()) => Ended::Deleted { number },
            Err(error) => failed(&key, error.into()),
        },
    }
}

impl From<StepError> for Trouble {
    /// What is permanent is the object's; what may pass, or needs a person, is the store's.
    fn from(error: StepError) -> Self {
        if error.class == ErrorClass::Permanent { Self::Object(error) } else { Self::Step(error) }
    }
}

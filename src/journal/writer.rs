//! The one thread that writes: async callers wait for it without holding a thread of theirs.

use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;

use rusqlite::Connection;
use tokio::sync::oneshot;

use super::JournalError;

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

pub(super) struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
    path: PathBuf,
}

impl Writer {
    pub(super) fn start(mut connection: Connection, path: PathBuf) -> Result<Self, JournalError> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || {
                for job in queue {
                    job(&mut connection);
                }
            })
            .map_err(|error| JournalError::Unwritable { path: path.clone(), why: error.to_string() })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread), path })
    }

    pub(super) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, JournalError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let (answer, done) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            // Nobody listens when the runtime that asked is gone; what is written is written.
            let _ = answer.send(job(connection));
        });
        let gone = || JournalError::Unwritable { path: self.path.clone(), why: "its write thread has ended".to_owned() };
        self.jobs.as_ref().ok_or_else(gone)?.send(job).map_err(|_| gone())?;
        done.await.map_err(|_| gone())?
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.jobs.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != std::thread::current().id()
        {
            // Whoever opens the file next finds it closed. A panic of the thread has been told to its callers.
            let _ = thread.join();
        }
    }
}

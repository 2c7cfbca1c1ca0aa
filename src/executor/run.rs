//! The loop of a session: take what has come in, append it as one transaction, feed the engine, show, carry out.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::bounds;
use super::inbox::{self, Inbox};
use super::session::Session;
use super::tasks::{Key, Message, Outbox};
use super::{Executor, ExecutorError, guard_signals};
use crate::engine::{Command, Engine, Event, RunStatus, StepPath};
use crate::journal::{Journal, JournalError, Lease};

/// More events than this are not waited for: what is at work is to hear of its checkpoints.
const LARGEST_BATCH: usize = 4096;

/// How long the end of a session waits for tasks that were given up.
const LAST_WAIT: Duration = Duration::from_secs(2);

/// A task of the session that can be told something.
pub(super) struct Active {
    pub(super) number: u64,
    pub(super) cancel: CancellationToken,
    pub(super) over: CancellationToken,
    pub(super) abort: AbortHandle,
}

pub(super) struct Loop {
    pub(super) journal: Journal,
    pub(super) session: Arc<Session>,
    pub(super) engine: Engine,
    pub(super) lease: Arc<Lease>,
    pub(super) outbox: Outbox,
    messages: mpsc::UnboundedReceiver<Message>,
    /// Everything that was spawned: dropping it aborts all.
    pub(super) tasks: JoinSet<Result<(), JournalError>>,
    pub(super) active: HashMap<Key, Active>,
    /// When the questions that are open were put.
    pub(super) asked_at: HashMap<StepPath, Timestamp>,
    /// How many tasks were started.
    pub(super) started: u64,
    signals: guard_signals::Requests,
    inbox: Inbox,
    by: String,
}

impl Loop {
    pub(super) fn new(executor: &Executor, session: Arc<Session>, engine: Engine, lease: Lease) -> Self {
        let (sender, messages) = mpsc::unbounded_channel();
        let signals = guard_signals::Requests::new(session.settings.listens_to_signals);
        let outbox = Outbox(sender);
        Self {
            journal: executor.journal.clone(),
            inbox: Inbox::new(executor.journal.clone(), session.run.clone(), outbox.clone()),
            session,
            engine,
            lease: Arc::new(lease),
            outbox,
            messages,
            tasks: JoinSet::new(),
            active: HashMap::new(),
            asked_at: HashMap::new(),
            started: 0,
            signals,
            by: executor.by.clone(),
        }
    }

    /// A new run: its first event, then what follows.
    pub(super) async fn begin(mut self, created: Event) -> Result<RunStatus, ExecutorError> {
        let result = async {
            let commands = self.commit(vec![message(created)]).await?;
            self.carry_on(commands).await
        }
        .await;
        self.end(result).await
    }

    /// A run that is taken up: why, what its death meant for what was at work, then what is still open. `letters` ask
    /// for what is over.
    pub(super) async fn take_up(
        mut self,
        why: Vec<Event>,
        letters: Vec<i64>,
        asked_at: HashMap<StepPath, Timestamp>,
    ) -> Result<RunStatus, ExecutorError> {
        self.asked_at = asked_at;
        let result = async {
            let mut first: Vec<Message> = why.into_iter().map(message).collect();
            for (message, letter) in first.iter_mut().zip(&letters) {
                message.letter = Some(*letter);
            }
            let left: Vec<i64> = letters.into_iter().skip(first.len()).collect();
            self.journal.append_answering(&self.lease, Vec::new(), left).await?;
            self.commit(first).await?;
            let interrupted = self.engine.interrupted().into_iter().map(message).collect::<Vec<_>>();
            if !interrupted.is_empty() {
                self.commit(interrupted).await?;
            }
            // Only now: what the events above asked for is among what is open, once.
            let open = self.engine.open_commands();
            self.carry_on(open).await
        }
        .await;
        self.end(result).await
    }

    async fn carry_on(&mut self, commands: Vec<Command>) -> Result<(), ExecutorError> {
        self.spawn_keepers();
        self.carry_out_all(commands).await?;
        loop {
            self.check().await?;
            if self.engine.is_at_rest() {
                return Ok(());
            }
            let mut batch = self.next_batch().await?;
            // Alone and last, and only when it still is the end: the list of runs tells the last one that was written.
            let ends: Vec<Message> = batch.extract_if(.., |one| matches!(one.event, Event::Settled { .. })).collect();
            if !batch.is_empty() {
                let commands = self.commit(batch).await?;
                self.carry_out_all(commands).await?;
            }
            let end = ends.into_iter().next_back();
            if let Some(end) = end.filter(|end| matches!(end.event, Event::Settled { status } if self.engine.may_settle(status)))
            {
                let commands = self.commit(vec![end]).await?;
                self.carry_out_all(commands).await?;
            }
        }
    }

    fn spawn_keepers(&mut self) {
        self.tasks.spawn(self.inbox.clone().watch(self.session.settings.poll));
        self.tasks.spawn(inbox::renew(self.journal.clone(), self.lease.clone()));
    }

    /// Whether the engine and the tasks are as they should be; asks to leave when only people can go on.
    async fn check(&mut self) -> Result<(), ExecutorError> {
        let fault = |what: &str| ExecutorError::Fault { run: self.session.run.clone(), what: what.to_owned() };
        if let Some(what) = self.engine.fault_found() {
            return Err(fault(what));
        }
        if self.engine.is_at_rest() || !self.messages.is_empty() {
            return Ok(());
        }
        if self.engine.awaits_only() {
            // The answer may have come before the question was put again.
            if !self.session.settings.waits_for_people && self.inbox.look().await? == 0 {
                self.outbox.tell(Event::Settled { status: RunStatus::Waiting });
            }
            return Ok(());
        }
        if self.active.is_empty() {
            return Err(fault("nothing is at work and nothing is waited for"));
        }
        Ok(())
    }

    /// Waits for something, then takes everything that is there: it shares one transaction.
    async fn next_batch(&mut self) -> Result<Vec<Message>, ExecutorError> {
        let mut batch = Vec::new();
        while batch.is_empty() {
            tokio::select! {
                taken = self.messages.recv_many(&mut batch, LARGEST_BATCH) => {
                    debug_assert!(taken > 0, "the loop itself holds a sender");
                }
                Some(ended) = self.tasks.join_next() => self.task_ended(ended)?,
                request = self.signals.next() => match request {
                    guard_signals::Request::Cancel => {
                        batch.push(message(Event::CancelRequested { by: self.by.clone() }));
                    }
                    guard_signals::Request::EndAtOnce => {
                        return Err(ExecutorError::Interrupted { run: self.session.run.clone() });
                    }
                },
            }
        }
        Ok(batch)
    }

    fn task_ended(&self, ended: Result<Result<(), JournalError>, tokio::task::JoinError>) -> Result<(), ExecutorError> {
        match ended {
            Ok(result) => Ok(result?),
            Err(error) if error.is_cancelled() => Ok(()),
            Err(error) => {
                Err(ExecutorError::Fault { run: self.session.run.clone(), what: format!("a task of ferry has a bug: {error}") })
            }
        }
    }

    /// On disk first; then the engine, then everybody who watches, then whoever waited for the disk.
    async fn commit(&mut self, batch: Vec<Message>) -> Result<Vec<Command>, ExecutorError> {
        let mut events = Vec::with_capacity(batch.len());
        let mut letters = Vec::new();
        let mut afterwards = Vec::with_capacity(batch.len());
        for Message { event, durable, ends, letter } in batch {
            letters.extend(letter);
            // What is in the journal was done or counts: a letter that means nothing here is only taken out of the inbox.
            if letter.is_some() && self.is_beside_the_point(&event) {
                tracing::warn!(?event, "a request came too late or is refused, and is dropped");
                continue;
            }
            events.push(bounds::bounded(event));
            afterwards.push((durable, ends));
        }
        let records = self.journal.append_answering(&self.lease, events, letters).await?;
        let mut commands = Vec::new();
        for (record, (durable, ends)) in records.iter().zip(afterwards) {
            commands.extend(self.engine.on(&record.event));
            let counts = !self.engine.has_dropped();
            if let Event::ApprovalAsked { step, .. } = &record.event {
                self.asked_at.insert(step.clone(), record.at);
            }
            for observer in &self.session.observers {
                observer.record(record, &self.engine);
            }
            if let Some(ticket) = ends
                && self.active.get(&ticket.key).is_some_and(|active| active.number == ticket.number)
            {
                self.active.remove(&ticket.key);
            }
            if let Some(durable) = durable {
                // The task may have been given up while it waited.
                let _ = durable.send(counts);
            }
        }
        Ok(commands)
    }

    /// Whether a letter asks for what this run cannot do: it answers a step that is gone, or a pivot is in its way.
    fn is_beside_the_point(&self, event: &Event) -> bool {
        match event {
            Event::ApprovalGiven { step, .. } => self.engine.step(step).is_none(),
            Event::RollbackRequested { past_pivot, .. } => self.engine.is_past_pivot() && !past_pivot,
            _ => false,
        }
    }

    async fn carry_out_all(&mut self, commands: Vec<Command>) -> Result<(), ExecutorError> {
        for command in commands {
            self.carry_out(command).await?;
        }
        Ok(())
    }

    /// Whatever the end is, nothing is left at work and the run is free for the next runner.
    async fn end(mut self, result: Result<(), ExecutorError>) -> Result<RunStatus, ExecutorError> {
        for active in self.active.values() {
            active.cancel.cancel();
        }
        // A step that holds its thread does not hold up the end: the process goes, and the journal knows what was begun.
        let is_at_once = matches!(result, Err(ExecutorError::Interrupted { .. }));
        let wait = if is_at_once { LAST_WAIT / 10 } else { LAST_WAIT };
        let _ = tokio::time::timeout(wait, self.tasks.shutdown()).await;
        let status = self.engine.status();
        // Every task that shared the lease is gone.
        if let Ok(lease) = Arc::try_unwrap(self.lease) {
            let released = self.journal.release(lease).await;
            if result.is_ok() {
                released?;
            }
        }
        result.map(|()| status)
    }
}

fn message(event: Event) -> Message {
    Message { event, durable: None, ends: None, letter: None }
}

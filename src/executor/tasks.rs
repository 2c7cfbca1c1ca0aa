//! What the tasks of a session tell its loop.

use tokio::sync::{mpsc, oneshot};

use crate::engine::{Event, StepPath};

/// A task of the session, by what it was started for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Renders or inspects; only reads.
    Look(StepPath),
    Lock(StepPath),
    Attempt(StepPath),
    Undo(StepPath),
    Timer(crate::engine::Timer),
    Measure(StepPath),
}

/// One task among those that were started for the same: a message of one that was given up ends no later one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) key: Key,
    pub(super) number: u64,
}

/// Something for the journal.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) event: Event,
    /// Told when the event is on disk, and whether the engine took it.
    pub(super) durable: Option<oneshot::Sender<bool>>,
    /// The task that ends with it.
    pub(super) ends: Option<Ticket>,
    /// The letter that it answers.
    pub(super) letter: Option<i64>,
}

/// The way to the loop. Sending never blocks; after the loop's end nobody listens, and that is no error.
#[derive(Debug, Clone)]
pub(super) struct Outbox(pub(super) mpsc::UnboundedSender<Message>);

impl Outbox {
    pub(super) fn tell(&self, event: Event) {
        let _ = self.0.send(Message { event, durable: None, ends: None, letter: None });
    }

    pub(super) fn end(&self, ticket: Ticket, event: Event) {
        let _ = self.0.send(Message { event, durable: None, ends: Some(ticket), letter: None });
    }

    pub(super) fn answer(&self, letter: i64, event: Event) {
        let _ = self.0.send(Message { event, durable: None, ends: None, letter: Some(letter) });
    }

    /// Waits until the event is on disk. `false`: the session has ended and it never will be.
    pub(super) async fn write(&self, event: Event) -> bool {
        self.ask(event).await.is_some()
    }

    /// Waits until the event is on disk, and says whether it counts: what came before it may have made it void. `None`:
    /// the session has ended.
    pub(super) async fn ask(&self, event: Event) -> Option<bool> {
        let (durable, written) = oneshot::channel();
        self.0.send(Message { event, durable: Some(durable), ends: None, letter: None }).ok()?;
        written.await.ok()
    }
}

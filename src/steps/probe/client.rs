//! Clients of two kinds, each at its own pace: one that keeps its connection, and one that makes a new one each time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::UnboundedSender;

use crate::clock::Clock;
use crate::error::StepError;
use crate::units::Span;

/// How many new connections may wait for an answer at once. Further ones wait for these: a probe must not be what fills a
/// server's connections up.
const FRESH_AT_ONCE: usize = 10;

/// A kind of client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(in crate::steps) enum Kind {
    /// Keeps its connection as long as it holds.
    Kept,
    /// Makes a new connection for each question, and looks its name up anew.
    Fresh,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kept => "kept",
            Self::Fresh => "fresh",
        })
    }
}

/// How to be a client of something.
pub(in crate::steps) trait Client: Sync {
    /// What a client keeps between two questions.
    type Connection: Send;

    /// Makes a connection, as a client would that starts now.
    fn connect(&self, kind: Kind) -> impl Future<Output = Result<Self::Connection, StepError>> + Send;

    /// Asks once; `Ok` is a good answer. The connection is not used again after an error.
    fn ask(&self, connection: &mut Self::Connection) -> impl Future<Output = Result<(), StepError>> + Send;
}

/// What became of a question.
pub(super) struct Answer {
    pub(super) kind: Kind,
    /// When the question was put, on the monotonic clock.
    pub(super) asked: Duration,
    /// When the answer was there, or the error.
    pub(super) came: Duration,
    /// How much later than due the question was put, because this machine was busy.
    pub(super) overslept: Duration,
    pub(super) result: Result<(), StepError>,
}

/// Asks on and on.
pub(super) struct Asker<'a, C> {
    pub(super) client: &'a C,
    pub(super) clock: Arc<dyn Clock>,
    /// How long an answer may take.
    pub(super) at_most: Duration,
    pub(super) answers: UnboundedSender<Answer>,
}

impl<C: Client> Asker<'_, C> {
    /// One client with one connection. A question is put when it is due, or at once when the answer before it came late: the
    /// pace is that of the plan as long as the answers allow it, not the plan plus the time that each answer took.
    pub(super) async fn kept(&self, every: Duration) {
        let mut connection = None;
        let mut due = self.clock.monotonic();
        loop {
            let (asked, overslept) = self.sleep_until(due).await;
            let asking = async {
                if connection.is_none() {
                    connection = Some(self.client.connect(Kind::Kept).await?);
                }
                match &mut connection {
                    Some(connection) => self.client.ask(connection).await,
                    None => Ok(()),
                }
            };
            let result = self.in_time(asking).await;
            if result.is_err() {
                connection = None;
            }
            let came = self.clock.monotonic();
            let _ = self.answers.send(Answer { kind: Kind::Kept, asked, came, overslept, result });
            due = (due + every).max(came);
        }
    }

    /// A client for each question. One whose answer does not come keeps the next from asking only when many wait already:
    /// what hangs for an old address must not hide that the new one answers.
    pub(super) async fn fresh(&self, every: Duration) {
        let mut waiting = FuturesUnordered::new();
        let mut due = self.clock.monotonic();
        loop {
            tokio::select! {
                biased;
                Some(answer) = waiting.next() => {
                    let _ = self.answers.send(answer);
                }
                (asked, overslept) = self.sleep_until(due), if waiting.len() < FRESH_AT_ONCE => {
                    waiting.push(self.ask_fresh(asked, overslept));
                    due = (due + every).max(asked);
                }
            }
        }
    }

    async fn ask_fresh(&self, asked: Duration, overslept: Duration) -> Answer {
        let asking = async {
            let mut connection = self.client.connect(Kind::Fresh).await?;
            self.client.ask(&mut connection).await
        };
        let result = self.in_time(asking).await;
        Answer { kind: Kind::Fresh, asked, came: self.clock.monotonic(), overslept, result }
    }

    async fn in_time(&self, asking: impl Future<Output = Result<(), StepError>>) -> Result<(), StepError> {
        tokio::time::timeout(self.at_most, asking).await.unwrap_or_else(|_| {
            Err(StepError::transient(format!("no answer within {}", Span(self.at_most)))
                .help("see whether the server runs and nothing stands in between"))
        })
    }

    /// When it is now, and by how much that is later than it was meant to be.
    async fn sleep_until(&self, due: Duration) -> (Duration, Duration) {
        let left = due.saturating_sub(self.clock.monotonic());
        if left.is_zero() {
            // Late because of an answer, not because of this machine. Others have to be polled all the same.
            tokio::task::yield_now().await;
            return (self.clock.monotonic(), Duration::ZERO);
        }
        tokio::time::sleep(left).await;
        let now = self.clock.monotonic();
        (now, now.saturating_sub(due))
    }
}

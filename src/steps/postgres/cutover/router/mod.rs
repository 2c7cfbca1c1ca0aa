//! What stands between clients and servers: found out, paused, switched over, put back.

pub(super) mod haproxy;
pub(super) mod ini;
pub(super) mod pgbouncer;
mod watchdog;

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::StepError;
use crate::postgres::{Reach, Server};

/// A way that clients take to the server.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Router {
    /// A `PgBouncer`: it holds clients back during the cutover, and they notice nothing but a pause.
    Pgbouncer(pgbouncer::Pgbouncer),
    /// An HAProxy: its connections break and clients come again.
    Haproxy(haproxy::Haproxy),
}

/// What a router was like before the first attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// What it leads to now: databases of a pooler, a server's name of a proxy.
    pub names: Vec<String>,
    /// Whether that is all it has, so that it is held as a whole.
    #[serde(default)]
    pub whole: bool,
    /// Where it reaches the target.
    pub machine: String,
    /// On which port.
    pub port: u16,
    /// What the person should know.
    pub warnings: Vec<String>,
}

/// Who does the switching, and how long a pause may outlive its runner.
pub(super) struct Task<'a> {
    pub reach: &'a Reach,
    pub from: &'a Server,
    pub to: &'a Server,
    /// The name of all that is put beside others' files.
    pub key: &'a str,
    /// How long a pause may last when nobody ends it.
    pub watchdog: Duration,
}

/// A router with its connections open and the new way laid beside the old one.
pub(super) enum Ready<'a> {
    Pgbouncer(Box<pgbouncer::Ready<'a>>),
    Haproxy(haproxy::Ready<'a>),
}

impl Router {
    /// For messages.
    pub(super) fn title(&self) -> String {
        match self {
            Self::Pgbouncer(router) => format!("PgBouncer on `{}`", router.host),
            Self::Haproxy(router) => format!("HAProxy on `{}`", router.host),
        }
    }

    /// Whether clients are held back and not sent away.
    pub(super) fn holds_clients(&self) -> bool {
        matches!(self, Self::Pgbouncer(_))
    }

    /// Looks at it, and changes nothing.
    pub(super) async fn look(&self, reach: &Reach, to: &Server) -> Result<Seen, StepError> {
        match self {
            Self::Pgbouncer(router) => router.look(reach, to).await,
            Self::Haproxy(router) => router.look(reach).await,
        }
    }

    /// Looks at as much of it as can be seen before it is known where the target is.
    pub(super) async fn foresee(&self, reach: &Reach) -> Result<Vec<String>, StepError> {
        match self {
            Self::Pgbouncer(router) => router.look_at(reach).await,
            Self::Haproxy(router) => router.look(reach).await,
        }
        .map(|seen| seen.warnings)
    }

    /// Opens connections and lays the new way beside the old one.
    pub(super) async fn prepare<'a>(&'a self, task: &Task<'a>, seen: &'a Seen) -> Result<Ready<'a>, StepError> {
        Ok(match self {
            Self::Pgbouncer(router) => Ready::Pgbouncer(Box::new(router.prepare(task, seen).await?)),
            Self::Haproxy(router) => Ready::Haproxy(router.prepare(task)),
        })
    }

    /// The old way again, from whatever state, also when nothing has been changed.
    pub(super) async fn release(&self, task: &Task<'_>, seen: &Seen) -> Result<(), StepError> {
        match self {
            Self::Pgbouncer(router) => router.release(task, seen).await,
            Self::Haproxy(router) => router.back(task).await,
        }
    }

    /// The new way, from whatever state, also when it is taken already.
    pub(super) async fn forward(&self, task: &Task<'_>, seen: &Seen) -> Result<(), StepError> {
        match self {
            Self::Pgbouncer(router) => router.forward(task, seen).await,
            Self::Haproxy(router) => router.over(task).await,
        }
    }

    /// Removes what is left beside others' files once the new way is taken for good.
    pub(super) async fn tidy(&self, task: &Task<'_>) -> Result<(), StepError> {
        match self {
            Self::Pgbouncer(router) => router.tidy(task).await,
            Self::Haproxy(_) => Ok(()),
        }
    }
}

impl Ready<'_> {
    /// Holds clients back, and returns when none is at work any more.
    pub(super) async fn pause(&self, at_most: Duration) -> Result<(), StepError> {
        match self {
            Self::Pgbouncer(router) => router.pause(at_most).await,
            // It cannot hold clients: those that are at work are ended by the fence.
            Self::Haproxy(_) => Ok(()),
        }
    }

    /// Puts the new way into its place; it is not taken yet.
    pub(super) async fn lay(&self) -> Result<(), StepError> {
        match self {
            Self::Pgbouncer(router) => router.lay().await,
            Self::Haproxy(_) => Ok(()),
        }
    }

    /// Takes the new way and lets clients go on.
    pub(super) async fn switch(&self) -> Result<(), StepError> {
        match self {
            Self::Pgbouncer(router) => router.switch().await,
            Self::Haproxy(router) => router.switch().await,
        }
    }
}

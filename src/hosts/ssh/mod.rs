//! Machines by SSH, through the system's OpenSSH: the user's configuration, agent, jump hosts and known hosts apply.
//!
//! One multiplexed connection per machine is made on first use, kept open, and made anew after it broke; another joins
//! it when more commands run at once than a server allows per connection. Nothing is repeated here: what a broken
//! connection interrupted is a failure for the engine.

mod classify;
mod command;
mod config;
mod connection;
mod files;
mod target;

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

pub use target::Target;

use self::command::{Broken, Call};
use self::connection::Connection;
use super::{Endpoint, FileState, Finished, Forward, Host, Invocation, OnLine, Owned, Streams};
use crate::error::StepError;
use crate::secret::Vault;

/// How long is waited for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patience {
    /// For a machine to accept, unless the user's configuration says otherwise; and three times this for all of a
    /// connection to come about.
    pub connect: Duration,
    /// Between signs of life; three that stay unanswered mean that the connection is lost.
    pub beat: Duration,
    /// How long the far end waits for a sign of life before it ends what is at work there: up to a third more.
    pub silence: Duration,
    /// How long a cancelled program has between SIGTERM and SIGKILL.
    pub grace: Duration,
    /// How many commands run at once over one connection. Servers allow ten sessions; one is the guard's.
    pub sessions: usize,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            beat: Duration::from_secs(5),
            silence: Duration::from_secs(30),
            grace: Duration::from_secs(10),
            sessions: 9,
        }
    }
}

/// A machine by SSH.
#[derive(Debug)]
pub struct SshHost {
    name: String,
    target: Target,
    patience: Patience,
    connections: tokio::sync::Mutex<Vec<Arc<Connection>>>,
}

impl SshHost {
    /// A machine under a name of the pipeline. Nothing is connected yet.
    pub fn new(name: impl Into<String>, target: Target) -> Self {
        Self::with_patience(name, target, Patience::default())
    }

    /// The same with another patience.
    pub fn with_patience(name: impl Into<String>, target: Target, patience: Patience) -> Self {
        Self { name: name.into(), target, patience, connections: tokio::sync::Mutex::default() }
    }

    /// Connects unless it is connected, and says who logs in and how long it took for a word to go and come back.
    pub async fn reach(&self) -> Result<(String, Duration), StepError> {
        let connection = self.any().await?;
        let start = tokio::time::Instant::now();
        if connection.answers(self.patience.connect).await {
            return Ok((connection.facts.user.clone(), start.elapsed()));
        }
        Err(classify::lost(&connection.shown, "ping", &connection.last_words()))
    }

    /// A living connection.
    async fn any(&self) -> Result<Arc<Connection>, StepError> {
        let mut connections = self.connections.lock().await;
        connections.retain(|connection| !connection.lost.is_cancelled());
        if let Some(connection) = connections.first() {
            return Ok(connection.clone());
        }
        let connection = Connection::open(&self.name, &self.target, &self.patience).await?;
        connections.push(connection.clone());
        Ok(connection)
    }

    /// A living connection with room for a command.
    async fn with_room(&self) -> Result<(Arc<Connection>, OwnedSemaphorePermit), StepError> {
        // One at a time: ten commands that begin at once need one connection, not ten.
        let mut connections = self.connections.lock().await;
        connections.retain(|connection| !connection.lost.is_cancelled());
        for connection in connections.iter() {
            if let Some(room) = connection.room() {
                return Ok((connection.clone(), room));
            }
        }
        let connection = Connection::open(&self.name, &self.target, &self.patience).await?;
        let room = connection.room();
        connections.push(connection.clone());
        room.map(|room| (connection, room)).ok_or_else(|| {
            StepError::permanent(format!("host `{}` allows no session beside the first", self.name))
                .help("its `sshd_config` has to allow `MaxSessions` of 2 or more")
        })
    }

    async fn run(&self, call: Call<'_>, mut streams: Streams<'_>) -> Result<Finished, StepError> {
        let stopped = || StepError::transient("stopped on request");
        // A server that allows fewer sessions than most gets more connections.
        for _ in 0..=self.patience.sessions {
            let (connection, room) = tokio::select! {
                biased;
                () = call.cancel.cancelled() => return Err(stopped()),
                found = self.with_room() => found?,
            };
            match command::run(&connection, &call, &mut streams, &self.patience).await {
                Ok(finished) => return Ok(finished),
                Err(Broken::Failed(error)) => return Err(error),
                Err(Broken::Full) => connection.is_full(room),
            }
        }
        Err(StepError::permanent(format!("host `{}` allows no session beside the first", self.name))
            .help("its `sshd_config` has to allow `MaxSessions` of 2 or more"))
    }

    async fn open_forward(&self, to: &Endpoint) -> Result<Forward, StepError> {
        let connection = self.any().await?;
        let socket = connection.socket();
        let way = format!("{}:{to}", socket.display());
        let said = control(&connection, "forward", &way).await?;
        if let Some(said) = said {
            return Err(StepError::permanent(format!("{} forwards nothing to `{to}`: {said}", connection.shown))
                .help("its `sshd_config` has to allow `AllowTcpForwarding` or `AllowStreamLocalForwarding`"));
        }
        let open = CancellationToken::new();
        let (closed, path) = (open.clone(), socket.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = closed.cancelled() => {
                    let _ = control(&connection, "cancel", &way).await;
                    let _ = tokio::fs::remove_file(path).await;
                }
                () = connection.lost.cancelled() => {}
            }
        });
        Ok(Forward::through(socket, open.drop_guard()))
    }
}

/// Tells the `ssh` that holds a connection something about forwards; what it objects to.
async fn control(connection: &Connection, what: &str, way: &str) -> Result<Option<String>, StepError> {
    let mut client = connection.client();
    client.args(["-O", what, "-L", way, "--", "ferry"]).stdin(Stdio::null());
    let answer = client.output().await.map_err(|error| config::no_ssh(&error))?;
    Ok((!answer.status.success()).then(|| String::from_utf8_lossy(&answer.stderr).trim().to_owned()))
}

impl Host for SshHost {
    fn name(&self) -> &str {
        &self.name
    }

    fn stream<'a>(
        &'a self,
        invocation: &'a Invocation,
        vault: &'a Vault,
        cancel: &'a CancellationToken,
        streams: Streams<'a>,
        on_line: OnLine<'a>,
    ) -> BoxFuture<'a, Result<Finished, StepError>> {
        let run_as = invocation.run_as.as_deref().or(self.target.run_as.as_deref());
        self.run(Call { invocation, run_as, vault, cancel, on_line }, streams).boxed()
    }

    fn read_file<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<Option<FileState>, StepError>> {
        self.read(path).boxed()
    }

    fn write_file<'a>(
        &'a self,
        path: &'a Path,
        content: &'a [u8],
        mode: Option<u32>,
        owner: Option<(u32, u32)>,
    ) -> BoxFuture<'a, Result<(), StepError>> {
        async move {
            let mut from = content;
            self.put(path, &mut from, content.len() as u64, Owned { mode, owner }, &CancellationToken::new()).await
        }
        .boxed()
    }

    fn get_file<'a>(
        &'a self,
        path: &'a Path,
        to: &'a mut (dyn AsyncWrite + Send + Unpin),
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Option<u64>, StepError>> {
        self.get(path, to, cancel).boxed()
    }

    fn put_file<'a>(
        &'a self,
        path: &'a Path,
        from: &'a mut (dyn AsyncRead + Send + Unpin),
        length: u64,
        owned: Owned,
        cancel: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<(), StepError>> {
        self.put(path, from, length, owned, cancel).boxed()
    }

    fn clear_unfinished<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), StepError>> {
        self.clear(path).boxed()
    }

    fn remove_file<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<(), StepError>> {
        self.remove(path).boxed()
    }

    fn forward<'a>(&'a self, to: &'a Endpoint) -> BoxFuture<'a, Result<Forward, StepError>> {
        self.open_forward(to).boxed()
    }
}

/// The machines by SSH that a session has to do with: each is connected to once, whichever step or pipeline names it.
#[derive(Debug, Default)]
pub struct Reached {
    hosts: Mutex<Vec<Arc<SshHost>>>,
}

impl Reached {
    /// The machine under this name.
    pub fn host(&self, name: &str, target: Target) -> Arc<dyn Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.iter().find(|host| host.name == name && host.target == target) {
            return host.clone();
        }
        let host = Arc::new(SshHost::new(name, target));
        hosts.push(host.clone());
        host
    }
}

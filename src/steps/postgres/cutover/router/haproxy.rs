//! HAProxy as the router: two servers of a backend, one ready and one in maintenance, changed places by its runtime
//! socket.

use schemars::JsonSchema;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Seen, Task};
use crate::error::StepError;
use crate::postgres::Reach;

/// A backend of an HAProxy in TCP mode.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Haproxy {
    /// The host it runs on.
    #[schemars(extend("format" = "host"))]
    pub(super) host: String,
    /// Its runtime socket, at level `admin`; `/run/haproxy/admin.sock` unless given.
    #[serde(default = "socket")]
    socket: String,
    /// The user of the operating system who may use the socket; `root` unless given.
    #[serde(default = "root", rename = "become")]
    run_as: String,
    /// The backend.
    backend: String,
    /// The name of its server that is the source.
    from: String,
    /// The name of its server that is the target.
    to: String,
}

fn socket() -> String {
    "/run/haproxy/admin.sock".to_owned()
}

fn root() -> String {
    "root".to_owned()
}

pub(in crate::steps::postgres::cutover) struct Ready<'a> {
    router: &'a Haproxy,
    reach: Reach,
}

impl Haproxy {
    fn title(&self) -> String {
        format!("HAProxy on `{}`", self.host)
    }

    /// Looks whether both servers are there, and changes nothing.
    pub(super) async fn look(&self, reach: &Reach) -> Result<Seen, StepError> {
        let state = self.say(reach, &format!("show servers state {}", self.backend)).await?;
        for name in [&self.from, &self.to] {
            if !state.lines().any(|line| line.split(' ').nth(3) == Some(name)) {
                return Err(StepError::permanent(format!(
                    "backend `{}` of {} has no server `{name}`",
                    self.backend,
                    self.title()
                ))
                .help("list both servers in its configuration, the target `disabled`"));
            }
        }
        let warning =
            format!("{} holds no clients back: their connections break at the cutover, and a reload forgets it", self.title());
        Ok(Seen { names: vec![self.from.clone()], whole: false, machine: self.to.clone(), port: 0, warnings: vec![warning] })
    }

    pub(super) fn prepare<'a>(&'a self, task: &Task<'a>) -> Ready<'a> {
        Ready { router: self, reach: task.reach.clone() }
    }

    pub(super) async fn back(&self, task: &Task<'_>) -> Result<(), StepError> {
        self.leads_to(task.reach, &self.from, &self.to).await
    }

    pub(super) async fn over(&self, task: &Task<'_>) -> Result<(), StepError> {
        self.leads_to(task.reach, &self.to, &self.from).await
    }

    async fn leads_to(&self, reach: &Reach, this: &str, other: &str) -> Result<(), StepError> {
        let backend = &self.backend;
        let orders = format!(
            "set server {backend}/{other} state maint;set server {backend}/{this} state ready;shutdown sessions server {backend}/{other}"
        );
        let said = self.say(reach, &orders).await?;
        if said.trim().is_empty() {
            return Ok(());
        }
        Err(StepError::permanent(format!("{} says: {}", self.title(), said.trim()))
            .help("correct `backend`, `from` and `to` of the router"))
    }

    async fn say(&self, reach: &Reach, orders: &str) -> Result<String, StepError> {
        let broke =
            |error: std::io::Error| StepError::transient(format!("the connection to {} broke", self.title())).cause(error);
        let mut stream = reach.socket(&self.host, &self.socket, &self.run_as).await?;
        stream.write_all(format!("{orders}\n").as_bytes()).await.map_err(broke)?;
        let mut said = String::new();
        stream.read_to_string(&mut said).await.map_err(broke)?;
        if said.contains("Permission denied") {
            return Err(StepError::needs_person(format!("the runtime socket of {} is not of level `admin`", self.title()))
                .help("`stats socket … level admin` in its configuration"));
        }
        Ok(said)
    }
}

impl Ready<'_> {
    pub(super) async fn switch(&self) -> Result<(), StepError> {
        self.router.leads_to(&self.reach, &self.router.to, &self.router.from).await
    }
}

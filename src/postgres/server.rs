//! A PostgreSQL server as a pipeline names it: a host, and what differs from the usual.

use schemars::{JsonSchema, Schema, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use super::tls::Trust;
use crate::hosts::Endpoint;
use crate::secret::Text;

/// How ferry's own connections reach a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Connect {
    /// By the socket on the host itself, as the operating system's user `become`: PostgreSQL's `peer` needs no password.
    #[default]
    Socket,
    /// By TCP from the host, to `address`; with `password` and `tls`.
    Tcp,
}

/// A PostgreSQL server. A host's name alone is the server there with the usual port, user and socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(transform = or_a_host)]
pub struct Server {
    /// The host it runs on; `local` and an `address` for a service without one.
    #[schemars(extend("format" = "host"))]
    pub host: String,
    /// The port; 5432 unless given.
    pub port: u16,
    /// Who logs in to the database: a superuser for all that changes the cluster. `postgres` unless given.
    pub user: String,
    /// The password, where one is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<Text>,
    /// The database to connect to; `postgres` unless given. It is not the one that is moved: all of a cluster is.
    pub database: String,
    /// How ferry reaches it: by the host's own socket, unless given.
    pub connect: Connect,
    /// The folder of the socket; `/var/run/postgresql` unless given.
    pub socket: String,
    /// `host[:port]` as the other server and the pooler reach it. Found out, unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// The user of the operating system that owns the server; `postgres` unless given.
    #[serde(rename = "become")]
    pub run_as: String,
    /// The data directory. A running server says it itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// The main configuration file, where it is not in the data directory. A running server says it itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// The folder of PostgreSQL's programs. Found out, unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bin: Option<String>,
    /// A unit of systemd that starts and stops the server: `postgresql@15-main`. `pg_ctl` does it, unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// What TLS has to prove when ferry connects by TCP.
    pub tls: Trust,
    /// A file with the certificates of who may sign the server's; the system's own, unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

/// The same with everything but the host left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    host: String,
    port: Option<u16>,
    user: Option<String>,
    password: Option<Text>,
    database: Option<String>,
    connect: Option<Connect>,
    socket: Option<String>,
    address: Option<String>,
    #[serde(rename = "become")]
    run_as: Option<String>,
    data: Option<String>,
    config: Option<String>,
    bin: Option<String>,
    service: Option<String>,
    tls: Option<Trust>,
    ca: Option<String>,
}

impl Server {
    /// The server on this host with nothing unusual.
    pub fn on(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            port: 5432,
            user: "postgres".to_owned(),
            password: None,
            database: "postgres".to_owned(),
            connect: Connect::Socket,
            socket: "/var/run/postgresql".to_owned(),
            address: None,
            run_as: "postgres".to_owned(),
            data: None,
            config: None,
            bin: None,
            service: None,
            tls: Trust::default(),
            ca: None,
        }
    }

    /// What ferry connects to, as the host sees it.
    pub fn endpoint(&self) -> Endpoint {
        match (self.connect, &self.address) {
            (Connect::Socket, _) => Endpoint::Socket(format!("{}/.s.PGSQL.{}", self.socket.trim_end_matches('/'), self.port)),
            (Connect::Tcp, Some(address)) => {
                let (machine, port) = parts(address, self.port);
                Endpoint::Tcp(machine, port)
            }
            (Connect::Tcp, None) => Endpoint::Tcp("localhost".to_owned(), self.port),
        }
    }

    /// Machine and port of `address`, if there is one.
    pub fn network(&self) -> Option<(String, u16)> {
        self.address.as_ref().map(|address| parts(address, self.port))
    }

    /// For messages: the host, and the port where it is not the usual.
    pub fn title(&self) -> String {
        if self.port == 5432 { self.host.clone() } else { format!("{}:{}", self.host, self.port) }
    }
}

/// Machine and port of a `host[:port]`; IPv6 addresses stand in brackets when a port follows.
fn parts(address: &str, port: u16) -> (String, u16) {
    if let Some((machine, rest)) = address.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return (machine.to_owned(), rest.strip_prefix(':').and_then(|port| port.parse().ok()).unwrap_or(port));
    }
    match address.split_once(':') {
        Some((machine, given)) if !given.contains(':') => (machine.to_owned(), given.parse().unwrap_or(port)),
        _ => (address.to_owned(), port),
    }
}

impl<'de> Deserialize<'de> for Server {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = serde_json::Value::deserialize(deserializer)?;
        if let serde_json::Value::String(host) = value {
            return Ok(Self::on(host));
        }
        let written: Written = serde_json::from_value(value).map_err(serde::de::Error::custom)?;
        let usual = Self::on(written.host);
        Ok(Self {
            port: written.port.unwrap_or(usual.port),
            user: written.user.unwrap_or(usual.user),
            password: written.password,
            database: written.database.unwrap_or(usual.database),
            connect: written.connect.unwrap_or_default(),
            socket: written.socket.unwrap_or(usual.socket),
            address: written.address,
            run_as: written.run_as.unwrap_or(usual.run_as),
            data: written.data,
            config: written.config,
            bin: written.bin,
            service: written.service,
            tls: written.tls.unwrap_or_default(),
            ca: written.ca,
            host: usual.host,
        })
    }
}

/// Only the host has to be given, no other key is known, and a host's name alone will do.
fn or_a_host(schema: &mut Schema) {
    if let Some(object) = schema.as_object_mut() {
        object.insert("required".to_owned(), serde_json::json!(["host"]));
        object.insert("additionalProperties".to_owned(), serde_json::json!(false));
    }
    let description = schema.get("description").cloned().unwrap_or_default();
    let mapping = std::mem::take(schema);
    *schema = json_schema!({
        "description": description,
        "anyOf": [{ "type": "string", "format": "host" }, mapping],
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_host_alone_is_a_server() {
        let server: Server = serde_json::from_value(json!("db")).expect("a server");
        assert_eq!(server, Server::on("db"));
        assert_eq!(server.endpoint(), Endpoint::Socket("/var/run/postgresql/.s.PGSQL.5432".to_owned()));
        let whole: Server = serde_json::from_value(serde_json::to_value(&server).expect("JSON")).expect("the same");
        assert_eq!(whole, server);
    }

    #[test]
    fn an_address_may_have_a_port() {
        let tcp = |address: &str| {
            let written = json!({ "host": "local", "connect": "tcp", "port": 5433, "address": address });
            serde_json::from_value::<Server>(written).expect("a server").endpoint().to_string()
        };
        assert_eq!(tcp("db.acme.example"), "db.acme.example:5433");
        assert_eq!(tcp("db.acme.example:6000"), "db.acme.example:6000");
        assert_eq!(tcp("[2001:db8::1]:6000"), "[2001:db8::1]:6000");
        assert_eq!(tcp("2001:db8::1"), "[2001:db8::1]:5433");
    }

    #[test]
    fn a_mistyped_key_is_refused() {
        assert!(serde_json::from_value::<Server>(json!({ "host": "db", "prot": 1 })).is_err());
        assert!(serde_json::from_value::<Server>(json!({ "port": 1 })).is_err());
    }
}

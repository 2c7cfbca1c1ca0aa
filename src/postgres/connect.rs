//! Connections to a server: over its host's own socket as its owner, or by TCP from the host, with TLS.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio_postgres::config::SslMode;
use tokio_postgres::{Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::CancellationToken;

use super::classify;
use super::database::Database;
use super::relay;
use super::server::{Connect, Server};
use super::tls::{self, Trust};
use crate::error::StepError;
use crate::hosts::{Duplex, Endpoint, Host, Hosts};
use crate::secret::Vault;

/// How long a server may take to let somebody in.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is needed to reach a server: the run's hosts and secrets, and when to give up.
#[derive(Debug, Clone)]
pub struct Reach {
    /// The machines.
    pub hosts: Hosts,
    /// The secrets.
    pub vault: Vault,
    /// Ends every connection that was made with this.
    pub cancel: CancellationToken,
    /// Where relative paths start.
    pub base: PathBuf,
    /// Shown by the server as the one who is connected: `ferry`, and the step's key.
    pub application: String,
}

impl Reach {
    /// The host of a server.
    pub fn host(&self, server: &Server) -> Result<Arc<dyn Host>, StepError> {
        self.hosts.get(&server.host)
    }

    /// A new connection to the server's own database.
    pub async fn connect(&self, server: &Server) -> Result<Database, StepError> {
        self.connect_to(server, &server.database).await
    }

    /// A new connection to one of its databases.
    pub async fn connect_to(&self, server: &Server, database: &str) -> Result<Database, StepError> {
        let login = self.login(server, database)?;
        let opening = async {
            let stream = self.stream(server).await?;
            open(stream, &login).await
        };
        tokio::select! {
            opened = tokio::time::timeout(PATIENCE, opening) => opened.unwrap_or_else(|_| {
                Err(StepError::transient(format!("the server on `{}` did not answer within {} s", server.title(), PATIENCE.as_secs()))
                    .help("see whether it hangs; it is tried again as `retry` says"))
            }),
            () = self.cancel.cancelled() => Err(StepError::transient("stopped on request")),
        }
    }

    /// Both directions of a connection to a socket of a host, as this user of it.
    pub async fn socket(&self, host: &str, path: &str, run_as: &str) -> Result<DuplexStream, StepError> {
        relay::connect(self.hosts.get(host)?, path.to_owned(), run_as.to_owned(), &self.application, &self.cancel).await
    }

    async fn stream(&self, server: &Server) -> Result<Box<dyn Duplex>, StepError> {
        let host = self.host(server)?;
        let endpoint = server.endpoint();
        match (&endpoint, server.connect) {
            (Endpoint::Socket(path), Connect::Socket) => {
                let relay = relay::connect(host, path.clone(), server.run_as.clone(), &self.application, &self.cancel).await?;
                Ok(Box::new(relay))
            }
            _ => host.forward(&endpoint).await?.connect().await,
        }
    }

    fn login(&self, server: &Server, database: &str) -> Result<Login, StepError> {
        let password = server.password.as_ref().map(|text| {
            self.vault
                .reveal(text.marked())
                .map_err(|unknown| StepError::permanent(unknown.to_string()).help("list it under `secrets:` in the pipeline"))
        });
        let (trust, name) = match server.endpoint() {
            Endpoint::Socket(_) => (Trust::Disable, "localhost".to_owned()),
            Endpoint::Tcp(machine, _) => (server.tls, machine),
        };
        Ok(Login {
            user: server.user.clone(),
            password: password.transpose()?,
            database: database.to_owned(),
            application: self.application.clone(),
            trust,
            ca: server.ca.as_ref().map(|ca| self.base.join(ca)),
            name,
            title: server.title(),
        })
    }
}

/// Who logs in where.
#[derive(Debug)]
pub struct Login {
    /// The database's user.
    pub user: String,
    /// The password, if one is asked for.
    pub password: Option<SecretString>,
    /// The database.
    pub database: String,
    /// What the server shows as the one who is connected.
    pub application: String,
    /// What TLS has to prove.
    pub trust: Trust,
    /// Certificates in PEM of who may sign the server's.
    pub ca: Option<PathBuf>,
    /// The name that the server's certificate has to be for.
    pub name: String,
    /// The server in messages.
    pub title: String,
}

/// A stream to a server under one name, whatever it is.
struct Stream(Box<dyn Duplex>);

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut *self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut *self.0).poll_shutdown(context)
    }
}

/// Logs in over a stream that leads to a server.
pub async fn open(stream: Box<dyn Duplex>, login: &Login) -> Result<Database, StepError> {
    // A name of its own: the compiler cannot tell of a boxed trait that what waits for it may go from thread to thread.
    let stream = Stream(stream);
    let mut config = Config::new();
    config.user(&login.user).dbname(&login.database).application_name(&login.application);
    if let Some(password) = &login.password {
        config.password(password.expose_secret());
    }
    config.ssl_mode(match login.trust {
        Trust::Disable => SslMode::Disable,
        Trust::Prefer => SslMode::Prefer,
        Trust::Require | Trust::VerifyCa | Trust::VerifyFull => SslMode::Require,
    });
    let refused = |error: tokio_postgres::Error| classify::login(login, error);
    if login.trust == Trust::Disable {
        let (client, connection) = config.connect_raw(stream, NoTls).await.map_err(refused)?;
        return Ok(Database::new(client, connection, &login.title));
    }
    let mut tls = MakeRustlsConnect::new(tls::client(login.trust, login.ca.as_deref())?);
    let tls = <MakeRustlsConnect as tokio_postgres::tls::MakeTlsConnect<Stream>>::make_tls_connect(&mut tls, &login.name)
        .map_err(|error| StepError::permanent(format!("`{}` is no name of a server", login.name)).cause(error))?;
    let (client, connection) = config.connect_raw(stream, tls).await.map_err(refused)?;
    Ok(Database::new(client, connection, &login.title))
}

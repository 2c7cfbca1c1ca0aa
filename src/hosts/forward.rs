//! Forwards: a way from here to a port or a socket as a host sees it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_util::sync::DropGuard;

use crate::error::StepError;

/// What is to be reached, as the host names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A port of a machine: `localhost` is the host itself.
    Tcp(String, u16),
    /// A socket in the host's file system.
    Socket(String),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(machine, port) if machine.contains(':') => write!(formatter, "[{machine}]:{port}"),
            Self::Tcp(machine, port) => write!(formatter, "{machine}:{port}"),
            Self::Socket(path) => formatter.write_str(path),
        }
    }
}

/// Both directions of a connection.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A way to an endpoint. It is closed when this is dropped; connections that were made through it live on.
#[derive(Debug)]
pub struct Forward {
    way: Way,
    /// What `close` tells whoever keeps the way open.
    _open: Option<DropGuard>,
}

#[derive(Debug, Clone)]
enum Way {
    Tcp(String, u16),
    Socket(PathBuf),
}

impl Forward {
    /// No detour: the endpoint is one of this machine.
    pub(super) fn direct(to: &Endpoint) -> Self {
        let way = match to {
            Endpoint::Tcp(machine, port) => Way::Tcp(machine.clone(), *port),
            Endpoint::Socket(path) => Way::Socket(path.into()),
        };
        Self { way, _open: None }
    }

    /// Through a socket that only this user can reach.
    pub(super) fn through(socket: PathBuf, open: DropGuard) -> Self {
        Self { way: Way::Socket(socket), _open: Some(open) }
    }

    /// A new connection. That nobody listens at the far end shows as the end of the stream.
    pub async fn connect(&self) -> Result<Box<dyn Duplex>, StepError> {
        self.way.connect().await
    }

    /// A port of 127.0.0.1 that leads there, for programs that know no sockets, until the result is dropped. Every user
    /// of this machine can reach it.
    pub async fn listen(&self) -> Result<Port, StepError> {
        let failed = |error| StepError::transient("cannot listen on a port of this machine").cause(error);
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let way = self.way.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let way = way.clone();
                tokio::spawn(async move {
                    if let Ok(mut far) = way.connect().await {
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
            }
        });
        Ok(Port { address, task })
    }
}

impl Way {
    async fn connect(&self) -> Result<Box<dyn Duplex>, StepError> {
        let connected: std::io::Result<Box<dyn Duplex>> = match self {
            Self::Tcp(machine, port) => TcpStream::connect((machine.as_str(), *port)).await.map(|stream| {
                let _ = stream.set_nodelay(true);
                Box::new(stream) as _
            }),
            Self::Socket(path) => UnixStream::connect(path).await.map(|stream| Box::new(stream) as _),
        };
        connected.map_err(|error| {
            let to = match self {
                Self::Tcp(machine, port) => format!("{machine}:{port}"),
                Self::Socket(path) => path.display().to_string(),
            };
            StepError::transient(format!("cannot connect to `{to}`"))
                .cause(error)
                .help("see whether something listens there; it is tried again as `retry` says")
        })
    }
}

/// A port of this machine that leads through a [`Forward`].
#[derive(Debug)]
pub struct Port {
    /// Where it listens.
    pub address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Port {
    fn drop(&mut self) {
        self.task.abort();
    }
}

//! HAProxy on a host of the lab: TCP, one server that is used and one that is not yet.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use super::template::APP;
use super::{Lab, Machine, until};

/// Its settings, as Debian has them.
pub const INSIDE: &str = "/etc/haproxy/haproxy.cfg";
/// Where clients come.
pub const PORT: u16 = 5000;
/// Where its runtime commands are taken, also by network.
pub const ADMIN: u16 = 9190;
/// The same as a file of its host.
pub const SOCKET: &str = "/run/haproxy/admin.sock";

/// A proxy whose backend `postgres` has the servers `old` and `new`.
pub struct Proxy<'a> {
    /// Where it is.
    pub host: &'a Machine,
}

impl Lab {
    /// A proxy on this host. `old` and `new` are a server's `host:port`; `unused` is what keeps the new one from being
    /// used: `weight 0`, `backup` or `disabled`.
    pub fn proxy(&self, host: &str, old: &str, new: &str, unused: &str) -> Proxy<'_> {
        assert!(std::path::Path::new("/usr/sbin/haproxy").exists(), "haproxy is missing: run scripts/install-parts.sh lab");
        let proxy = Proxy { host: self.host(host) };
        let settings = format!(
            "global\n  stats socket unix@{SOCKET} mode 660 level admin\n  stats socket ipv4@*:{ADMIN} level admin\n  maxconn 400\n\
             \x20 pidfile /run/haproxy/pid\n\
             defaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n\
             frontend clients\n  bind *:{PORT}\n  default_backend postgres\n\
             backend postgres\n  server old {old} weight 100\n  server new {new} {unused}\n"
        );
        let file = proxy.host.path(INSIDE);
        std::fs::write(file, settings).expect("written");
        proxy.host.says(&format!("mkdir -p /run/haproxy && haproxy -D -f {INSIDE} </dev/null >/run/haproxy/log 2>&1"));
        until("the proxy listens", || TcpStream::connect((proxy.host.address.as_str(), PORT)).ok());
        proxy
    }
}

impl Proxy<'_> {
    /// What a runtime command answers: nothing is well.
    pub fn ask(&self, command: &str) -> String {
        let mut socket = TcpStream::connect((self.host.address.as_str(), ADMIN)).expect("it listens");
        socket.write_all(format!("{command}\n").as_bytes()).expect("it reads");
        let mut said = String::new();
        socket.read_to_string(&mut said).expect("it answers");
        said.trim().to_owned()
    }

    /// How clients are told of it.
    pub fn url(&self) -> String {
        format!("postgresql://{}:{}@{}:{PORT}/app", APP.0, APP.1, self.host.address)
    }
}

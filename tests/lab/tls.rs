//! The lab's own certificate authority, and a certificate for each host that serves.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{Lab, Machine};

/// Where a host finds its certificate (`server.crt`), its key (`server.key`) and the authority's (`ca.crt`). It is no
/// part of a data directory: a copy of another host's must not bring that host's certificate.
pub const INSIDE: &str = "/var/lib/postgresql/tls";

/// OpenSSL's settings: no others are asked, as each system has its own.
const SETTINGS: &str = "[req]\ndistinguished_name = name\nprompt = no\n[name]\nCN = $ENV::NAME\n\
    [authority]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign, cRLSign\n\
    subjectKeyIdentifier = hash\n\
    [server]\nbasicConstraints = critical, CA:FALSE\nkeyUsage = critical, digitalSignature\n\
    extendedKeyUsage = serverAuth\nsubjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n\
    subjectAltName = $ENV::NAMES\n";

impl Lab {
    /// The authority's certificate, for those who test: `sslrootcert`.
    pub fn authority(&self) -> PathBuf {
        self.folder().join("ca.crt")
    }

    /// Gives every host a certificate for its name and its address, and the authority's. Once is enough; more do
    /// nothing.
    pub fn certify(&self) {
        let folder = self.folder();
        if self.authority().exists() {
            return;
        }
        std::fs::write(folder.join("openssl.cnf"), SETTINGS).expect("written");
        self.openssl("lab", "DNS:lab", "-extensions authority -keyout ca.key -out ca.crt");
        for host in &self.hosts {
            let to = host.path(INSIDE);
            std::fs::create_dir_all(&to).expect("a new folder");
            let names = format!("DNS:{},IP:{},IP:127.0.0.1,DNS:localhost", host.name, host.address);
            self.openssl(&host.name, &names, "-extensions server -CA ca.crt -CAkey ca.key -keyout server.key -out server.crt");
            for file in ["server.key", "server.crt"] {
                std::fs::copy(folder.join(file), to.join(file)).expect("copied");
            }
            std::fs::copy(self.authority(), to.join("ca.crt")).expect("copied");
            host.owns(INSIDE);
        }
    }

    fn openssl(&self, name: &str, names: &str, how: &str) {
        let mut command = Command::new("openssl");
        command.args("req -x509 -config openssl.cnf -days 30 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1".split(' '));
        command.args(how.split(' ')).env("NAME", name).env("NAMES", names).current_dir(self.folder());
        let output = command.stdin(Stdio::null()).output().expect("openssl comes with postgresql");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Machine {
    /// Makes the folder and all in it the servers' user's, and nobody else's keys readable.
    pub fn owns(&self, inside: &str) {
        self.says(&format!("chown -R postgres:postgres {inside} && find {inside} -name '*.key' -exec chmod 600 {{}} +"));
    }
}

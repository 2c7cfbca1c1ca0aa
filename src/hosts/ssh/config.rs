//! The configuration that `ssh` is started with: the user's own, with what ferry insists on before it and what it
//! falls back on behind it. `ssh` takes the first value that it finds, for jump hosts too.

use std::fmt::Write as _;
use std::path::Path;

use tokio::process::Command;

use super::Patience;
use super::target::Target;
use crate::error::StepError;

/// Nobody is asked anything, and keys of machines are known before, or accepted the first time when the user's own
/// configuration says so. Connections of others are not used: they would outlive ferry, or end under it.
const INSISTS: &str = "  BatchMode yes\n  ControlMaster no\n  ControlPath none\n  ControlPersist no\n  ClearAllForwardings yes\n  \
     RemoteCommand none\n  RequestTTY no\n  ForkAfterAuthentication no\n  SessionType default\n  StdinNull no\n  \
     PermitLocalCommand no\n  LogLevel ERROR\n  NumberOfPasswordPrompts 0\n  ForwardX11 no\n  EscapeChar none\n  \
     VisualHostKey no\n  UpdateHostKeys no\n";

/// Writes the configuration for a target into `file`.
pub(super) async fn write(target: &Target, patience: &Patience, file: &Path) -> Result<(), StepError> {
    let mut text = String::new();
    // The jump hosts of the target, each of which may have its own.
    let mut open = vec![(target.ssh.clone(), target.arguments())];
    let mut accepted = Vec::new();
    let mut seen = 0;
    while let Some((name, arguments)) = open.pop() {
        seen += 1;
        let Settings { accepts_new, jumps } = Settings::ask(target, &name, &arguments).await?;
        if accepts_new {
            accepted.push(alias(&name).to_owned());
        }
        if seen < 16 {
            open.extend(jumps.into_iter().map(|jump| (jump, Vec::new())));
        }
    }
    for name in accepted {
        let _ = writeln!(text, "Host \"{name}\"\n  StrictHostKeyChecking accept-new");
    }
    let beat = patience.beat.as_secs().max(1);
    let _ = write!(text, "Host *\n{INSISTS}  StrictHostKeyChecking yes\n  ServerAliveInterval {beat}\n  ServerAliveCountMax 3\n");
    if let Some(identity) = &target.identity {
        let _ = writeln!(text, "  IdentityFile \"{identity}\"");
    }
    let _ = writeln!(text, "Include \"{}\"", target.config.as_deref().unwrap_or("~/.ssh/config"));
    // With a file of one's own, the system's is not read either: as with `ssh -F`.
    if target.config.is_none() {
        text.push_str("Include /etc/ssh/ssh_config\n");
    }
    let connect = patience.connect.as_secs().max(1);
    let _ = write!(text, "Host *\n  ConnectTimeout {connect}\n");
    tokio::fs::write(file, text).await.map_err(|error| {
        StepError::transient("cannot write the configuration of a connection").cause(error).help("make room for temporary files")
    })
}

/// The name by which a machine stands in a configuration: without user, port and scheme.
fn alias(name: &str) -> &str {
    let name = name.strip_prefix("ssh://").unwrap_or(name);
    let name = name.rsplit_once('@').map_or(name, |(_, name)| name);
    match name.strip_prefix('[').and_then(|name| name.split_once(']')) {
        Some((name, _)) => name,
        None => name.split_once(':').filter(|(_, port)| !port.contains(':')).map_or(name, |(name, _)| name),
    }
}

/// What the user's own configuration says of a machine, as far as it is asked.
struct Settings {
    accepts_new: bool,
    jumps: Vec<String>,
}

impl Settings {
    async fn ask(target: &Target, name: &str, arguments: &[String]) -> Result<Self, StepError> {
        let mut command = Command::new("ssh");
        if let Some(config) = &target.config {
            let file = expanded(config);
            if tokio::fs::metadata(&file).await.is_err() {
                return Err(StepError::permanent(format!("there is no SSH configuration `{config}`"))
                    .help("correct `config` of the host, or leave it out for `~/.ssh/config`"));
            }
            command.arg("-F").arg(file);
        }
        let asked = command.args(arguments).args(["-G", "--", name]).stdin(std::process::Stdio::null()).output().await;
        let answer = asked.map_err(|error| no_ssh(&error))?;
        if !answer.status.success() {
            let said = String::from_utf8_lossy(&answer.stderr).trim().to_owned();
            let last = said.lines().next().unwrap_or_default().to_owned();
            return Err(StepError::permanent(format!("`ssh` does not take the configuration of `{name}`: {last}"))
                .help(format!("correct it until `ssh -G {name}` says nothing wrong"))
                .cause(said));
        }
        let text = String::from_utf8_lossy(&answer.stdout);
        let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).unwrap_or_default();
        let jumps = value("proxyjump").split(',').map(str::trim).filter(|jump| !matches!(*jump, "" | "none"));
        Ok(Self { accepts_new: value("stricthostkeychecking") == "accept-new", jumps: jumps.map(str::to_owned).collect() })
    }
}

/// A tilde at the beginning means the home folder, as in a shell.
fn expanded(path: &str) -> std::path::PathBuf {
    match (path.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => path.into(),
    }
}

/// `ssh` itself cannot be started.
pub(super) fn no_ssh(error: &std::io::Error) -> StepError {
    let message = format!("cannot start `ssh`: {error}");
    if error.kind() == std::io::ErrorKind::NotFound {
        return StepError::permanent(message).help("install OpenSSH's client (Debian: `apt-get install openssh-client`)");
    }
    StepError::transient(message).help("`ssh` needs a free process and some file descriptors on this machine")
}

#[cfg(test)]
mod tests {
    use super::alias;

    #[test]
    fn a_machine_is_named_without_user_and_port() {
        for (name, is) in [
            ("db", "db"),
            ("me@db", "db"),
            ("ssh://me@db.example:22", "db.example"),
            ("me@[fd00::1]:22", "fd00::1"),
            ("fd00::1", "fd00::1"),
            ("bastion:2222", "bastion"),
        ] {
            assert_eq!(alias(name), is);
        }
    }
}

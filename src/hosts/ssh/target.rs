//! A machine by SSH as the pipeline names it.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::StepError;
use crate::hosts::script::is_user;

/// A machine by SSH: what one would write behind `ssh`, and what is to differ from the user's own configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// `user@machine`, or a name from the configuration.
    pub ssh: String,
    /// The user to log in as.
    pub user: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// A file with the private key.
    pub identity: Option<String>,
    /// The configuration to read in place of `~/.ssh/config`.
    pub config: Option<String>,
    /// The jump hosts, as behind `ssh -J`.
    pub jump: Option<String>,
    /// The user whom commands and files belong to unless a command says otherwise.
    pub run_as: Option<String>,
}

impl Target {
    /// This machine, all else as the user's configuration says.
    pub fn new(ssh: impl Into<String>) -> Self {
        Self { ssh: ssh.into(), ..Self::default() }
    }

    /// From a host of a pipeline, rendered: `{ ssh, user, port, identity, config, jump, become }`. Relative paths begin
    /// at `base`.
    pub fn read(host: &Map<String, Value>, base: &Path) -> Result<Self, StepError> {
        let text = |key: &str| match host.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if is_plain(text) => Ok(Some(text.clone())),
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(other) => Err(StepError::permanent(format!("`{key}` of a host cannot be `{other}`"))
                .help("write it as behind `ssh`: no spaces, quotes or signs that cannot be seen")),
        };
        let user = |key: &str| match text(key)? {
            Some(name) if !is_user(&name) => {
                Err(StepError::permanent(format!("`{key}` of a host cannot be `{name}`")).help("it is the name of a user"))
            }
            other => Ok(other),
        };
        let path = |key: &str| {
            let resolved = |path: String| {
                if path.starts_with('~') { path } else { base.join(path).to_string_lossy().into_owned() }
            };
            Ok::<_, StepError>(text(key)?.map(resolved))
        };
        let port = text("port")?.map(|port| {
            port.parse().map_err(|error| {
                StepError::permanent(format!("`port` of a host cannot be `{port}`"))
                    .cause(error)
                    .help("it is a number up to 65535")
            })
        });
        let ssh = text("ssh")?.filter(|ssh| !ssh.is_empty() && !ssh.starts_with('-'));
        Ok(Self {
            ssh: ssh.ok_or_else(|| {
                StepError::permanent("a host by SSH needs a machine")
                    .help("write `ssh: user@machine`, or a name from `~/.ssh/config`")
            })?,
            user: user("user")?,
            port: port.transpose()?,
            identity: path("identity")?,
            config: path("config")?,
            jump: text("jump")?,
            run_as: user("become")?,
        })
    }

    /// What makes `ssh` mean this machine, without the configuration file.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        let mut option = |flag: &str, value: Option<String>| {
            arguments.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
        };
        option("-l", self.user.clone());
        option("-p", self.port.map(|port| port.to_string()));
        option("-J", self.jump.clone());
        arguments
    }
}

/// What may stand in a configuration file and behind `ssh` without changing the meaning of either.
fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || matches!(c, '"' | '\'' | '\\' | '`' | '$' | ';' | '|' | '&' | '<' | '>'))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<Target, StepError> {
        Target::read(value.as_object().expect("a mapping"), Path::new("/project"))
    }

    #[test]
    fn a_host_is_read_and_paths_begin_at_the_pipeline() {
        let host = json!({ "name": "db", "ssh": "db.example", "port": "2222", "identity": "keys/id", "config": "~/conf", "become": "postgres" });
        let target = read(&host).expect("fine");
        assert_eq!((target.port, target.identity.as_deref()), (Some(2222), Some("/project/keys/id")));
        assert_eq!((target.config.as_deref(), target.run_as.as_deref()), (Some("~/conf"), Some("postgres")));
        assert_eq!(target.arguments(), ["-p", "2222"]);
    }

    #[test]
    fn what_would_change_the_meaning_is_refused() {
        for host in [
            json!({ "ssh": "-oProxyCommand=x" }),
            json!({ "ssh": "" }),
            json!({ "ssh": "a", "port": "70000" }),
            json!({ "ssh": "a", "identity": "x\nProxyCommand y" }),
            json!({ "ssh": "a", "become": "a b" }),
            json!({ "ssh": "a", "become": "-u" }),
            json!({ "ssh": "a", "jump": "$(x)" }),
        ] {
            assert!(read(&host).is_err(), "{host}");
        }
    }
}

//! Starting and stopping a server by its owner, and watching that it has.

use super::owner::Owner;
use super::server::Server;
use crate::error::StepError;
use crate::hosts::Invocation;

/// Starts the server and watches its own file until it takes connections: `pg_ctl -w` looks ten times a second at best.
/// `$1` data, `$2` bin, `$3` main configuration file or nothing.
const START: &str = r#"d=$1; p=$d/postmaster.pid
running() { [ -f "$p" ] && kill -0 "$(head -n1 "$p")" 2>/dev/null; }
if ! running; then
  mkdir -p "$d/log"; l=$d/log/start.log; : >"$l"
  if [ -n "$3" ]; then "$2/pg_ctl" -D "$d" -W -s -l "$l" -o "-c config_file=$3 -c data_directory=$d" start
  else "$2/pg_ctl" -D "$d" -W -s -l "$l" start; fi || exit 5
  i=0; until running; do i=$((i+1)); [ $i -lt 500 ] || break; sleep 0.02; done
fi
while running; do case "$(sed -n 8p "$p")" in ready*|standby*) exit 0;; esac; sleep 0.02; done
tail -n 12 "$d/log/start.log" >&2; exit 6"#;

/// Stops it and watches that it is gone. `$1` data, `$2` the signal.
const STOP: &str = r#"p=$1/postmaster.pid; [ -f "$p" ] || exit 0; n=$(head -n1 "$p"); kill -0 "$n" 2>/dev/null || exit 0
kill -s "$2" "$n" && while kill -0 "$n" 2>/dev/null; do sleep 0.02; done; exit 0"#;

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Clients are sent away, a checkpoint is written.
    Fast,
    /// At once, as if the power had failed: nothing more is written, not even a checkpoint.
    Immediate,
}

impl Owner {
    /// Starts a server, unless it runs, and returns when it takes connections.
    pub async fn start(&self, server: &Server, data: &str, bin: &str) -> Result<(), StepError> {
        if let Some(unit) = &server.service {
            return self.systemctl(server, "start", unit).await;
        }
        let config = server.config.as_deref().unwrap_or_default();
        let finished = self.try_script(START, &[data, bin, config], None).await?;
        if finished.code == Some(0) {
            return Ok(());
        }
        let said = finished.stderr_tail.trim().to_owned();
        Err(StepError::permanent(format!("the server in `{data}` of `{}` does not start: {said}", self.host()))
            .help("put right what its log says, then resume the run"))
    }

    /// Stops a server, if it runs, and returns when it is gone.
    pub async fn stop(&self, server: &Server, data: &str, how: Stop) -> Result<(), StepError> {
        if let (Some(unit), Stop::Fast) = (&server.service, how) {
            return self.systemctl(server, "stop", unit).await;
        }
        let signal = match how {
            Stop::Fast => "INT",
            Stop::Immediate => "QUIT",
        };
        self.script("stop the server", STOP, &[data, signal]).await.map(drop)
    }

    /// Makes a running server read its configuration again.
    pub async fn reload(&self, data: &str) -> Result<(), StepError> {
        let script = r#"n=$(head -n1 "$1/postmaster.pid" 2>/dev/null) && kill -s HUP "$n""#;
        self.script("reload the server's configuration", script, &[data]).await.map(drop)
    }

    /// Whether a server runs on this data directory.
    pub async fn is_running(&self, data: &str) -> Result<bool, StepError> {
        let script = r#"n=$(head -n1 "$1/postmaster.pid" 2>/dev/null) && kill -0 "$n" 2>/dev/null"#;
        Ok(self.try_script(script, &[data], None).await?.code == Some(0))
    }

    async fn systemctl(&self, server: &Server, what: &str, unit: &str) -> Result<(), StepError> {
        let invocation = Invocation { run_as: Some("root".to_owned()), ..Invocation::new(["systemctl", what, unit]) };
        let finished = self.run(invocation, &|_, _| {}).await?;
        if finished.code == Some(0) {
            return Ok(());
        }
        let said = finished.stderr_tail.trim();
        Err(StepError::permanent(format!("cannot {what} `{unit}` on `{}`: {said}", server.host))
            .help(format!("`systemctl status {unit}` and `journalctl -u {unit}` there say more")))
    }
}

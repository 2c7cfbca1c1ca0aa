//! One connection to a machine: the `ssh` that holds it, and the guard at its far end.
//!
//! The first session of a connection runs the guard, a shell that knows which commands are at work. A signal for one of
//! them is a line to the guard: no new session, half a round trip. When the guard's input ends, or stays silent because
//! the network is gone, it kills what is at work: nothing outlives the connection unnoticed.

use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::config::no_ssh;
use super::target::Target;
use super::{Patience, classify, config};
use crate::error::StepError;
use crate::hosts::lifeline::Lifeline;
use crate::hosts::script::{BOOTSTRAP, MARK};

/// The far end of a connection. `@nonce@` and `@pause@` are put in; it is joined to one line.
const GUARD: &str = r#"
n=@nonce@; trap '' HUP INT TERM PIPE QUIT;
d=$(umask 077; mktemp -d "${TMPDIR:-/tmp}/ferry-XXXXXXXXXX") || exit 71;
signal() {
  while read -r p u; do
    kill "-$1" "-$p" 2>/dev/null;
    [ -z "$u" ] || sudo -n -u "$u" -- sh -c 'kill "-$1" "-$2"' sh "$1" "$p" </dev/null >/dev/null 2>&1;
  done <"$d/run.$2";
};
finish() {
  mv "$d" "$d.over" 2>/dev/null || exit 0; d=$d.over;
  for f in "$d"/run.*; do [ -e "$f" ] && signal KILL "${f##*/run.}"; done;
  rm -rf "$d"; kill -KILL "-$$" 2>/dev/null; exit 0;
};
echo 0 >"$d/beat";
(
  o=; m=0;
  while sleep @pause@; do
    [ -d "$d" ] || exit 0;
    b=; read -r b <"$d/beat";
    if [ "$b" = "$o" ]; then m=$((m+1)); else m=0; o=$b; fi;
    [ $m -lt 3 ] || finish;
  done;
) </dev/null >/dev/null 2>&1 &
printf '\036%s ready %s %s %s\n' "$n" "$(id -u)" "$(id -un)" "$d";
while read -r a b c; do
  case $a in
    beat) echo "$b" >"$d/beat";;
    kill) : >"$d/over.$c"; [ -e "$d/run.$c" ] && signal "$b" "$c";;
    add) echo "$c" >>"$d/run.$b";;
    ping) printf '\036%s pong %s\n' "$n" "$b";;
  esac;
done;
finish
"#;

/// What is known of the far end.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    /// The number of the user who logs in.
    pub(super) uid: u32,
    /// The user's name.
    pub(super) user: String,
    /// The guard's folder there.
    pub(super) folder: String,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    /// The host, for messages.
    pub(super) shown: String,
    pub(super) facts: Facts,
    /// Our end's folder: the configuration, the control socket, sockets of forwards.
    folder: tempfile::TempDir,
    /// The process group that ends with ferry; everything that belongs to the connection joins it.
    pub(super) group: i32,
    lines: mpsc::UnboundedSender<String>,
    pongs: watch::Receiver<u64>,
    /// Fires when the connection is gone.
    pub(super) lost: CancellationToken,
    said: Arc<OnceLock<String>>,
    /// How many sessions the other side is asked for at once.
    sessions: Arc<Semaphore>,
    numbers: AtomicU64,
}

impl Connection {
    /// Connects. Everything that can go wrong is classified here.
    pub(super) async fn open(name: &str, target: &Target, patience: &Patience) -> Result<Arc<Self>, StepError> {
        let shown = classify::shown(name, &target.ssh);
        let folder = private_folder()?;
        config::write(target, patience, &folder.path().join("config")).await?;
        let lifeline = Lifeline::hold_with(Some(folder.path()))?;
        let group = lifeline.group();
        let mut command = Command::new("ssh");
        command.arg("-F").arg(folder.path().join("config")).arg("-S").arg(folder.path().join("s"));
        command.args(["-T", "-o", "ControlMaster=yes"]).args(target.arguments());
        if target.identity.is_some() {
            // Else the agent's other keys come first, and servers count refusals.
            command.args(["-o", "IdentitiesOnly=yes"]);
        }
        command.args(["--", &target.ssh, &format!("exec sh -c '{BOOTSTRAP}'")]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // A question that gets through in spite of all is answered with no: it would not be seen.
        command.env("SSH_ASKPASS_REQUIRE", "force").env("SSH_ASKPASS", "false");
        let mut child = command.process_group(group).kill_on_drop(true).spawn().map_err(|error| no_ssh(&error))?;
        let nonce = nonce();
        let pause = (patience.silence.as_secs() / 3).max(1);
        let guard = GUARD.replace("@nonce@", &nonce).replace("@pause@", &pause.to_string()).replace('\n', " ");
        let (Some(mut stdin), Some(stdout), Some(mut stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            unreachable!("all three were asked for")
        };
        let said: Arc<Mutex<Vec<u8>>> = Arc::default();
        let hears = {
            let said = said.clone();
            tokio::spawn(async move {
                let mut piece = [0; 4096];
                while let Ok(read @ 1..) = stderr.read(&mut piece).await {
                    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
                    said.extend_from_slice(&piece[..read]);
                    let over = said.len().saturating_sub(16 << 10);
                    said.drain(..over);
                }
            })
        };
        let mut answers = BufReader::new(stdout).lines();
        let greeting = async {
            // An error shows as the end of the answers.
            let _ = stdin.write_all(format!("{}\n", guard.trim()).as_bytes()).await;
            next(&mut answers, &nonce, "ready").await
        };
        // The names of all steps of connecting have a limit of their own; together they have this.
        let limit = patience.connect * 3;
        let Ok(ready) = tokio::time::timeout(limit, greeting).await else {
            return Err(classify::too_slow(&shown, limit));
        };
        let facts = ready.as_deref().and_then(Facts::read);
        let Some(facts) = facts else {
            let code = tokio::time::timeout(patience.connect, child.wait()).await.ok().and_then(Result::ok);
            let _ = tokio::time::timeout(patience.connect, hears).await;
            let said = text(&said);
            return Err(classify::refused(&shown, &said, code.and_then(|status| status.code())));
        };
        let (lines, from_commands) = mpsc::unbounded_channel();
        let (pong, pongs) = watch::channel(0);
        let connection = Arc::new(Self {
            shown,
            facts,
            folder,
            group,
            lines,
            pongs,
            lost: CancellationToken::new(),
            said: Arc::default(),
            sessions: Arc::new(Semaphore::new(patience.sessions)),
            numbers: AtomicU64::new(1),
        });
        let keeper = Keeper { child, stdin, answers, nonce, pong, lifeline };
        let (lost, last_words, beat) = (connection.lost.clone(), connection.said.clone(), patience.beat);
        tokio::spawn(async move {
            keeper.keep(from_commands, beat).await;
            let _ = tokio::time::timeout(beat, hears).await;
            let _ = last_words.set(text(&said));
            lost.cancel();
        });
        Ok(connection)
    }

    /// Room for one more session; nothing when there is none at the moment.
    pub(super) fn room(self: &Arc<Self>) -> Option<OwnedSemaphorePermit> {
        self.sessions.clone().try_acquire_owned().ok()
    }

    /// The other side allows fewer sessions than we thought: no more than there are now.
    pub(super) fn is_full(&self, refused: OwnedSemaphorePermit) {
        refused.forget();
        self.sessions.forget_permits(self.sessions.available_permits());
    }

    pub(super) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells the guard something. A guard that is gone has killed everything already.
    pub(super) fn tell(&self, line: String) {
        let _ = self.lines.send(line);
    }

    /// Whether the far end still answers.
    pub(super) async fn answers(&self, within: std::time::Duration) -> bool {
        let number = self.number();
        let mut pongs = self.pongs.clone();
        self.tell(format!("ping {number}"));
        let answered = async { pongs.wait_for(|pong| *pong >= number).await.is_ok() };
        tokio::select! {
            answered = tokio::time::timeout(within, answered) => answered.unwrap_or(false),
            () = self.lost.cancelled() => false,
        }
    }

    /// What `ssh` said last, once the connection is gone.
    pub(super) fn last_words(&self) -> String {
        self.said.get().cloned().unwrap_or_default()
    }

    /// `ssh` as a client of this connection: it never makes one of its own.
    pub(super) fn client(&self) -> Command {
        let mut command = Command::new("ssh");
        command.args(["-F", "none", "-o", "ControlMaster=no", "-o", "ProxyCommand=false", "-o", "LogLevel=ERROR"]);
        command.args(["-o", "BatchMode=yes", "-T", "-S"]).arg(self.folder.path().join("s"));
        command.process_group(self.group).kill_on_drop(true);
        command
    }

    /// A path in our end's folder that nothing has yet.
    pub(super) fn socket(&self) -> std::path::PathBuf {
        self.folder.path().join(format!("f{}", self.number()))
    }
}

impl Facts {
    /// Behind `ready`: number and name of the user, the folder.
    fn read(ready: &str) -> Option<Self> {
        let mut words = ready.splitn(3, ' ');
        let (uid, user, folder) = (words.next()?.parse().ok()?, words.next()?.to_owned(), words.next()?.to_owned());
        folder.starts_with('/').then_some(Self { uid, user, folder })
    }
}

/// Holds the connection: passes lines to the guard, beats, and hears the answers, until either side ends.
struct Keeper {
    child: Child,
    stdin: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    nonce: String,
    pong: watch::Sender<u64>,
    lifeline: Lifeline,
}

impl Keeper {
    async fn keep(mut self, mut lines: mpsc::UnboundedReceiver<String>, beat: std::time::Duration) {
        let mut beats = tokio::time::interval(beat);
        let mut number: u64 = 0;
        loop {
            tokio::select! {
                line = lines.recv() => {
                    // The last one who could use the connection is gone.
                    let Some(line) = line else { break };
                    if self.stdin.write_all(format!("{line}\n").as_bytes()).await.is_err() { break }
                }
                _ = beats.tick() => {
                    number += 1;
                    // A full pipe means that nothing gets through: `ssh` finds that out by itself.
                    let line = format!("beat {number}\n");
                    let _ = tokio::time::timeout(beat, self.stdin.write_all(line.as_bytes())).await;
                }
                answer = self.answers.next_line() => {
                    let Ok(Some(answer)) = answer else { break };
                    if let Some(pong) = told(&answer, &self.nonce, "pong").and_then(|pong| pong.parse().ok()) {
                        self.pong.send_replace(pong);
                    }
                }
                _ = self.child.wait() => break,
            }
        }
        // The guard sees the end of its input, kills what is left and ends the session.
        drop(self.stdin);
        let _ = tokio::time::timeout(std::time::Duration::from_secs(2), self.child.wait()).await;
        let _ = self.child.start_kill();
        let _ = self.child.wait().await;
        // Not released: clients that still wait for the connection end with it.
        drop(self.lifeline);
    }
}

/// The guard's next answer of this kind. A login shell may say all sorts of things before.
async fn next(answers: &mut Lines<BufReader<ChildStdout>>, nonce: &str, kind: &str) -> Option<String> {
    while let Ok(Some(line)) = answers.next_line().await {
        if let Some(told) = told(&line, nonce, kind) {
            return Some(told.to_owned());
        }
    }
    None
}

fn told<'a>(line: &'a str, nonce: &str, kind: &str) -> Option<&'a str> {
    let (_, line) = line.split_once(char::from(MARK))?;
    line.strip_prefix(nonce)?.strip_prefix(' ')?.strip_prefix(kind)?.strip_prefix(' ')
}

fn text(said: &Mutex<Vec<u8>>) -> String {
    String::from_utf8_lossy(&said.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
}

/// What no program writes by chance.
pub(super) fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// A folder for sockets, which have short names: a path of a socket ends at 108 bytes, and `ssh` adds 17 of its own.
fn private_folder() -> Result<tempfile::TempDir, StepError> {
    let usual = std::env::temp_dir();
    let place = if usual.as_os_str().len() > 60 { std::path::PathBuf::from("/tmp") } else { usual };
    tempfile::Builder::new().prefix("ferry-").tempdir_in(&place).map_err(|error| {
        StepError::transient(format!("cannot make a folder in `{}`", place.display()))
            .cause(error)
            .help("make room there, or name another place with `TMPDIR`")
    })
}

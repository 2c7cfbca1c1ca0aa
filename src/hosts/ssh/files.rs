//! Files of a machine by SSH: small scripts that say by their exit code what stood in the way.

use std::path::Path;

use base64::Engine as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use super::SshHost;
use crate::error::StepError;
use crate::hosts::{FileState, Finished, Host as _, Invocation, Owned, Streams};
use crate::secret::Vault;

/// Where `$1` leads to, through symbolic links, in `$p`, with its folder in `$d` and its name in `$b`. What it is not
/// allowed to look at is not taken for absent.
const LOOK: &str = r#"
export LC_ALL=C; p=$1;
if said=$(stat -L -c '%a %u %g %s' -- "$p" 2>&1); then
  [ -f "$p" ] || exit 42; is=y;
  [ ! -L "$p" ] || p=$(readlink -f -- "$p") || exit 43;
else
  [ ! -L "$p" ] || exit 41;
  case $said in *"No such file"*|*"Not a directory"*) is=;; *) printf '%s\n' "$said" >&2; exit 43;; esac;
fi;
d=$(dirname -- "$p"); b=$(basename -- "$p"); t=$(printf '%.200s' "$b");
"#;

const READ: &str = r#"[ -n "$is" ] || exit 40; printf '%s\n' "$said"; exec cat -- "$p""#;

const GET: &str = r#"[ -n "$is" ] || exit 40; exec cat -- "$p""#;

/// `$2` bytes, `$3` mode, `$4` owner and group. The length is compared before the rename: a connection that breaks looks
/// like the end of the input.
const WRITE: &str = r#"
[ -d "$d" ] || exit 44;
if [ -n "$is" ]; then set -- "$1" "$2" "${3:-${said%% *}}" "${4:-$(stat -c %u:%g -- "$p")}"; fi;
t="$d/.$t.ferry-$$-0"; trap 'rm -f -- "$t"' EXIT; trap 'exit 45' HUP INT TERM PIPE;
(umask 077; set -C; exec cat >"$t") || exit 43;
[ "$(stat -c %s -- "$t")" = "$2" ] || exit 45;
if [ -n "$4" ] && [ "$(stat -c %u:%g -- "$t")" != "$4" ]; then chown "$4" -- "$t" || exit 43; fi;
chmod "${3:-644}" -- "$t" || exit 43;
sync -- "$t" 2>/dev/null || sync;
mv -f -- "$t" "$p" || exit 43; trap - EXIT;
sync -- "$d" 2>/dev/null || sync
"#;

const REMOVE: &str = r#"[ -n "$is" ] || exit 0; rm -f -- "$p" || exit 43; sync -- "$d" 2>/dev/null || sync"#;

/// Those whose writers are dead. A living process may be writing its own.
const CLEAR: &str = r#"
for f in "$d/.$t.ferry-"*; do
  [ -e "$f" ] || continue; w=${f##*.ferry-}; w=${w%%-*};
  case $w in ''|*[!0-9]*) continue;; esac;
  [ -d "/proc/$w" ] || kill -0 "$w" 2>/dev/null || rm -f -- "$f" || exit 43;
done
"#;

fn script(does: &str, path: &Path, more: &[String]) -> Result<Invocation, StepError> {
    let path = path.to_str().ok_or_else(|| {
        StepError::permanent(format!("`{}` is not UTF-8 text", path.display())).help("name a file whose path is text")
    })?;
    let line = format!("{LOOK}{does}").trim().replace('\n', " ");
    let mut argv: Vec<String> = ["sh", "-c", &line, "ferry", path].map(str::to_owned).to_vec();
    argv.extend(more.iter().cloned());
    Ok(Invocation { argv, ..Invocation::default() })
}

impl SshHost {
    /// Runs one of the scripts.
    async fn on_file(
        &self,
        doing: &str,
        does: &str,
        path: &Path,
        more: &[String],
        mut streams: Streams<'_>,
        cancel: &CancellationToken,
    ) -> Result<Finished, StepError> {
        let invocation = script(does, path, more)?;
        let vault = Vault::default();
        let finished = self.stream(&invocation, &vault, cancel, streams.reborrow(), &|_, _| {}).await?;
        if finished.was_asked {
            return Err(StepError::transient("stopped on request"));
        }
        match finished.code {
            Some(0 | 40) => Ok(finished),
            code => Err(self.file_failed(doing, path, code, &finished)),
        }
    }

    fn file_failed(&self, doing: &str, path: &Path, code: Option<i32>, finished: &Finished) -> StepError {
        let said = finished.stderr_tail.as_str();
        let message = format!("cannot {doing} `{}` on host `{}`", path.display(), self.name());
        let error = match code {
            Some(41) => {
                StepError::permanent(format!("`{}` on host `{}` is a symbolic link to nothing", path.display(), self.name()))
                    .help("remove the link or create what it points at")
            }
            Some(42) => StepError::permanent(format!("{message}: it is not a regular file"))
                .help("name a file; directories, sockets and devices are left alone"),
            Some(44) => StepError::permanent(format!("{message}: its folder does not exist")).help("create the folder first"),
            Some(45) => StepError::transient(format!("{message}: it did not arrive whole"))
                .help("nothing was changed; it is tried again as `retry` says"),
            Some(_) if said.contains("No space left") || said.contains("quota exceeded") => {
                StepError::needs_person(format!("{message}: the disk is full")).help("make room, then resume the run")
            }
            Some(_) if said.contains("Permission denied") || said.contains("Operation not permitted") => {
                StepError::permanent(format!("{message}: it is not allowed"))
                    .help("log in as another user, or name one with `become` of the host")
            }
            Some(_) if said.contains("Read-only file system") => {
                StepError::permanent(format!("{message}: the file system is read-only"))
            }
            Some(127) => StepError::permanent(format!("{message}: a program is missing there"))
                .help("`ferry doctor --host` says which: `stat`, `readlink`, `cat`, `mv`, `chmod`, `chown`, `sync` are needed"),
            None => StepError::transient(format!("{message}: it was ended by a signal")),
            Some(_) => StepError::permanent(message),
        };
        if said.is_empty() { error } else { error.cause(said.to_owned()) }
    }

    pub(super) async fn read(&self, path: &Path) -> Result<Option<FileState>, StepError> {
        let mut bytes = Vec::new();
        let streams = Streams { output: Some(&mut bytes), ..Streams::default() };
        let finished = self.on_file("read", READ, path, &[], streams, &CancellationToken::new()).await?;
        if finished.code == Some(40) {
            return Ok(None);
        }
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut words = head.split(' ');
        let mode = words.next().and_then(|mode| u32::from_str_radix(mode, 8).ok());
        let (uid, gid) = (words.next().and_then(|uid| uid.parse().ok()), words.next().and_then(|gid| gid.parse().ok()));
        let (Some(mode), Some(uid), Some(gid)) = (mode, uid, gid) else {
            return Err(StepError::permanent(format!("host `{}` says `{head}` of `{}`", self.name(), path.display()))
                .help("its `stat` has to know `-c` and `-L`, as GNU's and busybox's do"));
        };
        let content = base64::engine::general_purpose::STANDARD.encode(bytes.get(end + 1..).unwrap_or_default());
        Ok(Some(FileState { content, mode, uid, gid }))
    }

    pub(super) async fn get(
        &self,
        path: &Path,
        to: &mut (dyn AsyncWrite + Send + Unpin),
        cancel: &CancellationToken,
    ) -> Result<Option<u64>, StepError> {
        let mut counted = Counted { to, bytes: 0 };
        let streams = Streams { output: Some(&mut counted), ..Streams::default() };
        let finished = self.on_file("read", GET, path, &[], streams, cancel).await?;
        Ok((finished.code == Some(0)).then_some(counted.bytes))
    }

    pub(super) async fn put(
        &self,
        path: &Path,
        from: &mut (dyn AsyncRead + Send + Unpin),
        length: u64,
        owned: Owned,
        cancel: &CancellationToken,
    ) -> Result<(), StepError> {
        let more = [
            length.to_string(),
            owned.mode.map(|mode| format!("{mode:o}")).unwrap_or_default(),
            owned.owner.map(|(uid, gid)| format!("{uid}:{gid}")).unwrap_or_default(),
        ];
        let streams = Streams { input: Some(from), ..Streams::default() };
        self.on_file("write", WRITE, path, &more, streams, cancel).await.map(drop)
    }

    pub(super) async fn remove(&self, path: &Path) -> Result<(), StepError> {
        self.on_file("remove", REMOVE, path, &[], Streams::default(), &CancellationToken::new()).await.map(drop)
    }

    pub(super) async fn clear(&self, path: &Path) -> Result<(), StepError> {
        self.on_file("clear up beside", CLEAR, path, &[], Streams::default(), &CancellationToken::new()).await.map(drop)
    }
}

/// A stream whose bytes are counted.
struct Counted<'a> {
    to: &'a mut (dyn AsyncWrite + Send + Unpin),
    bytes: u64,
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buffer: &[u8],
    ) -> std::task::Poll<std::io::Result<usize>> {
        let written = std::pin::Pin::new(&mut *self.to).poll_write(cx, buffer);
        if let std::task::Poll::Ready(Ok(count)) = &written {
            self.bytes += *count as u64;
        }
        written
    }

    fn poll_flush(mut self: std::pin::Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut *self.to).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        std::pin::Pin::new(&mut *self.to).poll_shutdown(cx)
    }
}

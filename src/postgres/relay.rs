//! A way to a server's socket as another user of its host: a small program there copies between the socket and its own
//! streams, so that PostgreSQL sees a connection of that user and its `peer` rule lets it in without a password.

use std::sync::Arc;

use tokio::io::{DuplexStream, duplex, split};
use tokio_util::sync::CancellationToken;

use crate::error::StepError;
use crate::hosts::{Host, Invocation, Streams};
use crate::secret::Vault;

/// How much is on its way in each direction.
const BUFFER: usize = 256 * 1024;

/// Says one byte when the socket is open, so that a failure to open it is not taken for an answer of the server.
const PERL: &str = r#"
use Socket; use strict; my ($s, $in, $b) = (undef, 1);
socket($s, PF_UNIX, SOCK_STREAM, 0) and connect($s, pack_sockaddr_un($ARGV[0])) or do { print STDERR "$!\n"; exit 9 };
syswrite(STDOUT, "+");
while (1) {
  my $r = ''; vec($r, 0, 1) = 1 if $in; vec($r, fileno($s), 1) = 1; select($r, undef, undef, undef) > 0 or next;
  if ($in && vec($r, 0, 1)) { my $n = sysread(STDIN, $b, 65536); if ($n) { put($s) } else { $in = 0; shutdown($s, 1) } }
  if (vec($r, fileno($s), 1)) { my $n = sysread($s, $b, 65536); exit 0 unless $n; put(\*STDOUT) }
}
sub put { my ($to, $at) = (@_, 0); while ($at < length $b) { my $n = syswrite($to, $b, length($b) - $at, $at); exit 8 unless defined $n; $at += $n } }
"#;

const PYTHON: &str = r#"
import os, select, socket, sys
s = socket.socket(socket.AF_UNIX)
try: s.connect(sys.argv[1])
except OSError as e: sys.stderr.write(e.strerror + "\n"); sys.exit(9)
os.write(1, b"+"); here = [0, s]
def put(to, b):
    while b: b = b[os.write(to, b):]
while True:
    for r in select.select(here, [], [])[0]:
        if r == 0:
            b = os.read(0, 65536)
            if b: s.sendall(b)
            else: here.remove(0); s.shutdown(socket.SHUT_WR)
        else:
            b = s.recv(65536)
            if not b: sys.exit(0)
            put(1, b)
"#;

/// Perl comes with every Debian, Python with most of the others.
const CHOICE: &str = r#"if perl -MSocket -e 1 2>/dev/null; then exec perl -e "$2" "$1" "$4"; fi
if command -v python3 >/dev/null; then exec python3 -c "$3" "$1" "$4"; fi
echo neither >&2; exit 7"#;

/// Ends relays that were left by others of the same key: what is still on its way to one of them must not arrive. Run as
/// the user that they run as. `$1` the socket, `$2` the key.
pub(super) const END_LEFT: &str = r#"for p in $(pgrep -u "$(id -u)" 'perl|python3' 2>/dev/null); do
a=$(tr '\0' '\n' <"/proc/$p/cmdline" 2>/dev/null); printf '%s\n' "$a" | grep -qxF -e "$1" || continue
printf '%s\n' "$a" | grep -qxF -e "$2" && kill -KILL "$p" 2>/dev/null; done; exit 0"#;

/// Both directions of a new connection to the socket, as this user. `key` says whose it is, for who looks at the processes
/// there. It ends when the result is dropped, when `cancel`
/// fires, or with the connection to the host.
pub(super) async fn connect(
    host: Arc<dyn Host>,
    socket: String,
    run_as: String,
    key: &str,
    cancel: &CancellationToken,
) -> Result<DuplexStream, StepError> {
    let (mut near, far) = duplex(BUFFER);
    let cancel = cancel.child_token();
    let argv = ["sh", "-c", CHOICE, "relay", socket.as_str(), PERL.trim(), PYTHON.trim(), key];
    let invocation = Invocation { run_as: Some(run_as.clone()), ..Invocation::new(argv) };
    let name = host.name().to_owned();
    let task = tokio::spawn(async move {
        let (mut input, mut output) = split(far);
        let streams = Streams { input: Some(&mut input), output: Some(&mut output) };
        host.stream(&invocation, &Vault::default(), &cancel, streams, &|_, _| {}).await
    });
    let mut first = [0];
    if tokio::io::AsyncReadExt::read(&mut near, &mut first).await.unwrap_or(0) == 1 {
        return Ok(near);
    }
    drop(near);
    let finished = task.await.map_err(|error| StepError::transient("the relay to the server broke").cause(error))??;
    let said = finished.stderr_tail.trim().to_owned();
    Err(match finished.code {
        Some(7) => StepError::permanent(format!("host `{name}` has neither `perl` nor `python3`"))
            .help("install one of them there, or let ferry connect with `connect: tcp` and a password"),
        Some(9) if said.contains("No such file") || said.contains("refused") => {
            StepError::transient(format!("no server listens on `{socket}` of `{name}`"))
                .help("start it, or correct `socket` and `port`; a server that is starting is tried again as `retry` says")
        }
        Some(9) => StepError::permanent(format!("cannot reach `{socket}` of `{name}` as `{run_as}`: {said}"))
            .help("the user has to be allowed to reach the socket: correct `become`"),
        _ => StepError::transient(format!("the way to `{socket}` of `{name}` broke: {said}")),
    })
}

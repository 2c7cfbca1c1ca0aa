//! Running a program on this machine to its end, its output streamed, its process group in hand.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use secrecy::ExposeSecret as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::lifeline::Lifeline;
use super::lines::{Lines, Tail};
use crate::error::StepError;
use crate::hosts::{Finished, Invocation, OnLine, STDOUT_KEPT, secret_argument};
use crate::secret::{Text, Vault, is_marked};

/// How long the outputs may stay open after the program has ended: what it left in the background may hold them.
const DRAIN: Duration = Duration::from_secs(2);

/// How long a killed program may take to be gone before it counts as stuck in the kernel.
const GONE: Duration = Duration::from_secs(5);

pub(super) async fn execute(
    invocation: &Invocation,
    vault: &Vault,
    cancel: &CancellationToken,
    grace: Duration,
    on_line: OnLine<'_>,
) -> Result<Finished, StepError> {
    if cancel.is_cancelled() {
        return Err(StepError::transient("stopped on request"));
    }
    let lifeline = Lifeline::hold()?;
    // Whatever goes wrong from here on, dropping the lifeline ends the group.
    let mut child = spawn(invocation, vault, lifeline.group())?;
    let mut output = Output::new(vault, on_line);
    let (status, was_asked) = attend(&mut child, invocation, vault, &lifeline, cancel, grace, &mut output).await?;
    lifeline.release().await;
    Ok(Finished {
        code: status.code(),
        signal: status.signal(),
        was_asked,
        stdout_cut: output.stdout_cut,
        stdout: output.stdout,
        stderr_tail: output.tail.text(),
    })
}

/// Starts the program in the guardian's group, its three streams in pipes.
fn spawn(invocation: &Invocation, vault: &Vault, group: i32) -> Result<Child, StepError> {
    let (program, arguments) =
        invocation.argv.split_first().ok_or_else(|| StepError::permanent("a command needs a program to run"))?;
    let public = invocation.argv.iter().map(String::as_str).chain(invocation.workdir.as_deref());
    if let Some(marked) = public.into_iter().find(|text| is_marked(text)) {
        return Err(secret_argument(marked));
    }
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(group);
    command.stdin(if invocation.stdin.is_some() { Stdio::piped() } else { Stdio::null() });
    if let Some(workdir) = &invocation.workdir {
        command.current_dir(workdir);
    }
    for (name, value) in &invocation.env {
        command.env(name, reveal(vault, value)?.expose_secret());
    }
    command.spawn().map_err(|error| refused(program, invocation.workdir.as_deref(), error))
}

fn reveal(vault: &Vault, text: &Text) -> Result<secrecy::SecretString, StepError> {
    vault.reveal(text.marked()).map_err(|unknown| {
        StepError::permanent(format!("the secret `{}` is not at hand", unknown.0))
            .help("list it under `secrets:` in the pipeline")
    })
}

/// Why a program could not be started. The system says "not found" for three things.
fn refused(program: &str, workdir: Option<&str>, error: std::io::Error) -> StepError {
    use std::io::ErrorKind;
    if let Some(workdir) = workdir
        && !std::path::Path::new(workdir).is_dir()
    {
        return StepError::permanent(format!("cannot run `{program}`: there is no directory `{workdir}` to run it in"))
            .help("correct `workdir`, or create the directory in a step before this one");
    }
    let message = format!("cannot run `{program}`");
    match error.kind() {
        ErrorKind::NotFound => StepError::permanent(format!("{message}: there is no such program"))
            .help("install it, or write its whole path; a list is executed as it is, a string goes to `sh -c`"),
        ErrorKind::PermissionDenied => {
            StepError::permanent(format!("{message}: it is not allowed")).help("make it executable for the user who runs ferry")
        }
        ErrorKind::WouldBlock | ErrorKind::OutOfMemory => StepError::transient(message),
        _ => StepError::permanent(message),
    }
    .cause(error)
}

/// What a program has written so far.
struct Output<'a> {
    stdout: Vec<u8>,
    stdout_cut: bool,
    tail: Tail<'a>,
    lines: [Lines<'a>; 2],
    on_line: OnLine<'a>,
}

impl<'a> Output<'a> {
    fn new(vault: &'a Vault, on_line: OnLine<'a>) -> Self {
        let lines = [Lines::new(vault), Lines::new(vault)];
        Self { stdout: Vec::new(), stdout_cut: false, tail: Tail::new(vault), lines, on_line }
    }

    fn take(&mut self, is_stderr: bool, piece: &[u8]) {
        if is_stderr {
            self.tail.push(piece);
        } else {
            let room = STDOUT_KEPT - self.stdout.len();
            self.stdout.extend_from_slice(&piece[..piece.len().min(room)]);
            self.stdout_cut |= piece.len() > room;
        }
        self.lines[usize::from(is_stderr)].push(piece, |line| (self.on_line)(is_stderr, line));
    }

    fn finish(&mut self) {
        for is_stderr in [false, true] {
            self.lines[usize::from(is_stderr)].finish(|line| (self.on_line)(is_stderr, line));
        }
    }
}

/// Feeds the program, takes what it writes and sees it to its end.
async fn attend(
    child: &mut Child,
    invocation: &Invocation,
    vault: &Vault,
    lifeline: &Lifeline,
    cancel: &CancellationToken,
    grace: Duration,
    output: &mut Output<'_>,
) -> Result<(ExitStatus, bool), StepError> {
    let stdin = child.stdin.take();
    let input = invocation.stdin.as_ref().map(|text| reveal(vault, text)).transpose()?;
    let feed = async move {
        // A program that does not read to the end is its own business: a broken pipe is no error.
        if let (Some(mut pipe), Some(text)) = (stdin, input) {
            let _ = pipe.write_all(text.expose_secret().as_bytes()).await;
        }
    };
    tokio::pin!(feed);
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    let (mut status, mut was_asked) = (None, false);
    let (mut is_fed, mut is_asked, mut is_killed) = (false, false, false);
    let mut limit: Option<Instant> = None;

    while status.is_none() || stdout.is_some() || stderr.is_some() {
        tokio::select! {
            read = piece(&mut stdout, &mut out), if stdout.is_some() => match read {
                Some(read) => output.take(false, &out[..read]),
                None => stdout = None,
            },
            read = piece(&mut stderr, &mut err), if stderr.is_some() => match read {
                Some(read) => output.take(true, &err[..read]),
                None => stderr = None,
            },
            () = &mut feed, if !is_fed => is_fed = true,
            ended = child.wait(), if status.is_none() => {
                status = Some(ended.map_err(|error| StepError::permanent("cannot learn how a command ended").cause(error))?);
                if !is_asked {
                    limit = Some(Instant::now() + DRAIN);
                }
            }
            () = cancel.cancelled(), if !is_asked => {
                is_asked = true;
                // What ended by itself did what it did, whoever still holds its outputs.
                was_asked = status.is_none();
                lifeline.signal(Signal::TERM);
                limit = Some(Instant::now() + grace);
            }
            () = tokio::time::sleep_until(limit.unwrap_or_else(Instant::now)), if limit.is_some() => {
                if is_asked && !is_killed {
                    is_killed = true;
                    lifeline.signal(Signal::KILL);
                    limit = Some(Instant::now() + GONE);
                } else {
                    break;
                }
            }
        }
    }
    if is_asked {
        // What ignored the SIGTERM and closed its outputs has had its time as well.
        lifeline.signal(Signal::KILL);
    }
    output.finish();
    status.map(|status| (status, was_asked)).ok_or_else(|| {
        StepError::needs_person("a command did not end after SIGKILL: it hangs in the kernel")
            .help("look at it with `ps`; a dead network mount is the usual cause")
    })
}

/// The next bytes of a stream; nothing at its end. A read error is the end: the program is gone.
async fn piece(stream: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> Option<usize> {
    stream.as_mut()?.read(buffer).await.ok().filter(|read| *read > 0)
}

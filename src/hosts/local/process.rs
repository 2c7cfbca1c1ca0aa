//! Running a program on this machine to its end, its output streamed, its process group in hand.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::error::StepError;
use crate::hosts::frame::{Frame, Part};
use crate::hosts::lifeline::Lifeline;
use crate::hosts::output::{PIECE, Stderr, Stdin, Stdout, piece};
use crate::hosts::script::{BOOTSTRAP, become_program, become_user, refused as refused_there};
use crate::hosts::{Finished, Invocation, OnLine, Streams, reveal, secret_argument};
use crate::secret::{Vault, is_marked};

/// How long the outputs may stay open after the program has ended: what it left in the background may hold them.
const DRAIN: Duration = Duration::from_secs(2);

/// How long a killed program may take to be gone before it counts as stuck in the kernel.
const GONE: Duration = Duration::from_secs(5);

pub(super) async fn execute(
    invocation: &Invocation,
    vault: &Vault,
    cancel: &CancellationToken,
    grace: Duration,
    mut streams: Streams<'_>,
    on_line: OnLine<'_>,
) -> Result<Finished, StepError> {
    let streams = streams.reborrow();
    if cancel.is_cancelled() {
        return Err(StepError::transient("stopped on request"));
    }
    let input = match (streams.input, &invocation.stdin) {
        (Some(input), _) => Stdin::Stream(input),
        (None, Some(text)) => Stdin::Text(reveal(vault, text)?),
        (None, None) => Stdin::Nothing,
    };
    let other = Other::of(invocation, vault)?;
    let lifeline = Lifeline::hold()?;
    // Whatever goes wrong from here on, dropping the lifeline ends the group.
    let has_input = !matches!(input, Stdin::Nothing);
    let mut child = match &other {
        None => spawn(invocation, vault, lifeline.group(), has_input)?,
        Some(other) => other.spawn(lifeline.group())?,
    };
    let mut out = Stdout::new(streams.output, vault, on_line);
    let mut err =
        Said { to: Stderr::new(vault, on_line), other: other.as_ref().map(|other| Frame::new(&other.nonce)), marks: Vec::new() };
    let head = other.as_ref().map(|other| other.head.expose_secret().as_bytes());
    let (status, was_asked) = attend(&mut child, head, input, &lifeline, cancel, grace, &mut out, &mut err).await?;
    lifeline.release().await;
    err.to.finish();
    out.finish().await?;
    if let Some(other) = &other {
        other.has_become(invocation, &err, was_asked)?;
    }
    let (stdout, stdout_cut) = out.kept();
    Ok(Finished { code: status.code(), signal: status.signal(), was_asked, stdout, stdout_cut, stderr_tail: err.to.tail() })
}

/// Starts the program in the guardian's group, its three streams in pipes.
fn spawn(invocation: &Invocation, vault: &Vault, group: i32, has_input: bool) -> Result<Child, StepError> {
    let (program, arguments) =
        invocation.argv.split_first().ok_or_else(|| StepError::permanent("a command needs a program to run"))?;
    let public = invocation.argv.iter().map(String::as_str).chain(invocation.workdir.as_deref());
    if let Some(marked) = public.into_iter().find(|text| is_marked(text)) {
        return Err(secret_argument(marked));
    }
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(group);
    command.stdin(if has_input { Stdio::piped() } else { Stdio::null() });
    if let Some(workdir) = &invocation.workdir {
        command.current_dir(workdir);
    }
    for (name, value) in &invocation.env {
        command.env(name, reveal(vault, value)?.expose_secret());
    }
    command.spawn().map_err(|error| refused(program, invocation.workdir.as_deref(), error))
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

/// A program that runs as another user: a shell becomes the user, and then the program.
struct Other {
    user: String,
    nonce: String,
    head: SecretString,
}

impl Other {
    fn of(invocation: &Invocation, vault: &Vault) -> Result<Option<Self>, StepError> {
        let Some(user) = invocation.run_as.clone() else { return Ok(None) };
        // Nobody else could end what runs as another user.
        if !rustix::process::geteuid().is_root() {
            return Err(StepError::needs_person(format!("only root may run a command as `{user}` on this machine"))
                .help("run ferry as root, or list this machine as a host by SSH"));
        }
        let nonce = format!("{:032x}", rand::random::<u128>());
        let head = become_program(invocation, Some(&user), &nonce, vault)?;
        Ok(Some(Self { user, nonce, head }))
    }

    fn spawn(&self, group: i32) -> Result<Child, StepError> {
        let prefix = become_user(&self.user, 0);
        let mut words = prefix.split(' ');
        let program = words.next().unwrap_or_default();
        let mut command = Command::new(program);
        command.args(words).args(["sh", "-c", BOOTSTRAP]).process_group(group);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().map_err(|error| refused(program, None, error))
    }

    /// Whether the program came to its turn.
    fn has_become(&self, invocation: &Invocation, said: &Said<'_>, was_asked: bool) -> Result<(), StepError> {
        if let Some(missing) = said.marks.iter().find_map(|mark| mark.strip_prefix("- ")) {
            return Err(refused_there(invocation, missing));
        }
        if was_asked || said.marks.iter().any(|mark| mark.starts_with('+')) {
            return Ok(());
        }
        let tail = said.to.tail();
        let last = tail.lines().next_back().unwrap_or_default().to_owned();
        Err(StepError::needs_person(format!("a command cannot run as `{}` on this machine: {last}", self.user))
            .help("create the user, or correct the name")
            .cause(tail))
    }
}

/// What is written to standard error, and the marks in it of a program that runs as another user.
struct Said<'a> {
    to: Stderr<'a>,
    other: Option<Frame>,
    marks: Vec<String>,
}

impl Said<'_> {
    fn take(&mut self, piece: &[u8]) {
        let Some(frame) = &mut self.other else { return self.to.take(piece) };
        for part in frame.push(piece) {
            match part {
                Part::Mark(mark) => self.marks.push(mark),
                Part::Bytes(bytes) => self.to.take(bytes),
            }
        }
    }
}

/// Feeds the program, takes what it writes and sees it to its end.
#[expect(clippy::too_many_arguments, reason = "a program, its three streams and what may end it")]
async fn attend(
    child: &mut Child,
    head: Option<&[u8]>,
    input: Stdin<'_>,
    lifeline: &Lifeline,
    cancel: &CancellationToken,
    grace: Duration,
    out: &mut Stdout<'_>,
    err: &mut Said<'_>,
) -> Result<(ExitStatus, bool), StepError> {
    let stdin = child.stdin.take();
    let feed = async move {
        match stdin {
            Some(pipe) => input.feed(head, pipe).await,
            None => Ok(()),
        }
    };
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        unreachable!("both were asked for")
    };
    let reading = async {
        let mut buffer = vec![0; PIECE];
        while let Some(read) = piece(&mut stdout, &mut buffer).await {
            out.take(&buffer[..read]).await?;
        }
        Ok::<(), StepError>(())
    };
    let hearing = async {
        let mut buffer = vec![0; PIECE];
        while let Some(read) = piece(&mut stderr, &mut buffer).await {
            err.take(&buffer[..read]);
        }
    };
    tokio::pin!(feed, reading, hearing);
    let (mut status, mut was_asked) = (None, false);
    let (mut is_given, mut is_out, mut is_err) = (false, false, false);
    let (mut is_asked, mut is_killed) = (false, false);
    let mut limit: Option<Instant> = None;

    while status.is_none() || !is_out || !is_err {
        tokio::select! {
            taken = &mut reading, if !is_out => { taken?; is_out = true; }
            () = &mut hearing, if !is_err => is_err = true,
            given = &mut feed, if !is_given => { given?; is_given = true; }
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
    status.map(|status| (status, was_asked)).ok_or_else(|| {
        StepError::needs_person("a command did not end after SIGKILL: it hangs in the kernel")
            .help("look at it with `ps`; a dead network mount is the usual cause")
    })
}

//! Running a program at the far end of a connection to its end.
//!
//! A wrapper shell leads a process group of its own, registers it with the guard, runs the program in it and reports
//! how it ended. Marks in both outputs say where what the program wrote begins and ends, so that nothing is lost, the
//! chatter of a login shell is no output, and what stays in the background holds nothing up.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use tokio::io::AsyncRead;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::connection::{Connection, nonce};
use super::{Patience, classify};
use crate::error::StepError;
use crate::hosts::frame::{Frame, Part};
use crate::hosts::output::{PIECE, Stderr, Stdin, Stdout, piece};
use crate::hosts::script::{BOOTSTRAP, become_program, become_user, refused};
use crate::hosts::{Finished, Invocation, OnLine, Streams, reveal};
use crate::secret::Vault;

/// The wrapper: `@name@` is put in; it is joined to one line. A signal that it catches is at its default again in the
/// program. A shell says on its standard error when a signal ended a child, and says nothing else there: that tells 143
/// from SIGTERM. What is left of a group that was asked to stop has had its time when the program has ended.
const WRAPPER: &str = r#"
n=@nonce@; d='@folder@'; i=@number@; trap : HUP INT TERM PIPE QUIT USR1 USR2 ALRM;
{ echo "$$ @user@" >"$d/run.$i"; } 2>/dev/null || exit 255;
[ ! -e "$d/over.$i" ] || { rm -f "$d/run.$i"; exit 255; };
printf '\036%s\n' $n; printf '\036%s\n' $n >&2;
exec 3>&2 2>"$d/said.$i";
( exec 2>&3 3>&-; exec @become@ sh -c '@bootstrap@' ); c=$?;
exec 2>&3;
s=; [ -s "$d/said.$i" ] && s=' signal';
a=; [ -e "$d/over.$i" ] && a=' asked';
rm -f "$d/run.$i" "$d/said.$i" "$d/over.$i";
printf '\036%s end %s%s%s\n' $n $c "$s" "$a" >&2; printf '\036%s\n' $n;
[ -z "$a" ] || kill -KILL "-$$"; exit 0
"#;

/// How long a killed program may take to be gone before it counts as stuck in the kernel.
const GONE: Duration = Duration::from_secs(5);

/// Why a command did not come to its end.
pub(super) enum Broken {
    /// Nothing has begun: another connection may do.
    Full,
    /// A failure as everywhere.
    Failed(StepError),
}

impl From<StepError> for Broken {
    fn from(error: StepError) -> Self {
        Self::Failed(error)
    }
}

/// What a command is run with.
pub(super) struct Call<'a> {
    pub(super) invocation: &'a Invocation,
    pub(super) run_as: Option<&'a str>,
    pub(super) vault: &'a Vault,
    pub(super) cancel: &'a CancellationToken,
    pub(super) on_line: OnLine<'a>,
}

/// A command at work. Dropped before its end, it is killed.
struct AtWork<'a> {
    connection: &'a Arc<Connection>,
    number: u64,
    is_over: bool,
}

impl AtWork<'_> {
    fn signal(&self, name: &str) {
        self.connection.tell(format!("kill {name} {}", self.number));
    }
}

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.signal("KILL");
        }
    }
}

/// How the program ended: its code, whether that stands for a signal, whether it had been asked to stop.
struct End {
    code: i32,
    is_signal: bool,
    was_asked: bool,
}

/// What the marks of the two outputs have told.
#[derive(Default)]
struct Told {
    has_begun: bool,
    process: Option<String>,
    missing: Option<String>,
    end: Option<End>,
}

impl Told {
    fn mark(&mut self, mark: &str) {
        let (word, rest) = mark.split_once(' ').unwrap_or((mark, ""));
        match word {
            "" => self.has_begun = true,
            "+" => self.process = Some(rest.to_owned()),
            "-" => self.missing = Some(rest.to_owned()),
            "end" => {
                let words: Vec<&str> = rest.split(' ').collect();
                let has = |word| words.contains(&word);
                let code = words[0].parse().ok();
                self.end = code.map(|code| End { code, is_signal: has("signal"), was_asked: has("asked") });
            }
            _ => {}
        }
    }
}

/// Runs it. `streams` is taken only when the session has come about.
pub(super) async fn run(
    connection: &Arc<Connection>,
    call: &Call<'_>,
    streams: &mut Streams<'_>,
    patience: &Patience,
) -> Result<Finished, Broken> {
    let Call { invocation, vault, cancel, on_line, .. } = *call;
    let run_as = call.run_as.filter(|user| *user != connection.facts.user);
    let nonce = nonce();
    let mut at_work = AtWork { connection, number: connection.number(), is_over: false };
    let program = become_program(invocation, run_as, &nonce, vault)?;
    let head = format!("{}\n{}", wrapper(connection, run_as, at_work.number, &nonce), program.expose_secret());
    let head = secrecy::SecretString::from(head);

    let mut client = connection.client();
    client.args(["--", "ferry", &format!("exec sh -c '{BOOTSTRAP}'")]);
    client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = client.spawn().map_err(|error| super::config::no_ssh(&error))?;
    let (Some(stdin), Some(mut stdout), Some(mut stderr)) = (client.stdin.take(), client.stdout.take(), client.stderr.take())
    else {
        unreachable!("all three were asked for")
    };

    let mut out = Stdout::new(streams.output.as_deref_mut().map(|output| output as _), vault, on_line);
    let mut err = Stderr::new(vault, on_line);
    let mut told = Told::default();
    let (is_asked, is_killed) = {
        let input = match (streams.input.as_deref_mut(), &invocation.stdin) {
            (Some(input), _) => Stdin::Stream(input),
            (None, Some(text)) => Stdin::Text(reveal(vault, text)?),
            (None, None) => Stdin::Nothing,
        };
        let feed = input.feed(Some(head.expose_secret().as_bytes()), stdin);
        let reading = take_stdout(&mut stdout, &mut out, &nonce);
        let hearing = take_stderr(&mut stderr, &mut err, &mut told, &nonce, &at_work, run_as);
        tokio::pin!(feed, reading, hearing);
        let (mut is_given, mut is_out, mut is_err) = (false, false, false);
        let (mut is_asked, mut is_killed) = (false, false);
        let mut limit: Option<Instant> = None;
        while !(is_out && is_err) {
            tokio::select! {
                taken = &mut reading, if !is_out => { taken?; is_out = true; }
                () = &mut hearing, if !is_err => is_err = true,
                given = &mut feed, if !is_given => { given?; is_given = true; }
                () = cancel.cancelled(), if !is_asked => {
                    is_asked = true;
                    at_work.signal("TERM");
                    limit = Some(Instant::now() + patience.grace);
                }
                () = tokio::time::sleep_until(limit.unwrap_or_else(Instant::now)), if limit.is_some() => {
                    if is_killed {
                        break;
                    }
                    is_killed = true;
                    at_work.signal("KILL");
                    limit = Some(Instant::now() + GONE);
                }
            }
        }
        (is_asked, is_killed)
    };
    err.finish();
    out.finish().await?;
    let said = err.tail();
    if let Some(End { code, is_signal, was_asked }) = told.end {
        at_work.is_over = true;
        if let Some(missing) = &told.missing {
            return Err(refused(invocation, missing).into());
        }
        if told.process.is_none() && !was_asked {
            return Err(not_become(connection, run_as.unwrap_or_default(), &said).into());
        }
        let signal = (is_signal && code > 128).then_some(code - 128);
        let (stdout, stdout_cut) = out.kept();
        let code = if signal.is_some() { None } else { Some(code) };
        return Ok(Finished { code, signal, was_asked, stdout, stdout_cut, stderr_tail: said });
    }
    let (stdout, stdout_cut) = out.kept();
    let by = |signal| Finished {
        code: None,
        signal: Some(signal),
        was_asked: is_asked,
        stdout,
        stdout_cut,
        stderr_tail: said.clone(),
    };
    if !told.has_begun && ["refused by peer", "open failed", "session request failed"].iter().any(|why| said.contains(why)) {
        return Err(Broken::Full);
    }
    // Without an end there are three ways: we killed it, somebody else did, or the connection is gone.
    if connection.answers(patience.beat * 2).await {
        return Ok(by(if is_asked && !is_killed && !told.has_begun { 15 } else { 9 }));
    }
    connection.lost.cancelled().await;
    Err(classify::lost(&connection.shown, invocation.program(), &connection.last_words()).into())
}

fn wrapper(connection: &Connection, run_as: Option<&str>, number: u64, nonce: &str) -> String {
    let uid = connection.facts.uid;
    WRAPPER
        .trim()
        .replace('\n', " ")
        .replace("@nonce@", nonce)
        .replace("@folder@", &connection.facts.folder.replace('\'', r"'\''"))
        .replace("@number@", &number.to_string())
        .replace("@user@", run_as.filter(|_| uid != 0).unwrap_or_default())
        .replace("@become@", &run_as.map(|user| become_user(user, uid)).unwrap_or_default())
        .replace("@bootstrap@", BOOTSTRAP)
}

/// What stands between the two marks goes on; what is before was said by the login shell, what is behind by a child
/// that was left in the background.
async fn take_stdout(from: &mut (impl AsyncRead + Unpin), to: &mut Stdout<'_>, nonce: &str) -> Result<(), StepError> {
    let mut frame = Frame::new(nonce);
    let mut buffer = vec![0; PIECE];
    let mut marks = 0;
    while marks < 2 {
        let Some(read) = piece(from, &mut buffer).await else { break };
        for part in frame.push(&buffer[..read]) {
            match part {
                Part::Mark(_) => marks += 1,
                Part::Bytes(bytes) if marks == 1 => to.take(bytes).await?,
                Part::Bytes(_) => {}
            }
        }
    }
    if marks == 1 {
        to.take(&frame.rest()).await?;
    }
    Ok(())
}

async fn take_stderr(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut Stderr<'_>,
    told: &mut Told,
    nonce: &str,
    at_work: &AtWork<'_>,
    run_as: Option<&str>,
) {
    let mut frame = Frame::new(nonce);
    let mut buffer = vec![0; PIECE];
    while told.end.is_none() {
        let Some(read) = piece(from, &mut buffer).await else { break };
        for part in frame.push(&buffer[..read]) {
            match part {
                Part::Mark(mark) => {
                    told.mark(&mark);
                    // `sudo` may have put the program into a group of its own.
                    if let (Some(process), Some(user), true) = (&told.process, run_as, mark.starts_with('+')) {
                        at_work.connection.tell(format!("add {} {process} {user}", at_work.number));
                    }
                }
                Part::Bytes(_) if told.end.is_some() => {}
                Part::Bytes(bytes) => to.take(bytes),
            }
        }
    }
    to.take(&frame.rest());
}

fn not_become(connection: &Connection, user: &str, said: &str) -> StepError {
    let last = said.lines().next_back().unwrap_or_default();
    let (shown, by) = (&connection.shown, &connection.facts.user);
    StepError::needs_person(format!("`{by}` on {shown} may not become `{user}`: {last}"))
        .help(format!(
            "have `{user}` there, and a line in `sudoers` that lets `{by}` run commands as `{user}` without a password (NOPASSWD), or log in as root"
        ))
        .cause(said.to_owned())
}

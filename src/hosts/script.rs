//! What a shell is told: one line of POSIX sh that becomes the program, with nothing left to the user's own shell.
//!
//! The command that `ssh` or `sudo` is given is always [`BOOTSTRAP`], which every login shell reads alike. All that
//! varies (arguments, environment, folder) comes as the first line of standard input: it may hold secrets, and only a
//! POSIX shell ever parses it.

use std::fmt::Write as _;

use secrecy::{ExposeSecret as _, SecretString};

use super::{Invocation, reveal, secret_argument};
use crate::error::StepError;
use crate::secret::{Vault, is_marked};

/// Reads a line and becomes it. `read` takes byte by byte, so what follows the line is left to the program.
pub(in crate::hosts) const BOOTSTRAP: &str = r#"read -r ferry_line && eval "$ferry_line""#;

/// Begins every mark in an output; the nonce behind it makes it one that no program writes by chance.
pub(in crate::hosts) const MARK: u8 = 0x1e;

/// A word for a POSIX shell that means exactly this text. Line breaks are named, for the script is one line.
pub(in crate::hosts) fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''").replace('\n', r#"'"$ferry_nl"'"#))
}

/// A user's name as it may stand unquoted in a script. Names of directory services have dots and backslashes; those
/// with other signs are refused.
pub(in crate::hosts) fn is_user(name: &str) -> bool {
    let first = |c: char| c.is_ascii_alphanumeric() || c == '_';
    name.starts_with(first) && name.chars().all(|c| first(c) || matches!(c, '-' | '.' | '@')) && name.len() <= 64
}

/// The line that becomes the program: it sets the environment and the folder, says `+` and its process number on
/// standard error, or `-` and what is missing, and is replaced by the program. Ends with a line break.
pub(in crate::hosts) fn become_program(
    invocation: &Invocation,
    run_as: Option<&str>,
    nonce: &str,
    vault: &Vault,
) -> Result<SecretString, StepError> {
    let (program, _) = invocation.argv.split_first().ok_or_else(|| StepError::permanent("a command needs a program to run"))?;
    let public = invocation.argv.iter().map(String::as_str).chain(invocation.workdir.as_deref());
    for text in public.clone() {
        if is_marked(text) {
            return Err(secret_argument(text));
        }
    }
    if program.starts_with('-') || program.is_empty() {
        return Err(no_program(program));
    }
    let mut line = String::from(r"ferry_nl=$(printf '\nx'); ferry_nl=${ferry_nl%x}; ");
    let no = |what: &str| format!(r"{{ printf '\036{nonce} - {what}\n' >&2; exit 127; }}; ");
    if let Some(user) = run_as {
        if !is_user(user) {
            return Err(StepError::permanent(format!("`{user}` is no name of a user")).help("correct `become`"));
        }
        // The name has been checked: a tilde is only read outside quotes.
        let _ = write!(line, "HOME=~{user}; USER={user}; LOGNAME={user}; export HOME USER LOGNAME; ");
        // Who became another may not even look at the folder that the connection began in.
        line.push_str(r#"cd "$HOME" 2>/dev/null || cd /; "#);
    }
    for (name, value) in &invocation.env {
        let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        if !is_name {
            return Err(StepError::permanent(format!("`{name}` is no name of an environment variable"))
                .help("take letters, digits and `_`, beginning with a letter or `_`"));
        }
        let value = reveal(vault, value)?;
        let _ = write!(line, "{name}={}; export {name}; ", quote(value.expose_secret()));
    }
    if let Some(workdir) = &invocation.workdir {
        let _ = write!(line, "cd {} 2>/dev/null || {}", quote(&at(workdir)), no("workdir"));
    }
    let quoted = quote(program);
    if program.contains('/') {
        let (access, missing) = (no("access"), no("program"));
        let _ = write!(line, "[ -e {quoted} ] || {missing}[ -x {quoted} ] && [ ! -d {quoted} ] || {access}");
    } else {
        let _ = write!(line, "command -v {quoted} >/dev/null 2>&1 || {}", no("program"));
    }
    let _ = write!(line, r"printf '\036{nonce} + %s\n' $$ >&2; exec");
    for word in &invocation.argv {
        let _ = write!(line, " {}", quote(word));
    }
    if line.contains(['\0', '\n']) {
        return Err(StepError::permanent(format!("a command may not hold a zero byte: `{program}`"))
            .help("pass bytes on standard input, or through a file"));
    }
    line.push('\n');
    Ok(line.into())
}

/// A path that is no option, whatever it begins with.
pub(in crate::hosts) fn at(path: &str) -> String {
    if path.starts_with('-') { format!("./{path}") } else { path.to_owned() }
}

pub(in crate::hosts) fn no_program(program: &str) -> StepError {
    StepError::permanent(format!("cannot run `{program}`: there is no such program"))
        .help("install it, or write its whole path; a list is executed as it is, a string goes to `sh -c`")
}

/// What a program that could not be started is refused for: the word behind `-`.
pub(in crate::hosts) fn refused(invocation: &Invocation, what: &str) -> StepError {
    let program = invocation.program();
    let message = format!("cannot run `{program}`");
    match what {
        "workdir" => {
            let workdir = invocation.workdir.as_deref().unwrap_or_default();
            StepError::permanent(format!("{message}: there is no directory `{workdir}` to run it in"))
                .help("correct `workdir`, or create the directory in a step before this one")
        }
        "access" => {
            StepError::permanent(format!("{message}: it is not allowed")).help("make it executable for the user who is to run it")
        }
        _ => no_program(program),
    }
}

/// What comes before the program to run it as another user, when the one who asks has this number.
pub(in crate::hosts) fn become_user(user: &str, uid: u32) -> String {
    if uid == 0 { format!("runuser -u {user} --") } else { format!("sudo -n -H -u {user} --") }
}

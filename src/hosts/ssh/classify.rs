//! Why `ssh` could not connect: its words on standard error are all that it tells, and this is the one place that reads
//! them.

use crate::error::StepError;

/// What people call the host: its name and how it is reached.
pub(super) fn shown(name: &str, ssh: &str) -> String {
    if name == ssh { format!("host `{name}`") } else { format!("host `{name}` (`{ssh}`)") }
}

/// A connection that did not come about. The worst that was said counts: a jump host's words come with the target's.
pub(super) fn refused(host: &str, said: &str, code: Option<i32>) -> StepError {
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let last = last_line(said);
    let error = if says(&["REMOTE HOST IDENTIFICATION HAS CHANGED", "host key has changed", "Host key for", "REVOKED"]) {
        StepError::needs_person(format!("{host} shows another host key than the one that is known"))
            .help("somebody may be in between. Ask who runs the machine for the fingerprint of its new key; only when it is right: `ssh-keygen -R MACHINE`, and log in once by hand")
    } else if says(&["Host key verification failed", "host key is known for", "No host key"]) {
        StepError::needs_person(format!("{host} shows a host key that is not known here"))
            .help("compare the fingerprint and log in once by hand: `ssh MACHINE`; or put its key into `~/.ssh/known_hosts`")
    } else if says(&[
        "Permission denied",
        "Too many authentication failures",
        "No supported authentication",
        "Load key",
        "sign_and_send_pubkey",
    ]) && !says(&["Permission denied (os", "bind: Permission denied"])
    {
        StepError::needs_person(format!("{host} does not let us in: {last}"))
            .help("have the right key in the agent (`ssh-add -l`) or named by `identity`, and its public half on the machine; nobody is asked for a password")
    } else if says(&["Unable to negotiate", "no matching"]) {
        StepError::permanent(format!("{host} and this machine have no method in common: {last}"))
            .help("allow what it offers for this machine in `~/.ssh/config`, or update the older side")
    } else if says(&[
        "Bad configuration option",
        "bad configuration options",
        "Bad owner or permissions",
        "Unsupported option",
        "invalid",
        "Can't open user config",
    ]) {
        StepError::permanent(format!("`ssh` does not take the configuration of {host}: {last}"))
            .help("correct the configuration until `ssh MACHINE true` works")
    } else if says(&["Name or service not known", "nodename nor servname", "No address associated"]) {
        StepError::permanent(format!("{host} has no address: {last}"))
            .help("correct the machine's name under `hosts:`, or in `~/.ssh/config`")
    } else if code.is_some_and(|code| code != 255) {
        StepError::permanent(format!("{host} lets us in but runs no commands: {last}"))
            .help("`ssh MACHINE sh -c true` has to work: a login shell, `sh`, and no forced command")
    } else {
        // Refused, no route, timed out, name server busy, closed while greeting: all of it may pass.
        let last = if last.is_empty() { "the connection was closed".to_owned() } else { last };
        StepError::transient(format!("{host} cannot be reached: {last}"))
            .help("see whether the machine runs and its SSH port is open from here: `ssh MACHINE true`")
    };
    if said.trim().is_empty() { error } else { error.cause(said.trim().to_owned()) }
}

/// It did not answer in time.
pub(super) fn too_slow(host: &str, after: std::time::Duration) -> StepError {
    StepError::transient(format!("{host} did not answer within {}", crate::units::Span(after)))
        .help("see whether the machine is overloaded or a firewall swallows what is sent: `ssh -v MACHINE true`")
}

/// A connection that broke while a command was at work.
pub(super) fn lost(host: &str, program: &str, said: &str) -> StepError {
    let error =
        StepError::transient(format!("the connection to {host} was lost while `{program}` ran: how far it came is not known"))
            .help("the command is ended there; it is tried again as `retry` says");
    if said.trim().is_empty() { error } else { error.cause(said.trim().to_owned()) }
}

/// The last thing said that is no mere consequence.
fn last_line(said: &str) -> String {
    let is_cause = |line: &&str| !line.trim().is_empty() && !line.contains("UNKNOWN port") && !line.starts_with("@@@");
    said.lines().rev().find(is_cause).unwrap_or_default().trim().trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorClass::{NeedsPerson, Permanent, Transient};

    #[test]
    fn each_refusal_has_its_class() {
        for (said, class, says) in [
            ("ssh: connect to host 10.0.0.1 port 22: Connection refused", Transient, "Connection refused"),
            ("ssh: connect to host 10.0.0.1 port 22: Connection timed out", Transient, "timed out"),
            ("ssh: Could not resolve hostname db: Temporary failure in name resolution", Transient, "Temporary"),
            ("ssh: Could not resolve hostname db: Name or service not known", Permanent, "no address"),
            ("kex_exchange_identification: Connection closed by remote host", Transient, "closed"),
            ("", Transient, "closed"),
            ("me@db: Permission denied (publickey).", NeedsPerson, "let us in"),
            (
                "bastion: Permission denied (publickey).\nConnection closed by UNKNOWN port 65535",
                NeedsPerson,
                "Permission denied (publickey)",
            ),
            (
                "No ED25519 host key is known for db and you have requested strict checking.\nHost key verification failed.",
                NeedsPerson,
                "not known",
            ),
            (
                "@@@@\n@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @\nHost key verification failed.",
                NeedsPerson,
                "another host key",
            ),
            ("Unable to negotiate with 1.2.3.4 port 22: no matching host key type found", Permanent, "in common"),
        ] {
            let error = refused("host `db`", said, Some(255));
            assert_eq!(error.class, class, "{said}");
            assert!(error.message.contains(says) && error.help.is_some(), "{said}: {}", error.message);
        }
        assert_eq!(refused("host `db`", "This account is currently not available.", Some(1)).class, Permanent);
    }
}

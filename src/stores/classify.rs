//! What a store's answer means for the run: decided once, here, where the answer is known.

use std::time::Duration;

use opendal::{Error, ErrorKind};

use crate::error::{ErrorClass, StepError};

/// What the store said, without headers and addresses: those may carry signatures.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Answer(String);

/// Whether the store says that there is nothing by that name.
pub fn is_missing(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound
}

/// Whether the store says that the object is not the one that was listed.
pub fn is_changed(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ConditionNotMatch | ErrorKind::RangeNotSatisfied)
}

/// Whether it may pass, what it means, and what to do.
type Verdict = (ErrorClass, &'static str, &'static str);

const NO_ACCESS: Verdict = (
    ErrorClass::Permanent,
    "the store refuses access",
    "check the key, and that it may list, read and (for a target) write and delete here",
);
const NOTHING_THERE: Verdict =
    (ErrorClass::Permanent, "there is nothing by that name", "check the store, its bucket and the prefix");
const TOO_MANY: Verdict = (ErrorClass::Transient, "the store asks for fewer requests", "lower `concurrency` if this goes on");
const CHANGED: Verdict = (ErrorClass::NeedsPerson, "it was changed meanwhile", "see who else writes here, then resume");
const CANNOT: Verdict = (ErrorClass::Permanent, "the store cannot do that", "use another store or another setting");
const NO_ANSWER: Verdict = (ErrorClass::Transient, "the store did not answer in time", "see whether the store is up");
const OVERLOADED: Verdict =
    (ErrorClass::Transient, "the store is overloaded or down for a moment", "lower `concurrency` if this goes on");
const REFUSED: Verdict =
    (ErrorClass::Permanent, "the store refuses the request", "see what it says below; the key may belong to another place");
const NO_CONNECTION: Verdict = (ErrorClass::Transient, "the connection failed", "see whether the store can be reached from here");

/// What the codes of S3 and Azure mean, whoever has read them.
fn by_code(said: &str, status: Option<u64>) -> Option<Verdict> {
    let has = |code: &str| said.contains(code);
    Some(if has("NoSuchBucket") || has("ContainerNotFound") {
        (
            ErrorClass::Permanent,
            "the bucket or container does not exist",
            "create it, or correct the store's `bucket` or `container`",
        )
    } else if has("RequestTimeTooSkewed") {
        (ErrorClass::Permanent, "this machine's clock is wrong", "set the clock: signatures hold for a few minutes only")
    } else if has("InvalidAccessKeyId")
        || has("SignatureDoesNotMatch")
        || has("AuthenticationFailed")
        || has("AuthorizationFailure")
        || has("ExpiredToken")
        || has("InvalidToken")
        || status == Some(401)
    {
        (
            ErrorClass::Permanent,
            "the store refuses the key",
            "check the store's key and secret (or the token, which may have expired), and that they belong to this account",
        )
    } else if has("InvalidObjectState") || has("BlobArchived") {
        (ErrorClass::Permanent, "the object lies in an archive", "restore it first, or leave it out with `exclude`")
    } else if has("InvalidBlobOrBlock") {
        (
            ErrorClass::Permanent,
            "another program's upload of this name is unfinished there",
            "write the blob once with that program, or wait: what is unfinished expires after seven days",
        )
    } else if has("InvalidStorageClass") {
        (
            ErrorClass::Permanent,
            "the store has no such storage class",
            "say where objects of that class go: `storage_class: { CLASS: default }`",
        )
    } else if has("MetadataTooLarge") {
        (
            ErrorClass::Permanent,
            "the object has more metadata than the store takes",
            "S3 takes 2 KiB, Azure 8 KiB: make it less at the source, or leave the object out with `exclude`",
        )
    } else if has("InvalidTag") {
        (
            ErrorClass::Permanent,
            "the store does not take a tag of the object",
            "change it at the source, or carry no tags: `tags: false`",
        )
    } else if has("InvalidMetadata") {
        (
            ErrorClass::Permanent,
            "the store does not take a name of the object's metadata",
            "Azure takes letters, digits and `_`: rename it at the source, or leave the object out with `exclude`",
        )
    } else if has("KeyTooLong") {
        (ErrorClass::Permanent, "the name is too long for this store", "exclude it, or copy to a store that takes long names")
    } else {
        return None;
    })
}

/// What a service said no with, read from its answer by ferry itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'a> {
    /// The answer's status; `None`: there was no answer.
    pub status: Option<u16>,
    /// The service's word: `NoSuchBucket`.
    pub code: &'a str,
    /// The service's sentence, or what happened to the connection.
    pub message: &'a str,
    /// How long it asks us to wait.
    pub retry_after: Option<Duration>,
}

/// Turns such an answer into a failure, by the same table.
pub(super) fn classify_answer(doing: &str, said: &Said<'_>) -> StepError {
    let status = said.status.map(u64::from);
    let (class, why, help) = match status {
        _ if let Some(verdict) = by_code(said.code, status) => verdict,
        None if said.message.contains("timeout") => NO_ANSWER,
        None => NO_CONNECTION,
        Some(403) => NO_ACCESS,
        Some(404) => NOTHING_THERE,
        Some(412 | 304) => CHANGED,
        Some(429) => TOO_MANY,
        Some(_) if matches!(said.code, "SlowDown" | "ServerBusy" | "TooManyRequests") => TOO_MANY,
        Some(_) if matches!(said.code, "BadDigest" | "XAmzContentChecksumMismatch" | "Md5Mismatch" | "Crc64Mismatch") => {
            (ErrorClass::Transient, "the bytes did not arrive as they were sent", "try again; if this goes on, see the network")
        }
        Some(501) => CANNOT,
        Some(408 | 500..) => OVERLOADED,
        Some(_) if matches!(said.code, "RequestTimeout" | "InternalError") => OVERLOADED,
        Some(_) => REFUSED,
    };
    let mut failure = StepError::new(class, format!("{doing}: {why}")).help(help);
    if class == ErrorClass::Transient {
        failure.retry_after = said.retry_after;
    }
    let status = said.status.map_or_else(String::new, |status| format!("status {status}"));
    let words = [status.as_str(), said.code, said.message].into_iter().filter(|word| !word.is_empty());
    failure.cause(Answer(cut(&without_queries(&words.collect::<Vec<_>>().join(": ")))))
}

/// Turns a store's answer into a failure. `doing` says what was being done: ``cannot list `old:uploads/` ``.
#[expect(clippy::needless_pass_by_value, reason = "used as the end of a request's error")]
pub fn classify(doing: &str, error: Error) -> StepError {
    // The text of the error holds the answer's status line and headers; nothing else of OpenDAL does.
    let whole = error.to_string();
    let status = number_after(&whole, "status: ");
    let said = error.message();
    let has = |code: &str| said.contains(code);
    let (class, why, help): Verdict = match error.kind() {
        _ if let Some(verdict) = by_code(said, status) => verdict,
        ErrorKind::PermissionDenied => NO_ACCESS,
        ErrorKind::ConfigInvalid => {
            (ErrorClass::Permanent, "the store's options are wrong", "correct the options under `stores:`")
        }
        ErrorKind::NotFound => NOTHING_THERE,
        ErrorKind::RateLimited => TOO_MANY,
        ErrorKind::ConditionNotMatch => CHANGED,
        ErrorKind::Unsupported => CANNOT,
        ErrorKind::IsADirectory | ErrorKind::NotADirectory => (
            ErrorClass::Permanent,
            "a file and a folder have the same name",
            "a directory cannot hold both `a` and `a/b`: exclude one, or copy to an object store",
        ),
        _ if has("No space left") || has("StorageFull") || whole.contains("os error 28") => {
            (ErrorClass::NeedsPerson, "the disk is full", "make room, then resume")
        }
        _ if whole.contains("os error 36") => {
            (ErrorClass::Permanent, "the name is too long for this store", "exclude it, or copy to a store that takes long names")
        }
        _ if whole.contains("os error 30") => (ErrorClass::Permanent, "the file system is read-only", "mount it for writing"),
        _ if whole.contains("os error 20") || whole.contains("os error 21") || whole.contains("os error 17") => (
            ErrorClass::Permanent,
            "a file and a folder have the same name",
            "a directory cannot hold both `a` and `a/b`: exclude one, or copy to an object store",
        ),
        _ if has("timeout") => NO_ANSWER,
        _ if matches!(status, Some(429 | 500 | 502 | 503 | 504)) => OVERLOADED,
        _ if matches!(status, Some(400..=499)) => REFUSED,
        // SFTP has no word for most of what goes wrong.
        _ if whole.contains("error kind Failure") => (
            ErrorClass::Permanent,
            "the server failed and does not say why",
            "see that its disk has room, and that no file has the name of a folder that is needed",
        ),
        // No status: the connection was refused, reset, or ended before the answer did.
        _ if status.is_none() && (error.is_temporary() || error.is_persistent()) => NO_CONNECTION,
        _ if whole.contains("ssh error") => (
            ErrorClass::Permanent,
            "the login by SSH failed",
            "try `sftp` with the same user, key and host; a host key that is not known yet needs `known_hosts_strategy: add`",
        ),
        _ => (ErrorClass::Permanent, "the store failed", "see what it says below"),
    };
    let mut failure = StepError::new(class, format!("{doing}: {why}")).help(help);
    if class == ErrorClass::Transient {
        failure.retry_after = retry_after(&whole);
    }
    failure.cause(Answer(shorten(&error)))
}

/// `Retry-After` in seconds. Dates are rare there, and wrong clocks are not: they are left to the engine's backoff.
fn retry_after(whole: &str) -> Option<Duration> {
    number_after(whole, "\"retry-after\": \"").map(Duration::from_secs)
}

fn number_after(text: &str, mark: &str) -> Option<u64> {
    let rest = &text[text.find(mark)? + mark.len()..];
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..end].parse().ok()
}

fn shorten(error: &Error) -> String {
    let mut text = error.message().to_owned();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = if text.is_empty() { cause_text } else { format!("{text}: {cause_text}") };
        }
        next = cause.source();
    }
    cut(&without_queries(&text))
}

/// Addresses of presigned requests carry signatures.
fn without_queries(text: &str) -> String {
    text.split(' ')
        .map(|word| word.split_once('?').filter(|_| word.contains("://")).map_or(word, |(a, _)| a))
        .collect::<Vec<_>>()
        .join(" ")
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(400) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_from_the_answer() {
        let error = Error::new(ErrorKind::Unexpected, "SlowDown")
            .with_context("response", "Parts { status: 503, version: HTTP/1.1, headers: {\"retry-after\": \"7\"} }")
            .set_temporary();
        let failure = classify("cannot read `a`", error);
        assert_eq!(failure.class, ErrorClass::Transient);
        assert_eq!(failure.retry_after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn a_refused_key_is_permanent_and_says_what_to_do() {
        let error = Error::new(ErrorKind::PermissionDenied, "S3Error { code: \"InvalidAccessKeyId\" }")
            .with_context("response", "Parts { status: 403 }");
        let failure = classify("cannot list `old:`", error);
        assert_eq!(failure.class, ErrorClass::Permanent);
        assert!(failure.help.expect("it helps").contains("key"));
    }

    #[test]
    fn an_unknown_failure_is_permanent_and_a_cut_connection_is_not() {
        assert_eq!(classify("x", Error::new(ErrorKind::Unexpected, "?")).class, ErrorClass::Permanent);
        assert_eq!(classify("x", Error::new(ErrorKind::Unexpected, "reset").set_persistent()).class, ErrorClass::Transient);
    }

    #[test]
    fn no_signature_of_an_address_is_shown() {
        let error = Error::new(ErrorKind::Unexpected, "error sending request for url (https://a.example/b?sig=s3cr3t)");
        let failure = classify("x", error);
        assert!(!failure.to_failure().causes.join(" ").contains("s3cr3t"));
    }
}

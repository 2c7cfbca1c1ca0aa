//! What an error of a PostgreSQL server means: whether trying again can help, and what to do.

use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

use super::connect::Login;
use crate::error::{ErrorClass, StepError};

/// A statement failed on a server.
pub(super) fn statement(server: &str, doing: &str, error: Error) -> StepError {
    let Some(state) = error.code() else {
        return lost(server, doing, error);
    };
    let said = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
    let (class, help) = of_state(state);
    let mut failed = StepError::new(class, format!("cannot {doing} on `{server}`: {said}"));
    let hint = error.as_db_error().and_then(|error| error.hint().or(error.detail())).map(str::to_owned);
    if let Some(help) = help.map(str::to_owned).or(hint) {
        failed = failed.help(help);
    }
    failed
}

/// Logging in failed.
pub(super) fn login(login: &Login, error: Error) -> StepError {
    let Some(state) = error.code() else {
        let tls = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        if tls.contains("certificate") || tls.contains("server does not support TLS") {
            return StepError::needs_person(format!("`{}` is not trusted as `{}`: {tls}", login.title, login.name))
                .help("correct `tls` and `ca`, or the server's certificate; nothing was sent");
        }
        return lost(&login.title, "log in", error);
    };
    let (class, help) = of_state(state);
    let said = error.as_db_error().map_or_else(|| error.to_string(), |error| error.message().to_owned());
    let failed = StepError::new(class, format!("`{}` does not let `{}` in: {said}", login.title, login.user));
    failed.help(help.unwrap_or("correct `user`, `database` and `port`"))
}

fn lost(server: &str, doing: &str, error: Error) -> StepError {
    StepError::transient(format!("the connection to `{server}` broke, trying to {doing}"))
        .cause(error)
        .help("how far it came is not known; it is tried again as `retry` says")
}

/// What an SQLSTATE means, and what to do where PostgreSQL does not say it itself.
fn of_state(state: &SqlState) -> (ErrorClass, Option<&'static str>) {
    let code = state.code();
    let passing = matches!(*state, SqlState::ADMIN_SHUTDOWN | SqlState::CRASH_SHUTDOWN | SqlState::CANNOT_CONNECT_NOW)
        || matches!(*state, SqlState::TOO_MANY_CONNECTIONS | SqlState::LOCK_NOT_AVAILABLE | SqlState::QUERY_CANCELED)
        || matches!(*state, SqlState::OBJECT_IN_USE | SqlState::IDLE_SESSION_TIMEOUT)
        || code.starts_with("08")
        || code.starts_with("40");
    if passing {
        return (ErrorClass::Transient, None);
    }
    match code {
        "28P01" => (ErrorClass::NeedsPerson, Some("the password is wrong: correct it, then resume the run")),
        "28000" => {
            (ErrorClass::NeedsPerson, Some("`pg_hba.conf` there does not let this user in from here: correct it or `user`"))
        }
        "53100" => (ErrorClass::NeedsPerson, Some("make room on the server's disk, then resume the run")),
        "42501" => (ErrorClass::NeedsPerson, Some("log in as a superuser, or grant what is needed")),
        code if code.starts_with("53") => (ErrorClass::Transient, None),
        _ => (ErrorClass::Permanent, None),
    }
}

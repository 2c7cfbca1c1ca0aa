//! HTTP as the step types see it.

/// Why no answer came, without the URL: it may hold a secret.
pub(super) fn said(error: &reqwest::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(next) = deepest.source() {
        deepest = next;
    }
    let what = if error.is_timeout() {
        "no answer in time"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the exchange broke off"
    };
    if std::ptr::eq(deepest, error as &dyn std::error::Error) { what.to_owned() } else { format!("{what}: {deepest}") }
}

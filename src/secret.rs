//! Secrets as a type: a mark stands in for the value everywhere, and only a sink that needs the value asks for it.
//!
//! A rendered configuration, an output, a log line never holds a secret. It holds a *mark*, `U+F5E5 name U+F5E6`,
//! which follows the value through every template helper and is turned into the value by [`Vault::reveal`] at the
//! last moment. Text that comes from outside is passed through [`sanitize`] once, so that nobody can forge a mark.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, RwLock};

use base64::Engine as _;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::error::{Failure, StepError};

/// Opens a mark. Both are private-use characters that no protocol and no person writes.
pub const MARK_START: char = '\u{F5E5}';
/// Closes a mark.
pub const MARK_END: char = '\u{F5E6}';
/// What people see in place of a secret.
pub const MASK: &str = "***";

/// Values shorter than this are not searched for in foreign text: masking every `1` hides more than it protects.
const SHORTEST_SEARCHED: usize = 4;

/// Takes the power to mark from text that comes from outside.
pub fn sanitize(text: &str) -> Cow<'_, str> {
    if text.contains([MARK_START, MARK_END]) {
        Cow::Owned(text.replace([MARK_START, MARK_END], "\u{FFFD}"))
    } else {
        Cow::Borrowed(text)
    }
}

/// Whether a text holds a mark.
pub fn is_marked(text: &str) -> bool {
    text.contains(MARK_START)
}

/// The mark of the secret of this name.
pub fn mark(name: &str) -> String {
    format!("{MARK_START}{name}{MARK_END}")
}

/// Applies `change` to every string of a JSON value, keys included.
pub fn map_strings(value: &Value, change: &dyn Fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(change(text)),
        Value::Array(items) => Value::Array(items.iter().map(|item| map_strings(item, change)).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, item)| (change(key), map_strings(item, change))).collect())
        }
        other => other.clone(),
    }
}

/// A string of a step's configuration that may hold secrets. It prints, serialises and compares as its marks;
/// `StepContext::reveal` gives the value.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Text(String);

impl Text {
    /// Wraps rendered text, marks and all.
    pub fn new(marked: impl Into<String>) -> Self {
        Self(marked.into())
    }

    /// The text with its marks in place: for passing on, never for the outside.
    pub fn marked(&self) -> &str {
        &self.0
    }

    /// Whether a secret is in it.
    pub fn is_secret(&self) -> bool {
        is_marked(&self.0)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&unmarked(&self.0))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&unmarked(&self.0), f)
    }
}

impl JsonSchema for Text {
    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "description": "A text that may hold secrets." })
    }
}

/// A text for people: each mark becomes `***`.
pub fn unmarked(text: &str) -> Cow<'_, str> {
    if !is_marked(text) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(MARK_START) {
        shown.push_str(&rest[..start]);
        shown.push_str(MASK);
        rest = rest[start..].find(MARK_END).map_or("", |end| &rest[start + end + MARK_END.len_utf8()..]);
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

/// A mark whose secret this process does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the secret `{0}` is not at hand")]
pub struct UnknownSecret(pub String);

/// The secrets of one run, by name. Cloning shares them.
#[derive(Clone, Default)]
pub struct Vault {
    entries: Arc<RwLock<BTreeMap<String, SecretString>>>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.read().keys()).finish()
    }
}

impl Vault {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, SecretString>> {
        self.entries.read().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Takes a secret in and gives its mark.
    pub fn insert(&self, name: &str, value: SecretString) -> String {
        self.entries.write().unwrap_or_else(std::sync::PoisonError::into_inner).insert(name.to_owned(), value);
        mark(name)
    }

    /// The text with every mark replaced by its value. Only a sink calls this, and drops the result at once.
    pub fn reveal(&self, text: &str) -> Result<SecretString, UnknownSecret> {
        let mut value = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(MARK_START) {
            value.push_str(&rest[..start]);
            let after = &rest[start + MARK_START.len_utf8()..];
            let end = after.find(MARK_END).ok_or_else(|| UnknownSecret("?".to_owned()))?;
            value.push_str(self.value(&after[..end])?.expose_secret());
            rest = &after[end + MARK_END.len_utf8()..];
        }
        value.push_str(rest);
        Ok(SecretString::from(value))
    }

    /// A named secret, or one derived from a named one as `base64(NAME)`: derived marks outlive the process that made them.
    fn value(&self, name: &str) -> Result<SecretString, UnknownSecret> {
        if let Some(value) = self.read().get(name) {
            return Ok(value.clone());
        }
        let unknown = || UnknownSecret(name.to_owned());
        let (helper, inner) = name.strip_suffix(')').and_then(|call| call.split_once('(')).ok_or_else(unknown)?;
        let inner = self.value(inner)?;
        let inner = inner.expose_secret();
        Ok(SecretString::from(match helper {
            "base64" => base64::engine::general_purpose::STANDARD.encode(inner),
            "sha256" => format!("{:x}", Sha256::digest(inner.as_bytes())),
            "lower" => inner.to_lowercase(),
            "upper" => inner.to_uppercase(),
            "trim" => inner.trim().to_owned(),
            "json" => serde_json::to_string(inner).unwrap_or_default(),
            _ => return Err(unknown()),
        }))
    }

    /// Applies a pure helper to arguments of which some may hold marks. When one does, the result is itself a secret:
    /// its mark is named after the call, so that equal calls give equal marks in every process.
    pub fn derive(&self, helper: &str, args: &[String], apply: &dyn Fn(&[String]) -> String) -> Result<String, UnknownSecret> {
        if !args.iter().any(|arg| is_marked(arg)) {
            return Ok(apply(args));
        }
        let bare: Vec<String> = args.iter().map(|arg| arg.replace([MARK_START, MARK_END], "")).collect();
        let revealed = args
            .iter()
            .map(|arg| self.reveal(arg).map(|value| value.expose_secret().to_owned()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(self.insert(&format!("{helper}({})", bare.join(",")), SecretString::from(apply(&revealed))))
    }

    /// Every form in which a secret may show up in foreign text, with the mark that stands for it; longest first.
    fn forms(&self) -> Vec<(String, String)> {
        let mut forms = Vec::new();
        for (name, value) in self.read().iter() {
            let raw = value.expose_secret();
            if raw.len() < SHORTEST_SEARCHED {
                continue;
            }
            let mut add = |form: String, mark: String| {
                if form.len() >= SHORTEST_SEARCHED && !forms.iter().any(|(known, _)| *known == form) {
                    forms.push((form, mark));
                }
            };
            add(raw.to_owned(), mark(name));
            let json = serde_json::to_string(raw).unwrap_or_default();
            add(json.trim_matches('"').to_owned(), mark(name));
            add(url::form_urlencoded::byte_serialize(raw.as_bytes()).collect(), mark(name));
            add(base64::engine::general_purpose::STANDARD.encode(raw), mark(&format!("base64({name})")));
            add(base64::engine::general_purpose::STANDARD_NO_PAD.encode(raw), mark(&format!("base64({name})")));
            add(base64::engine::general_purpose::URL_SAFE.encode(raw), mark(&format!("base64({name})")));
            add(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(raw), mark(&format!("base64({name})")));
            // `user:password` and the like shift the encoding: search the part that is the same at each offset.
            for lead in 1..3 {
                let shifted =
                    base64::engine::general_purpose::STANDARD_NO_PAD.encode([vec![0; lead], raw.as_bytes().to_vec()].concat());
                let whole = (lead + raw.len()) / 3 * 4;
                if whole > 4 + SHORTEST_SEARCHED {
                    add(shifted[4..whole].to_owned(), mark(&format!("base64({name})")));
                }
            }
        }
        forms.sort_by_key(|(form, _)| std::cmp::Reverse(form.len()));
        forms
    }

    /// Foreign text for people: every form of every secret becomes `***`.
    pub fn mask(&self, text: &str) -> String {
        let mut shown = unmarked(text).into_owned();
        for (form, _) in self.forms() {
            if shown.contains(&form) {
                shown = shown.replace(&form, MASK);
            }
        }
        shown
    }

    /// Foreign data that stays usable: every secret in it becomes its mark again. Forged marks are taken out first.
    pub fn conceal(&self, value: &Value) -> Value {
        let forms = self.forms();
        map_strings(value, &|text| {
            let mut kept = sanitize(text).into_owned();
            for (form, mark) in &forms {
                if kept.contains(form.as_str()) {
                    kept = kept.replace(form.as_str(), mark);
                }
            }
            kept
        })
    }

    /// A failure as a value that holds no secret.
    pub fn mask_failure(&self, error: &StepError) -> Failure {
        let mut failure = error.to_failure();
        failure.message = self.mask(&failure.message);
        failure.help = failure.help.map(|help| self.mask(&help));
        failure.causes = failure.causes.iter().map(|cause| self.mask(cause)).collect();
        failure
    }

    /// The length of the longest form: what a masker of a stream must hold back to catch a secret across a border.
    pub fn longest_form(&self) -> usize {
        self.forms().first().map_or(0, |(form, _)| form.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault() -> Vault {
        let vault = Vault::default();
        vault.insert("repl", SecretString::from("s3cr3t/\"pässword"));
        vault
    }

    #[test]
    fn a_mark_is_revealed_only_when_asked() {
        let vault = vault();
        let text = Text::new(format!("user:{}", mark("repl")));
        assert_eq!(text.to_string(), "user:***");
        assert_eq!(format!("{text:?}"), "\"user:***\"");
        assert_eq!(vault.reveal(text.marked()).expect("known").expose_secret(), "user:s3cr3t/\"pässword");
        assert!(vault.reveal(&mark("other")).is_err());
    }

    #[test]
    fn the_mark_follows_the_value_through_a_helper() {
        let vault = vault();
        let derived = vault
            .derive("base64", &[mark("repl")], &|args| base64::engine::general_purpose::STANDARD.encode(&args[0]))
            .expect("known");
        assert_eq!(derived, mark("base64(repl)"));
        // Another process that holds only the named secret can still reveal it.
        assert!(super::tests::vault().reveal(&derived).is_ok());
    }

    #[test]
    fn every_encoding_of_a_secret_is_masked() {
        let vault = vault();
        let raw = "s3cr3t/\"pässword";
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("me:{raw}"));
        let json = serde_json::to_string(raw).expect("a string is JSON");
        let url: String = url::form_urlencoded::byte_serialize(raw.as_bytes()).collect();
        let shown = vault.mask(&format!("{raw} {encoded} {json} {url}"));
        assert!(!shown.contains("s3cr3t") && !shown.contains(&encoded[8..16]), "{shown}");
    }

    #[test]
    fn nobody_forges_a_mark() {
        let vault = vault();
        let kept = vault.conceal(&Value::String(format!("{} s3cr3t/\"pässword", mark("repl"))));
        assert_eq!(kept, Value::String(format!("\u{FFFD}repl\u{FFFD} {}", mark("repl"))));
    }
}

//! Secrets as a type: a mark stands in for the value everywhere, and only a sink that needs the value asks for it.
//!
//! A rendered configuration, an output, a log line never holds a secret. It holds a *mark*, `U+F5E5 name U+F5E6`,
//! which follows the value through every template helper and is turned into the value by [`Vault::reveal`] at the
//! last moment. Text that comes from outside is passed through [`sanitize`] once, so that nobody can forge a mark.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, RwLock};

use base64::Engine as _;
use base64::engine::general_purpose;
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
            "base64" => general_purpose::STANDARD.encode(inner),
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

    /// Every form in which a secret may show up in foreign text; longest first.
    fn forms(&self) -> Vec<Form> {
        let mut forms: Vec<Form> = Vec::new();
        for (name, value) in self.read().iter() {
            let raw = value.expose_secret();
            if raw.len() < SHORTEST_SEARCHED {
                continue;
            }
            let mut add = |text: String, mark: String, (before, after): (usize, usize)| {
                if text.len() >= SHORTEST_SEARCHED && !forms.iter().any(|known| known.text == text) {
                    forms.push(Form { text, mark, before, after });
                }
            };
            let alone = (0, 0);
            add(raw.to_owned(), mark(name), alone);
            let json = serde_json::to_string(raw).unwrap_or_default();
            add(json.trim_matches('"').to_owned(), mark(name), alone);
            add(url::form_urlencoded::byte_serialize(raw.as_bytes()).collect(), mark(name), alone);
            let encoded = || mark(&format!("base64({name})"));
            for alphabet in [&general_purpose::STANDARD, &general_purpose::URL_SAFE] {
                add(alphabet.encode(raw), encoded(), alone);
                add(alphabet.encode(raw).trim_end_matches('=').to_owned(), encoded(), alone);
                // `user:password` and the like shift the encoding. What is the same whatever stands around is searched
                // for, and the digits beside it go too that share a group of four with it.
                for lead in 0..3 {
                    let shifted = alphabet.encode([vec![0; lead], raw.as_bytes().to_vec()].concat());
                    let (first, end) = ((8 * lead).div_ceil(6), 8 * (lead + raw.len()) / 6);
                    add(shifted[first..end].to_owned(), encoded(), (first, (4 - end % 4) % 4));
                }
            }
        }
        forms.sort_by_key(|form| std::cmp::Reverse(form.text.len()));
        forms
    }

    /// Foreign text for people: every form of every secret becomes `***`.
    pub fn mask(&self, text: &str) -> String {
        let shown = unmarked(text);
        replaced(&shown, &self.forms(), |_| MASK)
    }

    /// Foreign data that stays usable: every secret in it becomes its mark again. Forged marks are taken out first.
    pub fn conceal(&self, value: &Value) -> Value {
        let forms = self.forms();
        map_strings(value, &|text| replaced(&sanitize(text), &forms, |form| &form.mark))
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
        self.forms().iter().map(|form| form.before + form.text.len() + form.after).max().unwrap_or(0)
    }
}

/// A form in which a secret may show up in foreign text.
struct Form {
    text: String,
    /// What stands for it.
    mark: String,
    /// How many digits of base64 in front of it and behind it hold a part of the secret.
    before: usize,
    after: usize,
}

impl Form {
    /// The places in a text that hold it. They may overlap: of `abab`, the text `ababab` holds two.
    fn places<'t>(&'t self, text: &'t str) -> impl Iterator<Item = Range<usize>> + 't {
        let step = self.text.chars().next().map_or(1, char::len_utf8);
        let mut from = 0;
        std::iter::from_fn(move || {
            let start = from + text[from..].find(&self.text)?;
            from = start + step;
            let end = start + self.text.len();
            let is_digit = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+/-_=".contains(byte);
            let bytes = text.as_bytes();
            let before = bytes[..start].iter().rev().take(self.before).take_while(is_digit).count();
            let after = bytes[end..].iter().take(self.after).take_while(is_digit).count();
            Some(start - before..end + after)
        })
    }
}

/// The text with something else in every place that holds a form. All are looked for before any is replaced, because what
/// belongs to one may reach into another; of those that overlap, the longest says what stands in their place.
fn replaced<'f>(text: &str, forms: &'f [Form], by: impl Fn(&'f Form) -> &'f str) -> String {
    let mut places: Vec<(Range<usize>, usize)> =
        forms.iter().enumerate().flat_map(|(form, it)| it.places(text).map(move |place| (place, form))).collect();
    places.sort_by_key(|(place, _)| place.start);
    let mut out = String::with_capacity(text.len());
    let mut done = 0;
    let mut places = places.into_iter().peekable();
    while let Some((mut place, mut form)) = places.next() {
        while let Some((other, longer)) = places.next_if(|(other, _)| other.start < place.end) {
            place.end = place.end.max(other.end);
            form = form.min(longer);
        }
        out.push_str(&text[done..place.start]);
        out.push_str(by(&forms[form]));
        done = place.end;
    }
    out.push_str(&text[done..]);
    out
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
        let derived = vault.derive("base64", &[mark("repl")], &|args| general_purpose::STANDARD.encode(&args[0])).expect("known");
        assert_eq!(derived, mark("base64(repl)"));
        // Another process that holds only the named secret can still reveal it.
        assert!(super::tests::vault().reveal(&derived).is_ok());
    }

    #[test]
    fn every_encoding_of_a_secret_is_masked() {
        let vault = vault();
        let raw = "s3cr3t/\"pässword";
        let encoded = general_purpose::STANDARD.encode(format!("me:{raw}"));
        let json = serde_json::to_string(raw).expect("a string is JSON");
        let url: String = url::form_urlencoded::byte_serialize(raw.as_bytes()).collect();
        let shown = vault.mask(&format!("{raw} {encoded} {json} {url}"));
        assert!(!shown.contains("s3cr3t") && !shown.contains(&encoded[8..16]), "{shown}");
    }

    #[test]
    fn no_digit_of_base64_that_shares_a_group_with_a_secret_is_shown() {
        for secret in ["abcd", "p@ss~", "s3cr3t", "?>~7777", "hunter2hunter2"] {
            let vault = Vault::default();
            vault.insert("key", SecretString::from(secret));
            for (lead, tail) in (0..7).flat_map(|lead| (0..7).map(move |tail| (lead, tail))) {
                for alphabet in [general_purpose::STANDARD, general_purpose::URL_SAFE_NO_PAD] {
                    let encoded = alphabet.encode(format!("{}{secret}{}", &"before"[..lead], &"behind"[..tail]));
                    // Groups that hold nothing but what stands around may be shown.
                    let (before, end) = (lead / 3 * 4, encoded.len().min((lead + secret.len()).div_ceil(3) * 4));
                    let wanted = format!("<{}***{}>", &encoded[..before], &encoded[end..]);
                    assert_eq!(vault.mask(&format!("<{encoded}>")), wanted, "{secret} between {lead} and {tail}: {encoded}");
                }
            }
        }
    }

    #[test]
    fn secrets_that_touch_or_overlap_are_all_masked() {
        let vault = Vault::default();
        for (name, value) in [("a", "abab"), ("b", "babyface"), ("user", "operator"), ("pass", "swordfish")] {
            vault.insert(name, SecretString::from(value));
        }
        assert_eq!(vault.mask("ababab, ababyface"), "***, ***");
        for between in [":", "", "::"] {
            let encoded = general_purpose::STANDARD.encode(format!("operator{between}swordfish"));
            let shown = vault.mask(&encoded);
            assert!(shown.chars().all(|c| c == '*'), "{encoded} is shown as {shown}");
        }
        let kept = vault.conceal(&Value::String("operator:swordfish".to_owned()));
        assert_eq!(kept, Value::String(format!("{}:{}", mark("user"), mark("pass"))));
    }

    #[test]
    fn nobody_forges_a_mark() {
        let vault = vault();
        let kept = vault.conceal(&Value::String(format!("{} s3cr3t/\"pässword", mark("repl"))));
        assert_eq!(kept, Value::String(format!("\u{FFFD}repl\u{FFFD} {}", mark("repl"))));
    }
}

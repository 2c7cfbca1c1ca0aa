//! The secrets of a run: what turns marks into values at the sink, and values into marks on the way in.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use secrecy::{ExposeSecret, SecretString};
use serde_json::{Map, Value};

use super::forms::{Forms, Layer};
use super::helper::apply;
use super::mark::{MASK, Mark, Piece, call, is_marked, mark, parse, pieces, unmarked};
use crate::error::{Failure, StepError};

/// A mark whose secret this process does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the secret `{0}` is not at hand")]
pub struct UnknownSecret(pub String);

/// The secrets of one run, by name. Cloning shares them.
#[derive(Clone, Default)]
pub struct Vault {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    /// By what is inside their marks: a name, or a call for what a helper has made of a secret.
    entries: RwLock<BTreeMap<String, SecretString>>,
    index: Mutex<Index>,
}

/// What is searched for, brought up to date by the first search after a change.
#[derive(Default)]
struct Index {
    /// Entries that are in no layer yet.
    new: Vec<String>,
    /// Each is larger than all behind it: a run that makes a thousand values of a secret, one by one, builds few anew.
    layers: Vec<(Vec<String>, Arc<Layer>)>,
    forms: Option<Arc<Forms>>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.read().keys().map(|inside| unmarked(inside).into_owned())).finish()
    }
}

impl Vault {
    fn read(&self) -> std::sync::RwLockReadGuard<'_, BTreeMap<String, SecretString>> {
        self.inner.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn index(&self) -> std::sync::MutexGuard<'_, Index> {
        self.inner.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a secret in and gives its mark.
    pub fn insert(&self, name: &str, value: SecretString) -> String {
        let is_known = self.read().get(name).is_some_and(|known| known.expose_secret() == value.expose_secret());
        if !is_known {
            let old = self.inner.entries.write().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), value);
            // After the entry: a search that has just missed it is over before the insertion is.
            let mut index = self.index();
            index.forms = None;
            if old.is_none() {
                index.new.push(name.to_owned());
            } else {
                index.layers.clear();
                index.new = self.read().keys().cloned().collect();
            }
        }
        mark(name)
    }

    fn forms(&self) -> Arc<Forms> {
        let mut index = self.index();
        if let Some(forms) = index.forms.as_ref() {
            return forms.clone();
        }
        let mut names = std::mem::take(&mut index.new);
        if !names.is_empty() {
            while let Some((mut older, _)) = index.layers.pop_if(|(older, _)| older.len() <= names.len()) {
                older.append(&mut names);
                names = older;
            }
            // Named secrets first: what a helper left as it was keeps the simpler mark.
            names.sort_by_key(|name| is_marked(name));
            let entries = self.read();
            let values = names.iter().filter_map(|name| Some((mark(name), entries.get(name)?.expose_secret())));
            let layer = Arc::new(Layer::of(values));
            drop(entries);
            index.layers.push((names, layer));
        }
        let forms = Arc::new(Forms::of(index.layers.iter().map(|(_, layer)| layer.clone()).collect()));
        index.forms = Some(forms.clone());
        forms
    }

    /// The text with every mark replaced by its value. Only a sink calls this, and drops the result at once.
    pub fn reveal(&self, text: &str) -> Result<SecretString, UnknownSecret> {
        let mut value = String::with_capacity(text.len());
        for piece in pieces(text) {
            match piece {
                Piece::Text(text) => value.push_str(text),
                Piece::Mark(inside) => value.push_str(self.value(inside)?.expose_secret()),
                Piece::Broken => return Err(UnknownSecret("?".to_owned())),
            }
        }
        Ok(SecretString::from(value))
    }

    /// A value with every mark in it replaced: what [`Vault::conceal`] was given.
    pub fn reveal_value(&self, value: &Value) -> Result<Value, UnknownSecret> {
        Ok(match value {
            Value::String(text) if is_marked(text) => {
                let revealed = self.reveal(text)?;
                let number = is_number(text).then(|| revealed.expose_secret().parse().ok()).flatten();
                number.map_or_else(|| Value::from(revealed.expose_secret()), Value::Number)
            }
            Value::Array(items) => Value::Array(items.iter().map(|item| self.reveal_value(item)).collect::<Result<_, _>>()?),
            Value::Object(fields) => {
                let mut revealed = Map::new();
                for (key, item) in fields {
                    revealed.insert(self.reveal(key)?.expose_secret().to_owned(), self.reveal_value(item)?);
                }
                Value::Object(revealed)
            }
            other => other.clone(),
        })
    }

    /// A named secret, or what a helper makes of some: that is worked out where it is not known, so that such marks
    /// outlive the process that made them.
    fn value(&self, inside: &str) -> Result<SecretString, UnknownSecret> {
        if let Some(value) = self.read().get(inside) {
            return Ok(value.clone());
        }
        let unknown = || UnknownSecret(unmarked(inside).into_owned());
        let Some(Mark::Call { helper, args }) = parse(inside) else { return Err(unknown()) };
        let args = args.into_iter().map(|arg| self.reveal(arg)).collect::<Result<Vec<_>, _>>()?;
        let args: Vec<&str> = args.iter().map(SecretString::expose_secret).collect();
        apply(helper, &args).map(SecretString::from).ok_or_else(unknown)
    }

    /// Applies a pure helper to arguments of which some may hold marks. When one does, the result is itself a secret:
    /// its mark says what was done to what, so that every process can do it again. `None` when there is no such helper.
    pub fn derive(&self, helper: &str, args: &[&str]) -> Option<String> {
        if !args.iter().any(|arg| is_marked(arg)) {
            return apply(helper, args);
        }
        let derived = call(helper, args);
        if let [Piece::Mark(inside)] = pieces(&derived)[..]
            && let Ok(value) = self.value(inside)
        {
            self.insert(inside, value);
        }
        Some(derived)
    }

    /// What of foreign bytes is a form of a secret: places in order, that lie apart from one another.
    pub fn spans(&self, bytes: &[u8]) -> Vec<Range<usize>> {
        self.forms().spans(bytes)
    }

    /// Foreign text for people: every form of every secret becomes `***`.
    pub fn mask(&self, text: &str) -> String {
        let text = unmarked(text);
        let mut shown = String::with_capacity(text.len());
        let mut done = 0;
        for span in self.spans(text.as_bytes()) {
            shown.push_str(&text[done..span.start]);
            shown.push_str(MASK);
            done = span.end;
        }
        shown.push_str(&text[done..]);
        shown
    }

    /// Foreign data that stays usable: every secret in it becomes a mark for just the text that was there. Forged marks
    /// are taken out first.
    pub fn conceal(&self, value: &Value) -> Value {
        conceal(&self.forms(), value)
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
        self.forms().longest()
    }
}

fn conceal(forms: &Forms, value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(forms.conceal(text)),
        Value::Number(number) => {
            let text = number.to_string();
            let kept = forms.conceal(&text);
            // A number that only has a secret's digits somewhere in it is another number.
            match pieces(&kept)[..] {
                [Piece::Mark(_)] => Value::String(call("number", &[&kept])),
                _ => value.clone(),
            }
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| conceal(forms, item)).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, item)| (forms.conceal(key), conceal(forms, item))).collect())
        }
        other => other.clone(),
    }
}

/// Whether a text is one mark that stands for a number.
fn is_number(text: &str) -> bool {
    let [Piece::Mark(inside)] = pieces(text)[..] else { return false };
    matches!(parse(inside), Some(Mark::Call { helper: "number", .. }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Text;
    use super::*;

    fn vault() -> Vault {
        let vault = Vault::default();
        vault.insert("repl", SecretString::from("s3cr3t/\"pässword"));
        vault.insert("a[k](x)/b:repl", SecretString::from("another"));
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
    fn what_a_helper_made_can_be_worked_out_by_another_process() {
        for (helper, args, value) in [
            ("base64", vec![format!("user:{}", mark("repl"))], "dXNlcjpzM2NyM3QvInDDpHNzd29yZA=="),
            ("replace", vec![mark("repl"), "s".to_owned(), "(,)\"".to_owned()], "(,)\"3cr3t/\"pä(,)\"(,)\"word"),
            ("replace", vec!["x another".to_owned(), mark("a[k](x)/b:repl"), mark("repl")], "x s3cr3t/\"pässword"),
            ("upper", vec![mark("repl")], "S3CR3T/\"PÄSSWORD"),
            ("lower", vec![format!("X{}", mark("repl"))], "xs3cr3t/\"pässword"),
            ("trim", vec![format!(" {} ", mark("repl"))], "s3cr3t/\"pässword"),
            ("json", vec![mark("repl")], "\"s3cr3t/\\\"pässword\""),
            ("sha256", vec![mark("a[k](x)/b:repl")], "ae448ac86c4e8e4dec645729708ef41873ae79c6dff84eff73360989487f08e5"),
        ] {
            let args: Vec<&str> = args.iter().map(String::as_str).collect();
            let derived = vault().derive(helper, &args).expect("a helper");
            assert_eq!(vault().reveal(&derived).expect("known").expose_secret(), value, "{helper}");
            // And what is made of that.
            let again = vault().derive("upper", &[&format!("<{derived}>")]).expect("a helper");
            let upper = format!("<{value}>").to_uppercase();
            assert_eq!(vault().reveal(&again).expect("known").expose_secret(), upper, "{helper}");
            assert_eq!(unmarked(&format!("a {again} b")), "a *** b");
        }
    }

    #[test]
    fn different_calls_have_different_marks() {
        let vault = vault();
        let secret = mark("repl");
        let one = vault.derive("replace", &[&secret, "a,b", "c"]);
        let other = vault.derive("replace", &[&secret, "a", "b,c"]);
        assert_ne!(one, other);
        assert_ne!(vault.derive("base64", &["repl", &secret]), vault.derive("base64", &[&secret, "repl"]));
    }

    #[test]
    fn what_is_made_of_a_missing_secret_names_it() {
        let derived = vault().derive("base64", &[&format!("u:{}", mark("gone"))]).expect("a helper");
        assert_eq!(vault().reveal(&derived).expect_err("unknown"), UnknownSecret("gone".to_owned()));
        let mut names = Vec::new();
        super::super::each_name(&json!({ "a": [derived, mark("x:pw")] }), &mut |name| names.push(name.to_owned()));
        assert_eq!(names, ["gone", "x:pw"]);
    }

    #[test]
    fn what_is_taken_in_between_searches_is_searched_for() {
        let vault = vault();
        for number in 0..70 {
            vault.insert(&format!("s{number}"), SecretString::from(format!("value-{number}-end")));
            let told: String = (0..=number).map(|number| format!("value-{number}-end ")).collect::<Vec<_>>().concat();
            assert_eq!(vault.mask(&told), "*** ".repeat(number + 1));
        }
        vault.insert("s3", SecretString::from("another value"));
        assert_eq!(vault.mask("value-3-end another value value-4-end"), "value-3-end *** ***");
    }

    #[test]
    fn nobody_forges_a_mark() {
        let vault = vault();
        let kept = vault.conceal(&Value::String(format!("{} s3cr3t/\"pässword", mark("repl"))));
        assert_eq!(kept, Value::String(format!("\u{FFFD}repl\u{FFFD} {}", mark("repl"))));
    }
}

//! Every form in which secrets may show up in the texts of others, and where in a text they do.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::helper::{BASE64, JSON_STYLES, URL_STYLES, WIDTHS, apply, base64_engine, first_own_digit, rows};
use super::mark::{call, is_marked, sanitize};

/// Values shorter than this are not searched for in foreign text: masking every `1` hides more than it protects.
const SHORTEST_SEARCHED: usize = 4;

/// A line of a secret of several lines is searched for by itself from this length on: `}` is in every other text too.
const SHORTEST_LINE: usize = 8;

/// A secret longer than this is not searched for line by line: it is a document, and the search has to fit into memory.
const LONGEST_BY_LINE: usize = 64 << 10;

/// How much of a form the automaton looks for; the rest is compared where that is found.
const LOOKED_FOR: usize = 48;

/// One text to be found.
struct Form {
    text: String,
    /// Reveals to just that text.
    mark: String,
    /// How many digits of base64 in front of it and behind it share a group of four with it, and so hold bits of it too.
    around: (usize, usize),
}

/// Where a form was found.
struct Found<'a> {
    span: Range<usize>,
    is: What<'a>,
}

enum What<'a> {
    /// Just these bytes, for which this mark stands.
    Whole(&'a str),
    /// Groups of base64 with a secret in them, from the beginning of a group on.
    Groups,
    /// A part of that.
    Digits,
}

/// The forms of some secrets. A vault that is added to gets another layer, and not all of it anew.
pub(super) struct Layer {
    forms: Vec<Form>,
    beginnings: AhoCorasick,
}

impl Layer {
    /// Of these secrets, each with its mark. When two share a form, the first has it.
    pub(super) fn of<'a>(secrets: impl Iterator<Item = (String, &'a str)>) -> Self {
        let mut known = HashSet::new();
        let mut forms = Vec::new();
        for (mark, value) in secrets.filter(|(_, value)| value.len() >= SHORTEST_SEARCHED) {
            for form in forms_of(&mark, value) {
                if form.text.len() >= SHORTEST_SEARCHED && known.insert(form.text.clone()) {
                    forms.push(form);
                }
            }
        }
        let beginnings = forms.iter().map(|form| &form.text.as_bytes()[..form.text.len().min(LOOKED_FOR)]);
        // It fails only beyond what the address space holds; then nothing may pass for searched.
        let automaton = AhoCorasick::builder().match_kind(MatchKind::Standard).build(beginnings);
        Self { forms, beginnings: automaton.expect("the forms of the secrets fit into memory") }
    }

    fn find<'a>(&'a self, text: &[u8], found: &mut Vec<Found<'a>>) {
        for begun in self.beginnings.find_overlapping_iter(text) {
            let form = &self.forms[begun.pattern().as_usize()];
            if !text[begun.start()..].starts_with(form.text.as_bytes()) {
                continue;
            }
            let span = begun.start()..begun.start() + form.text.len();
            if form.around != (0, 0) {
                found.push(form.groups(text, &span));
            }
            found.push(Found { span, is: What::Whole(&form.mark) });
        }
    }
}

/// The forms of the secrets of a vault.
pub(super) struct Forms {
    layers: Vec<Arc<Layer>>,
    longest: usize,
}

impl Forms {
    pub(super) fn of(layers: Vec<Arc<Layer>>) -> Self {
        let longest = layers.iter().flat_map(|layer| &layer.forms).map(|form| form.text.len() + 6).max().unwrap_or(0);
        Self { layers, longest }
    }

    /// The length of the longest form, with the digits around a part of base64.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// Every place of every form, also those that lie in one another.
    fn find(&self, text: &[u8]) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        for layer in &self.layers {
            layer.find(text, &mut found);
        }
        found
    }

    /// What of a text is secret: places in order that do not overlap.
    pub(super) fn spans(&self, text: &[u8]) -> Vec<Range<usize>> {
        merged(self.find(text).into_iter().map(|found| found.span).collect(), |_, _| true)
    }

    /// The text with the marks of what was found in it; where two overlap, the longer is taken.
    pub(super) fn conceal(&self, text: &str) -> String {
        let text = sanitize(text);
        let (mut marks, mut groups) = (Vec::new(), Vec::new());
        for Found { span, is } in self.find(text.as_bytes()) {
            match is {
                What::Whole(mark) => marks.push((span, Cow::Borrowed(mark))),
                What::Groups => groups.push(span),
                What::Digits => {}
            }
        }
        // Secrets that share a group share a mark.
        let groups = merged(groups, |one, other| (other.start - one.start).is_multiple_of(4));
        marks.extend(groups.into_iter().filter_map(|span| Some((span.clone(), Cow::Owned(self.decoded(&text[span])?)))));
        marks.sort_by_key(|(span, _)| (std::cmp::Reverse(span.len()), span.start));
        let mut taken: BTreeMap<usize, (usize, Cow<'_, str>)> = BTreeMap::new();
        for (span, mark) in marks {
            let is_free = taken.range(..span.end).next_back().is_none_or(|(_, (end, _))| *end <= span.start);
            if is_free {
                taken.insert(span.start, (span.end, mark));
            }
        }
        let mut kept = String::with_capacity(text.len());
        let mut done = 0;
        for (start, (end, mark)) in taken {
            kept.push_str(&text[done..start]);
            kept.push_str(&mark);
            done = end;
        }
        kept.push_str(&text[done..]);
        kept
    }

    /// The mark of base64 with secrets in it: of what it encodes, with the marks of these in it.
    fn decoded(&self, digits: &str) -> Option<String> {
        BASE64.iter().find_map(|helper| {
            // What can be decoded at all is encoded in one way only.
            let text = String::from_utf8(base64_engine(helper)?.decode(digits).ok()?).ok()?;
            let kept = self.conceal(&text);
            (is_marked(&kept) && matches!(sanitize(&text), Cow::Borrowed(_))).then(|| call(helper, &[&kept]))
        })
    }
}

impl Form {
    /// With the digits around it that share its groups.
    fn groups(&self, text: &[u8], span: &Range<usize>) -> Found<'_> {
        let is_digit = |byte: &&u8| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte);
        let (before, after) = self.around;
        let found = text[..span.start].iter().rev().take(before).take_while(is_digit).count();
        let behind = text[span.end..].iter().take(after).take_while(|byte| is_digit(byte) || **byte == b'=').count();
        let is = if found == before { What::Groups } else { What::Digits };
        Found { span: span.start - found..span.end + behind, is }
    }
}

/// Places in order; those that overlap, and of which `belong` says that they may, as one.
fn merged(mut spans: Vec<Range<usize>>, belong: impl Fn(&Range<usize>, &Range<usize>) -> bool) -> Vec<Range<usize>> {
    spans.sort_by_key(|span| span.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.start < last.end && belong(last, &span) => last.end = last.end.max(span.end),
            _ => merged.push(span),
        }
    }
    merged
}

/// The forms of one secret, its own first.
fn forms_of(mark: &str, secret: &str) -> Vec<Form> {
    let mut forms = vec![Form { text: secret.to_owned(), mark: mark.to_owned(), around: (0, 0) }];
    let mut add = |helper: &str, more: &[&str]| {
        let with = |text| [&[text], more].concat();
        if let Some(text) = apply(helper, &with(secret)) {
            forms.push(Form { text, mark: call(helper, &with(mark)), around: (0, 0) });
        }
    };
    for style in JSON_STYLES {
        add("json", &[style]);
    }
    for helper in ["url", "url-lower"] {
        for style in URL_STYLES {
            add(helper, &[style]);
        }
    }
    for helper in BASE64 {
        add(helper, &[]);
    }
    if secret.len() <= LONGEST_BY_LINE {
        for (number, line) in secret.lines().enumerate().filter(|_| secret.contains('\n')) {
            if line.len() >= SHORTEST_LINE {
                add("line", &[&number.to_string()]);
            }
        }
        let encoded = STANDARD.encode(secret);
        for width in WIDTHS {
            let width_number = width.parse().unwrap_or(usize::MAX);
            for (number, row) in rows(&encoded, width_number).enumerate().filter(|_| encoded.len() > width_number) {
                if row.len() >= SHORTEST_LINE {
                    add("base64-row", &[width, &number.to_string()]);
                }
            }
        }
    }
    for helper in ["base64-part", "base64url-part"] {
        for (lead, number) in ["0", "1", "2"].into_iter().enumerate() {
            if let Some(text) = apply(helper, &[secret, number]) {
                let first = first_own_digit(lead);
                let around = (first, (4 - (first + text.len()) % 4) % 4);
                forms.push(Form { text, mark: call(helper, &[mark, number]), around });
            }
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use secrecy::{ExposeSecret as _, SecretString};
    use serde_json::{Value, json};

    use super::super::{Vault, mark, unmarked};
    use super::*;
    use std::sync::LazyLock;

    const SECRETS: [(&str, &str); 6] = [
        ("short", "pass"),
        ("odd", "p@ss/w\"rd ü<&>~"),
        ("even", "correct-horse"),
        ("third", "correct-horse1"),
        ("pin", "123456"),
        ("key", "-----BEGIN KEY-----\nMzkwZmlsZWNhbmFyeTQ0MzkwZmlsZWNhbmFyeTQ0\nbGluZXR3bw9876\n-----END KEY-----"),
    ];

    fn vault() -> Vault {
        let vault = Vault::default();
        for (name, value) in SECRETS {
            vault.insert(name, SecretString::from(value));
        }
        vault
    }

    /// In another process: it has the named secrets, and nothing that was worked out from them.
    fn back(kept: &Value) -> Value {
        static OTHER: LazyLock<Vault> = LazyLock::new(vault);
        OTHER.reveal_value(kept).expect("all secrets are known")
    }

    #[test]
    fn whatever_is_concealed_comes_back_as_it_was_in_another_process() {
        let vault = vault();
        for (name, secret) in SECRETS {
            for form in forms_of(&mark(name), secret) {
                let seen = json!({ "a": format!("x={};", form.text), "b": [form.text] });
                let kept = vault.conceal(&seen);
                assert_eq!(back(&kept), seen, "{name}: {}", form.mark);
                if form.text.len() >= SHORTEST_SEARCHED {
                    assert!(!kept.to_string().contains(&form.text), "{name}: {} stays: {kept}", form.mark);
                    assert!(!vault.mask(seen["a"].as_str().expect("a text")).contains(&form.text), "{name}: {}", form.mark);
                }
            }
        }
    }

    #[test]
    fn base64_is_found_whatever_stands_before_and_behind() {
        let vault = vault();
        for (name, secret) in SECRETS {
            for before in ["", "u", "me", "user:", "a:b:"] {
                for after in ["", "!", ":x", "@host"] {
                    for engine in BASE64 {
                        let whole = format!("{before}{secret}{after}");
                        let encoded = base64_engine(engine).expect("one").encode(&whole);
                        let seen = json!(format!("Basic {encoded} x"));
                        let kept = vault.conceal(&seen);
                        assert_eq!(back(&kept), seen);
                        // Every group that holds a byte of the secret is gone.
                        let first = before.len() / 3 * 4;
                        let last = encoded.len().min((before.len() + secret.len()).div_ceil(3) * 4);
                        let mask = vault.mask(seen.as_str().expect("a text"));
                        for text in [kept.as_str().expect("a text"), &mask] {
                            for group in (first..last).step_by(4) {
                                let group = &encoded[group..last.min(group + 4)];
                                assert!(group.len() < 3 || !text.contains(group), "{name} in {whole:?}: {group} stays in {text}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_number_is_concealed_by_its_text_and_comes_back_as_a_number() {
        let seen = json!({ "pin": 123_456, "size": 1_234_567, "text": "123456" });
        let kept = vault().conceal(&seen);
        assert_eq!(kept["pin"], json!(call("number", &[&mark("pin")])));
        assert_eq!((&kept["size"], &kept["text"]), (&json!(1_234_567), &json!(mark("pin"))));
        assert_eq!(back(&kept), seen);
    }

    #[test]
    fn each_line_of_a_key_is_concealed_by_itself() {
        let (_, key) = SECRETS[5];
        let lines: Vec<&str> = key.lines().collect();
        let kept = vault().conceal(&json!(lines));
        for line in &lines {
            assert!(!kept.to_string().contains(line), "{kept}");
        }
        assert_eq!(back(&kept), json!(lines));
        let encoded = base64_engine("base64").expect("one").encode(key);
        for width in [64, 76] {
            let rows: Vec<&str> = rows(&encoded, width).collect();
            let kept = vault().conceal(&json!(rows));
            assert!(!kept.to_string().contains(&rows[0][..40]) && !kept.to_string().contains(&rows[1][..40]), "{kept}");
            assert_eq!(back(&kept), json!(rows));
        }
    }

    #[test]
    fn no_digit_of_base64_that_shares_a_group_with_a_secret_is_shown() {
        for secret in ["abcd", "p@ss~", "s3cr3t", "?>~7777", "hunter2hunter2"] {
            let vault = Vault::default();
            vault.insert("key", SecretString::from(secret));
            for (lead, tail) in (0..7).flat_map(|lead| (0..7).map(move |tail| (lead, tail))) {
                for helper in ["base64", "base64url-bare"] {
                    let around = format!("{}{secret}{}", &"before"[..lead], &"behind"[..tail]);
                    let encoded = base64_engine(helper).expect("one").encode(around);
                    // Groups that hold nothing but what stands around may be shown.
                    let (before, end) = (lead / 3 * 4, encoded.len().min((lead + secret.len()).div_ceil(3) * 4));
                    let wanted = format!("<{}***{}>", &encoded[..before], &encoded[end..]);
                    assert_eq!(vault.mask(&format!("<{encoded}>")), wanted, "{secret} between {lead} and {tail}: {encoded}");
                    let kept = vault.conceal(&json!(format!("<{encoded}>")));
                    assert_eq!(unmarked(kept.as_str().expect("a text")), wanted, "{secret} between {lead} and {tail}");
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
            let encoded = STANDARD.encode(format!("operator{between}swordfish"));
            let shown = vault.mask(&encoded);
            assert!(shown.chars().all(|c| c == '*'), "{encoded} is shown as {shown}");
            let kept = vault.conceal(&json!(encoded));
            let text = unmarked(kept.as_str().expect("a text"));
            assert!(text.chars().all(|c| c == '*') && !kept.to_string().contains("swo"), "{encoded} is kept as {kept}");
            assert_eq!(vault.reveal_value(&kept).expect("known"), json!(encoded));
        }
        let kept = vault.conceal(&json!("operator:swordfish"));
        assert_eq!(kept, json!(format!("{}:{}", mark("user"), mark("pass"))));
    }

    #[test]
    fn what_overlaps_is_hidden_whole_from_people() {
        let vault = Vault::default();
        vault.insert("a", SecretString::from("abcdef"));
        vault.insert("b", SecretString::from("defghijk"));
        assert_eq!(vault.mask("x abcdefghijk y"), "x *** y");
        let kept = vault.conceal(&json!("x abcdefghijk y"));
        assert_eq!(vault.reveal(kept.as_str().expect("a text")).expect("known").expose_secret(), "x abcdefghijk y");
    }
}

//! Names of metadata. S3 takes what a header takes; Azure takes letters, digits and `_`, so that everything else is
//! written as .NET's `XmlConvert.EncodeName` does it: `my-key` is `my_x002d_key` there, and comes back as `my-key`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::error::StepError;

/// The name as Azure takes it.
pub(super) fn encoded(name: &str) -> String {
    let mut to = String::with_capacity(name.len() + 8);
    for (at, character) in name.char_indices() {
        let is_word = character.is_ascii_alphanumeric() || character == '_';
        let is_good = is_word && !(at == 0 && character.is_ascii_digit());
        // What looks like an encoded character and is none.
        if is_good && !(character == '_' && escape(&name[at..]).is_some()) {
            to.push(character);
        } else {
            let code = u32::from(character);
            let _ = if code > 0xffff { write!(to, "_x{code:08x}_") } else { write!(to, "_x{code:04x}_") };
        }
    }
    to
}

/// The name as it was.
pub(super) fn decoded(name: &str) -> String {
    let mut to = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(at) = rest.find("_x") {
        to.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some((character, length)) = escape(rest) {
            to.push(character);
            rest = &rest[length..];
        } else {
            to.push('_');
            rest = &rest[1..];
        }
    }
    to.push_str(rest);
    to
}

/// The encoded character at the beginning, and its length.
fn escape(text: &str) -> Option<(char, usize)> {
    let digits = text.strip_prefix("_x")?;
    [4, 8].into_iter().find_map(|count| {
        let (code, rest) = digits.split_at_checked(count)?;
        let is_hex = rest.starts_with('_') && code.bytes().all(|byte| byte.is_ascii_hexdigit());
        let code = u32::from_str_radix(code, 16).ok().filter(|_| is_hex)?;
        Some((char::from_u32(code)?, count + 3))
    })
}

/// Names in lower case: on the way they are names of headers. Two that become one are refused.
pub(super) fn folded(key: &str, user: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, StepError> {
    if !user.keys().any(|name| name.bytes().any(|byte| byte.is_ascii_uppercase())) {
        return Ok(user);
    }
    let mut folded = BTreeMap::new();
    for (name, value) in user {
        if folded.insert(name.to_ascii_lowercase(), value).is_some() {
            let message = format!("`{key}` has metadata by the name `{name}` twice, in upper and in lower case");
            return Err(StepError::permanent(message)
                .help("buckets take both for one: rename one at the source, or leave the object out with `exclude`"));
        }
    }
    Ok(folded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_survives_azure() {
        for (name, there) in [
            ("colour", "colour"),
            ("my-key", "my_x002d_key"),
            ("s3cmd-attrs", "s3cmd_x002d_attrs"),
            ("1st", "_x0031_st"),
            ("_x", "_x"),
            ("a_x002d_b", "a_x005f_x002d_b"),
            ("__x002d_", "__x005f_x002d_"),
            ("a.b c", "a_x002e_b_x0020_c"),
            ("\u{1f600}", "_x0001f600_"),
        ] {
            assert_eq!(encoded(name), there);
            assert_eq!(decoded(there), name);
        }
        assert_eq!(decoded("_x00zz_ _xd800_ _x002D_"), "_x00zz_ _xd800_ -");
    }

    #[test]
    fn names_that_become_one_are_refused() {
        let of = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), String::new())).collect::<BTreeMap<_, _>>();
        assert_eq!(folded("k", of(&["Ab", "c"])).expect("two names"), of(&["ab", "c"]));
        assert!(folded("k", of(&["Ab", "ab"])).expect_err("one name").message.contains("twice"));
    }
}

//! Names of steps within a run: `uploads`, `uploads[invoices]`, `replica/base`, `replica[eu]/base`.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of a step, an instance of a `for_each`, or a step inside a pipeline used as a step. Journals hold names,
/// never graph indices: an edit before a resume changes what an index means.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepPath(Arc<str>);

/// One part of a path: a step id, and the key of the instance if it is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment<'a> {
    /// The step's id within its pipeline.
    pub id: &'a str,
    /// The key of the `for_each` instance, unescaped.
    pub key: Option<String>,
}

impl StepPath {
    /// A step at the top of the pipeline.
    pub fn root(id: &str) -> Self {
        Self(id.into())
    }

    /// The instance of this step for a key. Keys are escaped, so that any text may be one.
    #[must_use]
    pub fn instance(&self, key: &str) -> Self {
        Self(format!("{}[{}]", self.0, escape(key)).into())
    }

    /// A step inside the pipeline that this step runs.
    #[must_use]
    pub fn child(&self, id: &str) -> Self {
        Self(format!("{}/{id}", self.0).into())
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The parts from the outermost in.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        self.0.split('/').map(|part| match part.strip_suffix(']').and_then(|rest| rest.split_once('[')) {
            Some((id, key)) => Segment { id, key: Some(unescape(key)) },
            None => Segment { id: part, key: None },
        })
    }

    /// The path with its keys as they were given: for people, and not always one path's alone.
    pub fn unescaped(&self) -> String {
        let parts = self.segments().map(|segment| match segment.key {
            Some(key) => format!("{}[{key}]", segment.id),
            None => segment.id.to_owned(),
        });
        parts.collect::<Vec<_>>().join("/")
    }

    /// The path of what contains this one: of `a[k]/b` it is `a[k]`, of `a[k]` it is `a`, of `a` nothing.
    pub fn parent(&self) -> Option<Self> {
        if self.0.ends_with(']') {
            self.0.rfind('[').map(|at| Self(self.0[..at].into()))
        } else {
            self.0.rfind('/').map(|at| Self(self.0[..at].into()))
        }
    }

    /// The id of the last part, without its key.
    pub fn id(&self) -> &str {
        let part = self.0.rsplit('/').next().unwrap_or(&self.0);
        part.split('[').next().unwrap_or(part)
    }

    /// The key of the last part when it is an instance.
    pub fn key(&self) -> Option<String> {
        self.segments().last().and_then(|segment| segment.key)
    }
}

/// What would be read as structure is written as `%XX`.
fn escape(key: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(key.len());
    for c in key.chars() {
        match c {
            '%' | '[' | ']' | '/' => {
                let _ = write!(out, "%{:02X}", c as u32);
            }
            c if c.is_control() => {
                let mut buffer = [0; 4];
                for byte in c.encode_utf8(&mut buffer).bytes() {
                    let _ = write!(out, "%{byte:02X}");
                }
            }
            c => out.push(c),
        }
    }
    out
}

fn unescape(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let hex = (first == b'%').then(|| after.get(..2).and_then(|two| std::str::from_utf8(two).ok())).flatten();
        if let Some(byte) = hex.and_then(|two| u8::from_str_radix(two, 16).ok()) {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl fmt::Display for StepPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StepPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for StepPath {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl std::borrow::Borrow<str> for StepPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_key_survives_the_path() {
        for key in ["eu", "a/b", "[x]", "100%", "tab\there", "ü ✓", ""] {
            let path = StepPath::root("r").instance(key).child("base");
            let segments: Vec<_> = path.segments().collect();
            assert_eq!(segments.len(), 2, "{path}");
            assert_eq!(segments[0].key.as_deref(), Some(key));
            assert_eq!(path.id(), "base");
            assert_eq!(path.unescaped(), format!("r[{key}]/base"));
            assert_eq!(path.parent().and_then(|p| p.parent()), Some(StepPath::root("r")));
        }
    }
}

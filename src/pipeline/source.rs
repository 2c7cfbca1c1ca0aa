//! The files that a pipeline was read from: names, texts and places in them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Where files come from. The disk is one source, a run's journal is another.
pub trait Files {
    /// The bytes of a file.
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>>;
}

/// The text of every file that a pipeline was read from, by path. It goes into a run's journal, so that a resumed run
/// reads what the first session read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sources {
    files: BTreeMap<String, Arc<str>>,
}

impl Sources {
    /// Adds a file.
    pub fn insert(&mut self, path: &Path, text: Arc<str>) {
        self.files.insert(shown(path), text);
    }

    /// The text of a file.
    pub fn get(&self, path: &Path) -> Option<&Arc<str>> {
        self.files.get(&shown(path))
    }

    /// Paths and texts, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), &**text))
    }
}

impl Files for Sources {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        self.get(path).map(|text| text.as_bytes().to_vec()).ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }
}

/// A path for people: `/` between its parts, `.` and `..` folded by name alone, since nothing here asks a disk.
pub(crate) fn shown(path: &Path) -> String {
    let folded = fold(path);
    folded.to_string_lossy().replace('\\', "/")
}

fn fold(path: &Path) -> PathBuf {
    let mut folded = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                if matches!(folded.components().next_back(), Some(Component::Normal(_))) {
                    folded.pop();
                } else {
                    folded.push(part);
                }
            }
            _ => folded.push(part),
        }
    }
    folded
}

/// The path that `uses: ./x.yaml` in a file means.
pub(crate) fn beside(file: &str, reference: &str) -> PathBuf {
    let folder = Path::new(file).parent().unwrap_or(Path::new(""));
    fold(&folder.join(reference))
}

/// A range of bytes in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Span {
    /// The first byte.
    pub offset: usize,
    /// How many bytes.
    pub len: usize,
}

impl Span {
    /// From the first byte to the one before `end`.
    pub(crate) fn between(offset: usize, end: usize) -> Self {
        Self { offset, len: end.saturating_sub(offset) }
    }

    /// The byte behind the last.
    pub fn end(self) -> usize {
        self.offset + self.len
    }
}

/// One file with the starts of its lines.
#[derive(PartialEq, Eq)]
pub struct SourceFile {
    /// Its path, as people write it.
    pub name: String,
    /// What is in it.
    pub text: Arc<str>,
    lines: Vec<usize>,
}

impl SourceFile {
    /// A file by this name with this text.
    pub fn new(name: impl Into<String>, text: Arc<str>) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name: name.into(), text, lines }
    }

    /// Line and column of a byte, both from 1; columns count characters.
    pub fn line_and_column(&self, offset: usize) -> (usize, usize) {
        let offset = self.floor(offset);
        let line = self.lines.partition_point(|start| *start <= offset).max(1);
        let start = self.lines[line - 1];
        (line, self.text[start..offset].chars().count() + 1)
    }

    /// The bytes of a line (from 1), without its end.
    pub(crate) fn line(&self, line: usize) -> Option<Span> {
        let start = *self.lines.get(line.checked_sub(1)?)?;
        let end = self.lines.get(line).map_or(self.text.len(), |next| next - 1);
        Some(Span::between(start, end))
    }

    /// What is written in a range.
    pub(crate) fn slice(&self, span: Span) -> &str {
        &self.text[self.floor(span.offset)..self.floor(span.end())]
    }

    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }

    /// The lines around a range, for a report. Costs no more than the lines shown, however long the file is.
    pub(crate) fn window(&self, span: Span, before: usize, after: usize) -> (usize, Span) {
        let (first, _) = self.line_and_column(span.offset);
        let (last, _) = self.line_and_column(span.end());
        let first = first.saturating_sub(before).max(1);
        let last = (last + after).min(self.lines.len());
        let start = self.lines[first - 1];
        let end = self.lines.get(last).copied().unwrap_or(self.text.len());
        (first, Span::between(start, end))
    }
}

impl fmt::Display for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for SourceFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SourceFile({}, {} bytes)", self.name, self.text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_told_in_lines_and_characters() {
        let file = SourceFile::new("x.yaml", "a: ü\nbé: c\n".into());
        assert_eq!(file.line_and_column(0), (1, 1));
        assert_eq!(file.line_and_column(6), (2, 1));
        assert_eq!(file.line_and_column(9), (2, 3));
        assert_eq!(file.line_and_column(999), (3, 1));
    }

    #[test]
    fn a_reference_starts_at_the_folder_of_its_file() {
        assert_eq!(beside("pipelines/shop.yaml", "./modules/a.yaml"), Path::new("pipelines/modules/a.yaml"));
        assert_eq!(beside("pipelines/shop.yaml", "../a.yaml"), Path::new("a.yaml"));
        assert_eq!(beside("shop.yaml", "../../a.yaml"), Path::new("../../a.yaml"));
        assert_eq!(beside("x/shop.yaml", "/abs/a.yaml"), Path::new("/abs/a.yaml"));
    }
}

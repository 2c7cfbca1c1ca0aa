//! What a person reads when a pipeline is wrong: every problem, at its place, with what to write instead.

#![allow(clippy::format_collect, clippy::needless_pass_by_value, reason = "texts and schemas are written where they are read")]

#[path = "problems/bad_input.rs"]
mod bad_input;
#[path = "problems/catalogue.rs"]
mod catalogue;
#[path = "problems/codes.rs"]
mod codes;
#[path = "problems/hostile.rs"]
mod hostile;
#[path = "problems/language.rs"]
mod language;
#[path = "problems/meaning.rs"]
mod meaning;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use ferry::pipeline::{Files, Loaded, Problems, load};

/// Files that are no files.
#[derive(Default)]
pub struct Memory(BTreeMap<String, Vec<u8>>);

impl Files for Memory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.0.get(&path.to_string_lossy().into_owned()).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

const REPLICA: &str = "
inputs:
  from: { description: where from }
  jobs: { type: integer, default: 2 }
steps:
  - { id: base, uses: command, with: { run: 'copy {{ inputs.from }} {{ inputs.jobs }}' } }
outputs:
  lag: '{{ steps.base.outputs.lag }}'
";

/// Checks `pipeline.yaml` with these texts beside it.
pub fn check_with(text: impl Into<Vec<u8>>, others: &[(&str, &str)]) -> Result<Loaded, Problems> {
    let mut files = Memory::default();
    files.0.insert("modules/replica.yaml".to_owned(), REPLICA.into());
    files.0.extend(others.iter().map(|(path, text)| ((*path).to_owned(), (*text).into())));
    files.0.insert("pipeline.yaml".to_owned(), text.into());
    load(Path::new("pipeline.yaml"), &files, &catalogue::catalogue())
}

/// Checks `pipeline.yaml` against another catalogue.
pub fn check_as(catalogue: &ferry::catalogue::Catalogue, text: &str) -> Result<Loaded, Problems> {
    let mut files = Memory::default();
    files.0.insert("pipeline.yaml".to_owned(), text.into());
    load(Path::new("pipeline.yaml"), &files, catalogue)
}

/// Checks `pipeline.yaml`.
pub fn check(text: impl Into<Vec<u8>>) -> Result<Loaded, Problems> {
    check_with(text, &[])
}

/// The problems of a text, as people read them.
pub fn wrong(text: impl Into<Vec<u8>>) -> String {
    check(text).expect_err("the pipeline is wrong").render(false)
}

/// A pipeline that is right, and its warnings.
pub fn right(text: &str) -> Loaded {
    check(text).unwrap_or_else(|problems| panic!("{}", problems.render(false)))
}

/// The codes of a text's problems, in their order.
pub fn codes_of(text: impl Into<Vec<u8>>) -> Vec<&'static str> {
    check(text).err().into_iter().flatten().map(|problem| problem.code.name()).collect()
}

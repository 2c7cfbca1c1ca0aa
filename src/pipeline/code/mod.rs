//! The kinds of problems: one code each, with what it means and an example of wrong and right.
//!
//! `docs/errors/CODE.md` is generated from this list, and tests hold the examples to what they claim.

mod about_file;
mod about_graph;
mod about_names;
mod about_shape;

use serde::{Serialize, Serializer};

macro_rules! codes {
    ($($variant:ident = $name:literal, $title:literal;)+) => {
        /// The kind of a problem.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Code { $(#[doc = $title] $variant,)+ }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// As people write it: `unknown-need`.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What is wrong, in a few words.
            pub fn title(self) -> &'static str {
                match self { $(Self::$variant => $title,)+ }
            }
        }
    };
}

codes! {
    // The file
    CannotRead = "cannot-read", "A file cannot be read";
    NotText = "not-text", "A file is not UTF-8 text";
    TooLarge = "too-large", "A file is larger than a pipeline can be";
    YamlSyntax = "yaml-syntax", "The file is not YAML";
    TabIndent = "tab-indent", "A line is indented with a tab";
    UnquotedTemplate = "unquoted-template", "A template stands without quotes";
    SeveralDocuments = "several-documents", "The file holds more than one YAML document";
    DuplicateKey = "duplicate-key", "A key stands twice in the same mapping";
    KeyNotText = "key-not-text", "A key is not text";
    UnknownAlias = "unknown-alias", "An alias names no anchor";
    AliasBomb = "alias-bomb", "Aliases make the file far larger than it is";
    TooDeep = "too-deep", "Values are nested too deeply";
    // The shape
    UnknownKey = "unknown-key", "A key is not known here";
    MissingKey = "missing-key", "A key is missing";
    WrongType = "wrong-type", "A value is of the wrong type";
    WrongValue = "wrong-value", "A value is not one of those that may stand here";
    BadId = "bad-id", "An id holds what an id cannot hold";
    DuplicateId = "duplicate-id", "Two steps have the same id";
    // The names
    UnknownNeed = "unknown-need", "A step needs a step that does not exist";
    UnknownStep = "unknown-step", "A step is named that does not exist";
    UnknownType = "unknown-type", "A step type does not exist";
    UnknownStore = "unknown-store", "A store is named that the pipeline does not list";
    UnknownHost = "unknown-host", "A host is named that the pipeline does not list";
    UnknownInput = "unknown-input", "An input is named that the pipeline does not list";
    UnknownOutput = "unknown-output", "An output is named that a step does not have";
    UnknownSecret = "unknown-secret", "A secret is named that the pipeline does not list";
    UnknownName = "unknown-name", "A template mentions a name that does not exist";
    UnknownHelper = "unknown-helper", "A template calls a helper that does not exist";
    NotAvailable = "not-available", "A name exists but has no value here";
    TemplateSyntax = "template-syntax", "A template cannot be read";
    PublicSecret = "public-secret", "A secret stands where others can read it";
    // The inputs
    MissingInput = "missing-input", "An input has neither a value nor a default";
    WrongInput = "wrong-input", "An input's value is of the wrong type";
    // The graph
    Cycle = "cycle", "Steps wait for each other";
    NoBackground = "no-background", "A step cannot run in the background like this";
    SecondPivot = "second-pivot", "There is more than one pivot";
    PivotPlace = "pivot-place", "The pivot stands where a pivot cannot stand";
    BeforePivot = "before-pivot", "A step that cannot be undone may start before the pivot";
    NoUndo = "no-undo", "The step type has no undo to replace";
    // Pipelines used as steps
    ModuleCycle = "module-cycle", "A pipeline uses itself as a step";
    ModuleDepth = "module-depth", "Pipelines used as steps are nested too deeply";
    TooManySteps = "too-many-steps", "A pipeline has more steps than a run can hold";
    // Warnings
    Unused = "unused", "Something is listed and never used";
    NoEffect = "no-effect", "A key has no effect here";
}

/// What is told of a code.
#[derive(Debug, Clone, Copy)]
pub struct About {
    /// Why it is a problem and what to do.
    pub why: &'static str,
    /// A pipeline that has the problem.
    pub wrong: &'static str,
    /// The same without it.
    pub right: &'static str,
}

impl Code {
    /// What is told of it.
    pub fn about(self) -> About {
        about_file::about(self)
            .or_else(|| about_shape::about(self))
            .or_else(|| about_names::about(self))
            .or_else(|| about_graph::about(self))
            .expect("a test asks this of every code")
    }

    /// The page of it, Markdown.
    pub fn page(self) -> String {
        let About { why, wrong, right } = self.about();
        let name = self.name();
        let title = self.title();
        let wrong = wrong.trim_matches('\n');
        let right = right.trim_matches('\n');
        format!("# {name}\n\n{title}. {why}\n\n## Wrong\n\n```yaml\n{wrong}\n```\n\n## Right\n\n```yaml\n{right}\n```\n")
    }
}

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

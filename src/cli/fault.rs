//! Why a command could not do what it was asked for, and how that is told.

use std::fmt::Write as _;
use std::io;

use serde_json::{Value, json};

use super::exit::Exit;
use super::output::Output;
use crate::error::{ErrorClass, Failure, StepError};
use crate::executor::ExecutorError;
use crate::pipeline::Problems;
use crate::report;
use crate::report::telling::printable;

/// What a command returns when it could not do what it was asked for.
#[derive(Debug)]
pub struct Fault {
    /// How the process ends.
    pub exit: Exit,
    /// What failed: lower case, no full stop, names in backticks. Empty when all was said already.
    pub message: String,
    /// Whether trying again can help, when that is known.
    pub class: Option<ErrorClass>,
    /// A sentence with what to do.
    pub help: Option<String>,
    /// The chain of underlying errors, outermost first.
    pub causes: Vec<String>,
    /// What is wrong with the pipeline, place by place; then the message is not told.
    pub problems: Option<Problems>,
    /// The plan or the table behind it.
    pub detail: Option<Box<Detail>>,
}

/// What belongs to a fault and is more than a message.
#[derive(Debug)]
pub struct Detail {
    /// For people, told before the message.
    pub text: String,
    /// The name of the field in the `--json` document.
    pub name: &'static str,
    /// The field.
    pub value: Value,
}

impl Fault {
    /// The command line or what it names is wrong; nothing was done.
    pub fn wrong(message: impl Into<String>) -> Self {
        Self {
            exit: Exit::Wrong,
            message: message.into(),
            class: None,
            help: None,
            causes: Vec::new(),
            problems: None,
            detail: None,
        }
    }

    /// The world said no before anything was done.
    pub fn failure(failure: Failure) -> Self {
        let Failure { message, class, help, causes, .. } = failure;
        Self { exit: Exit::Wrong, message, class: Some(class), help, causes, problems: None, detail: None }
    }

    /// The pipeline is wrong; nothing was done.
    pub fn problems(problems: Problems) -> Self {
        Self { problems: Some(problems.clone()), ..Self::wrong(problems.to_string()) }
    }

    /// All was said already.
    pub fn said(exit: Exit) -> Self {
        Self::wrong("").exit(exit)
    }

    /// Adds the sentence that says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Sets how the process ends.
    #[must_use]
    pub fn exit(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Adds the underlying error.
    #[must_use]
    pub fn cause(mut self, cause: impl std::fmt::Display) -> Self {
        self.causes.push(cause.to_string());
        self
    }

    /// The fault as data: the `error` of a `--json` document.
    pub fn to_json(&self) -> Value {
        let mut document = json!({
            "error": {
                "message": self.message,
                "class": self.class,
                "help": self.help,
                "causes": self.causes,
                "problems": self.problems.as_ref().map_or_else(|| json!([]), Problems::to_json),
                "exit": self.exit.code(),
            }
        });
        if let Some(detail) = &self.detail {
            document[detail.name] = detail.value.clone();
        }
        document
    }

    /// Tells it, and gives the exit status.
    pub fn report(&self, out: Output) -> Exit {
        if self.message.is_empty() {
            return self.exit;
        }
        if out.json {
            // Nobody is left to tell when stdout is gone; the exit status says it.
            let _ = out.document(&self.to_json());
        } else {
            out.note(&self.for_people());
        }
        self.exit
    }

    fn for_people(&self) -> String {
        if let Some(problems) = &self.problems {
            return problems.render(console::colors_enabled_stderr());
        }
        let detail = self.detail.as_ref().filter(|detail| !detail.text.is_empty());
        let detail = detail.map(|detail| format!("{}\n", detail.text)).unwrap_or_default();
        format!("{detail}{}", failure_text(&self.message, &self.causes, self.class, self.help.as_deref()))
    }
}

/// A failure as people read it: what failed, why, whether trying again can help, what to do.
pub fn failure_text(message: &str, causes: &[String], class: Option<ErrorClass>, help: Option<&str>) -> String {
    let mut text = format!("{} {}", console::style("×").for_stderr().red(), printable(message));
    for cause in causes.iter().filter(|cause| !message.contains(cause.as_str())) {
        text.push_str("\n  because: ");
        text.push_str(&printable(cause).replace('\n', "\n           "));
    }
    if let Some(class) = class {
        text.push_str("\n  again: ");
        text.push_str(match class {
            ErrorClass::Transient => "trying again may help",
            ErrorClass::Permanent => "trying again fails the same way until something is changed",
            ErrorClass::NeedsPerson => "only a person can say what to do",
        });
    }
    if let Some(help) = help {
        let _ = write!(text, "\n  {} ", console::style("help:").for_stderr().cyan());
        text.push_str(&printable(help).replace('\n', "\n        "));
    }
    text
}

impl From<StepError> for Fault {
    fn from(error: StepError) -> Self {
        Self::failure(error.to_failure())
    }
}

impl From<ExecutorError> for Fault {
    fn from(error: ExecutorError) -> Self {
        let help = miette::Diagnostic::help(&error).map(|help| help.to_string());
        let message = error.to_string();
        match error {
            ExecutorError::Journal(error) => error.into(),
            ExecutorError::Problems(problems) => Self::problems(problems),
            ExecutorError::Setup(failure) => Self::failure(*failure),
            ExecutorError::Preflight(plan) => {
                let value = serde_json::to_value(&plan).unwrap_or_default();
                let text = report::plan::text(&plan, report::Style::default());
                Self { help, detail: Some(Box::new(Detail { text, name: "plan", value })), ..Self::wrong(message) }
            }
            ExecutorError::Edited(table) => {
                let value = serde_json::to_value(&table).unwrap_or_default();
                // `ferry resume --pipeline` has shown the table already.
                let text = String::new();
                Self { help, detail: Some(Box::new(Detail { text, name: "edit", value })), ..Self::wrong(message) }
            }
            ExecutorError::Interrupted { .. } => Self { help, ..Self::wrong(message).exit(Exit::Interrupted) },
            _ => Self { help, ..Self::wrong(message) },
        }
    }
}

impl From<io::Error> for Fault {
    /// Writing the answer failed. A reader that has gone away (`| head`) is no failure worth a word.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::said(Exit::Succeeded);
        }
        Self::wrong("cannot write the answer").cause(error).exit(Exit::Failed)
    }
}

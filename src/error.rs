//! Failures: what the world said no to, whether trying again can help, and what to do.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether trying again can help. The engine reads only this of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The same attempt may succeed later: a refused connection, a 503, a timeout.
    Transient,
    /// The same attempt fails again: a refused key, a missing bucket, a wrong argument.
    Permanent,
    /// Only a person can say what to do: the world changed under the run, or an answer is unknown.
    NeedsPerson,
}

/// A failed attempt as a value, as it is journaled and shown. Holds no secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What failed and what was being done: lower case, no full stop, names in backticks.
    pub message: String,
    /// Whether trying again can help.
    pub class: ErrorClass,
    /// A sentence with what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
    /// How long the other side asked us to wait (`Retry-After`).
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::units::option_duration_ms")]
    pub retry_after: Option<Duration>,
    /// The chain of underlying errors, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub causes: Vec<String>,
}

/// What a step type, a host or a store returns when the world said no.
///
/// The class is decided where the knowledge is: by the store, the host or the API client that saw the answer.
/// Unknown means permanent for what changes the world, transient for reads.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StepError {
    /// What failed and what was being done: lower case, no full stop, names in backticks.
    pub message: String,
    /// Whether trying again can help.
    pub class: ErrorClass,
    /// A sentence with what to do.
    pub help: Option<String>,
    /// How long the other side asked us to wait.
    pub retry_after: Option<Duration>,
    /// The underlying error.
    #[source]
    pub cause: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StepError {
    /// A failure of the given class.
    pub fn new(class: ErrorClass, message: impl Into<String>) -> Self {
        Self { message: message.into(), class, help: None, retry_after: None, cause: None }
    }

    /// A failure that may pass by itself.
    pub fn transient(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Transient, message)
    }

    /// A failure that stays.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::Permanent, message)
    }

    /// A failure that only a person can settle.
    pub fn needs_person(message: impl Into<String>) -> Self {
        Self::new(ErrorClass::NeedsPerson, message)
    }

    /// Adds the sentence that says what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Adds the time the other side asked us to wait.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Adds the underlying error.
    #[must_use]
    pub fn cause(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// The failure as a value. The caller masks secrets (`Vault::mask_failure`) before it goes anywhere.
    pub fn to_failure(&self) -> Failure {
        let mut causes = Vec::new();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            let text = cause.to_string();
            if causes.last() != Some(&text) {
                causes.push(text);
            }
            next = cause.source();
        }
        Failure {
            message: self.message.clone(),
            class: self.class,
            help: self.help.clone(),
            retry_after: self.retry_after,
            causes,
        }
    }
}

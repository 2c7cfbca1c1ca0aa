//! `ferry report`: a run as a page to keep or to send.

use std::path::PathBuf;

use serde_json::json;

use super::project::read_history;
use super::{Context, Exit, Fault};
use crate::report::{html, summary};

/// Tell the story of a run as a page that needs nothing else, or as text
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  ferry report last --html run.html\n  ferry report 0199c4 > run.txt\n\n\
    JSON: as `ferry show`; with --html {\"run\", \"file\"}")]
pub struct Report {
    /// The run
    run: String,
    /// Write a page to this file, over what is there
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    html: Option<PathBuf>,
}

impl Report {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let (_, history) = read_history(&context.journal()?, &self.run)?;
        let Some(file) = self.html else {
            if context.out.json {
                context.out.document(&summary::to_json(&history))?;
            } else {
                context.out.text(&summary::text(&history, context.out.style()))?;
            }
            return Ok(Exit::Succeeded);
        };
        std::fs::write(&file, html::html(&history))
            .map_err(|error| Fault::wrong(format!("cannot write `{}`", file.display())).cause(error))?;
        if context.out.json {
            context.out.document(&json!({ "run": history.run(), "file": file }))?;
        } else {
            context.out.text(&format!("wrote {}", file.display()))?;
        }
        Ok(Exit::Succeeded)
    }
}

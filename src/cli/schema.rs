//! `ferry schema`: the JSON Schema of the language, for editors.

use std::path::PathBuf;

use serde_json::json;

use super::{Context, Exit, Fault};
use crate::pipeline;

/// Print the JSON Schema of the language, every step type included
///
/// Editors complete and check pipelines with it: `# yaml-language-server: $schema=./ferry.schema.json` as a file's first
/// line.
#[derive(Debug, clap::Args)]
#[command(
    after_long_help = "Examples:\n  ferry schema > ferry.schema.json\n  ferry schema --output pipelines/ferry.schema.json\n\n\
    JSON: the schema itself (draft 2020-12), with and without --json; with --output {\"file\"}"
)]
pub struct Schema {
    /// Write it to this file, over what is there
    #[arg(short, long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    output: Option<PathBuf>,
}

impl Schema {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let registry = crate::steps::builtin();
        let schema = pipeline::schema(registry.catalogue());
        let Some(file) = self.output else {
            if context.out.json {
                context.out.json_line(&schema)?;
            } else {
                context.out.text(&format!("{schema:#}"))?;
            }
            return Ok(Exit::Succeeded);
        };
        std::fs::write(&file, format!("{schema:#}\n"))
            .map_err(|error| Fault::wrong(format!("cannot write `{}`", file.display())).cause(error))?;
        if context.out.json {
            context.out.document(&json!({ "file": file }))?;
        } else {
            context.out.text(&format!("wrote {}", file.display()))?;
        }
        Ok(Exit::Succeeded)
    }
}

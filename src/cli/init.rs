//! `ferry init`: a commented pipeline to start from.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use serde_json::json;

use super::{Context, Exit, Fault};

/// What is written. A test checks it as any other pipeline.
const TEMPLATE: &str = include_str!("init.yaml");

/// Write a commented pipeline to start from.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Never overwrites a file.\n\nExamples:\n  ferry init\n  ferry init moves/shop.yaml\n\n\
    JSON: {\"file\": \"pipeline.yaml\"}")]
pub struct Init {
    /// The file to write.
    #[arg(default_value = "pipeline.yaml", value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
}

impl Init {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let shown = self.file.display();
        if let Some(folder) = self.file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .map_err(|error| Fault::wrong(format!("cannot create the folder `{}`", folder.display())).cause(error))?;
        }
        let mut file = OpenOptions::new().write(true).create_new(true).open(&self.file).map_err(|error| {
            if error.kind() == std::io::ErrorKind::AlreadyExists {
                Fault::wrong(format!("`{shown}` exists already")).help("name another file: `ferry init OTHER.yaml`")
            } else {
                Fault::wrong(format!("cannot write `{shown}`")).cause(error)
            }
        })?;
        file.write_all(TEMPLATE.as_bytes())
            .and_then(|()| file.sync_all())
            .map_err(|error| Fault::wrong(format!("cannot write `{shown}`")).cause(error))?;
        if context.out.json {
            context.out.document(&json!({ "file": self.file }))?;
        } else {
            context.out.text(&format!("wrote {shown}"))?;
            context.out.note(&format!("next: `ferry check {shown}`, then `ferry plan {shown}`, then `ferry run {shown}`"));
        }
        Ok(Exit::Succeeded)
    }
}

//! `ferry check`: what is wrong with pipeline files. Nothing is contacted.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::load::DiskFiles;
use super::{Context, Exit, Fault};
use crate::pipeline::{self, Problems};
use crate::report::telling::counted;

/// Say what is wrong with pipeline files; contact nothing
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  ferry check pipelines/shop.yaml\n  ferry check pipelines/*.yaml\n  \
    ferry check shop.yaml --json | jq '.files[].problems[] | [.code, .place.line]'\n\n\
    JSON: {\"files\": [{\"file\", \"ok\", \"name\", \"steps\", \"problems\": [PROBLEM], \"warnings\": [PROBLEM]}]}\n      \
    PROBLEM: {\"code\", \"message\", \"label\", \"help\", \"place\": {\"file\", \"line\", \"column\", \"end_line\",\n      \
    \"end_column\", \"offset\", \"length\"}, \"related\": [{\"label\", \"place\"}]}")]
pub struct Check {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    files: Vec<PathBuf>,
    /// Warnings are problems too
    #[arg(long)]
    strict: bool,
}

impl Check {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let registry = crate::steps::builtin();
        let colors = console::colors_enabled_stderr();
        let mut exit = Exit::Succeeded;
        let mut documents: Vec<Value> = Vec::new();
        for file in &self.files {
            let shown = file.display();
            let loaded = pipeline::load(file, &DiskFiles, registry.catalogue());
            let (name, steps, problems, warnings) = match loaded {
                Ok(loaded) => {
                    let pipeline = loaded.pipeline;
                    (
                        Some(pipeline.name.clone()),
                        pipeline.steps.len() + pipeline.finally.len(),
                        Problems::default(),
                        loaded.warnings,
                    )
                }
                Err(problems) => (None, 0, problems, Problems::default()),
            };
            let ok = problems.is_empty() && (!self.strict || warnings.is_empty());
            if !ok {
                exit = Exit::Wrong;
            }
            if context.out.json {
                documents.push(json!({
                    "file": file, "ok": ok, "name": name, "steps": steps,
                    "problems": problems.to_json(), "warnings": warnings.to_json(),
                }));
                continue;
            }
            for told in [&problems, &warnings] {
                if !told.is_empty() {
                    context.out.note(&told.render(colors));
                }
            }
            if ok {
                let sign = console::style("✓").green();
                context.out.text(&format!(
                    "{sign} {shown}: {}, {}",
                    counted(steps, "step", "steps"),
                    match warnings.len() {
                        0 => "no problem".to_owned(),
                        count => counted(count, "warning", "warnings"),
                    }
                ))?;
            } else {
                let count = problems.len() + if self.strict { warnings.len() } else { 0 };
                context.out.note(&format!("{} {shown}: {}", console::style("✗").red(), counted(count, "problem", "problems")));
            }
        }
        if context.out.json {
            context.out.document(&json!({ "files": documents }))?;
        }
        Ok(exit)
    }
}

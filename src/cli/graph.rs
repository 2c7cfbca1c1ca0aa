//! `ferry graph`: draws a pipeline.

use std::path::PathBuf;

use clap::ValueEnum;
use serde_json::json;

use super::{Context, Exit, Fault};
use crate::report::graph::{self, States};

/// Draw a pipeline's DAG
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  ferry graph shop.yaml\n  ferry graph shop.yaml --format svg > shop.svg\n  \
    ferry graph shop.yaml --format mermaid >> NOTES.md\n  ferry graph shop.yaml --run last\n\n\
    JSON: {\"name\", \"format\", \"drawing\", \"definition\": the steps, edges and policies as the engine has them}")]
pub struct Graph {
    /// The pipeline
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// How it is drawn
    #[arg(long, value_enum, default_value_t = Format::Text, value_name = "FORMAT")]
    format: Format,
    /// Show the states of this run in it
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
}

/// How it is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For a terminal.
    Text,
    /// For Markdown.
    Mermaid,
    /// For Graphviz.
    Dot,
    /// For a page.
    Svg,
}

impl Graph {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let registry = crate::steps::builtin();
        let loaded = context.load(&self.file, registry.catalogue())?;
        let definition = loaded.pipeline.definition();
        let states = match &self.run {
            None => States::new(),
            Some(run) => graph::states_of(&super::project::read_run(&context.journal()?, run)?.1),
        };
        let format = match self.format {
            Format::Text => graph::Format::Text,
            Format::Mermaid => graph::Format::Mermaid,
            Format::Dot => graph::Format::Dot,
            Format::Svg => graph::Format::Svg,
        };
        let drawing = graph::draw(format, &definition, &states, context.out.style());
        if context.out.json {
            let name = self.format.to_possible_value().map(|value| value.get_name().to_owned());
            let document = json!({ "name": definition.name, "format": name, "drawing": drawing, "definition": definition });
            context.out.document(&document)?;
        } else {
            context.out.text(&drawing)?;
        }
        Ok(Exit::Succeeded)
    }
}

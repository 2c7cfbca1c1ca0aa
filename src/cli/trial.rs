//! `ferry trial`: runs a pipeline several times, and gives the figures of its outputs.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{Context, Exit, Fault};
use crate::report::trial;

/// Run a pipeline several times and compare what its outputs say
///
/// The pipeline has to leave the world so that it can be run again: one that goes there and back, or makes what it uses and
/// removes it in `finally`. Every run is a run like any other, with its journal. The first that does not succeed ends
/// the trial.
///
/// Outputs that are numbers, durations or sizes become figures: mean, median, deviation, least and most.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  ferry trial there-and-back.yaml --times 10\n  \
    ferry trial there-and-back.yaml --times 10 --svg pause.svg -i target=root@db.new.example\n\n\
    JSON: {\"times\", \"runs\": [{\"run\", \"status\", \"outputs\"}], \"figures\": [{\"name\", \"unit\": \"seconds\" | \"bytes\" | \"number\",\n  \
    \"values\", \"mean\", \"median\", \"deviation\", \"min\", \"max\"}]}.")]
pub struct Trial {
    /// The pipeline
    #[arg(value_hint = clap::ValueHint::FilePath)]
    file: PathBuf,
    /// How often
    #[arg(short, long, default_value_t = 10, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1000))]
    times: u32,
    /// An input; may be given many times
    #[arg(short, long = "input", value_name = "NAME=VALUE")]
    input: Vec<String>,
    /// A YAML or JSON file with inputs; `-i` wins over it
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    inputs: Option<PathBuf>,
    /// Write a picture of the figures here
    #[arg(long, value_name = "FILE", value_hint = clap::ValueHint::FilePath)]
    svg: Option<PathBuf>,
}

impl Trial {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let mut runs = Vec::new();
        for number in 1..=self.times {
            context.out.note(&format!("trial {number} of {}", self.times));
            let result = self.once(context)?;
            let status = result["status"].as_str().unwrap_or("unknown").to_owned();
            let run = result["run"].as_str().unwrap_or_default().to_owned();
            if status != "succeeded" {
                return Err(Fault::wrong(format!("run {run} is {status}: the trial ends with it"))
                    .help(format!("`ferry show {run}` says more"))
                    .exit(Exit::Failed));
            }
            runs.push(result);
        }
        let outputs: Vec<Value> = runs.iter().map(|run| run["outputs"].clone()).collect();
        let figures = trial::figures(&outputs);
        if let Some(file) = &self.svg {
            let title = format!("{}, {} trials", self.file.display(), self.times);
            std::fs::write(file, trial::svg(&title, &figures))
                .map_err(|error| Fault::wrong(format!("cannot write `{}`", file.display())).cause(error))?;
        }
        if context.out.json {
            let runs: Vec<Value> =
                runs.iter().map(|run| json!({ "run": run["run"], "status": run["status"], "outputs": run["outputs"] })).collect();
            context.out.document(&json!({ "times": self.times, "runs": runs, "figures": figures }))?;
        } else if figures.is_empty() {
            context.out.text("no output of the pipeline is a number, a duration or a size")?;
        } else {
            context.out.text(&trial::table(&figures))?;
        }
        Ok(Exit::Succeeded)
    }

    /// One run in a process of its own, as a person would start it. What it came to.
    fn once(&self, context: &Context) -> Result<Value, Fault> {
        let program = std::env::current_exe().map_err(|error| Fault::wrong("cannot find this program").cause(error))?;
        let mut command = Command::new(program);
        command.arg("run").arg(&self.file).args(["--yes", "--json"]);
        if let Some(store) = &context.global.store {
            command.args(["--store", store]);
        }
        for input in &self.input {
            command.args(["--input", input]);
        }
        if let Some(inputs) = &self.inputs {
            command.arg("--inputs").arg(inputs);
        }
        let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
        let output = output.map_err(|error| Fault::wrong("cannot start a run").cause(error))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let result = said.lines().rev().find_map(|line| {
            let value: Value = serde_json::from_str(line).ok()?;
            (value["type"] == "result").then_some(value)
        });
        result.ok_or_else(|| did_not_begin(&said))
    }
}

/// What a run said that did not begin: one document with the error and, when the world was in the way, the plan.
fn did_not_begin(said: &str) -> Fault {
    let document: Value = serde_json::from_str(said.trim()).unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut fault = Fault::wrong("a run of the trial did not begin");
    if let Some(message) = text(&document["error"]["message"]) {
        fault = fault.cause(message);
    }
    for step in document["plan"]["steps"].as_array().into_iter().flatten() {
        if let (Some(step), Some(message)) = (text(&step["step"]), text(&step["failure"]["message"])) {
            fault = fault.cause(format!("step `{step}`: {message}"));
        }
    }
    for problem in document["error"]["problems"].as_array().into_iter().flatten().take(3) {
        fault = text(&problem["message"]).into_iter().fold(fault, Fault::cause);
    }
    fault.help("`ferry plan` of the pipeline with the same inputs shows the whole picture")
}

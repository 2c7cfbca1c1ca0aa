//! `ferry approve`: a person's answer to an approval step.

use serde_json::json;

use super::project::{read_run, step_named};
use super::{Context, Exit, Fault, by};
use crate::engine::{Node, State};
use crate::journal::Request;
use crate::secret::unmarked;

/// Answer an approval step of a run
///
/// The answer is bound to what was shown: when the question changes before the runner takes the answer, it is dropped.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  ferry approve last go\n  ferry approve 0199c4 go --comment \"lag is 3 KiB, go\"\n  \
    ferry approve last go --deny --comment \"not before Monday\"\n\n\
    JSON: {\"run\", \"step\", \"approved\", \"by\", \"message\", \"live\"}\n      \
    `live`: whether a runner takes the answer now; else `ferry resume RUN` does.")]
pub struct Approve {
    /// The run
    run: String,
    /// The approval step
    step: String,
    /// The answer is no
    #[arg(long)]
    deny: bool,
    /// Why, in your words
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
}

impl Approve {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let journal = context.journal_to_write()?;
        let (run, engine) = read_run(&journal, &self.run)?;
        let path = step_named(&engine, &self.step);
        let waiting: Vec<&Node> = engine.steps().filter(|node| node.state == State::Awaiting).collect();
        let open = || match waiting.as_slice() {
            [] => "no step of this run waits for an approval".to_owned(),
            nodes => {
                let names: Vec<String> = nodes.iter().map(|node| format!("`{}`", node.path)).collect();
                format!("these steps wait for one: {}", names.join(", "))
            }
        };
        let Some(node) = engine.step(&path) else {
            return Err(Fault::wrong(format!("run `{run}` has no step `{path}`")).help(open()));
        };
        let Some(question) = node.question.as_ref().filter(|_| node.state == State::Awaiting) else {
            return Err(Fault::wrong(format!("step `{path}` of run `{run}` does not wait for an approval")).help(open()));
        };
        let by = by();
        if !question.may_answer(&by) {
            return Err(Fault::wrong(format!("{by} may not answer step `{path}`"))
                .help(format!("it may be answered by {}", question.approvers.join(", "))));
        }
        // Two answers to one question: the runner takes the first, so a second would be told as one that counts.
        let lying = journal.letters(&run, 0)?.into_iter().find_map(|letter| match letter.request {
            Request::Approve { by, step, digest, approved, .. }
                if step == path && digest == question.digest && question.may_answer(&by) =>
            {
                Some((by, approved))
            }
            _ => None,
        });
        if let Some((by, approved)) = lying {
            let word = if approved { "approved" } else { "denied" };
            let help = if journal.holder(&run)?.is_some() {
                "the run takes it in a moment".to_owned()
            } else {
                format!("`ferry resume {run}` takes it")
            };
            return Err(
                Fault::wrong(format!("step `{path}` of run `{run}` is already {word} by {by}, not taken up yet")).help(help)
            );
        }
        let approved = !self.deny;
        let digest = question.digest.clone();
        let request = Request::Approve { by: by.clone(), step: path.clone(), digest, approved, comment: self.comment };
        super::block_on(journal.put(&run, &request))??;
        let live = journal.holder(&run)?.is_some();
        let message = unmarked(&question.message);
        if context.out.json {
            context.out.document(&json!({
                "run": run, "step": path, "approved": approved, "by": by, "message": message, "live": live,
            }))?;
        } else {
            let word = if approved { "approved" } else { "denied" };
            context.out.text(&format!("{word} `{path}` of run {run}: {message}"))?;
            if !live {
                context.out.note(&format!("nothing is at work on the run: `ferry resume {run}` goes on"));
            }
        }
        Ok(Exit::Succeeded)
    }
}

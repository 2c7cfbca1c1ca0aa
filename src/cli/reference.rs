//! `docs/cli.md`, generated from the command tree, so that the manual and `--help` cannot differ.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command, CommandFactory as _};

use super::{Cli, Exit};

/// The manual of the command line, Markdown.
pub fn manual() -> String {
    let mut root = Cli::command();
    root.build();
    let mut text = String::from(
        "# Command line\n\n\
         Generated from the command tree by `make docs`. `ferry COMMAND --help` says the same.\n\n",
    );
    text.push_str("RUN may be a run's id, a unique prefix of it, or `last`.\n\n");
    text.push_str("## Exit status\n\n| status | name | meaning |\n| --- | --- | --- |\n");
    for exit in Exit::ALL {
        let _ = writeln!(text, "| {} | {exit:?} | {} |", exit.code(), exit.meaning());
    }
    text.push_str(
        "\n`ferry rollback` that undid everything has succeeded: 0. A run that fails and then rolls back ends with 3.\n",
    );
    text.push_str("\n## Everywhere\n\n");
    arguments(&mut text, root.get_arguments().filter(|arg| arg.is_global_set()));
    text.push_str(
        "\n`--json` puts one JSON document on stdout, or JSON lines where a command streams; the shapes are below. \
         A command that could not do what it was asked for prints\n\n\
         ```json\n{\"error\": {\"message\": \"…\", \"class\": \"transient|permanent|needs_person|null\", \"help\": \"…\", \
         \"causes\": [], \"problems\": [], \"exit\": 2}}\n```\n\n\
         with `plan` beside `error` when a run was not started because of what its plan found, and `edit` when an edited \
         pipeline was refused. \
         Everything else (progress, notes, the log) goes to stderr. The log holds ferry's own words only; the variable \
         `FERRY_LOG` (`ferry=debug,opendal=trace`) asks for more, and what other crates write is not masked.\n",
    );
    for command in root.get_subcommands() {
        section(&mut text, command);
    }
    text
}

fn section(text: &mut String, command: &Command) {
    let _ = write!(text, "\n## ferry {}\n\n", command.get_name());
    let about = command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string).unwrap_or_default();
    let _ = writeln!(text, "{}\n", sentence(about.trim()));
    let usage = command.clone().render_usage().to_string();
    let _ = writeln!(text, "```text\n{}\n```\n", usage.trim_start_matches("Usage: ").trim());
    arguments(text, command.get_arguments().filter(|arg| !arg.is_global_set() && arg.get_id() != "help"));
    if let Some(after) = command.get_after_long_help() {
        let _ = writeln!(text, "\n```text\n{}\n```", after.to_string().trim());
    }
}

fn arguments<'a>(text: &mut String, arguments: impl Iterator<Item = &'a Arg>) {
    let rows: Vec<String> = arguments
        .filter(|arg| {
            !arg.is_hide_set() && !matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong)
        })
        .map(|arg| {
            let help = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
            let choices: Vec<String> = arg
                .get_possible_values()
                .iter()
                .filter(|value| !value.is_hide_set() && arg.get_action().takes_values())
                .map(|value| format!("`{}`", value.get_name()))
                .collect();
            let mut told = sentence(&help.replace('\n', " "));
            if !choices.is_empty() {
                let _ = write!(told, " One of {}.", choices.join(", "));
            }
            if let [default] = arg.get_default_values()
                && arg.get_action().takes_values()
            {
                let _ = write!(told, " Default: `{}`.", default.to_string_lossy());
            }
            if let Some(variable) = arg.get_env() {
                let _ = write!(told, " Variable: `{}`.", variable.to_string_lossy());
            }
            format!("| `{}` | {} |", written(arg).replace('|', "\\|"), told.replace('|', "\\|"))
        })
        .collect();
    if !rows.is_empty() {
        let _ = writeln!(text, "| argument | says |\n| --- | --- |\n{}", rows.join("\n"));
    }
}

/// An argument as it is typed: `-i, --input NAME=VALUE`.
fn written(arg: &Arg) -> String {
    let value = arg
        .get_action()
        .takes_values()
        .then(|| arg.get_value_names().map(|names| names.iter().map(clap::builder::Str::as_str).collect::<Vec<_>>().join(" ")))
        .flatten()
        .unwrap_or_default();
    if arg.is_positional() {
        let many = arg.get_num_args().is_some_and(|range| range.max_values() > 1);
        return format!("{value}{}", if many { "…" } else { "" });
    }
    let mut names = Vec::new();
    if let Some(short) = arg.get_short() {
        names.push(format!("-{short}"));
    }
    if let Some(long) = arg.get_long() {
        names.push(format!("--{long}"));
    }
    format!("{} {value}", names.join(", ")).trim_end().to_owned()
}

fn sentence(text: &str) -> String {
    let text = text.trim();
    if text.is_empty() || text.ends_with(['.', '?', '!', ':']) { text.to_owned() } else { format!("{text}.") }
}

//! `ferry completions`: what the shell completes.

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::{Cli, Context, Exit, Fault};

/// Print the shell's completion script.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "Examples:\n  ferry completions bash > ~/.local/share/bash-completion/completions/ferry\n  \
    ferry completions zsh > ~/.zfunc/_ferry\n  ferry completions fish > ~/.config/fish/completions/ferry.fish")]
pub struct Completions {
    /// bash, zsh, fish, elvish or powershell.
    #[arg(value_enum, hide_possible_values = true)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(self, context: &Context) -> Result<Exit, Fault> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "ferry", &mut script);
        context.out.text(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Succeeded)
    }
}

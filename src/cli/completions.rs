//! `gatecast completions`: what a shell completes.

use clap_complete::Shell;

use crate::{cli::output, error::Result, report::verdict::Verdict};

/// `gatecast completions SHELL`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast completions bash > /etc/bash_completion.d/gatecast")]
pub(crate) struct CompletionsArgs {
    /// The shell
    pub(crate) shell: Shell,
}

/// Prints the script for `command`, which is the whole program.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn run(args: &CompletionsArgs, command: &mut clap::Command) -> Result<Verdict> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, command, "gatecast", &mut script);
    output::answer(&String::from_utf8_lossy(&script))
}

//! The commands of the testbed: `star`, `study` and `plan`.

mod links;
pub(crate) mod plan;
pub(crate) mod simulate;
pub(crate) mod star;
pub(crate) mod study;

use clap::Subcommand;

use crate::error::Result;
use crate::report::verdict::Verdict;

/// The commands of the testbed.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// An emulated star of hosts: one switch, a link of its own rate for each
    Star(star::Args),
    /// Compare ways of sending on stars: makespan against the number of clients, and the bound
    Study(Box<study::Args>),
    /// What to expect of each way, without a network
    Plan(plan::Args),
}

/// Runs one of them.
///
/// # Errors
/// As the command's own `run`.
pub(crate) fn run(command: &Command) -> Result<Verdict> {
    match command {
        Command::Star(args) => star::run(args),
        Command::Study(args) => study::run(args),
        Command::Plan(args) => plan::run(args),
    }
}

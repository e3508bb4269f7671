//! The commands of the testbed: `star`, `study` and `plan`.

mod links;
pub(crate) mod plan;
mod room;
pub(crate) mod simulate;
pub(crate) mod star;
pub(crate) mod study;

use clap::Subcommand;

use crate::{error::Result, report::verdict::Verdict};

/// The commands of the testbed.
#[derive(Debug, Subcommand)]
pub(crate) enum TestbedCommand {
    /// An emulated star of hosts
    ///
    /// One switch, and a link of its own rate for each host.
    Star(star::StarArgs),
    /// Compare ways of sending on emulated stars
    ///
    /// It measures the makespan against the number of clients, and compares it with the least that
    /// the links allow.
    Study(Box<study::StudyArgs>),
    /// What to expect of each way, without a network
    Plan(plan::PlanArgs),
}

/// Runs one of them.
///
/// # Errors
/// As the command's own `run`.
pub(crate) fn run(command: &TestbedCommand) -> Result<Verdict> {
    match command {
        TestbedCommand::Star(args) => star::run(args),
        TestbedCommand::Study(args) => study::run(args),
        TestbedCommand::Plan(args) => plan::run(args),
    }
}

//! Words on a command line become calls below, and what they return becomes an exit code.
//!
//! Results go to standard output, everything else to standard error. Each subcommand is a file
//! with its `Args` and a `run` that ends in a [`Verdict`].

use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, Parser, Subcommand};

use crate::{error::Error, report::verdict::Verdict};

pub(crate) mod completions;
pub(crate) mod diff;
pub(crate) mod events;
pub(crate) mod fetch;
mod keys;
pub(crate) mod list;
pub(crate) mod man;
mod menu;
pub(crate) mod options;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod relay;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod signals;
#[cfg(all(target_os = "linux", feature = "sockopt"))]
pub(crate) mod testbed;
pub(crate) mod torrent;
pub(crate) mod watch;

/// Sends one file to many machines at the same instant, proves every copy, and shows what each
/// one got.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Say more on standard error (-v progress, -vv details); GATECAST_LOG sets it finer
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
    /// Show tables with all their columns, though the terminal be too narrow
    #[arg(long, global = true)]
    pub(crate) wide: bool,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Server and clients in one process, on loopback: the whole job in one command
    Run(run::RunArgs),
    /// Offer files or folders
    Serve(serve::ServeArgs),
    /// Fetch a file, with one or more clients in this process
    Fetch(fetch::FetchArgs),
    /// List what a server offers
    List(list::ListArgs),
    /// Write a file's .torrent into the current folder
    Torrent(torrent::TorrentArgs),
    /// The tables, CSV, JSON or plot of session logs
    Report(report::ReportArgs),
    /// Relay a live stream to every viewer
    Relay(relay::RelayArgs),
    /// Watch what a relay relays
    Watch(watch::WatchArgs),
    #[cfg(all(target_os = "linux", feature = "sockopt"))]
    #[command(flatten)]
    Testbed(testbed::TestbedCommand),
    /// Two sessions, or two studies, side by side
    Diff(diff::DiffArgs),
    /// What a shell completes, as a script for it
    Completions(completions::CompletionsArgs),
    /// The manual page
    Man(man::ManArgs),
}

const EXIT_CODES: &str = "Exit code: 0 every client verified; 1 could not run, or refused; 2 usage; \
3 the muster ended without enough clients; 4 some clients failed, are missing or cannot be proven; \
5 a digest did not match; 6 every copy is proven and the figures contradict each other; \
130 interrupted.";

/// The whole program.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(cli.verbose);
    output::set_wide(cli.wide);
    let result = match &cli.command {
        Command::Run(args) => run::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Fetch(args) => fetch::run(args),
        Command::List(args) => list::run(args),
        Command::Torrent(args) => torrent::run(args),
        Command::Report(args) => report::run(args),
        Command::Relay(args) => relay::run(args),
        Command::Watch(args) => watch::run(args),
        #[cfg(all(target_os = "linux", feature = "sockopt"))]
        Command::Testbed(command) => testbed::run(command),
        Command::Diff(args) => diff::run(args),
        Command::Completions(args) => completions::run(args, &mut Cli::command()),
        Command::Man(args) => man::run(args, Cli::command()),
    };
    let verdict = result.unwrap_or_else(|error| {
        if !matches!(error, Error::Interrupted) {
            output::print_error(&error);
        }
        Verdict::of_error(&error)
    });
    ExitCode::from(verdict.exit_code())
}

fn start_logging(verbose: u8) {
    let level = match verbose {
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let environment = env_logger::Env::new().filter_or("GATECAST_LOG", level);
    env_logger::Builder::from_env(environment).format_target(false).init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_consistent_and_has_an_example() {
        let command = Cli::command();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            let help = sub.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("gatecast "), "{} has no example", sub.get_name());
        }
    }
}

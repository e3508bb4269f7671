//! Words on a command line become calls below, and what they return becomes an exit code.
//!
//! Results go to standard output, everything else to standard error. Each subcommand is a file
//! with its `Args` and a `run` that ends in a [`Verdict`].

use std::{io::IsTerminal, process::ExitCode};

use clap::{ArgAction, CommandFactory, Parser, Subcommand, error::ErrorKind};

use crate::{
    error::Error,
    report::{layout::RateUnit, verdict::Verdict},
};

mod ask;
mod calibrate;
pub(crate) mod completions;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod fetch;
mod keys;
mod launch;
pub(crate) mod list;
pub(crate) mod man;
mod menu;
pub(crate) mod options;
pub(crate) mod output;
pub(crate) mod progress;
pub(crate) mod push;
pub(crate) mod relay;
pub(crate) mod report;
pub(crate) mod run;
pub(crate) mod serve;
pub(crate) mod signals;
mod ssh;
mod standing;
#[cfg(all(target_os = "linux", feature = "sockopt"))]
pub(crate) mod testbed;
pub(crate) mod torrent;
pub(crate) mod watch;

/// Sends one file to many machines at the same instant, proves every copy, and shows what each
/// one got.
#[derive(Debug, Parser)]
#[command(version, max_term_width = help_width(), after_help = EXIT_CODES)]
#[command(disable_help_flag = true)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Say more on standard error (-v progress, -vv details)
    ///
    /// GATECAST_LOG sets it finer.
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Output")]
    #[arg(display_order = LAST)]
    pub(crate) verbose: u8,
    /// Show all columns of tables, however narrow the terminal is
    #[arg(long, global = true, hide_short_help = true)]
    #[arg(help_heading = "Output", display_order = LAST)]
    pub(crate) wide: bool,
    /// Unit of the rates in the tables of sessions
    #[arg(long, global = true, value_enum, default_value_t, hide_short_help = true)]
    #[arg(help_heading = "Output", display_order = LAST)]
    pub(crate) unit: RateUnit,
    /// Print help: -h the common options, --help all of them
    #[arg(id = "help", short = 'h', long = "help", global = true, action = ArgAction::Help)]
    #[arg(help_heading = "Output", display_order = LAST)]
    _help: Option<bool>,
}

/// Where the options of every subcommand stand among its own: after them.
const LAST: usize = 1000;

/// The subcommands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Server and clients in one process: the whole job at once
    ///
    /// They meet on loopback. The copies are deleted unless --keep keeps them. Ctrl-C ends the
    /// session with its table; a second Ctrl-C ends the program at once.
    Run(run::RunArgs),
    /// Offer files or folders
    ///
    /// Without one, on a terminal, it asks for the file and for the number of clients.
    ///
    /// A session begins with the first client that joins, and is released when all its clients are
    /// ready. Enter on the server's terminal, or SIGUSR1 (kill -USR1), releases it at once for those
    /// that are ready. Ctrl-C ends the server with the tables of the open sessions; a second Ctrl-C
    /// ends it at once.
    ///
    /// The page, http://HOST:8080/ in a browser, shows who is ready and who is missing, how far each
    /// client is, and what each got. Its button releases as Enter does: on this machine, and
    /// elsewhere with --dashboard.
    Serve(Box<serve::ServeArgs>),
    /// Fetch a file, with one or more clients in this process
    ///
    /// A client waits at the gate until the server releases the session. Ctrl-C ends it and leaves
    /// what has come for --resume; a second Ctrl-C ends it at once.
    Fetch(fetch::FetchArgs),
    /// Send a file to the hosts of a list, by ssh
    ///
    /// The server runs here, and ssh starts a client on each host. The gate opens when all hosts are
    /// ready that could be reached. Ctrl-C ends the session at both ends, with its table; a second
    /// Ctrl-C ends the program at once, and the clients with it.
    Push(push::PushArgs),
    /// List what a server offers
    List(list::ListArgs),
    /// What this machine can do for each way, and what mends it
    Doctor(doctor::DoctorArgs),
    /// What this machine can measure, and how exactly
    Calibrate(calibrate::CalibrateArgs),
    /// Write a file's .torrent into the current folder
    Torrent(torrent::TorrentArgs),
    /// The tables, CSV, JSON or plot of session logs
    Report(report::ReportArgs),
    /// Relay a live stream to every viewer
    ///
    /// Until Ctrl-C, which prints the table of the viewers; a second Ctrl-C ends it at once.
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

/// The widest that help is, columns: long lines are hard to read.
const HELP_WIDTH: u16 = 100;

/// The width of help that goes into a pipe or a file: what every terminal shows without a break.
const PIPED_WIDTH: u16 = 80;

/// The most columns that help may have; a narrower terminal has it narrower.
fn help_width() -> usize {
    let columns = if std::io::stdout().is_terminal() { HELP_WIDTH } else { PIPED_WIDTH };
    columns.into()
}

/// The whole program.
pub fn main() -> ExitCode {
    let cli = Cli::try_parse().or_else(ask_for_file).unwrap_or_else(|error| error.exit());
    start_logging(cli.verbose);
    output::set_tables(cli.wide, cli.unit);
    let result = match &cli.command {
        Command::Run(args) => run::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Fetch(args) if args.receiving.standing => standing::run(args),
        Command::Fetch(args) => fetch::run(args),
        Command::Push(args) => push::run(args),
        Command::List(args) => list::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Calibrate(args) => calibrate::run(args),
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

/// The command line with what its user was asked for, where a file is all that it lacks.
fn ask_for_file(missing: clap::Error) -> Result<Cli, clap::Error> {
    match ask::missing_words(&missing) {
        Some(Ok(words)) => Cli::try_parse_from(std::env::args_os().chain(words)),
        Some(Err(why)) => Err(Cli::command().error(ErrorKind::MissingRequiredArgument, why)),
        None => Err(missing),
    }
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

    /// The groups that an option can belong to.
    const GROUPS: [&str; 12] = [
        "Gate", "Files", "Network", "Group", "UDP", "Swarm", "Output", "Page", "Links", "Star",
        "Study", "Plan",
    ];

    /// Every subcommand, with those of `star`.
    fn subcommands(command: &clap::Command) -> Vec<&clap::Command> {
        let own = command.get_subcommands().filter(|sub| sub.get_name() != "help");
        own.flat_map(|sub| std::iter::once(sub).chain(subcommands(sub))).collect()
    }

    #[test]
    fn every_option_belongs_to_a_group_of_help() {
        let mut command = Cli::command();
        command.build();
        let all = subcommands(&command);
        assert!(all.len() > 12, "{}", all.len());
        for sub in all {
            for option in sub.get_arguments().filter(|argument| !argument.is_positional()) {
                let place = format!("{} --{}", sub.get_name(), option.get_id());
                let group = option.get_help_heading().unwrap_or_else(|| panic!("{place}: none"));
                assert!(GROUPS.contains(&group), "{place}: {group}");
            }
        }
    }

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

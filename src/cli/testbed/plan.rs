//! `gatecast plan`: what to expect of each way, without a network.

use std::path::{Path, PathBuf};

use crate::{
    cli::{output, testbed::simulate},
    error::{Error, Result},
    proto::line::decimal,
    report,
    report::{relay, verdict::Verdict},
    testbed::{plan, plan::Scenario, study::results::Results},
    text::ShownPath,
    transfer::Record,
    units::{Bytes, InvalidValue, Rate},
};

/// `gatecast plan`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast plan --size 4GB --clients 10000 --server-up 10gbit \
--up 100mbit --down 1gbit --from study/results.json")]
pub(crate) struct PlanArgs {
    /// Size of the file
    #[arg(long, help_heading = "Plan")]
    pub(crate) size: Bytes,
    /// How many clients, or several such as 10,100,1000
    ///
    /// Up to a thousand million.
    #[arg(long, value_parser = clients, value_delimiter = ',', required = true, value_name = "N")]
    #[arg(help_heading = "Plan")]
    pub(crate) clients: Vec<u64>,
    /// Each client's uplink; 100mbit unless given or measured
    #[arg(long, value_name = "RATE", help_heading = "Links")]
    pub(crate) up: Option<Rate>,
    /// Each client's downlink; as --up unless given
    #[arg(long, value_name = "RATE", help_heading = "Links")]
    pub(crate) down: Option<Rate>,
    /// The server's uplink; as --up unless given
    #[arg(long, value_name = "RATE", help_heading = "Links")]
    pub(crate) server_up: Option<Rate>,
    /// The results of a study, or the log of a session by --via auto, or a folder of logs
    ///
    /// A study tells how near to its bound each way came. A session tells what its links were, where
    /// no option does; of a folder the last one that measured them.
    #[arg(long, value_name = "RESULTS.JSON|LOG|DIR", help_heading = "Plan")]
    pub(crate) from: Option<PathBuf>,
    /// The swarm, simulated.
    #[command(flatten)]
    pub(crate) simulation: simulate::SimulationArgs,
}

/// Most clients that are planned for.
const CLIENTS_MAX: u64 = 1_000_000_000;

fn clients(text: &str) -> std::result::Result<u64, InvalidValue> {
    let number = decimal(text).filter(|number| (1..=CLIENTS_MAX).contains(number));
    let expected = "a number from 1 to 1000000000";
    number.ok_or_else(|| InvalidValue::new("number of clients", text, expected))
}

/// The server's uplink and the least downlink, as the last session measured them whose log is `path`,
/// or lies in it.
fn measured(path: &Path) -> Result<(Rate, Rate)> {
    let mut logs = vec![path.to_owned()];
    if path.is_dir() {
        let failed = || Error::io("read the folder", ShownPath(path));
        let entries = path.read_dir().map_err(failed())?;
        let entries = entries.map(|entry| Ok(entry.map_err(failed())?.path()));
        logs = entries.collect::<Result<_>>()?;
        logs.retain(|log| log.extension().is_some_and(|end| end == "log"));
        logs.retain(|log| !relay::is_relay_log(log));
    }
    let mut records = report::read_logs(&logs.iter().collect::<Vec<_>>())?;
    records.sort_by_key(|record| record.released_at);
    let links = |record: &Record| {
        let figures = record.auto.as_ref()?.figures;
        Some((Rate(figures.server_up?), Rate(figures.least_down?)))
    };
    let why = "no session in it measured its links: serve with --via auto";
    let links = records.iter().rev().find_map(links);
    links.ok_or_else(|| Error::refused(ShownPath(path), why))
}

/// Plans.
///
/// # Errors
/// The results cannot be read, or nothing is to be sent.
pub(crate) fn run(args: &PlanArgs) -> Result<Verdict> {
    if args.size.0 == 0 {
        return Err(Error::usage("--size must be at least 1 byte"));
    }
    let is_study = |path: &&Path| path.extension().is_some_and(|end| end == "json");
    let from = args.from.as_deref();
    let measured = from.filter(|path| !is_study(path)).map(measured).transpose()?;
    let (measured_up, measured_down) = measured.unzip();
    // What a session measures of a client is its downlink; its uplink is taken to be as wide.
    let up = args.up.or(measured_down).unwrap_or(Rate(100_000_000));
    let server_up = args.server_up.or(measured_up).unwrap_or(up);
    let down = args.down.or(measured_down).unwrap_or(up);
    let scenario = |&clients: &u64| Scenario { bytes: args.size.0, clients, server_up, up, down };
    let scenarios: Vec<Scenario> = args.clients.iter().map(scenario).collect();
    if args.simulation.simulate {
        return simulate::run(&args.simulation, &scenarios);
    }
    let study = from.filter(is_study).map(Results::read).transpose()?;
    for (number, scenario) in scenarios.iter().enumerate() {
        let answers = plan::forecasts(scenario, study.as_ref());
        let space = if number > 0 { "\n" } else { "" };
        output::print(&format!("{space}{}", plan::table(scenario, &answers, output::width())))?;
    }
    Ok(Verdict::AllVerified)
}

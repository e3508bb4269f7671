//! `gatecast plan`: what to expect of each way, without a network.

use std::path::PathBuf;

use crate::{
    cli::{output, testbed::simulate},
    error::{Error, Result},
    report::verdict::Verdict,
    testbed::{plan, plan::Scenario, study::results::Results},
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
    /// Each client's uplink
    #[arg(long, default_value = "100mbit", value_name = "RATE", help_heading = "Links")]
    pub(crate) up: Rate,
    /// Each client's downlink; as --up unless given
    #[arg(long, value_name = "RATE", help_heading = "Links")]
    pub(crate) down: Option<Rate>,
    /// The server's uplink; as --up unless given
    #[arg(long, value_name = "RATE", help_heading = "Links")]
    pub(crate) server_up: Option<Rate>,
    /// The results of a study
    ///
    /// They tell how near to its bound each way came.
    #[arg(long, value_name = "RESULTS.JSON", help_heading = "Plan")]
    pub(crate) from: Option<PathBuf>,
    /// The swarm, simulated.
    #[command(flatten)]
    pub(crate) simulation: simulate::SimulationArgs,
}

/// Most clients that are planned for.
const CLIENTS_MAX: u64 = 1_000_000_000;

fn clients(text: &str) -> std::result::Result<u64, InvalidValue> {
    crate::proto::line::decimal(text)
        .filter(|number| (1..=CLIENTS_MAX).contains(number))
        .ok_or_else(|| {
            InvalidValue::new("number of clients", text, "a number from 1 to 1000000000")
        })
}

/// Plans.
///
/// # Errors
/// The results cannot be read, or nothing is to be sent.
pub(crate) fn run(args: &PlanArgs) -> Result<Verdict> {
    if args.size.0 == 0 {
        return Err(Error::usage("--size must be at least 1 byte"));
    }
    let (server_up, down) = (args.server_up.unwrap_or(args.up), args.down.unwrap_or(args.up));
    let scenario =
        |&clients: &u64| Scenario { bytes: args.size.0, clients, server_up, up: args.up, down };
    let scenarios: Vec<Scenario> = args.clients.iter().map(scenario).collect();
    if args.simulation.simulate {
        return simulate::run(&args.simulation, &scenarios);
    }
    let study = args.from.as_deref().map(Results::read).transpose()?;
    for (number, scenario) in scenarios.iter().enumerate() {
        let answers = plan::forecasts(scenario, study.as_ref());
        let space = if number > 0 { "\n" } else { "" };
        output::print(&format!("{space}{}", plan::table(scenario, &answers, output::width())))?;
    }
    Ok(Verdict::AllVerified)
}

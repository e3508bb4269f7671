//! `gatecast plan --simulate`: what a swarm would take, in virtual time.

use std::{thread, time::Instant};

use crate::{
    cli::output,
    error::{Error, Result},
    report::verdict::Verdict,
    session::MAX_SEATS,
    testbed::plan::Scenario,
    transport::swarm::{simulate, simulate::SimulationConfig},
    units::Bytes,
};

/// How a swarm is simulated.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Swarm")]
#[group(skip)] // Another `SimulationArgs` takes these in, and a group has its struct's name.
pub(crate) struct SimulationArgs {
    /// Simulate the swarm in virtual time, up to 10,000 clients
    #[arg(long)]
    pub(crate) simulate: bool,
    /// Also with a quarter of the uplink at every second client
    #[arg(long, requires = "simulate")]
    pub(crate) unequal: bool,
    /// How many others each simulated client is linked to; 50 for up to 1000 clients, and 20
    /// beyond, where 50 would take ten minutes and say the same
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..=200), value_name = "K")]
    #[arg(hide_short_help = true)]
    pub(crate) links: Option<u16>,
    /// Equal seeds, equal simulations
    #[arg(long, default_value = "1", value_name = "NUMBER", hide_short_help = true)]
    pub(crate) seed: u64,
}

/// Simulates each number of clients; a row is printed when it is known.
///
/// # Errors
/// More clients than a session may have, or a result that cannot be written.
pub(crate) fn run(args: &SimulationArgs, scenarios: &[Scenario]) -> Result<Verdict> {
    if let Some(more) = scenarios.iter().find(|s| s.clients > u64::from(MAX_SEATS)) {
        let (most, more) = (MAX_SEATS, more.clients);
        return Err(Error::usage(format!("--simulate takes up to {most} clients, not {more}")));
    }
    let Some(first) = scenarios.first() else {
        return Ok(Verdict::AllVerified);
    };
    let shape = if args.unequal { ", unequal: every second one a quarter of it" } else { "" };
    output::print(&format!(
        "swarm, simulated: {}, uplinks {}{shape}; no latency\n\n\
         clients  uplinks  links  pieces  bound s  makespan s  over bound  server x file  busiest client x file\n\
         -------  -------  -----  ------  -------  ----------  ----------  -------------  ---------------------\n",
        Bytes(first.bytes),
        first.up,
    ))?;
    for scenario in scenarios {
        let begun = Instant::now();
        // The two shapes know nothing of each other: a core for each.
        let shapes = if args.unequal { &["equal", "unequal"][..] } else { &["equal"] };
        thread::scope(|scope| {
            let simulated =
                |&shape| scope.spawn(move || row(&swarm_plan(args, scenario, shape), shape));
            let rows: Vec<_> = shapes.iter().map(simulated).collect();
            for row in rows {
                let row = row.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                output::print(&row?)?;
            }
            Ok::<_, Error>(())
        })?;
        let took = begun.elapsed().as_secs_f64();
        log::info!("{} clients simulated in {took:.1} s", scenario.clients);
    }
    Ok(Verdict::AllVerified)
}

fn swarm_plan(args: &SimulationArgs, scenario: &Scenario, shape: &str) -> SimulationConfig {
    let (up, down) = (scenario.up.bytes_per_second(), scenario.down.bytes_per_second());
    let clients = scenario.clients as usize;
    let mut links = vec![(up, down); clients];
    if shape == "unequal" {
        let slow = links.iter_mut().skip(1).step_by(2);
        slow.for_each(|(up, _)| *up /= 4.0);
    }
    SimulationConfig {
        bytes: scenario.bytes,
        server_up: scenario.server_up.bytes_per_second(),
        clients: links,
        links: args.links.map_or(if clients > 1000 { 20 } else { 50 }, usize::from),
        seed: args.seed,
    }
}

fn row(plan: &SimulationConfig, uplinks: &str) -> Result<String> {
    let outcome = simulate::run(plan)
        .ok_or_else(|| Error::refused("the simulation", "it did not come to an end"))?;
    let (makespan, bound) = (outcome.makespan.as_secs_f64(), outcome.bound.as_secs_f64());
    let times = |bytes: u64| bytes as f64 / plan.bytes as f64;
    let (clients, links, pieces) = (plan.clients.len(), plan.links, outcome.pieces);
    let (over, server) = (makespan / bound, times(outcome.server_bytes));
    let client = times(outcome.client_bytes);
    Ok(format!(
        "{clients:>7}  {uplinks:<7}  {links:>5}  {pieces:>6}  {bound:>7.3}  {makespan:>10.3}  \
         {over:>10.3}  {server:>13.3}  {client:>21.3}\n",
    ))
}

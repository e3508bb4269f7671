//! `gatecast plan --simulate`: what a swarm would take, in virtual time.

use std::thread;
use std::time::Instant;

use crate::cli::output;
use crate::error::Error;
use crate::error::Result;
use crate::report::verdict::Verdict;
use crate::session::MAX_SEATS;
use crate::transport::swarm::simulate;
use crate::transport::swarm::simulate::SimulationConfig;
use crate::units::Bytes;
use crate::units::Rate;

/// How a swarm is simulated.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)] // Another `Args` takes these in, and a group has its struct's name.
pub(crate) struct Args {
    /// Simulate the swarm in virtual time, up to 10,000 clients
    #[arg(long)]
    pub(crate) simulate: bool,
    /// Simulate also that every second client has only a quarter of the uplink
    #[arg(long, requires = "simulate")]
    pub(crate) unequal: bool,
    /// How many others each simulated client is linked to; 50 for up to 1000 clients, and 20
    /// beyond, where 50 would take ten minutes and say the same
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..=200), value_name = "K")]
    pub(crate) links: Option<u16>,
    /// Equal seeds, equal simulations
    #[arg(long, default_value = "1", value_name = "NUMBER")]
    pub(crate) seed: u64,
}

/// What is simulated: the file's size, the server's uplink, and each client's up and downlink.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    /// The file's size.
    pub(crate) size: Bytes,
    /// The server's uplink.
    pub(crate) server_up: Rate,
    /// Each client's uplink.
    pub(crate) up: Rate,
    /// Each client's downlink.
    pub(crate) down: Rate,
}

/// How many links each of so many clients has, unless it is said.
fn usual_links(clients: u16) -> u16 {
    if clients > 1000 { 20 } else { 50 }
}

/// Simulates each number of clients; a row is printed when it is known.
///
/// # Errors
/// More clients than a session may have, or a result that cannot be written.
pub(crate) fn run(args: &Args, question: Question, clients: &[u64]) -> Result<Verdict> {
    let clients = clients.iter().map(|&clients| {
        u16::try_from(clients)
            .ok()
            .filter(|&clients| clients <= MAX_SEATS)
            .ok_or_else(|| Error::Usage {
                what: format!("--simulate takes up to {MAX_SEATS} clients, not {clients}"),
            })
    });
    let clients = clients.collect::<Result<Vec<u16>>>()?;
    let shape = if args.unequal {
        ", unequal: every second one a quarter of it"
    } else {
        ""
    };
    output::print(&format!(
        "swarm, simulated: {}, uplinks {}{shape}; no latency\n\n\
         clients  uplinks  links  pieces  bound s  makespan s  over bound  server x file  busiest client x file\n\
         -------  -------  -----  ------  -------  ----------  ----------  -------------  ---------------------\n",
        question.size, question.up,
    ))?;
    for clients in clients {
        let begun = Instant::now();
        // The two shapes know nothing of each other: a core for each.
        let (equal, unequal) = thread::scope(|scope| {
            let unequal = (args.unequal).then(|| {
                scope.spawn(|| row(&plan(args, question, clients, true), clients, "unequal"))
            });
            let equal = row(&plan(args, question, clients, false), clients, "equal");
            let unequal = unequal.map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            });
            (equal, unequal.transpose())
        });
        output::print(&equal?)?;
        if let Some(unequal) = unequal? {
            output::print(&unequal)?;
        }
        let took = begun.elapsed().as_secs_f64();
        log::info!("{clients} clients simulated in {took:.1} s");
    }
    Ok(Verdict::AllVerified)
}

fn plan(args: &Args, question: Question, clients: u16, unequal: bool) -> SimulationConfig {
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let bytes_per_second = |rate: Rate| rate.0 as f64 / 8.0;
    let (up, down) = (
        bytes_per_second(question.up),
        bytes_per_second(question.down),
    );
    let mut links = vec![(up, down); usize::from(clients)];
    if unequal {
        let slow = links.iter_mut().skip(1).step_by(2);
        slow.for_each(|(up, _)| *up /= 4.0);
    }
    SimulationConfig {
        bytes: question.size.0,
        server_up: bytes_per_second(question.server_up),
        clients: links,
        links: usize::from(args.links.unwrap_or_else(|| usual_links(clients))),
        seed: args.seed,
    }
}

fn row(plan: &SimulationConfig, clients: u16, uplinks: &str) -> Result<String> {
    let outcome = simulate::run(plan)
        .ok_or_else(|| Error::refused("the simulation", "it did not come to an end"))?;
    let (makespan, bound) = (outcome.makespan.as_secs_f64(), outcome.bound.as_secs_f64());
    #[allow(clippy::cast_precision_loss, reason = "a ratio")]
    let times = |bytes: u64| bytes as f64 / plan.bytes as f64;
    Ok(format!(
        "{clients:>7}  {uplinks:<7}  {:>5}  {:>6}  {bound:>7.3}  {makespan:>10.3}  {:>10.3}  {:>13.3}  {:>21.3}\n",
        plan.links,
        outcome.pieces,
        makespan / bound,
        times(outcome.server_bytes),
        times(outcome.client_bytes),
    ))
}

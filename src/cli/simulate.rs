//! `gatecast plan --simulate`: what a swarm would take, in virtual time.

use std::time::Instant;

use crate::cli::output;
use crate::error::Error;
use crate::error::Result;
use crate::report::verdict::Verdict;
use crate::session::MAX_SEATS;
use crate::swarm::simulate;
use crate::swarm::simulate::Plan;
use crate::units::Bytes;
use crate::units::Rate;

/// How a swarm is simulated.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)] // Another `Args` takes these in, and a group has its struct's name.
pub struct Args {
    /// Simulate the swarm in virtual time, up to 10,000 clients
    #[arg(long)]
    pub simulate: bool,
    /// In the simulation every second client has only a quarter of the uplink
    #[arg(long, requires = "simulate")]
    pub unequal: bool,
    /// How many others each simulated client is linked to
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u16).range(2..=200), value_name = "K")]
    pub links: u16,
    /// Equal seeds, equal simulations
    #[arg(long, default_value = "1", value_name = "NUMBER")]
    pub seed: u64,
}

/// What is simulated: the file's size, the number of clients, the server's uplink, and each
/// client's up and downlink.
#[derive(Clone, Copy, Debug)]
pub struct Question {
    /// The file's size.
    pub size: Bytes,
    /// How many clients.
    pub clients: u64,
    /// The server's uplink.
    pub server_up: Rate,
    /// Each client's uplink.
    pub up: Rate,
    /// Each client's downlink.
    pub down: Rate,
}

/// Simulates.
///
/// # Errors
/// More clients than a session may have, or a result that cannot be written.
pub fn run(args: &Args, question: Question) -> Result<Verdict> {
    let clients = u16::try_from(question.clients)
        .ok()
        .filter(|&clients| clients <= MAX_SEATS)
        .ok_or_else(|| Error::Usage {
            what: format!(
                "--simulate takes up to {MAX_SEATS} clients, not {}",
                question.clients
            ),
        })?;
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let bytes_per_second = |rate: Rate| rate.0 as f64 / 8.0;
    let (up, down) = (
        bytes_per_second(question.up),
        bytes_per_second(question.down),
    );
    let mut links = vec![(up, down); usize::from(clients)];
    if args.unequal {
        let slow = links.iter_mut().skip(1).step_by(2);
        slow.for_each(|(up, _)| *up /= 4.0);
    }
    let plan = Plan {
        bytes: question.size.0,
        server_up: bytes_per_second(question.server_up),
        clients: links,
        links: usize::from(args.links),
        seed: args.seed,
    };
    let begun = Instant::now();
    let outcome = simulate::run(&plan)
        .ok_or_else(|| Error::refused("the simulation", "it did not come to an end"))?;
    let took = begun.elapsed().as_secs_f64();
    log::info!("{clients} clients simulated in {took:.1} s");
    let (makespan, bound) = (outcome.makespan.as_secs_f64(), outcome.bound.as_secs_f64());
    #[allow(clippy::cast_precision_loss, reason = "a ratio")]
    let times = |bytes: u64| bytes as f64 / question.size.0 as f64;
    let shape = if args.unequal {
        ", every second uplink a quarter"
    } else {
        ""
    };
    output::print(&format!(
        "swarm, simulated: {}, uplinks {}{shape}, {} links each, no latency\n\n\
         clients  pieces  bound s  makespan s  over bound  server x file  busiest client x file\n\
         -------  ------  -------  ----------  ----------  -------------  ---------------------\n\
         {clients:>7}  {:>6}  {bound:>7.3}  {makespan:>10.3}  {:>10.3}  {:>13.3}  {:>21.3}\n",
        question.size,
        question.up,
        args.links,
        outcome.pieces,
        makespan / bound,
        times(outcome.server_bytes),
        times(outcome.client_bytes),
    ))?;
    Ok(Verdict::AllVerified)
}

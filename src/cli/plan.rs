//! `gatecast plan`: what a swarm would take, by simulation.

use std::time::Instant;

use serde_json::json;

use crate::cli::options;
use crate::cli::output;
use crate::error::Error;
use crate::error::Result;
use crate::report::verdict::Verdict;
use crate::swarm::simulate;
use crate::swarm::simulate::Plan;
use crate::units::Bytes;
use crate::units::Rate;

/// `gatecast plan --simulate`
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: gatecast plan --simulate --clients 10,100,1000 --size 100MB")]
pub struct Args {
    /// Simulate the swarm in virtual time
    #[arg(long, required = true)]
    pub simulate: bool,
    /// How many clients, several numbers with commas
    #[arg(long, default_value = "10,100,1000", value_delimiter = ',', value_parser = options::clients, value_name = "N")]
    pub clients: Vec<u16>,
    /// The file's size
    #[arg(long, default_value = "100MB")]
    pub size: Bytes,
    /// Every link's rate, each way
    #[arg(long, default_value = "100mbit", value_name = "RATE")]
    pub rate: Rate,
    /// Every second client has only a quarter of the uplink
    #[arg(long)]
    pub unequal: bool,
    /// How many others each client is linked to
    #[arg(long, default_value = "50", value_parser = clap::value_parser!(u16).range(2..=200), value_name = "K")]
    pub links: u16,
    /// Equal seeds, equal runs
    #[arg(long, default_value = "1", value_name = "NUMBER")]
    pub seed: u64,
    /// Print one JSON document
    #[arg(long)]
    pub json: bool,
}

/// Simulates.
///
/// # Errors
/// An empty file, or a result that cannot be written.
pub fn run(args: &Args) -> Result<Verdict> {
    if args.size.0 == 0 {
        return Err(Error::Usage {
            what: "an empty file needs no swarm".to_owned(),
        });
    }
    #[allow(clippy::cast_precision_loss, reason = "a rate")]
    let link = args.rate.0 as f64 / 8.0;
    let mut rows = Vec::new();
    if !args.json {
        output::print(&format!(
            "simulated: {} of payload, links of {} each way{}, {} links each, no latency\n\n\
             clients  pieces  bound s  makespan s  over bound  server x file  busiest client x file\n\
             -------  ------  -------  ----------  ----------  -------------  ---------------------\n",
            args.size,
            args.rate,
            if args.unequal {
                ", every second uplink a quarter"
            } else {
                ""
            },
            args.links,
        ))?;
    }
    for &clients in &args.clients {
        let mut links = vec![(link, link); usize::from(clients)];
        if args.unequal {
            links
                .iter_mut()
                .skip(1)
                .step_by(2)
                .for_each(|(up, _)| *up /= 4.0);
        }
        let plan = Plan {
            bytes: args.size.0,
            server_up: link,
            clients: links,
            links: usize::from(args.links),
            seed: args.seed,
        };
        let begun = Instant::now();
        let outcome = simulate::run(&plan)
            .ok_or_else(|| Error::refused("the simulation", "it did not come to an end"))?;
        log::info!(
            "{clients} clients simulated in {:.1} s",
            begun.elapsed().as_secs_f64()
        );
        let (makespan, bound) = (outcome.makespan.as_secs_f64(), outcome.bound.as_secs_f64());
        #[allow(clippy::cast_precision_loss, reason = "a ratio")]
        let times = |bytes: u64| bytes as f64 / args.size.0 as f64;
        if args.json {
            rows.push(json!({
                "clients": clients, "pieces": outcome.pieces, "bound_s": bound,
                "makespan_s": makespan, "server_bytes": outcome.server_bytes,
                "busiest_client_bytes": outcome.client_bytes,
            }));
            continue;
        }
        output::print(&format!(
            "{clients:>7}  {:>6}  {bound:>7.3}  {makespan:>10.3}  {:>10.3}  {:>13.3}  {:>21.3}\n",
            outcome.pieces,
            makespan / bound,
            times(outcome.server_bytes),
            times(outcome.client_bytes),
        ))?;
    }
    if args.json {
        output::print(&format!(
            "{}\n",
            json!({"schema": "gatecast.plan/1", "bytes": args.size.0, "rate_mbit": link * 8.0 / 1e6,
                "links": args.links, "unequal": args.unequal, "rows": rows})
        ))?;
    }
    Ok(Verdict::AllVerified)
}

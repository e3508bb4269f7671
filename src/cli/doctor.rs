//! `gatecast doctor`: what this machine can and cannot do for each way, and what mends it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use serde_json::json;

use crate::{
    cli::{options, output},
    client::{descriptors, echo},
    digest,
    doctor::{
        diagnosis::{Diagnosis, Purpose},
        facts::{self, Facts},
    },
    error::{Error, Result},
    net::{address, key_file, socket},
    report::verdict::Verdict,
    session::Via,
};

/// `gatecast doctor [HOST[:PORT]]`
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct DoctorArgs {
    /// A server to ask, port 8080 unless given
    #[arg(value_name = "HOST[:PORT]")]
    pub(crate) server: Option<String>,
    /// The way that must work
    ///
    /// For exit code 0: tcp, udp, raw, multicast, swarm, chain or http.
    #[arg(long, default_value = "tcp", help_heading = "Network")]
    pub(crate) via: Via,
    /// Where it is to serve
    ///
    /// If it is not asked about a server.
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "ADDR:PORT")]
    #[arg(help_heading = "Network")]
    pub(crate) listen: SocketAddr,
    /// How many clients are to run here
    #[arg(long, default_value = "25", value_parser = options::clients, value_name = "N")]
    #[arg(help_heading = "Gate")]
    pub(crate) clients: u16,
    /// The folder for copies
    #[arg(long, default_value = "received", value_name = "DIR", help_heading = "Files")]
    pub(crate) out: PathBuf,
    /// The address of this host by whose interface multicast goes
    #[arg(long, value_name = "ADDR", help_heading = "UDP", hide_short_help = true)]
    pub(crate) multicast_interface: Option<Ipv4Addr>,
    /// Prove the key in this file to the server
    #[arg(long, value_name = "FILE", requires = "server", help_heading = "Network")]
    pub(crate) key: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long, help_heading = "Output")]
    pub(crate) json: bool,
}

const AFTER_HELP: &str = "\
Examples: gatecast doctor                  can this machine serve?
          gatecast doctor 192.168.1.10     can it fetch from there?

With HOST, where `gatecast serve` runs, it also finds out what arrives here
from there, and there from here. Exit code: 0 the way of --via would work;
1 it would not.";

/// Looks and judges.
///
/// # Errors
/// The server's name or the key cannot be read, or no UDP socket can be opened.
pub(crate) fn run(args: &DoctorArgs) -> Result<Verdict> {
    let diagnosis = Diagnosis::of(&gather(args)?);
    let asked = Purpose::of(args.via);
    let text = if args.json {
        document(&diagnosis, args).to_string() + "\n"
    } else {
        diagnosis.to_screen(asked)
    };
    output::print(&text)?;
    let works = diagnosis.faults(asked).is_empty();
    Ok(if works { Verdict::AllVerified } else { Verdict::CouldNotRun })
}

fn gather(args: &DoctorArgs) -> Result<Facts> {
    let key = args.key.as_deref().map(key_file::read).transpose()?;
    let interface = args.multicast_interface;
    let host = args.server.as_deref().map(|server| {
        let addresses = options::server(server)?;
        let answer = echo::echo(&addresses, key.as_ref(), interface);
        Ok::<_, Error>((address::canonical(addresses[0]).to_string(), answer))
    });
    let host = host.transpose()?;
    let is_alone = host.is_none();
    let ports = is_alone.then(|| {
        vec![
            facts::tcp_port("serve", args.listen),
            // Where a relay listens, and where its source sends, unless it is told otherwise.
            facts::tcp_port("relay", (Ipv4Addr::UNSPECIFIED, 7000).into()),
            facts::udp_port("relay", (Ipv4Addr::LOCALHOST, 65_534).into()),
        ]
    });
    Ok(Facts {
        ports: ports.unwrap_or_default(),
        group: is_alone.then(|| facts::group(interface)),
        buffer: facts::receive_buffer()?,
        clients: args.clients,
        descriptors: socket::descriptors(descriptors(args.clients)),
        folder: facts::folder(&args.out),
        clock: facts::clock_is_synchronised(),
        sha: digest::has_sha_instructions(),
        sha_used: digest::engine() == "sha1",
        star: is_alone.then(star),
        host,
    })
}

fn star() -> Result<(), String> {
    #[cfg(all(target_os = "linux", feature = "sockopt"))]
    return crate::testbed::star::rootless::obstacle().map_or(Ok(()), Err);
    #[cfg(not(all(target_os = "linux", feature = "sockopt")))]
    Err("this build has no star; build it on Linux with feature sockopt".to_owned())
}

fn document(diagnosis: &Diagnosis, args: &DoctorArgs) -> serde_json::Value {
    let asked = Purpose::of(args.via);
    let words = |those: &[Purpose]| those.iter().map(|one| one.word()).collect::<Vec<_>>();
    let checks: Vec<_> = diagnosis
        .checks
        .iter()
        .map(|check| {
            json!({"check": check.name, "state": check.state(asked), "found": check.found,
                "mend": check.mend, "breaks": words(&check.breaks), "slows": words(&check.slows)})
        })
        .collect();
    let ways: serde_json::Map<_, _> = diagnosis
        .purposes
        .iter()
        .map(|purpose| (purpose.word().to_owned(), diagnosis.outlook(*purpose).into()))
        .collect();
    json!({"schema": "gatecast.doctor/1", "host": args.server, "via": args.via.to_string(),
        "works": diagnosis.faults(asked).is_empty(), "ways": ways, "checks": checks})
}

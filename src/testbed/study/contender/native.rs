//! gatecast's own ways as contenders: `gatecast serve` on host 0, `gatecast fetch` on the others.
//!
//! All ways share one gate, one control connection and one session document, so one contender
//! serves them all: what this program can send, a study can measure.

use std::{
    net::SocketAddr, path::PathBuf, process::Command, sync::atomic::AtomicBool, time::Duration,
};

use serde_json::Value;

use crate::{
    error::{Error, Result},
    net::clock,
    proto::udp::packet,
    report::json::SCHEMA,
    session::Via,
    testbed::study::{
        bound::Bound,
        contender::{Contender, Observed, PayloadKind, RunSpec, SeatResult},
        process_group::ProcessGroup,
    },
    text::escape,
};

/// One way of gatecast.
#[derive(Clone, Debug)]
pub struct Native {
    /// The way.
    pub via: Via,
    /// The program `gatecast`.
    pub program: PathBuf,
    /// TCP congestion control of the server; `None` leaves the system's.
    pub congestion: Option<String>,
}

/// The server's port; each host has all ports to itself.
const PORT: u16 = 8080;

/// How long the server may take to end after its clients.
const AFTER: Duration = Duration::from_secs(5);

/// How long the muster may last: from the first client that is there to the last.
const MUSTER: &str = "30s";

impl Contender for Native {
    fn name(&self) -> &str {
        self.via.word()
    }

    fn bound(&self) -> Bound {
        match self.via {
            Via::Tcp | Via::Udp | Via::Raw | Via::Http => Bound::Unicast,
            Via::Multicast => Bound::Multicast,
            Via::Swarm => Bound::Swarm,
            Via::Chain => Bound::Chain,
        }
    }

    fn carrier(&self) -> PayloadKind {
        match self.via {
            Via::Tcp | Via::Http | Via::Swarm | Via::Chain => PayloadKind::Tcp,
            Via::Udp | Via::Raw | Via::Multicast => PayloadKind::Udp {
                // Multicast repairs with combined blocks, whose numbers take some room.
                block: packet::block_len(packet::DATAGRAM, self.via == Via::Multicast),
            },
        }
    }

    fn run(&self, spec: &RunSpec<'_>, stop: &AtomicBool) -> Result<Observed> {
        let deadline = spec.deadline();
        let mut group = ProcessGroup::new(spec.folder, stop);
        let address = format!("{}:{PORT}", spec.server.address);
        let serve = self.serve(spec, &address);
        let server = group.start_server("serve", spec.server, serve, PORT, deadline)?;
        let mut clients = Vec::new();
        for (number, host) in (1..).zip(spec.clients) {
            let name = format!("h{number}");
            let fetch = self.fetch(spec, &address, &name);
            clients.push(group.start(&name, host, fetch, false)?);
        }
        let mut observed = Observed::default();
        if !group.wait_for_all(&clients, deadline)? {
            observed.trouble.push(spec.not_in_time());
        }
        // It prints its document after its clients; one that refused them all would wait on.
        if !group.wait_for_all(&[server], clock::now().after(AFTER))? {
            group.stop(server)?;
        }
        for (number, &place) in (1..).zip(&clients) {
            let trouble = match (group.ended(place), &*group.last_error_line(place)) {
                (Some(end), _) if end.status.success() => continue,
                (Some(end), "") => format!("{}: -", end.status),
                (Some(end), why) => format!("{}: {why}", end.status),
                (None, _) => "it did not end".to_owned(),
            };
            observed.trouble.push(format!("client {number}: {trouble}"));
        }
        let document = group.stdout(server)?;
        match document.lines().find(|line| !line.trim().is_empty()) {
            Some(line) => read(self.via, line, &|result| host_of(result, spec), &mut observed)?,
            None => {
                let why = group.last_error_line(server);
                observed.trouble.push(format!("the server printed no result: {why}"));
            }
        }
        observed.cpu_server_s = group.cpu_s(&[server]);
        observed.cpu_clients_s = group.cpu_s(&clients);
        Ok(observed)
    }
}

impl Native {
    fn serve(&self, spec: &RunSpec<'_>, address: &str) -> Command {
        let mut serve = Command::new(&self.program);
        serve
            .arg("serve")
            .arg(spec.file)
            .args(["--listen", address, "--clients", &spec.clients.len().to_string()])
            .args(["--via", self.via.word(), "--max-wait", MUSTER])
            .args(["--one-off", "--json", "--log-dir"])
            .arg(spec.folder.join("logs"));
        if let Some(name) = &self.congestion {
            serve.args(["--congestion", name]);
        }
        serve
    }

    fn fetch(&self, spec: &RunSpec<'_>, address: &str, name: &str) -> Command {
        let mut fetch = Command::new(&self.program);
        fetch
            .args(["fetch", address, "--group", &spec.clients.len().to_string()])
            .args(["--via", self.via.word(), "--retry", "10s"])
            .args(["--name", name, "--json", "--out"])
            .arg(spec.folder.join(name));
        fetch
    }
}

/// The number of the host that a result is of, by its address; 0 for one that is not in the run.
fn host_of(result: &Value, spec: &RunSpec<'_>) -> usize {
    let client = result["client"].as_str().and_then(|text| text.parse::<SocketAddr>().ok());
    let mut hosts = (1..).zip(spec.clients);
    let found = hosts.find(|(_, host)| client.is_some_and(|at| at.ip() == host.address));
    found.map_or(0, |(number, _)| number)
}

/// Reads the document of a session by `via`; `host_of` says of which host a result is.
///
/// # Errors
/// It is no such document.
pub fn read(
    via: Via,
    line: &str,
    host_of: &dyn Fn(&Value) -> usize,
    observed: &mut Observed,
) -> Result<()> {
    let wrong = |what: String| Error::protocol("the server's document", what);
    let document: Value =
        serde_json::from_str(line).map_err(|error| wrong(format!("it is not JSON: {error}")))?;
    if document["schema"] != SCHEMA {
        return Err(wrong(format!("its schema is {}", document["schema"])));
    }
    let global = &document["global"];
    observed.makespan_s = global["seconds"].as_f64();
    observed.verified_s = global["seconds_verified"].as_f64();
    observed.skew_us = document["release"]["skew_us"].as_u64();
    observed.sender = document["sender"].as_str().map(str::to_owned);
    if document["identities"] != "hold" {
        let broken = &document["identities"];
        observed.trouble.push(format!("INVALID: {broken}"));
    }
    for result in document["results"].as_array().into_iter().flatten() {
        let host = host_of(result);
        let outcome = result["outcome"].as_str().unwrap_or("-").to_owned();
        if let Some(reason) = result["reason"].as_str() {
            let sentence = format!("client {host}: {outcome}: {}", escape(reason));
            if outcome == "complete" {
                observed.disturbed.push(sentence);
            } else {
                observed.trouble.push(sentence);
            }
        }
        observed.seats.push(SeatResult {
            host,
            outcome,
            verified: result["verified"].as_bool(),
            seconds: match via {
                // An HTTP server's last write goes into its own buffer; only the client's
                // receipt has the time of the last byte.
                Via::Http => result["seconds_client"].as_f64(),
                _ => result["seconds_server"].as_f64(),
            },
            seconds_verified: result["seconds_verified"].as_f64(),
            bytes: result["bytes_client"].as_u64(),
            bytes_from_server: result["bytes_from_server"].as_u64(),
            bytes_from_peers: result["bytes_from_peers"].as_u64(),
        });
    }
    if via == Via::Http {
        observed.makespan_s = observed.seconds().reduce(f64::max);
    }
    Ok(())
}

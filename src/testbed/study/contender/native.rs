//! gatecast's own ways as contenders: `gatecast serve` on host 0, `gatecast fetch` on the others.
//!
//! All ways share one gate, one control connection and one session document, so one contender
//! serves them all: what this program can send, a study can measure.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use serde_json::Value;

use crate::error::Error;
use crate::error::Result;
use crate::net::clock;
use crate::proto::udp::packet;
use crate::report::json::SCHEMA;
use crate::session::Via;
use crate::testbed::study::bound::Bound;
use crate::testbed::study::contender::Carrier;
use crate::testbed::study::contender::Contender;
use crate::testbed::study::contender::Observed;
use crate::testbed::study::contender::RunSpec;
use crate::testbed::study::contender::SeatReport;
use crate::testbed::study::process_group::ProcessGroup;
use crate::text::escape;

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
        }
    }

    fn carrier(&self) -> Carrier {
        match self.via {
            Via::Tcp | Via::Http | Via::Swarm => Carrier::Tcp,
            Via::Udp | Via::Raw | Via::Multicast => Carrier::Udp {
                // Multicast repairs with combined blocks, whose numbers take some room.
                block: packet::block_len(packet::DATAGRAM, self.via == Via::Multicast),
            },
        }
    }

    fn run(&self, job: &RunSpec<'_>, stop: &AtomicBool) -> Result<Observed> {
        let deadline = clock::now().after(job.limit);
        let mut group = ProcessGroup::new(job.folder);
        let address = format!("{}:{PORT}", job.server.address);
        let count = job.clients.len().to_string();
        let mut serve = Command::new(&self.program);
        serve
            .arg("serve")
            .arg(job.file)
            .args(["--listen", &address, "--clients", &count])
            .args(["--via", self.via.word(), "--max-wait", MUSTER])
            .args(["--one-off", "--json", "--log-dir"])
            .arg(job.folder.join("logs"));
        if let Some(name) = &self.congestion {
            serve.args(["--congestion", name]);
        }
        let server = group.start("serve", job.server, &mut serve, false)?;
        let is_up = group.wait(deadline, stop, |group| {
            Ok(group.ended(server).is_some() || job.server.listens(PORT)?)
        })?;
        if !is_up || group.ended(server).is_some() {
            let why = group.last_error_line(server);
            return Err(Error::refused(
                "the server",
                format!("it did not start: {why}"),
            ));
        }
        let mut fetches = Vec::new();
        for (number, host) in (1..).zip(job.clients) {
            let mut fetch = Command::new(&self.program);
            fetch
                .args(["fetch", &address, "--group", &count])
                .args(["--via", self.via.word(), "--retry", "10s"])
                .args(["--name", &format!("h{number}"), "--json", "--out"])
                .arg(job.folder.join(format!("h{number}")));
            fetches.push(group.start(&format!("h{number}"), host, &mut fetch, false)?);
        }
        let clients_ended = group.wait(deadline, stop, |group| {
            Ok(fetches.iter().all(|&place| group.ended(place).is_some()))
        })?;
        let mut observed = Observed::default();
        if !clients_ended {
            let limit = job.limit.as_secs();
            observed
                .trouble
                .push(format!("it did not end within {limit} s"));
        }
        // Behind its clients it has a line to print; one that refused them all would wait on.
        let ended = group.wait(clock::now().after(AFTER), stop, |group| {
            Ok(group.ended(server).is_some())
        })?;
        if !ended {
            group.stop(server)?;
        }
        for (number, &place) in (1..).zip(&fetches) {
            match group.ended(place) {
                Some(end) if end.status.success() => {}
                Some(end) => {
                    let why = group.last_error_line(place);
                    let (status, why) = (end.status, if why.is_empty() { "-" } else { &why });
                    observed
                        .trouble
                        .push(format!("client {number}: {status}: {why}"));
                }
                None => observed
                    .trouble
                    .push(format!("client {number} did not end")),
            }
        }
        let document = group.stdout(server)?;
        match document.lines().find(|line| !line.trim().is_empty()) {
            Some(line) => self.read(line, job, &mut observed)?,
            None => {
                let why = group.last_error_line(server);
                observed
                    .trouble
                    .push(format!("the server printed no result: {why}"));
            }
        }
        observed.cpu_server_s = group.ended(server).map(|end| end.cpu_s);
        let cpu = fetches.iter().map(|&place| Some(group.ended(place)?.cpu_s));
        observed.cpu_clients_s = cpu.sum();
        Ok(observed)
    }
}

impl Native {
    /// Takes the session document.
    fn read(&self, line: &str, job: &RunSpec<'_>, observed: &mut Observed) -> Result<()> {
        let wrong = |what: String| Error::protocol("the server's document", what);
        let document: Value =
            serde_json::from_str(line).map_err(|error| wrong(format!("it is no JSON: {error}")))?;
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
            let address = result["client"].as_str().unwrap_or("");
            let address: Option<std::net::SocketAddr> = address.parse().ok();
            let host = match address {
                Some(std::net::SocketAddr::V4(v4)) => job.host_of(*v4.ip()),
                _ => 0,
            };
            let outcome = result["outcome"].as_str().unwrap_or("-").to_owned();
            if let Some(reason) = result["reason"].as_str() {
                let sentence = format!("client {host}: {outcome}: {}", escape(reason));
                match outcome == "complete" {
                    true => observed.disturbed.push(sentence),
                    false => observed.trouble.push(sentence),
                }
            }
            observed.seats.push(SeatReport {
                host,
                outcome,
                verified: result["verified"].as_bool(),
                seconds: match self.via {
                    // An HTTP server's last write goes into its own buffer; only a receipt tells when
                    // the last byte was there.
                    Via::Http => result["seconds_client"].as_f64(),
                    _ => result["seconds_server"].as_f64(),
                },
                seconds_verified: result["seconds_verified"].as_f64(),
                bytes: result["bytes_client"].as_u64(),
                bytes_from_server: result["bytes_from_server"].as_u64(),
                bytes_from_peers: result["bytes_from_peers"].as_u64(),
            });
        }
        if self.via == Via::Http {
            observed.makespan_s = observed.seconds().reduce(f64::max);
        }
        Ok(())
    }
}

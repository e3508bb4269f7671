//! What a study found, `gatecast.study/1`: written after every run, and read to take it up again.
//!
//! Every run is kept as it was observed; the rows are computed from the runs and nothing else.
//! Names and units of fields are a contract: fields may join, none changes. Unknown is `null`.

use std::{fmt, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    net::text_file,
    proto::udp::packet,
    report::median_range::{self, MedianRange},
    testbed::{
        star::{
            calibrate::{self, Calibration},
            host::{Host, LinkBytes},
        },
        study::{
            bound::Capacity,
            contender::{Contender, Observed, PayloadKind, SeatResult},
            environment::Environment,
            grid::{Cell, Grid},
        },
    },
    units::Rate,
};

/// The schema's name and version.
pub const SCHEMA: &str = "gatecast.study/1";

/// The document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Results {
    /// [`SCHEMA`].
    pub schema: String,
    /// Where it was made.
    pub environment: Environment,
    /// What it measures.
    pub grid: Grid,
    /// What makes the links besides their nominal rate: two studies that differ in it are two.
    pub links: String,
    /// The links of each star, as measured.
    pub calibration: Vec<StarResult>,
    /// One for each combination that has been measured.
    pub rows: Vec<StudyRow>,
    /// Every run.
    pub measurements: Vec<StudyRun>,
}

/// One star's links.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StarResult {
    /// Nominal rate, Mbit/s.
    pub rate_nominal_mbit: f64,
    /// Loss asked for, a fraction.
    pub loss: f64,
    /// What was measured.
    #[serde(flatten)]
    pub links: Calibration,
    /// Why the links do not carry all at once what each carries alone; `null` when they do.
    pub short_together: Option<String>,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyRun {
    /// What was measured.
    pub cell: Cell,
    /// The number of the repeat, from 0.
    pub repeat: u32,
    /// The bound with calibrated rates, seconds; `null` in a room, where nobody knows the rates.
    pub bound_s: Option<f64>,
    /// The bound with nominal rates, seconds; `null` in a room.
    pub bound_nominal_s: Option<f64>,
    /// What happened; `null` when nothing could be observed.
    pub observed: Option<Observed>,
    /// Why nothing could be observed.
    pub failed: Option<String>,
    /// What each host's link carried during the run, the server's first, bytes with headers. Nothing in
    /// a room.
    pub carried: Vec<LinkBytes>,
    /// CPU seconds of other programs of this machine during the run.
    pub cpu_others_s: Option<f64>,
    /// How long the run took with all around it, seconds.
    pub took_s: f64,
}

/// One combination, all its runs together. Figures are of the runs in which every client proved
/// its copy; `verified` says whether those were all.
// Over 15 fields because it is one object of a documented schema, a key each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyRow {
    /// The way.
    pub via: String,
    /// Number of clients.
    pub clients: u16,
    /// File size.
    pub bytes: u64,
    /// Nominal rate, Mbit/s; `null` in a room.
    pub rate_nominal_mbit: Option<f64>,
    /// Loss that was asked for, a fraction.
    pub loss: f64,
    /// How many runs there were.
    pub runs: usize,
    /// How many of them failed: a client without a proven copy, or figures that do not add up.
    pub failed: usize,
    /// How many of the others the machine disturbed, by their own word; their figures count.
    #[serde(default)]
    pub disturbed: usize,
    /// Release until the last client's last byte.
    pub makespan_s: Option<MedianRange>,
    /// The least makespan that the calibrated links allow; `null` in a room.
    pub bound_s: Option<f64>,
    /// The same with nominal rates.
    pub bound_nominal_s: Option<f64>,
    /// Bound over median makespan.
    pub efficiency: Option<f64>,
    /// Every client of every run proved its copy.
    pub verified: bool,
    /// Release until the last client's proof, median, seconds.
    pub verified_s: Option<f64>,
    /// Mean of the clients' times, median over the runs, seconds.
    pub client_mean_s: Option<f64>,
    /// How much earlier the first client was done than the last, as a share of the last's time;
    /// median over the runs.
    pub spread: Option<f64>,
    /// File bytes that had to be delivered: clients times file size.
    pub payload_bytes: u64,
    /// Bytes from the server's link, with headers, median.
    pub server_sent_bytes: Option<f64>,
    /// Bytes from all clients' links, with headers (of TCP its acknowledgements), median.
    pub clients_sent_bytes: Option<f64>,
    /// File bytes from the server, median; `null` where the way does not count them.
    pub from_server_bytes: Option<f64>,
    /// File bytes from other clients, median; `null` where the way does not count them.
    pub from_peers_bytes: Option<f64>,
    /// CPU seconds of the server, median.
    pub cpu_server_s: Option<f64>,
    /// CPU seconds of all clients, median.
    pub cpu_clients_s: Option<f64>,
    /// CPU seconds of other programs of this machine, median.
    pub cpu_others_s: Option<f64>,
}

/// What a DATA datagram has beside file bytes: its own header, UDP, IPv4, Ethernet.
const UDP_HEADERS: f64 = packet::DATA_HEADER as f64 + 8.0 + 20.0 + 14.0;

/// Largest results file, bytes: 100,000 runs of some kilobytes.
const FILE_MAX: u64 = 1 << 30;

impl Results {
    /// Of a study that has not measured anything yet.
    pub fn new(environment: Environment, grid: Grid, links: String) -> Self {
        Self {
            schema: SCHEMA.to_owned(),
            environment,
            grid,
            links,
            calibration: Vec::new(),
            rows: Vec::new(),
            measurements: Vec::new(),
        }
    }

    /// Reads a document.
    ///
    /// # Errors
    /// No such file, too large, or not a study.
    pub fn read(path: &Path) -> Result<Self> {
        Self::parse(&text_file::read(path, FILE_MAX)?, path.display())
    }

    /// Reads the text of the document `at`.
    ///
    /// # Errors
    /// Not a study.
    pub fn parse(text: &str, at: impl fmt::Display) -> Result<Self> {
        let results: Self =
            serde_json::from_str(text).map_err(|error| Error::protocol(&at, error.to_string()))?;
        if results.schema != SCHEMA {
            let schema = crate::text::escape(&results.schema);
            let what = format!("its schema is {schema}, not {SCHEMA}");
            return Err(Error::protocol(at, what));
        }
        Ok(results)
    }

    /// Writes the document, so that a reader never finds half of it.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|error| Error::protocol(path.display(), error.to_string()))?;
        text.push('\n');
        let part = path.with_extension("part");
        fs::write(&part, text)
            .and_then(|()| fs::rename(&part, path))
            .map_err(Error::io("write the results", path.display()))
    }

    /// The run of this combination and repeat, if it was made.
    pub fn run(&self, cell: &Cell, repeat: u32) -> Option<&StudyRun> {
        self.measurements.iter().find(|run| run.cell == *cell && run.repeat == repeat)
    }

    /// Adds a run, and computes its row anew.
    pub fn add(&mut self, run: StudyRun) {
        let cell = run.cell.clone();
        self.measurements.push(run);
        let row = row(&cell, &self.measurements);
        match self.rows.iter_mut().find(|row| row.is_of(&cell)) {
            Some(there) => *there = row,
            None => self.rows.push(row),
        }
        let place = |row: &StudyRow| self.grid.ways.iter().position(|way| *way == row.via);
        self.rows.sort_by(|a, b| {
            let order = |row: &StudyRow| (row.bytes, row.clients, place(row));
            let rate = |row: &StudyRow| row.rate_nominal_mbit.unwrap_or(0.0);
            let links = rate(a).total_cmp(&rate(b)).then(a.loss.total_cmp(&b.loss));
            links.then(order(a).cmp(&order(b)))
        });
    }

    /// True when every combination was proven in every run, and there was one.
    pub fn all_proven(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.verified)
    }
}

impl StudyRun {
    /// True when every client proved its copy and the figures add up.
    pub fn is_proven(&self) -> bool {
        let proven = |observed: &Observed| observed.is_proven(self.cell.clients);
        self.observed.as_ref().is_some_and(proven)
    }

    /// Why the run counts as failed, one clause.
    pub fn trouble(&self) -> Option<&str> {
        let observed = self.observed.as_ref();
        let first = observed.and_then(|observed| observed.trouble.first());
        self.failed.as_deref().or_else(|| first.map(String::as_str))
    }
}

impl StudyRow {
    fn is_of(&self, cell: &Cell) -> bool {
        self.via == cell.way
            && self.clients == cell.clients
            && self.bytes == cell.bytes
            && self.rate_nominal_mbit == cell.rate_mbit()
            && self.loss == cell.loss_fraction()
    }
}

impl Cell {
    /// Nominal rate, Mbit/s, where the links have one.
    pub fn rate_mbit(&self) -> Option<f64> {
        (self.rate > 0).then(|| Rate(self.rate).mbit())
    }

    /// Loss as a fraction.
    pub fn loss_fraction(&self) -> f64 {
        f64::from(self.loss) / 1e6
    }
}

/// The least makespans of a run, with calibrated rates and with nominal ones, seconds.
///
/// Loss takes its share of what every link delivers: a sender that repeats nothing but what was
/// lost still sends `1 / (1 - loss)` as much.
pub fn bounds(
    way: &dyn Contender,
    cell: &Cell,
    hosts: &[Host],
    measured: &Calibration,
) -> (f64, f64) {
    let nominal = nominal(&hosts[..=usize::from(cell.clients)]);
    // The share of a nominal rate that is file bytes.
    let share = match way.carrier() {
        PayloadKind::Tcp => {
            calibrate::TCP_SHARE * measured.tcp_alone_mbit / measured.tcp_expected_mbit
        }
        PayloadKind::Udp { block } => {
            let block = block as f64;
            measured.udp_alone_mbit / measured.udp_expected_mbit * block / (block + UDP_HEADERS)
        }
    };
    let calibrated = nominal.scaled(share * (1.0 - cell.loss_fraction()));
    let clients = u64::from(cell.clients);
    let of = |links: &Capacity| way.bound().seconds(cell.bytes, clients, links);
    (of(&calibrated), of(&nominal))
}

/// The links as asked for, bytes per second, the server's first.
fn nominal(hosts: &[Host]) -> Capacity {
    let (server, clients) = hosts.split_first().expect("a run has a server");
    let downs = clients.iter().map(|host| host.link.down.bytes_per_second());
    Capacity {
        server_up: server.link.up.bytes_per_second(),
        peers_up: clients.iter().map(|host| host.link.up.bytes_per_second()).sum(),
        least_down: downs.fold(f64::INFINITY, f64::min),
    }
}

/// The row of `cell` from all runs.
// Exact to 2^53 bytes.
fn row(cell: &Cell, all: &[StudyRun]) -> StudyRow {
    let runs: Vec<&StudyRun> = all.iter().filter(|run| run.cell == *cell).collect();
    let proven = runs.iter().filter(|run| run.is_proven());
    let good: Vec<(&StudyRun, &Observed)> =
        proven.filter_map(|run| Some((*run, run.observed.as_ref()?))).collect();
    let range = |of: &dyn Fn(&StudyRun, &Observed) -> Option<f64>| {
        MedianRange::with_interval(good.iter().filter_map(|(run, observed)| of(run, observed)))
    };
    let median = |of: &dyn Fn(&StudyRun, &Observed) -> Option<f64>| Some(range(of)?.median);
    let sum = |observed: &Observed, of: fn(&SeatResult) -> Option<u64>| {
        observed.seats.iter().map(|seat| of(seat).map(|bytes| bytes as f64)).sum::<Option<f64>>()
    };
    let makespan_s = range(&|_, observed| observed.makespan_s);
    // Stars are built and calibrated anew when a study is taken up again: the row's bound is the
    // middle one, as its makespan is.
    let bound = |of: fn(&StudyRun) -> Option<f64>| {
        Some(MedianRange::with_interval(runs.iter().filter_map(|run| of(run)))?.median)
    };
    let bound_s = bound(|run| run.bound_s);
    StudyRow {
        via: cell.way.clone(),
        clients: cell.clients,
        bytes: cell.bytes,
        rate_nominal_mbit: cell.rate_mbit(),
        loss: cell.loss_fraction(),
        runs: runs.len(),
        failed: runs.len() - good.len(),
        disturbed: good.iter().filter(|(_, observed)| !observed.disturbed.is_empty()).count(),
        makespan_s,
        bound_s,
        bound_nominal_s: bound(|run| run.bound_nominal_s),
        efficiency: makespan_s
            .filter(|makespan| makespan.median > 0.0)
            .and_then(|makespan| Some(bound_s? / makespan.median)),
        verified: !runs.is_empty() && good.len() == runs.len(),
        verified_s: median(&|_, observed| observed.verified_s),
        client_mean_s: median(&|_, observed| median_range::mean(observed.seconds())),
        spread: median(&|_, observed| observed.spread()),
        payload_bytes: cell.bytes * u64::from(cell.clients),
        server_sent_bytes: median(&|run, _| run.carried.first().map(|link| link.up as f64)),
        clients_sent_bytes: median(&|run, _| {
            let clients = run.carried.get(1..)?;
            Some(clients.iter().map(|link| link.up as f64).sum())
        }),
        from_server_bytes: median(&|_, observed| sum(observed, |seat| seat.bytes_from_server)),
        from_peers_bytes: median(&|_, observed| sum(observed, |seat| seat.bytes_from_peers)),
        cpu_server_s: median(&|_, observed| observed.cpu_server_s),
        cpu_clients_s: median(&|_, observed| observed.cpu_clients_s),
        cpu_others_s: median(&|run, _| run.cpu_others_s),
    }
}

#[cfg(test)]
pub(crate) mod tests;

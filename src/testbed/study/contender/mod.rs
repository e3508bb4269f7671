//! What a study compares: something that brings a file from host 0 to the other hosts.
//!
//! A [`Contender`] starts real programs on real hosts and says what each client got and when.
//! [`native`] is every way of gatecast. Another program becomes a contender by this trait, as
//! [`nginx`] is, and the study does not change.

pub mod multicast;
pub mod native;
pub mod nginx;
pub mod torrent;

use std::{
    fmt, fs,
    fs::File,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    error::{Error, Result},
    net::clock,
    report::median_range::MedianRange,
    testbed::{star::host::Host, study::bound::Bound},
    transfer::Outcome,
    units::Moment,
};

/// A way to measure.
pub trait Contender: fmt::Debug + Send + Sync {
    /// Its name in tables and documents.
    fn name(&self) -> &str;

    /// The bound that it is compared with.
    fn bound(&self) -> Bound;

    /// What carries its bytes, and so the goodput that the bound is made of.
    fn carrier(&self) -> PayloadKind {
        PayloadKind::Tcp
    }

    /// Checks before the first run that what it needs is there.
    ///
    /// # Errors
    /// What is missing.
    fn check(&self) -> Result<()> {
        Ok(())
    }

    /// Moves the file once.
    ///
    /// # Errors
    /// It could not start, there is no result, or `stop` was set. What happens to single
    /// clients is in what it returns.
    fn run(&self, job: &RunSpec<'_>, stop: &AtomicBool) -> Result<Observed>;
}

/// What carries bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadKind {
    /// TCP connections.
    Tcp,
    /// Full DATA datagrams of gatecast's UDP ways.
    Udp {
        /// File bytes in each.
        block: usize,
    },
}

/// One run to be made.
#[derive(Clone, Copy, Debug)]
pub struct RunSpec<'a> {
    /// Host 0.
    pub server: &'a Host,
    /// The other hosts, one client each.
    pub clients: &'a [Host],
    /// The file, readable from every host.
    pub file: &'a Path,
    /// Its size.
    pub bytes: u64,
    /// Its digest.
    pub sha1: Digest,
    /// A folder for this run alone.
    pub folder: &'a Path,
    /// How long it may take.
    pub limit: Duration,
}

/// What was observed of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    /// Release until the last client's last byte, seconds.
    pub makespan_s: Option<f64>,
    /// Release until the last client's proof, seconds.
    pub verified_s: Option<f64>,
    /// Last client's first byte minus first client's, microseconds, at the server.
    pub skew_us: Option<u64>,
    /// CPU seconds of the server.
    pub cpu_server_s: Option<f64>,
    /// CPU seconds of all clients.
    pub cpu_clients_s: Option<f64>,
    /// How the server sent, in its own words.
    pub sender: Option<String>,
    /// Each client.
    pub seats: Vec<SeatResult>,
    /// What went wrong, where something did.
    pub trouble: Vec<String>,
    /// What made the figures worse than they are and no copy wrong: the machine stood still.
    #[serde(default)]
    pub disturbed: Vec<String>,
}

/// What one client got.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SeatResult {
    /// Its host.
    pub host: usize,
    /// `complete`, or how it ended otherwise.
    pub outcome: String,
    /// The copy was proven to be the file.
    pub verified: Option<bool>,
    /// Release until its last byte, seconds.
    pub seconds: Option<f64>,
    /// Release until its proof, seconds.
    pub seconds_verified: Option<f64>,
    /// Payload bytes that it received.
    pub bytes: Option<u64>,
    /// Payload bytes from the server, where the way counts them.
    pub bytes_from_server: Option<u64>,
    /// Payload bytes from other clients, where the way counts them.
    pub bytes_from_peers: Option<u64>,
}

impl Observed {
    /// True when `clients` clients hold a proven copy and nothing was wrong with the figures.
    pub fn is_proven(&self, clients: u16) -> bool {
        let proven = self.seats.iter().filter(|seat| seat.verified == Some(true));
        proven.count() == usize::from(clients)
            && self.makespan_s.is_some()
            && self.trouble.is_empty()
    }

    /// Adds a client without a receipt: its file `copy`, by our own digest of it. `seconds` is the
    /// time from the release to its last byte, `None` when it did not come to its end, and `why`
    /// what it complained of.
    fn add_copy(
        &mut self,
        spec: &RunSpec<'_>,
        (host, copy): (usize, &Path),
        seconds: Option<f64>,
        why: &str,
    ) {
        let digest = File::open(copy).and_then(Digest::of_reader).ok();
        let outcome = match seconds {
            Some(_) if digest == Some(spec.sha1) => Outcome::Complete,
            Some(_) => Outcome::Corrupt,
            None => Outcome::Cut,
        };
        if outcome != Outcome::Complete {
            let separator = if why.is_empty() { "" } else { ": " };
            self.trouble.push(format!("client {host}: {outcome}{separator}{why}"));
        }
        self.seats.push(SeatResult {
            host,
            outcome: outcome.to_string(),
            verified: Some(outcome == Outcome::Complete),
            seconds,
            bytes: copy.metadata().ok().map(|about| about.len()),
            ..SeatResult::default()
        });
        self.makespan_s = self.seconds().reduce(f64::max);
    }

    /// The clients' times, release to last byte, seconds.
    pub fn seconds(&self) -> impl Iterator<Item = f64> {
        self.seats.iter().filter_map(|seat| seat.seconds)
    }

    /// How much earlier the first client was done than the last, as a share of the last's time.
    pub fn spread(&self) -> Option<f64> {
        let times = MedianRange::of(self.seconds())?;
        (times.high > 0.0).then(|| (times.high - times.low) / times.high)
    }
}

impl RunSpec<'_> {
    /// When the run is over at the latest.
    fn deadline(&self) -> Moment {
        clock::now().after(self.limit)
    }

    fn not_in_time(&self) -> String {
        format!("it did not end within {} s", self.limit.as_secs())
    }

    /// Makes a folder in that of the run.
    fn make_folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::create_dir_all(&path).map_err(Error::io("make a folder", path.display()))?;
        Ok(path)
    }
}

//! One session for the user of the library: its figures, and its table as text.

use std::fmt;

use crate::{
    report::{
        session_table::{self, Rows},
        verdict,
    },
    session::Via,
    transfer::{Record, Transfer},
};

/// One session: what was sent, to how many, and how it ended for each client. Its `Display` is the
/// table that `gatecast` prints, and as its last line how many copies are proven.
///
/// A server's report has every client of the session; a client's has those of its own process.
#[derive(Clone, Debug)]
pub struct SessionReport {
    pub(crate) record: Record,
    is_of_clients: bool,
}

/// How a session ended for one client.
#[derive(Clone, Copy, Debug)]
pub struct SeatReport<'a>(&'a Transfer);

impl SessionReport {
    /// The server's report.
    pub(crate) fn new(record: Record) -> Self {
        Self { record, is_of_clients: false }
    }

    /// The report of the clients of one process.
    pub(crate) fn of_clients(record: Record) -> Self {
        Self { record, is_of_clients: true }
    }

    /// The way the bytes travelled.
    pub fn via(&self) -> Via {
        self.record.via
    }

    /// The file's name.
    pub fn file(&self) -> &str {
        self.record.file.name.as_str()
    }

    /// The file's size in bytes.
    pub fn bytes(&self) -> u64 {
        self.record.file.bytes
    }

    /// How many clients the whole session has.
    pub fn clients(&self) -> u16 {
        self.record.clients
    }

    /// How many clients, of those in this report, proved that their copy is the file.
    pub fn proven(&self) -> usize {
        self.record.proven()
    }

    /// The figures that contradict each other, a sentence each; empty where all hold.
    pub fn broken_identities(&self) -> Vec<String> {
        self.record.broken_identities()
    }

    /// The clients in this report, by seat.
    pub fn seats(&self) -> impl Iterator<Item = SeatReport<'_>> {
        self.record.transfers.iter().map(SeatReport)
    }
}

impl fmt::Display for SessionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = &self.record;
        let (table, seats) = if self.is_of_clients {
            (session_table::client_session(record, Rows::Failures, None), record.transfers.len())
        } else {
            (session_table::session(record, Rows::Failures, None), record.clients.into())
        };
        f.write_str(&table)?;
        f.write_str(&verdict::line_of_session(record, seats, None))
    }
}

impl SeatReport<'_> {
    /// The seat, from 1.
    pub fn seat(&self) -> u16 {
        self.0.seat.0
    }

    /// What the client calls itself. It comes from outside: escape it before you print it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether the client proved that its copy is the file.
    pub fn is_proven(&self) -> bool {
        self.0.is_proven()
    }

    /// Why it ended early, or what else is to be said of it.
    pub fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    /// Payload bytes that the client received.
    pub fn bytes(&self) -> Option<u64> {
        self.0.bytes_client
    }

    /// Its payload rate, Mbit/s, from the release to its last byte, by the client's clock.
    pub fn rate_mbit(&self) -> Option<f64> {
        self.0.rate_client_mbit()
    }

    /// In a swarm, payload bytes that came from the server.
    pub fn bytes_from_server(&self) -> Option<u64> {
        self.0.counts.bytes_from_server
    }

    /// In a swarm, payload bytes that came from the other clients.
    pub fn bytes_from_peers(&self) -> Option<u64> {
        self.0.counts.bytes_from_peers
    }
}

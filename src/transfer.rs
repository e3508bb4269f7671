//! How one seat's bytes moved, and the record of a whole session.
//!
//! A seat's failure is data here ([`Outcome`]), never an error that ends the session. Every
//! figure that was not observed is `None`, shown as `-`, never as zero. Client times come from
//! the client's clock and server times from the server's; they are never mixed.

mod identities;

use std::{fmt, net::SocketAddr, str::FromStr, time::Duration};

use time::OffsetDateTime;

use crate::{
    session::{FileInfo, SeatId, SessionId, Via},
    units::{InvalidValue, Moment, mbit_per_second, micros},
};

/// How a transfer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// Every byte arrived.
    Complete,
    /// The transfer ended before the last byte.
    #[default]
    Cut,
    /// Every byte arrived and the digest is another.
    Corrupt,
    /// A deadline passed.
    TimedOut,
    /// The client was refused, or left before the release.
    Refused,
}

/// Names the clock that a [`Moment`] was read from: equal ids mean comparable moments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClockId(pub u64);

/// One seat's transfer, as the session log holds it.
// Over 15 fields because it is one row of the session log, a column each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transfer {
    /// The seat.
    pub seat: SeatId,
    /// What the client calls itself; not escaped.
    pub name: String,
    /// The client's address.
    pub client: Option<SocketAddr>,
    /// The server's address.
    pub server: Option<SocketAddr>,
    /// How it ended.
    pub outcome: Outcome,
    /// Why, when it is not simply complete; not escaped.
    pub reason: Option<String>,
    /// True when the client attested the file's own digest of what it stored; `None` when this
    /// kind of client cannot attest.
    pub verified: Option<bool>,
    /// Payload bytes that the client received in this session.
    pub bytes_client: Option<u64>,
    /// Payload bytes that the server sent in this session.
    pub bytes_server: Option<u64>,
    /// Bytes that the client already had from an earlier session.
    pub bytes_resumed: u64,
    /// GO to the last byte, by the client's clock.
    pub seconds_client: Option<Duration>,
    /// Release to the client's LAST, by the server's clock.
    pub seconds_server: Option<Duration>,
    /// Release to the client's word that the digest is known, by the server's clock; on a
    /// client's own record, GO to the digest.
    pub seconds_verified: Option<Duration>,
    /// GO to the file being safe on disk (fsync), by the client's clock.
    pub seconds_durable: Option<Duration>,
    /// Release to this seat's thread having left the barrier, server's clock.
    pub woke: Option<Duration>,
    /// Release to the first payload byte written, server's clock.
    pub first_server: Option<Duration>,
    /// When the first payload byte came, by the client's clock.
    pub first_client: Option<(ClockId, Moment)>,
    /// What a way counts beyond bytes.
    pub counts: Counts,
    /// Where its time went.
    pub evidence: Evidence,
    /// How far it was when.
    pub samples: Vec<(u64, u64)>,
}

/// Makes a type of figures and everything that must name each of them, in one order, so that a
/// message, a log line and a document cannot forget one.
macro_rules! counts {
    (
        $(#[doc = $about:literal])+ $type:ident:
        $($(#[doc = $doc:literal])+ $name:ident: $long:literal,)+
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct $type {
            $($(#[doc = $doc])+ pub $name: Option<u64>,)+
        }

        impl $type {
            /// The names, as messages, log lines and documents have them.
            pub const NAMES: [&'static str; [$(stringify!($name)),+].len()] =
                [$(stringify!($name)),+];

            /// The names with their units, as a table for other programs has them.
            pub const LONG_NAMES: [&'static str; Self::NAMES.len()] = [$($long),+];

            /// The values, in the order of the names.
            pub fn values(&self) -> [Option<u64>; Self::NAMES.len()] {
                [$(self.$name),+]
            }

            /// Figures of these values, in the order of the names.
            pub fn from_values(values: [Option<u64>; Self::NAMES.len()]) -> Self {
                let [$($name),+] = values;
                Self { $($name),+ }
            }
        }
    };
}

pub mod auto;
mod evidence;
pub mod samples;

pub use self::{auto::AutoChoice, evidence::Evidence};

counts! {
    /// Counters that only some ways have. Those of datagrams add up, which every session's
    /// sums are held to: what was offered is unique, lost or unheard; what was lost was lost
    /// in the server's queue, the network or the client's buffer.
    Counts:
    /// Datagrams that never came to the client's program, wherever they were lost.
    lost: "lost_datagrams",
    /// Datagrams received more than once.
    duplicate: "duplicate_datagrams",
    /// Datagrams out of order (RFC 4737).
    reordered: "reordered_datagrams",
    /// Inter-arrival jitter (RFC 3550, section 6.4.1), microseconds.
    jitter_us: "jitter_us",
    /// Payload bytes sent again.
    retransmitted: "retransmitted_bytes",
    /// Payload bytes that came from the server.
    bytes_from_server: "from_server_bytes",
    /// Payload bytes that came from other peers.
    bytes_from_peers: "from_peers_bytes",
    /// Datagrams that the server's program made for this client.
    offered: "offered_datagrams",
    /// Of the lost ones: refused by the server's own queue.
    local_drop: "local_drop_datagrams",
    /// Of the lost ones: lost between the two machines.
    network_lost: "network_lost_datagrams",
    /// Of the lost ones: dropped by the client's machine, for want of room in its buffer. The system
    /// counts whatever comes to the socket, so strangers' datagrams, copies and questions that were
    /// dropped are in it too; where they make it more than what was lost, it is unknown.
    host_rx_drop: "host_rx_drop_datagrams",
    /// Datagrams that the client's program got, from anybody.
    delivered: "delivered_datagrams",
    /// Different datagrams of this session among them.
    unique: "unique_datagrams",
    /// Datagrams of this session that cannot be true.
    corrupt: "corrupt_datagrams",
    /// Datagrams of others.
    foreign: "foreign_datagrams",
    /// Datagrams that came after they had been given up for lost.
    late: "late_datagrams",
    /// Datagrams still on their way when the client had everything.
    unheard: "unheard_datagrams",
    /// The most numbers that a reordered datagram came behind.
    reorder_extent: "reorder_extent_datagrams",
    /// The most datagrams lost in a row.
    loss_burst: "loss_burst_datagrams",
    /// Half of the differences in transit time that jitter smooths are at most this, microseconds.
    jitter_p50_us: "jitter_p50_us",
    /// 95 of 100 of them.
    jitter_p95_us: "jitter_p95_us",
    /// 99 of 100 of them.
    jitter_p99_us: "jitter_p99_us",
    /// Mean one-way delay above the least one, microseconds: what queues added.
    delay_us: "delay_us",
    /// The largest one-way delay above the least one, microseconds.
    delay_max_us: "delay_max_us",
}

/// A finished session: what the log holds and every face shows.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// The session.
    pub session: SessionId,
    /// The way the bytes travelled.
    pub via: Via,
    /// The file.
    pub file: FileInfo,
    /// The number of seats asked for.
    pub clients: u16,
    /// When the gate opened, as a label; `None` when it never did.
    pub released_at: Option<OffsetDateTime>,
    /// How the server sent, for instance `sendfile, bbr`.
    pub sender: Option<String>,
    /// Both ends proved a key to each other before any seat was given.
    pub key: bool,
    /// How the way was chosen, where the server was to choose it.
    pub auto: Option<AutoChoice>,
    /// The machine and the version that say all this, in words.
    pub machine: Option<String>,
    /// One entry per seat, in seat order, and after them clients that left before the release.
    pub transfers: Vec<Transfer>,
}

/// The figures of a whole session.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Global {
    /// Payload bytes that all clients received.
    pub bytes: Option<u64>,
    /// Release to the last LAST.
    pub seconds: Option<Duration>,
    /// `bytes` over `seconds`, Mbit/s.
    pub rate_mbit: Option<f64>,
    /// Release to the last digest.
    pub seconds_verified: Option<Duration>,
}

/// Why the row of a client is there that a roster names and that had no seat when the muster ended.
pub const ABSENT: &str = "did not come";

impl Outcome {
    /// All outcomes.
    pub const ALL: [Self; 5] =
        [Self::Complete, Self::Cut, Self::Corrupt, Self::TimedOut, Self::Refused];

    /// The word in logs and documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Cut => "cut",
            Self::Corrupt => "corrupt",
            Self::TimedOut => "timed_out",
            Self::Refused => "refused",
        }
    }
}

impl Transfer {
    /// A transfer of which nothing is known yet but who it is for.
    pub fn new(seat: SeatId, name: impl Into<String>, outcome: Outcome) -> Self {
        Self { seat, name: name.into(), outcome, ..Self::default() }
    }

    /// Ends the transfer otherwise than complete.
    pub fn fail(&mut self, outcome: Outcome, reason: impl Into<String>) {
        self.outcome = outcome;
        self.reason = Some(reason.into());
    }

    /// True when nobody came of this name.
    pub fn is_absent(&self) -> bool {
        self.client.is_none() && self.reason.as_deref() == Some(ABSENT)
    }

    /// True when the client holds the whole file and proved it.
    pub fn is_proven(&self) -> bool {
        self.outcome == Outcome::Complete && self.verified == Some(true)
    }

    /// Mbit/s by the client's clock.
    pub fn rate_client_mbit(&self) -> Option<f64> {
        mbit_per_second(self.bytes_client?, self.seconds_client?)
    }

    /// Mbit/s by the server's clock.
    pub fn rate_server_mbit(&self) -> Option<f64> {
        mbit_per_second(self.bytes_server?, self.seconds_server?)
    }
}

impl Record {
    /// A session that has not been released, and in which nobody has ended yet.
    pub fn new(session: SessionId, via: Via, file: FileInfo, clients: u16) -> Self {
        Self {
            session,
            via,
            file,
            clients,
            released_at: None,
            sender: None,
            key: false,
            auto: None,
            machine: None,
            transfers: Vec::new(),
        }
    }

    /// Last seat's wake-up from the barrier minus first seat's, microseconds; `None` of fewer than
    /// two seats, as all skews.
    pub fn wake_skew_us(&self) -> Option<u64> {
        spread(self.transfers.iter().filter_map(|t| t.woke).map(micros))
    }

    /// Last seat's first payload byte minus first seat's, at the server's writes, microseconds;
    /// `None` for an empty file.
    pub fn skew_us(&self) -> Option<u64> {
        spread(self.transfers.iter().filter_map(|t| t.first_server).map(micros))
    }

    /// The same at the clients' reads; `None` unless every client that read a first byte did so
    /// by the same clock.
    pub fn skew_client_us(&self) -> Option<u64> {
        let mut firsts = self.transfers.iter().filter(|t| t.first_server.is_some());
        let clock = firsts.clone().find_map(|t| t.first_client)?.0;
        firsts
            .all(|t| t.first_client.is_none_or(|(id, _)| id == clock))
            .then(|| spread(self.transfers.iter().filter_map(|t| Some(t.first_client?.1.0))))?
    }

    /// The figures of the whole session.
    pub fn global(&self) -> Global {
        let complete = || self.transfers.iter().filter(|t| t.outcome == Outcome::Complete);
        let bytes = complete()
            .filter_map(|t| t.bytes_client.or(t.bytes_server))
            .reduce(|a, b| a.saturating_add(b));
        let seconds = complete().filter_map(|t| t.seconds_server.or(t.seconds_client)).max();
        Global {
            bytes,
            seconds,
            rate_mbit: bytes.zip(seconds).and_then(|(bytes, span)| mbit_per_second(bytes, span)),
            seconds_verified: complete().filter_map(|t| t.seconds_verified).max(),
        }
    }

    /// True when as many clients as were asked for hold a proven copy.
    pub fn all_proven(&self) -> bool {
        self.proven() == usize::from(self.clients)
    }

    /// How many clients hold a proven copy.
    pub fn proven(&self) -> usize {
        self.transfers.iter().filter(|t| t.is_proven()).count()
    }
}

impl Counts {
    /// What of these a client `via` can know. Whatever else it claims is not a figure of its way,
    /// and is left out: it could hide a sum that does not hold, or break one that does.
    #[must_use]
    pub fn of_client(self, via: Via) -> Self {
        match via {
            Via::Tcp | Via::Http => Self::default(),
            Via::Udp | Via::Raw | Via::Multicast => Self {
                retransmitted: None,
                bytes_from_server: None,
                bytes_from_peers: None,
                local_drop: None,
                network_lost: None,
                unheard: None,
                ..self
            },
            Via::Swarm | Via::Chain => Self {
                retransmitted: self.retransmitted,
                bytes_from_server: self.bytes_from_server,
                bytes_from_peers: self.bytes_from_peers,
                ..Self::default()
            },
        }
    }

    /// Of a hundred datagrams that the server's program made for the client, how many never came;
    /// `None` where it made none or nobody counts.
    pub fn loss_percent(&self) -> Option<f64> {
        let (lost, offered) = (self.lost?, self.offered?);
        (offered > 0).then(|| 100.0 * lost as f64 / offered as f64)
    }
}

/// Largest minus smallest; `None` of fewer than two.
fn spread(values: impl Iterator<Item = u64>) -> Option<u64> {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    match values[..] {
        [low, .., high] => Some(high - low),
        _ => None,
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Outcome {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::ALL.into_iter().find(|outcome| outcome.word() == text).ok_or_else(|| {
            InvalidValue::new("outcome", text, "complete, cut, corrupt, timed_out or refused")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_a_client_may_claim_are_those_of_its_via() {
        let kept = |via| {
            let all = Counts::from_values([Some(1); Counts::NAMES.len()]).of_client(via);
            let named = Counts::NAMES.into_iter().zip(all.values());
            named.filter_map(|(name, value)| value.map(|_| name)).collect::<Vec<_>>()
        };
        assert_eq!(kept(Via::Tcp), [""; 0]);
        assert_eq!(kept(Via::Http), [""; 0]);
        let of_swarm = ["retransmitted", "bytes_from_server", "bytes_from_peers"];
        assert_eq!(kept(Via::Swarm), of_swarm);
        assert_eq!(kept(Via::Chain), of_swarm);
        let of_server = ["local_drop", "network_lost", "unheard"];
        let of_datagrams: Vec<_> = Counts::NAMES
            .into_iter()
            .filter(|name| !of_swarm.contains(name) && !of_server.contains(name))
            .collect();
        for via in [Via::Udp, Via::Raw, Via::Multicast] {
            assert_eq!(kept(via), of_datagrams);
        }
    }
}

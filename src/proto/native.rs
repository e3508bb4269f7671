// Over 450 lines because each message is a type, and is written and read.
//! The native protocol's messages, `GATECAST/1`.
#![doc = include_str!("README.md")]

pub mod echo;
mod fields;
mod last_words;
pub mod probe;

use std::{net::IpAddr, time::Duration};

use crate::{
    digest::Digest,
    proto::{
        key::Challenge,
        line::{DecodeError, Fields, LineWriter},
    },
    session::{FileInfo, SeatId, SessionId, Via},
    text::{ClientName, FileName},
    transfer::{ClockId, Counts, Evidence, Outcome, auto::HeardStep},
    units::{Moment, micros},
};

pub use self::{
    fields::{ADDRESSES_MAX, FILES_MAX, ListEnd, REASON_MAX, SIZE_MAX},
    last_words::{LAST_WORDS_MAX, decode_last_words, encode_last_words},
};
use self::{
    fields::{
        addresses, clip, comma_separated, figures, file, file_fields, list_end, list_end_fields,
        optional_span, outcome, seats, span,
    },
    probe::{GroupProbe, burst, encode_heard, encode_probe, heard, probe, ways, ways_field},
};

/// The first line of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientHello {
    /// Asks for a seat.
    Join(Join),
    /// Asks what is offered.
    List,
    /// Asks what reaches it from the server, and the other way round.
    Echo,
    /// Asks the server to prove a key, and proves it before anything else is said.
    Challenge(Challenge),
}

/// A client's wish for a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The file; `None` takes the server's.
    pub file: Option<FileName>,
    /// How many clients the group has.
    pub group: u16,
    /// The way; `None` takes the server's.
    pub via: Option<Via>,
    /// What the client calls itself.
    pub name: ClientName,
    /// It can take a folder.
    pub takes_trees: bool,
    /// The ways of which the server may choose one; none of a client that cannot be measured.
    pub ways: Vec<Via>,
    /// It asks for the fastest of them.
    pub auto: bool,
}

/// What a client says once it has a seat.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one at a time, read and used at once")]
pub enum FromClient {
    /// It has the key.
    Proof(Digest),
    /// It can receive; `offset` bytes are there already and will be part of the digest.
    Ready {
        /// Where the payload is to begin, bytes.
        offset: u64,
    },
    /// The first block is in: the answer of the fair start.
    Held,
    /// What it heard of a step of the train.
    Heard(HeardStep),
    /// The measurement is over; so many datagrams of the train came.
    Probed {
        /// All of them.
        datagrams: u32,
    },
    /// It is still hashing or writing; `bytes` are done.
    Alive {
        /// Bytes done of the file.
        bytes: u64,
    },
    /// The last byte is in; nothing is hashed yet.
    Last {
        /// Payload bytes received in this session.
        bytes: u64,
    },
    /// The digest of what is on disk is known.
    Hashed {
        /// The digest.
        sha1: Digest,
    },
    /// The transfer is over on the client's side.
    Receipt(Receipt),
    /// The client cannot go on.
    Fail {
        /// How its transfer ended.
        outcome: Outcome,
        /// Payload bytes received in this session.
        bytes: u64,
        /// Why.
        reason: String,
        /// GO to the last byte, of a payload that is over and has holes.
        last: Option<Duration>,
        /// What this way counts.
        counts: Counts,
    },
}

/// A client's account of its transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Payload bytes received in this session.
    pub bytes: u64,
    /// The digest of what is on disk.
    pub sha1: Digest,
    /// GO to last byte.
    pub last: Duration,
    /// GO to digest.
    pub hashed: Duration,
    /// GO to fsync done, where there was one.
    pub durable: Option<Duration>,
    /// When the first payload byte was read, and by which clock; `None` when there was none.
    pub first: Option<(ClockId, Moment)>,
    /// What this way counts.
    pub counts: Counts,
    /// Where the client's time went; empty of one that does not say it.
    pub evidence: Evidence,
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "one at a time, read and used at once")]
pub enum FromServer {
    /// Asks the client to prove the key.
    Challenge(Challenge),
    /// It has the key.
    Proof(Digest),
    /// A seat.
    Offer(Offer),
    /// Where the session's clients are, at most [`ADDRESSES_MAX`] of them a line.
    Peers(Vec<IpAddr>),
    /// One file of a LIST.
    File {
        /// It.
        file: FileInfo,
        /// It is a folder, offered as one thing.
        is_tree: bool,
    },
    /// The LIST is complete.
    End(ListEnd),
    /// The gate is closed yet.
    Wait {
        /// Clients that are ready.
        ready: u16,
        /// Clients that the session waits for.
        clients: u16,
    },
    /// A measurement begins.
    Probe(GroupProbe),
    /// So many bytes to measure with follow this line; none is the end of them.
    Burst {
        /// Bytes that follow.
        bytes: u32,
    },
    /// The measurement is over.
    Probed,
    /// The gate is open; `bytes` of payload follow this line.
    Go {
        /// Payload bytes that follow.
        bytes: u64,
    },
    /// The server's account of the transfer.
    Summary(Summary),
    /// The server cannot go on with this client.
    Error {
        /// The kind.
        code: ErrorCode,
        /// One sentence.
        reason: String,
    },
}

/// A seat, and the file that will come to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The session.
    pub session: SessionId,
    /// The seat.
    pub seat: SeatId,
    /// How many seats the session has.
    pub clients: u16,
    /// The server's run; `None` of one that does not say it.
    pub run: Option<u64>,
    /// The way the bytes will travel.
    pub via: Via,
    /// The file.
    pub file: FileInfo,
    /// It is a folder: so many lines of its manifest follow this one.
    pub tree: Option<usize>,
}

/// The server's account of one transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// How it ended.
    pub outcome: Outcome,
    /// Why, when it is not simply complete.
    pub reason: Option<String>,
    /// Payload bytes that the server sent.
    pub bytes: u64,
    /// Release to LAST.
    pub last: Option<Duration>,
    /// Release to the seat's thread having left the barrier.
    pub woke: Duration,
    /// Release to the first payload byte written.
    pub first: Option<Duration>,
    /// How the server sent.
    pub sender: String,
    /// What this way counts, at both ends.
    pub counts: Counts,
    /// Where the time went, as both ends saw it; of a payload on this connection, which has no
    /// counters.
    pub evidence: Evidence,
}

/// Why a server sends ERROR.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// The wish cannot be met: another file, way or number, or no seat left.
    Refused,
    /// The client broke the protocol.
    Protocol,
    /// The muster ended without enough clients.
    Muster,
    /// The source is not the offered file any more.
    Changed,
    /// The server is ending.
    Stopped,
}

/// The protocol's name and version, with which every opening line begins.
pub const GREETING: &str = "GATECAST/1";

impl ClientHello {
    /// The message as its line.
    pub fn encode(&self) -> Vec<u8> {
        let line = match self {
            Self::Join(join) => LineWriter::new(&format!("{GREETING} JOIN"))
                .maybe("file", join.file.as_ref().map(FileName::as_str))
                .field("group", join.group)
                .maybe("via", join.via)
                .field("name", join.name.as_str())
                .maybe("tree", join.takes_trees.then_some("yes"))
                .maybe("ways", ways_field(&join.ways))
                .maybe("auto", join.auto.then_some("yes")),
            Self::List => LineWriter::new(&format!("{GREETING} LIST")),
            Self::Echo => LineWriter::new(&format!("{GREETING} ECHO")),
            Self::Challenge(challenge) => {
                LineWriter::new(&format!("{GREETING} CHALLENGE")).field("random", challenge)
            }
        };
        line.finish()
    }

    /// Reads a connection's first line.
    ///
    /// # Errors
    /// Another version, another word, or a wrong field; the text names it.
    pub fn decode(line: &str) -> Result<Self, DecodeError> {
        let (version, rest) = line.split_once(' ').unwrap_or((line, ""));
        if version != GREETING {
            return Err(DecodeError::value("this server speaks GATECAST/1, not", version));
        }
        let fields = Fields::parse(rest)?;
        match fields.word() {
            "JOIN" => Ok(Self::Join(Join {
                file: fields.optional("file", FileName::new)?,
                group: seats(&fields, "group")?,
                via: fields.optional("via", str::parse)?,
                name: fields.parsed("name", ClientName::new)?,
                takes_trees: fields.get("tree").is_some(),
                ways: ways(&fields),
                auto: fields.get("auto").is_some(),
            })),
            "LIST" => Ok(Self::List),
            "ECHO" => Ok(Self::Echo),
            "CHALLENGE" => Ok(Self::Challenge(fields.parsed("random", Challenge::decode)?)),
            word => Err(DecodeError::value("the first word is JOIN or LIST, not", word)),
        }
    }
}

impl FromClient {
    /// The message as its line.
    pub fn encode(&self) -> Vec<u8> {
        let line = match self {
            Self::Proof(hmac) => LineWriter::new("PROOF").field("hmac", hmac),
            Self::Ready { offset } => LineWriter::new("READY").field("offset", offset),
            Self::Held => LineWriter::new("HELD"),
            Self::Heard(heard) => encode_heard(heard),
            Self::Probed { datagrams } => LineWriter::new("PROBED").field("datagrams", datagrams),
            Self::Alive { bytes } => LineWriter::new("ALIVE").field("bytes", bytes),
            Self::Last { bytes } => LineWriter::new("LAST").field("bytes", bytes),
            Self::Hashed { sha1 } => LineWriter::new("HASHED").field("sha1", sha1),
            Self::Receipt(receipt) => LineWriter::new("RECEIPT")
                .field("bytes", receipt.bytes)
                .field("sha1", receipt.sha1)
                .field("last_us", micros(receipt.last))
                .field("hashed_us", micros(receipt.hashed))
                .maybe("durable_us", receipt.durable.map(micros))
                .maybe("clock", receipt.first.map(|(clock, _)| clock.0))
                .maybe("first_us", receipt.first.map(|(_, moment)| moment.0))
                .figures(Counts::NAMES, receipt.counts.values())
                .figures(Evidence::NAMES, receipt.evidence.values()),
            Self::Fail { outcome, bytes, reason, last, counts } => LineWriter::new("FAIL")
                .field("outcome", outcome)
                .field("bytes", bytes)
                .field("reason", clip(reason))
                .maybe("last_us", last.map(micros))
                .figures(Counts::NAMES, counts.values()),
        };
        line.finish()
    }

    /// Reads a client's line.
    ///
    /// # Errors
    /// Another word or a wrong field; the text names it.
    pub fn decode(line: &str) -> Result<Self, DecodeError> {
        let fields = Fields::parse(line)?;
        Ok(match fields.word() {
            "PROOF" => Self::Proof(fields.parsed("hmac", str::parse)?),
            "READY" => Self::Ready { offset: fields.number("offset")? },
            "HELD" => Self::Held,
            "HEARD" => Self::Heard(heard(&fields)?),
            "PROBED" => Self::Probed { datagrams: fields.number("datagrams")? },
            "ALIVE" => Self::Alive { bytes: fields.number("bytes")? },
            "LAST" => Self::Last { bytes: fields.number("bytes")? },
            "HASHED" => Self::Hashed { sha1: fields.parsed("sha1", str::parse)? },
            "RECEIPT" => Self::Receipt(Receipt {
                bytes: fields.number("bytes")?,
                sha1: fields.parsed("sha1", str::parse)?,
                last: span(&fields, "last_us")?,
                hashed: span(&fields, "hashed_us")?,
                durable: optional_span(&fields, "durable_us")?,
                first: fields
                    .optional_number("clock")?
                    .zip(fields.optional_number("first_us")?)
                    .map(|(clock, first)| (ClockId(clock), Moment(first))),
                counts: Counts::from_values(figures(&fields, Counts::NAMES)?),
                evidence: Evidence::from_values(figures(&fields, Evidence::NAMES)?),
            }),
            "FAIL" => Self::Fail {
                outcome: outcome(&fields)?,
                bytes: fields.number("bytes")?,
                reason: fields.need("reason")?.to_owned(),
                last: optional_span(&fields, "last_us")?,
                counts: Counts::from_values(figures(&fields, Counts::NAMES)?),
            },
            word => return Err(DecodeError::value("no message of a client", word)),
        })
    }
}

impl FromServer {
    /// The message as its line.
    pub fn encode(&self) -> Vec<u8> {
        let line = match self {
            Self::Challenge(challenge) => LineWriter::new("CHALLENGE").field("random", challenge),
            Self::Proof(hmac) => LineWriter::new("PROOF").field("hmac", hmac),
            Self::Offer(offer) => file_fields(LineWriter::new("OFFER"), &offer.file)
                .field("session", offer.session)
                .field("seat", offer.seat)
                .field("clients", offer.clients)
                .maybe("run", offer.run)
                .field("via", offer.via)
                .maybe("tree", offer.tree),
            Self::Peers(addresses) => {
                LineWriter::new("PEERS").field("at", comma_separated(addresses))
            }
            Self::File { file, is_tree } => {
                file_fields(LineWriter::new("FILE"), file).maybe("tree", is_tree.then_some("yes"))
            }
            Self::End(end) => list_end_fields(LineWriter::new("END"), end),
            Self::Wait { ready, clients } => {
                LineWriter::new("WAIT").field("ready", ready).field("clients", clients)
            }
            Self::Probe(probe) => encode_probe(probe),
            Self::Burst { bytes } => LineWriter::new("BURST").field("bytes", bytes),
            Self::Probed => LineWriter::new("PROBED"),
            Self::Go { bytes } => LineWriter::new("GO").field("bytes", bytes),
            Self::Summary(summary) => LineWriter::new("SUMMARY")
                .field("outcome", summary.outcome)
                .maybe("reason", summary.reason.as_deref().map(clip))
                .field("bytes", summary.bytes)
                .maybe("last_us", summary.last.map(micros))
                .field("woke_us", micros(summary.woke))
                .maybe("first_us", summary.first.map(micros))
                .field("sender", &summary.sender)
                .figures(Counts::NAMES, summary.counts.values())
                .figures(Evidence::NAMES, summary.evidence.values()),
            Self::Error { code, reason } => {
                LineWriter::new("ERROR").field("code", code.word()).field("reason", clip(reason))
            }
        };
        line.finish()
    }

    /// Reads a server's line.
    ///
    /// # Errors
    /// Another word or a wrong field; the text names it.
    pub fn decode(line: &str) -> Result<Self, DecodeError> {
        let fields = Fields::parse(line)?;
        Ok(match fields.word() {
            "CHALLENGE" => Self::Challenge(fields.parsed("random", Challenge::decode)?),
            "PROOF" => Self::Proof(fields.parsed("hmac", str::parse)?),
            "PEERS" => Self::Peers(addresses(&fields)?),
            "OFFER" => Self::Offer(Offer {
                session: fields.parsed("session", str::parse)?,
                seat: SeatId(seats(&fields, "seat")?),
                clients: seats(&fields, "clients")?,
                run: fields.optional_number("run")?,
                via: fields.parsed("via", str::parse)?,
                file: file(&fields)?,
                tree: fields.optional_number("tree")?,
            }),
            "FILE" => Self::File { file: file(&fields)?, is_tree: fields.get("tree").is_some() },
            "END" => Self::End(list_end(&fields)?),
            "WAIT" => {
                Self::Wait { ready: fields.number("ready")?, clients: fields.number("clients")? }
            }
            "PROBE" => Self::Probe(probe(&fields)?),
            "BURST" => Self::Burst { bytes: burst(&fields)? },
            "PROBED" => Self::Probed,
            "GO" => Self::Go { bytes: fields.number("bytes")? },
            "SUMMARY" => Self::Summary(Summary {
                outcome: outcome(&fields)?,
                reason: fields.get("reason").map(str::to_owned),
                bytes: fields.number("bytes")?,
                last: optional_span(&fields, "last_us")?,
                woke: span(&fields, "woke_us")?,
                first: optional_span(&fields, "first_us")?,
                sender: fields.need("sender")?.to_owned(),
                counts: Counts::from_values(figures(&fields, Counts::NAMES)?),
                evidence: Evidence::from_values(figures(&fields, Evidence::NAMES)?),
            }),
            "ERROR" => Self::Error {
                code: fields.parsed("code", ErrorCode::from_word)?,
                reason: fields.need("reason")?.to_owned(),
            },
            word => return Err(DecodeError::value("no message of a server", word)),
        })
    }
}

impl ErrorCode {
    const ALL: [Self; 5] =
        [Self::Refused, Self::Protocol, Self::Muster, Self::Changed, Self::Stopped];

    /// The word in the message.
    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Protocol => "protocol",
            Self::Muster => "muster",
            Self::Changed => "changed",
            Self::Stopped => "stopped",
        }
    }

    fn from_word(text: &str) -> Result<Self, &'static str> {
        Self::ALL.into_iter().find(|code| code.word() == text).ok_or("an unknown code")
    }
}

#[cfg(test)]
mod tests;

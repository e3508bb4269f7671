//! The lines of a chain: the terms of an offer, and what is said on the connections of its members.
//!
//! A client that was given its terms says JOIN to the server, on a connection of its own, and is told
//! FROM whom it takes its bytes whenever that changes. It connects there and says LINK; the answer is
//! LINKED with step 0. From its release on it says TAKE on that link, and the bytes follow without a
//! word between them.

use std::net::SocketAddr;

use crate::{
    digest::Digest,
    proto::{
        key::{Challenge, Challenges, ConnectionEnd, Key},
        line::{DecodeError, Fields, LineWriter},
        native::SIZE_MAX,
    },
    session::{MAX_SEATS, SeatId, SessionId},
};

/// With what a connection of a chain begins.
pub const GREETING: &str = "CHAIN/1";

/// A line of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainLine {
    /// With the offer: what proves this seat, and what those prove that take from it.
    Terms(Challenge),
    /// A client to the server: it is in this seat, and others may take from it at this port.
    Join {
        /// The session.
        session: SessionId,
        /// Its seat.
        seat: SeatId,
        /// What it was given with its offer.
        token: Challenge,
        /// Where it listens, at the address that the server knows.
        port: u16,
    },
    /// The server to a client: its bytes come from there now.
    From {
        /// Counts these lines; an earlier one that comes late means nothing.
        step: u32,
        /// The client, and where it listens; `None` is the server itself.
        source: Option<(SeatId, SocketAddr)>,
        /// What proves there who takes.
        ticket: Digest,
    },
    /// The server to a client: every link that its JOIN changed has been tried.
    Settled,
    /// A client to the one that it takes from.
    Link {
        /// The session.
        session: SessionId,
        /// Its seat.
        seat: SeatId,
        /// What the server gave it for this.
        ticket: Digest,
    },
    /// The link of this step stands.
    Linked(u32),
    /// The link of this step is lost, or could not be made.
    Lost(u32),
    /// The released client at the end of a link wants the bytes from there on.
    Take(u64),
    /// So many bytes of the file are on this client's disk.
    At(u64),
}

/// What `seat` shows to the one whose own token is `token`, to take from it.
pub fn ticket(token: Challenge, session: SessionId, seat: SeatId) -> Digest {
    let key = Key::new(&token.0.to_be_bytes()).expect("sixteen bytes are a key");
    let (client, server) = (Challenge(session.0.into()), Challenge(seat.0.into()));
    key.proof(ConnectionEnd::Client, Challenges { client, server })
}

impl ChainLine {
    /// The line's bytes.
    pub fn encode(&self) -> Vec<u8> {
        let line = match self {
            Self::Terms(token) => LineWriter::new("CHAIN").field("token", token),
            Self::Join { session, seat, token, port } => LineWriter::new(GREETING)
                .field("session", session)
                .field("seat", seat)
                .field("token", token)
                .field("port", port),
            Self::Link { session, seat, ticket } => LineWriter::new(GREETING)
                .field("session", session)
                .field("seat", seat)
                .field("ticket", ticket),
            Self::From { step, source, ticket } => LineWriter::new("FROM")
                .field("step", step)
                .maybe("seat", source.map(|(seat, _)| seat))
                .maybe("at", source.map(|(_, at)| at))
                .field("ticket", ticket),
            Self::Settled => LineWriter::new("SETTLED"),
            Self::Linked(step) => LineWriter::new("LINKED").field("step", step),
            Self::Lost(step) => LineWriter::new("LOST").field("step", step),
            Self::Take(offset) => LineWriter::new("TAKE").field("offset", offset),
            Self::At(bytes) => LineWriter::new("AT").field("bytes", bytes),
        };
        line.finish()
    }

    /// Reads a line.
    ///
    /// # Errors
    /// Another word or a wrong field; the text names it.
    pub fn decode(line: &str) -> Result<Self, DecodeError> {
        let fields = Fields::parse(line)?;
        Ok(match fields.word() {
            "CHAIN" => Self::Terms(fields.parsed("token", Challenge::decode)?),
            GREETING => {
                let (session, seat) = (fields.parsed("session", str::parse)?, seat(&fields)?);
                match fields.get("token") {
                    Some(_) => Self::Join {
                        session,
                        seat,
                        token: fields.parsed("token", Challenge::decode)?,
                        port: fields.number("port")?,
                    },
                    None => {
                        Self::Link { session, seat, ticket: fields.parsed("ticket", str::parse)? }
                    }
                }
            }
            "FROM" => Self::From {
                step: fields.number("step")?,
                source: match fields.get("seat") {
                    Some(_) => Some((seat(&fields)?, fields.parsed("at", str::parse)?)),
                    None => None,
                },
                ticket: fields.parsed("ticket", str::parse)?,
            },
            "SETTLED" => Self::Settled,
            "LINKED" => Self::Linked(fields.number("step")?),
            "LOST" => Self::Lost(fields.number("step")?),
            "TAKE" => Self::Take(bytes(&fields, "offset")?),
            "AT" => Self::At(bytes(&fields, "bytes")?),
            word => return Err(DecodeError::value("no line of a chain", word)),
        })
    }
}

fn seat(fields: &Fields<'_>) -> Result<SeatId, DecodeError> {
    let seat: u16 = fields.number("seat")?;
    let wrong = || DecodeError(format!("seat={seat} is not 1 to {MAX_SEATS}"));
    (1..=MAX_SEATS).contains(&seat).then_some(SeatId(seat)).ok_or_else(wrong)
}

fn bytes(fields: &Fields<'_>, key: &str) -> Result<u64, DecodeError> {
    let bytes = fields.number(key)?;
    let wrong = || DecodeError(format!("{key}={bytes} is more than a file has"));
    (bytes <= SIZE_MAX).then_some(bytes).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: SessionId = SessionId(0x0123_4567_89ab_cdef);

    fn read(bytes: &[u8]) -> Result<ChainLine, DecodeError> {
        ChainLine::decode(std::str::from_utf8(bytes).expect("text").trim_end_matches('\n'))
    }

    #[test]
    fn every_line_comes_back_the_largest_too() {
        let (token, seat) = (Challenge(u128::MAX), SeatId(MAX_SEATS));
        let ticket = ticket(token, SESSION, seat);
        let at = "[2001:db8:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().expect("an address");
        for line in [
            ChainLine::Terms(token),
            ChainLine::Join { session: SESSION, seat, token, port: u16::MAX },
            ChainLine::Link { session: SESSION, seat, ticket },
            ChainLine::From { step: u32::MAX, source: Some((seat, at)), ticket },
            ChainLine::From { step: 1, source: None, ticket },
            ChainLine::Settled,
            ChainLine::Linked(u32::MAX),
            ChainLine::Lost(0),
            ChainLine::Take(SIZE_MAX),
            ChainLine::At(SIZE_MAX),
        ] {
            assert_eq!(read(&line.encode()), Ok(line));
        }
    }

    #[test]
    fn wrong_line_is_refused() {
        let session = "session=0123456789abcdef";
        for line in [
            "",
            "HELD",
            "CHAIN token=1",
            "CHAIN/1 session=1 seat=1 token=00000000000000000000000000000000 port=1",
            &format!("CHAIN/1 {session} seat=0 token=00000000000000000000000000000000 port=1"),
            &format!("CHAIN/1 {session} seat=10001 token=00000000000000000000000000000000 port=1"),
            &format!("CHAIN/1 {session} seat=1 token=00000000000000000000000000000000 port=65536"),
            &format!("CHAIN/1 {session} seat=1 ticket=12"),
            "FROM step=1 seat=1 ticket=0000000000000000000000000000000000000000",
            "FROM step=4294967296 ticket=0000000000000000000000000000000000000000",
            "LOST step=-1",
            "LINKED",
            "TAKE offset=9223372036854775808",
            "AT bytes=9223372036854775808",
        ] {
            assert!(ChainLine::decode(line).is_err(), "{line}");
        }
    }

    #[test]
    fn ticket_is_of_one_giver_one_session_and_one_seat() {
        let right = ticket(Challenge(1), SESSION, SeatId(2));
        assert_eq!(right, ticket(Challenge(1), SESSION, SeatId(2)));
        assert_ne!(right, ticket(Challenge(2), SESSION, SeatId(2)));
        assert_ne!(right, ticket(Challenge(1), SessionId(1), SeatId(2)));
        assert_ne!(right, ticket(Challenge(1), SESSION, SeatId(3)));
    }
}

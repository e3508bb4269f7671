//! What a session is: one release of one file to a fixed number of seats.

use std::{fmt, str::FromStr};

use crate::{
    digest::Digest,
    text::{FileName, hexadecimal},
    units::InvalidValue,
};

/// A session's number: random, so that a stale or foreign message cannot name a running one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// A client's place in a session, 1 to N.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SeatId(pub u16);

/// The way the bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Via {
    /// The client's own TCP connection.
    Tcp,
    /// Reliable UDP, to each client.
    Udp,
    /// UDP as it is: measured, not repaired.
    Raw,
    /// One UDP stream for all clients.
    Multicast,
    /// BitTorrent among the clients.
    Swarm,
    /// From client to client over TCP, each byte out once.
    Chain,
    /// HTTP/1.1.
    Http,
}

/// The file that a session sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Its name, one path component.
    pub name: FileName,
    /// Its length.
    pub bytes: u64,
    /// Its SHA-1.
    pub sha1: Digest,
}

/// Most seats of one session. A thread each: 1000 are measured, and the rest is headroom.
pub const MAX_SEATS: u16 = 10_000;

impl Via {
    /// All ways, in the order in which help and tables name them.
    pub(crate) const ALL: [Self; 7] =
        [Self::Tcp, Self::Udp, Self::Raw, Self::Multicast, Self::Swarm, Self::Chain, Self::Http];

    /// The word on the command line, in messages and in logs.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Raw => "raw",
            Self::Multicast => "multicast",
            Self::Swarm => "swarm",
            Self::Chain => "chain",
            Self::Http => "http",
        }
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl FromStr for Via {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        Self::ALL.into_iter().find(|via| via.word() == text).ok_or_else(|| {
            InvalidValue::new("way", text, "tcp, udp, raw, multicast, swarm, chain or http")
        })
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for SessionId {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let id = hexadecimal(text, 16).and_then(|id| u64::try_from(id).ok()).map(Self);
        id.ok_or_else(|| InvalidValue::new("session", text, "16 lower-case hexadecimal digits"))
    }
}

impl fmt::Display for SeatId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_back() {
        for via in Via::ALL {
            assert_eq!(via.word().parse(), Ok(via));
        }
        assert!("TCP".parse::<Via>().is_err());
        let id = SessionId(0x00ab_cdef_0123_4567);
        assert_eq!(id.to_string(), "00abcdef01234567");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "abc", "+0abcdef01234567", "00ABCDEF01234567", "00abcdef012345678"] {
            assert!(text.parse::<SessionId>().is_err(), "{text}");
        }
    }
}

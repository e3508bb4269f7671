//! Who asks for a seat, and how it can be lost before the release.

use std::{io, net::SocketAddr, sync::Arc};

use crate::{net::primitives::TcpStream, session::Via, transfer::Outcome};

/// What kind of client sits in a seat; only native ones are told anything while they wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientKind {
    /// Speaks `GATECAST/1`.
    Native,
    /// The lab's TCP client.
    Lab,
    /// An HTTP client.
    Http,
}

impl ClientKind {
    /// The word in documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Lab => "lab",
            Self::Http => "http",
        }
    }
}

/// A client that asks for a seat.
#[derive(Clone, Debug)]
pub struct PendingClient {
    /// What it calls itself.
    pub name: String,
    /// Its kind.
    pub kind: ClientKind,
    /// Its connection.
    pub stream: Arc<TcpStream>,
    /// Its address.
    pub peer: SocketAddr,
    /// The ways of which one may be chosen for it; none is TCP alone.
    pub ways: Vec<Via>,
}

/// Why a muster ended without a release, or a seat was lost before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MusterEnd {
    /// The time was over and the quorum not reached.
    NotEnough(String),
    /// The server is ending.
    Stopped,
    /// This client closed its connection before the release.
    Left,
    /// This client said something before the release.
    Spoke,
}

impl std::fmt::Display for MusterEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotEnough(reason) => f.write_str(reason),
            Self::Stopped => f.write_str("the server was stopped"),
            Self::Left => f.write_str("left before the release"),
            Self::Spoke => f.write_str("spoke before the release"),
        }
    }
}

impl MusterEnd {
    /// The outcome in the row of a client that ended so.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::NotEnough(_) => Outcome::TimedOut,
            Self::Stopped => Outcome::Cut,
            Self::Left | Self::Spoke => Outcome::Refused,
        }
    }
}

/// Whether the client of a waiting (non-blocking) connection closed it or spoke.
pub(super) fn disconnected(stream: &TcpStream) -> Option<MusterEnd> {
    match stream.peek(&mut [0]) {
        Ok(0) => Some(MusterEnd::Left),
        Ok(_) => Some(MusterEnd::Spoke),
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
        {
            None
        }
        Err(_) => Some(MusterEnd::Left),
    }
}

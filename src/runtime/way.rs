//! What a way of sending is to the gate: something that moves the bytes after the release.
//!
//! The services implement these two traits; the gate, the lobby and the control connection know
//! nothing else of them. A [`Way`] makes one [`Carrier`] for each session before its muster, and
//! everything that can fail (sockets, tables) fails there.

use std::fmt;
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use crate::error::Result;
use crate::runtime::catalog::Source;
use crate::runtime::gate::Seat;
use crate::runtime::lobby::Settings;
use crate::session::SeatId;
use crate::session::Via;
use crate::transfer::Outcome;
use crate::units::Moment;

/// One way of sending.
pub trait Way: fmt::Debug + Send + Sync {
    /// Its word.
    fn via(&self) -> Via;

    /// Gets ready for one session.
    ///
    /// # Errors
    /// Why the session cannot be sent this way; its clients are refused with it.
    fn prepare(
        &self,
        source: &Arc<Source>,
        clients: u16,
        settings: &Settings,
    ) -> Result<Box<dyn Carrier>>;
}

/// One way, ready for one session.
pub trait Carrier: fmt::Debug + Send + Sync {
    /// Sets up a client's connection before the gate.
    ///
    /// # Errors
    /// Why this client cannot be served.
    fn seat_up(&self, stream: &TcpStream) -> Result<()>;

    /// How it sends, in two or three words for the log: `sendfile, bbr`.
    fn sender(&self, stream: &TcpStream) -> String;

    /// Moves the bytes to one seat that has just gone through the gate.
    fn carry(&self, seat: &Seat, cargo: Cargo<'_>) -> Carried;

    /// What a face shows of `seat` beyond its bytes; asked about once a second, under the gate's
    /// lock, so it reads what is there and waits for nothing.
    fn detail(&self, seat: SeatId) -> Detail {
        let _ = seat;
        Detail::default()
    }
}

/// What only some ways know of a seat while its bytes move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// Datagrams lost so far.
    pub lost: Option<u64>,
    /// The file cut into at most [`MAP_MAX`] equal pieces: how much of each has arrived, percent.
    /// For a swarm the chunks, for UDP where the holes are; empty where it is not known.
    pub map: Vec<u8>,
}

/// Most pieces of a [`Detail::map`]: what a face has room for.
pub const MAP_MAX: usize = 128;

/// What one seat is to get.
pub struct Cargo<'a> {
    /// Said on the control connection just before the first payload byte.
    pub preface: Vec<u8>,
    /// The part of the file that the client lacks.
    pub range: Range<u64>,
    /// Waits until the client has answered its first block, at most until the moment given.
    pub answer: &'a mut dyn FnMut(Moment),
}

/// How it went.
#[derive(Debug)]
pub struct Carried {
    /// Release to the first payload byte written; `None` if none was.
    pub first: Option<Duration>,
    /// Why it ended early.
    pub end: std::result::Result<(), Failure>,
}

/// A transfer that ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the log says.
    pub outcome: Outcome,
    /// Why, as one clause.
    pub reason: String,
    /// The source is not the offered file any more; the client has been told.
    pub source_changed: bool,
}

impl fmt::Debug for Cargo<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cargo")
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

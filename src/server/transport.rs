//! What a way of sending is to the gate: something that moves the bytes after the release.
//!
//! The services implement these two traits; the gate, the lobby and the control connection know
//! nothing else of them. A [`Way`] makes one [`Carrier`] for each session before its muster, and
//! everything that can fail (sockets, tables) fails there.

use std::fmt;
use std::net::TcpStream;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::Error;
use crate::error::Phase;
use crate::error::Result;
use crate::net::line_stream::LineStream;
use crate::proto::native::FromClient;
use crate::server::catalog::Source;
use crate::server::gate::Seat;
use crate::server::lobby::ServerConfig;
use crate::session::SeatId;
use crate::session::Via;
use crate::transfer::Counts;
use crate::transfer::Outcome;
use crate::units::Moment;

/// One way of sending.
pub trait Transport: fmt::Debug + Send + Sync {
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
        settings: &ServerConfig,
    ) -> Result<Box<dyn SendSession>>;
}

/// One way, ready for one session.
pub trait SendSession: fmt::Debug + Send + Sync {
    /// Sets up a client's connection before the gate.
    ///
    /// # Errors
    /// Why this client cannot be served.
    fn prepare_connection(&self, stream: &TcpStream) -> Result<()>;

    /// A client has a seat, and is about to be told so.
    fn on_seated(&self, seat: &Seat) {
        let _ = seat;
    }

    /// How it sends, in two or three words for the log: `sendfile, bbr`.
    fn description(&self, stream: &TcpStream) -> String;

    /// A line that a native client is told with its offer, where this way has terms of its own.
    fn terms(&self) -> Option<Vec<u8>> {
        None
    }

    /// True when the payload travels on the control connection, so that nothing may be said there
    /// before it is complete.
    fn fills_control(&self) -> bool {
        true
    }

    /// A line of this way's own that a native client says before it is ready.
    ///
    /// # Errors
    /// This way knows no such line, or cannot serve what it asks for.
    fn on_line(&self, seat: &Seat, line: &str) -> Result<()> {
        let _ = line;
        let what = "a message before READY that is none";
        Err(Error::protocol(seat.id(), what))
    }

    /// Moves the bytes to one seat that has just gone through the gate.
    fn send(&self, seat: &Seat, cargo: SendJob<'_>) -> SendResult;

    /// Moves the bytes to a native client. A way that has to hear it meanwhile does so here, and
    /// leaves in `first` the first line that is not its own; the others leave it to `carry`.
    fn send_native(
        &self,
        seat: &Seat,
        preface: Vec<u8>,
        range: Range<u64>,
        lines: &mut LineStream<'_>,
        first: &mut EarlyReply,
    ) -> SendResult {
        let mut answer = |until: Moment| {
            first.line = read_held(lines, until);
            first.heard_at = Some(lines.last_read_at());
            first.sent = seat.moved().load(Ordering::Relaxed);
        };
        let cargo = SendJob {
            preface,
            range,
            answer: &mut answer,
        };
        self.send(seat, cargo)
    }

    /// Adds to a client's counters what only this end knows, once it has said its last word.
    fn add_counts(&self, seat: &Seat, counts: &mut Counts) {
        let _ = (seat, counts);
    }

    /// What a face shows of `seat` beyond its bytes; asked about once a second, under the gate's
    /// lock, so it reads what is there and waits for nothing.
    fn detail(&self, seat: SeatId) -> SeatDetail {
        let _ = seat;
        SeatDetail::default()
    }
}

/// Hears the answer to the first block; gives back a line that is something else.
fn read_held(lines: &mut LineStream<'_>, until: Moment) -> Option<String> {
    let line = lines.read_line(until, Phase::Transfer).ok()?;
    (FromClient::decode(&line) != Ok(FromClient::Held)).then_some(line)
}

/// What only some ways know of a seat while its bytes move.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SeatDetail {
    /// Datagrams lost so far.
    pub lost: Option<u64>,
    /// The file cut into at most [`MAP_MAX`] equal pieces: how much of each has arrived, percent.
    /// For a swarm the chunks, for UDP where the holes are; empty where it is not known.
    pub map: Vec<u8>,
}

/// Most pieces of a [`Detail::map`]: what a face has room for.
pub const MAP_MAX: usize = 128;

/// What one seat is to get.
pub struct SendJob<'a> {
    /// Said on the control connection just before the first payload byte.
    pub preface: Vec<u8>,
    /// The part of the file that the client lacks.
    pub range: Range<u64>,
    /// Waits until the client has answered its first block, at most until the moment given.
    pub answer: &'a mut dyn FnMut(Moment),
}

/// What was heard of a native client while bytes were sent to it.
#[derive(Clone, Debug, Default)]
pub struct EarlyReply {
    /// A line that is not the way's own, and no HELD.
    pub line: Option<String>,
    /// When it was read, and whatever came with it; `None` if the way asked for no answer.
    pub heard_at: Option<Moment>,
    /// Payload bytes sent by then.
    pub sent: u64,
}

/// How it went.
#[derive(Debug)]
pub struct SendResult {
    /// Release to the first payload byte written; `None` if none was.
    pub first: Option<Duration>,
    /// Why it ended early.
    pub end: std::result::Result<(), TransferFailure>,
}

/// A transfer that ended early.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransferFailure {
    /// What the log says.
    pub outcome: Outcome,
    /// Why, as one clause.
    pub reason: String,
    /// The source is not the offered file any more; the client has been told.
    pub source_changed: bool,
}

impl TransferFailure {
    /// A transfer that ended early through no change of the source.
    pub fn new(outcome: Outcome, reason: impl Into<String>) -> Self {
        Self {
            outcome,
            reason: reason.into(),
            source_changed: false,
        }
    }
}

impl fmt::Debug for SendJob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cargo")
            .field("range", &self.range)
            .finish_non_exhaustive()
    }
}

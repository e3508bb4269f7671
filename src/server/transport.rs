//! What a way of sending is to the gate: something that moves the bytes after the release.
//!
//! Transports implement these traits; the gate, the lobby and the control connection know nothing
//! else of them. A [`Transport`] makes one [`SendSession`] for each session before its muster, and
//! everything that can fail (sockets, tables) fails there.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use crate::{
    digest,
    error::{Error, Phase, Result},
    net::{clock, line_stream::LineStream, primitives::TcpStream},
    proto::native::FromClient,
    server::{catalog::Source, gate::seat_connection::SeatConnection},
    session::{SeatId, Via},
    transfer::{Counts, Outcome},
    units::{Moment, Rate},
};

/// One way of sending.
pub trait Transport: fmt::Debug + Send + Sync {
    /// Its word.
    fn via(&self) -> Via;

    /// Gets ready for one session.
    ///
    /// # Errors
    /// Why the session cannot be sent this way; its clients are refused with it.
    fn prepare(&self, plan: &SendPlan) -> Result<Box<dyn SendSession>>;

    /// Where its datagrams for all clients go; asked again it may be another group.
    fn group_route(&self) -> Option<GroupRoute> {
        None
    }

    /// True where an HTTP client can be sent to.
    fn serves_http(&self) -> bool {
        false
    }
}

/// What one session sends, and to how many.
#[derive(Clone, Debug)]
pub struct SendPlan {
    /// The file.
    pub source: Arc<Source>,
    /// How many seats there are.
    pub clients: u16,
    /// How fast the payload is sent in all; `None` is as fast as it goes.
    pub rate: Option<Rate>,
}

/// Where a server's multicast goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupRoute {
    /// The group.
    pub group: SocketAddr,
    /// The address of this host by whose interface it leaves; `None` is the one that the client knows.
    pub interface: Option<Ipv4Addr>,
    /// How many routers a datagram may pass, and one more.
    pub ttl: u32,
}

/// One way of sending, ready for one session.
pub trait SendSession: fmt::Debug + Send + Sync {
    /// Sets up a client's connection before the gate.
    ///
    /// # Errors
    /// Why this client cannot be served.
    fn prepare_connection(&self, stream: &TcpStream) -> Result<()> {
        let _ = stream;
        Ok(())
    }

    /// A client has a seat, and is about to be told so.
    fn on_seated(&self, seat: &SeatConnection) {
        let _ = seat;
    }

    /// How it sends, in two or three words: `sendfile, bbr`.
    fn description(&self, stream: &TcpStream) -> String;

    /// The same for the log, with what computes the digests: `sendfile, bbr, sha1`.
    fn sender(&self, stream: &TcpStream) -> String {
        format!("{}, {}", self.description(stream), digest::engine())
    }

    /// Moves the bytes to one seat that has just gone through the gate; with a [`ControlExtension`]
    /// to one whose client is not native, which most of these ways cannot.
    fn send(&self, seat: &SeatConnection, _: SendJob<'_>) -> SendResult {
        let reason = format!("only a gatecast client can receive via {}", seat.session.via());
        SendResult { first: None, end: Err(TransferFailure::new(Outcome::Refused, reason)) }
    }

    /// True when it opens each seat with a block, and the rest waits for the others' blocks; it
    /// calls [`lower_priority`](crate::net::lower_priority) then.
    fn has_fair_start(&self) -> bool {
        false
    }

    /// True when the payload travels on the control connection, so that nothing may be written
    /// there before it is complete.
    fn fills_control(&self) -> bool {
        self.control().is_none()
    }

    /// For a way in which clients talk to each other: where those are that have proven a key, if
    /// they shall talk to nobody else.
    fn only_peers(&self) -> Vec<IpAddr> {
        Vec::new()
    }

    /// What it adds to the conversation on the control connection, where it adds something.
    fn control(&self) -> Option<&dyn ControlExtension> {
        None
    }

    /// Adds to a client's counters what only this end knows, once the client's last message is in.
    fn add_counts(&self, seat: SeatId, counts: &mut Counts) {
        let _ = (seat, counts);
    }

    /// What a face shows of `seat` beyond its bytes; asked about once a second, under the gate's
    /// lock, so it reads what is there and waits for nothing.
    fn detail(&self, seat: SeatId) -> SeatDetail {
        let _ = seat;
        SeatDetail::default()
    }
}

/// The part of a [`SendSession`] that talks with native clients on their control connections.
pub trait ControlExtension {
    /// A line that the native client of `seat` is sent with its offer.
    fn terms(&self, seat: &SeatConnection) -> Vec<u8>;

    /// A line of this transport's own that a native client sends before it is ready.
    ///
    /// # Errors
    /// This transport knows no such line, or cannot serve what it asks for.
    fn on_line(&self, seat: &SeatConnection, line: &str) -> Result<()> {
        let _ = line;
        Err(Error::protocol(seat.id, "this way has no line of its own"))
    }

    /// Moves the bytes to a native client and reads its lines meanwhile; leaves in `job.reply` the
    /// first line that is not this transport's own.
    fn send_native(&self, seat: &SeatConnection, job: NativeJob<'_, '_>) -> SendResult;
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

/// Most pieces of a [`SeatDetail::map`]: what a face has room for.
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

/// What a native client is to get, and the control connection on which it answers.
#[derive(Debug)]
pub struct NativeJob<'a, 'b> {
    /// Said just before the first payload byte.
    pub preface: Vec<u8>,
    /// The part of the file that the client lacks.
    pub range: Range<u64>,
    /// The control connection.
    pub lines: &'a mut LineStream<'b>,
    /// Where the first line goes that is not the way's own.
    pub reply: &'a mut EarlyReply,
}

impl NativeJob<'_, '_> {
    /// The client's next line that is no HELD, if one comes within `patience`.
    ///
    /// # Errors
    /// The connection failed, or the line breaks the protocol.
    pub fn next_line(
        &mut self,
        patience: Duration,
    ) -> std::result::Result<Option<String>, TransferFailure> {
        match self.lines.read_line(clock::now().after(patience), Phase::Transfer) {
            Ok(line) => {
                Ok(Some(line).filter(|line| FromClient::decode(line) != Ok(FromClient::Held)))
            }
            Err(Error::TimedOut { .. }) => Ok(None),
            Err(Error::Protocol { what, .. }) => Err(cut(what)),
            Err(error) => Err(cut(error.to_string())),
        }
    }

    /// The client has said `line`, its reply, when `sent` payload bytes had been sent.
    pub fn end_with(&mut self, line: String, sent: u64) {
        *self.reply = EarlyReply { line: Some(line), heard_at: Some(self.lines.came_at), sent };
    }
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
        Self { outcome, reason: reason.into(), source_changed: false }
    }
}

/// The failure of a client whose connection or whose own word ended its transfer.
pub fn cut(reason: impl Into<String>) -> TransferFailure {
    TransferFailure::new(Outcome::Cut, reason)
}

impl fmt::Debug for SendJob<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cargo").field("range", &self.range).finish_non_exhaustive()
    }
}

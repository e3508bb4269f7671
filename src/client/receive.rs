//! What a way of sending is to a client: something that takes the bytes in after GO.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::{IpAddr, Ipv4Addr, TcpStream},
    ops::Range,
    sync::atomic::{AtomicBool, AtomicU64},
};

use crate::{
    client::{config::FetchConfig, part::ByteOrder},
    error::{Error, Phase},
    net::{copy::Stop, line_stream::LineStream, storage::FileStorage},
    proto::native::Offer,
    session::Via,
    text::ShownPath,
    transfer::{Counts, Evidence},
    units::Moment,
};

/// One way of receiving.
pub trait ReceiveTransport: fmt::Debug + Send + Sync {
    /// Its word.
    fn via(&self) -> Via;

    /// Where it joins a group, if not by the address from which the server is reached.
    fn interface(&self) -> Option<Ipv4Addr> {
        None
    }

    /// In which order its bytes come.
    fn byte_order(&self) -> ByteOrder {
        ByteOrder::Sequential
    }

    /// Opens what must be open before the release, before this client says READY. The terms of
    /// the offer, where its way has any, are the next line.
    ///
    /// # Errors
    /// Why this client cannot receive; it gives its seat back.
    fn prepare(&self, context: PrepareContext<'_, '_>) -> Result<Box<dyn ReceiveSession>, Error>;
}

/// One way of receiving, ready for one seat.
pub trait ReceiveSession: fmt::Debug + Send {
    /// Bytes of the file that are there already, for a way that has verified them itself; `None`
    /// leaves it to the client, which takes up where its part ends.
    fn bytes_held(&self) -> Option<u64> {
        None
    }

    /// The session's clients have proven a key: from now on only those at these addresses are taken
    /// for others of it, for a way in which clients talk to each other.
    fn limit_peers(&self, addresses: BTreeSet<IpAddr>) {
        let _ = addresses;
    }

    /// Takes the payload in, after GO was heard.
    ///
    /// # Errors
    /// Why it ended early; `context.moved` says how far it came.
    fn receive(
        &mut self,
        context: &ReceiveContext<'_>,
        lines: &mut LineStream<'_>,
    ) -> Result<Received, ReceiveError>;

    /// The client's conversation is over, and its copy is whole: stays for as long as others need
    /// it, or until `stopped`.
    fn serve_others(self: Box<Self>, stopped: &AtomicBool) {
        let _ = stopped;
    }
}

/// A seat before READY.
#[derive(Debug)]
pub struct PrepareContext<'a, 'b> {
    /// The control connection.
    pub lines: &'a mut LineStream<'b>,
    /// The seat and the file.
    pub offer: &'a Offer,
    /// Where the bytes will go; it holds what an earlier session left.
    pub file: &'a FileStorage,
}

/// What is to come, and where it goes.
#[derive(Debug)]
pub struct ReceiveContext<'a> {
    /// The control connection.
    pub stream: &'a TcpStream,
    /// The seat and the file.
    pub offer: &'a Offer,
    /// What the user asked for.
    pub config: &'a FetchConfig,
    /// Where the bytes go, each at its own place.
    pub file: &'a FileStorage,
    /// The part that is to come.
    pub range: Range<u64>,
    /// Counts the payload bytes as they move.
    pub moved: &'a AtomicU64,
    /// Set when the user wants it to end.
    pub stopped: &'a AtomicBool,
}

/// Why a payload ended early.
#[derive(Debug)]
pub struct ReceiveError {
    /// The error.
    pub error: Error,
    /// What is known of a payload that is over and has holes.
    pub partial: Option<Box<PartialReceive>>,
}

impl From<Error> for ReceiveError {
    fn from(error: Error) -> Self {
        Self { error, partial: None }
    }
}

/// A payload that is over and not whole.
#[derive(Clone, Copy, Debug)]
pub struct PartialReceive {
    /// When it was over, if its sender said so.
    pub last: Option<Moment>,
    /// The part was cut to what has no hole, so that a later session may take it up.
    pub cut: bool,
    /// What this way counted.
    pub counts: Counts,
}

/// A payload that is in.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// When its first byte came; `None` when there was none.
    pub first: Option<Moment>,
    /// When its last byte came.
    pub last: Moment,
    /// What this way counts.
    pub counts: Counts,
    /// Where the time went, as far as this way knows.
    pub evidence: Evidence,
}

/// Says why a copy by TCP from `peer` ended at byte `moved` of `want`.
pub fn stopped(
    stop: Stop,
    peer: impl fmt::Display,
    config: &FetchConfig,
    (moved, want): (u64, u64),
) -> Error {
    match stop {
        Stop::Stalled => Error::timed_out(Phase::Transfer, peer, config.stall),
        Stop::Stopped => Error::Interrupted,
        Stop::Disk(error) => Error::io("write the copy", ShownPath(&config.out))(error),
        Stop::Short => {
            Error::Corrupt { what: "the copy is shorter than what was written".to_owned() }
        }
        Stop::Peer(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
            let what = format!("the connection ended at byte {moved} of {want}");
            Error::io("receive the file", peer)(io::Error::new(error.kind(), what))
        }
        Stop::Peer(error) => Error::io("receive the file", peer)(error),
    }
}

impl Received {
    /// Nothing was to come.
    #[must_use]
    pub fn nothing(now: Moment) -> Self {
        let (counts, evidence) = (Counts::default(), Evidence::default());
        Self { first: None, last: now, counts, evidence }
    }
}

//! The client's end of a control connection: one or more clients in this process, a thread each.
//!
//! A client joins, waits at the gate, takes the payload into a `.part`, verifies what is on disk,
//! makes it durable, gives it its name and sends its receipt. Its failure is its own: the others
//! go on.

mod config;
mod conversation;
pub mod part;
pub mod receive;
mod run;
mod verify;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::time::Duration;

use time::OffsetDateTime;

use crate::client::receive::ReceiveTransport;
use crate::error::Error;
use crate::error::Phase;
use crate::error::Result;
use crate::net::clock;
use crate::net::line_stream::LineStream;
use crate::net::socket;
use crate::proto::native::ClientHello;
use crate::proto::native::ErrorCode;
use crate::proto::native::FromServer;
use crate::proto::native::Offer;
use crate::session::FileInfo;
use crate::transfer::Outcome;
use crate::transfer::Record;
use crate::transfer::Transfer;
use crate::units::Moment;

pub use config::FetchConfig;
pub use run::FetchRun;

/// One client's end.
#[derive(Debug)]
pub struct ClientReport {
    /// The seat it had; `None` if it never had one.
    pub offer: Option<Offer>,
    /// When it heard GO, as a label.
    pub released_at: Option<OffsetDateTime>,
    /// How its transfer went, as far as this client knows.
    pub transfer: Option<Transfer>,
    /// How the server sends, where it said so.
    pub sender: Option<String>,
    /// Where the copy is; `None` unless it is whole and verified.
    pub path: Option<PathBuf>,
    /// What stopped it.
    pub error: Option<Error>,
}

/// What a client is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientStage {
    /// Looking for the server.
    Connecting,
    /// Getting a seat, and ready to receive.
    Joining,
    /// At the gate.
    Waiting,
    /// Receiving.
    Receiving,
    /// Computing the digest of the copy.
    Verifying,
    /// Done, one way or the other.
    Ended,
}

/// A client as a face shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientView {
    /// What it is doing.
    pub stage: ClientStage,
    /// Payload bytes received.
    pub moved: u64,
    /// Payload bytes to come in all; 0 until it is known.
    pub bytes: u64,
    /// Clients ready at the gate, as the server told last, and how many it waits for.
    pub muster: Option<(u16, u16)>,
}

/// One client, as its thread and the faces share it.
#[derive(Debug)]
pub struct Client {
    stage: AtomicU8,
    moved: AtomicU64,
    bytes: AtomicU64,
    /// Ready clients in the upper half, wanted ones in the lower; zero before the first WAIT.
    muster: AtomicU64,
    stream: Mutex<Option<Arc<TcpStream>>>,
}

/// How long one attempt to connect may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long the server may take to offer a seat: it may have to hash the file first.
const OFFER_LIMIT: Duration = Duration::from_secs(120);

/// How long the server's summary is waited for.
const SUMMARY_LIMIT: Duration = Duration::from_secs(30);

/// The records of `ends`, one for each session that they sat in, as this process knows them.
pub fn records(ends: &[ClientReport]) -> Vec<Record> {
    let mut records = BTreeMap::new();
    for (offer, end) in ends
        .iter()
        .filter_map(|end| Some((end.offer.as_ref()?, end)))
    {
        let record = records.entry(offer.session).or_insert_with(|| Record {
            session: offer.session,
            via: offer.via,
            file: offer.file.clone(),
            clients: offer.clients,
            released_at: None,
            sender: None,
            transfers: Vec::new(),
        });
        record.released_at = record.released_at.or(end.released_at);
        record.sender = record.sender.take().or_else(|| end.sender.clone());
        record.transfers.extend(end.transfer.clone());
    }
    let mut records: Vec<Record> = records.into_values().collect();
    records
        .iter_mut()
        .for_each(|record| record.transfers.sort_by_key(|t| t.seat));
    records
}

/// What the server at `server` offers.
///
/// # Errors
/// It cannot be reached, or does not speak the protocol.
pub fn list(server: &[SocketAddr]) -> Result<Vec<FileInfo>> {
    let stream = socket::connect(server, clock::now().after(CONNECT_LIMIT))?;
    let peer = stream
        .peer_addr()
        .map_err(Error::io("connect", "the server"))?;
    let mut lines = LineStream::new(&stream, peer, b"");
    lines.write_line(&ClientHello::List.encode())?;
    let mut files = Vec::new();
    loop {
        match read_message(&mut lines, clock::now().after(OFFER_LIMIT), Phase::Offer)? {
            FromServer::File(file) if files.len() < crate::proto::native::FILES_MAX => {
                files.push(file)
            }
            FromServer::End => return Ok(files),
            FromServer::Error { code, reason } => return Err(server_error(peer, code, reason)),
            _ => return Err(Error::protocol(peer, "no list of files")),
        }
    }
}

fn read_message(lines: &mut LineStream<'_>, deadline: Moment, phase: Phase) -> Result<FromServer> {
    let line = lines.read_line(deadline, phase)?;
    FromServer::decode(&line).map_err(|error| Error::protocol(lines.peer(), error.to_string()))
}

/// The error that a server's ERROR is on this side.
fn server_error(peer: SocketAddr, code: ErrorCode, reason: String) -> Error {
    let reason = crate::text::escape(&reason);
    match code {
        ErrorCode::Muster => Error::NotEnough { reason },
        ErrorCode::Changed => Error::source_changed(peer, &reason),
        _ => Error::Refused {
            by: peer.to_string(),
            reason,
        },
    }
}

impl Client {
    fn new() -> Self {
        Self {
            stage: AtomicU8::new(ClientStage::Connecting as u8),
            moved: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            muster: AtomicU64::new(0),
            stream: Mutex::new(None),
        }
    }

    /// Goes on to `stage`.
    pub(crate) fn set_stage(&self, stage: ClientStage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// Where payload bytes are counted.
    pub(crate) fn moved(&self) -> &AtomicU64 {
        &self.moved
    }

    /// So many payload bytes are to come.
    pub(crate) fn expect(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Relaxed);
    }

    /// Connects, and lets [`Fetch::stop`] end the connection.
    pub(crate) fn connect(&self, fetch: &FetchRun, order: &FetchConfig) -> Result<Arc<TcpStream>> {
        let stream = Arc::new(run::connect(fetch, order)?);
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&stream));
        match fetch.is_stopped() {
            true => Err(Error::Interrupted),
            false => Ok(stream),
        }
    }

    fn view(&self) -> ClientView {
        let stage = self.stage.load(Ordering::Relaxed);
        let muster = self.muster.load(Ordering::Relaxed);
        let half = |bits: u64| u16::try_from(bits & 0xffff).expect("sixteen bits");
        ClientView {
            stage: ClientStage::ALL
                .into_iter()
                .find(|&s| s as u8 == stage)
                .expect("only stages are stored"),
            moved: self.moved.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            muster: (muster != 0).then(|| (half(muster >> 16), half(muster))),
        }
    }

    fn run(
        &self,
        fetch: &FetchRun,
        order: &FetchConfig,
        number: u16,
        intakes: &[&dyn ReceiveTransport],
    ) -> ClientReport {
        let mut end = ClientReport::before_the_seat(Error::Interrupted);
        end.error = self.converse(fetch, order, number, intakes, &mut end).err();
        if fetch.is_stopped() && end.path.is_none() {
            end.error = Some(Error::Interrupted);
        }
        if let (Some(transfer), Some(error)) = (&mut end.transfer, &end.error) {
            transfer.fail(outcome_of(error), error.to_string());
        }
        // The server waits for the connection to close; it must not outlive its conversation.
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.set_stage(ClientStage::Ended);
        end
    }
}

/// What a client's error means for its row.
pub(crate) fn outcome_of(error: &Error) -> Outcome {
    match error {
        Error::TimedOut { .. } => Outcome::TimedOut,
        Error::Corrupt { .. } => Outcome::Corrupt,
        Error::NotEnough { .. } => Outcome::TimedOut,
        Error::Refused { .. } => Outcome::Refused,
        _ => Outcome::Cut,
    }
}

impl ClientStage {
    const ALL: [Self; 6] = [
        Self::Connecting,
        Self::Joining,
        Self::Waiting,
        Self::Receiving,
        Self::Verifying,
        Self::Ended,
    ];
}

impl ClientReport {
    /// The end of a client that never had a seat.
    pub(crate) fn before_the_seat(error: Error) -> Self {
        Self {
            offer: None,
            released_at: None,
            transfer: None,
            sender: None,
            path: None,
            error: Some(error),
        }
    }
}

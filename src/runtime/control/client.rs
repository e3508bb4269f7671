//! The client's end of a control connection: one or more clients in this process, a thread each.
//!
//! A client joins, waits at the gate, takes the payload into a `.part`, verifies what is on disk,
//! makes it durable, gives it its name and sends its receipt. Its failure is its own: the others
//! go on.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU8;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use time::OffsetDateTime;

use crate::digest::Digest;
use crate::error::Error;
use crate::error::Phase;
use crate::error::Result;
use crate::proto::native::ErrorCode;
use crate::proto::native::FromClient;
use crate::proto::native::FromServer;
use crate::proto::native::Join;
use crate::proto::native::Offer;
use crate::proto::native::Opening;
use crate::proto::native::Receipt;
use crate::proto::udp::pieces::MENDS_MAX;
use crate::runtime::clock;
use crate::runtime::control::intake::Armed;
use crate::runtime::control::intake::Arriving;
use crate::runtime::control::intake::Damaged;
use crate::runtime::control::intake::Incoming;
use crate::runtime::control::intake::Intake;
use crate::runtime::control::intake::Taken;
use crate::runtime::control::part::Part;
use crate::runtime::copy;
use crate::runtime::dialogue::Dialogue;
use crate::runtime::lobby::STACK;
use crate::runtime::socket;
use crate::session::FileInfo;
use crate::session::MAX_SEATS;
use crate::session::SeatId;
use crate::session::Via;
use crate::text::ClientName;
use crate::text::FileName;
use crate::transfer::Outcome;
use crate::transfer::Record;
use crate::transfer::Transfer;
use crate::units::Moment;

/// What the user wants fetched, and how.
#[derive(Clone, Debug)]
pub struct Order {
    /// The server's addresses, tried in order.
    pub server: Vec<SocketAddr>,
    /// The file; `None` takes the server's.
    pub file: Option<FileName>,
    /// How many clients this process starts.
    pub clients: u16,
    /// How many the group has; `None` is as many as this process starts.
    pub group: Option<u16>,
    /// The way; `None` takes the server's.
    pub via: Option<Via>,
    /// What the clients call themselves; with more than one, a number follows.
    pub name: String,
    /// The folder for the copies.
    pub out: PathBuf,
    /// Take up parts that an earlier session left.
    pub resume: bool,
    /// How long a server that is not there yet is waited for.
    pub retry: Duration,
    /// The digest that the user knows the file to have.
    pub sha1: Option<Digest>,
    /// How bytes are copied from the socket.
    pub copy: copy::Method,
    /// A server that makes no progress for this long is given up.
    pub stall: Duration,
    /// Sync copies to disk before they count as received.
    pub durable: bool,
    /// Where clients serve each other: go on for so long after the last byte; `None` is until
    /// all have it.
    pub seed_time: Option<Duration>,
}

/// The clients of one order as they run.
#[derive(Debug)]
pub struct Fetch {
    clients: Vec<Arc<Client>>,
    stopped: AtomicBool,
    /// How many of them are receiving.
    receiving: Mutex<usize>,
    none_receives: Condvar,
}

/// A client that is receiving, until this is dropped.
struct Receiving<'a>(&'a Fetch);

/// One client's end.
#[derive(Debug)]
pub struct End {
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
pub enum Stage {
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
    pub stage: Stage,
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

/// How long the gate may be silent; it says WAIT every second.
const GATE_SILENCE: Duration = Duration::from_secs(10);

/// How long the server's summary is waited for.
const SUMMARY_LIMIT: Duration = Duration::from_secs(30);

/// How often a client that hashes says that it lives.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// How long a client that is done waits for the others of its process before it hashes: longer
/// than clients of one host take to end after each other, and no more than its sign of life.
const HASH_PAUSE: Duration = Duration::from_secs(1);

/// Pause between two attempts to connect.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

impl Drop for Receiving<'_> {
    fn drop(&mut self) {
        let mut receiving = self
            .0
            .receiving
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *receiving -= 1;
        if *receiving == 0 {
            self.0.none_receives.notify_all();
        }
    }
}

impl Order {
    /// One client that fetches the server's file into `received`.
    pub fn new(server: Vec<SocketAddr>) -> Self {
        Self {
            server,
            file: None,
            clients: 1,
            group: None,
            via: None,
            name: "client".to_owned(),
            out: PathBuf::from("received"),
            resume: false,
            retry: Duration::ZERO,
            sha1: None,
            copy: copy::Method::Auto,
            stall: Duration::from_secs(30),
            durable: true,
            seed_time: None,
        }
    }

    /// What client `number` calls itself.
    ///
    /// # Errors
    /// A name that is empty or too long.
    pub(crate) fn name_of(&self, number: u16) -> Result<ClientName> {
        let name = match self.clients {
            1 => self.name.clone(),
            _ => format!("{}-{number}", self.name),
        };
        ClientName::new(&name).map_err(|error| Error::refused("gatecast", error.to_string()))
    }

    /// What the copy of the client in `seat` is called.
    ///
    /// # Errors
    /// A name that becomes too long by the seat before it.
    pub(crate) fn copy_name(&self, seat: SeatId, file: &FileName) -> Result<FileName> {
        match self.clients {
            1 => Ok(file.clone()),
            _ => FileName::new(&format!("C{seat}-{}", file.as_str()))
                .map_err(|error| Error::refused("gatecast", error.to_string())),
        }
    }

    /// Refuses a file of which `left` bytes are still to come to each client, where the disk has
    /// no room for them.
    ///
    /// # Errors
    /// Too little is free.
    pub(crate) fn needs_room(&self, left: u64) -> Result<()> {
        let needed = left.saturating_mul(u64::from(self.clients));
        match socket::free_space(&self.out).filter(|&free| free < needed) {
            None => Ok(()),
            Some(free) => Err(Error::refused(
                crate::text::escape(&self.out.display().to_string()),
                format!(
                    "{} x {left} bytes are to come and {free} bytes are free",
                    self.clients
                ),
            )),
        }
    }
}

impl Fetch {
    /// Clients for `order`, not yet started.
    pub fn new(order: &Order) -> Self {
        let clients = (0..order.clients)
            .map(|_| Arc::new(Client::new()))
            .collect();
        Self {
            clients,
            stopped: AtomicBool::new(false),
            receiving: Mutex::new(0),
            none_receives: Condvar::new(),
        }
    }

    fn receives(&self) -> Receiving<'_> {
        *self
            .receiving
            .lock()
            .unwrap_or_else(PoisonError::into_inner) += 1;
        Receiving(self)
    }

    /// Waits until no client of this process receives, for [`HASH_PAUSE`] at most: the digests of
    /// those that are done would take the processor from those that are not.
    fn wait_for_the_others(&self) {
        let receiving = self
            .receiving
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        drop(
            self.none_receives
                .wait_timeout_while(receiving, HASH_PAUSE, |count| *count > 0),
        );
    }

    /// Runs every client to its end.
    ///
    /// # Errors
    /// The order cannot be begun: a number out of range, too few file descriptors. What happens
    /// to a client after that is in its [`End`].
    pub fn run(&self, order: &Order, intakes: &[&dyn Intake]) -> Result<Vec<End>> {
        self.run_each(order, &|client, number| {
            client.run(self, order, number, intakes)
        })
    }

    /// Runs every client to its end, each by `talk`, which gets the client and its number from 1.
    /// For clients that speak another protocol than the native one.
    ///
    /// # Errors
    /// As [`Fetch::run`].
    pub fn run_each(
        &self,
        order: &Order,
        talk: &(dyn Fn(&Client, u16) -> End + Sync),
    ) -> Result<Vec<End>> {
        if !(1..=MAX_SEATS).contains(&order.clients) {
            return Err(Error::refused(
                "gatecast",
                format!("{} clients: 1 to {MAX_SEATS} are possible", order.clients),
            ));
        }
        order
            .copy
            .resolved()
            .map_err(|why| Error::refused("gatecast", why))?;
        // A socket and a file each, and a pipe's two ends.
        let wanted = u64::from(order.clients) * 4 + 64;
        if let Some(limit) = socket::descriptors(wanted).filter(|&limit| limit < wanted) {
            let reason = format!(
                "{} clients need {wanted} open files and the limit is {limit} (ulimit -n)",
                order.clients
            );
            return Err(Error::refused("the system", reason));
        }
        let ends = thread::scope(|scope| {
            let running: Vec<_> = (1..)
                .zip(&self.clients)
                .map(|(number, client)| {
                    thread::Builder::new()
                        .name(format!("client-{number}"))
                        .stack_size(STACK)
                        .spawn_scoped(scope, move || talk(client, number))
                        .map_err(Error::io("start the client's thread", number))
                })
                .collect();
            let ended = |result: Result<thread::ScopedJoinHandle<'_, End>>| match result {
                Ok(thread) => thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                Err(error) => End::before_the_seat(error),
            };
            running.into_iter().map(ended).collect()
        });
        Ok(ends)
    }

    /// Stops every client; each comes to its end by itself.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        for client in &self.clients {
            if let Some(stream) = &*client.stream.lock().unwrap_or_else(PoisonError::into_inner) {
                // A connection that is gone already needs no closing.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
    }

    /// What a face shows.
    pub fn views(&self) -> Vec<ClientView> {
        self.clients.iter().map(|client| client.view()).collect()
    }

    /// True when every client is to end.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }
}

/// The records of `ends`, one for each session that they sat in, as this process knows them.
pub fn records(ends: &[End]) -> Vec<Record> {
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
    let mut dialogue = Dialogue::new(&stream, peer, b"");
    dialogue.say(&Opening::List.encode())?;
    let mut files = Vec::new();
    loop {
        match hear(&mut dialogue, clock::now().after(OFFER_LIMIT), Phase::Offer)? {
            FromServer::File(file) if files.len() < crate::runtime::catalog::FILES_MAX => {
                files.push(file)
            }
            FromServer::End => return Ok(files),
            FromServer::Error { code, reason } => return Err(told(peer, code, reason)),
            _ => return Err(Error::protocol(peer, "no list of files")),
        }
    }
}

fn hear(dialogue: &mut Dialogue<'_>, deadline: Moment, phase: Phase) -> Result<FromServer> {
    let line = dialogue.hear(deadline, phase)?;
    FromServer::decode(&line).map_err(|error| Error::protocol(dialogue.peer(), error.to_string()))
}

/// The error that a server's ERROR is on this side.
fn told(peer: SocketAddr, code: ErrorCode, reason: String) -> Error {
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
            stage: AtomicU8::new(Stage::Connecting as u8),
            moved: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            muster: AtomicU64::new(0),
            stream: Mutex::new(None),
        }
    }

    /// Goes on to `stage`.
    pub(crate) fn enter(&self, stage: Stage) {
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
    pub(crate) fn connect(&self, fetch: &Fetch, order: &Order) -> Result<Arc<TcpStream>> {
        let stream = Arc::new(connect(fetch, order)?);
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
            stage: Stage::ALL
                .into_iter()
                .find(|&s| s as u8 == stage)
                .expect("only stages are stored"),
            moved: self.moved.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            muster: (muster != 0).then(|| (half(muster >> 16), half(muster))),
        }
    }

    fn run(&self, fetch: &Fetch, order: &Order, number: u16, intakes: &[&dyn Intake]) -> End {
        let mut end = End::before_the_seat(Error::Interrupted);
        end.error = self.converse(fetch, order, number, intakes, &mut end).err();
        if fetch.is_stopped() && end.path.is_none() {
            end.error = Some(Error::Interrupted);
        }
        if let (Some(transfer), Some(error)) = (&mut end.transfer, &end.error) {
            transfer.fail(outcome_of(error), error.to_string());
        }
        // The server waits for the connection to close; it must not outlive its conversation.
        *self.stream.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.enter(Stage::Ended);
        end
    }

    fn converse(
        &self,
        fetch: &Fetch,
        order: &Order,
        number: u16,
        intakes: &[&dyn Intake],
        end: &mut End,
    ) -> Result<()> {
        let stream = self.connect(fetch, order)?;
        let peer = stream
            .peer_addr()
            .map_err(Error::io("connect", "the server"))?;
        let mut dialogue = Dialogue::new(&stream, peer, b"");
        self.enter(Stage::Joining);

        let name = order.name_of(number)?;
        let group = order.group.unwrap_or(order.clients);
        let join = Join {
            file: order.file.clone(),
            group,
            via: order.via,
            name: name.clone(),
        };
        dialogue.say(&Opening::Join(join).encode())?;
        let offer = match hear(&mut dialogue, clock::now().after(OFFER_LIMIT), Phase::Offer)? {
            FromServer::Offer(offer) => offer,
            FromServer::Error { code, reason } => return Err(told(peer, code, reason)),
            _ => return Err(Error::protocol(peer, "no offer")),
        };
        let mut transfer = Transfer::new(offer.seat, name.as_str(), Outcome::Complete);
        transfer.client = stream.local_addr().ok();
        transfer.server = Some(peer);
        end.transfer = Some(transfer);
        end.offer = Some(offer.clone());

        let begun = self.begin(order, number, &offer, intakes, &stream, &mut dialogue);
        let (part, hasher, mut armed) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                refuse(&dialogue, &error);
                return Err(error);
            }
        };
        let offset = armed.held().unwrap_or_else(|| part.resumed());
        dialogue.say(&FromClient::Ready { offset }.encode())?;
        self.enter(Stage::Waiting);
        self.wait(&mut dialogue, &offer, offset)?;
        let released = dialogue.heard_at();
        end.released_at = Some(clock::wall());
        self.enter(Stage::Receiving);

        let transfer = end.transfer.as_mut().expect("made above");
        transfer.bytes_resumed = offset;
        let range = offset..offer.file.bytes;
        let want = range.end - range.start;
        let incoming = Incoming {
            stream: &stream,
            offer: &offer,
            order,
            file: part.file(),
            range,
            moved: &self.moved,
            holed: Cell::new(None),
            stopped: &fetch.stopped,
        };
        let receiving = fetch.receives();
        let taken = armed.receive(&incoming, &mut dialogue);
        drop(receiving);
        let bytes = self.moved.load(Ordering::Relaxed);
        transfer.bytes_client = Some(bytes);
        let mut taken = match taken {
            Ok(taken) => taken,
            Err(error) => {
                let holed = incoming.holed.get();
                if let Some(holed) = holed {
                    transfer.counts = holed.counts;
                    transfer.seconds_client = holed.last.map(|last| last.since(released));
                }
                fail(&dialogue, &error, bytes, transfer);
                if holed.is_some() {
                    self.hear_summary(&mut dialogue, transfer, &mut end.sender);
                }
                return Err(error);
            }
        };
        transfer.counts = taken.counts;
        transfer.seconds_client = Some(taken.last.since(released));
        note(dialogue.say(&FromClient::Last { bytes }.encode()));
        self.enter(Stage::Verifying);
        fetch.wait_for_the_others();
        let mends = Mends {
            armed: armed.as_mut(),
            stall: order.stall,
            stopped: &fetch.stopped,
        };
        let part = self.verify(
            &offer,
            part,
            hasher,
            &mut dialogue,
            released,
            &mut taken,
            want,
            transfer,
            mends,
        )?;
        let (path, durable) = match store(part, order.durable, &dialogue, offer.file.bytes) {
            Ok(path) => (path, order.durable.then(|| clock::now().since(released))),
            Err(error) => {
                fail(&dialogue, &error, bytes, transfer);
                return Err(error);
            }
        };
        transfer.seconds_durable = durable;
        transfer.verified = Some(true);
        end.path = Some(path);
        self.conclude(
            &mut dialogue,
            &offer,
            bytes,
            &taken,
            transfer,
            &mut end.sender,
        );
        armed.leave(&fetch.stopped);
        Ok(())
    }

    /// Checks the offer and opens the part; with a part of an earlier session, hashes it.
    fn begin(
        &self,
        order: &Order,
        number: u16,
        offer: &Offer,
        intakes: &[&dyn Intake],
        stream: &TcpStream,
        dialogue: &mut Dialogue<'_>,
    ) -> Result<Begun> {
        let peer = dialogue.peer();
        let info = &offer.file;
        if let Some(file) = order.file.as_ref().filter(|file| **file != info.name) {
            return Err(Error::protocol(
                peer,
                format!("offered '{}' and not '{file}'", info.name),
            ));
        }
        if let Some(sha1) = order.sha1.filter(|sha1| *sha1 != info.sha1) {
            let reason = format!(
                "it offers '{}' with the SHA-1 {}, not {sha1}",
                info.name, info.sha1
            );
            return Err(Error::refused(peer, reason));
        }
        let intake = intakes.iter().find(|intake| intake.via() == offer.via);
        let Some(&intake) = intake else {
            return Err(Error::refused(
                "gatecast",
                format!("this client cannot receive via {}", offer.via),
            ));
        };
        let name = order.copy_name(offer.seat, &info.name)?;
        let open = match intake.scattered() {
            true => Part::open_scattered,
            false => Part::open,
        };
        let part = open(
            &order.out,
            &name,
            info.bytes,
            info.sha1,
            number,
            order.resume,
        )?;
        let left = info.bytes - part.resumed();
        self.bytes.store(left, Ordering::Relaxed);
        if let Err(error) = order.needs_room(left) {
            if part.resumed() == 0 {
                part.discard();
            }
            return Err(error);
        }
        let mut prefix = Prefix::default();
        let arriving = Arriving {
            stream,
            offer,
            order,
            file: part.file(),
        };
        let armed = intake.arm(&arriving, dialogue)?;
        match armed.held() {
            Some(held) => self.bytes.store(info.bytes - held, Ordering::Relaxed),
            None => {
                let resumed = part.resumed();
                prefix.extend(&part, resumed, |alive| dialogue.say(alive))?;
            }
        }
        Ok((part, prefix, armed))
    }

    /// At the gate: until GO.
    fn wait(&self, dialogue: &mut Dialogue<'_>, offer: &Offer, offset: u64) -> Result<()> {
        let peer = dialogue.peer();
        loop {
            match hear(dialogue, clock::now().after(GATE_SILENCE), Phase::Muster)? {
                FromServer::Wait { ready, clients } => {
                    self.muster.store(
                        u64::from(ready) << 16 | u64::from(clients),
                        Ordering::Relaxed,
                    );
                }
                FromServer::Go { bytes } if bytes == offer.file.bytes - offset => return Ok(()),
                FromServer::Go { bytes } => {
                    let what = format!(
                        "GO with {bytes} bytes of the {} that are missing",
                        offer.file.bytes - offset
                    );
                    return Err(Error::protocol(peer, what));
                }
                FromServer::Error { code, reason } => return Err(told(peer, code, reason)),
                _ => return Err(Error::protocol(peer, "no message for a client at the gate")),
            }
        }
    }

    /// Hashes what is on disk; a copy with another digest is removed.
    #[allow(clippy::too_many_arguments, reason = "one step of one conversation")]
    fn verify(
        &self,
        offer: &Offer,
        part: Part,
        mut prefix: Prefix,
        dialogue: &mut Dialogue<'_>,
        released: Moment,
        taken: &mut Taken,
        want: u64,
        transfer: &mut Transfer,
        mends: Mends<'_>,
    ) -> Result<Part> {
        let info = &offer.file;
        let mut number = 0;
        let sha1 = loop {
            prefix.extend(&part, info.bytes, |alive| {
                note(dialogue.say(alive));
                Ok(())
            })?;
            let sha1 = std::mem::take(&mut prefix).hasher.finish();
            number += 1;
            if sha1 == info.sha1 || number > MENDS_MAX {
                break sha1;
            }
            let damaged = Damaged {
                offer,
                file: part.file(),
                number,
                counts: taken.counts,
                stall: mends.stall,
                stopped: mends.stopped,
            };
            match mends.armed.mend(&damaged, dialogue) {
                Ok(Some(counts)) => {
                    taken.counts = counts;
                    transfer.counts = counts;
                }
                Ok(None) => break sha1,
                Err(error) => {
                    log::warn!("seat {}: cannot be mended: {error}", offer.seat);
                    break sha1;
                }
            }
        };
        let hashed = clock::now().since(released);
        transfer.seconds_verified = Some(hashed);
        transfer.first_client = taken.first.map(|first| (clock::id(), first));
        note(dialogue.say(&FromClient::Hashed { sha1 }.encode()));
        if sha1 == info.sha1 {
            return Ok(part);
        }
        part.discard();
        transfer.verified = Some(false);
        let last = taken.last.since(released);
        let receipt = Receipt {
            bytes: want,
            sha1,
            last,
            hashed,
            durable: None,
            first: transfer.first_client,
            counts: taken.counts,
        };
        note(dialogue.say(&FromClient::Receipt(receipt).encode()));
        let why = match hear(dialogue, clock::now().after(SUMMARY_LIMIT), Phase::Receipt) {
            Ok(FromServer::Error {
                code: ErrorCode::Changed,
                reason,
            }) => crate::text::escape(&reason),
            _ => format!("its SHA-1 is {sha1}, not {}", info.sha1),
        };
        Err(Error::Corrupt {
            what: format!("'{}': {why}", info.name),
        })
    }

    /// Sends the receipt and hears the summary. The copy is proven by now; a server that is gone
    /// takes only its own figures with it.
    fn conclude(
        &self,
        dialogue: &mut Dialogue<'_>,
        offer: &Offer,
        bytes: u64,
        taken: &Taken,
        transfer: &mut Transfer,
        sender: &mut Option<String>,
    ) {
        let receipt = Receipt {
            bytes,
            sha1: offer.file.sha1,
            last: transfer.seconds_client.unwrap_or_default(),
            hashed: transfer.seconds_verified.unwrap_or_default(),
            durable: transfer.seconds_durable,
            first: taken.first.map(|first| (clock::id(), first)),
            counts: taken.counts,
        };
        match dialogue.say(&FromClient::Receipt(receipt).encode()) {
            Ok(()) => self.hear_summary(dialogue, transfer, sender),
            Err(error) => log::warn!("seat {}: no summary: {error}", offer.seat),
        }
    }

    /// Hears the server's account; without it the copy is no less proven.
    fn hear_summary(
        &self,
        dialogue: &mut Dialogue<'_>,
        transfer: &mut Transfer,
        sender: &mut Option<String>,
    ) {
        let seat = transfer.seat;
        match hear(dialogue, clock::now().after(SUMMARY_LIMIT), Phase::Receipt) {
            Ok(FromServer::Summary(summary)) => {
                transfer.bytes_server = Some(summary.bytes);
                transfer.seconds_server = summary.last;
                transfer.woke = Some(summary.woke);
                transfer.first_server = summary.first;
                transfer.counts = summary.counts;
                if summary.outcome == Outcome::Complete {
                    transfer.reason = summary.reason;
                } else if transfer.outcome == Outcome::Complete && transfer.verified.is_some() {
                    let outcome = summary.outcome;
                    let reason = crate::text::escape(&summary.reason.unwrap_or_default());
                    log::warn!("the server counts this copy as {outcome}: {reason}");
                }
                *sender = Some(summary.sender);
            }
            Ok(_) => log::warn!("seat {seat}: the server's last word was no summary"),
            Err(error) => log::warn!("seat {seat}: no summary: {error}"),
        }
    }
}

/// What mending a copy takes.
struct Mends<'a> {
    armed: &'a mut dyn Armed,
    stall: Duration,
    stopped: &'a AtomicBool,
}

/// What a client has ready for GO: its part, what is hashed of it, and its way.
type Begun = (Part, Prefix, Box<dyn Armed>);

/// A digest as far as it is known.
#[derive(Default)]
struct Prefix {
    hasher: crate::digest::Hasher,
    bytes: u64,
}

impl Prefix {
    /// Hashes the part up to `end`, reading it back from disk, and has the server told each second
    /// that this client lives.
    fn extend(
        &mut self,
        part: &Part,
        end: u64,
        mut tell: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut buffer = vec![0; crate::digest::HASH_BUF];
        let mut alive = clock::now().after(ALIVE_EVERY);
        while self.bytes < end {
            let want = usize::try_from(end - self.bytes)
                .unwrap_or(usize::MAX)
                .min(buffer.len());
            let read =
                copy::read_at(part.file(), &mut buffer[..want], self.bytes).map_err(|stop| {
                    match stop {
                        copy::Stop::Disk(error) => {
                            Error::io("read the copy back", part.shown())(error)
                        }
                        _ => Error::Corrupt {
                            what: format!("{} was truncated by another program", part.shown()),
                        },
                    }
                })?;
            self.hasher.update(&buffer[..read]);
            self.bytes += read as u64;
            // Other clients of this machine may still receive; those go first.
            thread::yield_now();
            if clock::now() >= alive {
                alive = clock::now().after(ALIVE_EVERY);
                tell(&FromClient::Alive { bytes: self.bytes }.encode())?;
            }
        }
        Ok(())
    }
}

/// Syncs and renames.
fn store(part: Part, durable: bool, dialogue: &Dialogue<'_>, bytes: u64) -> Result<PathBuf> {
    if durable {
        // A slow disk may take long; the server is told before and gives the same time again.
        note(dialogue.say(&FromClient::Alive { bytes }.encode()));
        part.sync()?;
    }
    part.publish(durable)
}

/// Once the last byte is in, a server that is gone takes only its own figures with it: the copy is
/// verified, and whole or not, without it.
fn note(said: Result<()>) {
    if let Err(error) = said {
        log::warn!("{error}");
    }
}

/// Says that this client cannot be served, before the release.
fn refuse(dialogue: &Dialogue<'_>, error: &Error) {
    let nobody = Transfer::new(SeatId(0), "", Outcome::Refused);
    tell(dialogue, Outcome::Refused, error, 0, &nobody);
}

/// Says how the transfer failed, with what was counted of it.
fn fail(dialogue: &Dialogue<'_>, error: &Error, bytes: u64, transfer: &Transfer) {
    tell(dialogue, outcome_of(error), error, bytes, transfer);
}

fn tell(dialogue: &Dialogue<'_>, outcome: Outcome, error: &Error, bytes: u64, transfer: &Transfer) {
    let line = FromClient::Fail {
        outcome,
        bytes,
        reason: error.to_string(),
        last: transfer.seconds_client,
        counts: transfer.counts,
    }
    .encode();
    // The connection may be what failed.
    if let Err(error) = dialogue.say(&line) {
        log::debug!("{error}");
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

/// Connects, again and again while the server is not there yet and the order's patience lasts.
fn connect(fetch: &Fetch, order: &Order) -> Result<TcpStream> {
    let patience = clock::now().after(order.retry);
    loop {
        let error = match socket::connect(&order.server, clock::now().after(CONNECT_LIMIT)) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let Some(left) = clock::left(patience).filter(|_| !fetch.is_stopped()) else {
            return Err(error);
        };
        thread::sleep(left.min(RETRY_PAUSE));
    }
}

impl Stage {
    const ALL: [Self; 6] = [
        Self::Connecting,
        Self::Joining,
        Self::Waiting,
        Self::Receiving,
        Self::Verifying,
        Self::Ended,
    ];
}

impl End {
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

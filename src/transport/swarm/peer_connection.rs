//! One connection to another peer: a thread that only reads and a thread that only writes.
//!
//! If a reader wrote, two peers that both send could wait for each other for ever: each blocked on
//! a full socket, and neither reading. So whatever a reader wants to send goes into the
//! [`Outbox`], where a choke or a cancel can still drop requested blocks.

use std::{
    fmt,
    io::{self, IoSlice, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::{arrival, clock},
    proto::{
        bt::{
            receive_rate::ReceiveRate,
            wire::{self, Block, Handshake, Message, MessageLimits, PeerId},
        },
        line::DecodeError,
    },
    transport::swarm::{
        address::unmapped,
        external_peers::ExternalPlace,
        outbox::{NextWrite, Outbox},
        peer_id::Role,
        store::Store,
    },
    units::Moment,
};

/// A connection whose handshakes are over.
#[derive(Debug)]
pub struct PeerConnection {
    /// Its number in its member, once that has admitted it.
    pub key: u32,
    /// The other end.
    pub addr: SocketAddr,
    /// The other side's handshake.
    pub handshake: Handshake,
    /// We opened the connection.
    pub dialed: bool,
    /// What its messages may be.
    pub limits: MessageLimits,
    /// What waits to be written.
    pub outbox: Outbox,
    /// Its place, where the other side has no seat.
    pub place: Option<ExternalPlace>,
    /// The bytes that moved.
    pub traffic: TrafficCounters,
    /// We told the other side that we are interested.
    pub interested: AtomicBool,
    /// The port on which the other side says that it listens; 0 before it does.
    listen_port: AtomicU16,
    opened_at: Moment,
    choke_changes: AtomicU64,
    bad_requests: AtomicU64,
    /// The socket.
    pub stream: Arc<TcpStream>,
}

/// The bytes of one connection, counted by its two threads.
#[derive(Debug, Default)]
pub struct TrafficCounters {
    /// Payload bytes given to the system to send.
    pub sent: AtomicU64,
    /// Payload bytes read, including those of no use.
    pub received: AtomicU64,
    /// Every other byte, both ways.
    pub protocol: AtomicU64,
    /// When the first payload byte was written, microseconds; 0 before.
    pub first_sent: AtomicU64,
    /// When the last of what was read came, microseconds.
    pub came_at: AtomicU64,
}

/// After how much silence of the other side the connection is closed.
const READ_TIMEOUT: Duration = Duration::from_secs(180);

/// For how long the other side may read nothing of what we write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// Where a peer has got so many pieces at once, it may tell of them by a bitfield; aria2 does, though a
/// bitfield is meant to be the first message (BEP 3).
const LATE_BITFIELD_PIECES: u32 = 20;

/// Most messages of unknown kinds.
const UNKNOWN_MAX: usize = 16;

/// Most chokes and unchokes, beside one a second.
const CHOKE_CHANGES_MAX: u64 = 200;

/// Most requests for blocks that the torrent does not have or that we never announced.
const BAD_REQUESTS_MAX: u64 = 300;

/// Most control bytes that wait, beside one `have` for each piece: a peer that makes us answer and
/// reads nothing is closed. It is many times what [`REQUESTS_MAX`](wire::REQUESTS_MAX) refused
/// requests are, and little enough for a thousand such peers.
const CONTROL_MAX: usize = 128 << 10;

/// Bytes of a `have`.
const HAVE_LEN: usize = 9;

/// Bytes of a block's message before its payload.
const BLOCK_HEAD: usize = 13;

impl PeerConnection {
    /// A connection over `stream` to a peer that sent `handshake`, in a torrent of so many
    /// `pieces`.
    pub fn new(
        stream: Arc<TcpStream>,
        addr: SocketAddr,
        handshake: Handshake,
        dialed: bool,
        pieces: u32,
    ) -> Self {
        let fast = handshake.fast();
        Self {
            key: 0,
            addr,
            handshake,
            dialed,
            limits: MessageLimits { pieces, fast },
            outbox: Outbox::default(),
            place: None,
            traffic: TrafficCounters::default(),
            interested: AtomicBool::new(false),
            listen_port: AtomicU16::new(0),
            opened_at: clock::now(),
            choke_changes: AtomicU64::new(0),
            bad_requests: AtomicU64::new(0),
            stream,
        }
    }

    /// The id of the other side.
    pub fn id(&self) -> PeerId {
        self.handshake.peer_id
    }

    /// The role of the other side, if it runs gatecast.
    pub fn role(&self) -> Option<Role> {
        Role::of(&self.handshake.peer_id)
    }

    /// Where the other side listens, as far as it is known.
    pub fn listen_addr(&self) -> SocketAddr {
        let mut addr = unmapped(self.addr);
        // A caller's own port is not the one on which it listens.
        let port = self.listen_port.load(Ordering::Relaxed);
        if port > 0 && !self.dialed {
            addr.set_port(port);
        }
        addr
    }

    /// The other side listens on `port`.
    pub fn set_listen_port(&self, port: u16) {
        self.listen_port.store(port, Ordering::Relaxed);
    }

    /// True when the other side runs gatecast and is not a server's seeder.
    pub fn is_gatecast_peer(&self) -> bool {
        self.handshake.is_gatecast() && self.role() != Some(Role::Seeder)
    }

    /// True when payload has moved, in either direction.
    pub fn has_moved(&self) -> bool {
        let TrafficCounters { sent, received, .. } = &self.traffic;
        sent.load(Ordering::Relaxed) > 0 || received.load(Ordering::Relaxed) > 0
    }

    /// Sends `messages` now.
    pub fn send(&self, messages: &[Message<'_>]) {
        self.queue(messages);
        self.outbox.flush();
    }

    /// Sends `messages` with the next write, at the latest at the next [`Outbox::flush`].
    pub fn queue(&self, messages: &[Message<'_>]) {
        self.push(messages, true);
    }

    /// Sends `messages` with the next write, at the latest at the next [`Outbox::flush_all`]: a
    /// packet of their own would cost both ends more than they are worth.
    pub fn queue_lazy(&self, messages: &[Message<'_>]) {
        self.push(messages, false);
    }

    fn push(&self, messages: &[Message<'_>], urgent: bool) {
        let most = CONTROL_MAX + HAVE_LEN * self.limits.pieces as usize;
        if self.outbox.push(messages, urgent) > most {
            log::info!("{}: reads nothing, closing", self.addr);
            self.close();
        }
    }

    /// Tells the other side that `blocks` will not be sent, where it understands that (BEP 6). The
    /// caller flushes.
    pub fn reject(&self, blocks: Vec<Block>) {
        if self.limits.fast {
            let rejects: Vec<_> = blocks.into_iter().map(Message::Reject).collect();
            self.queue(&rejects);
        }
    }

    /// The error of a peer that broke the protocol.
    pub fn violation(&self, what: impl fmt::Display) -> Error {
        Error::protocol(self.addr, what.to_string())
    }

    /// Counts a choke or an unchoke.
    ///
    /// # Errors
    /// There were too many.
    pub fn count_choke_change(&self) -> Result<()> {
        let changes = self.choke_changes.fetch_add(1, Ordering::Relaxed);
        if changes > CHOKE_CHANGES_MAX + clock::now().since(self.opened_at).as_secs() {
            return Err(self.violation("it chokes and unchokes too often"));
        }
        Ok(())
    }

    /// Counts a request for a block that we do not have.
    ///
    /// # Errors
    /// There were too many.
    pub fn count_bad_request(&self) -> Result<()> {
        if self.bad_requests.fetch_add(1, Ordering::Relaxed) >= BAD_REQUESTS_MAX {
            return Err(self.violation("it requests too much that does not exist"));
        }
        Ok(())
    }

    /// Ends both threads.
    pub fn close(&self) {
        self.outbox.close();
        // Fails when the connection is gone already.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// The writer thread: writes what is queued until the connection is closed. `wait_for_rate`
    /// waits until so many payload bytes may be sent.
    ///
    /// # Errors
    /// The connection failed, or the store cannot be read.
    pub fn run_writer(&self, store: &Store, wait_for_rate: &dyn Fn(u64)) -> io::Result<()> {
        self.stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
        let mut payload = Vec::new();
        loop {
            let (control, blocks) = match self.outbox.next_write() {
                NextWrite::Send(control, blocks) => (control, blocks),
                NextWrite::KeepAlive => (vec![0; 4], Vec::new()),
                NextWrite::Closed => return Ok(()),
            };
            let bytes: usize = blocks.iter().map(|block| block.len as usize).sum();
            payload.resize(bytes.max(payload.len()), 0);
            store.read_blocks(&blocks, &mut payload[..bytes])?;
            let heads: Vec<_> = blocks.iter().map(block_head).collect();
            let mut slices = vec![IoSlice::new(&control)];
            let mut rest = &payload[..bytes];
            for (block, head) in blocks.iter().zip(&heads) {
                let (data, after) = rest.split_at(block.len as usize);
                slices.extend([IoSlice::new(head), IoSlice::new(data)]);
                rest = after;
            }
            let traffic = &self.traffic;
            if bytes > 0 {
                if traffic.first_sent.load(Ordering::Relaxed) == 0 {
                    let now = clock::now().0.max(1);
                    traffic.first_sent.store(now, Ordering::Relaxed);
                }
                wait_for_rate(bytes as u64);
            }
            // Before the write: the other side may have counted it before this thread runs again.
            traffic.sent.fetch_add(bytes as u64, Ordering::Relaxed);
            self.write_slices(&mut slices)?;
            let other = control.len() + heads.len() * BLOCK_HEAD;
            traffic.protocol.fetch_add(other as u64, Ordering::Relaxed);
        }
    }

    fn write_slices(&self, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
        IoSlice::advance_slices(&mut slices, 0);
        while !slices.is_empty() {
            match (&mut &*self.stream).write_vectored(slices) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut slices, written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The reader thread: gives every message to `handle` until the connection is closed. What
    /// `handle` queues goes out once every message of a read was handled. Once the copy `is_ending`,
    /// it sleeps no more until a block has come: it may be the last.
    ///
    /// # Errors
    /// The connection failed, or the other side broke the protocol.
    pub fn run_reader(
        &self,
        is_ending: &AtomicBool,
        mut handle: impl FnMut(Message<'_>) -> Result<()>,
    ) -> Result<()> {
        let failed = |error| Error::io("read from the peer", self.addr)(error);
        self.stream.set_read_timeout(Some(READ_TIMEOUT)).map_err(failed)?;
        arrival::stamp(&self.stream);
        // One buffer for the whole connection: the longest message fits twice.
        let mut buffer = vec![0; (self.limits.max_len() + 4) * 2];
        let (mut from, mut to) = (0, 0);
        let (mut unknown, mut bitfields, mut begun) = (0, 0, false);
        let invalid = |error: DecodeError| self.violation(error);
        let mut rate = ReceiveRate::default();
        loop {
            while let Some(len) =
                wire::frame_len(&buffer[from..to], self.limits).map_err(invalid)?
            {
                let message =
                    Message::decode(&buffer[from + 4..from + len], self.limits).map_err(invalid)?;
                let is_block = matches!(message, Message::Piece(..));
                let protocol = if is_block { BLOCK_HEAD } else { len };
                self.traffic.protocol.fetch_add(protocol as u64, Ordering::Relaxed);
                if matches!(message, Message::Other(id) if !matches!(id, 9 | 13 | 17)) {
                    unknown += 1;
                    if unknown > UNKNOWN_MAX {
                        return Err(self.violation("it sends too many unknown messages"));
                    }
                }
                match message {
                    Message::Bitfield(_) if begun => {
                        bitfields += 1;
                        if bitfields > self.limits.pieces / LATE_BITFIELD_PIECES {
                            return Err(self.violation("it sends too many bitfields"));
                        }
                    }
                    // Some programs introduce themselves before they tell what they have.
                    Message::KeepAlive | Message::Extended(..) | Message::Other(_) => {}
                    _ => begun = true,
                }
                handle(message)?;
                from += len;
            }
            self.outbox.flush();
            if from > 0 {
                buffer.copy_within(from..to, 0);
                (from, to) = (0, to - from);
            }
            // The rest of a block takes its time, and each of its packets would wake this thread.
            match buffer[..to].first_chunk() {
                Some(head) => {
                    let len = u32::from_be_bytes(*head) as usize + 4;
                    if let Some(time) = rate.sleep_time(len - to)
                        && !is_ending.load(Ordering::Relaxed)
                    {
                        thread::sleep(time);
                    }
                }
                None => rate.pause(),
            }
            match arrival::read(&self.stream, &mut buffer[to..]) {
                Ok((0, _)) => return Ok(()),
                Ok((len, came)) => {
                    self.traffic.came_at.store(came.0, Ordering::Relaxed);
                    to += len;
                    rate.received(len, clock::now());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

/// The head of a block's message: its length, 7, piece and begin.
fn block_head(block: &Block) -> [u8; BLOCK_HEAD] {
    let mut head = [7; BLOCK_HEAD];
    head[..4].copy_from_slice(&(block.len + 9).to_be_bytes());
    head[5..9].copy_from_slice(&block.piece.to_be_bytes());
    head[9..].copy_from_slice(&block.begin.to_be_bytes());
    head
}

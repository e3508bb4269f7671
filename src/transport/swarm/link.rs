//! One connection to another peer: a thread that only reads, and a thread that only writes.
//!
//! Two peers that both send would wait for each other for ever if a reader wrote: each blocked in
//! a full socket, neither reading. So whatever a reader has to say goes into the link's outbox,
//! and requests wait there in memory, where a choke or cancel can still drop them.

use std::collections::VecDeque;
use std::io;
use std::io::IoSlice;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU16;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::net::clock;
use crate::proto::bt::flow::ReceiveRate;
use crate::proto::bt::wire;
use crate::proto::bt::wire::Block;
use crate::proto::bt::wire::Handshake;
use crate::proto::bt::wire::Message;
use crate::proto::bt::wire::MessageLimits;
use crate::proto::bt::wire::REQUESTS_MAX;
use crate::transport::swarm::store::Store;
use crate::units::Moment;

/// A connection whose handshakes are over.
#[derive(Debug)]
pub struct PeerConnection {
    /// Its number in its member.
    pub key: u32,
    /// Where it goes.
    pub addr: SocketAddr,
    /// What the other side is.
    pub peer: Handshake,
    /// We called.
    pub dialed: bool,
    /// The port on which a caller can be called itself, as it says; 0 before it does.
    pub listens: AtomicU16,
    /// What its messages may be.
    pub limits: MessageLimits,
    /// Payload bytes given to the system to send.
    pub sent: AtomicU64,
    /// Payload bytes read; counted by the member, together with what was of no use.
    pub received: AtomicU64,
    /// Every other byte, both ways.
    pub protocol: AtomicU64,
    /// When the first payload byte was written, microseconds; 0 before.
    pub first_sent: AtomicU64,
    /// When it began.
    pub since: Moment,
    /// How often the other side has choked or unchoked us.
    pub turns: AtomicU64,
    /// How often it asked for what is not there.
    pub bad: AtomicU64,
    /// We told it that it has something we want.
    pub interested: AtomicBool,
    stream: Arc<TcpStream>,
    outbox: Mutex<Outbox>,
    wake: Condvar,
}

#[derive(Debug, Default)]
struct Outbox {
    control: Vec<u8>,
    requests: VecDeque<Block>,
    /// Some of `control` should not wait for something else to go out.
    urgent: bool,
    closed: bool,
    /// The writer waits for something to do; else it looks before it waits, and needs no call.
    idle: bool,
}

/// What a writer does next.
enum Work {
    Send(Vec<u8>, Vec<Block>),
    Idle,
    Closed,
}

/// How long a link may say nothing before it says that it lives. Two within five seconds are a
/// flood for aria2.
const KEEP_ALIVE: Duration = Duration::from_secs(110);

/// How long the other side may say nothing.
const SILENCE: Duration = Duration::from_secs(180);

/// How long the other side may take nothing of what we write.
const DEAF: Duration = Duration::from_secs(60);

/// Most control bytes that wait: a peer that reads nothing and makes us answer is closed.
const CONTROL_MAX: usize = 4 << 20;

/// Payload written at a time, bytes.
const TURN: usize = 128 << 10;

impl PeerConnection {
    /// A link over `stream`.
    pub fn new(
        key: u32,
        stream: Arc<TcpStream>,
        addr: SocketAddr,
        peer: Handshake,
        dialed: bool,
        pieces: u32,
    ) -> Self {
        Self {
            key,
            addr,
            peer,
            dialed,
            listens: AtomicU16::new(0),
            limits: MessageLimits {
                pieces,
                fast: peer.fast(),
            },
            sent: AtomicU64::new(0),
            received: AtomicU64::new(0),
            protocol: AtomicU64::new(0),
            first_sent: AtomicU64::new(0),
            since: clock::now(),
            turns: AtomicU64::new(0),
            bad: AtomicU64::new(0),
            interested: AtomicBool::new(false),
            stream,
            outbox: Mutex::default(),
            wake: Condvar::new(),
        }
    }

    /// Where the other side listens, as far as it is known: a caller's own port says nothing of it.
    pub fn reached_at(&self) -> SocketAddr {
        let port = match self.listens.load(Ordering::Relaxed) {
            said if said > 0 && !self.dialed => said,
            _ => self.addr.port(),
        };
        SocketAddr::new(self.addr.ip().to_canonical(), port)
    }

    /// Payload has moved, one way or the other.
    pub fn has_moved(&self) -> bool {
        self.sent.load(Ordering::Relaxed) > 0 || self.received.load(Ordering::Relaxed) > 0
    }

    /// Says `messages` now.
    pub fn say(&self, messages: &[Message<'_>]) {
        self.add(messages);
        self.flush();
    }

    /// Says `messages` with whatever goes out next, or at the next [`Link::flush`].
    pub fn add(&self, messages: &[Message<'_>]) {
        self.queue(messages, true);
    }

    /// Says `messages` with whatever goes out next, or at the next [`Link::press`]: a packet of
    /// their own would cost both ends more than they are worth.
    pub fn murmur(&self, messages: &[Message<'_>]) {
        self.queue(messages, false);
    }

    fn queue(&self, messages: &[Message<'_>], urgent: bool) {
        let mut outbox = self.lock();
        outbox.urgent |= urgent;
        messages
            .iter()
            .for_each(|message| message.encode(&mut outbox.control));
        if outbox.control.len() > CONTROL_MAX {
            drop(outbox);
            log::info!("{}: reads nothing, closing", self.addr);
            self.close();
        }
    }

    /// Wakes the writer where it sleeps on something that was added.
    pub fn flush(&self) {
        self.wake(|outbox| outbox.urgent || !outbox.requests.is_empty());
    }

    /// Wakes the writer where it sleeps on anything, a murmur too.
    pub fn press(&self) {
        self.wake(|outbox| !(outbox.control.is_empty() && outbox.requests.is_empty()));
    }

    fn wake(&self, waits: impl Fn(&Outbox) -> bool) {
        let mut outbox = self.lock();
        let wake = outbox.idle && waits(&outbox);
        if wake {
            outbox.idle = false;
            outbox.urgent = true;
        }
        drop(outbox);
        if wake {
            self.wake.notify_one();
        }
    }

    /// Queues a block to be sent from the next [`Link::flush`] on; false when too many wait.
    pub fn serve(&self, block: Block) -> bool {
        let mut outbox = self.lock();
        if outbox.requests.len() >= REQUESTS_MAX {
            return false;
        }
        outbox.requests.push_back(block);
        true
    }

    /// Takes a block off the queue; false when it is not there any more.
    pub fn cancel(&self, block: Block) -> bool {
        let mut outbox = self.lock();
        let before = outbox.requests.len();
        outbox.requests.retain(|waiting| *waiting != block);
        outbox.requests.len() < before
    }

    /// Takes every block off the queue.
    pub fn cancel_all(&self) -> Vec<Block> {
        self.lock().requests.drain(..).collect()
    }

    /// How many blocks wait to be sent.
    pub fn waiting(&self) -> usize {
        self.lock().requests.len()
    }

    /// Ends both threads.
    pub fn close(&self) {
        self.lock().closed = true;
        self.wake.notify_all();
        // One that is gone already needs no closing.
        let _ = self.stream.shutdown(Shutdown::Both);
    }

    /// The writer: says what is queued, then sends one turn of blocks, until the link is closed.
    /// `wait_turn` waits until so many payload bytes may be sent.
    ///
    /// # Errors
    /// The connection failed, or the store cannot be read.
    pub fn write_all(&self, store: &Store, wait_turn: &dyn Fn(u64)) -> io::Result<()> {
        self.stream.set_write_timeout(Some(DEAF))?;
        let mut payload = Vec::new();
        loop {
            let (control, blocks) = match self.next() {
                Work::Send(control, blocks) => (control, blocks),
                Work::Idle => (vec![0; 4], Vec::new()),
                Work::Closed => return Ok(()),
            };
            let bytes: usize = blocks.iter().map(|block| block.len as usize).sum();
            payload.resize(bytes.max(payload.len()), 0);
            store.load(&blocks, &mut payload[..bytes])?;
            let heads: Vec<[u8; 13]> = blocks.iter().map(head).collect();
            let mut slices = vec![IoSlice::new(&control)];
            let mut rest = &payload[..bytes];
            for (block, head) in blocks.iter().zip(&heads) {
                let (data, after) = rest.split_at(block.len as usize);
                slices.extend([IoSlice::new(head), IoSlice::new(data)]);
                rest = after;
            }
            if bytes > 0 && self.first_sent.load(Ordering::Relaxed) == 0 {
                self.first_sent
                    .store(clock::now().0.max(1), Ordering::Relaxed);
            }
            if bytes > 0 {
                wait_turn(bytes as u64);
            }
            // Before the write: the other side may have counted it before we run again.
            self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
            self.write_slices(&mut slices)?;
            let other = control.len() + heads.len() * 13;
            self.protocol.fetch_add(other as u64, Ordering::Relaxed);
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

    fn next(&self) -> Work {
        let deadline = clock::now().after(KEEP_ALIVE);
        let mut outbox = self.lock();
        loop {
            if outbox.closed {
                return Work::Closed;
            }
            if outbox.urgent || !outbox.requests.is_empty() {
                outbox.urgent = false;
                let control = std::mem::take(&mut outbox.control);
                let mut blocks = Vec::new();
                let mut bytes = 0;
                while let Some(block) = outbox.requests.front() {
                    if bytes > 0 && bytes + block.len as usize > TURN {
                        break;
                    }
                    bytes += block.len as usize;
                    blocks.extend(outbox.requests.pop_front());
                }
                return Work::Send(control, blocks);
            }
            let Some(left) = clock::left(deadline) else {
                return Work::Idle;
            };
            outbox.idle = true;
            outbox = self
                .wake
                .wait_timeout(outbox, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
            outbox.idle = false;
        }
    }

    /// The reader: gives every message to `hear` until the link is closed. What `hear` adds goes
    /// out once all that was read has been heard.
    ///
    /// # Errors
    /// The connection failed, a message is none, or what `hear` made of it.
    pub fn read_all(
        &self,
        mut hear: impl FnMut(Message<'_>) -> Result<(), String>,
    ) -> Result<(), String> {
        let failed = |error: io::Error| error.to_string();
        self.stream
            .set_read_timeout(Some(SILENCE))
            .map_err(failed)?;
        // One buffer for the link's life: the longest message fits twice.
        let mut buffer = vec![0; (self.limits.max_len() + 4) * 2];
        let (mut from, mut to) = (0, 0);
        let mut strange = 0;
        let mut flow = ReceiveRate::default();
        loop {
            while let Some(len) =
                wire::frame_len(&buffer[from..to], self.limits).map_err(|e| e.to_string())?
            {
                let message = Message::decode(&buffer[from + 4..from + len], self.limits)
                    .map_err(|error| error.to_string())?;
                match message {
                    Message::Piece(..) => {
                        self.protocol.fetch_add(13, Ordering::Relaxed);
                    }
                    _ => {
                        self.protocol.fetch_add(len as u64, Ordering::Relaxed);
                    }
                }
                if matches!(message, Message::Other(id) if !matches!(id, 9 | 13 | 17)) {
                    strange += 1;
                    if strange > STRANGE_MAX {
                        return Err("too many messages that are unknown here".to_owned());
                    }
                }
                hear(message)?;
                from += len;
            }
            self.flush();
            if from > 0 {
                buffer.copy_within(from..to, 0);
                (from, to) = (0, to - from);
            }
            // The rest of a block takes its time, and each packet of it would wake us.
            match buffer[..to].first_chunk() {
                Some(head) => {
                    let len = u32::from_be_bytes(*head) as usize + 4;
                    if let Some(nap) = flow.sleep_time(len - to) {
                        thread::sleep(nap);
                    }
                }
                None => flow.pause(),
            }
            match (&mut &*self.stream).read(&mut buffer[to..]) {
                Ok(0) => return Err(CLOSED.to_owned()),
                Ok(len) => {
                    to += len;
                    flow.received(len, clock::now());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a link ended whose other side went.
pub const CLOSED: &str = "closed";

/// Most messages of kinds that are not known here.
const STRANGE_MAX: usize = 16;

/// The head of a block's message: its length, 7, piece and begin.
fn head(block: &Block) -> [u8; 13] {
    let mut head = [7; 13];
    head[..4].copy_from_slice(&(block.len + 9).to_be_bytes());
    head[5..9].copy_from_slice(&block.piece.to_be_bytes());
    head[9..].copy_from_slice(&block.begin.to_be_bytes());
    head
}

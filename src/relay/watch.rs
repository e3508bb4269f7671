//! The watching side: takes the stream, hands it to a player of this host, records it, and counts
//! what came against what was sent.
//!
//! Three threads: `watch-data` receives, follows, forwards; `watch-alive` says every second that
//! we live and what came; `watch-disk`, where there is a recording, writes it, behind a bounded
//! channel, so that a slow disk costs the recording and not the picture. Works with a relay that
//! knows only the lab's words; what such a one does not tell stays unknown.

use std::fs::File;
use std::io;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Ipv6Addr;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Receiver;
use crossbeam_channel::Sender;
use crossbeam_channel::TrySendError;

use crate::error::Error;
use crate::error::Phase;
use crate::error::Result;
use crate::proto::feed::Counts;
use crate::proto::feed::Feed;
use crate::proto::relay::Command;
use crate::proto::relay::Reply;
use crate::proto::relay::Standing;
use crate::proto::relay::receipt::Receipt;
use crate::proto::relay::receipt::Statement;
use crate::relay::meter::bump;
use crate::runtime::clock;
use crate::runtime::datagrams;
use crate::runtime::datagrams::Batch;
use crate::runtime::datagrams::Inbox;
use crate::runtime::datagrams::Parcel;
use crate::runtime::dialogue::Dialogue;
use crate::runtime::lobby::STACK;
use crate::runtime::socket;
use crate::units::Moment;

/// What the user wants to watch, and how.
#[derive(Clone, Debug)]
pub struct Order {
    /// The relay's addresses, tried in order.
    pub relay: Vec<SocketAddr>,
    /// Where the player listens; `None` plays nothing.
    pub player: Option<SocketAddr>,
    /// Where the transport stream is written; `None` writes nothing.
    pub record: Option<PathBuf>,
    /// The port to receive at; 0 leaves it to the system.
    pub port: u16,
}

/// A stream being watched.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    data: Option<JoinHandle<()>>,
    alive: Option<JoinHandle<()>>,
    disk: Option<JoinHandle<io::Result<u64>>>,
}

/// How it goes.
#[derive(Clone, Debug)]
pub struct View {
    /// Where datagrams come to.
    pub at: SocketAddr,
    /// Running or paused; out once the relay has let us go.
    pub standing: Standing,
    /// How long it has been watched, pauses included.
    pub watched: Duration,
    /// What came.
    pub received: Counts,
    /// Datagrams that this host dropped before they were read; `None` where it does not tell.
    pub host_drop: Option<u64>,
    /// What the relay sent, as it last told; `None` where it does not.
    pub sent: Option<Statement>,
    /// Datagrams from somebody else, which were thrown away.
    pub foreign: u64,
    /// Datagrams that the player did not take.
    pub unplayed: u64,
    /// Datagrams that the disk was too slow for.
    pub unrecorded: u64,
    /// Bytes of transport stream given to the recording.
    pub recorded: u64,
}

#[derive(Debug)]
struct Shared {
    relay: SocketAddr,
    inbox: Inbox,
    control: Mutex<Control>,
    began: Moment,
    stopping: AtomicBool,
    ended: Condvar,
    counts: Mutex<Counts>,
    sent: Mutex<Option<Statement>>,
    /// Datagrams from this moment on follow nothing that came before it; 0 for none.
    rejoin: AtomicU64,
    /// Moves when a while has passed without a datagram.
    quiet: AtomicU64,
    foreign: AtomicU64,
    unplayed: AtomicU64,
    unrecorded: AtomicU64,
    recorded: AtomicU64,
}

#[derive(Debug)]
struct Control {
    stream: TcpStream,
    standing: Standing,
    /// Whether the relay knows our own word, as far as we know.
    native: bool,
    /// Why it is over.
    over: Option<String>,
}

/// How long the relay may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long the relay may take to be reached.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How often we say that we live; the relay waits four times as long.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// With no datagram for so long after a pause, none is on its way.
const QUIET: Duration = Duration::from_millis(100);

/// How long the last datagrams are waited for at the end.
const QUIET_LIMIT: Duration = Duration::from_secs(2);

/// Datagrams taken together.
const BATCH: usize = 64;

/// Pieces of the recording that may wait for the disk: seconds of any stream.
const WAITING: usize = 4096;

impl Order {
    /// To watch what a relay at `relay` has, without player or recording.
    pub fn new(relay: Vec<SocketAddr>) -> Self {
        Self {
            relay,
            player: None,
            record: None,
            port: 0,
        }
    }
}

impl Watch {
    /// Connects and begins.
    ///
    /// # Errors
    /// The relay is not there or refuses; the player's address, the recording or a thread cannot
    /// be had.
    pub fn start(order: &Order) -> Result<Self> {
        let stream = socket::connect(&order.relay, clock::now().after(CONNECT_LIMIT))?;
        socket::consent(&stream);
        let (relay, local) = stream
            .peer_addr()
            .and_then(|peer| Ok((peer, stream.local_addr()?)))
            .map_err(Error::io("ask for the addresses", "the relay"))?;
        let inbox = Inbox::bind(SocketAddr::new(local.ip(), order.port), None)?;
        let player = order.player.map(player_socket).transpose()?;
        let (pieces, disk) = match &order.record {
            Some(path) => {
                let made = File::create(path).map_err(Error::io("record into", path.display()))?;
                let (give, take) = crossbeam_channel::bounded(WAITING);
                (
                    Some(give),
                    Some(spawn("watch-disk", move || write(made, &take))?),
                )
            }
            None => (None, None),
        };
        let shared = Arc::new(Shared {
            relay,
            inbox,
            control: Mutex::new(Control {
                stream,
                standing: Standing::Out,
                native: true,
                over: None,
            }),
            began: clock::now(),
            stopping: AtomicBool::new(false),
            ended: Condvar::new(),
            counts: Mutex::default(),
            sent: Mutex::default(),
            rejoin: AtomicU64::new(0),
            quiet: AtomicU64::new(0),
            foreign: AtomicU64::new(0),
            unplayed: AtomicU64::new(0),
            unrecorded: AtomicU64::new(0),
            recorded: AtomicU64::new(0),
        });
        let mut watch = Self {
            shared: Arc::clone(&shared),
            data: None,
            alive: None,
            disk,
        };
        let data = Data {
            shared: Arc::clone(&shared),
            player,
            pieces,
        };
        watch.data = Some(spawn("watch-data", move || data.run())?);
        shared.ask(&Command::Connect(shared.inbox.addr().port()))?;
        // At once: from the first word on the relay knows what our silence means.
        shared.say_alive();
        let living = Arc::clone(&shared);
        watch.alive = Some(spawn("watch-alive", move || living.stay_alive())?);
        Ok(watch)
    }

    /// Asks for no more until [`resume`](Self::resume).
    ///
    /// # Errors
    /// The relay refuses (it is paused already) or is gone.
    pub fn pause(&self) -> Result<()> {
        self.shared.ask(&Command::Interrupt).map(drop)
    }

    /// Asks for the stream again.
    ///
    /// # Errors
    /// The relay refuses (it is not paused) or is gone.
    pub fn resume(&self) -> Result<()> {
        // What was missed in the pause is not lost: from here on, everything is counted anew.
        let now = clock::now();
        self.shared.rejoin.store(now.0, Ordering::SeqCst);
        self.shared.ask(&Command::Continue).map(drop)
    }

    /// How it goes.
    pub fn view(&self) -> View {
        self.shared.view()
    }

    /// Why it is over, if it is: the relay has let us go.
    pub fn over(&self) -> Option<String> {
        self.shared.control().over.clone()
    }

    /// Waits for `patience`, or until the relay lets us go; whether it has.
    pub fn wait(&self, patience: Duration) -> bool {
        let running = |control: &mut Control| control.over.is_none();
        let (control, _) = self
            .shared
            .ended
            .wait_timeout_while(self.shared.control(), patience, running)
            .unwrap_or_else(PoisonError::into_inner);
        control.over.is_some()
    }

    /// Leaves, so that all that was sent is counted: asks for no more, takes what is on its way,
    /// hears what was sent, and says goodbye.
    ///
    /// # Errors
    /// The recording is not whole. That the relay is gone is none: the view tells what is known.
    pub fn quit(mut self) -> Result<View> {
        if self.shared.control().standing == Standing::Running
            && let Err(error) = self.pause()
        {
            log::debug!("{error}");
        }
        self.shared.await_quiet();
        self.shared.say_alive();
        if let Err(error) = self.shared.ask(&Command::Disconnect) {
            log::debug!("{error}");
        }
        let view = self.shared.view();
        match self.end() {
            Err(error) => Err(Error::io("write the recording", "its disk")(error)),
            Ok(()) if view.unrecorded > 0 => {
                let reason = format!("the disk was too slow for {} datagrams", view.unrecorded);
                Err(Error::refused("the recording", reason))
            }
            Ok(()) => Ok(view),
        }
    }

    fn end(&mut self) -> io::Result<()> {
        self.shared.stopping.store(true, Ordering::SeqCst);
        self.shared.ended.notify_all();
        let threads = [self.alive.take(), self.data.take()];
        for thread in threads.into_iter().flatten() {
            if thread.join().is_err() {
                log::error!("a thread of the viewer panicked");
            }
        }
        // The data thread held the recording's channel; the disk's thread ends with it.
        match self.disk.take().map(JoinHandle::join) {
            Some(Ok(written)) => written.map(drop),
            Some(Err(_)) => Err(io::Error::other("its thread panicked")),
            None => Ok(()),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            log::error!("the recording is not whole: {error}");
        }
    }
}

impl Shared {
    /// Says `command` and hears the answer.
    fn ask(&self, command: &Command) -> Result<Option<Statement>> {
        let mut control = self.control();
        if let Some(why) = &control.over {
            return Err(Error::refused(self.relay, why.clone()));
        }
        let answered = {
            let mut dialogue = Dialogue::new(&control.stream, self.relay, b"");
            dialogue
                .say(&command.encode())
                .and_then(|()| dialogue.hear(clock::now().after(ANSWER_LIMIT), Phase::Receipt))
        };
        let reply = answered.and_then(|line| {
            Reply::decode(&line).map_err(|error| Error::protocol(self.relay, error.to_string()))
        });
        match reply {
            Ok(Reply::Error(reason)) => Err(Error::refused(self.relay, reason)),
            Ok(reply) => {
                if let Ok(standing) = control.standing.after(command) {
                    control.standing = standing;
                }
                Ok(match reply {
                    Reply::Statement(statement) => Some(statement),
                    _ => None,
                })
            }
            Err(error) => {
                self.let_go(&mut control, error.to_string());
                Err(error)
            }
        }
    }

    fn let_go(&self, control: &mut Control, why: String) {
        control.over = Some(why);
        control.standing = Standing::Out;
        self.ended.notify_all();
    }

    fn stay_alive(&self) {
        loop {
            let control = self.control();
            let going = |control: &mut Control| {
                control.over.is_none() && !self.stopping.load(Ordering::SeqCst)
            };
            let (control, _) = self
                .ended
                .wait_timeout_while(control, ALIVE_EVERY, going)
                .unwrap_or_else(PoisonError::into_inner);
            if control.over.is_some() || self.stopping.load(Ordering::SeqCst) {
                return;
            }
            drop(control);
            self.say_alive();
        }
    }

    /// Tells what came and hears what was sent; only looks whether the relay is still there, where
    /// it does not know the word.
    fn say_alive(&self) {
        if !self.control().native {
            return self.look();
        }
        let receipt = Receipt::of(&self.counts(), datagrams::drops(self.inbox.socket()));
        match self.ask(&Command::Alive(receipt)) {
            Ok(statement) => {
                *self.sent.lock().unwrap_or_else(PoisonError::into_inner) = statement;
            }
            Err(Error::Refused { reason, .. }) => {
                log::debug!("the relay tells nothing: {reason}");
                let mut control = self.control();
                let known = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
                if known.is_some() {
                    // It knew the word before: these are its last ones.
                    self.let_go(&mut control, reason);
                }
                control.native = false;
            }
            Err(error) => log::debug!("{error}"),
        }
    }

    fn look(&self) {
        let mut control = self.control();
        if control.over.is_some() {
            return;
        }
        let look = || {
            control.stream.set_nonblocking(true)?;
            let seen = control.stream.peek(&mut [0]);
            control.stream.set_nonblocking(false)?;
            seen
        };
        match look() {
            Ok(0) => self.let_go(&mut control, "it closed the connection".to_owned()),
            Err(error) if !Error::is_timeout(&error) => {
                self.let_go(&mut control, error.to_string());
            }
            _ => {}
        }
    }

    /// Waits until no datagram is on its way any more.
    fn await_quiet(&self) {
        let (before, deadline) = (
            self.quiet.load(Ordering::SeqCst),
            clock::now().after(QUIET_LIMIT),
        );
        // The wait that is under way may have begun before the pause; the next one has not.
        while self.quiet.load(Ordering::SeqCst) < before + 2 && clock::left(deadline).is_some() {
            thread::sleep(QUIET / 10);
        }
    }

    fn view(&self) -> View {
        let standing = self.control().standing;
        View {
            at: self.inbox.addr(),
            standing,
            watched: clock::now().since(self.began),
            received: self.counts(),
            host_drop: datagrams::drops(self.inbox.socket()),
            sent: *self.sent.lock().unwrap_or_else(PoisonError::into_inner),
            foreign: self.foreign.load(Ordering::Relaxed),
            unplayed: self.unplayed.load(Ordering::Relaxed),
            unrecorded: self.unrecorded.load(Ordering::Relaxed),
            recorded: self.recorded.load(Ordering::Relaxed),
        }
    }

    fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The data thread's own.
struct Data {
    shared: Arc<Shared>,
    player: Option<UdpSocket>,
    pieces: Option<Sender<Vec<u8>>>,
}

impl Data {
    fn run(self) {
        let shared = &self.shared;
        let (mut feed, mut batch) = (Feed::default(), Batch::new(BATCH));
        let relay = shared.relay.ip();
        while !shared.stopping.load(Ordering::SeqCst) {
            batch.clear();
            match shared.inbox.receive(&mut batch, QUIET) {
                Ok(0) => {
                    shared.quiet.fetch_add(1, Ordering::SeqCst);
                    continue;
                }
                Ok(_) => {}
                Err(error) => {
                    log::warn!("cannot receive: {error}");
                    thread::sleep(QUIET);
                    continue;
                }
            }
            let all = batch.len();
            batch.retain(|from, _| from.ip() == relay);
            bump(&shared.foreign, (all - batch.len()) as u64);
            self.follow(&mut feed, &batch);
            if let Some(player) = &self.player {
                self.play(player, &batch);
            }
        }
    }

    fn follow(&self, feed: &mut Feed, batch: &Batch) {
        let shared = &self.shared;
        let mut piece = Vec::new();
        let mut in_piece = 0;
        for datagram in batch.iter() {
            let rejoin = shared.rejoin.load(Ordering::SeqCst);
            if rejoin != 0 && datagram.at >= Moment(rejoin) {
                // Another resumption may have come since; it stays.
                let _ =
                    shared
                        .rejoin
                        .compare_exchange(rejoin, 0, Ordering::SeqCst, Ordering::SeqCst);
                feed.rejoin();
            }
            feed.follow(datagram.at, datagram.bytes, |packet| {
                if self.pieces.is_some() {
                    piece.extend_from_slice(packet);
                }
            });
            in_piece += 1;
        }
        *shared.counts.lock().unwrap_or_else(PoisonError::into_inner) = feed.counts();
        let Some(pieces) = &self.pieces else { return };
        let bytes = piece.len() as u64;
        match pieces.try_send(piece) {
            Ok(()) => bump(&shared.recorded, bytes),
            // A disk's thread that ended has an error to tell.
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                bump(&shared.unrecorded, in_piece);
            }
        }
    }

    fn play(&self, player: &UdpSocket, batch: &Batch) {
        let parcel = Parcel::of(batch);
        let mut unplayed = 0;
        for run in parcel.runs() {
            if run.datagrams.len() > 1 && parcel.send(player, run).is_ok() {
                continue;
            }
            for single in parcel.singles(run) {
                // The first error is of an earlier datagram.
                let sent = parcel
                    .send(player, &single)
                    .or_else(|_| parcel.send(player, &single));
                unplayed += u64::from(sent.is_err());
            }
        }
        bump(&self.shared.unplayed, unplayed);
    }
}

fn player_socket(player: SocketAddr) -> Result<UdpSocket> {
    let any = match player {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    datagrams::outbox(any, player)
}

/// Writes the recording until there is no more of it; how many bytes it has.
fn write(mut file: File, pieces: &Receiver<Vec<u8>>) -> io::Result<u64> {
    let mut written = 0;
    for piece in pieces {
        file.write_all(&piece)?;
        written += piece.len() as u64;
    }
    Ok(written)
}

fn spawn<T: Send + 'static>(
    name: &'static str,
    body: impl FnOnce() -> T + Send + 'static,
) -> Result<JoinHandle<T>> {
    thread::Builder::new()
        .name(name.to_owned())
        .stack_size(STACK)
        .spawn(body)
        .map_err(Error::io("start the viewer's thread", name))
}

//! The watching side: takes the stream, hands it to a player of this host, records it, and counts
//! what came against what was sent.
//!
//! Three threads: `watch-data` receives, follows, forwards; `watch-alive` says every second that
//! we live and what came; `watch-disk`, where there is a recording, writes it, behind a bounded
//! channel, so that a slow disk costs the recording and not the picture. Works with a relay that
//! knows only the lab's words; what such a one does not tell stays unknown.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::Error;
use crate::error::Result;
use crate::net::STACK;
use crate::net::clock;
use crate::net::datagrams::BatchSocket;
use crate::net::socket;
use crate::proto::stream::StreamCounts;
use crate::proto::relay::ControlCommand;
use crate::proto::relay::ViewerState;
use crate::proto::relay::reports::SenderReport;
use crate::relay::watch::receive::StreamReceiver;
use crate::relay::watch::control::ControlState;
use crate::relay::watch::control::WatchState;

mod receive;
mod control;
mod recorder;

/// What the user wants to watch, and how.
#[derive(Clone, Debug)]
pub struct WatchConfig {
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
    shared: Arc<WatchState>,
    data: Option<JoinHandle<()>>,
    alive: Option<JoinHandle<()>>,
    disk: Option<JoinHandle<io::Result<u64>>>,
}

/// How it goes.
#[derive(Clone, Debug)]
pub struct WatchSnapshot {
    /// Where datagrams come to.
    pub at: SocketAddr,
    /// Running or paused; out once the relay has let us go.
    pub state: ViewerState,
    /// How long it has been watched, pauses included.
    pub watched: Duration,
    /// What came.
    pub received: StreamCounts,
    /// Datagrams that this host dropped before they were read; `None` where it does not tell.
    pub host_drop: Option<u64>,
    /// What the relay sent, as it last told; `None` where it does not.
    pub sent: Option<SenderReport>,
    /// Datagrams from somebody else, which were thrown away.
    pub foreign: u64,
    /// Datagrams that the player did not take.
    pub unplayed: u64,
    /// Datagrams that the disk was too slow for.
    pub unrecorded: u64,
    /// Bytes of transport stream given to the recording.
    pub recorded: u64,
}

/// How long the relay may take to be reached.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

impl WatchConfig {
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
    pub fn start(order: &WatchConfig) -> Result<Self> {
        let stream = socket::connect(&order.relay, clock::now().after(CONNECT_LIMIT))?;
        socket::consent(&stream);
        let (relay, local) = stream
            .peer_addr()
            .and_then(|peer| Ok((peer, stream.local_addr()?)))
            .map_err(Error::io("ask for the addresses", "the relay"))?;
        // A link-local address is one only with its link (RFC 4007, section 6).
        let mut at = local;
        at.set_port(order.port);
        let inbox = BatchSocket::bind(at, None)?;
        let player = order.player.map(data::player_socket).transpose()?;
        let (tape, disk) = match &order.record {
            Some(path) => {
                let made = File::create(path).map_err(Error::io("record into", path.display()))?;
                let (tape, reel) = tape::recorder();
                (
                    Some(tape),
                    Some(spawn("watch-disk", move || reel.write(made))?),
                )
            }
            None => (None, None),
        };
        let shared = Arc::new(WatchState {
            relay,
            inbox,
            control: Mutex::new(ControlState {
                stream,
                viewer: ViewerState::Unconnected,
                native: true,
                end_reason: None,
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
        let data = StreamReceiver {
            shared: Arc::clone(&shared),
            player,
            recorder: tape,
        };
        watch.data = Some(spawn("watch-data", move || data.run())?);
        shared.request(&ControlCommand::Connect(shared.inbox.local_addr().port()))?;
        // At once: from the first word on the relay knows what our silence means.
        shared.send_alive();
        let living = Arc::clone(&shared);
        watch.alive = Some(spawn("watch-alive", move || living.run_keepalive())?);
        Ok(watch)
    }

    /// Asks for no more until [`resume`](Self::resume).
    ///
    /// # Errors
    /// The relay refuses (it is paused already) or is gone.
    pub fn pause(&self) -> Result<()> {
        self.shared.request(&ControlCommand::Interrupt).map(drop)
    }

    /// Asks for the stream again.
    ///
    /// # Errors
    /// The relay refuses (it is not paused) or is gone.
    pub fn resume(&self) -> Result<()> {
        // What was missed in the pause is not lost: from here on, everything is counted anew. Said
        // before it is asked for, because datagrams may come before the answer; and only after a
        // pause, or what the network loses just now would be no loss.
        let now = clock::now().0;
        let paused = self.shared.control().viewer == ViewerState::Paused;
        if paused {
            self.shared.rejoin.store(now, Ordering::SeqCst);
        }
        let asked = self.shared.request(&ControlCommand::Continue).map(drop);
        if paused && asked.is_err() {
            let rejoin = &self.shared.rejoin;
            let _ = rejoin.compare_exchange(now, 0, Ordering::SeqCst, Ordering::SeqCst);
        }
        asked
    }

    /// How it goes.
    pub fn snapshot(&self) -> WatchSnapshot {
        self.shared.snapshot()
    }

    /// Why it is over, if it is: the relay has let us go.
    pub fn end_reason(&self) -> Option<String> {
        self.shared.control().end_reason.clone()
    }

    /// Waits for `patience`, or until the relay lets us go; whether it has.
    pub fn wait(&self, patience: Duration) -> bool {
        let running = |control: &mut ControlState| control.end_reason.is_none();
        let (control, _) = self
            .shared
            .ended
            .wait_timeout_while(self.shared.control(), patience, running)
            .unwrap_or_else(PoisonError::into_inner);
        control.end_reason.is_some()
    }

    /// Leaves, so that all that was sent is counted: asks for no more, takes what is on its way,
    /// hears what was sent, and says goodbye.
    ///
    /// # Errors
    /// The recording is not whole. That the relay is gone is none: the view tells what is known.
    pub fn quit(mut self) -> Result<WatchSnapshot> {
        if self.shared.control().viewer == ViewerState::Running
            && let Err(error) = self.pause()
        {
            log::debug!("{error}");
        }
        self.shared.wait_until_quiet();
        self.shared.send_alive();
        if let Err(error) = self.shared.request(&ControlCommand::Disconnect) {
            log::debug!("{error}");
        }
        let view = self.shared.snapshot();
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

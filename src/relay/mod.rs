//! The live relay: one stream of datagrams to every viewer, each of them controlled over TCP.
//!
//! - `hub`: who watches
//! - `viewer`: one of them, as the threads share it
//! - `source`: the one thread that receives the stream and sends it to everybody
//! - `pace`: how long a batch waits for more; `tally`, `meter`: what came of a send, and delays
//! - `talk`: a viewer's control connection, a thread each
//! - `journal`: the relay log
//! - [`snapshot`]: how it all stands
//! - [`watch`]: the watching side
//!
//! # The data side
//!
//! One thread does it all: it takes a batch of datagrams (what comes within
//! [`gather`](Settings::gather) of the first), and gives each viewer the whole batch with one
//! segmented send to a connected socket of its own. That socket's send queue is the viewer's
//! queue: bounded, never waited for, its refusals counted. A viewer that does not read, a link
//! that is slow or a host that is gone costs the others nothing. `benches/relay` has the
//! choices that lost. Without feature `sockopt` it is one plain send per datagram and viewer.
//!
//! The thread waits for no lock while there is something to send: what it shares with others in its
//! loop are atomics, and two locks that it tries and leaves alone where somebody holds them (the
//! roster when it has changed, the counts to be shown). It waits for one where nothing came, where
//! it lets a viewer go, and where it falls asleep. Control threads change a viewer's standing and wait for the round that
//! is under way to end, so after the `OK` of an interruption nothing more is sent.
//!
//! While nobody watches, it sleeps on a condition and reads nothing; what its socket holds when
//! the next viewer comes is thrown away, so nobody ever gets a stale burst.
//!
//! ```no_run
//! use gatecast::internals::relay::Relay;
//! use gatecast::internals::relay::Settings;
//!
//! let input = ([127, 0, 0, 1], 65534).into();
//! let relay = Relay::start(&Settings::new(input), ([0, 0, 0, 0], 7000).into())?;
//! for visit in relay.visits() {
//!     println!("{} got {} datagrams", visit.to, visit.sent.sent);
//! }
//! # Ok::<(), gatecast::internals::error::Error>(())
//! ```

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::error::Error;
use crate::error::Result;
use crate::net::STACK;
use crate::net::datagrams;
use crate::net::datagrams::BatchSocket;
use crate::proto::relay::log::ViewerRecord;
use crate::relay::hub::Hub;
use crate::relay::viewer_log::ViewerLogger;
use crate::relay::snapshot::RelaySnapshot;
use crate::relay::forward::Forwarder;
use crate::server::listener::Listener;

mod hub;
mod viewer_log;
mod atomic_histogram;
mod arrival_rate;
pub mod snapshot;
mod forward;
mod control;
mod send;
mod viewer;
pub mod watch;

/// How a relay runs.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// Where the stream is received; a multicast address is joined.
    pub input: SocketAddr,
    /// The address of the interface on which a group is joined; `None` leaves it to the system.
    pub interface: Option<Ipv4Addr>,
    /// How long a datagram may wait at most for others to leave with; nothing waits where datagrams
    /// leave one by one.
    pub gather: Duration,
    /// A viewer whose control connection says nothing for so long is let go. One of ours speaks
    /// every second and has 4 s; this is for the lab's, which may watch a film without a word.
    /// Before it has a viewer, a connection has a minute at most.
    pub max_silence: Duration,
    /// Most viewers at once.
    pub max_viewers: usize,
    /// Most of them at one address, this host's own excepted: one machine shall not take all
    /// places. A room behind one address translator is one address.
    pub viewers_per_address: usize,
    /// Where the relay log goes; `None` writes none.
    pub log_dir: Option<PathBuf>,
}

/// A relay at work.
#[derive(Debug)]
pub struct Relay {
    hub: Arc<Hub>,
    listener: Listener,
    source: Option<JoinHandle<()>>,
    journal: Option<ViewerLogger>,
    input: SocketAddr,
}

/// What [`Settings::gather`] is unless told otherwise: as long as leaves the delay well below 5 ms.
/// At 60 Mbit/s 17 datagrams come in it; a faster stream has enough of them sooner and waits less.
pub const GATHER: Duration = Duration::from_millis(3);

/// What [`Settings::max_silence`] is unless told otherwise: no lesson is longer.
pub const MAX_SILENCE: Duration = Duration::from_secs(4 * 3600);

/// What [`Settings::max_viewers`] is unless told otherwise: ten classrooms.
pub const MAX_VIEWERS: usize = 256;

/// What [`Settings::viewers_per_address`] is unless told otherwise: two classrooms behind one
/// address, and a quarter of all places.
pub const VIEWERS_PER_ADDRESS: usize = 64;

/// How long connections may take to end when the relay stops.
const LEAVE: Duration = Duration::from_secs(3);

impl RelayConfig {
    /// A relay of what comes to `input`, without a log.
    pub fn new(input: SocketAddr) -> Self {
        Self {
            input,
            interface: None,
            gather: GATHER,
            max_silence: MAX_SILENCE,
            max_viewers: MAX_VIEWERS,
            viewers_per_address: VIEWERS_PER_ADDRESS,
            log_dir: None,
        }
    }
}

impl Relay {
    /// Receives at the input and lets viewers come to `listen`.
    ///
    /// # Errors
    /// An address that cannot be had, a thread that the system refuses.
    pub fn start(settings: &RelayConfig, listen: SocketAddr) -> Result<Self> {
        let inbox = BatchSocket::bind(settings.input, settings.interface)?;
        let input = inbox.local_addr();
        let journal = ViewerLogger::start(settings.log_dir.clone())?;
        let hub = Arc::new(Hub::new(settings, inbox, journal.handle()));
        let serving = Arc::clone(&hub);
        let usher = move |connection, place: &_| control::serve(&serving, connection, place);
        let listener = Listener::start_bare(listen, Arc::new(usher), settings.max_viewers)?;
        let source = Forwarder::new(Arc::clone(&hub), settings.gather);
        let thread = thread::Builder::new()
            .name("relay-source".to_owned())
            .stack_size(STACK)
            .spawn(move || source.run())
            .map_err(Error::io("start the source's thread", input))?;
        Ok(Self {
            hub,
            listener,
            source: Some(thread),
            journal: Some(journal),
            input,
        })
    }

    /// Where viewers come to, with the port that the system chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// Where the stream is received, with the port that the system chose for port 0.
    pub fn input(&self) -> SocketAddr {
        self.input
    }

    /// Whether this build sends a batch with one call.
    pub fn batched() -> bool {
        datagrams::BATCHED
    }

    /// How everything stands. Costs the data side nothing.
    pub fn snapshot(&self) -> RelaySnapshot {
        self.hub.snapshot()
    }

    /// How many control connections are open.
    pub fn connections(&self) -> usize {
        self.listener.connections()
    }

    /// The visits that are over, each once it is in the log. Of those that nobody takes the last
    /// 4096 are kept.
    pub fn records(&self) -> Receiver<ViewerRecord> {
        self.journal
            .as_ref()
            .expect("it is there until the relay stops")
            .records()
    }

    /// Lets every viewer go and writes the log's last lines. Returns the visits that nobody took.
    ///
    /// # Errors
    /// The log could not be written; the relay went on without it.
    pub fn stop(mut self) -> Result<Vec<ViewerRecord>> {
        let journal = self.shut_down().expect("it is there until the relay stops");
        let visits = journal.records();
        journal.finish()?;
        Ok(visits.try_iter().collect())
    }

    fn shut_down(&mut self) -> Option<ViewerLogger> {
        let journal = self.journal.take()?;
        self.hub.stop();
        self.listener.stop();
        self.hub.wake_viewers();
        let left = self.listener.close_all(LEAVE);
        if left > 0 {
            log::warn!("{left} viewers did not end within {} s", LEAVE.as_secs());
        }
        if let Some(source) = self.source.take()
            && source.join().is_err()
        {
            log::error!("the source's thread panicked");
        }
        self.hub.close_log();
        Some(journal)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(journal) = self.shut_down()
            && let Err(error) = journal.finish()
        {
            log::error!("{error}");
        }
    }
}

//! The live relay: one stream of datagrams to every viewer, each of them controlled over TCP.
//!
//! - `builder`: how a relay runs
//! - `hub`: the viewers; `viewer`: one of them, as the threads share it
//! - `forward`: the thread that receives the stream of an input and sends it to its viewers
//! - `ladder`: several inputs, and which of them each viewer gets; `entry`: how it comes to another
//! - `group`: the group that it is sent to as well
//! - `gather`: how long a batch waits for more; `send`: what came of a send;
//!   `atomic_histogram`: delays
//! - `control`: a viewer's control connection, a thread each; `http`: a viewer over HTTP, the same;
//!   `chunk`: what waits for it
//! - `page`: who sees what, for people and machines, and the buttons
//! - `viewer_log`: the relay log
//! - `record`: the stream in segments on the disk; `play`: a file in place of a source
//! - `snapshot`: what everything is doing at a moment
//! - [`watch`]: the watching side
//!
//! # The data side
//!
//! One thread does it all (one for each input, where there are several): it takes a batch of datagrams (what is there, and where that
//! saves sends what comes within `--gather` of the first), and gives each viewer the whole batch with one
//! segmented send to a connected socket of its own. That socket's send queue is the viewer's
//! queue: bounded, never waited for, its refusals counted. A viewer that does not read, a link
//! that is slow or a host that is gone costs the others nothing. `benches/relay` has the
//! choices that lost. Without feature `sockopt` it is one plain send per datagram and viewer.
//!
//! What the thread shares with others in its loop are atomics, two locks that it tries and leaves
//! alone where another thread holds them (the roster when it has changed, and the counts to be
//! shown), and the turn: it holds that while it sends a batch, and a control thread while it changes
//! a viewer's state, which takes no time. So after the `OK` of an interruption nothing more is sent,
//! and a viewer that goes from its own port to the group misses nothing and gets nothing twice.
//!
//! While nobody watches, it sleeps on a condition and reads nothing. What its socket holds when
//! the next viewer comes is thrown away, so nobody ever gets a stale burst.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use crossbeam_channel::Receiver;

use crate::{
    error::{Error, Result},
    net::{
        self,
        datagrams::{self, BatchSocket},
        files,
    },
    proto::relay::{ladder::INPUTS_MAX, log::ViewerRecord, status::RelaySnapshot},
    relay::{
        forward::Forwarder, group::StreamGroup, hub::Hub, page::RelayHttp, play::FileSource,
        viewer_log::ViewerLogger,
    },
    server::listener::Listener,
};

mod atomic_histogram;
mod builder;
mod chunk;
mod control;
mod entry;
mod forward;
mod gather;
mod group;
mod http;
mod hub;
mod ladder;
mod page;
mod play;
mod record;
mod send;
mod snapshot;
mod viewer;
mod viewer_log;
pub mod watch;

pub use self::builder::{GATHER, RelayBuilder};
#[cfg(feature = "cli")]
pub(crate) use self::builder::{MAX_VIEWERS, VIEWERS_PER_ADDRESS};

/// A running relay: it receives one live stream over UDP and sends each datagram to every viewer
/// that connects. Dropping it stops it.
///
/// Viewers control it over TCP in the lab's words (`CONECTAR 5000`) and get the stream over UDP; it
/// reads its input only while somebody watches.
///
/// ```
/// use gatecast::Relay;
///
/// // Port 0 lets the system choose; a relay listens at 0.0.0.0:7000 unless told otherwise.
/// let relay = Relay::builder().input("127.0.0.1:0").listen("127.0.0.1:0").start()?;
/// println!("send MPEG-TS to udp://{}, watch at {}", relay.input(), relay.local_addr());
/// println!("{}", relay.status());
/// relay.shutdown()?;
/// # Ok::<(), gatecast::Error>(())
/// ```
#[derive(Debug)]
pub struct Relay {
    hub: Arc<Hub>,
    listener: Listener,
    sources: Vec<JoinHandle<()>>,
    logger: Option<ViewerLogger>,
    file: Option<JoinHandle<Result<()>>>,
}

/// How long connections may take to end when the relay stops.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(3);

impl Relay {
    /// A relay to be started.
    pub fn builder() -> RelayBuilder {
        RelayBuilder::new()
    }

    /// The TCP address that viewers connect to, with the port that the system chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.listener.addr()
    }

    /// The UDP address at which the stream is received, with the port that the system chose for
    /// port 0.
    pub fn input(&self) -> SocketAddr {
        self.hub.inputs[0].socket.local_addr()
    }

    /// The same of each input, best first.
    #[doc(hidden)]
    pub fn inputs(&self) -> impl Iterator<Item = SocketAddr> {
        self.hub.inputs.iter().map(|input| input.socket.local_addr())
    }

    /// What the relay and its viewers are doing now, as text: the input, then a line for each
    /// viewer.
    pub fn status(&self) -> impl fmt::Display {
        self.snapshot()
    }

    /// Lets every viewer go and writes the log's last lines.
    ///
    /// # Errors
    /// The log could not be written; the relay went on without it.
    pub fn shutdown(self) -> Result<()> {
        self.stop().map(|_| ())
    }

    /// What the relay and its viewers are doing now. Costs the data side nothing.
    #[doc(hidden)]
    pub fn snapshot(&self) -> RelaySnapshot {
        self.hub.snapshot()
    }

    /// How the file ended that is played, if it has ended.
    #[doc(hidden)]
    pub fn file_end(&mut self) -> Option<Result<()>> {
        let thread = self.file.take_if(|thread| thread.is_finished())?;
        Some(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    }

    /// Ends the recording, if there is one, with what has come so far.
    #[doc(hidden)]
    pub fn finish_recording(&self) {
        if let Some(recording) = self.hub.recording.get() {
            recording.finish();
        }
    }

    /// Whether this build sends a batch with one call.
    #[doc(hidden)]
    pub fn batched() -> bool {
        datagrams::BATCHED
    }

    /// How many control connections are open.
    #[doc(hidden)]
    pub fn connections(&self) -> usize {
        self.listener.connections()
    }

    /// The viewers that have left, each once it is in the log. Of those that nobody takes the last
    /// 4096 are kept.
    #[doc(hidden)]
    pub fn records(&self) -> Receiver<ViewerRecord> {
        let logger = self.logger.as_ref();
        logger.expect("it is there until the relay stops").records()
    }

    /// Lets every viewer go and writes the log's last lines. Returns a record of each viewer, of
    /// the last 4096 at most.
    ///
    /// # Errors
    /// The log could not be written; the relay went on without it.
    #[doc(hidden)]
    pub fn stop(mut self) -> Result<Vec<ViewerRecord>> {
        let logger = self.shut_down().expect("it is there until the relay stops");
        let records = logger.records();
        logger.finish()?;
        Ok(records.try_iter().collect())
    }

    fn shut_down(&mut self) -> Option<ViewerLogger> {
        let logger = self.logger.take()?;
        self.hub.stop();
        self.listener.stop();
        self.hub.viewers().iter().for_each(|viewer| viewer.wake());
        let left = self.listener.close_all(SHUTDOWN_LIMIT);
        if left > 0 {
            let limit = SHUTDOWN_LIMIT.as_secs();
            log::warn!("{left} viewers did not end within {limit} s");
        }
        for source in self.sources.drain(..) {
            if source.join().is_err() {
                log::error!("the source's thread panicked");
            }
        }
        if let Some(Err(_)) = self.file.take().map(JoinHandle::join) {
            log::error!("the file's thread panicked");
        }
        self.finish_recording();
        Some(logger)
    }
}

impl RelayBuilder {
    /// Receives the stream and accepts viewers, until the [`Relay`] is stopped or dropped.
    ///
    /// # Errors
    /// An address that cannot be resolved, bound or joined; a folder for logs that cannot be
    /// written; a thread that the system refuses.
    pub fn start(self) -> Result<Relay> {
        let (input, listen) = (self.input?, self.listen?);
        if let Some(folder) = &self.log_dir {
            files::check_folder(folder, "--log-dir")?;
        }
        let open = |(path, repeats): (PathBuf, bool)| FileSource::open(&path, repeats);
        let file = self.play.map(open).transpose()?;
        let input = if file.is_some() { (Ipv4Addr::LOCALHOST, 0).into() } else { input };
        let inputs = [&[input][..], &self.lower].concat();
        if inputs.len() > INPUTS_MAX {
            return Err(Error::usage(format_args!("a relay has {INPUTS_MAX} inputs at most")));
        }
        let is_twice =
            |(n, input): (usize, &SocketAddr)| input.port() > 0 && inputs[..n].contains(input);
        if let Some((_, input)) = inputs.iter().enumerate().find(|pair| is_twice(*pair)) {
            return Err(Error::usage(format_args!("{input} is an input twice")));
        }
        let bind = |input| {
            BatchSocket::bind(input, self.interface)
                .map_err(|error| error.advise("choose another address with --input"))
        };
        let sockets = inputs.iter().map(|input| bind(*input)).collect::<Result<_>>()?;
        let logger = ViewerLogger::start(self.log_dir)?;
        let most = self.limits.viewers;
        let group = self.group.map(StreamGroup::open).transpose()?;
        let hub = Arc::new(Hub::new(self.limits, sockets, logger.handle(), group));
        let serving = Arc::clone(&hub);
        let page = RelayHttp::new(self.access);
        let handler = move |connection, slot: &_| control::serve(&serving, &page, connection, slot);
        let listener = Listener::start_bare(listen, Arc::new(handler), most)?;
        let (sources, logger) = (Vec::new(), Some(logger));
        let mut relay = Relay { hub, listener, sources, logger, file: None };
        for (number, input) in inputs.iter().enumerate() {
            let source = Forwarder::new(Arc::clone(&relay.hub), number, self.gather);
            let thread = net::spawn("relay-source", move || source.run())
                .map_err(Error::io("start the source's thread", input))?;
            relay.sources.push(thread);
        }
        if let Some((folder, segment)) = &self.record {
            relay.hub.begin_recording(record::start(folder, *segment, relay.hub.relay)?);
        }
        relay.file = file.map(|file| play::start(&relay.hub, file, relay.input())).transpose()?;
        Ok(relay)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(logger) = self.shut_down()
            && let Err(error) = logger.finish()
        {
            log::error!("{error}");
        }
    }
}

//! The watching side: receives the stream, hands it to a player of this host, records it, and
//! counts what was received against what was sent.
//!
//! Three threads: `watch-data` receives, counts and forwards; `watch-alive` reports every second
//! what was received; `watch-disk` writes the recording, if there is one, behind a bounded channel,
//! so that a slow disk costs the recording and not the picture. Works with a relay that knows only
//! the lab's words; what such a relay does not tell stays unknown.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::{self, clock, datagrams::BatchSocket, files, lock, socket},
    proto::relay::{ControlCommand, ViewerState, status::WatchSnapshot},
    relay::watch::{control::WatchState, group::GroupListener, receive::StreamReceiver},
};

mod control;
mod group;
mod receive;
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
    /// Take the stream by the relay's group only, or never; `None` where it is heard.
    pub by_group: Option<bool>,
    /// The address by whose interface the group is joined; `None` for that of the connection.
    pub interface: Option<Ipv4Addr>,
}

/// A stream being watched.
#[derive(Debug)]
pub struct Watch {
    state: Arc<WatchState>,
    data: Option<JoinHandle<()>>,
    alive: Option<JoinHandle<()>>,
    disk: Option<JoinHandle<io::Result<u64>>>,
}

/// How long the relay may take to be reached.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

impl WatchConfig {
    /// To watch the stream of a relay at `relay`, without player or recording.
    pub fn new(relay: Vec<SocketAddr>) -> Self {
        Self { relay, player: None, record: None, port: 0, by_group: None, interface: None }
    }
}

impl Watch {
    /// Connects and begins.
    ///
    /// # Errors
    /// The relay is not there or refuses; the player's address, the recording or a thread cannot
    /// be had.
    pub fn start(config: &WatchConfig) -> Result<Self> {
        if let Some(folder) = config.record.as_deref().and_then(Path::parent) {
            files::check_folder(folder, "--record")?;
        }
        let stream = socket::connect(&config.relay, clock::now().after(CONNECT_LIMIT))
            .map_err(|error| socket::advise(error, "is gatecast relay running there?"))?;
        socket::consent(&stream);
        let (relay, mut at) = stream
            .peer_addr()
            .and_then(|peer| Ok((peer, stream.local_addr()?)))
            .map_err(Error::io("ask for the addresses", "the relay"))?;
        // Not rebuilt from its IP: a link-local address needs its link (RFC 4007, section 6).
        at.set_port(config.port);
        let inbox = BatchSocket::bind(at, None)?;
        let player = config.player.map(receive::player_socket).transpose()?;
        let (recorder, writer) = config.record.as_ref().map(|_| recorder::channel()).unzip();
        let state = Arc::new(WatchState::new(relay, inbox, stream));
        if config.by_group != Some(false) {
            let only = config.by_group == Some(true);
            let told = state.request(&ControlCommand::Group);
            let here = config.interface.map_or_else(|| at.ip(), IpAddr::V4);
            match told.and_then(|told| GroupListener::join(&told, here, only)) {
                Ok(group) => state.group.set(group).expect("it is joined once"),
                Err(error) if only || lock(&state.control).end_reason.is_some() => {
                    return Err(error);
                }
                Err(error) => log::debug!("no group: {error}"),
            }
        }
        let mut watch = Self { state: Arc::clone(&state), data: None, alive: None, disk: None };
        let data = StreamReceiver { state: Arc::clone(&state), player, recorder };
        watch.data = Some(spawn("watch-data", move || data.run())?);
        let heard = state.group.get().is_some_and(GroupListener::is_heard);
        state.request(&ControlCommand::Connect(state.inbox.local_addr().port()))?;
        if heard {
            state.ask(&ControlCommand::Group)?;
        } else if let Some(group) = state.group.get() {
            lock(&group.hearing).switch(false, 0);
        }
        // Only now: a relay that refuses leaves an old recording as it was.
        if let (Some(path), Some(writer)) = (&config.record, writer) {
            let file = recorder::create(path)?;
            watch.disk = Some(spawn("watch-disk", move || writer.write(file))?);
        }
        // At once: from the first report on the relay knows what our silence means.
        state.send_alive();
        watch.alive = Some(spawn("watch-alive", move || state.run_keepalive())?);
        Ok(watch)
    }

    /// Asks for no more until [`resume`](Self::resume).
    ///
    /// # Errors
    /// The relay refuses (it is paused already) or is gone.
    pub fn pause(&self) -> Result<()> {
        self.state.ask(&ControlCommand::Interrupt)
    }

    /// Asks for the stream again.
    ///
    /// # Errors
    /// The relay refuses (it is not paused) or is gone.
    pub fn resume(&self) -> Result<()> {
        // What was missed in the pause is not lost: from here on, everything is counted anew. Set
        // before the request, because datagrams may come before the answer; and only after a
        // pause, or what the network loses just now would be no loss.
        let now = clock::now().0;
        let paused = lock(&self.state.control).viewer == ViewerState::Paused;
        if paused {
            self.state.rejoin.store(now, Ordering::SeqCst);
        }
        let asked = self.state.ask(&ControlCommand::Continue);
        if paused && asked.is_err() {
            self.state.clear_rejoin(now);
        }
        asked
    }

    /// What it is doing now.
    pub fn snapshot(&self) -> WatchSnapshot {
        self.state.snapshot()
    }

    /// Why it is over, if it is: the relay has let us go.
    pub fn end_reason(&self) -> Option<String> {
        lock(&self.state.control).end_reason.clone()
    }

    /// Leaves, so that all that was sent is counted: asks for no more, receives what is on its way,
    /// asks what was sent, and disconnects.
    ///
    /// # Errors
    /// The recording is not whole. A relay that is gone is no error: the snapshot has what is known.
    pub fn quit(mut self) -> Result<WatchSnapshot> {
        let paused = lock(&self.state.control).viewer == ViewerState::Paused;
        if !paused && let Err(error) = self.pause() {
            log::debug!("{error}");
        }
        self.state.wait_until_quiet();
        self.state.send_alive();
        if let Err(error) = self.state.request(&ControlCommand::Disconnect) {
            log::debug!("{error}");
        }
        let last = self.state.snapshot();
        self.end().map_err(Error::io("write the recording", "its disk"))?;
        if last.unrecorded > 0 {
            let reason = format!("the disk was too slow for {} datagrams", last.unrecorded);
            return Err(Error::refused("the recording", reason));
        }
        Ok(last)
    }

    fn end(&mut self) -> io::Result<()> {
        self.state.stopping.store(true, Ordering::SeqCst);
        self.state.ended.notify_all();
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
    net::spawn(name, body).map_err(Error::io("start the viewer's thread", name))
}

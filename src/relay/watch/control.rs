//! What a viewer's threads share, and its side of the control connection.
//!
//! One lock for the connection, held for a command and its answer. The counts have locks of their
//! own, which no thread holds for long.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{
        Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{
    error::{Error, Phase, Result},
    net::{clock, datagrams, datagrams::BatchSocket, line_stream::LineStream, lock, socket},
    proto::{
        relay::{
            ControlCommand, ControlReply, ViewerState,
            reports::{ReceiverReport, SenderReport},
            status::WatchSnapshot,
        },
        stream::StreamCounts,
    },
    relay::watch::group::GroupListener,
    text::escape,
    units::Moment,
};

#[derive(Debug)]
pub(super) struct WatchState {
    pub(super) relay: SocketAddr,
    pub(super) inbox: BatchSocket,
    pub(super) group: OnceLock<GroupListener>,
    pub(super) control: Mutex<ControlState>,
    began: Moment,
    pub(super) stopping: AtomicBool,
    pub(super) ended: Condvar,
    pub(super) counts: Mutex<StreamCounts>,
    sent: Mutex<Option<SenderReport>>,
    /// Datagrams from this moment on follow nothing that came before it; 0 for none.
    pub(super) rejoin: AtomicU64,
    /// Counts the times that [`QUIET`] has passed without a datagram.
    pub(super) quiet: AtomicU64,
    pub(super) foreign: AtomicU64,
    pub(super) unplayed: AtomicU64,
    pub(super) unrecorded: AtomicU64,
    pub(super) recorded: AtomicU64,
}

/// The control connection.
#[derive(Debug)]
pub(super) struct ControlState {
    stream: TcpStream,
    pub(super) viewer: ViewerState,
    /// Whether the relay knows `ALIVE`, as far as we know.
    native: bool,
    /// Why it is over.
    pub(super) end_reason: Option<String>,
}

/// With no datagram for so long after a pause, none is on its way.
pub(super) const QUIET: Duration = Duration::from_millis(100);

/// How long the relay may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// Most bytes of a stranger's answer that are looked at.
const ANSWER_MAX: u64 = 512;

/// How often `ALIVE` is sent; the relay waits four times as long.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// How long the last datagrams are waited for at the end.
const QUIET_LIMIT: Duration = Duration::from_secs(2);

impl WatchState {
    /// Nothing is asked for yet at the other end of `stream`.
    pub(super) fn new(relay: SocketAddr, inbox: BatchSocket, stream: TcpStream) -> Self {
        Self {
            relay,
            inbox,
            group: OnceLock::new(),
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
        }
    }

    /// Sends `command` and reads the answer, which is no refusal.
    pub(super) fn request(&self, command: &ControlCommand) -> Result<ControlReply> {
        let mut control = lock(&self.control);
        if let Some(why) = &control.end_reason {
            return Err(Error::refused(self.relay, why.clone()));
        }
        let mut lines = LineStream::new(&control.stream, self.relay, b"");
        let mut answer = Vec::new();
        let reply = lines
            .write_line(&command.encode())
            .and_then(|()| lines.read_line(clock::now().after(ANSWER_LIMIT), Phase::Receipt))
            .and_then(|line| {
                ControlReply::decode(&line).map_err(|error| {
                    answer = line.into_bytes();
                    Error::protocol(self.relay, error.to_string())
                })
            });
        if answer.is_empty() {
            answer = lines.take_buffered(ANSWER_MAX);
        }
        let reply = match reply {
            // It may be shown on a terminal.
            Ok(ControlReply::Error(reason)) => {
                return Err(Error::refused(self.relay, escape(&reason)));
            }
            Ok(reply) => reply,
            Err(error) => {
                let error = match (control.viewer, error) {
                    (ViewerState::Unconnected, Error::Protocol { .. }) => {
                        Error::wrong_server("find a gatecast relay", self.relay, &answer)
                    }
                    (ViewerState::Unconnected, error) => {
                        error.advise("is that the port of gatecast relay?")
                    }
                    (_, error) => error,
                };
                self.end(&mut control, error.to_string());
                return Err(error);
            }
        };
        let known = match (control.viewer, command) {
            // The relay's page has resumed it.
            (ViewerState::Paused, ControlCommand::Group) => ViewerState::Running,
            (known, _) => known,
        };
        if let Ok(state) = known.after(command) {
            control.viewer = state;
        }
        Ok(reply)
    }

    /// Asks for `command`, which may change the way by which the stream comes.
    pub(super) fn ask(&self, command: &ControlCommand) -> Result<()> {
        let mut hearing = self.group.get().map(|group| lock(&group.hearing));
        if let (ControlReply::Group(told), Some(hearing)) = (self.request(command)?, &mut hearing) {
            hearing.switch(*command == ControlCommand::Group, told.next);
        }
        Ok(())
    }

    /// Leaves the group where it no longer reaches this host, or takes it where it does.
    pub(super) fn check_group(&self) {
        let (sent, now) = (lock(&self.sent).map_or(0, |sent| sent.sent), clock::now());
        let asks = self.group.get().and_then(|group| lock(&group.hearing).check(sent, now));
        if let Some(command) = asks {
            let done = self.ask(&command);
            log::info!("{command:?} for what is heard of the group: {done:?}");
        }
    }

    /// How many datagrams this host dropped before they were read.
    pub(super) fn host_drop(&self) -> Option<u64> {
        let group = self.group.get().map(|group| &group.inbox);
        [&self.inbox].into_iter().chain(group).map(|inbox| datagrams::drops(inbox.socket())).sum()
    }

    /// Notes why the relay has let us go.
    fn end(&self, control: &mut ControlState, why: String) {
        control.end_reason = Some(why);
        control.viewer = ViewerState::Unconnected;
        self.ended.notify_all();
    }

    /// Sends `ALIVE` every second until it is over.
    pub(super) fn run_keepalive(&self) {
        let stopping = || self.stopping.load(Ordering::SeqCst);
        loop {
            let going = |control: &mut ControlState| control.end_reason.is_none() && !stopping();
            let waited = self.ended.wait_timeout_while(lock(&self.control), ALIVE_EVERY, going);
            let (mut control, _) = waited.unwrap_or_else(PoisonError::into_inner);
            if !going(&mut control) {
                return;
            }
            drop(control);
            self.send_alive();
            self.check_group();
        }
    }

    /// Reports what was received and reads what was sent; only checks that the relay is still
    /// there, where it does not know `ALIVE`.
    pub(super) fn send_alive(&self) {
        if !lock(&self.control).native {
            return self.check_connection();
        }
        let counts = *lock(&self.counts);
        let report = ReceiverReport::of(&counts, self.host_drop());
        match self.request(&ControlCommand::Alive(report)) {
            Ok(ControlReply::Report(sent)) => *lock(&self.sent) = Some(sent),
            Ok(_) => {}
            Err(Error::Refused { reason, .. }) => {
                log::debug!("the relay does not report: {reason}");
                let mut control = lock(&self.control);
                if lock(&self.sent).is_some() {
                    // It knew the word before, so this is why it closes.
                    self.end(&mut control, reason);
                }
                control.native = false;
            }
            Err(error) => log::debug!("{error}"),
        }
    }

    /// Ends where the relay has closed the connection.
    fn check_connection(&self) {
        let mut control = lock(&self.control);
        if control.end_reason.is_some() {
            return;
        }
        match socket::is_closed(&control.stream) {
            Ok(true) => self.end(&mut control, "it closed the connection".to_owned()),
            Ok(false) => {}
            Err(error) => self.end(&mut control, error.to_string()),
        }
    }

    /// Waits until no datagram is on its way any more.
    pub(super) fn wait_until_quiet(&self) {
        let before = self.quiet.load(Ordering::SeqCst);
        let deadline = clock::now().after(QUIET_LIMIT);
        // The wait that is under way may have begun before the pause; the next one has not.
        while self.quiet.load(Ordering::SeqCst) < before + 2 && clock::left(deadline).is_some() {
            thread::sleep(QUIET / 10);
        }
    }

    /// Takes back a rejoin at `moment`, unless there is another since.
    pub(super) fn clear_rejoin(&self, moment: u64) {
        let rejoin = &self.rejoin;
        let _ = rejoin.compare_exchange(moment, 0, Ordering::SeqCst, Ordering::SeqCst);
    }

    pub(super) fn snapshot(&self) -> WatchSnapshot {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        let state = lock(&self.control).viewer;
        let (received, sent) = (*lock(&self.counts), *lock(&self.sent));
        WatchSnapshot {
            at: self.inbox.local_addr(),
            state,
            watched: clock::now().since(self.began),
            received,
            host_drop: self.host_drop(),
            sent,
            foreign: read(&self.foreign),
            unplayed: read(&self.unplayed),
            unrecorded: read(&self.unrecorded),
            recorded: read(&self.recorded),
        }
    }
}

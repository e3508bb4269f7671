//! What a viewer's threads share, and its side of the control conversation.
//!
//! One lock for the connection, held for a command and its answer; whoever reads counts takes a
//! lock of its own, which nobody holds for long.

use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use crate::error::Error;
use crate::error::Phase;
use crate::error::Result;
use crate::net::clock;
use crate::net::datagrams;
use crate::net::datagrams::BatchSocket;
use crate::net::line_stream::Dialogue;
use crate::proto::stream::StreamCounts;
use crate::proto::relay::ControlCommand;
use crate::proto::relay::ControlReply;
use crate::proto::relay::ViewerState;
use crate::proto::relay::reports::ReceiverReport;
use crate::proto::relay::reports::SenderReport;
use crate::relay::watch::WatchSnapshot;
use crate::relay::watch::receive::QUIET;
use crate::text::escape;
use crate::units::Moment;

#[derive(Debug)]
pub(super) struct WatchState {
    pub(super) relay: SocketAddr,
    pub(super) inbox: BatchSocket,
    pub(super) control: Mutex<ControlState>,
    pub(super) began: Moment,
    pub(super) stopping: AtomicBool,
    pub(super) ended: Condvar,
    pub(super) counts: Mutex<StreamCounts>,
    pub(super) sent: Mutex<Option<SenderReport>>,
    /// Datagrams from this moment on follow nothing that came before it; 0 for none.
    pub(super) rejoin: AtomicU64,
    /// Moves when a while has passed without a datagram.
    pub(super) quiet: AtomicU64,
    pub(super) foreign: AtomicU64,
    pub(super) unplayed: AtomicU64,
    pub(super) unrecorded: AtomicU64,
    pub(super) recorded: AtomicU64,
}

#[derive(Debug)]
pub(super) struct ControlState {
    pub(super) stream: TcpStream,
    pub(super) viewer: ViewerState,
    /// Whether the relay knows our own word, as far as we know.
    pub(super) native: bool,
    /// Why it is over.
    pub(super) end_reason: Option<String>,
}

/// How long the relay may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How often we say that we live; the relay waits four times as long.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// How long the last datagrams are waited for at the end.
const QUIET_LIMIT: Duration = Duration::from_secs(2);

impl WatchState {
    /// Says `command` and hears the answer.
    pub(super) fn request(&self, command: &ControlCommand) -> Result<Option<SenderReport>> {
        let mut control = self.control();
        if let Some(why) = &control.end_reason {
            return Err(Error::refused(self.relay, why.clone()));
        }
        let answered = {
            let mut dialogue = Dialogue::new(&control.stream, self.relay, b"");
            dialogue
                .say(&command.encode())
                .and_then(|()| dialogue.hear(clock::now().after(ANSWER_LIMIT), Phase::Receipt))
        };
        let reply = answered.and_then(|line| {
            ControlReply::decode(&line)
                .map_err(|error| Error::protocol(self.relay, error.to_string()))
        });
        match reply {
            // What it says may end on a terminal.
            Ok(ControlReply::Error(reason)) => Err(Error::refused(self.relay, escape(&reason))),
            Ok(reply) => {
                if let Ok(standing) = control.viewer.after(command) {
                    control.viewer = standing;
                }
                Ok(match reply {
                    ControlReply::Statement(statement) => Some(statement),
                    _ => None,
                })
            }
            Err(error) => {
                self.end(&mut control, error.to_string());
                Err(error)
            }
        }
    }

    pub(super) fn end(&self, control: &mut ControlState, why: String) {
        control.end_reason = Some(why);
        control.viewer = ViewerState::Unconnected;
        self.ended.notify_all();
    }

    pub(super) fn run_keepalive(&self) {
        loop {
            let control = self.control();
            let going = |control: &mut ControlState| {
                control.end_reason.is_none() && !self.stopping.load(Ordering::SeqCst)
            };
            let (control, _) = self
                .ended
                .wait_timeout_while(control, ALIVE_EVERY, going)
                .unwrap_or_else(PoisonError::into_inner);
            if control.end_reason.is_some() || self.stopping.load(Ordering::SeqCst) {
                return;
            }
            drop(control);
            self.send_alive();
        }
    }

    /// Tells what came and hears what was sent; only looks whether the relay is still there, where
    /// it does not know the word.
    pub(super) fn send_alive(&self) {
        if !self.control().native {
            return self.check_connection();
        }
        let receipt = ReceiverReport::of(&self.counts(), datagrams::drops(self.inbox.socket()));
        match self.request(&ControlCommand::Alive(receipt)) {
            Ok(statement) => {
                *self.sent.lock().unwrap_or_else(PoisonError::into_inner) = statement;
            }
            Err(Error::Refused { reason, .. }) => {
                log::debug!("the relay tells nothing: {reason}");
                let mut control = self.control();
                let known = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
                if known.is_some() {
                    // It knew the word before: these are its last ones.
                    self.end(&mut control, reason);
                }
                control.native = false;
            }
            Err(error) => log::debug!("{error}"),
        }
    }

    pub(super) fn check_connection(&self) {
        let mut control = self.control();
        if control.end_reason.is_some() {
            return;
        }
        let look = || {
            control.stream.set_nonblocking(true)?;
            let seen = control.stream.peek(&mut [0]);
            control.stream.set_nonblocking(false)?;
            seen
        };
        match look() {
            Ok(0) => self.end(&mut control, "it closed the connection".to_owned()),
            Err(error) if !Error::is_timeout(&error) => {
                self.end(&mut control, error.to_string());
            }
            _ => {}
        }
    }

    /// Waits until no datagram is on its way any more.
    pub(super) fn wait_until_quiet(&self) {
        let (before, deadline) = (
            self.quiet.load(Ordering::SeqCst),
            clock::now().after(QUIET_LIMIT),
        );
        // The wait that is under way may have begun before the pause; the next one has not.
        while self.quiet.load(Ordering::SeqCst) < before + 2 && clock::left(deadline).is_some() {
            thread::sleep(QUIET / 10);
        }
    }

    pub(super) fn snapshot(&self) -> WatchSnapshot {
        let standing = self.control().viewer;
        WatchSnapshot {
            at: self.inbox.local_addr(),
            state: standing,
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

    pub(super) fn counts(&self) -> StreamCounts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn control(&self) -> MutexGuard<'_, ControlState> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
use crate::net::datagrams::Inbox;
use crate::net::line_stream::LineStream;
use crate::proto::feed::Counts;
use crate::proto::relay::Command;
use crate::proto::relay::Reply;
use crate::proto::relay::Standing;
use crate::proto::relay::receipt::Receipt;
use crate::proto::relay::receipt::Statement;
use crate::relay::watch::View;
use crate::relay::watch::data::QUIET;
use crate::text::escape;
use crate::units::Moment;

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) relay: SocketAddr,
    pub(super) inbox: Inbox,
    pub(super) control: Mutex<Control>,
    pub(super) began: Moment,
    pub(super) stopping: AtomicBool,
    pub(super) ended: Condvar,
    pub(super) counts: Mutex<Counts>,
    pub(super) sent: Mutex<Option<Statement>>,
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
pub(super) struct Control {
    pub(super) stream: TcpStream,
    pub(super) standing: Standing,
    /// Whether the relay knows our own word, as far as we know.
    pub(super) native: bool,
    /// Why it is over.
    pub(super) over: Option<String>,
}

/// How long the relay may take to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How often we say that we live; the relay waits four times as long.
const ALIVE_EVERY: Duration = Duration::from_secs(1);

/// How long the last datagrams are waited for at the end.
const QUIET_LIMIT: Duration = Duration::from_secs(2);

impl Shared {
    /// Says `command` and hears the answer.
    pub(super) fn ask(&self, command: &Command) -> Result<Option<Statement>> {
        let mut control = self.control();
        if let Some(why) = &control.over {
            return Err(Error::refused(self.relay, why.clone()));
        }
        let answered = {
            let mut lines = LineStream::new(&control.stream, self.relay, b"");
            lines
                .write_line(&command.encode())
                .and_then(|()| lines.read_line(clock::now().after(ANSWER_LIMIT), Phase::Receipt))
        };
        let reply = answered.and_then(|line| {
            Reply::decode(&line).map_err(|error| Error::protocol(self.relay, error.to_string()))
        });
        match reply {
            // What it says may end on a terminal.
            Ok(Reply::Error(reason)) => Err(Error::refused(self.relay, escape(&reason))),
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

    pub(super) fn let_go(&self, control: &mut Control, why: String) {
        control.over = Some(why);
        control.standing = Standing::Out;
        self.ended.notify_all();
    }

    pub(super) fn stay_alive(&self) {
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
    pub(super) fn say_alive(&self) {
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

    pub(super) fn look(&self) {
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
    pub(super) fn await_quiet(&self) {
        let (before, deadline) = (
            self.quiet.load(Ordering::SeqCst),
            clock::now().after(QUIET_LIMIT),
        );
        // The wait that is under way may have begun before the pause; the next one has not.
        while self.quiet.load(Ordering::SeqCst) < before + 2 && clock::left(deadline).is_some() {
            thread::sleep(QUIET / 10);
        }
    }

    pub(super) fn view(&self) -> View {
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

    pub(super) fn counts(&self) -> Counts {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

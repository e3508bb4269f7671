//! A viewer's control connection, a thread each: hears commands, answers, and ends the visit
//! however the connection ends.

use std::io;
use std::io::Read;
use std::net::Shutdown;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::error::Error;
use crate::net::clock;
use crate::net::copy;
use crate::net::socket;
use crate::proto::relay::COMMANDS_MAX;
use crate::proto::relay::CommandRate;
use crate::proto::relay::CommandReader;
use crate::proto::relay::ControlCommand;
use crate::proto::relay::ControlReply;
use crate::proto::relay::ViewerState;
use crate::proto::relay::log::ViewerEnd;
use crate::proto::relay::silence;
use crate::relay::hub::Hub;
use crate::relay::viewer::Viewer;
use crate::server::listener::Connection;
use crate::server::listener::Place;

/// How long a client may take to accept an answer, which its buffer holds thousands of.
const REPLY_LIMIT: Duration = Duration::from_secs(4);

/// One conversation.
struct ControlSession<'a> {
    hub: &'a Hub,
    connection: Connection,
    place: &'a Place,
    commands: CommandReader,
    viewer: Option<Arc<Viewer>>,
}

/// Why a conversation is over.
struct SessionOutcome {
    end: ViewerEnd,
    reason: Option<String>,
}

/// Serves one control connection to its end.
pub(super) fn serve(hub: &Hub, connection: Connection, place: &Place) {
    socket::consent(&connection.stream);
    let peer = connection.peer;
    let mut talk = ControlSession {
        hub,
        connection,
        place,
        commands: CommandReader::default(),
        viewer: None,
    };
    let over = talk.run();
    log::debug!("{peer}: {}, {:?}", over.end, over.reason);
    if let Some(viewer) = talk.viewer.take() {
        hub.remove_viewer(&viewer, over.end, over.reason);
    }
    // The source thread may hold the viewer, and with it this connection, until its next batch.
    let _ = talk.connection.stream.shutdown(Shutdown::Both);
}

impl ControlSession<'_> {
    fn run(&mut self) -> SessionOutcome {
        let mut bytes = [0; 2048];
        // Of a whole line: a byte now and then is no word.
        let mut heard = clock::now();
        let mut budget = CommandRate::new(heard);
        loop {
            if let Some(over) = self.ended_by_relay() {
                return over;
            }
            while let Some(command) = self.commands.next() {
                // What was said before it was let go, or is said after, is not obeyed any more.
                if let Some(over) = self.ended_by_relay() {
                    return over;
                }
                heard = clock::now();
                if !budget.allow(heard) {
                    let reason = format!("more than {COMMANDS_MAX} commands in a second");
                    self.send_error_and_close(&reason);
                    return SessionOutcome::new(ViewerEnd::Closed, Some(reason));
                }
                let (reply, leaving) = self.execute(command);
                if let Err(over) = self.send_reply(&reply) {
                    return over;
                }
                if leaving {
                    self.close();
                    return SessionOutcome::new(ViewerEnd::Left, None);
                }
            }
            if self.commands.is_hopeless() {
                return SessionOutcome::new(
                    ViewerEnd::Closed,
                    Some("a line that never ends".to_owned()),
                );
            }
            let native = self
                .viewer
                .as_ref()
                .map(|v| v.native.load(Ordering::Relaxed));
            let silence = silence(native, self.hub.max_silence);
            match self.read(&mut bytes, heard.after(silence)) {
                Ok(0) => {
                    let closed = || SessionOutcome::new(ViewerEnd::Closed, None);
                    return self.ended_by_relay().unwrap_or_else(closed);
                }
                Ok(len) => self.commands.push(&bytes[..len]),
                Err(error)
                    if Error::is_timeout(&error) && clock::left(heard.after(silence)).is_none() =>
                {
                    let reason = format!("no word within {} s", silence.as_secs());
                    self.send_error_and_close(&reason);
                    return SessionOutcome::new(ViewerEnd::Silent, Some(reason));
                }
                Err(error) => {
                    // What keep-alive finds when nobody answers any more is a silence too.
                    let end = match Error::is_timeout(&error) {
                        true => ViewerEnd::Silent,
                        false => ViewerEnd::Closed,
                    };
                    return SessionOutcome::new(end, Some(error.to_string()));
                }
            }
        }
    }

    /// Does what `command` says; the answer, and whether the conversation is over with it.
    fn execute(
        &mut self,
        command: Result<ControlCommand, crate::proto::line::DecodeError>,
    ) -> (ControlReply, bool) {
        let command = match command {
            Ok(command) => command,
            Err(error) => return (ControlReply::Error(error.to_string()), false),
        };
        let standing = self
            .viewer
            .as_ref()
            .map_or(ViewerState::Unconnected, |viewer| viewer.state());
        let after = match standing.after(&command) {
            Ok(after) => after,
            Err(why) => return (ControlReply::Error(why.to_owned()), false),
        };
        match (command, &self.viewer) {
            (ControlCommand::Connect(port), _) => return (self.connect(port), false),
            (ControlCommand::Disconnect, viewer) => {
                if let Some(viewer) = viewer {
                    self.hub.set_state(viewer, ViewerState::Unconnected);
                }
                return (ControlReply::Ok, true);
            }
            (ControlCommand::Interrupt | ControlCommand::Continue, Some(viewer)) => {
                self.hub.set_state(viewer, after);
            }
            (ControlCommand::Alive(receipt), Some(viewer)) => {
                viewer.native.store(true, Ordering::Relaxed);
                let statement = self.hub.sender_report(viewer);
                if !statement.allows(&receipt) {
                    let (got, sent) = (receipt.datagrams, statement.sent);
                    let reason = format!("a receipt of {got} datagrams where {sent} were sent");
                    return (ControlReply::Error(reason), false);
                }
                let mut shown = viewer
                    .receiver_report
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *shown = Some(receipt);
                drop(shown);
                return (ControlReply::Statement(statement), false);
            }
            // Nobody yet: alive, and that is all.
            (
                ControlCommand::Interrupt | ControlCommand::Continue | ControlCommand::Alive(_),
                None,
            ) => {}
        }
        (ControlReply::Ok, false)
    }

    fn connect(&mut self, port: u16) -> ControlReply {
        // One that the source thread lets go in this moment stands outside and has its place yet:
        // it must be taken from it before there is another.
        if self.viewer.is_some() {
            return ControlReply::Error("this connection has had its viewer".to_owned());
        }
        // Nothing that the client says names a host: it is the connection's own other end.
        let mut to = socket::canonical(self.connection.peer);
        to.set_port(port);
        match self.hub.add_viewer(to, &self.connection.stream) {
            Ok(viewer) => {
                self.place.settle(true);
                log::info!("viewer {}: connected at {to}", viewer.number);
                self.viewer = Some(viewer);
                ControlReply::Ok
            }
            Err(Error::Refused { reason, .. }) => ControlReply::Error(reason),
            Err(error) => ControlReply::Error(error.to_string()),
        }
    }

    /// Why somebody here has ended this conversation, if somebody has; the client has been told.
    fn ended_by_relay(&self) -> Option<SessionOutcome> {
        if let Some((end, reason)) = self.viewer.as_ref().and_then(|viewer| viewer.expelled()) {
            self.send_error_and_close(&reason);
            return Some(SessionOutcome::new(end, Some(reason)));
        }
        if self.hub.is_stopping() {
            self.send_error_and_close("the relay stops");
            return Some(SessionOutcome::new(ViewerEnd::Stopped, None));
        }
        None
    }

    fn read(&self, bytes: &mut [u8], deadline: crate::units::Moment) -> io::Result<usize> {
        loop {
            if !socket::bound_read(&self.connection.stream, deadline)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match (&mut &*self.connection.stream).read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn send_reply(&self, reply: &ControlReply) -> Result<(), SessionOutcome> {
        let deadline = clock::now().after(REPLY_LIMIT);
        let said = copy::send_all(&self.connection.stream, &reply.encode(), deadline);
        said.map_err(|stop| match stop {
            copy::Stop::Peer(error) => {
                SessionOutcome::new(ViewerEnd::Closed, Some(error.to_string()))
            }
            _ => SessionOutcome::new(
                ViewerEnd::Silent,
                Some("it does not read its answers".to_owned()),
            ),
        })
    }

    /// Tells why, and closes.
    fn send_error_and_close(&self, reason: &str) {
        if self
            .send_reply(&ControlReply::Error(reason.to_owned()))
            .is_ok()
        {
            self.close();
        }
    }

    /// Closes so that what was said still arrives: see [`Dialogue::close`].
    ///
    /// [`Dialogue::close`]: crate::net::line_stream::Dialogue::close
    fn close(&self) {
        let peer = self.connection.peer;
        crate::net::line_stream::Dialogue::new(&self.connection.stream, peer, b"").close();
    }
}

impl SessionOutcome {
    fn new(end: ViewerEnd, reason: Option<String>) -> Self {
        Self { end, reason }
    }
}

#[cfg(test)]
mod tests;

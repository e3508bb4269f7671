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
use crate::proto::relay::Budget;
use crate::proto::relay::COMMANDS_MAX;
use crate::proto::relay::Command;
use crate::proto::relay::Commands;
use crate::proto::relay::Reply;
use crate::proto::relay::Standing;
use crate::proto::relay::log::End;
use crate::proto::relay::silence;
use crate::relay::hub::Hub;
use crate::relay::viewer::Viewer;
use crate::server::listener::Connection;
use crate::server::listener::ConnectionSlot;

/// How long a client may take to accept an answer, which its buffer holds thousands of.
const SAY_LIMIT: Duration = Duration::from_secs(4);

/// One conversation.
struct Talk<'a> {
    hub: &'a Hub,
    connection: Connection,
    place: &'a ConnectionSlot,
    commands: Commands,
    viewer: Option<Arc<Viewer>>,
}

/// Why a conversation is over.
struct Over {
    end: End,
    reason: Option<String>,
}

/// Serves one control connection to its end.
pub(super) fn serve(hub: &Hub, connection: Connection, place: &ConnectionSlot) {
    socket::consent(&connection.stream);
    let peer = connection.peer;
    let mut talk = Talk {
        hub,
        connection,
        place,
        commands: Commands::default(),
        viewer: None,
    };
    let over = talk.run();
    log::debug!("{peer}: {}, {:?}", over.end, over.reason);
    if let Some(viewer) = talk.viewer.take() {
        hub.leave(&viewer, over.end, over.reason);
    }
    // The source thread may hold the viewer, and with it this connection, until its next batch.
    let _ = talk.connection.stream.shutdown(Shutdown::Both);
}

impl Talk<'_> {
    fn run(&mut self) -> Over {
        let mut bytes = [0; 2048];
        // Of a whole line: a byte now and then is no word.
        let mut heard = clock::now();
        let mut budget = Budget::new(heard);
        loop {
            if let Some(over) = self.dismissed() {
                return over;
            }
            while let Some(command) = self.commands.next() {
                // What was said before it was let go, or is said after, is not obeyed any more.
                if let Some(over) = self.dismissed() {
                    return over;
                }
                heard = clock::now();
                if !budget.spend(heard) {
                    let reason = format!("more than {COMMANDS_MAX} commands in a second");
                    self.farewell(&reason);
                    return Over::new(End::Closed, Some(reason));
                }
                let (reply, leaving) = self.obey(command);
                if let Err(over) = self.say(&reply) {
                    return over;
                }
                if leaving {
                    self.close();
                    return Over::new(End::Left, None);
                }
            }
            if self.commands.hopeless() {
                return Over::new(End::Closed, Some("a line that never ends".to_owned()));
            }
            let native = self
                .viewer
                .as_ref()
                .map(|v| v.native.load(Ordering::Relaxed));
            let silence = silence(native, self.hub.max_silence);
            match self.hear(&mut bytes, heard.after(silence)) {
                Ok(0) => {
                    let closed = || Over::new(End::Closed, None);
                    return self.dismissed().unwrap_or_else(closed);
                }
                Ok(len) => self.commands.push(&bytes[..len]),
                Err(error)
                    if Error::is_timeout(&error) && clock::left(heard.after(silence)).is_none() =>
                {
                    let reason = format!("no word within {} s", silence.as_secs());
                    self.farewell(&reason);
                    return Over::new(End::Silent, Some(reason));
                }
                Err(error) => {
                    // What keep-alive finds when nobody answers any more is a silence too.
                    let end = match Error::is_timeout(&error) {
                        true => End::Silent,
                        false => End::Closed,
                    };
                    return Over::new(end, Some(error.to_string()));
                }
            }
        }
    }

    /// Does what `command` says; the answer, and whether the conversation is over with it.
    fn obey(&mut self, command: Result<Command, crate::proto::line::DecodeError>) -> (Reply, bool) {
        let command = match command {
            Ok(command) => command,
            Err(error) => return (Reply::Error(error.to_string()), false),
        };
        let standing = self
            .viewer
            .as_ref()
            .map_or(Standing::Out, |viewer| viewer.standing());
        let after = match standing.after(&command) {
            Ok(after) => after,
            Err(why) => return (Reply::Error(why.to_owned()), false),
        };
        match (command, &self.viewer) {
            (Command::Connect(port), _) => return (self.connect(port), false),
            (Command::Disconnect, viewer) => {
                if let Some(viewer) = viewer {
                    self.hub.stand(viewer, Standing::Out);
                }
                return (Reply::Ok, true);
            }
            (Command::Interrupt | Command::Continue, Some(viewer)) => {
                self.hub.stand(viewer, after);
            }
            (Command::Alive(receipt), Some(viewer)) => {
                viewer.native.store(true, Ordering::Relaxed);
                let statement = self.hub.statement(viewer);
                if !statement.allows(&receipt) {
                    let (got, sent) = (receipt.datagrams, statement.sent);
                    let reason = format!("a receipt of {got} datagrams where {sent} were sent");
                    return (Reply::Error(reason), false);
                }
                let mut shown = viewer
                    .receipt
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                *shown = Some(receipt);
                drop(shown);
                return (Reply::Statement(statement), false);
            }
            // Nobody yet: alive, and that is all.
            (Command::Interrupt | Command::Continue | Command::Alive(_), None) => {}
        }
        (Reply::Ok, false)
    }

    fn connect(&mut self, port: u16) -> Reply {
        // One that the source thread lets go in this moment stands outside and has its place yet:
        // it must be taken from it before there is another.
        if self.viewer.is_some() {
            return Reply::Error("this connection has had its viewer".to_owned());
        }
        // Nothing that the client says names a host: it is the connection's own other end.
        let mut to = socket::canonical(self.connection.peer);
        to.set_port(port);
        match self.hub.seat(to, &self.connection.stream) {
            Ok(viewer) => {
                self.place.settle(true);
                log::info!("viewer {}: connected at {to}", viewer.number);
                self.viewer = Some(viewer);
                Reply::Ok
            }
            Err(Error::Refused { reason, .. }) => Reply::Error(reason),
            Err(error) => Reply::Error(error.to_string()),
        }
    }

    /// Why somebody here has ended this conversation, if somebody has; the client has been told.
    fn dismissed(&self) -> Option<Over> {
        if let Some((end, reason)) = self.viewer.as_ref().and_then(|viewer| viewer.expelled()) {
            self.farewell(&reason);
            return Some(Over::new(end, Some(reason)));
        }
        if self.hub.is_stopping() {
            self.farewell("the relay stops");
            return Some(Over::new(End::Stopped, None));
        }
        None
    }

    fn hear(&self, bytes: &mut [u8], deadline: crate::units::Moment) -> io::Result<usize> {
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

    fn say(&self, reply: &Reply) -> Result<(), Over> {
        let deadline = clock::now().after(SAY_LIMIT);
        let said = copy::send_all(&self.connection.stream, &reply.encode(), deadline);
        said.map_err(|stop| match stop {
            copy::Stop::Peer(error) => Over::new(End::Closed, Some(error.to_string())),
            _ => Over::new(End::Silent, Some("it does not read its answers".to_owned())),
        })
    }

    /// Tells why, and closes.
    fn farewell(&self, reason: &str) {
        if self.say(&Reply::Error(reason.to_owned())).is_ok() {
            self.close();
        }
    }

    /// Closes so that what was said still arrives: see [`Dialogue::close`].
    ///
    /// [`Dialogue::close`]: crate::net::line_stream::Dialogue::close
    fn close(&self) {
        let peer = self.connection.peer;
        crate::net::line_stream::LineStream::new(&self.connection.stream, peer, b"").close();
    }
}

impl Over {
    fn new(end: End, reason: Option<String>) -> Self {
        Self { end, reason }
    }
}

#[cfg(test)]
mod tests;

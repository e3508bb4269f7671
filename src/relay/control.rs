//! A viewer's control connection, one thread each: reads commands, answers them, and removes the
//! viewer however the connection ends.

use std::{
    convert::Infallible,
    net::{Shutdown, TcpStream},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use crate::{
    error::Error,
    net::{address, clock, copy, line_stream::LineStream, lock, socket},
    proto::{
        line::DecodeError,
        relay::{
            COMMANDS_MAX, CommandRate, CommandReader, ControlCommand, ControlReply, ViewerState,
            log::ViewerEnd, silence,
        },
    },
    relay::{
        http,
        hub::Hub,
        page::RelayHttp,
        viewer::{SessionOver, Viewer},
    },
    server::listener::{Connection, ConnectionSlot},
    units::Moment,
};

/// How long a client may take to accept an answer, which its buffer holds thousands of.
const REPLY_LIMIT: Duration = Duration::from_secs(4);

struct ControlSession<'a> {
    hub: &'a Hub,
    connection: Connection,
    slot: &'a ConnectionSlot,
    commands: CommandReader,
    viewer: Option<Arc<Viewer>>,
}

/// Serves one control connection to its end.
pub(super) fn serve(hub: &Hub, page: &RelayHttp, connection: Connection, slot: &ConnectionSlot) {
    socket::consent(&connection.stream);
    let begun = clock::now();
    if asks_by_http(&connection.stream, begun.after(silence(None, hub.limits.silence))) {
        return http::serve(hub, page, &connection, slot);
    }
    let peer = connection.peer;
    let mut session =
        ControlSession { hub, connection, slot, commands: CommandReader::default(), viewer: None };
    let Err((end, reason)) = session.run(begun);
    log::debug!("{peer}: {end}, {reason:?}");
    if let Some(viewer) = session.viewer.take() {
        hub.remove_viewer(&viewer, end, reason);
    }
    // The source thread may hold the viewer, and with it this connection, until its next batch.
    let _ = session.connection.stream.shutdown(Shutdown::Both);
}

/// Whether the first byte begins a request of HTTP, as that of no command does.
fn asks_by_http(stream: &TcpStream, deadline: Moment) -> bool {
    let mut first = [0];
    matches!(socket::peek_until(stream, &mut first, deadline), Ok(1)) && b"GHOP".contains(&first[0])
}

impl ControlSession<'_> {
    fn run(&mut self, begun: Moment) -> Result<Infallible, SessionOver> {
        let mut bytes = [0; 2048];
        // Of a whole line: a byte now and then does not keep the session alive.
        let mut last_command = begun;
        let mut rate = CommandRate::new(last_command);
        loop {
            self.ended_by_relay()?;
            while let Some(command) = self.commands.next() {
                // A viewer that the relay has let go gives no commands any more.
                self.ended_by_relay()?;
                last_command = clock::now();
                if !rate.allow(last_command) {
                    let reason = format!("more than {COMMANDS_MAX} commands in a second");
                    return Err(self.refuse(ViewerEnd::Closed, reason));
                }
                let leaving = matches!(command, Ok(ControlCommand::Disconnect));
                let refuse = |error: DecodeError| ControlReply::Error(error.to_string());
                let reply = command.map_or_else(refuse, |command| self.execute(command));
                self.send_reply(&reply)?;
                if leaving {
                    self.close();
                    return Err((ViewerEnd::Left, None));
                }
            }
            if self.commands.is_hopeless() {
                return Err((ViewerEnd::Closed, Some("a line that never ends".to_owned())));
            }
            let viewer = self.viewer.as_ref();
            let native = viewer.map(|viewer| viewer.native.load(Ordering::Relaxed));
            let silence = silence(native, self.hub.limits.silence);
            let deadline = last_command.after(silence);
            match socket::read_until(&self.connection.stream, &mut bytes, deadline) {
                Ok(0) => {
                    self.ended_by_relay()?;
                    return Err((ViewerEnd::Closed, None));
                }
                Ok(len) => self.commands.push(&bytes[..len]),
                Err(error) if Error::is_timeout(&error) && clock::left(deadline).is_none() => {
                    let reason = format!("no command within {} s", silence.as_secs());
                    return Err(self.refuse(ViewerEnd::Silent, reason));
                }
                // Keep-alive found that nobody answers any more: a silence too.
                Err(error) if Error::is_timeout(&error) => {
                    return Err((ViewerEnd::Silent, Some(error.to_string())));
                }
                Err(error) => return Err((ViewerEnd::Closed, Some(error.to_string()))),
            }
        }
    }

    fn execute(&mut self, command: ControlCommand) -> ControlReply {
        let viewer = self.viewer.as_ref();
        let state = viewer.map_or(ViewerState::Unconnected, |viewer| viewer.state());
        let after = match state.after(&command) {
            Ok(after) => after,
            Err(why) => return ControlReply::Error(why.to_owned()),
        };
        match (command, viewer) {
            (ControlCommand::Connect(port), _) => self.connect(port),
            (ControlCommand::Alive(report), Some(viewer)) => {
                viewer.native.store(true, Ordering::Relaxed);
                let sent = self.hub.sender_report(viewer);
                if !sent.allows(&report) {
                    let (got, sent) = (report.datagrams, sent.sent);
                    let reason = format!("a receipt of {got} datagrams where {sent} were sent");
                    return ControlReply::Error(reason);
                }
                let lost = sent.network_lost(Some(&report));
                *lock(&viewer.receiver_report) = Some((report, lost));
                ControlReply::Report(sent)
            }
            (command, viewer) => {
                let is_asked = command == ControlCommand::Group;
                if is_asked && self.hub.group.is_none() {
                    return ControlReply::Error("this relay has no group".to_owned());
                }
                let is_ours = |other: &Viewer| viewer.is_some_and(|v| v.number == other.number);
                let (_, next) = self.hub.set_states(is_ours, after);
                let group = self.hub.group.as_ref();
                let group = group.filter(|_| is_asked || state == ViewerState::Grouped);
                group.map_or(ControlReply::Ok, |group| ControlReply::Group(group.told(next)))
            }
        }
    }

    fn connect(&mut self, port: u16) -> ControlReply {
        // A viewer that the source thread lets go at this moment is unconnected and still in its
        // place: it must be removed before there is another.
        if self.viewer.is_some() {
            return ControlReply::Error("this connection has had its viewer".to_owned());
        }
        // Nothing that the client says names a host: it is the connection's own other end.
        let mut to = address::canonical(self.connection.peer);
        to.set_port(port);
        match self.hub.add_viewer(to, &self.connection.stream, None) {
            Ok(viewer) => {
                self.slot.settle(true);
                log::info!("viewer {}: connected at {to}", viewer.number);
                self.viewer = Some(viewer);
                ControlReply::Ok
            }
            Err(Error::Refused { reason, .. }) => ControlReply::Error(reason),
            Err(error) => ControlReply::Error(error.to_string()),
        }
    }

    /// Why the relay has ended this session, if it has; the client has been told.
    fn ended_by_relay(&self) -> Result<(), SessionOver> {
        if let Some((end, reason)) = self.viewer.as_ref().and_then(|viewer| viewer.expelled()) {
            return Err(self.refuse(end, reason));
        }
        if self.hub.is_stopping() {
            self.refuse(ViewerEnd::Stopped, "the relay stops".to_owned());
            return Err((ViewerEnd::Stopped, None));
        }
        Ok(())
    }

    fn send_reply(&self, reply: &ControlReply) -> Result<(), SessionOver> {
        let deadline = clock::now().after(REPLY_LIMIT);
        let sent = copy::send_all(&self.connection.stream, &reply.encode(), deadline);
        sent.map_err(|stop| match stop {
            copy::Stop::Peer(error) => (ViewerEnd::Closed, Some(error.to_string())),
            _ => (ViewerEnd::Silent, Some("it does not read its answers".to_owned())),
        })
    }

    /// Tells the client the reason and closes.
    fn refuse(&self, end: ViewerEnd, reason: String) -> SessionOver {
        if self.send_reply(&ControlReply::Error(reason.clone())).is_ok() {
            self.close();
        }
        (end, Some(reason))
    }

    /// Closes so that what was sent still arrives: see [`LineStream::close`].
    fn close(&self) {
        LineStream::new(&self.connection.stream, self.connection.peer, b"").close();
    }
}

#[cfg(test)]
mod tests;

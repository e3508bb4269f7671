//! The swarm's HTTP: `/announce`, `/scrape`, `/swarm` and torrents, for a server that has no other
//! HTTP face. One request a connection.

use std::io;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::net::line_stream::LineStream;
use crate::net::{clock, copy, socket};
use crate::proto::http::request::{Method, Request, RequestBuf};
use crate::proto::http::response::ResponseHead;
use crate::server::listener::Connection;
use crate::server::lobby::Lobby;
use crate::transport::swarm::endpoints::SwarmReply;
use crate::transport::swarm::torrents::Torrents;

/// How long a client may take for an answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Answers one request.
pub fn serve(connection: &Connection, torrents: &Torrents, lobby: &Lobby) {
    let stream = &*connection.stream;
    let reply = match hear(connection) {
        Ok(Some(request)) => match stream.local_addr() {
            Ok(local) => answer(&request, torrents, lobby, connection.peer, local),
            Err(_) => return,
        },
        Ok(None) => return,
        Err(status) => refuse(status),
    };
    if let Err(error) = say(stream, &reply) {
        log::debug!("{}: {error}", connection.peer);
    }
    LineStream::new(stream, connection.peer, b"").close();
}

fn answer(
    request: &Request,
    torrents: &Torrents,
    lobby: &Lobby,
    peer: SocketAddr,
    local: SocketAddr,
) -> SwarmReply {
    if request.method != Method::Get {
        return refuse(405);
    }
    let query = request.query.as_deref().unwrap_or_default();
    torrents
        .answer(lobby, &request.path, query, peer, local)
        .unwrap_or_else(|| refuse(404))
}

fn refuse(status: u16) -> SwarmReply {
    SwarmReply {
        status,
        kind: "text/plain",
        body: Vec::new(),
    }
}

/// The request, by the connection's deadline; the status where it is none.
fn hear(connection: &Connection) -> Result<Option<Request>, u16> {
    let mut buf = RequestBuf::default();
    buf.push(&connection.first);
    let mut stream = &*connection.stream;
    loop {
        match buf.next_request() {
            Ok(Some(request)) => return Ok(Some(request)),
            Ok(None) => {}
            Err(error) => return Err(error.status),
        }
        if !socket::bound_read(stream, connection.deadline).unwrap_or(false) {
            return Err(408);
        }
        let mut bytes = [0; 2048];
        match stream.read(&mut bytes) {
            Ok(0) => return Ok(None),
            Ok(len) => buf.push(&bytes[..len]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ok(None),
        }
    }
}

fn say(stream: &TcpStream, reply: &SwarmReply) -> Result<(), String> {
    let mut bytes = ResponseHead::new(reply.status)
        .field("Content-Type", reply.kind)
        .field("Content-Length", reply.body.len())
        .field("Connection", "close")
        .encode();
    bytes.extend_from_slice(&reply.body);
    copy::send_all(stream, &bytes, clock::now().after(ANSWER_LIMIT))
        .map_err(|stop| format!("{stop:?}"))
}

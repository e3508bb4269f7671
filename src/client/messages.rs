//! Messages of the server, read on the client's side.

use std::{net::SocketAddr, time::Duration};

use crate::{
    error::{Error, Phase, Result},
    net::{clock, line_stream::LineStream, socket},
    proto::native::{ClientHello, ErrorCode, FILES_MAX, FromServer},
    session::FileInfo,
    text::escape,
    units::Moment,
};

/// How long one attempt to connect may take.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long the server may take to offer a seat: it may have to hash the file first.
pub(super) const OFFER_LIMIT: Duration = Duration::from_secs(120);

/// What the server at `server` offers.
///
/// # Errors
/// It cannot be reached, or does not speak the protocol.
pub fn list(server: &[SocketAddr]) -> Result<Vec<FileInfo>> {
    let stream = socket::connect(server, clock::now().after(CONNECT_LIMIT))?;
    let peer = stream.peer_addr().map_err(Error::io("connect", "the server"))?;
    let mut lines = LineStream::new(&stream, peer, b"");
    lines.write_line(&ClientHello::List.encode())?;
    let mut files = Vec::new();
    loop {
        match read_message(&mut lines, clock::now().after(OFFER_LIMIT), Phase::Offer)? {
            FromServer::File(file) if files.len() < FILES_MAX => files.push(file),
            FromServer::End => return Ok(files),
            FromServer::Error { code, reason } => return Err(server_error(peer, code, reason)),
            _ => return Err(Error::protocol(peer, "no list of files")),
        }
    }
}

/// Reads the server's next message.
///
/// # Errors
/// None comes until `deadline`, or what comes is malformed.
pub(super) fn read_message(
    lines: &mut LineStream<'_>,
    deadline: Moment,
    phase: Phase,
) -> Result<FromServer> {
    let line = lines.read_line(deadline, phase)?;
    FromServer::decode(&line).map_err(|error| Error::protocol(lines.peer(), error.to_string()))
}

/// The error that a server's ERROR is on this side.
pub(crate) fn server_error(peer: SocketAddr, code: ErrorCode, reason: String) -> Error {
    let reason = escape(&reason);
    match code {
        ErrorCode::Muster => Error::NotEnough { reason },
        ErrorCode::Changed => Error::SourceChanged { at: peer.to_string(), what: reason },
        _ => Error::Refused { by: peer.to_string(), reason },
    }
}

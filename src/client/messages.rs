//! Messages of the server, read on the client's side.

use std::{io::ErrorKind::UnexpectedEof, net::SocketAddr, time::Duration};

use crate::{
    error::{Error, Phase, Result},
    net::{clock, line_stream::LineStream, socket},
    proto::{
        key::{Challenge, Challenges, ConnectionEnd, Key, is_same},
        native::{ClientHello, ErrorCode, FILES_MAX, FromClient, FromServer, ListEnd},
    },
    session::FileInfo,
    text::escape,
    units::Moment,
};

/// How long one attempt to connect may take.
pub(super) const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// How long the server may take to answer a challenge or a proof; it answers a wrong one late.
const PROOF_LIMIT: Duration = Duration::from_secs(10);

/// How long the server may take to offer a seat: it may have to hash the file first.
pub(crate) const OFFER_LIMIT: Duration = Duration::from_secs(120);

/// How often a client that makes or hashes files says how far it is, and looks whether it is to end.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// `progress`, called about each [`PROGRESS_EVERY`].
pub(super) fn each_second(
    mut progress: impl FnMut(u64) -> Result<()>,
) -> impl FnMut(u64) -> Result<()> {
    let mut next = clock::now().after(PROGRESS_EVERY);
    move |bytes| {
        if clock::now() < next {
            return Ok(());
        }
        next = clock::now().after(PROGRESS_EVERY);
        progress(bytes)
    }
}

/// Most bytes of a stranger's answer that are looked at.
const ANSWER_MAX: u64 = 512;

/// How a gatecast server begins its first answer.
const FIRST_ANSWERS: [&[u8]; 6] =
    [b"CHALLENGE ", b"PROOF ", b"OFFER ", b"FILE ", b"END", b"ERROR code="];

/// What the server at `server` offers, each with whether it is a folder, and what the server says of
/// itself, once both ends have proven `key` if there is one.
///
/// # Errors
/// It cannot be reached, does not have the key, or does not speak the protocol.
pub fn list(server: &[SocketAddr], key: Option<&Key>) -> Result<(Vec<(FileInfo, bool)>, ListEnd)> {
    let stream = socket::connect(server, clock::now().after(CONNECT_LIMIT))
        .map_err(|error| socket::advise(error, "is gatecast serve running there?"))?;
    let peer = stream.peer_addr().map_err(Error::io("connect", "the server"))?;
    let mut lines = LineStream::new(&stream, peer, b"");
    prove(&mut lines, key)?;
    lines.write_line(&ClientHello::List.encode())?;
    let mut files = Vec::new();
    loop {
        match read_message(&mut lines, clock::now().after(OFFER_LIMIT), Phase::Offer)? {
            FromServer::File { file, is_tree } if files.len() < FILES_MAX => {
                files.push((file, is_tree));
            }
            FromServer::End(end) => return Ok((files, end)),
            FromServer::Error { code, reason } => return Err(server_error(peer, code, reason)),
            _ => return Err(Error::protocol(peer, "no list of files")),
        }
    }
}

/// Proves `key` to the server and has it prove the same; from then on each line is sealed. Without
/// a key it does nothing.
///
/// # Errors
/// The server has no key or another one.
pub(super) fn prove(lines: &mut LineStream<'_>, key: Option<&Key>) -> Result<()> {
    let Some(key) = key else { return Ok(()) };
    let peer = lines.peer;
    let read = |lines: &mut LineStream<'_>| match read_message(
        lines,
        clock::now().after(PROOF_LIMIT),
        Phase::Greet,
    )? {
        FromServer::Error { code, reason } => Err(server_error(peer, code, reason)),
        message => Ok(message),
    };
    let client = Challenge(u128::from(clock::random()) << 64 | u128::from(clock::random()));
    lines.write_line(&ClientHello::Challenge(client).encode())?;
    let FromServer::Challenge(server) = read(lines)? else {
        return Err(Error::protocol(peer, "no challenge for the key"));
    };
    let challenges = Challenges { client, server };
    let ours = key.proof(ConnectionEnd::Client, challenges);
    lines.write_line(&FromClient::Proof(ours).encode())?;
    let FromServer::Proof(theirs) = read(lines)? else {
        return Err(Error::protocol(peer, "no proof of the key"));
    };
    if !is_same(theirs.as_bytes(), key.proof(ConnectionEnd::Server, challenges).as_bytes()) {
        let reason = format!("the server at {peer} does not have this client's key");
        return Err(Error::refused("gatecast", reason));
    }
    lines.seal(key.seal(ConnectionEnd::Client, challenges));
    Ok(())
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
    let (error, answer) = match lines.read_line(deadline, phase) {
        Ok(line) => match FromServer::decode(&line) {
            Ok(message) => return Ok(message),
            Err(error) => (Error::protocol(lines.peer, error.to_string()), line.into_bytes()),
        },
        Err(error) => (error, lines.take_buffered(ANSWER_MAX)),
    };
    // A server that has proven a key, or has offered a seat, is one.
    let is_known = lines.is_sealed() || !matches!(phase, Phase::Greet | Phase::Offer);
    if is_known || FIRST_ANSWERS.iter().any(|word| answer.starts_with(word)) {
        return Err(error);
    }
    match error {
        Error::Io { source, .. } if answer.is_empty() && source.kind() == UnexpectedEof => {
            let closed = Error::io("hear from the other side", lines.peer)(source);
            Err(closed.advise("is that the port of gatecast serve?"))
        }
        error if answer.is_empty() => Err(error),
        _ => Err(Error::wrong_server("find a gatecast server", lines.peer, &answer)),
    }
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

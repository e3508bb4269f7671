//! Handshakes, from both ends, each under one absolute deadline.

use std::io;
use std::io::Read;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::time::Duration;

use crate::digest::Digest;
use crate::error::Error;
use crate::error::Phase;
use crate::error::Result;
use crate::net::clock;
use crate::net::copy;
use crate::net::copy::Stop;
use crate::net::socket;
use crate::proto::bt::wire::HANDSHAKE_LEN;
use crate::proto::bt::wire::Handshake;
use crate::units::Moment;

/// How long both handshakes may take.
pub const LIMIT: Duration = Duration::from_secs(10);

/// How long a call may take to be answered at all.
pub const DIAL_LIMIT: Duration = Duration::from_secs(3);

/// Calls `addr` and greets it.
///
/// # Errors
/// Nobody is there, or somebody who serves another torrent, or no BitTorrent at all.
pub fn call(addr: SocketAddr, ours: &Handshake) -> Result<(TcpStream, Handshake)> {
    let stream = socket::connect(&[addr], clock::now().after(DIAL_LIMIT))?;
    let deadline = clock::now().after(LIMIT);
    say(&stream, addr, ours, deadline)?;
    let theirs = hear(&stream, addr, Vec::new(), HANDSHAKE_LEN, deadline)?;
    let theirs = decode(addr, &theirs)?;
    if theirs.info_hash != ours.info_hash {
        return Err(Error::protocol(addr, "its torrent is another"));
    }
    Ok((stream, theirs))
}

/// Answers a caller of whom `first` has been read: `choose` gives our own handshake for his
/// torrent.
///
/// # Errors
/// The torrent is not here, or the caller is too slow.
pub fn answer(
    stream: &TcpStream,
    addr: SocketAddr,
    first: Vec<u8>,
    deadline: Moment,
    choose: impl FnOnce(Digest) -> Option<Handshake>,
) -> Result<Handshake> {
    // Without the id: the caller may wait for ours, and only then tell his.
    let mut bytes = hear(stream, addr, first, HANDSHAKE_LEN - 20, deadline)?;
    let mut padded = bytes.clone();
    padded.resize(HANDSHAKE_LEN, 0);
    let hash = decode(addr, &padded)?.info_hash;
    let ours = choose(hash)
        .ok_or_else(|| Error::protocol(addr, format!("no torrent {hash} is served here")))?;
    say(stream, addr, &ours, deadline)?;
    bytes = hear(stream, addr, bytes, HANDSHAKE_LEN, deadline)?;
    decode(addr, &bytes)
}

fn say(stream: &TcpStream, addr: SocketAddr, ours: &Handshake, deadline: Moment) -> Result<()> {
    copy::send_all(stream, &ours.encode(), deadline).map_err(|stop| match stop {
        Stop::Peer(error) => Error::io("greet the peer", addr)(error),
        _ => late(addr),
    })
}

/// Reads until there are `len` bytes, and not one more: what follows is the reader's.
fn hear(
    mut stream: &TcpStream,
    addr: SocketAddr,
    mut bytes: Vec<u8>,
    len: usize,
    deadline: Moment,
) -> Result<Vec<u8>> {
    let failed = || Error::io("hear the peer's greeting", addr);
    while bytes.len() < len {
        if !socket::bound_read(stream, deadline).map_err(failed())? {
            return Err(late(addr));
        }
        let mut buffer = [0; HANDSHAKE_LEN];
        let want = len - bytes.len();
        match stream.read(&mut buffer[..want]) {
            Ok(0) => return Err(failed()(io::ErrorKind::UnexpectedEof.into())),
            Ok(read) => bytes.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if Error::is_timeout(&error) => return Err(late(addr)),
            Err(error) => return Err(failed()(error)),
        }
    }
    Ok(bytes)
}

fn decode(addr: SocketAddr, bytes: &[u8]) -> Result<Handshake> {
    let bytes: &[u8; HANDSHAKE_LEN] = bytes
        .first_chunk()
        .ok_or_else(|| Error::protocol(addr, "a handshake that is too long"))?;
    Handshake::decode(bytes).map_err(|error| Error::protocol(addr, error.to_string()))
}

fn late(addr: SocketAddr) -> Error {
    Error::TimedOut {
        phase: Phase::Greet,
        at: addr.to_string(),
        after: LIMIT,
    }
}

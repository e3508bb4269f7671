//! Handshakes, from both ends, each under one absolute deadline.

use std::{
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use crate::{
    digest::Digest,
    error::{Error, Phase, Result},
    net::{
        clock,
        copy::{self, Stop},
        socket,
    },
    proto::bt::wire::{HANDSHAKE_LEN, Handshake},
    units::Moment,
};

/// How long both handshakes may take.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// How long it may take until the other side accepts the connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// Connects to `addr` and exchanges handshakes.
///
/// # Errors
/// Nobody accepts there, the peer has another torrent, or it does not speak BitTorrent.
pub fn dial(addr: SocketAddr, ours: &Handshake) -> Result<(TcpStream, Handshake)> {
    let stream = socket::connect(&[addr], clock::now().after(CONNECT_LIMIT))?;
    let deadline = clock::now().after(HANDSHAKE_LIMIT);
    send(&stream, addr, ours, deadline)?;
    let theirs = receive(&stream, addr, Vec::new(), HANDSHAKE_LEN, deadline)?;
    let theirs = decode(addr, &theirs)?;
    if theirs.info_hash != ours.info_hash {
        return Err(Error::protocol(addr, "it has another torrent"));
    }
    Ok((stream, theirs))
}

/// Answers a peer that dialed us and of which `first` has been read. `choose` gives our handshake
/// for its torrent.
///
/// # Errors
/// The torrent is not here, or the peer is too slow.
pub fn accept(
    stream: &TcpStream,
    addr: SocketAddr,
    first: Vec<u8>,
    deadline: Moment,
    choose: impl FnOnce(Digest) -> Option<Handshake>,
) -> Result<Handshake> {
    // Without the id: the peer may wait for our handshake before it sends its id.
    let mut bytes = receive(stream, addr, first, HANDSHAKE_LEN - 20, deadline)?;
    let mut padded = bytes.clone();
    padded.resize(HANDSHAKE_LEN, 0);
    let info_hash = decode(addr, &padded)?.info_hash;
    let ours = choose(info_hash)
        .ok_or_else(|| Error::protocol(addr, format!("no torrent {info_hash} is served here")))?;
    send(stream, addr, &ours, deadline)?;
    bytes = receive(stream, addr, bytes, HANDSHAKE_LEN, deadline)?;
    decode(addr, &bytes)
}

fn send(stream: &TcpStream, addr: SocketAddr, ours: &Handshake, deadline: Moment) -> Result<()> {
    copy::send_all(stream, &ours.encode(), deadline).map_err(|stop| match stop {
        Stop::Peer(error) => Error::io("send a handshake", addr)(error),
        _ => timed_out(addr),
    })
}

/// Reads until there are `len` bytes, and not one more: what follows belongs to the reader thread.
fn receive(
    stream: &TcpStream,
    addr: SocketAddr,
    mut bytes: Vec<u8>,
    len: usize,
    deadline: Moment,
) -> Result<Vec<u8>> {
    let held = bytes.len();
    bytes.resize(held.max(len), 0);
    socket::read_exact(stream, &mut bytes[held..], deadline).map_err(|error| {
        if Error::is_timeout(&error) {
            return timed_out(addr);
        }
        Error::io("read the peer's handshake", addr)(error)
    })?;
    Ok(bytes)
}

fn decode(addr: SocketAddr, bytes: &[u8]) -> Result<Handshake> {
    let bytes =
        bytes.first_chunk().ok_or_else(|| Error::protocol(addr, "a handshake that is too long"))?;
    Handshake::decode(bytes).map_err(|error| Error::protocol(addr, error.to_string()))
}

fn timed_out(addr: SocketAddr) -> Error {
    Error::timed_out(Phase::Greet, addr, HANDSHAKE_LIMIT)
}

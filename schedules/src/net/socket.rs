//! What the gate's files use of `src/net/socket.rs`, over [`TcpStream`] of a scheduler.

use std::{io, io::Read, net::Shutdown, time::Duration};

use crate::{
    net::{clock, stream::TcpStream},
    units::Moment,
};

pub fn read_until(
    mut stream: &TcpStream,
    buffer: &mut [u8],
    deadline: Moment,
) -> io::Result<usize> {
    let left = clock::left(deadline).ok_or(io::ErrorKind::TimedOut)?;
    stream.set_read_timeout(Some(left))?;
    stream.read(buffer)
}

pub fn close(stream: &TcpStream) {
    let deadline = clock::now().after(Duration::from_secs(1));
    if stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    while matches!(read_until(stream, &mut [0; 2048], deadline), Ok(len) if len > 0) {}
}

pub fn set_congestion(_: &TcpStream, _: &str) -> io::Result<()> {
    Ok(())
}

pub fn leave_bbr_within_host(_: &TcpStream) {}

pub fn congestion(_: &TcpStream) -> Option<String> {
    None
}

pub fn descriptors(wanted: u64) -> Option<u64> {
    Some(wanted)
}

//! What the gate's files use of `src/net/arrival.rs`: a scheduler's bytes come when they are read.

use std::{io, io::Read};

use crate::{
    net::{clock, socket, stream::TcpStream},
    units::Moment,
};

pub fn stamp(_: &TcpStream) {}

pub fn read(mut stream: &TcpStream, buffer: &mut [u8]) -> io::Result<(usize, Moment)> {
    let len = stream.read(buffer)?;
    Ok((len, clock::now()))
}

pub fn read_until(
    stream: &TcpStream,
    buffer: &mut [u8],
    deadline: Moment,
) -> io::Result<(usize, Moment)> {
    let len = socket::read_until(stream, buffer, deadline)?;
    Ok((len, clock::now()))
}

//! What stands for the calls of `kernel.rs` on plain std: one datagram at a time.

use std::io;
use std::io::IoSlice;
use std::net::UdpSocket;

use crate::net::clock;
use crate::net::datagrams::Batch;
use crate::net::datagrams::Entry;
use crate::net::datagrams::SLOT;
use crate::net::datagrams::STRIDE;

pub(super) fn take(socket: &UdpSocket, batch: &mut Batch, wait: bool) -> io::Result<usize> {
    let slot = batch.next_slot();
    if slot >= batch.capacity {
        return Ok(0);
    }
    if !wait {
        socket.set_nonblocking(true)?;
    }
    let received = socket.recv_from(&mut batch.slots[slot * STRIDE..][..SLOT]);
    if !wait {
        socket.set_nonblocking(false)?;
    }
    let (len, from) = received?;
    batch.entries.push(Entry {
        slot,
        len,
        at: clock::now(),
        from,
    });
    Ok(1)
}

pub(super) fn send_segmented(_: &UdpSocket, _: &[IoSlice<'_>], _: u16) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

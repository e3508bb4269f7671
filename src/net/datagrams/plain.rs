//! The functions of `kernel.rs` on plain std: one datagram at a time.

use std::{
    io,
    io::IoSlice,
    net::{SocketAddr, UdpSocket},
};

use crate::{
    net::{
        clock,
        datagrams::batch::{DatagramBatch, ReceivedSlot, SLOT, STRIDE},
    },
    units::Moment,
};

/// Receives one datagram into `batch`.
pub(super) fn receive_batch(
    socket: &UdpSocket,
    batch: &mut DatagramBatch,
    wait: bool,
) -> io::Result<usize> {
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
    batch.entries.push(ReceivedSlot { slot, len, at: clock::now(), from });
    Ok(1)
}

/// Receives one datagram into `buffer`; never without `wait`.
pub(crate) fn receive_coalesced(
    socket: &UdpSocket,
    buffer: &mut [u8],
    wait: bool,
) -> io::Result<(usize, usize, SocketAddr, Moment)> {
    if !wait {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let (len, from) = socket.recv_from(buffer)?;
    Ok((len, len.max(1), from, clock::now()))
}

/// Cannot be done here.
pub(crate) fn send_segmented(
    _: &UdpSocket,
    _: &[IoSlice<'_>],
    _: u16,
    _: Option<SocketAddr>,
) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

/// A send is one datagram here.
pub(crate) fn can_segment(_: &UdpSocket) -> bool {
    false
}

/// Each datagram is received by itself here.
pub(crate) fn coalesce_received(_: &UdpSocket) {}

/// This system does not tell.
pub(crate) fn report_refusals(_: &UdpSocket) -> bool {
    false
}

/// Nothing is kept here.
pub(crate) fn discard_errors(_: &UdpSocket) {}

//! The UDP calls that std lacks, for Linux with feature `sockopt`: batches received with the
//! kernel's timestamps, segmented sends (GSO), coalesced receives (GRO) and the error queue.
//! `plain.rs` has the same functions for all other builds.

use std::{
    io,
    io::{IoSlice, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
};

use nix::sys::{
    socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, MultiHeaders, SockaddrStorage, recvmmsg,
        recvmsg, sendmsg, setsockopt, sockopt,
    },
    time::TimeSpec,
};

use crate::{
    net::{
        arrival,
        datagrams::batch::{DatagramBatch, ReceivedSlot, SLOT, STRIDE},
    },
    units::Moment,
};

/// Errors that are thrown away in one go: more than a buffer of the usual size holds.
const ERRORS_AT_ONCE: u32 = 1024;

/// Receives what is there into `batch`, and waits for the first datagram if `wait` is set.
pub(super) fn receive_batch(
    socket: &UdpSocket,
    batch: &mut DatagramBatch,
    wait: bool,
) -> io::Result<usize> {
    let first = batch.next_slot();
    if first >= batch.capacity {
        return Ok(0);
    }
    let mut slices: Vec<[IoSliceMut<'_>; 1]> = batch.slots[first * STRIDE..]
        .chunks_mut(STRIDE)
        .map(|slot| [IoSliceMut::new(&mut slot[..SLOT])])
        .collect();
    // Made anew for each call: the kernel shortens the room for control messages in used ones.
    let space = nix::cmsg_space!(TimeSpec);
    let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(slices.len(), Some(space));
    let flags = if wait { MsgFlags::MSG_WAITFORONE } else { MsgFlags::MSG_DONTWAIT };
    let messages = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None)?;
    let clocks = arrival::clocks();
    let mut received = 0;
    for (slot, message) in (first..).zip(messages) {
        let stamp = message.cmsgs().ok();
        let stamp = stamp.and_then(|mut found| found.find_map(|c| arrival::stamp_of(&c)));
        let from = message.address.as_ref().and_then(std_address);
        batch.entries.push(ReceivedSlot {
            slot,
            len: message.bytes,
            at: clocks.came(stamp),
            from: from.unwrap_or_else(|| SocketAddr::from(([0; 4], 0))),
        });
        received += 1;
    }
    Ok(received)
}

/// Receives into `buffer`: how many bytes, in datagrams of which length (the last may be
/// shorter), from where, and when they came. Without `wait` it takes only what is there already.
pub(crate) fn receive_coalesced(
    socket: &UdpSocket,
    buffer: &mut [u8],
    wait: bool,
) -> io::Result<(usize, usize, SocketAddr, Moment)> {
    let mut parts = [IoSliceMut::new(buffer)];
    let mut space = nix::cmsg_space!(i32, TimeSpec);
    let flags = if wait { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
    let len = message.bytes;
    let (mut segment, mut stamp) = (len.max(1), None);
    for control in message.cmsgs()? {
        if let ControlMessageOwned::UdpGroSegments(size) = control {
            segment = usize::try_from(size).unwrap_or(0).max(1);
        }
        stamp = stamp.or_else(|| arrival::stamp_of(&control));
    }
    let from = message.address.as_ref().and_then(std_address);
    let from = from.ok_or(io::ErrorKind::InvalidData)?;
    Ok((len, segment, from, arrival::clocks().came(stamp)))
}

/// Sends the bytes of `slices` as datagrams of `segment` bytes, the last maybe shorter, with one
/// call: to `to`, or to whom the socket is connected.
pub(crate) fn send_segmented(
    socket: &UdpSocket,
    slices: &[IoSlice<'_>],
    segment: u16,
    to: Option<SocketAddr>,
) -> io::Result<()> {
    let segments = [ControlMessage::UdpGsoSegments(&segment)];
    let to = to.map(SockaddrStorage::from);
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg(socket.as_raw_fd(), slices, &segments, flags, to.as_ref())?;
    Ok(())
}

/// Whether the kernel can cut one send into datagrams (Linux 4.18); an older one would send it as
/// one large datagram.
pub(crate) fn can_segment(socket: &UdpSocket) -> bool {
    setsockopt(socket, sockopt::UdpGsoSegment, &0).is_ok()
}

/// Lets the kernel hand over several datagrams of one sender at once, where it can.
pub(crate) fn coalesce_received(socket: &UdpSocket) {
    if let Err(error) = setsockopt(socket, sockopt::UdpGroSegment, &true) {
        log::debug!("each datagram is received by itself: {error}");
    }
}

/// Makes sends fail that the local queue refuses; without it they pass for sent (measured: 294
/// of 300 in a queue of 1 Mbit/s). False when this system does not tell.
pub(crate) fn report_refusals(socket: &UdpSocket) -> bool {
    // A socket of IPv6 may send to mapped addresses of IPv4 too, which have an option of their own.
    let v4 = setsockopt(socket, sockopt::Ipv4RecvErr, &true).is_ok();
    match socket.local_addr() {
        Ok(SocketAddr::V4(_)) => v4,
        Ok(SocketAddr::V6(_)) => v4 && setsockopt(socket, sockopt::Ipv6RecvErr, &true).is_ok(),
        Err(_) => false,
    }
}

/// Throws away the errors that came back for sent datagrams. They take room in the receive
/// buffer, so a socket that both sends and receives would receive nothing in the end.
pub(crate) fn discard_errors(socket: &UdpSocket) {
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    for _ in 0..ERRORS_AT_ONCE {
        let mut byte = [0];
        let mut parts = [IoSliceMut::new(&mut byte)];
        if recvmsg::<()>(socket.as_raw_fd(), &mut parts, None, flags).is_err() {
            return;
        }
    }
}

fn std_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| (*v4).into());
    let v6 = || address.as_sockaddr_in6().map(|v6| (*v6).into());
    v4.map(SocketAddr::V4).or_else(|| v6().map(SocketAddr::V6))
}

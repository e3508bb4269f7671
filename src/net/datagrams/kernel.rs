//! The two calls of a build with feature `sockopt` on Linux: `recvmmsg` with the kernel's moments,
//! and the segmented `sendmsg`. `plain.rs` has them for all others.

use std::io;
use std::io::IoSlice;
use std::io::IoSliceMut;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::ControlMessage;
use nix::sys::socket::ControlMessageOwned;
use nix::sys::socket::MsgFlags;
use nix::sys::socket::MultiHeaders;
use nix::sys::socket::SockaddrStorage;
use nix::sys::socket::recvmmsg;
use nix::sys::socket::sendmsg;
use nix::sys::time::TimeSpec;

use crate::net::clock;
use crate::net::datagrams::DatagramBatch;
use crate::net::datagrams::ReceivedSlot;
use crate::net::datagrams::SLOT;
use crate::net::datagrams::STRIDE;
use crate::units::Moment;

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
    let flags = match wait {
        true => MsgFlags::MSG_WAITFORONE,
        false => MsgFlags::MSG_DONTWAIT,
    };
    let messages = recvmmsg(
        socket.as_raw_fd(),
        &mut headers,
        slices.iter_mut(),
        flags,
        None,
    )?;
    let (now, wall) = (clock::now(), wall_clock());
    let mut taken = 0;
    for (slot, message) in (first..).zip(messages) {
        let stamp = message.cmsgs().ok().and_then(|mut found| {
            found.find_map(|message| match message {
                ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
                _ => None,
            })
        });
        let age = stamp.map_or(Duration::ZERO, |stamp| wall.saturating_sub(stamp));
        let from = message.address.as_ref().and_then(std_address);
        batch.entries.push(ReceivedSlot {
            slot,
            len: message.bytes,
            at: Moment(now.0.saturating_sub(crate::units::micros(age))),
            from: from.unwrap_or_else(|| SocketAddr::from(([0; 4], 0))),
        });
        taken += 1;
    }
    Ok(taken)
}

/// The clock by which the kernel stamps datagrams; only differences from now are made of it.
fn wall_clock() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME)
        .map_or(Duration::ZERO, Duration::from)
}

fn std_address(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|v6| SocketAddr::V6((*v6).into()))
    })
}

pub(super) fn send_segmented(
    socket: &UdpSocket,
    slices: &[IoSlice<'_>],
    segment: u16,
) -> io::Result<()> {
    let segments = [ControlMessage::UdpGsoSegments(&segment)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), slices, &segments, flags, None)?;
    Ok(())
}

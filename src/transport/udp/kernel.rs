//! What std's UDP socket lacks, in one place: large buffers, sharing a port, sending many
//! datagrams in one call and receiving them in one (UDP segmentation and GRO, Linux), and errors
//! of the local queue. Without feature `sockopt`, or elsewhere, each function does the plain
//! thing and everything still works.

use std::io;
use std::net::{SocketAddr, UdpSocket};

/// The receive buffer that is asked for, bytes.
#[cfg(feature = "sockopt")]
pub(super) const RECEIVE_BUFFER: usize = 4 << 20;

/// The most that waits in a socket that sends, bytes as the kernel counts them: what Linux gives
/// unless it was told otherwise, and less than the queue of an interface holds.
#[cfg(feature = "sockopt")]
pub(super) const SEND_BUFFER: usize = 212_992;

/// What a socket without a word gets on Linux, bytes; elsewhere it is near it.
#[cfg(not(feature = "sockopt"))]
const PLAIN_BUFFER: u64 = 212_992;

/// Whether [`receive`] can take what is there and not wait.
pub(super) const RECEIVES_AT_ONCE: bool = cfg!(all(target_os = "linux", feature = "sockopt"));

/// Errors that are thrown away in one go: more than a buffer of the usual size holds.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
const ERRORS_AT_ONCE: u32 = 1024;

/// Enlarges the receive buffer as far as this process may; returns what the socket has, bytes as
/// the kernel counts them.
#[cfg(feature = "sockopt")]
pub(super) fn enlarge(socket: &UdpSocket) -> u64 {
    #[cfg(target_os = "linux")]
    let forced = nix::sys::socket::setsockopt(
        socket,
        nix::sys::socket::sockopt::RcvBufForce,
        &RECEIVE_BUFFER,
    )
    .is_ok();
    #[cfg(not(target_os = "linux"))]
    let forced = false;
    let socket = socket2::SockRef::from(socket);
    if !forced && let Err(error) = socket.set_recv_buffer_size(RECEIVE_BUFFER) {
        log::debug!("the receive buffer stays as it is: {error}");
    }
    socket.recv_buffer_size().unwrap_or(0) as u64
}

/// Says what the socket has.
#[cfg(not(feature = "sockopt"))]
pub(super) fn enlarge(_: &UdpSocket) -> u64 {
    PLAIN_BUFFER
}

/// Keeps the send buffer at [`SEND_BUFFER`] at most.
#[cfg(feature = "sockopt")]
pub(super) fn limit_send(socket: &UdpSocket) {
    let socket = socket2::SockRef::from(socket);
    // Linux makes it twice what it is told.
    let told = SEND_BUFFER / if cfg!(target_os = "linux") { 2 } else { 1 };
    if socket
        .send_buffer_size()
        .is_ok_and(|size| size > SEND_BUFFER)
        && let Err(error) = socket.set_send_buffer_size(told)
    {
        log::debug!("the send buffer stays as it is: {error}");
    }
}

/// It stays as the system makes it.
#[cfg(not(feature = "sockopt"))]
pub(super) fn limit_send(_: &UdpSocket) {}

/// A socket on `addr` that other programs of this host may bind too.
#[cfg(feature = "sockopt")]
pub(super) fn bind_shared(addr: SocketAddr) -> io::Result<UdpSocket> {
    let domain = socket2::Domain::for_address(addr);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// A socket on `addr`, for this process alone.
#[cfg(not(feature = "sockopt"))]
pub(super) fn bind_shared(addr: SocketAddr) -> io::Result<UdpSocket> {
    UdpSocket::bind(addr)
}

/// Lets the kernel hand over many datagrams of one sender at once; false when it cannot.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
pub(super) fn receive_many(socket: &UdpSocket) -> bool {
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::UdpGroSegment, &true).is_ok()
}

/// Not here.
#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
pub(super) fn receive_many(_: &UdpSocket) -> bool {
    false
}

/// Lets sends of more than `segment` bytes be cut into datagrams of so many by the kernel; false
/// when it cannot.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
pub(super) fn send_many(socket: &UdpSocket, segment: u16) -> bool {
    let segment = i32::from(segment);
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::UdpGsoSegment, &segment).is_ok()
}

/// Not here.
#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
pub(super) fn send_many(_: &UdpSocket, _: u16) -> bool {
    false
}

/// Makes sends fail that the local queue refuses; without it they pass for sent (measured: 294
/// of 300 in a queue of 1 Mbit/s). False when this system does not tell.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
pub(super) fn tell_refused(socket: &UdpSocket) -> bool {
    use nix::sys::socket::setsockopt;
    use nix::sys::socket::sockopt::{Ipv4RecvErr, Ipv6RecvErr};

    // A socket of IPv6 may send to mapped addresses of IPv4 too, which have an option of their own.
    let v4 = setsockopt(socket, Ipv4RecvErr, &true).is_ok();
    match socket.local_addr() {
        Ok(SocketAddr::V4(_)) => v4,
        Ok(SocketAddr::V6(_)) => v4 && setsockopt(socket, Ipv6RecvErr, &true).is_ok(),
        Err(_) => false,
    }
}

/// Not here.
#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
pub(super) fn tell_refused(_: &UdpSocket) -> bool {
    false
}

/// Throws away what came back for datagrams that did not arrive. It stands in the room of what a
/// socket is yet to receive, so one that both sends and receives would be deaf in the end.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
pub(super) fn forget_errors(socket: &UdpSocket) {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{MsgFlags, recvmsg};

    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    for _ in 0..ERRORS_AT_ONCE {
        let mut byte = [0];
        let mut parts = [io::IoSliceMut::new(&mut byte)];
        if recvmsg::<()>(socket.as_raw_fd(), &mut parts, None, flags).is_err() {
            return;
        }
    }
}

/// Nothing is kept here.
#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
pub(super) fn forget_errors(_: &UdpSocket) {}

/// Receives into `buffer`: how many bytes, in datagrams of which length (the last may be
/// shorter), and from where. Without `wait` only what is there already, where this system can.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
pub(super) fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    wait: bool,
) -> io::Result<(usize, usize, SocketAddr)> {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg};

    let mut parts = [io::IoSliceMut::new(buffer)];
    let mut space = nix::cmsg_space!(i32);
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        match wait {
            true => MsgFlags::empty(),
            false => MsgFlags::MSG_DONTWAIT,
        },
    )?;
    let len = message.bytes;
    let mut segment = len.max(1);
    for word in message.cmsgs()? {
        if let ControlMessageOwned::UdpGroSegments(size) = word {
            segment = usize::try_from(size).unwrap_or(0).max(1);
        }
    }
    let from = message.address.as_ref().and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|v4| (*v4).into());
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| (*v6).into()))
    });
    let from = from.map(|from: SocketAddr| from);
    from.map(|from| (len, segment, from))
        .ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// Receives one datagram into `buffer`; never without `wait`.
#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
pub(super) fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
    wait: bool,
) -> io::Result<(usize, usize, SocketAddr)> {
    if !wait {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    let (len, from) = socket.recv_from(buffer)?;
    Ok((len, len.max(1), from))
}

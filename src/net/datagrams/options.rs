//! The size of a UDP socket's buffers, and ports that several programs share: what std cannot set.
//! Without feature `sockopt` everything stays as the system makes it.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

/// The most that waits in a socket that sends, bytes as the kernel counts them: what Linux gives
/// unless it was told otherwise, and less than the queue of an interface holds.
pub(crate) const SEND_BUFFER: usize = 212_992;

/// Enlarges the receive buffer to `bytes`, as far as this process may; returns what the socket
/// has, bytes as the kernel counts them.
#[cfg(all(unix, feature = "sockopt"))]
pub(crate) fn enlarge_receive_buffer(socket: &UdpSocket, bytes: usize) -> u64 {
    // Root may have more than the system grants others.
    #[cfg(target_os = "linux")]
    let forced =
        nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::RcvBufForce, &bytes)
            .is_ok();
    #[cfg(not(target_os = "linux"))]
    let forced = false;
    let socket = socket2::SockRef::from(socket);
    if !forced && let Err(error) = socket.set_recv_buffer_size(bytes) {
        log::debug!("the receive buffer stays as it is: {error}");
    }
    socket.recv_buffer_size().unwrap_or(0) as u64
}

/// Says what a socket gets on Linux unless it asks for more, bytes; elsewhere it is near it.
#[cfg(not(all(unix, feature = "sockopt")))]
pub(crate) fn enlarge_receive_buffer(_: &UdpSocket, _: usize) -> u64 {
    SEND_BUFFER as u64
}

/// Keeps the send buffer at [`SEND_BUFFER`] at most.
pub(crate) fn limit_send_buffer(socket: &UdpSocket) {
    #[cfg(all(unix, feature = "sockopt"))]
    {
        let socket = socket2::SockRef::from(socket);
        // Linux makes it twice what it is told.
        let told = SEND_BUFFER / if cfg!(target_os = "linux") { 2 } else { 1 };
        let size = socket.send_buffer_size();
        if size.is_ok_and(|size| size > SEND_BUFFER)
            && let Err(error) = socket.set_send_buffer_size(told)
        {
            log::debug!("the send buffer stays as it is: {error}");
        }
    }
    let _ = socket;
}

/// A socket on `addr` that other programs of this host may bind too, where this build can.
pub(crate) fn bind_shared(addr: SocketAddr) -> io::Result<UdpSocket> {
    #[cfg(all(unix, feature = "sockopt"))]
    {
        let domain = socket2::Domain::for_address(addr);
        let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        Ok(socket.into())
    }
    #[cfg(not(all(unix, feature = "sockopt")))]
    UdpSocket::bind(addr)
}

//! What the system knows of a TCP connection, and of what any socket sent, and the one option that no
//! safe call sets (Linux, feature `sockopt`): the only unsafe calls but one.
//!
//! The answers are read as bytes at the places that the system's interface gives them
//! (`linux/tcp.h`, `linux/sock_diag.h`), so that an older system, which says less, leaves the rest
//! unknown.

#[cfg(all(target_os = "linux", feature = "sockopt"))]
use std::os::fd::AsRawFd;

use crate::{net::primitives::TcpStream, transfer::Evidence};

/// What the system says of the connection so far.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
pub fn evidence(stream: &TcpStream) -> Evidence {
    let mut info = [0; 192];
    let info = option(stream, nix::libc::IPPROTO_TCP, nix::libc::TCP_INFO, &mut info);
    let long = |at: usize| Some(u64::from_ne_bytes(*info.get(at..)?.first_chunk()?));
    let word = |at: usize| Some(u64::from(u32::from_ne_bytes(*info.get(at..)?.first_chunk()?)));
    Evidence {
        rtt_us: word(68),
        segments_again: word(100),
        min_rtt_us: word(148),
        segments: word(156),
        delivery_rate: long(160),
        busy_us: long(168),
        rwnd_limited_us: long(176),
        sndbuf_limited_us: long(184),
        ..Evidence::default()
    }
}

/// How many bytes of the connection the peer's system has acknowledged, how many wait unsent, and how
/// many segments are on their way.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
pub fn acked(stream: &TcpStream) -> Option<(u64, u64, u32)> {
    let mut info = [0; 192];
    let info = option(stream, nix::libc::IPPROTO_TCP, nix::libc::TCP_INFO, &mut info);
    let acked = u64::from_ne_bytes(*info.get(120..)?.first_chunk()?);
    let unsent = u32::from_ne_bytes(*info.get(144..)?.first_chunk()?);
    let moving = u32::from_ne_bytes(*info.get(24..)?.first_chunk()?);
    Some((acked, unsent.into(), moving))
}

/// Whether no segment of the connection came before one that was sent earlier, as far as is known.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
pub fn came_in_order(stream: &TcpStream) -> bool {
    let mut info = [0; 228];
    let info = option(stream, nix::libc::IPPROTO_TCP, nix::libc::TCP_INFO, &mut info);
    info.get(224..).is_some_and(|early| early == [0; 4])
}

/// How many bytes of the socket are in the queue of this machine's own link.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
pub fn queued(socket: &impl AsRawFd) -> Option<u64> {
    /// Numbers of the socket's memory; the third is what was sent and has not left the machine.
    const SO_MEMINFO: i32 = 55;
    let mut memory = [0; 12];
    let memory = option(socket, nix::libc::SOL_SOCKET, SO_MEMINFO, &mut memory);
    Some(u64::from(u32::from_ne_bytes(*memory.get(8..)?.first_chunk()?)))
}

/// An option of `linux/tcp.h`, microseconds.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
const TCP_RTO_MIN_US: i32 = 45;

/// See [`shorten_rto`].
#[cfg(all(target_os = "linux", feature = "sockopt"))]
const RTO_MIN_US: u32 = 20_000;

/// Has a connection within one site send again what is lost after 20 ms instead of 200
/// (`TCP_RTO_MIN_US`, which only newer systems know): a message that nothing follows has only this
/// timer (RFC 6298, section 2.4). A longer way keeps the system's: its acknowledgements may come
/// later.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
#[allow(unsafe_code, reason = "no safe call sets this option")]
pub fn shorten_rto(stream: &TcpStream) {
    /// A round trip below this is one within a site, microseconds.
    const NEAR_US: u64 = 10_000;
    if evidence(stream).min_rtt_us.is_some_and(|us| us < NEAR_US) {
        let (fd, value) = (stream.as_raw_fd(), RTO_MIN_US.to_ne_bytes());
        let (level, len) = (nix::libc::IPPROTO_TCP, size_of_val(&value) as nix::libc::socklen_t);
        // SAFETY: the descriptor is open while `stream` is borrowed. The system reads `len` bytes of
        // `value`, which is that long. An older system does not know the option, and says so.
        unsafe { nix::libc::setsockopt(fd, level, TCP_RTO_MIN_US, value.as_ptr().cast(), len) };
    }
}

/// The first bytes of an option's value, read into `value`; none where it is unknown.
#[cfg(all(target_os = "linux", feature = "sockopt"))]
#[allow(unsafe_code, reason = "no safe call reads these options")]
fn option<'a>(socket: &impl AsRawFd, level: i32, name: i32, value: &'a mut [u8]) -> &'a [u8] {
    let mut len = u32::try_from(value.len()).unwrap_or(0);
    let (at, fd) = (value.as_mut_ptr().cast(), socket.as_raw_fd());
    // SAFETY: the descriptor is open while `socket` is borrowed. The system writes at most `len` bytes
    // to `value`, which has so many, and says in `len` how many; any byte is a `u8`.
    let result = unsafe { nix::libc::getsockopt(fd, level, name, at, &raw mut len) };
    let len = usize::try_from(len).unwrap_or(0);
    value.get(..len).filter(|_| result == 0).unwrap_or_default()
}

/// What the system says of the connection so far: nothing here.
#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
pub fn evidence(_: &TcpStream) -> Evidence {
    Evidence::default()
}

/// Leaves the system's own timer as it is.
#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
pub fn shorten_rto(_: &TcpStream) {}

/// How many bytes of the connection the peer has acknowledged: unknown here.
#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
pub fn acked(_: &TcpStream) -> Option<(u64, u64, u32)> {
    None
}

/// How many bytes of the socket are in the queue of this machine's own link: unknown here.
#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
pub fn queued<T>(_: &T) -> Option<u64> {
    None
}

#[cfg(all(test, target_os = "linux", feature = "sockopt"))]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpListener,
    };

    use super::*;

    #[test]
    fn connection_that_sent_has_segments_and_round_trips() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let mut ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("listens");
        let (mut theirs, _) = listener.accept().expect("connected");
        ours.write_all(&[7; 100_000]).expect("room");
        theirs.read_exact(&mut [0; 100_000]).expect("sent");
        let evidence = evidence(&ours);
        assert!(evidence.segments > Some(0) && evidence.rtt_us > Some(0), "{evidence:?}");
        assert!(evidence.min_rtt_us > Some(0) && evidence.segments_again.is_some(), "{evidence:?}");
        assert!(evidence.rwnd_limited_us <= evidence.busy_us, "{evidence:?}");
        assert!(evidence.sndbuf_limited_us.is_some() && evidence.delivery_rate.is_some());
        let came = |acked: (u64, u64, u32)| acked.0 <= 100_001 && acked.1 <= 100_000;
        assert!(acked(&ours).is_some_and(came), "{:?}", acked(&ours));
        assert!(came_in_order(&theirs), "nothing overtakes on loopback");
        assert!(queued(&ours).is_some_and(|bytes| bytes < 10_000_000));
        let rto_min = || {
            let mut value = [0; 4];
            let value = option(&ours, nix::libc::IPPROTO_TCP, TCP_RTO_MIN_US, &mut value);
            value.first_chunk().map(|value| u32::from_ne_bytes(*value))
        };
        let before = rto_min();
        shorten_rto(&ours);
        // An older system has no such option.
        assert_eq!(rto_min(), before.map(|_| RTO_MIN_US));
    }
}

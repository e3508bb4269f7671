//! UDP datagrams in batches: received with the moment at which the system had them, and sent many
//! to one address with one call.
//!
//! With feature `sockopt` on Linux a batch is one `recvmmsg`, its moments are the kernel's, and
//! datagrams of one size leave in one segmented send (GSO). Elsewhere the same functions do it one
//! datagram at a time on plain std, and the moment is that of the read. Here is the receiving side;
//! [`send_batch`] sends.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::{arrival, clock},
    units::Moment,
};

mod batch;
#[cfg(all(target_os = "linux", feature = "sockopt"))]
pub(crate) mod kernel;
#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
#[path = "plain.rs"]
pub(crate) mod kernel;
pub(crate) mod options;
pub mod send_batch;

pub use self::batch::{Datagram, DatagramBatch};

/// Whether this build receives and sends in batches.
pub const BATCHED: bool = cfg!(all(target_os = "linux", feature = "sockopt"));

/// A socket that receives datagrams in batches.
#[derive(Debug)]
pub struct BatchSocket {
    socket: UdpSocket,
    addr: SocketAddr,
    /// How long the socket waits, microseconds: setting it costs as much as receiving.
    patience_us: AtomicU64,
}

/// Bytes asked of the system for what has not been read yet: a tenth of a second of 400 Mbit/s.
/// Systems that allow less give what they allow.
const QUEUE: usize = 8 << 20;

impl BatchSocket {
    /// Receives what is sent to `addr`; a multicast address is joined, on the interface that has
    /// the address `interface` or the system's choice.
    ///
    /// # Errors
    /// The address cannot be bound, the group not joined.
    pub fn bind(addr: SocketAddr, interface: Option<Ipv4Addr>) -> Result<Self> {
        let socket = if addr.ip().is_multicast() {
            options::bind_shared(group_address(addr))
        } else {
            UdpSocket::bind(addr)
        }
        .map_err(Error::io("receive datagrams at", addr))?;
        match addr {
            SocketAddr::V4(v4) if v4.ip().is_multicast() => {
                let interface = interface.unwrap_or(Ipv4Addr::UNSPECIFIED);
                socket.join_multicast_v4(v4.ip(), &interface)
            }
            // On the link that the address names, `ff02::1%2`, or the system's choice.
            SocketAddr::V6(v6) if v6.ip().is_multicast() => {
                socket.join_multicast_v6(v6.ip(), v6.scope_id())
            }
            _ => Ok(()),
        }
        .map_err(Error::io("join the group", addr))?;
        let room = options::enlarge_receive_buffer(&socket, QUEUE);
        log::debug!("{addr}: receive buffer of {room} bytes");
        arrival::stamp(&socket);
        let addr = socket.local_addr().map_err(Error::io("receive datagrams at", addr))?;
        Ok(Self { socket, addr, patience_us: AtomicU64::new(0) })
    }

    /// The address, with the port that the system chose for port 0.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The socket, to send from.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Waits for a datagram for `patience` and receives it, and what else is there, into `batch`.
    ///
    /// # Errors
    /// Any socket error. A timeout returns `Ok(0)`.
    pub fn receive(&self, batch: &mut DatagramBatch, patience: Duration) -> io::Result<usize> {
        // Zero would mean for ever.
        let patience = patience.max(Duration::from_millis(1));
        let us = crate::units::micros(patience);
        if self.patience_us.swap(us, Ordering::Relaxed) != us {
            self.socket.set_read_timeout(Some(patience))?;
        }
        self.receive_into(batch, true)
    }

    /// Receives what is there, without waiting.
    ///
    /// # Errors
    /// Any socket error. An empty queue returns `Ok(0)`.
    pub fn collect(&self, batch: &mut DatagramBatch) -> io::Result<usize> {
        self.receive_into(batch, false)
    }

    /// Throws away what came before `moment` and has not been read; what came since is in `batch`.
    /// Where the system does not tell when a datagram came, everything that waits is old: as much
    /// as a queue can hold. Returns how many were thrown away.
    ///
    /// # Errors
    /// The system's.
    pub fn discard(&self, batch: &mut DatagramBatch, moment: Moment) -> io::Result<u64> {
        let deadline = clock::now().after(DISCARD_LIMIT);
        let (mut thrown, mut bytes) = (0, 0);
        loop {
            batch.clear();
            let there = self.collect(batch)?;
            bytes += batch.entries.iter().map(|entry| entry.len).sum::<usize>();
            if BATCHED {
                batch.entries.retain(|entry| entry.at >= moment);
            } else {
                batch.clear();
            }
            thrown += (there - batch.len()) as u64;
            if there == 0 || !batch.is_empty() || (!BATCHED && bytes > QUEUE_MAX) {
                return Ok(thrown);
            }
            if clock::left(deadline).is_none() {
                let limit = DISCARD_LIMIT.as_secs_f64();
                log::warn!(
                    "{thrown} old datagrams were thrown away in {limit} s and there are more: \
                     some may be relayed"
                );
                return Ok(thrown);
            }
        }
    }

    fn receive_into(&self, batch: &mut DatagramBatch, wait: bool) -> io::Result<usize> {
        match kernel::receive_batch(&self.socket, batch, wait) {
            Err(error) if Error::is_timeout(&error) => Ok(0),
            // An answer to what was sent from this socket, or a signal: no datagram.
            Err(error) if error.kind() == io::ErrorKind::Interrupted || is_refusal(&error) => Ok(0),
            other => other,
        }
    }
}

/// How long old datagrams are thrown away for at most, while a viewer waits. A full queue takes a few
/// milliseconds of a processor, and a busy host may be slow to give them.
const DISCARD_LIMIT: Duration = Duration::from_millis(900);

/// More bytes than a queue holds: the system counts double what it is asked for.
const QUEUE_MAX: usize = 16 << 20;

/// How many datagrams the system has dropped because `socket`'s queue was full (`/proc/net/udp`,
/// last column), asked by a thread of the socket's own network namespace; `None` where it does not
/// tell.
pub fn drops(socket: &UdpSocket) -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;

        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        let table = match socket.local_addr().ok()? {
            SocketAddr::V4(_) => "/proc/thread-self/net/udp",
            SocketAddr::V6(_) => "/proc/thread-self/net/udp6",
        };
        let table = std::fs::read_to_string(table).ok()?;
        let mut rows = table.lines().map(|row| row.split_ascii_whitespace());
        let mut row = rows.find(|row| row.clone().nth(9) == Some(inode))?;
        row.nth(12)?.parse().ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        None
    }
}

/// The address to bind to receive what is sent to `group`: the group itself, so that a socket gets
/// no other group's datagrams, where the system allows that.
fn group_address(group: SocketAddr) -> SocketAddr {
    let mut addr = group;
    if !cfg!(unix) {
        addr.set_ip(unspecified(group.ip()));
    }
    addr
}

/// The address that stands for all of this host's, of the family of `like`.
pub fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// The other host, or a router before it, says of an earlier datagram that nothing arrives there.
pub fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionReset // What Windows calls it.
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

#[cfg(test)]
mod tests;

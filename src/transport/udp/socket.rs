//! The two ends of a stream of datagrams: an [`SendSocket`] that sends and an [`RecvSocket`] that
//! receives.
//!
//! An outlet is never connected, so a dead client's ICMP answers do not spoil the next send to
//! another. What the local queue refuses is counted, not lost. Its send buffer is kept below what
//! local queues hold: with a large one in front of a slow link, datagrams are lost in the sender's own
//! queue and no error says so; with a small one the send waits.

use std::{
    io,
    io::IoSlice,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use crate::{
    error::{Error, Result},
    net::{
        arrival, datagrams,
        datagrams::{BATCHED, kernel, options},
        tcp_info,
    },
    units::Moment,
};

/// Sends datagrams.
#[derive(Debug)]
pub struct SendSocket {
    socket: UdpSocket,
    /// The kernel cuts large sends into datagrams, as far as is known.
    segmented: AtomicBool,
    /// True where [`SendSocket::send`] knows of every datagram that this host refuses; elsewhere
    /// some of them pass for sent.
    pub reports_refusals: bool,
}

/// Datagrams of one sender: their length, which only the last may be shorter than, their bytes, and
/// when the first and the last of them came.
pub type ReceivedRow<'a> = (SocketAddr, usize, &'a [u8], (Moment, Moment));

/// Receives datagrams.
#[derive(Debug)]
pub struct RecvSocket {
    socket: UdpSocket,
    /// The receive buffer, bytes as the kernel counts them.
    pub room: u64,
    buffer: Vec<u8>,
    /// What was received after other datagrams that it cannot follow, where it stands, and when it
    /// was read.
    pending: Option<(SocketAddr, usize, Range<usize>, Moment)>,
    /// The kernel has handed over several datagrams as one.
    pub(super) rows: bool,
    dropped_before: Option<u64>,
}

/// How long [`RecvSocket::receive`] waits at most.
pub const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Most datagrams that one call sends.
pub const SEGMENTS_MAX: usize = 44;

/// Most bytes that one call sends.
const CALL_MAX: usize = 65_507;

/// The receive buffer that is asked for, bytes.
pub const RECEIVE_BUFFER: usize = 4 << 20;

/// One byte more than a datagram can have, so that none is cut unseen.
const DATAGRAM_ROOM: usize = 65_536;

/// The buffer of an inlet: what waits in a row, and one call more.
const GATHER: usize = 4 * DATAGRAM_ROOM;

/// How long more datagrams are waited for: some ten at 100 Mbit/s.
const LINGER: Duration = Duration::from_millis(1);

/// How often one send is tried again when the error it gives is an older datagram's.
const STALE_ERRORS: usize = 64;

impl SendSocket {
    /// A socket on the address `ip` of this host. `many` asks the kernel to cut large sends into
    /// datagrams itself. `ttl` is for a group: how many routers a datagram may pass, and one more.
    ///
    /// # Errors
    /// The system's.
    pub fn open(ip: IpAddr, many: bool, ttl: Option<u32>) -> Result<Self> {
        let failed = || Error::io("open a UDP socket", ip);
        let socket = UdpSocket::bind((ip, 0)).map_err(failed())?;
        if let Some(ttl) = ttl {
            socket.set_multicast_ttl_v4(ttl).map_err(failed())?;
        }
        let segmented = AtomicBool::new(many && kernel::can_segment(&socket));
        Ok(Self { segmented, ..Self::over(socket) })
    }

    /// Sends over a socket that is open already, one datagram at a time. What comes to it is
    /// received with `recv_from`.
    pub fn over(socket: UdpSocket) -> Self {
        options::limit_send_buffer(&socket);
        let reports_refusals = kernel::report_refusals(&socket);
        if !reports_refusals {
            log::debug!("this system does not tell which datagrams its own queue refuses");
        }
        Self { socket, segmented: AtomicBool::new(false), reports_refusals }
    }

    /// The port that it sends from.
    ///
    /// # Errors
    /// The system's.
    pub fn port(&self) -> Result<u16> {
        port(&self.socket)
    }

    /// True while the kernel cuts large sends.
    pub fn is_segmented(&self) -> bool {
        self.segmented.load(Ordering::Relaxed)
    }

    /// How many bytes of it are in the queue of this host's own link.
    pub fn queued(&self) -> Option<u64> {
        tcp_info::queued(&self.socket)
    }

    /// Sends `bytes` to `to` as datagrams of `segment` bytes, the last maybe shorter; returns how
    /// many of them this host refused.
    pub fn send(&self, bytes: &[u8], segment: usize, to: SocketAddr) -> u64 {
        let per_call = (CALL_MAX / segment).clamp(1, SEGMENTS_MAX);
        let step = if self.is_segmented() { per_call * segment } else { segment };
        let mut refused = 0;
        for call in bytes.chunks(step) {
            match self.send_one(call, segment, to) {
                Ok(()) => {}
                // A device or path that cannot cut: from now on each datagram by itself.
                Err(error) if call.len() > segment && cannot_cut(&error) => {
                    log::debug!("sending single datagrams: {error}");
                    self.segmented.store(false, Ordering::Relaxed);
                    for datagram in call.chunks(segment) {
                        refused += u64::from(self.send_one(datagram, segment, to).is_err());
                    }
                }
                Err(error) => {
                    log::trace!("refused here: {error}");
                    refused += call.len().div_ceil(segment) as u64;
                }
            }
        }
        refused
    }

    /// Sends `call` as datagrams of `segment` bytes, the last maybe shorter.
    fn send_one(&self, call: &[u8], segment: usize, to: SocketAddr) -> io::Result<()> {
        let mut tries = 0;
        loop {
            let sent = match u16::try_from(segment) {
                Ok(segment) if call.len() > usize::from(segment) => {
                    kernel::send_segmented(&self.socket, &[IoSlice::new(call)], segment, Some(to))
                }
                _ => self.socket.send_to(call, to).map(drop),
            };
            match sent {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What came back for an earlier datagram is told once, and this one not sent.
                Err(error) if datagrams::is_refusal(&error) && tries < STALE_ERRORS => tries += 1,
                other => return other,
            }
        }
    }
}

/// Receives at a socket over which an [`SendSocket`] sends. Errors that come back for what was sent are
/// kept in the room of what is to be received, and anybody can forge them, so they are thrown away.
///
/// # Errors
/// The system's, those of earlier datagrams among them.
pub(super) fn recv_from(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    let received = socket.recv_from(buffer);
    if received.is_err() {
        kernel::discard_errors(socket);
    }
    received
}

fn port(socket: &UdpSocket) -> Result<u16> {
    let addr = socket.local_addr();
    Ok(addr.map_err(Error::io("open a UDP socket", "this host"))?.port())
}

/// EINVAL, EIO and EMSGSIZE: a route whose segments would be too large, or without checksums.
fn cannot_cut(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(5 | 22 | 90))
}

impl RecvSocket {
    /// A socket on the address `ip` of this host, on a port of the system's choice.
    ///
    /// # Errors
    /// The system's.
    pub fn open(ip: IpAddr) -> Result<Self> {
        let failed = || Error::io("open a UDP socket", ip);
        Self::set_up(UdpSocket::bind((ip, 0)).map_err(failed())?, ip)
    }

    /// A member of `group` on the interface with the address `interface`. It is bound to the
    /// group's own address: bound to any, it would get every group of this host at that port.
    ///
    /// # Errors
    /// The system's; without feature `sockopt` also that another program has joined.
    pub fn join(group: SocketAddr, interface: Ipv4Addr) -> Result<Self> {
        let IpAddr::V4(address) = group.ip() else {
            return Err(Error::refused(group, "groups are of IPv4"));
        };
        let failed = || Error::io("join the group", group);
        let socket = options::bind_shared(group).map_err(failed())?;
        socket.join_multicast_v4(&address, &interface).map_err(failed())?;
        Self::set_up(socket, group.ip())
    }

    fn set_up(socket: UdpSocket, at: IpAddr) -> Result<Self> {
        let failed = Error::io("set up a UDP socket", at);
        let room = options::enlarge_receive_buffer(&socket, RECEIVE_BUFFER);
        kernel::coalesce_received(&socket);
        arrival::stamp(&socket);
        socket.set_read_timeout(Some(POLL_INTERVAL)).map_err(failed)?;
        let dropped_before = datagrams::drops(&socket);
        Ok(Self {
            socket,
            room,
            buffer: vec![0; GATHER],
            pending: None,
            rows: false,
            dropped_before,
        })
    }

    /// The port.
    ///
    /// # Errors
    /// The system's.
    pub fn port(&self) -> Result<u16> {
        port(&self.socket)
    }

    /// Sends one datagram to `to` from this socket.
    ///
    /// # Errors
    /// The system's.
    pub fn send_to(&self, datagram: &[u8], to: SocketAddr) -> Result<()> {
        let sent = self.socket.send_to(datagram, to);
        sent.map(|_| ()).map_err(Error::io("send a datagram", to))
    }

    /// The same socket for another thread.
    ///
    /// # Errors
    /// The system's.
    pub fn try_clone_socket(&self) -> Result<UdpSocket> {
        let failed = Error::io("open a UDP socket", "this host");
        self.socket.try_clone().map_err(failed)
    }

    /// Datagrams dropped for want of room since it was opened; `None` where nobody tells. A row of
    /// datagrams that the kernel hands over as one is dropped as one and counted once: where such
    /// rows came, nobody tells more than that none was dropped.
    pub fn drops(&self) -> Option<u64> {
        let count = datagrams::drops(&self.socket)?.checked_sub(self.dropped_before?)?;
        (count == 0 || !self.rows).then_some(count)
    }

    /// Waits for datagrams, [`POLL_INTERVAL`] at most.
    ///
    /// # Errors
    /// The socket failed.
    pub fn receive(&mut self) -> io::Result<Option<ReceivedRow<'_>>> {
        Ok(match self.one(0, true)? {
            Some((from, segment, len, at)) => Some((from, segment, &self.buffer[..len], (at, at))),
            None => None,
        })
    }

    /// As [`RecvSocket::receive`], with all that is there. Where that is no more than one call brings,
    /// more are waited for a little: a thread that is woken for each datagram of a slow link costs
    /// more than all the rest of receiving. Without `wait` it looks whether there is anything, as
    /// far as this system can.
    ///
    /// # Errors
    /// The socket failed.
    pub fn gather(&mut self, wait: bool) -> io::Result<Option<ReceivedRow<'_>>> {
        let (from, segment, start, mut end, at) = match self.pending.take() {
            Some((from, segment, range, at)) => (from, segment, range.start, range.end, at),
            None => match self.one(0, wait || !BATCHED)? {
                Some((from, segment, len, at)) => (from, segment, 0, len, at),
                None => return Ok(None),
            },
        };
        let mut came_at = (at, at);
        let mut napped = false;
        // A shorter one ends the row, and so does an empty one.
        while end > start
            && (end - start).is_multiple_of(segment)
            && end + DATAGRAM_ROOM <= self.buffer.len()
        {
            match self.one(end, false)? {
                Some((who, length, len, at)) if who == from && length == segment && len > 0 => {
                    end += len;
                    came_at.1 = at;
                }
                Some((who, length, len, at)) => {
                    self.pending = Some((who, length, end..end + len, at));
                    break;
                }
                // Only std receives here, or all that there was has been taken.
                None if napped || end - start > segment || !BATCHED => break,
                None => {
                    std::thread::sleep(LINGER);
                    napped = true;
                }
            }
        }
        Ok(Some((from, segment, &self.buffer[start..end], came_at)))
    }

    /// One call's datagrams, to the buffer from `at` on, and when they came.
    fn one(
        &mut self,
        at: usize,
        wait: bool,
    ) -> io::Result<Option<(SocketAddr, usize, usize, Moment)>> {
        let room = &mut self.buffer[at..at + DATAGRAM_ROOM];
        match kernel::receive_coalesced(&self.socket, room, wait) {
            Ok((len, segment, from, came)) => {
                self.rows |= len > segment;
                Ok(Some((from, segment, len, came)))
            }
            Err(error) if Error::is_timeout(&error) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::clock;

    fn inlet() -> (RecvSocket, SocketAddr) {
        let inlet = RecvSocket::open(Ipv4Addr::LOCALHOST.into()).expect("a port");
        let to = (Ipv4Addr::LOCALHOST, inlet.port().expect("bound")).into();
        (inlet, to)
    }

    fn lengths(inlet: &mut RecvSocket, count: usize) -> Vec<usize> {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let mut lengths = Vec::new();
        while lengths.len() < count && std::time::Instant::now() < deadline {
            if let Some((_, segment, bytes, _)) = inlet.receive().expect("a socket") {
                lengths.extend(bytes.chunks(segment).map(<[u8]>::len));
                if bytes.is_empty() {
                    lengths.push(0);
                }
            }
        }
        lengths
    }

    #[test]
    fn waiting_for_more_is_no_time_of_what_was_read() {
        let (mut inlet, to) = inlet();
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let mut gathered = |lengths: &[usize]| {
            let begun = clock::now();
            for &length in lengths {
                sender.send_to(&vec![7; length], to).expect("sent");
            }
            loop {
                if let Some((.., (first, last))) = inlet.gather(true).expect("a socket") {
                    assert!(begun <= first || lengths.is_empty(), "it did not come before");
                    return (first, last, clock::now());
                }
            }
        };
        let (first, last, now) = gathered(&[100]);
        assert_eq!(first, last);
        assert!(!BATCHED || now.since(last) >= LINGER, "more were waited for after it");
        // A longer one begins the next row; it was read with the shorter.
        let (_, last, now) = gathered(&[100, 200]);
        if BATCHED {
            let (first, ..) = gathered(&[]);
            assert!(last <= first && first <= now, "the time of its reading");
        }
    }

    #[test]
    fn datagrams_arrive_as_they_were_cut() {
        let (mut inlet, to) = inlet();
        for many in [false, true] {
            let outlet = SendSocket::open(Ipv4Addr::LOCALHOST.into(), many, None).expect("one");
            assert_eq!(outlet.send(&[7; 9_300], 1000, to), 0);
            let mut wanted = vec![1000; 9];
            wanted.push(300);
            assert_eq!(lengths(&mut inlet, 10), wanted, "{many}");
            assert_eq!(outlet.send(&[7; 1400], 1400, to), 0);
            assert_eq!(lengths(&mut inlet, 1), [1400], "not cut at what was before");
        }
        let outlet = SendSocket::open(Ipv4Addr::LOCALHOST.into(), true, None).expect("one");
        assert_eq!(outlet.send(&[7; 65_507], 65_507, to), 0);
        assert_eq!(lengths(&mut inlet, 1), [65_507]);
        assert_eq!(outlet.send(&[], 65_507, to), 0, "nothing is sent of nothing");
        assert_eq!(inlet.drops().unwrap_or(0), 0);
    }

    /// What `call` bytes as datagrams of 1000 at a time leave of 40 MB in a buffer that nobody reads:
    /// how many were lost, whether any row came, and what the system says of them.
    #[cfg(all(target_os = "linux", feature = "sockopt"))]
    fn overflow(call: usize) -> (u64, bool, Option<u64>) {
        let (mut inlet, to) = inlet();
        let outlet = SendSocket::open(Ipv4Addr::LOCALHOST.into(), true, None).expect("one");
        let (calls, mut came, mut rows) = (40_000_000 / call, 0, false);
        let sent = (calls * call / 1000) as u64;
        for _ in 0..calls {
            assert_eq!(outlet.send(&vec![7; call], 1000, to), 0);
        }
        while let Some((_, segment, bytes, _)) = inlet.receive().expect("a socket") {
            came += bytes.chunks(segment).len() as u64;
            rows |= bytes.len() > segment;
        }
        (sent - came, rows, inlet.drops())
    }

    #[test]
    #[cfg(all(target_os = "linux", feature = "sockopt"))]
    fn drops_are_counted_only_where_each_is_one_datagram() {
        let (lost, rows, told) = overflow(1000);
        assert!(lost > 0 && !rows, "{lost} {rows}");
        assert_eq!(told, Some(lost));
        let (lost, rows, told) = overflow(20_000);
        assert!(lost > 0, "40 MB are more than a buffer");
        assert_eq!(told, Some(lost).filter(|_| !rows));
    }

    #[test]
    fn dead_receiver_spoils_nothing_for_another() {
        let (mut inlet, to) = inlet();
        let dead = UdpSocket::bind("127.0.0.1:0").expect("a port").local_addr().expect("bound");
        let outlet = SendSocket::open(Ipv4Addr::LOCALHOST.into(), false, None).expect("one");
        for _ in 0..50 {
            outlet.send(&[1; 100], 100, dead);
            assert_eq!(outlet.send(&[2; 100], 100, to), 0);
        }
        assert_eq!(lengths(&mut inlet, 50).len(), 50);
    }

    #[test]
    #[cfg(feature = "sockopt")]
    fn no_send_buffer_is_larger_than_local_queues() {
        let room = |socket: &UdpSocket| {
            let socket = socket2::SockRef::from(socket);
            socket.send_buffer_size().expect("a size")
        };
        // As on a host whose default somebody has raised.
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let _ = socket2::SockRef::from(&socket).set_send_buffer_size(4 << 20);
        assert!(room(&socket) > options::SEND_BUFFER, "{}", room(&socket));
        let outlet = SendSocket::over(socket);
        assert_eq!(room(&outlet.socket), options::SEND_BUFFER);
        let outlet = SendSocket::open(Ipv4Addr::LOCALHOST.into(), false, None).expect("one");
        assert!(room(&outlet.socket) <= options::SEND_BUFFER);
    }

    #[test]
    fn refusals_are_reported_for_both_families() {
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), std::net::Ipv6Addr::LOCALHOST.into()] {
            let Ok(outlet) = SendSocket::open(ip, false, None) else {
                eprintln!("SKIPPED: this host has no {ip}");
                continue;
            };
            let tells = cfg!(all(target_os = "linux", feature = "sockopt"));
            assert_eq!(outlet.reports_refusals, tells);
            #[cfg(all(target_os = "linux", feature = "sockopt"))]
            if ip.is_ipv6() {
                let option = nix::sys::socket::sockopt::Ipv6RecvErr;
                assert_eq!(nix::sys::socket::getsockopt(&outlet.socket, option), Ok(true));
            }
        }
    }

    #[test]
    fn returned_errors_leave_room_for_received_datagrams() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(POLL_INTERVAL)).expect("a setting");
        let here = socket.local_addr().expect("bound");
        let outlet = SendSocket::over(socket.try_clone().expect("one more"));
        let dead = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let nobody = dead.local_addr().expect("bound");
        drop(dead);
        // Each is answered by an error; a buffer of the usual size holds fewer.
        for _ in 0..1000 {
            outlet.send(&[1; 100], 100, nobody);
        }
        let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let (mut buffer, mut heard) = ([0; 2000], 0);
        while heard < 10 && std::time::Instant::now() < deadline {
            // A datagram of some length: a few bytes find room for longer.
            client.send_to(&[2; 1200], here).expect("sent");
            heard += u32::from(recv_from(&socket, &mut buffer).is_ok());
        }
        assert_eq!(heard, 10);
        // And what goes out goes on.
        let (mut inlet, to) = inlet();
        assert_eq!(outlet.send(&[3; 100], 100, to), 0);
        assert_eq!(lengths(&mut inlet, 1), [100]);
    }
}

//! UDP datagrams in batches: received with the moment at which the system had them, and sent many
//! to one address with one call.
//!
//! With feature `sockopt` on Linux a batch is one `recvmmsg`, its moments are the kernel's, and
//! datagrams of one size leave in one segmented send (GSO). Elsewhere the same functions do it one
//! datagram at a time on plain std, and the moment is that of the read.

use std::fmt;
use std::io;
use std::io::IoSlice;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::ops::Range;
use std::time::Duration;

use crate::error::Error;
use crate::error::Result;
use crate::runtime::clock;
use crate::units::Moment;

/// Whether this build receives and sends in batches.
pub const BATCHED: bool = cfg!(all(target_os = "linux", feature = "sockopt"));

/// A socket that receives.
#[derive(Debug)]
pub struct Inbox {
    socket: UdpSocket,
    addr: SocketAddr,
}

/// Datagrams received together, in the order in which they came.
pub struct Batch {
    slots: Box<[u8]>,
    entries: Vec<Entry>,
    capacity: usize,
}

/// One datagram of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Datagram<'a> {
    /// What it holds.
    pub bytes: &'a [u8],
    /// When the system had it, or when it was read where the system does not tell.
    pub at: Moment,
    /// Who sent it.
    pub from: SocketAddr,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    slot: usize,
    len: usize,
    at: Moment,
    from: SocketAddr,
}

/// A batch made ready to be sent, to any number of addresses.
#[derive(Debug)]
pub struct Parcel<'a> {
    slices: Vec<IoSlice<'a>>,
    runs: Vec<Run>,
}

/// Datagrams that one call can send: all of one size, the last perhaps shorter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which datagrams of the parcel.
    pub datagrams: Range<usize>,
    /// Their bytes.
    pub bytes: usize,
    segment: u16,
}

/// Largest UDP payload of IPv4 is 65,507 bytes; a byte more than any shows what was cut.
const SLOT: usize = 65_536;

/// From one slot to the next: not a power of two, or all datagrams of a batch would compete for
/// the same lines of the processor's caches.
const STRIDE: usize = SLOT + 17 * 64;

/// Most segments of one send; Linux since 4.18 has allowed so many.
const SEGMENTS_MAX: usize = 64;

/// Most bytes of one segmented send, with room for headers below the 65,535 of an IP packet.
const SEGMENTED_MAX: usize = 65_000;

/// Bytes asked of the system for what has not been read yet: a tenth of a second of 400 Mbit/s.
/// Systems that allow less give what they allow.
#[cfg(feature = "sockopt")]
const QUEUE: usize = 8 << 20;

impl Inbox {
    /// Receives what is sent to `addr`; a multicast address is joined, on the interface that has
    /// the address `interface` or the system's choice.
    ///
    /// # Errors
    /// The address cannot be bound, the group not joined.
    pub fn bind(addr: SocketAddr, interface: Option<Ipv4Addr>) -> Result<Self> {
        let socket = match addr.ip().is_multicast() {
            true => shared(addr).map_err(Error::io("receive datagrams at", addr))?,
            false => UdpSocket::bind(addr).map_err(Error::io("receive datagrams at", addr))?,
        };
        match addr.ip() {
            IpAddr::V4(group) if group.is_multicast() => {
                let interface = interface.unwrap_or(Ipv4Addr::UNSPECIFIED);
                socket.join_multicast_v4(&group, &interface)
            }
            IpAddr::V6(group) if group.is_multicast() => socket.join_multicast_v6(&group, 0),
            _ => Ok(()),
        }
        .map_err(Error::io("join the group", addr))?;
        set_up(&socket);
        let addr = socket
            .local_addr()
            .map_err(Error::io("receive datagrams at", addr))?;
        Ok(Self { socket, addr })
    }

    /// The address, with the port that the system chose for port 0.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The socket, to send from.
    pub fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    /// Waits for a datagram for `patience` and takes it, and what else is there, into `batch`.
    ///
    /// # Errors
    /// The system's; that nothing came is none.
    pub fn receive(&self, batch: &mut Batch, patience: Duration) -> io::Result<usize> {
        // Zero would mean for ever.
        let patience = patience.max(Duration::from_millis(1));
        self.socket.set_read_timeout(Some(patience))?;
        self.take(batch, true)
    }

    /// Takes what is there, and waits for nothing.
    ///
    /// # Errors
    /// The system's; that nothing is there is none.
    pub fn collect(&self, batch: &mut Batch) -> io::Result<usize> {
        self.take(batch, false)
    }

    /// Throws away what came before `moment` and has not been read; what came since is in `batch`.
    /// Where the system does not tell when a datagram came, everything that waits is old. Returns
    /// how many were thrown away.
    ///
    /// # Errors
    /// The system's.
    pub fn discard(&self, batch: &mut Batch, moment: Moment) -> io::Result<u64> {
        let deadline = moment.after(DISCARD_LIMIT);
        let mut thrown = 0;
        loop {
            batch.clear();
            let there = self.collect(batch)?;
            if BATCHED {
                batch.entries.retain(|entry| entry.at >= moment);
            } else {
                batch.clear();
            }
            thrown += (there - batch.len()) as u64;
            if there == 0 || !batch.is_empty() || clock::now() > deadline {
                return Ok(thrown);
            }
        }
    }

    fn take(&self, batch: &mut Batch, wait: bool) -> io::Result<usize> {
        match take(&self.socket, batch, wait) {
            Err(error) if Error::is_timeout(&error) => Ok(0),
            // An answer to what was sent from this socket, or a signal: no datagram.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Ok(0)
            }
            other => other,
        }
    }
}

/// How long old datagrams are thrown away for: a full queue takes a few milliseconds.
const DISCARD_LIMIT: Duration = Duration::from_millis(50);

impl Batch {
    /// Room for `capacity` datagrams of any size. Memory is taken as it is used.
    pub fn new(capacity: usize) -> Self {
        Self {
            slots: vec![0; capacity * STRIDE].into_boxed_slice(),
            entries: Vec::with_capacity(capacity),
            capacity,
        }
    }

    /// Makes room again.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// How many datagrams it holds.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether it has no room for another.
    pub fn is_full(&self) -> bool {
        self.next_slot() >= self.capacity
    }

    /// The datagrams, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = Datagram<'_>> {
        self.entries.iter().map(|entry| Datagram {
            bytes: &self.slots[entry.slot * STRIDE..][..entry.len],
            at: entry.at,
            from: entry.from,
        })
    }

    /// Keeps the datagrams that `keep` says.
    pub fn retain(&mut self, mut keep: impl FnMut(SocketAddr, Moment) -> bool) {
        self.entries.retain(|entry| keep(entry.from, entry.at));
    }

    fn next_slot(&self) -> usize {
        self.entries.last().map_or(0, |entry| entry.slot + 1)
    }
}

impl<'a> Parcel<'a> {
    /// The datagrams of `batch`, and how few calls send them.
    pub fn of(batch: &'a Batch) -> Self {
        let slices: Vec<IoSlice<'a>> = batch.iter().map(|d| IoSlice::new(d.bytes)).collect();
        let mut runs: Vec<Run> = Vec::new();
        for (at, slice) in slices.iter().enumerate() {
            match runs.last_mut() {
                Some(run) if BATCHED && run.takes(slice.len()) => {
                    run.datagrams.end = at + 1;
                    run.bytes += slice.len();
                }
                _ => runs.push(Run {
                    datagrams: at..at + 1,
                    bytes: slice.len(),
                    // Anything that UDP carries is less.
                    segment: u16::try_from(slice.len()).unwrap_or(u16::MAX),
                }),
            }
        }
        Self { slices, runs }
    }

    /// The fewest sends.
    pub fn runs(&self) -> &[Run] {
        &self.runs
    }

    /// The datagrams of `run`, each a send of its own.
    pub fn singles(&self, run: &Run) -> impl Iterator<Item = Run> {
        run.datagrams.clone().map(|at| Run {
            datagrams: at..at + 1,
            bytes: self.slices[at].len(),
            segment: run.segment,
        })
    }

    /// Sends `run` to whom the socket is connected to; never waits.
    ///
    /// # Errors
    /// The system's. `WouldBlock` says that the socket's queue is full.
    pub fn send(&self, socket: &UdpSocket, run: &Run) -> io::Result<()> {
        let slices = &self.slices[run.datagrams.clone()];
        match slices {
            [one] => socket.send(one).map(drop),
            many => send_segmented(socket, many, run.segment),
        }
    }
}

impl Run {
    /// Whether a datagram of `len` bytes can be the next one.
    fn takes(&self, len: usize) -> bool {
        let segment = usize::from(self.segment);
        // A shorter one ends the run: only the last may be.
        let even = self.bytes == segment * self.datagrams.len();
        even && (1..=segment).contains(&len)
            && self.datagrams.len() < SEGMENTS_MAX
            && self.bytes + len <= SEGMENTED_MAX
    }
}

/// A socket to send from: never waits, learns of what the way there refuses (RFC 1122, 4.1.3.3),
/// and keeps next to nothing of what is sent to it.
///
/// # Errors
/// The system's, with the address.
pub fn outbox(from: IpAddr, to: SocketAddr) -> Result<UdpSocket> {
    let open = || {
        let socket = UdpSocket::bind(SocketAddr::new(from, 0))?;
        socket.connect(to)?;
        socket.set_nonblocking(true)?;
        Ok(socket)
    };
    let socket: UdpSocket = open().map_err(Error::io("send datagrams to", to))?;
    #[cfg(all(target_os = "linux", feature = "sockopt"))]
    {
        use nix::sys::socket::setsockopt;
        use nix::sys::socket::sockopt;
        // So that what the local queue drops is an error here and not counted as sent.
        let told = match to {
            SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true),
            SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true),
        };
        if let Err(error) = told.and_then(|()| setsockopt(&socket, sockopt::RcvBuf, &0)) {
            log::debug!("{to}: {error}");
        }
    }
    Ok(socket)
}

/// How many datagrams the system has dropped because `socket`'s queue was full; `None` where it
/// does not tell.
pub fn drops(socket: &UdpSocket) -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        use std::os::fd::AsRawFd;
        let link = std::fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd())).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        let table = match socket.local_addr().ok()? {
            SocketAddr::V4(_) => "/proc/self/net/udp",
            SocketAddr::V6(_) => "/proc/self/net/udp6",
        };
        let table = std::fs::read_to_string(table).ok()?;
        let row = table
            .lines()
            .find(|row| row.split_ascii_whitespace().nth(9) == Some(inode))?;
        row.split_ascii_whitespace().next_back()?.parse().ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        None
    }
}

/// A socket at a group's address, which several programs of this host may share.
fn shared(addr: SocketAddr) -> io::Result<UdpSocket> {
    // Bound to the group itself a socket hears no other; not every system allows that.
    let anywhere = match addr {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], addr.port())),
        SocketAddr::V6(_) => SocketAddr::from(([0_u16; 8], addr.port())),
    };
    let addr = if cfg!(unix) { addr } else { anywhere };
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

fn set_up(socket: &UdpSocket) {
    #[cfg(feature = "sockopt")]
    if let Err(error) = socket2::SockRef::from(socket).set_recv_buffer_size(QUEUE) {
        log::debug!("the receive queue keeps its size: {error}");
    }
    #[cfg(all(target_os = "linux", feature = "sockopt"))]
    {
        use nix::sys::socket::setsockopt;
        use nix::sys::socket::sockopt;
        // Root may have more than the system grants others.
        let more = setsockopt(socket, sockopt::RcvBufForce, &QUEUE);
        log::debug!("receive queue of {QUEUE} bytes: {more:?}");
        if let Err(error) = setsockopt(socket, sockopt::ReceiveTimestampns, &true) {
            log::debug!("no moments from the kernel: {error}");
        }
    }
    let _ = socket;
}

#[cfg(all(target_os = "linux", feature = "sockopt"))]
fn take(socket: &UdpSocket, batch: &mut Batch, wait: bool) -> io::Result<usize> {
    use std::io::IoSliceMut;
    use std::os::fd::AsRawFd;

    use nix::sys::socket::ControlMessageOwned;
    use nix::sys::socket::MsgFlags;
    use nix::sys::socket::MultiHeaders;
    use nix::sys::socket::SockaddrStorage;
    use nix::sys::socket::recvmmsg;
    use nix::sys::time::TimeSpec;

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
        batch.entries.push(Entry {
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
#[cfg(all(target_os = "linux", feature = "sockopt"))]
fn wall_clock() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_REALTIME)
        .map_or(Duration::ZERO, Duration::from)
}

#[cfg(all(target_os = "linux", feature = "sockopt"))]
fn std_address(address: &nix::sys::socket::SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address
        .as_sockaddr_in()
        .map(|v4| SocketAddr::V4((*v4).into()));
    v4.or_else(|| {
        address
            .as_sockaddr_in6()
            .map(|v6| SocketAddr::V6((*v6).into()))
    })
}

#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
fn take(socket: &UdpSocket, batch: &mut Batch, wait: bool) -> io::Result<usize> {
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

#[cfg(all(target_os = "linux", feature = "sockopt"))]
fn send_segmented(socket: &UdpSocket, slices: &[IoSlice<'_>], segment: u16) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    use nix::sys::socket::ControlMessage;
    use nix::sys::socket::MsgFlags;
    use nix::sys::socket::sendmsg;

    let segments = [ControlMessage::UdpGsoSegments(&segment)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(socket.as_raw_fd(), slices, &segments, flags, None)?;
    Ok(())
}

#[cfg(not(all(target_os = "linux", feature = "sockopt")))]
fn send_segmented(_: &UdpSocket, _: &[IoSlice<'_>], _: u16) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch")
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn pair() -> (UdpSocket, Inbox) {
        let inbox = Inbox::bind(LOCAL, None).expect("a free port");
        let socket = outbox(LOCAL.ip(), inbox.addr()).expect("a free port");
        (socket, inbox)
    }

    /// Reads until `count` datagrams are in `batch`.
    fn fill(inbox: &Inbox, batch: &mut Batch, count: usize) {
        let deadline = clock::now().after(Duration::from_secs(10));
        while batch.len() < count && clock::now() < deadline {
            inbox
                .receive(batch, Duration::from_millis(100))
                .expect("readable");
        }
        assert_eq!(batch.len(), count);
    }

    #[test]
    fn datagrams_of_any_size_arrive_as_they_were_sent() {
        let sizes = [
            1, 0, 1316, 1316, 1316, 564, 1316, 188, 188, 40_000, 65_507, 3, 3,
        ];
        let (there, inbox) = pair();
        let mut sent = Batch::new(sizes.len());
        for (n, &size) in sizes.iter().enumerate() {
            there.send(&vec![n as u8; size]).expect("sent");
        }
        let before = clock::now();
        fill(&inbox, &mut sent, sizes.len());
        assert!(sent.is_full());
        assert!(
            sent.iter()
                .all(|d| d.from == there.local_addr().expect("bound"))
        );
        if BATCHED {
            let stamped = sent.iter().all(|datagram| datagram.at <= before);
            assert!(stamped, "when they came, not when they were read");
        }
        // And once more, as a parcel.
        let (there, inbox) = pair();
        let parcel = Parcel::of(&sent);
        for run in parcel.runs() {
            parcel.send(&there, run).expect("sent");
        }
        let mut got = Batch::new(sizes.len() + 1);
        fill(&inbox, &mut got, sizes.len());
        assert!(got.iter().map(|d| d.bytes).eq(sent.iter().map(|d| d.bytes)));
    }

    #[test]
    fn a_run_ends_with_a_shorter_datagram_and_at_the_systems_limits() {
        let of = |sizes: &[usize]| {
            let mut batch = Batch::new(sizes.len());
            for (slot, &len) in sizes.iter().enumerate() {
                batch.entries.push(Entry {
                    slot,
                    len,
                    at: Moment(0),
                    from: LOCAL,
                });
            }
            let parcel = Parcel::of(&batch);
            let runs: Vec<usize> = parcel.runs().iter().map(|r| r.datagrams.len()).collect();
            assert_eq!(runs.iter().sum::<usize>(), sizes.len());
            assert_eq!(
                parcel.runs().iter().map(|run| run.bytes).sum::<usize>(),
                sizes.iter().sum::<usize>()
            );
            runs
        };
        if BATCHED {
            assert_eq!(of(&[1316, 1316, 564, 1316, 188, 188, 1316]), [3, 2, 1, 1]);
            assert_eq!(of(&[0, 0, 5]), [1, 1, 1]);
            assert_eq!(of(&[10; 100]), [64, 36]);
            assert_eq!(of(&[1316; 60]), [49, 11]);
            assert_eq!(of(&[65_507, 65_507]), [1, 1]);
        } else {
            assert_eq!(of(&[1316, 1316, 564]), [1, 1, 1]);
        }
    }

    #[test]
    fn what_came_before_is_thrown_away() {
        let (there, inbox) = pair();
        for _ in 0..50 {
            there.send(b"old").expect("sent");
        }
        let mut batch = Batch::new(8);
        let thrown = inbox.discard(&mut batch, clock::now()).expect("readable");
        assert_eq!((thrown, batch.len()), (50, 0));
        there.send(b"new").expect("sent");
        fill(&inbox, &mut batch, 1);
    }

    #[test]
    fn a_full_queue_is_counted_by_the_system() {
        if !cfg!(target_os = "linux") {
            return;
        }
        let socket = UdpSocket::bind(LOCAL).expect("a free port");
        assert_eq!(drops(&socket), Some(0));
        let there = outbox(LOCAL.ip(), socket.local_addr().expect("bound")).expect("a free port");
        for _ in 0..10_000 {
            there.send(&[0; 1000]).expect("sent");
        }
        let held = {
            socket.set_nonblocking(true).expect("a socket");
            std::iter::from_fn(|| socket.recv(&mut [0; 1000]).ok()).count() as u64
        };
        assert_eq!(drops(&socket), Some(10_000 - held));
    }

    #[test]
    fn a_refusal_is_told_to_who_sends() {
        let closed = UdpSocket::bind(LOCAL).expect("a free port");
        let addr = closed.local_addr().expect("bound");
        drop(closed);
        let there = outbox(LOCAL.ip(), addr).expect("a free port");
        let deadline = clock::now().after(Duration::from_secs(10));
        let refused = |result: io::Result<usize>| {
            result.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
        };
        while !refused(there.send(b"anybody?")) {
            assert!(clock::now() < deadline, "nobody refuses");
        }
    }

    #[test]
    fn a_group_is_joined() {
        let group = SocketAddr::from(([239, 255, 77, 19], 0));
        let inbox = match Inbox::bind(group, Some(Ipv4Addr::LOCALHOST)) {
            Ok(inbox) => inbox,
            Err(error) => return eprintln!("passed by: no multicast here: {error}"),
        };
        let there = UdpSocket::bind(LOCAL).expect("a free port");
        // From an interface's own address, so that the system takes that interface.
        let to = SocketAddr::new(group.ip(), inbox.addr().port());
        if let Err(error) = there.send_to(b"all", to) {
            return eprintln!("passed by: no multicast here: {error}");
        }
        let mut batch = Batch::new(2);
        fill(&inbox, &mut batch, 1);
    }
}

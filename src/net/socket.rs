//! Sockets and the few kernel settings around them, with errors that say where.
//!
//! What std lacks comes from feature `sockopt`; without it each function here says `None` or
//! does nothing, and everything else still works.

use std::{
    io,
    io::Read,
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

#[cfg(target_os = "linux")]
use crate::net::shared_reply::{SharedReply, stamp_of_now};
use crate::{
    error::{Error, Phase, Result},
    net::clock,
    text::escape,
    units::Moment,
};

/// Connections that may wait to be accepted. std asks for 128, which 1000 clients overflow.
#[cfg(all(unix, feature = "sockopt"))]
const BACKLOG: i32 = 4096;

/// How old the system's table of connections may be.
#[cfg(target_os = "linux")]
const TABLE_AGE: Duration = Duration::from_millis(500);

/// Listens on `addr`.
///
/// # Errors
/// The system's, with the address; for a port in use, who holds it.
pub fn listen(addr: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(addr).map_err(|source| {
        if source.kind() == io::ErrorKind::AddrInUse {
            return Error::refused(addr, in_use(addr.port()));
        }
        let step = match source.kind() {
            io::ErrorKind::AddrNotAvailable => {
                "this machine has no such address; --listen with a port alone takes all it has"
            }
            io::ErrorKind::PermissionDenied => "choose a port from 1024 on with --listen",
            _ => return Error::io("listen", addr)(source),
        };
        Error::io("listen", addr)(source).advise(step)
    })?;
    #[cfg(all(unix, feature = "sockopt"))]
    socket2::SockRef::from(&listener).listen(BACKLOG).map_err(Error::io("listen", addr))?;
    Ok(listener)
}

/// Adds to an error of [`connect`] what the user can do; `refused` is that where nobody listens.
pub fn advise(error: Error, refused: &str) -> Error {
    let Error::Io { source, .. } = &error else { return error };
    match source.kind() {
        io::ErrorKind::ConnectionRefused => error.advise(refused),
        io::ErrorKind::TimedOut
        | io::ErrorKind::HostUnreachable
        | io::ErrorKind::NetworkUnreachable => {
            error.advise("is the address right, and does a firewall let its port through?")
        }
        _ => error,
    }
}

/// Connects to the first of `addrs` that answers before `deadline`.
///
/// # Errors
/// The last address's failure.
pub fn connect(addrs: &[SocketAddr], deadline: Moment) -> Result<TcpStream> {
    let mut last = None;
    for &addr in addrs {
        while let Some(left) = clock::left(deadline) {
            match TcpStream::connect_timeout(&addr, left) {
                Ok(stream) => {
                    // Messages are single lines that the other side waits for.
                    stream.set_nodelay(true).map_err(Error::io("set up the connection", addr))?;
                    return Ok(stream);
                }
                // std waits again where its wait is interrupted, but not where its call is.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    last = Some(Error::io("connect", addr)(error));
                    break;
                }
            }
        }
    }
    Err(last.unwrap_or_else(|| {
        let first = addrs.first().map_or_else(String::new, ToString::to_string);
        Error::timed_out(Phase::Connect, first, Duration::ZERO)
    }))
}

/// Bounds the next reads by `deadline`; `false` when it has passed.
pub fn bound_read(stream: &TcpStream, deadline: Moment) -> io::Result<bool> {
    match clock::left(deadline) {
        Some(left) => stream.set_read_timeout(Some(left)).map(|()| true),
        None => Ok(false),
    }
}

/// Reads what has come into `buffer`, or waits for it until `deadline`; 0 when the peer closed.
///
/// # Errors
/// The system's; when the deadline passes, one that `Error::is_timeout` knows.
pub fn read_until(
    mut stream: &TcpStream,
    buffer: &mut [u8],
    deadline: Moment,
) -> io::Result<usize> {
    by(stream, deadline, || stream.read(buffer))
}

/// The same, and what was read is there for the next read too.
///
/// # Errors
/// As [`read_until`].
pub fn peek_until(stream: &TcpStream, buffer: &mut [u8], deadline: Moment) -> io::Result<usize> {
    by(stream, deadline, || stream.peek(buffer))
}

/// Calls `read` with what is left until `deadline`, again where it was interrupted.
pub(super) fn by<T>(
    stream: &TcpStream,
    deadline: Moment,
    mut read: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    loop {
        if !bound_read(stream, deadline)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match read() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
    }
}

/// Fills `bytes`, by `deadline`.
pub fn read_exact(stream: &TcpStream, bytes: &mut [u8], deadline: Moment) -> io::Result<()> {
    let mut len = 0;
    while len < bytes.len() {
        match read_until(stream, &mut bytes[len..], deadline)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => len += read,
        }
    }
    Ok(())
}

/// Whether the peer has closed its half, without waiting and without taking what it sent.
pub fn is_closed(stream: &TcpStream) -> io::Result<bool> {
    stream.set_nonblocking(true)?;
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    match peeked {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        peeked => Ok(peeked.is_ok_and(|len| len == 0)),
    }
}

/// Closes a connection so that what was sent still arrives: a close with unread input would destroy
/// it (RFC 1122, section 4.2.2.13). Reads on until the peer closes, for a second at most.
pub fn close(stream: &TcpStream) {
    let deadline = clock::now().after(Duration::from_secs(1));
    if stream.shutdown(Shutdown::Write).is_err() {
        return;
    }
    while matches!(read_until(stream, &mut [0; 2048], deadline), Ok(len) if len > 0) {}
}

/// Chooses the congestion control of `stream`.
///
/// # Errors
/// The kernel lacks or forbids it, or this build has no feature `sockopt`.
pub fn set_congestion(stream: &TcpStream, name: &str) -> io::Result<()> {
    #[cfg(all(target_os = "linux", feature = "sockopt"))]
    return socket2::SockRef::from(stream).set_tcp_congestion(name.as_bytes());
    #[cfg(not(all(target_os = "linux", feature = "sockopt")))]
    {
        let _ = (stream, name);
        Err(io::Error::new(io::ErrorKind::Unsupported, "built without feature sockopt"))
    }
}

/// Has a connection that bbr controls use cubic where both its ends are on this host: no link is
/// shared there, and bbr's pacing halves the speed (25 clients: 1.0 s for 100 MB each, and 0.5 s).
pub fn leave_bbr_within_host(stream: &TcpStream) {
    let (Ok(peer), Ok(here)) = (stream.peer_addr(), stream.local_addr()) else { return };
    let is_within = peer.ip() == here.ip() || peer.ip().to_canonical().is_loopback();
    if is_within && congestion(stream).as_deref() == Some("bbr") {
        // Where the system forbids it, the connection stays as it is.
        let _ = set_congestion(stream, "cubic");
    }
}

/// The congestion control that `stream` runs, where it can be asked.
pub fn congestion(stream: &TcpStream) -> Option<String> {
    #[cfg(all(target_os = "linux", feature = "sockopt"))]
    {
        let name = socket2::SockRef::from(stream).tcp_congestion().ok()?;
        let name: Vec<u8> = name.into_iter().take_while(|&byte| byte != 0).collect();
        String::from_utf8(name).ok()
    }
    #[cfg(not(all(target_os = "linux", feature = "sockopt")))]
    {
        let _ = stream;
        // A system that has never been told otherwise gives every socket its default.
        let name = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").ok()?;
        Some(name.trim().to_owned())
    }
}

/// Notices a peer that vanished: probes after 10 s of silence, three times.
pub fn keep_alive(stream: &TcpStream) {
    #[cfg(all(unix, feature = "sockopt"))]
    {
        let probes = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(10))
            .with_interval(Duration::from_secs(5));
        if let Err(error) = socket2::SockRef::from(stream).set_tcp_keepalive(&probes) {
            log::debug!("no keep-alive: {error}");
        }
    }
    #[cfg(not(all(unix, feature = "sockopt")))]
    let _ = stream;
}

/// As [`keep_alive`], for who is sent to as long as its connection stands: a host that vanished is
/// noticed within 5 s, whether or not it owes us an answer.
pub fn consent(stream: &TcpStream) {
    #[cfg(all(unix, feature = "sockopt"))]
    {
        let probes = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(2))
            .with_interval(Duration::from_secs(1));
        #[cfg(target_os = "linux")]
        let probes = probes.with_retries(2);
        let socket = socket2::SockRef::from(stream);
        let set = socket.set_tcp_keepalive(&probes);
        #[cfg(target_os = "linux")]
        let set = set.and_then(|()| socket.set_tcp_user_timeout(Some(Duration::from_secs(4))));
        if let Err(error) = set {
            log::debug!("no keep-alive: {error}");
        }
    }
    #[cfg(not(all(unix, feature = "sockopt")))]
    let _ = stream;
}

/// How many file descriptors this process may have open, raising the limit to `wanted` where the
/// system allows; `None` when it cannot be known.
pub fn descriptors(wanted: u64) -> Option<u64> {
    #[cfg(all(unix, feature = "sockopt"))]
    {
        use nix::sys::resource::Resource;
        let (soft, hard) = nix::sys::resource::getrlimit(Resource::RLIMIT_NOFILE).ok()?;
        if soft >= wanted {
            return Some(soft);
        }
        let raised = wanted.min(hard);
        match nix::sys::resource::setrlimit(Resource::RLIMIT_NOFILE, raised, hard) {
            Ok(()) => Some(raised),
            Err(_) => Some(soft),
        }
    }
    #[cfg(not(all(unix, feature = "sockopt")))]
    {
        let _ = wanted;
        let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
        let line = limits.lines().find(|line| line.starts_with("Max open files"))?;
        line.split_whitespace().nth(3)?.parse().ok()
    }
}

/// Bytes that were sent on `stream` and not acknowledged by its peer's system half a second ago or
/// later; `None` where it cannot be told.
pub fn unacknowledged(stream: &TcpStream) -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        use std::{convert::Infallible, os::fd::AsRawFd};

        // Linux walks all its connections for it, so that all who ask share one.
        static TABLE: SharedReply = SharedReply::new();
        let link = std::fs::read_link(format!("/proc/self/fd/{}", stream.as_raw_fd())).ok()?;
        let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        let tables = || {
            let read = |path| std::fs::read(path).unwrap_or_default();
            Ok::<_, Infallible>([read("/proc/net/tcp"), read("/proc/net/tcp6")].concat())
        };
        let table = TABLE.get(stamp_of_now(TABLE_AGE), tables).ok()?;
        std::str::from_utf8(&table).ok()?.lines().find_map(|line| {
            let mut columns = line.split_whitespace().skip(4);
            let (queued, _) = columns.next()?.split_once(':')?;
            let is_ours = columns.nth(4)? == inode;
            is_ours.then(|| u64::from_str_radix(queued, 16).ok())?
        })
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = stream;
        None
    }
}

/// True once both ends have closed a connection and each has all that the other sent. Asked of one
/// of which the peer has closed its end, and we ours.
///
/// # Errors
/// The peer reset it instead.
pub fn is_over(stream: &TcpStream) -> io::Result<bool> {
    match stream.take_error()? {
        Some(error) => Err(error),
        // Linux forgets the peer then, and no sooner.
        None => Ok(!cfg!(target_os = "linux") || stream.peer_addr().is_err()),
    }
}

/// Who holds `port`, for a person who wants to end that program.
fn in_use(port: u16) -> String {
    match holder(port) {
        Some((pid, name)) => format!(
            "port {port} is in use by process {pid} ({}); end it or choose another with --listen",
            escape(&name)
        ),
        None if cfg!(target_os = "linux") => format!(
            "port {port} is in use by another program; `ss -ltnp 'sport = :{port}'` names it, or choose another with --listen"
        ),
        None => format!("port {port} is in use by another program; choose another with --listen"),
    }
}

/// The process that listens on `port`, by the socket's inode as Linux shows it.
fn holder(port: u16) -> Option<(u32, String)> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        for line in std::fs::read_to_string(table).unwrap_or_default().lines().skip(1) {
            let mut columns = line.split_whitespace().skip(1);
            let local = columns.next()?.rsplit_once(':')?.1;
            // State 0A is LISTEN.
            if columns.nth(1)? == "0A" && u16::from_str_radix(local, 16).ok()? == port {
                inodes.push(format!("socket:[{}]", columns.nth(5)?));
            }
        }
    }
    for process in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let Ok(descriptors) = std::fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = |link: std::path::PathBuf| {
            inodes.iter().any(|inode| link.as_os_str() == inode.as_str())
        };
        if descriptors.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(holds) {
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some((pid, name.trim().to_owned()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_in_use_names_its_holder() {
        let held = listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let addr = held.local_addr().expect("bound");
        let error = listen(addr).expect_err("held").to_string();
        assert!(error.contains(&addr.port().to_string()), "{error}");
        if cfg!(target_os = "linux") {
            assert!(error.contains(&std::process::id().to_string()), "{error}");
        }
    }

    #[test]
    fn connection_is_over_when_both_ends_have_all_and_closed() {
        use std::io::Write;

        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let deadline = clock::now().after(Duration::from_secs(20));
        let closed_at_both_ends = || {
            let addr = listener.local_addr().expect("bound");
            let theirs = TcpStream::connect(addr).expect("listening");
            let (mut ours, _) = listener.accept().expect("a client");
            ours.set_write_timeout(Some(Duration::from_millis(100))).expect("a setting");
            // As much as both systems take from one end for another that does not read.
            let mut sent = 0;
            while let Ok(written) = ours.write(&[1; 64 * 1024]) {
                sent += written;
            }
            theirs.shutdown(Shutdown::Write).expect("open");
            ours.shutdown(Shutdown::Write).expect("open");
            assert_eq!(read_until(&ours, &mut [0; 1], deadline).expect("closed"), 0);
            let lacks_bytes = cfg!(target_os = "linux");
            assert_ne!(is_over(&ours).expect("no reset"), lacks_bytes, "{sent} bytes not read");
            (ours, theirs, sent)
        };
        let (ours, mut theirs, sent) = closed_at_both_ends();
        assert_eq!(theirs.read_to_end(&mut Vec::new()).expect("all of it"), sent);
        while !is_over(&ours).expect("no reset") {
            assert!(clock::left(deadline).is_some(), "both have closed, and all is read");
        }
        let (ours, theirs, _) = closed_at_both_ends();
        drop(theirs);
        while cfg!(target_os = "linux") && is_over(&ours).map(|over| assert!(!over)).is_ok() {
            assert!(clock::left(deadline).is_some(), "a peer that leaves without reading");
        }
    }

    #[test]
    fn what_a_deaf_peer_did_not_take_is_unacknowledged() {
        use std::io::Write;

        let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        let deaf = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        let (mut ours, _) = listener.accept().expect("a client");
        if !cfg!(target_os = "linux") {
            return assert_eq!(unacknowledged(&ours), None);
        }
        ours.set_nonblocking(true).expect("a setting");
        while ours.write(&[1; 64 * 1024]).is_ok() {}
        let deadline = clock::now().after(Duration::from_secs(20));
        while unacknowledged(&ours).is_none_or(|bytes| bytes < 1000) {
            assert!(clock::left(deadline).is_some(), "{:?}", unacknowledged(&ours));
            std::thread::sleep(TABLE_AGE / 10);
        }
        drop(deaf);
    }

    #[test]
    fn bbr_is_left_within_one_host_and_others_stay() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("accepted");
        for (name, then) in [("reno", "reno"), ("bbr", "cubic")] {
            // An unprivileged user may choose only some, and a system may lack bbr.
            if set_congestion(&stream, name).is_ok() {
                leave_bbr_within_host(&stream);
                let now = congestion(&stream).expect("it was chosen");
                assert!(now == then || set_congestion(&stream, then).is_err(), "{now}");
            }
        }
    }

    #[test]
    fn the_kernel_facts_are_plausible() {
        if cfg!(target_os = "linux") {
            assert!(descriptors(0).expect("a limit") >= 16);
            let name = TcpListener::bind(("127.0.0.1", 0))
                .and_then(|l| TcpStream::connect(l.local_addr()?))
                .ok()
                .and_then(|stream| congestion(&stream))
                .expect("Linux names it");
            assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic()), "{name}");
        }
    }
}

//! Sockets and the few kernel settings around them, with errors that say where.
//!
//! What std lacks comes from feature `sockopt`; without it each function here says `None` or
//! does nothing, and everything else still works.

use std::{
    io,
    io::Read,
    net::{
        IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket,
    },
    path::Path,
    time::Duration,
};

#[cfg(target_os = "linux")]
use crate::net::shared_reply::{SharedReply, stamp_of_now};
use crate::{
    error::{Error, Phase, Result},
    net::clock,
    proto::line,
    text::escape,
    units::{InvalidValue, Moment},
};

/// Connections that may wait to be accepted. std asks for 128, which 1000 clients overflow.
#[cfg(feature = "sockopt")]
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
    #[cfg(feature = "sockopt")]
    socket2::SockRef::from(&listener).listen(BACKLOG).map_err(Error::io("listen", addr))?;
    Ok(listener)
}

/// All addresses of `host`, which is `HOST` or `HOST:PORT`.
///
/// # Errors
/// It is neither, or the name is unknown.
pub fn resolve(host: &str, default_port: u16) -> Result<Vec<SocketAddr>> {
    let (name, port) = split_host(host, default_port).map_err(Error::usage)?;
    // Without its brackets the system also knows a link by its name: fe80::1%eth0.
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let unknown = |error| {
        let step = "check the spelling, or give the address in numbers";
        Error::io("find the host", escape(host))(error).advise(step)
    };
    let addrs: Vec<SocketAddr> = (name, port).to_socket_addrs().map_err(unknown)?.collect();
    if addrs.is_empty() { Err(Error::refused(host, "the name has no address")) } else { Ok(addrs) }
}

/// The name and the port of `HOST` or `HOST:PORT`.
fn split_host(host: &str, default_port: u16) -> Result<(&str, u16), InvalidValue> {
    if host.is_empty() || host.contains('/') {
        let expected = "HOST or HOST:PORT; a file's name is a word of its own behind it";
        return Err(InvalidValue::new("address", host, expected));
    }
    // The colons of an IPv6 address without brackets belong to it.
    let with_port = host
        .rsplit_once(':')
        .filter(|(name, _)| !name.is_empty() && (!name.contains(':') || name.ends_with(']')));
    let Some((name, port)) = with_port else {
        return Ok((host, default_port));
    };
    let number = line::decimal(port).and_then(|port| u16::try_from(port).ok());
    let invalid = || InvalidValue::new("port", port, format!("1 to 65535 in '{}'", escape(host)));
    Ok((name, number.filter(|&port| port > 0).ok_or_else(invalid)?))
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
        let Some(left) = clock::left(deadline) else {
            break;
        };
        match TcpStream::connect_timeout(&addr, left) {
            Ok(stream) => {
                // Messages are single lines that the other side waits for.
                stream.set_nodelay(true).map_err(Error::io("set up the connection", addr))?;
                return Ok(stream);
            }
            Err(error) => last = Some(Error::io("connect", addr)(error)),
        }
    }
    Err(last.unwrap_or_else(|| Error::TimedOut {
        phase: Phase::Connect.name(),
        at: addrs.first().map_or_else(String::new, ToString::to_string),
        after: Duration::ZERO,
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
    loop {
        if !bound_read(stream, deadline)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match stream.read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => return read,
        }
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
    #[cfg(feature = "sockopt")]
    {
        let probes = socket2::TcpKeepalive::new()
            .with_time(Duration::from_secs(10))
            .with_interval(Duration::from_secs(5));
        if let Err(error) = socket2::SockRef::from(stream).set_tcp_keepalive(&probes) {
            log::debug!("no keep-alive: {error}");
        }
    }
    #[cfg(not(feature = "sockopt"))]
    let _ = stream;
}

/// As [`keep_alive`], for who is sent to as long as its connection stands: a host that vanished is
/// noticed within 5 s, whether or not it owes us an answer.
pub fn consent(stream: &TcpStream) {
    #[cfg(feature = "sockopt")]
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
    #[cfg(not(feature = "sockopt"))]
    let _ = stream;
}

/// `addr` as an IPv4 one where it is one in an IPv6 one's clothes; any other as it is, with the link
/// that a link-local address is of.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, addr.port()).into(),
        IpAddr::V6(_) => addr,
    }
}

/// The address of this machine on the way to others; `None` where there is no such way.
pub fn outward() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Connecting a UDP socket sends nothing, it only asks the routing table. 192.0.2.0/24 is
    // nobody's (RFC 5737).
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
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

/// Bytes that an ordinary user may still write below `folder`; `None` where it cannot be asked.
pub fn free_space(folder: &Path) -> Option<u64> {
    #[cfg(all(unix, feature = "sockopt"))]
    {
        let stat = nix::sys::statvfs::statvfs(folder).ok()?;
        // The field widths differ by platform.
        #[allow(clippy::useless_conversion, clippy::unnecessary_fallible_conversions)]
        let bytes = u64::try_from(stat.blocks_available())
            .ok()?
            .checked_mul(u64::try_from(stat.fragment_size()).ok()?);
        bytes
    }
    #[cfg(not(all(unix, feature = "sockopt")))]
    {
        let _ = folder;
        None
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
        None => format!(
            "port {port} is in use by another program; `ss -ltnp 'sport = :{port}'` names it, or choose another with --listen"
        ),
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
    fn an_address_keeps_its_link_and_loses_its_clothes() {
        let of = |text: &str| canonical(text.parse().expect("an address")).to_string();
        assert_eq!(of("[::ffff:192.0.2.1]:80"), "192.0.2.1:80");
        assert_eq!(of("[fe80::1%3]:80"), "[fe80::1%3]:80");
        assert_eq!(of("192.0.2.1:80"), "192.0.2.1:80");
    }

    #[test]
    fn hosts_are_read_with_and_without_port() {
        let first = |host: &str| resolve(host, 8080).map(|addrs| addrs[0].to_string()).ok();
        assert_eq!(first("127.0.0.1").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(first("127.0.0.1:9").as_deref(), Some("127.0.0.1:9"));
        assert_eq!(first("::1").as_deref(), Some("[::1]:8080"));
        assert_eq!(first("[::1]").as_deref(), Some("[::1]:8080"));
        assert_eq!(first("[::1]:9").as_deref(), Some("[::1]:9"));
        assert_eq!(first("127.0.0.1:65535").as_deref(), Some("127.0.0.1:65535"));
        let refused = |host: &str| resolve(host, 8080).expect_err("no address").to_string();
        for (host, port) in [
            ("127.0.0.1:99999", "99999"),
            ("127.0.0.1:65536", "65536"),
            ("127.0.0.1:0", "0"),
            ("localhost:", ""),
            ("localhost:http", "http"),
            ("[::1]:+1", "+1"),
        ] {
            let expected = format!("invalid port '{port}': expected 1 to 65535 in '{host}'");
            assert_eq!(refused(host), expected);
        }
        for host in ["", "127.0.0.1:8080/text.txt", "http://localhost/", "localhost/"] {
            let expected = format!("invalid address '{host}': expected HOST or HOST:PORT; ");
            assert!(refused(host).starts_with(&expected), "{}", refused(host));
        }
        if cfg!(target_os = "linux") {
            // The first link of every namespace is loopback.
            for host in ["[fe80::1%lo]:9", "[fe80::1%1]:9"] {
                assert_eq!(first(host).as_deref(), Some("[fe80::1%1]:9"), "{host}");
            }
            assert_eq!(first("fe80::1%lo").as_deref(), Some("[fe80::1%1]:8080"));
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
        if cfg!(all(unix, feature = "sockopt")) {
            assert!(free_space(Path::new("/")).is_some());
        }
    }
}

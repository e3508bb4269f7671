//! A host of a star: a namespace to act in, an address, a link with counters.
//!
//! A host need not be one of our stars: a file of hosts, one a line, describes a network that was
//! built by other means (`examples/mininet_star.py` does) and is used as it is.

use std::{
    fmt, fs, io,
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    error::{Error, Result},
    net::text_file,
    testbed::star::{
        layout::{HOSTS_MAX, LinkRates},
        namespace,
    },
    text::escape,
};

/// A host.
#[derive(Clone, Debug, PartialEq)]
pub struct Host {
    /// The file of its network namespace.
    pub namespace: PathBuf,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its device.
    pub device: String,
    /// The nominal rates of its link.
    pub link: LinkRates,
}

/// What a host's link has carried, as its own device counts, with all headers but the checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkBytes {
    /// Bytes from the host.
    pub up: u64,
    /// Bytes that reached the host.
    pub down: u64,
}

/// Largest file of hosts, bytes.
const FILE_MAX: u64 = 1 << 20;

/// A port on which no program listens; one that did would discard what it gets (RFC 863).
const DISCARD: u16 = 9;

impl Host {
    /// Does something inside the host's namespace.
    ///
    /// # Errors
    /// The namespace is gone, or must not be entered.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        namespace::enter(&self.namespace, work)
    }

    /// Starts a program on the host.
    ///
    /// # Errors
    /// As [`enter`](Self::enter), and the program cannot be started.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        let program = command.get_program().to_string_lossy().into_owned();
        self.enter(|| command.spawn())?.map_err(Error::io("start a program", program))
    }

    /// What its link has carried so far.
    ///
    /// # Errors
    /// The namespace is gone, or has no such device.
    pub fn carried(&self) -> Result<LinkBytes> {
        let table = self.enter(|| fs::read_to_string("/proc/thread-self/net/dev"))?;
        let table = table.map_err(Error::io("read the link's counters", &self.device))?;
        device(&table, &self.device)
            .ok_or_else(|| Error::refused(self.address, format!("no device {}", self.device)))
    }

    /// True when `other` answers within `patience`; that the port is closed is an answer too.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn reaches(&self, other: Ipv4Addr, patience: Duration) -> Result<bool> {
        let answer =
            self.enter(|| TcpStream::connect_timeout(&(other, DISCARD).into(), patience))?;
        Ok(answer.map_or_else(|error| error.kind() == io::ErrorKind::ConnectionRefused, |_| true))
    }

    /// True when something listens on TCP port `port` of the host.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn listens(&self, port: u16) -> Result<bool> {
        let tables = self.enter(|| {
            ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"]
                .map(|path| fs::read_to_string(path).unwrap_or_default())
        })?;
        Ok(tables.iter().any(|table| has_listener(table, port)))
    }
}

impl LinkBytes {
    /// What was carried since `earlier`.
    pub fn since(self, earlier: Self) -> Self {
        Self {
            up: self.up.saturating_sub(earlier.up),
            down: self.down.saturating_sub(earlier.down),
        }
    }
}

/// Takes a device's line out of `/proc/net/dev`: received bytes are its first number, sent bytes
/// its ninth.
fn device(table: &str, name: &str) -> Option<LinkBytes> {
    let line =
        table.lines().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix(':'))?;
    let mut numbers = line.split_ascii_whitespace();
    let down = numbers.next()?.parse().ok()?;
    let up = numbers.nth(7)?.parse().ok()?;
    Some(LinkBytes { up, down })
}

/// Looks for a socket in state LISTEN (0A) in `/proc/net/tcp`.
fn has_listener(table: &str, port: u16) -> bool {
    let end = format!(":{port:04X}");
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next().is_some_and(|local| local.ends_with(&end));
        local && fields.nth(1) == Some("0A")
    })
}

/// Reads a file of hosts, the server first. A line is the namespace (a file such as
/// `/proc/4711/ns/net`, or the number of a process in it), the address, and the device; blanks
/// between them; `#` begins a comment. All links have the nominal rates of `link`.
///
/// # Errors
/// A line that is wrong, with its number; fewer than two hosts.
pub fn read(path: &Path, link: LinkRates) -> Result<Vec<Host>> {
    parse(&text_file::read(path, FILE_MAX)?, path.display(), link)
}

/// The same of the text of the file `at`.
///
/// # Errors
/// As [`read`].
pub fn parse(text: &str, at: impl fmt::Display, link: LinkRates) -> Result<Vec<Host>> {
    let mut hosts: Vec<Host> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.split('#').next().unwrap_or("").trim();
        if line.is_empty() {
            continue;
        }
        let wrong = |what: String| Error::protocol(format_args!("{at}, line {number},"), what);
        let host = parse_line(line, link).map_err(wrong)?;
        if hosts.iter().any(|other| other.address == host.address) {
            return Err(wrong(format!("a second host has the address {}", host.address)));
        }
        hosts.push(host);
    }
    match hosts.len() {
        2..=HOSTS_MAX => Ok(hosts),
        count => Err(Error::refused(
            at,
            format!("{count} hosts; it takes a server and 1 to {} clients", HOSTS_MAX - 1),
        )),
    }
}

fn parse_line(line: &str, link: LinkRates) -> std::result::Result<Host, String> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let [namespace, address, device] = words[..] else {
        return Err(format!("'{}' is not NAMESPACE ADDRESS DEVICE", escape(line)));
    };
    let namespace = match namespace.parse::<u32>() {
        Ok(process) => PathBuf::from(format!("/proc/{process}/ns/net")),
        Err(_) => PathBuf::from(namespace),
    };
    Ok(Host {
        namespace,
        address: address
            .parse()
            .map_err(|_| format!("'{}' is not an IPv4 address", escape(address)))?,
        device: device.to_owned(),
        link,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::Rate;

    const LINK: LinkRates = LinkRates { up: Rate(100_000_000), down: Rate(100_000_000) };

    #[test]
    fn counters_are_the_devices_own() {
        let table = "Inter-|   Receive                |  Transmit\n\
                      face |bytes packets errs drop fifo frame compressed multicast|bytes\n\
                     \x20   lo:     1 2 0 0 0 0 0 0    3 4 0 0 0 0 0 0\n\
                     \x20 eth0: 1000    7 0 0 0 0 0 0 50000 90 0 0 0 0 0 0\n";
        let carried = LinkBytes { up: 50_000, down: 1000 };
        assert_eq!(device(table, "eth0"), Some(carried));
        assert_eq!(device(table, "eth"), None);
        assert_eq!(device("", "eth0"), None);
    }

    #[test]
    fn listener_is_found_by_its_port() {
        let table = "  sl  local_address rem_address   st\n\
             \x20  0: 01004D0A:1F90 00000000:0000 0A 00000000:00000000\n\
             \x20  1: 01004D0A:1F91 02004D0A:8000 01 00000000:00000000\n";
        assert!(has_listener(table, 8080));
        assert!(!has_listener(table, 8081), "connected, not listening");
        assert!(!has_listener(table, 80));
    }

    #[test]
    fn file_of_hosts_is_read_or_refused_by_line() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("hosts");
        let read = |text: &str| {
            fs::write(&path, text).expect("written");
            read(&path, LINK)
        };
        let hosts = read("# server\n4711 10.0.0.1 h1-eth0\n\n /run/x 10.0.0.2 eth0 # c\n")
            .expect("two hosts");
        assert_eq!(hosts[0].namespace, Path::new("/proc/4711/ns/net"));
        assert_eq!(hosts[1].namespace, Path::new("/run/x"));
        assert_eq!(hosts[1].address, Ipv4Addr::new(10, 0, 0, 2));
        for (text, says) in [
            ("", "0 hosts"),
            ("1 10.0.0.1 eth0", "1 hosts"),
            ("1 10.0.0.1", "line 1, broke the protocol: '1 10.0.0.1' is not NAMESPACE"),
            ("\n1 10.0.0.300 e", "line 2, broke the protocol: '10.0.0.300' is not an IPv4 address"),
            ("1 10.0.0.1 e\n2 10.0.0.1 e", "line 2, broke the protocol: a second host"),
        ] {
            let error = read(text).expect_err(text).to_string();
            assert!(error.contains(says), "{error}");
        }
    }
}

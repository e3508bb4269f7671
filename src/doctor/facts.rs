//! What the system says, and a server.

use std::{
    fs::{File, OpenOptions, remove_file},
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use crate::{
    client::echo::EchoAnswer,
    error::{Error, Result},
    net::{address, clock, datagrams::BatchSocket, files, socket},
    transport::udp::socket::RecvSocket,
};

/// Everything that a diagnosis needs.
#[derive(Debug)]
pub struct Facts {
    /// The ports of a server and of a relay; empty where a server was asked.
    pub ports: Vec<PortFact>,
    /// Who hears the datagrams to a group; `None` where a server was asked.
    pub group: Option<GroupFact>,
    /// The receive buffer that a UDP socket gets, bytes.
    pub buffer: u64,
    /// How many clients are to run here.
    pub clients: u16,
    /// How many files this process may have open.
    pub descriptors: Option<u64>,
    /// The folder for copies.
    pub folder: FolderFact,
    /// Whether the system's time of day is synchronised.
    pub clock: Option<bool>,
    /// Whether the processor has SHA instructions.
    pub sha: bool,
    /// Whether this build uses them.
    pub sha_used: bool,
    /// Whether a star can be built here, or why not; `None` where a server was asked.
    pub star: Option<Result<(), String>>,
    /// The server, as the user named it, and what came of asking it.
    pub host: Option<(String, EchoAnswer)>,
}

/// A port that a server or a relay listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortFact {
    /// Whose it is: `serve` or `relay`.
    pub user: &'static str,
    /// `TCP 8080`.
    pub name: String,
    /// Why it cannot be had, and what the user can do.
    pub obstacle: Option<String>,
}

/// Whether a member of a group on this machine hears the machine itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupFact {
    /// The address by whose interface the datagram leaves.
    pub interface: Option<Ipv4Addr>,
    /// Whether it was heard, or what the system refused.
    pub heard: Result<bool, String>,
}

/// The folder for copies.
#[derive(Clone, Debug, PartialEq)]
pub struct FolderFact {
    /// Its path.
    pub path: PathBuf,
    /// Bytes that may still be written.
    pub free: Option<u64>,
    /// Bytes a second that were written and synced; or why none can be written.
    pub rate: Result<f64, String>,
}

/// How much is written to a folder at most, bytes, ...
const WRITTEN_MAX: usize = 32 << 20;

/// ... for how long, so that a slow disk is not kept busy, ...
const WRITE_LIMIT: Duration = Duration::from_secs(1);

/// ... and between two syncs.
const SLICE: usize = 4 << 20;

/// How long a datagram of this machine may take to come back.
const GROUP_WAIT: Duration = Duration::from_millis(300);

/// How long `timedatectl` may take.
const TOOL_LIMIT: Duration = Duration::from_secs(1);

/// Whether `addr` can be listened on, for `user`.
pub fn tcp_port(user: &'static str, addr: SocketAddr) -> PortFact {
    let obstacle = socket::listen(addr).err().map(|error| match error {
        Error::Refused { reason, .. } => reason,
        other => other.to_string(),
    });
    PortFact { user, name: format!("TCP {}", addr.port()), obstacle }
}

/// Whether datagrams to `addr` can be received, for `user`.
pub fn udp_port(user: &'static str, addr: SocketAddr) -> PortFact {
    let port = addr.port();
    let obstacle = UdpSocket::bind(addr).err().map(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "UDP port {port} is in use; `ss -lunp 'sport = :{port}'` names the program, or choose \
             another with --input"
        ),
        _ => format!("UDP {addr}: {error}"),
    });
    PortFact { user, name: format!("UDP {port}"), obstacle }
}

/// Sends to a group on the interface with the address `interface`, `None` being the first that leads
/// to others, and listens.
pub fn group(interface: Option<Ipv4Addr>) -> GroupFact {
    let outward = || address::outward().and_then(|ip| ip.to_string().parse().ok());
    let interface = interface.or_else(outward).or_else(first_address);
    let heard =
        interface.map_or(Ok(false), |ip| receive_own(ip).map_err(|error| error.to_string()));
    GroupFact { interface, heard }
}

fn receive_own(interface: Ipv4Addr) -> io::Result<bool> {
    let random = clock::random().to_le_bytes();
    let group = Ipv4Addr::new(239, 255, random[0], random[1].max(1));
    let member = BatchSocket::bind((group, 0).into(), Some(interface));
    let member = member.map_err(|error| io::Error::other(error.to_string()))?;
    let port = member.local_addr().port();
    UdpSocket::bind((interface, 0))?.send_to(&random, (group, port))?;
    let (deadline, mut bytes) = (clock::now().after(GROUP_WAIT), [0; 64]);
    while let Some(left) = clock::left(deadline) {
        member.socket().set_read_timeout(Some(left))?;
        if member.socket().recv_from(&mut bytes).is_ok_and(|(len, _)| bytes[..len] == random) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// This machine's first IPv4 address that is not loopback, as Linux shows it.
fn first_address() -> Option<Ipv4Addr> {
    let table = std::fs::read_to_string("/proc/thread-self/net/fib_trie").ok()?;
    let mut last = None;
    for line in table.lines() {
        if let Some(address) = line.trim_start().strip_prefix("|-- ") {
            last = address.parse::<Ipv4Addr>().ok();
        } else if line.contains("/32 host LOCAL")
            && let Some(address) = last.filter(|address| !address.is_loopback())
        {
            return Some(address);
        }
    }
    None
}

/// The receive buffer of a UDP socket that asks for as much as the clients of a session do.
///
/// # Errors
/// No socket can be opened.
pub fn receive_buffer() -> Result<u64> {
    Ok(RecvSocket::open(Ipv4Addr::LOCALHOST.into())?.room)
}

/// Whether and how fast `path`, or the nearest folder above it that is there, can be written.
pub fn folder(path: &Path) -> FolderFact {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let there = absolute.ancestors().find(|folder| folder.exists()).unwrap_or(&absolute);
    let free = files::free_space(there);
    let room = free.map_or(WRITTEN_MAX, |free| usize::try_from(free / 2).unwrap_or(usize::MAX));
    let rate = if there.is_dir() {
        write_rate(there, room.min(WRITTEN_MAX)).map_err(|error| error.to_string())
    } else {
        Err("it is no folder".to_owned())
    };
    FolderFact { path: path.to_owned(), free, rate }
}

/// A file that is removed when this is dropped, if the system has not let us do it before.
struct Scratch(Option<PathBuf>);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(path) = self.0.take() {
            let _ = remove_file(path);
        }
    }
}

/// Bytes a second that `folder` takes, measured with `bytes` at most.
fn write_rate(folder: &Path, bytes: usize) -> io::Result<f64> {
    let path = folder.join(format!(".gatecast-doctor-{:016x}", clock::random()));
    let mut file: File = OpenOptions::new().write(true).create_new(true).open(&path)?;
    // Where an open file may be removed, nothing is left even of a process that is killed.
    let _scratch = Scratch(remove_file(&path).is_err().then_some(path));
    let slice = vec![0xa5; SLICE.min(bytes)];
    let (begun, mut written) = (clock::now(), 0);
    while written + slice.len() <= bytes && !slice.is_empty() {
        file.write_all(&slice)?;
        file.sync_data()?;
        written += slice.len();
        if clock::left(begun.after(WRITE_LIMIT)).is_none() {
            break;
        }
    }
    let seconds = clock::now().since(begun).as_secs_f64();
    Ok(written as f64 / seconds.max(1e-6))
}

/// Whether the system's time of day is synchronised; `None` where nobody says.
pub fn clock_is_synchronised() -> Option<bool> {
    if Path::new("/run/systemd/timesync/synchronized").exists() {
        return Some(true);
    }
    let mut tool = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let deadline = clock::now().after(TOOL_LIMIT);
    while matches!(tool.try_wait(), Ok(None)) && clock::left(deadline).is_some() {
        thread::sleep(Duration::from_millis(5));
    }
    // Without effect on one that has ended.
    let _ = tool.kill();
    let said = tool.wait_with_output().ok()?.stdout;
    match said.trim_ascii() {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_is_measured_and_left_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder");
        let fact = self::folder(&folder.path().join("not/there/yet"));
        assert!(fact.rate.expect("it can be written") > 0.0);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
        let file = folder.path().join("file");
        std::fs::write(&file, "x").expect("room");
        assert_eq!(self::folder(&file).rate, Err("it is no folder".to_owned()));
    }

    #[test]
    fn scratch_file_is_removed_when_writing_fails() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("scratch");
        std::fs::write(&path, "x").expect("room");
        let failing = |_scratch: Scratch| Err::<(), _>(io::Error::other("the disk is full"));
        assert!(failing(Scratch(Some(path.clone()))).is_err());
        assert!(!path.exists());
    }

    #[test]
    fn port_that_is_held_is_told_with_its_holder() {
        let held = socket::listen(([127, 0, 0, 1], 0).into()).expect("a port");
        let fact = tcp_port("serve", held.local_addr().expect("bound"));
        let obstacle = fact.obstacle.expect("held");
        assert!(obstacle.contains("is in use by"), "{obstacle}");
        assert_eq!(tcp_port("serve", ([127, 0, 0, 1], 0).into()).obstacle, None);
        let held = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let fact = udp_port("relay", held.local_addr().expect("bound"));
        assert!(fact.obstacle.expect("held").contains("in use"));
    }

    #[test]
    fn loopback_hears_its_own_group() {
        let fact = group(Some(Ipv4Addr::LOCALHOST));
        assert_eq!(fact.heard, Ok(true), "{fact:?}");
    }
}

//! Hostile connections of every kind, a sixth of each, from four addresses. Each that the server
//! closes is opened again.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    thread,
    time::{Duration, Instant},
};

use gatecast::internals::net::socket;
use socket2::{Domain, Socket, Type};

use crate::{CLIENTS, ground::Dice, half_core::HalfCore};

/// How a line begins that says that every connection is open.
pub(crate) const ALL_OPEN: &str = "all open: ";

/// The attackers' addresses, beside the honest clients' 127.0.0.1.
const HOSTS: [Ipv4Addr; 4] = [
    Ipv4Addr::new(127, 0, 0, 2),
    Ipv4Addr::new(127, 0, 0, 3),
    Ipv4Addr::new(127, 0, 0, 4),
    Ipv4Addr::new(127, 0, 0, 5),
];

/// Each connection is looked at so often at most.
const LOOK: Duration = Duration::from_millis(250);

/// What a slow reader reads at one look: less than the server's 1 KiB a second asks of it.
const SLOW_READ: usize = 200;

/// What a connection does.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Silent,
    HalfJoin,
    HalfRequest,
    SlowReader,
    JoinWithoutReady,
    JoinAndClose,
}

const KINDS: [Kind; 6] = [
    Kind::Silent,
    Kind::HalfJoin,
    Kind::HalfRequest,
    Kind::SlowReader,
    Kind::JoinWithoutReady,
    Kind::JoinAndClose,
];

/// One hostile client, which comes again and again.
struct Hostile {
    kind: Kind,
    host: Ipv4Addr,
    stream: Option<TcpStream>,
    /// It has said all that it says.
    said: bool,
    /// It has been here before.
    came: bool,
}

/// What they have done.
#[derive(Default)]
struct Count {
    opened: u64,
    closed_by_server: u64,
    joins: u64,
}

/// Keeps `connections` open until the process is killed, and says each time how many there are.
pub(crate) fn attack(server: SocketAddr, connections: usize, seed: u64, half: HalfCore) {
    let limit = socket::descriptors(connections as u64 + 64).unwrap_or(1024);
    assert!(limit >= connections as u64 + 64, "the system allows {limit} descriptors");
    let mut all: Vec<Hostile> = (0..connections)
        .map(|number| Hostile {
            kind: KINDS[number % KINDS.len()],
            host: HOSTS[number / KINDS.len() % HOSTS.len()],
            stream: None,
            said: false,
            came: false,
        })
        .collect();
    let mut dice = Dice::of(seed);
    let mut count = Count::default();
    loop {
        let begun = Instant::now();
        dice.shuffle(&mut all);
        for hostile in &mut all {
            hostile.step(server, &mut count);
            half.pause();
        }
        let open = all.iter().filter(|hostile| hostile.stream.is_some()).count();
        let came = all.iter().filter(|hostile| hostile.came).count();
        let is_all = open.min(came) * 100 >= connections * 99;
        let word = if is_all { ALL_OPEN } else { "" };
        println!(
            "{word}{open} open, {} opened, {} closed by the server, {} JOINs, {:.0} % of a core",
            count.opened,
            count.closed_by_server,
            count.joins,
            half.used()
        );
        thread::sleep(LOOK.saturating_sub(begun.elapsed()));
    }
}

impl Kind {
    /// What it says once.
    fn words(self) -> String {
        match self {
            Self::Silent => String::new(),
            Self::HalfJoin => "GATECAST/1 JOIN group=10 na".to_owned(),
            Self::HalfRequest => {
                "GET /files/sample.bin HTTP/1.1\r\nHost: localhost\r\nX".to_owned()
            }
            Self::SlowReader => {
                "GET /files/sample.bin HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned()
            }
            Self::JoinWithoutReady | Self::JoinAndClose => {
                format!("GATECAST/1 JOIN group={CLIENTS} name=attack\n")
            }
        }
    }
}

impl Hostile {
    /// Opens the connection, says its words, or looks whether the server has closed it.
    fn step(&mut self, server: SocketAddr, count: &mut Count) {
        if self.said && self.kind == Kind::JoinAndClose {
            self.stream = None;
        }
        let Some(stream) = &mut self.stream else {
            return self.open(server, count);
        };
        let mut bytes = [0; 4096];
        let room = if self.kind == Kind::SlowReader { SLOW_READ } else { bytes.len() };
        let words = self.kind.words();
        let is_open = if self.said {
            match stream.read(&mut bytes[..room]) {
                Ok(len) => len > 0,
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            }
        } else {
            match stream.write(words.as_bytes()) {
                // A whole word always fits into the buffer of a new connection.
                Ok(len) => {
                    assert_eq!(len, words.len(), "the kernel took part of a word");
                    (self.said, self.came) = (true, true);
                    count.joins += u64::from(words.ends_with("name=attack\n"));
                    true
                }
                // Not connected yet.
                Err(error) => error.kind() == std::io::ErrorKind::WouldBlock,
            }
        };
        if !is_open {
            count.closed_by_server += 1;
            self.open(server, count);
        }
    }

    fn open(&mut self, server: SocketAddr, count: &mut Count) {
        self.said = false;
        self.stream = connect(server, self.host, self.kind);
        count.opened += u64::from(self.stream.is_some());
    }
}

/// Begins a connection from `host`; `None` where there is no port, or nobody listens.
fn connect(server: SocketAddr, host: Ipv4Addr, kind: Kind) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    if kind == Kind::SlowReader {
        socket.set_recv_buffer_size(1024).ok()?;
    }
    // A reset leaves no port behind, so that they do not run out.
    socket.set_linger(Some(Duration::ZERO)).ok()?;
    socket.bind(&SocketAddrV4::new(host, 0).into()).ok()?;
    socket.set_nonblocking(true).ok()?;
    // It is under way: what is written before it is open would block.
    let _ = socket.connect(&server.into());
    Some(socket.into())
}

//! Both ends: the source, the viewers, and one viewer that is stopped.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::Duration,
};

use gatecast::internals::{
    net::{
        clock, datagrams,
        datagrams::{BatchSocket, DatagramBatch},
    },
    proto::histogram::Histogram,
    units::Moment,
};

/// What a datagram of seven packets has.
pub(crate) const SIZE: usize = 1316;

/// Any port of this host.
pub(crate) const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The word by which this program is a viewer in a process of its own.
pub(crate) const VIEWER: &str = "be-a-viewer-of";

/// Takes a place at the relay in the lab's words; the connection that keeps it.
pub(crate) fn connect(relay: SocketAddr, port: u16) -> TcpStream {
    let mut control = TcpStream::connect(relay).expect("listening");
    writeln!(control, "CONECTAR {port}").expect("connected");
    let mut answer = [0; 3];
    control.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer, b"OK\n");
    control
}

/// A viewer in a process of its own, which the system has stopped; killed when dropped.
pub(crate) struct Stopped(Child);

impl Stopped {
    pub(crate) fn at(relay: SocketAddr) -> Self {
        let own = std::env::current_exe().expect("this program");
        let mut child = Command::new(own)
            .args([VIEWER, &relay.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program again");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("its word");
        assert_eq!(line, "watching\n");
        let stopped = Command::new("kill").args(["-STOP", &child.id().to_string()]).status();
        assert!(stopped.expect("kill").success());
        Self(child)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the stopped viewer does until it is.
pub(crate) fn be_a_viewer(relay: SocketAddr) {
    let socket = UdpSocket::bind(LOCAL).expect("a free port");
    let port = socket.local_addr().expect("bound").port();
    let _control = connect(relay, port);
    println!("watching");
    let mut bytes = [0; 2048];
    while socket.recv(&mut bytes).is_ok() {}
}

/// Sends datagrams on an absolute schedule, what is due `every` so often, each with the moment before
/// its send and its number.
pub(crate) fn source(to: SocketAddr, (rate, every): (u64, Duration), run: Duration) -> u64 {
    let socket = UdpSocket::bind(LOCAL).expect("a free port");
    socket.connect(to).expect("an address");
    let mut datagram: Vec<u8> = (0..7)
        .flat_map(|_| {
            let mut packet = [0xFF; 188];
            packet[..4].copy_from_slice(&[0x47, 0x1F, 0xFF, 0x10]);
            packet
        })
        .collect();
    assert_eq!(datagram.len(), SIZE);
    let begun = clock::now();
    let mut sent = 0_u64;
    loop {
        let now = clock::now();
        let since = now.since(begun).min(run);
        let due = rate * u64::try_from(since.as_micros()).expect("seconds") / 1_000_000;
        while sent < due {
            datagram[8..16].copy_from_slice(&clock::now().0.to_be_bytes());
            datagram[16..24].copy_from_slice(&sent.to_be_bytes());
            if socket.send(&datagram).is_ok() {
                sent += 1;
            }
        }
        if since == run {
            return sent;
        }
        thread::sleep(every);
    }
}

/// Takes what comes to all viewers; the delays, the worst, and what their sockets had no room for.
pub(crate) fn sink(
    inboxes: &[BatchSocket],
    going: &AtomicBool,
    received: &AtomicU64,
) -> (Histogram, u64, Option<u64>) {
    let mut batch = DatagramBatch::new(64);
    let (mut delay, mut worst) = (Histogram::default(), 0);
    while going.load(Ordering::Relaxed) {
        let mut some = false;
        for inbox in inboxes {
            batch.clear();
            if inbox.collect(&mut batch).unwrap_or(0) == 0 {
                continue;
            }
            some = true;
            for datagram in batch.iter() {
                let stamp = datagram.bytes[8..16].try_into().expect("eight");
                let sent = Moment(u64::from_be_bytes(stamp));
                let us = u64::try_from(datagram.at.since(sent).as_micros()).unwrap_or(u64::MAX);
                delay.add(us);
                worst = worst.max(us);
            }
            received.fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
        if !some {
            thread::sleep(Duration::from_micros(500));
        }
    }
    let unread = inboxes.iter().map(|inbox| datagrams::drops(inbox.socket()));
    (delay, worst, unread.sum())
}

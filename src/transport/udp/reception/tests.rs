use std::{
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, AtomicU64},
};

use super::*;
use crate::{
    client::FetchConfig,
    digest::Digest,
    proto::{
        native::Offer,
        udp::{
            blocks::BlockLayout,
            packet::{Body, Packet},
        },
    },
    session::{FileInfo, SeatId, SessionId, Via},
    text::FileName,
};

const STREAM: u32 = 7;
const BLOCK: usize = 1000;

fn datagram(stream: u32, block: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    Packet {
        stream,
        pkt: block,
        sent_us: 0,
        body: Body::Data { block, again: false, payload: &[block as u8; BLOCK] },
    }
    .encode(&mut bytes);
    bytes
}

/// Receives ten blocks from `source`, by whichever port they come.
fn receive_ten(source: &mut DatagramSource, stall: Duration) -> Result<Received> {
    receive_from(source, None, stall, true).0.map_err(|stop| stop.error)
}

/// Receives ten blocks that the server sends from `port`. A server that is not `there` has closed
/// the control connection. Returns what is in the file too.
fn receive_from(
    source: &mut DatagramSource,
    port: Option<u16>,
    stall: Duration,
    there: bool,
) -> (std::result::Result<Received, ReceiveError>, Vec<u8>) {
    let layout = BlockLayout { bytes: 10 * BLOCK as u64, block_len: BLOCK };
    let mode = RepairMode::Multicast(Duration::ZERO);
    let receiver = BlockReceiver::new(STREAM, layout, 0, mode, 100, clock::now());
    let file = tempfile::tempfile().expect("room");
    let mut config = FetchConfig::new(Vec::new());
    config.stall = stall;
    // A server that sends nothing.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    let peer = mute.local_addr().expect("bound");
    let stream = TcpStream::connect(peer).expect("it listens");
    let _mute = there.then_some(mute);
    let offer = Offer {
        session: SessionId(u64::from(STREAM)),
        seat: SeatId(1),
        clients: 1,
        run: None,
        via: Via::Multicast,
        file: FileInfo {
            name: FileName::new("f").expect("plain"),
            bytes: layout.bytes,
            sha1: Digest::of(b"f"),
        },
        tree: None,
    };
    let storage = file.try_clone().expect("one more").into();
    let context = ReceiveContext {
        stream: &stream,
        offer: &offer,
        config: &config,
        file: &storage,
        range: 0..layout.bytes,
        moved: &AtomicU64::new(0),
        stopped: &AtomicBool::new(false),
    };
    let server = (Ipv4Addr::LOCALHOST.into(), port);
    let received = Reception::new(&context, mode, receiver, server)
        .run(source, &mut LineStream::new(&stream, peer, b""));
    let mut held = vec![0; file.metadata().expect("a file").len() as usize];
    io::Seek::rewind(&mut &file).expect("a file");
    io::Read::read_exact(&mut &file, &mut held).expect("readable");
    (received, held)
}

/// A socket of a client's own, and its address.
fn own_socket() -> (RecvSocket, SocketAddr) {
    let socket = RecvSocket::open(Ipv4Addr::LOCALHOST.into()).expect("a port");
    let to = ([127, 0, 0, 1], socket.port().expect("bound")).into();
    (socket, to)
}

#[test]
fn a_group_that_is_never_silent_hides_no_own_stream() {
    let group: SocketAddr = "239.255.7.3:40125".parse().expect("a group");
    let subscription = Subscription::join(group, Ipv4Addr::LOCALHOST).expect("loopback has groups");
    let (socket, to) = own_socket();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Another session's, on the same group and from the same address.
            let other = UdpSocket::bind("127.0.0.1:0").expect("a port");
            while !over.load(Ordering::Relaxed) {
                other.send_to(&datagram(8, 3), group).expect("sent");
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let own = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let mut source = DatagramSource { socket, group: Some(subscription) };
        // On a busy machine it may take longer; a client that only looks when it has something to
        // say takes half a second each time.
        let at_once = (0..10).any(|_| {
            let begun = clock::now();
            for block in 0..10 {
                own.send_to(&datagram(STREAM, block), to).expect("sent");
            }
            let taken = receive_ten(&mut source, Duration::from_secs(20)).expect("whole");
            assert_eq!(taken.counts.unique, Some(10));
            clock::now().since(begun) < Duration::from_millis(400)
        });
        // And it keeps nobody waiting to whom nothing comes.
        let begun = clock::now();
        let silent = receive_ten(&mut source, Duration::from_millis(300));
        over.store(true, Ordering::Relaxed);
        assert!(at_once);
        let error = silent.expect_err("nothing came");
        assert!(matches!(error, Error::TimedOut { .. }), "{error}");
        // Before the end that a transfer has however much comes.
        assert!(clock::now().since(begun) < Duration::from_secs(8));
    });
}

#[test]
fn a_stream_comes_from_the_port_of_its_first_block() {
    let (socket, to) = own_socket();
    let [server, stranger] = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").expect("a port"));
    server.send_to(&datagram(STREAM, 0), to).expect("sent");
    for block in 1..10 {
        stranger.send_to(&datagram(STREAM, block), to).expect("sent");
        server.send_to(&datagram(STREAM, block), to).expect("sent");
    }
    let mut source = DatagramSource { socket, group: None };
    let taken = receive_ten(&mut source, Duration::from_secs(20)).expect("whole");
    assert_eq!(taken.counts.unique, Some(10));
    // What came after the last block is not received.
    assert_eq!(taken.counts.foreign, Some(9));
    assert_eq!(taken.counts.duplicate, Some(0));
}

#[test]
fn stream_comes_from_the_port_that_the_server_names() {
    let (socket, to) = own_socket();
    let [server, stranger] = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").expect("a port"));
    // The forged one is there before the first true one.
    stranger.send_to(&datagram(STREAM, 0), to).expect("sent");
    (0..10).for_each(|block| {
        server.send_to(&datagram(STREAM, block), to).expect("sent");
    });
    let mut source = DatagramSource { socket, group: None };
    let port = Some(server.local_addr().expect("bound").port());
    let (taken, _) = receive_from(&mut source, port, Duration::from_secs(20), true);
    let counts = taken.expect("whole").counts;
    assert_eq!((counts.unique, counts.foreign, counts.duplicate), (Some(10), Some(1), Some(0)));
}

#[test]
fn forged_datagram_before_the_first_leaves_client_in_its_group() {
    let group: SocketAddr = "239.255.7.4:40126".parse().expect("a group");
    let subscription = Subscription::join(group, Ipv4Addr::LOCALHOST).expect("loopback has groups");
    let (socket, to) = own_socket();
    let [server, stranger] = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").expect("a port"));
    stranger.send_to(&datagram(STREAM, 0), to).expect("sent");
    let port = Some(server.local_addr().expect("bound").port());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Not before the silent group has made the client read its own socket.
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(GROUP_SILENCE * 3);
                (0..10).for_each(|block| {
                    server.send_to(&datagram(STREAM, block), group).expect("sent");
                });
            }
        });
        let mut source = DatagramSource { socket, group: Some(subscription) };
        let (taken, _) = receive_from(&mut source, port, Duration::from_secs(5), true);
        over.store(true, Ordering::Relaxed);
        assert_eq!(taken.expect("whole").counts.unique, Some(10));
    });
}

#[test]
fn copy_that_ends_early_holds_what_it_counts() {
    let (socket, to) = own_socket();
    let server = UdpSocket::bind("127.0.0.1:0").expect("a port");
    // The block after the hole is received too, and is cut off.
    for block in [6, 0, 1, 2, 3, 4] {
        server.send_to(&datagram(STREAM, block), to).expect("sent");
    }
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // What is held is written when nothing comes; here something always comes.
            while !over.load(Ordering::Relaxed) {
                server.send_to(&datagram(8, 3), to).expect("sent");
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let mut source = DatagramSource { socket, group: None };
        let (taken, held) = receive_from(&mut source, None, Duration::from_secs(20), false);
        over.store(true, Ordering::Relaxed);
        let stop = taken.expect_err("the server is gone");
        assert!(stop.partial.is_some_and(|partial| partial.cut));
        let sent: Vec<u8> = (0..5).flat_map(|block| [block; BLOCK]).collect();
        assert!(held == sent, "{} bytes, or others", held.len());
    });
}

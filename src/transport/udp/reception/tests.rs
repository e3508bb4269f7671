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

/// Receives ten blocks from `source`.
fn receive_ten(source: &mut DatagramSource, stall: Duration) -> Result<Received> {
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
    let offer = Offer {
        session: SessionId(u64::from(STREAM)),
        seat: SeatId(1),
        clients: 1,
        via: Via::Multicast,
        file: FileInfo {
            name: FileName::new("f").expect("plain"),
            bytes: layout.bytes,
            sha1: Digest::of(b"f"),
        },
    };
    let context = ReceiveContext {
        stream: &stream,
        offer: &offer,
        config: &config,
        file: &file,
        range: 0..layout.bytes,
        moved: &AtomicU64::new(0),
        stopped: &AtomicBool::new(false),
    };
    Reception::new(&context, mode, receiver, Ipv4Addr::LOCALHOST.into())
        .run(source, &mut LineStream::new(&stream, peer, b""))
        .map_err(|stop| stop.error)
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

use std::net::Ipv4Addr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::proto::udp::packet::Body;
use crate::proto::udp::packet::Packet;
use crate::transport::udp::hub;

const STREAM: u32 = 7;
const BLOCK: usize = 1000;

fn datagram(stream: u32, block: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    Packet {
        stream,
        pkt: block,
        sent_us: 0,
        body: Body::Data {
            block,
            again: false,
            payload: &[block as u8; BLOCK],
        },
    }
    .encode(&mut bytes);
    bytes
}

/// Takes ten blocks in from `source`.
fn take(source: &mut Source, stall: Duration) -> Result<Received> {
    let bytes = 10 * BLOCK as u64;
    let how = How::Multicast(Duration::ZERO);
    let now = clock::now();
    let receiver = Receiver::new(STREAM, bytes, BLOCK, 0, how, 100, now);
    let file = tempfile::tempfile().expect("room");
    let mut order = FetchConfig::new(Vec::new());
    order.stall = stall;
    let moved = AtomicU64::new(0);
    let target = Target {
        order: &order,
        file: &file,
        moved: &moved,
    };
    // A server that says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    let peer = mute.local_addr().expect("bound");
    let stream = TcpStream::connect(peer).expect("it listens");
    let server = Ipv4Addr::LOCALHOST.into();
    Reception::new(how, receiver, Writer::new(&file), server, 0..bytes, now)
        .run(&target, source, &mut LineStream::new(&stream, peer, b""))
        .map_err(|stop| stop.error)
}

#[test]
fn a_group_that_is_never_silent_hides_no_stream_of_ones_own() {
    let group: SocketAddr = "239.255.7.3:40125".parse().expect("a group");
    let tap = hub::tap(group, Ipv4Addr::LOCALHOST).expect("loopback has groups");
    let inlet = Inlet::open(Ipv4Addr::LOCALHOST.into()).expect("a port");
    let to: SocketAddr = ([127, 0, 0, 1], inlet.port().expect("bound")).into();
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
        let mut source = Source::Group(tap, inlet);
        // On a busy machine it may take longer; a client that only looks when it has something to
        // say takes half a second each time.
        let at_once = (0..10).any(|_| {
            let begun = clock::now();
            for block in 0..10 {
                own.send_to(&datagram(STREAM, block), to).expect("sent");
            }
            let taken = take(&mut source, Duration::from_secs(20)).expect("whole");
            assert_eq!(taken.counts.unique, Some(10));
            clock::now().since(begun) < Duration::from_millis(400)
        });
        // And it keeps nobody waiting to whom nothing comes.
        let begun = clock::now();
        let silent = take(&mut source, Duration::from_millis(300));
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
    let inlet = Inlet::open(Ipv4Addr::LOCALHOST.into()).expect("a port");
    let to: SocketAddr = ([127, 0, 0, 1], inlet.port().expect("bound")).into();
    let [server, stranger] = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").expect("a port"));
    server.send_to(&datagram(STREAM, 0), to).expect("sent");
    for block in 1..10 {
        stranger
            .send_to(&datagram(STREAM, block), to)
            .expect("sent");
        server.send_to(&datagram(STREAM, block), to).expect("sent");
    }
    let taken = take(&mut Source::Own(inlet), Duration::from_secs(20)).expect("whole");
    assert_eq!(taken.counts.unique, Some(10));
    // What came after the last block is not heard.
    assert_eq!(taken.counts.foreign, Some(9));
    assert_eq!(taken.counts.duplicate, Some(0));
}

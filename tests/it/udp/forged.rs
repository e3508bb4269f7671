//! Datagrams that somebody else sends before the server's first, and the port that its terms name.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    thread,
    time::Duration,
};

use gatecast::internals::{
    proto::udp::packet::{Body, Packet, block_len},
    session::Via,
    transfer::Counts,
};

use super::fetch;
use crate::{
    common,
    common::{
        udp::{server_with, to_group},
        whole, within,
    },
};

const LIMIT: Duration = Duration::from_secs(100);

/// Stands between one client and `server`, and forwards what both say. With `forges`, a datagram of
/// the session that somebody else has sent waits where the client listens, before it is ready;
/// without, it is an older server's terms that the client gets.
fn between(server: SocketAddr, forges: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    thread::spawn(move || {
        let (client, _) = listener.accept().expect("a client");
        let upstream = TcpStream::connect(server).expect("a server");
        let (said, offers) = mpsc::channel();
        let (from, to) = (upstream.try_clone().expect("two"), client.try_clone().expect("two"));
        let back = thread::spawn(move || {
            for mut line in BufReader::new(from).lines().map_while(Result::ok) {
                if line.starts_with("OFFER ") {
                    said.send(line.clone()).expect("it waits");
                }
                if let Some((older, _)) = line.split_once(" port=").filter(|_| !forges) {
                    line = older.to_owned();
                }
                if writeln!(&to, "{line}").is_err() {
                    return;
                }
            }
            let _ = to.shutdown(Shutdown::Write);
        });
        for line in BufReader::new(client).lines().map_while(Result::ok) {
            if let Some((port, _)) =
                line.strip_prefix("LISTEN port=").and_then(|l| l.split_once(' '))
                && forges
            {
                forge(&offers.recv().expect("an offer"), port.parse().expect("a port"));
            }
            if writeln!(&upstream, "{line}").is_err() {
                break;
            }
        }
        let _ = upstream.shutdown(Shutdown::Write);
        back.join().expect("no panic");
    });
    addr
}

/// Sends the first block of the session of `offer`, with other bytes, from a port of the server's
/// host that is not the server's.
fn forge(offer: &str, port: u16) {
    let (_, session) = offer.split_once(" session=").expect("a field");
    let session = session.split(' ').next().expect("a value");
    let session = u64::from_str_radix(session, 16).expect("a number");
    let payload = vec![0xee; block_len(1472, false)];
    let mut bytes = Vec::new();
    let body = Body::Data { block: 0, again: false, payload: &payload };
    Packet { stream: session as u32, pkt: 0, sent_us: 0, body }.encode(&mut bytes);
    let mouth = UdpSocket::bind("127.0.0.1:0").expect("a port");
    mouth.send_to(&bytes, ("127.0.0.1", port)).expect("sent");
}

fn through(via: Via, forges: bool, bytes: u64, rate: u64) -> Counts {
    let group = to_group("239.255.9.16:40993".parse().expect("a group"));
    let server = server_with(bytes, via, 1, group, |settings| {
        settings.rate = common::bytes_per_second(rate);
    });
    let addr = between(server.addr, forges);
    let fetched = fetch(&server, "a", |order| {
        order.server = vec![addr];
        order.stall = Duration::from_secs(5);
    });
    whole(fetched.join().expect("no panic"), &server);
    let record = server.record();
    assert_eq!(record.broken_identities(), Vec::<String>::new());
    server.stop();
    record.transfers[0].counts
}

#[test]
fn forged_first_block_changes_nothing() {
    within(LIMIT, || {
        let counts = through(Via::Udp, true, 3_000_000, 10_000_000);
        assert_eq!((counts.foreign, counts.corrupt), (Some(1), Some(0)), "{counts:?}");
    });
}

/// A datagram to it alone, before the group's first, does not make it one that is sent to alone.
#[test]
fn forged_first_block_leaves_member_in_its_group() {
    within(LIMIT, || {
        // So slow that the group is silent between two blocks, and it looks for others.
        let counts = through(Via::Multicast, true, 15_000, 4_000);
        assert_eq!((counts.foreign, counts.corrupt), (Some(1), Some(0)), "{counts:?}");
    });
}

#[test]
fn client_of_older_server_is_served() {
    within(LIMIT, || {
        let counts = through(Via::Udp, false, 3_000_000, 10_000_000);
        assert_eq!((counts.foreign, counts.corrupt), (Some(0), Some(0)), "{counts:?}");
    });
}

//! Groups and what may go wrong in them: another group at the same port, and copies that somebody
//! damaged.

mod common;

use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::UdpSocket;
use std::thread;
use std::thread::JoinHandle;
use std::time::Duration;

use common::Server;
use common::whole;
use common::within;
use gatecast::proto::udp::packet::Body;
use gatecast::proto::udp::packet::Packet;
use gatecast::runtime::control::client::End;
use gatecast::runtime::control::client::Fetch;
use gatecast::session::Via;
use gatecast::udp;
use gatecast::udp::hub;

const LIMIT: Duration = Duration::from_secs(100);

/// A server of a file of `bytes` to `group` at `rate` bytes a second, for two clients.
fn server(bytes: u64, group: SocketAddr, rate: u64) -> Server {
    Server::with(
        bytes,
        |settings| {
            settings.via = Some(Via::Multicast);
            settings.clients = Some(2);
            settings.datagrams.group = Some(group);
            settings.rate = common::bytes_per_second(rate);
        },
        udp::serve,
    )
}

fn fetch(server: &Server) -> JoinHandle<Vec<End>> {
    let mut order = server.order("a");
    order.clients = 2;
    thread::spawn(move || {
        let ways = [&udp::take::MULTICAST as _];
        Fetch::new(&order).run(&order, &ways).expect("begun")
    })
}

#[test]
fn two_groups_at_one_port_of_one_host_hear_nothing_of_each_other() {
    within(LIMIT, || {
        let servers = ["239.255.9.11:40996", "239.255.9.12:40996"]
            .map(|group| server(2_000_000, group.parse().expect("a group"), 2_000_000));
        let fetches = servers.each_ref().map(fetch);
        for (server, fetch) in servers.into_iter().zip(fetches) {
            whole(fetch.join().expect("no panic"), &server);
            let record = server.record();
            assert_eq!(record.broken_identities(), Vec::<String>::new());
            for transfer in &record.transfers {
                assert!(transfer.is_proven());
                assert_eq!(transfer.counts.foreign, Some(0), "{transfer:?}");
            }
            server.stop();
        }
    });
}

#[test]
fn copies_that_somebody_on_the_way_damaged_are_mended_piece_by_piece() {
    within(LIMIT, || {
        let group: SocketAddr = "239.255.9.13:40995".parse().expect("a group");
        let bytes = 4_000_000;
        let server = server(bytes, group, 3_000_000);
        let ear = hub::tap(group, Ipv4Addr::LOCALHOST).expect("loopback has groups");
        let copies = fetch(&server);
        // Somebody who hears the stream and can speak from the server's own address: the digest
        // over each piece is what is left to tell its blocks from the true ones.
        let mouth = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let mut forged = 0;
        while forged < 3 {
            let batch = ear.receive(Duration::from_secs(20)).expect("a socket");
            let batch = batch.expect("in time");
            for datagram in batch.bytes.chunks(batch.segment) {
                let Ok(Packet {
                    stream,
                    pkt,
                    sent_us,
                    body: Body::Data { block, payload, .. },
                }) = Packet::decode(datagram)
                else {
                    continue;
                };
                // A block that is yet to come; a whole one has the length of this.
                if block % 600 != 300 || forged == 3 {
                    continue;
                }
                let mut bytes = Vec::new();
                let payload = vec![0xee; payload.len()];
                let body = Body::Data {
                    block: block + 200,
                    again: false,
                    payload: &payload,
                };
                Packet {
                    stream,
                    pkt,
                    sent_us,
                    body,
                }
                .encode(&mut bytes);
                mouth.send_to(&bytes, group).expect("sent");
                forged += 1;
            }
        }
        drop(ear);
        whole(copies.join().expect("no panic"), &server);
        let record = server.record();
        for transfer in &record.transfers {
            assert!(transfer.is_proven(), "{transfer:?}");
            // The damaged pieces went again, to this client alone, and no more of the file.
            let again = transfer.counts.retransmitted.expect("counted");
            assert!((1..bytes).contains(&again), "{transfer:?}");
        }
        server.stop();
    });
}

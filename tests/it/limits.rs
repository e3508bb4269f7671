//! What strangers may hold and cost: connections, seats, sessions, rows of the log.

use std::{
    net::{SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use gatecast::internals::{
    error::{Error, Result},
    http,
    http::HttpConfig,
    server::{
        gate::SeatConnection,
        transport::{SendJob, SendPlan, SendResult, SendSession, Transport},
    },
    session::Via,
    transport::{swarm, swarm::torrents::SwarmServerConfig, udp, udp::config::UdpConfig},
};

use crate::common::{
    PATIENCE, Peer, Server, entries,
    http::{answer, ask, get_with},
    turn::in_turn,
    until, whole, within,
};

const FLOOD_LIMIT: Duration = Duration::from_secs(180);

/// A GET cannot use these ways; it must neither spend a one-off server's session nor fix a group.
#[test]
fn http_client_begins_no_session_that_it_cannot_join() {
    within(PATIENCE * 2, || {
        for via in [Via::Udp, Via::Raw, Via::Multicast, Via::Swarm] {
            for (clients, one_off) in [(None, false), (Some(2), false), (None, true)] {
                let server = Server::with(
                    1000,
                    |settings| {
                        (settings.via, settings.clients) = (Some(via), clients);
                        settings.one_off = one_off;
                    },
                    |host| {
                        let host = udp::serve(host, UdpConfig::default());
                        let (host, _) = swarm::serve(host, SwarmServerConfig::default());
                        http::serve(host, HttpConfig::default()).expect("HTTP")
                    },
                );
                let (code, _, body) = get_with(server.addr, "/files/f.bin?gate=7", "");
                let body = String::from_utf8(body).expect("text");
                assert_eq!(code, 409, "{via}: {body}");
                assert!(body.contains("which no HTTP client can"), "{via}: {body}");
                assert!(server.running().lobby().views().is_empty(), "{via}: a phantom session");
                // The only session is still to be had, and the group has no size yet.
                drop(server.joined(3, "honest"));
                server.stop();
            }
        }
    });
}

/// A way of sending that can serve no client.
#[derive(Debug)]
struct Unable;

impl Transport for Unable {
    fn via(&self) -> Via {
        Via::Tcp
    }

    fn prepare(&self, _: &SendPlan) -> Result<Box<dyn SendSession>> {
        Ok(Box::new(Self))
    }
}

impl SendSession for Unable {
    fn prepare_connection(&self, _: &TcpStream) -> Result<()> {
        Err(Error::Interrupted)
    }

    fn description(&self, _: &TcpStream) -> String {
        String::new()
    }

    fn send(&self, _: &SeatConnection, _: SendJob<'_>) -> SendResult {
        unreachable!("nobody has a seat")
    }
}

#[test]
fn client_that_cannot_be_served_begins_no_session() {
    within(PATIENCE, || {
        let server = Server::with(1000, |_| {}, |host| host.transport(Box::new(Unable)));
        let mut peer = server.peer();
        peer.send("GATECAST/1 JOIN group=1 name=c\n");
        assert!(peer.read_line().starts_with("ERROR "));
        assert!(server.running().lobby().views().is_empty(), "a session without a client");
        server.stop();
    });
}

/// Sends `count` JOINs of a group of `group`, and hangs up after each offer.
fn flood(addr: SocketAddr, count: usize, group: u16) {
    const THREADS: usize = 8;
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                for _ in 0..count / THREADS {
                    let mut peer = Peer::connect(addr);
                    peer.send(format!("GATECAST/1 JOIN group={group} name=flood\n"));
                    peer.read_line();
                }
            });
        }
    });
}

#[test]
fn flood_of_joins_leaves_a_log_that_can_be_read() {
    in_turn("connections to a process", FLOOD_LIMIT, || {
        let server = Server::new(1000, |settings| {
            settings.clients = Some(25);
            settings.max_wait = FLOOD_LIMIT;
        });
        flood(server.addr, 10_048, 25);
        let honest = server.fetch("honest", |order| order.clients = 25);
        whole(honest.join().expect("no panic"), &server);
        let record = server.record();
        assert_eq!(record.proven(), 25);
        assert!(record.transfers.len() < 1500, "{} rows", record.transfers.len());
        let says = |row: &gatecast::internals::transfer::Transfer| {
            let why = row.reason.as_deref().unwrap_or_default();
            why.contains("more clients left before the release")
        };
        assert_eq!(record.transfers.iter().filter(|row| says(row)).count(), 1);
        server.stop();
    });
}

#[test]
fn flood_of_sessions_leaves_few_logs_and_keeps_results() {
    in_turn("connections to a process", FLOOD_LIMIT, || {
        let server = Server::new(1000, |_| {});
        let honest = server.fetch("honest", |_| {});
        whole(honest.join().expect("no panic"), &server);
        let session = server.record().session;
        flood(server.addr, 1600, 1);
        until("the sessions to end", || server.running().lobby().is_idle());
        let ended = server.running().lobby().history().ended();
        assert!(ended.iter().any(|record| record.session == session), "the result is gone");
        let logs = entries(&server.logs()).len();
        assert!((2..1300).contains(&logs), "{logs} logs");
        assert!(server.running().records().len() <= 64, "records that nobody takes");
        server.stop();
    });
}

/// The largest honest case: the seats of a whole hall behind one address.
#[cfg(feature = "sockopt")] // Without it the queue of connections is short, and they come too slowly.
#[test]
fn five_thousand_seats_of_one_address_are_ready() {
    const SEATS: u16 = 5000;
    let limit = gatecast::internals::net::socket::descriptors(12_000).unwrap_or(1024);
    if !crate::common::have("room for 12,000 descriptors", limit >= 12_000) {
        return;
    }
    in_turn("connections to a process", FLOOD_LIMIT, || {
        let server = Server::new(1000, |settings| settings.max_wait = FLOOD_LIMIT);
        let begun = std::time::Instant::now();
        // Each asks as soon as it is connected, as a greeting has a deadline.
        let join = |mut peer: Peer| {
            peer.send(format!("GATECAST/1 JOIN group={SEATS} name=c\n"));
            peer
        };
        let mut peers: Vec<_> = (0..SEATS).map(|_| join(server.peer())).collect();
        // All have asked before the first is ready.
        for peer in &mut peers {
            let offer = peer.read_line();
            assert!(offer.starts_with("OFFER "), "{offer}");
        }
        for peer in &mut peers {
            peer.send("READY offset=0\n");
        }
        for peer in &mut peers {
            while !peer.read_line().starts_with("GO ") {}
        }
        println!("{SEATS} seats were released after {:?}", begun.elapsed());
        drop(peers);
        assert_eq!(server.record().transfers.len(), usize::from(SEATS));
        server.stop();
    });
}

/// A client that asks over HTTP and leaves is one that left, as any other.
#[test]
fn http_client_joins_a_group_that_it_can_use() {
    within(PATIENCE, || {
        let server = Server::with(
            1000,
            |_| {},
            |host| {
                let host = gatecast::internals::transport::tcp::serve(host).expect("TCP");
                http::serve(host, HttpConfig::default()).expect("HTTP")
            },
        );
        let request = "GET /files/f.bin?gate=1 HTTP/1.1\nHost: localhost\n\n";
        let (code, _, body) = answer(&ask(server.addr, request));
        assert_eq!((code, body.len()), (200, 1000));
        server.record();
        server.stop();
    });
}

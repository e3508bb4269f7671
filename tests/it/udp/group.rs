//! Multicast groups: two groups at one port, chosen interfaces, damaged and forged datagrams.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    thread::JoinHandle,
    time::Duration,
};

use gatecast::internals::{
    client::{ClientReport, FetchConfig},
    digest::Digest,
    proto::udp::packet::{Body, Packet},
    report::verdict::Verdict,
    server::{
        builder::{ServerCore, ServerCoreBuilder},
        catalog::Catalog,
        config::ServerConfig,
        sample,
    },
    session::Via,
    transfer::Outcome,
    transport,
    transport::udp::{config::UdpConfig, group_receiver::Subscription},
};

use crate::{
    common,
    common::{
        Peer, Server, udp,
        udp::{server_with, to_group},
        whole, within,
    },
};

const LIMIT: Duration = Duration::from_secs(100);

/// A server that sends `bytes` bytes to `group` at `rate` bytes a second, for two clients.
fn server(bytes: u64, group: SocketAddr, rate: u64) -> Server {
    server_with(bytes, Via::Multicast, 2, to_group(group), |settings| {
        settings.rate = common::bytes_per_second(rate);
    })
}

fn fetch(server: &Server) -> JoinHandle<Vec<ClientReport>> {
    let mut order = server.order("a");
    order.clients = 2;
    thread::spawn(move || udp::fetch(&order))
}

#[test]
fn two_groups_at_one_port_do_not_mix() {
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
fn group_uses_the_named_interfaces() {
    within(LIMIT, || {
        // Loopback has many addresses. The clients use another one.
        let by = UdpConfig { interface: Some(Ipv4Addr::new(127, 0, 0, 9)), ..UdpConfig::default() };
        let server = server_with(500_000, Via::Multicast, 2, by, |settings| {
            settings.rate = common::bytes_per_second(5_000_000);
        });
        let mut order = server.order("a");
        order.clients = 2;
        let ours = Ipv4Addr::new(127, 0, 0, 8);
        let ends = udp::fetch_on_interface(&order, ours);
        whole(ends, &server);
        for transfer in &server.record().transfers {
            assert_eq!(transfer.counts.foreign, Some(0), "{transfer:?}");
        }
        // An interface that this host does not have is an error.
        let mut order = server.order("b");
        order.group = Some(1);
        let foreign = Ipv4Addr::new(192, 0, 2, 77);
        let ends = udp::fetch_on_interface(&order, foreign);
        let error = common::failed(ends);
        assert!(error.contains("join the group"), "{error}");
        server.stop();
    });
}

/// A server of one file by multicast to so many clients, on all addresses of this host; and the
/// file's SHA-1.
fn on_all_addresses(folder: &Path, clients: u16) -> (ServerCore, Digest) {
    let file = folder.join("f.bin");
    sample::make(&file, 1_000_000).expect("room");
    let settings = ServerConfig {
        via: Some(Via::Multicast),
        clients: Some(clients),
        rate: common::bytes_per_second(5_000_000),
        ..ServerConfig::default()
    };
    let host = ServerCoreBuilder::new(Catalog::offer([&file]).expect("there"), settings);
    let host = transport::udp::serve(host, UdpConfig::default());
    (host.start(([0, 0, 0, 0], 0).into()).expect("a free port"), common::sha1_of(&file))
}

#[test]
fn clients_by_two_addresses_of_the_server_share_a_group() {
    within(LIMIT, || {
        let (folder, out) =
            (tempfile::tempdir().expect("room"), tempfile::tempdir().expect("room"));
        let (server, sha1) = on_all_addresses(folder.path(), 3);
        // The first one comes as a client on the server's own host does.
        let clients = [("a", 1), ("b", 2), ("c", 2)].map(|(name, host)| {
            let addr = SocketAddr::from(([127, 0, 0, host], server.addr().port()));
            let mut order = FetchConfig::new(vec![addr]);
            order.out = out.path().join(name);
            order.durable = false;
            order
        });
        let fetches = clients.map(|order| thread::spawn(move || udp::fetch(&order)));
        for fetch in fetches {
            let [end] =
                <[ClientReport; 1]>::try_from(fetch.join().expect("no panic")).expect("one");
            assert!(end.error.is_none(), "{:?}", end.error);
            assert_eq!(common::sha1_of(&end.path.expect("a copy")), sha1);
        }
        let record = server.records().recv_timeout(common::PATIENCE).expect("a session");
        assert!(record.all_proven(), "{record:?}");
        assert_eq!(record.broken_identities(), Vec::<String>::new());
        server.stop().expect("no log");
    });
}

#[test]
fn ninth_address_of_the_server_is_refused() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let (server, _) = on_all_addresses(folder.path(), 20);
        let join = |host: u8| {
            let mut peer = Peer::connect(([127, 0, 0, host], server.addr().port()).into());
            peer.send("GATECAST/1 JOIN group=20 name=a\n");
            (peer.read_line(), peer)
        };
        let seated: Vec<_> = (1..=8).chain([1]).map(join).collect();
        assert!(seated.iter().all(|(line, _)| line.starts_with("OFFER ")), "{seated:?}");
        let (line, _peer) = join(9);
        assert!(line.starts_with("ERROR code=refused ") && line.contains("127.0.0.9"), "{line}");
        server.stop().expect("no log");
    });
}

/// A proxy: clients that connect to the address returned join `to` instead of `from`. It forwards
/// what is sent to `from`, after `change` has changed it.
fn between(
    server: SocketAddr,
    [from, to]: [SocketAddr; 2],
    over: &Arc<AtomicBool>,
    mut change: impl FnMut(&mut Vec<u8>) + Send + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = listener.local_addr().expect("bound");
    let ear = Subscription::join(from, Ipv4Addr::LOCALHOST).expect("loopback has groups");
    let mouth = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = mouth.local_addr().expect("bound").port();
    let over = Arc::clone(over);
    thread::spawn(move || {
        while !over.load(Ordering::Relaxed) {
            let batch = ear.receive(Duration::from_millis(50)).expect("a socket");
            let Some(batch) = batch else { continue };
            for datagram in batch.bytes.chunks(batch.segment) {
                let mut datagram = datagram.to_vec();
                change(&mut datagram);
                mouth.send_to(&datagram, to).expect("sent");
            }
        }
    });
    thread::spawn(move || {
        for client in listener.incoming() {
            let client = client.expect("a client");
            let upstream = TcpStream::connect(server).expect("a server");
            let (mut up, mut down) =
                (client.try_clone().expect("one more"), upstream.try_clone().expect("one more"));
            thread::spawn(move || {
                let _ = std::io::copy(&mut up, &mut down);
                let _ = down.shutdown(std::net::Shutdown::Write);
            });
            thread::spawn(move || {
                for line in BufReader::new(upstream).lines().map_while(Result::ok) {
                    let said = line.replace(&from.to_string(), &to.to_string());
                    if (&client).write_all(udp::with_port(&said, port).as_bytes()).is_err() {
                        return;
                    }
                }
                let _ = client.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    addr
}

#[test]
fn damage_on_the_way_makes_copies_corrupt() {
    within(LIMIT, || {
        let groups = ["239.255.9.13:40995", "239.255.9.14:40995"]
            .map(|group| group.parse().expect("a group"));
        let bytes = 4_000_000;
        let server = server(bytes, groups[0], 3_000_000);
        let over = Arc::new(AtomicBool::new(false));
        let mut order = server.order("a");
        order.clients = 2;
        order.server = vec![between(server.addr, groups, &over, |datagram| {
            // Only the digest of the copy shows that such blocks are wrong.
            if let Ok(Packet { body: Body::Data { block, .. }, .. }) = Packet::decode(datagram)
                && block % 600 == 300
            {
                datagram[500] ^= 0x20;
            }
        })];
        let ends = udp::fetch(&order);
        over.store(true, Ordering::Relaxed);
        assert_eq!(ends.len(), 2);
        assert!(ends.iter().all(|end| end.path.is_none()), "{ends:?}");
        assert_eq!(Verdict::of_clients(&ends).exit_code(), 5);
        let record = server.record();
        assert_eq!(Verdict::of_records(std::slice::from_ref(&record)).exit_code(), 5);
        for transfer in &record.transfers {
            assert_eq!(transfer.outcome, Outcome::Corrupt, "{transfer:?}");
            assert_eq!(transfer.verified, Some(false), "{transfer:?}");
        }
        server.stop();
    });
}

#[test]
fn forged_packets_from_server_host_change_nothing() {
    within(LIMIT, || {
        let group: SocketAddr = "239.255.9.15:40994".parse().expect("a group");
        let server = server(4_000_000, group, 3_000_000);
        let ear = Subscription::join(group, Ipv4Addr::LOCALHOST).expect("loopback has groups");
        let copies = fetch(&server);
        // The forged packets come from the server's address, with the right stream and numbers to
        // come.
        let mouth = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let (mut heard, mut forged) = (0, 0_u64);
        while forged < 60 {
            let batch = ear.receive(Duration::from_secs(20)).expect("a socket");
            let batch = batch.expect("in time");
            for datagram in batch.bytes.chunks(batch.segment) {
                let Ok(Packet { stream, pkt, sent_us, body: Body::Data { block, payload, .. } }) =
                    Packet::decode(datagram)
                else {
                    continue;
                };
                heard += 1;
                if heard % 40 != 0 || forged >= 60 {
                    continue;
                }
                let payload = vec![0xee; payload.len()];
                let data = Body::Data { block: block + 1, again: true, payload: &payload };
                let end = Body::End { upto: block + 50, round: 1000 + block };
                for (ahead, body) in [(1, data), (40_000, end)] {
                    let mut bytes = Vec::new();
                    Packet { stream, pkt: pkt + ahead, sent_us, body }.encode(&mut bytes);
                    mouth.send_to(&bytes, group).expect("sent");
                    forged += 1;
                }
            }
        }
        drop(ear);
        whole(copies.join().expect("no panic"), &server);
        let record = server.record();
        assert_eq!(record.broken_identities(), Vec::<String>::new());
        for transfer in &record.transfers {
            assert!(transfer.is_proven(), "{transfer:?}");
            let foreign = transfer.counts.foreign.expect("counted");
            assert!((1..=forged).contains(&foreign), "{transfer:?}");
            assert_eq!(transfer.counts.corrupt, Some(0), "nothing was written");
        }
        server.stop();
    });
}

//! The three transports over UDP on loopback, with honest and hostile clients, and the lab's own
//! UDP protocol with a client written from its description.

mod forged;
mod group;
#[cfg(unix)]
mod lab;
mod liars;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod loss;
#[cfg(all(target_os = "linux", feature = "cli"))]
mod menu;
mod path;
#[cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]
mod processes;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    process::Command,
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
    proto::udp::{
        control::Report,
        packet::{Body, Packet},
    },
    session::Via,
    transfer::{Outcome, Record},
    transport::udp::{config::UdpConfig, lab_server::LabServer},
};

use crate::{
    common,
    common::{
        Peer, Server, entries, row,
        udp::{server, server_with, to_group},
        until, whole, within,
    },
};

const LIMIT: Duration = Duration::from_secs(100);

fn fetch(
    server: &Server,
    name: &str,
    set: impl FnOnce(&mut FetchConfig),
) -> JoinHandle<Vec<ClientReport>> {
    let mut order = server.order(name);
    set(&mut order);
    thread::spawn(move || common::udp::fetch(&order))
}

/// Asserts that every datagram of every client is accounted for.
fn accounted(record: &Record) {
    assert_eq!(record.broken_identities(), Vec::<String>::new());
    for transfer in record.transfers.iter().filter(|t| t.is_proven()) {
        let counts = transfer.counts;
        assert_eq!(
            counts.delivered,
            counts.unique.map(|unique| unique + counts.duplicate.unwrap_or(0))
        );
        for known in [counts.offered, counts.unheard, counts.lost] {
            assert!(known.is_some(), "{counts:?}");
        }
        // Other systems drop datagrams without an error, so the number is unknown.
        let tells = cfg!(all(target_os = "linux", feature = "sockopt"));
        assert_eq!(counts.local_drop.is_some(), tells, "{counts:?}");
        assert_eq!((counts.foreign, counts.corrupt, counts.late), (Some(0), Some(0), Some(0)));
    }
}

#[test]
fn reliable_transports_deliver_files_of_every_size() {
    within(LIMIT, || {
        for via in [Via::Udp, Via::Multicast] {
            for bytes in [0, 1, 1408, 1448, 3_000_017] {
                let server = server(bytes, via, 8, |_| {});
                let ends = fetch(&server, "a", |order| order.clients = 8);
                for end in ends.join().expect("no panic") {
                    assert!(end.error.is_none(), "{via} {bytes}: {:?}", end.error);
                    assert!(end.transfer.expect("it had a seat").is_proven());
                }
                let record = server.record();
                assert!(record.all_proven(), "{record:?}");
                if bytes > 0 {
                    accounted(&record);
                }
                assert_eq!(entries(&server.out("a")).len(), 8);
                server.stop();
            }
        }
    });
}

#[test]
fn raw_measures_loss_and_publishes_only_whole_copies() {
    within(LIMIT, || {
        let server = server(3_000_017, Via::Raw, 2, |settings| {
            settings.rate = common::bytes_per_second(20_000_000);
        });
        let honest = fetch(&server, "a", |order| order.group = Some(2));
        // A client that claims to have got every second datagram.
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = socket.local_addr().expect("bound").port();
        let mut blind = server.joined(2, "blind");
        let terms = blind.read_line();
        blind.send(format!("LISTEN port={port} buffer=212992\nREADY offset=0\n"));
        assert!(blind.read_past_wait().starts_with("GO "));
        // Until the END packet says how many there were.
        let mut datagram = [0; 2000];
        while datagram[3] != 3 {
            let (_, from) = socket.recv_from(&mut datagram).expect("a datagram");
            assert_eq!(terms, format!("TERMS datagram=1472 port={}", from.port()));
        }
        blind.send("FAIL outcome=cut bytes=1500000 reason=holes last_us=5 lost=1036 unique=1036 \
                   offered=2072 host_rx_drop=0 delivered=1036 duplicate=0 corrupt=0 foreign=0 late=0\n");
        assert!(blind.read_line().starts_with("SUMMARY outcome=cut "));
        let ends = honest.join().expect("no panic");
        let record = server.record();
        accounted(&record);
        assert_eq!(row(&record, "blind").counts.lost, Some(1036));
        assert_eq!(row(&record, "blind").outcome, Outcome::Cut);
        let copy = row(&record, "a");
        let counts = copy.counts;
        // On a busy machine raw may lose datagrams even here. Then it reports them and publishes
        // nothing.
        if counts.lost == Some(0) {
            whole(ends, &server);
            assert_eq!(counts.unique, Some(3_000_017_u64.div_ceil(1448)));
            assert!(counts.jitter_us.is_some() && counts.delay_us.is_some());
        } else {
            assert_eq!(copy.outcome, Outcome::Cut);
            assert_eq!(entries(&server.out("a")).iter().filter(|p| !common::is_part(p)).count(), 0);
        }
        server.stop();
    });
}

#[test]
fn interrupted_copy_resumes_where_it_stopped() {
    within(LIMIT, || {
        for via in [Via::Udp, Via::Multicast] {
            let server = server(2_000_000, via, 1, |_| {});
            let source = std::fs::read(server.source()).expect("there");
            std::fs::create_dir_all(server.out("a")).expect("room");
            let part = server.out("a").join(format!(".{}-1.part", server.sha1.short()));
            std::fs::write(part, &source[..777_777]).expect("room");
            let ends = fetch(&server, "a", |order| order.resume = true);
            whole(ends.join().expect("no panic"), &server);
            let record = server.record();
            assert_eq!(record.transfers[0].bytes_resumed, 777_777);
            assert_eq!(record.transfers[0].bytes_client, Some(2_000_000 - 777_777));
            accounted(&record);
            server.stop();
        }
    });
}

/// A client that sends lines one by one, waits at the gate and listens at `socket`.
fn listening(server: &Server, group: u16, name: &str, socket: &UdpSocket) -> Peer {
    let port = socket.local_addr().expect("bound").port();
    let mut peer = server.joined(group, name);
    assert!(peer.read_line().starts_with("TERMS "));
    peer.send(format!("LISTEN port={port} buffer=212992\nREADY offset=0\n"));
    peer
}

#[test]
fn lying_flooding_and_mute_clients_are_dropped() {
    within(LIMIT, || {
        for via in [Via::Udp, Via::Multicast] {
            let server = server(3_000_000, via, 5, |_| {});
            let honest = fetch(&server, "honest", |order| order.group = Some(5));
            let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
            let peer = |name| listening(&server, 5, name, &socket);
            let (mut liar, mut greedy, mut hasty) = (peer("liar"), peer("greedy"), peer("hasty"));
            let mute = peer("mute");
            assert!(liar.read_past_wait().starts_with("GO "));
            // It lies again and again: once could be an honest client that got a forged datagram.
            let lies = thread::spawn(move || {
                use std::io::Write;
                let line = b"REPORT seen=2000000000 received=1 round=0 cum=0\n";
                while (&*liar.stream).write_all(line).is_ok() {
                    thread::sleep(Duration::from_millis(50));
                }
            });
            hasty.read_past_wait();
            hasty.send("LAST bytes=3000000\n");
            greedy.read_past_wait();
            // It requests everything again and again, in every round.
            let flood = thread::spawn(move || {
                use std::io::Write;
                let mut stream = &*greedy.stream;
                let mut round = 0_u32;
                loop {
                    let line =
                        format!("REPORT seen=1 received=1 round={round} cum=0 missing=0000\n");
                    if stream.write_all(line.as_bytes()).is_err() {
                        return;
                    }
                    round = (round + 1) % 100;
                }
            });
            let ends = honest.join().expect("no panic");
            whole(ends, &server);
            let record = server.record();
            assert!(row(&record, "honest").is_proven());
            for name in ["liar", "greedy", "hasty", "mute"] {
                let row = row(&record, name);
                assert!(!row.is_proven() && row.reason.is_some(), "{row:?}");
            }
            let reason = |name| row(&record, name).reason.clone().unwrap_or_default();
            assert!(reason("liar").contains("never sent"), "{}", reason("liar"));
            assert!(reason("mute").contains("sent no report for 5 s"), "{}", reason("mute"));
            assert_eq!(row(&record, "mute").outcome, Outcome::TimedOut);
            drop(mute);
            flood.join().expect("no panic");
            lies.join().expect("no panic");
            server.stop();
        }
    });
}

#[test]
fn flood_of_repair_requests_takes_only_its_share() {
    within(LIMIT, || {
        const RATE: u64 = 3_000_000;
        let bytes = 6_000_000;
        let server = server(bytes, Via::Udp, 2, |settings| {
            settings.rate = common::bytes_per_second(RATE);
        });
        let honest = fetch(&server, "honest", |order| order.group = Some(2));
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = socket.local_addr().expect("bound").port();
        let mut flood = server.joined(2, "flood");
        assert!(flood.read_line().starts_with("TERMS "));
        // The largest buffer size that the server accepts.
        flood.send(format!("LISTEN port={port} buffer=40000000\nREADY offset=0\n"));
        assert!(flood.read_past_wait().starts_with("GO "));
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let storm = thread::spawn(move || {
            use std::io::Write;
            let (mut count, mut datagram) = (0_u32, [0; 2000]);
            socket.set_nonblocking(true).expect("a setting");
            loop {
                while let Ok(len) = socket.recv(&mut datagram) {
                    count += u32::from(len > 0 && datagram[3] == 1);
                }
                let report = Report {
                    seen: count,
                    received: count,
                    round: 0,
                    cum: 0,
                    more: false,
                    missing: std::iter::once(0..count.clamp(1, 4000)).collect(),
                };
                // A little more than the server reads of one client, so that little is unread at
                // the end.
                let lines = report.encode().0.repeat(50);
                thread::sleep(Duration::from_millis(8));
                if ended.load(Ordering::Relaxed) || (&*flood.stream).write_all(&lines).is_err() {
                    return;
                }
            }
        });
        let ends = honest.join().expect("no panic");
        let took = ends[0].transfer.as_ref().expect("a seat").seconds_client;
        whole(ends, &server);
        // The honest client has half of the rate.
        let share = Duration::from_secs(2 * bytes / RATE);
        assert!(took < Some(share * 3 / 2), "{took:?}");
        over.store(true, Ordering::Relaxed);
        let record = server.record();
        let row = row(&record, "flood");
        assert!(!row.is_proven() && row.reason.is_some(), "{row:?}");
        storm.join().expect("no panic");
        server.stop();
    });
}

#[test]
fn client_with_endless_small_progress_is_given_up() {
    within(LIMIT, || {
        let server = server(3 * 1448, Via::Udp, 1, |settings| {
            settings.stall = Duration::from_secs(1);
        });
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        // No datagram comes after the server has given up the client.
        let patience = socket.set_read_timeout(Some(Duration::from_secs(1)));
        patience.expect("a setting");
        let mut slow = listening(&server, 1, "slow", &socket);
        assert!(slow.read_past_wait().starts_with("GO "));
        let talk = thread::spawn(move || {
            use std::io::Write;
            let mut received = 0_u32;
            loop {
                // It asks for the first block again and again, and has one datagram more each time.
                let line = format!(
                    "REPORT seen={received} received={received} round=0 cum=0 missing=0000\n"
                );
                if (&*slow.stream).write_all(line.as_bytes()).is_err() {
                    return;
                }
                let mut datagram = [0; 2000];
                let came = socket.recv(&mut datagram).is_ok();
                // END packets are not counted.
                received += u32::from(came && datagram[3] == 1);
                thread::sleep(Duration::from_millis(100));
            }
        });
        let begun = std::time::Instant::now();
        let record = server.record();
        let row = row(&record, "slow");
        assert_eq!(row.outcome, Outcome::TimedOut, "{row:?}");
        let reason = row.reason.as_deref().unwrap_or_default();
        assert!(reason.contains("less than 1024 bytes a second"), "{reason}");
        // The stall limit, and one second for each KiB of the file.
        assert!(begun.elapsed() >= Duration::from_secs(4));
        talk.join().expect("no panic");
        server.stop();
    });
}

#[test]
fn wrong_listen_is_refused_with_reason() {
    within(LIMIT, || {
        let server = server(1000, Via::Udp, 1, |_| {});
        for wrong in [
            "LISTEN port=80 buffer=1",
            "LISTEN port=70000 buffer=1",
            "LISTEN buffer=1",
            "LISTEN port=5000 buffer=1\nLISTEN port=5001 buffer=1",
        ] {
            let mut peer = server.joined(1, "wrong");
            assert!(peer.read_line().starts_with("TERMS "));
            peer.send(format!("{wrong}\n"));
            let answer = peer.read_past_wait();
            assert!(answer.starts_with("ERROR code=protocol "), "{answer}");
            drop(peer);
            until("the seat is free", || server.seats().0 == 0);
        }
        let mut deaf = server.joined(1, "deaf");
        deaf.read_line();
        deaf.send("READY offset=0\n");
        assert!(deaf.read_past_wait().starts_with("GO "));
        let summary = deaf.read_line();
        assert!(summary.contains("sent%20no%20LISTEN%20with%20its%20port"), "{summary}");
        drop(deaf);
        server.stop();
    });
}

#[test]
fn foreign_datagrams_change_nothing_and_are_counted() {
    within(LIMIT, || {
        let group: SocketAddr = "239.255.9.9:40999".parse().expect("a group");
        let server = server_with(4_000_000, Via::Multicast, 1, to_group(group), |settings| {
            settings.rate = common::bytes_per_second(8_000_000);
        });
        let copy = fetch(&server, "a", |_| {});
        until("bytes move", || server.moved() > 0);
        // From another address with a number that may be right, and from the right address with a
        // wrong number.
        let elsewhere = UdpSocket::bind("127.0.0.2:0").expect("loopback has many addresses");
        let same = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let mut forged = Vec::new();
        Packet {
            stream: 1,
            pkt: 5,
            sent_us: 0,
            body: Body::Data { block: 2000, again: false, payload: &[0xee; 1408] },
        }
        .encode(&mut forged);
        let mut sent = 0;
        for len in (0..65_507).step_by(997).chain([65_507]) {
            elsewhere.send_to(&vec![7; len], group).expect("sent");
            same.send_to(&vec![7; len], group).expect("sent");
            sent += 2;
        }
        elsewhere.send_to(&forged, group).expect("sent");
        same.send_to(&forged, group).expect("sent");
        sent += 2;
        whole(copy.join().expect("no panic"), &server);
        let record = server.record();
        assert_eq!(record.broken_identities(), Vec::<String>::new());
        let counts = record.transfers[0].counts;
        // Some may have come too late, or were dropped. None was accepted.
        assert!((1..=sent).contains(&counts.foreign.unwrap_or(0)), "{counts:?}");
        assert_eq!(counts.corrupt, Some(0));
        server.stop();
    });
}

#[test]
fn changed_source_is_reported_to_all_clients() {
    within(LIMIT, || {
        for via in [Via::Udp, Via::Multicast] {
            let server = server(3_000_000, via, 2, |settings| {
                settings.rate = common::bytes_per_second(3_000_000);
            });
            let copies = fetch(&server, "a", |order| order.clients = 2);
            until("bytes move", || server.moved() > 100_000);
            let file = std::fs::File::options().write(true).open(server.source()).expect("ours");
            file.set_len(500_000).expect("room");
            for end in copies.join().expect("no panic") {
                let error = end.error.expect("the source is short").to_string();
                assert!(error.contains("source"), "{error}");
            }
            let record = server.record();
            for transfer in &record.transfers {
                assert!(!transfer.is_proven(), "{transfer:?}");
            }
            assert_eq!(entries(&server.out("a")).iter().filter(|p| !common::is_part(p)).count(), 0);
        }
    });
}

fn python(addr: SocketAddr, arguments: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/lab_udp_client.py");
    let output = Command::new("python3")
        .arg(script)
        .args([addr.ip().to_string(), addr.port().to_string()])
        .args(arguments)
        .output()
        .expect("python3");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).expect("text").trim_end().to_owned()
}

/// The lab's UDP server on `ip`, with the files of `server`.
fn start_lab(server: &Server, ip: Ipv4Addr, allowed: Vec<IpAddr>) -> LabServer {
    let (addr, size) = ((ip, 0).into(), UdpConfig::default().size);
    let running = server.running();
    LabServer::start(addr, running.lobby(), running.log_handle(), allowed, size).expect("a port")
}

#[test]
fn lab_udp_client_is_served_as_it_expects() {
    if !common::have("python3", common::installed("python3")) {
        return;
    }
    within(LIMIT, || {
        let server = Server::new(2_000_017, |settings| {
            settings.rate = common::bytes_per_second(4_000_000);
        });
        let lab = start_lab(&server, Ipv4Addr::LOCALHOST, Vec::new());
        assert_eq!(python(lab.addr, &["LIST"]), "['f.bin']");
        assert_eq!(python(lab.addr, &["CONFIG", "f.bin", "2"]), "Config set");
        assert_eq!(python(lab.addr, &["CONFIG", "none", "2"]), "File none does not exist");
        let wrong = python(lab.addr, &["RAW", "!CONFIG f.bin 2"]);
        assert!(wrong.starts_with("Invalid config format"), "{wrong}");
        assert_eq!(python(lab.addr, &["RAW", "DISCONNECT"]), "silence");
        assert_eq!(python(lab.addr, &["RAW", "!CONFIG : f.bin : 2 "]), "Config set");
        let out = server.folder.path().join("lab");
        std::fs::create_dir(&out).expect("room");
        let sizes = python(lab.addr, &["TRANSFER", out.to_str().expect("UTF-8"), "2"]);
        assert_eq!(sizes, "2000017\n2000017");
        for copy in entries(&out) {
            assert_eq!(common::sha1_of(&copy), server.sha1);
        }
        drop(lab);
        let record = server.record();
        assert_eq!((record.clients, record.transfers.len()), (2, 2));
        let skews = (record.wake_skew_us(), record.skew_us());
        assert_eq!(skews, (None, None), "each starts when it asks");
        for transfer in &record.transfers {
            assert_eq!(transfer.outcome, Outcome::Complete);
            assert_eq!((transfer.verified, transfer.bytes_client), (None, None));
            assert_eq!(transfer.bytes_server, Some(2_000_017));
        }
        server.stop();
    });
}

#[test]
fn lab_udp_client_asking_twice_gets_one_file() {
    within(LIMIT, || {
        let server = Server::new(400_000, |settings| {
            settings.rate = common::bytes_per_second(1_000_000);
        });
        let lab = start_lab(&server, Ipv4Addr::LOCALHOST, Vec::new());
        let client = UdpSocket::bind("127.0.0.1:0").expect("a port");
        client.connect(lab.addr).expect("loopback");
        client.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        let mut buffer = [0; 2000];
        client.send(b"!CONFIG : f.bin : 1").expect("sent");
        let len = client.recv(&mut buffer).expect("an answer");
        assert_eq!(&buffer[..len], b"Config set");
        let mut copy = Vec::new();
        client.send(b"TRANSFER").expect("sent");
        client.send(b"TRANSFER").expect("sent");
        while let Ok(len) = client.recv(&mut buffer) {
            copy.extend_from_slice(&buffer[..len]);
        }
        assert_eq!(copy.len(), 400_000);
        assert_eq!(Digest::of(&copy), server.sha1);
        // When its transfer is over the client may ask again. Another client may ask at the same
        // time, and configure the next transfer while they run.
        client.send(b"TRANSFER").expect("sent");
        assert!(client.recv(&mut buffer).is_ok());
        let other = UdpSocket::bind("127.0.0.1:0").expect("a port");
        other.connect(lab.addr).expect("loopback");
        other.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        other.send(b"TRANSFER").expect("sent");
        assert!(other.recv(&mut buffer).is_ok());
        other.send(b"!CONFIG : f.bin : 1").expect("sent");
        let records: Vec<_> = (0..3).map(|_| server.record()).collect();
        drop(lab);
        for record in records {
            assert_eq!((record.clients, record.transfers.len()), (1, 1));
            assert_eq!(record.transfers[0].outcome, Outcome::Complete);
        }
        server.stop();
    });
}

#[test]
fn lab_udp_server_answers_only_allowed_addresses() {
    within(LIMIT, || {
        let server = Server::new(1000, |_| {});
        // The address of this host on its network, if it has one.
        let probe = UdpSocket::bind("0.0.0.0:0").expect("a port");
        let outside = probe.connect("192.0.2.1:9").and_then(|()| probe.local_addr());
        let Some(ip) = outside.ok().map(|at| at.ip()).filter(|ip| !ip.is_loopback()) else {
            return println!("skipped: this host has no address but loopback");
        };
        for (allowed, answered) in [(vec![], false), (vec![ip], true)] {
            let lab = start_lab(&server, Ipv4Addr::UNSPECIFIED, allowed);
            let client = UdpSocket::bind((ip, 0)).expect("a port");
            client.set_read_timeout(Some(Duration::from_secs(2))).expect("a timeout");
            client.send_to(b"LIST", (ip, lab.addr.port())).expect("sent");
            assert_eq!(client.recv(&mut [0; 100]).is_ok(), answered);
        }
        server.stop();
    });
}

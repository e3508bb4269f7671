//! The relay with real sockets: what every viewer gets, what a hostile one gets, and what no
//! viewer can do to another.

mod common;

use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::Shutdown;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use common::PATIENCE;
use common::until;
use common::within;
use gatecast::proto::relay::Standing;
use gatecast::proto::relay::log::End;
use gatecast::proto::relay::log::Visit;
use gatecast::relay::Relay;
use gatecast::relay::Settings;
use gatecast::relay::watch::Order;
use gatecast::relay::watch::View;
use gatecast::relay::watch::Watch;

const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Each test must be over by then.
const LIMIT: Duration = Duration::from_secs(60);

/// No datagram for so long: none comes.
const NOTHING: Duration = Duration::from_millis(300);

/// A relay on ports of its own.
fn relay() -> Relay {
    relay_with(|_| {})
}

fn relay_with(set: impl FnOnce(&mut Settings)) -> Relay {
    let mut settings = Settings::new(LOCAL);
    set(&mut settings);
    Relay::start(&settings, LOCAL).expect("free ports")
}

/// A source of a transport stream: one PID, a clock, and tables when asked for.
struct Source {
    socket: UdpSocket,
    next: u64,
}

impl Source {
    fn to(relay: &Relay) -> Self {
        let socket = UdpSocket::bind(LOCAL).expect("a free port");
        socket.connect(relay.input()).expect("an address");
        Self { socket, next: 0 }
    }

    /// Datagram `n` of the stream: seven packets of PID 0x100, and `n` in each of them.
    fn datagram(n: u64) -> Vec<u8> {
        let packet = |k: u64| {
            let mut bytes = [0xAB; 188];
            let counter = u8::try_from((7 * n + k) % 16).expect("under 16");
            bytes[..4].copy_from_slice(&[0x47, 0x01, 0x00, 0x10 | counter]);
            bytes[8..16].copy_from_slice(&n.to_be_bytes());
            bytes
        };
        (0..7).flat_map(packet).collect()
    }

    fn send(&mut self, count: u64) {
        for n in self.next..self.next + count {
            self.socket.send(&Self::datagram(n)).expect("sent");
            // A burst that fits into every viewer's default buffer, then time to take it.
            if n % 32 == 31 {
                thread::sleep(Duration::from_millis(2));
            }
        }
        self.next += count;
    }

    fn skip(&mut self, count: u64) {
        self.next += count;
    }

    /// Sends until `relay` has read as much as it was sent.
    fn is_read(&self, relay: &Relay, datagrams: u64) {
        until("the relay has read all", || {
            relay.snapshot().input.datagrams == datagrams
        });
    }
}

/// The lab's client, in lines and a socket.
struct Lab {
    control: BufReader<TcpStream>,
    socket: UdpSocket,
}

impl Lab {
    fn to(relay: &Relay) -> Self {
        let control = TcpStream::connect(relay.addr()).expect("listening");
        control.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let socket = UdpSocket::bind(LOCAL).expect("a free port");
        Self {
            control: BufReader::new(control),
            socket,
        }
    }

    fn connected(relay: &Relay) -> Self {
        let mut lab = Self::to(relay);
        assert_eq!(lab.ask(&lab.conectar()), "OK\n");
        lab
    }

    fn conectar(&self) -> String {
        format!("CONECTAR {}", self.port())
    }

    fn port(&self) -> u16 {
        self.socket.local_addr().expect("bound").port()
    }

    fn say(&mut self, bytes: &[u8]) {
        self.control.get_mut().write_all(bytes).expect("connected");
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.control.read_line(&mut line).expect("an answer");
        line
    }

    fn ask(&mut self, command: &str) -> String {
        self.say(format!("{command}\n").as_bytes());
        self.hear()
    }

    /// The numbers of the next `count` datagrams.
    fn take(&self, count: usize) -> Vec<u64> {
        let mut bytes = [0; 2048];
        let patience = self.socket.set_read_timeout(Some(PATIENCE));
        patience.expect("a socket");
        (0..count)
            .map(|n| match self.socket.recv(&mut bytes) {
                Ok(1316) => u64::from_be_bytes(bytes[8..16].try_into().expect("eight")),
                other => panic!("datagram {n} of {count}: {other:?}"),
            })
            .collect()
    }

    /// Asserts that nothing comes.
    fn hears_nothing(&self) {
        let patience = self.socket.set_read_timeout(Some(NOTHING));
        patience.expect("a socket");
        let got = self.socket.recv(&mut [0; 2048]);
        assert!(got.is_err(), "got a datagram of {got:?} bytes");
    }
}

fn watch(relay: &Relay) -> Watch {
    Watch::start(&Order::new(vec![relay.addr()])).expect("a relay")
}

/// Stops `relay` and returns every visit, in the order of the viewers.
fn visits(relay: Relay) -> Vec<Visit> {
    let mut visits = relay.stop().expect("no log to fail");
    visits.sort_by_key(|visit| visit.viewer);
    visits
}

fn whole(view: &View, datagrams: u64) {
    assert_eq!(view.received.datagrams, datagrams, "{view:?}");
    assert_eq!(view.received.ts.errors, 0, "{view:?}");
    let sent = view.sent.expect("one of ours tells");
    assert_eq!((sent.sent, sent.dropped, sent.cc), (datagrams, 0, 0));
    assert_eq!(sent.bytes, view.received.bytes);
}

#[test]
fn every_viewer_gets_every_datagram_once_and_in_order() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let labs: Vec<Lab> = (0..3).map(|_| Lab::connected(&relay)).collect();
        let watches: Vec<Watch> = (0..3).map(|_| watch(&relay)).collect();
        // No more at a time than a default buffer holds.
        for from in (0..2_000).step_by(50) {
            source.send(50);
            for lab in &labs {
                assert!(lab.take(50).into_iter().eq(from..from + 50));
            }
        }
        drop(labs);
        for watch in watches {
            whole(&watch.quit().expect("nothing recorded"), 2_000);
        }
        let visits = visits(relay);
        assert_eq!(visits.len(), 6);
        for visit in &visits[..3] {
            assert_eq!((visit.sent.sent, visit.end), (2_000, End::Closed));
            assert_eq!(visit.received, None, "the lab's do not tell");
        }
        for visit in &visits[3..] {
            assert_eq!((visit.sent.sent, visit.end), (2_000, End::Left));
            assert_eq!(visit.sent.network_lost(visit.received.as_ref()), Some(0));
        }
    });
}

#[test]
fn a_lab_client_gets_datagrams_exactly_when_it_should() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let _other = Lab::connected(&relay);
        let mut lab = Lab::to(&relay);
        source.send(10);
        lab.hears_nothing();
        assert_eq!(lab.ask(&lab.conectar()), "OK\n");
        source.send(10);
        assert!(lab.take(10).into_iter().eq(10..20));
        assert_eq!(lab.ask("INTERRUMPIR"), "OK\n");
        source.send(30);
        lab.hears_nothing();
        assert_eq!(lab.ask("CONTINUAR"), "OK\n");
        source.send(10);
        assert!(lab.take(10).into_iter().eq(50..60));
        assert_eq!(lab.ask("DESCONECTAR"), "OK\n");
        assert_eq!(lab.hear(), "", "and closed");
        source.send(10);
        lab.hears_nothing();
        let visits = visits(relay);
        assert_eq!(visits[1].end, End::Left);
        assert_eq!((visits[1].sent.sent, visits[1].sent.paused), (20, 30));
    });
}

#[test]
fn after_the_ok_of_an_interruption_not_one_datagram_is_sent() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let going = Arc::new(AtomicBool::new(true));
        let sends = Arc::clone(&going);
        let sending = thread::spawn(move || {
            while sends.load(Ordering::SeqCst) {
                source.send(8);
                thread::sleep(Duration::from_micros(200));
            }
        });
        let watch = watch(&relay);
        let _other = self::watch(&relay);
        for _ in 0..30 {
            let sent = || relay.snapshot().viewers[0].sent.sent;
            let before = sent();
            until("it runs", || sent() > before);
            watch.pause().expect("running");
            let paused = sent();
            thread::sleep(Duration::from_millis(10));
            assert_eq!(sent(), paused);
            watch.resume().expect("paused");
        }
        going.store(false, Ordering::SeqCst);
        sending.join().expect("sent");
        let view = watch.quit().expect("nothing recorded");
        assert_eq!(view.received.ts.errors, 0, "a pause is no loss: {view:?}");
        let sent = view.sent.expect("told");
        assert!(sent.paused > 0, "{sent:?}");
        assert_eq!(
            sent.sent,
            view.received.datagrams + view.host_drop.unwrap_or(0)
        );
    });
}

#[test]
fn while_nobody_watches_nothing_is_read_and_nobody_gets_what_is_old() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        source.send(500);
        assert!(!relay.snapshot().awake);
        assert_eq!(relay.snapshot().input.datagrams, 0);
        let mut lab = Lab::connected(&relay);
        lab.hears_nothing();
        source.send(10);
        assert!(lab.take(10).into_iter().eq(500..510));
        assert_eq!(lab.ask("INTERRUMPIR"), "OK\n");
        until("it sleeps", || !relay.snapshot().awake);
        // It looks up ten times a second; what comes until then it may still read.
        thread::sleep(Duration::from_millis(250));
        source.send(700);
        assert_eq!(lab.ask("CONTINUAR"), "OK\n");
        lab.hears_nothing();
        source.send(10);
        assert!(lab.take(10).into_iter().eq(1210..1220));
        let shot = relay.snapshot();
        assert_eq!(shot.stale, 1200);
        assert_eq!(shot.input.ts.errors, 0, "what nobody wanted is not lost");
        assert_eq!(shot.viewers[0].sent.paused, 700);
        assert_eq!(shot.viewers[0].sent.sent, 20);
    });
}

#[test]
fn hostile_commands_are_refused_and_change_nothing() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let mut lab = Lab::to(&relay);
        for command in [
            "CONTINUAR",
            "INTERRUMPIR",
            "conectar 5000",
            "",
            "CONECTAR 80",
        ] {
            let answer = lab.ask(command);
            assert!(answer.starts_with("ERROR "), "{command}: {answer}");
        }
        for target in [
            "192.0.2.1 5000",
            "192.0.2.1:5000",
            "<192.0.2.1>",
            "localhost",
            "65536",
        ] {
            let answer = lab.ask(&format!("CONECTAR {target}"));
            assert!(answer.starts_with("ERROR "), "{target}: {answer}");
        }
        lab.say(b"\xff\xfd\x06\0CONECTAR\n");
        assert!(lab.hear().starts_with("ERROR "));
        assert!(relay.snapshot().viewers.is_empty());
        // Two in one segment, then one a byte at a time.
        let two = format!("{}\nINTERRUMPIR\n", lab.conectar());
        lab.say(two.as_bytes());
        assert_eq!(
            (lab.hear(), lab.hear()),
            ("OK\n".to_owned(), "OK\n".to_owned())
        );
        lab.control.get_ref().set_nodelay(true).expect("a socket");
        for byte in b"CONTINUAR\r\n" {
            lab.say(&[*byte]);
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(lab.hear(), "OK\n");
        assert_eq!(lab.ask(&lab.conectar()), "ERROR connected already\n");
        assert_eq!(lab.ask("CONTINUAR"), "ERROR not interrupted\n");
        let shot = relay.snapshot();
        assert_eq!(shot.viewers[0].standing, Standing::Running);
        assert_eq!(shot.viewers[0].to, lab.socket.local_addr().expect("bound"));
        source.send(5);
        assert!(lab.take(5).into_iter().eq(0..5));
    });
}

#[test]
fn a_million_bytes_without_a_newline_are_one_error_and_the_viewer_stays() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let mut lab = Lab::connected(&relay);
        lab.say(&vec![b'x'; 1_000_000]);
        assert!(lab.hear().contains("longer"));
        source.send(5);
        assert_eq!(lab.take(5).len(), 5);
        lab.say(b"\n");
        assert_eq!(lab.ask("INTERRUMPIR"), "OK\n");
        // For ever is another matter.
        let endless = vec![b'x'; 1 << 20];
        let ended = (0..64).find(|_| lab.control.get_mut().write_all(&endless).is_err());
        assert!(ended.is_some(), "never closed");
    });
}

#[test]
fn a_second_viewer_at_the_same_port_is_refused_and_no_more_come_than_may() {
    within(LIMIT, || {
        let relay = relay_with(|settings| settings.max_viewers = 2);
        let lab = Lab::connected(&relay);
        let mut other = Lab::to(&relay);
        let answer = other.ask(&lab.conectar());
        assert!(answer.contains("has a viewer already"), "{answer}");
        assert_eq!(other.ask(&other.conectar()), "OK\n");
        let mut third = Lab::to(&relay);
        let answer = third.ask(&third.conectar());
        assert!(answer.contains("2 viewers already"), "{answer}");
        drop(lab);
        until("its place is free", || relay.snapshot().viewers.len() == 1);
        assert_eq!(third.ask(&third.conectar()), "OK\n");
    });
}

#[test]
fn a_thousand_silent_connections_keep_nobody_out() {
    within(LIMIT, || {
        let relay = relay();
        let silent: Vec<TcpStream> = (0..1_000)
            .map(|n| TcpStream::connect(relay.addr()).unwrap_or_else(|e| panic!("{n}: {e}")))
            .collect();
        let mut source = Source::to(&relay);
        let lab = Lab::connected(&relay);
        source.send(50);
        assert!(lab.take(50).into_iter().eq(0..50));
        assert!(relay.connections() > 900);
        drop(silent);
        until("their threads end", || relay.connections() == 1);
    });
}

#[test]
fn a_viewer_that_never_reads_costs_the_others_nothing() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let mut deaf = Lab::connected(&relay);
        // It does not read its answers either.
        let flood = b"CONTINUAR\n".repeat(1 << 20);
        deaf.control
            .get_ref()
            .set_nonblocking(true)
            .expect("a socket");
        let mut said = 0;
        while let Ok(n) = deaf.control.get_mut().write(&flood[said..]) {
            said += n;
        }
        let watch = watch(&relay);
        source.send(3_000);
        source.is_read(&relay, 3_000);
        whole(&watch.quit().expect("nothing recorded"), 3_000);
    });
}

#[test]
fn a_viewer_of_ours_that_falls_silent_is_let_go_soon() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let mut lab = Lab::connected(&relay);
        let answer = lab.ask("ALIVE datagrams=0 bytes=0 cc=0");
        assert!(answer.starts_with("OK sent="), "{answer}");
        let begun = Instant::now();
        until("it is let go", || {
            source.send(1);
            relay.snapshot().viewers.is_empty()
        });
        let took = begun.elapsed();
        // Five are promised; a machine that runs all tests at once is slow to look.
        assert!(took < Duration::from_secs(8), "{took:?}");
        assert!(took > Duration::from_secs(3), "{took:?}");
        assert_eq!(lab.hear(), "ERROR no word within 4 s\n");
        assert_eq!(lab.hear(), "");
        assert_eq!(visits(relay)[0].end, End::Silent);
    });
}

#[test]
fn a_lab_client_may_be_silent_as_long_as_the_bound_says() {
    within(LIMIT, || {
        let relay = relay_with(|settings| settings.max_silence = Duration::from_secs(1));
        let mut lab = Lab::connected(&relay);
        assert_eq!(lab.hear(), "ERROR no word within 1 s\n");
        assert_eq!(visits(relay)[0].end, End::Silent);
    });
}

#[test]
fn where_nobody_listens_nothing_is_sent_for_long() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let mut lab = Lab::to(&relay);
        let command = lab.conectar();
        lab.socket = UdpSocket::bind(LOCAL).expect("another free port");
        assert_eq!(lab.ask(&command), "OK\n");
        let begun = Instant::now();
        until("it is let go", || {
            source.send(1);
            relay.snapshot().viewers.is_empty()
        });
        assert!(begun.elapsed() < Duration::from_secs(8));
        let answer = lab.hear();
        assert!(
            answer.starts_with("ERROR nobody listens at port"),
            "{answer}"
        );
        assert_eq!(visits(relay)[0].end, End::Refused);
    });
}

#[test]
fn a_player_that_starts_a_little_late_is_waited_for() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let mut lab = Lab::to(&relay);
        let addr = lab.socket.local_addr().expect("bound");
        let command = lab.conectar();
        lab.socket = UdpSocket::bind(LOCAL).expect("another free port");
        assert_eq!(lab.ask(&command), "OK\n");
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(2) {
            source.send(1);
            thread::sleep(Duration::from_millis(5));
        }
        lab.socket = UdpSocket::bind(addr).expect("free again");
        let from = source.next;
        while begun.elapsed() < Duration::from_secs(5) {
            source.send(1);
            thread::sleep(Duration::from_millis(5));
        }
        let first = lab.take(1)[0];
        assert!(first <= from + 1, "{first} of {from}");
        assert_eq!(relay.snapshot().viewers.len(), 1);
    });
}

#[test]
fn who_joins_in_mid_stream_gets_the_tables_first() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let first = Lab::connected(&relay);
        let tables = tables();
        source.socket.send(&tables).expect("sent");
        source.send(5);
        source.is_read(&relay, 6);
        let late = Lab::connected(&relay);
        source.send(5);
        let mut bytes = [0; 2048];
        let len = late.socket.recv(&mut bytes).expect("the tables");
        assert_eq!(&bytes[..len], tables);
        assert!(late.take(5).into_iter().eq(5..10));
        drop((first, late));
        // They are another stream's, perhaps, once nobody has watched.
        until("both are gone", || relay.snapshot().viewers.is_empty());
        until("it sleeps", || !relay.snapshot().awake);
        thread::sleep(Duration::from_millis(250));
        let next = Lab::connected(&relay);
        until("it is awake", || relay.snapshot().awake);
        source.send(5);
        assert!(next.take(5).into_iter().eq(10..15));
    });
}

/// A program association and a program map, a packet each.
fn tables() -> Vec<u8> {
    let section = |pid: u16, body: &[u8]| {
        let crc = body.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| {
                crc << 1 ^ if crc >> 31 == 1 { 0x04C1_1DB7 } else { 0 }
            })
        });
        let [high, low] = (0x4000 | pid).to_be_bytes();
        let mut packet = vec![0x47, high, low, 0x10, 0];
        packet.extend(body);
        packet.extend(crc.to_be_bytes());
        packet.resize(188, 0xFF);
        packet
    };
    let mut tables = section(0, &[0, 0xB0, 13, 0, 1, 0xC1, 0, 0, 0, 1, 0xF0, 0]);
    tables.extend(section(
        0x1000,
        &[
            2, 0xB0, 18, 0, 1, 0xC1, 0, 0, 0xE1, 0, 0xF0, 0, 2, 0xE1, 0, 0xF0, 0,
        ],
    ));
    tables
}

#[test]
fn what_the_source_lost_is_told_from_what_came_after() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let watch = watch(&relay);
        source.send(100);
        source.skip(3);
        source.send(100);
        source.skip(1);
        source.send(100);
        source.is_read(&relay, 300);
        let view = watch.quit().expect("nothing recorded");
        assert_eq!(view.received.ts.errors, 2);
        let sent = view.sent.expect("told");
        assert_eq!((sent.sent, sent.cc), (300, 2), "the source's, all of them");
    });
}

#[test]
fn a_second_source_does_not_mix_in_and_a_new_one_takes_over() {
    within(LIMIT, || {
        let relay = relay();
        let (mut source, mut other) = (Source::to(&relay), Source::to(&relay));
        let lab = Lab::connected(&relay);
        source.send(1);
        source.is_read(&relay, 1);
        other.send(5);
        source.send(9);
        assert!(lab.take(10).into_iter().eq(0..10));
        lab.hears_nothing();
        assert_eq!(relay.snapshot().foreign, 5);
        // The first is silent now; after half a second the stream is the other's.
        thread::sleep(Duration::from_millis(600));
        other.send(5);
        assert!(lab.take(5).into_iter().eq(5..10));
        source.send(3);
        lab.hears_nothing();
        assert_eq!(relay.snapshot().foreign, 8);
    });
}

#[test]
fn what_is_no_transport_stream_is_relayed_as_it_is() {
    within(LIMIT, || {
        let relay = relay();
        let source = Source::to(&relay);
        let lab = Lab::connected(&relay);
        let sizes = [1, 188, 565, 1400, 1472, 9000, 65_507];
        for size in sizes {
            source.socket.send(&vec![7; size]).expect("sent");
        }
        let mut bytes = vec![0; 65_536];
        lab.take(0);
        for size in sizes {
            assert_eq!(lab.socket.recv(&mut bytes).expect("relayed"), size);
        }
        until("they are counted", || relay.snapshot().input.strange == 7);
    });
}

#[test]
fn a_recording_is_the_stream_and_the_player_gets_it_too() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let folder = tempfile::tempdir().expect("room");
        let path = folder.path().join("stream.ts");
        let player = UdpSocket::bind(LOCAL).expect("a free port");
        player.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let order = Order {
            record: Some(path.clone()),
            player: Some(player.local_addr().expect("bound")),
            ..Order::new(vec![relay.addr()])
        };
        let watch = Watch::start(&order).expect("a relay");
        source.send(60);
        source.is_read(&relay, 60);
        let view = watch.quit().expect("recorded");
        whole(&view, 60);
        assert_eq!((view.recorded, view.unplayed), (60 * 1316, 0));
        let wanted: Vec<u8> = (0..60).flat_map(Source::datagram).collect();
        assert_eq!(std::fs::read(&path).expect("written"), wanted);
        let mut bytes = [0; 2048];
        for n in 0..60 {
            let len = player.recv(&mut bytes).expect("played");
            assert_eq!(bytes[..len], Source::datagram(n));
        }
    });
}

#[test]
fn a_viewer_learns_that_the_relay_is_gone_and_a_recording_that_cannot_be_is_an_error() {
    within(LIMIT, || {
        let relay = relay();
        let watch = watch(&relay);
        let _tap = Source::to(&relay);
        let stopping = thread::spawn(move || visits(relay));
        assert!(watch.wait(PATIENCE), "it is not told");
        assert!(watch.over().is_some());
        assert!(watch.pause().is_err());
        let view = watch.quit().expect("what is known");
        assert_eq!(view.received.datagrams, 0);
        assert_eq!(stopping.join().expect("stopped")[0].end, End::Stopped);
        let order = Order {
            record: Some("/".into()),
            ..Order::new(vec![LOCAL])
        };
        assert!(Watch::start(&order).is_err(), "no relay and no file");
    });
}

#[test]
fn a_relay_that_knows_only_the_labs_words_is_watched_all_the_same() {
    within(LIMIT, || {
        let listener = std::net::TcpListener::bind(LOCAL).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let old = thread::spawn(move || {
            let (control, _) = listener.accept().expect("a viewer");
            let mut lines = BufReader::new(control.try_clone().expect("a socket")).lines();
            let mut control = control;
            let mut heard = Vec::new();
            while let Some(Ok(line)) = lines.next() {
                let port = line.strip_prefix("CONECTAR ").map(|port| {
                    let port: u16 = port.parse().expect("a port");
                    let socket = UdpSocket::bind(LOCAL).expect("a free port");
                    socket
                        .send_to(&Source::datagram(0), (Ipv4Addr::LOCALHOST, port))
                        .expect("sent");
                });
                let known = port.is_some() || line == "INTERRUMPIR" || line == "DESCONECTAR";
                let answer = if known {
                    "OK\n"
                } else {
                    "ERROR comando desconocido\n"
                };
                control.write_all(answer.as_bytes()).expect("connected");
                heard.push(line);
            }
            heard
        });
        let watch = Watch::start(&Order::new(vec![addr])).expect("a relay");
        until("the datagram comes", || {
            watch.view().received.datagrams == 1
        });
        thread::sleep(Duration::from_millis(1_200));
        assert_eq!(watch.over(), None);
        let view = watch.quit().expect("nothing recorded");
        assert_eq!(view.sent, None, "unknown is unknown");
        let heard = old.join().expect("an old relay");
        assert_eq!(
            heard
                .iter()
                .filter(|line| line.starts_with("ALIVE"))
                .count(),
            1
        );
        assert_eq!(heard.last().map(String::as_str), Some("DESCONECTAR"));
    });
}

#[test]
fn the_log_has_a_line_for_each_visit() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let relay = relay_with(|settings| settings.log_dir = Some(folder.path().join("logs")));
        let mut source = Source::to(&relay);
        let mut lab = Lab::connected(&relay);
        let watch = watch(&relay);
        source.send(20);
        source.is_read(&relay, 20);
        watch.quit().expect("nothing recorded");
        assert_eq!(lab.ask("DISCONNECT"), "OK\n");
        let visits = visits(relay);
        let logs: Vec<_> = std::fs::read_dir(folder.path().join("logs"))
            .expect("a log")
            .flatten()
            .collect();
        assert_eq!(logs.len(), 1);
        let text = std::fs::read_to_string(logs[0].path()).expect("text");
        let mut read: Vec<Visit> = text
            .split_inclusive('\n')
            .skip(1)
            .map(|line| Visit::decode(line).expect("our own line"))
            .collect();
        read.sort_by_key(|visit| visit.viewer);
        assert_eq!(read, visits);
        assert_eq!(read.len(), 2);
    });
}

#[test]
fn a_connection_that_ends_halfway_is_no_viewer_any_more() {
    within(LIMIT, || {
        let relay = relay();
        let lab = Lab::connected(&relay);
        lab.control
            .get_ref()
            .shutdown(Shutdown::Write)
            .expect("open");
        until("it is gone", || relay.snapshot().viewers.is_empty());
        let mut rest = Vec::new();
        let _ = lab.control.get_ref().read_to_end(&mut rest);
        assert!(rest.is_empty(), "{rest:?}");
    });
}

//! The relay over real sockets: what every viewer gets, also beside hostile ones.

#[cfg(feature = "sockopt")]
mod group;
mod hostile;
mod http;
mod ladder;
mod page;
mod record;
mod source;

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use crate::common::{PATIENCE, until, within};
use gatecast::{
    RelayBuilder,
    internals::{
        proto::relay::{
            log::{ViewerEnd, ViewerRecord},
            status::WatchSnapshot,
        },
        relay::{
            Relay,
            watch::{Watch, WatchConfig},
        },
    },
};

const LOCAL: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// No test takes longer.
const LIMIT: Duration = Duration::from_secs(60);

/// When no datagram comes for so long, none will.
const NOTHING: Duration = Duration::from_millis(300);

/// A relay on ports of its own.
fn relay() -> Relay {
    relay_with(|builder| builder)
}

fn relay_with(set: impl FnOnce(RelayBuilder) -> RelayBuilder) -> Relay {
    let builder = Relay::builder().input(LOCAL).listen(LOCAL);
    set(builder).start().expect("free ports")
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

    /// Sends, and lets every viewer of ours take it: no default buffer overflows, however long a busy
    /// machine lets the relay or a viewer wait.
    fn send_through(&mut self, relay: &Relay, watches: &[&Watch], count: u64) {
        let before = relay.snapshot().input.datagrams;
        let had: Vec<u64> = watches.iter().map(|w| w.snapshot().received.datagrams).collect();
        for done in (0..count).step_by(32) {
            self.send((count - done).min(32));
            let now = (done + 32).min(count);
            self.is_read(relay, before + now);
            until("the viewers have them", || {
                let has = |(watch, had): (&&Watch, &u64)| {
                    watch.snapshot().received.datagrams >= had + now
                };
                watches.iter().zip(&had).all(has)
            });
        }
    }

    /// Waits until `relay` has read as much as it was sent.
    fn is_read(&self, relay: &Relay, datagrams: u64) {
        until("the relay has read all", || relay.snapshot().input.datagrams >= datagrams);
    }
}

/// The lab's client: a control connection and a UDP socket.
struct Lab {
    control: BufReader<TcpStream>,
    socket: UdpSocket,
}

impl Lab {
    fn to(relay: &Relay) -> Self {
        let control = TcpStream::connect(relay.local_addr()).expect("listening");
        control.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let socket = UdpSocket::bind(LOCAL).expect("a free port");
        Self { control: BufReader::new(control), socket }
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

    fn send(&mut self, bytes: &[u8]) {
        self.control.get_mut().write_all(bytes).expect("connected");
    }

    fn read_line(&mut self) -> String {
        let mut line = String::new();
        self.control.read_line(&mut line).expect("an answer");
        line
    }

    fn ask(&mut self, command: &str) -> String {
        self.send(format!("{command}\n").as_bytes());
        self.read_line()
    }

    /// The numbers of the next `count` datagrams.
    fn receive(&self, count: usize) -> Vec<u64> {
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
    fn receives_nothing(&self) {
        let patience = self.socket.set_read_timeout(Some(NOTHING));
        patience.expect("a socket");
        let got = self.socket.recv(&mut [0; 2048]);
        assert!(got.is_err(), "got a datagram of {got:?} bytes");
    }
}

fn watch(relay: &Relay) -> Watch {
    Watch::start(&WatchConfig::new(vec![relay.local_addr()])).expect("a relay")
}

/// Stops `relay` and returns every visit, in the order of the viewers.
fn visits(relay: Relay) -> Vec<ViewerRecord> {
    let mut visits = relay.stop().expect("no log to fail");
    visits.sort_by_key(|visit| visit.viewer);
    visits
}

fn whole(view: &WatchSnapshot, datagrams: u64) {
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
        // At most as many at a time as a default buffer holds.
        for from in (0..2_000).step_by(50) {
            source.send(50);
            for lab in &labs {
                assert!(lab.receive(50).into_iter().eq(from..from + 50));
            }
            let has = |watch: &Watch| watch.snapshot().received.datagrams == from + 50;
            until("the others have them", || watches.iter().all(has));
        }
        drop(labs);
        for watch in watches {
            whole(&watch.quit().expect("nothing recorded"), 2_000);
        }
        let visits = visits(relay);
        assert_eq!(visits.len(), 6);
        for visit in &visits[..3] {
            assert_eq!((visit.sent.sent, visit.end), (2_000, ViewerEnd::Closed));
            assert_eq!(visit.received, None, "the lab's do not tell");
        }
        for visit in &visits[3..] {
            assert_eq!((visit.sent.sent, visit.end), (2_000, ViewerEnd::Left));
            assert_eq!(visit.sent.network_lost(visit.received.as_ref()), Some(0));
        }
    });
}

#[test]
fn lab_client_gets_datagrams_only_while_running() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let _other = Lab::connected(&relay);
        let mut lab = Lab::to(&relay);
        source.send(10);
        source.is_read(&relay, 10);
        lab.receives_nothing();
        assert_eq!(lab.ask(&lab.conectar()), "OK\n");
        source.send(10);
        assert!(lab.receive(10).into_iter().eq(10..20));
        assert_eq!(lab.ask("INTERRUMPIR"), "OK\n");
        source.send(30);
        until("they pass", || relay.snapshot().viewers[1].sent.paused == 30);
        lab.receives_nothing();
        assert_eq!(lab.ask("CONTINUAR"), "OK\n");
        source.send(10);
        assert!(lab.receive(10).into_iter().eq(50..60));
        assert_eq!(lab.ask("DESCONECTAR"), "OK\n");
        assert_eq!(lab.read_line(), "", "and closed");
        source.send(10);
        lab.receives_nothing();
        let visits = visits(relay);
        assert_eq!(visits[1].end, ViewerEnd::Left);
        assert_eq!((visits[1].sent.sent, visits[1].sent.paused), (20, 30));
    });
}

#[test]
fn no_datagram_is_sent_after_interrupt_is_answered() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let (watch, other) = (watch(&relay), watch(&relay));
        let going = AtomicBool::new(true);
        thread::scope(|scope| {
            // No more than both take: a queue that overflows on a busy machine is no part of this.
            scope.spawn(|| {
                while going.load(Ordering::SeqCst) {
                    source.send(32);
                    source.is_read(&relay, source.next);
                    until("both have them", || {
                        let viewers = relay.snapshot().viewers;
                        let got = |watch: &Watch| watch.snapshot().received.datagrams;
                        got(&watch) >= viewers[0].sent.sent && got(&other) >= viewers[1].sent.sent
                    });
                }
            });
            let sent = || relay.snapshot().viewers[0].sent.sent;
            for _ in 0..30 {
                let before = sent();
                until("it runs", || sent() > before);
                watch.pause().expect("running");
                let paused = sent();
                thread::sleep(Duration::from_millis(10));
                assert_eq!(sent(), paused);
                watch.resume().expect("paused");
            }
            // In the last pause something must have come, however slow the source was.
            watch.pause().expect("running");
            until("something passes", || relay.snapshot().viewers[0].sent.paused > 0);
            watch.resume().expect("paused");
            going.store(false, Ordering::SeqCst);
        });
        let view = watch.quit().expect("nothing recorded");
        assert_eq!(view.received.ts.errors, 0, "a pause is no loss: {view:?}");
        let sent = view.sent.expect("told");
        assert!(sent.paused > 0, "{sent:?}");
        assert_eq!(sent.sent, view.received.datagrams + view.host_drop.unwrap_or(0));
    });
}

#[test]
fn recording_and_player_get_the_whole_stream() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let folder = tempfile::tempdir().expect("room");
        let path = folder.path().join("stream.ts");
        let player = UdpSocket::bind(LOCAL).expect("a free port");
        player.set_read_timeout(Some(PATIENCE)).expect("a socket");
        let order = WatchConfig {
            record: Some(path.clone()),
            player: Some(player.local_addr().expect("bound")),
            ..WatchConfig::new(vec![relay.local_addr()])
        };
        let watch = Watch::start(&order).expect("a relay");
        source.send_through(&relay, &[&watch], 60);
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
fn watch_reports_a_stopped_relay_and_an_impossible_recording() {
    within(LIMIT, || {
        let relay = relay();
        let watch = watch(&relay);
        let _tap = Source::to(&relay);
        let stopping = thread::spawn(move || visits(relay));
        until("the end is told", || watch.end_reason().is_some());
        assert!(watch.pause().is_err());
        let view = watch.quit().expect("what is known");
        assert_eq!(view.received.datagrams, 0);
        assert_eq!(stopping.join().expect("stopped")[0].end, ViewerEnd::Stopped);
        let order = WatchConfig { record: Some("/".into()), ..WatchConfig::new(vec![LOCAL]) };
        assert!(Watch::start(&order).is_err(), "no relay and no file");
    });
}

#[test]
fn watch_works_with_a_relay_that_knows_only_lab_commands() {
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
                let answer = if known { "OK\n" } else { "ERROR comando desconocido\n" };
                control.write_all(answer.as_bytes()).expect("connected");
                heard.push(line);
            }
            heard
        });
        let watch = Watch::start(&WatchConfig::new(vec![addr])).expect("a relay");
        until("the datagram comes", || watch.snapshot().received.datagrams == 1);
        thread::sleep(Duration::from_millis(1_200));
        assert_eq!(watch.end_reason(), None);
        let view = watch.quit().expect("nothing recorded");
        assert_eq!(view.sent, None, "unknown is unknown");
        let heard = old.join().expect("an old relay");
        assert_eq!(heard.iter().filter(|line| line.starts_with("ALIVE")).count(), 1);
        assert_eq!(heard.last().map(String::as_str), Some("DESCONECTAR"));
    });
}

/// A relay of the lab's kind with one viewer; it answers each command as `answer` says.
fn old_relay(answer: impl Fn(&str) -> &'static str + Send + 'static) -> SocketAddr {
    let listener = std::net::TcpListener::bind(LOCAL).expect("a free port");
    let addr = listener.local_addr().expect("bound");
    thread::spawn(move || {
        let (mut control, _) = listener.accept().expect("a viewer");
        let lines = BufReader::new(control.try_clone().expect("a socket")).lines();
        for line in lines.map_while(Result::ok) {
            let answer = format!("{}\n", answer(&line));
            if control.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    });
    addr
}

#[test]
fn relay_answers_are_escaped_before_they_are_shown() {
    within(LIMIT, || {
        // Control characters break the protocol. Characters that change the direction of text do
        // not.
        let hostile = "ERROR \u{202e}no\u{2028}OK";
        let safe = |shown: &str| !shown.chars().any(gatecast::internals::text::is_unsafe);
        let addr = old_relay(move |_| hostile);
        let error = Watch::start(&WatchConfig::new(vec![addr])).expect_err("refused");
        let shown = error.to_string();
        assert!(safe(&shown), "{shown:?}");
        assert!(shown.ends_with("\\u{202e}no\\u{2028}OK"), "{shown:?}");
        // The same for an answer to a later command, and for the reason why the viewer ended.
        let addr = old_relay(move |line| match line.split(' ').next() {
            Some("CONECTAR" | "DESCONECTAR") => "OK",
            Some("ALIVE") => "OK sent=0 bytes=0 dropped=0 paused=0 cc=0",
            _ => hostile,
        });
        let watch = Watch::start(&WatchConfig::new(vec![addr])).expect("a relay");
        let shown = watch.pause().expect_err("refused").to_string();
        assert!(safe(&shown), "{shown:?}");
        let addr = old_relay(move |line| match line.split(' ').next() {
            Some("CONECTAR") => "OK",
            Some("ALIVE") => "OK sent=0 bytes=0 dropped=0 paused=0 cc=0 \x1b[2J",
            _ => hostile,
        });
        let watch = Watch::start(&WatchConfig::new(vec![addr])).expect("a relay");
        until("the end of what broke the protocol", || watch.end_reason().is_some());
        let shown = watch.end_reason().expect("over");
        assert!(safe(&shown), "{shown:?}");
    });
}

#[test]
fn refused_continue_hides_no_loss() {
    within(LIMIT, || {
        let relay = relay();
        let mut source = Source::to(&relay);
        let watch = watch(&relay);
        source.send(10);
        let came = |count| until("they came", || watch.snapshot().received.datagrams == count);
        came(10);
        assert!(watch.resume().is_err(), "it is not paused");
        source.skip(3);
        source.send(10);
        came(20);
        assert_eq!(watch.snapshot().received.ts.errors, 1, "the source's loss");
        // After a pause there is no loss: what came in the pause was not wanted.
        watch.pause().expect("running");
        let _other = Lab::connected(&relay);
        source.send(10);
        until("they pass", || relay.snapshot().viewers[0].sent.paused == 10);
        watch.resume().expect("paused");
        source.send(10);
        came(30);
        assert_eq!(watch.snapshot().received.ts.errors, 1);
    });
}

#[test]
fn viewer_connects_by_link_local_address() {
    within(LIMIT, || {
        let Some(link_local) = link_local() else {
            return eprintln!("passed by: no link-local address here");
        };
        let relay = relay_with(|builder| builder.listen(link_local));
        let mut source = Source::to(&relay);
        let watch = watch(&relay);
        source.send(20);
        source.is_read(&relay, 20);
        whole(&watch.quit().expect("nothing recorded"), 20);
    });
}

/// A link-local address of this host, with its link, as Linux lists them.
fn link_local() -> Option<SocketAddr> {
    let table = std::fs::read_to_string("/proc/net/if_inet6").ok()?;
    table.lines().find_map(|row| {
        let mut columns = row.split_whitespace();
        let ip = u128::from_str_radix(columns.next()?, 16).ok()?;
        let link = u32::from_str_radix(columns.next()?, 16).ok()?;
        let ip = std::net::Ipv6Addr::from_bits(ip);
        let addr = std::net::SocketAddrV6::new(ip, 0, 0, link);
        ip.is_unicast_link_local().then_some(addr.into())
    })
}

#[test]
fn log_has_a_line_for_each_viewer() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let relay = relay_with(|builder| builder.log_dir(folder.path().join("logs")));
        let mut source = Source::to(&relay);
        let mut lab = Lab::connected(&relay);
        let watch = watch(&relay);
        source.send(20);
        source.is_read(&relay, 20);
        watch.quit().expect("nothing recorded");
        assert_eq!(lab.ask("DISCONNECT"), "OK\n");
        let visits = visits(relay);
        let logs: Vec<_> =
            std::fs::read_dir(folder.path().join("logs")).expect("a log").flatten().collect();
        assert_eq!(logs.len(), 1);
        let text = std::fs::read_to_string(logs[0].path()).expect("text");
        let mut read: Vec<ViewerRecord> = text
            .split_inclusive('\n')
            .skip(1)
            .map(|line| ViewerRecord::decode(line).expect("our own line"))
            .collect();
        read.sort_by_key(|visit| visit.viewer);
        assert_eq!(read, visits);
        assert_eq!(read.len(), 2);
    });
}

/// A bare stream in datagrams of 952 bytes: every 47th begins with the last 12 bytes of a packet,
/// which pass for an RTP header here, and ends with one.
#[test]
fn bare_stream_that_looks_like_rtp_is_recorded_whole() {
    within(LIMIT, || {
        let relay = relay();
        let source = Source::to(&relay);
        let folder = tempfile::tempdir().expect("room");
        let path = folder.path().join("stream.ts");
        let record = Some(path.clone());
        let config = WatchConfig { record, ..WatchConfig::new(vec![relay.local_addr()]) };
        let watch = Watch::start(&config).expect("a relay");
        let mut stream: Vec<u8> = (0..340).flat_map(Source::datagram).collect();
        for (n, packet) in (0_u16..).zip(stream.chunks_mut(188)) {
            let [high, low] = n.to_be_bytes();
            packet[176..].copy_from_slice(&[0x80, 33, high, low, 0, 0, 0, 1, 0, 0, 0, 7]);
        }
        let datagrams: Vec<&[u8]> = stream.chunks(952).collect();
        for some in datagrams.chunks(32) {
            for datagram in some {
                source.socket.send(datagram).expect("sent");
            }
            thread::sleep(Duration::from_millis(2));
        }
        source.is_read(&relay, datagrams.len() as u64);
        let view = watch.quit().expect("recorded");
        assert_eq!((view.received.ts.errors, view.received.not_ts), (0, 0));
        assert_eq!(view.received.rtp, None);
        assert_eq!(view.sent.expect("told").cc, 0, "nor is the source blamed");
        assert!(std::fs::read(&path).expect("written") == stream);
    });
}

#[test]
fn refusing_relay_leaves_the_old_recording() {
    within(LIMIT, || {
        let relay = relay_with(|builder| builder.max_viewers(1));
        let _lab = Lab::connected(&relay);
        let folder = tempfile::tempdir().expect("room");
        let path = folder.path().join("stream.ts");
        std::fs::write(&path, b"of yesterday").expect("room");
        let watch_into = |path: &std::path::Path, relay: &Relay| {
            let record = Some(path.to_owned());
            Watch::start(&WatchConfig { record, ..WatchConfig::new(vec![relay.local_addr()]) })
        };
        let error = watch_into(&path, &relay).expect_err("full").to_string();
        assert!(error.contains("1 viewers already"), "{error}");
        assert_eq!(std::fs::read(&path).expect("there"), b"of yesterday");
        assert!(watch_into(&folder.path().join("new.ts"), &relay).is_err());
        assert_eq!(std::fs::read_dir(&folder).expect("there").count(), 1, "nothing was made");
    });
}

#[cfg(unix)]
#[test]
fn recording_does_not_follow_a_link() {
    within(LIMIT, || {
        let relay = relay();
        let folder = tempfile::tempdir().expect("room");
        let (link, victim) = (folder.path().join("stream.ts"), folder.path().join("victim"));
        std::fs::write(&victim, b"precious").expect("room");
        std::os::unix::fs::symlink(&victim, &link).expect("room");
        let config =
            WatchConfig { record: Some(link), ..WatchConfig::new(vec![relay.local_addr()]) };
        let error = Watch::start(&config).expect_err("a link").to_string();
        assert!(error.contains("symbolic link"), "{error}");
        assert_eq!(std::fs::read(&victim).expect("there"), b"precious");
    });
}

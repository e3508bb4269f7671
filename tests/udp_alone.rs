//! UDP and nothing else: a client without a control connection, and what strangers get at its door.

#[path = "it/common/mod.rs"]
mod common;

use std::net::SocketAddr;
use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use common::Server;
use common::entries;
use common::until;
use common::whole;
use common::within;
use gatecast::internals::client::End;
use gatecast::internals::client::Fetch;
use gatecast::internals::client::Order;
use gatecast::internals::proto::udp::greet::Greet;
use gatecast::internals::proto::udp::greet::Word;
use gatecast::internals::session::Via;
use gatecast::internals::transfer::Outcome;
use gatecast::internals::transport::udp::porter::Porter;
use gatecast::internals::transport::udp::visit;

const LIMIT: Duration = Duration::from_secs(100);

fn server(bytes: u64, rate: u64) -> (Server, Porter) {
    let server = Server::new(bytes, |settings| {
        settings.rate = common::bytes_per_second(rate);
    });
    let running = server.running();
    let any = ([127, 0, 0, 1], 0).into();
    let porter = Porter::start(any, running.lobby(), running.pen()).expect("a port");
    (server, porter)
}

fn fetch(server: &Server, at: SocketAddr, set: impl FnOnce(&mut Order)) -> Vec<End> {
    let mut order = server.order("a");
    order.server = vec![at];
    set(&mut order);
    visit::run(&Fetch::new(&order), &order).expect("an order that can be begun")
}

#[test]
fn a_client_that_has_only_datagrams_gets_its_file_and_attests_it() {
    within(LIMIT, || {
        for bytes in [0, 1, 1448, 3_000_017] {
            let (server, porter) = server(bytes, 30_000_000);
            whole(fetch(&server, porter.addr(), |_| {}), &server);
            let record = server.record();
            assert_eq!((record.via, record.clients), (Via::Udp, 1));
            assert!(record.all_proven(), "{record:?}");
            assert_eq!(record.broken_identities(), Vec::<String>::new());
            assert_eq!(record.transfers[0].bytes_client, Some(bytes));
            drop(porter);
            server.stop();
        }
    });
}

#[test]
fn several_are_sessions_of_their_own_and_a_part_is_taken_up() {
    within(LIMIT, || {
        let (server, porter) = server(2_000_000, 30_000_000);
        let source = std::fs::read(server.source()).expect("there");
        let out = server.out("a");
        std::fs::create_dir_all(&out).expect("room");
        let part = out.join(format!(".{}-2.part", server.sha1.short()));
        std::fs::write(part, &source[..777_777]).expect("room");
        let ends = fetch(&server, porter.addr(), |order| {
            order.clients = 3;
            order.resume = true;
        });
        for end in &ends {
            assert!(end.error.is_none(), "{:?}", end.error);
            let copy = std::fs::read(end.path.as_ref().expect("proven")).expect("there");
            assert!(copy == source);
        }
        assert_eq!(entries(&out).len(), 3);
        let records = [server.record(), server.record(), server.record()];
        assert!(records.iter().all(|record| record.all_proven()));
        let resumed: u64 = records.iter().map(|r| r.transfers[0].bytes_resumed).sum();
        assert_eq!(resumed, 777_777);
        drop(porter);
        server.stop();
    });
}

/// Passes datagrams between one client and a server; those that `lost` says are lost.
struct Path {
    addr: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Path {
    fn start(
        server: SocketAddr,
        mut lost: impl FnMut(&[u8], bool) -> bool + Send + 'static,
    ) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let addr = socket.local_addr().expect("bound");
        #[cfg(feature = "sockopt")]
        let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(4 << 20);
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("a setting");
        let over = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&over);
        let thread = thread::spawn(move || {
            let mut client = None;
            let mut buffer = vec![0; 65_536];
            while !ended.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                let to = match from == server {
                    true => client,
                    false => {
                        client = Some(from);
                        Some(server)
                    }
                };
                if let Some(to) = to.filter(|_| !lost(&buffer[..len], from == server)) {
                    let _ = socket.send_to(&buffer[..len], to);
                }
            }
        });
        Self {
            addr,
            over,
            thread: Some(thread),
        }
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("once");
        assert!(thread.join().is_ok() || thread::panicking());
    }
}

#[test]
fn a_path_that_loses_both_ways_loses_no_word_that_matters() {
    within(LIMIT, || {
        let (server, porter) = server(1_500_000, 4_000_000);
        // The first of every kind of greeting in either direction, and a tenth of all else.
        let (mut seen, mut count) = (std::collections::BTreeSet::new(), 0_u32);
        let path = Path::start(porter.addr(), move |datagram, down| {
            count += 1;
            let line = match Greet::decode(datagram) {
                Ok(Greet {
                    word: Word::Line(line),
                    ..
                }) => line.split(' ').next().map(str::to_owned),
                Ok(_) => None,
                Err(_) => return count.is_multiple_of(10),
            };
            seen.insert((datagram[3], line, down)) || count.is_multiple_of(10)
        });
        whole(fetch(&server, path.addr, |_| {}), &server);
        let record = server.record();
        assert!(record.all_proven(), "{record:?}");
        assert!(record.transfers[0].counts.lost > Some(50), "{record:?}");
        drop((path, porter));
        server.stop();
    });
}

#[test]
fn strangers_are_sent_no_more_than_they_sent_and_are_not_remembered() {
    within(LIMIT, || {
        let (server, porter) = server(1_000_000, 10_000_000);
        let at = porter.addr();
        // The cookie of one address, for use at another.
        let first = UdpSocket::bind("127.0.0.1:0").expect("a port");
        first
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a setting");
        let hello = |cookie| {
            let word = Word::Hello {
                cookie,
                buffer: 212_992,
                file: None,
            };
            Greet { nonce: 7, word }.encode()
        };
        let ask = |socket: &UdpSocket, datagram: &[u8]| {
            socket.send_to(datagram, at).expect("sent");
            let mut buffer = [0; 2000];
            let len = socket.recv(&mut buffer).expect("an answer");
            assert!(len < datagram.len());
            buffer[..len].to_vec()
        };
        let answer = ask(&first, &hello([0; 16]));
        let Ok(Greet {
            word: Word::Cookie(cookie),
            ..
        }) = Greet::decode(&answer)
        else {
            panic!("{answer:?}");
        };
        let welcome = ask(&first, &hello(cookie));
        assert!(matches!(
            Greet::decode(&welcome),
            Ok(Greet {
                word: Word::Welcome(_),
                ..
            })
        ));
        let other = UdpSocket::bind("127.0.0.1:0").expect("a port");
        other
            .set_read_timeout(Some(Duration::from_secs(5)))
            .expect("a setting");
        let again = ask(&other, &hello(cookie));
        assert!(matches!(
            Greet::decode(&again),
            Ok(Greet { word: Word::Cookie(other), .. }) if other != cookie
        ));

        // Everything that there is but a cookie of its own, from one address.
        let (mut sent, got) = (0, Arc::new(AtomicU64::new(0)));
        let listening = other.try_clone().expect("a socket");
        listening
            .set_read_timeout(Some(Duration::from_millis(500)))
            .expect("a setting");
        let heard = Arc::clone(&got);
        let listener = thread::spawn(move || {
            let mut buffer = [0; 2000];
            while let Ok(len) = listening.recv(&mut buffer) {
                heard.fetch_add(len as u64, Ordering::Relaxed);
            }
        });
        let line = |line| {
            Greet {
                nonce: 7,
                word: Word::Line(line),
            }
            .encode()
        };
        for round in 0..400_usize {
            for datagram in [
                hello(cookie),
                hello([round as u8; 16]),
                line("READY offset=0"),
                line("REPORT seen=1 received=0 round=1 cum=0 missing=0000"),
                line("LAST bytes=1000000"),
                vec![0x0c; round * 163],
                hello(cookie)[..round * 3].to_vec(),
            ] {
                other.send_to(&datagram, at).expect("sent");
                sent += datagram.len() as u64;
            }
        }
        listener.join().expect("no panic");
        let got = got.load(Ordering::Relaxed);
        assert!(got > 0 && got < sent / 5, "{got} of {sent}");
        // An honest client is served meanwhile and after, and is the only row.
        whole(fetch(&server, at, |_| {}), &server);
        assert!(server.record().all_proven());
        drop(porter);
        server.stop();
    });
}

/// A guest that was let in and says nothing yet.
fn guest(at: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .expect("a setting");
    let mut cookie = [0; 16];
    let mut buffer = [0; 2000];
    loop {
        let word = Word::Hello {
            cookie,
            buffer: 212_992,
            file: None,
        };
        socket
            .send_to(&Greet { nonce: 9, word }.encode(), at)
            .expect("sent");
        let len = socket.recv(&mut buffer).expect("an answer");
        match Greet::decode(&buffer[..len]).expect("a greeting").word {
            Word::Cookie(given) => cookie = given,
            Word::Welcome(_) => return socket,
            word => panic!("{word:?}"),
        }
    }
}

fn say(at: SocketAddr, socket: &UdpSocket, line: &str) {
    let word = Word::Line(line);
    socket
        .send_to(&Greet { nonce: 9, word }.encode(), at)
        .expect("sent");
}

#[test]
fn a_guest_that_needs_nothing_and_says_nothing_more_leaves_its_place() {
    within(LIMIT, || {
        let (server, porter) = server(1_000_000, 10_000_000);
        let silent = guest(porter.addr());
        say(porter.addr(), &silent, "READY offset=1000000");
        let row = server.record().transfers.remove(0);
        assert_eq!(row.outcome, Outcome::TimedOut);
        let reason = row.reason.expect("why");
        assert!(reason.contains("nothing was to be sent"), "{reason}");
        drop(porter);
        server.stop();
    });
}

#[test]
fn a_guest_that_is_silent_greedy_or_hasty_is_given_up_and_a_group_is_not_broken_into() {
    within(LIMIT, || {
        let (server, porter) = server(20_000_000, 2_000_000);
        let at = porter.addr();
        let (silent, hasty, liar) = (guest(at), guest(at), guest(at));
        let begun = Instant::now();
        say(at, &silent, "READY offset=0");
        say(at, &hasty, "READY offset=0");
        say(at, &hasty, "LAST bytes=20000000");
        say(at, &liar, "READY offset=0");
        // What it says once may be an honest client's, to whom somebody forged a datagram.
        let lies = thread::spawn(move || {
            for _ in 0..30 {
                say(at, &liar, "REPORT seen=2000000000 received=1 round=0 cum=0");
                thread::sleep(Duration::from_millis(100));
            }
        });
        let mut reasons: Vec<_> = (0..3)
            .map(|_| {
                let row = server.record().transfers.remove(0);
                assert!(
                    !row.is_proven() && row.outcome != Outcome::Complete,
                    "{row:?}"
                );
                // What the bytes were that went to whoever said nothing: five seconds' worth.
                assert!(row.bytes_server < Some(12_000_000), "{row:?}");
                row.reason.expect("why")
            })
            .collect();
        reasons.sort();
        assert!(
            reasons[0].contains("reported what was never sent"),
            "{reasons:?}"
        );
        assert!(reasons[1].contains("said LAST before"), "{reasons:?}");
        assert!(reasons[2].contains("said nothing for 5 s"), "{reasons:?}");
        assert!(begun.elapsed() >= Duration::from_secs(5));
        lies.join().expect("no panic");
        drop(porter);
        server.stop();

        // A server that waits for a group says so.
        let server = Server::new(1000, |settings| settings.clients = Some(2));
        let running = server.running();
        let any = ([127, 0, 0, 1], 0).into();
        let porter = Porter::start(any, running.lobby(), running.pen()).expect("a port");
        let ends = fetch(&server, porter.addr(), |_| {});
        let error = ends[0].error.as_ref().expect("refused").to_string();
        assert!(error.contains("waits for 2 clients"), "{error}");
        drop(porter);
        server.stop();
    });
}

#[test]
fn a_server_that_is_not_there_or_ends_is_said() {
    within(LIMIT, || {
        let (server, porter) = server(50_000_000, 1_000_000);
        let gone = UdpSocket::bind("127.0.0.1:0")
            .expect("a port")
            .local_addr()
            .expect("bound");
        let ends = fetch(&server, gone, |_| {});
        let error = ends[0].error.as_ref().expect("nobody").to_string();
        assert!(error.contains(&gone.to_string()), "{error}");

        let porter = Mutex::new(Some(porter));
        let at = porter.lock().expect("fine").as_ref().expect("there").addr();
        thread::scope(|scope| {
            let ending =
                scope.spawn(|| fetch(&server, at, |order| order.stall = Duration::from_secs(5)));
            until("bytes move", || {
                entries(&server.out("a"))
                    .iter()
                    .any(|path| std::fs::metadata(path).is_ok_and(|part| part.len() > 100_000))
            });
            drop(porter.lock().expect("fine").take());
            let ends = ending.join().expect("no panic");
            let error = ends[0].error.as_ref().expect("cut").to_string();
            assert!(error.contains("the server is ending"), "{error}");
        });
        let record = server.record();
        assert_eq!(record.transfers[0].outcome, Outcome::Cut);
        server.stop();
    });
}

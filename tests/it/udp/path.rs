//! Paths that lose, repeat, delay, reorder, replay and damage datagrams, and one without a return
//! path. A relay between server and client changes the control connection so that the datagrams go
//! through it.

use std::{
    collections::{BTreeMap, HashSet},
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    thread::JoinHandle,
    time::{Duration, Instant},
};

use gatecast::internals::{
    client::{ClientReport, FetchConfig},
    proto::udp::packet::{Body, Packet},
    report::verdict::Verdict,
    session::Via,
    transfer::Outcome,
};

use crate::{
    common,
    common::{Server, entries, row, udp, whole, within},
};

const LIMIT: Duration = Duration::from_secs(100);

/// The copies of one datagram that arrive, and the delay of each.
type Fate = Vec<(Duration, Vec<u8>)>;

/// Decides what happens to each datagram.
type Chaos = Box<dyn FnMut(&[u8]) -> Fate + Send>;

/// A relay in front of a server.
struct Relay {
    addr: SocketAddr,
    /// Whether nothing of the client reaches the server any more.
    deaf: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Relay {
    /// Relays one client's connection to `server`, and its datagrams through `chaos`.
    fn start(server: SocketAddr, chaos: Chaos) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("bound");
        let deaf = Arc::new(AtomicBool::new(false));
        let over = Arc::new(AtomicBool::new(false));
        let (silent, ended) = (Arc::clone(&deaf), Arc::clone(&over));
        let main = thread::spawn(move || {
            let (client, _) = listener.accept().expect("a client");
            let upstream = TcpStream::connect(server).expect("a server");
            for stream in [&client, &upstream] {
                stream.set_nodelay(true).expect("a setting");
            }
            let way = UdpSocket::bind("127.0.0.1:0").expect("a port");
            // The relay itself must lose nothing.
            #[cfg(feature = "sockopt")]
            let _ = socket2::SockRef::from(&way).set_recv_buffer_size(4 << 20);
            let port = way.local_addr().expect("bound").port();
            let to = Arc::new(Mutex::new(None));
            let known = Arc::clone(&to);
            let relay = thread::spawn(move || carry(&way, &known, chaos, &ended));
            let (down, up) = ((upstream.try_clone(), client.try_clone()), (client, upstream));
            let back = thread::spawn(move || {
                let (from, mut into) = (down.0.expect("two"), down.1.expect("two"));
                for line in BufReader::new(from).lines().map_while(Result::ok) {
                    if into.write_all(udp::with_port(&line, port).as_bytes()).is_err() {
                        break;
                    }
                }
                let _ = into.shutdown(std::net::Shutdown::Write);
            });
            let (from, mut into) = up;
            let mut lines = BufReader::new(from);
            let mut line = Vec::new();
            while lines.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                let text = String::from_utf8_lossy(&line).into_owned();
                // LISTEN has the port of the client.
                if let Some((head, rest)) = text.split_once(" port=") {
                    let (number, rest) = rest.split_once(' ').expect("more fields");
                    let at: u16 = number.parse().expect("a port");
                    *to.lock().expect("no panic") = Some(SocketAddr::from(([127, 0, 0, 1], at)));
                    line = format!("{head} port={port} {rest}").into_bytes();
                }
                if !silent.load(Ordering::Relaxed) && into.write_all(&line).is_err() {
                    break;
                }
                line.clear();
            }
            let _ = into.shutdown(std::net::Shutdown::Write);
            back.join().expect("no panic");
            relay.join().expect("no panic");
        });
        Self { addr, deaf, over, threads: vec![main] }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let ended = thread.join();
            assert!(ended.is_ok() || thread::panicking(), "the relay panicked");
        }
    }
}

fn carry(way: &UdpSocket, to: &Mutex<Option<SocketAddr>>, mut chaos: Chaos, over: &AtomicBool) {
    way.set_read_timeout(Some(Duration::from_millis(1))).expect("a setting");
    let mut waiting: BTreeMap<(Instant, u64), Vec<u8>> = BTreeMap::new();
    let mut serial = 0;
    let mut buffer = vec![0; 65_536];
    while !over.load(Ordering::Relaxed) {
        if let Ok(len) = way.recv(&mut buffer) {
            for (delay, datagram) in chaos(&buffer[..len]) {
                serial += 1;
                waiting.insert((Instant::now() + delay, serial), datagram);
            }
        }
        let Some(to) = *to.lock().expect("no panic") else {
            continue;
        };
        while let Some(entry) = waiting.first_entry() {
            if entry.key().0 > Instant::now() {
                break;
            }
            way.send_to(&entry.remove(), to).expect("loopback takes all");
        }
    }
}

fn at_once(datagram: &[u8]) -> Fate {
    vec![(Duration::ZERO, datagram.to_vec())]
}

/// The block of a datagram that carries one.
fn block(datagram: &[u8]) -> Option<u32> {
    match Packet::decode(datagram).expect("the server's own").body {
        Body::Data { block, .. } => Some(block),
        _ => None,
    }
}

fn is_end(datagram: &[u8]) -> bool {
    let packet = Packet::decode(datagram).expect("the server's own");
    matches!(packet.body, Body::End { .. })
}

fn server(bytes: u64, via: Via, rate: Option<u64>) -> Server {
    udp::server(bytes, via, 1, |settings| {
        settings.rate = rate.and_then(common::bytes_per_second);
    })
}

fn fetch(
    server: &Server,
    addr: SocketAddr,
    set: impl FnOnce(&mut FetchConfig),
) -> Vec<ClientReport> {
    let mut order = server.order("a");
    order.server = vec![addr];
    set(&mut order);
    udp::fetch(&order)
}

/// Sends a file through `chaos`. Returns the only row, after its sums were checked.
fn through(
    bytes: u64,
    via: Via,
    rate: Option<u64>,
    chaos: impl FnMut(&[u8]) -> Fate + Send + 'static,
) -> (gatecast::internals::transfer::Transfer, Vec<ClientReport>) {
    let server = server(bytes, via, rate);
    let relay = Relay::start(server.addr, Box::new(chaos));
    let ends = fetch(&server, relay.addr, |_| {});
    let record = server.record();
    let broken = record.broken_identities();
    assert_eq!(broken, Vec::<String>::new(), "{:?}", record.transfers[0]);
    drop(relay);
    let transfer = row(&record, "a").clone();
    assert_eq!(transfer.is_proven(), ends[0].path.is_some());
    if transfer.is_proven() {
        let copy = std::fs::read(ends[0].path.as_ref().expect("proven")).expect("there");
        assert!(copy == std::fs::read(server.source()).expect("there"));
    } else {
        let published = entries(&server.out("a"));
        assert!(published.iter().all(|path| common::is_part(path)));
    }
    server.stop();
    (transfer, ends)
}

const BLOCK: u64 = 1448;

#[test]
fn loss_of_first_last_and_end_datagrams_is_repaired() {
    within(LIMIT, || {
        for k in 1..=5_u32 {
            const RATE: Option<u64> = Some(5_000_000);
            let blocks = 200_u32;
            let bytes = u64::from(blocks) * BLOCK;
            let mut seen = HashSet::new();
            let (first, _) = through(bytes, Via::Udp, RATE, move |datagram| {
                let fresh = block(datagram).is_some_and(|block| block < k && seen.insert(block));
                if fresh { Fate::new() } else { at_once(datagram) }
            });
            assert!(first.is_proven(), "first {k}: {first:?}");
            assert_eq!(first.counts.lost, Some(u64::from(k)));
            let mut seen = HashSet::new();
            let (last, _) = through(bytes, Via::Udp, RATE, move |datagram| {
                let tail =
                    block(datagram).is_some_and(|block| block >= blocks - k && seen.insert(block));
                if tail { Fate::new() } else { at_once(datagram) }
            });
            assert!(last.is_proven(), "last {k}: {last:?}");
            assert_eq!(last.counts.lost, Some(u64::from(k)));
            // Raw notices these only by the sender's total.
            let (raw, _) = through(bytes, Via::Raw, RATE, move |datagram| {
                let tail = block(datagram).is_some_and(|block| block >= blocks - k);
                if tail { Fate::new() } else { at_once(datagram) }
            });
            assert_eq!(raw.outcome, Outcome::Cut);
            assert_eq!(raw.counts.lost, Some(u64::from(k)), "{raw:?}");
            assert_eq!(raw.counts.unique, Some(u64::from(blocks - k)));
            let (mut ends, mut lost) = (0, 0);
            let (asked, _) = through(bytes, Via::Udp, None, move |datagram| {
                if is_end(datagram) {
                    ends += 1;
                    return if ends <= k { Fate::new() } else { at_once(datagram) };
                }
                lost += 1;
                if lost == 100 { Fate::new() } else { at_once(datagram) }
            });
            assert!(asked.is_proven(), "questions {k}: {asked:?}");
        }
    });
}

#[test]
fn duplicates_delays_and_reordering_do_no_harm() {
    within(LIMIT, || {
        let bytes = 3000 * BLOCK;
        for copies in [2, 10] {
            let (doubled, _) = through(bytes, Via::Udp, Some(20_000_000), move |datagram| {
                vec![(Duration::ZERO, datagram.to_vec()); copies]
            });
            assert!(doubled.is_proven(), "{copies}: {doubled:?}");
            // Copies that come after the last block are not read any more.
            let counts = doubled.counts;
            assert!(counts.duplicate > Some(2000 * (copies as u64 - 1)), "{counts:?}");
            // A small buffer, or a large one on a busy machine, drops copies too, and then the place
            // of a loss is unknown.
            let has_room = cfg!(feature = "sockopt") && counts.lost == Some(0);
            let placed = has_room || counts.network_lost.is_some();
            assert_eq!(
                counts.network_lost,
                placed.then_some(0),
                "a copy makes good no loss: {counts:?}"
            );
        }
        // Every twentieth datagram arrives about a thousand datagrams later.
        let mut count = 0_u32;
        let (mixed, _) = through(bytes, Via::Udp, Some(10_000_000), move |datagram| {
            count += 1;
            let late = if count.is_multiple_of(20) { 145 } else { 0 };
            vec![(Duration::from_millis(late), datagram.to_vec())]
        });
        assert!(mixed.is_proven(), "{mixed:?}");
        assert!(mixed.counts.reordered > Some(50), "{:?}", mixed.counts);
        assert!(mixed.counts.reorder_extent > Some(500), "{:?}", mixed.counts);
        // A delay of two seconds.
        let (slow, _) = through(300 * BLOCK, Via::Udp, None, |datagram| {
            vec![(Duration::from_secs(2), datagram.to_vec())]
        });
        assert!(slow.is_proven(), "{slow:?}");
        let (raw, _) = through(300 * BLOCK, Via::Raw, Some(2_000_000), |datagram| {
            let mut fate = at_once(datagram);
            fate.push((Duration::from_millis(20), datagram.to_vec()));
            fate
        });
        assert!(raw.is_proven(), "{raw:?}");
        assert_eq!(raw.counts.lost, Some(0));
        assert!(raw.counts.duplicate > Some(200), "{:?}", raw.counts);
    });
}

#[test]
fn dead_return_path_ends_the_sending() {
    within(LIMIT, || {
        let bytes = 40_000 * BLOCK;
        let server = server(bytes, Via::Udp, Some(20_000_000));
        let deaf = Arc::new(AtomicBool::new(false));
        let silence = Arc::clone(&deaf);
        let mut count = 0;
        let relay = Relay::start(
            server.addr,
            Box::new(move |datagram| {
                count += 1;
                // From the first datagram on.
                silence.store(count > 0, Ordering::Relaxed);
                at_once(datagram)
            }),
        );
        let silent = Arc::clone(&relay.deaf);
        let watch = thread::spawn(move || {
            common::until("a datagram", || deaf.load(Ordering::Relaxed));
            silent.store(true, Ordering::Relaxed);
        });
        let begun = Instant::now();
        let ends = fetch(&server, relay.addr, |order| order.stall = Duration::from_secs(8));
        assert!(ends[0].path.is_none());
        let record = server.record();
        watch.join().expect("no panic");
        let row = row(&record, "a");
        assert_eq!(row.outcome, Outcome::TimedOut, "{row:?}");
        assert!(row.reason.as_deref().is_some_and(|why| why.contains("sent no report")), "{row:?}");
        assert!(row.bytes_server < Some(bytes), "{row:?}");
        assert!(begun.elapsed() < Duration::from_secs(30));
        drop(relay);
        server.stop();
    });
}

#[test]
fn replayed_and_odd_length_datagrams_are_foreign() {
    within(LIMIT, || {
        let recorded: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let keep = Arc::clone(&recorded);
        let (first, _) = through(500 * BLOCK, Via::Udp, None, move |datagram| {
            keep.lock().expect("no panic").push(datagram.to_vec());
            at_once(datagram)
        });
        assert!(first.is_proven());
        let mut old = recorded.lock().expect("no panic").clone().into_iter();
        let count = old.len() as u64;
        // Each session has its own stream number, so all these are foreign.
        let (second, _) = through(5000 * BLOCK, Via::Udp, Some(20_000_000), move |datagram| {
            let mut fate: Fate =
                old.next().map(|bytes| (Duration::ZERO, bytes)).into_iter().collect();
            fate.extend(at_once(datagram));
            fate
        });
        assert!(second.is_proven(), "{second:?}");
        // A busy host may drop some of them at its socket, and counts those.
        let (foreign, dropped) = (second.counts.foreign, second.counts.host_rx_drop);
        let all = foreign
            .is_some_and(|foreign| foreign <= count && foreign + dropped.unwrap_or(0) >= count);
        assert!(all, "{count}: {:?}", second.counts);
        assert_eq!(second.counts.corrupt, Some(0));

        // Every length that fits into one packet of a link, and many that are fragmented.
        let lengths = (0..=2000).chain((2001..65_507).step_by(97)).chain([65_507]);
        let count = lengths.clone().count() as u64;
        let mut lengths = lengths.enumerate();
        let (junk, _) = through(5000 * BLOCK, Via::Udp, Some(5_000_000), move |datagram| {
            let mut fate = at_once(datagram);
            if let Some((number, len)) = lengths.next() {
                // Zeros, or a true datagram cut or extended, or only its first byte repeated.
                let bytes = match number % 3 {
                    0 => vec![0; len],
                    1 if len != datagram.len() => {
                        datagram.iter().copied().cycle().take(len).collect()
                    }
                    _ => vec![0x0c; len],
                };
                fate.push((Duration::ZERO, bytes));
            }
            fate
        });
        assert!(junk.is_proven(), "{junk:?}");
        let refused = junk.counts.foreign.zip(junk.counts.corrupt).map(|(a, b)| a + b);
        // On a busy machine some are dropped at a full buffer.
        assert!(refused > Some(count * 3 / 4), "{:?}", junk.counts);
    });
}

#[test]
fn full_buffer_of_client_counts_as_host_loss() {
    within(LIMIT, || {
        // A path that holds everything for a while and then delivers it at once.
        let begun = Instant::now();
        let (raw, _) = through(60_000 * 1448, Via::Raw, Some(60_000_000), move |datagram| {
            let hold = Duration::from_millis(2500).saturating_sub(begun.elapsed());
            vec![(hold, datagram.to_vec())]
        });
        let counts = raw.counts;
        if cfg!(all(target_os = "linux", feature = "sockopt")) {
            // The buffer of the relay's socket may have been too small too; that counts as network
            // loss.
            assert!(counts.host_rx_drop > Some(0), "{counts:?}");
        }
        assert_eq!(raw.outcome, Outcome::Cut, "{raw:?}");
    });
}

#[test]
fn source_changed_before_repair_makes_no_mixed_copy() {
    within(LIMIT, || {
        let server = server(2000 * BLOCK, Via::Udp, Some(10_000_000));
        let source = server.source();
        let mut seen = HashSet::new();
        let relay = Relay::start(
            server.addr,
            Box::new(move |datagram| {
                if let Some(block) = block(datagram)
                    && block >= 1990
                    && seen.insert(block)
                {
                    if block == 1999 {
                        // The same length with other bytes, between the first sending and the
                        // repair.
                        let mut bytes = std::fs::read(&source).expect("there");
                        bytes.iter_mut().for_each(|byte| *byte ^= 0xff);
                        std::fs::write(&source, bytes).expect("room");
                    }
                    return Fate::new();
                }
                at_once(datagram)
            }),
        );
        let ends = fetch(&server, relay.addr, |_| {});
        let error = ends[0].error.as_ref().expect("the source changed").to_string();
        assert!(error.contains("source") || error.contains("SHA-1"), "{error}");
        let record = server.record();
        assert!(!record.transfers[0].is_proven());
        assert!(entries(&server.out("a")).iter().all(|path| common::is_part(path)));
        drop(relay);
    });
}

#[test]
fn two_sessions_on_one_group_do_not_mix() {
    within(LIMIT, || {
        let group: SocketAddr = "239.255.9.10:40998".parse().expect("a group");
        let servers = [1_500_000, 1_700_000].map(|bytes| {
            udp::server_with(bytes, Via::Multicast, 2, udp::to_group(group), |settings| {
                settings.rate = common::bytes_per_second(2_000_000);
            })
        });
        thread::scope(|scope| {
            let fetches = servers.each_ref().map(|server| {
                scope.spawn(|| fetch(server, server.addr, |order| order.clients = 2))
            });
            for (server, fetch) in servers.iter().zip(fetches) {
                whole(fetch.join().expect("no panic"), server);
            }
        });
        let mut foreign = 0;
        for server in servers {
            let record = server.record();
            assert_eq!(record.broken_identities(), Vec::<String>::new());
            assert!(record.all_proven());
            let counts = record.transfers.iter().map(|t| t.counts);
            foreign += counts.filter_map(|counts| counts.foreign).sum::<u64>();
            server.stop();
        }
        assert!(foreign > 500, "the two were apart: {foreign}");
    });
}

#[test]
fn copy_changed_on_the_way_is_corrupt() {
    within(LIMIT, || {
        // A path that changes a byte and corrects the checksum, as some routers did.
        let damage = |every: u32| {
            let mut count = 0_u32;
            move |datagram: &[u8]| {
                count += 1;
                let mut bytes = datagram.to_vec();
                if block(datagram).is_some() && count.is_multiple_of(every) {
                    let last = bytes.len() - 1;
                    bytes[last] ^= 0x20;
                }
                vec![(Duration::ZERO, bytes)]
            }
        };
        // First two datagrams are changed, then all of them.
        let once = through(4000 * BLOCK, Via::Udp, Some(20_000_000), damage(1500));
        let always = through(600 * BLOCK, Via::Udp, None, damage(1));
        for (row, ends) in [once, always] {
            assert_eq!(row.outcome, Outcome::Corrupt, "{row:?}");
            assert_eq!(row.verified, Some(false), "{row:?}");
            assert_eq!(Verdict::of_clients(&ends).exit_code(), 5);
            let error = ends[0].error.as_ref().expect("damaged").to_string();
            assert!(error.contains("SHA-1"), "{error}");
        }
    });
}

#[test]
fn part_with_holes_is_not_resumed() {
    within(LIMIT, || {
        // Raw measures loss up to the last byte of the file.
        let server = server(600 * BLOCK, Via::Raw, Some(8_000_000));
        let mut count = 0_u32;
        let relay = Relay::start(
            server.addr,
            Box::new(move |datagram| {
                count += 1;
                if count % 3 == 1 && block(datagram) != Some(599) {
                    Fate::new()
                } else {
                    at_once(datagram)
                }
            }),
        );
        let error = common::failed(fetch(&server, relay.addr, |_| {}));
        assert!(error.contains("datagrams were lost"), "{error}");
        assert_eq!(server.record().transfers[0].outcome, Outcome::Cut);
        drop(relay);
        let out = server.out("a");
        assert_eq!(common::parts(&out), [600 * BLOCK], "what was measured stays");
        let ends = fetch(&server, server.addr, |order| order.resume = true);
        let record = server.record();
        assert_eq!(record.transfers[0].bytes_resumed, 0);
        if row(&record, "a").counts.lost == Some(0) {
            whole(ends, &server);
            assert_eq!(common::parts(&out), Vec::<u64>::new());
        }
        server.stop();
    });
}

#[test]
fn raw_folder_with_a_hole_gets_no_final_name() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().join("site");
        std::fs::create_dir(&root).expect("room");
        for name in ["a", "b", "c"] {
            std::fs::write(root.join(name), vec![7; 20_000]).expect("room");
        }
        let server = gatecast::Server::builder().tree(&root).clients(1).via(Via::Raw);
        let server = server.bind("127.0.0.1:0").expect("a free port");
        let lost = |datagram: &[u8]| {
            if block(datagram) == Some(20) { Fate::new() } else { at_once(datagram) }
        };
        let relay = Relay::start(server.local_addr(), Box::new(lost));
        let fetch = |at: SocketAddr| {
            let fetch = gatecast::Fetch::from(at).out(folder.path().join("out")).resume(true);
            fetch.run().expect("begun")
        };
        let report = fetch(relay.addr);
        assert_eq!(report.exit_code(), 4, "{report}");
        let why = report.clients().next().expect("one").result().expect_err("a hole").to_string();
        assert!(why.contains(" datagrams were lost"), "{why}");
        assert!(!folder.path().join("out/site").exists());
        drop(relay);
        // The first file was right, and is sent no more.
        let report = fetch(server.local_addr());
        let sessions = server.shutdown().expect("a log");
        assert_eq!(sessions[0].proven(), 0);
        let moved = sessions[1].seats().next().expect("one").bytes().expect("counted");
        assert!(report.exit_code() != 0 || moved == 40_000, "{moved}: {report}");
        assert!(moved <= 40_000, "{moved}");
    });
}

/// `datagram` with another number, END or block.
fn forged(datagram: &[u8], set: impl FnOnce(&mut Packet<'_>)) -> Vec<u8> {
    let mut packet = Packet::decode(datagram).expect("the server's own");
    set(&mut packet);
    let mut bytes = Vec::new();
    packet.encode(&mut bytes);
    bytes
}

#[test]
fn forged_end_and_forged_number_end_no_honest_client() {
    within(LIMIT, || {
        for (via, blocks) in [(Via::Udp, 6000_u32), (Via::Raw, 3000)] {
            let mut count = 0_u32;
            let chaos = move |datagram: &[u8]| {
                count += 1;
                let mut fate = at_once(datagram);
                let (ahead, upto) = match count {
                    // Numbers as that of the last packet, beyond all that was sent, and beyond all
                    // that is possible.
                    100 => (blocks - 100, blocks),
                    200 => (10_000, blocks),
                    300 => (1 << 31, blocks),
                    400 => (5000, 2000),
                    _ => (0, 0),
                };
                if upto > 0 {
                    let end = forged(datagram, |packet| {
                        packet.pkt += ahead;
                        packet.body = Body::End { upto, round: 77 };
                    });
                    fate.push((Duration::ZERO, end));
                }
                // One number far ahead, and one beyond the window.
                if count == 500 || count == 600 {
                    let leap = forged(datagram, |packet| packet.pkt += count * 100);
                    fate.push((Duration::ZERO, leap));
                }
                fate
            };
            let (row, _) = through(u64::from(blocks) * BLOCK, via, Some(8_000_000), chaos);
            // On a busy machine raw may lose some even here, but it receives up to the end.
            assert!(row.is_proven() || via == Via::Raw, "{row:?}");
            let lost = row.counts.lost.expect("counted");
            assert_eq!(row.counts.unique, Some(u64::from(blocks) - lost), "{row:?}");
            assert!(row.counts.corrupt > Some(0), "{row:?}");
        }
    });
}

#[test]
fn damaged_headers_and_end_packets_do_no_harm() {
    within(LIMIT, || {
        // Each of these bytes of a header in turn, in data and in END packets.
        let damage = |places: &'static [usize]| {
            let mut count = 0_usize;
            move |datagram: &[u8]| {
                count += 1;
                let mut bytes = datagram.to_vec();
                if count.is_multiple_of(50) || is_end(datagram) && count.is_multiple_of(2) {
                    let turn = count / 50;
                    bytes[places[turn % places.len()]] ^= 1 << (turn / places.len() % 8);
                }
                vec![(Duration::ZERO, bytes)]
            }
        };
        // The lower half of the packet number and the block number are tested below.
        let header = damage(&[0, 1, 2, 3, 4, 7, 8, 9, 12, 15, 20, 21, 22, 23]);
        let (row, _) = through(8000 * BLOCK, Via::Udp, Some(8_000_000), header);
        assert!(row.is_proven(), "{row:?}");
        assert!(row.counts.foreign > Some(20), "{row:?}");
        assert!(row.counts.corrupt > Some(40), "{row:?}");
        // A block that has the number of another is written in its place, if that is possible:
        // then the copy is corrupt.
        let block = damage(&[16, 17, 18, 19]);
        let (row, _) = through(8000 * BLOCK, Via::Udp, Some(8_000_000), block);
        let outcomes = [Outcome::Complete, Outcome::Corrupt];
        assert!(outcomes.contains(&row.outcome), "{row:?}");
        assert_eq!(row.verified, Some(row.outcome == Outcome::Complete));
        assert!(row.counts.corrupt > Some(40), "{row:?}");
        // A packet with the number of another: one counts as duplicate or reordered, the other as
        // lost.
        let mut count = 0_u32;
        let (row, _) = through(4000 * BLOCK, Via::Udp, Some(8_000_000), move |datagram| {
            count += 1;
            let mut bytes = datagram.to_vec();
            // Not beyond the last number: more packets than were sent would break the sums.
            if count.is_multiple_of(100) && count < 3700 {
                bytes[11] ^= 1 << (count / 100 % 8);
            }
            vec![(Duration::ZERO, bytes)]
        });
        assert!(row.is_proven(), "{row:?}");
        assert!(row.counts.duplicate > Some(10), "{row:?}");
    });
}

#[test]
fn foreign_datagrams_are_no_sign_of_life() {
    within(LIMIT, || {
        let server = server(20_000 * BLOCK, Via::Udp, Some(8_000_000));
        let mut count = 0;
        let chaos = move |datagram: &[u8]| {
            count += 1;
            let mut bytes = datagram.to_vec();
            if count > 500 {
                // Of another stream.
                bytes[5] ^= 1;
            }
            vec![(Duration::ZERO, bytes)]
        };
        let relay = Relay::start(server.addr, Box::new(chaos));
        let begun = Instant::now();
        let ends = fetch(&server, relay.addr, |order| {
            order.stall = Duration::from_secs(2);
        });
        // The server would have given up the client after ten seconds.
        assert!(begun.elapsed() < Duration::from_secs(8));
        let error = ends[0].error.as_ref().expect("nothing came").to_string();
        assert!(error.contains("2 s"), "{error}");
        assert_eq!(server.record().transfers[0].outcome, Outcome::TimedOut);
        drop(relay);
        server.stop();
    });
}

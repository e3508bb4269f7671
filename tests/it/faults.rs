//! Faults of disks, networks and other clients while a file is sent: which clients get which error,
//! and that all others are served.

use std::{
    fs,
    fs::File,
    io::{BufRead, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::FileExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use gatecast::internals::{
    client::{ClientReport, FetchRun, receive::ReceiveTransport},
    net::{copy::Method, socket},
    report::verdict::Verdict,
    server::config::ServerConfig,
    session::Via,
    transfer::{Outcome, Record},
    transport::{tcp, udp},
};

use crate::{
    common,
    common::{Server, bytes_per_second, ended, entries, failed, parts, row, until, whole, within},
};

const LIMIT: Duration = Duration::from_secs(60);

// --- clients that go away or stand still ---------------------------------------------------------

/// Its row has the true count of bytes that were sent to it.
#[test]
fn dead_client_is_cut_and_others_finish() {
    within(LIMIT, || {
        let server = Server::new(8_000_000, |settings| {
            settings.clients = Some(6);
            settings.rate = bytes_per_second(40_000_000);
        });
        let places = [0, 1, 1024, 900_000, 4_000_000, 7_999_999];
        for (round, reset) in [false, cfg!(feature = "sockopt")].into_iter().enumerate() {
            for at in places.chunks(3) {
                let dying: Vec<_> = at.iter().map(|at| (*at, format!("dies-at-{at}"))).collect();
                let peers: Vec<_> = dying.iter().map(|(_, name)| server.waiting(6, name)).collect();
                let ours = server.fetch(&format!("{round}-{}", at[0]), |order| order.clients = 3);
                let threads: Vec<_> = peers
                    .into_iter()
                    .zip(&dying)
                    .map(|(mut peer, &(at, _))| {
                        thread::spawn(move || {
                            peer.read_past_wait();
                            peer.read_payload(at.min(1024));
                            peer.send("HELD\n");
                            peer.read_payload(at.saturating_sub(1024));
                            if reset {
                                peer.reset();
                            }
                        })
                    })
                    .collect();
                threads.into_iter().for_each(|t| t.join().expect("no panic"));
                whole(ours.join().expect("no panic"), &server);
                let record = server.record();
                assert_eq!((record.proven(), record.transfers.len()), (3, 6));
                assert!(record.broken_identities().is_empty());
                for (at, name) in &dying {
                    let row = row(&record, name);
                    assert_eq!(row.outcome, Outcome::Cut, "{name}: {:?}", row.reason);
                    assert_eq!((row.bytes_client, row.seconds_server), (None, None), "{name}");
                    let sent = row.bytes_server.expect("counted");
                    // At least what it read was sent. The rest is in socket buffers.
                    assert!((*at..=8_000_000).contains(&sent), "{name}: {sent}");
                }
                assert_eq!(Verdict::of_records(&[record]).exit_code(), 4);
            }
        }
        server.stop();
    });
}

#[test]
fn stopped_reader_times_out_and_others_finish() {
    for method in methods() {
        within(LIMIT, move || {
            let server = Server::new(40_000_000, |settings| {
                settings.clients = Some(3);
                settings.stall = Duration::from_millis(500);
                settings.copy = method;
            });
            let mut asleep = server.waiting(3, "asleep");
            let ours = server.fetch("ours", |order| order.clients = 2);
            asleep.read_past_wait();
            let begun = Instant::now();
            asleep.read_payload(1000);
            asleep.send("HELD\n");
            whole(ours.join().expect("no panic"), &server);
            let record = server.record();
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
            ended(&record, "asleep", Outcome::TimedOut, "stalled for 0.5 s at byte ");
            let sent = row(&record, "asleep").bytes_server.expect("counted");
            assert!((1024..40_000_000).contains(&sent), "{sent}");
            assert_eq!(record.proven(), 2);

            // When it reads again, it gets a part of the file and no message of the server in it.
            let rest = asleep.read_to_close();
            let mut source = vec![0; rest.len()];
            File::open(server.source())
                .and_then(|file| file.read_exact_at(&mut source, 1000))
                .expect("a part of the file");
            assert!(rest == source, "something that is not the file came after it");
            assert_eq!(rest.len() as u64 + 1000, sent);
            server.stop();
        });
    }
}

#[test]
fn client_finishes_after_pause_below_stall_limit() {
    within(LIMIT, || {
        let server = Server::new(20_000_000, |settings| {
            settings.clients = Some(1);
            settings.stall = Duration::from_secs(3);
        });
        let mut slow = server.waiting(1, "slow");
        slow.read_past_wait();
        let mut bytes = slow.read_payload(1024);
        slow.send("HELD\n");
        thread::sleep(Duration::from_secs(1));
        bytes.extend(slow.read_payload(20_000_000 - 1024));
        let sha1 = gatecast::internals::digest::Digest::of(&bytes);
        assert_eq!(sha1, server.sha1);
        use gatecast::internals::proto::native::FromClient;
        slow.send_message(&FromClient::Last { bytes: 20_000_000 });
        slow.send_message(&FromClient::Hashed { sha1 });
        slow.send_message(&common::receipt(20_000_000, sha1));
        assert!(slow.read_line().starts_with("SUMMARY outcome=complete "));
        let record = server.record();
        let took = row(&record, "slow").seconds_server.expect("complete");
        assert!(took >= Duration::from_secs(1), "the pause is in its time: {took:?}");
        drop(slow);
        server.stop();
    });
}

// --- servers that go away -------------------------------------------------------------------------

/// Each seat's share of the rate is half of the least that a peer may make of its own.
#[test]
fn session_below_the_least_rate_of_a_peer_is_whole() {
    within(LIMIT, || {
        let stall = Duration::from_millis(4500);
        let slow = |settings: &mut ServerConfig| {
            settings.clients = Some(2);
            settings.rate = bytes_per_second(1000);
            settings.stall = stall;
        };
        let servers = [Server::new(8000, slow), common::udp::server(8000, Via::Udp, 2, slow)];
        thread::scope(|scope| {
            let fetches = servers.each_ref().map(|server| {
                let mut order = server.order("a");
                (order.clients, order.stall) = (2, stall);
                let ways: [&dyn ReceiveTransport; 2] = [&tcp::receive::TCP, &udp::receive::UDP];
                scope.spawn(move || FetchRun::new(&order).run(&order, &ways))
            });
            for (server, fetch) in servers.iter().zip(fetches) {
                whole(fetch.join().expect("no panic").expect("a fetch"), server);
            }
        });
        for server in servers {
            assert!(server.record().all_proven());
            server.stop();
        }
    });
}

#[test]
fn resume_after_server_death_sends_only_the_rest() {
    within(LIMIT, || {
        let server = Server::new(3_000_000, |settings| {
            settings.rate = bytes_per_second(3_000_000);
        });
        let running = server.fetch("c", |order| {
            order.clients = 3;
            order.durable = true;
        });
        until("a third of the file", || server.moved() > 3_000_000);
        let source = fs::read(server.source()).expect("readable");
        let out = server.out("c");
        let mut server = server;
        server.kill();
        for end in running.join().expect("no panic") {
            let error = end.error.expect("a server that is gone").to_string();
            assert!(error.ends_with(": the server was stopped"), "{error}");
            assert!(end.path.is_none());
        }
        let left = entries(&out);
        assert_eq!(left.len(), 3);
        for part in &left {
            assert!(common::is_part(part), "{}", part.display());
            let bytes = fs::read(part).expect("readable");
            assert!(!bytes.is_empty() && source.starts_with(&bytes), "{}", part.display());
        }
        let held: u64 = parts(&out).iter().sum();

        server.revive(|_| {});
        let again = server.fetch("c", |order| {
            order.clients = 3;
            order.resume = true;
        });
        let ends = again.join().expect("no panic");
        let resumed = |end: &ClientReport| end.transfer.as_ref().expect("a seat").bytes_resumed;
        assert!(ends.iter().all(|end| resumed(end) > 0), "{ends:?}");
        assert_eq!(ends.iter().map(resumed).sum::<u64>(), held);
        whole(ends, &server);
        let record = server.record();
        let sent: u64 = record.transfers.iter().filter_map(|t| t.bytes_server).sum();
        assert_eq!(sent, 9_000_000 - held, "only the rest was sent");
        assert!(record.broken_identities().is_empty());
        assert_eq!(parts(&out).len(), 0);
        server.stop();
    });
}

#[test]
fn corrupt_part_is_never_published() {
    within(LIMIT, || {
        let server = Server::new(300_000, |_| {});
        let source = fs::read(server.source()).expect("readable");
        let out = server.out("c");
        fs::create_dir_all(&out).expect("room");
        let part = out.join(format!(".{}-1.part", server.sha1.short()));
        let mut flipped = source[..200_000].to_vec();
        flipped[77] ^= 1;
        let spoilt = [flipped.clone(), vec![0; 200_000], vec![0; 300_000], b"x".to_vec()];
        for bytes in spoilt {
            fs::write(&part, &bytes).expect("room");
            let ends = server.fetch("c", |order| order.resume = true).join().expect("no panic");
            assert_eq!(Verdict::of_clients(&ends).exit_code(), 5);
            let why = failed(ends);
            assert!(why.starts_with("the copy is not the file: 'f.bin': its SHA-1 is"), "{why}");
            assert_eq!(entries(&out).len(), 0, "a part that is wrong is of no use");
            let record = server.record();
            assert_eq!(row(&record, "c").outcome, Outcome::Corrupt);
        }
        // A part that is longer than the file belongs to another file: the copy starts from the
        // beginning. A part that is whole is only verified.
        for (bytes, resumed) in [(vec![0; 300_001], 0), (source.clone(), 300_000), (vec![], 0)] {
            fs::write(&part, &bytes).expect("room");
            let ends = server.fetch("c", |order| order.resume = true).join().expect("no panic");
            assert_eq!(ends[0].transfer.as_ref().map(|t| t.bytes_resumed), Some(resumed));
            whole(ends, &server);
            assert!(server.record().all_proven());
        }
        server.stop();
    });
}

#[test]
fn client_keeps_copy_when_server_dies_after_last_byte() {
    within(LIMIT, || {
        let server = Server::new(2_000_000, |_| {});
        let (bytes, sha1) = (server.bytes, server.sha1);
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let client = server.fetch("c", |order| order.server = vec![addr]);
        let (mut stream, _) = listener.accept().expect("a client");
        let mut client_says = std::io::BufReader::new(stream.try_clone().expect("a descriptor"));
        let mut expect_line = |word: &str| {
            let mut line = String::new();
            client_says.read_line(&mut line).expect("a client");
            assert!(line.starts_with(word), "{line}");
        };
        let source = fs::read(server.source()).expect("readable");
        let offer = format!(
            "OFFER file=f.bin bytes={bytes} sha1={sha1} session=0000000000000001 seat=1 clients=1 \
             via=tcp\n"
        );
        expect_line("GATECAST/1 JOIN ");
        stream.write_all(offer.as_bytes()).expect("a client");
        expect_line("READY ");
        let go = format!("GO bytes={bytes}\n");
        stream.write_all(go.as_bytes()).expect("a client");
        stream.write_all(&source[..1000]).expect("a client");
        expect_line("HELD");
        stream.write_all(&source[1000..]).expect("a client");
        stream.peek(&mut [0]).expect("LAST");
        // Data of the client is unread, so closing the connection resets it.
        drop((stream, client_says, listener));
        whole(client.join().expect("no panic"), &server);
        server.stop();
    });
}

// --- a source that changes under the sender -------------------------------------------------------

const BYTES: u64 = 600_000;

/// Three clients fetch while `change` changes the source. Then `judge` checks their results, the
/// record and the files that are left.
fn change_while_sent(
    method: Method,
    change: fn(&Path),
    judge: impl Fn(&Server, Vec<ClientReport>, Record) + Send + 'static,
) {
    within(LIMIT, move || {
        let server = Server::new(BYTES, |settings| {
            settings.copy = method;
            settings.rate = bytes_per_second(2_000_000);
        });
        let clients = server.fetch("c", |order| order.clients = 3);
        until("some bytes to move", || server.moved() > BYTES / 4);
        change(&server.source());
        let ends = clients.join().expect("no panic");
        assert_eq!(ends.len(), 3);
        let record = server.record();
        assert_eq!(record.transfers.len(), 3);
        assert!(record.broken_identities().is_empty(), "{:?}", record.broken_identities());
        judge(&server, ends, record);
        server.only_whole_copies();
        server.stop();
    });
}

fn assert_told(ends: Vec<ClientReport>, what: &str, code: u8) {
    assert_eq!(Verdict::of_clients(&ends).exit_code(), code);
    for end in ends {
        let error = end.error.expect("it was told").to_string();
        assert!(error.contains("the source changed"), "{error}");
        assert!(error.ends_with(what), "{error}");
        assert!(end.path.is_none());
    }
}

fn truncate(path: &Path, bytes: u64) {
    let file = File::options().write(true).open(path).expect("there");
    file.set_len(bytes).expect("ours");
}

#[test]
fn every_client_is_told_of_truncated_source() {
    for method in methods() {
        let source = fs::read(sample(BYTES).1).expect("readable");
        change_while_sent(
            method,
            |path| truncate(path, 250_000),
            move |server, ends, record| {
                assert_told(ends, "truncated from 600000 to 250000 bytes", 4);
                for transfer in &record.transfers {
                    let reason = transfer.reason.as_deref();
                    let why = "the source changed: truncated from 600000 to 250000 bytes";
                    assert_eq!((transfer.outcome, reason), (Outcome::Cut, Some(why)));
                    assert!(transfer.bytes_server <= Some(250_000), "{transfer:?}");
                }
                // The parts hold the beginning of the file, and nothing of the message that came
                // after it.
                for part in entries(&server.out("c")) {
                    assert!(source.starts_with(&fs::read(part).expect("readable")));
                }
                assert_eq!(parts(&server.out("c")).len(), 3);
            },
        );
    }
}

/// 20 bytes are fewer than the LASTWORDS line has, which else takes the place of the missing bytes.
/// The server sends zeros in their place and an ERROR after them.
#[test]
fn clients_are_told_of_source_truncated_by_20_bytes() {
    for method in methods() {
        change_while_sent(
            method,
            |path| truncate(path, BYTES - 20),
            |server, ends, record| {
                assert_told(ends, "truncated from 600000 to 599980 bytes", 5);
                for transfer in &record.transfers {
                    assert_eq!(transfer.outcome, Outcome::Cut);
                    assert_eq!(transfer.bytes_server, Some(BYTES - 20), "zeros are no payload");
                }
                assert_eq!(entries(&server.out("c")).len(), 0, "zeros are of no use");
            },
        );
    }
}

#[test]
fn overwritten_source_makes_every_copy_corrupt() {
    for method in methods() {
        change_while_sent(
            method,
            |path| {
                let file = File::options().write(true).open(path).expect("there");
                file.write_all_at(&[7; 4096], BYTES - 4096).expect("ours");
            },
            |server, ends, record| {
                assert_told(ends, "the source changed: written to", 5);
                for transfer in &record.transfers {
                    let reason = transfer.reason.as_deref();
                    let why = "the source changed: written to";
                    assert_eq!((transfer.outcome, reason), (Outcome::Corrupt, Some(why)));
                }
                assert_eq!(Verdict::of_records(&[record]).exit_code(), 5);
                assert_eq!(entries(&server.out("c")).len(), 0);
            },
        );
    }
}

#[test]
fn growing_source_is_sent_at_its_offered_size() {
    for method in methods() {
        change_while_sent(
            method,
            |path| {
                let mut file = File::options().append(true).open(path).expect("there");
                file.write_all(b"more").expect("room");
            },
            |server, ends, record| {
                let why = "the source changed: grown from 600000 to 600004 bytes";
                for end in &ends {
                    let transfer = end.transfer.as_ref().expect("a seat");
                    assert_eq!(transfer.reason.as_deref(), Some(why));
                }
                whole(ends, server);
                assert!(record.all_proven());
                assert!(record.transfers.iter().all(|t| t.reason.as_deref() == Some(why)));
            },
        );
    }
}

#[test]
fn replaced_source_file_is_still_sent_whole() {
    change_while_sent(
        Method::Auto,
        |path| {
            // It is written outside the offered folder, so that it is never offered half written.
            let new = path.parent().and_then(Path::parent).expect("a folder").join("new");
            fs::write(&new, b"another file").expect("room");
            fs::rename(&new, path).expect("ours");
        },
        |server, ends, record| {
            whole(ends, server);
            assert!(record.all_proven());
            assert!(record.transfers.iter().all(|t| t.reason.is_none()));
        },
    );
}

// --- disks that are full, and folders that are none -----------------------------------------------

#[test]
fn full_disk_stops_only_its_own_client() {
    let Some(small) = SmallDisk::mount(4 << 20) else {
        return;
    };
    within(LIMIT, move || {
        let server = Server::new(3_000_000, |settings| {
            settings.clients = Some(2);
            settings.rate = bytes_per_second(6_000_000);
        });
        let folder = small.path().to_owned();
        // The disk has room when the client says READY, and is full before the last byte, or in the
        // middle.
        for free in [2_990_080, 1_500_000] {
            let struck = server.fetch("struck", |order| order.out = folder.clone());
            server.until_ready(1);
            let filler = File::create(folder.join("filler")).expect("room");
            let block = (4 << 20) - free;
            (&filler).write_all(&vec![0; block as usize]).expect("room");
            let ours = server.fetch("ours", |_| {});
            let why = failed(struck.join().expect("no panic"));
            assert!(why.starts_with("cannot write the copy ("), "{why}");
            assert!(why.contains("No space left on device"), "{why}");
            whole(ours.join().expect("no panic"), &server);
            let record = server.record();
            ended(&record, "struck", Outcome::Cut, "No space left on device");
            assert_eq!(record.proven(), 1);
            assert!(record.broken_identities().is_empty());
            let left = entries(&folder);
            assert!(left.iter().all(|p| common::is_part(p) || p.ends_with("filler")), "{left:?}");
            left.iter().for_each(|path| fs::remove_file(path).expect("ours"));
        }
        // Too little room is noticed before READY.
        if cfg!(feature = "sockopt") {
            fs::write(folder.join("filler"), vec![0; 2 << 20]).expect("room");
            let early = server.fetch("early", |order| order.out = folder.clone());
            let why = failed(early.join().expect("no panic"));
            assert!(why.contains("1 x 3000000 bytes are to come and "), "{why}");
            assert_eq!(entries(&folder).len(), 1, "no part is left where nothing will come");
        }
        server.stop();
        drop(small);
    });
}

/// A folder that cannot be made, or a name that something other than a file has.
#[test]
fn unusable_output_is_refused_before_ready() {
    within(LIMIT, || {
        let server = Server::new(5000, |settings| settings.clients = Some(1));
        let base = server.folder.path().join("taken");
        fs::create_dir(&base).expect("room");
        fs::write(base.join("file"), b"").expect("room");
        let fifo = std::process::Command::new("mkfifo").arg(base.join("fifo")).status();
        assert!(fifo.expect("mkfifo").success());

        let under_a_file = server.fetch("c", |order| order.out = base.join("file/out"));
        let why = failed(under_a_file.join().expect("no panic"));
        assert!(why.starts_with("cannot make the folder ("), "{why}");

        type Make = fn(&Path);
        let cases: [(Make, &str); 4] = [
            (|path| fs::create_dir(path).expect("room"), "a folder of that name is in the way"),
            (
                |path| std::os::unix::fs::symlink("/dev/null", path).expect("room"),
                "a symbolic link of that name is in the way",
            ),
            (
                |path| std::os::unix::fs::symlink("nowhere", path).expect("room"),
                "a symbolic link of that name is in the way",
            ),
            (
                |path| fs::rename(path.with_file_name("../fifo"), path).expect("ours"),
                "something of that name that is not a regular file is in the way",
            ),
        ];
        for (number, (make, says)) in cases.into_iter().enumerate() {
            let out = base.join(number.to_string());
            fs::create_dir(&out).expect("room");
            make(&out.join("f.bin"));
            let client = server.fetch("c", |order| order.out = out.clone());
            let ends = client.join().expect("no panic");
            assert_eq!(Verdict::of_clients(&ends).exit_code(), 1);
            let why = failed(ends);
            assert!(why.ends_with(says), "{why}");
            assert_eq!(entries(&out).len(), 1, "nothing was made beside it");
            until("the seat of the one before is free", || server.seats().0 <= 1);
        }
        // An old regular file is replaced. A missing folder is made, with its parents.
        let out = base.join("a/b/c");
        fs::create_dir_all(&out).expect("room");
        fs::write(out.join("f.bin"), b"old").expect("room");
        let client = server.fetch("c", |order| order.out = out);
        whole(client.join().expect("no panic"), &server);
        server.stop();
    });
}

#[test]
fn unwritable_log_is_reported_when_server_stops() {
    within(LIMIT, || {
        let mut server = Server::new(50_000, |_| {});
        server.kill();
        fs::write(server.logs(), b"a file where the folder should be").expect("room");
        server.revive(|_| {});
        let clients = server.fetch("c", |order| order.clients = 4);
        whole(clients.join().expect("no panic"), &server);
        assert!(server.record().all_proven());
        let error = server.stop_running().expect_err("no log").to_string();
        assert!(error.starts_with("cannot write the session log ("), "{error}");
    });
}

#[test]
fn two_servers_log_into_one_folder() {
    within(LIMIT, || {
        let one = Server::new(20_000, |_| {});
        let two = one.beside();
        let clients: Vec<_> = (0..6)
            .map(|n| {
                let addr = if n % 2 == 0 { one.addr } else { two.addr() };
                one.fetch(&format!("c{n}"), move |order| {
                    order.server = vec![addr];
                    order.clients = 8;
                })
            })
            .collect();
        for client in clients {
            // All are groups of eight, so clients of two fetches may share a session.
            whole(client.join().expect("no panic"), &one);
        }
        two.stop().expect("a log");
        assert_eq!(entries(&one.logs()).len(), 6);
        one.stop();
    });
}

#[test]
fn listen_error_names_holder_of_port() {
    let held = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let addr = held.local_addr().expect("bound");
    let error = socket::listen(addr).expect_err("held").to_string();
    assert!(
        error.starts_with(&format!("{addr} refused: port {} is in use by ", addr.port())),
        "{error}"
    );
    if cfg!(target_os = "linux") {
        assert!(error.contains(&format!("process {} (", std::process::id())), "{error}");
    }
}

#[test]
fn client_reports_or_awaits_absent_server() {
    within(LIMIT, || {
        let mut server = Server::new(5000, |_| {});
        server.kill();
        let why = failed(server.fetch("c", |_| {}).join().expect("no panic"));
        assert!(why.starts_with(&format!("cannot connect ({})", server.addr)), "{why}");
        let patient = server.fetch("c", |order| order.retry = Duration::from_secs(20));
        thread::sleep(Duration::from_millis(300));
        server.revive(|_| {});
        whole(patient.join().expect("no panic"), &server);
        server.stop();
    });
}

// --- a network that changes what it carries -------------------------------------------------------

/// What the proxy does once to the bytes that go to the client.
#[derive(Clone, Copy, Debug)]
enum Harm {
    Flip,
    Insert,
    Remove,
    Swap,
    Cut,
}

/// Where the harm is done, in bytes of the server's stream.
const HARM_AT: usize = 400_000;

impl Harm {
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Self::Flip => bytes[HARM_AT] ^= 0x10,
            Self::Insert => bytes.insert(HARM_AT, 0x55),
            Self::Remove => {
                bytes.remove(HARM_AT);
            }
            Self::Swap => {
                let (one, two) = bytes[HARM_AT..HARM_AT + 2048].split_at_mut(1024);
                one.swap_with_slice(two);
            }
            Self::Cut => bytes.truncate(HARM_AT),
        }
    }
}

/// Passes one connection on, and does `harm` to it.
fn proxy(server: SocketAddr, harm: Harm) -> (SocketAddr, thread::JoinHandle<()>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let addr = listener.local_addr().expect("bound");
    let thread = thread::spawn(move || {
        let (client, _) = listener.accept().expect("a client");
        let server = TcpStream::connect(server).expect("a server");
        let up = thread::spawn({
            let mut to = server.try_clone().expect("a descriptor");
            let mut from = client.try_clone().expect("a descriptor");
            move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            }
        });
        let (mut from, mut to) = (&server, &client);
        let mut held = Vec::new();
        let mut block = vec![0; 16 * 1024];
        let mut passed = 0;
        while let Ok(len @ 1..) = from.read(&mut block) {
            held.extend_from_slice(&block[..len]);
            if passed < HARM_AT {
                // The bytes around the place of the harm are collected before it is done.
                if passed + held.len() < HARM_AT + 2048 {
                    if passed + held.len() < HARM_AT {
                        passed += held.len();
                        if to.write_all(&held).is_err() {
                            break;
                        }
                        held.clear();
                    }
                    continue;
                }
                let mut stretch = vec![0; passed];
                stretch.append(&mut held);
                harm.apply(&mut stretch);
                held = stretch.split_off(passed);
                passed = HARM_AT;
            }
            if to.write_all(&held).is_err() {
                break;
            }
            held.clear();
            if matches!(harm, Harm::Cut) && passed == HARM_AT {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
        up.join().expect("no panic");
    });
    (addr, thread)
}

#[test]
fn damage_on_the_way_fails_only_that_client() {
    within(LIMIT, || {
        let server = Server::new(1_000_000, |settings| settings.clients = Some(3));
        for (harm, outcome, says) in [
            (Harm::Flip, Outcome::Corrupt, "the copy's SHA-1 is "),
            (Harm::Insert, Outcome::Corrupt, "the copy's SHA-1 is "),
            (Harm::Swap, Outcome::Corrupt, "the copy's SHA-1 is "),
            // The last byte never comes, so the copy is not complete and its digest is not
            // compared.
            (Harm::Remove, Outcome::TimedOut, "no progress of the transfer"),
            (Harm::Cut, Outcome::Cut, ""),
        ] {
            let (addr, proxy) = proxy(server.addr, harm);
            let struck = server.fetch("struck", |order| {
                order.server = vec![addr];
                order.stall = Duration::from_millis(700);
            });
            let ours = server.fetch("ours", |order| order.clients = 2);
            let ends = struck.join().expect("no panic");
            let own = ends[0].transfer.as_ref().expect("a seat").outcome;
            assert_eq!(own, outcome, "{harm:?}: {:?}", ends[0].error);
            failed(ends);
            whole(ours.join().expect("no panic"), &server);
            proxy.join().expect("no panic");
            let record = server.record();
            ended(&record, "struck", outcome, says);
            assert_eq!(record.proven(), 2, "{harm:?}");
            let verdict = Verdict::of_records(&[record]).exit_code();
            assert_eq!(verdict, if outcome == Outcome::Corrupt { 5 } else { 4 });
            for path in entries(&server.out("struck")) {
                assert!(common::is_part(&path), "{harm:?}: {}", path.display());
                fs::remove_file(path).expect("ours");
            }
        }
        server.stop();
    });
}

// --------------------------------------------------------------------------------------------------

fn methods() -> Vec<Method> {
    let methods = [Method::Buffered, Method::Sendfile].into_iter();
    methods.filter(|method| method.resolved().is_ok()).collect()
}

/// The file that every test server of that size offers.
fn sample(bytes: u64) -> (tempfile::TempDir, std::path::PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("sample");
    gatecast::internals::server::sample::make(&path, bytes).expect("room");
    (folder, path)
}

/// A mounted file system of a few megabytes.
pub(crate) struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None` where this user may not mount.
    pub(crate) fn mount(bytes: usize) -> Option<Self> {
        let folder = tempfile::tempdir().expect("a folder");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={bytes}"), "gatecast-test"])
            .arg(folder.path())
            .output()
            .is_ok_and(|output| output.status.success());
        common::have("right to mount a small disk", mounted).then_some(Self(folder))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

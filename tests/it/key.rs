//! A key: who has it is served over every way, and who has not gets a sentence and nothing else,
//! whatever he captured, forwards or sends back.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    thread,
    time::{Duration, Instant},
};

use gatecast::{
    Fetch, Via,
    internals::{
        client,
        client::{ClientReport, FetchConfig, FetchRun},
        digest::Digest,
        http::{self, HttpConfig},
        proto::{
            greeting::Greeting,
            key::{Challenge, Challenges, ConnectionEnd, Key, LineSeal},
            native::FromClient,
        },
        server::{builder::ServerCore, config::ServerConfig, sample},
        transport::tcp,
    },
};
use tempfile::TempDir;

use crate::common::{self, Peer, Server, failed, http::get_with, whole, within};

const LIMIT: Duration = Duration::from_secs(120);

const OURS: &[u8] = b"a key that both ends have";
const OTHER: &[u8] = b"a key that only one has";

fn key(bytes: &[u8]) -> Key {
    Key::new(bytes).expect("long enough")
}

/// A server of one file with our key.
fn keyed(bytes: u64, set: impl FnOnce(&mut ServerConfig)) -> Server {
    Server::new(bytes, |settings| {
        settings.key = Some(key(OURS));
        set(settings);
    })
}

/// A file with our key.
fn key_file(folder: &Path) -> PathBuf {
    let path = folder.join("key");
    fs::write(&path, OURS).expect("room");
    only_for_its_owner(&path);
    path
}

fn only_for_its_owner(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("ours");
    }
    let _ = path;
}

/// A client that sends lines one by one, and has proven our key.
fn proven(server: &Server) -> (Peer, LineSeal) {
    let mut peer = server.peer();
    let challenges = challenge(&mut peer, Challenge(7));
    let proof = key(OURS).proof(ConnectionEnd::Client, challenges);
    peer.send_message(&FromClient::Proof(proof));
    let answer = key(OURS).proof(ConnectionEnd::Server, challenges);
    assert_eq!(peer.read_line(), format!("PROOF hmac={answer}"));
    (peer, key(OURS).seal(ConnectionEnd::Client, challenges))
}

/// Sends a client's challenge; returns it with the server's.
fn challenge(peer: &mut Peer, client: Challenge) -> Challenges {
    peer.send(format!("GATECAST/1 CHALLENGE random={client}\n"));
    let line = peer.read_line();
    let server = line.strip_prefix("CHALLENGE random=").expect(&line);
    Challenges { client, server: Challenge::decode(server).expect("a challenge") }
}

// --- with the key ---------------------------------------------------------------------------------

#[test]
fn clients_with_the_key_are_served_over_every_way() {
    within(LIMIT, || {
        for via in [Via::Tcp, Via::Udp, Via::Raw, Via::Multicast, Via::Swarm, Via::Http] {
            let folder = tempfile::tempdir().expect("a folder");
            let file = folder.path().join("f.bin");
            sample::make(&file, 20_000).expect("room");
            let key = key_file(folder.path());
            let server = gatecast::Server::builder().offer(&file).clients(25).via(via);
            let server = server.key(&key).log_dir(folder.path().join("logs"));
            let server = server.bind("127.0.0.1:0").expect("a free port");
            let out = folder.path().join("out");
            let fetch = Fetch::from(server.local_addr()).clients(25).out(&out).key(&key);
            let report = fetch.run().expect("begun");
            for client in report.clients() {
                let path = client.result().unwrap_or_else(|error| panic!("{via}: {error}"));
                assert_eq!(fs::read(path).expect("there"), fs::read(&file).expect("there"));
            }
            let session = server.sessions().next().expect("it has ended");
            assert_eq!(session.proven(), 25, "{via}");
            for table in [session.to_string(), report.to_string()] {
                assert!(table.contains("\nkey                 yes\n"), "{table}");
            }
            server.shutdown().expect("a log");
            let logs = common::entries(&folder.path().join("logs"));
            let records = gatecast::internals::report::read_logs(&logs).expect("a log");
            assert!(records.iter().all(|record| record.key), "{via}");
        }
    });
}

#[test]
fn client_with_the_key_lists_and_asks_for_http() {
    within(LIMIT, || {
        let server = keyed(5000, |_| {});
        let (files, _) = client::list(&[server.addr], Some(&key(OURS))).expect("a list");
        assert_eq!(files[0].0.sha1, server.sha1);
        let folder = tempfile::tempdir().expect("a folder");
        let file = key_file(folder.path());
        // HTTP cannot prove a key, so the fetch goes by the control connection all the same.
        let keyed = gatecast::Server::builder().offer(server.source()).key(&file);
        let keyed = keyed.bind("127.0.0.1:0").expect("a free port");
        let fetch = Fetch::from(keyed.local_addr()).via(Via::Http).key(&file);
        let report = fetch.out(folder.path().join("out")).run().expect("begun");
        assert_eq!(report.exit_code(), 0, "{report}");
        let session = keyed.sessions().next().expect("it has ended");
        assert!(session.to_string().contains(" by http to 1 client"), "{session}");
    });
}

// --- without it -----------------------------------------------------------------------------------

#[test]
fn client_without_the_key_gets_one_sentence() {
    within(LIMIT, || {
        let server = keyed(5000, |_| {});
        let refused = " refused: it serves only clients that prove its key (--key FILE)";
        let says = failed(server.fetch("c", |_| {}).join().expect("no panic"));
        assert_eq!(says, format!("{}{refused}", server.addr));
        let says = client::list(&[server.addr], None).expect_err("no list").to_string();
        assert_eq!(says, format!("{}{refused}", server.addr));
        for opening in ["GATECAST/1 JOIN group=1 name=a\n", "GATECAST/1 LIST\n"] {
            let mut peer = server.peer();
            peer.send(opening);
            let all = String::from_utf8(peer.read_to_close()).expect("text");
            assert!(all.starts_with("ERROR code=refused reason="), "{all}");
            assert_eq!(all.lines().count(), 1, "{all}");
        }
        // A lab client has no word for it.
        let mut peer = server.peer();
        peer.send("Preparado");
        assert_eq!(peer.read_to_close(), b"");
        assert!(server.running().lobby().is_idle(), "nobody has a seat");
        server.stop();
    });
}

#[test]
fn client_with_another_key_gets_one_sentence_and_late() {
    within(LIMIT, || {
        let server = keyed(5000, |_| {});
        let refused = " refused: this client's key is not the server's";
        let other = |order: &mut FetchConfig| order.key = Some(key(OTHER));
        let says = failed(server.fetch("c", other).join().expect("no panic"));
        assert_eq!(says, format!("{}{refused}", server.addr));
        let says = client::list(&[server.addr], Some(&key(OTHER))).expect_err("no list");
        assert_eq!(says.to_string(), format!("{}{refused}", server.addr));
        // However wrong a proof is, its answer takes the same time.
        for proof in ["0".repeat(40), "f".repeat(40)] {
            let mut peer = server.peer();
            challenge(&mut peer, Challenge(1));
            let begun = Instant::now();
            peer.send(format!("PROOF hmac={proof}\n"));
            let all = String::from_utf8(peer.read_to_close()).expect("text");
            assert!(begun.elapsed() > Duration::from_millis(900), "{:?}", begun.elapsed());
            assert!(all.starts_with("ERROR code=refused") && all.lines().count() == 1, "{all}");
        }
        // What is no proof at all.
        for line in ["PROOF hmac=12\n", "PROOF\n", "GATECAST/1 LIST\n", "READY offset=0\n"] {
            let mut peer = server.peer();
            challenge(&mut peer, Challenge(1));
            peer.send(line);
            let all = String::from_utf8(peer.read_to_close()).expect("text");
            assert!(all.starts_with("ERROR code=protocol") && all.lines().count() == 1, "{all}");
        }
        assert!(server.running().lobby().is_idle(), "nobody has a seat");
        let ours = |order: &mut FetchConfig| order.key = Some(key(OURS));
        whole(server.fetch("honest", ours).join().expect("no panic"), &server);
        server.stop();
    });
}

#[test]
fn client_with_a_key_refuses_a_server_without() {
    within(LIMIT, || {
        let server = Server::new(5000, |_| {});
        let ours = |order: &mut FetchConfig| order.key = Some(key(OURS));
        let says = failed(server.fetch("c", ours).join().expect("no panic"));
        let refused = " refused: it has no key, and this client asks for one";
        assert_eq!(says, format!("{}{refused}", server.addr));
        assert!(client::list(&[server.addr], Some(&key(OURS))).is_err());
        whole(server.fetch("c", |_| {}).join().expect("no panic"), &server);
        let record = server.record();
        assert!(!record.key);
        server.stop();
    });
}

#[test]
fn key_that_cannot_be_used_is_an_error_before_all_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("f.bin");
    fs::write(&file, "abc").expect("room");
    let short = folder.path().join("short");
    fs::write(&short, "15 bytes, no mo").expect("room");
    only_for_its_owner(&short);
    let missing = folder.path().join("missing");
    for (key, says) in [(&short, "it has 15 bytes"), (&missing, "cannot open the key file")] {
        let server = gatecast::Server::builder().offer(&file).key(key).bind("127.0.0.1:0");
        let fetch = Fetch::from("127.0.0.1:9").key(key).run();
        for error in [server.map(drop).expect_err("no key"), fetch.map(drop).expect_err("no key")] {
            assert!(error.to_string().contains(says), "{error}");
        }
    }
}

// --- a man in the middle --------------------------------------------------------------------------

/// Forwards one connection line by line, and changes what he likes.
struct Forwarder {
    addr: SocketAddr,
    lines: Arc<Mutex<Vec<String>>>,
}

/// What a forwarder makes of a line.
type Change = fn(String) -> Vec<String>;

impl Forwarder {
    fn to(server: SocketAddr, change: Change) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&lines);
        thread::spawn(move || {
            let (client, _) = listener.accept().expect("a client");
            let server = TcpStream::connect(server).expect("a server");
            let back = (server.try_clone().expect("ours"), client.try_clone().expect("ours"));
            let also_seen = Arc::clone(&seen);
            let answers = thread::spawn(move || forward(&back.0, &back.1, change, &also_seen));
            forward(&client, &server, change, &seen);
            answers.join().expect("no panic");
        });
        Self { addr, lines }
    }

    fn lines(&self) -> MutexGuard<'_, Vec<String>> {
        self.lines.lock().expect("no panic")
    }
}

fn forward(mut from: &TcpStream, mut to: &TcpStream, change: Change, seen: &Mutex<Vec<String>>) {
    let mut reader = BufReader::new(&mut from);
    let mut line = String::new();
    // The file is a line too, and text.
    while reader.read_line(&mut line).is_ok_and(|len| len > 0) {
        seen.lock().expect("no panic").push(line.clone());
        for line in change(std::mem::take(&mut line)) {
            if to.write_all(line.as_bytes()).is_err() {
                break;
            }
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// A server with our key of a file that is one line, and a client that comes by the forwarder.
struct ManInTheMiddle {
    server: ServerCore,
    man: Forwarder,
    folder: TempDir,
}

const PAYLOAD: &str = "one line, which is the file\n";
const FORGED: &str = "two line, which is no file.\n";

impl ManInTheMiddle {
    fn new(change: Change) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("f.txt");
        fs::write(&file, PAYLOAD).expect("room");
        let server = common::offer(&[file], |settings| settings.key = Some(key(OURS)));
        let man = Forwarder::to(server.addr(), change);
        Self { server, man, folder }
    }

    fn fetch(&self) -> ClientReport {
        let mut order = FetchConfig::new(vec![self.man.addr]);
        order.key = Some(key(OURS));
        order.out = self.folder.path().join("out");
        order.durable = false;
        FetchRun::new(&order).run(&order, &[&tcp::receive::TCP]).expect("begun").remove(0)
    }
}

#[test]
fn forwarder_changes_nothing_that_either_end_accepts() {
    within(LIMIT, || {
        // He changes the line that begins with this word, and the payload where he has to.
        let cases: [(&str, Change); 8] = [
            ("JOIN", |line| vec![line.replace("name=client", "name=clientX")]),
            ("OFFER", |line| {
                let (ours, theirs) =
                    (Digest::of(PAYLOAD.as_bytes()), Digest::of(FORGED.as_bytes()));
                let line = line.replace(&ours.to_string(), &theirs.to_string());
                vec![line.replace(PAYLOAD, FORGED)]
            }),
            ("READY", |line| vec![line.replace("READY offset=0", "READY offset=1")]),
            ("GO", |line| vec![line.replace("GO bytes=28", "GO bytes=27")]),
            ("LAST", |line| {
                let repeated = line.starts_with("LAST ").then(|| line.clone());
                repeated.into_iter().chain([line]).collect()
            }),
            ("payload", |line| vec![line.replace(PAYLOAD, FORGED)]),
            ("RECEIPT", |line| {
                // The payload is his, and he claims that the client found it right.
                let (ours, theirs) =
                    (Digest::of(PAYLOAD.as_bytes()), Digest::of(FORGED.as_bytes()));
                vec![line.replace(PAYLOAD, FORGED).replace(&theirs.to_string(), &ours.to_string())]
            }),
            ("HASHED", |line| {
                let left_out = line.starts_with("HASHED ");
                if left_out { Vec::new() } else { vec![line] }
            }),
        ];
        for (what, change) in cases {
            let middle = ManInTheMiddle::new(change);
            let end = middle.fetch();
            let lines = middle.man.lines().join("");
            assert!(what == "payload" || lines.contains(what), "{what} never came: {lines}");
            let copies = common::entries(&middle.folder.path().join("out"));
            let whole = copies.iter().filter(|path| !common::is_part(path));
            for path in whole {
                assert_eq!(fs::read_to_string(path).expect("text"), PAYLOAD, "{what}");
            }
            let late = matches!(what, "LAST" | "HASHED");
            assert!(late || end.path.is_none(), "{what}");
            drop(end);
            let records = middle.server.stop().expect("no log");
            let proven: usize = records.iter().map(|record| record.proven()).sum();
            assert_eq!(proven, 0, "{what}: the server counts a copy as proven");
        }
    });
}

#[test]
fn forwarder_that_only_forwards_changes_nothing() {
    within(LIMIT, || {
        let middle = ManInTheMiddle::new(|line| vec![line]);
        let end = middle.fetch();
        assert_eq!(fs::read_to_string(end.path.expect("a copy")).expect("text"), PAYLOAD);
        let records = middle.server.records();
        assert!(records.recv_timeout(common::PATIENCE).expect("a session").all_proven());
        // His summary is not believed, and costs the client nothing but the server's figures.
        let middle = ManInTheMiddle::new(|line| {
            vec![line.replace("SUMMARY outcome=complete", "SUMMARY outcome=cut")]
        });
        let end = middle.fetch();
        assert!(end.path.is_some());
        assert_eq!(end.transfer.expect("a seat").bytes_server, None);
    });
}

#[test]
fn captured_exchange_is_worth_nothing_when_replayed() {
    within(LIMIT, || {
        let middle = ManInTheMiddle::new(|line| vec![line]);
        assert!(middle.fetch().path.is_some());
        let captured = middle.man.lines().clone();
        let of_client = |line: &&String| {
            let first = line.split(' ').next().unwrap_or_default();
            ["GATECAST/1", "READY", "HELD", "LAST", "ALIVE", "HASHED", "RECEIPT"].contains(&first)
        };
        let proofs: Vec<&String> =
            captured.iter().filter(|line| line.starts_with("PROOF ")).collect();
        let [client_proof, _] = proofs[..] else { panic!("{captured:?}") };
        // To the server: it sends its challenge, which is another, and that it is not proven.
        let mut peer = Peer::connect(middle.server.addr());
        let mut replayed: Vec<&str> = captured.iter().filter(of_client).map(|l| &**l).collect();
        replayed.insert(1, client_proof);
        peer.send(replayed.concat());
        let answer = String::from_utf8(peer.read_to_close()).expect("text");
        let words: Vec<&str> =
            answer.lines().map(|line| line.split(' ').next().expect("one")).collect();
        assert_eq!(words, ["CHALLENGE", "ERROR"], "{answer}");
        assert!(
            !captured.iter().any(|line| line.trim_end() == answer.lines().next().expect("one"))
        );
        // To a client: it finds that the proof is not of its challenge.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let fake = listener.local_addr().expect("bound");
        let server_lines: String = captured
            .iter()
            .filter(|line| !of_client(line) && line != &client_proof)
            .cloned()
            .collect();
        let playing = thread::spawn(move || {
            let (mut client, _) = listener.accept().expect("a client");
            client.write_all(server_lines.as_bytes()).expect("room");
            let _ = std::io::copy(&mut client, &mut std::io::sink());
        });
        let error = client::list(&[fake], Some(&key(OURS))).expect_err("a replay").to_string();
        assert!(error.ends_with("does not have this client's key"), "{error}");
        playing.join().expect("no panic");
    });
}

#[test]
fn man_between_two_servers_gets_no_proof_for_either() {
    within(LIMIT, || {
        let (one, two) = (keyed(5000, |_| {}), keyed(5000, |_| {}));
        // He gives each server's challenge to the other, as if it were a client's.
        let mut first = one.peer();
        let asked = challenge(&mut first, Challenge(1));
        let mut second = two.peer();
        let reflected = challenge(&mut second, asked.server);
        // The other end proves nothing before the client does, so he has only his own words.
        for (peer, guess) in [
            (&mut second, key(OTHER).proof(ConnectionEnd::Client, reflected)),
            (&mut first, key(OTHER).proof(ConnectionEnd::Client, asked)),
        ] {
            peer.send_message(&FromClient::Proof(guess));
            assert!(peer.read_line().starts_with("ERROR code=refused"));
            assert_eq!(peer.read_line(), "");
        }
        // An honest client's proof, made for the one, is none for the other.
        let (mut first, mut second) = (one.peer(), two.peer());
        let asked = challenge(&mut first, Challenge(2));
        challenge(&mut second, Challenge(2));
        let proof = key(OURS).proof(ConnectionEnd::Client, asked);
        second.send_message(&FromClient::Proof(proof));
        assert!(second.read_line().starts_with("ERROR code=refused"));
        first.send_message(&FromClient::Proof(proof));
        assert!(first.read_line().starts_with("PROOF "));
        // Nor is the seal of a connection good for any other.
        let (mut third, seal) = proven(&one);
        let (mut fourth, _) = proven(&two);
        let join = seal.seal(b"GATECAST/1 JOIN group=1 name=a\n");
        fourth.send(&join);
        assert!(fourth.read_line().contains("changed%20on%20its%20way"));
        third.send(&join);
        assert!(third.read_line().starts_with("OFFER "));
        for server in [one, two] {
            server.stop();
        }
    });
}

#[test]
fn server_that_sends_a_challenge_back_proves_nothing() {
    within(LIMIT, || {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let mirror = thread::spawn(move || {
            let (client, _) = listener.accept().expect("a client");
            let mut lines = BufReader::new(&client).lines();
            while let Some(Ok(line)) = lines.next() {
                let line = line.replace("GATECAST/1 ", "") + "\n";
                let _ = (&client).write_all(line.as_bytes());
            }
        });
        let mut order = FetchConfig::new(vec![addr]);
        order.key = Some(key(OURS));
        let says = failed(FetchRun::new(&order).run(&order, &[&tcp::receive::TCP]).expect("begun"));
        let refused =
            format!("gatecast refused: the server at {addr} does not have this client's key");
        assert_eq!(says, refused);
        mirror.join().expect("no panic");
    });
}

#[test]
fn line_without_its_seal_ends_the_conversation() {
    within(LIMIT, || {
        let server = keyed(5000, |_| {});
        for opening in ["GATECAST/1 JOIN group=1 name=a\n", "GATECAST/1 LIST\n"] {
            let (mut peer, _) = proven(&server);
            peer.send(opening);
            assert!(peer.read_line().contains("a%20line%20without%20a%20seal"));
            assert_eq!(peer.read_line(), "");
        }
        let (mut peer, seal) = proven(&server);
        peer.send(seal.seal(format!("GATECAST/1 CHALLENGE random={}\n", Challenge(3)).as_bytes()));
        assert!(peer.read_line().contains("a%20second%20challenge"));
        // The longest line, with its seal.
        let (mut peer, seal) = proven(&server);
        let mut line = "GATECAST/1 JOIN group=1 name=a x=".to_owned();
        line += &"y".repeat(gatecast::internals::proto::line::LINE_MAX - line.len() - 1);
        peer.send(seal.seal((line + "\n").as_bytes()));
        assert!(peer.read_line().starts_with("OFFER "));
        drop(peer);
        server.stop();
    });
}

// --- what cannot prove a key ----------------------------------------------------------------------

/// A server with our key that speaks HTTP too.
fn with_http(open: &[Greeting]) -> Server {
    let set = |settings: &mut ServerConfig| {
        settings.key = Some(key(OURS));
        settings.open = open.to_vec();
    };
    Server::with(5000, set, |host| {
        let config =
            HttpConfig { token: Some("a-token-to-read".to_owned()), ..HttpConfig::default() };
        http::serve(tcp::serve(host).expect("TCP"), config).expect("HTTP")
    })
}

#[test]
fn files_over_http_are_closed_unless_opened() {
    within(LIMIT, || {
        let server = with_http(&[]);
        for path in [
            "/files",
            "/files/",
            "/files/f.bin",
            "/files/f.bin.sha1",
            "/files/none.bin",
            "/files/f.bin?gate=1",
            "/files/f.bin?token=a-token-to-read",
        ] {
            let (status, _, body) = get_with(server.addr, path, "");
            let body = String::from_utf8(body).expect("text");
            assert_eq!(status, 403, "{path}: {body}");
            assert!(
                body.contains("clients that prove its key (gatecast fetch --key FILE)"),
                "{body}"
            );
            assert!(body.len() < 200 && body.lines().count() == 1, "{path}: {body}");
        }
        // This is the server's own machine.
        for path in ["/", "/metrics", "/sessions", "/sessions/current"] {
            assert_eq!(get_with(server.addr, path, "").0, 200, "{path}");
        }
        server.stop();

        let server = with_http(&[Greeting::Http]);
        let (status, _, body) = get_with(server.addr, "/files/f.bin", "");
        assert_eq!((status, Digest::of(&body)), (200, server.sha1));
        // The lab's clients are still outside.
        let mut peer = server.peer();
        peer.send("Preparado");
        assert_eq!(peer.read_to_close(), b"");
        server.stop();
    });
}

#[test]
fn lab_client_is_served_where_it_is_let_in() {
    within(LIMIT, || {
        let server = keyed(5000, |settings| {
            settings.open = vec![Greeting::Lab];
            settings.clients = Some(1);
        });
        let mut peer = server.peer();
        peer.send("Preparado");
        let all = String::from_utf8_lossy(&peer.read_payload(60)).into_owned();
        assert!(all.starts_with("1\nf.bin\n5000\n"), "{all}");
        drop(peer);
        server.record();
        server.stop();
    });
}

#[cfg(all(target_os = "linux", feature = "sockopt"))]
mod swarm {
    use gatecast::internals::{
        proto::bt::{
            tracker::{
                announce::{Announce, AnnounceEvent},
                response::AnnounceResponse,
            },
            wire::Handshake,
        },
        units::Rate,
    };

    use super::*;
    use crate::common::{
        swarm::{self, Raw, metainfo},
        until,
    };

    /// A connection to `addr` from another address than that of all others.
    fn from_elsewhere(addr: SocketAddr) -> TcpStream {
        let local: SocketAddr = "127.0.0.2:0".parse().expect("an address");
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a socket");
        socket.bind(&local.into()).expect("loopback");
        socket.connect(&addr.into()).expect("somebody who listens");
        socket.into()
    }

    /// What a peer gets that greets, and then reads to the end.
    fn greeted(stream: TcpStream, info_hash: Digest) -> Vec<u8> {
        stream.set_read_timeout(Some(common::PATIENCE)).expect("a socket");
        let ours = Handshake::new(info_hash, *b"-XX0001-abcdefghijkl").encode();
        (&stream).write_all(&ours).expect("it listens");
        let mut all = Vec::new();
        let mut bytes = [0; 4096];
        loop {
            match std::io::Read::read(&mut &stream, &mut bytes) {
                Ok(0) => return all,
                Ok(len) => all.extend_from_slice(&bytes[..len]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return all,
                Err(error) => panic!("{error}, after {} bytes", all.len()),
            }
        }
    }

    #[test]
    fn peers_come_only_from_where_the_key_was_proven() {
        within(LIMIT, || {
            let server = swarm::server(600_000, |settings| {
                settings.key = Some(key(OURS));
                settings.clients = Some(3);
                settings.rate = Some(Rate(1_600_000));
            });
            let torrent_path = "/f.bin.torrent";
            // Nobody has a seat yet, and the file's name makes no difference.
            for path in [torrent_path, "/none.torrent", "/announce", "/scrape"] {
                assert_eq!(get_with(server.addr, path, "").0, 403, "{path}");
            }
            let foreign = TcpStream::connect(server.addr).expect("a server");
            assert_eq!(greeted(foreign, Digest::of(b"any")), b"", "no handshake");

            let clients = swarm::fetch(&server, 2, |order| order.key = Some(key(OURS)));
            server.until_ready(2);
            let torrent = metainfo(&server);
            let hash = torrent.info_hash();
            assert_eq!(greeted(from_elsewhere(server.addr), hash), b"", "no handshake");
            let lines = format!("GET {torrent_path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            let mut elsewhere = from_elsewhere(server.addr);
            elsewhere.write_all(lines.as_bytes()).expect("room");
            let mut answer = String::new();
            BufReader::new(elsewhere).read_line(&mut answer).expect("text");
            assert_eq!(answer, "HTTP/1.1 403 Forbidden\r\n");

            server.running().lobby().release_now();
            until("each client to have a piece", || {
                let views = server.running().lobby().views();
                views.iter().flat_map(|view| &view.seats).filter(|seat| seat.moved > 0).count() == 2
            });
            // The tracker tells a client's address where the others are.
            let announce = Announce {
                info_hash: hash,
                peer_id: *b"-XX0001-asks-the-way",
                port: 5000,
                left: Some(5),
                event: AnnounceEvent::Regular,
                wanted: 50,
                uploaded: 0,
                received_from: Vec::new(),
            };
            let target = format!("/announce?{}", announce.encode());
            let (_, _, body) = get_with(server.addr, &target, "");
            let peers = AnnounceResponse::decode(&body).expect("a list").peers;
            let peer = *peers.iter().find(|peer| peer.port() != server.addr.port()).expect("one");
            let handshake = greeted(from_elsewhere(peer), hash);
            assert_eq!(handshake.len(), 68, "its handshake, and nothing more");
            // From an address with a seat it would be a peer like others.
            let mut near = Raw::join(peer, &torrent, *b"-XX0002-abcdefghijkl");
            assert!(near.read_message().is_some());
            drop(near);
            assert_eq!(server.record().proven(), 2);
            for end in clients.join().expect("no panic") {
                assert!(end.path.is_some(), "{:?}", end.error);
            }
            server.stop();
        });
    }
}

#[cfg(all(unix, feature = "cli"))]
mod program {
    use super::*;
    use crate::common::{
        program::{Program, output_text, run, text},
        until,
    };

    /// A folder with a file, our key and another.
    fn folder() -> TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("f.bin"), "abc").expect("room");
        key_file(folder.path());
        fs::write(folder.path().join("other"), OTHER).expect("room");
        only_for_its_owner(&folder.path().join("other"));
        folder
    }

    #[test]
    fn each_refusal_is_one_sentence_at_both_ends() {
        within(LIMIT, || {
            let folder = folder();
            let path = folder.path();
            let (server, addr) = Program::serve(path, &["f.bin", "--key", "key"]);
            until("the page's address, with the token", || server.stderr().contains("/?token="));
            assert!(server.stderr().contains("\nclients must prove the key; nothing is encrypted"));
            for (arguments, says, shown) in [
                (
                    vec!["fetch", &addr],
                    "it serves only clients that prove its key (--key FILE)",
                    "it proved no key",
                ),
                (
                    vec!["list", &addr, "--key", "other"],
                    "this client's key is not the server's",
                    "its key is not this server's",
                ),
            ] {
                let output = run(path, &arguments);
                assert_eq!(output.status.code(), Some(1), "{output:?}");
                assert_eq!(text(&output.stdout), "");
                assert_eq!(text(&output.stderr), format!("gatecast: {addr} refused: {says}\n"));
                until("the server's sentence", || {
                    server
                        .stderr()
                        .lines()
                        .any(|line| line.ends_with(&format!(" was refused: {shown}")))
                });
            }
            let output = run(path, &["list", &addr, "--key", "key"]);
            assert!(text(&output.stdout).contains(" f.bin\n"), "{output:?}");
            let output = run(path, &["fetch", &addr, "--key", "key", "--out", "o"]);
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            assert!(text(&output.stdout).contains("\nkey                 yes\n"), "{output:?}");
            // The server writes its log when the client has gone.
            until("a log that says so", || {
                let logs = common::entries(&path.join("logs"));
                logs.first().is_some_and(|log| {
                    let report = run(path, &["report", log.to_str().expect("UTF-8"), "--json"]);
                    text(&report.stdout).contains("\"key\": true")
                })
            });
        });
    }

    #[test]
    fn key_on_the_command_line_is_checked_before_all_else() {
        let folder = folder();
        let path = folder.path();
        fs::write(path.join("empty"), "").expect("room");
        only_for_its_owner(&path.join("empty"));
        fs::write(path.join("public"), OURS).expect("room");
        let public =
            "the key file 'public' cannot be used: others may use it too (its mode is 0644)";
        std::process::Command::new("chmod")
            .args(["644", "public"])
            .current_dir(path)
            .status()
            .expect("sh");
        for (arguments, code, says) in [
            (&["serve", "f.bin", "--key", "public"][..], 2, public),
            (&["fetch", "127.0.0.1:9", "--key", "public"], 2, public),
            (&["list", "127.0.0.1:9", "--key", "public"], 2, public),
            (&["run", "f.bin", "--key", "public"], 2, public),
            (&["list", "127.0.0.1:9", "--key", "empty"], 2, "'empty' cannot be used: it is empty"),
            (&["list", "127.0.0.1:9", "--key", "none"], 1, "cannot open the key file (none)"),
            (&["serve", "f.bin", "--open", "http"], 2, "--key <FILE>"),
            (
                &["serve", "f.bin", "--key", "key", "--open", "all"],
                2,
                "expected http, lab or swarm",
            ),
            (&["serve", "f.bin", "--key", "key", "--lab-udp"], 2, "add --open lab"),
            (&["fetch", "http://127.0.0.1/f", "--key", "key"], 2, "cannot prove a key"),
            (&["fetch", "f.torrent", "--key", "key"], 2, "cannot prove a key"),
        ] {
            let output = run(path, arguments);
            let all = output_text(&output);
            assert_eq!(output.status.code(), Some(code), "{arguments:?}: {all}");
            assert!(all.contains(says), "{arguments:?}: {all}");
        }
    }

    #[test]
    fn run_proves_its_key_over_every_way() {
        within(LIMIT, || {
            let folder = folder();
            for via in ["tcp", "multicast", "swarm", "chain", "http"] {
                let arguments = ["run", "f.bin", "--clients", "2", "--via", via, "--key", "key"];
                let output = run(folder.path(), &arguments);
                assert_eq!(output.status.code(), Some(0), "{via}: {output:?}");
                assert!(text(&output.stdout).contains("\nkey                 yes\n"), "{output:?}");
            }
        });
    }
}

//! Clients and servers that break the protocol: which answer each gets, and that honest clients are
//! served all the same.

use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use gatecast::internals::{
    client,
    client::{FetchConfig, FetchRun},
    digest::Digest,
    proto::{line::LINE_MAX, native::FromClient},
    report,
    text::{ClientName, FileName},
    transfer::{Counts, Outcome},
};

use crate::{
    common,
    common::{Peer, Server, ended, failed, receipt, row, whole, within},
};

const LIMIT: Duration = Duration::from_secs(60);

/// Asserts that an honest client still gets its file.
fn honest(server: &Server) {
    let client = server.fetch("honest", |_| {});
    whole(client.join().expect("no panic"), server);
    loop {
        // Sessions of hostile clients may have ended before.
        let record = server.record();
        if record.transfers.iter().any(|t| t.name == "honest") {
            return assert!(record.all_proven());
        }
    }
}

#[test]
fn wrong_opening_is_answered_with_its_fault() {
    within(LIMIT, || {
        let server = Server::new(5000, |_| {});
        for (opening, says) in [
            ("GATECAST/0 JOIN group=1 name=a\n", "speaks%20GATECAST/1"),
            ("GATECAST/2 JOIN group=1 name=a\n", "not:%20%27GATECAST/2%27"),
            ("GATECAST/255 LIST\n", "GATECAST/255"),
            ("GATECAST/\n", "speaks%20GATECAST/1"),
            ("GATECAST/1\n", "JOIN%20or%20LIST"),
            ("GATECAST/1 READY offset=0\n", "JOIN%20or%20LIST"),
            ("GATECAST/1 join group=1 name=a\n", "JOIN%20or%20LIST"),
            ("GATECAST/1 JOIN name=a\n", "without%20group"),
            ("GATECAST/1 JOIN group=0 name=a\n", "group%3D0"),
            ("GATECAST/1 JOIN group=10001 name=a\n", "group%3D10001"),
            ("GATECAST/1 JOIN group=99999999999999999999 name=a\n", "wrong%20group"),
            ("GATECAST/1 JOIN group=1 group=2 name=a\n", "twice"),
            ("GATECAST/1 JOIN group=1\n", "without%20name"),
            ("GATECAST/1 JOIN group=1 name=\n", "empty"),
            ("GATECAST/1 JOIN group=1 name=%zz\n", "percent"),
            ("GATECAST/1 JOIN group=1 name=%ff\n", "percent"),
            ("GATECAST/1 JOIN group=1 name=a file=nothing.bin\n", "is%20not%20offered"),
            ("GATECAST/1 JOIN group=1 name=a file=..\n", "names%20a%20folder"),
            ("GATECAST/1 JOIN group=1 name=a file=..%2F..%2Fetc%2Fpasswd\n", "separator"),
            ("GATECAST/1 JOIN group=1 name=a file=/etc/passwd\n", "separator"),
            ("GATECAST/1 JOIN group=1 name=a file=a%5Cb\n", "separator"),
            ("GATECAST/1 JOIN group=1 name=a file=f.bin%00\n", "control"),
            ("GATECAST/1 JOIN group=1 name=a file=\n", "empty"),
            ("GATECAST/1 JOIN group=1 name=a via=pigeon\n", "tcp,%20udp"),
            ("GATECAST/1 JOIN group=1 name=a\r\n", "control%20character"),
            ("GATECAST/1 JOIN group=1 name=a\0\n", "control%20character"),
            ("GATECAST/1 JOIN group=1 name=\u{9b}2J\n", "control%20character"),
        ] {
            let mut peer = server.peer();
            peer.send(opening);
            let answer = peer.read_line();
            assert!(answer.starts_with("ERROR code="), "{opening}: {answer}");
            assert!(answer.contains(says), "{opening}: {answer}");
            assert_eq!(peer.read_line(), "", "{opening}: and it is closed");
        }
        // A name that is not UTF-8, and one of 65 bytes.
        let mut peer = server.peer();
        peer.send(b"GATECAST/1 JOIN group=1 name=\xff\xfe\n");
        assert!(peer.read_line().contains("not%20UTF-8"));
        let mut peer = server.peer();
        peer.send(format!("GATECAST/1 JOIN group=1 name={}\n", "n".repeat(65)));
        assert!(peer.read_line().contains("longer%20than%2064"));
        honest(&server);
        server.stop();
    });
}

#[test]
fn unknown_protocol_is_closed_without_answer() {
    within(LIMIT, || {
        let server = Server::new(5000, |_| {});
        for first in [&b"READY offset=0\n"[..], b"SSH-2.0-x\r\n", b"\0\0\0\0", b"\xff\xff", b"\n"] {
            let mut peer = server.peer();
            peer.send(first);
            assert_eq!(peer.read_to_close(), b"", "{first:?}");
        }
        honest(&server);
        server.stop();
    });
}

#[test]
fn control_characters_in_name_are_escaped_in_log() {
    within(LIMIT, || {
        let server = Server::new(5000, |_| {});
        let name = "\u{1b}[2J\r\n1 | 2 | x\u{9b}\u{202e}=cmd";
        let client = server.fetch("c", |order| order.name = name.to_owned());
        whole(client.join().expect("no panic"), &server);
        assert_eq!(server.record().transfers[0].name, name);
        let logs = common::entries(&server.logs());
        let log = std::fs::read_to_string(&logs[0]).expect("text");
        assert!(log.contains("\\u{1b}[2J\\u{d}\\u{a}1 \\u{7c} 2"), "{log}");
        assert!(!log.chars().any(|ch| ch.is_control() && ch != '\n'), "{log}");
        let back = report::read_log(&logs[0]).expect("a log");
        assert_eq!(back[0].transfers[0].name, name);
        // This also checks that every log has one line a row and can be read back.
        server.stop();
    });
}

#[test]
fn longest_line_passes_and_endless_line_is_cut_off() {
    within(LIMIT, || {
        let server = Server::new(5000, |_| {});
        // A name of 64 bytes, each percent-encoded, and unknown keys up to the limit of a line.
        let mut line = format!("GATECAST/1 JOIN group=1 name={} x=", "%C3%A9".repeat(32));
        line += &"y".repeat(LINE_MAX - line.len() - 1);
        let mut peer = server.peer();
        peer.send(line + "\n");
        assert!(peer.read_line().starts_with("OFFER "));
        drop(peer);

        let mut peer = server.peer();
        peer.send("GATECAST/1 JOIN name=".to_owned() + &"x".repeat(LINE_MAX));
        assert!(peer.read_line().contains("a%20line%20longer%20than%202048%20bytes"));
        assert_eq!(peer.read_line(), "");

        // The server does not read four gigabytes: it ends the connection after a small part of
        // them.
        let peer = server.peer();
        let block = [b'x'; 64 * 1024];
        let begun = Instant::now();
        let mut sent = 0_u64;
        (&*peer.stream).write_all(b"GATECAST/1 ").expect("room");
        while sent < 4 << 30 && begun.elapsed() < Duration::from_secs(10) {
            match (&*peer.stream).write(&block) {
                Ok(len) => sent += len as u64,
                Err(_) => break,
            }
        }
        let took = begun.elapsed();
        assert!(sent < 4 << 30 && took < Duration::from_secs(5), "{sent} bytes in {took:?}");
        honest(&server);
        server.stop();
    });
}

#[test]
fn segment_boundaries_change_nothing() {
    within(LIMIT, || {
        let server = Server::new(3000, |_| {});
        let join = "GATECAST/1 JOIN group=1 name=cut\n";
        let (bytes, sha1) = (server.bytes, server.sha1);
        let finish = |mut peer: Peer| {
            assert!(peer.read_line().starts_with("OFFER "));
            peer.send("READY off");
            peer.send("set=0\n");
            assert_eq!(peer.read_past_wait(), format!("GO bytes={bytes}"));
            assert_eq!(Digest::of(&peer.read_payload(bytes)), sha1);
            // All that an honest client says after the payload, in one segment.
            let last = FromClient::Last { bytes }.encode();
            let hashed = FromClient::Hashed { sha1 }.encode();
            peer.send([b"HELD\n".to_vec()].concat());
            peer.send([last, hashed, receipt(bytes, sha1).encode()].concat());
            let summary = peer.read_line();
            assert!(summary.starts_with("SUMMARY outcome=complete "), "{summary}");
            assert!(server.record().all_proven());
        };
        // The opening in two segments, cut at every byte.
        for at in 1..join.len() {
            let mut peer = server.peer();
            peer.send(&join[..at]);
            // The server mostly reads the first segment before the second one comes.
            thread::sleep(Duration::from_millis(1));
            peer.send(&join[at..]);
            finish(peer);
        }
        // The opening in segments of one byte.
        let mut peer = server.peer();
        for byte in join.bytes() {
            peer.send([byte]);
            thread::sleep(Duration::from_micros(200));
        }
        finish(peer);
        server.stop();
    });
}

#[test]
fn message_in_wrong_state_costs_the_seat() {
    within(LIMIT, || {
        let server = Server::new(5000, |settings| settings.clients = Some(2));
        for (said, says) in [
            ("GATECAST/1 JOIN group=2 name=twice\n", "without"),
            ("READY offset=5001\n", "READY at byte 5001 of a file of 5000"),
            ("READY offset=18446744073709551615\n", "READY at byte"),
            ("READY offset=-1\n", "wrong offset"),
            ("READY\n", "without offset"),
            ("READY offset=0\nREADY offset=0\n", "spoke before the release"),
            ("READY offset=0\nHELD\n", "spoke before the release"),
            ("HELD\n", "comes after it"),
            ("LAST bytes=5000\n", "comes after it"),
            ("RECEIPT bytes=0\n", "without sha1"),
            ("FAIL outcome=cut bytes=0 reason=no%20room%0A\n", "no room\n"),
            ("GO bytes=5000\n", "no message of a client"),
            ("\n", "no message of a client"),
        ] {
            let mut peer = server.joined(2, "wrong");
            peer.send(said);
            let answer = peer.read_past_wait();
            let failed_itself = said.starts_with("FAIL");
            assert_eq!(
                answer.starts_with("ERROR code=protocol"),
                !failed_itself,
                "{said}: {answer}"
            );
            assert_eq!(peer.read_to_close(), b"", "{said}");
            common::until("the seat to be free", || server.seats().0 == 0);
            let _ = says;
        }
        // A second READY after the server has read the first.
        let mut peer = server.waiting(2, "again");
        peer.send("READY offset=0\n");
        assert!(peer.read_past_wait().contains("spoke%20before%20the%20release"));
        common::until("the seat to be free", || server.seats().0 == 0);

        let two = server.fetch("two", |order| order.clients = 2);
        whole(two.join().expect("no panic"), &server);
        let record = server.record();
        assert!(record.all_proven());
        let reasons: Vec<_> = record.transfers.iter().filter_map(|t| t.reason.clone()).collect();
        for says in [
            "a field without '='",
            "READY at byte 5001 of a file of 5000",
            "wrong offset",
            "without offset",
            "spoke before the release",
            "comes after it",
            "no room\n",
            "no message of a client",
        ] {
            assert!(reasons.iter().any(|reason| reason.contains(says)), "{says}: {reasons:?}");
        }
        assert_eq!(reasons.len(), 14, "a row each: {reasons:?}");
        server.stop();
    });
}

#[test]
fn false_claim_about_copy_fails_only_that_client() {
    within(LIMIT, || {
        let (bytes, other) = (50_000, Digest::of(b"another"));
        let server = Server::new(bytes, |settings| settings.clients = Some(2));
        let sha1 = server.sha1;
        let (last, hashed) = (FromClient::Last { bytes }, FromClient::Hashed { sha1 });
        let hashed_other = FromClient::Hashed { sha1: other };
        let cases: Vec<(Vec<FromClient>, Outcome, &str)> = vec![
            (
                vec![FromClient::Last { bytes: bytes - 1 }],
                Outcome::Cut,
                "claims 49999 bytes of the 50000",
            ),
            (vec![FromClient::Last { bytes: bytes + 1 }], Outcome::Cut, "claims 50001 bytes"),
            (vec![last.clone(), last.clone()], Outcome::Cut, "out of order"),
            (vec![last.clone(), receipt(bytes, sha1)], Outcome::Cut, "out of order"),
            (vec![receipt(bytes, sha1)], Outcome::Cut, "out of order"),
            (vec![hashed.clone()], Outcome::Cut, "out of order"),
            (vec![last.clone(), hashed.clone(), hashed.clone()], Outcome::Cut, "out of order"),
            (
                vec![last.clone(), hashed.clone(), receipt(bytes - 1, sha1)],
                Outcome::Cut,
                "the receipt claims 49999",
            ),
            (
                vec![last.clone(), hashed.clone(), receipt(bytes, other)],
                Outcome::Cut,
                "its receipt has another SHA-1",
            ),
            (
                vec![last.clone(), hashed_other, receipt(bytes, other)],
                Outcome::Corrupt,
                "the copy's SHA-1 is",
            ),
            (vec![last.clone(), FromClient::Ready { offset: 0 }], Outcome::Cut, "out of order"),
            (vec![fail(Outcome::Complete, "both")], Outcome::Cut, "both"),
            (vec![last.clone(), fail(Outcome::Corrupt, "bad disk")], Outcome::Corrupt, "bad disk"),
            (
                vec![last.clone(), hashed.clone()],
                Outcome::Cut,
                "closed the connection before its receipt",
            ),
            (vec![last], Outcome::Cut, "closed the connection while it hashed"),
            (vec![], Outcome::Cut, "closed the connection before its last byte"),
        ];
        for (messages, outcome, says) in cases {
            let mut liar = server.waiting(2, "liar");
            let honest = server.fetch("honest", |_| {});
            let go = liar.read_past_wait();
            assert_eq!(go, format!("GO bytes={bytes}"));
            let first = liar.read_payload(1024);
            liar.send("HELD\n");
            let rest = liar.read_payload(bytes - 1024);
            assert_eq!(Digest::of(&[first, rest].concat()), sha1);
            messages.iter().for_each(|message| liar.send_message(message));
            drop(liar);
            whole(honest.join().expect("no panic"), &server);
            let record = server.record();
            ended(&record, "liar", outcome, says);
            assert!(row(&record, "honest").is_proven());
            assert_eq!(record.proven(), 1);
        }
        server.stop();
    });
}

#[test]
fn early_claim_of_last_byte_is_refused() {
    within(LIMIT, || {
        let bytes = 100_000;
        let server = Server::new(bytes, |_| {});
        for early in ["HELD\nLAST bytes=100000\n", "LAST bytes=100000\n"] {
            let mut liar = server.waiting(1, "liar");
            liar.read_past_wait();
            liar.read_payload(1);
            liar.send(early);
            liar.read_to_close();
            drop(liar);
            let record = server.record();
            ended(&record, "liar", Outcome::Cut, "said LAST before its last byte was sent");
            assert_eq!(row(&record, "liar").seconds_server, None);
        }
        server.stop();

        // That is allowed for a file that fits into the first block.
        let server = Server::new(1000, |_| {});
        let mut quick = server.waiting(1, "quick");
        quick.read_past_wait();
        let sha1 = Digest::of(&quick.read_payload(1000));
        quick.send("HELD\nLAST bytes=1000\n");
        quick.send_message(&FromClient::Hashed { sha1 });
        quick.send_message(&receipt(1000, sha1));
        assert!(quick.read_line().starts_with("SUMMARY outcome=complete "));
        assert!(server.record().all_proven());
        server.stop();
    });
}

#[test]
fn garbage_instead_of_held_delays_nobody() {
    within(LIMIT, || {
        let server = Server::new(200_000, |settings| settings.clients = Some(2));
        for garbage in ["NONSENSE\n".to_owned(), "x".repeat(4000), "\0\u{1b}\n".to_owned()] {
            let mut rude = server.waiting(2, "rude");
            let honest = server.fetch("honest", |_| {});
            rude.read_past_wait();
            rude.read_payload(1024);
            rude.send(garbage);
            whole(honest.join().expect("no panic"), &server);
            rude.read_to_close();
            drop(rude);
            let record = server.record();
            assert!(row(&record, "honest").is_proven());
            assert_eq!(row(&record, "rude").outcome, Outcome::Cut);
        }
        server.stop();
    });
}

#[test]
fn flood_of_lines_after_payload_fails_the_client() {
    within(LIMIT, || {
        let server = Server::new(2000, |_| {});
        let mut peer = server.waiting(1, "flood");
        peer.read_past_wait();
        peer.read_payload(2000);
        // An ALIVE with more bytes than the file has is no progress. The LAST after them is out of
        // order.
        let flood = "ALIVE bytes=18446744073709551615\nHELD\n".repeat(5000);
        peer.send(flood);
        peer.send("LAST bytes=2000\nHELD\n");
        peer.read_to_close();
        drop(peer);
        ended(&server.record(), "flood", Outcome::Cut, "out of order");
        server.stop();
    });
}

#[test]
fn endless_talker_at_gate_does_not_hold_session() {
    within(LIMIT, || {
        let server = Server::new(3_000_000, |settings| {
            settings.clients = Some(2);
            settings.quorum = Some(1);
            settings.max_wait = Duration::from_millis(500);
        });
        let talker = server.joined(2, "talker");
        let talking = thread::spawn(move || {
            // A thousand lines at a time, so that the server nearly always has one to read.
            let brief = Some(Duration::from_secs(1));
            talker.stream.set_write_timeout(brief).expect("a setting");
            let lines = "ALIVE bytes=1\n".repeat(1000);
            while (&*talker.stream).write_all(lines.as_bytes()).is_ok() {}
        });
        let ours = server.fetch("ours", |_| {});
        whole(ours.join().expect("no panic"), &server);
        let begun = Instant::now();
        let record = server.record();
        assert!(begun.elapsed() < Duration::from_secs(5));
        ended(&record, "talker", Outcome::TimedOut, "before this client was ready");
        talking.join().expect("no panic");
        server.stop();
    });
}

#[test]
fn empty_file_is_proven_without_rate_or_skew() {
    within(LIMIT, || {
        let server = Server::new(0, |_| {});
        let clients = server.fetch("c", |order| order.clients = 5);
        whole(clients.join().expect("no panic"), &server);
        let record = server.record();
        assert!(record.all_proven());
        assert_eq!((record.skew_us(), record.skew_client_us()), (None, None));
        assert_eq!(record.global().rate_mbit, None);
        server.stop();
    });
}

// --- servers that no client should trust ---------------------------------------------------------

/// A server that sends `words` to the first client, whatever the client sends.
fn server_that_sends(words: Vec<u8>) -> (FetchConfig, thread::JoinHandle<()>, tempfile::TempDir) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let folder = tempfile::tempdir().expect("a folder");
    let mut order = FetchConfig::new(vec![listener.local_addr().expect("bound")]);
    order.out = folder.path().join("out");
    order.stall = Duration::from_secs(1);
    order.durable = false;
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut first = [0; 512];
        let _ = stream.read(&mut first);
        if stream.write_all(&words).is_ok() {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    (order, thread, folder)
}

const OFFER: &str = "OFFER file=f bytes=10 sha1=a9993e364706816aba3e25717850c26c9cd0d89d \
                     session=0000000000000001 seat=1 clients=1 via=tcp\n";

#[test]
fn lying_server_gives_clear_error_and_leaves_no_file() {
    within(LIMIT, || {
        let ten = "0123456789";
        let cases = [
            (
                "HTTP/1.1 400 Bad Request\r\n".to_owned(),
                "another program answers, 'HTTP/1.1 400 Bad Request'; is the port right?",
            ),
            ("OFFER\u{1b}[2J\n".to_owned(), "another program answers, 'OFFER\\u{1b}[2J'"),
            ("OFFER ".to_owned() + &"x".repeat(10_000), "a line longer than 2048 bytes"),
            (String::new(), "it closed the connection"),
            ("GO bytes=10\n".to_owned(), "no offer"),
            (OFFER.replace("file=f", "file=..%2Ff"), "separator"),
            (OFFER.replace("file=f", "file=%1B"), "control"),
            (
                OFFER.replace("bytes=10", "bytes=9223372036854775808"),
                "with a size of 9223372036854775808",
            ),
            (OFFER.replace("seat=1", "seat=0"), "seat=0"),
            (OFFER.replace("a9993e", "a9993"), "wrong sha1"),
            (OFFER.to_owned(), "it closed the connection"),
            (OFFER.to_owned() + "GO bytes=11\n", "GO with 11 bytes of the 10 that are missing"),
            (OFFER.to_owned() + "GO bytes=9\n", "GO with 9 bytes of the 10"),
            (OFFER.to_owned() + OFFER, "no message for a client at the gate"),
            (OFFER.to_owned() + "ERROR code=muster reason=%1B[2Jno\n", "\\u{1b}[2Jno"),
            (OFFER.to_owned() + "GO bytes=10\n012345678", "ended at byte 9 of 10"),
            (
                OFFER.to_owned() + "GO bytes=10\n" + ten,
                "its SHA-1 is 87acec17cd9dcd20a716cc2cf67417b71c8a7016",
            ),
            (
                OFFER.to_owned()
                    + "GO bytes=10\n0\nGATECAST/1 LASTWORDS session=0000000000000001 reason=x\n",
                "its SHA-1",
            ),
        ];
        for (words, says_so) in cases {
            let shown = words.chars().take(300).collect::<String>();
            let (order, server, folder) = server_that_sends(words.into_bytes());
            let ends = FetchRun::new(&order)
                .run(&order, &[&gatecast::internals::transport::tcp::receive::TCP])
                .expect("begun");
            let why = failed(ends);
            assert!(why.contains(says_so), "{shown}\n{why}");
            assert!(!why.chars().any(char::is_control), "{why:?}");
            server.join().expect("no panic");
            for path in common::entries(&folder.path().join("out")) {
                assert!(common::is_part(&path), "{shown}: {}", path.display());
            }
        }
    });
}

#[test]
fn size_beyond_free_space_is_refused_before_ready() {
    if !cfg!(feature = "sockopt") {
        return; // Free space cannot be asked without it.
    }
    within(LIMIT, || {
        let huge = OFFER.replace("bytes=10", "bytes=9223372036854775807");
        let (order, server, folder) = server_that_sends(huge.into_bytes());
        let why = failed(
            FetchRun::new(&order)
                .run(&order, &[&gatecast::internals::transport::tcp::receive::TCP])
                .expect("begun"),
        );
        assert!(why.contains("9223372036854775807 bytes are to come and"), "{why}");
        assert_eq!(common::entries(&folder.path().join("out")).len(), 0);
        server.join().expect("no panic");
    });
}

#[test]
fn silent_server_is_given_up_after_stall_limit() {
    within(LIMIT, || {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let folder = tempfile::tempdir().expect("a folder");
        let mut order = FetchConfig::new(vec![listener.local_addr().expect("bound")]);
        order.out = folder.path().to_owned();
        order.stall = Duration::from_millis(300);
        let begun = Instant::now();
        let client = thread::spawn(move || {
            FetchRun::new(&order)
                .run(&order, &[&gatecast::internals::transport::tcp::receive::TCP])
                .expect("begun")
        });
        let (mut stream, _) = listener.accept().expect("a client");
        let words = OFFER.to_owned() + "GO bytes=10\n01234";
        stream.write_all(words.as_bytes()).expect("a client");
        let ends = client.join().expect("no panic");
        let transfer = ends[0].transfer.clone().expect("a seat");
        assert_eq!((transfer.outcome, transfer.bytes_client), (Outcome::TimedOut, Some(5)));
        let why = failed(ends);
        assert!(why.starts_with("no progress of the transfer from 127.0.0.1:"), "{why}");
        assert!(why.ends_with("within 0.3 s"), "{why}");
        assert!(begun.elapsed() < Duration::from_secs(5));
    });
}

#[test]
fn endless_file_list_is_cut_off() {
    within(LIMIT, || {
        let line = "FILE file=f bytes=10 sha1=a9993e364706816aba3e25717850c26c9cd0d89d\n";
        for (words, says_so) in [
            (line.repeat(10_001) + "END\n", "no list of files"),
            (line.to_owned(), "it closed the connection"),
            (line.replace("file=f", "file=a%2Fb"), "separator"),
        ] {
            let (order, server, _folder) = server_that_sends(words.into_bytes());
            let error = client::list(&order.server, None).expect_err(says_so).to_string();
            assert!(error.contains(says_so), "{error}");
            server.join().expect("no panic");
        }
        let (order, server, _folder) =
            server_that_sends((line.repeat(10_000) + "END\n").into_bytes());
        assert_eq!(client::list(&order.server, None).expect("the longest list").0.len(), 10_000);
        server.join().expect("no panic");
    });
}

#[test]
fn names_beyond_their_length_are_refused() {
    assert!(ClientName::new(&"n".repeat(64)).is_ok());
    assert!(FileName::new(&"n".repeat(255)).is_ok());
    assert!(FileName::new(&"n".repeat(256)).is_err());
}

fn fail(outcome: Outcome, reason: &str) -> FromClient {
    FromClient::Fail {
        outcome,
        bytes: 0,
        reason: reason.to_owned(),
        last: None,
        counts: Counts::default(),
    }
}

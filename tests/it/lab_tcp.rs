//! Our client at TCP servers of the lab: one in Python, which shares no code with ours, and servers
//! that say what no server should.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener},
    path::Path,
    process::Command,
    thread,
    time::Duration,
};

use crate::common::{
    entries, have, installed,
    program::{GATECAST, Program},
    sha1_of, until, within,
};

const LIMIT: Duration = Duration::from_secs(90);

/// The lab's server, which offers `f.bin` of `folder`; with its address.
fn server(folder: &Path, bytes: usize, clients: &str, flags: &[&str]) -> (Program, String) {
    let data: Vec<u8> = (0..bytes).map(|n| ((n * n) >> 5) as u8).collect();
    fs::write(folder.join("f.bin"), data).expect("room");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/lab_tcp_server.py");
    let mut command = Command::new("python3");
    command.arg("-B").arg(script).args(["f.bin", clients]).args(flags).current_dir(folder);
    let server = Program::start(&mut command);
    until("it to listen", || !server.stdout().is_empty());
    let at = format!("127.0.0.1:{}", server.stdout()[0]);
    (server, at)
}

fn fetch(folder: &Path, at: &str, arguments: &[&str]) -> Program {
    let mut command = Command::new(GATECAST);
    let command = command.args(["fetch", at, "--lab-tcp"]).args(arguments);
    Program::start(command.current_dir(folder))
}

#[test]
fn clients_fetch_from_the_labs_server() {
    if !have("python3", installed("python3")) {
        return;
    }
    within(LIMIT, || {
        for (bytes, flags) in [(3_000_001, &[][..]), (5, &["--dribble"]), (0, &[])] {
            let folder = tempfile::tempdir().expect("room");
            let place = folder.path();
            let (mut server, at) = server(place, bytes, "3", flags);
            let mut clients = fetch(place, &at, &["--clients", "3", "--log-dir", "logs"]);
            assert_eq!(clients.code(), 0, "{}", clients.stderr());
            let table = clients.stdout().join("\n");
            assert!(table.contains("whole and verified  3 of 3"), "{table}");
            assert_eq!(server.code(), 0, "{}", server.stderr());
            let mut said = server.stdout();
            said.remove(0);
            said.sort();
            for (seat, line) in (1..).zip(&said) {
                let words: Vec<&str> = line.split(' ').collect();
                assert_eq!(words[..2], [&seat.to_string()[..], "yes"]);
                assert!(words[2].parse::<f64>().is_ok_and(|took| took < 60.0), "{line}");
                let copy = place.join(format!("received/C{seat}-f.bin"));
                assert_eq!(sha1_of(&copy), sha1_of(&place.join("f.bin")));
            }
            assert_eq!((said.len(), entries(&place.join("logs")).len()), (3, 1));
        }
    });
}

#[test]
fn copy_of_another_digest_is_not_recibido() {
    if !have("python3", installed("python3")) {
        return;
    }
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let (mut server, at) = server(folder.path(), 100_000, "1", &["--wrong"]);
        let mut client = fetch(folder.path(), &at, &[]);
        assert_eq!(client.code(), 5, "{}", client.stderr());
        assert!(entries(&folder.path().join("received")).is_empty());
        assert_eq!(server.code(), 0);
        assert_eq!(server.stdout()[1].trim(), "1 no");
    });
}

#[test]
fn impossible_offers_of_a_lab_server_are_refused() {
    within(LIMIT, || {
        let sha1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
        let offers = [
            (format!("0\nf\n0\n{sha1}\n"), "no number of a client: '0'"),
            (format!("65536\nf\n0\n{sha1}\n"), "no number of a client: '65536'"),
            (format!("1\n../f\n0\n{sha1}\n"), "no file's name: '../f'"),
            (format!("1\nf\n-1\n{sha1}\n"), "no size: '-1'"),
            (format!("1\nf\n9223372036854775808\n{sha1}\n"), "no size: '9223372036854775808'"),
            (format!("1\nf\n4611686018427387904\n{sha1}\n"), "free"),
            ("1\nf\n5\nno digest\n".to_owned(), "no SHA-1: 'no digest'"),
            (format!("1\nf\n5\n{sha1}\nabc"), "ended at byte 3 of 5"),
            ("1\nf\n".to_owned(), "it closed the connection"),
            ("x".repeat(100_000), "line"),
        ];
        let folder = tempfile::tempdir().expect("room");
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let at = listener.local_addr().expect("bound").to_string();
        for (offer, says) in offers {
            let mut client = fetch(folder.path(), &at, &[]);
            let (mut stream, _) = listener.accept().expect("it comes");
            let mut word = [0; 9];
            stream.read_exact(&mut word).expect("its word");
            assert_eq!(&word, b"Preparado");
            let answering = thread::spawn(move || {
                // It may leave before it has read all.
                let _ = stream.write_all(offer.as_bytes());
                let _ = stream.shutdown(Shutdown::Write);
                let mut said = Vec::new();
                let _ = stream.read_to_end(&mut said);
                said
            });
            assert_ne!(client.code(), 0, "{}", client.stderr());
            assert!(client.stderr().contains(says), "{says}: {}", client.stderr());
            assert_eq!(answering.join().expect("no panic"), b"", "never Recibido");
            let left = entries(&folder.path().join("received"));
            assert!(left.is_empty(), "nothing can go on from {left:?}");
        }
    });
}

#[test]
fn our_lab_client_takes_a_seat_at_our_gate() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("room");
        let place = folder.path();
        fs::write(place.join("f.bin"), [7; 500_000]).expect("room");
        let (mut server, at) = Program::serve(place, &["f.bin", "--clients", "2", "--one-off"]);
        let mut clients = fetch(place, &at, &["--clients", "2"]);
        assert_eq!(clients.code(), 0, "{}", clients.stderr());
        assert_eq!(server.code(), 0, "{}", server.stderr());
        let table = server.stdout().join("\n");
        assert!(table.contains("whole and verified  2 of 2"), "{table}");
    });
}

//! Names that a server or a torrent chose, files that are there already, and two clients in one
//! folder.

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::Output,
    thread,
    time::Duration,
};

use gatecast::internals::digest::Digest;

use crate::common::{
    entries,
    http::{get, request_head},
    program,
    program::{Program, folder_with_file, records, text, whole},
    within,
};

const LIMIT: Duration = Duration::from_secs(60);

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or_else(|| panic!("{output:?}"))
}

/// Asserts that a client was refused with exit code 1 and these words, and has written nothing.
#[track_caller]
fn refused(output: &Output, says: &str) {
    assert_eq!(code(output), 1, "{output:?}");
    let said = text(&output.stderr);
    assert!(said.contains(says), "'{says}' is not in '{said}'");
}

/// Puts `bytes` where the copy will be.
fn put(folder: &Path, name: &str, bytes: &[u8]) {
    fs::create_dir_all(folder).expect("room");
    fs::write(folder.join(name), bytes).expect("room");
}

const THERE: &str = "a file of that name is there, and only --overwrite replaces it";

#[test]
fn file_in_users_folder_is_replaced_only_when_told() {
    within(LIMIT, || {
        let (folder, sha1) = folder_with_file(100_000);
        let path = folder.path();
        let (_server, addr) = Program::serve(path, &["f.bin"]);
        let mine = path.join("mine");
        let there = |bytes: &[u8]| {
            put(&mine, "f.bin", bytes);
        };
        for way in [&["--via", "tcp"], &["--via", "http"]] {
            there(b"precious");
            let fetch = |more: &[&str]| {
                program::run(
                    path,
                    &[&["fetch", &addr, "--out", "mine"][..], &way[..], more].concat(),
                )
            };
            refused(&fetch(&[]), THERE);
            refused(&fetch(&["--resume"]), THERE);
            assert_eq!(fs::read(mine.join("f.bin")).expect("there"), b"precious");
            assert_eq!(entries(&mine), [mine.join("f.bin")], "and no part was made");
            assert_eq!(code(&fetch(&["--overwrite"])), 0);
            whole(path, "mine", sha1);
            // The same file is in nobody's way.
            assert_eq!(code(&fetch(&[])), 0);
            // Where the user names the file, it is the user's choice.
            there(b"old");
            let named = [&["fetch", &addr, "f.bin", "--out", "mine"][..], &way[..]].concat();
            assert_eq!(code(&program::run(path, &named)), 0);
            whole(path, "mine", sha1);
            // So it is in the folder that is ours.
            put(&path.join("received"), "f.bin", b"old");
            assert_eq!(code(&program::run(path, &[&["fetch", &addr][..], &way[..]].concat())), 0);
            whole(path, "received", sha1);
        }
        // Refused before the release: nobody got a seat's bytes for nothing.
        let refusals = records(path).iter().flat_map(|r| r.transfers.clone()).collect::<Vec<_>>();
        assert!(refusals.iter().all(|row| row.is_proven() || row.bytes_server.is_none()));
    });
}

#[test]
fn dotfile_is_taken_only_when_it_is_asked_for() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        fs::write(path.join(".profile"), b"rm -rf").expect("room");
        let (_server, addr) = Program::serve(path, &[".profile"]);
        let says = "begins with a dot";
        for more in [&[][..], &["--overwrite"], &["--via", "http"], &["--clients", "2"]] {
            for out in [&[][..], &["--out", "mine"]] {
                let words = [&["fetch", &addr][..], out, more].concat();
                refused(&program::run(path, &words), says);
            }
        }
        assert!(entries(&path.join("mine")).is_empty());
        assert!(entries(&path.join("received")).is_empty());
        let named = program::run(path, &["fetch", &addr, ".profile"]);
        assert_eq!(code(&named), 0, "{named:?}");
        let url = program::run(path, &["fetch", &format!("http://{addr}/files/.profile")]);
        assert_eq!(code(&url), 0, "the user's URL names it: {url:?}");
        let own = program::run(path, &["run", ".profile", "--clients", "1", "--keep", "kept"]);
        assert_eq!(code(&own), 0, "{own:?}");
        // A torrent names its file by itself.
        let announce = format!("http://{addr}/announce");
        let made = program::run(path, &["torrent", ".profile", "--announce", &announce]);
        assert_eq!(code(&made), 0, "{made:?}");
        refused(&program::run(path, &["fetch", ".profile.torrent", "--out", "mine"]), says);
        assert!(entries(&path.join("mine")).is_empty());
    });
}

/// A copy with the name of a part would be taken for what is left of another file.
#[test]
fn file_named_like_a_part_is_not_taken() {
    within(LIMIT, || {
        let (folder, sha1) = folder_with_file(100_000);
        let path = folder.path();
        let parts = ["1.part", "1.pieces.part"].map(|end| format!(".{}-{end}", sha1.short()));
        for part in &parts {
            fs::write(path.join(part), b"another file").expect("room");
            let (_server, addr) = Program::serve(path, &[part]);
            refused(&program::run(path, &["fetch", &addr, "--out", "o"]), "begins with a dot");
            assert!(entries(&path.join("o")).is_empty());
        }
        let (_server, addr) = Program::serve(path, &["f.bin"]);
        let fetched = program::run(path, &["fetch", &addr, "--out", "o", "--resume"]);
        assert_eq!(code(&fetched), 0, "{fetched:?}");
        whole(path, "o", sha1);
    });
}

#[test]
fn torrent_replaces_a_users_file_only_when_told() {
    within(LIMIT, || {
        let (folder, sha1) = folder_with_file(100_000);
        let path = folder.path();
        let (_server, addr) = Program::serve(path, &["f.bin"]);
        let announce = format!("http://{addr}/announce");
        assert_eq!(code(&program::run(path, &["torrent", "f.bin", "--announce", &announce])), 0);
        // From now on the server knows it.
        get(addr.parse().expect("an address"), "/f.bin.torrent");
        put(&path.join("mine"), "f.bin", b"precious");
        let words = ["fetch", "f.bin.torrent", "--out", "mine"];
        refused(&program::run(path, &words), THERE);
        assert_eq!(fs::read(path.join("mine/f.bin")).expect("there"), b"precious");
        let told = program::run(path, &[&words[..], &["--overwrite"]].concat());
        assert_eq!(code(&told), 0, "{told:?}");
        whole(path, "mine", sha1);
        put(&path.join("received"), "f.bin", b"old");
        let ours = program::run(path, &["fetch", "f.bin.torrent"]);
        assert_eq!(code(&ours), 0, "{ours:?}");
        whole(path, "received", sha1);
    });
}

/// An HTTP server that gives no digest, and says that its file holds `bytes`.
fn plain_http(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("bound");
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a client");
            let head = request_head(&mut stream);
            let length = bytes.len();
            let mut answer =
                format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n")
                    .into_bytes();
            if head.starts_with("GET") {
                answer.extend(bytes);
            }
            let _ = stream.write_all(&answer);
        }
    });
    addr
}

#[test]
fn unproven_copy_replaces_nothing_unless_told() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let url = format!("http://{}/f.bin", plain_http(b"new"));
        for out in [&["fetch", &url][..], &["fetch", &url, "--out", "mine"]] {
            let place = path.join(out.get(3).copied().unwrap_or("received"));
            let copy = || fs::read(place.join("f.bin.unproven")).expect("there");
            put(&place, "f.bin.unproven", b"the only one");
            refused(&program::run(path, out), THERE);
            assert_eq!(copy(), b"the only one");
            let told = program::run(path, &[out, &["--overwrite"]].concat());
            assert_eq!((code(&told), copy()), (4, b"new".to_vec()), "{told:?}");
            assert_eq!(entries(&place).len(), 1);
        }
    });
}

#[test]
fn two_processes_fetch_into_one_folder() {
    within(LIMIT, || {
        let (folder, sha1) = folder_with_file(300_001);
        let path = folder.path();
        // The second does not find the first one's copy in its way.
        for out in [&[][..], &["--out", "mine"]] {
            let (mut server, addr) =
                Program::serve(path, &["f.bin", "--clients", "4", "--one-off"]);
            let start = |more: &[&str]| {
                let words = [&["fetch", &addr][..], out, more].concat();
                Program::start(&mut program::gatecast(path, &words))
            };
            let mut clients = [start(&["--clients", "2"]), start(&[]), start(&[])];
            for client in &mut clients {
                assert_eq!(client.code(), 0, "{}", client.stderr());
            }
            assert_eq!(server.code(), 0, "{}", server.stderr());
            let copies = entries(&path.join(out.get(1).copied().unwrap_or("received")));
            assert_eq!(copies.len(), 3, "{copies:?}");
            assert!(copies.iter().all(|copy| crate::common::sha1_of(copy) == sha1));
        }
    });
}

/// Two contents of one SHA-1: the first 320 bytes of the two documents of the SHAttered attack
/// (Stevens, Bursztein, Karpman, Albertini and Markov, 2017).
fn collision() -> [Vec<u8>; 2] {
    const HEAD: &[u8] =
        b"%PDF-1.3\n%\xe2\xe3\xcf\xd3\n\n\n1 0 obj\n<</Width 2 0 R/Height 3 0 R/Type 4 0 R\
        /Subtype 5 0 R/Filter 6 0 R/ColorSpace 7 0 R/Length 8 0 R/BitsPerComponent 8>>\nstream\n\
        \xff\xd8\xff\xfe\0$SHA-1 is dead!!!!!\x85/\xec\t#9u\x9c9\xb1\xa1\xc6<L\x97\xe1\xff\xfe\x01";
    let blocks = [
        "7346dc9166b67e118f029ab621b2560ff9ca67cca8c7f85ba84c79030c2b3de2\
         18f86db3a90901d5df45c14f26fedfb3dc38e96ac22fe7bd728f0e45bce046d2\
         3c570feb141398bb552ef5a0a82be331fea48037b8b5d71f0e332edf93ac3500\
         eb4ddc0decc1a864790c782c76215660dd309791d06bd0af3f98cda4bc4629b1",
        "7f46dc93a6b67e013b029aaa1db2560b45ca67d688c7f84b8c4c791fe02b3df6\
         14f86db1690901c56b45c1530afedfb76038e972722fe7ad728f0e4904e046c2\
         30570fe9d41398abe12ef5bc942be33542a4802d98b5d70f2a332ec37fac3514\
         e74ddc0f2cc1a874cd0c78305a21566461309789606bd0bf3f98cda8044629a1",
    ];
    blocks.map(|hex| {
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hexadecimal");
        [HEAD, &(0..hex.len()).step_by(2).map(byte).collect::<Vec<_>>()].concat()
    })
}

#[test]
fn files_of_one_sha1_are_sent_each_as_itself() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path();
        let [one, two] = collision();
        assert_ne!(one, two);
        assert_eq!(Digest::of(&one), Digest::of(&two));
        put(&path.join("offered"), "one.pdf", &one);
        put(&path.join("offered"), "two.pdf", &two);
        let (_server, addr) = Program::serve(path, &["offered"]);
        for via in ["tcp", "http", "swarm", "udp"] {
            for (name, bytes) in [("one.pdf", &one), ("two.pdf", &two)] {
                let output = program::run(path, &["fetch", &addr, name, "--via", via]);
                assert_eq!(code(&output), 0, "{output:?}");
                let copy = fs::read(path.join("received").join(name)).expect("there");
                assert!(copy == *bytes, "{name} by {via} is the other file");
            }
        }
        // What security.md says: a part that is the whole other file is taken for this one, and one
        // that is half of it is found out.
        let part = format!(".{}-1.part", Digest::of(&one).short());
        let resume = |left: &[u8]| {
            put(&path.join("mine"), &part, left);
            let words = ["fetch", &addr, "two.pdf", "--out", "mine", "--resume"];
            code(&program::run(path, &words))
        };
        assert_eq!(resume(&one[..256]), 5);
        assert!(entries(&path.join("mine")).is_empty());
        assert_eq!(resume(&one), 0);
        assert!(fs::read(path.join("mine/two.pdf")).expect("there") == one);
    });
}

#[cfg(target_os = "linux")]
#[test]
fn names_of_a_new_folder_are_synced_or_not_called_durable() {
    use crate::common::{have, installed};

    if !have("strace", installed("strace")) {
        return;
    }
    within(LIMIT, || {
        let (folder, sha1) = folder_with_file(1_000);
        let path = folder.path().canonicalize().expect("there");
        let path = path.as_path();
        let (_server, addr) = Program::serve(path, &["f.bin"]);
        let fetch = |out: &str, fault: &[&str]| {
            let told = path.join("told");
            let strace = ["-f", "-qq", "-y", "-e", "trace=fsync", "-o"];
            let output = std::process::Command::new("strace")
                .args(strace)
                .arg(&told)
                .args(fault)
                .args([program::GATECAST, "fetch", &addr, "--out", out, "--json"])
                .current_dir(path)
                .output()
                .expect("strace");
            assert_eq!(code(&output), 0, "{output:?}");
            let document: serde_json::Value =
                serde_json::from_slice(&output.stdout).expect("a document");
            let seconds = document["results"][0]["seconds_durable"].clone();
            (fs::read_to_string(told).expect("a trace"), seconds)
        };
        let (trace, seconds) = fetch("a/b", &[]);
        let synced = |folder: &Path| trace.contains(&format!("<{}>)", folder.display()));
        for folder in [path, &path.join("a"), &path.join("a/b")] {
            assert!(synced(folder), "{} is not synced: {trace}", folder.display());
        }
        assert!(seconds.is_f64(), "{seconds}");
        // The second call is that of the folder; the copy is whole and there all the same.
        let (trace, seconds) = fetch("a", &["-e", "inject=fsync:error=EINVAL:when=2"]);
        assert!(trace.contains("INJECTED"), "{trace}");
        assert!(seconds.is_null(), "{seconds}");
        assert_eq!(crate::common::sha1_of(&path.join("a/f.bin")), sha1);
    });
}

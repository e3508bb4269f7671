//! A folder as one thing, over real sockets and in real processes.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{
        ffi::OsStrExt,
        fs::{MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    thread,
    time::{Duration, UNIX_EPOCH},
};

use gatecast::{Fetch, FetchReport, Server, Via, internals::digest::Digest};
use tempfile::TempDir;

use crate::common::{
    Peer,
    program::{Program, output_text, run, text},
    until, within,
};

const LIMIT: Duration = Duration::from_secs(120);

/// What stands under a path: mode, modification time, bytes; a folder has none.
type Entry = (u32, i64, Option<Vec<u8>>);

/// All that is in a folder.
fn content(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let (mut found, mut left) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("readable").path();
            let metadata = fs::symlink_metadata(&path).expect("there");
            let bytes = metadata.is_file().then(|| fs::read(&path).expect("readable"));
            let modified = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
            let relative = path.strip_prefix(root).expect("below").to_owned();
            found.insert(relative, (metadata.mode() & 0o777, modified, bytes));
            left.extend(metadata.is_dir().then_some(path));
        }
    }
    found
}

/// A folder `site` of names in several languages, empty files and folders, and `files` more files.
fn sample(files: usize) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let root = folder.path().join("site");
    for inside in ["empty", "\u{65e5}\u{672c}\u{8a9e}/\u{43c}\u{438}\u{440}", "a/b/c"] {
        fs::create_dir_all(root.join(inside)).expect("room");
    }
    for (path, len) in [
        (".hidden", 5),
        ("a/b/c/deep", 70_000),
        ("a/nothing", 0),
        ("nin\u{303}o.txt", 3000),
        ("\u{65e5}\u{672c}\u{8a9e}/\u{43c}\u{438}\u{440}/\u{639}\u{631}\u{628}\u{64a} x", 1),
        ("z", 200_000),
    ] {
        fs::write(root.join(path), bytes(path, len)).expect("room");
    }
    for n in 0..files {
        let path = format!("a/{n:05}");
        fs::write(root.join(&path), bytes(&path, 1000 + n % 7000)).expect("room");
    }
    let set = |path: &str, mode| {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).expect("ours");
    };
    set("z", 0o4755);
    set("a/nothing", 0o400);
    let old = fs::File::open(root.join("z")).expect("there");
    old.set_modified(UNIX_EPOCH + Duration::from_nanos(1_234_567_891)).expect("ours");
    (folder, root)
}

fn bytes(seed: &str, len: usize) -> Vec<u8> {
    let sha1 = Digest::of(seed.as_bytes());
    sha1.as_bytes().iter().copied().cycle().take(len).collect()
}

fn serve(root: &Path, clients: u16, via: Via) -> Server {
    let server = Server::builder().tree(root).clients(clients).via(via);
    server.bind("127.0.0.1:0").expect("a free port")
}

fn fetch(at: SocketAddr, out: &Path, set: impl FnOnce(Fetch) -> Fetch) -> FetchReport {
    set(Fetch::from(at).out(out)).run().expect("begun")
}

/// Asserts that the copy at `path` is `root`, but for modes that lend rights.
fn same(root: &Path, path: &Path) {
    assert_eq!(
        content(path).into_iter().collect::<Vec<_>>(),
        content(root).into_iter().collect::<Vec<_>>()
    );
}

/// What a fetch into `out` has left that is not a part.
fn published(out: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(out).expect("a folder").map(|entry| entry.expect("there").path());
    entries.filter(|path| path.file_name().is_none_or(|name| name.as_bytes()[0] != b'.')).collect()
}

/// Whether bytes have come into a part.
fn has_begun(out: &Path) -> bool {
    let mut parts = fs::read_dir(out).into_iter().flatten().filter_map(Result::ok);
    parts.any(|part| fs::metadata(part.path().join("a/00003")).is_ok_and(|file| file.len() > 1000))
}

#[test]
fn folder_comes_whole_by_each_way() {
    within(LIMIT, || {
        let (folder, root) = sample(40);
        for via in [Via::Tcp, Via::Udp, Via::Raw, Via::Multicast, Via::Swarm, Via::Chain] {
            let server = serve(&root, 3, via);
            let out = folder.path().join(via.to_string());
            let report = fetch(server.local_addr(), &out, |fetch| fetch.clients(3));
            assert_eq!(report.exit_code(), 0, "{via}: {report}");
            for seat in 1..=3 {
                same(&root, &out.join(format!("C{seat}-site")));
            }
            assert_eq!(fs::read_dir(&out).expect("there").count(), 3, "{via}: no part is left");
            let session = server.sessions().next().expect("it has ended");
            assert_eq!(
                (session.proven(), session.broken_identities()),
                (3, Vec::new()),
                "{session}"
            );
            server.shutdown().expect("a log");
        }
    });
}

#[test]
fn folder_comes_sealed_to_clients_with_the_key() {
    within(LIMIT, || {
        let (folder, root) = sample(40);
        let key = folder.path().join("key");
        fs::write(&key, "0a0b0c0d0e0f10111213141516171819\n").expect("room");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("ours");
        for via in [Via::Tcp, Via::Multicast, Via::Swarm, Via::Chain] {
            let server = Server::builder().tree(&root).clients(2).via(via).key(&key);
            let server = server.bind("127.0.0.1:0").expect("a free port");
            let out = folder.path().join(via.to_string());
            let report = fetch(server.local_addr(), &out, |fetch| fetch.clients(2).key(&key));
            assert_eq!(report.exit_code(), 0, "{via}: {report}");
            assert!(report.to_string().contains("\nkey                 yes\n"), "{via}: {report}");
            for seat in 1..=2 {
                same(&root, &out.join(format!("C{seat}-site")));
            }
            server.shutdown().expect("a log");
        }
    });
}

#[test]
fn folder_of_nothing_but_empty_files_is_a_folder() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, inside) in [("none", ""), ("empty", "a/b")] {
            let root = folder.path().join(name);
            fs::create_dir_all(root.join(inside)).expect("room");
            if !inside.is_empty() {
                fs::write(root.join("a/f"), b"").expect("room");
            }
            for via in [Via::Tcp, Via::Udp, Via::Swarm, Via::Chain] {
                let server = serve(&root, 1, via);
                let out = folder.path().join(format!("{via}-{name}"));
                let report = fetch(server.local_addr(), &out, |fetch| fetch);
                assert_eq!(report.exit_code(), 0, "{via}: {report}");
                same(&root, &out.join(name));
                server.shutdown().expect("a log");
            }
        }
    });
}

#[test]
fn existing_folder_is_refused_before_ready_or_exchanged() {
    within(LIMIT, || {
        let (folder, root) = sample(3);
        let out = folder.path().join("out");
        fs::create_dir_all(out.join("site")).expect("room");
        fs::write(out.join("site/mine"), b"mine").expect("room");
        let server = serve(&root, 1, Via::Tcp);
        let report = fetch(server.local_addr(), &out, |fetch| fetch);
        assert_eq!(report.exit_code(), 1, "{report}");
        let why = report.clients().next().expect("one").result().expect_err("refused").to_string();
        assert!(why.contains("only --overwrite replaces it"), "{why}");
        assert_eq!(content(&out).len(), 2, "nothing was made and nothing removed");
        let report = fetch(server.local_addr(), &out, |fetch| fetch.overwrite(true));
        assert_eq!(report.exit_code(), 0, "{report}");
        same(&root, &out.join("site"));
        assert_eq!(fs::read_dir(&out).expect("there").count(), 1);
        server.shutdown().expect("a log");
    });
}

#[test]
fn resumed_folder_sends_only_what_comes_after_right_files() {
    within(LIMIT, || {
        let (folder, root) = sample(50);
        let out = folder.path().join("out");
        let server = serve(&root, 1, Via::Tcp);
        assert_eq!(fetch(server.local_addr(), &out, |fetch| fetch).exit_code(), 0);
        // Of the final folder one file is another now.
        fs::write(out.join("site/z"), b"another").expect("room");
        fs::write(out.join("site/extra"), b"extra").expect("room");
        let whole = |fetch: Fetch| fetch.resume(true).overwrite(true);
        let report = fetch(server.local_addr(), &out, whole);
        assert_eq!(report.exit_code(), 0, "{report}");
        same(&root, &out.join("site"));
        let sessions = server.shutdown().expect("a log");
        let moved = sessions.last().expect("two").seats().next().expect("one").bytes();
        // Behind it comes one file of one byte, whose name is not ASCII.
        assert_eq!(moved, Some(200_001));
    });
}

#[test]
fn file_that_changes_meanwhile_fails_the_session() {
    within(LIMIT, || {
        let (folder, root) = sample(300);
        let out = folder.path().join("out");
        let server = Server::builder().tree(&root).clients(1).rate(8_000_000);
        let server = server.bind("127.0.0.1:0").expect("a free port");
        let (at, to) = (server.local_addr(), out.clone());
        let fetching = thread::spawn(move || fetch(at, &to, |fetch| fetch));
        until("the first files", || has_begun(&out));
        fs::write(root.join("a/00299"), bytes("other", 1299)).expect("room");
        let report = fetching.join().expect("no panic");
        assert_ne!(report.exit_code(), 0, "{report}");
        let why = report.clients().next().expect("one").result().expect_err("changed").to_string();
        assert!(why.contains("the source changed: 'a/00299': written to"), "{why}");
        assert_eq!(published(&out), Vec::<PathBuf>::new());
        // The next session has the folder as it is now.
        let report = fetch(at, &out, |fetch| fetch.resume(true));
        assert_eq!(report.exit_code(), 0, "{report}");
        same(&root, &out.join("site"));
        server.shutdown().expect("a log");
    });
}

#[test]
fn client_that_takes_no_folders_is_refused() {
    within(LIMIT, || {
        let (_folder, root) = sample(0);
        let server = serve(&root, 1, Via::Tcp);
        let mut peer = Peer::connect(server.local_addr());
        peer.send("GATECAST/1 JOIN group=1 name=old\n");
        let answer = peer.read_line();
        assert!(
            answer.starts_with("ERROR code=refused reason=%27site%27%20is%20a%20folder"),
            "{answer}"
        );
        let mut http = TcpStream::connect(server.local_addr()).expect("it listens");
        http.write_all(b"GET /files/site HTTP/1.0\r\n\r\n").expect("it reads");
        let mut said = String::new();
        std::io::Read::read_to_string(&mut http, &mut said).expect("an answer");
        assert!(said.contains("404") && said.contains("'site' is a folder"), "{said}");
        server.shutdown().expect("a log");
    });
}

/// A server that offers a folder of these lines.
fn hostile(lines: &str, bytes: u64) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let at = listener.local_addr().expect("bound");
    let count = lines.lines().count();
    let offer = format!(
        "OFFER file=site bytes={bytes} sha1={} session=0000000000000007 seat=1 clients=1 via=tcp \
         tree={count}\n{lines}",
        Digest::of(b"x")
    );
    thread::spawn(move || {
        let mut peer = Peer::over(listener.accept().expect("a client").0);
        peer.read_line();
        peer.send(offer);
        while !peer.read_line().is_empty() {}
    });
    at
}

#[test]
fn hostile_manifest_is_refused_and_nothing_is_made() {
    within(LIMIT, || {
        let sha1 = "da39a3ee5e6b4b0d3255bfef95601890afd80709";
        let folder = tempfile::tempdir().expect("a folder");
        for (lines, bytes, what) in [
            (format!("f 644 0 1 {sha1} ../x\n"), 1, "it names a folder"),
            (format!("f 644 0 1 {sha1} /etc/x\n"), 1, "it is empty"),
            (format!("f 644 0 1 {sha1} a\nf 644 0 1 {sha1} a\n"), 2, "behind all others"),
            (format!("f 644 0 1 {sha1} A\nf 644 0 1 {sha1} a\n"), 2, "take for another"),
            (format!("f 644 0 1 {sha1} a\n"), 2, "a folder of 1 bytes, not 2"),
            ("l 777 0 a\n".to_owned(), 0, "a wrong line of a folder"),
        ] {
            let out = folder.path().join("out");
            let report = fetch(hostile(&lines, bytes), &out, |fetch| fetch);
            let why = report.clients().next().expect("one").result().expect_err(what).to_string();
            assert!(why.contains(what), "{why}");
            assert!(!out.exists() || fs::read_dir(&out).expect("there").count() == 0, "{what}");
        }
    });
}

#[test]
fn killed_fetch_leaves_folder_whole_or_not_there() {
    let moments = std::env::var("GATECAST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    within(LIMIT + Duration::from_secs(10) * moments, move || {
        let (folder, root) = sample(400);
        let (mut server, at) = Program::serve(folder.path(), &["--tree", "site", "--clients", "1"]);
        let whole = content(&root);
        let mut moment = 0x9e37_79b9_u64;
        let (mut there, mut absent) = (0, 0);
        for n in 0..moments {
            let out = format!("out-{n}");
            let mut fetch = Program::fetch(folder.path(), &at, &out, &[]);
            moment = moment.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            thread::sleep(Duration::from_millis((moment >> 33) % 150));
            fetch.kill();
            let copy = folder.path().join(&out).join("site");
            if fs::symlink_metadata(&copy).is_ok() {
                assert!(content(&copy) == whole, "{n}: not whole");
                there += 1;
            } else {
                absent += 1;
            }
            // What was left is taken up.
            let more = ["--resume", "--overwrite"];
            let mut again = Program::fetch(folder.path(), &at, &out, &more);
            assert_eq!(again.code(), 0, "{n}: {}", again.stderr());
            assert!(content(&copy) == whole, "{n}: not whole");
            let left = fs::read_dir(folder.path().join(&out)).expect("there");
            let parts = left.map(|entry| entry.expect("there").file_name().into_string());
            let parts =
                parts.map(|name| name.expect("UTF-8")).filter(|name| name.ends_with("part"));
            assert_eq!(parts.collect::<Vec<_>>(), Vec::<String>::new(), "{n}");
            fs::remove_dir_all(folder.path().join(&out)).expect("ours");
        }
        eprintln!("killed: {there} whole, {absent} not there");
        server.kill();
    });
}

#[test]
fn full_disk_leaves_nothing_under_the_final_name() {
    let Some(small) = crate::faults::SmallDisk::mount(3 << 20) else { return };
    within(LIMIT, move || {
        let (_folder, root) = sample(200);
        let server = Server::builder().tree(&root).clients(1).rate(8_000_000);
        let server = server.bind("127.0.0.1:0").expect("a free port");
        let (at, to) = (server.local_addr(), small.path().to_owned());
        let fetching = thread::spawn(move || fetch(at, &to, |fetch| fetch));
        until("the first files", || has_begun(small.path()));
        let _ = fs::write(small.path().join("filler"), vec![0; 4 << 20]);
        let report = fetching.join().expect("no panic");
        let why = report.clients().next().expect("one").result().expect_err("full").to_string();
        assert!(why.contains("No space left on device"), "{why}");
        assert!(!small.path().join("site").exists());
        server.shutdown().expect("a log");
    });
}

#[test]
fn list_shows_a_folder_as_one() {
    within(LIMIT, || {
        let (folder, _) = sample(0);
        let (mut server, at) = Program::serve(folder.path(), &["--tree", "site"]);
        let listed = run(folder.path(), &["list", &at]);
        assert!(text(&listed.stdout).contains(" site/"), "{}", text(&listed.stdout));
        let listed = run(folder.path(), &["list", &at, "--json"]);
        assert!(text(&listed.stdout).contains("\"folder\":true"), "{}", text(&listed.stdout));
        server.kill();
    });
}

/// What takes no folder is told so before it has a seat.
#[test]
fn disk_and_pipe_that_are_sent_a_folder_are_refused() {
    within(LIMIT, || {
        let (folder, _) = sample(3);
        let (server, at) = Program::serve(folder.path(), &["--tree", "site", "--clients", "1"]);
        fs::write(folder.path().join("disk.img"), vec![7; 1 << 20]).expect("room");
        let to: &[&str] = &["--to", "disk.img", "--yes-overwrite", "disk.img"];
        for more in [to, &["--out", "-"]] {
            let output = run(folder.path(), &[&["fetch", &at], more].concat());
            let told = output_text(&output);
            assert_eq!(output.status.code(), Some(1), "{told}");
            assert!(
                told.contains("'site' is a folder, and this client takes files only"),
                "{told}"
            );
            assert!(!text(&output.stdout).contains("site/"), "{told}");
        }
        assert!(fs::read(folder.path().join("disk.img")).expect("there") == vec![7; 1 << 20]);
        assert!(!server.stderr().contains("1 of 1 clients ready"), "{}", server.stderr());
        // A server that offers it all the same.
        let line = format!("f 644 0 1 {} a\n", Digest::of(b"x"));
        let at = hostile(&line, 1).to_string();
        let output = run(folder.path(), &["fetch", &at, "--out", "-"]);
        let told = output_text(&output);
        assert!(told.contains("offered the folder 'site' to a client of files"), "{told}");
        assert!(output.stdout.is_empty() && output.status.code() != Some(0), "{told}");
    });
}

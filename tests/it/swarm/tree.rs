//! A folder as a multi-file torrent: other people's programs get the same files, and so do clients
//! with a seat, whatever file a piece ends in.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv6Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use gatecast::internals::{
    client::{FetchConfig, FetchRun},
    server::{
        builder::{ServerCore, ServerCoreBuilder},
        catalog::Catalog,
        config::ServerConfig,
        sample,
    },
    session::Via,
    transport::swarm,
};
use tempfile::TempDir;

use super::*;

/// Names of several languages, files that end within a piece, at its end and after many, empty
/// ones, and what no torrent has a place for: an empty folder.
const FILES: [(&str, u64); 9] = [
    ("README", 5),
    ("a b/c d.txt", 40_000),
    ("a b/empty", 0),
    ("empty", 0),
    ("one piece", 16_384),
    ("sub/deep/er/x.bin", 300_001),
    ("sub/z", 1),
    ("\u{65e5}\u{672c}\u{8a9e}/\u{444}\u{430}\u{439}\u{43b}.bin", 16_383),
    ("\u{e9}t\u{e9}", 2),
];

/// A folder `tree` with [`FILES`], and a server of it.
struct TreeServer {
    folder: TempDir,
    running: ServerCore,
}

impl TreeServer {
    fn start(set: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), set)
    }

    fn start_at(addr: SocketAddr, set: impl FnOnce(&mut ServerConfig)) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let tree = folder.path().join("tree");
        fs::create_dir_all(tree.join("no files")).expect("room");
        for (path, bytes) in FILES {
            let path = tree.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("room");
            sample::make(&path, bytes).expect("room");
        }
        let mut settings = ServerConfig { via: Some(Via::Swarm), ..ServerConfig::default() };
        set(&mut settings);
        let mut catalog = Catalog::default();
        catalog.offer_tree(&tree).expect("a folder");
        let host = common::swarm::serve(ServerCoreBuilder::new(catalog, settings));
        let running = host.start(addr).expect("a free port");
        Self { folder, running }
    }

    fn tree(&self) -> PathBuf {
        self.folder.path().join("tree")
    }

    /// A new folder.
    fn new_folder(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::create_dir(&path).expect("room");
        path
    }

    /// The torrent of the folder, in a file.
    fn torrent(&self) -> PathBuf {
        let path = self.folder.path().join("tree.torrent");
        fs::write(&path, get(self.running.addr(), "/tree.torrent")).expect("room");
        path
    }
}

/// The files in `root`, by their paths.
fn files_in(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut files, mut left) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(common::entries(&path));
        } else if let Ok(bytes) = fs::read(&path) {
            files.insert(path.strip_prefix(root).expect("in it").to_owned(), bytes);
        }
    }
    files
}

/// A program that is ended when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Lets a program download the folder into `out` and asserts that it is the same.
fn same_folder_by(server: &TreeServer, out: &Path, command: &mut Command) {
    let expected = files_in(&server.tree());
    assert_eq!(expected.len(), FILES.len());
    folder_by(&expected, out, command);
}

/// Waits until a program has the `expected` files of the folder in `out`.
fn folder_by(expected: &BTreeMap<PathBuf, Vec<u8>>, out: &Path, command: &mut Command) {
    let log = fs::File::create(out.with_extension("log")).expect("room");
    let also = log.try_clone().expect("a file");
    command.env("HOME", out.parent().expect("a folder"));
    command.stdin(Stdio::null()).stdout(log).stderr(also);
    let program = Running(command.spawn().expect("it starts"));
    until("the same folder", || files_in(&out.join("tree")) == *expected);
    drop(program);
}

#[test]
fn aria2_gets_the_same_folder() {
    if !common::have("aria2c", common::installed("aria2c")) {
        return;
    }
    within(LIMIT, || {
        let server = TreeServer::start(|settings| settings.clients = Some(25));
        let (torrent, out) = (server.torrent(), server.new_folder("out"));
        let mut aria2 = Command::new("aria2c");
        aria2.args(["-q", "--no-conf", "--enable-dht=false", "--enable-dht6=false"]);
        aria2.args(["--bt-enable-lpd=false", "--enable-peer-exchange=false", "--seed-time=0"]);
        aria2.args(["--file-allocation=none", "--dir"]).arg(&out).arg(torrent);
        same_folder_by(&server, &out, &mut aria2);
    });
}

/// It makes no empty files, and where there is IPv6 it may listen by that alone.
#[test]
fn transmission_gets_all_files_that_are_not_empty() {
    let has_ipv6 = TcpListener::bind("[::1]:0").is_ok();
    let there = has_ipv6 && common::installed("transmission-cli");
    if !common::have("transmission-cli and IPv6", there) {
        return;
    }
    within(LIMIT, || {
        let server = TreeServer::start_at((Ipv6Addr::LOCALHOST, 0).into(), |_| {});
        let (torrent, out) = (server.torrent(), server.new_folder("out"));
        let mut transmission = Command::new("transmission-cli");
        transmission.arg("-g").arg(server.new_folder("settings")).arg("-w").arg(&out);
        transmission.args(["-et", "-M", "-p", &free_port().to_string()]).arg(torrent);
        let mut expected = files_in(&server.tree());
        expected.retain(|_, bytes| !bytes.is_empty());
        folder_by(&expected, &out, &mut transmission);
    });
}

#[test]
fn libtorrent_gets_the_same_folder() {
    let mut import = Command::new("python3");
    import.args(["-c", "import libtorrent"]).stderr(Stdio::null());
    let there = import.status().is_ok_and(|status| status.success());
    if !common::have("python's libtorrent", there) {
        return;
    }
    within(LIMIT, || {
        let server = TreeServer::start(|_| {});
        let (torrent, out) = (server.torrent(), server.new_folder("out"));
        let script =
            concat!(env!("CARGO_MANIFEST_DIR"), "/src/testbed/study/contender/torrent_peer.py");
        let mut libtorrent = Command::new("python3");
        libtorrent.args([script, "peer"]).arg(torrent).arg(&out);
        libtorrent.args(["127.0.0.1", &free_port().to_string()]);
        same_folder_by(&server, &out, &mut libtorrent);
    });
}

/// A port on which nobody listens.
fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("bound").port()
}

#[test]
fn clients_with_seats_share_a_folder() {
    within(LIMIT, || {
        let server = TreeServer::start(|settings| settings.rate = Some(Rate(8_000_000)));
        let mut order = FetchConfig::new(vec![server.running.addr()]);
        order.clients = 3;
        order.out = server.folder.path().join("out");
        order.durable = false;
        let ends = FetchRun::new(&order)
            .run(&order, &[&swarm::receive::SwarmReceiveTransport::default()])
            .expect("an order");
        let expected = files_in(&server.tree());
        for end in &ends {
            let copy = end.path.as_ref().unwrap_or_else(|| panic!("{:?}", end.error));
            assert!(files_in(copy) == expected, "{}", copy.display());
            assert!(copy.join("no files").is_dir(), "by the manifest, not by the torrent");
        }
        let record = server.running.records().recv_timeout(common::PATIENCE).expect("a record");
        assert_eq!(record.proven(), 3);
        assert_eq!(record.broken_identities(), Vec::<String>::new());
        let peers = record.transfers.iter().filter_map(|t| t.counts.bytes_from_peers).sum::<u64>();
        assert!(peers > 0, "they gave to each other");
    });
}

/// A file that is another one now has other pieces; the torrent is made anew when it is asked for.
#[test]
fn torrent_of_changed_folder_is_not_known_any_more() {
    within(LIMIT, || {
        let server = TreeServer::start(|_| {});
        let addr = server.running.addr();
        let hash = |torrent: &[u8]| {
            let at = torrent.windows(7).position(|found| found == b"4:infod").expect("there");
            Digest::of(&torrent[at + 6..torrent.len() - 1])
        };
        let greet = |hash: Digest| {
            let mut peer = TcpStream::connect(addr).expect("a server");
            peer.write_all(&Handshake::new(hash, *b"-XX0001-abcdefghijkl").encode()).expect("room");
            peer.set_read_timeout(Some(common::PATIENCE)).expect("a socket");
            peer.read_exact(&mut [0; 68]).is_ok()
        };
        let first = hash(&get(addr, "/tree.torrent"));
        assert!(greet(first));
        fs::write(server.tree().join("README"), "other").expect("room");
        let touched = std::time::SystemTime::now() + Duration::from_secs(5);
        let file = fs::File::options().write(true).open(server.tree().join("README"));
        file.expect("there").set_modified(touched).expect("set");
        until("the change to be seen", || !greet(first));
        let mut second = first;
        until("the new torrent", || {
            second = hash(&get(addr, "/tree.torrent"));
            second != first
        });
        assert!(greet(second));
    });
}

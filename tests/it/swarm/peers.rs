//! The swarm with programs that other people wrote: aria2, transmission and libtorrent in one
//! session with gatecast on a star, then each of them as the only seeder. tshark must find no
//! malformed message.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use gatecast::internals::{
    testbed::star::{build::Star, host::Host, layout::StarLayout},
    units::Rate,
};

use crate::{
    common,
    common::{have, http::get, installed, program::GATECAST, star::turn_with_stars, within},
};

static GO: AtomicBool = AtomicBool::new(false);

const PEER: &str =
    concat!(env!("CARGO_MANIFEST_DIR"), "/src/testbed/study/contender/torrent_peer.py");
const BYTES: usize = 5_000_000;

/// A program on a host; ended when it is dropped.
struct Running(Child);

impl Running {
    fn start(host: &Host, folder: &Path, words: &[&str]) -> Self {
        let log = fs::File::create(folder.join(format!("{}.log", words[0].replace('/', "_"))));
        let log = log.expect("room");
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .current_dir(folder)
            .env("HOME", folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file"))
            .stderr(log);
        Self(host.spawn(&mut command).expect("it starts"))
    }

    /// Waits for its end. Returns whether it succeeded.
    fn ended(&mut self) -> bool {
        self.0.wait().expect("a child").success()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // SIGTERM first, because tshark writes its file then.
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        }
        let deadline = Instant::now() + Duration::from_secs(3);
        while Instant::now() < deadline && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn folder(at: &Path, name: &str) -> std::path::PathBuf {
    let path = at.join(name);
    fs::create_dir_all(&path).expect("room");
    path
}

fn words<'a>(kind: &str, torrent: &'a str, dir: &'a str, address: &'a str) -> Vec<&'a str> {
    match kind {
        "aria2" => vec![
            "aria2c",
            "-q",
            "--no-conf",
            "--enable-dht=false",
            "--enable-dht6=false",
            "--bt-enable-lpd=false",
            "--enable-peer-exchange=false",
            "--file-allocation=none",
            "--check-integrity=true",
            "--seed-ratio=0.0",
            "--listen-port=6881",
            "-d",
            dir,
            torrent,
        ],
        // -g: the folder of its settings; -v: it verifies the data that is there.
        "transmission" => vec![
            "transmission-cli",
            "-g",
            dir,
            "-w",
            dir,
            "-et",
            "-v",
            "-M",
            "-p",
            "51413",
            torrent,
        ],
        _ => vec!["python3", PEER, "peer", torrent, dir, address, "6881"],
    }
}

/// Waits until `copy` is the file, and says how long that took.
fn whole(what: &str, copy: &Path, bytes: &[u8]) {
    let begun = Instant::now();
    while fs::read(copy).ok().as_deref() != Some(bytes) {
        assert!(begun.elapsed() < Duration::from_secs(90), "{what} has no whole copy");
        std::thread::sleep(Duration::from_millis(50));
    }
    eprintln!("{what}: whole after {:.1} s", begun.elapsed().as_secs_f64());
}

/// Our server on host 0 for sessions of two; its torrent comes into `at`.
fn serve(star: &Star, at: &Path) -> Running {
    let hosts = &star.hosts;
    let listen = format!("{}:7000", hosts[0].address);
    let server = Running::start(
        &hosts[0],
        at,
        &[
            GATECAST,
            "serve",
            "f.bin",
            "--listen",
            &listen,
            "--clients",
            "2",
            "--via",
            "swarm",
            "--max-wait",
            "120s",
            "--log-dir",
            "logs",
        ],
    );
    common::until("the server", || hosts[0].listens(7000).expect("a host"));
    let url = format!("http://{listen}/f.bin.torrent");
    let mut curl = Running::start(&hosts[1], at, &["curl", "-sSfO", &url]);
    assert!(curl.ended(), "the torrent");
    server
}

#[test]
fn five_programs_share_session_and_seed_to_gatecast() {
    let programs = ["aria2c", "transmission-cli", "tshark", "curl", "python3"];
    let libtorrent = Command::new("python3")
        .args(["-c", "import libtorrent"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !have(
        "aria2c, transmission-cli, tshark, curl and python's libtorrent",
        libtorrent && programs.map(installed) == [true; 5],
    ) {
        return;
    }
    let Some(_turn) = turn_with_stars("five programs") else {
        return;
    };
    within(Duration::from_secs(420), || {
        let temp = tempfile::tempdir().expect("room");
        let at = temp.path();
        let bytes: Vec<u8> = (0..BYTES as u64)
            .map(|n| (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8)
            .collect();
        fs::write(at.join("f.bin"), &bytes).expect("room");
        let star = Star::build(&StarLayout::new(6, Rate(50_000_000)), &GO).expect("built");
        let hosts = &star.hosts;
        let capture = at.join("host1.pcapng");
        let capture = capture.to_str().expect("text");
        let tshark = Running::start(
            &hosts[1],
            at,
            &["tshark", "-q", "-B", "64", "-i", "any", "-w", capture],
        );
        common::until("tshark's file", || fs::metadata(capture).is_ok_and(|about| about.len() > 0));
        let server = serve(&star, at);
        let torrent = at.join("f.bin.torrent");
        let torrent = torrent.to_str().expect("text");

        let kinds = ["aria2", "transmission", "libtorrent"];
        let folders = kinds.map(|kind| folder(at, kind));
        let start = |place: usize, at: &Path| {
            let host = &hosts[3 + place];
            let dir = at.to_str().expect("text");
            let address = host.address.to_string();
            Running::start(host, at, &words(kinds[place], torrent, dir, &address))
        };
        let address = format!("{}:7000", hosts[0].address);
        let server_at = address.parse().expect("an address");
        let by_swarm = [
            GATECAST,
            "fetch",
            &address,
            "--group",
            "2",
            "--via",
            "swarm",
            "--seed-time",
            "20s",
            "--out",
            ".",
        ];
        let fetch = |host: usize| {
            let own = folder(at, &format!("ours{host}"));
            Running::start(&hosts[host], &own, &by_swarm)
        };
        let swarms = || {
            let swarms = hosts[1].enter(|| get(server_at, "/swarm")).expect("a host");
            String::from_utf8_lossy(&swarms).into_owned()
        };
        let until_held =
            || common::until("a client at the gate", || swarms().contains("\"released\":false"));
        // They come between our two, so that the session holds them.
        let first = fetch(1);
        until_held();
        let foreign: Vec<Running> = (0..3).map(|place| start(place, &folders[place])).collect();
        common::until("three more", || swarms().matches("\"gatecast\":false").count() >= 3);
        let mut ours = [first, fetch(2)];
        for (kind, folder) in kinds.iter().zip(&folders) {
            whole(kind, &folder.join("f.bin"), &bytes);
        }
        for (host, fetch) in (1..).zip(&mut ours) {
            assert!(fetch.ended(), "ours on host {host}");
            let found = fs::read_dir(at.join(format!("ours{host}"))).expect("there");
            let mut copies = found.map(|entry| entry.expect("an entry").path());
            let copy = copies.find(|path| path.to_string_lossy().ends_with("f.bin"));
            assert_eq!(fs::read(copy.expect("a copy")).expect("readable"), bytes, "host {host}");
        }
        drop((foreign, server));

        // A session waits for its second client, so that the server sends nothing, but its tracker
        // answers. All data comes from the seeding program.
        for (place, kind) in kinds.iter().enumerate() {
            let server = serve(&star, at);
            let waits = folder(at, &format!("waits{place}"));
            let first = Running::start(&hosts[2], &waits, &by_swarm);
            until_held();
            let seeder = start(place, &folders[place]);
            let own = folder(at, &format!("from-{kind}"));
            let mut fetch = Running::start(
                &hosts[1],
                &own,
                &[
                    "timeout",
                    "120",
                    GATECAST,
                    "fetch",
                    torrent,
                    "--stall-limit",
                    "100s",
                    "--out",
                    ".",
                ],
            );
            assert!(
                fetch.ended(),
                "from {kind}: {}",
                fs::read_to_string(own.join("timeout.log")).unwrap_or_default()
            );
            assert_eq!(fs::read(own.join("f.bin")).expect("a copy"), bytes, "from {kind}");
            drop((seeder, first, server));
        }

        drop(tshark);
        let read = |filter: &str| {
            let output = Command::new("tshark")
                .args(["-o", "tcp.try_heuristic_first:TRUE", "-r", capture, "-Y", filter])
                .args(["-T", "fields", "-e", "frame.number", "-e", "ip.src", "-e", "_ws.col.info"])
                .output()
                .expect("tshark");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let messages = read("bittorrent").lines().count();
        assert!(messages > 500, "{messages} messages of BitTorrent were seen");
        let malformed = read("bittorrent && _ws.malformed");
        eprintln!("tshark: {messages} frames of BitTorrent");
        assert_eq!(malformed, "", "malformed");
        star.down().expect("down");
    });
}

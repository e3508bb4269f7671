//! Behind the rules of `docs/install.md` every way works; with one rule less the error says what
//! is closed.
//!
//! Needs root, `ip`, `tc`, `nft` and `ethtool`, and is skipped without them.

use std::{
    net::UdpSocket,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use gatecast::internals::{
    server::sample,
    testbed::star::{build::Star, layout::StarLayout, tool},
    units::Rate,
};
use tempfile::TempDir;

use crate::common::{
    program::{Program, gatecast},
    star::turn_with_stars,
    until,
};

const PAGE: &str = include_str!("../../docs/install.md");

/// An error that waits for minutes is no error to a user.
const PATIENCE: Duration = Duration::from_secs(60);

static GO: AtomicBool = AtomicBool::new(false);

/// A server, two clients, and the documented firewall on each.
struct Room {
    star: Star,
    folder: TempDir,
}

/// The rules that the page shows as `file`, without the line whose comment is `less`.
fn rules(file: &str, less: &str) -> String {
    let begin = format!("<!-- file: {file} -->\n```text\n");
    let (_, rest) = PAGE.split_once(&begin).expect("in the page");
    let (rules, _) = rest.split_once("```").expect("its end");
    let kept = |line: &&str| less.is_empty() || !line.ends_with(&format!("# {less}"));
    let rules: Vec<&str> = rules.lines().filter(kept).collect();
    rules.join("\n").replace("192.0.2.1 ", "10.77.0.1 ").replace("192.0.2.0/24", "10.77.0.0/16")
}

impl Room {
    /// All machines with all rules but `less`.
    fn without(less: &str) -> Self {
        let star = Star::build(&StarLayout::new(3, Rate(100_000_000)), &GO).expect("built");
        let folder = tempfile::tempdir().expect("room");
        sample::make(&folder.path().join("f.bin"), 2_000_000).expect("room");
        let there = PAGE.matches(&format!("# {less}\n")).count();
        assert!(less.is_empty() || there == 1, "{there} rules '{less}' in the page");
        for (number, host) in star.hosts.iter().enumerate() {
            let file = if number == 0 { "server.nft" } else { "client.nft" };
            let path = folder.path().join(format!("{number}.nft"));
            std::fs::write(&path, rules(file, less)).expect("room");
            let mut nft = Command::new(tool::find("nft").expect("looked for before"));
            let status = host.spawn(nft.arg("-f").arg(&path)).expect("starts").wait();
            assert!(status.expect("ours").success(), "{path:?}");
        }
        Self { star, folder }
    }

    /// Starts the program on a machine.
    fn start(&self, host: usize, arguments: &[&str]) -> Program {
        let host = &self.star.hosts[host];
        host.enter(|| Program::start(&mut gatecast(self.folder.path(), arguments))).expect("there")
    }

    /// A server and two clients by `via`; each client's exit code and what it printed, and the
    /// same of the server unless no client reached it.
    fn session(&self, via: &str) -> Vec<(Option<i32>, String)> {
        let serve = ["serve", "f.bin", "--clients", "2", "--one-off", "--max-wait", "30s"];
        let ways = ["--via", via, "--rate", "40mbit"];
        let mut server = self.start(0, &[&serve[..], &ways].concat());
        until("the server to listen", || server.stderr().contains("waiting for"));
        let clients = [1, 2].map(|host| {
            let out = format!("{via}{host}");
            self.start(host, &["fetch", "10.77.0.1", "--out", &out])
        });
        let mut ends: Vec<_> = clients.map(end).into();
        if ends.iter().any(|(code, _)| *code != Some(1)) {
            ends.push(end(server));
        } else {
            server.kill();
        }
        ends
    }

    /// A relay, a viewer, and a source on a third machine: what relay and viewer printed, and the
    /// viewer's exit code.
    fn relayed(&self) -> (String, Option<i32>, String) {
        let relay = self.start(0, &["relay", "--input", "10.77.0.1:65534"]);
        until("the relay", || relay.stderr().contains("stop with Ctrl-C"));
        let over = AtomicBool::new(false);
        let (code, said) = thread::scope(|scope| {
            scope.spawn(|| {
                let source = self.star.hosts[2].enter(|| UdpSocket::bind(("10.77.0.3", 0)));
                let source = source.expect("there").expect("a port");
                let mut packet = [0xff; 188];
                packet[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
                let ends = Instant::now() + PATIENCE;
                while !over.load(Ordering::Relaxed) && Instant::now() < ends {
                    source.send_to(&packet.repeat(7), ("10.77.0.1", 65_534)).expect("sent");
                    thread::sleep(Duration::from_millis(2));
                }
            });
            let watch = self.start(1, &["watch", "10.77.0.1", "--for", "8s"]);
            let ended = end(watch);
            over.store(true, Ordering::Relaxed);
            ended
        });
        (relay.stderr(), code, said)
    }
}

fn end(mut program: Program) -> (Option<i32>, String) {
    let code = program.code_within(PATIENCE);
    (code, program.stdout().join("\n") + "\n" + &program.stderr())
}

#[test]
fn every_way_passes_the_documented_firewall() {
    let Some(_turn) = turn_with_stars("star") else {
        return;
    };
    let room = Room::without("");
    for via in ["tcp", "udp", "raw", "multicast", "swarm", "http"] {
        let ends = room.session(via);
        assert!(ends.iter().all(|(code, _)| *code == Some(0)), "{via}: {ends:#?}");
    }
    let (relay, code, viewer) = room.relayed();
    assert_eq!(code, Some(0), "{viewer}");
    assert!(viewer.contains("received ") && !viewer.contains("received 0"), "{viewer}\n{relay}");
}

#[test]
fn closed_udp_port_of_a_client_is_named() {
    let Some(_turn) = turn_with_stars("star") else {
        return;
    };
    let room = Room::without("udp, raw, watch");
    for via in ["udp", "raw"] {
        for (code, said) in room.session(via) {
            assert_eq!(code, Some(4), "{via}: {said}");
            assert!(said.contains("a firewall may drop UDP"), "{via}: {said}");
        }
    }
    let (_, code, viewer) = room.relayed();
    assert_eq!(code, Some(1), "{viewer}");
    assert!(viewer.contains("none came: a firewall may drop UDP"), "{viewer}");
}

#[test]
fn closed_port_of_the_server_is_named() {
    let Some(_turn) = turn_with_stars("star") else {
        return;
    };
    for (code, said) in Room::without("serve").session("tcp") {
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("10.77.0.1:8080"), "{said}");
    }
    let (_, code, viewer) = Room::without("relay: viewers").relayed();
    assert_eq!(code, Some(1), "{viewer}");
    assert!(viewer.contains("10.77.0.1:7000"), "{viewer}");
    let (relay, _, _) = Room::without("relay: a source on another machine").relayed();
    assert!(relay.contains("nothing has come to udp://10.77.0.1:65534"), "{relay}");
}

//! A viewer whose host vanishes: its link goes down, and no packet comes from there any more.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use crate::{
    common::{
        have, installed,
        program::{GATECAST, Program},
        turn::in_turn,
        until,
    },
    live::{
        LIMIT,
        faults::{pour, source_to},
        relaying,
    },
};

/// A network namespace with a link of its own to this host; gone when it is dropped.
pub(super) struct Elsewhere {
    pub(super) name: String,
    link: String,
}

impl Elsewhere {
    /// Number `net` of this test run, at `198.18.net.2`, where this host is `198.18.net.1`; `None`
    /// where this user may not make one.
    pub(super) fn new(net: u8) -> Option<Self> {
        let id = format!("gcl{}{net:x}", std::process::id());
        let elsewhere = Self { link: format!("{id}v"), name: id };
        let (name, link) = (&elsewhere.name, &elsewhere.link);
        let peer = format!("{link}p");
        let steps = [
            format!("netns add {name}"),
            format!("link add {link} type veth peer name {peer}"),
            format!("link set {peer} netns {name}"),
            format!("addr add 198.18.{net}.1/30 dev {link}"),
            format!("link set {link} up"),
            format!("-n {name} addr add 198.18.{net}.2/30 dev {peer}"),
            format!("-n {name} link set {peer} up"),
            format!("-n {name} link set lo up"),
            format!("-n {name} route add default via 198.18.{net}.1"),
        ];
        steps.iter().all(|step| ip(step)).then_some(elsewhere)
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        ip(&format!("link del {}", self.link));
        ip(&format!("netns del {}", self.name));
    }
}

fn ip(words: &str) -> bool {
    let done = Command::new("ip").args(words.split(' ')).stderr(Stdio::null()).status();
    done.is_ok_and(|status| status.success())
}

#[test]
fn vanished_host_is_soon_sent_nothing() {
    let elsewhere = Elsewhere::new(77);
    let there = elsewhere.is_some() && installed("python3");
    if !have("network namespaces (root) and python3", there) {
        return;
    }
    in_turn("live", LIMIT, move || {
        let elsewhere = elsewhere.expect("made");
        let folder = tempfile::tempdir().expect("room");
        let words = ["relay", "--input", "127.0.0.1:0", "--listen", "198.18.77.1:0"];
        let (relay, input, at) = relaying(Command::new(GATECAST).args(words), folder.path());
        let port = at.port().to_string();
        // A client of the lab's kind, which sends nothing after its command.
        let script = "import socket, sys, time\n\
            c = socket.create_connection(('198.18.77.1', int(sys.argv[1])))\n\
            u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
            u.bind(('198.18.77.2', 0))\n\
            c.sendall(b'CONECTAR %d\\n' % u.getsockname()[1])\n\
            print(c.recv(10).decode().strip(), flush=True)\n\
            while True: u.recv(2048)\n";
        let lab = Program::interactive(
            Command::new("ip")
                .args(["netns", "exec", &elsewhere.name])
                .args(["python3", "-c", script, &port]),
        );
        until("it is connected", || lab.stdout() == ["OK"]);
        let source = source_to(input);
        pour(&source, 500, Duration::from_secs(1), &mut || false);
        assert!(!relay.stderr().contains("after"), "{}", relay.stderr());
        // From now on nothing comes from there, not even an ICMP error.
        assert!(ip(&format!("-n {} link set {}p down", elsewhere.name, elsewhere.link)));
        let took =
            pour(&source, 500, Duration::from_secs(30), &mut || relay.stderr().contains(" after "));
        assert!(took < Duration::from_secs(5), "{took:?}: {}", relay.stderr());
        eprintln!("let go after {took:?}: {}", relay.stderr());
    });
}

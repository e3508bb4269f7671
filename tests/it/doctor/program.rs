//! The program: its screen, its exit codes, and what it says behind firewalls on a star.
//!
//! The star needs root, `ip`, `tc`, `nft` and `ethtool`, and is skipped without them.

use std::{
    net::TcpListener,
    path::Path,
    process::{Command, Output},
    sync::atomic::AtomicBool,
};

use gatecast::internals::{
    testbed::star::{build::Star, host::Host, layout::StarLayout, tool},
    units::Rate,
};

use super::LIMIT;
use crate::common::{
    program::{gatecast, output_text, run, text},
    star::turn_with_stars,
    within,
};

fn nft(host: &Host, words: &str) {
    let program = tool::find("nft").expect("looked for before");
    let said = host.enter(|| Command::new(program).args(words.split(' ')).output());
    let said = said.expect("the host is there").expect("nft starts");
    assert!(said.status.success(), "{words}: {said:?}");
}

/// A firewall on `host` with this one rule for what comes in.
fn firewall(host: &Host, rule: &str) {
    nft(host, "add table inet filter");
    nft(host, "add chain inet filter input { type filter hook input priority 0 ; }");
    nft(host, &format!("add rule inet filter input {rule}"));
}

fn doctor(host: &Host, folder: &Path, arguments: &[&str]) -> Output {
    let mut command = gatecast(folder, &[&["doctor"], arguments].concat());
    host.enter(|| command.output()).expect("the host is there").expect("the program starts")
}

#[track_caller]
fn ends(output: &Output, code: i32, says: &[&str]) {
    let screen = output_text(output);
    assert_eq!(output.status.code(), Some(code), "{screen}");
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    // A text that was wrapped is one text.
    let words = screen.split_whitespace().collect::<Vec<_>>().join(" ");
    for says in says {
        assert!(words.contains(says), "no '{says}' in\n{screen}");
    }
}

#[test]
fn port_that_is_held_makes_the_exit_code_one() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("a folder");
        let held = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = held.local_addr().expect("bound").to_string();
        let output = run(folder.path(), &["doctor", "--listen", &addr]);
        let holder = format!("is in use by process {}", std::process::id());
        ends(
            &output,
            1,
            &[&holder, "end it or choose another", "FAILED: tcp would not work: port"],
        );
        let output = run(folder.path(), &["doctor", "--listen", "127.0.0.1:0"]);
        ends(&output, 0, &["tcp would work (exit 0)"]);
        assert!(text(&output.stdout).lines().count() <= 24, "{}", text(&output.stdout));
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    });
}

#[test]
fn document_says_what_the_screen_says() {
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("a folder");
        let wrong = ["doctor", "--json", "--listen", "127.0.0.1:0", "--out", "/proc/none"];
        let output = run(folder.path(), &wrong);
        assert_eq!(output.status.code(), Some(1), "{}", output_text(&output));
        let document: serde_json::Value =
            serde_json::from_slice(&output.stdout).expect("one document");
        assert_eq!(document["schema"], "gatecast.doctor/1");
        assert_eq!(
            (&document["works"], &document["ways"]["http"]),
            (&false.into(), &"fails".into())
        );
        let checks = document["checks"].as_array().expect("checks");
        let folder = checks.iter().find(|check| check["check"] == "folder").expect("one");
        assert_eq!(folder["state"], "FAULT", "{folder}");
        assert_eq!(folder["mend"], "choose another folder: --out DIR");
    });
}

#[test]
fn host_without_multicast_is_told_so() {
    let Some(_turn) = turn_with_stars("doctor") else {
        return;
    };
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = StarLayout::new(2, Rate(100_000_000));
        let star = Star::build(&layout, &AtomicBool::new(false)).expect("a star");
        let [server, client] = &star.hosts[..] else { panic!("two hosts") };
        let file = folder.path().join("f.bin");
        std::fs::write(&file, "some bytes").expect("room");
        let serving = gatecast::Server::builder().offer(&file);
        let serving = server.enter(|| serving.bind((server.address, 8080)).expect("a port"));
        let serving = serving.expect("the host is there");
        let at = server.address.to_string();
        let works = ["multicast would work (exit 0)"];
        ends(&doctor(client, folder.path(), &["--via", "multicast"]), 0, &works);
        ends(&doctor(client, folder.path(), &[&at, "--via", "multicast"]), 0, &works);
        firewall(client, "ip daddr 224.0.0.0/4 drop");
        let output = doctor(client, folder.path(), &["--via", "multicast"]);
        ends(&output, 1, &["does not hear this machine", "224.0.0.0/4 accept"]);
        let output = doctor(client, folder.path(), &[&at, "--via", "multicast"]);
        ends(&output, 1, &["do not arrive here: a firewall drops them", "multicast (exit 1)"]);
        println!("{}", text(&output.stdout));
        // What it asks to be let in mends it.
        nft(client, "insert rule inet filter input ip daddr 224.0.0.0/4 accept");
        ends(&doctor(client, folder.path(), &[&at, "--via", "multicast"]), 0, &works);
        serving.shutdown().expect("no log");
    });
}

#[test]
fn server_behind_a_firewall_is_told_with_what_to_let_in() {
    let Some(_turn) = turn_with_stars("doctor") else {
        return;
    };
    within(LIMIT, || {
        let folder = tempfile::tempdir().expect("a folder");
        let layout = StarLayout::new(2, Rate(100_000_000));
        let star = Star::build(&layout, &AtomicBool::new(false)).expect("a star");
        let [server, client] = &star.hosts[..] else { panic!("two hosts") };
        let file = folder.path().join("f.bin");
        std::fs::write(&file, "some bytes").expect("room");
        let at = server.address.to_string();
        let output = doctor(client, folder.path(), &[&at]);
        ends(&output, 1, &["nothing listens there", "start `gatecast serve` there"]);
        let serving = gatecast::Server::builder().offer(&file);
        let serving = server.enter(|| serving.bind((server.address, 8080)).expect("a port"));
        let serving = serving.expect("the host is there");
        ends(&doctor(client, folder.path(), &[&at, "--via", "udp"]), 0, &["udp would work"]);
        // The client's own firewall: replies come in, and nothing else.
        firewall(client, "ct state established,related accept");
        nft(client, "add rule inet filter input drop");
        ends(&doctor(client, folder.path(), &[&at]), 0, &["works worse swarm", "tcp would work"]);
        let output = doctor(client, folder.path(), &[&at, "--via", "udp"]);
        let accept = format!("input ip saddr {at} udp dport 1024-65535 accept");
        ends(&output, 1, &["its datagrams do not arrive here; ours arrive there", &accept]);
        nft(client, &format!("insert rule inet filter {accept}"));
        ends(&doctor(client, folder.path(), &[&at, "--via", "udp"]), 0, &["udp would work"]);
        // The server's.
        firewall(server, "tcp dport 8080 drop");
        let output = doctor(client, folder.path(), &[&at]);
        ends(&output, 1, &["does not answer: a firewall drops TCP 8080", "FAILED: tcp", ": host"]);
        println!("{}", text(&output.stdout));
        nft(server, "insert rule inet filter input tcp dport 8080 accept");
        ends(&doctor(client, folder.path(), &[&at]), 0, &["tcp would work"]);
        serving.shutdown().expect("no log");
    });
}

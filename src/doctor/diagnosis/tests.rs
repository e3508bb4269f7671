use std::{net::Ipv4Addr, path::PathBuf};

use super::*;

/// A machine on which everything works.
fn healthy() -> Facts {
    let port = |user, name: &str| PortFact { user, name: name.to_owned(), obstacle: None };
    Facts {
        ports: vec![
            port("serve", "TCP 8080"),
            port("relay", "TCP 7000"),
            port("relay", "UDP 65534"),
        ],
        group: Some(GroupFact { interface: Some(Ipv4Addr::LOCALHOST), heard: Ok(true) }),
        buffer: 8 << 20,
        clients: 25,
        descriptors: Some(164),
        folder: FolderFact {
            path: PathBuf::from("received"),
            free: Some(12_300_000_000),
            rate: Ok(850e6),
        },
        clock: Some(true),
        sha: true,
        sha_used: true,
        star: Some(Ok(())),
        host: None,
    }
}

fn echo() -> EchoReport {
    EchoReport {
        server: "192.0.2.1:8080".parse().expect("an address"),
        via: None,
        udp_in: true,
        udp_out: true,
        tcp_in: true,
        group: Some(("239.255.1.2:5000".parse().expect("a group"), true)),
        clock_off_us: 1000,
    }
}

/// The healthy machine, with what came of asking a server.
fn asked(answer: EchoAnswer) -> Facts {
    let host = Some(("192.0.2.1:8080".to_owned(), answer));
    Facts { ports: Vec::new(), group: None, star: None, host, ..healthy() }
}

fn echoed(set: impl FnOnce(&mut EchoReport)) -> Facts {
    let mut report = echo();
    set(&mut report);
    asked(EchoAnswer::Echo(report))
}

fn unreachable(kind: io::ErrorKind) -> Facts {
    asked(EchoAnswer::Unreachable(Error::io("connect", "192.0.2.1:8080")(kind.into())))
}

/// What fails, what works worse, and the mends.
fn judged(facts: &Facts) -> (String, String, String) {
    let diagnosis = Diagnosis::of(facts);
    let those = |state| {
        let those = diagnosis.purposes.iter().filter(|p| diagnosis.outlook(**p) == state);
        those.map(|p| p.word()).collect::<Vec<_>>().join(" ")
    };
    let mends = diagnosis.checks.iter().filter_map(|check| check.mend.clone());
    (those("fails"), those("works worse"), mends.collect::<Vec<_>>().join(" | "))
}

const ALL: &str = "tcp udp multicast swarm chain http";

#[test]
fn healthy_machine_works_for_everything() {
    for facts in [healthy(), echoed(|_| {})] {
        assert_eq!(judged(&facts), Default::default());
        let screen = Diagnosis::of(&facts).to_screen(Purpose::of(Via::Tcp));
        assert!(screen.ends_with("tcp would work (exit 0)\n"), "{screen}");
    }
}

/// What is spoilt, what fails then, what works worse, and the mend.
type Case = (fn(&mut Facts), &'static str, &'static str, &'static str);

#[test]
fn each_fault_of_a_machine_names_its_mend() {
    let cases: [Case; 13] = [
        (
            |f| {
                let held = "port 8080 is in use by process 7 (x); end it or choose another";
                f.ports[0].obstacle = Some(held.to_owned());
            },
            ALL,
            "",
            "end it or choose another",
        ),
        (|f| f.ports[2].obstacle = Some("a; b".to_owned()), "relay", "", "b"),
        (|f| f.group.as_mut().expect("alone").interface = None, "multicast", "", "--multicast-i"),
        (|f| f.group.as_mut().expect("alone").heard = Ok(false), "multicast", "", "224.0.0.0/4"),
        (|f| f.group.as_mut().expect("alone").heard = Err("no".into()), "multicast", "", "nft"),
        (|f| f.buffer = 425_984, "", "udp multicast relay", "sysctl -w net.core.rmem_max=4194304"),
        (|f| f.descriptors = Some(163), ALL, "", "ulimit -n 164"),
        (|f| f.folder.rate = Err("Permission denied".into()), ALL, "", "--out"),
        (|f| f.folder.free = Some(0), ALL, "", "--out"),
        (|f| f.folder.rate = Ok(1e6), "", ALL, "--out"),
        (|f| f.clock = Some(false), "", "", "timedatectl set-ntp true"),
        (|f| f.sha_used = false, "", "", "feature fast-sha1"),
        (|f| f.star = Some(Err("no root; be root".into())), "star", "", "be root"),
    ];
    for (spoil, fails, worse, mend) in cases {
        let mut facts = healthy();
        spoil(&mut facts);
        let found = judged(&facts);
        assert_eq!((&found.0[..], &found.1[..]), (fails, worse), "{facts:?}");
        assert!(found.2.contains(mend), "{found:?}");
    }
}

#[test]
fn what_nobody_can_tell_is_no_fault() {
    let facts = Facts { clock: None, descriptors: None, sha: false, ..healthy() };
    assert_eq!(judged(&facts), Default::default());
}

#[test]
fn each_fault_towards_a_server_names_its_mend() {
    let refused = Error::refused("it", "it serves only clients that prove its key (--key FILE)");
    for (facts, fails, worse, mend) in [
        (unreachable(io::ErrorKind::TimedOut), ALL, "", "input tcp dport 8080 accept"),
        (unreachable(io::ErrorKind::ConnectionRefused), ALL, "", "start `gatecast serve`"),
        (unreachable(io::ErrorKind::HostUnreachable), ALL, "", "`ping`"),
        (asked(EchoAnswer::Refused(refused)), ALL, "", ""),
        (asked(EchoAnswer::Refused(Error::protocol("it", "no line"))), ALL, "", "at that port"),
        (asked(EchoAnswer::Older), "udp multicast", "swarm chain", "this version"),
        (echoed(|r| r.udp_in = false), "udp", "", "ip saddr 192.0.2.1 udp dport 1024-65535"),
        (echoed(|r| r.tcp_in = false), "", "swarm chain", "tcp dport 1024-65535 accept"),
        (echoed(|r| r.group.as_mut().expect("one").1 = false), "multicast", "", "IGMP"),
        (echoed(|r| r.group = None), "multicast", "", "--multicast-interface"),
        (echoed(|r| r.clock_off_us = 3_000_000), "", "", "timedatectl"),
        (echoed(|r| r.udp_out = false), "", "", ""),
        (
            echoed(|r| (r.via, r.group) = (Some(Via::Tcp), None)),
            "udp multicast swarm chain",
            "",
            "another --via than tcp",
        ),
    ] {
        let found = judged(&facts);
        assert_eq!((&found.0[..], &found.1[..]), (fails, worse), "{facts:?}");
        assert!(found.2.contains(mend), "{found:?}");
    }
}

#[test]
fn screen_fits_eighty_columns_and_twenty_four_lines() {
    let mut worst = healthy();
    let held =
        "port 8080 is in use by process 16793 (gatecast); end it or choose another with --listen";
    worst.ports[0].obstacle = Some(held.to_owned());
    worst.ports[1].obstacle = Some(held.replace("8080", "7000"));
    worst.group = Some(GroupFact { interface: None, heard: Ok(false) });
    worst.buffer = 425_984;
    worst.descriptors = Some(64);
    worst.folder.rate = Err("Read-only file system (os error 30)".to_owned());
    worst.clock = Some(false);
    worst.sha_used = false;
    worst.star = Some(Err("the program `nft` is missing; apt install nftables".to_owned()));
    let screen = Diagnosis::of(&worst).to_screen(Purpose::of(Via::Multicast));
    assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    assert!(screen.lines().count() <= 24, "{} lines:\n{screen}", screen.lines().count());
    let last = "FAILED: multicast would not work: port, multicast, open files, folder (exit 1)\n";
    assert!(screen.ends_with(last), "{screen}");
    for facts in
        [unreachable(io::ErrorKind::TimedOut), echoed(|r| r.group.as_mut().expect("one").1 = false)]
    {
        let screen = Diagnosis::of(&facts).to_screen(Purpose::of(Via::Multicast));
        assert!(screen.lines().all(|line| line.chars().count() <= 80), "{screen}");
    }
}

#[test]
fn text_from_outside_is_escaped_on_the_screen() {
    let error = Error::refused("it", "\u{1b}[2J");
    let screen = Diagnosis::of(&asked(EchoAnswer::Refused(error))).to_screen(Purpose::Star);
    assert!(!screen.contains('\u{1b}'), "{screen:?}");
}

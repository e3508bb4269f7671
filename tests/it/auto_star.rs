//! Stars on which the fastest way is known, and whether `--via auto` takes it.
//!
//! Each has a server and three clients with links of 100 Mbit/s. They need root, `ip`, `tc`, `nft` and
//! `ethtool`, and are skipped without them.

use gatecast::internals::{session::Via, transfer::Record};

use crate::{
    common::star::turn_with_stars,
    why::{HEALTHY, Host, Sick, session_of},
};

/// A table of a client's firewall, for what comes to a group.
const TABLE: &str = "nft add table inet m; \
                     nft add chain inet m i { type filter hook input priority 0 \\; }; \
                     nft add rule inet m i ip daddr 224.0.0.0/4 ";

/// A session of clients on whose hosts these rules are, and the reason of its choice. `serve` names no
/// way: it is `auto` where the clients are on other machines.
fn session(rules: [&str; 3]) -> (Record, String) {
    let prepared = rules.map(|rule| match rule {
        "" => String::new(),
        rule => format!("{TABLE}{rule}"),
    });
    let hosts = prepared.each_ref().map(|prepare| Host { prepare, ..Host::default() });
    let (record, said) = session_of(&Sick { via: "", star: &[], size: 10, ..HEALTHY }, &hosts);
    let choice = record.auto.as_ref().unwrap_or_else(|| panic!("nothing was chosen: {said}"));
    let figures = choice.figures;
    // The machine may be busy, so a measurement may end late; its own limit is a second.
    assert!(figures.measured_us.is_some_and(|us| us < 3_000_000), "{figures:?}");
    let up = figures.server_up.expect("measured");
    assert!((30_000_000..300_000_000).contains(&up), "{figures:?}");
    let shown = ["measured: server up ", "predicted: tcp ", "chosen: "];
    assert!(shown.iter().all(|words| said.contains(words)), "{said}");
    let why = choice.why.clone();
    (record, why)
}

#[test]
fn equal_links_are_not_sent_to_by_tcp() {
    let Some(_turn) = turn_with_stars("star") else { return };
    let (record, why) = session([""; 3]);
    assert!(matches!(record.via, Via::Multicast | Via::Swarm), "{record:?}");
    assert_eq!(why, "");
}

#[test]
fn network_that_eats_multicast_makes_it_a_swarm() {
    let Some(_turn) = turn_with_stars("star") else { return };
    let (record, why) = session(["drop"; 3]);
    assert_eq!(record.via, Via::Swarm, "{record:?}");
    assert!(why.contains("no multicast: seat ") && why.contains("heard nothing"), "{why}");
}

#[test]
fn host_that_multicast_does_not_reach_is_named() {
    let Some(_turn) = turn_with_stars("star") else { return };
    let (record, why) = session(["", "drop", ""]);
    assert_eq!(record.via, Via::Swarm, "{record:?}");
    assert!(why.contains("(host-2) heard nothing of the group"), "{why}");
}

#[test]
fn multicast_at_a_crawl_is_not_chosen() {
    let Some(_turn) = turn_with_stars("star") else { return };
    let slow = "limit rate over 400/second burst 20 packets drop";
    let (record, why) = session([slow; 3]);
    assert_eq!(record.via, Via::Swarm, "{record:?}");
    let figures = record.auto.as_ref().expect("chosen").figures;
    // Either its rate was measured, or too little came of it at every rate.
    let is_slow = figures.group_rate.is_some_and(|rate| rate < 30_000_000);
    assert!(is_slow || why.contains("heard less than three quarters"), "{figures:?} {why}");
}

//! Raw UDP over a star that loses: what it says it lost is what the packet filter dropped.
//!
//! Takes root, `ip`, `tc`, `nft` and `ethtool`; without them these tests pass by.
#![cfg(all(target_os = "linux", feature = "cli", feature = "sockopt"))]

mod common;

use std::process::Command;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use common::have;
use common::within;
use gatecast::runtime::catalog::Catalog;
use gatecast::runtime::control::client::Fetch;
use gatecast::runtime::control::client::Order;
use gatecast::runtime::host::Host;
use gatecast::runtime::lobby::Settings;
use gatecast::runtime::sample;
use gatecast::session::Via;
use gatecast::star::build::Star;
use gatecast::star::host;
use gatecast::star::layout::Layout;
use gatecast::star::rootless;
use gatecast::star::tool;
use gatecast::transfer::Outcome;
use gatecast::transfer::Transfer;
use gatecast::udp;
use gatecast::units::Rate;

fn can() -> bool {
    let tools = ["ip", "tc", "nft", "ethtool"].map(|name| tool::find(name).is_some());
    have(
        "root, ip, tc, nft and ethtool",
        rootless::is_root() && tools == [true; 4],
    )
}

fn nft(host: &host::Host, words: &str) -> String {
    let program = tool::find("nft").expect("looked for before");
    let said = host
        .enter(|| Command::new(program).args(words.split(' ')).output())
        .expect("the host is there")
        .expect("nft starts");
    assert!(said.status.success(), "{words}: {said:?}");
    String::from_utf8(said.stdout).expect("text")
}

/// One session over the star; the only row.
fn session(star: &Star, via: Via, bytes: u64) -> Transfer {
    let folder = tempfile::tempdir().expect("room");
    let file = folder.path().join("f.bin");
    sample::make(&file, bytes).expect("room");
    let settings = Settings {
        via: Some(via),
        clients: Some(1),
        one_off: true,
        rate: Some(Rate(40_000_000)),
        ..Settings::default()
    };
    let host = Host::new(Catalog::offer([&file]).expect("there"), settings);
    let address = star.layout().address(0);
    // Threads are born where their makers are, so both ends stay on their hosts.
    let server = star.hosts()[0]
        .enter(|| udp::serve(host).start((address, 0).into()).expect("a port"))
        .expect("the host is there");
    let mut order = Order::new(vec![server.addr()]);
    order.out = folder.path().join("out");
    order.durable = false;
    let ways = [udp::take::UDP, udp::take::RAW, udp::take::MULTICAST];
    let ways = ways.each_ref().map(|way| way as _);
    let ends = star.hosts()[1]
        .enter(|| Fetch::new(&order).run(&order, &ways).expect("begun"))
        .expect("the host is there");
    let record = server.records().recv().expect("a session");
    let error = ends[0].error.as_ref().map(ToString::to_string);
    assert_eq!(
        record.broken_identities(),
        Vec::<String>::new(),
        "{error:?}"
    );
    server.stop().expect("no log");
    record.transfers[0].clone()
}

#[test]
fn what_raw_says_it_lost_is_what_the_filter_dropped_at_six_rates() {
    if !can() {
        return;
    }
    within(Duration::from_secs(100), || {
        let layout = Layout::new(2, Rate(100_000_000));
        let star = Star::build(&layout, &AtomicBool::new(false)).expect("a star");
        let client = &star.hosts()[1];
        for millionths in [0, 1_000, 10_000, 50_000, 200_000, 500_000] {
            nft(client, "add table ip gatecast_test");
            nft(
                client,
                "add chain ip gatecast_test i { type filter hook input priority -300 ; }",
            );
            // Data only: the questions after it are not counted by either side.
            nft(
                client,
                &format!(
                    "add rule ip gatecast_test i udp length > 100 \
                     numgen random mod 1000000 < {millionths} counter drop"
                ),
            );
            let transfer = session(&star, Via::Raw, 2_000_000);
            let listed = nft(client, "list table ip gatecast_test");
            nft(client, "delete table ip gatecast_test");
            let (_, count) = listed.split_once("counter packets ").expect("a counter");
            let dropped: u64 = count
                .split(' ')
                .next()
                .and_then(|n| n.parse().ok())
                .expect("one");
            let counts = transfer.counts;
            assert_eq!(counts.offered, Some(2_000_000_u64.div_ceil(1448)));
            // This machine may be busy enough to drop some itself; then it says which.
            assert_eq!(counts.network_lost, Some(dropped), "{counts:?}");
            assert_eq!(counts.local_drop, Some(0));
            let whole = counts.lost == Some(0);
            assert_eq!(transfer.outcome == Outcome::Complete, whole, "{transfer:?}");
        }
        star.down().expect("it goes");
    });
}

#[test]
fn the_reliable_ways_are_whole_at_every_rate() {
    if !can() {
        return;
    }
    within(Duration::from_secs(100), || {
        let layout = Layout::new(2, Rate(100_000_000));
        let star = Star::build(&layout, &AtomicBool::new(false)).expect("a star");
        let client = &star.hosts()[1];
        for millionths in [50_000, 500_000] {
            nft(client, "add table ip gatecast_test");
            nft(
                client,
                "add chain ip gatecast_test i { type filter hook input priority -300 ; }",
            );
            nft(
                client,
                &format!(
                    "add rule ip gatecast_test i meta l4proto udp \
                     numgen random mod 1000000 < {millionths} counter drop"
                ),
            );
            for via in [Via::Udp, Via::Multicast] {
                let transfer = session(&star, via, 1_000_000);
                assert!(transfer.is_proven(), "{via}: {transfer:?}");
                assert!(
                    transfer.counts.network_lost > Some(0),
                    "{via}: {transfer:?}"
                );
            }
            nft(client, "delete table ip gatecast_test");
        }
        star.down().expect("it goes");
    });
}

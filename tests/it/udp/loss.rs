//! UDP over a star with loss: the loss that is reported is what the packet filter dropped.
//!
//! Needs root, `ip`, `tc`, `nft` and `ethtool`, and is skipped without them.

use std::{process::Command, sync::atomic::AtomicBool, time::Duration};

use gatecast::internals::{
    client::FetchConfig,
    server::{builder::ServerCoreBuilder, catalog::Catalog, config::ServerConfig, sample},
    session::Via,
    testbed::star::{
        build::Star,
        host,
        layout::{StarLayout, StarTopology},
        star_id::StarNode,
        tool,
    },
    transfer::{Outcome, Record, Transfer},
    transport::{udp, udp::config::UdpConfig},
    units::Rate,
};

use crate::common::{star::turn_with_stars, udp::fetch, within};

fn nft(host: &host::Host, words: &str) -> String {
    let program = tool::find("nft").expect("looked for before");
    let said = host
        .enter(|| Command::new(program).args(words.split(' ')).output())
        .expect("the host is there")
        .expect("nft starts");
    assert!(said.status.success(), "{words}: {said:?}");
    String::from_utf8(said.stdout).expect("text")
}

/// The only row of a session over the star at 40 Mbit/s.
fn session(star: &Star, via: Via, bytes: u64) -> Transfer {
    let record = session_of(star, via, bytes, 1, Some(Rate(40_000_000)));
    record.transfers[0].clone()
}

/// One session over the star, with the server on host 0 and a client on each of the next hosts.
fn session_of(star: &Star, via: Via, bytes: u64, clients: u16, rate: Option<Rate>) -> Record {
    let folder = tempfile::tempdir().expect("room");
    let file = folder.path().join("f.bin");
    sample::make(&file, bytes).expect("room");
    let settings = ServerConfig {
        via: Some(via),
        clients: Some(clients),
        one_off: true,
        rate,
        ..ServerConfig::default()
    };
    let host = ServerCoreBuilder::new(Catalog::offer([&file]).expect("there"), settings);
    let address = star.layout.address(0);
    // A thread stays in the namespace of the thread that starts it.
    let server = star.hosts[0]
        .enter(|| {
            udp::serve(host, UdpConfig::default()).start((address, 0).into()).expect("a port")
        })
        .expect("the host is there");
    let errors: Vec<Option<String>> = std::thread::scope(|scope| {
        let fetches: Vec<_> = (1..=usize::from(clients))
            .map(|number| {
                let mut order = FetchConfig::new(vec![server.addr()]);
                order.out = folder.path().join(number.to_string());
                order.name = format!("h{number}");
                order.group = Some(clients);
                order.durable = false;
                scope.spawn(move || {
                    let ends =
                        star.hosts[number].enter(|| fetch(&order)).expect("the host is there");
                    ends[0].error.as_ref().map(ToString::to_string)
                })
            })
            .collect();
        let joined = fetches.into_iter().map(|fetch| fetch.join());
        joined.map(|error| error.expect("no panic")).collect()
    });
    let record = server.records().recv().expect("a session");
    let broken = record.broken_identities();
    assert_eq!(broken, Vec::<String>::new(), "{errors:?}");
    server.stop().expect("no log");
    record
}

/// Does `each` on one star after the other; without what a star needs it is skipped.
fn on_stars<T>(stars: impl IntoIterator<Item = (StarLayout, T)>, each: fn(&Star, T))
where
    T: Send + 'static,
{
    let Some(_turn) = turn_with_stars("udp loss") else {
        return;
    };
    let stars: Vec<_> = stars.into_iter().collect();
    within(Duration::from_secs(100), move || {
        for (layout, what) in stars {
            let star = Star::build(&layout, &AtomicBool::new(false)).expect("a star");
            each(&star, what);
            star.down().expect("it goes");
        }
    });
}

/// The same on one of so many hosts with links of 100 Mbit/s.
fn on_star(hosts: usize, run: fn(&Star)) {
    on_stars([(layout_of(hosts), run)], |star, run| run(star));
}

fn layout_of(hosts: usize) -> StarLayout {
    StarLayout::new(hosts, Rate(100_000_000))
}

const ALL_UDP: &str = "meta l4proto udp";

/// Drops a share of the packets that come to a host and that `which` chooses, and counts them.
fn lose(host: &host::Host, which: &str, millionths: u32) {
    nft(host, "add table ip gatecast_test");
    nft(host, "add chain ip gatecast_test i { type filter hook input priority -300 ; }");
    let rule = format!(
        "add rule ip gatecast_test i {which} numgen random mod 1000000 < {millionths} counter drop"
    );
    nft(host, &rule);
}

#[test]
fn raw_reports_exactly_what_the_filter_dropped() {
    on_star(2, |star| {
        let client = &star.hosts[1];
        for millionths in [0, 1_000, 10_000, 50_000, 200_000, 500_000] {
            // Data only: neither side counts the END packets after it.
            lose(client, "udp length > 100", millionths);
            let transfer = session(star, Via::Raw, 2_000_000);
            let listed = nft(client, "list table ip gatecast_test");
            nft(client, "delete table ip gatecast_test");
            let (_, count) = listed.split_once("counter packets ").expect("a counter");
            let dropped: u64 = count.split(' ').next().and_then(|n| n.parse().ok()).expect("one");
            let counts = transfer.counts;
            assert_eq!(counts.offered, Some(2_000_000_u64.div_ceil(1448)));
            // A busy machine may drop some itself. They are counted apart.
            assert_eq!(counts.network_lost, Some(dropped), "{counts:?}");
            assert_eq!(counts.local_drop, Some(0));
            let whole = counts.lost == Some(0);
            assert_eq!(transfer.outcome == Outcome::Complete, whole, "{transfer:?}");
        }
    });
}

#[test]
fn reliable_transports_are_whole_at_every_loss() {
    on_star(2, |star| {
        let client = &star.hosts[1];
        for millionths in [50_000, 500_000] {
            lose(client, ALL_UDP, millionths);
            for via in [Via::Udp, Via::Multicast] {
                let transfer = session(star, via, 1_000_000);
                assert!(transfer.is_proven(), "{via}: {transfer:?}");
                assert!(transfer.counts.network_lost > Some(0), "{via}: {transfer:?}");
            }
            nft(client, "delete table ip gatecast_test");
        }
    });
}

/// `ip` or `tc` on a host.
fn on(host: &host::Host, program: &str, words: &str) {
    let path = tool::find(program).expect("looked for before");
    let said = host
        .enter(|| Command::new(path).args(words.split(' ')).output())
        .expect("the host is there")
        .expect("it starts");
    assert!(said.status.success(), "{program} {words}: {said:?}");
}

#[test]
fn thirteen_multicast_clients_cost_one_stream() {
    on_star(14, |star| {
        let bytes = 5_000_000;
        let before = star.hosts[0].carried().expect("a counter");
        let record = session_of(star, Via::Multicast, bytes, 13, Some(Rate(60_000_000)));
        let carried = star.hosts[0].carried().expect("a counter").since(before);
        assert!(record.all_proven(), "{record:?}");
        println!(
            "{bytes} bytes to 13 clients: the server's interface sent {} and received {}",
            carried.up, carried.down
        );
        // Headers are 66 bytes for 1408 of payload; the rest is the control connections.
        assert!(carried.up > bytes && carried.up < bytes * 110 / 100, "{carried:?}");
    });
}

#[test]
fn drops_of_senders_queue_are_not_network_loss() {
    on_star(2, |star| {
        // A queue of ten datagrams, which is less than one socket may have under way.
        let queue = "qdisc replace dev eth0 root tbf rate 20mbit burst 10kb limit 15kb";
        on(&star.hosts[0], "tc", queue);
        let raw = session(star, Via::Raw, 2_000_000);
        let counts = raw.counts;
        assert!(counts.local_drop > Some(100), "{counts:?}");
        assert_eq!(counts.network_lost, Some(0), "{counts:?}");
        assert_eq!(counts.lost, counts.local_drop);
        assert_eq!(raw.outcome, Outcome::Cut);
        let reliable = session(star, Via::Udp, 1_000_000);
        assert!(reliable.is_proven(), "{reliable:?}");
    });
}

#[test]
fn path_with_mtu_1280_loses_nothing_for_good() {
    let stars = [StarTopology::Switch, StarTopology::Router].map(|topology| {
        let layout = StarLayout { topology, ..layout_of(2) };
        (layout, topology)
    });
    on_stars(stars, |star, topology| {
        let ways: &[Via] = match topology {
            // The sender's own interface: its kernel fragments.
            StarTopology::Switch => {
                on(&star.hosts[0], "ip", "link set dev eth0 mtu 1280");
                &[Via::Udp, Via::Multicast]
            }
            // A router's interface: it sends an ICMP error, once for each destination, and does not
            // forward multicast.
            StarTopology::Router => {
                let name = star.id.namespace(StarNode::Center);
                let said = Command::new(tool::find("ip").expect("looked for before"))
                    .args(["-n", &name, "link", "set", "dev", "p1", "mtu", "1280"])
                    .output()
                    .expect("ip starts");
                assert!(said.status.success(), "{said:?}");
                &[Via::Udp]
            }
        };
        for &via in ways {
            let transfer = session(star, via, 2_000_000);
            assert!(transfer.is_proven(), "{topology:?} {via}: {transfer:?}");
        }
    });
}

#[test]
fn server_without_rate_finds_narrow_link() {
    let cells = [(50_000_000, 0), (10_000_000, 0), (10_000_000, 20_000)];
    let stars = cells.map(|(narrow, loss)| {
        let mut layout = layout_of(2);
        layout.links[1].down = Rate(narrow);
        (layout, (narrow, loss))
    });
    on_stars(stars, |star, (narrow, loss)| {
        if loss > 0 {
            lose(&star.hosts[1], ALL_UDP, loss);
        }
        let bytes = narrow / 8 * 4;
        let record = session_of(star, Via::Udp, bytes, 1, None);
        let transfer = &record.transfers[0];
        assert!(transfer.is_proven(), "{transfer:?}");
        let took = transfer.seconds_server.expect("whole").as_secs_f64();
        println!("{narrow} bit/s: {took:.2} s for what takes 4.2 s, {:?}", transfer.counts);
        // Twice, for a busy machine.
        assert!(took < 8.4, "{narrow}: {took} s");
        let again = transfer.counts.retransmitted.expect("counted");
        // Until the first reports come, the server sends at the rate of its own link.
        let most = 3_500_000 + bytes / 8;
        assert!(again < most, "{narrow}: {again} sent again");
    });
}

#[test]
fn lossy_client_delays_nobody_of_its_group() {
    on_star(7, |star| {
        let bytes = 8_000_000;
        let run = || {
            let record = session_of(star, Via::Multicast, bytes, 6, Some(Rate(50_000_000)));
            assert!(record.all_proven(), "{record:?}");
            let mut slow = None;
            let mut others = Duration::ZERO;
            for transfer in &record.transfers {
                let took = transfer.seconds_server.expect("whole");
                match transfer.name.as_str() {
                    "h1" => slow = Some(took),
                    _ => others = others.max(took),
                }
            }
            (others, slow.expect("it was there"))
        };
        let (control, _) = run();
        lose(&star.hosts[1], ALL_UDP, 350_000);
        let (others, slow) = run();
        assert!(slow > others, "it was repaired after them: {slow:?} {others:?}");
        // Half as much again as without the loss, for a busy machine.
        let most = control * 3 / 2;
        assert!(others < most, "{others:?} beside {control:?} without it");
    });
}

use super::*;

const ID: StarId = StarId { process: 7, start: 9, number: 0 };

fn shown(steps: &[SetupStep]) -> String {
    steps.iter().map(|step| format!("{step}\n")).collect()
}

#[test]
fn smallest_star_has_these_commands() {
    let layout = StarLayout::new(2, Rate(100_000_000));
    insta::assert_snapshot!(shown(&up(&ID, &layout)), @r"
    ip netns add gatecast-7-9-0-switch
    ip netns add gatecast-7-9-0-h0
    ip netns add gatecast-7-9-0-h1
    ip netns exec gatecast-7-9-0-switch sysctl -qw net.ipv6.conf.all.disable_ipv6=1
    ip netns exec gatecast-7-9-0-switch sysctl -qw net.ipv6.conf.default.disable_ipv6=1
    ip netns exec gatecast-7-9-0-switch sysctl -qw net.ipv4.tcp_no_metrics_save=1
    ip netns exec gatecast-7-9-0-h0 sysctl -qw net.ipv6.conf.all.disable_ipv6=1
    ip netns exec gatecast-7-9-0-h0 sysctl -qw net.ipv6.conf.default.disable_ipv6=1
    ip netns exec gatecast-7-9-0-h0 sysctl -qw net.ipv4.tcp_no_metrics_save=1
    ip netns exec gatecast-7-9-0-h1 sysctl -qw net.ipv6.conf.all.disable_ipv6=1
    ip netns exec gatecast-7-9-0-h1 sysctl -qw net.ipv6.conf.default.disable_ipv6=1
    ip netns exec gatecast-7-9-0-h1 sysctl -qw net.ipv4.tcp_no_metrics_save=1
    ip link add p0 netns gatecast-7-9-0-switch type veth peer name eth0 netns gatecast-7-9-0-h0
    ip link add p1 netns gatecast-7-9-0-switch type veth peer name eth0 netns gatecast-7-9-0-h1
    ip -n gatecast-7-9-0-switch link set lo up
    ip -n gatecast-7-9-0-switch link add br0 type bridge stp_state 0 mcast_snooping 0
    ip -n gatecast-7-9-0-switch link set br0 up
    ip -n gatecast-7-9-0-switch link set p0 master br0 up
    ip -n gatecast-7-9-0-switch link set p1 master br0 up
    ip netns exec gatecast-7-9-0-switch sysctl -qw net.bridge.bridge-nf-call-iptables=1
    tc -n gatecast-7-9-0-switch qdisc add dev p0 root tbf rate 100000000bit burst 31250 limit 625000
    tc -n gatecast-7-9-0-switch qdisc add dev p1 root tbf rate 100000000bit burst 31250 limit 625000
    ip netns exec gatecast-7-9-0-switch ethtool -K p0 tso off gso off gro off tx-udp-segmentation off
    ip netns exec gatecast-7-9-0-switch ethtool -K p1 tso off gso off gro off tx-udp-segmentation off
    ip -n gatecast-7-9-0-h0 link set lo up
    ip -n gatecast-7-9-0-h0 addr add 10.77.0.1/16 dev eth0
    ip -n gatecast-7-9-0-h0 link set eth0 up
    ip -n gatecast-7-9-0-h0 route add default dev eth0
    tc -n gatecast-7-9-0-h0 qdisc add dev eth0 root tbf rate 100000000bit burst 31250 limit 625000
    ip netns exec gatecast-7-9-0-h0 ethtool -K eth0 tso off gso off gro off tx-udp-segmentation off
    ip -n gatecast-7-9-0-h1 link set lo up
    ip -n gatecast-7-9-0-h1 addr add 10.77.0.2/16 dev eth0
    ip -n gatecast-7-9-0-h1 link set eth0 up
    ip -n gatecast-7-9-0-h1 route add default dev eth0
    tc -n gatecast-7-9-0-h1 qdisc add dev eth0 root tbf rate 100000000bit burst 31250 limit 625000
    ip netns exec gatecast-7-9-0-h1 ethtool -K eth0 tso off gso off gro off tx-udp-segmentation off
    ");
}

#[test]
fn lossy_router_has_these_commands() {
    let mut layout = StarLayout::new(2, Rate(10_000_000));
    layout.topology = StarTopology::Router;
    layout.links[1].up = Rate(1_000_000);
    layout.offloads = true;
    layout.delay = Duration::from_millis(5);
    insta::assert_snapshot!(shown(&up(&ID, &layout)), @r"
    ip netns add gatecast-7-9-0-switch
    ip netns add gatecast-7-9-0-h0
    ip netns add gatecast-7-9-0-h1
    ip netns exec gatecast-7-9-0-switch sysctl -qw net.ipv6.conf.all.disable_ipv6=1
    ip netns exec gatecast-7-9-0-switch sysctl -qw net.ipv6.conf.default.disable_ipv6=1
    ip netns exec gatecast-7-9-0-switch sysctl -qw net.ipv4.tcp_no_metrics_save=1
    ip netns exec gatecast-7-9-0-switch sysctl -qw net.ipv4.ip_forward=1
    ip netns exec gatecast-7-9-0-h0 sysctl -qw net.ipv6.conf.all.disable_ipv6=1
    ip netns exec gatecast-7-9-0-h0 sysctl -qw net.ipv6.conf.default.disable_ipv6=1
    ip netns exec gatecast-7-9-0-h0 sysctl -qw net.ipv4.tcp_no_metrics_save=1
    ip netns exec gatecast-7-9-0-h1 sysctl -qw net.ipv6.conf.all.disable_ipv6=1
    ip netns exec gatecast-7-9-0-h1 sysctl -qw net.ipv6.conf.default.disable_ipv6=1
    ip netns exec gatecast-7-9-0-h1 sysctl -qw net.ipv4.tcp_no_metrics_save=1
    ip link add p0 netns gatecast-7-9-0-switch type veth peer name eth0 netns gatecast-7-9-0-h0
    ip link add p1 netns gatecast-7-9-0-switch type veth peer name eth0 netns gatecast-7-9-0-h1
    ip -n gatecast-7-9-0-switch link set lo up
    ip -n gatecast-7-9-0-switch addr add 10.77.0.1/24 dev p0
    ip -n gatecast-7-9-0-switch link set p0 up
    ip -n gatecast-7-9-0-switch addr add 10.77.1.1/24 dev p1
    ip -n gatecast-7-9-0-switch link set p1 up
    tc -n gatecast-7-9-0-switch qdisc add dev p0 root tbf rate 10000000bit burst 10000 limit 262144
    tc -n gatecast-7-9-0-switch qdisc add dev p1 root tbf rate 10000000bit burst 10000 limit 262144
    ip -n gatecast-7-9-0-h0 link set lo up
    ip -n gatecast-7-9-0-h0 addr add 10.77.0.2/24 dev eth0
    ip -n gatecast-7-9-0-h0 link set eth0 up
    ip -n gatecast-7-9-0-h0 route add default via 10.77.0.1
    tc -n gatecast-7-9-0-h0 qdisc add dev eth0 root handle 1: netem delay 5000us limit 1012
    tc -n gatecast-7-9-0-h0 qdisc add dev eth0 parent 1:1 handle 10: tbf rate 10000000bit burst 10000 limit 262144
    ip -n gatecast-7-9-0-h1 link set lo up
    ip -n gatecast-7-9-0-h1 addr add 10.77.1.2/24 dev eth0
    ip -n gatecast-7-9-0-h1 link set eth0 up
    ip -n gatecast-7-9-0-h1 route add default via 10.77.1.1
    tc -n gatecast-7-9-0-h1 qdisc add dev eth0 root handle 1: netem delay 5000us limit 1001
    tc -n gatecast-7-9-0-h1 qdisc add dev eth0 parent 1:1 handle 10: tbf rate 1000000bit burst 10000 limit 262144
    ");
}

#[test]
fn loss_has_these_commands() {
    let layout = StarLayout::new(2, Rate(10_000_000));
    let one_percent = Loss { millionths: 10_000, of: Traffic::All };
    insta::assert_snapshot!(shown(&loss(&ID, &layout, one_percent)), @r#"
    ip netns exec gatecast-7-9-0-switch nft 'add table bridge gatecast'
    ip netns exec gatecast-7-9-0-switch nft 'add chain bridge gatecast forward { type filter hook forward priority 0; policy accept; }'
    ip netns exec gatecast-7-9-0-switch nft 'add counter bridge gatecast seen0'
    ip netns exec gatecast-7-9-0-switch nft 'add counter bridge gatecast lost0'
    ip netns exec gatecast-7-9-0-switch nft 'add rule bridge gatecast forward oifname "p0" ether type ip counter name seen0 numgen random mod 1000000 < 10000 counter name lost0 drop'
    ip netns exec gatecast-7-9-0-switch nft 'add counter bridge gatecast seen1'
    ip netns exec gatecast-7-9-0-switch nft 'add counter bridge gatecast lost1'
    ip netns exec gatecast-7-9-0-switch nft 'add rule bridge gatecast forward oifname "p1" ether type ip counter name seen1 numgen random mod 1000000 < 10000 counter name lost1 drop'
    "#);
    insta::assert_snapshot!(shown(&no_loss(&ID, &layout)), @"ip netns exec gatecast-7-9-0-switch nft 'delete table bridge gatecast'");
}

#[test]
fn queue_holds_what_a_blocking_socket_sends() {
    assert_eq!(queue_bytes(Rate(10_000_000)), 262_144);
    assert_eq!(queue_bytes(Rate(100_000_000)), 625_000);
    assert_eq!(shaper(Rate(1_000_000_000)), "tbf rate 1000000000bit burst 312500 limit 6250000");
}

#[test]
fn nothing_is_made_outside_the_stars_own_namespaces() {
    let layout = StarLayout::new(20, Rate(100_000_000));
    let names = namespaces(&ID, &layout);
    for step in up(&ID, &layout) {
        let line = step.to_string();
        match &step.inside {
            Some(namespace) => assert!(names.contains(namespace), "{line}"),
            None => assert!(
                line.starts_with("ip netns add gatecast-7-9-0-")
                    || line.starts_with("ip link add p")
                        && line.contains(" netns gatecast-7-9-0-switch "),
                "{line}"
            ),
        }
    }
    assert_eq!(down(&names).len(), 21);
}

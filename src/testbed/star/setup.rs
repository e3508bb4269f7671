//! The commands that build a star, as data.
//!
//! Everything that is made lives in namespaces of the star's own, the switch's too: links, queues
//! and packet filters go with them, and the namespace in which we stand is never touched.

use std::time::Duration;

use crate::{
    testbed::star::{
        layout::{Loss, StarLayout, StarTopology, Traffic},
        star_id::{StarId, StarNode},
        step::SetupStep,
        tool::Tool,
    },
    units::Rate,
};

/// The switch's own name for the packet filter that loses packets.
const TABLE: &str = "gatecast";

/// How long a full queue takes to drain: what a switch port's buffer of some hundred kilobytes
/// does at 100 Mbit/s.
const QUEUE: Duration = Duration::from_millis(50);

/// Least queue, bytes. A blocking UDP socket with the default buffer has up to 139 kB on the way
/// (92 datagrams of 1514 bytes); with a shorter queue the shaper would throw them away silently.
const QUEUE_MIN: u64 = 256 * 1024;

/// What a shaper may send at once after a pause. Longer than a timer is late on a busy machine,
/// short enough that it adds nothing that shows to a transfer of some seconds.
const BURST: Duration = Duration::from_micros(2500);

/// Least burst, bytes: some frames, for slow links have no timers of their own.
const BURST_MIN: u64 = 10_000;

/// All namespaces of a star, the middle's first.
pub fn namespaces(id: &StarId, layout: &StarLayout) -> Vec<String> {
    let hosts = (0..layout.links.len()).map(StarNode::Host);
    std::iter::once(StarNode::Center).chain(hosts).map(|place| id.namespace(place)).collect()
}

/// The commands that build the star, without its loss. The first ones make its namespaces, one
/// each, in the order of [`namespaces`].
pub fn up(id: &StarId, layout: &StarLayout) -> Vec<SetupStep> {
    let names = namespaces(id, layout);
    let (middle, hosts) = names.split_first().expect("the middle is the first");
    let make = |name| SetupStep::here(Tool::Ip, format!("netns add {name}"));
    let mut steps: Vec<SetupStep> = names.iter().map(make).collect();
    steps.extend(settings(middle, layout.topology == StarTopology::Router));
    steps.extend(hosts.iter().flat_map(|name| settings(name, false)));
    steps.extend(hosts.iter().enumerate().map(|(host, name)| {
        let ends = format!("p{host} netns {middle} type veth peer name eth0 netns {name}");
        SetupStep::here(Tool::Ip, format!("link add {ends}"))
    }));
    steps.extend(the_middle(middle, layout));
    steps.extend(hosts.iter().enumerate().flat_map(|(host, name)| one_host(name, layout, host)));
    steps
}

/// Kernel variables of one namespace, before it has any link.
fn settings(namespace: &str, forward: bool) -> Vec<SetupStep> {
    let set = |name, value| SetupStep::set(namespace, name, value);
    let mut steps = vec![
        set("net.ipv6.conf.all.disable_ipv6", "1"),
        set("net.ipv6.conf.default.disable_ipv6", "1"),
        // Else a connection begins with what the one before learned, and repeats are not repeats.
        set("net.ipv4.tcp_no_metrics_save", "1"),
    ];
    if forward {
        steps.push(set("net.ipv4.ip_forward", "1"));
    }
    steps
}

fn the_middle(namespace: &str, layout: &StarLayout) -> Vec<SetupStep> {
    let ip = |words: String| SetupStep::inside(namespace, Tool::Ip, words);
    let hosts = || 0..layout.links.len();
    let mut steps = vec![ip("link set lo up".to_owned())];
    match layout.topology {
        StarTopology::Switch => {
            // No spanning tree: a port of it says nothing for 30 s. No snooping: without a
            // querier it forgets who listens to a group.
            steps.push(ip("link add br0 type bridge stp_state 0 mcast_snooping 0".to_owned()));
            steps.push(ip("link set br0 up".to_owned()));
            steps.extend(hosts().map(|host| ip(format!("link set p{host} master br0 up"))));
            // Behind these hooks a packet no longer counts as its sender's. Without them a queue of
            // the switch makes the sender's socket wait, and loses nothing.
            steps.push(SetupStep::set(namespace, "net.bridge.bridge-nf-call-iptables", "1"));
        }
        StarTopology::Router => {
            for host in hosts() {
                steps.push(ip(format!("addr add 10.77.{host}.1/24 dev p{host}")));
                steps.push(ip(format!("link set p{host} up")));
            }
        }
    }
    for (host, link) in layout.links.iter().enumerate() {
        let words = format!("qdisc add dev p{host} root {}", shaper(link.down));
        steps.push(SetupStep::inside(namespace, Tool::Tc, words));
    }
    if !layout.offloads {
        steps.extend(hosts().map(|host| offloads_off(namespace, &format!("p{host}"))));
    }
    steps
}

fn one_host(namespace: &str, layout: &StarLayout, host: usize) -> Vec<SetupStep> {
    let ip = |words: String| SetupStep::inside(namespace, Tool::Ip, words);
    let tc = |words: String| SetupStep::inside(namespace, Tool::Tc, words);
    let (address, prefix) = (layout.address(host), layout.prefix());
    let mut steps = vec![
        ip("link set lo up".to_owned()),
        ip(format!("addr add {address}/{prefix} dev eth0")),
        ip("link set eth0 up".to_owned()),
        match layout.topology {
            // Multicast too needs a route.
            StarTopology::Switch => ip("route add default dev eth0".to_owned()),
            StarTopology::Router => ip(format!("route add default via 10.77.{host}.1")),
        },
    ];
    let up = layout.links[host].up;
    if layout.delay.is_zero() {
        steps.push(tc(format!("qdisc add dev eth0 root {}", shaper(up))));
    } else {
        // netem holds packets before the shaper sees them; its queue must hold all that a delay
        // at full rate can be.
        let micros = layout.delay.as_micros();
        let limit = 1000 + up.0 / 8 / 500 * u64::try_from(micros).unwrap_or(0) / 1_000_000;
        steps.push(tc(format!(
            "qdisc add dev eth0 root handle 1: netem delay {micros}us limit {limit}"
        )));
        steps.push(tc(format!("qdisc add dev eth0 parent 1:1 handle 10: {}", shaper(up))));
    }
    if !layout.offloads {
        steps.push(offloads_off(namespace, "eth0"));
    }
    steps
}

fn shaper(rate: Rate) -> String {
    let burst = bytes_in(rate, BURST).max(BURST_MIN);
    let queue = queue_bytes(rate);
    format!("tbf rate {}bit burst {burst} limit {queue}", rate.0)
}

/// The queue of a link, bytes.
pub fn queue_bytes(rate: Rate) -> u64 {
    bytes_in(rate, QUEUE).max(QUEUE_MIN)
}

fn bytes_in(rate: Rate, span: Duration) -> u64 {
    let bytes = u128::from(rate.0) * span.as_nanos() / 8 / 1_000_000_000;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Without them every packet on a link is one that would be on a wire.
fn offloads_off(namespace: &str, device: &str) -> SetupStep {
    let words = format!("-K {device} tso off gso off gro off tx-udp-segmentation off");
    SetupStep::inside(namespace, Tool::Ethtool, words)
}

/// The commands that begin to lose packets. For each host two counters: `seen` of the packets
/// that were on their way to it, `lost` of those of them that were dropped.
pub fn loss(id: &StarId, layout: &StarLayout, loss: Loss) -> Vec<SetupStep> {
    let middle = id.namespace(StarNode::Center);
    let nft = |line: String| SetupStep::inside(&middle, Tool::Nft, line);
    let family = family(layout.topology);
    let of = match loss.of {
        Traffic::All if layout.topology == StarTopology::Switch => "ether type ip ",
        Traffic::All => "",
        // Of a fragmented datagram, `meta l4proto` would see only the first fragment.
        Traffic::Tcp => "ip protocol tcp ",
        Traffic::Udp => "ip protocol udp ",
    };
    let mut steps = vec![
        nft(format!("add table {family} {TABLE}")),
        nft(format!(
            "add chain {family} {TABLE} forward {{ type filter hook forward priority 0; policy accept; }}"
        )),
    ];
    for host in 0..layout.links.len() {
        steps.push(nft(format!("add counter {family} {TABLE} seen{host}")));
        steps.push(nft(format!("add counter {family} {TABLE} lost{host}")));
        steps.push(nft(format!(
            "add rule {family} {TABLE} forward oifname \"p{host}\" {of}counter name seen{host} \
             numgen random mod 1000000 < {} counter name lost{host} drop",
            loss.millionths
        )));
    }
    steps
}

/// The commands that end the loss.
pub fn no_loss(id: &StarId, layout: &StarLayout) -> Vec<SetupStep> {
    let middle = id.namespace(StarNode::Center);
    let family = family(layout.topology);
    vec![SetupStep::inside(&middle, Tool::Nft, format!("delete table {family} {TABLE}"))]
}

/// The words of the `nft` command that lists the counters of [`loss`].
pub fn list_counters(layout: &StarLayout) -> [&'static str; 5] {
    ["list", "counters", "table", family(layout.topology), TABLE]
}

fn family(topology: StarTopology) -> &'static str {
    match topology {
        StarTopology::Switch => "bridge",
        StarTopology::Router => "ip",
    }
}

/// The commands that remove `namespaces`, and with them all that is in them.
pub fn down(namespaces: &[String]) -> Vec<SetupStep> {
    let remove = |name| SetupStep::here(Tool::Ip, format!("netns del {name}"));
    namespaces.iter().map(remove).collect()
}

#[cfg(test)]
mod tests;

//! What the tests of the ways over UDP share.

use std::net::{Ipv4Addr, SocketAddr};

use gatecast::internals::{
    client::{ClientReport, FetchConfig, FetchRun},
    server::config::ServerConfig,
    session::Via,
    transport::{udp, udp::config::UdpConfig},
};

use crate::common::Server;

/// A server of `bytes` bytes that sends by `via` to so many clients.
pub(crate) fn server(
    bytes: u64,
    via: Via,
    clients: u16,
    set: impl FnOnce(&mut ServerConfig),
) -> Server {
    server_with(bytes, via, clients, UdpConfig::default(), set)
}

/// The same, with other settings for its datagrams.
pub(crate) fn server_with(
    bytes: u64,
    via: Via,
    clients: u16,
    datagrams: UdpConfig,
    set: impl FnOnce(&mut ServerConfig),
) -> Server {
    Server::with(
        bytes,
        |settings| {
            settings.via = Some(via);
            settings.clients = Some(clients);
            set(settings);
        },
        |host| udp::serve(host, datagrams),
    )
}

/// The settings of a server whose multicast goes to `group`.
pub(crate) fn to_group(group: SocketAddr) -> UdpConfig {
    UdpConfig { group: Some(group), ..UdpConfig::default() }
}

/// A line of a server, which says in its terms that its datagrams come from `port`.
pub(crate) fn with_port(line: &str, port: u16) -> String {
    match line.split_once(" port=") {
        Some((terms, _)) if line.starts_with("TERMS ") => format!("{terms} port={port}\n"),
        _ => format!("{line}\n"),
    }
}

/// Fetches by whichever way over UDP the server sends.
pub(crate) fn fetch(order: &FetchConfig) -> Vec<ClientReport> {
    let ways = [udp::receive::UDP, udp::receive::RAW, udp::receive::MULTICAST];
    let ways = ways.each_ref().map(|way| way as _);
    let ends = FetchRun::new(order).run(order, &ways);
    ends.expect("an order that can be begun")
}

/// Fetches by multicast, and joins the group on this interface.
pub(crate) fn fetch_on_interface(order: &FetchConfig, interface: Ipv4Addr) -> Vec<ClientReport> {
    let multicast = udp::receive::MULTICAST.on_interface(Some(interface));
    let ends = FetchRun::new(order).run(order, &[&multicast]);
    ends.expect("an order that can be begun")
}

//! How datagrams are made and where they go.

use std::net::{Ipv4Addr, SocketAddr};

/// How datagrams are made and where they go, for every way over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpConfig {
    /// Most bytes of UDP payload in one.
    pub size: u16,
    /// The group for multicast; `None` chooses one for each session.
    pub group: Option<SocketAddr>,
    /// The address of this host by whose interface multicast leaves; `None` is those by which the
    /// clients of a session came.
    pub interface: Option<Ipv4Addr>,
    /// How many routers a datagram to a group may pass, and one more.
    pub ttl: u32,
}

impl Default for UdpConfig {
    fn default() -> Self {
        Self { size: crate::proto::udp::packet::DATAGRAM, group: None, interface: None, ttl: 1 }
    }
}

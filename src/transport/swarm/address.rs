//! Addresses of peers and trackers: one form for each, and which of them are private.

use std::net::{IpAddr, SocketAddr};

/// `addr` in the one form in which addresses are compared and written: IPv4 where it is mapped
/// into IPv6, and without a scope.
pub(super) fn unmapped(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

/// True for addresses that only neighbours can reach, or that no single peer has: of this machine,
/// of private, shared (RFC 6598) and local networks, and of groups.
pub fn is_private(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let shared = first == 100 && second & 0xc0 == 64;
            let here = first == 0 || ip.is_loopback() || ip.is_broadcast() || ip.is_multicast();
            ip.is_private() || ip.is_link_local() || shared || here
        }
        IpAddr::V6(ip) => {
            let here = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast();
            ip.is_unique_local() || ip.is_unicast_link_local() || here
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_recognised() {
        for (ip, private) in [
            ("127.0.0.1", true),
            ("10.1.2.3", true),
            ("192.168.0.1", true),
            ("172.16.0.1", true),
            ("169.254.169.254", true),
            ("::1", true),
            ("fd00::1", true),
            ("::ffff:10.0.0.1", true),
            ("100.64.0.1", true),
            ("100.127.255.255", true),
            ("0.0.0.0", true),
            ("::", true),
            ("224.0.0.1", true),
            ("ff02::1", true),
            ("100.63.255.255", false),
            ("100.128.0.1", false),
            ("8.8.8.8", false),
            ("2001:4860::1", false),
        ] {
            assert_eq!(is_private(ip.parse().expect(ip)), private, "{ip}");
        }
    }
}

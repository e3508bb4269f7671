//! Addresses: of a host by its name, as one family writes them, of this machine.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs, UdpSocket};

use crate::{
    error::{Error, Result},
    proto::line,
    text::escape,
    units::InvalidValue,
};

/// All addresses of `host`, which is `HOST` or `HOST:PORT`.
///
/// # Errors
/// It is neither, or the name is unknown.
pub fn resolve(host: &str, default_port: u16) -> Result<Vec<SocketAddr>> {
    let (name, port) = split_host(host, default_port).map_err(Error::usage)?;
    // Without its brackets the system also knows a link by its name: fe80::1%eth0.
    let name = name.trim_start_matches('[').trim_end_matches(']');
    let unknown = |error| {
        let step = "check the spelling, or give the address in numbers";
        Error::io("find the host", escape(host))(error).advise(step)
    };
    let addrs: Vec<SocketAddr> = (name, port).to_socket_addrs().map_err(unknown)?.collect();
    if addrs.is_empty() { Err(Error::refused(host, "the name has no address")) } else { Ok(addrs) }
}

/// The name and the port of `HOST` or `HOST:PORT`.
fn split_host(host: &str, default_port: u16) -> Result<(&str, u16), InvalidValue> {
    if host.is_empty() || host.contains('/') {
        let expected = "HOST or HOST:PORT; a file's name is a word of its own behind it";
        return Err(InvalidValue::new("address", host, expected));
    }
    // The colons of an IPv6 address without brackets belong to it.
    let with_port = host
        .rsplit_once(':')
        .filter(|(name, _)| !name.is_empty() && (!name.contains(':') || name.ends_with(']')));
    let Some((name, port)) = with_port else {
        return Ok((host, default_port));
    };
    let number = line::decimal(port).and_then(|port| u16::try_from(port).ok());
    let invalid = || InvalidValue::new("port", port, format!("1 to 65535 in '{}'", escape(host)));
    Ok((name, number.filter(|&port| port > 0).ok_or_else(invalid)?))
}

/// `ip` as an IPv4 address, also where it is mapped into IPv6.
pub fn ipv4(ip: IpAddr) -> Option<Ipv4Addr> {
    match ip.to_canonical() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

/// `addr` as an IPv4 one where it is an IPv4-mapped IPv6 one (RFC 4291, section 2.5.5.2); any other
/// as it is, with the link that a link-local address is of.
pub fn canonical(addr: SocketAddr) -> SocketAddr {
    match addr.ip().to_canonical() {
        IpAddr::V4(ip) => (ip, addr.port()).into(),
        IpAddr::V6(_) => addr,
    }
}

/// The address of this machine on the way to others; `None` where there is no such way.
pub fn outward() -> Option<IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // Connecting a UDP socket sends nothing, it only asks the routing table. 192.0.2.0/24 is
    // nobody's (RFC 5737).
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_address_is_ipv4_and_local_one_keeps_its_link() {
        let of = |text: &str| canonical(text.parse().expect("an address")).to_string();
        assert_eq!(of("[::ffff:192.0.2.1]:80"), "192.0.2.1:80");
        assert_eq!(of("[fe80::1%3]:80"), "[fe80::1%3]:80");
        assert_eq!(of("192.0.2.1:80"), "192.0.2.1:80");
    }

    #[test]
    fn hosts_are_read_with_and_without_port() {
        let first = |host: &str| resolve(host, 8080).map(|addrs| addrs[0].to_string()).ok();
        assert_eq!(first("127.0.0.1").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(first("127.0.0.1:9").as_deref(), Some("127.0.0.1:9"));
        assert_eq!(first("::1").as_deref(), Some("[::1]:8080"));
        assert_eq!(first("[::1]").as_deref(), Some("[::1]:8080"));
        assert_eq!(first("[::1]:9").as_deref(), Some("[::1]:9"));
        assert_eq!(first("127.0.0.1:65535").as_deref(), Some("127.0.0.1:65535"));
        let refused = |host: &str| resolve(host, 8080).expect_err("no address").to_string();
        for (host, port) in [
            ("127.0.0.1:99999", "99999"),
            ("127.0.0.1:65536", "65536"),
            ("127.0.0.1:0", "0"),
            ("localhost:", ""),
            ("localhost:http", "http"),
            ("[::1]:+1", "+1"),
        ] {
            let expected = format!("invalid port '{port}': expected 1 to 65535 in '{host}'");
            assert_eq!(refused(host), expected);
        }
        for host in ["", "127.0.0.1:8080/text.txt", "http://localhost/", "localhost/"] {
            let expected = format!("invalid address '{host}': expected HOST or HOST:PORT; ");
            assert!(refused(host).starts_with(&expected), "{}", refused(host));
        }
        if cfg!(target_os = "linux") {
            // The first link of every namespace is loopback.
            for host in ["[fe80::1%lo]:9", "[fe80::1%1]:9"] {
                assert_eq!(first(host).as_deref(), Some("[fe80::1%1]:9"), "{host}");
            }
            assert_eq!(first("fe80::1%lo").as_deref(), Some("[fe80::1%1]:8080"));
        }
    }
}

//! Who may look, and who may change something.
//!
//! A web page elsewhere can make a browser ask us anything, in two ways. It can point its own
//! name at our address (DNS rebinding) and read the answers: so the host that was asked for must
//! be an address, `localhost` or a name of ours. And it can post blindly: so a change needs a
//! header with the token, which no page elsewhere can read or send. Besides, changes are taken
//! from loopback only, unless the server was started with the addresses of others. A proxy on this
//! machine is loopback to us, and so is everybody who comes through it.

use std::net::IpAddr;
use std::net::SocketAddr;

use crate::http::Face;
use crate::net::clock;
use crate::proto::http::request::Request;

/// The header field with the token.
pub const TOKEN: &str = "gatecast-token";

/// A token that nobody guesses, 32 hexadecimal digits.
pub fn random_token() -> String {
    format!("{:016x}{:016x}", clock::random(), clock::random())
}

impl Face {
    /// True when the request asks for a host that can only be this server.
    pub(super) fn knows_host(&self, request: &Request) -> bool {
        // Only HTTP/1.0 has no host, and no browser speaks it.
        request
            .host
            .as_deref()
            .is_none_or(|host| is_ours(host, &self.options.hosts))
    }

    /// True when `peer` may change something, with the token.
    pub(super) fn may_change(&self, peer: SocketAddr) -> bool {
        let ip = peer.ip().to_canonical();
        let from = &self.options.control_from;
        ip.is_loopback()
            || from
                .iter()
                .any(|&other| other == ip || other.is_unspecified())
    }

    /// True when the request carries the token.
    pub(super) fn has_token(&self, request: &Request) -> bool {
        let shown = request.fields.get(TOKEN).unwrap_or_default();
        same(shown.as_bytes(), self.token.as_bytes())
    }

    /// The token, for the page of somebody on this machine.
    pub(super) fn token_for(&self, peer: SocketAddr) -> Option<&str> {
        peer.ip()
            .to_canonical()
            .is_loopback()
            .then_some(&*self.token)
    }
}

fn is_ours(host: &str, names: &[String]) -> bool {
    if host.parse::<IpAddr>().is_ok() || host == "localhost" || host.ends_with(".localhost") {
        return true;
    }
    if names.iter().any(|name| name.eq_ignore_ascii_case(host)) {
        return true;
    }
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let own = own.trim().to_ascii_lowercase();
    !own.is_empty() && (host == own || host.strip_suffix(".local") == Some(&own))
}

/// Compares without telling by its time where the first difference is.
fn same(one: &[u8], two: &[u8]) -> bool {
    one.len() == two.len() && one.iter().zip(two).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use crate::http::Options;
    use crate::server::builder::ServerCoreBuilder;
    use crate::server::catalog::Catalog;
    use crate::server::config::ServerConfig;

    use super::*;

    #[test]
    fn addresses_and_own_names_are_ours_and_other_names_are_not() {
        let names = ["teacher.lab".to_owned()];
        for host in [
            "127.0.0.1",
            "::1",
            "192.168.1.10",
            "localhost",
            "x.localhost",
            "teacher.lab",
        ] {
            assert!(is_ours(host, &names), "{host}");
        }
        for host in [
            "evil.example",
            "",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "lab",
            ".local",
        ] {
            assert!(!is_ours(host, &names), "{host}");
        }
    }

    #[test]
    fn changes_are_taken_from_loopback_and_from_whom_was_named() {
        let face = |from: &[[u8; 4]]| {
            let options = Options {
                control_from: from.iter().map(|&ip| IpAddr::from(ip)).collect(),
                ..Options::default()
            };
            let host = ServerCoreBuilder::new(Catalog::default(), ServerConfig::default());
            Face::new(&host, options).expect("settings that every system has")
        };
        let here = SocketAddr::from(([127, 0, 0, 1], 5));
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:5".parse().expect("an address");
        let (teacher, pupil) = (
            SocketAddr::from(([10, 0, 0, 5], 5)),
            SocketAddr::from(([10, 0, 0, 6], 5)),
        );
        let who = |face: &Face| [here, mapped, teacher, pupil].map(|peer| face.may_change(peer));
        assert_eq!(who(&face(&[])), [true, true, false, false]);
        assert_eq!(who(&face(&[[10, 0, 0, 5]])), [true, true, true, false]);
        assert_eq!(who(&face(&[[0, 0, 0, 0]])), [true; 4]);
        let face = face(&[[0, 0, 0, 0]]);
        assert!(face.token_for(mapped).is_some());
        assert_eq!(
            face.token_for(teacher),
            None,
            "the page tells nobody else the token"
        );
    }

    #[test]
    fn tokens_are_long_random_and_compared_whole() {
        let token = random_token();
        assert_eq!(token.len(), 32);
        assert_ne!(token, random_token());
        assert!(same(token.as_bytes(), token.as_bytes()));
        assert!(!same(token.as_bytes(), b""));
        assert!(!same(token.as_bytes(), &token.as_bytes()[1..]));
    }
}
